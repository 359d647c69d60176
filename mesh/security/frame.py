"""A frame's octets before anybody asked whether they are true.

Spec    docs/protocol/mesh.md, "The frame"; `mesh.layout` declares the same
Gives   `FrameHeader` and `AckFrame`, each with `encode` and `decode`, exact inverses
Raises  MeshError on octets, LocalProtocolError on a value, that has no place in the layout
Limit   PAYLOAD_SIZE_MAX octets of payload
Never   touches a key: what stands in these values is a claim until `mesh.security.seal` has opened
        the frame
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from amistack.errors import LocalProtocolError, MeshError
from amistack.identifiers import EUI64_SIZE, Eui64

VERSION: Final = 1
VERSION_SHIFT: Final = 5
TYPE_SHIFT: Final = 2
TYPE_MASK: Final = 0x07
WANTS_ACK: Final = 0x02
TO_ONE: Final = 0x01

HEADER: Final = struct.Struct("!BBI8s")  # version, type, flags; key index; counter; source
HINT: Final = struct.Struct("!H")  # the low 16 bits of the EUI-64 of whom a frame is for
ACK: Final = struct.Struct("!BHH4s")  # version, type, flag; hint; counter's low 16 bits; tag

ACK_COVERED: Final = struct.Struct("!BHH8s8s")
"""What an acknowledgement's tag covers: its own head, who gives it, the tag of which frame."""
NONCE: Final = struct.Struct("!8sIB")  # source, counter, key index

KEY_INDEX_MAX: Final = 0x7F
COUNTER_MAX: Final = 2**32 - 1
TAG_SIZE: Final = 8
ACK_TAG_SIZE: Final = 4
PAYLOAD_SIZE_MAX: Final = 2047
"""No radio that the mesh is for carries more."""

BROADCAST_OVERHEAD: Final = HEADER.size + TAG_SIZE
UNICAST_OVERHEAD: Final = HEADER.size + HINT.size + TAG_SIZE
FRAME_SIZE_MAX: Final = UNICAST_OVERHEAD + PAYLOAD_SIZE_MAX
ACK_SIZE: Final = ACK.size


class FrameType(enum.IntEnum):
    """What a frame is for. 4 to 7 are not given out; joining will take of them."""

    DATA = 0
    ACK = 1
    CHALLENGE = 2  # Prove that you are there now.
    ANSWER = 3  # The proof: payload begins with the counter of the challenge.


def hint_of(eui64: Eui64) -> int:
    """Of whom a frame is for, its header has these 16 bits; the seal covers all 64."""
    return eui64[6] << 8 | eui64[7]


