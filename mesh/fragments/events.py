"""What the machine of fragments says, and whom it asks for the way.

Gives   `Event` and its kinds, `FragmentFrame`, the `Router` that a node has
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from amistack.framing import Priority
from amistack.identifiers import Eui64


@dataclass(frozen=True, slots=True)
class Onward:
    """A packet goes to `neighbour`; `head` is its first fragment's octets, as many as came.

    Hop limit, sender rank and the route's index change in place.
    """

    neighbour: Eui64
    head: bytes


class Router(Protocol):
    """What a node knows of ways: asked once for each packet, at its first fragment."""

    def route_first(self, head: bytes, previous: Eui64, *, now: float) -> Onward | None:
        """Where the packet that begins with `head` goes; None if it is for us.

        Raises MeshError where it goes nowhere. Its payload may be cut off, its header is whole.
        """


@dataclass(frozen=True, slots=True)
class FragmentFrame:
    """The payload of a frame for `neighbour`, to be sent with a link acknowledgement."""

    neighbour: Eui64
    octets: bytes
    priority: Priority


@dataclass(frozen=True, slots=True)
class PacketPutTogether:
    """All of a packet came from `neighbour`. Once for each."""

    neighbour: Eui64
    octets: bytes


@dataclass(frozen=True, slots=True)
class PacketDelivered:
    """The packet that `send` gave `number` is whole at its destination. Nothing follows."""

    number: int


@dataclass(frozen=True, slots=True)
class PacketLost:
    """The packet that `send` gave `number` is given up; whether it arrived is not known."""

    number: int
    packet: bytes
    neighbour: Eui64
    reason: str


@dataclass(frozen=True, slots=True)
class PacketAbandoned:
    """What came of a packet from `neighbour` is thrown away, for `reason`."""

    neighbour: Eui64
    reason: str


Event = PacketPutTogether | PacketDelivered | PacketLost | PacketAbandoned
