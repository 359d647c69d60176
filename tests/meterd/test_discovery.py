"""A meter that was not told where its head-end is: it searches, tries, and holds on to what proved.

The contract under test: whoever announces what, the meter reports to the head-end whose key it
pins, and to nobody else; it goes from one address to the next and searches again, each time later;
and a meter that has an address neither searches nor loads what searching takes.
"""

from __future__ import annotations

import asyncio
import importlib.util
import io
import itertools
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message
from amistack.errors import CoapError, ConfigError, LinkError
from amistack.links import UdpLink, open_udp
from amistack.links.discovery import Announcement
from amistack.links.host import Host
from amistack.machine import Peer
from amistack.session.fleet import encode_public_key, head_end_kid, meter_credential
from amistack.session.handshakes import WELL_KNOWN_EDHOC
from interop.world.loop import run_virtually
from interop.world.network import Network
from meterd import daemon
from meterd.agent import RETRY_MAX, AgentEvent, HeadEndWanted, Hindered, Reported, Stage
from meterd.daemon import Meter, load_settings
from meterd.finding import LOST_AFTER, Finding
from meterd.provision import CONFIG_FILE, Template, provision
from tests.support.head_end import HeadEnd, head_end_key, key_of
from tests.support.multicast import needs_multicast

POINT = encode_public_key(key_of(1).public_key())
PUBLIC_KEY = POINT.hex()
KID = head_end_kid(POINT).hex()
UTC = 1_790_000_000.0
DAY = 86_400
METER_HOST = "10.0.1.1"
TRUE = ("10.0.0.1", 5683)
MOVED = ("10.0.0.2", 5683)
FALSE = ("10.0.0.66", 5683)
FALSE_TOO = ("10.0.0.67", 5683)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger of this module's own, whatever another set up for the process."""
    monkeypatch.setattr(daemon, "LOG", structlog.wrap_logger(structlog.PrintLogger(io.StringIO())))


# Which address next


def test_every_address_of_a_search_is_tried_once_then_a_search_is_due() -> None:
    finding = Finding()
    assert finding.next() is None
    finding.take(["a", "b", "a"])
    assert [finding.next(), finding.next(), finding.next()] == ["a", "b", None]


def test_address_that_never_proved_is_left_at_its_first_failure() -> None:
    finding = Finding()
    finding.take(["a"])
    finding.next()
    assert finding.fail()


def test_address_that_proved_is_left_after_failures_in_a_row_only() -> None:
    finding = Finding()
    finding.take(["a"])
    finding.next()
    for _ in range(5):
        finding.prove()
        assert [finding.fail() for _ in range(LOST_AFTER - 1)] == [False] * (LOST_AFTER - 1)
    assert finding.fail()


def test_proof_that_comes_between_addresses_takes_nothing_away() -> None:
    finding = Finding()
    finding.take(["a"])
    finding.next()
    finding.prove()
    assert finding.next() is None
    finding.prove()
    finding.take([])
    assert finding.next() == "a"


@given(st.lists(st.sampled_from("abcdef")), st.sampled_from("abcdef"))
def test_last_good_address_is_first_if_still_announced_and_last_if_not(
    found: list[str], good: str
) -> None:
    finding = Finding()
    finding.take([good])
    finding.next()
    finding.prove()
    finding.take(found)
    tried = list(iter(finding.next, None))
    assert sorted(map(str, tried)) == sorted({*found, good})
    assert tried[0 if good in found else -1] == good


# A meter in a world of announcements


@dataclass
class Announcements:
    """What is announced in the world, to whoever asks."""

    peers: list[tuple[str, int]] = field(default_factory=list)
    takes_s: float = 1.5
    fails_with: LinkError | None = None
    searches: list[float] = field(default_factory=list)
    under_way: int = 0

    def require(self) -> None:
        pass

    async def find(self, kid: str, *, host: str) -> Sequence[Peer]:
        assert (kid, host) == (KID, METER_HOST)
        self.searches.append(asyncio.get_running_loop().time())
        self.under_way += 1
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.under_way -= 1
        if self.fails_with is not None:
            raise self.fails_with
        return list(self.peers)


