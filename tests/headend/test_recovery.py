"""Asking meters for the past days that a restored store lacks.

The contract under test: a meter is asked when it is heard, if it is to be asked, and only then; it
is asked for what is missing among the days that it keeps, counted in its own offset; it is done
when it said yes, durably, and not before; whatever goes wrong it is asked again when it is next
heard, also after a restart; at most so many are asked at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import StoreBusy, StoreError
from amistack.identifiers import Eui64
from amistack.model import CONTENT_FORMAT_V1, ReportRequest
from headend.collection import recovery as recovery_module
from headend.collection.recovery import DEADLINE_S, KEPT_DAYS, Recovery
from headend.domain.asking import NotAnswered, Unreachable
from headend.domain.meters import Meter, MeterState
from headend.southbound.intake import record_of
from headend.store.interface import EnrolMeters, KeepSession, Outcome, RecallDone, Write
from headend.store.sqlite import SqliteStore
from meterd.recorder import RETENTION_DAYS
from tests.headend.test_store import PATH, deliver, report_record, session
from tests.support.headend import NOW, TODAY, meter_id, public_key, registration, until

DAY_S = 86_400
A, B, C = (meter_id(number) for number in (1, 2, 3))
EVERY_DAY = list(range(TODAY - KEPT_DAYS, TODAY))


class Meters:
    """Meters that say yes when they are asked for past days: an `Asker`."""

    def __init__(self) -> None:
        self.asked: list[tuple[Eui64, ReportRequest]] = []
        self.answer: Message | Exception = Message.response(Code.CHANGED)
        self.gate: asyncio.Event | None = None

    async def ask(
        self, meter: Eui64, message: Message, *, deadline_s: float
    ) -> tuple[Message, str]:
        assert (message.code, message.path) == (Code.POST, "rep")
        assert message.content_format == CONTENT_FORMAT_V1
        assert deadline_s == DEADLINE_S
        self.asked.append((meter, ReportRequest.decode(message.payload)))
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, PATH

    def path_of(self, meter: Eui64) -> str | None:
        return PATH


class World:
    """A restored store with three meters, of which `C` is to be asked no more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore.open(path)
        self.meters = Meters()
        self.now = float(NOW)
        self.recovery = self.new_recovery()

    def new_recovery(self) -> Recovery:
        return Recovery(store=self.store, asker=self.meters, wall=lambda: self.now)

    async def begin(self) -> None:
        await self.enrol(A, B, C)
        await self.store.close()
        self.path.with_name(self.path.name + "-beat").unlink()
        self.store = SqliteStore.open(self.path)
        await self.store.commit(RecallDone(C))
        await self.restart()

    async def enrol(self, *meters: Eui64) -> None:
        rows = [Meter(m, public_key(m.hex()), MeterState.ENROLLED, NOW) for m in meters]
        await self.store.commit(EnrolMeters(tuple(rows)))
        for meter in meters:
            await self.store.commit(KeepSession(session(meter, meter[4:]), PATH))
            await self.register(meter, offset_min=0)

    async def register(self, meter: Eui64, *, offset_min: int) -> None:
        record = record_of(registration(meter, offset_min=offset_min), NOW)
        await self.store.commit(deliver(record, meter=meter))

    async def report(self, meter: Eui64, *days: int) -> None:
        await self.store.commit(
            deliver(*[report_record(meter, day=day) for day in days], meter=meter)
        )

    async def restart(self) -> None:
        self.recovery.stop()
        self.recovery = self.new_recovery()
        await self.recovery.start()

    async def hear(self, *meters: Eui64) -> None:
        """They are heard, and what follows ends."""
        for meter in meters:
            self.recovery.heard(meter)
        await until(lambda: self.recovery.depth[0] == 0)

    async def left(self) -> set[Eui64]:
        return set(await self.store.recalls())


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "s.sqlite")
    await made.begin()
    yield made
    made.recovery.stop()
    await asyncio.sleep(0)
    await made.store.close()


# Who is asked, and for what


