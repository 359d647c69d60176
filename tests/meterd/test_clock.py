"""The meter's clock: what a sample of the head-end's time proves.

The contract under test: whatever the network did to the two directions, the true error lies
within the sample's bound; a clock calls itself SET only if its error is proven to be at most 20 s.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.model import ClockState
from amistack.model.clock import IN_SYNC_WITHIN_S
from meterd.clock import SAMPLE_COUNT_MAX, MeterClock

UTC = 1_790_000_000.0

delays = st.floats(0, 120)


@given(
    error=st.floats(-100_000, 100_000),
    there=delays,
    held=delays,
    back=delays,
    now=st.floats(0, 10_000_000),
)
def test_true_error_is_within_the_bound_however_lopsided_the_way(
    error: float, there: float, held: float, back: float, now: float
) -> None:
    clock = MeterClock(utc=UTC, now=0.0)
    received = UTC + now + there + error  # The head-end's clock when the message arrived.
    sample = clock.take_sample(
        sent=now,
        got=now + there + held + back,
        received_ms=math.floor(received * 1000),
        held_ms=math.floor(held * 1000),
    )
    assert sample is not None
    assert abs(sample.error_s - error) <= sample.bound_s + 1e-6
    assert sample.bound_s <= (there + back) / 2 + 0.002


def test_equal_ways_give_the_error_itself() -> None:
    clock = MeterClock(utc=UTC, now=50.0)
    sample = clock.take_sample(
        sent=60.0, got=64.0, received_ms=int((UTC + 10 + 1.5 + 7) * 1000), held_ms=1000
    )
    assert sample is not None
    assert sample.error_s == pytest.approx(7)
    assert sample.bound_s == pytest.approx(1.501)


def test_utc_and_when_are_inverse() -> None:
    clock = MeterClock(utc=UTC, now=123.25)
    assert clock.utc(123.25) == UTC
    assert clock.when(clock.utc(777.5)) == pytest.approx(777.5)


@pytest.mark.parametrize(("beyond_ms", "is_taken"), [(0, True), (1, True), (3, False)])
def test_head_end_that_held_longer_than_the_round_trip_is_not_believed(
    beyond_ms: int, is_taken: bool
) -> None:
    clock = MeterClock(utc=UTC, now=0.0)
    sample = clock.take_sample(sent=0.0, got=1.0, received_ms=0, held_ms=1000 + beyond_ms)
    assert (sample is not None) is is_taken
    assert (clock.best is not None) is is_taken


def _after(error_ms: int, *, round_trip: float = 0.0) -> ClockState:
    clock = MeterClock(utc=UTC, now=0.0)
    half = round_trip / 2
    clock.take_sample(
        sent=0.0, got=round_trip, received_ms=int((UTC + half) * 1000) + error_ms, held_ms=0
    )
    return clock.state


@pytest.mark.parametrize("sign", [1, -1])
def test_state_turns_where_error_and_bound_together_pass_twenty_seconds(sign: int) -> None:
    limit_ms = IN_SYNC_WITHIN_S * 1000
    # The bound of an instant round trip is the millisecond that stamps are rounded to.
    assert _after(sign * (limit_ms - 2)) is ClockState.SET
    assert _after(sign * limit_ms) is ClockState.DOUBTFUL
    assert _after(sign * (limit_ms + 1)) is ClockState.DOUBTFUL


def test_a_slow_answer_alone_makes_a_right_clock_doubtful() -> None:
    assert _after(0, round_trip=39.0) is ClockState.SET
    assert _after(0, round_trip=41.0) is ClockState.DOUBTFUL


def test_clock_without_a_sample_is_doubtful() -> None:
    clock = MeterClock(utc=UTC, now=0.0)
    assert clock.best is None
    assert clock.state is ClockState.DOUBTFUL
    assert clock.reading(2.9).utc_s == int(UTC) + 2


def test_best_of_the_last_eight_counts_and_a_ninth_takes_the_oldest_away() -> None:
    clock = MeterClock(utc=UTC, now=0.0)

    def take(round_trip: float, error: float) -> None:
        received = UTC + round_trip / 2 + error
        clock.take_sample(sent=0.0, got=round_trip, received_ms=round(received * 1000), held_ms=0)

    take(1.0, 30)
    for _ in range(SAMPLE_COUNT_MAX - 1):
        take(8.0, 0)
    assert clock.best is not None
    assert clock.best.error_s == pytest.approx(30)
    assert clock.state is ClockState.DOUBTFUL
    take(8.0, 0)
    assert clock.best.error_s == pytest.approx(0)
    assert clock.state is ClockState.SET
    take(2.0, 25)
    assert clock.state is ClockState.DOUBTFUL
