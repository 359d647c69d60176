"""Signs that two devices hold the keys of one meter, each by itself.

The contract under test: a number under which another message was accepted, a report made after a
higher number came, and one made after its session was replaced are each noted with both paths; the
first two end the session; a message that is repeated, held back for however long, or forged says
nothing; a sign that cannot be looked into is counted, and what anybody can cause takes no room from
what only a holder of keys can; and an operator can see and dismiss what was noted.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import ClockReading, ClockState
from amistack.model.resources import REPORT, TIME
from amistack.session.oscore import ReplayWindow, SecurityContext, protect_request
from amistack.stack import LATE_MAX_S, NumberTaken, StrangeSession
from headend.api.app import make_api
from headend.api.documents import SuspicionDocument
from headend.cli import show
from headend.collection.on_demand import OnDemandReads
from headend.domain.meters import CloneSign, Meter, MeterState, StoredSession, Suspicion
from headend.operations import Operations
from headend.southbound.clones import CHECKS_MAX, SETTLED_S, STRANGE_CHECKS_MAX, Clones
from headend.status import About
from headend.store.interface import (
    DismissSuspicion,
    EnrolMeters,
    KeepDelivery,
    KeepSession,
)
from headend.store.sqlite import SqliteStore
from tests.support import headend as world
from tests.support.headend import NOW, meter_id, post, public_key

METER = meter_id(1)
HERE, THERE = ("192.0.2.1", 5683), ("192.0.2.2", 5683)
PATHS = {"udp:192.0.2.1:5683", "udp:192.0.2.2:5683"}


class Bench:
    """The checks over a store, with a clock that is set by hand."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.utc = float(NOW)
        self.ended: list[bytes] = []
        self.clones = Clones(
            store=store,
            wall=lambda: self.utc,
            known_path=lambda _: "udp:192.0.2.1:5683",
            end_session=self.ended.append,
        )

    async def enrol(self) -> None:
        meter = Meter(METER, public_key("m"), MeterState.ENROLLED, NOW)
        await self.store.commit(EnrolMeters((meter,)))

    async def open_session(self, recipient_id: bytes, at: int) -> StoredSession:
        session = StoredSession(
            METER, recipient_id, b"\x77", b"s" * 16, recipient_id * 2, 10, 64, (0, 0), at
        )
        await self.store.commit(KeepSession(session, "udp:192.0.2.1:5683"))
        return session

    def behind(self, *, made_at: float) -> None:
        report = world.report(clock=ClockReading(int(made_at), ClockState.SET))
        self.clones.number_behind(
            METER, post(REPORT, report.encode()), "udp:192.0.2.2:5683", "udp:192.0.2.1:5683"
        )

    async def settled(self) -> list[Suspicion]:
        while self.clones.depth[0]:  # noqa: ASYNC110  checks have no event of their own
            await asyncio.sleep(0.001)
        return list(await self.store.suspicions())


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = SqliteStore.open(tmp_path / "s.sqlite")
    made = Bench(store)
    await made.enrol()
    yield made
    await made.clones.stop()
    await store.close()


def taken(
    *,
    is_other: bool = False,
    remembered_s: float = 2 * LATE_MAX_S,
    newest_s: float = math.inf,
    clock: ClockReading | None = None,
    message: Message | None = None,
) -> NumberTaken:
    report = world.report(clock=clock).encode()
    return NumberTaken(
        METER, THERE, message or post(REPORT, report), is_other, remembered_s, newest_s
    )  # fmt: skip


# Two messages under one number


async def test_another_message_under_a_number_is_noted_with_both_paths(bench: Bench) -> None:
    await bench.open_session(b"\x01", NOW)
    bench.clones.number_taken(taken(is_other=True))
    (suspicion,) = await bench.settled()
    assert suspicion.sign is CloneSign.NUMBER_TAKEN
    assert {suspicion.path, suspicion.other_path} == PATHS
    assert bench.ended == [METER]
    assert list(await bench.store.sessions()) == [], "a restart does not bring it back"


async def test_report_made_just_now_under_a_number_of_old_is_noted(bench: Bench) -> None:
    bench.clones.number_taken(taken())
    assert len(await bench.settled()) == 1


