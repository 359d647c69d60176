"""What the judge of isolations takes a head-end to know.

The contract under test: what a node says of itself now goes before what it told its collector once;
of a node that says nothing, what the collector knows is all there is.
"""

from __future__ import annotations

import dataclasses

import pytest

from mesh.routing.node import MeshNode
from mesh.sim.knowledge import what_the_head_end_knows
from mesh.sim.nodes import make_mesh_router, mesh_node, short_address
from mesh.sim.run import simulate
from mesh.sim.scenario import Isolations, Settlement, read_scenario
from mesh.sim.world import World

FORMED = dataclasses.replace(
    read_scenario("isolation"),
    settlement=Settlement("grid", 12, 1),
    isolations=Isolations(0),
    hours=0.5,
)


@pytest.fixture
def world() -> World:
    return simulate(FORMED, make_mesh_router, seed=1).world


def strangers(world: World, collector: MeshNode) -> tuple[int, int]:
    """A meter with a route, and one that neither names the other as a neighbour."""
    assert collector.routes is not None
    known = what_the_head_end_knows(world, hop_rank_increase=256).graph
    addresses = world.stations.addresses
    for one in world.meters:
        for other in world.meters:
            costs = known.costs[known.index_of(addresses[one])]
            row = collector.routes.rows.get(short_address(one))
            if one != other and known.index_of(addresses[other]) not in costs and row is not None:
                return one, other
    raise AssertionError("everybody hears everybody")


@pytest.mark.parametrize("is_silent", [False, True])
def test_parent_of_an_old_table_is_a_neighbour_only_of_who_says_nothing(
    world: World, is_silent: bool
) -> None:
    root = world.stations.machine(world.collectors[0])
    assert root is not None
    collector = mesh_node(root)
    one, other = strangers(world, collector)
    assert collector.routes is not None
    rows = collector.routes.rows
    row = rows[short_address(one)]
    rows[short_address(one)] = dataclasses.replace(row, parents=(short_address(other),))
    if is_silent:
        world.power_off(one)
    graph = what_the_head_end_knows(world, hop_rank_increase=256).graph
    ends = [graph.index_of(world.stations.addresses[number]) for number in (one, other)]
    assert (ends[1] in graph.costs[ends[0]]) is is_silent


def test_of_a_collector_that_is_cut_off_no_table_is_known(world: World) -> None:
    (collector,) = world.collectors
    before = what_the_head_end_knows(world, hop_rank_increase=256)
    assert len(before.locations) == len(world.meters)
    world.cut_backhaul(collector, is_cut=True)
    after = what_the_head_end_knows(world, hop_rank_increase=256)
    assert len(after.locations) == 0
    addresses = world.stations.addresses
    assert {after.routes.route_of(addresses[meter]) for meter in world.meters} == {None}
