"""One packet that comes in by fragments: what is there of it, and whether that is all.

Spec    RFC 8931 section 6; fragments may come in any order, twice, and cut otherwise than before
Raises  MeshError from `put` on a fragment that contradicts; then nothing has changed
Limit   PACKET_SIZE_MAX octets
"""

from __future__ import annotations

import zlib

from amistack.errors import MeshError
from mesh.fragments.codec import BITMAP_FULL, Fragment, FragmentAck, bit_of
from mesh.packet import PACKET_SIZE_MAX


class Inbound:
    """One packet under one tag of one neighbour. Made of its first fragment."""

    def __init__(self, first: Fragment, *, expires: float) -> None:
        if not first.is_first or first.offset > PACKET_SIZE_MAX:
            raise MeshError(
                "packet too long", f"{first.offset} octets announced, at most {PACKET_SIZE_MAX}"
            )
        self.size = first.offset
        self.expires = expires
        self.is_whole = False
        self._packet = bytearray(self.size)
        self._covered = 0  # bit i: octet i is there
        self._bitmap = 0
        self._has_congestion = False
        self._signature = zlib.crc32(first.octets)

    def contradicts(self, first: Fragment) -> bool:
        """Whether `first` is of another packet, for which the neighbour uses the tag again."""
        if first.offset != self.size:
            return True
        if self.is_whole:
            # The packet was handed on and is not kept; whoever repeats it does not know that yet.
            return zlib.crc32(first.octets) != self._signature
        return self._differs(0, first.octets)

    def put(self, fragment: Fragment) -> bool:
        """Take it. False if all its octets were there. Raises MeshError."""
        self._has_congestion |= fragment.has_congestion
        if self.is_whole:
            return False
        place = 0 if fragment.sequence == 0 else fragment.offset
        if place + len(fragment.octets) > self.size:
            raise MeshError(
                "fragment out of bounds",
                f"{len(fragment.octets)} octets at {place} of a packet of {self.size}",
            )
        if self._differs(place, fragment.octets):
            raise MeshError("fragment contradicts", f"octets at {place} were others before")
        mask = ((1 << len(fragment.octets)) - 1) << place
        is_new = self._covered & mask != mask
        self._packet[place : place + len(fragment.octets)] = fragment.octets
        self._covered |= mask
        self._bitmap |= bit_of(fragment.sequence)
        return is_new

    def take_whole(self) -> bytes | None:
        """The packet when it is whole, once; then only that it was remains."""
        if self.is_whole or self._covered != (1 << self.size) - 1:
            return None
        self.is_whole = True
        packet = bytes(self._packet)
        self._packet = bytearray()
        return packet

    def acknowledgement(self, tag: int) -> FragmentAck:
        """What is there, and once whether a fragment met congestion."""
        has_congestion, self._has_congestion = self._has_congestion, False
        return FragmentAck(tag, BITMAP_FULL if self.is_whole else self._bitmap, has_congestion)

    def _differs(self, place: int, octets: bytes) -> bool:
        """Whether octets that are there already were others."""
        mask = ((1 << len(octets)) - 1) << place
        common = self._covered & mask
        if not common:
            return False
        if common == mask:
            return self._packet[place : place + len(octets)] != octets
        return any(
            common >> (place + index) & 1 and self._packet[place + index] != octet
            for index, octet in enumerate(octets)
        )
