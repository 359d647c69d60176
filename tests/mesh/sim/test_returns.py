"""Collectors that come back, and collectors that are cut off: who is reached, and by whom.

The contract under test: `mesh.sim.returns` reads every meter after a return and counts in time;
a cut backhaul is told to the mesh after a grace; real nodes over links laid by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from amistack.identifiers import Eui64
from mesh.collector.collector import GROUND_GRACE_S
from mesh.sim.machine import NodeMachine
from mesh.sim.nodes import make_mesh_router
from mesh.sim.returns import LIMIT_S, ReturnWatch
from mesh.sim.run import simulate
from mesh.sim.scenario import Fault, Scenario, Settlement, read_scenario
from mesh.sim.world import World
from tests.mesh.sim.laid import chain, laid
from tests.mesh.sim.worlds import RADIO, FloodRouter

ROOT, METER = 0, 1


class Muted(FloodRouter):
    """Some meters take nothing that comes down; parents are as a test says."""

    def __init__(self, addresses: Sequence[Eui64], scenario: Scenario) -> None:
        super().__init__(addresses, scenario)
        self.mute: set[int] = set()
        self.lost: set[int] = set()

    def parents(self, machine: NodeMachine) -> Sequence[int]:
        number = self.numbers[machine.address]  # type: ignore[attr-defined]
        return () if number in self.lost else (ROOT,)

    def take(self, number: int, machine: NodeMachine, event: object) -> tuple[int, bytes] | None:
        return None if number in self.mute else super().take(number, machine, event)


def watched() -> tuple[World, Muted, ReturnWatch]:
    scenario = Scenario("x", "", 1.0, power_up_s=1.0, settlement=Settlement("street", 6, 1))
    world = World(scenario, Muted, seed=1, radio=RADIO)
    router = world.router
    assert isinstance(router, Muted)
    watch = ReturnWatch(world)
    world.watch_deaths(watch.died)
    world.watch_returns(watch.came_back)
    world.traffic.start(until=0.0)
    world.start()
    world.run_until(60)
    return world, router, watch


def test_first_start_is_no_return() -> None:
    _, _, watch = watched()
    assert watch.returns == []


def test_meters_are_read_and_those_that_answer_in_time_count() -> None:
    world, router, watch = watched()
    world.power_off(ROOT)
    world.run_until(62)
    router.mute = {2, 3}
    world.power_on(ROOT)
    # One of the two answers later than it should.
    world.clock.at(62 + LIMIT_S + 1, lambda _: router.mute.discard(2))
    world.run_until(62 + 4 * LIMIT_S)
    (one,) = watch.returns
    assert (one.collector, one.went_at, one.back_at) == (ROOT, 60.0, 62.0)
    assert len(one.reads) == 6
    assert one.reached == 4
    assert sum(read.done_at is not None for read in one.reads) == 5


def test_meters_that_lose_their_parent_meanwhile_are_counted_and_others_not() -> None:
    world, router, watch = watched()
    router.lost = {5}
    world.run_until(70)
    router.lost = set()
    world.power_off(ROOT)
    world.run_until(72)
    router.lost = {4}
    world.run_until(75)
    router.lost = set()
    world.power_on(ROOT)
    world.run_until(75 + LIMIT_S + 2)
    router.lost = {6}
    world.run_until(75 + LIMIT_S + 10)
    assert watch.returns[0].detached == {4}


def test_meter_that_restarts_is_not_followed() -> None:
    world, _, watch = watched()
    world.power_off(METER)
    world.power_on(METER)
    world.run_until(120)
    assert watch.returns == []


def test_second_return_is_followed_like_the_first() -> None:
    world, _, watch = watched()
    for _ in range(2):
        world.power_off(ROOT)
        world.power_on(ROOT)
        world.run_until(world.clock.now + 2 * LIMIT_S)
    assert [(len(one.reads), one.reached) for one in watch.returns] == [(6, 6), (6, 6)]


def test_run_with_a_restart_has_its_figures() -> None:
    scenario = dataclasses.replace(
        read_scenario("restart"),
        hours=0.6,
        forming_s=600.0,
        settlement=Settlement("street", 20, 1),
        faults=(Fault("restart", whom="collectors", count=1, at_s=900),),
    )
    run = simulate(scenario, make_mesh_router, seed=1)
    restart = run.figures["restart"]
    assert isinstance(restart, dict)
    assert list(restart) == ["meters", "reached_within_120s", "without_parent"]
    assert restart["meters"] == restart["reached_within_120s"] == 20
    assert run.world.faults.lines == []


@pytest.mark.parametrize(("cut_s", "is_moved"), [(GROUND_GRACE_S - 2, False), (90.0, True)])
def test_meters_move_when_their_collector_is_cut_off_for_long(cut_s: float, is_moved: bool) -> None:
    """Two collectors, meters between them; and those that moved are asked there."""
    world = laid(chain(0, 2, 3, 4, 1), collectors=2)
    world.run_until(120)
    near = world.parents()[2]
    assert near == 0
    world.cut_backhaul(0, is_cut=True)
    world.run_until(120 + cut_s)
    moved = world.parents()[2]
    assert (moved == 3) is is_moved
    world.cut_backhaul(0, is_cut=False)
    world.run_until(120 + cut_s + 600)
    assert world.parents()[2] == 0
