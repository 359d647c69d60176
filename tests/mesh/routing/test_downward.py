"""Packets under a source route, and what a root makes of those that come back.

The contract under test: a packet that a relay returns whole goes once more, over another route and
with all its hops; nothing else does. A relay says of a broken hop a few times that it is broken,
and again when it still is. No packet lives longer than its hop limit.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from amistack.framing import Priority
from mesh.packet import (
    BROADCAST,
    ROOT,
    Attempt,
    Packet,
    PacketKind,
    RplMark,
    ShortAddress,
    SourceRoute,
)
from mesh.routing.downward import ROUTE_TRIES
from mesh.routing.jobs import Job
from mesh.routing.messages import Dao, Transit, address_of
from mesh.routing.outbox import Outbox
from mesh.routing.route_errors import ERROR_COUNT_MAX, ERROR_INTERVAL, RouteError
from mesh.security import Seal
from tests.mesh.routing.medium import DODAG_ID, KEY, QuickCipher, World, eui

FAR = 60_000
"""The rank of somebody far below."""


def sealed(source: int, packet: Packet, to: int | None, counter: int) -> bytes:
    """A frame of that node, which knows the key."""
    seal = Seal(eui(source), {1: KEY}, active=1, stored_counter=counter, make_cipher=QuickCipher)
    seal.reserved(counter + 1)
    destination = None if to is None else eui(to)
    return seal.seal(packet.encode(), destination=destination, wants_ack=to is not None).octets


@pytest.fixture
def world() -> World:
    """Two ways from the root 1 to node 4: over 2 and over 3."""
    made = World(11)
    for one, other in ((1, 2), (1, 3), (2, 4), (3, 4)):
        made.link(one, other)
    made.start()
    made.run(210.0)
    assert not made.orphans()
    assert set(made.nodes[1].routes_to(4, now=made.now)) == {(2,), (3,)}
    return made


def used(world: World) -> int:
    """The relay of the way that the root takes to node 4."""
    (relay,) = world.nodes[1].route_to(4, now=world.now) or ()
    return relay


def down(relay: int, **changed: object) -> Packet:
    """A packet of the root's, as that relay could not give it to node 4."""
    whole = Packet(
        PacketKind.COAP,
        Priority.ON_DEMAND,
        ShortAddress(1),
        ShortAddress(4),
        b"back",
        1,
        RplMark(256, is_down=True),
        SourceRoute((ShortAddress(relay),), 1),
    )
    return replace(whole, **changed)  # type: ignore[arg-type]


def give_back(world: World, packet: Packet, relay: int, *, is_whole: bool = True) -> None:
    """The relay tells the root that it could not go on."""
    error = RouteError(4, packet, is_whole)
    up = Packet(
        PacketKind.ROUTE_ERROR,
        Priority.CONTROL,
        ShortAddress(relay),
        ROOT,
        error.encode(),
        9,
        RplMark(FAR),
    )
    world.nodes[1].receive_frame(sealed(relay, up, 1, 9_000_000), now=world.now)
    world.touch(1)
    world.run(2.0)


def arrived(world: World) -> list[tuple[int, bytes]]:
    return [(at, event.payload) for _, at, event in world.received]


def test_a_packet_that_comes_back_goes_over_another_route_with_all_its_hops(world: World) -> None:
    relay = used(world)
    give_back(world, down(relay), relay)
    assert arrived(world) == [(4, b"back")]
    assert world.received[0][2].hops_left == world.profile.links.hop_limit - 1


@pytest.mark.parametrize(
    ("changed", "is_whole"),
    [
        ({"payload": b""}, False),
        ({"source": ShortAddress(3)}, True),
        ({"attempt": Attempt(ROUTE_TRIES - 1)}, True),
        ({"attempt": Attempt(ROUTE_TRIES)}, True),
        ({"destination": BROADCAST}, True),
    ],
    ids=[
        "without-its-payload",
        "of-another",
        "for-the-last-time",
        "by-a-given-way",
        "for-a-subtree",
    ],
)
def test_no_other_packet_that_comes_back_is_sent(
    world: World, changed: dict[str, object], *, is_whole: bool
) -> None:
    relay = used(world)
    give_back(world, down(relay, **changed), relay, is_whole=is_whole)
    assert arrived(world) == []
    assert world.nodes[1].counters["route error"] == 1
    assert used(world) != relay


def test_a_packet_that_comes_back_does_not_go_the_same_way(world: World) -> None:
    for relay in (2, 3):
        root = world.nodes[1]
        assert root.routes is not None
        root.routes.deny(5 - relay, 4, now=world.now)
        root.routes.deny(relay, 4, now=world.now)
    relay = used(world)
    give_back(world, down(relay), relay)
    assert arrived(world) == []


def test_a_root_whose_own_hop_fails_takes_another(world: World) -> None:
    world.cut(1, used(world))
    world.send(1, b"over the other", 4)
    world.run(5.0)
    assert arrived(world) == [(4, b"over the other")]