@pytest.mark.parametrize(
    "event",
    [
        taken(remembered_s=LATE_MAX_S - 1),
        taken(clock=ClockReading(NOW - int(LATE_MAX_S), ClockState.SET)),
        taken(clock=ClockReading(NOW, ClockState.DOUBTFUL)),
        taken(message=post(REPORT, b"no report")),
        taken(message=Message.request(Code.GET, TIME)),
        taken(newest_s=SETTLED_S),
        taken(newest_s=2 * SETTLED_S, clock=ClockReading(NOW - SETTLED_S, ClockState.SET)),
    ],
    ids=[
        "may have been forgotten", "old", "clock in doubt", "no report", "says no time",
        "as young as the newest", "held back for some minutes",
    ],
)  # fmt: skip
async def test_what_may_be_a_replay_is_not_noted(bench: Bench, event: NumberTaken) -> None:
    bench.clones.number_taken(event)
    assert await bench.settled() == []
    assert bench.ended == []


# A number behind


@pytest.mark.parametrize(("late_s", "is_noted"), [(LATE_MAX_S, False), (LATE_MAX_S + 1, True)])
async def test_number_behind_one_of_long_before_is_noted(
    bench: Bench, late_s: float, is_noted: bool
) -> None:
    await bench.open_session(b"\x01", NOW)
    bench.utc = NOW + late_s
    bench.behind(made_at=bench.utc)
    found = await bench.settled()
    assert [one.sign for one in found] == [CloneSign.NUMBER_BEHIND] * is_noted
    assert bool(bench.ended) is is_noted


@pytest.mark.parametrize("hours", [1, 24, 24 * 300])
async def test_delivery_that_was_held_back_for_hours_is_no_sign(bench: Bench, hours: int) -> None:
    """Its number was never used, so it is taken; but it was made before the newest."""
    await bench.open_session(b"\x01", NOW)
    bench.utc = NOW + hours * 3600.0
    bench.behind(made_at=NOW - 1)
    assert await bench.settled() == []
    assert bench.ended == []


@pytest.mark.parametrize("step_s", [-86_400, 86_400])
async def test_wrong_clock_of_our_own_makes_no_sign(bench: Bench, step_s: int) -> None:
    """After a restart nothing is remembered, and by such a clock all was long ago, or never."""
    await bench.open_session(b"\x01", NOW)
    bench.utc = NOW + float(step_s)
    bench.behind(made_at=NOW + 10)
    assert await bench.settled() == []


async def test_delivery_that_is_behind_does_not_count_as_the_newest(bench: Bench) -> None:
    await bench.open_session(b"\x01", NOW)
    for received_s, is_behind in ((NOW + 10, False), (NOW + 9_000, True)):
        await bench.store.commit(
            KeepDelivery(METER, b"\x01", (1, 0), "udp:x", received_s * 1000, (), is_behind)
        )
    assert await bench.store.heard_at(METER) == NOW + 10


# A session that was replaced


def strange(
    session: StoredSession, *, number: int = 5, made_at: float = NOW, message: Message | None = None
) -> StrangeSession:
    """What the meter of `session` sends, as it comes to a head-end that has another one."""
    report = world.report(clock=ClockReading(int(made_at), ClockState.SET))
    theirs = SecurityContext.derive(
        master_secret=session.master_secret,
        master_salt=session.master_salt,
        sender_id=session.recipient_id,
        recipient_id=session.sender_id,
    )
    theirs.resume(reserved_until=number, window=(0, 0))
    theirs.reserve(number + 1)
    protected, _ = protect_request(theirs, message or post(REPORT, report.encode()))
    return StrangeSession(session.recipient_id, THERE, protected)


@pytest.mark.parametrize(("after_s", "is_noted"), [(SETTLED_S, False), (SETTLED_S + 1, True)])
async def test_message_in_a_replaced_session_is_noted_once_that_is_settled(
    bench: Bench, after_s: int, is_noted: bool
) -> None:
    old = await bench.open_session(b"\x01", NOW)
    await bench.open_session(b"\x02", NOW + 100)
    bench.utc = NOW + 100 + after_s
    bench.clones.session_strange(strange(old, made_at=bench.utc))
    found = await bench.settled()
    assert [one.sign for one in found] == [CloneSign.FORMER_SESSION] * is_noted
    assert bench.ended == [], "the session in use goes on: its meter did nothing"


@pytest.mark.parametrize("message", [None, Message.request(Code.GET, TIME)])
async def test_replay_whose_first_coming_was_not_stored_is_not_noted(
    bench: Bench, message: Message | None
) -> None:
    """A question for the time is answered without a commit; a report may have been held back."""
    old = await bench.open_session(b"\x01", NOW)
    await bench.open_session(b"\x02", NOW + 100)
    bench.utc = NOW + 10_000.0
    bench.clones.session_strange(strange(old, made_at=NOW + 99, message=message))
    assert await bench.settled() == []


