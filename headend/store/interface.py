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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from amistack.errors import StoreError
from amistack.identifiers import Eui64
from headend.domain.meters import (
    ChannelRecord,
    Location,
    Meter,
    RegistrationRecord,
    StoredSession,
)
from headend.domain.readings import (
    DayBlock,
    LogRecord,
    OnDemandRead,
    QuarantinedRecord,
    ReportRecord,
)
from headend.domain.spread import Spread

QUEUE_MAX: Final = 16_384
GROUP_SIZES: Final = (1, 3, 10, 30, 100, 300, 1_000)
"""Ranges of writes in a group."""
COMMIT_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Ranges of seconds that a group's transaction takes, its flush included."""

Record = RegistrationRecord | ReportRecord | DayBlock | LogRecord | QuarantinedRecord


@dataclass(frozen=True, slots=True)
class EnrolMeters:
    """Take meters into the registry: all of them, or none if one is known with another key."""

    meters: tuple[Meter, ...]


@dataclass(frozen=True, slots=True)
class KeepSession:
    """A new security context, which replaces the meter's earlier one."""

    session: StoredSession
    path: str


@dataclass(frozen=True, slots=True)
class ReserveNumbers:
    """Sender sequence numbers below `until` may be used from now on, and never again after."""

    recipient_id: bytes
    until: int


@dataclass(frozen=True, slots=True)
class KeepDelivery:
    """What one protected request brought, and its replay window, in one transaction.

    `path` and `received_ms` (UTC) are the provenance of all its records.
    """

    meter: Eui64
    recipient_id: bytes
    window: tuple[int, int]
    path: str
    received_ms: int
    records: tuple[Record, ...] = ()


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
    | KeepSession
    | ReserveNumbers
    | KeepDelivery
    | KeepRead
    | InterruptReads
)


class Kept(enum.Enum):
    """What became of one record of a delivery."""

    NEW = "new"
    REPEATED = "repeated"
    CONFLICT = "conflicts with what is stored"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """How many meters were new, and how many were known with the same key."""

    new: int
    known: int


@dataclass(frozen=True, slots=True)
class EnrolmentConflict:
    """These meters are known with another key; nothing was enrolled."""

    meters: tuple[Eui64, ...]


Outcome = Enrolled | EnrolmentConflict | tuple[Kept, ...] | StoreError | None
"""Of an enrolment; of each record of a delivery, in order; of a failed commit; of all else."""


@dataclass(frozen=True, slots=True)
class MeterOverview:
    """One row of the list of meters. Times are UTC s, days as in the meter's own offset."""

    meter: Meter
    is_secured: bool
    location: Location | None
    registration: RegistrationRecord | None
    newest_day: int | None
    report_count: int


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

    async def sessions(self) -> Iterable[StoredSession]:
        """Every security context, for a start."""

    async def recalls(self) -> Iterable[Eui64]:
        """Meters to be asked for past days, since a backup was put back."""

    async def report_days(self, meter: Eui64, first_day: int, last_day: int) -> Sequence[int]:
        """Which of those days a report is stored of, both included."""

    async def locations(self) -> Iterable[Location]:
        """Where every meter was last heard, for a start."""

    async def channel_sets(self) -> Iterable[tuple[Eui64, int, ChannelRecord]]:
        """Every channel of every set that a meter declared, set by set, for a start."""

    async def channels(self, meter: Eui64, channel_set: int) -> Sequence[ChannelRecord]:
        """What the channels of one set mean; empty if it was never declared."""

    async def offsets(self) -> Iterable[tuple[Eui64, int]]:
        """Every registered meter's standard-time offset in minutes, for a start."""

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

    async def counts(self, days: Sequence[int] = ()) -> Counts:
        """How much there is."""

    async def close(self) -> None:
        """Commit what waits, then close."""
