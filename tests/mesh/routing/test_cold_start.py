"""An area that has its power back all at once: it forms, soon and cheaply, over the radio model.

The contract under test: everybody joins and is routed; nobody loses its way for a busy channel; the
first minutes cost a bounded number of frames, for they are what a thousand meters are lost by.
"""

from __future__ import annotations

import dataclasses

from mesh.sim.nodes import make_mesh_router, mesh_node
from mesh.sim.radio import read_radio
from mesh.sim.results import unreachable
from mesh.sim.scenario import read_scenario
from mesh.sim.world import World

METERS = 70


def district(seed: int, meters: int = METERS) -> World:
    scenario = read_scenario("district")
    settlement = dataclasses.replace(scenario.settlement, meters=meters, collectors=1)
    scenario = dataclasses.replace(scenario, power_up_s=30.0, settlement=settlement)
    return World(scenario, make_mesh_router, seed=seed, radio=read_radio(scenario.radio))


def counted(world: World, what: str) -> int:
    """What all nodes counted of that."""
    return sum(mesh_node(machine).dodag.counters[what] for _, machine in world.machines())


def late_ones(seed: int) -> int:
    """How many are not joined 60 s after the last has its power; and the rest of the contract."""
    world = district(seed)
    world.start()
    world.run_until(90.0)
    there = set(world.meters) - set(unreachable(world))
    joined = {n for n, parent in enumerate(world.parents()) if parent >= 0}
    late = len(there - joined)
    world.run_until(480.0)
    root = world.stations.machine(0)
    assert root is not None
    routed = {n for n in there if world.router.route(root, n, now=480.0) is not None}
    assert len(there - routed) <= METERS // 35
    # Each once, when it starts.
    assert METERS <= counted(world, "detached") <= METERS + METERS // 35
    assert counted(world, "parent changed") <= 4 * METERS
    assert world.stations.medium.counters.frames <= 300 * METERS
    assert not world.loops.seen
    return late


def test_all_join_and_are_routed_and_nobody_loses_its_way() -> None:
    late = [late_ones(seed) for seed in range(1, 9)]
    assert max(late) <= 5
    assert sum(late) <= len(late) * METERS // 50
