"""The octets of fragments and their acknowledgements: those of RFC 8931, in our frames.

Spec    RFC 8931 section 5; docs/protocol/mesh.md, "Fragments"; `mesh.layout` declares the same
Gives   `Fragment` and `FragmentAck`, each with `encode` and `decode`, exact inverses
Raises  MeshError on octets, LocalProtocolError on a value, that has no place in the layout
Limit   FRAGMENT_SIZE_MAX octets of a packet in one fragment, SEQUENCE_COUNT fragments of one packet
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from amistack.errors import LocalProtocolError, MeshError

DISPATCH: Final = 0b1110100 << 1  # RFRAG; the low bit is E
ACK_DISPATCH: Final = 0b1110101 << 1  # RFRAG-ACK; the low bit is E
DISPATCH_MASK: Final = 0xFE
CONGESTION_BIT: Final = 0x01

HEADER: Final = struct.Struct("!BBHH")  # dispatch, tag, X and sequence and size, offset
ACK: Final = struct.Struct("!BBI")  # dispatch, tag, bitmap
WANTS_ACK: Final = 0x8000
SEQUENCE_SHIFT: Final = 10
SEQUENCE_MASK: Final = 0x1F
SIZE_MASK: Final = 0x3FF

TAG_COUNT: Final = 256
SEQUENCE_COUNT: Final = 32
FRAGMENT_SIZE_MAX: Final = 511
"""RFC 8931 section 7.1: less than 512, where the unit is the octet. The field has room for more,
and more is read."""
OFFSET_MAX: Final = 0xFFFF

BITMAP_FULL: Final = 0xFFFFFFFF
BITMAP_NULL: Final = 0


def is_fragment(octets: bytes) -> bool:
    """Whether a frame's payload is a fragment or the acknowledgement of one, and not a packet."""
    return bool(octets) and octets[0] & 0xFC == DISPATCH & 0xFC


def is_control(octets: bytes) -> bool:
    """Whether a frame's payload ends or steers a packet: an acknowledgement, or a reset.

    What was recorded earlier must not, so these count from proven neighbours alone.
    """
    if octets[0] & DISPATCH_MASK == ACK_DISPATCH:
        return True
    return len(octets) >= HEADER.size and octets[4:6] == b"\0\0"


def bit_of(sequence: int) -> int:
    """The bit of a bitmap that stands for `sequence`: the highest one for 0."""
    return 1 << (SEQUENCE_COUNT - 1 - sequence)


@dataclass(frozen=True, slots=True)
class Fragment:
    """RFRAG and the octets of the packet that it carries.

    ::

        octet   0             1     2..3                       4..5     6 ..
                1110100 E     tag   X, sequence 5, size 10     offset   octets

    `offset` is the packet's size in the fragment with sequence 0, whose octets are its first; in
    the others it is where their octets belong. 0 means that the packet is given up.
    """

    tag: int
    sequence: int
    offset: int
    octets: bytes = b""
    wants_ack: bool = False
    has_congestion: bool = False

    def __post_init__(self) -> None:
        if not (
            0 <= self.tag < TAG_COUNT
            and 0 <= self.sequence < SEQUENCE_COUNT
            and 0 <= self.offset <= OFFSET_MAX
        ):
            raise LocalProtocolError(
                f"tag {self.tag}, sequence {self.sequence}, offset {self.offset}: "
                "one of them has no place in a fragment"
            )
        if (fault := _fault_in(self.sequence, self.offset, len(self.octets))) is not None:
            raise LocalProtocolError(fault)

    @property
    def is_first(self) -> bool:
        """Whether its octets are the packet's first, with the header."""
        return self.sequence == 0 and self.offset != 0

    @property
    def is_reset(self) -> bool:
        """Whether the packet is given up (RFC 8931 section 6.3)."""
        return self.offset == 0

    def encode(self) -> bytes:
        """The octets."""
        place = self.sequence << SEQUENCE_SHIFT | len(self.octets)
        if self.wants_ack:
            place |= WANTS_ACK
        first = DISPATCH | self.has_congestion
        return HEADER.pack(first, self.tag, place, self.offset) + self.octets

    @classmethod
    def decode(cls, octets: bytes) -> Fragment:
        """The fragment that `octets` hold: all of them, and nothing else. Raises MeshError."""
        if len(octets) < HEADER.size:
            raise MeshError("wrong size", f"a fragment of {len(octets)} octets")
        first, tag, place, offset = HEADER.unpack_from(octets)
        if first & DISPATCH_MASK != DISPATCH:
            raise MeshError("not a fragment", f"dispatch {first:#04x}")
        if len(octets) != HEADER.size + (place & SIZE_MASK):
            raise MeshError(
                "wrong size", f"{len(octets) - HEADER.size} octets, expected {place & SIZE_MASK}"
            )
        sequence = place >> SEQUENCE_SHIFT & SEQUENCE_MASK
        if (fault := _fault_in(sequence, offset, place & SIZE_MASK)) is not None:
            raise MeshError("fragment malformed", fault)
        return cls(
            tag,
            sequence,
            offset,
            octets[HEADER.size :],
            bool(place & WANTS_ACK),
            bool(first & CONGESTION_BIT),
        )


@dataclass(frozen=True, slots=True)
class FragmentAck:
    """RFRAG-ACK.

    ::

        octet   0             1     2..5
                1110101 E     tag   bitmap, the highest bit for sequence 0

    BITMAP_FULL: the packet is whole at its destination. BITMAP_NULL: it is given up.
    """

    tag: int
    bitmap: int
    has_congestion: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.tag < TAG_COUNT and 0 <= self.bitmap <= BITMAP_FULL):
            raise LocalProtocolError(f"tag {self.tag}, bitmap {self.bitmap:#x}: no place for one")

    def encode(self) -> bytes:
        """The octets."""
        return ACK.pack(ACK_DISPATCH | self.has_congestion, self.tag, self.bitmap)

    @classmethod
    def decode(cls, octets: bytes) -> FragmentAck:
        """The acknowledgement that `octets` are. Raises MeshError."""
        if len(octets) != ACK.size:
            raise MeshError("wrong size", f"a fragment's acknowledgement of {len(octets)} octets")
        first, tag, bitmap = ACK.unpack(octets)
        if first & DISPATCH_MASK != ACK_DISPATCH:
            raise MeshError("not a fragment", f"dispatch {first:#04x}")
        return cls(tag, bitmap, bool(first & CONGESTION_BIT))


def _fault_in(sequence: int, offset: int, size: int) -> str | None:
    """What does not go together in a fragment."""
    if size > SIZE_MASK:
        return f"{size} octets, at most {SIZE_MASK}"
    if offset == 0:
        # Only what RFC 8931 section 6.3 recommends: nothing else is ever meant by it.
        return None if sequence == 0 and size == 0 else "a reset that carries something"
    if size == 0:
        return f"sequence {sequence} without octets"
    if sequence == 0 and size > offset:
        return f"first fragment of {size} octets of a packet of {offset}"
    if sequence != 0 and offset + size > OFFSET_MAX:
        return f"{size} octets at {offset}, at most {OFFSET_MAX} altogether"
    return None
