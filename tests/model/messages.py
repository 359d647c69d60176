"""Strategies for every message of the model, any value that it may hold."""

from __future__ import annotations

from hypothesis import strategies as st

from amistack.identifiers import eui64
from amistack.model import (
    Channel,
    ClockReading,
    ClockState,
    DailyReport,
    Disposition,
    EndDeviceEventType,
    HeadEndKeyNotice,
    IntervalBlock,
    LogEntry,
    Quality,
    ReadAnswer,
    ReadingType,
    ReadParts,
    ReadRequest,
    RecordKind,
    RecordRef,
    Registration,
    RegistrationAcknowledgement,
    RegistrationReason,
    ReportAcknowledgement,
    ReportRequest,
    TimeAnswer,
    Verdict,
)
from amistack.model.diagnosis import Check, Diagnosis, Finding, Occasion, Outcome
from amistack.model.history import DayRange, HistoryAnswer, HistoryParts, HistoryRequest, PastDay
from amistack.model.scheduled_read import ScheduledRead, Span
from tests.model import control, holdings, home, noticing, programmes, scheduling

DAY_S = 86_400
REGISTER_MAX = 2**53 - 1
LENGTHS = [1800, 3600, 7200, 3456, 86_400, 900]

uint16 = st.integers(0, 65_535)
days = st.integers(0, 49_710)
utc_s = st.integers(0, 2**32 - 1)
received_ms = st.integers(0, (2**32 - 1) * 1000 + 999)
held_ms = st.integers(0, 2**32 - 1)
registers = st.integers(-(2**52), 2**52)
values = st.one_of(
    st.integers(0, 300), st.integers(0, 10**6), st.integers(-REGISTER_MAX, 2**53 - 1)
)


def texts(least: int, most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), min_size=least, max_size=most).filter(
        lambda text: least <= len(text.encode()) <= most
    )


clocks = st.builds(ClockReading, utc_s, st.sampled_from(ClockState))
event_types = st.builds(EndDeviceEventType, uint16, uint16, uint16, uint16)
entries = st.builds(
    LogEntry,
    st.integers(0, 2**32 - 1),
    utc_s,
    event_types,
    st.none() | texts(1, 64),
    st.booleans(),
)


@st.composite
def blocks(draw: st.DrawFn, channel: int, *, is_whole_day: bool = True) -> IntervalBlock:
    interval_s = draw(st.sampled_from(LENGTHS))
    per_day = DAY_S // interval_s
    count = per_day if is_whole_day else draw(st.integers(0, per_day))
    known = draw(st.lists(values, min_size=count, max_size=count))
    flags = [Quality(0)] * count
    if count and draw(st.booleans()):
        first = draw(st.integers(0, count - 1))
        end = draw(st.integers(first + 1, count))
        flags[first:end] = [Quality(draw(st.integers(1, 127)))] * (end - first)
    return IntervalBlock.of(
        [
            None if flag & Quality.MISSING else value
            for value, flag in zip(known, flags, strict=True)
        ],
        channel=channel,
        interval_s=interval_s,
        opening=draw(registers),
        advance=draw(registers.filter(lambda n: abs(n) < 2**51)),
        flags=flags,
    )


@st.composite
def block_tuples(draw: st.DrawFn, *, is_whole_day: bool = True) -> tuple[IntervalBlock, ...]:
    channels = draw(st.lists(st.integers(0, 255), max_size=2, unique=True))
    return tuple(draw(blocks(channel, is_whole_day=is_whole_day)) for channel in channels)


entry_tuples = st.lists(entries, max_size=3).map(tuple)
reports = st.builds(DailyReport, uint16, days, clocks, block_tuples(), entry_tuples)

record_refs = st.one_of(
    st.just(RecordRef(RecordKind.WHOLE)),
    st.builds(RecordRef, st.just(RecordKind.BLOCK), st.integers(0, 15)),
    st.builds(RecordRef, st.just(RecordKind.ENTRY), st.integers(0, 255)),
)
verdicts = st.builds(Verdict, record_refs, st.sampled_from(Disposition), texts(0, 64))
report_acknowledgements = st.builds(
    ReportAcknowledgement, received_ms, held_ms, st.lists(verdicts, max_size=3).map(tuple)
)

reading_types = st.builds(ReadingType, *[uint16] * 15, st.just(0), uint16, uint16)


@st.composite
def channels(draw: st.DrawFn, number: int) -> Channel:
    multiplier = draw(st.integers(-24, 24))
    types = [
        ReadingType(*draw(st.tuples(*[uint16] * 15)), multiplier, draw(uint16), draw(uint16))
        for _ in range(2)
    ]
    interval_s = draw(st.sampled_from([*LENGTHS, 30, 60]))
    return Channel(number, types[0], types[1], multiplier, draw(texts(1, 16)), interval_s)


