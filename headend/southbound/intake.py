"""The steps of an uplink, in order: from an authentic request to a write and its answer.

An authentic report is never refused for its content: each record of it is accepted, accepted and
flagged, quarantined with a reason, or reported unreadable (and kept as it came), and all of these
are final for the meter. What is not a report may be refused: `Refused` carries the answer.

Raises  Refused, and nothing else
Never   stores, sends, or reads a clock
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import cbor2

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import AmiError, CoapError, ModelError
from amistack.identifiers import Eui64, format_eui64
from amistack.model import (
    CONTENT_FORMAT_V1,
    ClockState,
    DailyReport,
    Disposition,
    FlowDirection,
    IntervalBlock,
    ReadingType,
    RecordKind,
    RecordRef,
    Registration,
    RegistrationAcknowledgement,
    ReportAcknowledgement,
    TimeAnswer,
    Verdict,
    kept_indices,
)
from amistack.model.quality import runs_to_tree
from amistack.model.resources import REGISTRATION, REPORT, TIME
from headend.domain.meters import ChannelRecord, RegistrationRecord
from headend.domain.readings import (
    BlockFlag,
    DayBlock,
    LogRecord,
    Method,
    QuarantinedRecord,
    ReportRecord,
)
from headend.store.interface import Kept, Record

MODEL_VERSION: Final = 1
DAY_S: Final = 86_400
DAY_AGE_MAX: Final = 3 * 366
"""Days back that a report may be about; a meter keeps far fewer."""
CLOCK_ERROR_MAX: Final = 120
"""Seconds that a meter's clock may be off before what it stamps is doubtful."""
REASON_SIZE_MAX: Final = 64


class Refused(AmiError):
    """The request ends here: counted by `reason`, answered with `answer`."""

    def __init__(self, reason: str, answer: Message) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Uplink:
    """One authentic request of a meter; `received_ms` UTC."""

    meter: Eui64
    message: Message
    received_ms: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What an uplink comes to: records to commit, and the answer once that is done.

    `answer` takes what became of each record and the ms that the uplink was held. Without records
    nothing needs to be durable.
    """

    records: tuple[Record, ...]
    answer: Callable[[tuple[Kept, ...], int], Message]


@dataclass(slots=True)
class _Sorted:
    """A report on its way: what is kept of it, where each record stood, what is to be said."""

    records: list[Record] = field(default_factory=list)
    places: list[RecordRef | None] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def keep(self, record: Record, place: RecordRef | None = None) -> None:
        self.records.append(record)
        self.places.append(place)

    def say(self, place: RecordRef, disposition: Disposition, reason: str) -> None:
        self.verdicts.append(Verdict(place, disposition, shorten(reason)))


class ChannelSets:
    """What every meter's channels mean, by the version of its registration they stand in.

    Bounded by the registry: an entry is made only for what an enrolled meter registered.
    """

    def __init__(self) -> None:
        self._sets: dict[tuple[Eui64, int], tuple[ChannelRecord, ...]] = {}
        self._offsets: dict[Eui64, int] = {}
        # Most meters of a fleet declare the same: one copy serves them all.
        self._shared: dict[tuple[ChannelRecord, ...], tuple[ChannelRecord, ...]] = {}

    def add(self, meter: Eui64, channel_set: int, channels: Iterable[ChannelRecord]) -> None:
        """Note what the channels of a set mean; a later declaration replaces an earlier one."""
        declared = tuple(channels)
        self._sets[(meter, channel_set)] = self._shared.setdefault(declared, declared)

    def set_offset(self, meter: Eui64, offset_min: int) -> None:
        """Note the standard-time offset in which a meter counts its days from now on."""
        self._offsets[meter] = offset_min

    def offset_of(self, meter: Eui64) -> int:
        """A registered meter's standard-time offset in minutes."""
        return self._offsets.get(meter, 0)

    def find(self, meter: Eui64, channel_set: int) -> dict[int, ChannelRecord] | None:
        """The channels of a set by their number, or None if it was never declared."""
        channels = self._sets.get((meter, channel_set))
        return None if channels is None else {channel.number: channel for channel in channels}


