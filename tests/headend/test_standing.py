"""Where meters stand, the steps between, and what a step does to sessions.

The contract under test: every pair of place and step moves, stays or is refused as the table says;
a list is taken whole or not at all, and every move is in the history; a step is in force with the
very next message, also for a handshake that is under way; nothing leads out of REVOKED.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.errors import StoreError
from amistack.identifiers import Eui64
from headend.domain.meters import Meter, MeterState, StoredSession
from headend.domain.refusals import BadWish, EnrolmentRefused, StepRefused
from headend.domain.standing import (
    SESSION_KEPT,
    TRANSITIONS,
    DeviceDetails,
    Step,
    next_state,
)
from headend.lifecycle.enrolment import Device
from headend.lifecycle.shipment import Shipment
from headend.lifecycle.standing import NoSessions, Registry
from headend.store.interface import (
    Enrolled,
    EnrolMeters,
    KeepSession,
    NotEnrolled,
    StandingChanged,
    Write,
)
from headend.store.sqlite import SqliteStore
from tests.headend.test_southbound import REPORT, Street
from tests.support import headend as world
from tests.support.headend import NOW, meter_id, post, public_key

A, B, C = meter_id(1), meter_id(2), meter_id(3)
PATH: Final = "udp:192.0.2.7:5683"
OPERATORS: Final = [step for step in Step if step is not Step.IMPORT]
WHY: Final = {"reason": "a test"}

every_pair = list(itertools.product(MeterState, Step))


# The table


@pytest.mark.parametrize(("state", "step"), every_pair, ids=lambda x: x.name)
def test_every_pair_moves_stays_or_leads_nowhere(state: MeterState, step: Step) -> None:
    assert next_state(state, step) is TRANSITIONS[state].get(step)


def test_every_state_has_its_row_and_every_step_of_an_operator_leads_somewhere() -> None:
    assert set(TRANSITIONS) == set(MeterState)
    assert {step for row in TRANSITIONS.values() for step in row} == set(OPERATORS)


@pytest.mark.parametrize("state", MeterState, ids=lambda x: x.name)
def test_whoever_is_not_revoked_can_come_to_join_and_whoever_is_cannot(state: MeterState) -> None:
    reached = {state}
    while grown := {to for s in reached for to in TRANSITIONS[s].values()} - reached:
        reached |= grown
    assert (MeterState.ENROLLED in reached) == (state is not MeterState.REVOKED)
    assert TRANSITIONS[MeterState.REVOKED] == {Step.REVOKE: MeterState.REVOKED}


@pytest.mark.parametrize("step", OPERATORS, ids=lambda x: x.name)
def test_a_step_taken_twice_is_taken_once(step: Step) -> None:
    for state in MeterState:
        to = next_state(state, step)
        assert to is None or next_state(to, step) is to


def test_a_suspension_is_ended_by_resuming_alone() -> None:
    assert next_state(MeterState.SUSPENDED, Step.ENROL) is None
    assert next_state(MeterState.SUSPENDED, Step.RESUME) is MeterState.ENROLLED


# The registry, over a real store


class Desk:
    """A registry over a store, and which sessions were ended and resumed."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.ended: list[Eui64] = []
        self.resumed: list[StoredSession] = []
        self.clock = float(NOW)
        self.registry = Registry(store=store, sessions=self, wall=lambda: self.clock)

    def end_session(self, meter: Eui64) -> None:
        self.ended.append(meter)

    def resume_session(self, session: StoredSession) -> None:
        self.resumed.append(session)

    async def put(self, meter: Eui64, state: MeterState) -> None:
        """A meter that stands there, with a session if it may have one."""
        await self.store.commit(
            EnrolMeters((Meter(meter, public_key(meter.hex()), MeterState.ENROLLED, NOW),))
        )
        await self.store.commit(KeepSession(session_of(meter), PATH))
        ways: dict[MeterState, list[Step]] = {
            MeterState.ENROLLED: [],
            MeterState.SUSPENDED: [Step.SUSPEND],
            MeterState.REVOKED: [Step.REVOKE],
            MeterState.RETIRED: [Step.RETIRE],
        }
        for step in ways[state]:
            await self.registry.change([meter], step, **WHY)
        self.ended.clear()

    async def state(self, meter: Eui64) -> MeterState | None:
        found = await self.store.find_meter(meter)
        return None if found is None else found.state


