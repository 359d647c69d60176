"""Commands to a switch: each counts once, in time, and is believed when it is measured.

The contract under test: a command that is old, repeated, expired, or comes while the clock is unset
changes nothing; the outcome is what the metrology measures; no closing onto a live load side; what
was answered survives any power cut.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import StoreError, StoreUnusable
from amistack.model import ClockState
from amistack.model.control import (
    Action,
    ControlAnswer,
    ControlCommand,
    Outcome,
    Position,
    Refusal,
    Sense,
)
from meterd.service import Faults
from meterd.storage import SWITCH, THE_ONE
from meterd.switch import events
from meterd.switch.confirmation import CONFIRM_S
from meterd.switch.switch import RETRY_S, WATCH_S
from tests.meterd.switch.house import House, always
from tests.support.power import PowerCut

TAKEN = Refusal.NONE


def outcome_of(house: House) -> tuple[Position, Outcome]:
    state = house.switch.state(now=house.now)
    return state.position, state.outcome


def disconnected(**settings: int) -> House:
    house = House(**settings)  # type: ignore[arg-type]  # as given
    house.command(1, Action.DISCONNECT)
    house.run(20)
    assert outcome_of(house) == (Position.OPEN, Outcome.CONFIRMED)
    house.log.clear()
    return house


def test_disconnect_is_confirmed_by_what_is_measured_and_connect_too() -> None:
    house = House()
    assert house.command(1, Action.DISCONNECT) == ControlAnswer(1, TAKEN, 1, int(CONFIRM_S))
    assert outcome_of(house) == (Position.OPEN, Outcome.PENDING)
    house.run(CONFIRM_S)
    assert outcome_of(house) == (Position.OPEN, Outcome.CONFIRMED)
    state = house.switch.state(now=house.now)
    assert (state.current, state.load_side, state.newest) == (Sense.ABSENT, Sense.ABSENT, 1)
    assert house.service.source.energy(int(house.clock.utc(0)) + 900, 1) == [(0,)]
    assert house.events() == [str(events.OPENED)]
    house.command(2, Action.CONNECT)
    house.run(CONFIRM_S)
    assert outcome_of(house) == (Position.CLOSED, Outcome.CONFIRMED)
    assert house.switch.state(now=house.now).current is Sense.PRESENT
    assert house.events() == [str(events.CLOSED)]


@pytest.mark.parametrize(
    ("faults", "why"),
    [
        (Faults(is_welded=True), "current flows"),
        (Faults(back_feed_mv=225_000), "load side live"),
        (Faults(is_bypassed=True), "load side live"),
    ],
)
def test_disconnect_that_does_not_disconnect_is_contradicted(faults: Faults, why: str) -> None:
    house = House()
    house.service.set_faults(faults, now=0.0)
    assert house.command(1, Action.DISCONNECT).refusal is TAKEN
    house.run(CONFIRM_S - 1)
    assert outcome_of(house) == (Position.OPEN, Outcome.PENDING)
    house.run(1)
    assert outcome_of(house) == (Position.OPEN, Outcome.CONTRADICTED)
    assert house.log == [(str(events.OPENING_FAILED), f"contradicted: {why}")]


def test_disconnect_that_nobody_can_see_is_unconfirmed() -> None:
    house = House()
    house.fault(is_blind=True)
    house.command(1, Action.DISCONNECT)
    house.run(CONFIRM_S)
    assert outcome_of(house) == (Position.OPEN, Outcome.UNCONFIRMED)
    assert house.log == [(str(events.OPENING_FAILED), "unconfirmed: nothing to tell it by")]


def test_relay_that_cannot_be_reached_is_told_again_until_it_can() -> None:
    house = House()
    house.fault(is_unreachable=True)
    house.command(1, Action.DISCONNECT)
    house.run(CONFIRM_S)
    assert outcome_of(house) == (Position.OPEN, Outcome.CONTRADICTED)
    assert house.events() == [str(events.RELAY_LOST), str(events.OPENING_FAILED)]
    house.fault(is_unreachable=False)
    house.run(RETRY_S)
    assert not house.service.is_contact_closed


# Commands that do not count


def test_expired_command_changes_nothing_and_one_second_earlier_it_is_done() -> None:
    for early_s, refusal in ((0, Refusal.EXPIRED), (1, TAKEN)):
        house = House()
        expires_s = int(house.clock.utc(0.0)) + 100
        command = ControlCommand(1, expires_s, Action.DISCONNECT)
        answer = house.switch.command(command, now=100.0 - early_s)
        assert answer.refusal is refusal
        assert house.service.is_contact_closed is (refusal is Refusal.EXPIRED)
        assert answer.newest == (0 if refusal else 1)


def test_old_and_reused_numbers_change_nothing_and_are_told_the_newest() -> None:
    house = disconnected()
    house.command(7, Action.ARM)
    for sequence, refusal in ((6, Refusal.OLD), (1, Refusal.OLD), (7, Refusal.REUSED)):
        answer = house.command(sequence, Action.CONNECT)
        assert (answer.refusal, answer.newest, answer.confirm_s) == (refusal, 7, 0)
    assert not house.service.is_contact_closed
    assert outcome_of(house)[0] is Position.ARMED
    assert house.events() == [str(events.REFUSED)] * 3


def test_repeated_command_gets_the_same_answer_and_is_not_done_again() -> None:
    house = House()
    command = ControlCommand(1, int(house.clock.utc(0.0)) + 60, Action.DISCONNECT)
    first = house.switch.command(command, now=house.now)
    house.run(30)
    since_s = house.switch.state(now=house.now).since_s
    house.log.clear()
    house.run(3_600)  # It would have expired by now.
    assert house.switch.command(command, now=house.now) == first
    house.restart()
    assert house.switch.command(command, now=house.now) == first
    assert house.switch.state(now=house.now).since_s == since_s
    assert house.log == []


def test_unset_clock_refuses_and_uses_no_number_up() -> None:
    house = House()
    house.clock.state = ClockState.UNSET
    assert house.command(1, Action.DISCONNECT).refusal is Refusal.CLOCK_UNSET
    assert house.service.is_contact_closed
    house.clock.state = ClockState.SET
    assert house.command(1, Action.DISCONNECT).refusal is TAKEN


def test_arming_what_is_closed_is_refused() -> None:
    house = House()
    answer = house.command(1, Action.ARM)
    assert (answer.refusal, answer.newest) == (Refusal.NOT_OPEN, 1)
    assert outcome_of(house) == (Position.CLOSED, Outcome.NONE)


# Closing


@pytest.mark.parametrize("has_contact", [True, False])
def test_live_load_side_is_not_closed_onto_and_the_number_is_used_up(
    has_contact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = disconnected()
    if not has_contact:  # A relay that says nothing of itself: the load side alone must do.
        real = house.service.measure
        monkeypatch.setattr(
            house.service,
            "measure",
            lambda *, now: replace(real(now=now), is_contact_closed=None),
        )
    house.fault(back_feed_mv=230_000)
    command = ControlCommand(2, int(house.clock.utc(house.now)) + 600, Action.CONNECT)
    answer = house.switch.command(command, now=house.now)
    assert (answer.refusal, answer.newest) == (Refusal.LOAD_SIDE_LIVE, 2)
    house.fault(back_feed_mv=0)
    # However late it comes again, it is not done: only a new command closes.
    assert house.switch.command(command, now=house.now) == answer
    house.run(60)
    assert not house.service.is_contact_closed
    house.command(3, Action.CONNECT)
    assert house.service.is_contact_closed


def test_load_side_that_is_not_known_is_not_closed_onto() -> None:
    house = disconnected()
    house.fault(is_blind=True)
    assert house.command(2, Action.CONNECT).refusal is Refusal.LOAD_SIDE_UNKNOWN
    assert not house.service.is_contact_closed


def test_meter_without_a_load_sensor_closes_unchecked() -> None:
    house = House(has_load_sensor=False)
    house.command(1, Action.DISCONNECT)
    house.fault(back_feed_mv=230_000)
    assert house.command(2, Action.CONNECT).refusal is TAKEN
    assert house.service.is_contact_closed


def test_welded_contact_can_be_told_to_connect_as_current_shows_that_it_is_closed() -> None:
    house = House()
    house.fault(is_welded=True)
    house.command(1, Action.DISCONNECT)
    house.run(20)
    assert house.command(2, Action.CONNECT).refusal is TAKEN
    house.run(20)
    assert outcome_of(house) == (Position.CLOSED, Outcome.CONFIRMED)


def test_armed_switch_closes_when_somebody_at_the_meter_asks() -> None:
    house = disconnected()
    assert not house.switch.press(now=house.now)
    house.command(2, Action.ARM)
    house.run(20)
    assert outcome_of(house) == (Position.ARMED, Outcome.CONFIRMED)
    house.fault(back_feed_mv=230_000)
    assert not house.switch.press(now=house.now)
    house.fault(back_feed_mv=0)
    house.log.clear()
    assert house.switch.press(now=house.now)
    house.run(20)
    assert outcome_of(house) == (Position.CLOSED, Outcome.CONFIRMED)
    assert not house.switch.press(now=house.now)
    assert house.events() == [str(events.CLOSED)]


def test_relay_out_of_reach_is_not_closed_later_onto_a_load_side_that_went_live() -> None:
    house = disconnected()
    house.fault(is_unreachable=True)
    house.command(2, Action.CONNECT)
    house.fault(is_unreachable=False, back_feed_mv=230_000)
    house.run(120)
    assert not house.service.is_contact_closed
    assert outcome_of(house) == (Position.CLOSED, Outcome.CONTRADICTED)


# Being watched


def test_who_closes_an_open_switch_in_another_way_is_found_out_once() -> None:
    house = disconnected()
    house.fault(is_bypassed=True)
    house.run(3 * WATCH_S)
    assert house.events() == [str(events.TAMPERED)]
    # What is not seen for a while is not over, and not new when it is seen again.
    for is_blind in (True, False):
        house.fault(is_blind=is_blind)
        house.run(3 * WATCH_S)
        assert house.events() == []
    house.fault(is_bypassed=False)
    house.run(3 * WATCH_S)
    assert house.events() == [str(events.TAMPERING_OVER)]


def test_closed_switch_without_a_limit_wants_no_waking() -> None:
    house = House()
    assert house.switch.next_timer() is None
    house.switch.start(now=0.0)
    assert house.switch.next_timer() is None


# Restarts


def test_restart_in_the_middle_goes_on_with_the_move_and_tells_the_relay_again() -> None:
    house = House()
    house.fault(is_unreachable=True)
    house.command(1, Action.DISCONNECT)
    house.restart(faults=Faults())
    assert not house.service.is_contact_closed
    house.run(CONFIRM_S)
    assert outcome_of(house) == (Position.OPEN, Outcome.CONFIRMED)


def test_relay_that_fell_open_while_down_is_closed_unless_the_load_side_is_live() -> None:
    for back_feed_mv, position in ((0, Position.CLOSED), (230_000, Position.ARMED)):
        house = disconnected()
        house.command(2, Action.CONNECT)
        house.run(20)
        house.log.clear()
        house.service.drive(is_closed=False, now=house.now)
        house.restart(faults=Faults(back_feed_mv=back_feed_mv))
        assert house.service.is_contact_closed is (not back_feed_mv)
        assert outcome_of(house)[0] is position


def test_row_that_no_meterd_writes_is_refused_in_a_line() -> None:
    house = disconnected()
    row = list(house.storage.get(SWITCH, THE_ONE))
    house.storage.put((SWITCH, THE_ONE, [9, *row[1:]]))
    with pytest.raises(StoreUnusable, match="switch"):
        house.restart()


def test_nothing_is_told_to_the_relay_that_could_not_be_kept() -> None:
    house = House()
    house.files.fails_with = 28
    with pytest.raises(StoreError):
        house.command(1, Action.DISCONNECT)
    assert house.service.is_contact_closed
    house.files.fails_with = None
    assert house.command(1, Action.DISCONNECT).refusal is TAKEN
    house.run(20)
    assert outcome_of(house) == (Position.OPEN, Outcome.CONFIRMED)


actions = st.lists(
    st.sampled_from([Action.DISCONNECT, Action.CONNECT, Action.ARM]), min_size=1, max_size=5
)


@settings(deadline=None, max_examples=40)
@given(actions=actions, cut_after=st.integers(0, 12), seed=st.integers(0, 2**16))
def test_power_cut_at_any_write_leaves_what_was_answered_and_relay_and_row_agree(
    actions: list[Action], cut_after: int, seed: int
) -> None:
    house = House(seed=seed)
    answered: dict[int, tuple[ControlCommand, ControlAnswer]] = {}
    house.files.cut_after(cut_after)
    try:
        for sequence, action in enumerate(actions, start=1):
            expires_s = int(house.clock.utc(house.now)) + 6_000
            command = ControlCommand(sequence, expires_s, action)
            answered[sequence] = command, house.switch.command(command, now=house.now)
            house.run(5)
    except PowerCut:
        house.files.crash()
        house.open()
        house.switch.start(now=house.now)
    newest = house.switch.state(now=house.now).newest
    assert newest >= max(answered, default=0)
    if newest in answered:
        command, answer = answered[newest]
        assert house.switch.command(command, now=house.now) == answer
    for sequence in range(1, newest):
        assert house.command(sequence, Action.CONNECT).refusal is Refusal.OLD
    house.run(30)
    position, outcome = outcome_of(house)
    assert outcome in (Outcome.CONFIRMED, Outcome.NONE)
    assert house.service.is_contact_closed is (position is Position.CLOSED)


def test_limit_command_moves_nothing_and_is_kept() -> None:
    house = House(watts=2_000)
    answer = house.command(1, Action.LIMIT, limit=always(3_000))
    assert (answer.refusal, answer.confirm_s) == (TAKEN, 0)
    assert outcome_of(house) == (Position.CLOSED, Outcome.NONE)
    house.restart()
    assert house.switch.state(now=house.now).limit == always(3_000)
    house.command(2, Action.UNLIMIT)
    assert house.switch.state(now=house.now).limit is None
    assert house.events() == [str(events.LIMIT_CHANGED)] * 2
