"""The demand register: the peak of a window's mean power, when, and what a reset does.

The contract under test, with a naive search over all windows as the oracle: block and sliding
windows, whatever the size of the steps they are fed by and however often the meter restarts; a
window with a gap has no demand; a reset ends the period, and not twice within a day.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import StoreError
from amistack.model.event_catalogue import DEMAND_RESET, Importance, kind_of
from amistack.model.programme import DemandRules
from amistack.model.quantity import Quantity
from meterd.recording.demand import (
    PERIOD_COUNT_MAX,
    RESET_APART_S,
    DemandPeriod,
    DemandRegister,
)
from meterd.storage import Storage
from tests.meterd.programme.bench import DAY, MIDNIGHT, Meter, channel, programme
from tests.support.power import PowerCut, TornFiles

BLOCKS = DemandRules(900, 900)
SLIDING = DemandRules(900, 300)


def register() -> DemandRegister:
    return DemandRegister(Storage.on(TornFiles(random.Random(0))))


def peak_of(steps: list[int | None], rules: DemandRules) -> tuple[int, int]:
    """The highest demand of steps of 300 s from MIDNIGHT on, and the end of its window."""
    width, stride = rules.window_s // 300, rules.sub_interval_s // 300
    best = (0, 0)
    for first in range(0, len(steps) - width + 1, stride):
        window = [step for step in steps[first : first + width] if step is not None]
        if len(window) < width:
            continue
        watts = int(sum(window) * 3600 / rules.window_s + 0.5)
        if not best[1] or watts > best[0]:
            best = (watts, MIDNIGHT + (first + width) * 300)
    return best


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.one_of(st.integers(0, 500), st.none()), min_size=1, max_size=60),
    cuts=st.lists(st.integers(1, 20), max_size=10),
    rules=st.sampled_from(
        [BLOCKS, SLIDING, DemandRules(3600, 3600), DemandRules(3600, 900), DemandRules(1800, 600)]
    ),
)
def test_peak_is_that_of_the_best_window_however_the_steps_come(
    steps: list[int | None], cuts: list[int], rules: DemandRules
) -> None:
    one = register()
    at, rest = MIDNIGHT, list(steps)
    for cut in [*cuts, len(steps)]:
        part, rest = rest[:cut], rest[cut:]
        one.take(at, part, step_s=300, rules=rules)
        at += 300 * len(part)
    assert (one.period.peak, one.period.peak_at) == peak_of(steps, rules)


def test_block_begins_on_the_quarter_and_a_sliding_window_at_any_sub_interval() -> None:
    steps: list[int | None] = [0, 0, 100, 100, 100, 0]
    blocks, sliding = register(), register()
    blocks.take(MIDNIGHT, steps, step_s=300, rules=BLOCKS)
    sliding.take(MIDNIGHT, steps, step_s=300, rules=SLIDING)
    assert (blocks.period.peak, blocks.period.peak_at) == (800, MIDNIGHT + 1800)
    assert (sliding.period.peak, sliding.period.peak_at) == (1200, MIDNIGHT + 1500)


def test_hour_of_demand_is_one_of_standard_time() -> None:
    offset_s = 345 * 60
    one = DemandRegister(Storage.on(TornFiles(random.Random(0))), offset_s=offset_s)
    start = MIDNIGHT - offset_s
    one.take(start, [0] * 6 + [100] * 12 + [0] * 6, step_s=300, rules=DemandRules(3600, 3600))
    assert (one.period.peak, one.period.peak_at) == (600, start + 3600)


def test_window_across_steps_that_never_came_has_no_demand() -> None:
    one = register()
    one.take(MIDNIGHT, [100], step_s=300, rules=BLOCKS)
    one.take(MIDNIGHT + 600, [100], step_s=300, rules=BLOCKS)
    assert one.period.peak_at == 0
    one.take(MIDNIGHT + 900, [50, 50, 50], step_s=300, rules=BLOCKS)
    assert (one.period.peak, one.period.peak_at) == (600, MIDNIGHT + 1800)


def test_reset_ends_the_period_and_adds_its_peak_to_the_cumulative_demand() -> None:
    one = register()
    one.take(MIDNIGHT, [100] * 3, step_s=300, rules=BLOCKS)
    assert one.reset(MIDNIGHT + 900)
    assert one.period == DemandPeriod(since=MIDNIGHT + 900, cumulative=1200)
    assert one.periods == [DemandPeriod(0, MIDNIGHT + 900, 1200, MIDNIGHT + 900)]
    one.take(MIDNIGHT + 900, [50] * 3, step_s=300, rules=BLOCKS)
    assert one.reset(MIDNIGHT + 900 + DAY)
    assert one.period.cumulative == 1800
    assert [period.peak for period in one.periods] == [600, 1200]
    assert one.reset_count == 2


def test_energy_from_before_a_reset_is_in_no_window_after_it() -> None:
    for rules in (BLOCKS, SLIDING):
        one = register()
        one.take(MIDNIGHT, [0, 900, 900], step_s=300, rules=SLIDING)
        one.take(MIDNIGHT + 900, [900], step_s=300, rules=rules)
        one.reset(MIDNIGHT + 1200)
        one.take(MIDNIGHT + 1200, [1, 1, 1, 1, 1], step_s=300, rules=rules)
        assert one.period.peak == 12
    # What is left of a sub-interval after the reset is no whole one, however much flows in it.
    one = register()
    one.take(MIDNIGHT, [0, 0, 0, 900], step_s=300, rules=BLOCKS)
    one.reset(MIDNIGHT + 1200)
    one.take(MIDNIGHT + 1200, [500, 500, 1, 1, 1], step_s=300, rules=BLOCKS)
    assert (one.period.peak, one.period.peak_at) == (12, MIDNIGHT + 2700)
    # Nor is one whose first step began before the reset, in the middle of that step.
    one = register()
    one.take(MIDNIGHT, [1, 1, 1], step_s=300, rules=BLOCKS)
    one.reset(MIDNIGHT + 1000)
    one.take(MIDNIGHT + 900, [500, 500, 500, 1, 1, 1], step_s=300, rules=BLOCKS)
    assert (one.period.peak, one.period.peak_at) == (12, MIDNIGHT + 2700)


def test_second_reset_within_a_day_is_refused_and_one_at_the_day_is_not() -> None:
    one = register()
    assert one.reset(MIDNIGHT)
    before = one.period
    assert not one.reset(MIDNIGHT + RESET_APART_S - 1)
    assert one.period == before
    assert one.reset(MIDNIGHT + RESET_APART_S)
    assert RESET_APART_S == 24 * 3600


def test_periods_are_bounded_and_the_oldest_go() -> None:
    one = register()
    for day in range(PERIOD_COUNT_MAX + 10):
        assert one.reset(MIDNIGHT + day * DAY)
    periods = one.periods
    assert len(periods) == PERIOD_COUNT_MAX
    assert periods[0].until == MIDNIGHT + (PERIOD_COUNT_MAX + 9) * DAY


@pytest.mark.parametrize("offset_min", [0, 345])
def test_reset_by_date_falls_on_the_midnight_of_standard_time(offset_min: int) -> None:
    rules = DemandRules(900, 300, reset_day=6)  # MIDNIGHT is of the 4th.
    wanted = programme(1, channel(1, Quantity.DELIVERED), demand=rules, offset_min=offset_min)
    start = MIDNIGHT - offset_min * 60
    meter = Meter(utc=start, offset_min=offset_min)
    meter.keeper.take(wanted, now=start)
    meter.run_until(start + 2 * DAY - 1)
    assert meter.recorder.demand.reset_count == 0
    meter.restart()
    meter.run_until(start + 2 * DAY + 1)
    assert meter.recorder.demand.period.since == start + 2 * DAY
    (over,) = meter.recorder.demand.periods
    assert start < over.peak_at <= start + 2 * DAY
    meter.run_until(start + 3 * DAY)
    assert meter.details(DEMAND_RESET) == ["by date"]


@pytest.mark.parametrize("after", [SLIDING, DemandRules(1800, 600), DemandRules(3600, 900)])
def test_no_window_reaches_across_a_change_of_the_rules(after: DemandRules) -> None:
    one = register()
    one.take(MIDNIGHT, [10] * 12, step_s=300, rules=DemandRules(3600, 1800))
    assert (one.period.peak, one.period.peak_at) == (120, MIDNIGHT + 3600)
    one.take(MIDNIGHT + 3600, [10] * 6, step_s=300, rules=after)
    one.take(MIDNIGHT + 5400, [10] * 6, step_s=300, rules=after)
    assert (one.period.peak, one.period.peak_at) == (120, MIDNIGHT + 3600)
    one.take(MIDNIGHT + 7200, [11] * 12, step_s=300, rules=after)
    assert one.period.peak == 132


def test_reset_is_in_the_catalogue_as_something_that_is_billed_by() -> None:
    assert (kind_of(DEMAND_RESET).words, kind_of(DEMAND_RESET).importance) == (
        "demand reset",
        Importance.BILLING,
    )


def test_reset_by_date_is_left_out_within_a_day_of_one_by_hand() -> None:
    wanted = programme(1, channel(1, Quantity.DELIVERED), demand=DemandRules(900, 900, reset_day=5))
    meter = Meter(utc=MIDNIGHT)
    meter.keeper.take(wanted, now=MIDNIGHT)
    meter.run_until(MIDNIGHT + 3600)
    assert meter.recorder.demand.reset(MIDNIGHT + 3600)
    meter.run_until(MIDNIGHT + 2 * DAY)
    assert meter.recorder.demand.reset_count == 1
    assert meter.details(DEMAND_RESET) == []


def test_recorded_demand_is_that_of_the_sources_energy() -> None:
    wanted = programme(1, channel(1, Quantity.DELIVERED, 60), demand=SLIDING)
    meter = Meter(utc=MIDNIGHT)
    meter.keeper.take(wanted, now=MIDNIGHT)
    for hour in (1, 2, 5, 11, 24):
        meter.run_until(MIDNIGHT + hour * 3600 + 77)
        meter.restart()
    steps = [one[0] for one in meter.source.energy(MIDNIGHT, 288)]
    period = meter.recorder.demand.period
    assert (period.peak, period.peak_at) == peak_of(steps, SLIDING)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    rules=st.sampled_from([BLOCKS, SLIDING, DemandRules(3600, 900)]),
)
def test_power_cut_at_any_write_loses_no_demand_and_counts_none_twice(
    seed: int, cuts: list[int], rules: DemandRules
) -> None:
    files = TornFiles(random.Random(seed))
    wanted = programme(1, channel(1, Quantity.DELIVERED), demand=rules)
    meter = Meter(utc=MIDNIGHT, files=files)
    meter.keeper.take(wanted, now=MIDNIGHT)
    for number, cut in enumerate(cuts, 1):
        files.cut_after(cut)
        try:
            meter.run_until(MIDNIGHT + number * 3 * 3600)
        except (PowerCut, StoreError):
            files.crash()
            meter.start()
    meter.files.kill()
    meter.start()
    meter.run_until(MIDNIGHT + DAY)
    steps = [one[0] for one in meter.source.energy(MIDNIGHT, 288)]
    period = meter.recorder.demand.period
    assert (period.peak, period.peak_at) == peak_of(steps, rules)