def session_of(meter: Eui64) -> StoredSession:
    return StoredSession(meter, meter, b"\x05", b"s" * 16, b"t" * 8, 10, 64, (3, 1), NOW)


def device(meter: Eui64, key: str = "") -> Device:
    return Device(meter, public_key(key or meter.hex()))


def shipment(*meters: Eui64, details: DeviceDetails | None = None) -> Shipment:
    said = {} if details is None else dict.fromkeys(meters, details)
    return Shipment("pallet 7", tuple(map(device, meters)), said, is_signed=False)


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = SqliteStore.open(tmp_path / "s.sqlite")
    yield Desk(store)
    await store.close()


REACHED_BY_STEPS = [state for state in MeterState if state is not MeterState.KNOWN]


@pytest.mark.parametrize(
    ("state", "step"), list(itertools.product(REACHED_BY_STEPS, OPERATORS)), ids=lambda x: x.name
)
async def test_registry_keeps_to_the_table_and_deletes_keys_with_the_step(
    desk: Desk, state: MeterState, step: Step
) -> None:
    await desk.put(A, state)
    had_session = await desk.store.find_session(A) is not None
    assert had_session == (state in SESSION_KEPT)
    to = TRANSITIONS[state].get(step)
    if to is None:
        with pytest.raises(StepRefused, match=rf"{A.hex()} \({state.word}\)"):
            await desk.registry.change([A], step, **WHY)
        assert await desk.state(A) is state
        assert desk.ended == []
    else:
        outcome = await desk.registry.change([A], step, **WHY)
        moved = (A,) if to is not state else ()
        assert outcome == StandingChanged(moved, 1 - len(moved))
        assert await desk.state(A) is to
        assert desk.ended == [meter for meter in moved if step is not Step.RESUME]
    now = await desk.state(A)
    has_session = await desk.store.find_session(A) is not None
    assert has_session == (had_session and now in SESSION_KEPT)


async def test_list_is_taken_whole_or_not_at_all(desk: Desk) -> None:
    await desk.put(A, MeterState.ENROLLED)
    await desk.put(B, MeterState.REVOKED)
    with pytest.raises(StepRefused) as refusal:
        await desk.registry.change([A, B, C], Step.SUSPEND, **WHY)
    assert refusal.value.meters == ((B, MeterState.REVOKED), (C, None))
    assert "not in the registry" in str(refusal.value)
    assert await desk.state(A) is MeterState.ENROLLED
    assert desk.ended == []


async def test_every_step_is_in_the_history_with_time_actor_and_reason(desk: Desk) -> None:
    await desk.registry.take_shipment(shipment(A), actor="stock")
    steps = [Step.ENROL, Step.SUSPEND, Step.SUSPEND, Step.RESUME, Step.RETIRE, Step.REVOKE]
    for number, step in enumerate(steps, start=1):
        desk.clock = NOW + number + 0.25
        await desk.registry.change([A], step, reason=f"why {number}", actor="me")
    history = await desk.store.history(A)
    told = [(one.step, one.state, one.at_ms - NOW * 1000, one.actor, one.reason) for one in history]
    assert told == [
        (Step.REVOKE, MeterState.REVOKED, 6250, "me", "why 6"),
        (Step.RETIRE, MeterState.RETIRED, 5250, "me", "why 5"),
        (Step.RESUME, MeterState.ENROLLED, 4250, "me", "why 4"),
        # The third was no step: it stood there already.
        (Step.SUSPEND, MeterState.SUSPENDED, 2250, "me", "why 2"),
        (Step.ENROL, MeterState.ENROLLED, 1250, "me", "why 1"),
        (Step.IMPORT, MeterState.KNOWN, 0, "stock", "shipment pallet 7"),
    ]
    assert [one.number for one in history] == [6, 5, 4, 3, 2, 1]
    assert await desk.store.history(B) == []
    assert len(await desk.store.history(A, limit=2)) == 2


