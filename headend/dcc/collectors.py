"""Which collectors there are, which are connected, and whether one is who it says.

Spec    docs/protocol/backhaul.md, "Hello"
Gives   for every hello the answer, and the reason where it is a refusal
Limit   as many streams as the driver lets in; a stream has HELLO_S to say who it is
Never   lets a stream serve that its hello, its frames and its key do not agree about, nor two
        boxes with one identity at a time
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from amistack.errors import TableFull
from amistack.identifiers import Eui64
from headend.dcc.events import Connection
from headend.dcc.tables import Table
from headend.domain.mesh import DENIED_MAX, Area, Assignment
from mesh.backhaul import Hello, Status, Welcome
from mesh.topology.facts import AreaId

HELLO_S: Final = 30.0
EPOCH_MAX: Final = 0xFFFF_FFFF
VERSION_MAX: Final = 0xFF


@dataclass(frozen=True, slots=True)
class _Lease:
    """What a collector serves under. `presented` is the epoch by which it came: until it has heard
    of this one, it may come by that again.
    """

    epoch: int
    presented: int


@dataclass(slots=True)
class Joined:
    """A collector that serves, on one connection."""

    connection: Connection
    assignment: Assignment
    dodag_version: int
    since: float
    table: Table = field(default_factory=Table)


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a hello comes to. `replaced` is the stream on which the same collector served before."""

    welcome: Welcome
    reason: str | None = None
    joined: Joined | None = None
    replaced: Connection | None = None
    is_rank_right: bool = True
    is_lease_known: bool = True
    """False where it did not know its last lease, as one does whose disk was lost or copied."""


@dataclass(slots=True)
class _Stream:
    """A stream, and who is at its end by its own word."""

    peer: Eui64
    key_hash: bytes | None
    began_at: float
    joined: Joined | None = None