async def test_replay_of_a_replaced_session_is_not_noted(bench: Bench) -> None:
    old = await bench.open_session(b"\x01", NOW)
    window = ReplayWindow()
    window.accept(5)
    await bench.store.commit(KeepDelivery(METER, b"\x01", window.state, "udp:x", NOW * 1000))
    await bench.open_session(b"\x02", NOW)
    bench.utc = NOW + 10_000.0
    bench.clones.session_strange(strange(old, made_at=bench.utc))
    assert await bench.settled() == []


async def test_forged_message_in_a_replaced_session_is_not_noted(bench: Bench) -> None:
    old = await bench.open_session(b"\x01", NOW)
    await bench.open_session(b"\x02", NOW)
    bench.utc = NOW + 10_000.0
    event = strange(old, made_at=bench.utc)
    forged = Message(event.message.code, options=event.message.options, payload=bytes(40))
    bench.clones.session_strange(StrangeSession(b"\x01", THERE, forged))
    assert await bench.settled() == []


async def test_former_session_is_forgotten_after_a_week(bench: Bench) -> None:
    await bench.open_session(b"\x01", NOW)
    await bench.open_session(b"\x02", NOW)
    assert await bench.store.find_former(b"\x01") is not None
    await bench.open_session(b"\x03", NOW + 8 * 86_400)
    assert await bench.store.find_former(b"\x01") is None
    assert await bench.store.find_former(b"\x02") is not None


# Bounds, and what an operator does


async def test_more_signs_than_can_be_looked_into_are_counted(bench: Bench) -> None:
    for _ in range(CHECKS_MAX + 3):
        bench.behind(made_at=bench.utc)
    assert bench.clones.depth == (CHECKS_MAX, CHECKS_MAX)
    assert bench.clones.flagged == {"sign of a clone not looked into": 3}
    assert await bench.settled() == []


async def test_messages_that_anybody_can_send_leave_room_for_the_others(bench: Bench) -> None:
    for _ in range(2):
        for _ in range(STRANGE_CHECKS_MAX + 3):
            bench.clones.session_strange(StrangeSession(b"\x09", THERE, post(REPORT, b"x")))
        assert bench.clones.depth == (STRANGE_CHECKS_MAX, CHECKS_MAX)
        assert await bench.settled() == []
    assert bench.clones.flagged == {"sign of a clone not looked into": 6}
    for _ in range(STRANGE_CHECKS_MAX):
        bench.clones.session_strange(StrangeSession(b"\x09", THERE, post(REPORT, b"x")))
    bench.clones.number_taken(taken(is_other=True))
    assert len(await bench.settled()) == 1


async def test_repeated_signs_are_one_row_that_counts_until_it_is_dismissed(bench: Bench) -> None:
    for second in range(3):
        bench.utc = NOW + second
        bench.clones.number_taken(taken(is_other=True))
        await bench.settled()
    (suspicion,) = await bench.settled()
    assert (suspicion.count, suspicion.first_at, suspicion.last_at) == (3, NOW, NOW + 2)
    overview = await bench.store.find_overview(METER)
    assert overview is not None
    assert overview.suspicion == suspicion
    assert await bench.store.commit(DismissSuspicion(METER)) is True
    assert await bench.store.commit(DismissSuspicion(METER)) is False
    assert await bench.settled() == []


# The doors


async def test_doors_show_who_is_suspected_and_dismiss_it(bench: Bench) -> None:
    bench.clones.number_taken(taken(is_other=True))
    await bench.settled()
    operations = Operations(
        about=About("1", NOW, "127.0.0.1:5683"), store=bench.store, counting=world.NoTraffic(),
        reads=OnDemandReads(
            store=bench.store, asker=world.TextbookMeters(), entropy=os.urandom, wall=lambda: NOW
        ),
        wall=lambda: float(NOW),
    )  # fmt: skip
    app = httpx.ASGITransport(app=make_api(operations))
    async with httpx.AsyncClient(transport=app, base_url="http://head-end") as client:
        (shown,) = (await client.get("/v1/suspicions")).json()["suspicions"]
        assert (shown["meter"], shown["count"]) == (METER.hex(), 1)
        assert {shown["path"], shown["other_path"]} == PATHS
        assert (await client.get("/v1/status")).json()["counts"]["suspected"] == 1
        for was_suspected in (True, False):
            answer = await client.delete(f"/v1/suspicions/{METER.hex()}")
            assert answer.json() == {"was_suspected": was_suspected}
        nobody = await client.delete(f"/v1/suspicions/{meter_id(9).hex()}")
        assert nobody.status_code == 404
    text = show.suspicions([SuspicionDocument(**shown)])
    assert METER.hex() in text
    assert "udp:192.0.2.2:5683" in text
    assert show.suspicions([]) == "no meter is suspected of having been copied"
