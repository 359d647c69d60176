"""Isolations in a formed network: each part fails in turn, over real frames, judged by the oracle.

The small version of the scenario `isolation`, which has 100 cases of each part.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from mesh.sim.isolations import IsolationCases, _judged
from mesh.sim.knowledge import AREA
from mesh.sim.nodes import make_mesh_router
from mesh.sim.run import Run, simulate
from mesh.sim.scenario import Isolations, Load, Scenario, Settlement, read_scenario
from mesh.sim.world import station_address
from mesh.topology.paths import (
    Component,
    Part,
    Path,
    PathKind,
    link_component,
    node_component,
)
from mesh.topology.verdicts import Cause, Finding, Verdict
from tests.mesh.sim.laid import chain, laid

EACH = 4
RIGHT_SHARE = 0.95
QUIET = Load(c1_per_day=0, c2_per_day=0, c3_per_day=0, c4_per_day=0, on_demand_per_day=0)
SMALL = dataclasses.replace(
    read_scenario("isolation"),
    settlement=Settlement("grid", 60, 2),
    load=QUIET,
    isolations=Isolations(EACH, settle_s=600.0),
)


def isolated(scenario: Scenario = SMALL, seed: int = 1) -> tuple[Run, IsolationCases]:
    run = simulate(scenario, make_mesh_router, seed=seed)
    assert run.isolations is not None
    return run, run.isolations


# The judge

NODES = [station_address(number) for number in range(4)]
LINKS = [link_component(*ends) for ends in itertools.pairwise(NODES)]
METER = node_component(NODES[3])


@pytest.mark.parametrize(
    ("named", "is_certain", "is_right", "is_wrong_certain"),
    [
        ([METER], True, True, False),
        # Behind its only link nobody tells the two apart.
        ([METER, LINKS[2]], True, True, False),
        ([METER, LINKS[1]], True, False, False),
        ([LINKS[2]], True, False, True),
        ([LINKS[2]], False, False, False),
        ([], True, False, True),
        ([], False, False, False),
    ],
)
def test_judge_wants_what_failed_and_nothing_that_can_be_told_from_it(
    named: list[Component], *, is_certain: bool, is_right: bool, is_wrong_certain: bool
) -> None:
    world = laid(chain(0, 1, 2, 3))
    around = {0: [1], 1: [0, 2], 2: [1, 3], 3: [2]}
    path = Path(AREA, tuple(NODES), (2, 3, 4), 0)
    causes = tuple(Cause(Part.METER, component) for component in named)
    nothing: dict[PathKind, int] = {}
    finding = Finding.CLASS if named else Finding.UNFINISHED
    verdict = Verdict(finding, causes, is_certain, (), nothing, nothing, nothing, 1)
    case = _judged(world, Part.METER, path, METER, 0.0, verdict, around)
    assert (case.is_right, case.is_wrong_certain) == (is_right, is_wrong_certain)


def test_judge_finds_no_verdict_wrong_and_none_certain() -> None:
    world = laid(chain(0, 1, 2, 3))
    case = _judged(world, Part.METER, Path(AREA, tuple(NODES), (), 0), METER, 0.0, None, {})
    assert (case.is_right, case.is_wrong_certain) == (False, False)


# Over real frames


@pytest.fixture(scope="module")
def run() -> tuple[Run, IsolationCases]:
    return isolated()


def test_every_part_is_named_when_it_fails(run: tuple[Run, IsolationCases]) -> None:
    done, isolations = run
    assert isolations.is_done
    count = EACH * len(Part)
    figures = done.figures["isolation"]
    assert isinstance(figures, dict)
    assert list(figures) == ["cases", "right", "wrong_certain"]
    assert figures["cases"] == count
    assert figures["right"] >= RIGHT_SHARE * count
    assert figures["wrong_certain"] == 0
    assert [each for each, _, _ in isolations.counts().values()] == [EACH] * len(Part)


def test_verdicts_say_what_the_operator_needs(run: tuple[Run, IsolationCases]) -> None:
    for case in run[1].cases:
        assert case.verdict is not None
        if not case.is_right:
            continue
        assert case.verdict.finding in (Finding.COMPONENT, Finding.CLASS)
        named = {cause.component: cause.part for cause in case.verdict.causes}
        assert named[case.failed] is case.part
        if case.part is Part.METER:
            assert sum(case.verdict.left.values()) == 0
        else:
            assert any(case.verdict.left.values())


def test_run_ends_when_everything_is_isolated(run: tuple[Run, IsolationCases]) -> None:
    done, isolations = run
    assert done.world.clock.now < SMALL.hours * 3600
    last = isolations.cases[-1]
    assert done.world.clock.now >= last.began_at + last.took_s + SMALL.draining_s


def test_no_load_begins_between_the_last_isolation_and_the_end() -> None:
    load = dataclasses.replace(QUIET, c2_per_day=24)
    few = dataclasses.replace(SMALL, load=load, isolations=Isolations(1, settle_s=300.0))
    done, isolations = isolated(few)
    assert isolations.is_done
    ends = done.world.clock.now - few.draining_s
    began = [exchange.asked_at for exchange in done.world.traffic.exchanges]
    assert ends - 120.0 <= max(began) <= ends


def test_what_failed_is_mended_again(run: tuple[Run, IsolationCases]) -> None:
    world = run[0].world
    assert all(world.is_up(number) for number in range(world.count))
    assert all(world.is_connected(collector) for collector in world.collectors)
    fresh = simulate(dataclasses.replace(SMALL, hours=0.01), make_mesh_router, seed=1).world
    assert world.links.means == fresh.links.means


def test_no_judge_found_what_must_never_be(run: tuple[Run, IsolationCases]) -> None:
    assert run[0].world.faults.lines == []


def test_case_that_begins_too_late_is_left_out() -> None:
    _, isolations = isolated(dataclasses.replace(SMALL, hours=0.9, draining_s=600.0))
    assert 0 < len(isolations.cases) < EACH * len(Part)
    assert not isolations.is_done