async def test_meter_is_asked_for_every_day_when_nothing_is_stored(world: World) -> None:
    await world.hear(A)
    assert world.meters.asked == [(A, ReportRequest(EVERY_DAY[0], EVERY_DAY[-1]))]
    assert await world.left() == {B}
    assert world.recovery.counters == {"recalled": 1}


async def test_nobody_is_asked_before_being_heard(world: World) -> None:
    await asyncio.sleep(0.01)
    assert world.meters.asked == []
    assert world.recovery.depth == (0, recovery_module.ASKED_MAX)


async def test_meter_that_is_not_to_be_asked_is_not(world: World) -> None:
    await world.hear(C, meter_id(77))
    assert world.meters.asked == []


async def test_meter_that_said_yes_is_not_asked_again(world: World) -> None:
    await world.hear(A)
    await world.hear(A)
    await world.restart()
    await world.hear(A)
    assert [meter for meter, _ in world.meters.asked] == [A]


async def test_only_the_span_of_what_is_missing_is_asked_for(world: World) -> None:
    missing = {TODAY - 20, TODAY - 12, TODAY - 7}
    await world.report(A, *[day for day in EVERY_DAY if day not in missing])
    await world.hear(A)
    assert world.meters.asked == [(A, ReportRequest(TODAY - 20, TODAY - 7))]


async def test_meter_of_which_nothing_is_missing_is_done_without_a_word(world: World) -> None:
    await world.report(A, *EVERY_DAY)
    await world.hear(A)
    assert world.meters.asked == []
    assert await world.left() == {B}


async def test_what_another_meter_reported_does_not_count(world: World) -> None:
    await world.report(B, *EVERY_DAY)
    await world.hear(A)
    assert world.meters.asked == [(A, ReportRequest(EVERY_DAY[0], EVERY_DAY[-1]))]


async def test_days_beyond_those_that_a_meter_keeps_do_not_count(world: World) -> None:
    await world.report(A, *EVERY_DAY)
    await world.report(A, TODAY - KEPT_DAYS - 5)
    await world.hear(A)
    assert world.meters.asked == []


def test_as_many_days_are_asked_for_as_a_meter_keeps() -> None:
    assert KEPT_DAYS == RETENTION_DAYS


@pytest.mark.parametrize(
    ("hour", "offset_min", "newest"),
    [
        (12, 0, TODAY - 1),
        (0, 0, TODAY - 1),
        (0, -1, TODAY - 2),
        (23, 59, TODAY - 1),
        (23, 60, TODAY),
        (3, -360, TODAY - 2),
        (6, -360, TODAY - 1),
        (11, 840, TODAY),
    ],
)
async def test_days_are_counted_in_the_meters_own_offset(
    world: World, hour: int, offset_min: int, newest: int
) -> None:
    world.now = TODAY * DAY_S + hour * 3600.0
    await world.register(A, offset_min=offset_min)
    await world.hear(A)
    assert world.meters.asked == [(A, ReportRequest(newest - KEPT_DAYS + 1, newest))]


