"""The figures of a run, as its JSON has them.

Gives   `figures`, with the keys of `mesh simulate` where they apply and the head-end's own besides;
        times in seconds, shares from 0 to 1
Never   counts against a meter what it could not do without power
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from headend.domain.readings import ReadResult
from interop.simulate.head_end import TALLIES
from interop.simulate.homes import OFFSET_MIN
from interop.simulate.town import MIDNIGHT_S, Read, Town
from interop.simulate.truth import Days, Topology, midnights
from mesh.sim.results import (
    DIGITS,
    Figures,
    control_shares,
    percentile,
    repair_figures,
    stretches,
)
from mesh.sim.stations import Airtime

WINDOW_S: Final = 7200.0
"""RFC 8036 section 4.2, class C4."""
ALARM_LIMIT_S: Final = 5.0
"""The same, class C1."""


def figures(
    town: Town,
    *,
    days: Days,
    topology: Topology,
    stored_reads: int,
    airtime: Airtime,
    measured_s: float,
    wall_s: float,
    cpu_s: float,
) -> Figures:
    """All of them. `airtime` is what was held before the `measured_s` began."""
    assert OFFSET_MIN * 60 == -MIDNIGHT_S, "a world begins at midnight UTC"
    seen = town.head_end.seen
    uplinks, agrees = town.head_end.account()
    reads = [read for read in town.reads if not read.is_void]
    found: Figures = {
        "scenario": town.scenario.name,
        "seed": town.seed,
        "meters": len(town.meters),
        "collectors": len(town.collectors),
        "registered": len(seen.registered),
        "offered": {"C1": len(town.alarms), "on_demand": len(town.reads)},
        "classes": {"C1": _alarms(town)},
        "daily_reports": _reports(town),
        "days": {
            "expected": days.expected,
            "stored": days.stored,
            "right": days.right,
        },
        "clock_error_max_s": _rounded(max(map(abs, seen.clock_error_s.values()), default=None)),
        "on_demand": {**_on_demand(reads), "stored": stored_reads},
        "ledger": {
            **{name: uplinks[name] for name in TALLIES},
            "reconciles": agrees,
        },
        "topology": {
            "collectors": topology.collectors,
            "joined": topology.joined,
            "known": topology.known,
            "agree": topology.agree,
            "telling": topology.telling,
            "exact": topology.exact,
        },
    }
    if town.repairs.orphans:
        found["repair"] = repair_figures(town.repairs)
    stretch = percentile(stretches(town), 0.9)
    if stretch is not None:
        found["stretch_p90"] = _rounded(stretch)
    if measured_s > 0:
        shares = control_shares(town, airtime, measured_s)
        found["control_share_busiest"] = _rounded(max(shares))
        found["control_share_mean"] = _rounded(sum(shares) / len(shares))
    frames = town.stations.medium.counters.frames
    found["frames"] = frames
    found["cpu_us_per_frame"] = round(cpu_s / frames * 1e6, 1) if frames else None
    found["history"] = f"{town.history:08x}"
    found["simulated_s"] = town.clock.now
    found["wall_s"] = round(wall_s, 2)
    found["cpu_s"] = round(cpu_s, 2)
    return found


def alarm_latencies(town: Town) -> list[float]:
    """From an alarm's being put on record to its being stored at the head-end."""
    addresses, entries = town.stations.addresses, town.head_end.seen.entries
    stored = ((entries.get((addresses[a.meter], a.sequence)), a.at) for a in town.alarms)
    return [at - since for at, since in stored if at is not None]


def _alarms(town: Town) -> Figures:
    latencies = alarm_latencies(town)
    return {
        "sent": len(town.alarms),
        "within_limit": sum(latency <= ALARM_LIMIT_S for latency in latencies),
        "limit_s": ALARM_LIMIT_S,
        "eventually": len(latencies),
    }


def _reports(town: Town) -> Figures:
    """Of the days whose window after midnight has passed."""
    reports, addresses = town.head_end.seen.reports, town.stations.addresses
    expected = in_window = eventually = void = 0
    for day, midnight in midnights(until=town.clock.now):
        if midnight + WINDOW_S > town.clock.now:
            continue
        for number in town.meters:
            at = reports.get((addresses[number], day))
            if town.is_dark(number, midnight, midnight + WINDOW_S):
                void += 1
                continue
            expected += 1
            eventually += at is not None
            in_window += at is not None and at <= midnight + WINDOW_S
    return {
        "expected": expected,
        "in_window": in_window,
        "eventually": eventually,
        "without_power": void,
    }


def _on_demand(reads: Sequence[Read]) -> Figures:
    latencies = latencies_of(reads)
    results = Counter(read.result for read in reads if read.result is not ReadResult.ANSWERED)
    by_hops: Figures = {}
    for hops in sorted({read.hops for read in reads}):
        times = latencies_of([read for read in reads if read.hops == hops])
        by_hops[str(hops)] = {
            "asked": sum(read.hops == hops for read in reads),
            "p50_s": _rounded(percentile(times, 0.5)),
            "p99_s": _rounded(percentile(times, 0.99)),
        }
    return {
        "asked": len(reads),
        "answered": len(latencies),
        "within_30s": sum(latency <= 30 for latency in latencies),
        "within_60s": sum(latency <= 60 for latency in latencies),
        "p50_s": _rounded(percentile(latencies, 0.5)),
        "p95_s": _rounded(percentile(latencies, 0.95)),
        "p99_s": _rounded(percentile(latencies, 0.99)),
        "by_hops": by_hops,
        "without_answer": {result.words: count for result, count in sorted(results.items())},
    }


def latencies_of(reads: Sequence[Read]) -> list[float]:
    """Of those that were answered."""
    return [latency for read in reads if (latency := read.latency_s) is not None]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
