"""The JSON documents of the HTTP door: what it writes, and what its client reads.

Instants are texts in UTC (`2026-11-20T10:34:43Z`), days are texts in the meter's standard-time
offset (`2026-11-20`), meters and keys are hex digits, energy is in the channel's unit with the
multiplier applied. A reader ignores keys that it does not know.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from amistack.identifiers import Eui64, format_eui64
from amistack.model import RegistrationReason
from headend.domain.downloads import Download
from headend.domain.mesh import Endpoints
from headend.domain.meters import ChannelRecord, RegistrationRecord, Suspicion
from headend.domain.readings import LogRecord, OnDemandRead
from headend.domain.spread import Spread
from headend.domain.standing import DeviceDetails, StandingChange
from headend.lifecycle.rotation import RotationState
from headend.mdm.days import format_day
from headend.mdm.readings import ChannelDay, ReadNow
from headend.southbound.ledger import Tally
from headend.status import Status
from headend.store.interface import MeterOverview, StandingChanged

Number = int | float


@dataclass(frozen=True, slots=True)
class QueueDocument:
    """A bounded queue: its depth now, and its bound."""

    depth: int
    bound: int


@dataclass(frozen=True, slots=True)
class CountsDocument:
    """How much the store holds; `reports_of_day` for yesterday and today in UTC."""

    meters: int
    secured: int
    registered: int
    reports: int
    reports_of_day: Mapping[str, int]
    blocks: int
    log_entries: int
    quarantined: int
    reads_asked: int
    reads_answered: int
    suspected: int
    standing: Mapping[str, int] = field(default_factory=dict)
    """How many meters stand where in the registry."""


@dataclass(frozen=True, slots=True)
class UplinkDocument:
    """The uplinks of one kind since the start; `pending` as of now.

    `difference` is received - stored - answered - refused - pending: 0, or uplinks are lost.
    """

    received: int
    stored: int
    answered: int
    refused: int
    pending: int
    difference: int


@dataclass(frozen=True, slots=True)
class SpreadDocument:
    """How a figure spreads: `counts` for each range up to a bound, and above the last; its sum."""

    bounds: tuple[Number, ...]
    counts: tuple[int, ...]
    total: Number


@dataclass(frozen=True, slots=True)
class CommitsDocument:
    """The store's groups of writes since the start; `failed` ones were rolled back."""

    group_sizes: SpreadDocument
    seconds: SpreadDocument
    failed: int


@dataclass(frozen=True, slots=True)
class EndpointsDocument:
    """Nodes of the mesh: how many are in each state; how many came there from another one, and how
    many registered for each reason, since `started_at`.
    """

    states: Mapping[str, int]
    moves: Mapping[str, int]
    registrations: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StatusDocument:
    """How the head-end is. All that is counted by name is since `started_at`.

    `reconciles`: every uplink that came is stored, answered, refused or pending. `clock_doubt`: why
    the host's clock is not believed, so that no time is served. `endpoints`: the nodes of the mesh,
    null without one.
    """

    version: str
    started_at: str
    at: str
    listen: str
    counts: CountsDocument
    queues: Mapping[str, QueueDocument]
    counters: Mapping[str, int]
    refused: Mapping[str, int]
    flagged: Mapping[str, int]
    quarantined: Mapping[str, int]
    reconciles: bool
    uplinks: Mapping[str, UplinkDocument]
    refused_uplinks: Mapping[str, Mapping[str, int]]
    oldest_pending_s: Number
    sessions: int
    records: Mapping[str, Mapping[str, int]]
    reads: Mapping[str, int]
    recalls: Mapping[str, int]
    recalls_waiting: int
    commits: CommitsDocument
    link: Mapping[str, int]
    capture: Mapping[str, int]
    clock_doubt: str | None
    endpoints: EndpointsDocument | None


@dataclass(frozen=True, slots=True)
class ChannelDocument:
    """One channel as the meter declared it."""

    number: int
    reading_type: str
    register_type: str
    multiplier: int
    unit: str
    interval_s: int


@dataclass(frozen=True, slots=True)
class RegistrationDocument:
    """What a meter declared when it last registered."""

    registered_at: str
    reason: str
    software: str
    model_version: int
    channel_set: int
    standard_offset_min: int
    channels: tuple[ChannelDocument, ...]


