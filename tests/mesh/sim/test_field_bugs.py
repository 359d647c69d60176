"""Faults that other stacks had in the field, as worlds of a few nodes.

Seen from outside: preferred parents once a second, packets on the air, and reads that are answered.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable

import pytest

from mesh.packet import Packet, PacketKind
from mesh.routing.messages import Code
from mesh.sim.nodes import CIPHERS, NETWORK_KEY, MeshRouter, mesh_node, packet_in
from mesh.sim.oracles import cycles
from mesh.sim.traffic import Exchange, Kind
from mesh.sim.world import World
from tests.mesh.sim.laid import LOSS_DB, chain, change, every_pair, laid, node

JOINED_S = 120.0


def every_second(world: World, look: Callable[[list[int]], None]) -> None:
    def once(_: int) -> None:
        look(world.parents())
        world.clock.at(world.clock.now + 1, once)

    world.clock.at(world.clock.now, once)


def on_the_air(world: World, note: Callable[[int, int, Packet], None]) -> None:
    """Call `note` with source, destination and packet of each frame."""
    cipher = CIPHERS["fast"](NETWORK_KEY)

    def watch(time: float, source: int, to: int, octets: bytes) -> None:
        del time
        packet = packet_in(octets, world.stations.addresses[to] if to >= 0 else None, cipher)
        if packet is not None:
            note(source, to, packet)

    world.stations.watchers.append(watch)


def read(world: World, meter: int) -> Exchange:
    exchange = world.traffic.begin(Kind.REQUEST, meter)
    assert exchange is not None
    return exchange


def go_on(world: World, seconds: float) -> None:
    world.run_until(world.clock.now + seconds)


def latency(exchange: Exchange) -> float:
    return float("inf") if exchange.latency_s is None else exchange.latency_s


@pytest.mark.parametrize("seed", range(5))
def test_child_is_not_taken_as_parent_when_poison_is_lost(seed: int) -> None:
    """The root goes, and a quarter of all frames is lost: nobody climbs onto its own children."""
    links = chain(0, 1, 2, 3, ratio=0.75) | {(1, 3): 0.75, (2, 4): 0.75, (3, 4): 0.75}
    world = laid(links, seed=seed)
    go_on(world, 600)
    assert all(parent >= 0 for parent in world.parents()[1:])
    since: dict[frozenset[int], float] = {}
    longest = 0.0
    forwarded = Counter[int]()

    def look(parents: list[int]) -> None:
        nonlocal longest
        standing = {frozenset(loop) for loop in cycles(parents)}
        for loop in standing:
            longest = max(longest, world.clock.now - since.setdefault(loop, world.clock.now))
        for loop in since.keys() - standing:
            del since[loop]

    def note(source: int, to: int, packet: Packet) -> None:
        if packet.kind == PacketKind.COAP:
            forwarded[packet.source] += 1

    every_second(world, look)
    on_the_air(world, note)
    world.power_off(0)
    world.traffic.begin(Kind.C4, 4)
    go_on(world, 600)
    assert longest <= 30
    assert all(parent < 0 for parent in world.parents()[1:])
    # Each try of the end point crosses a few hops; one that went round would cross sixty.
    assert forwarded[5] <= 12 * 5 * 5


@pytest.mark.parametrize("seed", range(3))
def test_meter_between_two_weak_parents_never_has_none(seed: int) -> None:
    world = laid({(0, 1): 0.999, (0, 2): 0.999, (1, 3): 0.75, (2, 3): 0.75}, seed=seed)
    go_on(world, JOINED_S)
    seen: list[int] = []
    every_second(world, lambda parents: seen.append(parents[3]))
    go_on(world, 3600)
    assert -1 not in seen
    changes = sum(one != other for one, other in itertools.pairwise(seen))
    assert changes <= 6


@pytest.mark.parametrize("seed", range(3))
def test_one_poor_parent_is_kept_however_many_frames_it_loses(seed: int) -> None:
    """One frame in nine is lost with all its five attempts.

    Who leaves its only parent for that has no way, and takes the same one again.
    """
    world = laid({(0, 1): 0.6}, seed=seed)
    go_on(world, 600)
    seen: list[int] = []
    every_second(world, lambda parents: seen.append(parents[1]))
    for _ in range(720):
        world.traffic.begin(Kind.C4, 1)
        go_on(world, 10)
    lost = node(world, 1).counters["hop failed"]
    assert lost > 50
    assert set(seen) == {0}


def test_parent_that_grew_deaf_is_left_once_and_never_taken_again() -> None:
    """Its frames come as before, those that go there do not: nobody goes to it and fro."""
    world = laid(chain(0, 1, 2))
    go_on(world, JOINED_S)
    assert world.parents()[1:] == [0, 1]
    world.links.change_loss(2, 1, LOSS_DB)
    seen: list[int] = []
    sent = 0
    every_second(world, lambda parents: seen.append(parents[2]))

    def count(time: float, source: int, to: int, octets: bytes) -> None:
        nonlocal sent
        sent += source == 2

    world.stations.watchers.append(count)
    for _ in range(60):
        world.traffic.begin(Kind.C4, 2)
        go_on(world, 60)
    left = seen.index(-1)
    assert left < 300
    assert set(seen[left:]) == {-1}
    # It asks who is there, ever more seldom, and tries what it hears.
    assert sent < 1500
    world.links.change_loss(2, 1, -LOSS_DB)
    go_on(world, JOINED_S)
    assert world.parents()[1:] == [0, 1]


@pytest.mark.parametrize("told", [241, 247, 255, 0, 7, 60, 127])
def test_node_without_memory_is_found_over_its_new_parent(told: int) -> None:
    """It begins at 240: of what the root knows that is the same, older, newer, or not to tell."""
    world = laid(chain(0, 1, 3) | chain(0, 2, 3))
    go_on(world, JOINED_S)
    first = world.parents()[3]
    collector = node(world, 0)
    assert collector.routes is not None
    row = collector.routes.rows[4]
    # Of its other parent it had not told yet.
    collector.routes.rows[4] = dataclasses.replace(row, path_sequence=told, parents=(first + 1,))
    world.power_off(3)
    assert isinstance(world.router, MeshRouter)
    world.router.disks[3].path_sequence = None
    change(world, first, 3, LOSS_DB)
    world.power_on(3)
    go_on(world, 60)
    assert world.parents()[3] == 3 - first
    assert collector.route_to(4, now=world.clock.now) == (4 - first,)
    exchange = read(world, 3)
    go_on(world, 10)
    assert latency(exchange) <= 2


@pytest.mark.parametrize("whom", [0, 1, 2, 3], ids=["root", "relay", "next", "leaf"])
def test_routes_are_right_after_anybody_restarts(whom: int) -> None:
    world = laid(chain(0, 1, 2, 3) | {(0, 4): 0.999})
    go_on(world, JOINED_S)
    for _ in range(3):
        world.power_off(whom)
        go_on(world, 3)
        world.power_on(whom)
        go_on(world, 60)
        reads = [read(world, meter) for meter in world.meters]
        go_on(world, 30)
        assert max(map(latency, reads)) <= 5


def test_broken_route_is_told_a_few_times_and_not_for_every_packet() -> None:
    world = laid(chain(0, 1, 2, 3))
    go_on(world, JOINED_S)
    told: list[float] = []

    def note(source: int, to: int, packet: Packet) -> None:
        if packet.kind == PacketKind.ROUTE_ERROR and source == 2:
            told.append(world.clock.now)

    on_the_air(world, note)
    change(world, 2, 3, LOSS_DB)
    for _ in range(100):
        world.traffic.begin(Kind.REQUEST, 3)
        go_on(world, 0.2)
    assert told
    windows = Counter(int(time // 5) for time in told)
    # Three in five seconds, wherever these begin, and each at most once more for a lost link ack.
    assert max(windows.values()) <= 2 * 3 * 2


def test_root_serves_others_while_one_child_does_not_answer() -> None:
    world = laid({(0, 1): 0.999, (0, 2): 0.999, (1, 3): 0.999, (2, 4): 0.999})
    go_on(world, JOINED_S)
    change(world, 0, 1, LOSS_DB)
    for _ in range(40):
        world.traffic.begin(Kind.REQUEST, 3)
        world.traffic.begin(Kind.REQUEST, 1)
    # As long as two frames take until they are given up; a queue that is full refuses all alike.
    go_on(world, 2)
    reads = []
    for _ in range(10):
        reads.append(read(world, 4))
        go_on(world, 2)
    go_on(world, 10)
    assert max(map(latency, reads)) <= 1
    root = world.stations.machine(0)
    assert root is not None
    assert mesh_node(root).counters["held back"] > 40


def test_no_route_is_lost_when_another_node_joins() -> None:
    world = laid(every_pair(range(5)))
    for late in (3, 4):
        for other in range(5):
            change(world, late, other, LOSS_DB)
    go_on(world, JOINED_S)
    collector = world.stations.machine(0)
    assert collector is not None

    def routed() -> list[int]:
        now = world.clock.now
        return [m for m in world.meters if world.router.route(collector, m, now=now) is not None]

    assert routed() == [1, 2]
    lost: list[int] = []
    for late in (3, 4):
        before = set(routed())
        for other in range(5):
            change(world, late, other, -LOSS_DB)
        for _ in range(120):
            go_on(world, 1)
            lost += before - set(routed())
        assert set(routed()) == before | {late}
        reads = [read(world, meter) for meter in routed()]
        go_on(world, 10)
        assert max(map(latency, reads)) <= 5
    assert lost == []


def test_collector_that_still_has_its_table_asks_nobody_for_routes() -> None:
    """Nor does anybody lose a parent: a root that was away for a moment makes no storm."""
    world = laid(chain(0, 1, 2, 3) | chain(0, 4, 5))
    go_on(world, JOINED_S)
    told = Counter[int]()

    def note(source: int, to: int, packet: Packet) -> None:
        if packet.kind == PacketKind.RPL and packet.payload[:1] == bytes((Code.DAO,)):
            told[packet.source] += 1

    on_the_air(world, note)
    seen: list[int] = []
    every_second(world, lambda parents: seen.extend(parents[1:]))
    world.power_off(0)
    go_on(world, 2)
    world.power_on(0)
    go_on(world, 60)
    assert not told
    assert -1 not in seen
