"""What a relay tells the root when the next hop of a source route cannot be made.

Spec    after RFC 6554 section 4.2 (ICMPv6 destination unreachable, code 7, in our own octets)
Gives   `RouteError.encode` and `decode`, exact inverses
Raises  MeshError on octets that are none

The packet comes back whole, so that the root needs no memory of what it sent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from amistack.errors import MeshError
from mesh.packet import NODE_ADDRESS_MAX, PAYLOAD_SIZE_MAX, Packet

ERROR_INTERVAL: Final = 5.0
"""Seconds in which one relay tells ERROR_COUNT_MAX errors about the same neighbour."""
ERROR_COUNT_MAX: Final = 3
HEAD: Final = struct.Struct("!BH")  # flags, neighbour
IS_WHOLE: Final = 0x01
IS_UNKNOWN: Final = 0x02
FLAGS: Final = IS_WHOLE | IS_UNKNOWN


@dataclass(frozen=True, slots=True)
class RouteError:
    """The packet, and the neighbour that it could not be given to.

    ::

        octet   0                       1..2         3..
                000000, not known?,     neighbour    the packet; without its payload
                whole?                               if it would not fit

    `is_unknown`: the relay has no such neighbour, so that nothing was tried.
    """

    neighbour: int
    packet: Packet
    is_whole: bool = True
    is_unknown: bool = False

    @classmethod
    def of(cls, neighbour: int, packet: Packet, *, is_unknown: bool) -> RouteError:
        """The error about that packet, whole if it fits."""
        error = cls(neighbour, packet, is_unknown=is_unknown)
        if len(error.encode()) <= PAYLOAD_SIZE_MAX:
            return error
        return replace(error, packet=replace(packet, payload=b""), is_whole=False)

    def encode(self) -> bytes:
        """The payload of the error's packet."""
        flags = IS_WHOLE * self.is_whole | IS_UNKNOWN * self.is_unknown
        return HEAD.pack(flags, self.neighbour) + self.packet.encode()

    @classmethod
    def decode(cls, octets: bytes) -> RouteError:
        """The error in `octets`. Raises MeshError."""
        if len(octets) < HEAD.size:
            raise MeshError("truncated", f"route error of {len(octets)} octets")
        flags, neighbour = HEAD.unpack_from(octets)
        if flags & ~FLAGS or not 1 <= neighbour <= NODE_ADDRESS_MAX:
            raise MeshError("bad route error", f"flags {flags:#04x}, neighbour {neighbour:#06x}")
        packet = Packet.decode(octets[HEAD.size :])
        return cls(neighbour, packet, bool(flags & IS_WHOLE), bool(flags & IS_UNKNOWN))