@dataclass(frozen=True, slots=True)
class MeterDocument:
    """One meter of the registry. `is_secured`: a session's keys are held."""

    meter: str
    public_key: str
    state: str
    enrolled_at: str
    is_secured: bool
    path: str | None
    path_since: str | None
    registration: RegistrationDocument | None
    newest_day: str | None
    report_count: int


@dataclass(frozen=True, slots=True)
class MeterPage:
    """Some meters in order; `next` is what to ask for `after`, or null at the end."""

    meters: tuple[MeterDocument, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class EnrolmentDocument:
    """How many meters were new, and how many were known with the same key.

    `moved` counts those among the known that were only known from a shipment, and may join now.
    """

    new: int
    known: int
    moved: int = 0


@dataclass(frozen=True, slots=True)
class StandingDocument:
    """What a step came to: the meters that were moved, and how many others were there before."""

    changed: tuple[str, ...]
    already: int


@dataclass(frozen=True, slots=True)
class StepDocument:
    """One step of a meter's history: `state` is where it stood after it."""

    number: int
    at: str
    step: str
    state: str
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class HistoryDocument:
    """Every step taken with a meter, newest first, and what its maker says of it, empty if not."""

    meter: str
    manufacturer: str
    model: str
    serial: str
    hardware: str
    firmware: str
    steps: tuple[StepDocument, ...]


@dataclass(frozen=True, slots=True)
class KeyDocument:
    """One of the head-end's keys, and how many meters in service confirmed it.

    `stage`: current, to be signed, on offer. `epoch` is the root's, null before it has signed.
    """

    kid: str
    public_key: str
    epoch: int | None
    stage: str
    meters: int


@dataclass(frozen=True, slots=True)
class KeysDocument:
    """Where a change of the head-end's keys stands.

    `next_epoch` is what the root's next statement needs; `unconfirmed` how many meters in service
    have yet to confirm the newest key, null if none is on offer; `counters` what meters answered.
    """

    keys: tuple[KeyDocument, ...]
    root_key: str | None
    next_epoch: int
    unconfirmed: int | None
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class QualityDocument:
    """`count` intervals from number `first` on are flagged; the others are plainly good."""

    first: int
    count: int
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChannelDayDocument:
    """One channel's day: a value for each interval of `interval_s` from `start`, null if missing.

    `opening` and `closing` are the register at the midnights, `total` is their difference.
    """

    meter: str
    day: str
    standard_offset_min: int
    start: str
    channel: int
    reading_type: str
    register_type: str
    unit: str
    interval_s: int
    values: tuple[Number | None, ...]
    qualities: tuple[QualityDocument, ...]
    opening: Number
    closing: Number
    total: Number
    flags: tuple[str, ...]
    method: str
    path: str
    received_at: str


@dataclass(frozen=True, slots=True)
class ReadingsDocument:
    """Days of readings; of one meter by channel and day, of one day by meter and channel."""

    readings: tuple[ChannelDayDocument, ...]


@dataclass(frozen=True, slots=True)
class RegisterDocument:
    """A register now; null and without unit where the meter never declared the channel."""

    channel: int
    register_type: str
    unit: str
    value: Number | None


@dataclass(frozen=True, slots=True)
class LogEntryDocument:
    """One entry of a meter's log, by the meter's clock."""

    sequence: int
    at: str
    event_type: str
    detail: str
    is_time_doubtful: bool


@dataclass(frozen=True, slots=True)
class LogDocument:
    """A meter's log as far as it was reported, newest first."""

    entries: tuple[LogEntryDocument, ...]


@dataclass(frozen=True, slots=True)
class AnswerDocument:
    """What a meter said when asked, `at` by its clock: registers, and `readings` since midnight."""

    at: str
    clock_state: str
    day: str
    registers: tuple[RegisterDocument, ...]
    readings: tuple[ChannelDayDocument, ...]
    entries: tuple[LogEntryDocument, ...]


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """One on-demand read; `detail` says why there is no answer."""

    identifier: str
    meter: str
    asked_at: str
    result: str
    answered_at: str | None
    path: str
    detail: str
    answer: AnswerDocument | None


@dataclass(frozen=True, slots=True)
class DownloadDocument:
    """All that a meter holds: the pages of its dump in hex, and the path they came."""

    meter: str
    path: str
    pages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadsDocument:
    """On-demand reads, newest first, without what was answered."""

    reads: tuple[ReadDocument, ...]


@dataclass(frozen=True, slots=True)
class SuspicionDocument:
    """A meter of which there seem to be two, heard at the two paths; `sign` showed it last."""

    meter: str
    sign: str
    first_at: str
    last_at: str
    count: int
    path: str
    other_path: str


@dataclass(frozen=True, slots=True)
class SuspicionsDocument:
    """Every such meter, the latest first."""

    suspicions: tuple[SuspicionDocument, ...]


@dataclass(frozen=True, slots=True)
class DismissalDocument:
    """Whether the meter was suspected until now."""

    was_suspected: bool


@dataclass(frozen=True, slots=True)
class PlaceDocument:
    """One thing that is wrong with a request, and where (a JSON Pointer or a parameter)."""

    pointer: str
    detail: str


@dataclass(frozen=True, slots=True)
class ProblemDocument:
    """Why a request was not granted (RFC 9457). `errors` names places, where there are several."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[PlaceDocument, ...] = ()


# From the domain's values


def instant(utc_s: float) -> str:
    """UTC s as a text; with milliseconds if it has any."""
    moment = dt.datetime.fromtimestamp(utc_s, dt.UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace(
        "+00:00", "Z"
    )


def status_document(status: Status) -> StatusDocument:
    """How the head-end is."""
    counts, measures = status.counts, status.measures
    about, commits = measures.about, measures.commits
    return StatusDocument(
        about.version,
        instant(about.started_at),
        instant(status.at),
        about.listen,
        CountsDocument(
            counts.meters,
            counts.secured,
            counts.registered,
            counts.reports,
            {format_day(day): count for day, count in sorted(counts.reports_of_day.items())},
            counts.blocks,
            counts.log_entries,
            counts.quarantined,
            counts.reads_asked,
            counts.reads_answered,
            counts.suspected,
            {state.word: count for state, count in sorted(counts.standing.items())},
        ),
        {name: QueueDocument(*queue) for name, queue in measures.queues.items()},
        measures.counters,
        measures.refused,
        measures.flagged,
        measures.quarantined,
        measures.reconciles,
        {kind: _uplinks(tally) for kind, tally in measures.uplinks.items()},
        _nested(measures.refused_uplinks),
        measures.oldest_pending_s,
        measures.session_count,
        _nested(measures.records),
        measures.reads,
        measures.recalls,
        measures.recalls_waiting,
        CommitsDocument(_spread(commits.sizes), _spread(commits.seconds), commits.failed_count),
        measures.link,
        measures.capture,
        measures.clock_doubt,
        _endpoints(measures.endpoints),
    )


def _endpoints(endpoints: Endpoints | None) -> EndpointsDocument | None:
    if endpoints is None:
        return None
    return EndpointsDocument(endpoints.states, endpoints.moves, endpoints.registrations)


def _uplinks(tally: Tally) -> UplinkDocument:
    return UplinkDocument(
        tally.received,
        tally.stored,
        tally.answered,
        tally.refused,
        tally.pending,
        tally.difference,
    )


def _spread(spread: Spread) -> SpreadDocument:
    return SpreadDocument(spread.bounds, spread.counts, spread.total)


def _nested(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (outer, inner), count in counts.items():
        nested.setdefault(outer, {})[inner] = count
    return nested


def meter_document(overview: MeterOverview) -> MeterDocument:
    """One meter of the registry."""
    meter, location = overview.meter, overview.location
    return MeterDocument(
        format_eui64(meter.id),
        meter.public_key.hex(),
        meter.state.name.lower(),
        instant(meter.enrolled_at),
        overview.is_secured,
        None if location is None else location.path,
        None if location is None else instant(location.confirmed_at),
        None if overview.registration is None else _registration(overview.registration),
        None if overview.newest_day is None else format_day(overview.newest_day),
        overview.report_count,
    )


def suspicions_document(suspicions: Sequence[Suspicion]) -> SuspicionsDocument:
    """Meters of which there seem to be two."""
    return SuspicionsDocument(
        tuple(
            SuspicionDocument(
                format_eui64(one.meter),
                one.sign.value,
                instant(one.first_at),
                instant(one.last_at),
                one.count,
                one.path,
                one.other_path,
            )
            for one in suspicions
        )
    )


def _registration(record: RegistrationRecord) -> RegistrationDocument:
    return RegistrationDocument(
        instant(record.registered_at),
        RegistrationReason(record.reason).name.lower().replace("_", " "),
        record.software,
        record.model_version,
        record.channel_set,
        record.standard_offset_min,
        tuple(_channel(channel) for channel in record.channels),
    )


def _channel(channel: ChannelRecord) -> ChannelDocument:
    return ChannelDocument(
        channel.number,
        channel.reading_type,
        channel.register_type,
        channel.multiplier,
        channel.unit,
        channel.interval_s,
    )


def channel_day_document(day: ChannelDay) -> ChannelDayDocument:
    """One channel's day."""
    return ChannelDayDocument(
        format_eui64(day.meter),
        format_day(day.day),
        day.offset_min,
        instant(day.start),
        day.channel,
        day.reading_type,
        day.register_type,
        day.unit,
        day.interval_s,
        day.values,
        tuple(_quality_runs(day.qualities)),
        day.opening,
        day.closing,
        day.total,
        day.flags,
        day.method,
        day.path,
        instant(day.received_ms / 1000),
    )


def _quality_runs(qualities: Iterable[tuple[str, ...]]) -> list[QualityDocument]:
    runs: list[QualityDocument] = []
    for index, flags in enumerate(qualities):
        if not flags:
            continue
        last = runs[-1] if runs else None
        if last is not None and last.first + last.count == index and last.flags == flags:
            runs[-1] = QualityDocument(last.first, last.count + 1, flags)
        else:
            runs.append(QualityDocument(index, 1, flags))
    return runs


def readings_document(days: Iterable[ChannelDay]) -> ReadingsDocument:
    """Days of readings."""
    return ReadingsDocument(tuple(channel_day_document(day) for day in days))


def download_document(download: Download) -> DownloadDocument:
    """A meter's dump."""
    return DownloadDocument(
        format_eui64(download.meter), download.path, tuple(page.hex() for page in download.pages)
    )


def read_document(read: OnDemandRead, answer: ReadNow | None = None) -> ReadDocument:
    """One on-demand read, with what was answered if that is at hand."""
    return ReadDocument(
        read.identifier.hex(),
        format_eui64(read.meter),
        instant(read.asked_ms / 1000),
        read.result.words,
        None if read.answered_ms is None else instant(read.answered_ms / 1000),
        read.path,
        read.detail,
        None if answer is None else _answer(answer),
    )


def _answer(answer: ReadNow) -> AnswerDocument:
    return AnswerDocument(
        instant(answer.at),
        answer.clock_state,
        format_day(answer.day),
        tuple(
            RegisterDocument(one.channel, one.register_type, one.unit, one.value)
            for one in answer.registers
        ),
        tuple(channel_day_document(day) for day in answer.channels),
        tuple(
            LogEntryDocument(sequence, instant(at), event_type, detail, is_time_doubtful)
            for sequence, at, event_type, detail, is_time_doubtful in answer.entries
        ),
    )


def log_document(entries: Iterable[LogRecord]) -> LogDocument:
    """A meter's log."""
    return LogDocument(
        tuple(
            LogEntryDocument(
                entry.sequence,
                instant(entry.at),
                entry.event_type,
                entry.detail,
                entry.is_time_doubtful,
            )
            for entry in entries
        )
    )


def history_document(
    meter: Eui64, changes: Iterable[StandingChange], details: DeviceDetails | None
) -> HistoryDocument:
    """A meter's history."""
    said = DeviceDetails() if details is None else details
    return HistoryDocument(
        format_eui64(meter),
        said.manufacturer,
        said.model,
        said.serial,
        said.hardware,
        said.firmware,
        tuple(
            StepDocument(
                one.number,
                instant(one.at_ms / 1000),
                one.step.word,
                one.state.word,
                one.actor,
                one.reason,
            )
            for one in changes
        ),
    )


def keys_document(state: RotationState) -> KeysDocument:
    """Where a change of the head-end's keys stands."""
    return KeysDocument(
        tuple(
            KeyDocument(key.kid.hex(), key.public_key.hex(), key.epoch, key.stage, key.meter_count)
            for key in state.keys
        ),
        None if state.root is None else state.root.hex(),
        state.next_epoch,
        state.unconfirmed_count,
        dict(state.counters),
    )


def standing_document(outcome: StandingChanged) -> StandingDocument:
    """What a step came to."""
    return StandingDocument(tuple(map(format_eui64, outcome.changed)), outcome.already)
