"""Draws the map of a run: who stands where, whom each prefers, what else it has, and what failed.

Gives   the network as it is at the end; the failures of the scenario as they were, those that are
        mended paler; of isolations what failed and what was named
Raises  ConfigError where matplotlib is missing or the file cannot be written
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mesh.sim.canvas import Canvas, require
from mesh.sim.faults import node_name
from mesh.sim.plot_failures import draw_failures, draw_isolations, frames_hurt
from mesh.sim.run import Run
from mesh.sim.world import World

NAMED_COUNT_MAX: Final = 40
"""In a larger world names would hide the map."""
LARGE_COUNT: Final = 500

__all__ = ["draw", "map_of", "require"]


def draw(run: Run, path: Path) -> None:
    """Write the map as it is now, in the format that the file's name ends with."""
    map_of(run).save(path)


def map_of(run: Run) -> Canvas:
    """The map as it is now."""
    world = run.world
    canvas = Canvas(world.placement.places)
    size = 2.0 if world.count > LARGE_COUNT else 4.0
    _draw_tree(canvas, world, size)
    draw_failures(canvas, run.failures.shown, world.is_up, size)
    title = [f"{world.scenario.name}, seed {world.seed}, after {world.clock.now:g} s"]
    if run.isolations is not None:
        cases = run.isolations.cases
        draw_isolations(canvas, cases, world.stations.numbers)
        right = sum(case.is_right for case in cases)
        title.append(f"{right} of {len(cases)} isolations right")
    title += frames_hurt(run.failures.shown)
    if run.failures.forgotten:
        title.append(f"{run.failures.forgotten} earlier failures are not shown")
    canvas.axes.set_title("\n".join(title), fontsize="medium")
    if world.count <= NAMED_COUNT_MAX:
        canvas.names([(number, node_name(world, number)) for number in range(world.count)])
    return canvas


def _draw_tree(canvas: Canvas, world: World, size: float) -> None:
    first: list[tuple[int, int]] = []
    others: list[tuple[int, int]] = []
    lost = []
    for number, machine in world.machines():
        if number in world.collectors:
            continue
        parents = world.router.parents(machine)
        if not parents:
            lost.append(number)
        first += [(number, parent) for parent in parents[:1]]
        others += [(number, parent) for parent in parents[1:]]
    up = [number for number in world.meters if world.is_up(number)]
    alive = [number for number in world.collectors if world.is_up(number)]
    dead = [number for number in world.collectors if not world.is_up(number)]
    canvas.lines(others, "--", color="0.8", linewidth=0.5, label="alternate")
    canvas.lines(first, "-", color="tab:blue", linewidth=0.8, label="preferred parent")
    canvas.dots(up, "o", color="black", markersize=size, label="meter")
    canvas.dots(lost, "o", color="orange", markersize=size + 3, label="without a way")
    canvas.dots(alive, "s", color="tab:green", markersize=10, label="collector")
    canvas.dots(dead, "s", color="0.6", markersize=10, label="dead collector")
