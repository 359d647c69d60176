"""What failed, drawn on a map: as the scenario's faults had it, and as isolations named it.

Gives   what is not mended in full colour, what was in a paler one, each kind under a label
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from amistack.identifiers import Eui64
from mesh.sim.canvas import Canvas
from mesh.sim.failures import Failure
from mesh.sim.isolations import Case
from mesh.sim.scenario import FaultKind
from mesh.topology.paths import BACKHAUL, LINK, Component

NOW: Final = "red"
PAST: Final = "lightcoral"
TRUTH: Final = "red"
NAMED: Final = "blue"
_REGIONS: Final = {
    FaultKind.AREA_OFF: ("0.35", "area without power"),
    FaultKind.JAM: ("magenta", "jammed region"),
}
_MARKS: Final = {
    FaultKind.RESTART: ("*", "started anew"),
    FaultKind.DRIFT: ("d", "clock drifts"),
}
_OFF: Final = (FaultKind.CRASH, FaultKind.AREA_OFF)


def draw_failures(
    canvas: Canvas, failures: Sequence[Failure], is_up: Callable[[int], bool], size: float
) -> None:
    """All of them; `is_up` tells who has power at the end, `size` is that of a meter's dot."""
    for kind, (color, label) in _REGIONS.items():
        for is_over, words in ((True, f"{label}, over"), (False, label)):
            circles = [
                (failure.centre, failure.radius_m)
                for failure in failures
                if failure.kind is kind and failure.is_over is is_over and failure.centre
            ]
            alpha = 0.08 if is_over else 0.2
            canvas.regions(circles, words, color=color, alpha=alpha, linewidth=1.0)
    for is_over, color in ((True, PAST), (False, NOW)):
        past = ", mended" if is_over else ""
        chosen = [failure for failure in failures if failure.is_over is is_over]
        faded = [
            pair
            for failure in chosen
            if failure.kind is FaultKind.LINK_FADE
            for pair in failure.pairs
        ]
        canvas.lines(faded, ":", color=color, linewidth=1.2, label=f"faded link{past}")
        for axis in (0, 1):
            parted = [
                failure.middle
                for failure in chosen
                if failure.kind is FaultKind.PARTITION and failure.axis == axis
            ]
            canvas.across(axis, parted, "-.", color=color, linewidth=2.0, label=f"partition{past}")
        cut = _nodes(chosen, FaultKind.BACKHAUL)
        canvas.dots(
            cut, "s", color=color, markerfacecolor="none", markersize=15, markeredgewidth=2,
            label=f"cut off from the head-end{past}",
        )  # fmt: skip
    for kind, (style, label) in _MARKS.items():
        canvas.dots(_nodes(failures, kind), style, color="purple", markersize=size + 4, label=label)
    down = [number for number in range(len(canvas.places)) if not is_up(number)]
    back = [number for number in _nodes(failures, *_OFF) if is_up(number)]
    canvas.dots(back, "x", color=PAST, markersize=size + 3, label="was without power")
    canvas.dots(
        down, "x", color=NOW, markersize=size + 4, markeredgewidth=1.5, label="without power"
    )


def _nodes(failures: Sequence[Failure], *kinds: FaultKind) -> list[int]:
    return sorted({node for failure in failures if failure.kind in kinds for node in failure.nodes})


def frames_hurt(failures: Sequence[Failure]) -> Iterator[str]:
    """What has no place on a map, as lines."""
    words = {FaultKind.DAMAGE: "damaged", FaultKind.DOUBLE: "doubled"}
    for kind, word in words.items():
        shares = {(failure.share, failure.is_over) for failure in failures if failure.kind is kind}
        for share, is_over in sorted(shares):
            yield f"{share:.1%} of frames {word}{' for a time' * is_over}"


# Isolations


def draw_isolations(canvas: Canvas, cases: Sequence[Case], numbers: Mapping[Eui64, int]) -> None:
    """Of each what failed, and beside it what was named; where they differ, a line from one to the
    other.
    """
    truth = [case.failed for case in cases]
    named = [
        cause.component
        for case in cases
        if case.verdict is not None
        for cause in case.verdict.causes
    ]
    wrong = [
        (_end(case.failed, numbers), _end(cause.component, numbers))
        for case in cases
        if case.verdict is not None
        for cause in case.verdict.causes
        if cause.component != case.failed
    ]
    silent = [case for case in cases if case.verdict is None or not case.verdict.causes]
    _components(canvas, truth, numbers, TRUTH, 13.0, 4.0, "failed")
    _components(canvas, named, numbers, NAMED, 9.0, 1.5, "named")
    canvas.lines(wrong, "-", color="magenta", linewidth=1.0, label="also or only named for it")
    canvas.dots(
        [_end(case.failed, numbers) for case in silent],
        "1", color="magenta", markersize=16, markeredgewidth=2, label="failed, nothing named",
    )  # fmt: skip


def _components(
    canvas: Canvas,
    components: Sequence[Component],
    numbers: Mapping[Eui64, int],
    color: str,
    size: float,
    width: float,
    label: str,
) -> None:
    """Nodes as circles, backhauls as squares, links as lines, each hollow so that both are seen."""
    for kind, style, word in ((None, "o", "node"), (BACKHAUL, "s", "backhaul")):
        nodes = {
            numbers[one.ends[0]]
            for one in components
            if (one.kind == kind if kind else one.kind not in (BACKHAUL, LINK))
        }
        # Another size for each: a collector and its backhaul have one place.
        canvas.dots(
            sorted(nodes), style, color=color, markerfacecolor="none",
            markersize=size + 5 * (kind is not None), markeredgewidth=1.5, label=f"{word} {label}",
        )  # fmt: skip
    links = {(numbers[one.ends[0]], numbers[one.ends[1]]) for one in components if one.kind == LINK}
    canvas.lines(sorted(links), "-", color=color, linewidth=width, alpha=0.6, label=f"link {label}")


def _end(component: Component, numbers: Mapping[Eui64, int]) -> int:
    return numbers[component.ends[0]]
