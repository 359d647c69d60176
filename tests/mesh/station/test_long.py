"""Packets longer than a frame, through real nodes: fragments, relays, losses.

The contract under test: what the layer above hands over, up to the network's MTU, arrives whole
and once, up and down, on radios whose frames are shorter; no frame is longer than the radio's; a
packet that does not arrive is told to whoever sent it, or comes again from end to end.
"""

from __future__ import annotations

from collections import Counter

import pytest

from amistack.framing import Priority
from mesh.fragments import Fragment, FragmentAck, FragmentFrame, FragmentSettings
from mesh.packet import PAYLOAD_SIZE_MAX, ROOT, Packet, PacketKind, RplMark, ShortAddress
from mesh.reports import BOOT_SPREAD_S
from mesh.routing.events import PacketLost, PacketReceived, RouteFailed
from mesh.station.events import PacketArrived
from mesh.station.long import AT_ONCE, WAITING_COUNT_MAX
from tests.mesh.routing.medium import eui
from tests.mesh.station.world import StationWorld

RADIO_SIZE = 127
LONGEST = bytes(range(256)) * 5


class ShortFrames(StationWorld):
    """A world whose radios send 127 octets at most."""

    fragments = FragmentSettings.for_radio(RADIO_SIZE)

    def __init__(self, seed: int, **more: object) -> None:
        super().__init__(seed, **more)  # type: ignore[arg-type]
        self.longest = 0
        self.watch = self._measure

    def _measure(self, now: float, short: int, octets: bytes) -> bytes:
        self.longest = max(self.longest, len(octets))
        return octets


def formed(count: int = 4, seed: int = 1, share: float = 1.0) -> ShortFrames:
    world = ShortFrames(seed)
    world.line(count, share=share)
    world.start()
    world.run(600.0, until=lambda: not world.orphans() and not world.unrouted())
    assert not world.unrouted()
    world.run(30.0)
    return world


def payloads(world: StationWorld, at: int) -> list[bytes]:
    return [event.payload for event in world.delivered(at, PacketKind.COAP)]


def arrived(world: StationWorld, at: int) -> list[bytes]:
    return [
        event.packet.payload
        for _, short, event in world.happened
        if short == at and isinstance(event, PacketArrived)
    ]


def test_the_longest_payload_is_the_networks() -> None:
    assert len(LONGEST) == PAYLOAD_SIZE_MAX


@pytest.mark.parametrize("size", [60, 80, 85, 90, 96, 300, PAYLOAD_SIZE_MAX])
def test_every_size_arrives_up_and_down_in_short_frames(size: int) -> None:
    world = formed()
    world.send(4, LONGEST[:size])
    world.run(30.0)
    assert payloads(world, 1) == [LONGEST[:size]]
    world.send(1, LONGEST[:size], destination=4)
    world.run(30.0)
    assert payloads(world, 4) == [LONGEST[:size]]
    assert world.longest <= RADIO_SIZE
    if size >= 300:
        assert arrived(world, 4) == arrived(world, 1) == [LONGEST[:size]]


def test_what_arrives_in_fragments_says_where_it_came_from() -> None:
    world = formed()
    world.send(4, LONGEST)
    world.run(30.0)
    (event,) = world.delivered(1, PacketKind.COAP)
    assert (event.source, event.from_neighbour) == (4, eui(2))
    assert world.profile.links.hop_limit - event.hops_left + 1 == 3


def test_from_node_to_node_by_way_of_the_root() -> None:
    """The root puts it together: the way down has no place in the header that came up."""
    world = ShortFrames(2)
    for one, other in ((1, 2), (2, 3), (1, 4), (4, 5)):
        world.link(one, other)
    world.start()
    world.run(600.0, until=lambda: not world.orphans() and not world.unrouted())
    world.send(3, LONGEST, destination=5)
    world.run(30.0)
    assert payloads(world, 5) == [LONGEST]
    assert payloads(world, 1) == []


