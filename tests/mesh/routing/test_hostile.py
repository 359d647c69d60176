"""Control that cannot be, at a node of a network that works: dropped, counted, and without effect.

The contract under test: what is garbled, out of range, old or contradicts itself or what is known
changes neither the tree nor a route, and one counter says why it was dropped. Each message comes in
a frame that is true, from a neighbour that has proved to be there: so it is the message that is
refused, and nothing before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from amistack.framing import Priority
from mesh.packet import BROADCAST, ROOT, Flood, Packet, PacketKind, RplMark, ShortAddress
from mesh.routing.messages import (
    INFINITE_RANK,
    Configuration,
    Dao,
    DaoAck,
    Dio,
    Dis,
    Transit,
    address_of,
)
from mesh.routing.node import MeshNode
from mesh.routing.route_errors import RouteError
from mesh.security import Seal
from tests.mesh.routing.medium import DODAG_ID, KEY, QuickCipher, World, eui

FAR_AHEAD = 5_000_000
"""A frame counter that no neighbour has reached."""


@pytest.fixture
def world() -> World:
    """A line of four behind the root 1, which knows them all."""
    world = World(19).line(4)
    world.start()
    world.run(120.0, until=lambda: not world.orphans() and not world.unrouted())
    assert not world.unrouted()
    # Nothing is under way, and nobody has a reason to say anything.
    world.run(300.0)
    return world


def sealed(source: int, packet: Packet, to: int | None) -> bytes:
    seal = Seal(eui(source), {1: KEY}, active=1, stored_counter=FAR_AHEAD, make_cipher=QuickCipher)
    seal.reserved(FAR_AHEAD + 10)
    destination = None if to is None else eui(to)
    frame = seal.seal(packet.encode(), destination=destination, wants_ack=to is not None)
    return frame.octets


def recorded(source: int, to: int | None, kind: int, payload: bytes = b"", **more: object) -> bytes:
    """A true frame of a neighbour that nobody has proved to be there."""
    packet = Packet(
        kind,
        Priority.CONTROL,
        ShortAddress(source),
        ROOT if to is not None else BROADCAST,
        payload,
        9,
        **more,  # type: ignore[arg-type]
    )
    return sealed(source, packet, to)


def of_link(source: int, body: bytes) -> Packet:
    return Packet(PacketKind.RPL, Priority.CONTROL, ShortAddress(source), BROADCAST, body, 1)


def up(source: int, body: bytes, kind: PacketKind = PacketKind.RPL) -> Packet:
    mark = RplMark(4000)
    return Packet(kind, Priority.CONTROL, ShortAddress(source), ROOT, body, 9, mark)


def counts(node: MeshNode) -> Counter[str]:
    own = node.counters + node.dodag.counters
    return own if node.routes is None else own + node.routes.counters


def standing(world: World) -> list[object]:
    """All that a lie could change: everybody's place, and the root's routes."""
    found: list[object] = [
        (short, node.preferred_parent, node.parent_set, node.rank, node.dodag.version)
        for short, node in world.nodes.items()
    ]
    found += [(node.dodag.dtsn, node.dodag.configuration) for node in world.nodes.values()]
    routes = world.nodes[1].routes
    assert routes is not None
    found += [dict(routes.rows)]
    found += [world.nodes[1].route_to(short, now=world.now) for short in (2, 3, 4)]
    return found


def dio_of(world: World, short: int) -> Dio:
    said = world.nodes[short].dodag.dio()
    assert said is not None
    return said


Body = Callable[[Dio], bytes]


def dio(**changed: object) -> Body:
    return lambda right: replace(right, **changed).encode()  # type: ignore[arg-type]


def figures(**changed: object) -> Body:
    def body(right: Dio) -> bytes:
        assert right.configuration is not None
        wrong: Configuration = replace(right.configuration, **changed)  # type: ignore[arg-type]
        return replace(right, configuration=wrong).encode()

    return body


def cut(right: Dio) -> bytes:
    return right.encode()[:-1]


CONFIGURATION_REFUSED = "control: bad configuration"

OF_A_LINK: list[tuple[str, Body, str]] = [
    ("rank 0", dio(rank=0), "dio: impossible rank"),
    ("a rank above the root's", dio(rank=127), "dio: impossible rank"),
    ("another instance", dio(instance=5), "dio: not our instance or mode"),
    ("storing mode", dio(mode=2), "dio: not our instance or mode"),
    ("another DODAG", dio(dodag_id=bytes(16)), "dio: another dodag"),
    ("no unit of rank", figures(hop_rank_increase_min=0), CONFIGURATION_REFUSED),
    ("another unit", figures(hop_rank_increase_min=64), "dio: another MinHopRankIncrease"),
    ("a unit too large", figures(hop_rank_increase_min=1025), CONFIGURATION_REFUSED),
    ("an Imin of hours", figures(interval_min=25), CONFIGURATION_REFUSED),
    ("an Imax of ages", figures(interval_doublings=25), CONFIGURATION_REFUSED),
    ("an Imin of a moment", figures(interval_min=2), CONFIGURATION_REFUSED),
    ("an Imax of seconds", figures(interval_min=3, interval_doublings=10), CONFIGURATION_REFUSED),
    ("routes that live 0 s", figures(lifetime=0), CONFIGURATION_REFUSED),
    ("routes that live a moment", figures(lifetime=59, lifetime_unit=1), CONFIGURATION_REFUSED),
    ("another objective", figures(objective=0), "dio: another objective function"),
    ("cut off", cut, "control: truncated"),
    ("no code", lambda right: b"", "control: truncated"),
    ("an unknown code", lambda right: b"\x09" + right.encode()[1:], "control: unknown code"),
    ("a DAO for a neighbour", lambda right: told(4, 3), "control: not for a link"),
    (
        "an answer for a neighbour",
        lambda right: DaoAck(0, 1, 0).encode(),
        "control: not for a link",
    ),
]


@pytest.mark.parametrize(
    ("body", "reason"), [row[1:] for row in OF_A_LINK], ids=[row[0] for row in OF_A_LINK]
)
def test_a_neighbours_control_that_cannot_be_is_counted_and_changes_nothing(
    world: World, body: Body, reason: str
) -> None:
    """It comes from the parent itself, whom a node believes most."""
    node = world.nodes[3]
    before, counted = standing(world), counts(node)
    packet = of_link(2, body(dio_of(world, 2)))
    node.receive_frame(sealed(2, packet, None), now=world.now)
    world.touch(3)
    assert counts(node) - counted == {reason: 1}
    assert standing(world) == before
    world.run(20.0)
    assert standing(world) == before


def test_a_neighbour_in_an_older_version_is_counted_and_is_nobodys_parent(world: World) -> None:
    node = world.nodes[3]
    before, counted = standing(world), counts(node)
    said = replace(dio_of(world, 4), version=237, rank=128)
    node.receive_frame(sealed(4, of_link(4, said.encode()), None), now=world.now)
    world.touch(3)
    world.run(20.0)
    assert counts(node) - counted == {"dio: old version": 1}
    assert standing(world) == before


def told(
    target: int,
    *parents: int,
    sequence: int = 250,
    sequences: tuple[int, ...] = (),
) -> bytes:
    """A DAO, by default one that is newer than what the root knows."""
    transits = tuple(
        Transit(address_of(DODAG_ID, parent), number, 30, 0x80 >> index)
        for index, (parent, number) in enumerate(
            zip(parents, sequences or (sequence,) * len(parents), strict=True)
        )
    )
    return Dao(0, 77, address_of(DODAG_ID, target), transits).encode()


FOREIGN = Dao(0, 77, bytes(16), (Transit(bytes(16), 250, 30),)).encode()
NO_TRANSIT = told(4)
ERROR = RouteError(5, Packet(PacketKind.COAP, Priority.ALARM, ShortAddress(1), ROOT, b"x", 9))

UPWARD: list[tuple[str, Packet, str]] = [
    ("a loop", up(2, told(2, 4)), "dao: a loop"),
    ("its own parent", up(4, told(4, 4)), "dao: its own parent"),
    ("the root above itself", up(4, told(1, 2)), "dao: bad target"),
    ("nobody", up(4, told(0, 2)), "dao: bad target"),
    ("a parent that is nobody", up(4, told(4, 0)), "dao: its own parent"),
    ("somebody else", up(4, told(3, 1)), "dao: not its own target"),
    ("an old path sequence", up(4, told(4, 1, sequence=240)), "dao: old path sequence"),
    ("a path sequence of nobody", up(4, told(4, 1, sequence=200)), "dao: impossible path sequence"),
    ("two path sequences", up(4, told(4, 1, 2, sequences=(250, 251))), "dao: two path sequences"),
    (
        "too many parents",
        up(4, told(4, 1, 2, 3, 5, 6)),
        "dao: not our instance, or too many parents",
    ),
    ("an address of elsewhere", up(4, FOREIGN), "control: foreign address"),
    ("no parent", up(4, NO_TRANSIT), "control: no transit"),
    ("cut off", up(4, told(4, 1)[:-1]), "control: truncated"),
    ("an answer to a root", up(4, DaoAck(0, 1, 0).encode()), "control: not for us"),
    ("a DIO over many hops", up(4, Dio(0, 240, 128, 0, DODAG_ID).encode()), "control: not for us"),
    ("a DIS over many hops", up(4, Dis().encode()), "control: not for us"),
    ("an error cut off", up(2, b"\x01", PacketKind.ROUTE_ERROR), "control: truncated"),
    (
        "an error about nobody",
        up(2, b"\x01\x00\x00" + ERROR.encode()[3:], PacketKind.ROUTE_ERROR),
        "control: bad route error",
    ),
    (
        "an error about no packet",
        up(2, ERROR.encode()[:3] + b"\xff", PacketKind.ROUTE_ERROR),
        "control: unknown version",
    ),
    (
        "an error about a hop of no route",
        up(2, ERROR.encode(), PacketKind.ROUTE_ERROR),
        "route error",
    ),
]


@pytest.mark.parametrize(
    ("packet", "reason"), [row[1:] for row in UPWARD], ids=[row[0] for row in UPWARD]
)
def test_what_comes_up_and_cannot_be_is_counted_and_changes_no_route(
    world: World, packet: Packet, reason: str
) -> None:
    root = world.nodes[1]
    assert root.routes is not None
    # Of 4 something newer is known than when it began.
    known = root.routes.rows[4]
    root.routes.rows[4] = replace(known, path_sequence=245)
    before, counted = standing(world), counts(root)
    root.receive_frame(sealed(2, packet, 1), now=world.now)
    assert standing(world) == before
    assert counts(root) - counted == {reason: 1}
    world.touch(1)
    world.run(2.0)
    assert standing(world) == before


def test_of_a_frame_with_any_bit_flipped_nothing_counts(world: World) -> None:
    """The parent says that it has no way: what is not exactly that is no reason to leave it."""
    node = world.nodes[3]
    said = replace(dio_of(world, 2), rank=INFINITE_RANK)
    frame = sealed(2, of_link(2, said.encode()), None)
    before, counted, refused = standing(world), counts(node), Counter(node.seal.refused)
    flips = 0
    for at in range(8 * len(frame)):
        garbled = bytearray(frame)
        garbled[at // 8] ^= 0x80 >> at % 8
        node.receive_frame(bytes(garbled), now=world.now)
        flips += 1
    for size in range(len(frame)):
        node.receive_frame(frame[:size], now=world.now)
        flips += 1
    assert standing(world) == before
    assert counts(node) == counted
    why = node.seal.refused - refused
    # One flip makes it a frame for somebody else, and such are not counted.
    assert flips - 1 <= sum(why.values()) <= flips
    assert why["wrong tag"] > 8 * (len(frame) - 14)
    assert set(why) <= {
        "frame malformed",
        "own address as source",
        "replayed",
        "reserved bits set",
        "unknown frame type",
        "unknown key",
        "unknown version",
        "wrong size",
        "wrong tag",
    }
    node.receive_frame(frame, now=world.now)
    assert node.preferred_parent is None


def test_a_recorded_dao_changes_no_route_when_a_relay_started_anew() -> None:
    """The relay has forgotten what it had heard, and the root counts path sequences in a circle."""
    world = World(1)
    for one, other in ((1, 2), (1, 3), (2, 4), (3, 4)):
        world.link(one, other)
    records: list[bytes] = []

    def watch(now: float, short: int, octets: bytes) -> bytes:
        if short == 4:
            records.append(octets)
        return octets

    world.watch = watch
    world.start()
    world.run(30.0)
    root = world.nodes[1]
    assert root.routes is not None
    first = root.routes.rows[4].parents[0]
    world.watch = None
    world.cut(4, first)
    for number in range(10):
        world.send(4, b"x%d" % number)
        world.run(10.0)
    world.run(60.0)
    assert root.routes.rows[4].parents == (5 - first,)
    # A month later: to a root who knows 40 the 241 of the first day is newer.
    world.nodes[4].dao.path_sequence = 40
    known = root.routes.rows[4] = replace(root.routes.rows[4], path_sequence=40)
    world.kill(first)
    world.start(first)
    relay = world.nodes[first]
    for octets in records:
        relay.receive_frame(octets, now=world.now)
        world.touch(first)
    world.run(30.0)
    assert relay.counters["unproven neighbour"] > 0
    assert root.routes.rows[4] == known
    assert root.route_to(4, now=world.now) == (5 - first,)


@pytest.mark.parametrize(
    ("kind", "is_taken"),
    [
        (PacketKind.COAP, True),
        (PacketKind.PROBE, True),
        (PacketKind.RPL, False),
        (PacketKind.TOPOLOGY, False),
        (PacketKind.ROUTE_ERROR, False),
    ],
)
def test_what_the_links_alone_protect_is_taken_of_proven_neighbours_alone(
    world: World, kind: int, *, is_taken: bool
) -> None:
    node = world.nodes[3]
    before, counted = standing(world), counts(node)
    node.receive_frame(recorded(9, 3, kind, rpl=RplMark(900)), now=world.now)
    assert counts(node) - counted == (
        {} if is_taken else {"unproven neighbour": 1, "proof asked for": 1, "not taken": 1}
    )
    frame = node.frame_to_send(now=world.now)
    assert frame is not None
    assert frame.destination == eui(9)
    # An acknowledgement, or the question for a proof.
    assert frame.is_ack is is_taken
    assert bool(node.queue_length) is is_taken
    assert standing(world) == before


@pytest.mark.parametrize("kind", [PacketKind.COAP, PacketKind.TOPOLOGY])
def test_a_recorded_flood_of_what_the_links_alone_protect_goes_no_further(
    world: World, kind: int
) -> None:
    node = world.nodes[3]
    frame = recorded(9, None, kind, b"all", flood=Flood(77))
    heard, counted = len(world.received), counts(node)
    node.receive_frame(frame, now=world.now)
    world.touch(3)
    world.run(5.0)
    has_spread = {at for _, at, event in world.received[heard:] if event.payload == b"all"}
    assert has_spread == ({1, 2, 3, 4} if kind == PacketKind.COAP else set())
    assert counts(node) - counted == ({} if kind == PacketKind.COAP else {"unproven neighbour": 1})


def test_control_for_a_root_that_started_anew_is_said_again_after_the_proof(world: World) -> None:
    """And at once: no frame fails for it, and nobody seems dead."""
    world.kill(1)
    world.start(1)
    world.run(0.01)
    counted = world.counters()
    world.nodes[2].send(
        b"about us", priority=Priority.CONTROL, kind=PacketKind.TOPOLOGY, now=world.now
    )
    world.touch(2)
    world.run(0.5)
    assert [event.payload for _, at, event in world.received if at == 1] == [b"about us"]
    said = world.counters() - counted
    assert said["not taken"] == said["proof asked for"] == 1
    assert said["hop failed"] == said["replayed"] == 0
