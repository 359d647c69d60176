"""A map to draw on, in metres: what is used of matplotlib, and places as dots, lines and regions.

Raises  ConfigError where matplotlib is missing or cannot draw such a file, or where the file cannot
        be written
Never   draws more artists than there are kinds of things and regions: a thousand lines are one
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, cast

from amistack.errors import ConfigError

DOTS_PER_INCH: Final = 150
CIRCLE_POINTS: Final = 72
NOT_BY_ITSELF: Final = frozenset(("pgf",))
"""What matplotlib writes only where LaTeX is installed."""

Place = tuple[float, float]


class Axes(Protocol):
    """What is used here of matplotlib, which has no types of its own that could be checked."""

    def plot(self, x: Sequence[float], y: Sequence[float], style: str, **how: object) -> object: ...

    def fill(self, x: Sequence[float], y: Sequence[float], **how: object) -> object: ...

    def text(self, x: float, y: float, text: str, **how: object) -> object: ...

    def set_aspect(self, aspect: str) -> None: ...

    def set_title(self, title: str, **how: object) -> None: ...

    def set_xlabel(self, label: str) -> None: ...

    def set_ylabel(self, label: str) -> None: ...


class _Backend(Protocol):
    def get_supported_filetypes(self) -> Mapping[str, str]: ...


class Figure(Protocol):
    """A picture."""

    canvas: _Backend

    def add_subplot(self) -> Axes: ...

    def legend(self, **how: object) -> object: ...

    def savefig(self, path: Path, **how: object) -> None: ...


class _FigureMaker(Protocol):
    def __call__(self, *, figsize: tuple[float, float], layout: str) -> Figure: ...


def require(path: Path) -> None:
    """Raises ConfigError where no such file could be drawn, with what to install or how to name it.

    A name without a suffix is refused, too: matplotlib would write a file of another name.
    """
    figure = _figure_maker()(figsize=(1.0, 1.0), layout="constrained")
    known = sorted({*figure.canvas.get_supported_filetypes()} - NOT_BY_ITSELF)
    if path.suffix[1:].lower() not in known:
        raise ConfigError(
            f"{path} cannot be drawn: its name must end with one of "
            f"{', '.join(f'.{suffix}' for suffix in known)}"
        )


def _figure_maker() -> _FigureMaker:
    try:
        module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ConfigError(
            f"{error.name or 'matplotlib'} is not installed: install amistack with its `plot` extra"
        ) from error
    return cast("_FigureMaker", module.Figure)


class Canvas:
    """A figure with one map of these places."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self.low = (min(place[0] for place in places), min(place[1] for place in places))
        self.high = (max(place[0] for place in places), max(place[1] for place in places))
        wide, high = (self.high[axis] - self.low[axis] for axis in (0, 1))
        width = 10.0
        height = min(14.0, max(4.0, width * high / max(wide, 1.0) + 1))
        self.figure = _figure_maker()(figsize=(width, height), layout="constrained")
        self.axes = self.figure.add_subplot()
        self.axes.set_aspect("equal")
        self.axes.set_xlabel("m east")
        self.axes.set_ylabel("m north")

    def dots(self, numbers: Sequence[int], style: str, **how: object) -> None:
        """A marker at each node's place; nothing and no label where there is none."""
        if numbers:
            places = [self.places[number] for number in numbers]
            how["linestyle"] = "none"
            self.axes.plot(
                [place[0] for place in places], [place[1] for place in places], style, **how
            )

    def lines(self, pairs: Sequence[tuple[int, int]], style: str, **how: object) -> None:
        """All pairs as one line with gaps."""
        gap = float("nan")
        places = self.places
        xs = [x for a, b in pairs for x in (places[a][0], places[b][0], gap)]
        ys = [y for a, b in pairs for y in (places[a][1], places[b][1], gap)]
        if pairs:
            self.axes.plot(xs, ys, style, **how)

    def regions(self, circles: Sequence[tuple[Place, float]], label: str, **how: object) -> None:
        """Filled circles by centre and radius, under one label."""
        turns = [2 * math.pi * point / CIRCLE_POINTS for point in range(CIRCLE_POINTS)]
        for (east, north), radius in circles:
            self.axes.fill(
                [east + radius * math.cos(turn) for turn in turns],
                [north + radius * math.sin(turn) for turn in turns],
                label=label,
                **how,
            )
            label = "_nolegend_"

    def across(self, axis: int, middles: Sequence[float], style: str, **how: object) -> None:
        """Straight lines over the whole map: at so many metres east (axis 0) or north (1)."""
        gap = float("nan")
        fixed = [value for middle in middles for value in (middle, middle, gap)]
        free = [value for _ in middles for value in (self.low[1 - axis], self.high[1 - axis], gap)]
        if middles:
            xs, ys = (fixed, free) if axis == 0 else (free, fixed)
            self.axes.plot(xs, ys, style, **how)

    def names(self, names: Sequence[tuple[int, str]]) -> None:
        """A word beside each node."""
        for number, name in names:
            east, north = self.places[number]
            self.axes.text(
                east, north, f" {name}", fontsize=6, color="0.35", verticalalignment="bottom"
            )

    def save(self, path: Path) -> None:
        """Write it in the format that the file's name ends with."""
        self.figure.legend(loc="outside lower center", ncols=5, fontsize="small")
        try:
            self.figure.savefig(path, dpi=DOTS_PER_INCH)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
        except ValueError as error:
            raise ConfigError(f"{path} cannot be drawn: {error}") from error
