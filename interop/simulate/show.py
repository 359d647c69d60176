"""A run as a table for people: what a user of the head-end sees, and then the air below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headend.domain.readings import ReadResult
from interop.simulate.figures import ALARM_LIMIT_S, alarm_latencies, latencies_of
from interop.simulate.run import Run
from mesh.sim.ground import hardness
from mesh.sim.results import percentile

NOTE_COUNT_MAX: Final = 20
DIFFER_COUNT_MAX: Final = 5
READ_LIMIT_S: Final = 30.0


def run(done: Run) -> str:
    """All that a person wants to know, line by line."""
    town, found = done.town, done.figures
    hard = hardness(town.links, town.collectors)
    lines = [
        f"{town.scenario.name}, seed {town.seed}: {town.scenario.text}",
        (
            f"  {len(town.meters)} meters and {len(town.collectors)} collectors as programs, "
            f"{_value(found['simulated_s']) / 3600:g} h simulated"
        ),
        (
            f"  air        {hard.neighbours_median:g} usable neighbours (median), hops "
            f"{hard.hops_median:g} (median) to {hard.hops_max}"
        ),
        f"  registered {found['registered']} of {len(town.meters)}",
        (
            f"  days       {done.days.stored} of {done.days.expected} stored, "
            f"{done.days.right} equal to what was used, in every interval and in their sum"
        ),
        *_reports(found["daily_reports"]),
        *_clocks(found["clock_error_max_s"]),
    ]
    reads = [read for read in town.reads if not read.is_void]
    lines += _latencies("reads", latencies_of(reads), len(reads), READ_LIMIT_S)
    for hops in sorted({read.hops for read in reads}):
        of_hops = [read for read in reads if read.hops == hops]
        name = f"  {hops} hop{'s' * (hops != 1)}"
        lines += _latencies(name, latencies_of(of_hops), len(of_hops), READ_LIMIT_S)
    for result in ReadResult:
        count = sum(read.result is result for read in reads)
        if count and result is not ReadResult.ANSWERED:
            lines.append(f"             {count} {result.words}")
    lines += _latencies("alarms", alarm_latencies(town), len(town.alarms), ALARM_LIMIT_S)
    lines += [*_ledger(found["ledger"]), *_topology(done), *_air(done)]
    notes = town.notes[:NOTE_COUNT_MAX]
    lines += [f"  t={note.at:<9.1f}{note.text}" for note in notes]
    if len(town.notes) > len(notes):
        lines.append(f"  ... and {len(town.notes) - len(notes)} more")
    each = found["cpu_us_per_frame"]
    cpu = f"{found['cpu_s']} s of CPU" + (f", {each} us a frame" if each is not None else "")
    lines.append(f"  {found['frames']:,} frames; {cpu}; history {found['history']}")
    return "\n".join(lines)


def _latencies(name: str, times: Sequence[float], count: int, limit: float) -> list[str]:
    if not count:
        return []
    within = sum(time <= limit for time in times)
    shown = " / ".join(
        "-" if value is None else f"{value:.2f}"
        for value in (percentile(times, share) for share in (0.5, 0.95, 0.99))
    )
    return [
        (
            f"  {name:10} {within} of {count} within {limit:g} s, {len(times)} in the end; "
            f"{shown} s (p50 / p95 / p99)"
        )
    ]


def _reports(reports: object) -> list[str]:
    if not isinstance(reports, dict) or not (reports["expected"] or reports["without_power"]):
        return []
    dark = reports["without_power"]
    without = f"; {dark} had no power then" if dark else ""
    return [
        (
            f"  reports    {reports['in_window']} of {reports['expected']} within two hours after "
            f"midnight, {reports['eventually']} in the end{without}"
        )
    ]


def _clocks(error: object) -> list[str]:
    if error is None:
        return []
    return [f"  clocks     at most {_value(error):.1f} s off when their latest report came"]


def _ledger(ledger: object) -> list[str]:
    assert isinstance(ledger, dict), "made so"
    agrees = "which agrees" if ledger["reconciles"] else "which does NOT agree"
    return [
        (
            f"  ledger     {ledger['received']} uplinks: {ledger['stored']} stored, "
            f"{ledger['answered']} answered, {ledger['refused']} refused, "
            f"{ledger['pending']} pending, {agrees}"
        )
    ]


def _topology(done: Run) -> list[str]:
    found = done.topology
    differ = found.differ[:DIFFER_COUNT_MAX]
    count = len(done.town.collectors)
    return [
        f"  collectors {found.collectors} of {count} connected to the head-end",
        (
            f"  topology   {found.agree} of {found.joined} joined meters shown with their "
            f"preferred parent, {found.telling} that tell of another just now, "
            f"{found.exact} with all parents in order, {found.known} with a way"
        ),
        *(f"             {line}" for line in differ),
    ]


def _air(done: Run) -> list[str]:
    town, found = done.town, done.figures
    lines = []
    repair = found.get("repair")
    if isinstance(repair, dict):
        lines.append(
            f"  repair     {repair['orphans']} lost their parent; {repair['within_1s']} had "
            f"another 1 s after noticing, {repair['routed_within_60s']} a route within 60 s"
        )
    if "stretch_p90" in found:
        lines.append(f"  stretch    {found['stretch_p90']} (p90)")
    if "control_share_busiest" in found:
        lines.append(
            f"  control    {_value(found['control_share_busiest']):.2%} of the time around the "
            f"busiest node, {_value(found['control_share_mean']):.2%} on the average"
        )
    lines.append(
        f"  loops      {town.loops.seen} seen, the longest stood {town.loops.longest_s:g} s; "
        f"queues at most {town.queues.fullest:.0%} full"
    )
    return lines


def _value(value: object) -> float:
    assert isinstance(value, int | float), "a number"
    return float(value)
