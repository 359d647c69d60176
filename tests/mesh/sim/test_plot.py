"""The map of a run: each failure where it was, what is mended apart from what is not.

The contract under test: `map_of` draws, under a label of its own, exactly the nodes, links and
regions that the world's faults met; read from the artists, for no two versions draw the same dots.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mesh.sim.canvas import Canvas
from mesh.sim.failures import FAILURE_COUNT_MAX, Failure, Failures
from mesh.sim.nodes import make_mesh_router
from mesh.sim.plot import draw, map_of
from mesh.sim.plot_failures import NOW, PAST
from mesh.sim.run import Run, simulate
from mesh.sim.scenario import Fault, FaultKind, Isolations, Load, Scenario, Settlement
from mesh.topology.verdicts import Verdict

pytest.importorskip("matplotlib")

QUIET = Load(c1_per_day=0, c2_per_day=0, c3_per_day=0, c4_per_day=0, on_demand_per_day=0)
BEGAN_S, ENDED_S = 200.0, 300.0


def scenario(*faults: Fault, **changes: Any) -> Scenario:
    whole = Scenario(
        name="plotted",
        text="a test",
        hours=0.1,
        profile="lab",
        cipher="fast",
        forming_s=100.0,
        draining_s=60.0,
        settlement=Settlement(meters=12, collectors=2),
        load=QUIET,
        faults=faults,
    )
    return dataclasses.replace(whole, **changes)


def played(*faults: Fault, seed: int = 3, **changes: Any) -> Run:
    return simulate(scenario(*faults, **changes), make_mesh_router, seed=seed)


def drawn(canvas: Canvas, label: str) -> list[tuple[float, float]]:
    """All points under a label, the gaps between lines left out."""
    figure: Any = canvas.figure
    (axes,) = figure.axes
    found: list[tuple[float, float]] = []
    for artist in axes.lines:
        if artist.get_label() == label:
            found += zip(
                map(float, artist.get_xdata()), map(float, artist.get_ydata()), strict=True
            )
    return [place for place in found if not math.isnan(place[0])]


def labels(canvas: Canvas) -> set[str]:
    figure: Any = canvas.figure
    (axes,) = figure.axes
    return {artist.get_label() for artist in [*axes.lines, *axes.patches]}


def places(run: Run, nodes: Sequence[int]) -> list[tuple[float, float]]:
    return [run.world.placement.places[node] for node in nodes]


def both(kind: str, **how: Any) -> tuple[Fault, Fault]:
    """The same fault, mended and not."""
    return (
        Fault(kind, at_s=BEGAN_S, for_s=ENDED_S - BEGAN_S, **how),
        Fault(kind, at_s=BEGAN_S, **how),
    )


@pytest.mark.parametrize(
    ("kind", "how", "mended", "standing"),
    [
        ("crash", {"count": 2}, "was without power", "without power"),
        (
            "backhaul",
            {"count": 1, "whom": "collectors"},
            "cut off from the head-end, mended",
            "cut off from the head-end",
        ),
    ],
)
def test_nodes_that_failed_are_marked_where_they_stand(
    kind: str, how: dict[str, Any], mended: str, standing: str
) -> None:
    for fault, label, other in zip(
        both(kind, **how), (mended, standing), (standing, mended), strict=True
    ):
        run = played(fault)
        (failure,) = run.failures.shown
        assert len(failure.nodes) == how["count"]
        canvas = map_of(run)
        assert sorted(drawn(canvas, label)) == sorted(places(run, failure.nodes))
        assert other not in labels(canvas)


def test_dead_collector_is_no_longer_drawn_as_a_collector() -> None:
    run = played(Fault("crash", at_s=BEGAN_S, whom="collectors", count=1))
    canvas = map_of(run)
    (dead,) = run.failures.shown[0].nodes
    (alive,) = set(run.world.collectors) - {dead}
    assert drawn(canvas, "dead collector") == places(run, [dead])
    assert drawn(canvas, "collector") == places(run, [alive])


def test_faded_links_are_drawn_from_end_to_end() -> None:
    for fault, label in zip(
        both("link-fade", share=0.2), ("faded link, mended", "faded link"), strict=True
    ):
        run = played(fault)
        (failure,) = run.failures.shown
        assert failure.pairs
        ends = [place for pair in failure.pairs for place in places(run, pair)]
        canvas: Any = map_of(run)
        assert drawn(canvas, label) == ends
        (line,) = (line for line in canvas.figure.axes[0].lines if line.get_label() == label)
        assert line.get_color() == (PAST if fault.for_s else NOW)


@pytest.mark.parametrize(
    ("kind", "label"), [("jam", "jammed region"), ("area-off", "area without power")]
)
def test_regions_are_circles_of_their_radius(kind: str, label: str) -> None:
    for fault, words in zip(both(kind, radius_m=40.0), (f"{label}, over", label), strict=True):
        run = played(fault)
        (failure,) = run.failures.shown
        canvas: Any = map_of(run)
        (axes,) = canvas.figure.axes
        (patch,) = (patch for patch in axes.patches if patch.get_label() == words)
        box = patch.get_path().get_extents()
        assert failure.centre in run.world.placement.places
        assert failure.centre == pytest.approx(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2))
        assert (box.width, box.height) == pytest.approx((80.0, 80.0))
        if kind == "area-off":
            met = "was without power" if fault.for_s else "without power"
            assert sorted(drawn(canvas, met)) == sorted(places(run, failure.nodes))


def test_partition_is_a_line_between_the_parted() -> None:
    for fault, label in zip(both("partition"), ("partition, mended", "partition"), strict=True):
        run = played(fault)
        (failure,) = run.failures.shown
        (first, second) = drawn(map_of(run), label)
        assert first[failure.axis] == second[failure.axis] == failure.middle
        assert first[1 - failure.axis] < second[1 - failure.axis]
        for pair in failure.pairs:
            one, other = (place[failure.axis] for place in places(run, pair))
            assert min(one, other) < failure.middle <= max(one, other)


def test_restarts_and_drifts_are_marked_and_hurt_frames_told_in_the_title() -> None:
    run = played(
        Fault("restart", at_s=BEGAN_S, count=1),
        Fault("drift", at_s=BEGAN_S, count=3, ppm=50.0),
        Fault("damage", at_s=BEGAN_S, share=0.02),
        Fault("double", at_s=BEGAN_S, share=0.05, for_s=20.0),
    )
    restart, drift, *_ = run.failures.shown
    canvas: Any = map_of(run)
    assert drawn(canvas, "started anew") == places(run, restart.nodes)
    assert drawn(canvas, "clock drifts") == places(run, drift.nodes)
    (axes,) = canvas.figure.axes
    assert axes.get_title().splitlines()[1:] == [
        "2.0% of frames damaged",
        "5.0% of frames doubled for a time",
    ]


def test_run_without_faults_has_no_failures_on_its_map() -> None:
    canvas = map_of(played())
    assert labels(canvas) == {"meter", "collector", "preferred parent", "alternate"}


def test_isolations_show_what_failed_and_what_was_named(tmp_path: Path) -> None:
    run = played(hours=3.0, isolations=Isolations(each=1, settle_s=120.0), seed=4)
    assert run.isolations is not None
    cases = run.isolations.cases
    assert len(cases) == 5
    # One of them names another node: what a wrong answer looks like.
    node, other = cases[0], cases[1]
    assert isinstance(node.verdict, Verdict)
    assert isinstance(other.verdict, Verdict)
    cases[0] = dataclasses.replace(node, verdict=other.verdict)
    cases[1] = dataclasses.replace(other, verdict=None)
    canvas = map_of(run)
    numbers = run.world.stations.numbers
    failed = {numbers[case.failed.ends[0]] for case in cases if case.failed.kind == "node"}
    named = {
        numbers[cause.component.ends[0]]
        for case in cases
        if case.verdict is not None
        for cause in case.verdict.causes
        if cause.component.kind == "node"
    }
    assert sorted(drawn(canvas, "node failed")) == sorted(places(run, sorted(failed)))
    assert sorted(drawn(canvas, "node named")) == sorted(places(run, sorted(named)))
    (link,) = (case.failed for case in cases if case.failed.kind == "link")
    assert drawn(canvas, "link failed") == places(run, [numbers[end] for end in link.ends])
    (cut,) = (case.failed for case in cases if case.failed.kind == "backhaul")
    assert drawn(canvas, "backhaul failed") == places(run, [numbers[cut.ends[0]]])
    assert drawn(canvas, "failed, nothing named") == places(run, [numbers[other.failed.ends[0]]])
    wrong = drawn(canvas, "also or only named for it")
    assert wrong[0] == places(run, [numbers[node.failed.ends[0]]])[0]
    assert wrong[1] == places(run, [numbers[other.verdict.causes[0].component.ends[0]]])[0]
    draw(run, tmp_path / "isolation.png")
    assert (tmp_path / "isolation.png").read_bytes().startswith(b"\x89PNG")


def test_the_last_failures_are_kept_and_the_others_counted() -> None:
    failures = Failures()
    for number in range(FAILURE_COUNT_MAX + 3):
        failures.began(Failure(FaultKind.CRASH, float(number)))
    assert len(failures.shown) == FAILURE_COUNT_MAX
    assert failures.shown[0].began_at == 3.0
    assert failures.forgotten == 3
