"""The table of figures: what scenarios came to, beside what they were to reach.

In      runs that are over; the text of a file that has sections of earlier ones
Gives   one section for each scenario, `## NAME`; `renewed` puts those of new runs in the place of
        the old ones and leaves the others as they are
Never   rounds a figure up to its goal, or leaves out one that missed it
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mesh.sim.ground import hardness
from mesh.sim.results import DAY_S, repair_clocks
from mesh.sim.run import Run

HEAD: Final = """# Figures of the simulated mesh

Written by `mesh figures SCENARIO ... --into FILE`; a section is what one run of that scenario came
to. CPU depends on the machine and on what else it does; all else on the seed alone.
"""
CONTROL_FRAMES_MAX: Final = 1_000
"""What timers may make a node send in a day, with what others pass on of it and acknowledge."""
_SECTION: Final = re.compile(r"^## (.+)$", re.MULTILINE)
CLASS_GOALS: Final = {"C1": 0.98, "C2": 0.98, "C3": 0.98, "C4": 0.995}
"""RFC 8036 has 98 % for the first; the same is asked of the next two."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `is_met` None where nothing is to be reached."""

    name: str
    value: str
    goal: str = ""
    is_met: bool | None = None

    def __str__(self) -> str:
        met = {None: "", True: "yes", False: "**no**"}[self.is_met]
        return f"| {self.name} | {self.value} | {self.goal} | {met} |"


def section(run: Run) -> str:
    """The section of one run."""
    world = run.world
    scenario = world.scenario
    lines = [
        f"## {scenario.name}",
        "",
        (
            f"{scenario.text}; profile `{scenario.profile}`, radio `{scenario.radio}` at "
            f"{scenario.rate_bps // 1000} kbit/s, seed {world.seed}, "
            f"{world.clock.now / 3600:.1f} h simulated, history `{world.trace:08x}`."
        ),
        "",
        "| figure | value | goal | reached |",
        "|---|---|---|---|",
        *map(str, rows(run)),
    ]
    return "\n".join(lines) + "\n"


def renewed(text: str, sections: Mapping[str, str]) -> str:
    """The file with these sections, by name, in the place of those that it had."""
    marks = list(_SECTION.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)] * bool(marks)
    held = {
        mark.group(1): text[mark.start() : end].rstrip() + "\n"
        for mark, end in zip(marks, ends, strict=True)
    }
    held.update(sections)
    return "\n".join([HEAD, *(held[name] for name in sorted(held))])


def rows(run: Run) -> Iterator[Row]:
    """Every figure that the run has."""
    figures, world = run.figures, run.world
    scenario = world.scenario
    hard = hardness(world.links, world.collectors)
    yield Row(
        "the air",
        f"{hard.neighbours_median:g} usable neighbours, {hard.doubtful_share:.0%} of links up "
        f"doubtful, hops {hard.hops_median:g} to {hard.hops_max}",
    )
    yield from _classes(figures)
    yield from _reads(figures)
    yield from _repair(run)
    restart, isolation = _part(figures, "restart"), _part(figures, "isolation")
    if restart:
        yield _share(
            "read within 2 min of the collector's return",
            restart["reached_within_120s"], restart["meters"], 1.0,
        )  # fmt: skip
    if isolation:
        yield _share("isolations right", isolation["right"], isolation["cases"], 0.95)
        wrong = isolation["wrong_certain"]
        yield Row("wrong though called certain", f"{wrong:g}", "0", wrong == 0)
    stretch = figures.get("stretch_p90")
    if isinstance(stretch, float):
        yield Row("stretch of paths, p90", f"{stretch:.2f}", "1.20", stretch <= 1.2)
    for key, name, goal in (
        ("control_share_busiest", "control around the busiest node", 0.15),
        ("control_share_mean", "control, mean", 0.05),
    ):
        share = figures.get(key)
        if isinstance(share, float):
            yield Row(name, f"{share:.2%}", f"{goal:.0%}", share <= goal)
    frames = run.control_frames_node_day
    if frames is not None:
        # In the first hours everything is tried: the goal is that of a day in which nothing fails.
        is_day = world.clock.now >= DAY_S and not (scenario.faults or scenario.isolations.each)
        yield Row(
            "control frames a node and day",
            f"{frames:,.0f}",
            f"{CONTROL_FRAMES_MAX:,}" if is_day else "",
            frames <= CONTROL_FRAMES_MAX if is_day else None,
        )
    counters, days = world.stations.medium.counters, world.clock.now / DAY_S
    yield Row("loops seen, the longest", f"{world.loops.seen}, {world.loops.longest_s:g} s")
    yield Row("fullest queue", f"{world.queues.fullest:.0%}", "100%", world.queues.fullest <= 1)
    yield Row("what must never be", str(world.faults.count), "0", not world.faults.count)
    yield Row("frames a node and day", f"{counters.frames / world.count / days:,.0f}")
    cpu = figures["cpu_s"]
    if isinstance(cpu, float) and counters.frames:
        each = f"{cpu / counters.frames * 1e6:.0f} us a frame"
        yield Row("CPU", f"{cpu:,.0f} s, {each}")


def _part(figures: Mapping[str, object], name: str) -> dict[str, float]:
    found = figures.get(name)
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, int | float)}


def _share(name: str, count: float, of: float, goal: float) -> Row:
    if not of:
        return Row(name, "none", f"{goal:.1%}")
    return Row(name, f"{count:g} of {of:g} ({count / of:.2%})", f"{goal:.1%}", count / of >= goal)


def _classes(figures: Mapping[str, object]) -> Iterator[Row]:
    classes = figures.get("classes")
    for kind, row in classes.items() if isinstance(classes, dict) else ():
        name = f"{kind} within {row['limit_s']:g} s"
        yield _share(name, row["within_limit"], row["sent"], CLASS_GOALS[kind])
    reports = _part(figures, "daily_reports")
    if reports:
        yield _share("C4 in the end", reports["eventually"], reports["expected"], 1.0)


def _reads(figures: Mapping[str, object]) -> Iterator[Row]:
    reads = figures.get("on_demand")
    if not isinstance(reads, dict) or not reads["asked"]:
        return
    yield _share("reads within 30 s", reads["within_30s"], reads["asked"], 0.8)
    yield _share("reads within 60 s", reads["within_60s"], reads["asked"], 0.99)
    late = [
        hops
        for hops, row in reads["by_hops"].items()
        if row["p50_s"] is not None and row["p50_s"] > 1 + 0.3 * int(hops)
    ]
    told = f"too slow at {', '.join(late)} hops" if late else "at every number of hops"
    yield Row("reads, p50", f"{reads['p50_s']} s, {told}", "1 s + 0.3 s a hop", not late)
    slow = reads["p99_s"]
    yield Row("reads, p99", f"{slow} s", "15 s", slow is not None and slow <= 15)


def _repair(run: Run) -> Iterator[Row]:
    repair = _part(run.figures, "repair")
    if not repair.get("orphans"):
        return
    orphans = repair["orphans"]
    yield _share("orphans with a new parent within 1 s", repair["within_1s"], orphans, 0.85)
    yield _share("orphans routed within 60 s", repair["routed_within_60s"], orphans, 1.0)
    for name, values in repair_clocks(run.repairs).items():
        shown = " / ".join("-" if value is None else f"{value:.2f}" for value in values)
        yield Row(f"{name}, p50 / p85 / p99", f"{shown} s")
