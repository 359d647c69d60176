"""A constant load.

The contract under test: any span of intervals sums to the power times its length within 1 Wh,
however it is cut up; and `partial` grows into `energy`.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError, SourceError
from meterd.metrology import ConstantSource, Flow
from meterd.metrology.source import INTERVAL_COUNT_MAX

MIDNIGHT = 1_750_000_000 // 86_400 * 86_400
NOON = MIDNIGHT + 43_200

divisors = st.sampled_from([1, 27, 60, 300, 900, 1800, 3600, 86_400])
powers = st.decimals(0, 20_000, places=3, allow_nan=False, allow_infinity=False)


def test_round_power_gives_the_value_that_one_computes_in_the_head() -> None:
    source = ConstantSource(watts=400)
    assert source.flows == (Flow.DELIVERED,)
    assert source.energy(NOON, 3) == [(100,), (100,), (100,)]
    assert source.available() == (None, None)


def test_received_power_is_a_second_channel() -> None:
    source = ConstantSource(watts=400, received_watts=80, interval_s=1800)
    assert source.flows == (Flow.DELIVERED, Flow.RECEIVED)
    assert source.energy(NOON, 2) == [(200, 40), (200, 40)]


def test_half_watt_hours_alternate_instead_of_adding_up() -> None:
    values = [wh or 0 for (wh,) in ConstantSource(watts=230).energy(NOON, 8)]
    assert sorted(set(values)) == [57, 58]
    assert sum(values) == 460


@settings(deadline=None)
@given(watts=powers, step=divisors, cut=st.integers(0, 60), count=st.integers(0, 60))
def test_sum_is_exact_to_one_watt_hour_and_cuts_do_not_matter(
    watts: Decimal, step: int, cut: int, count: int
) -> None:
    source = ConstantSource(watts=watts, interval_s=step)
    whole = source.energy(MIDNIGHT, cut + count)
    assert source.energy(MIDNIGHT, cut) + source.energy(MIDNIGHT + cut * step, count) == whole
    exact = Fraction(watts) * step * (cut + count) / 3600
    assert abs(sum(wh or 0 for (wh,) in whole) - exact) <= 1


@settings(deadline=None)
@given(watts=powers, step=divisors, shares=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_partial_rises_from_zero_to_the_interval(
    watts: Decimal, step: int, shares: list[float]
) -> None:
    source = ConstantSource(watts=watts, interval_s=step)
    seen = [source.partial(MIDNIGHT, MIDNIGHT + share * step)[0] or 0 for share in sorted(shares)]
    assert seen == sorted(seen)
    assert source.partial(MIDNIGHT, MIDNIGHT) == (0,)
    assert source.partial(MIDNIGHT, MIDNIGHT + step) == source.energy(MIDNIGHT, 1)[0]
    assert source.partial(MIDNIGHT, MIDNIGHT + 9 * step) == source.energy(MIDNIGHT, 1)[0]
    assert source.partial(MIDNIGHT, MIDNIGHT - 1.0) == (0,)


def test_partial_is_exact_within_a_second() -> None:
    source = ConstantSource(watts=7_200_000)
    assert source.partial(NOON, NOON + 0.5) == (1000,)
    assert source.partial(NOON, NOON + 1.25) == (2500,)


def test_a_tenth_of_a_watt_is_a_tenth_and_not_its_binary_neighbour() -> None:
    source = ConstantSource(watts=0.1, interval_s=86_400)
    total = sum(wh or 0 for (wh,) in source.energy(0, 100_000))
    assert total == 240_000


@pytest.mark.parametrize(
    "watts", [-1, float("nan"), float("inf"), 10_000_001, Decimal("1e999999"), "many"]
)
def test_impossible_power_is_refused(watts: float) -> None:
    with pytest.raises(ConfigError, match=r"watts is .* expected"):
        ConstantSource(watts=watts)
    with pytest.raises(ConfigError, match=r"received_watts is .* expected"):
        ConstantSource(watts=0, received_watts=watts)


@pytest.mark.parametrize(("interval_s", "offset_min"), [(0, 0), (-900, 0), (7000, 0), (900, 901)])
def test_impossible_settings_are_refused(interval_s: int, offset_min: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ConstantSource(watts=1, interval_s=interval_s, offset_min=offset_min)


@pytest.mark.parametrize(
    ("start", "count"),
    [(NOON + 1, 1), (-900, 1), (NOON, -1), (NOON, INTERVAL_COUNT_MAX + 1), (10**30 * 900, 1)],
)
def test_impossible_windows_are_refused(start: int, count: int) -> None:
    with pytest.raises(SourceError, match="expected"):
        ConstantSource(watts=1).energy(start, count)


def test_now_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(SourceError, match="not a number"):
        ConstantSource(watts=1).partial(NOON, float("nan"))


def test_grid_begins_at_the_meters_own_midnight() -> None:
    """India is half an hour off the UTC hours."""
    source = ConstantSource(watts=100, interval_s=3600, offset_min=330)
    assert source.energy(NOON + 1800, 1) == [(100,)]
    with pytest.raises(SourceError):
        source.energy(NOON, 1)
