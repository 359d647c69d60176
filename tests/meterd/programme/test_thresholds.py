"""The thresholds of a programme that begin within a day, and after it: in force through restarts.

The contract under test: what a programme named last is watched from its second on, whether or not
the meter was started again since, until another programme names others; a programme that names none
leaves them as they are.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from amistack.coap.codes import Code
from amistack.model.event_catalogue import DEMAND_EXCEEDED, DEMAND_NORMAL, FLOW_REVERSED
from amistack.model.programme import DemandRules, Threshold, ThresholdKind
from amistack.model.resources import PROGRAMME
from meterd.events import thresholds as table
from meterd.metrology import Flow
from meterd.storage import LOG, entry_of
from tests.meterd.bench import EPOCH
from tests.meterd.months.bench import WholeBench
from tests.meterd.programme.bench import DAY, FineSource, programme

TODAY = int(EPOCH) // DAY
SMALL = (Threshold(ThresholdKind.REVERSE_FLOW, 0),)
LARGE = (Threshold(ThresholdKind.REVERSE_FLOW, 1_000_000),)


def meter() -> WholeBench:
    bench = WholeBench(source=FineSource(known_from=(TODAY - 2) * DAY), interval_s=900)
    bench.power_on()
    bench.world.elapse(60)
    return bench


def put(
    bench: WholeBench, version: int, limits: tuple[Threshold, ...], applies_at: int = 0
) -> None:
    wanted = dataclasses.replace(
        programme(version, applies_at=applies_at, minutes=15), thresholds=limits
    )
    answer = bench.ask(Code.PUT, PROGRAMME, wanted.encode())
    assert answer is not None
    assert answer.code == Code.CHANGED, answer.payload


def reversals(bench: WholeBench) -> int:
    rows = bench.storage.items(LOG)
    return sum(entry_of(number, row).event == FLOW_REVERSED for number, row in rows)


def test_thresholds_that_begin_during_a_day_are_in_force_after_a_restart_on_that_day() -> None:
    bench = meter()
    put(bench, 1, SMALL)
    assert reversals(bench) == 0
    bench.restart()
    bench.run_to(TODAY, 15 * 3600 + 5)
    assert reversals(bench) == 1
    put(bench, 2, LARGE)
    bench.restart()
    bench.run_to(TODAY, 18 * 3600)
    assert reversals(bench) == 1


def test_thresholds_whose_time_comes_while_the_power_is_off_are_in_force_as_it_is_back() -> None:
    bench = meter()
    put(bench, 1, SMALL, applies_at=int(EPOCH) + 7200)
    bench.run_to(TODAY, 15 * 3600 + 5)
    assert reversals(bench) == 0
    bench.power_off()
    bench.world.elapse(3 * 3600)
    bench.power_on()
    bench.run_to(TODAY, 19 * 3600)
    assert reversals(bench) == 1


def test_programme_that_names_no_thresholds_leaves_them_and_so_does_a_restart() -> None:
    bench = meter()
    put(bench, 1, SMALL)
    put(bench, 2, ())
    bench.run_to(TODAY, 15 * 3600 + 5)
    assert reversals(bench) == 1
    bench.restart()
    # What lasts is noticed anew.
    bench.run_to(TODAY, 16 * 3600 + 5)
    assert reversals(bench) == 2


@pytest.mark.parametrize(("limit_w", "is_exceeded"), [(-1, True), (0, False)])
def test_demand_is_watched_by_the_windows_of_the_programme_not_by_its_intervals(
    limit_w: int, *, is_exceeded: bool
) -> None:
    bench = meter()
    rules = DemandRules(900, 300)
    day = (TODAY + 1) * DAY
    steps = [bench.source.value(day + 300 * n, Flow.DELIVERED) or 0 for n in range(12)]
    highest = max(sum(steps[n : n + 3]) * 4 for n in range(10))
    limits = (Threshold(ThresholdKind.DEMAND, highest + limit_w),)
    assert sum(steps) < highest - 1, "the hour's mean is below both limits"
    wanted = programme(1, minutes=60, demand=rules)
    answer = bench.ask(Code.PUT, PROGRAMME, dataclasses.replace(wanted, thresholds=limits).encode())
    assert answer is not None
    assert answer.code == Code.CHANGED, answer.payload
    bench.run_to(TODAY + 1, 3600 + 5)
    events = [entry_of(number, row).event for number, row in sorted(bench.storage.items(LOG))]
    assert events.count(DEMAND_EXCEEDED) == is_exceeded


def test_demand_crosses_its_limit_as_often_as_the_windows_do() -> None:
    bench = meter()
    day = (TODAY + 1) * DAY
    steps = [bench.source.value(day + 300 * n, Flow.DELIVERED) or 0 for n in range(24)]
    windows = [sum(steps[n : n + 3]) * 4 for n in range(22)]
    limit = sorted(windows)[11]
    crossed = [window > limit for window in windows]
    changes = [now for before, now in itertools.pairwise([False, *crossed]) if before != now]
    assert 4 <= len(changes) <= 11
    wanted = programme(1, minutes=60, demand=DemandRules(900, 300))
    limits = (Threshold(ThresholdKind.DEMAND, limit),)
    answer = bench.ask(Code.PUT, PROGRAMME, dataclasses.replace(wanted, thresholds=limits).encode())
    assert answer is not None
    assert answer.code == Code.CHANGED, answer.payload
    bench.run_to(TODAY + 1, 7200 + 5)
    events = [entry_of(number, row).event for number, row in sorted(bench.storage.items(LOG))]
    seen = [
        event == DEMAND_EXCEEDED for event in events if event in (DEMAND_EXCEEDED, DEMAND_NORMAL)
    ]
    assert seen == changes


def test_thresholds_of_a_later_version_are_those_that_every_meter_has() -> None:
    bench = meter()
    bench.storage.keep_note(table.NOTE, "[[99, 1, 1, 1]]")
    assert table.ThresholdTable(bench.storage).thresholds == table.DEFAULT_THRESHOLDS
    bench.storage.keep_note(table.NOTE, "[[4, 5, 0, 60]]")
    (kept,) = table.ThresholdTable(bench.storage).thresholds
    assert kept == Threshold(ThresholdKind.REVERSE_FLOW, 5, 0, 60)