def test_a_lossy_line_loses_no_octet() -> None:
    world = formed(seed=7, share=0.9)
    for number in range(6):
        world.send(4, bytes((number,)) + LONGEST[:799])
        world.run(60.0)
    assert sorted(payload[0] for payload in payloads(world, 1)) == list(range(6))
    assert all(payload[1:] == LONGEST[:799] for payload in payloads(world, 1))


def test_a_first_hop_that_is_dead_is_gone_around() -> None:
    world = ShortFrames(3)
    for one, other in ((1, 2), (1, 3), (2, 4), (3, 4)):
        world.link(one, other)
    world.start()
    world.run(600.0, until=lambda: not world.orphans() and not world.unrouted())
    world.run(100.0)
    assert len(world.nodes[4].parent_set) == 2
    world.kill(world.path_up(4)[1])
    world.send(4, LONGEST)
    world.run(30.0)
    assert payloads(world, 1) == [LONGEST]


def test_a_source_route_that_broke_is_told_to_the_root() -> None:
    world = formed()
    world.cut(3, 4)
    world.send(1, LONGEST, destination=4)
    world.run(60.0)
    assert payloads(world, 4) == []
    failed = [
        (event.relay, event.neighbour)
        for _, at, event in world.happened
        if at == 1 and isinstance(event, RouteFailed)
    ]
    assert (3, 4) in failed
    lost = [event for _, at, event in world.happened if at == 1 and isinstance(event, PacketLost)]
    assert [event.payload for event in lost] == [LONGEST]


def test_a_report_of_a_well_connected_node_goes_too() -> None:
    """Reports are up to 104 octets, of which a frame of 127 has no room for all."""
    world = ShortFrames(5)
    for other in range(2, 9):
        world.link(1, other)
        for third in range(2, other):
            world.link(third, other)
    world.start()
    world.run(BOOT_SPREAD_S + 60.0)
    sources = {event.source for event in world.delivered(1, PacketKind.TOPOLOGY)}
    assert sources == set(range(2, 9))


def test_more_than_a_node_can_send_at_once_is_told() -> None:
    world = formed()
    count = WAITING_COUNT_MAX + AT_ONCE + 3
    for number in range(count):
        world.send(4, bytes((number,)) * 400)
    world.run(120.0)
    lost = [event for _, at, event in world.happened if at == 4 and isinstance(event, PacketLost)]
    assert [event.reason for event in lost] == ["too many in fragments"] * 3
    assert sorted(payload[0] for payload in payloads(world, 1)) == list(range(count - 3))


def test_the_urgent_one_of_those_that_wait_goes_first() -> None:
    world = formed()
    for number in range(6):
        priority = Priority.ALARM if number == 5 else Priority.FIRMWARE
        world.nodes[4].send(bytes((number,)) * 400, priority=priority, now=world.now)
        world.touch(4)
        world.run(0.1 if number == 4 else 0.0)
    world.run(60.0)
    order = [payload[0] for payload in payloads(world, 1)]
    assert sorted(order) == list(range(6))
    assert order.index(5) <= AT_ONCE


def test_a_flood_that_does_not_fit_into_a_frame_is_lost_and_counted() -> None:
    world = formed()
    world.nodes[1].node.broadcast(LONGEST, priority=Priority.ON_DEMAND, now=world.now)
    world.touch(1)
    world.run(10.0)
    assert payloads(world, 2) == []
    assert world.nodes[1].node.counters["lost: too long for a frame"] >= 1


