"""Draws the map of a world: who stands where, whom each prefers, what else it has, who is dead.

Raises  ConfigError where matplotlib is missing or the file cannot be written
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, cast

from amistack.errors import ConfigError
from mesh.sim.world import World

DOTS_PER_INCH: Final = 150


class _Axes(Protocol):
    """What is used here of matplotlib, which has no types of its own that could be checked."""

    def plot(self, x: Sequence[float], y: Sequence[float], style: str, **how: object) -> object: ...

    def set_aspect(self, aspect: str) -> None: ...

    def set_title(self, title: str) -> None: ...

    def set_xlabel(self, label: str) -> None: ...

    def set_ylabel(self, label: str) -> None: ...


class _Figure(Protocol):
    def add_subplot(self) -> _Axes: ...

    def legend(self, **how: object) -> object: ...

    def savefig(self, path: Path, **how: object) -> None: ...


class _FigureMaker(Protocol):
    def __call__(self, *, figsize: tuple[float, float], layout: str) -> _Figure: ...


def require() -> None:
    """Raises ConfigError, with what to install, where the map could not be drawn."""
    _figure_maker()


def _figure_maker() -> _FigureMaker:
    try:
        module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ConfigError(
            f"{error.name or 'matplotlib'} is not installed: install amistack with its `plot` extra"
        ) from error
    return cast("_FigureMaker", module.Figure)


def draw(world: World, path: Path) -> None:
    """Write the map as it is now, in the format that the file's name ends with."""
    places = world.placement.places
    wide = max(place[0] for place in places) - min(place[0] for place in places)
    high = max(place[1] for place in places) - min(place[1] for place in places)
    width = 10.0
    height = min(14.0, max(4.0, width * high / max(wide, 1.0) + 1))
    figure = _figure_maker()(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
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
    down = [number for number in range(world.count) if not world.is_up(number)]
    _lines(axes, world, others, "--", color="0.8", linewidth=0.5, label="alternate")
    _lines(axes, world, first, "-", color="tab:blue", linewidth=0.8, label="preferred parent")
    size = 2.0 if world.count > 500 else 4.0
    _dots(axes, world, up, "o", color="black", markersize=size, label="meter")
    _dots(axes, world, lost, "o", color="orange", markersize=size + 3, label="without a way")
    _dots(axes, world, down, "x", color="red", markersize=size + 4, label="without power")
    alive = [number for number in world.collectors if world.is_up(number)]
    _dots(axes, world, alive, "s", color="tab:green", markersize=10, label="collector")
    axes.set_aspect("equal")
    axes.set_xlabel("m east")
    axes.set_ylabel("m north")
    axes.set_title(f"{world.scenario.name}, seed {world.seed}, after {world.clock.now:g} s")
    figure.legend(loc="outside lower center", ncols=6, fontsize="small")
    try:
        figure.savefig(path, dpi=DOTS_PER_INCH)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} cannot be drawn: {error}") from error


def _dots(axes: _Axes, world: World, numbers: Sequence[int], style: str, **how: object) -> None:
    if numbers:
        places = [world.placement.places[number] for number in numbers]
        how["linestyle"] = "none"
        axes.plot([place[0] for place in places], [place[1] for place in places], style, **how)


def _lines(
    axes: _Axes, world: World, pairs: Sequence[tuple[int, int]], style: str, **how: object
) -> None:
    """All pairs as one line with gaps: a thousand lines would take matplotlib its time."""
    places = world.placement.places
    gap = float("nan")
    xs = [x for a, b in pairs for x in (places[a][0], places[b][0], gap)]
    ys = [y for a, b in pairs for y in (places[a][1], places[b][1], gap)]
    if pairs:
        axes.plot(xs, ys, style, **how)
