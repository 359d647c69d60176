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
HEAD: Final = struct.Struct("!BH")  # whether the packet is whole, neighbour


@dataclass(frozen=True, slots=True)
class RouteError:
    """The packet, and the neighbour that it could not be given to.

    ::

        octet   0               1..2         3..
                1 if whole,     neighbour    the packet; without its payload
                otherwise 0                  if it would not fit
    """

    neighbour: int
    packet: Packet
    is_whole: bool = True

    @classmethod
    def of(cls, neighbour: int, packet: Packet) -> RouteError:
        """The error about that packet, whole if it fits."""
        error = cls(neighbour, packet)
        if len(error.encode()) <= PAYLOAD_SIZE_MAX:
            return error
        return cls(neighbour, replace(packet, payload=b""), is_whole=False)

    def encode(self) -> bytes:
        """The payload of the error's packet."""
        return HEAD.pack(self.is_whole, self.neighbour) + self.packet.encode()

    @classmethod
    def decode(cls, octets: bytes) -> RouteError:
        """The error in `octets`. Raises MeshError."""
        if len(octets) < HEAD.size:
            raise MeshError("truncated", f"route error of {len(octets)} octets")
        is_whole, neighbour = HEAD.unpack_from(octets)
        if is_whole > 1 or not 1 <= neighbour <= NODE_ADDRESS_MAX:
            raise MeshError("bad route error", f"flag {is_whole}, neighbour {neighbour:#06x}")
        return cls(neighbour, Packet.decode(octets[HEAD.size :]), bool(is_whole))
