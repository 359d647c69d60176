"""Packets: known octets, round trips, the declared layout, sizes, and garbage.

The contract under test: `Packet.decode` returns a packet or raises `MeshError`, whatever it is
given; it inverts `Packet.encode` exactly, strange options included; both agree with the layout.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError, MeshError
from amistack.framing import Priority
from mesh import layout
from mesh.packet import (
    BROADCAST,
    PACKET_SIZE_MAX,
    PAYLOAD_SIZE_MAX,
    ROOT,
    ROUTE_LENGTH_MAX,
    Attempt,
    Flood,
    Packet,
    PacketKind,
    RplMark,
    ShortAddress,
    SourceRoute,
    StrangeOption,
    header_size_of,
    priority_of,
)
from tests.mesh.support import packets


def short(*numbers: int) -> tuple[ShortAddress, ...]:
    return tuple(ShortAddress(number) for number in numbers)


def packet(
    payload: bytes = b"reading",
    *,
    kind: int = PacketKind.COAP,
    priority: Priority = Priority.SCHEDULED,
    source: int = 0x0102,
    destination: int = ROOT,
    hop_limit: int = 64,
    rpl: RplMark | None = None,
    route: SourceRoute | None = None,
    flood: Flood | None = None,
    attempt: Attempt | None = None,
    strange: tuple[StrangeOption, ...] = (),
) -> Packet:
    return Packet(
        kind,
        priority,
        ShortAddress(source),
        ShortAddress(destination),
        payload,
        hop_limit,
        rpl,
        route,
        flood,
        attempt,
        strange,
    )


# Written by hand from the tables in docs/protocol/mesh.md.
VECTORS = [
    (
        "20 01 01 fffe ffff 00",
        packet(
            b"\0",
            kind=1,
            priority=Priority.CONTROL,
            source=0xFFFE,
            destination=BROADCAST,
            hop_limit=1,
        ),
    ),
    (
        "32 00 40 0102 0000 04 8b 00 0200 40010001",
        packet(bytes.fromhex("40010001"), rpl=RplMark(512)),
    ),
    (
        "2a 00 3f 0000 0007 0d 8b c0 0100 95 01 0003 0005 22 09 02 aa",
        packet(
            b"\xaa",
            priority=Priority.ON_DEMAND,
            source=ROOT,
            destination=7,
            hop_limit=63,
            rpl=RplMark(256, is_down=True, has_rank_error=True),
            route=SourceRoute(short(3, 5), 1),
            attempt=Attempt(9, 2),
        ),
    ),
    (
        "3a 00 40 0000 ffff 10 9a 1234 22 01 00 7f 01 0102030405060708",
        packet(
            b"",
            priority=Priority.FIRMWARE,
            source=ROOT,
            destination=BROADCAST,
            flood=Flood(0x1234),
            attempt=Attempt(1, 0),
            strange=(StrangeOption(15, bytes(range(1, 9))),),
        ),
    ),
    (
        "22 c8 00 0001 0002 05 9c 1234 0006",
        packet(
            b"",
            kind=200,
            priority=Priority.CONTROL,
            source=1,
            destination=2,
            hop_limit=0,
            flood=Flood(0x1234, ShortAddress(6)),
        ),
    ),
]
IDS = ["bare", "upward", "source-routed", "flood with a strange option", "flood of a subtree"]


@pytest.mark.parametrize(("octets", "value"), VECTORS, ids=IDS)
def test_octets_are_as_the_protocol_says(octets: str, value: Packet) -> None:
    assert value.encode().hex() == bytes.fromhex(octets).hex()
    assert Packet.decode(bytes.fromhex(octets)) == value
    assert layout.parse_packet(bytes.fromhex(octets)) == value


def test_headers_are_small() -> None:
    assert len(packet(b"").encode()) == 7
    assert len(packet(b"", rpl=RplMark(512)).encode()) == 12
    mark = RplMark(512, is_down=True)
    for relay_count, size in ((1, 16), (4, 23), (24, 63)):
        relays = short(*range(1, relay_count + 1))
        assert len(packet(b"", rpl=mark, route=SourceRoute(relays)).encode()) == size


REFUSALS = [
    ("", "wrong size"),
    ("20 00 40 0102 00", "wrong size"),
    ("00 00 40 0102 0000", "unknown version"),
    ("40 00 40 0102 0000", "unknown version"),
    ("e8", "unknown version"),
    ("21 00 40 0102 0000", "reserved bits set"),
    ("22 00 40 0102 0000", "options cut off"),
    ("22 00 40 0102 0000 00", "options empty"),
    ("22 00 40 0102 0000 04 8b 00 02", "options cut off"),
    ("22 00 40 0102 0000 03 8b 00 02", "options cut off"),
    ("22 00 40 0102 0000 01 2f", "options cut off"),
    ("22 00 40 0102 0000 01 03 00 00 00", "options cut off"),
    ("22 00 40 0102 0000 01 00", "option number zero"),
    ("22 00 40 0102 0000 01 80", "option number zero"),
    ("22 00 40 0102 0000 01 a8", "unknown critical option"),
    ("22 00 40 0102 0000 04 0b 00 0200", "option malformed"),
    ("22 00 40 0102 0000 04 8b 01 0200", "option malformed"),
    ("22 00 40 0102 0000 03 8a 00 02", "option malformed"),
    ("22 00 40 0102 0000 08 8b 00 0200 8b 00 0200", "option repeated"),
    ("22 00 40 0102 0000 07 22 00 00 8b 00 0200", "options out of order"),
    ("22 00 40 0102 0000 05 7a 00 00 28 22 00 00", "options out of order"),
    ("22 00 40 0102 0000 02 91 00", "option malformed"),
    ("22 00 40 0102 0000 03 92 00 00", "option malformed"),
    ("22 00 40 0102 0000 04 93 02 0003", "option malformed"),
    ("22 00 40 0102 0000 04 93 00 0000", "option malformed"),
    ("22 00 40 0102 0000 04 93 00 ffff", "option malformed"),
    ("22 00 40 0102 0000 06 95 00 0003 0003", "option malformed"),
    ("22 00 40 0102 0000 04 9b 00 00 00", "option malformed"),
    ("22 00 40 0102 0000 02 21 00", "option malformed"),
    ("22 00 40 0102 0000 03 a2 00 00", "option malformed"),
    ("20 00 40 0102 0000" + "00" * (PAYLOAD_SIZE_MAX + 1), "payload too long"),
    ("20" + "00" * PACKET_SIZE_MAX, "wrong size"),
]


@pytest.mark.parametrize(("octets", "reason"), REFUSALS)
def test_what_is_no_packet_is_refused_by_its_reason(octets: str, reason: str) -> None:
    with pytest.raises(MeshError) as caught:
        Packet.decode(bytes.fromhex(octets))
    assert caught.value.reason == reason
    with pytest.raises(MeshError):
        layout.parse_packet(bytes.fromhex(octets))


@settings(deadline=None)
@given(packets)
def test_decode_inverts_encode(value: Packet) -> None:
    octets = value.encode()
    assert Packet.decode(octets) == value
    assert Packet.decode(octets).encode() == octets
    assert 7 <= len(octets) <= PACKET_SIZE_MAX
    assert priority_of(octets) is value.priority
    assert octets[header_size_of(octets) :] == value.payload


@settings(deadline=None)
@given(packets)
def test_codec_and_declared_layout_write_the_same_octets(value: Packet) -> None:
    assert layout.build_packet(value) == value.encode()
    assert layout.parse_packet(value.encode()) == value


def outcome(octets: bytes, read: object) -> Packet | None:
    assert callable(read)
    try:
        found = read(octets)
    except MeshError:
        return None
    assert isinstance(found, Packet)
    return found


@settings(deadline=None)
@given(packets.map(Packet.encode), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255))))
def test_codec_and_declared_layout_take_and_refuse_the_same(
    octets: bytes, changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(octets)
    for place, value in changes:
        changed[place : place + 1] = bytes((value,))
    found = outcome(bytes(changed), Packet.decode)
    assert found == outcome(bytes(changed), layout.parse_packet)
    if found is not None:
        assert found.encode() == changed


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_options_are_read_as_the_layout_has_them_or_refused(options: bytes) -> None:
    octets = bytes.fromhex("22004001020000") + bytes((len(options),)) + options
    found = outcome(octets, Packet.decode)
    assert found == outcome(octets, layout.parse_packet)
    if found is not None:
        assert found.encode() == octets


@given(st.binary(max_size=60))
def test_arbitrary_octets_never_raise_anything_but_mesh_error(octets: bytes) -> None:
    outcome(octets, Packet.decode)
    outcome(b"\x22" + octets, Packet.decode)


def test_seeded_damage_is_sometimes_taken_and_mostly_refused() -> None:
    dice = random.Random(5)
    start = bytes.fromhex(VECTORS[2][0])
    taken = 0
    for _ in range(5000):
        octets = bytearray(start)
        for _ in range(dice.randrange(1, 4)):
            octets[dice.randrange(len(octets))] = dice.randrange(256)
        taken += outcome(bytes(octets), Packet.decode) is not None
    assert 500 < taken < 4500


def test_unknown_elective_options_are_forwarded_untouched() -> None:
    octets = bytes.fromhex(
        "32 00 40 0102 0000 0b 8b 00 0200 2a aabb 2a ccdd 78 40".replace(" ", "")
    )
    before = Packet.decode(octets)
    assert before.strange == (
        StrangeOption(5, b"\xaa\xbb"),
        StrangeOption(5, b"\xcc\xdd"),
        StrangeOption(15),
    )
    after = packet(before.payload, hop_limit=63, rpl=RplMark(768), strange=before.strange).encode()
    assert after.hex() == "32003f010200000b8b0003002aaabb2accdd7840"


@given(packets, packets, st.integers(0, 255), st.integers(0, 0xFFFF))
def test_what_a_hop_writes_anew_leaves_all_else_as_it_was(
    whole: Packet, other: Packet, hop_limit: int, rank: int
) -> None:
    mark = None if other.rpl is None else other.rpl.from_rank(rank)
    if other.rpl is not None:
        assert mark == dataclasses.replace(other.rpl, sender_rank=rank)
    assert whole.marked(mark) == dataclasses.replace(whole, rpl=mark)
    assert whole.passed_on(hop_limit, mark, other.route) == dataclasses.replace(
        whole, hop_limit=hop_limit, rpl=mark, route=other.route
    )


def test_route_says_who_is_next_and_where_it_ends() -> None:
    route = SourceRoute(short(3, 5))
    assert route.next_relay == 3
    assert route.advanced().next_relay == 5
    assert route.advanced().advanced().next_relay is None
    with pytest.raises(LocalProtocolError):
        route.advanced().advanced().advanced()


@pytest.mark.parametrize(
    "make",
    [
        lambda: packet(bytes(PAYLOAD_SIZE_MAX + 1)),
        lambda: packet(kind=256),
        lambda: packet(hop_limit=-1),
        lambda: packet(source=0x10000),
        lambda: packet(strange=(StrangeOption(6), StrangeOption(5))),
        lambda: packet(strange=(StrangeOption(5, bytes(200)), StrangeOption(5, bytes(52)))),
        lambda: StrangeOption(1, b"rpl"),
        lambda: StrangeOption(16),
        lambda: StrangeOption(5, bytes(254)),
        lambda: RplMark(0x10000),
        lambda: SourceRoute(()),
        lambda: SourceRoute(short(*range(1, ROUTE_LENGTH_MAX + 2))),
        lambda: SourceRoute(short(1, 2, 1)),
        lambda: SourceRoute(short(1), 2),
        lambda: SourceRoute(short(0)),
        lambda: Flood(-1),
        lambda: Flood(1, ShortAddress(0x10000)),
        lambda: Attempt(256),
    ],
)
def test_values_without_a_place_are_refused_to_the_caller(make: object) -> None:
    assert callable(make)
    with pytest.raises(LocalProtocolError):
        make()


def test_text_says_what_it_is() -> None:
    assert str(packet(route=SourceRoute(short(1)))) == (
        "COAP [7 octets] 0102 -> 0000 via 1 relays, priority 4, hop limit 64"
    )
    assert str(packet(kind=99)).startswith("kind 99 [7 octets]")
