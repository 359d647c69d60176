"""Contacts without their bounce.

The contract under test: a level counts when it has been steady for the contact's debounce time and
not earlier; what bounces back is never told; pins that vanish leave nothing known, and nothing is
lost of what changed meanwhile.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterd.gpio import Changed, Panel, Role
from meterd.gpio.panel import CHANGE_COUNT_MAX, DEBOUNCE_S

SETTLED = 10.0


def panel_at_rest(*roles: Role) -> Panel:
    panel = Panel(roles or Role)
    for role in roles or Role:
        panel.take(role, is_on=False, now=0.0)
    panel.handle_timer(now=SETTLED)
    assert panel.changes() == []
    return panel


@pytest.mark.parametrize("role", Role)
def test_level_counts_when_its_debounce_time_is_over_and_not_before(role: Role) -> None:
    panel = panel_at_rest(role)
    panel.take(role, is_on=True, now=20.0)
    due = panel.next_timer()
    assert due == 20.0 + DEBOUNCE_S[role]
    panel.handle_timer(now=due - 0.001)
    assert (panel.changes(), panel.level(role)) == ([], False)
    panel.handle_timer(now=due)
    assert (panel.changes(), panel.level(role)) == ([Changed(role, is_on=True)], True)
    assert (panel.changes(), panel.next_timer()) == ([], None)


def test_bounce_begins_the_time_anew_and_what_bounces_back_is_never_told() -> None:
    panel = panel_at_rest(Role.COVER)
    for place in range(20):
        panel.take(Role.COVER, is_on=place % 2 == 0, now=20.0 + place * 0.1)
    assert panel.next_timer() is None
    panel.handle_timer(now=30.0)
    assert panel.changes() == []


def test_what_is_on_at_the_start_is_news_and_what_is_off_is_not() -> None:
    panel = Panel([Role.COVER, Role.TILT])
    panel.take(Role.COVER, is_on=True, now=0.0)
    panel.take(Role.TILT, is_on=False, now=0.0)
    assert panel.level(Role.COVER) is None
    panel.handle_timer(now=SETTLED)
    assert panel.changes() == [Changed(Role.COVER, is_on=True)]


def test_pins_that_vanish_leave_nothing_known_and_what_changed_meanwhile_is_told() -> None:
    panel = panel_at_rest(Role.COVER)
    panel.lose("gone")
    assert (panel.level(Role.COVER), panel.is_there, panel.trouble) == (None, False, "gone")
    assert panel.next_timer() is None
    panel.take(Role.COVER, is_on=True, now=100.0)
    panel.handle_timer(now=110.0)
    assert panel.changes() == [Changed(Role.COVER, is_on=True)]
    assert panel.is_there


def test_contact_that_a_meter_has_not_is_not_known() -> None:
    assert Panel([Role.COVER]).level(Role.TILT) is None


def test_no_more_than_so_many_changes_wait() -> None:
    panel = panel_at_rest(Role.BUTTON)
    for place in range(3 * CHANGE_COUNT_MAX):
        panel.take(Role.BUTTON, is_on=place % 2 == 0, now=20.0 + place)
    assert len(panel.changes()) == CHANGE_COUNT_MAX


steps = st.lists(st.tuples(st.floats(0.001, 1.0), st.booleans()), min_size=1, max_size=40)


@given(steps=steps, role=st.sampled_from(Role))
def test_changes_are_those_of_an_independent_model(
    steps: list[tuple[float, bool]], role: Role
) -> None:
    panel = panel_at_rest(role)
    told: list[bool] = []
    now = 20.0
    runs: list[tuple[float, bool]] = [(0.0, False)]
    for wait, is_on in steps:
        now += wait
        panel.take(role, is_on=is_on, now=now)
        if runs[-1][1] is not is_on:
            runs.append((now, is_on))
        told += [change.is_on for change in panel.changes()]
    panel.handle_timer(now=now + SETTLED)
    told += [change.is_on for change in panel.changes()]
    # The model: runs of one level that lasted long enough, each unlike the one before it.
    ends = [start for start, _ in runs[1:]] + [now + SETTLED]
    steady = [
        is_on
        for (start, is_on), end in zip(runs, ends, strict=True)
        if end >= start + DEBOUNCE_S[role]
    ]
    expected = [b for a, b in itertools.pairwise(steady) if a is not b]
    assert told == expected
