"""A switch under a load limit, on a virtual clock.

The contract under test: over the limit for N s opens, M s later it closes, k times and no more,
then it waits for somebody at the meter; outside the windows nothing happens.
"""

from __future__ import annotations

from amistack.model import ClockState
from amistack.model.control import Action, LimitWindow, Outcome, Position
from meterd.service import Faults
from meterd.switch import events
from meterd.switch.confirmation import CONFIRM_S, LOOK_S
from tests.meterd.switch.house import House, always


def limited(load_w: int = 4_000, **changed: int) -> House:
    house = House()
    house.service.load_w = load_w
    house.command(1, Action.LIMIT, limit=always(3_000, **changed))
    house.log.clear()
    return house


def position(house: House) -> Position:
    return house.switch.state(now=house.now).position


def test_over_the_limit_opens_after_n_seconds_and_closes_m_seconds_later() -> None:
    house = limited(over_s=30, rest_s=300)
    house.run(30)
    assert position(house) is Position.CLOSED
    house.run(LOOK_S)
    assert position(house) is Position.LIMITED
    assert not house.service.is_contact_closed
    opened = house.now
    house.service.load_w = 1_000
    house.run(opened + 299 - house.now)
    assert position(house) is Position.LIMITED
    house.run(1)
    assert position(house) is Position.CLOSED
    assert house.service.is_contact_closed
    house.run(3_600)
    assert house.switch.state(now=house.now).outcome is Outcome.CONFIRMED
    assert house.log == [
        (str(events.LIMIT_EXCEEDED), "4000 W, limit 3000 W"),
        (str(events.OPENED), None),
        (str(events.CLOSED), None),
    ]


def test_after_k_closings_it_is_armed_and_stays_open_until_somebody_asks() -> None:
    house = limited(over_s=30, rest_s=300, closes_max=2)
    closings = 0
    before = Position.CLOSED
    for _ in range(3_600):
        house.run(1)
        after = position(house)
        closings += before is not Position.CLOSED and after is Position.CLOSED
        before = after
    assert (closings, before) == (2, Position.ARMED)
    assert house.events().count(str(events.LIMIT_EXCEEDED)) == 3
    house.service.load_w = 1_000
    assert house.switch.press(now=house.now)
    house.run(3_600)
    assert position(house) is Position.CLOSED
    # The count begins anew.
    house.service.load_w = 4_000
    house.run(40)
    assert position(house) is Position.LIMITED


def test_with_no_closing_allowed_it_is_armed_at_once() -> None:
    house = limited(closes_max=0)
    house.run(60)
    assert position(house) is Position.ARMED


def test_count_begins_anew_in_the_next_day_s_window() -> None:
    house = limited(closes_max=1, rest_s=600)
    house.run(45)
    assert position(house) is Position.LIMITED
    house.service.load_w = 0
    house.run(86_400)
    assert (position(house), house.switch.state(now=house.now).closes) == (Position.CLOSED, 1)
    house.service.load_w = 4_000
    house.run(45)
    assert (position(house), house.switch.state(now=house.now).closes) == (Position.LIMITED, 0)


def test_outside_its_windows_nothing_is_limited_and_nothing_is_looked_at() -> None:
    house = House()
    house.service.load_w = 9_000
    noon = always(3_000)
    window = LimitWindow(0b111_1111, 12 * 60, 13 * 60, 3_000)
    house.command(1, Action.LIMIT, limit=type(noon)(30, 300, 2, 0, 2**32 - 1, (window,)))
    woken = 0
    while house.now < 12 * 3_600 - 1:
        due = house.switch.next_timer()
        assert due is not None
        house.run(due - house.now)
        woken += 1
        assert position(house) is Position.CLOSED
    assert woken <= 13
    house.run(45)
    assert position(house) is Position.LIMITED


def test_end_of_the_limit_leaves_a_rest_that_still_ends() -> None:
    house = limited(rest_s=300)
    house.run(35)
    house.command(2, Action.UNLIMIT)
    house.run(1)
    assert position(house) is Position.CLOSED
    house.run(3_600)
    assert house.service.is_contact_closed


def test_rest_goes_on_over_a_restart() -> None:
    house = limited(rest_s=300)
    house.run(35)
    house.restart(down_s=100)
    house.run(150)
    assert position(house) is Position.LIMITED
    house.service.load_w = 0
    house.run(60)
    assert position(house) is Position.CLOSED


def test_rest_that_ends_on_a_live_load_side_leaves_it_armed() -> None:
    house = limited(rest_s=300)
    house.run(35)
    house.fault(back_feed_mv=230_000)
    house.run(400)
    assert position(house) is Position.ARMED
    assert not house.service.is_contact_closed
    assert (str(events.ARMED), "load side live") in house.log


def test_command_ends_a_rest() -> None:
    for action, where in ((Action.DISCONNECT, Position.OPEN), (Action.CONNECT, Position.CLOSED)):
        house = limited(rest_s=300)
        house.run(35)
        house.service.load_w = 0
        house.command(2, action)
        house.run(400)
        assert position(house) is where
        assert house.switch.state(now=house.now).closes == 0


def test_clock_that_was_lost_limits_nothing() -> None:
    house = limited()
    house.clock.state = ClockState.UNSET
    house.run(3_600)
    assert position(house) is Position.CLOSED


def test_welded_contact_under_a_limit_is_told_of_and_the_rest_ends_all_the_same() -> None:
    house = limited(rest_s=60)
    house.service.set_faults(Faults(is_welded=True), now=house.now)
    house.run(31 + CONFIRM_S)
    state = house.switch.state(now=house.now)
    assert (state.position, state.outcome) == (Position.LIMITED, Outcome.CONTRADICTED)
    house.service.load_w = 0
    house.run(120)
    assert position(house) in (Position.CLOSED, Position.ARMED)
