"""Probes as frames: over one way and no other, back the same way, told as a head-end hears it.

The contract under test: `mesh.sim.probes` over real nodes in a formed world of 30 meters; and that
`mesh.sim.knowledge` tells what nodes say of themselves.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import pytest

from amistack.identifiers import Eui64
from mesh.packet import PacketKind
from mesh.sim.knowledge import what_the_head_end_knows
from mesh.sim.nodes import CIPHERS, NETWORK_KEY, make_mesh_router, packet_in, short_address
from mesh.sim.probes import Probes
from mesh.sim.scenario import Load, Settlement, read_scenario
from mesh.sim.world import BACKHAUL_DELAY_S, World
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId
from mesh.topology.paths import Path
from mesh.topology.verdicts import Answered, LostAfter, NoConnection, NotPassed, Outcome
from tests.mesh.sim.laid import chain, laid, node
from tests.mesh.sim.worlds import RADIO

FORMED = dataclasses.replace(
    read_scenario("street"),
    cipher="fast",
    settlement=Settlement("street", 30, 2),
    load=Load(),
)


@pytest.fixture(scope="module")
def formed() -> World:
    world = World(FORMED, make_mesh_router, seed=6, radio=RADIO)
    world.start()
    world.run_until(1800)
    return world


@pytest.fixture
def probes(formed: World) -> Iterator[Probes]:
    yield Probes(formed)
    formed.listeners.clear()


def known(world: World) -> Dcc:
    return what_the_head_end_knows(world, hop_rank_increase=256)


def longest(world: World) -> Path:
    """The best way to a meter that has most hops."""
    routes = known(world).routes
    ways = [routes.route_of(world.stations.addresses[meter]) for meter in world.meters]
    return max((way for way in ways if way is not None), key=lambda way: way.hops)


def way_over(world: World, numbers: list[int]) -> Path:
    nodes = tuple(world.stations.addresses[number] for number in numbers)
    return Path(AreaId(1), nodes, tuple(map(short_address, numbers[1:])), 0)


def ask(world: World, probes: Probes, path: Path, *, within_s: float = 8.0) -> list[Outcome]:
    heard: list[Outcome] = []
    probes.ask(path, heard.append)
    world.run_until(world.clock.now + within_s)
    return heard


def number(world: World, node: Eui64) -> int:
    return world.stations.numbers[node]


def test_probe_over_a_way_that_works_is_answered_once(formed: World, probes: Probes) -> None:
    path = longest(formed)
    assert path.hops >= 3
    assert ask(formed, probes, path) == [Answered()]


def test_collector_itself_answers_over_its_backhaul(formed: World, probes: Probes) -> None:
    assert ask(formed, probes, longest(formed).up_to(0)) == [Answered()]


def test_probe_and_answer_go_over_the_way_and_no_other(formed: World, probes: Probes) -> None:
    path = longest(formed)
    cipher = CIPHERS["fast"](NETWORK_KEY)
    seen: list[tuple[int, int]] = []

    def watch(time: float, source: int, to: int, octets: bytes) -> None:
        address = formed.stations.addresses[to] if to >= 0 else None
        packet = packet_in(octets, address, cipher)
        if packet is not None and packet.kind == PacketKind.PROBE:
            seen.append((source, to))

    formed.stations.watchers.append(watch)
    assert ask(formed, probes, path) == [Answered()]
    formed.stations.watchers.remove(watch)
    numbers = [number(formed, node) for node in path.nodes]
    there = list(itertools.pairwise(numbers))
    back = list(itertools.pairwise(numbers[::-1]))
    assert list(dict.fromkeys(seen)) == there + back


def test_link_that_fades_is_named_by_who_stands_before_it(formed: World, probes: Probes) -> None:
    path = longest(formed)
    a, b = (number(formed, node) for node in path.nodes[-2:])
    for sender, receiver in ((a, b), (b, a)):
        formed.links.change_loss(sender, receiver, 200.0)
    heard = ask(formed, probes, path)
    for sender, receiver in ((a, b), (b, a)):
        formed.links.change_loss(sender, receiver, -200.0)
    # The meter has other parents, but the probe goes over this way alone.
    assert heard == [LostAfter(path.hops - 1)]


def test_relay_that_does_not_know_the_next_node_says_so(formed: World, probes: Probes) -> None:
    best = known(formed).routes.route_of
    ends = [path for meter in formed.meters if (path := best(formed.stations.addresses[meter]))]
    path, stranger = next(
        (path, other)
        for path in ends
        for other in formed.meters
        if path.hops == 1 and _is_stranger(formed, number(formed, path.destination), other)
    )
    way = way_over(formed, [*(number(formed, node) for node in path.nodes), stranger])
    assert ask(formed, probes, way) == [NotPassed(1)]


def _is_stranger(world: World, relay: int, other: int) -> bool:
    return (
        other != relay
        and node(world, relay).dodag.neighbours.by_short(short_address(other)) is None
    )


def test_collector_that_is_cut_off_says_nothing(formed: World, probes: Probes) -> None:
    path = longest(formed)
    collector = number(formed, path.collector)
    formed.cut_backhaul(collector, is_cut=True)
    heard = ask(formed, probes, path)
    formed.cut_backhaul(collector, is_cut=False)
    assert heard == [NoConnection()]


def test_answer_that_comes_to_a_collector_that_was_cut_off_meanwhile_is_not_heard(
    formed: World, probes: Probes
) -> None:
    path = longest(formed)
    collector = number(formed, path.collector)
    heard: list[Outcome] = []
    probes.ask(path, heard.append)
    formed.run_until(formed.clock.now + BACKHAUL_DELAY_S + 0.001)
    formed.cut_backhaul(collector, is_cut=True)
    formed.run_until(formed.clock.now + 8.0)
    formed.cut_backhaul(collector, is_cut=False)
    assert heard == []


def test_probe_is_no_message_of_the_ledger(formed: World, probes: Probes) -> None:
    before = formed.ledger.arrivals
    assert ask(formed, probes, longest(formed)) == [Answered()]
    assert formed.ledger.arrivals == before
    assert formed.faults.lines == []


def test_head_end_knows_every_node_and_where_it_is_asked(formed: World) -> None:
    dcc = known(formed)
    parents = formed.parents()
    for meter in formed.meters:
        address = formed.stations.addresses[meter]
        assert dcc.routes.route_of(address) is not None
        assert dcc.locations.find(address) is not None
        preferred = formed.stations.addresses[parents[meter]]
        index = dcc.graph.index_of(address)
        assert dcc.graph.index_of(preferred) in dcc.graph.costs[index]


def test_answer_finds_its_way_back_where_the_relay_was_not_known_by_its_address() -> None:
    """The packet itself says which address the neighbour has that passed it on."""
    world = laid(chain(0, 1, 2, 3))
    world.run_until(120)
    probes = Probes(world)
    relay = world.stations.addresses[2]
    neighbours = node(world, 3).dodag.neighbours
    neighbours.take_in(relay, 77, 1024, tuple, now=world.clock.now)
    assert neighbours.by_short(short_address(2)) is None
    path = way_over(world, [0, 1, 2, 3])
    assert ask(world, probes, path) == [Answered()]
    row = neighbours.by_short(short_address(2))
    assert row is not None
    assert row.eui == relay
