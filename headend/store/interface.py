"""The store's port: writes as values, committed in groups; reads for the doors.

A write is a frozen value. `submit` queues it and later tells the outcome of its commit, so that an
acknowledgement can wait for it; writes are applied in the order in which they were submitted, many
to a transaction. Repeating a write is harmless: every record has a key.

Raises  StoreBusy from `submit` when QUEUE_MAX writes wait; StoreError from reads and, as an
        outcome, from a commit that failed (then nothing of that write was kept)
Place   an append log with its cursor will stand between `submit` and the keyed tables: the
        outcome of a write then means that the log is durable
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from amistack.errors import StoreError
from amistack.identifiers import Eui64
from amistack.values import frozen_value
from headend.domain.mesh import Area, Assignment, StoredReport, StoredStatus
from headend.domain.meters import (
    ChannelRecord,
    CloneSign,
    FormerSession,
    Location,
    Meter,
    MeterState,
    RegistrationRecord,
    StoredSession,
    Suspicion,
)
from headend.domain.readings import (
    DayBlock,
    LogRecord,
    OnDemandRead,
    QuarantinedRecord,
    ReportRecord,
)
from headend.domain.spread import Spread
from headend.domain.standing import DeviceDetails, StandingChange, Step
from headend.store.mesh import MeshOutcome, MeshWrite
from mesh.topology.facts import AreaId

FIRST: Final = Eui64(b"")
"""Below every meter's identifier: where reading in their order begins."""
QUEUE_MAX: Final = 16_384
GROUP_SIZES: Final = (1, 3, 10, 30, 100, 300, 1_000)
"""Ranges of writes in a group."""
COMMIT_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Ranges of seconds that a group's transaction takes, its flush included."""

Record = RegistrationRecord | ReportRecord | DayBlock | LogRecord | QuarantinedRecord


@dataclass(frozen=True, slots=True)
class EnrolMeters:
    """Take meters into the registry: all of them, or none if one is known with another key.

    A meter that is known already stays where it stands, but for one from a shipment that is to be
    enrolled now. `details` are kept in place of earlier ones. A rehearsal only tells the outcome.
    """

    meters: tuple[Meter, ...]
    actor: str = ""
    reason: str = ""
    details: Mapping[Eui64, DeviceDetails] = field(default_factory=dict)
    is_rehearsal: bool = False


@dataclass(frozen=True, slots=True)
class ChangeStanding:
    """Take a step with meters: with all of them, or with none if one has nowhere to go by it.

    A session that is not kept where they then stand is deleted with it. `at_ms` UTC.
    """

    meters: tuple[Eui64, ...]
    step: Step
    at_ms: int
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EndSessions:
    """Delete the security contexts with these meters, so that they agree on new keys: all or none.

    None if one of them is not in the registry.
    """

    meters: tuple[Eui64, ...]


@dataclass(frozen=True, slots=True)
class ConfirmTrust:
    """A meter says that it trusts the head-end key called `kid`; `at` UTC s."""

    meter: Eui64
    kid: bytes
    at: int


@dataclass(frozen=True, slots=True)
class KeepSession:
    """A new security context, which replaces the meter's earlier one, if the meter is enrolled."""

    session: StoredSession
    path: str


@dataclass(frozen=True, slots=True)
class ReserveNumbers:
    """Sender sequence numbers below `until` may be used from now on, and never again after.

    They are `count` more than before; what lies between is not used at all.
    """

    recipient_id: bytes
    until: int
    count: int


@frozen_value(frozen=True, slots=True)
class KeepDelivery:
    """What one protected request brought, and its replay window, in one transaction.

    `path` and `received_ms` (UTC) are the provenance of all its records. `is_behind`: its number
    is below one that came earlier, so that it says nothing of when the meter was heard last.
    """

    meter: Eui64
    recipient_id: bytes
    window: tuple[int, int]
    path: str
    received_ms: int
    records: tuple[Record, ...] = ()
    is_behind: bool = False


@dataclass(frozen=True, slots=True)
class SuspectClone:
    """Two devices seem to hold a meter's keys: note it; `ends_session` also ends its session.

    `path` and `other_path` are where they were heard; `at` UTC s.
    """

    meter: Eui64
    sign: CloneSign
    at: int
    path: str
    other_path: str
    ends_session: bool


@dataclass(frozen=True, slots=True)
class DismissSuspicion:
    """Somebody looked into it: the meter is suspected no more. The outcome: whether it was."""

    meter: Eui64


@dataclass(frozen=True, slots=True)
class KeepRead:
    """An on-demand read as it now stands."""

    read: OnDemandRead


