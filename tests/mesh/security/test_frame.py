"""Frames' octets: known ones, round trips, the declared layout, and garbage.

The contract under test: `FrameHeader.decode` and `AckFrame.decode` return a value or raise
`MeshError`, whatever they are given; they invert `encode`, and agree with the layout.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError, MeshError
from mesh import layout
from mesh.security import ACK_SIZE, BROADCAST_OVERHEAD, UNICAST_OVERHEAD
from mesh.security.frame import FRAME_SIZE_MAX, AckFrame, FrameHeader, FrameType, hint_of
from tests.mesh.support import A, B, eui64s

SEALED = bytes(8)

# Written by hand from the tables in docs/protocol/mesh.md.
VECTORS = [
    ("20 01 00000005 70b3d5fffe000001", FrameHeader(FrameType.DATA, 1, 5, A)),
    (
        "23 7f ffffffff 70b3d5fffe000001 0002",
        FrameHeader(FrameType.DATA, 127, 2**32 - 1, A, 2, wants_ack=True),
    ),
    ("29 00 00000000 70b3d5fffe000002 0001", FrameHeader(FrameType.CHALLENGE, 0, 0, B, 1)),
    ("2d 01 00000007 70b3d5fffe000002 0001", FrameHeader(FrameType.ANSWER, 1, 7, B, 1)),
]


@pytest.mark.parametrize(("octets", "header"), VECTORS)
def test_octets_are_as_the_protocol_says(octets: str, header: FrameHeader) -> None:
    assert header.encode() == bytes.fromhex(octets)
    assert header.size == len(header.encode())
    assert FrameHeader.decode(bytes.fromhex(octets) + SEALED) == header
    assert layout.parse_frame_header(bytes.fromhex(octets)) == header


def test_what_security_costs_is_small() -> None:
    assert (BROADCAST_OVERHEAD, UNICAST_OVERHEAD, ACK_SIZE) == (22, 24, 9)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("", "wrong size"),
        ("20 01 00000005 70b3d5fffe000001" + "00" * 7, "wrong size"),
        ("21 01 00000005 70b3d5fffe000001 0002" + "00" * 7, "wrong size"),
        ("20" + "00" * FRAME_SIZE_MAX, "wrong size"),
        ("40 01 00000005 70b3d5fffe000001" + "00" * 8, "unknown version"),
        ("00", "unknown version"),
        ("30 01 00000005 70b3d5fffe000001" + "00" * 8, "unknown frame type"),
        ("25 01 00000005 70b3d5fffe000001 0002" + "00" * 8, "frame malformed"),
        ("22 01 00000005 70b3d5fffe000001" + "00" * 8, "frame malformed"),
        ("2b 01 00000005 70b3d5fffe000001 0002" + "00" * 8, "frame malformed"),
        ("2f 01 00000005 70b3d5fffe000001 0002" + "00" * 8, "frame malformed"),
        ("28 01 00000005 70b3d5fffe000001" + "00" * 8, "frame malformed"),
        ("2c 01 00000005 70b3d5fffe000001" + "00" * 8, "frame malformed"),
        ("20 80 00000005 70b3d5fffe000001" + "00" * 8, "reserved bits set"),
    ],
)
def test_what_is_no_frame_is_refused_by_its_reason(octets: str, reason: str) -> None:
    with pytest.raises(MeshError) as caught:
        FrameHeader.decode(bytes.fromhex(octets))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("", "wrong size"),
        ("25 0001 0005 aabbcc", "wrong size"),
        ("24 0001 0005 aabbccdd", "frame malformed"),
        ("27 0001 0005 aabbccdd", "frame malformed"),
        ("45 0001 0005 aabbccdd", "unknown version"),
    ],
)
def test_what_is_no_acknowledgement_is_refused_by_its_reason(octets: str, reason: str) -> None:
    with pytest.raises(MeshError) as caught:
        AckFrame.decode(bytes.fromhex(octets))
    assert caught.value.reason == reason


@st.composite
def headers(draw: st.DrawFn) -> FrameHeader:
    kind = draw(st.sampled_from([FrameType.DATA, FrameType.CHALLENGE, FrameType.ANSWER]))
    is_to_one = kind is not FrameType.DATA or draw(st.booleans())
    return FrameHeader(
        kind,
        draw(st.integers(0, 127)),
        draw(st.integers(0, 2**32 - 1)),
        draw(eui64s),
        draw(st.integers(0, 0xFFFF)) if is_to_one else None,
        is_to_one and kind is FrameType.DATA and draw(st.booleans()),
    )


@settings(deadline=None)
@given(headers())
def test_codec_and_declared_layout_agree(header: FrameHeader) -> None:
    assert layout.build_frame_header(header) == header.encode()
    assert layout.parse_frame_header(header.encode()) == header
    assert FrameHeader.decode(header.encode() + SEALED) == header


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_arbitrary_octets_are_taken_by_both_or_by_none(octets: bytes) -> None:
    for start in (b"", b"\x20", b"\x21", b"\x2b\x01"):
        try:
            header: FrameHeader | None = FrameHeader.decode(start + octets)
        except MeshError:
            header = None
        if header is not None:
            assert layout.parse_frame_header(start + octets) == header
            assert (start + octets).startswith(header.encode())


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(min_size=4, max_size=4))
def test_acknowledgement_and_declared_layout_agree(hint: int, low: int, tag: bytes) -> None:
    frame = AckFrame(hint, low, tag)
    assert AckFrame.decode(frame.encode()) == frame
    found = layout.ACK_FRAME.parse(frame.encode())
    assert (found.hint, found.counter_low, found.tag) == (hint, low, tag)
    assert len(frame.encode()) == ACK_SIZE


def test_hint_is_the_end_of_the_eui64() -> None:
    assert hint_of(B) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: FrameHeader(FrameType.DATA, 128, 0, A),
        lambda: FrameHeader(FrameType.DATA, 0, 2**32, A),
        lambda: FrameHeader(FrameType.DATA, 0, 0, A[:7]),  # type: ignore[arg-type]  # bytes
        lambda: FrameHeader(FrameType.DATA, 0, 0, A, 0x10000),
        lambda: FrameHeader(FrameType.DATA, 0, 0, A, wants_ack=True),
        lambda: FrameHeader(FrameType.CHALLENGE, 0, 0, A),
        lambda: FrameHeader(FrameType.CHALLENGE, 0, 0, A, 1, wants_ack=True),
        lambda: FrameHeader(FrameType.ACK, 0, 0, A, 1),
        lambda: AckFrame(0x10000, 0, bytes(4)),
        lambda: AckFrame(0, 0, bytes(3)),
    ],
)
def test_values_without_a_place_are_refused_to_the_caller(make: object) -> None:
    assert callable(make)
    with pytest.raises(LocalProtocolError):
        make()