def test_a_dead_relay_with_many_neighbours_costs_no_packet_its_life() -> None:
    """All three relays of the first row lead to it; the fourth way goes around it."""
    world = World(1)
    for relay in (2, 3, 4):
        world.link(1, relay)
        world.link(relay, 5)
    for one, other in ((1, 6), (6, 7), (5, 8), (7, 8)):
        world.link(one, other)
    world.start()
    world.run(600.0, until=lambda: not world.unrouted())
    root = world.nodes[1]
    assert root.routes is not None
    world.run(2000.0, until=lambda: len(root.routes.rows[8].parents) == 2)  # type: ignore[union-attr]
    row = root.routes.rows[8]
    root.routes.rows[8] = replace(row, parents=(5, 7))
    world.kill(5)
    world.received.clear()
    assert world.send(1, b"over the fourth", 8)
    world.run(10.0)
    assert arrived(world) == [(8, b"over the fourth")]
    assert root.counters["route error"] <= ROUTE_TRIES


@pytest.mark.parametrize("ways_tried", range(1, ROUTE_TRIES))
def test_a_packet_that_comes_back_says_how_many_ways_it_failed_on(
    world: World, ways_tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody sends it to and fro for ever; which of its source's tries it is stays so."""
    sent: list[Attempt | None] = []
    put = Outbox.put_or_count

    def watched(outbox: Outbox, job: Job) -> bool:
        if outbox is world.nodes[1]._outbox and job.packet is not None:
            sent.extend([job.packet.attempt] * (job.packet.payload == b"back"))
        return put(outbox, job)

    monkeypatch.setattr(Outbox, "put_or_count", watched)
    relay = used(world)
    give_back(world, down(relay, attempt=Attempt(ways_tried - 1, 7)), relay)
    assert sent == [Attempt(ways_tried, 7)]


def test_a_relay_says_a_few_times_that_a_hop_is_broken_and_later_again(world: World) -> None:
    world.cut(2, 4)
    root = world.nodes[1]
    said = []
    for _ in range(2):
        before = root.counters["route error"]
        for number in range(2 * ERROR_COUNT_MAX + 1):
            world.send(1, b"%d" % number, 4, relays=(2,))
            world.run(0.6)
        said.append(root.counters["route error"] - before)
        world.run(ERROR_INTERVAL)
    assert said == [ERROR_COUNT_MAX, ERROR_COUNT_MAX]


def test_who_is_gone_holds_up_nobody_behind_it(world: World) -> None:
    world.kill(2)
    for number in range(20):
        world.send(1, b"%d" % number, 2)
    world.send(1, b"there", 3)
    world.run(4.0)
    assert (3, b"there") in arrived(world)
    assert world.nodes[1].counters["held back"] >= 15


@pytest.mark.parametrize(("hop_limit", "is_passed_on"), [(1, False), (2, True)])
@pytest.mark.parametrize("is_down", [True, False], ids=["down", "up"])
def test_a_packet_ends_with_its_hops(
    world: World, hop_limit: int, *, is_passed_on: bool, is_down: bool
) -> None:
    route = SourceRoute((ShortAddress(2),))
    packet = down(2, hop_limit=hop_limit, route=route)
    if not is_down:
        packet = replace(packet, route=None, rpl=RplMark(FAR), destination=ROOT)
    source, end = (1, 4) if is_down else (4, 1)
    relay = world.nodes[2]
    relay.receive_frame(sealed(source, packet, 2, 9_000_000), now=world.now)
    world.touch(2)
    world.run(2.0)
    assert arrived(world) == ([(end, b"back")] if is_passed_on else [])
    assert relay.counters["dropped: hop limit"] == (not is_passed_on)


def test_who_told_before_its_parents_is_answered_when_they_are_known(world: World) -> None:
    root = world.nodes[1]
    lengths = [root.queue_length]
    for counter, (node, parent) in enumerate([(12, 11), (11, 10), (10, 2)]):
        transit = Transit(address_of(DODAG_ID, parent), 20, 12)
        dao = Dao(0, 1, address_of(DODAG_ID, node), (transit,))
        up = Packet(
            PacketKind.RPL,
            Priority.CONTROL,
            ShortAddress(node),
            ROOT,
            dao.encode(),
            9,
            RplMark(FAR),
        )
        root.receive_frame(sealed(2, up, 1, 9_000_000 + counter), now=world.now)
        lengths.append(root.queue_length)
    assert [after - before for before, after in itertools.pairwise(lengths)] == [0, 0, 3]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"route": SourceRoute((ShortAddress(3),))}, "dropped: not the relay"),
        ({"route": None}, "dropped: not for us"),
        ({"route": SourceRoute((ShortAddress(3),), 1)}, "dropped: not for us"),
    ],
    ids=["of another relay", "without a route", "at its route's end"],
)
def test_what_came_to_a_wrong_node_goes_no_further(
    world: World, changed: dict[str, object], reason: str
) -> None:
    relay = world.nodes[2]
    packet = down(2, hop_limit=9, **changed)
    relay.receive_frame(sealed(1, packet, 2, 9_000_000), now=world.now)
    world.touch(2)
    world.run(2.0)
    assert arrived(world) == []
    assert relay.counters[reason] == 1
