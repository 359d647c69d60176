"""The head-end's side of a meter's conversation, over real sockets.

The contract under test: only an enrolled meter gets a session; success is only said after the
commit, and what a failing or full store cannot take is answered "later"; an on-demand read goes out
over the path on which the meter was last heard; after a restart the session goes on, and an old
message is not taken twice; a draining head-end answers what it took and takes no more.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from amistack.coap.codes import Code
from amistack.coap.options import OptionNumber
from amistack.errors import LinkError, StoreBusy, StoreError
from amistack.identifiers import Eui64
from amistack.model import ReportAcknowledgement
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key, head_end_credential
from headend.collection.on_demand import OnDemandReads
from headend.domain.asking import NotAnswered, Unreachable
from headend.domain.meters import Meter, MeterState
from headend.domain.readings import ReadResult
from headend.southbound.service import LATER_S, Southbound
from headend.store.interface import EnrolMeters, KeepDelivery, KeepSession, Outcome, Write
from headend.store.sqlite import SqliteStore
from tests.support import headend as world
from tests.support.headend import NOW, YESTERDAY, meter_id, post, private_key, public_key
from tests.support.street_meter import StreetMeter

METER = meter_id(1)
KEY = private_key("head-end")
IDENTITY = AuthenticationKey(KEY, head_end_credential(encode_public_key(KEY.public_key())))
REPORT = world.report().encode()


class Street:
    """A head-end with a store, on a socket of its own, and meters that come and go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._port = 0
        self.wall = float(NOW)
        self.meters: list[StreetMeter] = []
        self.store: SqliteStore
        self.southbound: Southbound

    async def start(self) -> None:
        self.store = SqliteStore.open(self._path)
        self.southbound = Southbound(
            key=IDENTITY, store=self.store, entropy=os.urandom, dice=random.Random(7),
            wall=lambda: self.wall,
        )  # fmt: skip
        self.address = await self.southbound.start("127.0.0.1", self._port)
        self._port = self.address[1]

    async def stop(self) -> None:
        await self.southbound.stop()
        await self.store.close()

    async def enrol(self, *meters: Eui64) -> None:
        rows = [Meter(m, public_key(m.hex()), MeterState.ENROLLED, NOW) for m in meters]
        await self.store.commit(EnrolMeters(tuple(rows)))

    def meter(self, meter: Eui64 = METER) -> StreetMeter:
        made = StreetMeter(meter, self.address, IDENTITY.credential)
        self.meters.append(made)
        return made

    async def registered(self) -> StreetMeter:
        """A meter that is enrolled, joined and registered."""
        await self.enrol(METER)
        meter = self.meter()
        await meter.join()
        answer = await meter.ask(post("reg", world.registration(METER).encode()))
        assert answer.code == Code.CHANGED
        return meter


@pytest_asyncio.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    made = Street(tmp_path / "s.sqlite")
    await made.start()
    yield made
    for meter in made.meters:
        meter.close()
    await made.stop()


@pytest.mark.both_loops
async def test_meter_joins_registers_and_reports(street: Street) -> None:
    meter = await street.registered()
    answer = await meter.ask(post("rep", REPORT))
    assert answer.code == Code.CHANGED
    assert ReportAcknowledgement.decode(answer.payload).verdicts == ()
    overview = await street.store.find_overview(METER)
    assert overview is not None
    assert overview.is_secured
    assert overview.newest_day == YESTERDAY
    assert overview.location is not None
    assert overview.location.path.startswith("udp:127.0.0.1:")
    assert street.southbound.counters == {"sessions": 1, "received": 2, "stored": 2}
    assert street.southbound.refused == {}


async def test_meter_that_is_not_enrolled_gets_no_session(street: Street) -> None:
    stranger = street.meter(meter_id(66))
    with pytest.raises(ConnectionError):
        await stranger.join()
    assert list(await street.store.sessions()) == []
    assert sum(street.southbound.refused.values()) >= 1


async def test_report_with_an_odd_record_is_acknowledged_and_counted(street: Street) -> None:
    meter = await street.registered()
    answer = await meter.ask(post("rep", b"\x00"))
    (verdict,) = ReportAcknowledgement.decode(answer.payload).verdicts
    assert verdict.reason.startswith("wrong type")
    assert street.southbound.quarantined == {"unreadable whole": 1}
    assert (await street.store.counts()).quarantined == 1


async def test_refused_request_is_counted_by_reason(street: Street) -> None:
    meter = await street.registered()
    answer = await meter.ask(post("nowhere", b""))
    assert answer.code == Code.NOT_FOUND
    assert street.southbound.refused == {"model: no such resource": 1}


