"""Fragments' octets: known ones, round trips, the declared layout, and garbage.

The contract under test: `decode` returns a value or raises `MeshError`, whatever it is given; it
inverts `encode`; both agree with the layout, which is that of RFC 8931 section 5.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError, LocalProtocolError, MeshError
from mesh import layout
from mesh.fragments import Fragment, FragmentAck, FragmentSettings, is_control, is_fragment
from mesh.fragments.codec import BITMAP_FULL, bit_of
from mesh.packet import PACKET_SIZE_MAX, Packet
from tests.mesh.support import packets

# By hand from the figures of RFC 8931 section 5.
VECTORS = [
    ("e8 07 0004 0500 aabbccdd", Fragment(7, 0, 1280, b"\xaa\xbb\xcc\xdd")),
    (
        "e9 ff fc02 04fe aabb",
        Fragment(255, 31, 1278, b"\xaa\xbb", wants_ack=True, has_congestion=True),
    ),
    ("e8 00 8401 0040 aa", Fragment(0, 1, 64, b"\xaa", wants_ack=True)),
    ("e8 05 0000 0000", Fragment(5, 0, 0)),
]
# The bitmap of RFC 8931, figure 3: all of 0 to 20 but 1, 2 and 16.
FIGURE_3 = "10011111111111110111100000000000"
ACKS = [
    ("ea 07 ffffffff", FragmentAck(7, BITMAP_FULL)),
    ("eb 07 00000000", FragmentAck(7, 0, has_congestion=True)),
    ("ea 00 9fff7800", FragmentAck(0, int(FIGURE_3, 2))),
]


@pytest.mark.parametrize(("octets", "value"), VECTORS)
def test_fragments_are_those_of_the_rfc(octets: str, value: Fragment) -> None:
    assert value.encode() == bytes.fromhex(octets)
    assert Fragment.decode(bytes.fromhex(octets)) == value


@pytest.mark.parametrize(("octets", "value"), ACKS)
def test_acknowledgements_are_those_of_the_rfc(octets: str, value: FragmentAck) -> None:
    assert value.encode() == bytes.fromhex(octets)
    assert FragmentAck.decode(bytes.fromhex(octets)) == value


def test_bit_of_a_sequence_is_where_the_figure_has_it() -> None:
    there = [sequence for sequence in range(32) if int(FIGURE_3, 2) & bit_of(sequence)]
    assert there == [n for n in range(21) if n not in {1, 2, 16}]


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("", "wrong size"),
        ("e8 07 0004 05", "wrong size"),
        ("e8 07 0004 0500 aabbcc", "wrong size"),
        ("e8 07 0004 0500 aabbccddee", "wrong size"),
        ("ea 07 0004 0500 aabbccdd", "not a fragment"),
        ("20 07 0004 0500 aabbccdd", "not a fragment"),
        ("e8 07 0400 0010", "fragment malformed"),
        ("e8 07 0400 0000", "fragment malformed"),
        ("e8 07 0001 0000 aa", "fragment malformed"),
        ("e8 07 0002 0001 aabb", "fragment malformed"),
        ("e8 07 0402 ffff aabb", "fragment malformed"),
    ],
)
def test_what_is_no_fragment_is_refused_by_its_reason(octets: str, reason: str) -> None:
    with pytest.raises(MeshError) as caught:
        Fragment.decode(bytes.fromhex(octets))
    assert caught.value.reason == reason


@pytest.mark.parametrize("octets", ["", "ea07ffffff", "ea07ffffffff00", "e807ffffffff"])
def test_what_is_no_acknowledgement_is_refused(octets: str) -> None:
    with pytest.raises(MeshError):
        FragmentAck.decode(bytes.fromhex(octets))


@st.composite
def fragments(draw: st.DrawFn) -> Fragment:
    octets = draw(st.binary(min_size=1, max_size=511))
    sequence = draw(st.integers(0, 31))
    low = len(octets) if sequence == 0 else 1
    offset = draw(st.integers(low, 0xFFFF - len(octets)))
    return Fragment(
        draw(st.integers(0, 255)),
        sequence,
        offset,
        octets,
        draw(st.booleans()),
        draw(st.booleans()),
    )


@settings(deadline=None)
@given(fragments())
def test_fragment_and_declared_layout_agree(fragment: Fragment) -> None:
    octets = fragment.encode()
    assert Fragment.decode(octets) == fragment
    assert is_fragment(octets)
    found = layout.FRAGMENT.parse(octets)
    assert (
        Fragment(
            found.tag,
            found.place.sequence,
            found.offset,
            found.octets,
            found.place.wants_ack,
            found.head.has_congestion,
        )
        == fragment
    )


@settings(deadline=None)
@given(st.integers(0, 255), st.integers(0, BITMAP_FULL), st.booleans())
def test_acknowledgement_and_declared_layout_agree(tag: int, bitmap: int, ecn: bool) -> None:
    ack = FragmentAck(tag, bitmap, ecn)
    assert FragmentAck.decode(ack.encode()) == ack
    found = layout.FRAGMENT_ACK.parse(ack.encode())
    assert (found.tag, found.bitmap, found.head.has_congestion) == (tag, bitmap, ecn)
    assert is_fragment(ack.encode())


@settings(deadline=None)
@given(st.binary(max_size=30))
def test_arbitrary_octets_never_raise_anything_but_mesh_error(octets: bytes) -> None:
    for start in (b"", b"\xe8", b"\xe9\x00\x00", b"\xea"):
        for kind in (Fragment, FragmentAck):
            try:
                value = kind.decode(start + octets)
            except MeshError:
                continue
            assert value.encode() == start + octets


@settings(deadline=None, max_examples=30)
@given(packets)
def test_no_packet_is_taken_for_a_fragment(value: Packet) -> None:
    assert not is_fragment(value.encode())
    assert not is_fragment(b"")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fragment(256, 0, 1, b"x"),
        lambda: Fragment(0, 32, 1, b"x"),
        lambda: Fragment(0, 1, 0x10000, b"x"),
        lambda: Fragment(0, 1, 5),
        lambda: Fragment(0, 1, 5, bytes(1024)),
        lambda: Fragment(0, 0, 3, bytes(4)),
        lambda: Fragment(0, 1, 0),
        lambda: FragmentAck(256, 0),
        lambda: FragmentAck(0, 1 << 32),
    ],
)
def test_values_without_a_place_are_refused_to_the_caller(make: object) -> None:
    assert callable(make)
    with pytest.raises(LocalProtocolError):
        make()


@pytest.mark.parametrize("size", [127, 250, 512, 1000, 2047])
def test_every_radio_carries_the_longest_packet(size: int) -> None:
    settings = FragmentSettings.for_radio(size, overhead=30)
    assert settings.fragment_size * 32 >= PACKET_SIZE_MAX
    assert settings.packet_size_max == size - 30 - 24
    assert settings.fragment_size + 6 <= settings.packet_size_max


@pytest.mark.parametrize(("size", "overhead"), [(126, 0), (2048, 0), (127, 60)])
def test_radio_that_is_too_small_or_large_is_the_operators_to_mend(
    size: int, overhead: int
) -> None:
    with pytest.raises(ConfigError):
        FragmentSettings.for_radio(size, overhead=overhead)


def test_settings_that_contradict_each_other_are_refused() -> None:
    for wrong in (
        {"window": 0},
        {"window": 33},
        {"rto": 0.0},
        {"rto": 30.0},
        {"rto_max": 60.0},
    ):
        with pytest.raises(ConfigError):
            FragmentSettings(100, 90, **wrong)


def test_what_ends_or_steers_a_packet_is_control() -> None:
    assert [is_control(bytes.fromhex(octets)) for octets, _ in VECTORS] == [False] * 3 + [True]
    assert all(is_control(bytes.fromhex(octets)) for octets, _ in ACKS)
    assert not is_control(b"\xe8\x00")
