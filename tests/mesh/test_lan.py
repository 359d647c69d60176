"""Nodes whose radios are sockets: frames as datagrams between neighbours.

The contract under test: nodes that name one of two neighbours form a tree over any number of hops
and carry packets both ways, through loss and repetition; an address is believed for what authentic
frames came from it, and for nothing else; the table of addresses is bounded.
"""

from __future__ import annotations

import random

import pytest

from amistack.errors import LocalProtocolError
from amistack.framing import Priority
from amistack.identifiers import Eui64
from amistack.machine import Peer
from mesh.lan import NEIGHBOURS_MAX, Lan
from mesh.packet import ROOT, PacketKind
from mesh.routing.events import PacketReceived
from mesh.routing.node import MeshNode, Role
from mesh.routing.profile import load_profile
from mesh.security import CountersWanted, Seal
from mesh.station.events import Event
from mesh.station.station import Station
from tests.support.worlds import LinkQuality, World

KEY = bytes(range(16))
OTHER_KEY = bytes(range(1, 17))
FOUL = LinkQuality(loss=0.2, duplication=0.2, delay_min=0.001, delay_max=0.02)
"""A bad local network: a frame and its acknowledgement take less than a node waits for it."""
DODAG_ID = bytes.fromhex("fd000000000000000000000000000001")


def eui(number: int) -> Eui64:
    return Eui64(bytes.fromhex("02000000000000") + bytes((number,)))


class Node:
    """One node of a world; 1 is the root."""

    def __init__(
        self,
        world: World,
        number: int,
        neighbours: tuple[Peer, ...],
        *,
        key: bytes = KEY,
        life: int = 1,
    ) -> None:
        chance = random.Random(f"{number} {life}")
        seal = Seal(eui(number), {0: key}, active=0, stored_counter=(life - 1) << 20)
        is_root = number == 1
        self.node = MeshNode(
            eui(number),
            number,
            seal,
            load_profile("lab"),
            chance,
            role=Role.COLLECTOR if is_root else Role.METER,
            dodag_id=DODAG_ID if is_root else None,
        )
        self.station = Station(self.node, chance)
        self.lan = Lan(self.station, seal, neighbours)
        self.packets: list[PacketReceived] = []
        self.world = world
        self.name = f"node {number}"
        for event in self.station.events():
            self.take(event)
        self.host = world.add(self.name, self.lan, self.take)

    def start(self) -> None:
        self.station.start(now=self.world.now)
        self.settle()

    def settle(self) -> None:
        self.lan.give_way(now=self.world.now)
        self.host.settle()

    def take(self, event: Event) -> None:
        if isinstance(event, CountersWanted):
            self.node.counters_reserved(event.until)
        elif isinstance(event, PacketReceived) and event.kind == PacketKind.COAP:
            self.packets.append(event)

    def send(self, payload: bytes, destination: int = ROOT) -> bool:
        is_sent = self.station.send(
            payload, destination=destination, priority=Priority.ON_DEMAND, now=self.world.now
        )
        self.settle()
        return is_sent

    @property
    def payloads(self) -> list[bytes]:
        return [packet.payload for packet in self.packets]


def line(world: World, count: int) -> list[Node]:
    """A root, and nodes each of which names the one before it alone."""
    nodes = [
        Node(world, number, () if number == 1 else (f"node {number - 1}",))
        for number in range(1, count + 1)
    ]
    for node in nodes:
        node.start()
    return nodes


def form(world: World, nodes: list[Node]) -> None:
    for _ in range(120):
        world.elapse(5)
        routes = [nodes[0].node.route_to(node.node.short, now=world.now) for node in nodes[1:]]
        if None not in routes:
            return
    raise AssertionError(f"not formed: {routes}")


def test_nodes_that_name_one_of_two_neighbours_carry_packets_over_all_hops() -> None:
    world = World()
    nodes = line(world, 5)
    form(world, nodes)
    assert nodes[0].node.route_to(5, now=world.now) == (2, 3, 4)
    assert nodes[4].send(b"up")
    assert nodes[0].send(b"down", 5)
    world.elapse(5)
    assert nodes[0].payloads == [b"up"]
    assert nodes[4].payloads == [b"down"]
    assert nodes[4].station.hops == 4