class Hole:
    """A machine that hears everything and says nothing, or `answer`s."""

    def __init__(self, answer: Code | None = None) -> None:
        self.heard: list[tuple[float, bytes]] = []
        self._answer = answer
        self._sending: list[tuple[Peer, bytes]] = []

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        self.heard.append((now, data))
        if self._answer is None:
            return
        try:
            request = Message.decode(data)
        except CoapError:
            return
        answer = Message(self._answer, Type.ACK, message_id=request.message_id, token=request.token)
        self._sending.append((peer, answer.encode()))

    def handle_timer(self, *, now: float) -> None:
        pass

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        sending, self._sending = self._sending, []
        return sending

    def events(self) -> list[object]:
        return []

    def next_timer(self) -> float | None:
        return None


class World:
    """A head-end, announcements, and one meter with no address, on a virtual clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network(random.Random(1))
        self.announced = Announcements()
        self.log: list[tuple[float, AgentEvent]] = []
        template = Template(
            public_key=PUBLIC_KEY,
            metrology=('source = "constant"', "watts = 500", "interval_s = 3600"),
            schedule=(
                "report_delay_s = 60",
                "report_spread_s = 0",
                "start_spread_s = 0",
                "catch_up_s = 0",
            ),
        )
        self.identity = provision(folder, template)
        config = folder / CONFIG_FILE
        config.write_text(config.read_text() + f'\n[link]\nlisten = "{METER_HOST}:0"\n')
        self.head_end = self.make_head_end(1)
        self.link: UdpLink[object] | None = None
        self.meter: Meter | None = None
        self.begins_at = asyncio.get_running_loop().time()

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self, now: float) -> float:
        return UTC + now - self.begins_at

    def make_head_end(self, number: int) -> HeadEnd:
        credential = meter_credential(self.identity.meter, self.identity.public_key)
        return HeadEnd(head_end_key(number), {self.identity.meter: credential}, self.utc)

    async def place(self, machine: HeadEnd | Hole, address: tuple[str, int]) -> UdpLink[object]:
        host, port = address
        return await self.network.open(machine, lambda _: None, host=host, port=port)

    async def place_head_end(self, address: tuple[str, int]) -> None:
        self.remove_head_end()
        self.link = await self.place(self.head_end, address)

    def remove_head_end(self) -> None:
        if self.link is not None:
            self.link.close()

    async def power_on(self) -> None:
        host = Host(
            wall=lambda: self.utc(self.now),
            monotonic=asyncio.get_running_loop().time,
            entropy=random.Random(f"entropy {self.now}").randbytes,
            dice=random.Random(f"dice {self.now}"),
            open_link=self.network.open,
            discovery=self.announced,
        )
        self.meter = await Meter.open(load_settings(self.folder / CONFIG_FILE), host=host)
        take = self.meter._on_event

        def on_event(event: AgentEvent) -> None:
            self.log.append((self.now, event))
            take(event)

        self.meter._on_event = on_event  # type: ignore[method-assign]
        await self.meter.start()

    def power_off(self) -> None:
        assert self.meter is not None
        self.meter.abandon()
        self.meter = None

    async def until(self, condition: Callable[[], object], *, at_most_s: float = 600) -> float:
        """How long it took (s)."""
        start = self.now
        while not condition():
            assert self.now < start + at_most_s, f"not within {at_most_s} s"
            await asyncio.sleep(0.5)
        return self.now - start

    def is_settled(self) -> bool:
        assert self.meter is not None
        return self.meter.agent.stage is Stage.REPORTING and not self.meter.agent.owed_count

    def reasons(self) -> list[str]:
        return [event.reason for _, event in self.log if isinstance(event, Hindered)]


def in_world(folder: Path, play: Callable[[World], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        world = World(folder)
        failures: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        await play(world)
        if world.meter is not None:
            world.power_off()
        assert failures == [], "what a machine or a callback raised"

    run_virtually(main())


def test_meter_without_an_address_finds_its_head_end_and_reports(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await world.place_head_end(TRUE)
        world.announced.peers = [TRUE]
        await world.power_on()
        assert await world.until(world.is_settled) < 60
        await asyncio.sleep(3 * DAY)
        assert world.is_settled()
        assert len(world.announced.searches) == 1
        assert len(set(world.head_end.days)) == 48
        assert world.reasons() == []

    in_world(tmp_path, play)


@pytest.mark.parametrize("second", ["silent", "refusing", "of another key"])
def test_false_announcers_gain_nothing_and_the_true_one_is_tried_next(
    tmp_path: Path, second: str
) -> None:
    async def play(world: World) -> None:
        hole = Hole()
        impostor = world.make_head_end(2)
        refusing = Hole(Code.UNAUTHORIZED)
        others: dict[str, HeadEnd | Hole] = {"silent": Hole(), "refusing": refusing}
        other = others.get(second, impostor)
        await world.place(hole, FALSE)
        await world.place(other, FALSE_TOO)
        await world.place_head_end(TRUE)
        world.announced.peers = [FALSE, FALSE_TOO, TRUE]
        await world.power_on()
        await world.until(world.is_settled)
        assert len(world.announced.searches) == 1
        assert len(world.reasons()) == 2
        assert all(reason.startswith("handshake: ") for reason in world.reasons())
        assert impostor.heard == []
        assert impostor.session_count == 0
        said = [data for one in (hole, other) if isinstance(one, Hole) for _, data in one.heard]
        assert said
        # The first message of a handshake and nothing else: nobody there learns which meter asks.
        assert {Message.decode(data).path for data in said} == {WELL_KNOWN_EDHOC}
        assert len({data[4:] for data in said}) <= 2
        assert not any(world.identity.meter in data for data in said)

    in_world(tmp_path, play)


def test_only_false_announcers_are_asked_ever_less_often(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        refusing = Hole(Code.UNAUTHORIZED)
        await world.place(refusing, FALSE)
        world.announced.peers = [FALSE]
        await world.power_on()
        await asyncio.sleep(DAY)
        times = [now for now, _ in refusing.heard]
        waits = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert len(world.announced.searches) == len(times)
        assert len(times) < 2 * DAY / RETRY_MAX
        assert all(wait >= RETRY_MAX for wait in waits[12:])
        assert max(waits) <= 1.5 * RETRY_MAX + 2
        # And it is not lost to them: once the true one is there, all is said.
        await world.place_head_end(TRUE)
        world.announced.peers = [FALSE, TRUE]
        await world.until(world.is_settled, at_most_s=4 * 1.5 * RETRY_MAX)

    in_world(tmp_path, play)


def test_nothing_announced_is_searched_for_again_each_time_later(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await world.power_on()
        await asyncio.sleep(DAY)
        searches = world.announced.searches
        waits = [later - earlier for earlier, later in itertools.pairwise(searches)]
        assert waits[0] < 6
        assert all(RETRY_MAX <= wait <= 1.5 * RETRY_MAX + 2 for wait in waits[12:])
        assert set(world.reasons()) == {"no head-end with this key is announced"}
        assert world.network.counters["sent"] == 0
        await world.place_head_end(TRUE)
        world.announced.peers = [TRUE]
        await world.until(world.is_settled, at_most_s=1.5 * RETRY_MAX + 60)
        yesterday = int(world.utc(world.now)) // DAY - 1
        assert max(world.head_end.days) == yesterday, "what was recorded meanwhile is not lost"

    in_world(tmp_path, play)


def test_search_that_cannot_be_made_is_told_and_made_again(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await world.place_head_end(TRUE)
        world.announced.peers = [TRUE]
        world.announced.fails_with = LinkError("no network")
        await world.power_on()
        await asyncio.sleep(10)
        assert set(world.reasons()) == {"no network"}
        world.announced.fails_with = None
        await world.until(world.is_settled)

    in_world(tmp_path, play)


def test_head_end_that_moved_is_found_and_the_session_goes_on(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await world.place_head_end(TRUE)
        world.announced.peers = [TRUE]
        await world.power_on()
        await world.until(world.is_settled)
        await world.place_head_end(MOVED)
        world.announced.peers = [MOVED]
        await world.until(lambda: len(world.announced.searches) == 2, at_most_s=DAY + 1200)
        assert len(world.reasons()) == LOST_AFTER
        await world.until(lambda: len(set(world.head_end.days)) == 46)
        assert world.head_end.session_count == 1, "another address is no other head-end"

    in_world(tmp_path, play)


def test_short_silence_is_no_reason_to_search(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await world.place_head_end(TRUE)
        world.announced.peers = [TRUE]
        await world.power_on()
        await world.until(world.is_settled)
        world.announced.peers = [FALSE]
        world.remove_head_end()
        await world.until(lambda: len(world.reasons()) == LOST_AFTER - 1, at_most_s=DAY + 1200)
        await world.place_head_end(TRUE)
        await world.until(world.is_settled)
        assert len(world.announced.searches) == 1

    in_world(tmp_path, play)


def test_announcement_that_vanished_does_not_take_the_head_end_away(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await world.place_head_end(TRUE)
        world.announced.peers = [TRUE]
        await world.power_on()
        await world.until(world.is_settled)
        world.announced.peers = [FALSE]
        world.remove_head_end()
        await asyncio.sleep(2 * DAY)
        assert len(world.announced.searches) > 2
        await world.place_head_end(TRUE)
        await world.until(world.is_settled, at_most_s=3 * 1.5 * RETRY_MAX)
        assert world.head_end.session_count == 1

    in_world(tmp_path, play)


def test_restarted_meter_keeps_its_session_whatever_false_announcers_say(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await world.place_head_end(TRUE)
        world.announced.peers = [TRUE]
        await world.power_on()
        await world.until(world.is_settled)
        world.power_off()
        hole, refusing = Hole(), Hole(Code.UNAUTHORIZED)
        await world.place(hole, FALSE)
        world.announced.peers = [FALSE, TRUE]
        await world.power_on()
        await world.until(world.is_settled)
        assert world.head_end.session_count == 1, "silence costs a try, not the session"
        assert hole.heard
        world.power_off()
        await world.place(refusing, FALSE_TOO)
        world.announced.peers = [FALSE_TOO, TRUE]
        await world.power_on()
        await world.until(world.is_settled)
        assert world.head_end.session_count == 2, "a forged refusal costs one handshake"
        assert len(refusing.heard) == 1

    in_world(tmp_path, play)


def test_meter_that_is_not_enrolled_yet_goes_on_once_it_is(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        enrolled, world.head_end.meters = world.head_end.meters, {}
        await world.place_head_end(TRUE)
        world.announced.peers = [TRUE]
        await world.power_on()
        await asyncio.sleep(30)
        assert world.reasons()
        world.head_end.meters = enrolled
        await world.until(world.is_settled)

    in_world(tmp_path, play)


def test_stop_during_a_search_ends_the_search(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        world.announced.takes_s = 1e6
        await world.power_on()
        await world.until(lambda: world.announced.under_way)
        world.power_off()
        await asyncio.sleep(1)
        assert not world.announced.under_way

    in_world(tmp_path, play)


def test_reads_are_answered_while_the_meter_searches(tmp_path: Path) -> None:
    """The head-end may know the way although the meter does not."""
    from amistack.model import ReadParts

    async def play(world: World) -> None:
        await world.place_head_end(TRUE)
        world.announced.peers = [TRUE]
        await world.power_on()
        await world.until(world.is_settled)
        assert world.meter is not None
        assert world.meter._link is not None
        peer = world.meter._link.address
        world.announced.takes_s = 1e6
        await world.place_head_end(MOVED)
        await world.until(lambda: world.announced.under_way, at_most_s=DAY + 1200)
        assert world.link is not None
        world.head_end.read(world.identity.meter, ReadParts.REGISTERS, peer, now=world.link.now())
        world.head_end.settle_numbers(now=world.link.now())
        world.link.settle()
        await world.until(lambda: world.head_end.read_answers)

    in_world(tmp_path, play)


def test_days_that_pass_while_it_searches_are_recorded_and_not_asked_for_twice(
    tmp_path: Path,
) -> None:
    async def play(world: World) -> None:
        await world.place_head_end(TRUE)
        world.announced.peers = [TRUE]
        await world.power_on()
        await world.until(world.is_settled)
        world.announced.takes_s = 3 * DAY
        await world.place_head_end(MOVED)
        world.announced.peers = [MOVED]
        await world.until(lambda: world.announced.under_way, at_most_s=DAY + 1200)
        await world.until(world.is_settled, at_most_s=4 * DAY)
        assert sum(isinstance(event, HeadEndWanted) for _, event in world.log) == 2
        days = world.head_end.days
        assert sorted(set(days)) == list(range(min(days), max(days) + 1))
        assert max(days) == int(world.utc(world.now)) // DAY - 1

    in_world(tmp_path, play)


def test_meter_with_an_address_never_asks_where_its_head_end_is(tmp_path: Path) -> None:
    class Forbidden(Announcements):
        def require(self) -> None:
            raise AssertionError("it has an address")

        async def find(self, kid: str, *, host: str) -> Sequence[Peer]:
            raise AssertionError("it has an address")

    async def play(world: World) -> None:
        world.announced = Forbidden()
        config = world.folder / CONFIG_FILE
        address = f'[headend]\naddress = "{TRUE[0]}:{TRUE[1]}"'
        config.write_text(config.read_text().replace("[headend]", address))
        await world.power_on()
        await asyncio.sleep(DAY)
        assert len(world.reasons()) > 3
        await world.place_head_end(TRUE)
        await world.until(world.is_settled, at_most_s=2 * 1.5 * RETRY_MAX)
        assert any(isinstance(event, Reported) for _, event in world.log)

    in_world(tmp_path, play)


# What is needed, and what is loaded


async def test_without_the_library_a_meter_that_needs_it_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(tmp_path, Template(public_key=PUBLIC_KEY))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as refused:
        await Meter.open(load_settings(tmp_path / CONFIG_FILE))
    assert str(refused.value) == (
        "zeroconf is not installed: pip install 'amistack[discovery]', or set headend.address"
    )


ENDING = """
import os, signal, sys, threading, time

