"""Small worlds of real nodes over links that a test lays down by their reception ratio."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from mesh.routing.node import MeshNode
from mesh.sim.nodes import make_mesh_router, mesh_node
from mesh.sim.radio import NORMAL, Links
from mesh.sim.scenario import Load, Scenario, Settlement
from mesh.sim.world import World
from tests.mesh.sim.worlds import RADIO

QUIET = Load(c1_per_day=0, c2_per_day=0, c3_per_day=0, c4_per_day=0, on_demand_per_day=0)
LOSS_DB = 300.0


def mean_dbm(ratio: float) -> float:
    """At which mean power this share of frames is received in silence."""
    return RADIO.sensitivity_dbm + RADIO.shadowing_frame_db * NORMAL.inv_cdf(ratio)


def laid(
    links: Mapping[tuple[int, int], float],
    *,
    collectors: int = 1,
    seed: int = 1,
    profile: str = "lab",
    load: Load = QUIET,
) -> World:
    """A world that has started: `links` by reception ratio, the same both ways."""
    count = 1 + max(itertools.chain.from_iterable(links))
    powers: list[dict[int, float]] = [{} for _ in range(count)]
    for (one, other), ratio in links.items():
        powers[one][other] = powers[other][one] = mean_dbm(ratio)
    scenario = Scenario(
        name="laid",
        text="a test",
        hours=1.0,
        power_up_s=2.0,
        profile=profile,
        cipher="fast",
        settlement=Settlement("street", count - collectors, collectors),
        load=load,
    )
    world = World(scenario, make_mesh_router, seed=seed, radio=RADIO, links=Links(RADIO, powers))
    world.traffic.start(until=1e9)
    world.start()
    return world


def chain(*nodes: int, ratio: float = 0.999) -> dict[tuple[int, int], float]:
    """Each hears the one before and the one behind."""
    return dict.fromkeys(itertools.pairwise(nodes), ratio)


def every_pair(nodes: Iterable[int], ratio: float = 0.999) -> dict[tuple[int, int], float]:
    return dict.fromkeys(itertools.combinations(nodes, 2), ratio)


def change(world: World, one: int, other: int, loss_db: float) -> None:
    """Let a link lose so much more, both ways; the same negative mends it."""
    for pair in ((one, other), (other, one)):
        world.links.change_loss(*pair, loss_db)


def node(world: World, number: int) -> MeshNode:
    machine = world.stations.machine(number)
    assert machine is not None
    return mesh_node(machine)