ACK_FIRST_OCTET: Final = VERSION << VERSION_SHIFT | FrameType.ACK << TYPE_SHIFT | TO_ONE


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The head of every frame but a link acknowledgement; sealed payload and tag follow.

    ::

        octet   0                              1           2..5      6..13    14..15, if to one
                version 3 bits, type 3,        key index   counter   source   hint of the
                wants ack, to one                                             destination

    `hint` is None for a frame to everybody that hears it.
    """

    type: FrameType
    key_index: int
    counter: int
    source: Eui64
    hint: int | None = None
    wants_ack: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.key_index <= KEY_INDEX_MAX:
            raise LocalProtocolError(f"key index {self.key_index}, expected 0 to {KEY_INDEX_MAX}")
        if not 0 <= self.counter <= COUNTER_MAX:
            raise LocalProtocolError(f"counter {self.counter}, expected 0 to {COUNTER_MAX}")
        if len(self.source) != EUI64_SIZE:
            raise LocalProtocolError(f"source of {len(self.source)} octets, expected {EUI64_SIZE}")
        if self.hint is not None and not 0 <= self.hint <= 0xFFFF:
            raise LocalProtocolError(f"hint {self.hint}, expected 0 to 65535")
        if (fault := _fault_in(self.type, self.hint is not None, self.wants_ack)) is not None:
            raise LocalProtocolError(fault)

    @property
    def size(self) -> int:
        """How many octets it has."""
        return HEADER.size if self.hint is None else HEADER.size + HINT.size

    def encode(self) -> bytes:
        """The octets."""
        first = VERSION << VERSION_SHIFT | self.type << TYPE_SHIFT
        if self.wants_ack:
            first |= WANTS_ACK
        if self.hint is None:
            return HEADER.pack(first, self.key_index, self.counter, self.source)
        head = HEADER.pack(first | TO_ONE, self.key_index, self.counter, self.source)
        return head + HINT.pack(self.hint)

    @classmethod
    def decode(cls, octets: bytes) -> FrameHeader:
        """The header that a frame begins with; where it ends is its `size`.

        Raises MeshError, `unknown version` before anything else that may be wrong.
        """
        kind, wants_ack, is_broadcast, key_index, counter, source = read_header(octets)
        hint = None
        if not is_broadcast:
            (hint,) = HINT.unpack_from(octets, HEADER.size)
        return cls(kind, key_index, counter, source, hint, wants_ack)


def read_header(octets: bytes) -> tuple[FrameType, bool, bool, int, int, Eui64]:
    """Type, whether an acknowledgement is wanted, whether it is for everybody, key index, counter
    and source: what `FrameHeader.decode` is made of, for whoever reads many.

    Raises MeshError, `unknown version` before anything else that may be wrong.
    """
    size = len(octets)
    if size and octets[0] >> VERSION_SHIFT != VERSION:
        raise MeshError("unknown version", f"{octets[0] >> VERSION_SHIFT}, expected {VERSION}")
    if not BROADCAST_OVERHEAD <= size <= FRAME_SIZE_MAX:
        raise MeshError("wrong size", f"a frame of {size} octets")
    first, key_index, counter, source = HEADER.unpack_from(octets)
    meaning = _MEANINGS.get(first)
    if meaning is None:
        raise _fault_in_first(first)
    kind, wants_ack, is_broadcast = meaning
    if key_index > KEY_INDEX_MAX:
        raise MeshError("reserved bits set", f"key index {key_index}")
    if not is_broadcast and size < UNICAST_OVERHEAD:
        raise MeshError("wrong size", f"a frame of {size} octets to one")
    return kind, wants_ack, is_broadcast, key_index, counter, source


@dataclass(frozen=True, slots=True)
class AckFrame:
    """A link acknowledgement, whole.

    ::

        octet   0                     1..2                  3..4                     5..8
                version 3 bits,       hint of whose frame   its counter,             tag
                type 3, 0, to one     is acknowledged       the low 16 bits
    """

    hint: int
    counter_low: int
    tag: bytes

    def __post_init__(self) -> None:
        if not (0 <= self.hint <= 0xFFFF and 0 <= self.counter_low <= 0xFFFF):
            raise LocalProtocolError(f"hint {self.hint}, counter {self.counter_low}, at most 65535")
        if len(self.tag) != ACK_TAG_SIZE:
            raise LocalProtocolError(f"tag of {len(self.tag)} octets, expected {ACK_TAG_SIZE}")

    def encode(self) -> bytes:
        """The octets."""
        return ACK.pack(ACK_FIRST_OCTET, self.hint, self.counter_low, self.tag)

    @classmethod
    def decode(cls, octets: bytes) -> AckFrame:
        """The acknowledgement that `octets` are. Raises MeshError."""
        return cls(*read_ack(octets))


def read_ack(octets: bytes) -> tuple[int, int, bytes]:
    """Hint, the counter's low 16 bits, tag: what `AckFrame.decode` is made of. Raises MeshError."""
    if octets and octets[0] >> VERSION_SHIFT != VERSION:
        raise MeshError("unknown version", f"{octets[0] >> VERSION_SHIFT}, expected {VERSION}")
    if len(octets) != ACK.size:
        raise MeshError("wrong size", f"an acknowledgement of {len(octets)} octets")
    first, hint, counter_low, tag = ACK.unpack(octets)
    if first != ACK_FIRST_OCTET:
        raise MeshError("frame malformed", f"{first:#04x} before an acknowledgement")
    return hint, counter_low, tag


def _fault_in(kind: FrameType, is_to_one: bool, wants_ack: bool) -> str | None:
    """What does not go together in a header."""
    if kind is FrameType.ACK:
        return "an acknowledgement has another layout"
    if kind is not FrameType.DATA and not is_to_one:
        return f"{kind.name} to everybody, expected to one"
    if wants_ack and not (is_to_one and kind is FrameType.DATA):
        return "an acknowledgement wanted, expected of DATA to one alone"
    return None


def _meanings() -> dict[int, tuple[FrameType, bool, bool]]:
    """Every first octet that a frame may have, and what it says."""
    return {
        VERSION << VERSION_SHIFT
        | kind << TYPE_SHIFT
        | (WANTS_ACK if wants_ack else 0)
        | (TO_ONE if is_to_one else 0): (
            kind,
            wants_ack,
            not is_to_one,
        )
        for kind in FrameType
        for wants_ack in (False, True)
        for is_to_one in (False, True)
        if _fault_in(kind, is_to_one, wants_ack) is None
    }


_MEANINGS: Final = _meanings()
_TYPES: Final = frozenset(int(kind) for kind in FrameType)


def _fault_in_first(first: int) -> MeshError:
    kind = (first >> TYPE_SHIFT) & TYPE_MASK
    if kind not in _TYPES:
        return MeshError("unknown frame type", f"{kind}")
    fault = _fault_in(FrameType(kind), bool(first & TO_ONE), bool(first & WANTS_ACK))
    return MeshError("frame malformed", fault or f"{first:#04x}")
