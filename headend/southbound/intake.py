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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import cbor2

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import OptionNumber
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
from amistack.model.event_notice import EventNotice
from amistack.model.events import LogEntry
from amistack.model.plain import read_plain, write_plain_acknowledgement
from amistack.model.quality import runs_to_tree
from amistack.model.resources import EVENTS, REGISTRATION, REPORT, TIME
from amistack.values import frozen_value
from headend.domain.meters import ChannelRecord, RegistrationRecord
from headend.domain.readings import (
    BlockFlag,
    DayBlock,
    LogRecord,
    Method,
    QuarantinedRecord,
    ReportRecord,
)
from headend.southbound.known import Channels, KnownMeters
from headend.store.interface import Kept, Record

MODEL_VERSION: Final = 1
DAY_S: Final = 86_400
DAY_AGE_MAX: Final = 3 * 366
"""Days back that a report may be about; a meter keeps far fewer."""
CLOCK_ERROR_MAX: Final = 120
"""Seconds that a meter's clock may be off before what it stamps is doubtful."""
REASON_SIZE_MAX: Final = 64
TIME_LATER_S: Final = 300
"""Seconds after which a meter may ask again for the time, while ours is in doubt."""


_UNFLAGGED: Final = BlockFlag(0)
_CHANGED: Final = int(Code.CHANGED)
_MODEL_OPTIONS: Final = Message.response(_CHANGED, content_format=CONTENT_FORMAT_V1).options


class Refused(AmiError):
    """The request ends here: counted by `reason`, answered with `answer`."""

    def __init__(self, reason: str, answer: Message) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


@frozen_value(frozen=True, slots=True)
class Uplink:
    """One authentic request of a meter; `received_ms` UTC.

    `is_time_known`: the clock that gave it can be believed. If not, no time is told, and nothing
    is judged by it.
    """

    meter: Eui64
    message: Message
    received_ms: int
    is_time_known: bool = True

    @property
    def told_ms(self) -> int:
        """What the meter is told of `received_ms`: 0 where that is not known."""
        return self.received_ms if self.is_time_known else 0


@frozen_value(frozen=True, slots=True)
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


