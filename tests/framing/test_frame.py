"""Frames: known octets, round trips, the declared layout, and garbage.

The contract under test: `Frame.decode` returns a frame or raises `FrameError`, whatever it is
given; it inverts `Frame.encode` exactly, strange options included; both agree with the layout.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amistack.errors import FrameError, LocalProtocolError
from amistack.framing import Frame, FrameOption, Kind, Priority, destination, layout
from amistack.framing.frame import FRAME_SIZE_MAX, FRAME_SIZE_MIN, PAYLOAD_SIZE_MAX
from amistack.identifiers import Eui64
from tests.framing.support import HERE, THERE, frame, frames

# Written by hand from the table in docs/protocol/framing.md.
VECTORS = [
    ("01 02 00 00 70b3d5fffe000001", frame(b"", kind=Kind.KEEP_ALIVE, priority=Priority.CONTROL)),
    ("01 10 80 00 70b3d5fffe000001 40010001", frame(bytes.fromhex("40010001"))),
    (
        "01 11 e0 0a 70b3d5fffe000001 81 08 70b3d5fffe000002 aabb",
        frame(
            b"\xaa\xbb",
            kind=Kind.MESH,
            priority=Priority.JOINING,
            options=(destination(THERE),),
        ),
    ),
    (
        "01 c8 20 05 70b3d5fffe000001 7f 00 05 01 ff",
        frame(
            b"",
            kind=200,
            priority=Priority.ALARM,
            options=(FrameOption(127), FrameOption(5, b"\xff")),
        ),
    ),
]
IDS = ["keep-alive", "coap", "mesh with a destination", "strange kind and options"]


@pytest.mark.parametrize(("octets", "value"), VECTORS, ids=IDS)
def test_octets_are_as_the_protocol_says(octets: str, value: Frame) -> None:
    assert value.encode() == bytes.fromhex(octets)
    assert Frame.decode(bytes.fromhex(octets)) == value


REFUSALS = [
    ("", "wrong size"),
    ("01 10 80 00 70b3d5fffe0000", "wrong size"),
    ("00 10 80 00 70b3d5fffe000001", "unknown version"),
    ("02", "unknown version"),
    ("01 10 90 00 70b3d5fffe000001", "reserved bits set"),
    ("01 10 81 00 70b3d5fffe000001", "reserved bits set"),
    ("01 10 80 01 70b3d5fffe000001", "options cut off"),
    ("01 10 80 01 70b3d5fffe000001 05", "options cut off"),
    ("01 10 80 03 70b3d5fffe000001 05 02 aa bb", "options cut off"),
    ("01 10 80 02 70b3d5fffe000001 00 00", "option number zero"),
    ("01 10 80 02 70b3d5fffe000001 80 00", "option number zero"),
    ("01 10 80 02 70b3d5fffe000001 82 00", "unknown critical option"),
    ("01 10 80 02 70b3d5fffe000001 81 00", "option malformed"),
    ("01 10 80 0a 70b3d5fffe000001 01 08 70b3d5fffe000002", "option malformed"),
    (
        "01 10 80 14 70b3d5fffe000001 81 08 70b3d5fffe000002 81 08 70b3d5fffe000002",
        "option repeated",
    ),
    ("01 10 80 00 70b3d5fffe000001" + "00" * (PAYLOAD_SIZE_MAX + 1), "payload too long"),
    ("01" + "00" * FRAME_SIZE_MAX, "wrong size"),
]


@pytest.mark.parametrize(("octets", "reason"), REFUSALS)
def test_what_is_no_frame_is_refused_by_its_reason(octets: str, reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        Frame.decode(bytes.fromhex(octets))
    assert caught.value.reason == reason
    with pytest.raises(FrameError):
        layout.parse(bytes.fromhex(octets))


@given(frames)
def test_decode_inverts_encode(value: Frame) -> None:
    octets = value.encode()
    assert Frame.decode(octets) == value
    assert Frame.decode(octets).encode() == octets
    assert FRAME_SIZE_MIN <= len(octets) <= FRAME_SIZE_MAX


@given(frames)
def test_codec_and_declared_layout_write_the_same_octets(value: Frame) -> None:
    assert layout.build(value) == value.encode()
    assert layout.parse(value.encode()) == value
    on_tcp = layout.ON_TCP.parse(len(value.encode()).to_bytes(2) + value.encode())
    assert (on_tcp.kind, on_tcp.payload) == (value.kind, value.payload)


def outcome(octets: bytes, read: object) -> Frame | None:
    assert callable(read)
    try:
        found = read(octets)
    except FrameError:
        return None
    assert isinstance(found, Frame)
    return found


@given(frames.map(Frame.encode), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255))))
@example(b"", [])
def test_codec_and_declared_layout_take_and_refuse_the_same(
    octets: bytes, changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(octets)
    for place, value in changes:
        changed[place : place + 1] = bytes((value,))
    assert outcome(bytes(changed), Frame.decode) == outcome(bytes(changed), layout.parse)


@given(st.binary(max_size=60).map(lambda octets: b"\x01" + octets))
def test_arbitrary_octets_never_raise_anything_but_frame_error(octets: bytes) -> None:
    found = outcome(octets, Frame.decode)
    if found is not None:
        assert found.encode() == octets


def test_seeded_damage_never_raises_anything_but_frame_error() -> None:
    dice = random.Random(11)
    start = VECTORS[2][0]
    taken = 0
    for _ in range(5000):
        octets = bytearray(bytes.fromhex(start))
        for _ in range(dice.randrange(1, 4)):
            octets[dice.randrange(len(octets))] = dice.randrange(256)
        found = outcome(bytes(octets[: dice.randrange(10, len(octets) + 1)]), Frame.decode)
        taken += found is not None
    assert 100 < taken < 4900


def test_whoever_passes_a_frame_on_changes_no_option_that_is_strange_to_him() -> None:
    octets = bytes.fromhex("01 10 80 09 70b3d5fffe000001 22 03 010203 21 00 22 00 c0ffee")
    assert Frame.decode(octets).encode() == octets


def test_destination_is_read_back_and_is_none_without_the_option() -> None:
    assert frame(options=(FrameOption(9), destination(THERE))).destination == THERE
    assert frame(options=(FrameOption(9),)).destination is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: frame(bytes(PAYLOAD_SIZE_MAX + 1)),
        lambda: frame(kind=256),
        lambda: frame(kind=-1),
        lambda: frame(source=Eui64(bytes(7))),
        lambda: frame(options=(FrameOption(2, bytes(250)), FrameOption(3, bytes(2)))),
        lambda: frame(options=(FrameOption(2, is_critical=True),)),
        lambda: frame(options=(FrameOption(1, HERE),)),
        lambda: FrameOption(0),
        lambda: FrameOption(128),
        lambda: FrameOption(2, bytes(254)),
    ],
)
def test_value_without_a_place_in_the_layout_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(LocalProtocolError):
        make()


def test_largest_frame_is_as_large_as_its_bound() -> None:
    value = frame(bytes(PAYLOAD_SIZE_MAX), options=(FrameOption(2, bytes(253)),))
    assert len(value.encode()) == FRAME_SIZE_MAX
    assert Frame.decode(value.encode()) == value


def test_frame_says_what_it_is_in_one_line() -> None:
    assert str(frame(b"ab", options=(FrameOption(9),))) == (
        "COAP [2 octets] from 70b3d5fffe000001, priority 4, 1 options"
    )
    assert str(frame(b"", kind=99)).startswith("kind 99 [0 octets]")


@given(frames)
def test_description_and_payload_together_are_the_whole_frame(value: Frame) -> None:
    said, _, octets = value.describe().rpartition("; ")
    assert said == str(value)
    assert bytes.fromhex(octets) + value.payload == value.encode()
