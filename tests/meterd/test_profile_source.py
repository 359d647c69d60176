"""A made-up household.

The contract under test: the same seed tells the same story in any order and after any
restart; values are differences of one register; and a street of them looks like people.
"""

from __future__ import annotations

import statistics
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError, SourceError
from meterd.metrology import Flow, HouseholdProfile
from meterd.metrology.profile import DAYS_CACHED_MAX, Heating, Occupancy

DAY = 86_400
FIRST = 20_454  # 2026-01-01, a Thursday
WINTER = FIRST * DAY
SUMMER = (FIRST + 171) * DAY
PINNED = [
    (95, 0),
    (95, 0),
    (105, 0),
    (105, 0),
    (89, 0),
    (42, 22),
    (19, 221),
    (1, 568),
    (1141, 693),
    (168, 921),
    (0, 1054),
    (71, 1279),
    (0, 1520),
    (0, 1328),
    (0, 960),
    (0, 965),
    (183, 396),
    (173, 145),
    (118, 0),
    (1111, 0),
    (531, 0),
    (536, 0),
    (316, 0),
    (220, 0),
]
"""Delivered and received Wh of seed 7, hour by hour, as this model first gave them."""


def delivered(source: HouseholdProfile, start: int, count: int) -> list[int]:
    return [wh for wh, *_ in source.energy(start, count) if wh is not None]


def test_pinned_day_of_a_pinned_seed_has_not_changed() -> None:
    """A meter in the field must not change its past when its program is updated.

    One Wh of freedom: the last bit of sine and cosine is the platform's.
    """
    hourly = HouseholdProfile(7, interval_s=3600, solar=True).energy(SUMMER, 24)
    assert len(hourly) == len(PINNED)
    for seen, pinned in zip(hourly, PINNED, strict=True):
        assert all(abs((wh or 0) - known) <= 1 for wh, known in zip(seen, pinned, strict=True))


def test_day_comes_to_the_nearest_whole_watt_hour_in_each_flow() -> None:
    source = HouseholdProfile(11, solar=True, interval_s=DAY)
    for day in range(FIRST, FIRST + 20):
        (values,) = source.energy(day * DAY, 1)
        for wh, curve in zip(values, source._curves_of(day), strict=True):
            assert wh is not None
            assert abs(wh - curve[-1]) <= 0.5


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(-5, 10**9),
    solar=st.booleans(),
    offset_min=st.sampled_from([0, 60, -300, 330, 345]),
    start=st.integers(0, 96 * 4),
    cut=st.integers(0, 150),
    count=st.integers(0, 150),
)
def test_cutting_a_window_anywhere_changes_nothing(
    seed: int, solar: bool, offset_min: int, start: int, cut: int, count: int
) -> None:
    source = HouseholdProfile(seed, solar=solar, offset_min=offset_min)
    again = HouseholdProfile(seed, solar=solar, offset_min=offset_min)
    first = WINTER + start * 900
    later = again.energy(first + cut * 900, count)
    assert source.energy(first, cut + count) == again.energy(first, cut) + later


def test_days_asked_in_reverse_order_are_the_same_days() -> None:
    source, other = HouseholdProfile(3), HouseholdProfile(3)
    forth = [source.energy(WINTER + day * DAY, 96) for day in range(20)]
    back = [other.energy(WINTER + day * DAY, 96) for day in reversed(range(20))]
    assert forth == back[::-1]
    assert len(source._days) == DAYS_CACHED_MAX


@pytest.mark.parametrize("interval_s", [60, 300, 1800, 3600, 86_400, 90, 27])
def test_every_interval_length_reads_the_same_register(interval_s: int) -> None:
    def day_of(step: int) -> list[int]:
        source = HouseholdProfile(11, solar=True, interval_s=step)
        values = source.energy(SUMMER, DAY // step)
        return [sum(wh or 0 for wh in column) for column in zip(*values, strict=True)]

    assert day_of(interval_s) == day_of(900)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 20),
    slot=st.integers(0, 95),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_partial_rises_from_zero_to_the_interval(seed: int, slot: int, shares: list[float]) -> None:
    source = HouseholdProfile(seed, solar=True)
    start = SUMMER + slot * 900
    seen = [source.partial(start, start + 900 * share) for share in sorted(shares)]
    for before, after in pairwise([(0, 0), *seen, source.energy(start, 1)[0]]):
        assert all((a or 0) <= (b or 0) for a, b in zip(before, after, strict=True))
    assert source.partial(start, start) == (0, 0)
    assert source.partial(start, start + 900) == source.energy(start, 1)[0]


def test_register_moves_within_a_minute() -> None:
    source = HouseholdProfile(11, solar=False, interval_s=60)
    values = delivered(source, WINTER, 1440)
    busiest = values.index(max(values))
    start = WINTER + busiest * 60
    assert max(values) > 20
    assert abs((source.partial(start, start + 30.0)[0] or 0) - max(values) / 2) <= 1


def test_sun_lowers_what_is_delivered_and_never_flows_at_night() -> None:
    with_sun = HouseholdProfile(5, solar=True)
    without = HouseholdProfile(5, solar=False)
    assert with_sun.flows == (Flow.DELIVERED, Flow.RECEIVED)
    assert without.flows == (Flow.DELIVERED,)
    received = [wh or 0 for day in range(7) for _, wh in with_sun.energy(SUMMER + day * DAY, 96)]
    assert sum(received) > 20_000
    night = [wh for slot, wh in enumerate(received) if slot % 96 < 12 or slot % 96 >= 86]
    assert not any(night)
    for (drawn, _), (load,) in zip(
        with_sun.energy(SUMMER, 96), without.energy(SUMMER, 96), strict=True
    ):
        assert drawn is not None
        assert load is not None
        assert drawn <= load + 1