class Intake:
    """Decides what is kept of what meters send."""

    def __init__(self, known: KnownMeters) -> None:
        self._known = known
        self.on_clock: Callable[[Eui64, float], None] | None = None
        """Told of each meter whose clock is set, and how many s it is ahead of ours."""
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
        if path == EVENTS:
            _expect(uplink.message, Code.POST)
            return self._take_notice(uplink)
        if path == REGISTRATION:
            _expect(uplink.message, Code.POST)
            return self._take_registration(uplink)
        if path == TIME:
            if uplink.message.code != Code.GET:
                raise Refused("method not allowed", _plain(Code.METHOD_NOT_ALLOWED))
            _expect_accept(uplink.message)
            if not uplink.is_time_known:
                raise Refused(
                    "own clock in doubt",
                    Message.response(Code.SERVICE_UNAVAILABLE, max_age=TIME_LATER_S),
                )
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
        declared = self._known.find(record.meter, record.channel_set)
        if declared is not None and tuple(declared.values()) != record.channels:
            # What is stored under that set is read by the newer declaration from now on.
            self.flagged["channel set declared anew, otherwise"] += 1

        def answer(_: tuple[Kept, ...], held_ms: int) -> Message:
            self._known.add(record.meter, record.channel_set, record.channels)
            self._known.set_offset(record.meter, record.standard_offset_min)
            acknowledgement = RegistrationAcknowledgement(uplink.told_ms, held_ms, MODEL_VERSION)
            return Message.response(
                Code.CHANGED,
                payload=acknowledgement.encode(),
                content_format=CONTENT_FORMAT_V1,
            )

        return Taken((record,), answer)

    # Event notices

    def _take_notice(self, uplink: Uplink) -> Taken:
        """Events before their report: they are kept as its log entries would be."""
        sorted_ = _Sorted()
        try:
            meter, clock, events, verdicts = EventNotice.decode_leniently(uplink.message.payload)
            if meter != uplink.meter:
                raise ModelError("of another meter", format_eui64(meter))
        except ModelError as error:
            self._set_aside_all(sorted_, uplink, Disposition.UNREADABLE, str(error))
        else:
            if self.on_clock is not None and clock.state is ClockState.SET:
                self.on_clock(uplink.meter, clock.utc_s - uplink.received_ms / 1000)
            for verdict in verdicts:
                self._set_aside(
                    sorted_, uplink, verdict.record, Disposition.UNREADABLE, verdict.reason
                )
            for index, event in events:
                record = log_record(uplink.meter, event.entry)
                sorted_.keep(record, RecordRef(RecordKind.ENTRY, index))
        return Taken(
            tuple(sorted_.records),
            lambda kept, held_ms: self._acknowledge(sorted_, uplink, kept, held_ms),
        )

    # Reports

    def _take_report(self, uplink: Uplink) -> Taken:
        taken = self._take_plain(uplink)
        if taken is not None:
            return taken
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

    def _take_plain(self, uplink: Uplink) -> Taken | None:
        """A report of the common form about which there is nothing to say, or None.

        It is kept and answered exactly as the careful way would, which takes everything else.
        """
        report = read_plain(uplink.message.payload)
        if report is None:
            return None
        meter, known = uplink.meter, self._known
        channel_set, day, clock_s, clock_state, blocks, entries = report
        received_s = uplink.received_ms // 1000
        today = received_s // DAY_S
        channels = known.find(meter, channel_set)
        if (
            channels is None
            or not blocks
            or clock_state is not ClockState.SET
            or not -CLOCK_ERROR_MAX <= clock_s - received_s <= CLOCK_ERROR_MAX
            or not today - DAY_AGE_MAX <= day <= today + 1
        ):
            return None
        records: list[Record] = []
        for number, interval_s, opening, advance, packed, total, least in blocks:
            channel = channels.get(number)
            if (
                channel is None
                or channel.interval_s != interval_s
                or total != advance
                or ((least < 0 or advance < 0) and _is_one_way(channel.reading_type))
            ):
                return None
            records.append(
                DayBlock(
                    meter,
                    number,
                    day,
                    channel_set,
                    interval_s,
                    opening,
                    advance,
                    packed,
                    b"",
                    _UNFLAGGED,
                )
            )
        for sequence, at, event in entries:
            records.append(LogRecord(meter, sequence, at, event, "", is_time_doubtful=False))
        records.append(
            ReportRecord(
                meter, day, Method.SCHEDULE, clock_s, ClockState.SET, known.offset_of(meter)
            )
        )
        if self.on_clock is not None:
            self.on_clock(meter, clock_s - uplink.received_ms / 1000)
        block_count = len(blocks)

        def answer(kept: tuple[Kept, ...], held_ms: int) -> Message:
            if Kept.CONFLICT not in kept:
                payload = write_plain_acknowledgement(uplink.told_ms, held_ms)
                if payload is not None:
                    return Message(_CHANGED, options=_MODEL_OPTIONS, payload=payload)
            places = [RecordRef(RecordKind.BLOCK, index) for index in range(block_count)]
            places += [RecordRef(RecordKind.ENTRY, index) for index in range(len(entries))]
            sorted_ = _Sorted(places=[*places, None])
            return self._acknowledge(sorted_, uplink, kept, held_ms)

        return Taken(tuple(records), answer)

    def _sort(
        self, sorted_: _Sorted, uplink: Uplink, report: DailyReport, unreadable: list[Verdict]
    ) -> None:
        today = uplink.received_ms // 1000 // DAY_S
        if uplink.is_time_known and not today - DAY_AGE_MAX <= report.day <= today + 1:
            self._set_aside_all(
                sorted_, uplink, Disposition.QUARANTINED, f"day {report.day} is out of range"
            )
            return
        channels = self._known.find(uplink.meter, report.channel_set)
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
            sorted_.keep(log_record(uplink.meter, entry), RecordRef(RecordKind.ENTRY, index))
        if any(isinstance(record, DayBlock) for record in sorted_.records[kept_before:]):
            sorted_.keep(
                ReportRecord(
                    uplink.meter,
                    report.day,
                    Method.SCHEDULE,
                    report.clock.utc_s,
                    report.clock.state,
                    self._known.offset_of(uplink.meter),
                )
            )

    def _judge_clock(self, uplink: Uplink, report: DailyReport) -> BlockFlag:
        if self.on_clock is not None and report.clock.state is ClockState.SET:
            self.on_clock(uplink.meter, report.clock.utc_s - uplink.received_ms / 1000)
        error_s = abs(report.clock.utc_s - uplink.received_ms // 1000)
        is_right = error_s <= CLOCK_ERROR_MAX or not uplink.is_time_known
        if report.clock.state is ClockState.SET and is_right:
            return BlockFlag(0)
        self.flagged["clock doubtful"] += 1
        return BlockFlag.CLOCK_DOUBTFUL

    def _judge_block(self, block: IntervalBlock, channels: Channels) -> BlockFlag:
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
        if _is_one_way(channel.reading_type) and (block.advance < 0 or (known and min(known) < 0)):
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
        acknowledgement = ReportAcknowledgement(uplink.told_ms, held_ms, tuple(verdicts))
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


def log_record(meter: Eui64, entry: LogEntry) -> LogRecord:
    """An entry as it is stored, whichever message brought it."""
    return LogRecord(
        meter,
        entry.sequence,
        entry.at,
        str(entry.event),
        entry.detail or "",
        entry.is_time_doubtful,
    )


def shorten(reason: str) -> str:
    """`reason` within REASON_SIZE_MAX octets of UTF-8, whole characters only."""
    return reason.encode()[:REASON_SIZE_MAX].decode(errors="ignore")


@functools.lru_cache(maxsize=1024)
def _is_one_way(reading_type: str) -> bool:
    """Whether such values never are below zero; a fleet has a handful of types."""
    direction = ReadingType.parse(reading_type).flow_direction
    return direction in (FlowDirection.FORWARD, FlowDirection.REVERSE)


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
    _expect_accept(message)


def _expect_accept(message: Message) -> None:
    """Refuse who wants the answer in another format than the one there is (RFC 7252 5.10.4)."""
    if message.uint_option(OptionNumber.ACCEPT) not in (None, CONTENT_FORMAT_V1):
        raise Refused(
            "answer wanted in another format",
            _plain(Code.NOT_ACCEPTABLE, f"expected {CONTENT_FORMAT_V1}"),
        )


def _plain(code: Code, detail: str = "") -> Message:
    """A refusal with a diagnostic payload (RFC 7252 section 5.5.2)."""
    return Message.response(code, payload=detail.encode())
