"""Byte stuffing: published examples, an independent implementation, round trips, and garbage.

The contract under test: what is encoded holds no zero, is at most one octet in 254 longer, and
decodes to what it was; whatever else is decoded gives octets or `FrameError`.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import FrameError
from amistack.framing import cobs
from tests.framing.support import payloads

RISING = bytes(range(1, 255))

# The examples in Wikipedia's article "Consistent Overhead Byte Stuffing" (CC BY-SA 4.0), rows 1 to
# 11, without the delimiter at the end of each.
PUBLISHED = [
    (b"\x00", b"\x01\x01"),
    (b"\x00\x00", b"\x01\x01\x01"),
    (b"\x00\x11\x00", b"\x01\x02\x11\x01"),
    (b"\x11\x22\x00\x33", b"\x03\x11\x22\x02\x33"),
    (b"\x11\x22\x33\x44", b"\x05\x11\x22\x33\x44"),
    (b"\x11\x00\x00\x00", b"\x02\x11\x01\x01\x01"),
    (RISING, b"\xff" + RISING),
    (b"\x00" + RISING, b"\x01\xff" + RISING),
    (RISING + b"\xff", b"\xff" + RISING + b"\x02\xff"),
    (RISING[1:] + b"\xff\x00", b"\xff" + RISING[1:] + b"\xff\x01\x01"),
    (RISING[2:] + b"\xff\x00\x01", b"\xfe" + RISING[2:] + b"\xff\x02\x01"),
]


@pytest.mark.parametrize(("octets", "encoded"), PUBLISHED)
def test_published_examples_come_out_as_published(octets: bytes, encoded: bytes) -> None:
    assert cobs.encode(octets) == encoded
    assert cobs.decode(encoded) == octets


@given(payloads)
def test_decode_inverts_encode_and_no_zero_is_left(octets: bytes) -> None:
    encoded = cobs.encode(octets)
    assert 0 not in encoded
    assert len(octets) < len(encoded) <= cobs.encoded_size_max(len(octets))
    assert cobs.decode(encoded) == octets


def test_bound_of_the_size_is_reached() -> None:
    for size in (0, 1, 253, 254, 255, 508, 509, 2319):
        longest = max(len(cobs.encode(octets)) for octets in (bytes(size), b"x" * size))
        assert longest == cobs.encoded_size_max(size)


def test_an_independent_implementation_agrees() -> None:
    """The `cobs` package (MIT), on sizes around the blocks' own and on plain noise."""
    other = pytest.importorskip("cobs.cobs")
    dice = random.Random(3)
    for _ in range(1500):
        size = dice.choice((0, 1, 2, 252, 253, 254, 255, 256, 508, 509, dice.randrange(700)))
        octets = bytes(dice.choice((0, dice.randrange(256), 7, 7, 7, 7)) for _ in range(size))
        if dice.random() < 0.4:
            octets = octets.replace(b"\0", b"\1")
        assert cobs.encode(octets) == other.encode(octets)
        noise = octets.replace(b"\0", b"\2")
        try:
            expected = other.decode(noise) if noise else None
        except other.DecodeError:
            expected = None
        assert decoded(noise) == expected


def decoded(octets: bytes) -> bytes | None:
    try:
        return cobs.decode(octets)
    except FrameError:
        return None


@given(st.binary(max_size=600))
def test_arbitrary_octets_give_octets_or_frame_error(octets: bytes) -> None:
    found = decoded(octets)
    if found is not None:
        assert len(found) < len(octets)


@pytest.mark.parametrize("octets", [b"", b"\x02", b"\x03a", b"\x02\x00", b"\x00", b"\x01\x00"])
def test_what_is_cut_off_or_has_a_zero_is_refused(octets: bytes) -> None:
    assert decoded(octets) is None


def test_empty_block_behind_a_full_one_is_taken() -> None:
    """As encoders write it that put a zero behind everything, like the paper's own."""
    assert cobs.decode(b"\xff" + RISING + b"\x01") == RISING