def test_summer_sun_is_several_times_that_of_winter_and_the_other_way_round_down_under() -> None:
    def received(latitude: float, start: int) -> int:
        source = HouseholdProfile(5, solar=True, latitude=latitude, interval_s=DAY)
        return sum(wh or 0 for _, wh in source.energy(start, 28))

    assert received(52, SUMMER) > 3 * received(52, WINTER)
    assert received(-52, WINTER) > 3 * received(-52, SUMMER)


def test_days_follow_the_standard_time_of_the_meter() -> None:
    here = HouseholdProfile(9).energy(WINTER, 96)
    east = HouseholdProfile(9, offset_min=330).energy(WINTER - 330 * 60, 96)
    assert here == east


def test_seed_decides_on_sun_for_about_one_in_five() -> None:
    with_sun = sum(HouseholdProfile(seed).household.panel_power > 0 for seed in range(1000))
    assert 150 <= with_sun <= 250


def test_every_kind_of_heating_and_car_turns_up() -> None:
    """Guards the dice: each branch of the model is in some household of a small town."""
    houses = [HouseholdProfile(seed).household for seed in range(300)]
    assert {house.heating for house in houses} == set(Heating)
    for part in ("charger", "freezer_power", "shower", "dishwasher", "dryer", "cooker", "kettle"):
        having = sum(getattr(house, part) > 0 for house in houses)
        assert 0 < having < len(houses), part


@pytest.fixture(scope="module")
def town() -> list[list[list[int]]]:
    """Sixty households, each with 26 days spread over a year and the week."""
    days = [WINTER + (14 * k + k % 7) * DAY for k in range(26)]
    return [
        [delivered(HouseholdProfile(seed, solar=False), day, 96) for day in days]
        for seed in range(60)
    ]


def test_annual_consumption_spreads_as_that_of_real_households(
    town: list[list[list[int]]],
) -> None:
    annual = [statistics.mean(map(sum, house)) * 365 / 1000 for house in town]
    assert 2600 < statistics.median(annual) < 3900
    assert min(annual) > 1200
    assert max(annual) < 11_000
    assert max(annual) > 2 * min(annual)


def test_intervals_look_like_those_of_a_meter(town: list[list[list[int]]]) -> None:
    medians = [statistics.median([wh for day in house for wh in day]) for house in town]
    assert 35 < statistics.median(medians) < 75
    for house in town:
        values = [wh for day in house for wh in day]
        assert min(values) >= 0
        assert max(values) < 5000
        assert len(set(values)) > 50


def test_no_two_days_and_no_two_households_are_the_same(town: list[list[list[int]]]) -> None:
    for house in town:
        totals = [sum(day) for day in house]
        assert statistics.pstdev(totals) > 0.05 * statistics.mean(totals)
    every_day = Counter(tuple(day) for house in town for day in house)
    assert max(every_day.values()) == 1


def test_evenings_are_busier_than_nights(town: list[list[list[int]]]) -> None:
    hours = [0] * 24
    for house in town:
        for day in house:
            for slot, wh in enumerate(day):
                hours[slot // 4] += wh
    assert min(hours[18:21]) > 1.8 * max(hours[3:5])


def test_those_who_work_are_out_on_weekdays_and_in_at_weekends() -> None:
    workdays: list[int] = []
    weekends: list[int] = []
    for seed in range(120):
        source = HouseholdProfile(seed, solar=False)
        if source.household.occupancy is not Occupancy.OUT:
            continue
        for day in range(FIRST, FIRST + 14):
            is_weekend = datetime.fromtimestamp(day * DAY, UTC).isoweekday() > 5
            morning = sum(delivered(source, day * DAY + 10 * 3600, 12))
            (weekends if is_weekend else workdays).append(morning)
    assert statistics.median(weekends) > 1.2 * statistics.median(workdays)


def test_car_that_charges_at_night_goes_on_past_midnight() -> None:
    """Each day is made by itself, so last night's plug must be found again."""
    charging = [
        source
        for source in (HouseholdProfile(seed, solar=False, interval_s=60) for seed in range(200))
        if source.household.charger and source.household.heating is Heating.OTHER
    ]
    for source in charging:
        full = source.household.charger / 60
        nights = [max(delivered(source, WINTER + day * DAY, 240)) for day in range(14)]
        if source.household.charge_at is not None:
            assert max(nights) >= full
    assert {source.household.charge_at is None for source in charging} == {True, False}


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="interval_s is 7000, expected"):
        HouseholdProfile(1, interval_s=7000)
    with pytest.raises(ConfigError, match="offset_min is 2000, expected"):
        HouseholdProfile(1, offset_min=2000)
    for latitude in (80, float("nan")):
        with pytest.raises(ConfigError, match=r"latitude is .*, expected"):
            HouseholdProfile(1, latitude=latitude)


def test_window_off_the_grid_is_refused() -> None:
    with pytest.raises(SourceError, match="midnight"):
        HouseholdProfile(1).energy(WINTER + 60, 1)
    with pytest.raises(SourceError, match="midnight"):
        HouseholdProfile(1).partial(WINTER + 60, WINTER + 61.0)
    assert HouseholdProfile(1).available() == (None, None)