@pytest.mark.parametrize("seed", range(5))
def test_a_foul_network_is_crossed_all_the_same(seed: int) -> None:
    world = World(seed, FOUL)
    nodes = line(world, 3)
    form(world, nodes)
    for number in range(20):
        nodes[2].send(b"%d" % number)
        world.elapse(30)
    # Once at least: what comes twice is for CoAP to tell.
    assert set(nodes[0].payloads) == {b"%d" % number for number in range(20)}


def test_a_datagram_that_is_no_authentic_frame_teaches_no_address() -> None:
    world = World()
    nodes = line(world, 2)
    form(world, nodes)
    before = nodes[0].lan.addresses
    real = next(one.datagram for one in world.datagrams() if one.sender == "node 2")
    for octets in (b"", b"\x00", real[:-1] + b"\x00", bytes(40), real):
        world.send("stranger", "node 1", octets)
    world.elapse(10)
    stranger = Node(world, 9, ("node 1",), key=OTHER_KEY)
    stranger.start()
    world.elapse(60)
    assert nodes[0].lan.addresses == before == ("node 2",)
    assert nodes[0].lan.counters["frames not taken"] >= 5
    assert not any(one.receiver == "stranger" for one in world.datagrams())
    assert not any(one.receiver == stranger.name for one in world.datagrams())


def test_a_neighbour_that_moved_is_found_where_it_speaks_from() -> None:
    world = World()
    root = Node(world, 1, ())
    meter = Node(world, 2, ("node 1",))
    for node in (root, meter):
        node.start()
    form(world, [root, meter])
    assert root.lan.address_of(eui(2)) == "node 2"
    world.remove("node 2")
    moved = Node.__new__(Node)
    moved.__dict__.update(meter.__dict__)
    moved.host = world.add("elsewhere", meter.lan, meter.take)
    moved.send(b"from elsewhere")
    world.elapse(5)
    assert root.lan.address_of(eui(2)) == "elsewhere"
    assert root.lan.counters["neighbours that moved"] == 1
    root.send(b"found", 2)
    world.elapse(5)
    assert meter.payloads == [b"found"]


def test_the_table_of_addresses_is_bounded_and_the_stalest_gives_way() -> None:
    world = World()
    root = Node(world, 1, ())
    root.start()
    meters = [Node(world, number, ("node 1",)) for number in range(2, NEIGHBOURS_MAX + 4)]
    for meter in meters:
        meter.start()
        world.elapse(1)
    assert len(root.lan.addresses) == NEIGHBOURS_MAX
    assert eui(NEIGHBOURS_MAX + 3) in dict(root.lan.learned)
    assert root.lan.counters["neighbours that gave way"] >= len(meters) - NEIGHBOURS_MAX


def test_more_named_neighbours_than_fit_are_refused() -> None:
    node = Node(World(), 1, ())
    named = tuple(f"node {number}" for number in range(NEIGHBOURS_MAX + 1))
    with pytest.raises(LocalProtocolError, match="65 neighbours, at most 64"):
        Lan(node.station, node.node.seal, named)


def test_a_frame_for_all_goes_to_those_named_and_those_heard() -> None:
    world = World()
    root = Node(world, 1, ("node 3",))
    heard = Node(world, 2, ("node 1",))
    heard.start()
    root.start()
    world.elapse(30)
    assert set(root.lan.addresses) == {"node 3", "node 2"}
    assert {one.receiver for one in world.datagrams() if one.sender == "node 1"} == {
        "node 3",
        "node 2",
    }


def test_a_node_without_frame_counters_waits_for_them_and_comes_to_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    root = Node(world, 1, ())
    monkeypatch.setattr(Node, "take", lambda *_: None)  # The disk takes nothing.
    meter = Node(world, 2, ("node 1",))
    for node in (root, meter):
        node.start()
    world.elapse(60)
    assert not any(one.sender == "node 2" for one in world.datagrams())
    meter.node.counters_reserved(1000)
    meter.settle()
    world.elapse(60)
    assert any(one.sender == "node 2" for one in world.datagrams())