def end_it():
    while not is_time():
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)

def is_running():
    return signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
"""
RUN = """
sys.modules["zeroconf"] = sys.modules["ifaddr"] = None  # As where they are not installed.
from meterd.cli import main
is_time = is_running
threading.Thread(target=end_it, daemon=True).start()
code = main(["run", "--config", sys.argv[1]])
raise SystemExit(code)
"""
SEARCH = """
from meterd.cli import main
is_time = lambda: is_running() and "zeroconf" in sys.modules
threading.Thread(target=end_it, daemon=True).start()
code = main(["run", "--config", sys.argv[1]])
assert "zeroconf" in sys.modules
raise SystemExit(code)
"""


def _run(program: str, config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ENDING + program, str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_meter_with_an_address_runs_where_the_library_is_not_installed(tmp_path: Path) -> None:
    provision(tmp_path, Template(address="127.0.0.1:9", public_key=PUBLIC_KEY))
    done = _run(RUN, tmp_path / CONFIG_FILE)
    assert done.returncode == 0, done.stderr
    assert '"meter started"' in done.stderr
    assert "searching" not in done.stderr


def test_meter_without_one_is_refused_there_in_one_line(tmp_path: Path) -> None:
    provision(tmp_path, Template(public_key=PUBLIC_KEY))
    done = _run(RUN, tmp_path / CONFIG_FILE)
    assert done.returncode == 1
    assert "zeroconf is not installed: pip install 'amistack[discovery]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@needs_multicast
def test_signal_during_a_search_ends_the_program_at_once(tmp_path: Path) -> None:
    """A loop of uvloop would wait for ever for a socket that the search left open."""
    provision(tmp_path, Template(public_key=PUBLIC_KEY))
    config = tmp_path / CONFIG_FILE
    config.write_text(
        config.read_text() + '\n[link]\nlisten = "127.0.0.1:0"\n[schedule]\nstart_spread_s = 0\n'
    )
    done = _run(SEARCH, config)
    assert done.returncode == 0, done.stderr
    assert '"searching for the head-end"' in done.stderr
    assert '"meter stopped"' in done.stderr
    assert "Traceback" not in done.stderr


# On a real link


@asynccontextmanager
async def _announced(kid: str, port: int) -> AsyncIterator[None]:
    announcement = Announcement(kid, "127.0.0.1", port)
    announcement.start()
    try:
        yield
    finally:
        await announcement.withdraw()


@needs_multicast
@pytest.mark.both_loops
async def test_meter_finds_a_head_end_that_announces_itself_on_a_real_link(tmp_path: Path) -> None:
    # A key that nobody else on this link has: other tests may run beside this one.
    key = head_end_key(random.randrange(1 << 40))
    public_key = encode_public_key(key.private_key.public_key())  # type: ignore[arg-type]
    identity = provision(
        tmp_path,
        Template(
            public_key=public_key.hex(),
            metrology=('source = "constant"', "watts = 500", "interval_s = 3600"),
            schedule=(
                "report_delay_s = 0",
                "report_spread_s = 0",
                "start_spread_s = 0",
                "catch_up_s = 0",
            ),
        ),
    )
    config = tmp_path / CONFIG_FILE
    config.write_text(config.read_text() + '\n[link]\nlisten = "127.0.0.1:0"\n')
    credential = meter_credential(identity.meter, identity.public_key)
    head_end = HeadEnd(key, {identity.meter: credential}, lambda _: time.time())
    link = await open_udp(head_end, lambda _: None, host="127.0.0.1", port=0)
    try:
        async with _announced(head_end_kid(public_key).hex(), link.address[1]):
            meter = await Meter.open(load_settings(config))
            try:
                await meter.start()
                async with asyncio.timeout(40):
                    while not head_end.reports:  # noqa: ASYNC110  # Nothing tells of it.
                        await asyncio.sleep(0.05)
            finally:
                meter.stop()
    finally:
        link.close()