@dataclass(frozen=True, slots=True)
class InterruptReads:
    """Every read that is still being asked ends as interrupted: whoever asked it is gone."""


@dataclass(frozen=True, slots=True)
class RecallDone:
    """A meter was asked for the past days that a restored backup lacks."""

    meter: Eui64


Write = (
    RecallDone
    | EnrolMeters
    | ChangeStanding
    | EndSessions
    | ConfirmTrust
    | KeepSession
    | ReserveNumbers
    | KeepDelivery
    | KeepRead
    | InterruptReads
    | SuspectClone
    | DismissSuspicion
    | MeshWrite
)


class Kept(enum.StrEnum):
    """What became of one record of a delivery."""

    NEW = "new"
    REPEATED = "repeated"
    CONFLICT = "conflicts with what is stored"


@dataclass(frozen=True, slots=True)
class Reserved:
    """How many sender sequence numbers were reserved in that session so far, these among them."""

    total: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """How many meters were new, and how many were known with the same key.

    `moved` counts those among the known that were only known from a shipment, and are enrolled now.
    """

    new: int
    known: int
    moved: int = 0


@dataclass(frozen=True, slots=True)
class EnrolmentConflict:
    """These meters are known with another key; nothing was enrolled."""

    meters: tuple[Eui64, ...]


@dataclass(frozen=True, slots=True)
class StandingChanged:
    """These meters were moved, or lost their session; `already` others were there before."""

    changed: tuple[Eui64, ...]
    already: int


@dataclass(frozen=True, slots=True)
class StandingRefused:
    """For these meters there is no such step from where they stand, None: not in the registry.

    Nothing was changed.
    """

    meters: tuple[tuple[Eui64, MeterState | None], ...]


@dataclass(frozen=True, slots=True)
class NotEnrolled:
    """The meter is not enrolled any more, so its session was not kept."""


Outcome = (
    Enrolled
    | EnrolmentConflict
    | StandingChanged
    | StandingRefused
    | NotEnrolled
    | Reserved
    | tuple[Kept, ...]
    | MeshOutcome
    | StoreError
    | bool
    | None
)
"""Of an enrolment; of a step; of a session that came too late; of each record of a delivery, in
order; of a reservation; of addresses; of a failed commit; whether there was anything to do; of all
else."""


@dataclass(frozen=True, slots=True)
class MeterOverview:
    """One row of the list of meters. Times are UTC s, days as in the meter's own offset."""

    meter: Meter
    is_secured: bool
    location: Location | None
    registration: RegistrationRecord | None
    newest_day: int | None
    report_count: int
    suspicion: Suspicion | None = None


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A day block with its channel's declaration and the provenance of its report (UTC ms).

    `offset_min` is the standard-time offset in which the block's day is counted.
    """

    block: DayBlock
    channel: ChannelRecord
    received_ms: int
    method: int
    path: str
    offset_min: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How much the store holds; `reports` for each of the days asked for."""

    meters: int
    secured: int
    registered: int
    reports: int
    reports_of_day: dict[int, int]
    blocks: int
    log_entries: int
    quarantined: int
    reads_asked: int
    reads_answered: int
    suspected: int = 0
    standing: Mapping[MeterState, int] = field(default_factory=dict)
    """How many meters stand where; a state without one may be missing."""


@dataclass(slots=True)
class Commits:
    """The groups of writes since the start; `failed_count` of them were rolled back."""

    sizes: Spread = field(default_factory=lambda: Spread(GROUP_SIZES))
    seconds: Spread = field(default_factory=lambda: Spread(COMMIT_S))
    failed_count: int = 0