class Collectors:
    """Every collector that the head-end knows, and every stream of one."""

    def __init__(self, *, first_epoch: int = 1) -> None:
        """`first_epoch` is above all that earlier runs gave, as the time of the start is."""
        self._next_epoch = min(max(first_epoch, 1), EPOCH_MAX)
        self._leases: dict[Eui64, _Lease] = {}
        self._areas: dict[AreaId, tuple[Area, int]] = {}
        self._known: dict[Eui64, Assignment] = {}
        self._streams: dict[Connection, _Stream] = {}
        self._joined: dict[Eui64, Joined] = {}
        self._denied: dict[AreaId, dict[Eui64, None]] = {}

    # Who may come

    @property
    def known(self) -> Mapping[Eui64, Assignment]:
        """Every collector."""
        return self._known

    @property
    def areas(self) -> Mapping[AreaId, Area]:
        """Every area."""
        return {number: area for number, (area, _) in self._areas.items()}

    def add_area(self, area: Area, hop_rank_increase: int) -> None:
        """Know an area, or what has changed of it."""
        self._areas[area.area] = (area, hop_rank_increase)

    def add(self, assignment: Assignment) -> None:
        """Know a collector, or what has changed of it."""
        self._known[assignment.node] = assignment

    def remove(self, collector: Eui64) -> None:
        """Forget a collector; its stream has ended."""
        self._known.pop(collector, None)
        self._leases.pop(collector, None)

    def deny(self, area: AreaId, node: Eui64, *, is_denied: bool) -> None:
        """Keep a node out of an area, or no longer. Raises TableFull at DENIED_MAX."""
        denied = self._denied.setdefault(area, {})
        if not is_denied:
            denied.pop(node, None)
        elif node not in denied:
            if len(denied) >= DENIED_MAX:
                raise TableFull(f"{DENIED_MAX} nodes are kept out of area {area}, the bound")
            denied[node] = None

    def is_denied(self, area: AreaId, node: Eui64) -> bool:
        """Whether a node is kept out of an area."""
        return node in self._denied.get(area, ())

    def denied(self, area: AreaId) -> Sequence[Eui64]:
        """Who is kept out of an area."""
        return tuple(self._denied.get(area, ()))

    # Who came

    def connect(
        self, connection: Connection, peer: Eui64, key_hash: bytes | None, *, now: float
    ) -> None:
        """A stream has begun."""
        self._streams[connection] = _Stream(peer, key_hash, now)

    def disconnect(self, connection: Connection) -> Joined | None:
        """A stream has ended; who served on it and serves no more."""
        stream = self._streams.pop(connection, None)
        if stream is None or stream.joined is None:
            return None
        node = stream.joined.assignment.node
        if self._joined.get(node) is not stream.joined:
            return None  # It came anew before this one ended.
        del self._joined[node]
        return stream.joined

    def greet(self, connection: Connection, hello: Hello) -> Greeting | None:
        """Judge a hello; None on a stream that has ended."""
        stream = self._streams.get(connection)
        if stream is None:
            return None
        known = self._known.get(hello.collector)
        if known is None:
            return _refusal(Status.UNKNOWN_COLLECTOR, "unknown collector")
        if stream.peer != hello.collector:
            return _refusal(Status.UNKNOWN_COLLECTOR, "hello of another collector")
        if stream.key_hash != known.key_hash:
            # Neither a key without a pin is believed, nor a pin without a key.
            return _refusal(Status.UNKNOWN_COLLECTOR, "collector with another key")
        area, hop_rank_increase = self._areas.get(known.area, (None, 0))
        if area is None or (hello.area, hello.dodag_id, hello.short) != (
            area.area,
            area.dodag_id,
            known.short,
        ):
            return _refusal(Status.WRONG_AREA, "collector of another area")
        before = self._joined.get(hello.collector)
        is_elsewhere = before is not None and before.connection != connection
        lease = self._leases.get(hello.collector)
        is_lease_known = lease is None or hello.epoch in (lease.epoch, lease.presented)
        if is_elsewhere and not is_lease_known:
            # Another box with its identity, while the one that has the lease serves.
            return _refusal(Status.STANDBY, "collector without the lease")
        if lease is None or before is None or is_elsewhere:
            lease = self._leases[hello.collector] = _Lease(self._next_epoch, hello.epoch)
            self._next_epoch = min(self._next_epoch + 1, EPOCH_MAX)
        joined = Joined(connection, known, hello.dodag_version, stream.began_at)
        stream.joined = self._joined[hello.collector] = joined
        return Greeting(
            Welcome(Status.ACCEPTED, lease.epoch),
            joined=joined,
            replaced=before.connection if before is not None and is_elsewhere else None,
            is_rank_right=hello.hop_rank_increase == hop_rank_increase,
            is_lease_known=is_lease_known,
        )

    def serving(self, connection: Connection) -> Joined | None:
        """Who serves on a stream, if somebody does."""
        stream = self._streams.get(connection)
        if stream is None or stream.joined is None:
            return None
        node = stream.joined.assignment.node
        return stream.joined if self._joined.get(node) is stream.joined else None

    def take_version(self, collector: Eui64, version: int) -> None:
        """A collector began another version of its DODAG since its hello."""
        joined = self._joined.get(collector)
        if joined is not None and version <= VERSION_MAX:
            joined.dodag_version = version

    def find(self, collector: Eui64) -> Joined | None:
        """A collector that serves, or None."""
        return self._joined.get(collector)

    def of_area(self, area: AreaId) -> Sequence[Joined]:
        """All that serve an area."""
        return [each for each in self._joined.values() if each.assignment.area == area]

    def overdue(self, *, now: float) -> list[Connection]:
        """Streams that had their time to say hello; each is named once."""
        found = [
            connection
            for connection, stream in self._streams.items()
            if stream.joined is None and now - stream.began_at >= HELLO_S
        ]
        for connection in found:
            del self._streams[connection]
        return found

    def next_timer(self) -> float | None:
        """When the next stream has had its time."""
        return min(
            (s.began_at + HELLO_S for s in self._streams.values() if s.joined is None),
            default=None,
        )


def _refusal(status: Status, reason: str) -> Greeting:
    return Greeting(Welcome(status), reason)