async def test_shipment_makes_meters_known_and_enrolment_lets_them_join(desk: Desk) -> None:
    said = DeviceDetails(serial="A-7")
    assert await desk.registry.take_shipment(shipment(A, B, details=said)) == Enrolled(2, 0, 0)
    assert await desk.state(A) is MeterState.KNOWN
    assert await desk.store.find_details(A) == said
    assert await desk.registry.enrol([device(A), device(C)]) == Enrolled(1, 1, 1)
    assert await desk.state(A) is MeterState.ENROLLED
    assert await desk.state(B) is MeterState.KNOWN
    newer = DeviceDetails(serial="A-7", firmware="4.1")
    again = shipment(A, B, details=newer)
    assert await desk.registry.take_shipment(again, may_join=True) == Enrolled(0, 2, 1)
    assert await desk.state(B) is MeterState.ENROLLED
    assert await desk.store.find_details(B) == newer
    counts = await desk.store.counts()
    assert counts.standing == {MeterState.ENROLLED: 3}


async def test_rehearsal_tells_the_outcome_and_changes_nothing(desk: Desk) -> None:
    await desk.registry.take_shipment(shipment(A))
    wanted = shipment(A, B, details=DeviceDetails(serial="7"))
    told = await desk.registry.take_shipment(wanted, may_join=True, is_rehearsal=True)
    assert await desk.state(A) is MeterState.KNOWN
    assert await desk.state(B) is None
    assert await desk.store.find_details(A) is None
    assert len(await desk.store.history(A)) == 1
    assert await desk.registry.take_shipment(wanted, may_join=True) == told == Enrolled(1, 1, 1)


async def test_meter_known_with_another_key_keeps_the_whole_shipment_out(desk: Desk) -> None:
    await desk.registry.enrol([device(B, "another")])
    for is_rehearsal in (True, False):
        with pytest.raises(EnrolmentRefused, match=B.hex()):
            await desk.registry.take_shipment(shipment(A, B), is_rehearsal=is_rehearsal)
    assert await desk.state(A) is None


@pytest.mark.parametrize(
    "state", [MeterState.SUSPENDED, MeterState.REVOKED, MeterState.RETIRED], ids=lambda x: x.name
)
async def test_repeating_a_list_lets_nobody_in_who_was_put_out(
    desk: Desk, state: MeterState
) -> None:
    await desk.put(A, state)
    assert await desk.registry.enrol([device(A)]) == Enrolled(0, 1, 0)
    await desk.registry.take_shipment(shipment(A), may_join=True)
    assert await desk.state(A) is state


async def test_session_of_a_meter_that_is_not_enrolled_is_not_kept(desk: Desk) -> None:
    for number, state in enumerate(REACHED_BY_STEPS):
        meter = meter_id(10 + number)
        await desk.put(meter, state)
        outcome = await desk.store.commit(KeepSession(session_of(meter), PATH))
        assert isinstance(outcome, NotEnrolled) == (state is not MeterState.ENROLLED)
    await desk.registry.take_shipment(shipment(A))
    assert isinstance(await desk.store.commit(KeepSession(session_of(A), PATH)), NotEnrolled)
    assert await desk.store.find_session(A) is None


async def test_start_takes_up_the_sessions_of_enrolled_meters_alone(desk: Desk) -> None:
    for number, state in enumerate(REACHED_BY_STEPS):
        await desk.put(meter_id(10 + number), state)
    assert [one.meter for one in await desk.store.sessions()] == [meter_id(10)]


async def test_resumed_session_is_the_stored_one_and_comes_back_once(desk: Desk) -> None:
    await desk.put(A, MeterState.SUSPENDED)
    await desk.registry.change([A], Step.RESUME, **WHY)
    await desk.registry.change([A], Step.RESUME, **WHY)
    assert desk.resumed == [session_of(A)]


