"""A question along a way, and its answer back along the same: `ping`, `trace`, `isolate`.

Spec    docs/protocol/mesh.md, "Probes"; `mesh.station.layout` declares the same
Gives   `Echo.encode` and `Echo.decode`, exact inverses
Raises  MeshError on octets, LocalProtocolError on a value, that is none
Limit   a way of WAY_LENGTH_MAX nodes, both its ends among them
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from amistack.errors import LocalProtocolError, MeshError
from mesh.packet import NODE_ADDRESS_MAX, ROUTE_LENGTH_MAX

VERSION: Final = 1
HEAD: Final = struct.Struct("!BBI")  # version, 1 for an answer, number
NUMBER_MAX: Final = 0xFFFF_FFFF
WAY_LENGTH_MIN: Final = 2
WAY_LENGTH_MAX: Final = ROUTE_LENGTH_MAX + 2


@dataclass(frozen=True, slots=True)
class Echo:
    """One question or answer.

    ::

        octet   0         1                2..5     6..7    8..9   ...
                version   0 question,      number   asker   next   ... the node asked
                          1 answer

    `way` begins with who asks and ends with who is asked, in both; `number` is the asker's.
    """

    number: int
    way: tuple[int, ...]
    is_answer: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.number <= NUMBER_MAX:
            raise LocalProtocolError(f"number {self.number}, expected 0 to {NUMBER_MAX}")
        if (fault := _fault_in(self.way)) is not None:
            raise LocalProtocolError(fault)

    @property
    def asker(self) -> int:
        """Where the way begins."""
        return self.way[0]

    @property
    def asked(self) -> int:
        """Where it ends."""
        return self.way[-1]

    @property
    def hops(self) -> int:
        """How many links the way has."""
        return len(self.way) - 1

    def answered(self) -> Echo:
        """The answer to this question."""
        return Echo(self.number, self.way, is_answer=True)

    def encode(self) -> bytes:
        """The payload of its packet."""
        head = HEAD.pack(VERSION, self.is_answer, self.number)
        return head + struct.pack(f"!{len(self.way)}H", *self.way)

    @classmethod
    def decode(cls, octets: bytes) -> Echo:
        """The echo in `octets`: all of them, and nothing else. Raises MeshError."""
        if octets and octets[0] != VERSION:
            raise MeshError("unknown version", f"{octets[0]}, expected {VERSION}")
        count, rest = divmod(len(octets) - HEAD.size, 2)
        if rest or not WAY_LENGTH_MIN <= count <= WAY_LENGTH_MAX:
            raise MeshError("wrong size", f"{len(octets)} octets of a probe")
        _, is_answer, number = HEAD.unpack_from(octets)
        way = struct.unpack_from(f"!{count}H", octets, HEAD.size)
        if is_answer > 1:
            raise MeshError("probe malformed", f"{is_answer} is neither question nor answer")
        if (fault := _fault_in(way)) is not None:
            raise MeshError("probe malformed", fault)
        return cls(number, way, bool(is_answer))


def _fault_in(way: tuple[int, ...]) -> str | None:
    if not WAY_LENGTH_MIN <= len(way) <= WAY_LENGTH_MAX:
        return f"a way of {len(way)} nodes, expected {WAY_LENGTH_MIN} to {WAY_LENGTH_MAX}"
    if not (min(way) > 0 and max(way) <= NODE_ADDRESS_MAX):
        return f"a node that is none: expected addresses 1 to {NODE_ADDRESS_MAX}"
    if len(set(way)) != len(way):
        return "a node twice: that is a loop"
    return None