@st.composite
def registrations(draw: st.DrawFn) -> Registration:
    numbers = draw(st.lists(st.integers(0, 255), min_size=1, max_size=3, unique=True))
    versions = draw(st.sets(st.integers(1, 255), min_size=1, max_size=8))
    return Registration(
        meter=eui64(draw(st.binary(min_size=8, max_size=8))),
        model_versions=tuple(sorted(versions)),
        software=draw(texts(1, 64)),
        channel_set=draw(uint16),
        standard_offset_min=draw(st.integers(-720, 840)),
        channels=tuple(draw(channels(number)) for number in numbers),
        reason=draw(st.sampled_from(RegistrationReason)),
    )


identifiers = st.binary(min_size=8, max_size=16)
register_tuples = st.lists(
    st.tuples(st.integers(0, 255), registers), max_size=3, unique_by=lambda pair: pair[0]
).map(tuple)


@st.composite
def span_tuples(draw: st.DrawFn) -> tuple[Span, ...]:
    found = []
    for block in draw(block_tuples(is_whole_day=False)):
        room = DAY_S // block.interval_s - block.count
        found.append(Span(draw(st.integers(0, room)), block))
    return tuple(found)


@st.composite
def history_requests(draw: st.DrawFn) -> HistoryRequest:
    parts = HistoryParts(draw(st.integers(1, 15)))
    wants_days = parts & (HistoryParts.INTERVALS | HistoryParts.LOG)
    chosen = sorted(draw(st.sets(days, min_size=2, max_size=6)))
    pairs = zip(chosen[::2], chosen[1::2], strict=False)
    ranges: list[DayRange] = []
    for first, last in pairs if wants_days else ():
        if not ranges or first > ranges[-1].last + 1:
            ranges.append(DayRange(first, last))
    return HistoryRequest(draw(identifiers), parts, tuple(ranges))


@st.composite
def past_days(draw: st.DrawFn) -> tuple[PastDay, ...]:
    chosen = sorted(draw(st.sets(days, max_size=2)))
    return tuple(
        PastDay(day, draw(uint16), draw(block_tuples(is_whole_day=False)), draw(entry_tuples))
        for day in chosen
    )


findings = st.lists(
    st.builds(Finding, st.sampled_from(Check), st.sampled_from(Outcome), texts(0, 64)),
    max_size=3,
    unique_by=lambda one: one.check,
).map(tuple)
diagnoses = st.none() | st.builds(Diagnosis, clocks, st.sampled_from(Occasion), findings)


MESSAGES = {
    "registration": (Registration, registrations()),
    "registration-acknowledgement": (
        RegistrationAcknowledgement,
        st.builds(RegistrationAcknowledgement, received_ms, held_ms, st.integers(1, 255)),
    ),
    "daily-report": (DailyReport, reports),
    "report-acknowledgement": (ReportAcknowledgement, report_acknowledgements),
    "read-request": (
        ReadRequest,
        st.builds(ReadRequest, identifiers, st.integers(1, 7).map(ReadParts)),
    ),
    "read-answer": (
        ReadAnswer,
        st.builds(
            ReadAnswer,
            identifiers,
            uint16,
            days,
            clocks,
            register_tuples,
            block_tuples(is_whole_day=False),
            entry_tuples,
        ),
    ),
    "scheduled-read": (
        ScheduledRead,
        st.builds(
            ScheduledRead,
            st.integers(1, 255),
            uint16,
            days,
            clocks,
            register_tuples,
            span_tuples(),
            entry_tuples,
        ),
    ),
    "history-request": (HistoryRequest, history_requests()),
    "history-answer": (
        HistoryAnswer,
        st.builds(HistoryAnswer, identifiers, clocks, register_tuples, past_days(), diagnoses),
    ),
    "report-request": (
        ReportRequest,
        st.tuples(days, days).map(lambda two: ReportRequest(min(two), max(two))),
    ),
    "head-end-key-notice": (
        HeadEndKeyNotice,
        st.builds(
            HeadEndKeyNotice,
            st.binary(min_size=1, max_size=256),
            st.none() | st.binary(min_size=33, max_size=33),
        ),
    ),
    **control.MESSAGES,
    **holdings.MESSAGES,
    **home.MESSAGES,
    **noticing.MESSAGES,
    **programmes.MESSAGES,
    **scheduling.MESSAGES,
    "time-answer": (TimeAnswer, st.builds(TimeAnswer, received_ms, held_ms)),
}
"""By the name of its rule in the CDDL: the class of each message, and a strategy for it."""
