"""What a node has to say to whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass

from amistack.framing import Priority
from amistack.identifiers import Eui64
from amistack.values import frozen_value
from mesh.packet import Packet
from mesh.security import CountersWanted


@frozen_value(frozen=True, slots=True)
class Outgoing:
    """One frame for the radio. `is_ack`: it follows what it acknowledges without waiting."""

    destination: Eui64 | None
    octets: bytes
    priority: int
    wants_ack: bool
    is_ack: bool = False


@frozen_value(frozen=True, slots=True)
class PacketReceived:
    """A packet for the layer above.

    `hops_left` is its hop limit as it came; `from_neighbour` the last hop.
    """

    source: int
    destination: int
    kind: int
    priority: Priority
    payload: bytes
    hops_left: int
    from_neighbour: Eui64
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class ParentChanged:
    """The preferred parent is another one; None: the node is detached."""

    parent: Eui64 | None
    short: int | None
    rank: int


@dataclass(frozen=True, slots=True)
class GroundChanged:
    """The way up ends at a root with a connection to the head-end, or does not any more."""

    is_grounded: bool


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """At a root: a node told its parents; put it on disk, tell the head-end."""

    target: int
    parents: tuple[int, ...]
    path_sequence: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class RouteConfirmed:
    """At a node: the root says that it knows where we are.

    `hops` is how many links its answer crossed, 255 where that is not known.
    """

    path_sequence: int
    hops: int = 255


@dataclass(frozen=True, slots=True)
class RouteFailed:
    """At a root: under a source route, `relay` did not get a packet to `neighbour`.

    `packet` is the one that was lost, as far as the relay sent it back. `is_unknown`: the relay has
    no such neighbour, so that nothing was tried.
    """

    relay: int
    neighbour: int
    destination: int
    packet: Packet | None = None
    is_unknown: bool = False


@dataclass(frozen=True, slots=True)
class PacketSent:
    """The first hop acknowledged a packet that this node sent itself."""

    packet: Packet


@dataclass(frozen=True, slots=True)
class PacketLost:
    """A packet that this node sent itself was given up, and why."""

    destination: int
    kind: int
    payload: bytes
    reason: str
    attempt: int = 0


Event = (
    PacketReceived
    | ParentChanged
    | GroundChanged
    | RouteChanged
    | RouteConfirmed
    | RouteFailed
    | PacketSent
    | PacketLost
    | CountersWanted
)
