"""The messages between a collector and the head-end, as values.

Spec    docs/protocol/backhaul.md; `mesh.backhaul.codec` has their octets
Gives   one class for each message, `CollectorMessage` and `HeadEndMessage` for either direction
Raises  LocalProtocolError for a value that has no place in its message
Limit   MESSAGE_SIZE_MAX octets each: one frame of `amistack.framing`, of kind BACKHAUL
Never   says who sent it: that is the source of the frame, and on TLS the certificate
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from amistack.errors import LocalProtocolError
from amistack.framing import Priority
from amistack.identifiers import EUI64_SIZE, Eui64
from mesh.packet import (
    NO_ADDRESS,
    NODE_ADDRESS_MAX,
    PAYLOAD_SIZE_MAX,
    ROUTE_LENGTH_MAX,
)

MESSAGE_SIZE_MAX: Final = 1400
DODAG_ID_SIZE: Final = 16
PARENT_COUNT_MAX: Final = 4
NUMBER_MAX: Final = 0xFFFF_FFFF
AREA_MAX: Final = NUMBER_MAX
"""The highest number of an area, for collectors and the head-end alike: a HELLO has 4 octets."""
LIFETIME_INFINITE: Final = 0xFFFF_FFFF
"""Seconds of a route that ends only when something newer is known."""
SECONDS_MAX: Final = 0xFFFF
HOPS_UNKNOWN: Final = 0xFF
NO_NODE: Final = 0
"""In place of a short address: there is none to name."""
ROUND_TRIP_MAX_MS: Final = 0xFFFF_FFFF


class Status(enum.IntEnum):
    """The head-end's word about a collector's hello."""

    ACCEPTED = 0
    UNKNOWN_COLLECTOR = 1
    WRONG_AREA = 2  # Its area, DODAGID or short address is another one.
    STANDBY = 3  # Another box with this identity holds the lease; say hello again later.


class What(enum.IntEnum):
    """What became of a message down. `QUEUED` and `SENT` may be followed by others."""

    QUEUED = 0
    SENT = 1  # The first hop acknowledged it.
    DELIVERED = 2  # The destination has all its fragments.
    NO_ROUTE = 3
    ROUTE_FAILED = 4  # `relay` did not get it to `neighbour`.
    TOO_OLD = 5
    REFUSED_FULL = 6
    TOO_LONG = 7  # It does not go through this radio, not in fragments either.
    LOST = 8  # Given up, and nobody can say where.


class Why(enum.IntEnum):
    """Why a row of the table is gone."""

    EXPIRED = 0
    NO_PATH = 1  # The node itself said so (RFC 6550 section 6.4.3, lifetime 0).
    FORGOTTEN = 2  # The head-end knew of a newer one elsewhere.
    DENIED = 3  # The head-end wants the node kept out.


class Order(enum.IntEnum):
    """What the head-end may have a collector do."""

    BUMP_VERSION = 0  # Global repair; the answer's value is the new version.
    ASK_FOR_ROUTES = 1  # Everybody tells its parents anew; the value is the count of rows.
    ALLOW = 2
    DENY = 3
    SEND_TABLE = 4


class Outcome(enum.IntEnum):
    """What became of a probe."""

    ANSWERED = 0
    LOST_AFTER = 1  # The node after so many hops said that it could not go on.
    NO_ANSWER = 2
    NOT_SENT = 3  # No route, no room, or too long.
    NOT_PASSED = 4  # The node after so many hops does not know the next: nothing was tried there.


ORDERS_ABOUT_ONE: Final = frozenset({Order.ALLOW, Order.DENY})


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise LocalProtocolError(f"{name} {value}, expected {low} to {high}")


def _check_node(name: str, short: int) -> None:
    _check(name, short, 1, NODE_ADDRESS_MAX)


def _check_payload(payload: bytes) -> None:
    if len(payload) > PAYLOAD_SIZE_MAX:
        raise LocalProtocolError(f"payload of {len(payload)} octets, at most {PAYLOAD_SIZE_MAX}")


def _check_relays(relays: tuple[int, ...] | None, destination: int) -> None:
    _check_node("destination", destination)
    if relays is None:
        return
    if len(relays) > ROUTE_LENGTH_MAX:
        raise LocalProtocolError(f"{len(relays)} relays, at most {ROUTE_LENGTH_MAX}")
    for relay in relays:
        _check_node("relay", relay)
    if len({*relays, destination}) <= len(relays):
        raise LocalProtocolError("a node twice on a way: that is a loop")


@dataclass(frozen=True, slots=True)
class Hello:
    """A collector's first word on a connection: who it is, and how large its table is.

    `hop_rank_increase` is MinHopRankIncrease of its profile; `epoch` the lease it last served
    under, 0 for none.
    """

    area: int
    dodag_id: bytes
    collector: Eui64
    short: int
    dodag_version: int
    hop_rank_increase: int
    route_count: int
    epoch: int = 0

    def __post_init__(self) -> None:
        _check("area", self.area, 0, AREA_MAX)
        if len(self.dodag_id) != DODAG_ID_SIZE or len(self.collector) != EUI64_SIZE:
            raise LocalProtocolError(
                f"DODAGID of {len(self.dodag_id)} octets, EUI-64 of {len(self.collector)}"
            )
        _check_node("short address", self.short)
        _check("DODAG version", self.dodag_version, 0, 0xFF)
        _check("MinHopRankIncrease", self.hop_rank_increase, 1, 0xFFFF)
        _check("routes", self.route_count, 0, NUMBER_MAX)
        _check("epoch", self.epoch, 0, NUMBER_MAX)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The head-end's answer to a hello. Before it says ACCEPTED nothing else counts.

    `epoch` is that of the lease that the collector serves under from now on, 0 in a refusal.
    """

    status: Status
    epoch: int = 0

    def __post_init__(self) -> None:
        _check("epoch", self.epoch, 0, NUMBER_MAX)