async def test_suspension_behind_a_resumption_has_the_last_word(desk: Desk) -> None:
    order: list[str] = []
    await desk.put(A, MeterState.SUSPENDED)
    desk.end_session = lambda meter: order.append("ended")  # type: ignore[method-assign]
    desk.resume_session = lambda session: order.append("resumed")  # type: ignore[method-assign]
    await asyncio.gather(
        desk.registry.change([A], Step.RESUME, **WHY),
        desk.registry.change([A], Step.SUSPEND, **WHY),
    )
    assert order == ["resumed", "ended"]


async def test_rekey_ends_sessions_and_leaves_everybody_where_they_stand(desk: Desk) -> None:
    await desk.put(A, MeterState.ENROLLED)
    await desk.registry.enrol([device(B)])
    assert await desk.registry.rekey([A, B, A]) == StandingChanged((A,), 1)
    assert desk.ended == [A]
    assert await desk.store.find_session(A) is None
    assert await desk.state(A) is MeterState.ENROLLED
    with pytest.raises(StepRefused, match="not in the registry"):
        await desk.registry.rekey([A, C])


@pytest.mark.parametrize(
    ("meters", "step", "reason", "actor"),
    [
        ([], Step.SUSPEND, "why", ""),
        ([A], Step.IMPORT, "why", ""),
        ([A], Step.SUSPEND, "  ", ""),
        ([A], Step.SUSPEND, "x" * 201, ""),
        ([A], Step.SUSPEND, "two\nlines", ""),
        ([A], Step.SUSPEND, "why", "x" * 65),
    ],
)
async def test_wish_that_cannot_be_is_refused_before_anything(
    desk: Desk, meters: list[Eui64], step: Step, reason: str, actor: str
) -> None:
    await desk.put(A, MeterState.ENROLLED)
    with pytest.raises(BadWish):
        await desk.registry.change(meters, step, reason=reason, actor=actor)
    assert await desk.state(A) is MeterState.ENROLLED


async def test_step_that_is_not_committed_changes_no_session(desk: Desk, tmp_path: Path) -> None:
    await desk.put(A, MeterState.ENROLLED)
    with sqlite3.connect(tmp_path / "s.sqlite") as other:
        other.execute("DROP TABLE standing_change")
    other.close()
    with pytest.raises(StoreError):
        await desk.registry.change([A], Step.REVOKE, **WHY)
    assert desk.ended == []
    assert await desk.state(A) is MeterState.ENROLLED
    assert await desk.store.find_session(A) is not None