# What goes wrong


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (Message.response(Code.NOT_FOUND), "recall refused"),
        (Message.response(Code.BAD_REQUEST), "recall refused"),
        (Message.response(Code.SERVICE_UNAVAILABLE, max_age=60), "recall refused"),
        (Message.response(Code.CONTENT), "recall refused"),
        (NotAnswered("silent for 60 s", is_timeout=True), "recall not answered"),
        (NotAnswered("response not protected", is_timeout=False), "recall not answered"),
        (Unreachable("the meter has not been heard yet"), "recall not answered"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
async def test_meter_that_did_not_say_yes_is_asked_again_when_it_is_next_heard(
    world: World, answer: Message | Exception, counted: str
) -> None:
    world.meters.answer = answer
    await world.hear(A)
    assert world.recovery.counters == {counted: 1}
    assert await world.left() == {A, B}
    world.meters.answer = Message.response(Code.CHANGED)
    await world.hear(A)
    assert [meter for meter, _ in world.meters.asked] == [A, A]
    assert await world.left() == {B}


@pytest.mark.parametrize("error", [StoreError("disk full"), StoreBusy("16384 writes wait")])
async def test_yes_that_cannot_be_stored_is_asked_for_again(
    world: World, error: StoreError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(write: Write) -> Outcome:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "commit", fails)
        await world.hear(A)
    assert world.recovery.counters == {"recall not stored": 1}
    await world.hear(A)
    assert await world.left() == {B}
    assert len(world.meters.asked) == 2


async def test_store_that_cannot_be_read_costs_a_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> list[int]:
        raise StoreError("the store cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "report_days", fails)
        await world.hear(A)
    assert world.meters.asked == []
    assert await world.left() == {A, B}


async def test_meter_that_is_not_registered_here_waits_for_that(tmp_path: Path) -> None:
    """Its days cannot be counted yet; it must not pass for one that lacks nothing."""
    world = World(tmp_path / "s.sqlite")
    rows = (Meter(A, public_key("a"), MeterState.ENROLLED, NOW),)
    await world.store.commit(EnrolMeters(rows))
    await world.store.commit(KeepSession(session(A), PATH))
    await world.store.close()
    world.path.with_name(world.path.name + "-beat").unlink()
    world.store = SqliteStore.open(world.path)
    await world.restart()
    await world.hear(A)
    assert world.meters.asked == []
    assert await world.left() == {A}
    assert world.recovery.counters == {"recall put off": 1}
    await world.register(A, offset_min=0)
    await world.hear(A)
    assert [meter for meter, _ in world.meters.asked] == [A]
    assert await world.left() == set()
    await world.store.close()


@pytest.mark.parametrize("now", [-1e6, 0.0, 44.9 * DAY_S])
async def test_clock_near_1970_puts_it_off(world: World, now: float) -> None:
    world.now = now
    await world.hear(A)
    assert world.meters.asked == []
    assert world.recovery.counters == {"recall put off": 1}
    assert await world.left() == {A, B}
    world.now = float(NOW)
    await world.hear(A)
    assert world.meters.asked == [(A, ReportRequest(EVERY_DAY[0], EVERY_DAY[-1]))]


# How many, and restarts


async def test_meter_that_is_being_asked_is_not_asked_twice(world: World) -> None:
    world.meters.gate = asyncio.Event()
    world.recovery.heard(A)
    await until(lambda: bool(world.meters.asked))
    world.recovery.heard(A)
    assert world.recovery.depth[0] == 1
    world.meters.gate.set()
    await until(lambda: world.recovery.depth[0] == 0)
    assert len(world.meters.asked) == 1


async def test_so_many_are_asked_at_a_time_and_the_next_when_it_is_heard_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_module, "ASKED_MAX", 1)
    world.meters.gate = asyncio.Event()
    world.recovery.heard(A)
    world.recovery.heard(B)
    assert world.recovery.depth == (1, 1)
    world.meters.gate.set()
    await until(lambda: world.recovery.depth[0] == 0)
    assert [meter for meter, _ in world.meters.asked] == [A]
    await world.hear(B)
    assert [meter for meter, _ in world.meters.asked] == [A, B]
    assert await world.left() == set()


async def test_restart_in_between_asks_who_had_not_said_yes(world: World) -> None:
    await world.hear(A)
    world.meters.gate = asyncio.Event()
    world.recovery.heard(B)
    await until(lambda: len(world.meters.asked) == 2)
    world.recovery.stop()
    await until(lambda: world.recovery.depth[0] == 0)
    await world.store.close()
    world.store = SqliteStore.open(world.path)
    assert not world.store.is_restored
    world.meters.gate = None
    await world.restart()
    await world.hear(A, B)
    assert [meter for meter, _ in world.meters.asked] == [A, B, B]
    assert await world.left() == set()


async def test_nobody_is_asked_after_the_stop(world: World) -> None:
    world.recovery.stop()
    await world.hear(A, B)
    assert world.meters.asked == []
    assert await world.left() == {A, B}


async def test_store_that_was_never_put_back_recalls_nobody(tmp_path: Path) -> None:
    world = World(tmp_path / "s.sqlite")
    await world.enrol(A)
    await world.restart()
    await world.hear(A)
    assert world.meters.asked == []
    await world.store.close()
