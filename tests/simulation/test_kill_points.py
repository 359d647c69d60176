"""A program that is killed between any two steps of answering, and started again from its disk.

The contract under test: wherever a head-end is killed while it handles a report, the report is in
the store once and the meter settles it, without a hand; wherever a meter is killed while it
answers an on-demand read, the read ends and the next one is answered. No pair of key and nonce
ever covers two plaintexts; and every datagram that was ever sent may come once more afterwards
without changing any of that.

Steps are the calls below, before and after; all of them are found by a run without a kill.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from amistack import stack
from amistack.stack import answers, secured
from amistack.telemetry import configure
from headend.domain.readings import ReadResult
from headend.southbound.intake import Intake
from headend.store.sqlite import SqliteStore
from headend.store.sqlite import store as sqlite_store
from headend.store.sqlite.beat import Beat
from interop.world.loop import run_virtually
from interop.world.network import Network
from interop.world.world import HEAD_END, MeterNode, World
from meterd.agent import Agent, Stage
from meterd.agent.answering import Answering
from meterd.recorder import Recorder
from meterd.storage import Storage
from tests.scenarios import readback
from tests.session.oscore_support import RecordingCipher
from tests.simulation.test_world import scratch

DAY_S = 86_400
TODAY = 20_619
NOON = TODAY * DAY_S + 43_200.0
DAYS = range(TODAY - 3, TODAY)
INTERVAL_S = 3_600
COUNT = DAY_S // INTERVAL_S
DOWN_S = 0.3
PATIENCE_S = 7_200.0

METER = ("10.0.1.1", 5683)
FIRST_STEP = "before open_request"


class Killed(BaseException):
    """Goes through everything, as nothing in a program can hold a SIGKILL."""


@dataclass
class Steps:
    """The steps of one program's work, and the one at which it is killed.

    Once `is_armed` says so they count, from a request that comes to its answer that is sent;
    after a restart they count anew.
    """

    kill_at: int | None = None
    kills_left: int = 0
    is_armed: Callable[[], bool] = lambda: False
    seen: list[str] = field(default_factory=list)
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    is_dead: bool = False

    def watch(
        self,
        patch: pytest.MonkeyPatch,
        owner: Any,
        name: str,
        *,
        is_ours: Callable[..., bool] = lambda *_: True,
        is_last: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make `owner.name` two steps, where `is_ours` says so of its arguments."""
        original = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            if not is_ours(*arguments):
                return original(*arguments, **named)
            self._pass(f"before {name}")
            result = original(*arguments, **named)
            self._pass(f"after {name}")
            if is_last():
                self.finished.set()
            return result

        patch.setattr(owner, name, watched)

    def _pass(self, step: str) -> None:
        if self.is_dead:
            raise Killed(step)
        if self.finished.is_set() or not self.is_armed():
            return
        if not self.seen and step != FIRST_STEP:
            return
        self.seen.append(step)
        if self.kills_left and len(self.seen) - 1 == self.kill_at:
            self.kills_left -= 1
            self.is_dead = True
            self.killed.set()
            raise Killed(step)

    async def over(self) -> bool:
        """Wait until it is killed (True) or has answered."""
        waits = [asyncio.create_task(one.wait()) for one in (self.killed, self.finished)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        for one in waits:
            one.cancel()
        assert self.killed.is_set() or self.finished.is_set(), f"no answer: {self.seen}"
        return self.killed.is_set()

    def born_again(self) -> None:
        self.is_dead = False
        self.killed.clear()
        self.seen.clear()


def watch_head_end(steps: Steps, patch: pytest.MonkeyPatch, world: World) -> None:
    """The steps of handling a report."""

    def own() -> stack.Stack | None:
        return None if world.head_end is None else world.head_end.southbound._stack

    steps.watch(patch, Intake, "take")
    steps.watch(patch, SqliteStore, "submit")
    steps.watch(patch, sqlite_store, "apply_all")
    steps.watch(patch, SqliteStore, "_transact")
    # Before and after COMMIT, as nearly as a call shows it.
    steps.watch(patch, Beat, "advance")
    steps.watch(patch, Beat, "note")
    steps.watch(patch, SqliteStore, "_tell")
    watch_stack(steps, patch, own, HEAD_END)


def watch_meter(steps: Steps, patch: pytest.MonkeyPatch, node: MeterNode) -> None:
    """The steps of answering an on-demand read."""

    def own() -> stack.Stack | None:
        return None if node.meter is None else node.meter.agent._stack

    steps.watch(patch, Agent, "_answer")
    steps.watch(patch, Storage, "keep_window")
    steps.watch(patch, Answering, "answer")
    steps.watch(patch, Recorder, "advance")
    watch_stack(steps, patch, own, METER)


def watch_stack(
    steps: Steps,
    patch: pytest.MonkeyPatch,
    own: Callable[[], stack.Stack | None],
    address: tuple[str, int],
) -> None:
    """The steps below, of the stack that is `own` at the moment; the other side has one too."""

    def is_own(one: stack.Stack, *_: Any) -> bool:
        return one is own()

    def is_of_own(context: object, *_: Any) -> bool:
        mine = own()
        return mine is not None and any(context is one for one in mine._secured._sessions.values())

    def is_own_table(_: bytes, table: object) -> bool:
        mine = own()
        return mine is not None and table is mine._secured._contexts

    steps.watch(patch, secured, "open_request", is_ours=is_own_table)
    steps.watch(patch, secured, "unprotect_request", is_ours=is_of_own)
    steps.watch(patch, stack.Stack, "respond", is_ours=is_own)
    # In these stories nobody but the watched one answers.
    steps.watch(patch, answers, "seal_answer")
    steps.watch(patch, answers, "protect_response", is_ours=is_of_own)
    steps.watch(patch, stack.Stack, "data_to_send", is_ours=is_own)
    steps.watch(
        patch,
        Network,
        "send",
        is_ours=lambda _, source, *__: source == address,
        is_last=lambda: not {"after protect_response", "after seal_answer"}.isdisjoint(steps.seen),
    )


# The world around


def household() -> dict[int, tuple[int, ...]]:
    """Each day's values, those of today and tomorrow as well."""
    dice = random.Random(5)
    return {
        day: tuple(dice.randrange(3_000) for _ in range(COUNT)) for day in range(DAYS[0], TODAY + 2)
    }


@dataclass
class Story:
    """One world, and all that was ever sent in it."""

    world: World
    node: MeterNode
    sent: list[tuple[tuple[str, int], tuple[str, int], bytes]]

    @classmethod
    async def begin(cls, folder: Path) -> Story:
        """A head-end, and a meter that owes three days and does not run yet."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_forgive_killed)
        folder.mkdir()  # noqa: ASYNC240  the world waits for nobody
        world = World(1, folder, NOON)
        sent: list[tuple[tuple[str, int], tuple[str, int], bytes]] = []
        world.network.watchers.append(lambda *datagram: sent.append(datagram))
        await world.start_head_end()
        node = await world.add_meter(('source = "replay"', 'path = "load.csv"', 'unit = "Wh"'))
        assert node.address == METER[0]
        rows = [
            f"{day * DAY_S + place * INTERVAL_S},{value}"
            for day, values in household().items()
            for place, value in enumerate(values)
        ]
        (node.folder / "load.csv").write_text("start,value\n" + "\n".join(rows) + "\n")
        return cls(world, node, sent)

    def settled(self) -> set[int]:
        """The days that the meter needs not tell any more."""
        assert self.node.meter is not None
        return set(DAYS) - set(self.node.meter.agent._recorder.owed_days())

    def stored(self) -> set[int]:
        reported = readback.reported_days(self.world.folder / "headend.sqlite")
        return reported.get(self.node.identity.meter.hex(), set())

    async def send_all_again(self) -> None:
        """Every datagram of this world comes once more, at those that are there now."""
        for datagram in list(self.sent):
            self.world.network.send(*datagram)
        await asyncio.sleep(30.0)

    async def end(self) -> None:
        """The meter settles all; old datagrams change nothing; it answers; all is as it was."""
        assert await self.world.until_settled(at_most_s=PATIENCE_S), "not settled"
        assert self.stored() == set(DAYS)
        await self.send_all_again()
        await self._expect_answer()
        # Both once more, so that numbers used since the last start show if they are used again.
        await self.world.kill_head_end()
        self.world.kill_meter(self.node)
        await self.world.start_head_end()
        await self.world.start_meter(self.node)
        await self._expect_answer()
        assert await self.world.until_settled(at_most_s=PATIENCE_S), "not settled"
        await self.world.stop()
        self._judge()

    async def _expect_answer(self) -> None:
        read = await self.world.read(self.node)
        assert read.result is ReadResult.ANSWERED, read

    def _judge(self) -> None:
        store = self.world.folder / "headend.sqlite"
        meter = self.node.identity.meter.hex()
        expected, opening = {}, 0
        for day in DAYS:
            values = household()[day]
            expected[(meter, 1, day)] = readback.StoredDay(opening, sum(values), values)
            opening += sum(values)
        assert readback.stored_days(store) == expected
        assert readback.quarantined(store) == []
        assert readback.ASKED not in readback.reads(store).values()


def _forgive_killed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)


def expect_no_nonce_for_two(cipher: RecordingCipher) -> None:
    covered: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
    for key, nonce, aad, plaintext in cipher.used:
        first = covered.setdefault((key, nonce), (aad, plaintext))
        assert first == (aad, plaintext), "one nonce for two plaintexts"
    assert len(covered) > len(DAYS)


# Kills of the head-end


async def report(steps: Steps, patch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """A meter reports, and the head-end is killed as `steps` say; the steps of its first life."""
    story = await Story.begin(folder)
    world = story.world
    watch_head_end(steps, patch, world)

    def is_reporting() -> bool:
        return story.node.meter is not None and story.node.meter.agent.stage is Stage.REPORTING

    steps.is_armed = is_reporting
    await world.start_meter(story.node)
    first: list[str] = []
    while await steps.over():
        first = first or list(steps.seen)
        await world.kill_head_end()
        assert story.settled() <= story.stored(), "settled and not stored"
        await asyncio.sleep(DOWN_S)
        steps.born_again()
        await world.start_head_end()
    first = first or list(steps.seen)
    steps.is_armed = lambda: False
    await story.end()
    return first


# Kills of the meter


async def read(steps: Steps, patch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """A meter is read and killed meanwhile, as `steps` say; the steps of its first life."""
    story = await Story.begin(folder)
    world = story.world
    await world.start_meter(story.node)
    assert await world.until_settled(at_most_s=PATIENCE_S)
    watch_meter(steps, patch, story.node)
    steps.is_armed = lambda: True
    reading = [asyncio.create_task(world.read(story.node))]
    first: list[str] = []
    while await steps.over():
        first = first or list(steps.seen)
        world.kill_meter(story.node)
        await asyncio.sleep(DOWN_S)
        steps.born_again()
        await world.start_meter(story.node)
        # What the kill left unanswered is asked on, and refused or answered; this is new.
        reading.append(asyncio.create_task(world.read(story.node)))
    first = first or list(steps.seen)
    results = [one.result for one in await asyncio.gather(*reading)]
    assert ReadResult.ASKED not in results
    assert results[-1] is ReadResult.ANSWERED
    await story.end()
    return first


Tale = Callable[[Steps, pytest.MonkeyPatch, Path], Any]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    configure("error")
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def told(
    tale: Tale,
    folder: Path,
    *,
    is_direct: bool,
    kill_at: int | None = None,
    kill_count: int = 0,
) -> tuple[list[str], int]:
    """One run of a tale; the steps of its first life, and how many kills it lived through."""
    cipher = RecordingCipher()
    with pytest.MonkeyPatch.context() as patch:
        cipher.watch(patch)
        if not is_direct:
            patch.setattr(secured, "open_request", lambda *_: None)
            patch.setattr(answers, "seal_answer", lambda *_: None)

        async def run() -> tuple[list[str], int]:
            steps = Steps(kill_at, kill_count)
            seen = await tale(steps, patch, folder)
            return seen, kill_count - steps.kills_left

        found = run_virtually(run())
    expect_no_nonce_for_two(cipher)
    return found


@pytest.mark.parametrize("kill_count", [1, 2])
@pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "general"])
@pytest.mark.parametrize(("tale", "least"), [(report, 16), (read, 12)], ids=["report", "read"])
def test_killed_at_any_step_nothing_is_lost_doubled_or_said_under_a_used_nonce(
    tale: Tale, least: int, kill_count: int, is_direct: bool
) -> None:
    with scratch() as folder:
        kill_everywhere(tale, folder, least=least, kill_count=kill_count, is_direct=is_direct)


def kill_everywhere(
    tale: Tale, folder: Path, *, least: int, kill_count: int, is_direct: bool
) -> None:
    """Find the steps, then kill at each of them in a world of its own."""
    steps, _ = told(tale, folder / "unhurt", is_direct=is_direct)
    assert ("before unprotect_request" in steps) is not is_direct
    assert len(steps) >= least, steps
    killed = 0
    for place, step in enumerate(steps):
        try:
            seen, kills = told(
                tale,
                folder / f"{place}",
                is_direct=is_direct,
                kill_at=place,
                kill_count=kill_count,
            )
        except AssertionError as error:
            raise AssertionError(f"killed at {place}, {step}: {error}") from error
        assert seen == steps[: place + 1]
        killed += kills
    assert killed == kill_count * len(steps)