@settings(deadline=None, max_examples=25)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(OPERATORS), st.sets(st.sampled_from([A, B, C]), min_size=1)),
        max_size=12,
    )
)
def test_any_row_of_steps_ends_where_the_table_says(
    steps: list[tuple[Step, set[Eui64]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def run() -> None:
        store = SqliteStore.open(tmp_path_factory.mktemp("s") / "s.sqlite")
        registry = Registry(store=store, sessions=NoSessions(), wall=lambda: NOW)
        await registry.take_shipment(shipment(A, B, C))
        model = dict.fromkeys((A, B, C), MeterState.KNOWN)
        moves = dict.fromkeys((A, B, C), 1)
        for step, meters in steps:
            to = {meter: next_state(model[meter], step) for meter in meters}
            try:
                await registry.change(sorted(meters), step, **WHY)
            except StepRefused:
                assert None in to.values()
                continue
            for meter, state in to.items():
                assert state is not None
                moves[meter] += state is not model[meter]
                model[meter] = state
        for meter, state in model.items():
            found = await store.find_meter(meter)
            assert found is not None
            assert found.state is state
            history = await store.history(meter)
            assert len(history) == moves[meter]
            assert history[0].state is state
        await store.close()

    asyncio.run(run())


# A meter on the wire


@pytest_asyncio.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    made = Street(tmp_path / "s.sqlite")
    await made.start()
    yield made
    for meter in made.meters:
        meter.close()
    await made.stop()


def registry_of(street: Street) -> Registry:
    return Registry(store=street.store, sessions=street.southbound, wall=lambda: float(NOW))


@pytest.mark.parametrize("step", [Step.SUSPEND, Step.REVOKE, Step.RETIRE], ids=lambda x: x.name)
async def test_step_is_in_force_with_the_very_next_message(street: Street, step: Step) -> None:
    meter = await street.registered()
    assert (await meter.ask(post("rep", REPORT))).code == Code.CHANGED
    await registry_of(street).change([meter.id], step, **WHY)
    refused_before = street.southbound.refused.get("session: security context not found", 0)
    with pytest.raises(ConnectionError, match="response not protected"):
        await meter.ask(post("rep", REPORT))
    refused = street.southbound.refused
    assert refused["session: security context not found"] == refused_before + 1
    with pytest.raises(ConnectionError, match="error 3"):
        await meter.join(c_i=b"\x06")
    word = TRANSITIONS[MeterState.ENROLLED][step].word
    assert street.southbound.refused[f"model: handshake of a {word} meter"] == 1


async def test_handshake_under_way_does_not_outrun_a_revocation(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    await street.enrol(A)
    found, go_on = asyncio.Event(), asyncio.Event()
    find_meter = street.store.find_meter

    async def slow(meter: Eui64) -> Meter | None:
        row = await find_meter(meter)
        found.set()
        await go_on.wait()
        return row

    monkeypatch.setattr(street.store, "find_meter", slow)
    meter = street.meter(A)
    joining = asyncio.create_task(meter.join())
    await found.wait()
    await registry_of(street).change([A], Step.REVOKE, **WHY)
    go_on.set()
    with pytest.raises(ConnectionError):
        await joining
    assert street.southbound.session_count == 0
    assert await street.store.find_session(A) is None
    reason = "model: session of a meter that is not enrolled any more"
    assert street.southbound.refused[reason] == 1


async def test_session_that_waits_for_its_commit_does_not_outlive_a_revocation(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is committed first and the revocation behind it, both in one group."""
    await street.enrol(A)
    submitted = asyncio.Event()
    submit = street.store.submit

    def noting(write: Write, done: object) -> None:
        submit(write, done)  # type: ignore[arg-type]
        if isinstance(write, KeepSession):
            submitted.set()

    monkeypatch.setattr(street.store, "submit", noting)
    meter = street.meter(A)
    joining = asyncio.create_task(meter.join())
    await submitted.wait()
    await registry_of(street).change([A], Step.REVOKE, **WHY)
    await asyncio.wait([joining])
    assert street.southbound.session_count == 0
    with pytest.raises(ConnectionError, match="response not protected"):
        await meter.ask(post("rep", REPORT))


async def test_suspended_meter_goes_on_in_its_session_when_it_is_resumed(street: Street) -> None:
    meter = await street.registered()
    registry = registry_of(street)
    await registry.change([meter.id], Step.SUSPEND, **WHY)
    with pytest.raises(ConnectionError):
        await meter.ask(post("rep", REPORT))
    await registry.change([meter.id], Step.RESUME, **WHY)
    assert (await meter.ask(post("rep", REPORT))).code == Code.CHANGED


async def test_suspension_and_revocation_outlive_a_restart(street: Street) -> None:
    meter = await street.registered()
    await registry_of(street).change([meter.id], Step.SUSPEND, **WHY)
    await street.stop()
    await street.start()
    with pytest.raises(ConnectionError):
        await meter.ask(post("rep", REPORT))
    await registry_of(street).change([meter.id], Step.RESUME, **WHY)
    assert (await meter.ask(post("rep", REPORT))).code == Code.CHANGED


async def test_meter_that_is_to_rekey_agrees_on_other_keys(street: Street) -> None:
    meter = await street.registered()
    before = await street.store.find_session(meter.id)
    await registry_of(street).rekey([meter.id])
    with pytest.raises(ConnectionError, match="response not protected"):
        await meter.ask(post("rep", REPORT))
    await meter.join(c_i=b"\x06")
    assert (await meter.ask(post("rep", world.report().encode()))).code == Code.CHANGED
    after = await street.store.find_session(meter.id)
    assert before is not None
    assert after is not None
    assert after.master_secret != before.master_secret
