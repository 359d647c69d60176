"""The timeout of a path: how it follows what is measured, and within which bounds.

The contract under test: whatever is measured, a timeout stands between its floor and its greatest
value; once a path's round trip was seen it is not repeated into; nothing is below the base timing.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.path import HOP_TIME, MARGIN, SLOW_TIMEOUT, TIMEOUT_MAX, PathTiming
from amistack.coap.retransmission import Retransmission
from amistack.coap.timing import Timing

BASE = Timing()
KEY = ("meter", 1)

seconds = st.floats(0.0, 500.0)
samples = st.lists(st.tuples(seconds, st.integers(0, 4)), max_size=60)


def exchange(path: PathTiming, round_trip: float, dice: random.Random) -> int:
    """One confirmable message over a path with that round trip; how often it was repeated."""
    machine = Retransmission(dice)
    machine.add(KEY, b"", path.timing, now=0.0)
    while (due := machine.next_timer()) is not None and due <= round_trip:
        _, given_up = machine.take_due(now=due)
        if given_up:
            path.note_silence()
            return BASE.max_retransmit
    pending = machine.remove(KEY)
    assert pending is not None
    path.take_sample(round_trip, repetition=pending.repetition)
    return pending.repetition


def test_before_anything_is_measured_the_base_holds() -> None:
    assert PathTiming(BASE).timing is BASE
    assert PathTiming(BASE).round_trip is None


def test_a_prompt_path_keeps_the_base() -> None:
    """A peer may take ACK_TIMEOUT to think, however near it is."""
    path = PathTiming(BASE)
    for _ in range(20):
        path.take_sample(0.01)
    assert path.timing is BASE


def test_the_first_certain_round_trip_counts_threefold_and_settles() -> None:
    """RFC 6298 2.2: RTO is SRTT and four times RTTVAR, which is half of the first sample."""
    path = PathTiming(BASE)
    path.take_sample(4.0)
    assert path.timing.ack_timeout == pytest.approx(12.0)
    path.take_sample(4.0)
    assert path.timing.ack_timeout == pytest.approx(4.0 + 4 * 1.5)  # 2.3: three quarters of 2 s.
    for _ in range(40):
        path.take_sample(4.0)
    assert path.timing.ack_timeout == pytest.approx(4.0 * (1 + MARGIN))
    assert path.round_trip == pytest.approx(4.0)


def test_the_smoothed_round_trip_moves_by_an_eighth() -> None:
    """RFC 6298 2.3."""
    path = PathTiming(BASE)
    path.take_sample(4.0)
    path.take_sample(12.0)
    assert path.round_trip == pytest.approx(5.0)
    # The variation is 2, and moves by a quarter to the new deviation of 8.
    assert path.timing.ack_timeout == pytest.approx(5.0 + 4 * 3.5)


def test_what_follows_from_the_timeout_follows_it() -> None:
    path = PathTiming(BASE)
    for _ in range(40):
        path.take_sample(8.0)
    slow = path.timing
    assert slow.ack_timeout == pytest.approx(10.0)
    assert slow.max_transmit_span == pytest.approx(10 * 1.5 * (1 + 1.5 + 2.25 + 3.375))
    assert slow.exchange_lifetime == slow.max_transmit_span + 200 + slow.ack_timeout
    assert slow.exchange_lifetime > BASE.exchange_lifetime
    assert (slow.max_retransmit, slow.ack_random_factor) == (4, 1.5)


def test_slow_paths_repeat_with_less_patience_each_time() -> None:
    path = PathTiming(BASE)
    assert path.timing.backoff_factor == 2
    path.take_sample(SLOW_TIMEOUT / 4)
    assert path.timing.ack_timeout < SLOW_TIMEOUT
    assert path.timing.backoff_factor == 2
    path.take_sample(40.0)
    assert path.timing.ack_timeout > SLOW_TIMEOUT
    assert path.timing.backoff_factor == 1.5


def test_hops_raise_the_floor_and_nothing_else() -> None:
    path = PathTiming(BASE, hop_count=8)
    assert path.timing.ack_timeout == 2 + 8 * HOP_TIME
    path.take_sample(0.1)
    assert path.timing.ack_timeout == 2 + 8 * HOP_TIME
    path.take_sample(20.0)
    path.take_sample(20.0)
    far = path.timing
    path.set_hop_count(9)
    assert path.timing is far
    path.set_hop_count(10_000)
    assert path.timing.ack_timeout == TIMEOUT_MAX


def test_silence_makes_patient_up_to_a_bound_and_a_round_trip_ends_it() -> None:
    path = PathTiming(BASE)
    path.note_silence()
    assert path.timing.ack_timeout == 3
    for _ in range(100):
        path.note_silence()
    assert path.timing.ack_timeout == TIMEOUT_MAX
    path.take_sample(0.2)
    assert path.timing is BASE


def test_an_uncertain_round_trip_counts_a_little() -> None:
    path = PathTiming(BASE)
    path.take_sample(10.0, repetition=1)
    assert path.timing.ack_timeout == pytest.approx(2 + (12.5 - 2) / 4)
    assert path.round_trip is None
    other = PathTiming(BASE)
    other.take_sample(10.0, repetition=4)
    assert 2 < other.timing.ack_timeout < path.timing.ack_timeout


def test_a_base_longer_than_the_greatest_timeout_stays() -> None:
    base = Timing(ack_timeout=100)
    path = PathTiming(base, hop_count=5)
    path.take_sample(300.0)
    path.note_silence()
    assert path.timing.ack_timeout == 100


@settings(deadline=None)
@given(samples, st.integers(0, 40), st.lists(st.booleans(), max_size=60))
def test_whatever_is_measured_the_timeout_keeps_its_bounds(
    story: list[tuple[float, int]], hop_count: int, silences: list[bool]
) -> None:
    path = PathTiming(BASE, hop_count=hop_count)
    for index, (sample, repetition) in enumerate(story):
        path.take_sample(sample, repetition=repetition)
        if index < len(silences) and silences[index]:
            path.note_silence()
        timing = path.timing
        floor = min(TIMEOUT_MAX, 2 + hop_count * HOP_TIME)
        assert floor <= timing.ack_timeout <= TIMEOUT_MAX
        assert timing.exchange_lifetime >= BASE.exchange_lifetime
        assert timing.max_transmit_wait >= BASE.max_transmit_wait
        assert timing.max_transmit_wait <= 32 * 1.5 * 13.1875 + 1e-6


@settings(deadline=None)
@given(st.floats(2.0, 24.0), st.floats(0.0, 0.2), st.integers(0, 100))
def test_a_timeout_is_never_below_what_was_measured_of_late(
    middle: float, share: float, seed: int
) -> None:
    path = PathTiming(BASE)
    dice = random.Random(seed)
    times = [middle * dice.uniform(1 - share, 1 + share) for _ in range(60)]
    for time in times:
        path.take_sample(time)
        assert path.timing.ack_timeout >= min(times)
    assert path.timing.ack_timeout >= sum(times[-10:]) / 10


@settings(deadline=None, max_examples=60)
@given(st.floats(0.001, 25.0), st.integers(0, 1000))
def test_a_constant_round_trip_is_soon_never_repeated_into(round_trip: float, seed: int) -> None:
    """From whatever the first exchanges cost, a path of up to 25 s is learnt."""
    path = PathTiming(BASE)
    dice = random.Random(seed)
    repetitions = [exchange(path, round_trip, dice) for _ in range(150)]
    first_clean = repetitions.index(0)
    assert first_clean <= 60
    assert sum(repetitions[first_clean:]) == 0


def test_a_path_of_ten_seconds_costs_few_repetitions_to_learn() -> None:
    path = PathTiming(BASE)
    dice = random.Random(1)
    assert sum(exchange(path, 10.0, dice) for _ in range(100)) <= 12
