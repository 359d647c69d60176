"""Interval values as few octets: a common floor, and a width for every eight of them.

Spec    docs/protocol/model.md, "Packed values"; declared with construct in `layout`
Gives   exactly one octet string for a series of integers, and back
Raises  `ModelError` on anything that `pack` would not have written for that count
Limit   VALUE_COUNT_MAX values of at most REGISTER_MAX in magnitude

::

    floor       zigzag of the smallest value, LEB128
    widths      4 bits for each block of 8 values, high half first, zero-padded to an octet:
                0..14 = bits for each offset; 15 = more, see next
    wide        an octet for each width of 15, in order: the width, 15..54
    offsets     for each block, value - floor in `width` bits each, most significant bit first,
                zero-padded to an octet (only the last block can need it)

A series of nothing but zeros is the empty string. A day of 96 values has 12 blocks: 1 or 2
octets of floor, 6 of widths, and then `width` octets for each block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.errors import ModelError
from amistack.model.wire import REGISTER_MAX

BLOCK_SIZE: Final = 8
WIDE: Final = 15
WIDTH_MAX: Final = 54
VALUE_COUNT_MAX: Final = 2880
"""A day of 30-second intervals."""

_FLOOR_SIZE_MAX: Final = 8  # The zigzag of a floor has 54 bits, and an octet carries 7.

_SPLITS: Final = tuple(
    ((1 << width) - 1, *(width * index for index in range(1, BLOCK_SIZE)))
    for width in range(WIDTH_MAX + 1)
)
"""For each width: the mask of an offset, then the seven shifts that bring one down."""

_TOP_BITS: Final = tuple(
    sum(1 << width * index + width - 1 for index in range(BLOCK_SIZE)) if width else 0
    for width in range(WIDTH_MAX + 1)
)
"""For each width: the top bit of every offset. One of them is set, or the width is too large."""


def pack(values: Sequence[int]) -> bytes:
    """`values` packed. Raises ModelError beyond VALUE_COUNT_MAX or REGISTER_MAX."""
    if len(values) > VALUE_COUNT_MAX:
        raise ModelError("wrong size", f"{len(values)} values, at most {VALUE_COUNT_MAX}")
    if not any(values):
        return b""
    floor = min(values)
    if floor < -REGISTER_MAX or max(values) > REGISTER_MAX:
        raise ModelError("out of range", f"a value is beyond {REGISTER_MAX} in magnitude")

    packed = bytearray()
    rest = floor << 1 if floor >= 0 else (-floor << 1) - 1
    while rest > 0x7F:
        packed.append(rest & 0x7F | 0x80)
        rest >>= 7
    packed.append(rest)

    nibbles: list[int] = []
    wide = bytearray()
    offsets = bytearray()
    for start in range(0, len(values), BLOCK_SIZE):
        block = values[start : start + BLOCK_SIZE]
        width = (max(block) - floor).bit_length()
        if width < WIDE:
            nibbles.append(width)
        else:
            nibbles.append(WIDE)
            wide.append(width)
        bits = 0
        for value in block:
            bits = bits << width | value - floor
        used = len(block) * width
        offsets += (bits << -used % 8).to_bytes((used + 7) // 8, "big")
    if len(nibbles) % 2:
        nibbles.append(0)
    packed += bytes(high << 4 | low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))
    return bytes(packed + wide + offsets)


def unpack(data: bytes, count: int) -> list[int]:
    """The `count` values in `data`.

    Raises ModelError unless `data` is exactly what `pack` writes for them.
    """
    if not 0 <= count <= VALUE_COUNT_MAX:
        raise ModelError("wrong size", f"{count} values, expected 0 to {VALUE_COUNT_MAX}")
    if not data:
        return [0] * count
    if not count:
        raise ModelError("bad packing", f"{len(data)} octets for no values")

    floor, at = _take_floor(data)
    widths, at = _take_widths(data, at, count)

    values: list[int] = []
    for width in widths[: count // BLOCK_SIZE]:
        if not width:
            values += (floor,) * BLOCK_SIZE
            continue
        # Eight offsets of `width` bits are `width` octets: no block shares one with the next.
        bits = int.from_bytes(data[at : at + width], "big")
        at += width
        if not bits & _TOP_BITS[width]:
            raise ModelError("bad packing", f"{width} bits are more than a block needs")
        mask, s1, s2, s3, s4, s5, s6, s7 = _SPLITS[width]
        # Written out: a loop over the shifts takes half as long again.
        values += (
            floor + (bits >> s7),
            floor + (bits >> s6 & mask),
            floor + (bits >> s5 & mask),
            floor + (bits >> s4 & mask),
            floor + (bits >> s3 & mask),
            floor + (bits >> s2 & mask),
            floor + (bits >> s1 & mask),
            floor + (bits & mask),
        )

    last_count = count % BLOCK_SIZE
    if last_count:
        width = widths[-1]
        used = last_count * width
        end = at + (used + 7) // 8
        bits = int.from_bytes(data[at:end], "big")
        at = end
        if bits & (1 << -used % 8) - 1:
            raise ModelError("bad packing", "padding that is not zero")
        bits >>= -used % 8
        mask = (1 << width) - 1
        last = [bits >> shift * width & mask for shift in range(last_count - 1, -1, -1)]
        if width and max(last) <= mask >> 1:
            raise ModelError("bad packing", f"{width} bits are more than a block needs")
        values += [floor + offset for offset in last]

    if at != len(data):
        raise ModelError("bad packing", f"{len(data)} octets, {at} expected")
    if floor not in values:
        raise ModelError("bad packing", "a floor below every value")
    if not floor and not any(widths):
        raise ModelError("bad packing", "zeros are the empty string")
    if floor < -REGISTER_MAX or floor + (1 << max(widths)) - 1 > REGISTER_MAX < max(values):
        raise ModelError("out of range", f"a value is beyond {REGISTER_MAX} in magnitude")
    return values


_SUMS: Final = {
    f"{width:x}": (
        width,
        sum(((1 << width) - 1) << 2 * width * index for index in range(BLOCK_SIZE // 2)),
        (1 << 2 * width) - 1,
        _TOP_BITS[width],
        sum(1 << width * index for index in range(BLOCK_SIZE)),
    )
    for width in range(1, WIDE)
}
"""For each width, by its hexadecimal digit: the width; a mask of every second offset; what such
four are divided by, so that the rest is their sum, as four offsets of two bits and more are never
as much; their top bits; their lowest bits."""


def total_and_floor(data: bytes, count: int) -> tuple[int, int] | None:
    """The sum and the smallest of the `count` values in `data`, without making the values.

    None for what `unpack` refuses, and for what no household gives: a floor of more than two
    octets, a width of more than 14 bits, a count that is no multiple of 8.
    """
    if not 0 < count <= VALUE_COUNT_MAX or count % BLOCK_SIZE:
        return None
    if not data:
        return 0, 0
    zigzag = data[0]
    at = 1
    if zigzag > 0x7F:
        at = 2
        if len(data) < at or not 0 < data[1] < 0x80:
            return None
        zigzag = zigzag & 0x7F | data[1] << 7
    floor = (zigzag >> 1) ^ -(zigzag & 1)
    block_count = count // BLOCK_SIZE
    end = at + (block_count + 1) // 2
    widths = data[at:end].hex()
    if block_count % 2:
        if widths[-1:] != "0":
            return None
        widths = widths[:-1]
    total = 0
    has_floor = "0" in widths
    at = end
    for digit in widths:
        if digit == "0":
            continue
        if digit == "f":
            return None
        width, mask, divisor, tops, ones = _SUMS[digit]
        bits = int.from_bytes(data[at : at + width], "big")
        at += width
        if not bits & tops:
            return None
        if width == 1:
            total += bits.bit_count()
        else:
            total += (bits & mask) % divisor + (bits >> width & mask) % divisor
        if not has_floor:
            # An offset is 0 where taking 1 from it sets its top bit that was not set.
            has_floor = (bits - ones) & ~bits & tops != 0
    if at != len(data) or end > len(data) or not has_floor or (not floor and not total):
        return None
    return floor * count + total, floor


def _take_floor(data: bytes) -> tuple[int, int]:
    """The floor, and where the widths begin."""
    zigzag = shift = 0
    for at, octet in enumerate(data[:_FLOOR_SIZE_MAX]):
        zigzag |= (octet & 0x7F) << shift
        if octet < 0x80:
            if not octet and at:
                raise ModelError("bad packing", "a floor longer than it needs to be")
            return (zigzag >> 1) ^ -(zigzag & 1), at + 1
        shift += 7
    raise ModelError("bad packing", "a floor without an end")


def _take_widths(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """The width of every block, and where the offsets begin."""
    block_count = (count + BLOCK_SIZE - 1) // BLOCK_SIZE
    end = at + (block_count + 1) // 2
    if end > len(data):
        raise ModelError("bad packing", f"{len(data)} octets end among the widths")
    widths: list[int] = []
    for octet in data[at:end]:
        widths += (octet >> 4, octet & 0x0F)
    if block_count % 2 and widths.pop():
        raise ModelError("bad packing", "padding that is not zero")
    if WIDE not in widths:
        return widths, end

    for index, width in enumerate(widths):
        if width == WIDE:
            if end >= len(data):
                raise ModelError("bad packing", f"{len(data)} octets end among the widths")
            if not WIDE <= data[end] <= WIDTH_MAX:
                raise ModelError("bad packing", f"a wide width of {data[end]} bits")
            widths[index] = data[end]
            end += 1
    return widths, end
