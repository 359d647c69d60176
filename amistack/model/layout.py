"""The layout of packed interval values, declared once: the normative form of `packing`.

Spec    docs/protocol/model.md, "Packed values"
Gives   `packed_layout(count)`: a construct that builds and parses the octets of `count` values,
        and the two plain functions between its parts and the values
Never   runs in service: `packing` is the fast form, and a property test proves the two equal
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import construct as cs

from amistack.model.packing import BLOCK_SIZE, WIDE

_OCTET: Final = 8


def block_sizes(count: int) -> list[int]:
    """How many values each block has: all have BLOCK_SIZE, and the last what is left."""
    return [min(BLOCK_SIZE, count - start) for start in range(0, count, BLOCK_SIZE)]


def packed_layout(count: int) -> cs.Construct:
    """The layout of `count` values that are not all zero."""
    sizes = block_sizes(count)
    return cs.Struct(
        "floor" / cs.ZigZag,
        "widths" / cs.Bitwise(cs.Aligned(_OCTET, cs.Array(len(sizes), cs.BitsInteger(4)), b"\x00")),
        "wide" / cs.Array(lambda this: list(this.widths).count(WIDE), cs.Int8ub),
        "offsets" / cs.Sequence(*(_block_layout(index, size) for index, size in enumerate(sizes))),
        cs.Terminated,
    )


def _block_layout(index: int, size: int) -> cs.Construct:
    def width(this: cs.Container) -> int:
        # Inside Bitwise, Aligned, Array and Sequence: the struct with the widths is above.
        while "widths" not in this:
            this = this._
        return true_widths(this.widths, this.wide)[index]

    offsets = cs.Array(size, cs.IfThenElse(lambda this: width(this) > 0, _bits(width), _NOTHING))
    return cs.Bitwise(cs.Aligned(_OCTET, offsets, b"\x00"))


def _bits(width: object) -> cs.Construct:
    return cs.BitsInteger(width)


_NOTHING: Final = cs.Computed(0)
"""An offset of no bits: the value is the floor."""


def true_widths(widths: Sequence[int], wide: Sequence[int]) -> list[int]:
    """`widths` with each 15 replaced by its octet from `wide`."""
    rest = iter(wide)
    return [next(rest) if width == WIDE else width for width in widths]


def parts_of(values: Sequence[int]) -> Mapping[str, object]:
    """What `packed_layout` builds from: the parts of `values`, in the words of the layout."""
    floor = min(values)
    blocks = [values[at : at + BLOCK_SIZE] for at in range(0, len(values), BLOCK_SIZE)]
    needed = [max(value - floor for value in block).bit_length() for block in blocks]
    return {
        "floor": floor,
        "widths": [min(width, WIDE) for width in needed],
        "wide": [width for width in needed if width >= WIDE],
        "offsets": [[value - floor for value in block] for block in blocks],
    }


def values_of(parts: Mapping[str, object]) -> list[int]:
    """The values whose parts `packed_layout` parsed."""
    floor, offsets = parts["floor"], parts["offsets"]
    assert isinstance(floor, int)
    assert isinstance(offsets, Sequence)
    return [floor + offset for block in offsets for offset in block]