@dataclass(frozen=True, slots=True)
class Up:
    """A packet that reached the root. `last_hop` is the neighbour it came from, NO_NODE if unknown.

    `hops` is how many it crossed, HOPS_UNKNOWN where that cannot be told; `held` for how many
    seconds the collector kept it because there was no backhaul.
    """

    source: int
    kind: int
    priority: Priority
    payload: bytes
    hops: int = HOPS_UNKNOWN
    last_hop: int = NO_NODE
    attempt: int = 0
    held: int = 0

    def __post_init__(self) -> None:
        if self.source != NO_ADDRESS:
            _check_node("source", self.source)
        _check("kind", self.kind, 0, 0xFF)
        _check("hops", self.hops, 0, 0xFF)
        _check("last hop", self.last_hop, 0, NODE_ADDRESS_MAX)
        _check("attempt", self.attempt, 0, 0xFF)
        _check("seconds held", self.held, 0, SECONDS_MAX)
        _check_payload(self.payload)


@dataclass(frozen=True, slots=True)
class Down:
    """A packet for one node. `request` is the head-end's number, which its fate carries.

    `relays` is the DCC's route, () for straight to a neighbour; None leaves it to the collector,
    which takes another of its own for each `attempt`. After `deadline` seconds it is of no use.
    """

    request: int
    destination: int
    kind: int
    priority: Priority
    payload: bytes
    attempt: int = 0
    deadline: int = 60
    relays: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check("request", self.request, 0, NUMBER_MAX)
        _check("kind", self.kind, 0, 0xFF)
        _check("attempt", self.attempt, 0, 0xFF)
        _check("deadline", self.deadline, 0, SECONDS_MAX)
        _check_relays(self.relays, self.destination)
        _check_payload(self.payload)


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a `Down` or a `Broadcast`. `relay` and `neighbour` for ROUTE_FAILED alone."""

    request: int
    what: What
    relay: int = NO_NODE
    neighbour: int = NO_NODE

    def __post_init__(self) -> None:
        _check("request", self.request, 0, NUMBER_MAX)
        if self.what is What.ROUTE_FAILED:
            _check_node("relay", self.relay)
            _check_node("neighbour", self.neighbour)
        elif (self.relay, self.neighbour) != (NO_NODE, NO_NODE):
            raise LocalProtocolError(f"{self.what.name} names a hop, ROUTE_FAILED alone does")


@dataclass(frozen=True, slots=True)
class RouteRow:
    """A row of the collector's table: a node's parents as its DAO said, the preferred one first.

    `lifetime` is how many seconds are left, LIFETIME_INFINITE for no end.
    """

    target: int
    parents: tuple[int, ...]
    path_sequence: int
    lifetime: int

    def __post_init__(self) -> None:
        _check_node("target", self.target)
        _check("parents", len(self.parents), 1, PARENT_COUNT_MAX)
        for parent in self.parents:
            _check_node("parent", parent)
        if len({*self.parents, self.target}) <= len(self.parents):
            raise LocalProtocolError("a parent twice, or its own")
        _check("path sequence", self.path_sequence, 0, 0xFF)
        _check("lifetime", self.lifetime, 0, LIFETIME_INFINITE)


@dataclass(frozen=True, slots=True)
class RouteGone:
    """A row is no longer in the table."""

    target: int
    path_sequence: int
    why: Why

    def __post_init__(self) -> None:
        _check_node("target", self.target)
        _check("path sequence", self.path_sequence, 0, 0xFF)


@dataclass(frozen=True, slots=True)
class TableBegin:
    """All rows follow, from the first on, with news between them; what is not among them is gone.

    `stream` tells one such stream of a connection from the next: a table begun again before its
    end replaces the one before.
    """

    stream: int
    route_count: int

    def __post_init__(self) -> None:
        _check("stream", self.stream, 0, 0xFFFF)
        _check("routes", self.route_count, 0, NUMBER_MAX)


@dataclass(frozen=True, slots=True)
class TableEnd:
    """That was the whole table."""

    stream: int

    def __post_init__(self) -> None:
        _check("stream", self.stream, 0, 0xFFFF)


@dataclass(frozen=True, slots=True)
class Forget:
    """The node told another collector something newer, with this path sequence."""

    target: int
    path_sequence: int

    def __post_init__(self) -> None:
        _check_node("target", self.target)
        _check("path sequence", self.path_sequence, 0, 0xFF)


@dataclass(frozen=True, slots=True)
class Command:
    """Do this. `node` for the orders about one node, None for the others.

    `short` is that node's address, NO_NODE where it has none: behind a relay it is known by that.
    """

    request: int
    order: Order
    node: Eui64 | None = None
    short: int = NO_NODE

    def __post_init__(self) -> None:
        _check("request", self.request, 0, NUMBER_MAX)
        if (self.order in ORDERS_ABOUT_ONE) is (self.node is None):
            raise LocalProtocolError(f"{self.order.name} with node {self.node!r}")
        _check("short address", self.short, 0, NODE_ADDRESS_MAX if self.node else 0)
        if self.node is not None and len(self.node) != EUI64_SIZE:
            raise LocalProtocolError(f"EUI-64 of {len(self.node)} octets")


@dataclass(frozen=True, slots=True)
class CommandDone:
    """It is done, or could not be. `value` is what the order says it is, else 0."""

    request: int
    is_done: bool
    value: int = 0

    def __post_init__(self) -> None:
        _check("request", self.request, 0, NUMBER_MAX)
        _check("value", self.value, 0, NUMBER_MAX)


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A packet for everybody, or for the node `subtree` and those below it; answered by a fate."""

    request: int
    kind: int
    priority: Priority
    payload: bytes
    subtree: int | None = None

    def __post_init__(self) -> None:
        _check("request", self.request, 0, NUMBER_MAX)
        _check("kind", self.kind, 0, 0xFF)
        if self.subtree is not None:
            _check_node("subtree", self.subtree)
        _check_payload(self.payload)


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the node at the end of a way whether it is there; answered by `Probed`.

    `destination` may be another collector: it answers by itself, through the mesh. `relays` as in
    `Down`. Nothing within `deadline` seconds is NO_ANSWER.
    """

    request: int
    destination: int
    relays: tuple[int, ...] | None = None
    deadline: int = 30

    def __post_init__(self) -> None:
        _check("request", self.request, 0, NUMBER_MAX)
        _check("deadline", self.deadline, 1, SECONDS_MAX)
        _check_relays(self.relays, self.destination)


@dataclass(frozen=True, slots=True)
class Probed:
    """What became of a probe. `hops`: how long the way is, or after how many it was lost.

    With LOST_AFTER 0 it is the collector that could not go on. With the number of a trace it is a
    row of that, as soon as it is decided: `hops` says which, the nearest node's is 1.
    """

    request: int
    outcome: Outcome
    hops: int
    round_trip_ms: int = 0

    def __post_init__(self) -> None:
        _check("request", self.request, 0, NUMBER_MAX)
        _check("hops", self.hops, 0, ROUTE_LENGTH_MAX + 1)
        _check("round trip", self.round_trip_ms, 0, ROUND_TRIP_MAX_MS)


@dataclass(frozen=True, slots=True)
class Trace:
    """Ask every node on a way, the nearest first; answered by `Traced`. The rest as in `Probe`."""

    request: int
    destination: int
    relays: tuple[int, ...] | None = None
    deadline: int = 120

    def __post_init__(self) -> None:
        _check("request", self.request, 0, NUMBER_MAX)
        _check("deadline", self.deadline, 1, SECONDS_MAX)
        _check_relays(self.relays, self.destination)


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One node of a way, and how it answered."""

    node: int
    outcome: Outcome
    round_trip_ms: int = 0

    def __post_init__(self) -> None:
        _check_node("node", self.node)
        _check("round trip", self.round_trip_ms, 0, ROUND_TRIP_MAX_MS)


@dataclass(frozen=True, slots=True)
class Traced:
    """Every node of the way that was asked, in order; none where no way was known.

    It alone ends a trace, and is whole whatever came of its rows before.
    """

    request: int
    rows: tuple[TraceRow, ...]

    def __post_init__(self) -> None:
        _check("request", self.request, 0, NUMBER_MAX)
        _check("rows", len(self.rows), 0, ROUTE_LENGTH_MAX + 1)


CollectorMessage = (
    Hello | Up | Fate | RouteRow | RouteGone | TableBegin | TableEnd | CommandDone | Probed | Traced
)
HeadEndMessage = Welcome | Down | Forget | Command | Broadcast | Probe | Trace
Message = CollectorMessage | HeadEndMessage
