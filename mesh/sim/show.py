"""A run as a table for people."""

from __future__ import annotations

from typing import Final

from mesh.sim.ground import hardness
from mesh.sim.results import percentile, repair_clocks, unreachable
from mesh.sim.run import Run
from mesh.sim.traffic import LIMITS_S, Exchange, Kind

NOTE_COUNT_MAX: Final = 20


def run(done: Run) -> str:
    """All that a person wants to know, line by line."""
    world = done.world
    hard = hardness(world.links, world.collectors)
    lines = [
        f"{world.scenario.name}, seed {world.seed}: {world.scenario.text}",
        (
            f"  {len(world.meters)} meters, {len(world.collectors)} collectors, "
            f"{world.clock.now / 3600:g} h simulated"
        ),
        (
            f"  air        {hard.neighbours_median:g} usable neighbours (median), "
            f"{hard.doubtful_share:.0%} of the links upward doubtful, hops {hard.hops_median:g} "
            f"(median) to {hard.hops_max}"
        ),
    ]
    parents = world.parents()
    up = [meter for meter in world.meters if world.is_up(meter)]
    joined = sum(parents[meter] >= 0 for meter in up)
    cut_off = len(unreachable(world))
    lines.append(
        f"  joined     {joined} of {len(up)}" + (f", {cut_off} out of reach" * bool(cut_off))
    )
    exchanges = [exchange for exchange in world.traffic.exchanges if not exchange.is_void]
    for kind, limit in LIMITS_S.items():
        lines += _class(kind.name, [one for one in exchanges if one.kind is kind], limit)
    lines += _class("read", [one for one in exchanges if one.kind is Kind.REQUEST], 30.0)
    for name, values in repair_clocks(done.repairs).items():
        shown = " / ".join("-" if value is None else f"{value:.2f}" for value in values)
        lines.append(f"  {name:10} {shown} s (p50 / p85 / p99)" * bool(done.repairs.orphans))
    if done.isolations is not None:
        for part, (cases, right, wrong) in done.isolations.counts().items():
            lines.append(
                f"  isolation  {part.value:9} {right} of {cases} right, "
                f"{wrong} wrong though called certain"
            )
    figures = done.figures
    restart = figures.get("restart")
    if isinstance(restart, dict):
        lines.append(
            f"  restart    {restart['reached_within_120s']} of {restart['meters']} meters read "
            f"within 120 s, {restart['without_parent']} were without a parent meanwhile"
        )
    if "stretch_p90" in figures:
        lines.append(f"  stretch    {figures['stretch_p90']} (p90)")
    if "control_share_busiest" in figures:
        lines.append(
            f"  control    {_percent(figures['control_share_busiest'])} of the time around the "
            f"busiest node, {_percent(figures['control_share_mean'])} on the average"
        )
    lines.append(
        f"  loops      {world.loops.seen} seen, the longest stood {world.loops.longest_s:g} s; "
        f"queues at most {world.queues.fullest:.0%} full"
    )
    notes = world.notes[:NOTE_COUNT_MAX]
    lines += [f"  t={note.at:<9.1f}{note.text}" for note in notes]
    if len(world.notes) > len(notes):
        lines.append(f"  ... and {len(world.notes) - len(notes)} more")
    frames = world.stations.medium.counters.frames
    cpu = figures["cpu_s"]
    each = f", {cpu / frames * 1e6:.0f} us a frame" if isinstance(cpu, float) and frames else ""
    timers = world.stations.counters.timers
    days = world.clock.now / 86_400
    lines.append(
        f"  {frames:,} frames, {frames / world.count / days:.0f} a node and day; "
        f"{timers / world.count / days:.0f} timers a node and day"
    )
    lines.append(f"  {cpu} s of CPU{each}; history {world.trace:08x}")
    return "\n".join(line for line in lines if line)


def _class(name: str, exchanges: list[Exchange], limit: float) -> list[str]:
    if not exchanges:
        return []
    times = [time for one in exchanges if (time := one.latency_s) is not None]
    within = sum(time <= limit for time in times)
    shown = " / ".join(
        "-" if value is None else f"{value:.2f}"
        for value in (percentile(times, share) for share in (0.5, 0.95, 0.99))
    )
    return [
        (
            f"  {name:10} {within} of {len(exchanges)} within {limit:g} s "
            f"({within / len(exchanges):.2%}), {len(times)} in the end; {shown} s (p50 / p95 / p99)"
        )
    ]


def _percent(value: object) -> str:
    return f"{value:.2%}" if isinstance(value, float) else "-"