class Store(Protocol):
    """One store. All of it is called on the event loop's thread."""

    def submit(self, write: Write, done: Callable[[Outcome], None]) -> None:
        """Queue `write`; `done` is called with its outcome after the commit, in order.

        Raises StoreBusy when the queue is at its bound; `done` is not called then.
        """

    async def commit(self, write: Write) -> Outcome:
        """`submit`, and wait. Raises StoreError when the commit failed."""

    @property
    def is_restored(self) -> bool:
        """Whether it is older than what ran here last: a backup that was put back."""

    @property
    def depth(self) -> tuple[int, int]:
        """Writes that wait, and their bound."""

    @property
    def commits(self) -> Commits:
        """How the groups of writes went, for reading only."""

    async def meters(
        self, *, after: Eui64 | None = None, limit: int = 1000
    ) -> Sequence[MeterOverview]:
        """Meters in the order of their identifiers, from the one after `after` on."""

    async def find_meter(self, meter: Eui64) -> Meter | None:
        """The registry's row, or None."""

    async def find_overview(self, meter: Eui64) -> MeterOverview | None:
        """The list's row of one meter, or None."""

    async def history(self, meter: Eui64, *, limit: int = 1000) -> Sequence[StandingChange]:
        """Every step that was taken with a meter, newest first."""

    async def trust_counts(self) -> Mapping[bytes, int]:
        """How many meters in service confirmed each head-end key by its kid; b"" for none."""

    async def unconfirmed(self, kid: bytes) -> Iterable[Eui64]:
        """The meters in service that have not confirmed the head-end key of that kid."""

    async def find_details(self, meter: Eui64) -> DeviceDetails | None:
        """What the newest shipment file says of a device, or None."""

    async def sessions(
        self, *, after: Eui64 = FIRST, limit: int | None = None
    ) -> Sequence[StoredSession]:
        """The security contexts with enrolled meters, for a start.

        Here and in the other three for a start: of `limit` meters at most, in the order of their
        identifiers, from the one after `after` on.
        """

    async def find_session(self, meter: Eui64) -> StoredSession | None:
        """The security context with a meter, wherever it stands, or None."""

    async def heard_at(self, meter: Eui64) -> int | None:
        """When the newest delivery in the meter's session came, UTC s; None without one."""

    async def newest_at(self) -> int:
        """The newest time at which anything was stored, UTC s; 0 in an empty store."""

    async def find_former(self, recipient_id: bytes) -> FormerSession | None:
        """The session with that recipient id, if it is the one that a meter had before."""

    async def suspicions(self) -> Sequence[Suspicion]:
        """Every meter of which there seem to be two, the latest first."""

    async def recalls(self) -> Iterable[Eui64]:
        """Meters to be asked for past days, since a backup was put back."""

    async def report_days(self, meter: Eui64, first_day: int, last_day: int) -> Sequence[int]:
        """Which of those days a report is stored of, both included."""

    async def locations(
        self, *, after: Eui64 = FIRST, limit: int | None = None
    ) -> Sequence[Location]:
        """Where meters were last heard, for a start."""

    async def channel_sets(
        self, *, after: Eui64 = FIRST, limit: int | None = None
    ) -> Sequence[tuple[Eui64, int, ChannelRecord]]:
        """Every channel of every set that meters declared, set by set, for a start."""

    async def channels(self, meter: Eui64, channel_set: int) -> Sequence[ChannelRecord]:
        """What the channels of one set mean; empty if it was never declared."""

    async def offsets(
        self, *, after: Eui64 = FIRST, limit: int | None = None
    ) -> Sequence[tuple[Eui64, int]]:
        """Registered meters' standard-time offsets in minutes, for a start."""

    async def blocks(self, meter: Eui64, first_day: int, last_day: int) -> Sequence[StoredBlock]:
        """A meter's blocks of those days, both included, by channel and day."""

    async def blocks_of_day(self, day: int) -> Sequence[StoredBlock]:
        """Every meter's blocks of one day."""

    async def log_entries(self, meter: Eui64, *, limit: int = 1000) -> Sequence[LogRecord]:
        """A meter's log entries, newest first."""

    async def reads(
        self, meter: Eui64 | None = None, *, limit: int = 1000
    ) -> Sequence[OnDemandRead]:
        """On-demand reads, newest first; of one meter, or of all."""

    async def find_read(self, identifier: bytes) -> OnDemandRead | None:
        """One on-demand read, or None."""

    async def mesh_areas(self) -> Sequence[Area]:
        """Every area of the mesh."""

    async def mesh_nodes(self, *, after: Eui64 = FIRST, limit: int = 1000) -> Sequence[Assignment]:
        """Who has which short address, in the order of identifiers, from the one after `after`."""

    async def mesh_reports(
        self, *, after: tuple[int, Eui64] = (-1, FIRST), limit: int = 1000
    ) -> Sequence[StoredReport]:
        """Last reports of nodes, the oldest first, from after that time (UTC s) and node on."""

    async def mesh_statuses(
        self, *, after: Eui64 = FIRST, limit: int = 1000
    ) -> Sequence[StoredStatus]:
        """Last statuses of nodes, in the order of identifiers, from the one after `after` on."""

    async def mesh_denied(self) -> Sequence[tuple[AreaId, Eui64]]:
        """Who is kept out of which area."""

    async def counts(self, days: Sequence[int] = ()) -> Counts:
        """How much there is."""

    async def close(self) -> None:
        """Commit what waits, then close."""