@pytest.mark.parametrize(
    "octets",
    [
        Fragment(9, 3, 100, b"unknown tag").encode(),
        Fragment(9, 0, 300, b"no packet at all").encode(),
        FragmentAck(9, 0).encode(),
        b"\xe8",
        b"\xea\x01",
        b"\xe8\x01\x00\x05\x00\x10ab",
    ],
)
def test_fragments_that_make_no_sense_are_counted_and_change_nothing(octets: bytes) -> None:
    world = formed(3)
    world.nodes[3].node.carrying.send_fragment(
        FragmentFrame(eui(2), octets, Priority.SCHEDULED), now=world.now
    )
    world.touch(3)
    world.run(5.0)
    before = sum(
        count
        for name, count in world.station(2)._long.counters.items()
        if "refused" in name  # type: ignore[union-attr]
    )
    fates = world.station(2)._long._fragments.fates  # type: ignore[union-attr]
    assert before + fates["ack stale"] + fates["reset"] == 1
    world.send(3, b"still there")
    world.run(5.0)
    assert payloads(world, 1) == [b"still there"]


def test_an_unproven_neighbour_ends_no_packet() -> None:
    world = formed(3)
    long = world.station(2)._long
    assert long is not None
    assert long.receive(FragmentAck(1, 0).encode(), eui(3), is_fresh=False, now=world.now)
    assert long.receive(Fragment(1, 0, 0).encode(), eui(3), is_fresh=False, now=world.now)
    assert long.counters == {"unproven neighbour": 2}
    assert long._fragments.received_count == 0


@pytest.mark.parametrize("kind", [PacketKind.COAP, PacketKind.TOPOLOGY])
def test_control_in_fragments_begins_at_a_proven_neighbour_alone(kind: PacketKind) -> None:
    world = formed(3)
    relay = world.station(2)
    long = relay._long
    assert long is not None
    packet = Packet(
        kind, Priority.CONTROL, ShortAddress(3), ROOT, bytes(300), 9, RplMark(900)
    ).encode()
    first = Fragment(1, 0, len(packet), packet[:90], wants_ack=True).encode()
    is_taken = kind == PacketKind.COAP
    assert long.receive(first, eui(3), is_fresh=False, now=world.now) is is_taken
    assert bool(long._fragments._labels) is is_taken
    assert long.receive(first, eui(3), is_fresh=True, now=world.now)
    assert len(long._fragments._labels) == 1


def test_control_in_fragments_reaches_a_root_that_started_anew() -> None:
    world = formed(2)
    world.kill(1)
    world.start(1)
    world.run(0.01)
    said = bytes(300)
    world.station(2).send(said, priority=Priority.CONTROL, kind=PacketKind.TOPOLOGY, now=world.now)
    world.touch(2)
    world.run(2.0)
    assert said in [event.payload for event in world.delivered(1, PacketKind.TOPOLOGY)]
    assert world.station(1).node.counters["not taken"] == 1


def test_without_settings_a_fragment_is_no_packet() -> None:
    world = StationWorld(1)
    world.line(2)
    world.start()
    world.run(100.0)
    frame = FragmentFrame(eui(1), Fragment(1, 0, 300, b"x").encode(), Priority.SCHEDULED)
    world.nodes[2].node.carrying.send_fragment(frame, now=world.now)
    world.touch(2)
    world.run(2.0)
    assert world.nodes[1].node.counters["packet: unknown version"] == 1


def test_under_hard_weather_each_packet_arrives_or_is_told_as_lost() -> None:
    """A packet whose last acknowledgement went missing starts once more (RFC 8931 section 6.3):
    it may come twice, and CoAP notices; never oftener.
    """
    for seed in range(6):
        world = formed(4, seed=seed, share=0.75)
        sent = []
        for number in range(4):
            payload = bytes((seed, number)) + LONGEST[:400]
            sent.append(payload)
            world.send(4, payload)
            world.run(90.0)
        heard = payloads(world, 1)
        assert set(heard) <= set(sent)
        assert max(Counter(heard).values(), default=0) <= 2
        lost = [
            event.payload
            for _, at, event in world.happened
            if at == 4 and isinstance(event, PacketLost)
        ]
        # Told as lost or arrived, never neither: both can be, if the last word went missing.
        assert set(heard) | set(lost) >= set(sent)
        assert not any(isinstance(event, PacketReceived) and event.source != 4
                       and event.kind == 0 for _, _, event in world.received)  # fmt: skip