def failing(
    store: SqliteStore, kind: type[Write], answer: Outcome | StoreBusy
) -> Callable[[Write, Callable[[Outcome], None]], None]:
    """`submit` of a store that cannot take writes of one kind."""
    submit = store.submit

    def instead(write: Write, done: Callable[[Outcome], None]) -> None:
        if not isinstance(write, kind):
            submit(write, done)
        elif isinstance(answer, StoreBusy):
            raise answer
        else:
            asyncio.get_running_loop().call_soon(done, answer)

    return instead


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (StoreError("database or disk is full"), "store failed"),
        (StoreBusy("16384 writes wait already"), "store busy"),
    ],
    ids=["failing", "busy"],
)
async def test_report_that_is_not_committed_is_answered_later_and_taken_then(
    street: Street, monkeypatch: pytest.MonkeyPatch, outcome: StoreError, reason: str
) -> None:
    meter = await street.registered()
    with monkeypatch.context() as patch:
        patch.setattr(street.store, "submit", failing(street.store, KeepDelivery, outcome))
        for _ in range(2):
            answer = await meter.ask(post("rep", REPORT))
            assert answer.code == Code.SERVICE_UNAVAILABLE
            assert answer.uint_option(OptionNumber.MAX_AGE) == LATER_S
    assert street.southbound.refused == {f"model: {reason}": 2}
    assert (await street.store.counts()).reports == 0
    answer = await meter.ask(post("rep", REPORT))
    assert answer.code == Code.CHANGED
    assert (await street.store.counts()).reports == 1


@pytest.mark.parametrize(
    "outcome", [StoreError("disk full"), StoreBusy("full")], ids=["failing", "busy"]
)
async def test_session_that_cannot_be_stored_is_not_opened(
    street: Street, monkeypatch: pytest.MonkeyPatch, outcome: StoreError
) -> None:
    await street.enrol(METER)
    meter = street.meter()
    with monkeypatch.context() as patch:
        patch.setattr(street.store, "submit", failing(street.store, KeepSession, outcome))
        with pytest.raises(ConnectionError):
            await meter.join()
    await meter.join()
    assert street.southbound.counters["sessions"] == 1


async def test_on_demand_read_takes_the_path_on_which_the_meter_was_heard(street: Street) -> None:
    meter = await street.registered()
    reads = OnDemandReads(
        store=street.store, asker=street.southbound, entropy=os.urandom, wall=lambda: float(NOW)
    )
    read = await reads.read(METER, deadline_s=5)
    assert (read.result, read.path) == (ReadResult.ANSWERED, street.southbound.path_of(METER))
    meter.is_silent = True
    read = await reads.read(METER, deadline_s=0.2)
    assert read.result is ReadResult.TIMED_OUT


async def test_meter_that_was_never_heard_is_unreachable(street: Street) -> None:
    await street.enrol(METER)
    with pytest.raises(Unreachable, match="not been heard yet"):
        await street.southbound.ask(METER, post("read", b""), deadline_s=1)


async def test_stopping_ends_what_is_being_asked(street: Street) -> None:
    meter = await street.registered()
    meter.is_silent = True
    ask = street.southbound.ask(METER, post("read", b""), deadline_s=9)
    task = asyncio.create_task(ask)
    await asyncio.sleep(0)
    await street.southbound.stop()
    with pytest.raises(NotAnswered, match="stopping"):
        await task


async def test_session_outlives_a_restart_and_nothing_is_taken_twice(street: Street) -> None:
    meter = await street.registered()
    await meter.ask(post("rep", REPORT))
    (before,) = await street.store.sessions()
    await street.stop()
    await street.start()
    (after,) = await street.store.sessions()
    assert after == before
    assert after.window != (0, 0), "the window is durable with what it let in"
    read = await OnDemandReads(
        store=street.store, asker=street.southbound, entropy=os.urandom, wall=lambda: float(NOW)
    ).read(METER, deadline_s=5)
    assert read.result is ReadResult.ANSWERED, (
        "path and numbers outlive it: the meter has not spoken yet"
    )
    answer = await meter.ask(post("rep", REPORT))
    assert answer.code == Code.CHANGED, "the session goes on"
    counts = await street.store.counts()
    assert (counts.reports, counts.blocks, counts.quarantined) == (1, 1, 0)


async def test_draining_head_end_answers_what_it_took_and_takes_no_more(street: Street) -> None:
    meter = await street.registered()
    assert await street.southbound.drain(1)
    answer = await meter.ask(post("rep", REPORT))
    assert answer.code == Code.SERVICE_UNAVAILABLE
    assert street.southbound.refused == {"model: stopping": 1}
    assert (await street.store.counts()).reports == 0


async def test_port_in_use_says_what_to_do(street: Street, tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "other.sqlite")
    second = Southbound(
        key=IDENTITY, store=store, entropy=os.urandom, dice=random.Random(8), wall=lambda: 0.0
    )
    with pytest.raises(LinkError, match="is in use: stop the program that holds it"):
        await second.start(*street.address)
    await second.stop()
    await store.close()
