"""Repairs seen from outside: who is an orphan, and when each of its three clocks stops.

With a router whose parents and routes a test sets by hand; and once with real nodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from amistack.identifiers import Eui64
from mesh.sim.machine import NodeMachine
from mesh.sim.nodes import make_mesh_router
from mesh.sim.repairs import GRAIN_S, RepairWatch
from mesh.sim.results import repair_clocks
from mesh.sim.run import simulate
from mesh.sim.scenario import Fault, Scenario, Settlement, read_scenario
from mesh.sim.world import World
from tests.mesh.sim.dummy import DummyNode
from tests.mesh.sim.worlds import RADIO, FloodRouter


class HandRouter(FloodRouter):
    """Parents and routes as a test says."""

    def __init__(self, addresses: Sequence[Eui64], scenario: Scenario) -> None:
        super().__init__(addresses, scenario)
        self.chosen: dict[int, list[int]] = {}
        self.routes: dict[int, list[int]] = {}

    def parents(self, machine: NodeMachine) -> Sequence[int]:
        assert isinstance(machine, DummyNode)
        return self.chosen.get(self.numbers[machine.address], [])

    def route(self, root: NodeMachine, number: int, *, now: float) -> Sequence[int] | None:
        return self.routes.get(number)


def watched() -> tuple[World, HandRouter, RepairWatch]:
    """c0 above m1; m1 above m2 and m3."""
    scenario = Scenario("x", "", 1.0, settlement=Settlement("street", 5, 1))
    world = World(scenario, HandRouter, seed=1, radio=RADIO)
    router = world.router
    assert isinstance(router, HandRouter)
    router.chosen = {1: [0], 2: [1, 4], 3: [1], 4: [0], 5: [0]}
    router.routes = {2: [1, 2], 3: [1, 3]}
    watch = RepairWatch(world)
    world.watch_deaths(watch.died)
    world.start()
    world.run_until(60)
    world.power_off(1)
    return world, router, watch


def test_those_whose_preferred_parent_died_are_orphans_and_nobody_else() -> None:
    _, _, watch = watched()
    assert [(orphan.node, orphan.parent, orphan.died_at) for orphan in watch.orphans] == [
        (2, 1, 60.0),
        (3, 1, 60.0),
    ]


def test_each_clock_stops_when_its_thing_is_so() -> None:
    world, router, watch = watched()
    world.run_until(65)
    router.chosen[2] = []
    world.run_until(66)
    router.chosen[2] = [4]
    world.run_until(70)
    router.routes[2] = [4, 2]
    world.run_until(75)
    orphan, other = watch.orphans
    for time, expected in (
        (orphan.noticed_at, 65),
        (orphan.adopted_at, 66),
        (orphan.routed_at, 70),
    ):
        assert time == pytest.approx(expected, abs=2 * GRAIN_S)
    assert (other.noticed_at, other.adopted_at, other.routed_at) == (None, None, None)
    assert repair_clocks(watch)["new parent"] == pytest.approx((1, 1, 1), abs=2 * GRAIN_S)


def test_dead_parent_is_no_new_one_and_route_over_the_dead_is_none() -> None:
    world, router, watch = watched()
    world.power_off(5)
    router.chosen[3] = [5]
    router.routes[3] = [5, 3]
    world.run_until(65)
    assert watch.orphans[1].noticed_at is not None
    assert [orphan.adopted_at for orphan in watch.orphans[1:]] == [None]
    router.chosen[3] = [4]
    world.run_until(66)
    assert watch.orphans[1].adopted_at is not None
    assert watch.orphans[1].routed_at is None


def test_parent_that_comes_back_is_a_parent_again() -> None:
    world, _, watch = watched()
    world.run_until(70)
    world.power_on(1)
    world.run_until(71)
    for orphan in watch.orphans:
        assert orphan.adopted_at == orphan.routed_at == pytest.approx(70, abs=2 * GRAIN_S)


def test_orphan_that_dies_itself_is_nobody_to_blame_for() -> None:
    world, _, watch = watched()
    world.power_off(3)
    world.run_until(65)
    assert watch.orphans[1].is_gone
    assert not watch.orphans[0].is_gone


def test_street_repairs_itself_when_its_relays_die() -> None:
    """Real nodes: half of all relays in one moment; whoever still can be reached is."""
    scenario = dataclasses.replace(
        read_scenario("street"),
        hours=1.5,
        cipher="fast",
        faults=(Fault("crash", at_s=1800, whom="relays", share=0.3),),
    )
    run = simulate(scenario, make_mesh_router, seed=2)
    repair = run.figures["repair"]
    assert isinstance(repair, dict)
    assert list(repair) == ["orphans", "within_1s", "routed_within_60s", "noticed_p85_s"]
    assert repair["orphans"] >= 1
    assert run.world.faults.lines == []