class Intake:
    """Decides what is kept of what meters send."""

    def __init__(self, channel_sets: ChannelSets) -> None:
        self._channel_sets = channel_sets
        self.flagged: Counter[str] = Counter()
        self.quarantined: Counter[str] = Counter()

    def take(self, uplink: Uplink) -> Taken:
        """What comes of `uplink`. Raises Refused with the answer where nothing does."""
        try:
            path = uplink.message.path
        except CoapError as error:
            raise Refused(error.reason, _plain(Code.BAD_REQUEST)) from None
        if path == REPORT:
            _expect(uplink.message, Code.POST)
            return self._take_report(uplink)
        if path == REGISTRATION:
            _expect(uplink.message, Code.POST)
            return self._take_registration(uplink)
        if path == TIME:
            if uplink.message.code != Code.GET:
                raise Refused("method not allowed", _plain(Code.METHOD_NOT_ALLOWED))
            return Taken((), lambda _, held_ms: _time(uplink, held_ms))
        raise Refused("no such resource", _plain(Code.NOT_FOUND))

    # Registration

    def _take_registration(self, uplink: Uplink) -> Taken:
        try:
            registration = Registration.decode(uplink.message.payload)
        except ModelError as error:
            raise Refused(
                f"registration: {error.reason}", _plain(Code.BAD_REQUEST, str(error))
            ) from None
        if registration.meter != uplink.meter:
            raise Refused(
                "registration of another meter",
                _plain(Code.FORBIDDEN, f"this session is of {format_eui64(uplink.meter)}"),
            )
        if MODEL_VERSION not in registration.model_versions:
            raise Refused(
                "no common model version",
                _plain(Code.UNPROCESSABLE_ENTITY, f"this head-end speaks {MODEL_VERSION}"),
            )
        record = record_of(registration, uplink.received_ms // 1000)

        def answer(_: tuple[Kept, ...], held_ms: int) -> Message:
            self._channel_sets.add(record.meter, record.channel_set, record.channels)
            self._channel_sets.set_offset(record.meter, record.standard_offset_min)
            acknowledgement = RegistrationAcknowledgement(
                uplink.received_ms, held_ms, MODEL_VERSION
            )
            return Message.response(
                Code.CHANGED,
                payload=acknowledgement.encode(),
                content_format=CONTENT_FORMAT_V1,
            )

        return Taken((record,), answer)

    # Reports

    def _take_report(self, uplink: Uplink) -> Taken:
        sorted_ = _Sorted()
        try:
            report, verdicts = DailyReport.decode_leniently(uplink.message.payload)
        except ModelError as error:
            self._set_aside_all(sorted_, uplink, Disposition.UNREADABLE, str(error))
        else:
            for verdict in verdicts:
                self._set_aside(
                    sorted_, uplink, verdict.record, Disposition.UNREADABLE, verdict.reason
                )
            self._sort(sorted_, uplink, report, verdicts)
        return Taken(
            tuple(sorted_.records),
            lambda kept, held_ms: self._acknowledge(sorted_, uplink, kept, held_ms),
        )

    def _sort(
        self, sorted_: _Sorted, uplink: Uplink, report: DailyReport, unreadable: list[Verdict]
    ) -> None:
        today = uplink.received_ms // 1000 // DAY_S
        if not today - DAY_AGE_MAX <= report.day <= today + 1:
            self._set_aside_all(
                sorted_, uplink, Disposition.QUARANTINED, f"day {report.day} is out of range"
            )
            return
        channels = self._channel_sets.find(uplink.meter, report.channel_set)
        if channels is None:
            self._set_aside_all(
                sorted_,
                uplink,
                Disposition.QUARANTINED,
                f"channel set {report.channel_set} was never declared",
            )
            return
        clock_flag = self._judge_clock(uplink, report)
        kept_before = len(sorted_.records)
        places = kept_indices(RecordKind.BLOCK, len(report.blocks), unreadable)
        for index, block in zip(places, report.blocks, strict=True):
            place = RecordRef(RecordKind.BLOCK, index)
            try:
                flags = self._judge_block(block, channels)
            except ModelError as error:
                self._set_aside(sorted_, uplink, place, Disposition.QUARANTINED, str(error))
                continue
            if flags:
                sorted_.say(place, Disposition.ACCEPTED, _words(flags))
            sorted_.keep(day_block(uplink.meter, report, block, flags | clock_flag), place)
        places = kept_indices(RecordKind.ENTRY, len(report.entries), unreadable)
        for index, entry in zip(places, report.entries, strict=True):
            record = LogRecord(
                uplink.meter,
                entry.sequence,
                entry.at,
                str(entry.event),
                entry.detail or "",
                entry.is_time_doubtful,
            )
            sorted_.keep(record, RecordRef(RecordKind.ENTRY, index))
        if any(isinstance(record, DayBlock) for record in sorted_.records[kept_before:]):
            sorted_.keep(
                ReportRecord(
                    uplink.meter,
                    report.day,
                    Method.SCHEDULE,
                    report.clock.utc_s,
                    report.clock.state,
                    self._channel_sets.offset_of(uplink.meter),
                )
            )

    def _judge_clock(self, uplink: Uplink, report: DailyReport) -> BlockFlag:
        error_s = abs(report.clock.utc_s - uplink.received_ms // 1000)
        if report.clock.state is ClockState.SET and error_s <= CLOCK_ERROR_MAX:
            return BlockFlag(0)
        self.flagged["clock doubtful"] += 1
        return BlockFlag.CLOCK_DOUBTFUL

    def _judge_block(self, block: IntervalBlock, channels: dict[int, ChannelRecord]) -> BlockFlag:
        """What is odd about a block. Raises ModelError if it cannot be taken for what it says."""
        channel = channels.get(block.channel)
        if channel is None:
            raise ModelError("unknown channel", f"{block.channel}")
        if channel.interval_s != block.interval_s:
            raise ModelError(
                "wrong interval length", f"{block.interval_s} s, declared {channel.interval_s} s"
            )
        known = [value for value in block.values() if value is not None]
        flags = BlockFlag(0)
        if not block.has_missing and sum(known) != block.advance:
            flags |= BlockFlag.SUM_MISMATCH
        direction = _flow_direction(channel.reading_type)
        is_one_way = direction in (FlowDirection.FORWARD, FlowDirection.REVERSE)
        if is_one_way and (block.advance < 0 or (known and min(known) < 0)):
            flags |= BlockFlag.NEGATIVE
        for flag in flags:
            self.flagged[_words(flag)] += 1
        return flags

    def _set_aside(
        self,
        sorted_: _Sorted,
        uplink: Uplink,
        place: RecordRef,
        disposition: Disposition,
        reason: str,
    ) -> None:
        # The whole payload is kept each time: what is wrong may only be seen from around it.
        self.quarantined[f"{disposition.name.lower()} {place.kind.name.lower()}"] += 1
        sorted_.say(place, disposition, reason)
        sorted_.keep(QuarantinedRecord(uplink.meter, f"{place}: {reason}", uplink.message.payload))

    def _set_aside_all(
        self, sorted_: _Sorted, uplink: Uplink, disposition: Disposition, reason: str
    ) -> None:
        self._set_aside(sorted_, uplink, RecordRef(RecordKind.WHOLE), disposition, reason)

    def _acknowledge(
        self, sorted_: _Sorted, uplink: Uplink, kept: tuple[Kept, ...], held_ms: int
    ) -> Message:
        """Say what became of the report; only called after its commit."""
        verdicts = list(sorted_.verdicts)
        for place, outcome in zip(sorted_.places, kept, strict=True):
            if outcome is Kept.CONFLICT and place is not None:
                self.quarantined["conflicting " + place.kind.name.lower()] += 1
                # Nothing of it is stored, so that it is flagged is not said any more.
                verdicts = [verdict for verdict in verdicts if verdict.record != place]
                verdicts.append(Verdict(place, Disposition.QUARANTINED, outcome.value))
        acknowledgement = ReportAcknowledgement(uplink.received_ms, held_ms, tuple(verdicts))
        return Message.response(
            Code.CHANGED, payload=acknowledgement.encode(), content_format=CONTENT_FORMAT_V1
        )


def record_of(registration: Registration, registered_at: int) -> RegistrationRecord:
    """A registration as it is stored; `registered_at` UTC s."""
    return RegistrationRecord(
        registration.meter,
        registered_at,
        registration.reason,
        registration.software,
        MODEL_VERSION,
        registration.channel_set,
        registration.standard_offset_min,
        tuple(
            ChannelRecord(
                channel.number,
                str(channel.reading_type),
                str(channel.register_type),
                channel.multiplier,
                channel.unit,
                channel.interval_s,
            )
            for channel in registration.channels
        ),
    )


def day_block(
    meter: Eui64, report: DailyReport, block: IntervalBlock, flags: BlockFlag
) -> DayBlock:
    """A block of a report as it is stored, its packed values as they came."""
    return DayBlock(
        meter,
        block.channel,
        report.day,
        report.channel_set,
        block.interval_s,
        block.opening,
        block.advance,
        block.packed,
        cbor2.dumps(runs_to_tree(block.qualities)) if block.qualities else b"",
        flags,
    )


def shorten(reason: str) -> str:
    """`reason` within REASON_SIZE_MAX octets of UTF-8, whole characters only."""
    return reason.encode()[:REASON_SIZE_MAX].decode(errors="ignore")


@functools.lru_cache(maxsize=1024)
def _flow_direction(reading_type: str) -> int:
    """Field 5 of a reading type; a fleet has a handful of them."""
    return ReadingType.parse(reading_type).flow_direction


def _words(flags: BlockFlag) -> str:
    return ", ".join((flag.name or "").lower().replace("_", " ") for flag in flags)


def _time(uplink: Uplink, held_ms: int) -> Message:
    answer = TimeAnswer(uplink.received_ms, held_ms)
    return Message.response(
        Code.CONTENT, payload=answer.encode(), content_format=CONTENT_FORMAT_V1, max_age=0
    )


def _expect(message: Message, code: Code) -> None:
    """Refuse another method, and another version of the model than the one we speak."""
    if message.code != code:
        raise Refused("method not allowed", _plain(Code.METHOD_NOT_ALLOWED))
    if message.content_format != CONTENT_FORMAT_V1:
        raise Refused(
            "unsupported content format",
            _plain(Code.UNSUPPORTED_CONTENT_FORMAT, f"expected {CONTENT_FORMAT_V1}"),
        )


def _plain(code: Code, detail: str = "") -> Message:
    """A refusal with a diagnostic payload (RFC 7252 section 5.5.2)."""
    return Message.response(code, payload=detail.encode())
