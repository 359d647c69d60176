"""Success is what the metrology then measures.

The contract under test: no outcome but on what is measured, seen twice; a contradiction waits for
the end of CONFIRM_S, and no longer; what cannot be told is not called a success.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.model.control import Outcome
from meterd.service import NOTHING_MEASURED, Measured
from meterd.service.interface import FLOW_MA, LIVE_MV
from meterd.switch.confirmation import CONFIRM_S, Confirmation, contradiction

LINE = 230_000
DEAD = Measured(LINE, 0, 0, 0)
ALIVE = Measured(LINE, LINE, 2_000, 460)
IDLE = Measured(LINE, LINE, 0, 0)


def watch(
    measured: Measured, *, is_closed: bool, has_flowed: bool = True
) -> tuple[Outcome, float, str | None]:
    """The outcome of looking once a second at the same thing, when it came, and why."""
    confirmation = Confirmation(is_closed=is_closed, has_flowed=has_flowed, now=0.0)
    for second in range(1, 100):
        outcome = confirmation.look(measured, now=float(second))
        if outcome is not None:
            return outcome, float(second), confirmation.why
    raise AssertionError("no outcome")


def test_dead_load_side_without_current_confirms_an_opening_at_the_second_look() -> None:
    assert watch(DEAD, is_closed=False) == (Outcome.CONFIRMED, 2.0, None)


@pytest.mark.parametrize("measured", [ALIVE, IDLE])
def test_voltage_of_the_line_confirms_a_closing_with_or_without_a_load(measured: Measured) -> None:
    assert watch(measured, is_closed=True) == (Outcome.CONFIRMED, 2.0, None)


@pytest.mark.parametrize(
    ("measured", "is_closed", "why"),
    [
        (ALIVE, False, "current flows"),
        (IDLE, False, "load side live"),
        (Measured(LINE, 0, 0, 0, is_contact_closed=True), False, "contact closed"),
        (DEAD, True, "load side dead"),
        (Measured(LINE, LINE, 0, 0, is_contact_closed=False), True, "contact open"),
    ],
)
def test_what_contradicts_is_told_at_the_end_and_not_before(
    measured: Measured, is_closed: bool, why: str
) -> None:
    assert watch(measured, is_closed=is_closed) == (Outcome.CONTRADICTED, CONFIRM_S, why)


@pytest.mark.parametrize(
    ("measured", "is_closed"),
    [
        (NOTHING_MEASURED, False),
        (NOTHING_MEASURED, True),
        (Measured(line_mv=0, load_mv=0, current_ma=0), True),
        (Measured(line_mv=LINE, current_ma=0), True),
        (Measured(line_mv=0, load_mv=0, current_ma=0), False),
        (Measured(load_mv=0), False),
    ],
)
def test_what_cannot_be_told_is_no_success(measured: Measured, is_closed: bool) -> None:
    told = watch(measured, is_closed=is_closed)
    assert told == (Outcome.UNCONFIRMED, CONFIRM_S, "nothing to tell it by")


def test_dead_load_side_of_a_live_line_confirms_an_opening_without_a_word_on_current() -> None:
    assert watch(Measured(line_mv=LINE, load_mv=0), is_closed=False)[0] is Outcome.CONFIRMED


def test_without_a_load_sensor_an_opening_is_confirmed_only_where_current_ended() -> None:
    no_sensor = Measured(LINE, None, 0, 0)
    assert watch(no_sensor, is_closed=False, has_flowed=True)[0] is Outcome.CONFIRMED
    assert watch(no_sensor, is_closed=False, has_flowed=False)[0] is Outcome.UNCONFIRMED


def test_thresholds_from_both_sides() -> None:
    def seen(load_mv: int, current_ma: int) -> str | None:
        return contradiction(Measured(LINE, load_mv, current_ma, 0), is_closed=False)

    assert seen(LIVE_MV - 1, FLOW_MA - 1) is None
    assert seen(LIVE_MV, 0) == "load side live"
    assert seen(0, FLOW_MA) == "current flows"


def test_what_was_seen_once_and_not_again_does_not_count() -> None:
    confirmation = Confirmation(is_closed=False, has_flowed=True, now=0.0)
    for second in range(1, 10):
        measured = DEAD if second % 2 else ALIVE
        assert confirmation.look(measured, now=float(second)) is None
    assert confirmation.look(ALIVE, now=10.0) is Outcome.CONTRADICTED


maybe = st.none() | st.integers(0, 300_000)
measurements = st.builds(
    Measured, maybe, maybe, st.none() | st.integers(0, 90_000), maybe, st.none() | st.booleans()
)


@given(seen=st.lists(measurements, min_size=12, max_size=12), is_closed=st.booleans())
def test_there_always_is_an_outcome_in_time_and_a_contradiction_never_confirms(
    seen: list[Measured], is_closed: bool
) -> None:
    confirmation = Confirmation(is_closed=is_closed, has_flowed=False, now=0.0)
    for second, measured in enumerate(seen, start=1):
        outcome = confirmation.look(measured, now=float(second))
        against = contradiction(measured, is_closed=is_closed)
        if outcome is not None:
            assert second <= CONFIRM_S
            assert (outcome is Outcome.CONTRADICTED) == (against is not None)
            if outcome is Outcome.CONFIRMED:
                assert measured.is_current is not None or measured.is_load_live is not None
            return
        assert second < CONFIRM_S
