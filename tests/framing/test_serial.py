"""Frames on a serial line: found again after noise, and every octet accounted for.

The contract under test: each octet is in a frame, a border, an account, or pending; noise costs
the frames that it touches and no others; a flipped bit is always noticed; what is kept is bounded.
"""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.framing import SERIAL, Frame, SerialDeframer, Skipped, cobs
from amistack.framing.frame import PAYLOAD_SIZE_MAX, FrameOption
from amistack.framing.serial import ENCODED_SIZE_MAX, WIRE_SIZE_MAX, wrap
from tests.framing.support import check_sums, cut, fed, frame, frames, joined


def bitwise_crc32(octets: bytes) -> int:
    """CRC-32 as IEEE 802.3 has it, bit by bit, reflected: no library."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_crc_is_the_one_with_the_published_check_value() -> None:
    assert bitwise_crc32(b"123456789") == zlib.crc32(b"123456789") == 0xCBF43926


def test_octets_are_as_the_protocol_says() -> None:
    octets = frame(b"\0reading").encode()
    crc = bitwise_crc32(octets).to_bytes(4)
    assert wrap(frame(b"\0reading")) == b"\0" + cobs.encode(octets + crc) + b"\0"


@given(st.lists(frames, max_size=6), st.data())
def test_frames_come_out_as_they_went_in_however_the_line_is_cut(
    sent: list[Frame], data: st.DataObject
) -> None:
    stream = b"".join(map(wrap, sent))
    deframer = SerialDeframer()
    items = fed(deframer, data.draw(cut(stream)))
    assert items == sent
    assert deframer.octets_idle == 2 * len(sent)
    check_sums(deframer, items, SERIAL)


mixtures = st.lists(
    st.one_of(
        frames.map(wrap),
        st.binary(max_size=30),
        st.just(b"n" * (ENCODED_SIZE_MAX + 1)),
        st.just(b"n" * 1000),
    ),
    max_size=7,
).map(b"".join)


@given(mixtures, st.data())
def test_every_octet_is_accounted_for_and_cutting_changes_nothing(
    stream: bytes, data: st.DataObject
) -> None:
    at_once, in_pieces = SerialDeframer(), SerialDeframer()
    whole = fed(at_once, [stream])
    items = fed(in_pieces, data.draw(cut(stream)))
    assert items == whole
    check_sums(in_pieces, items, SERIAL)
    assert in_pieces.octets_pending == at_once.octets_pending <= ENCODED_SIZE_MAX
    skipped = b"".join(item.octets for item in items if isinstance(item, Skipped))
    assert 0 not in skipped
    assert in_pieces.octets_idle == stream.count(b"\0")
    assert in_pieces.error is None


noises = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda octets: octets.replace(b"\0", b"\1")),
    st.just(b"\xff" * 3000),
)


@given(st.lists(st.tuples(noises, frames), max_size=5), noises, st.data())
def test_noise_between_frames_costs_none_of_them(
    pairs: list[tuple[bytes, Frame]], last: bytes, data: st.DataObject
) -> None:
    stream = b"".join(noise + wrap(sent) for noise, sent in pairs) + last
    items = fed(SerialDeframer(), data.draw(cut(stream)))
    assert [item for item in items if isinstance(item, Frame)] == [sent for _, sent in pairs]


@given(st.binary(min_size=1, max_size=60), st.integers(0, 200), st.integers(0, 60))
def test_noise_inside_costs_the_frames_that_it_touches_and_no_others(
    noise: bytes, place: int, cut_away: int
) -> None:
    sent = [frame(bytes([n]) * 20) for n in range(5)]
    wrapped = [wrap(value) for value in sent]
    stream = b"".join(wrapped)
    place = min(place, len(stream))
    damaged = stream[:place] + noise + stream[place + cut_away :]
    items = fed(SerialDeframer(), [damaged, b"\0"])
    start = 0
    untouched = []
    for value, octets in zip(sent, wrapped, strict=True):
        end = start + len(octets)
        # Its own borders are part of a frame here; between two zeros of two frames it is safe.
        if end <= place or start >= place + cut_away:
            untouched.append(value)
        start = end
    received = [item for item in items if isinstance(item, Frame)]
    assert [value for value in received if value in untouched] == untouched
    assert all(value in sent for value in received)


def test_one_flipped_bit_is_always_noticed() -> None:
    """Every bit of a frame between two others: those come through, the flipped one is accounted."""
    before, after = frame(b"before"), frame(b"after")
    octets = wrap(frame(b"\0\0 the frame between \xff\0", options=(FrameOption(7, b"\0x"),)))
    for bit in range(8 * len(octets)):
        flipped = bytearray(octets)
        flipped[bit // 8] ^= 1 << bit % 8
        deframer = SerialDeframer()
        items = deframer.receive_data(wrap(before) + bytes(flipped) + wrap(after))
        assert [item for item in items if isinstance(item, Frame)] == [before, after], bit
        accounts = [item for item in items if isinstance(item, Skipped)]
        assert accounts, bit
        check_sums(deframer, items, SERIAL)


def test_frame_that_is_wrong_inside_is_skipped_by_its_own_reason() -> None:
    for octets, reason in [
        (b"\x02" + frame().encode()[1:], "unknown version"),
        (frame().encode()[:8], "wrong size"),
    ]:
        encoded = cobs.encode(octets + zlib.crc32(octets).to_bytes(4))
        assert fed(SerialDeframer(), [b"\0" + encoded + b"\0"]) == [Skipped(encoded, reason)]
    assert fed(SerialDeframer(), [b"\x04abc\0"]) == [Skipped(b"\x04abc", "wrong size")]
    assert fed(SerialDeframer(), [b"\x09abc\0"]) == [Skipped(b"\x09abc", "not cobs")]
    encoded = cobs.encode(frame().encode() + b"1234")
    assert fed(SerialDeframer(), [encoded + b"\0"]) == [Skipped(encoded, "wrong crc")]


def test_line_without_a_border_is_kept_to_its_bound_and_followed_again() -> None:
    deframer = SerialDeframer()
    items = []
    for _ in range(40):
        items += deframer.receive_data(b"\x55" * 500)
        assert deframer.octets_pending <= ENCODED_SIZE_MAX
    items += deframer.receive_data(b"\0" + wrap(frame()))
    assert joined(items) == [Skipped(b"\x55" * 20_000, "no border"), frame()]
    assert max(len(item.octets) for item in items if isinstance(item, Skipped)) <= WIRE_SIZE_MAX


@pytest.mark.parametrize("payload", [bytes(PAYLOAD_SIZE_MAX), b"x" * PAYLOAD_SIZE_MAX])
def test_largest_frame_fits_its_bound(payload: bytes) -> None:
    largest = frame(payload, options=(FrameOption(2, b"y" * 253),))
    assert len(wrap(largest)) <= WIRE_SIZE_MAX
    assert fed(SerialDeframer(), [wrap(largest)]) == [largest]


def test_five_thousand_seeded_lines_hold_the_bound_and_the_sums() -> None:
    dice = random.Random(23)
    found = 0
    for _ in range(5000):
        stream = bytearray(b"".join(wrap(frame(dice.randbytes(dice.randrange(30)))) for _ in "123"))
        for _ in range(dice.choice((0, 1, 1, 3))):
            place = dice.randrange(len(stream))
            stream[place : place + dice.randrange(3)] = dice.randbytes(dice.randrange(4))
        deframer = SerialDeframer()
        items = []
        while stream:
            size = dice.randrange(1, 80)
            items += deframer.receive_data(bytes(stream[:size]))
            del stream[:size]
        check_sums(deframer, items, SERIAL)
        found += sum(isinstance(item, Frame) for item in items)
    assert found > 7000
