"""From an authentic request to what is stored of it and what is answered.

The contract under test: every record of an authentic report ends as accepted, accepted and flagged,
quarantined or unreadable, is counted, is kept (what is odd as it came), and all of it is said in
one acknowledgement; a report is never refused for its content; what is not a report is refused with
its CoAP code; nothing but Refused is ever raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber
from amistack.model import (
    ClockReading,
    ClockState,
    Disposition,
    FlowDirection,
    Quality,
    RecordKind,
    RecordRef,
    RegistrationAcknowledgement,
    ReportAcknowledgement,
    TimeAnswer,
)
from headend.domain.meters import RegistrationRecord
from headend.domain.readings import (
    BlockFlag,
    DayBlock,
    LogRecord,
    QuarantinedRecord,
    ReportRecord,
)
from headend.southbound.intake import (
    CLOCK_ERROR_MAX,
    DAY_AGE_MAX,
    Intake,
    Refused,
    Taken,
    Uplink,
    record_of,
)
from headend.southbound.known import KnownMeters
from headend.store.interface import Kept
from tests.support import headend as world
from tests.support.headend import NOW, OFFSET_MIN, TODAY, YESTERDAY, block, entry, meter_id, post

METER = meter_id(1)
Tree = list[object]


def intake_of_registered(*, offset_min: int = OFFSET_MIN) -> Intake:
    channel_sets = KnownMeters()
    intake = Intake(channel_sets)
    registration = world.registration(METER, offset_min=offset_min)
    taken = intake.take(uplink("reg", registration.encode()))
    taken.answer((Kept.NEW,), 0)
    return intake


def uplink(path: str, payload: bytes) -> Uplink:
    return Uplink(METER, post(path, payload), NOW * 1000)


def acknowledge(taken: Taken, *kept: Kept) -> ReportAcknowledgement:
    outcomes = kept or (Kept.NEW,) * len(taken.records)
    answer = taken.answer(tuple(outcomes), 12)
    assert answer.code == Code.CHANGED
    return ReportAcknowledgement.decode(answer.payload)


def changed(change: Callable[[Tree], object], payload: bytes | None = None) -> bytes:
    """A report with `change` done to its tree."""
    tree = cbor2.loads(world.report(entries=[entry()]).encode() if payload is None else payload)
    tree = [list(item) if isinstance(item, Sequence) else item for item in tree]
    change(tree)
    return cbor2.dumps(tree)


# Plain reports


def test_plain_report_is_stored_and_answered_without_a_word() -> None:
    intake = intake_of_registered()
    made = world.report(blocks=[block(1), block(2)], entries=[entry(5, detail="night")])
    taken = intake.take(uplink("rep", made.encode()))
    first, second, logged, came = taken.records
    assert isinstance(first, DayBlock)
    assert isinstance(second, DayBlock)
    assert (first.channel, second.channel) == (1, 2)
    assert first.packed == made.blocks[0].packed, "stored as it came"
    assert first.flags == BlockFlag(0)
    assert logged == LogRecord(METER, 5, entry(5).at, "3.26.0.216", "night", False)  # noqa: FBT003
    assert isinstance(came, ReportRecord)
    assert (came.day, came.offset_min) == (YESTERDAY, OFFSET_MIN)
    acknowledgement = acknowledge(taken)
    assert acknowledgement.verdicts == ()
    assert (acknowledgement.received_ms, acknowledgement.held_ms) == (NOW * 1000, 12)
    assert not intake.flagged
    assert not intake.quarantined


def test_report_comes_under_the_offset_declared_when_it_came() -> None:
    intake = intake_of_registered(offset_min=330)
    taken = intake.take(uplink("rep", world.report().encode()))
    (came,) = [record for record in taken.records if isinstance(record, ReportRecord)]
    assert came.offset_min == 330


def test_repeated_report_is_answered_like_the_first() -> None:
    taken = intake_of_registered().take(uplink("rep", world.report().encode()))
    assert acknowledge(taken, *[Kept.REPEATED] * len(taken.records)).verdicts == ()


def test_empty_report_is_answered_and_stores_nothing() -> None:
    taken = intake_of_registered().take(uplink("rep", world.report(blocks=[]).encode()))
    assert taken.records == ()
    assert acknowledge(taken).verdicts == ()


def test_qualities_are_stored_with_the_values() -> None:
    flags = [Quality(0)] * 95 + [Quality.POWER_OFF]
    made = block(1, flags=flags)
    taken = intake_of_registered().take(uplink("rep", world.report(blocks=[made]).encode()))
    (stored, _) = taken.records
    assert isinstance(stored, DayBlock)
    assert cbor2.loads(stored.qualities) == [[95, 1, int(Quality.POWER_OFF)]]


# Odd, but taken


@pytest.mark.parametrize(
    ("made", "flag", "reason"),
    [
        (block(1, advance=4_561), BlockFlag.SUM_MISMATCH, "sum mismatch"),
        (block(1, values=[-5] + [10] * 95), BlockFlag.NEGATIVE, "negative"),
        (block(2, values=[-5] + [10] * 95), BlockFlag.NEGATIVE, "negative"),
    ],
    ids=["sum mismatch", "delivered below zero", "received below zero"],
)
def test_odd_block_is_stored_flagged_and_told(
    made: world.IntervalBlock, flag: BlockFlag, reason: str
) -> None:
    intake = intake_of_registered()
    taken = intake.take(uplink("rep", world.report(blocks=[made]).encode()))
    stored, _ = taken.records
    assert isinstance(stored, DayBlock)
    assert stored.flags == flag
    (verdict,) = acknowledge(taken).verdicts
    assert verdict.record == RecordRef(RecordKind.BLOCK, 0)
    assert (verdict.disposition, verdict.reason) == (Disposition.ACCEPTED, reason)
    assert intake.flagged == {reason: 1}


def test_net_channel_may_run_backwards() -> None:
    intake = intake_of_registered()
    net = world.registration(METER, channels=[world.channel(1, flow=FlowDirection.NET)])
    intake.take(uplink("reg", net.encode())).answer((Kept.NEW,), 0)
    taken = intake.take(uplink("rep", world.report(blocks=[block(1, values=[-5] * 96)]).encode()))
    stored, _ = taken.records
    assert isinstance(stored, DayBlock)
    assert stored.flags == BlockFlag(0)


def test_missing_intervals_are_no_mismatch() -> None:
    made = block(1, values=[None] * 10 + [1] * 86, advance=100)
    taken = intake_of_registered().take(uplink("rep", world.report(blocks=[made]).encode()))
    assert acknowledge(taken).verdicts == ()


@pytest.mark.parametrize(
    ("clock", "is_doubtful"),
    [
        (ClockReading(NOW, ClockState.SET), False),
        (ClockReading(NOW - CLOCK_ERROR_MAX, ClockState.SET), False),
        (ClockReading(NOW - CLOCK_ERROR_MAX - 1, ClockState.SET), True),
        (ClockReading(NOW + CLOCK_ERROR_MAX + 1, ClockState.SET), True),
        (ClockReading(NOW, ClockState.DOUBTFUL), True),
        (ClockReading(NOW, ClockState.UNSET), True),
        (ClockReading(0, ClockState.UNSET), True),
    ],
)
def test_wrong_clock_marks_the_blocks_and_refuses_nothing(
    clock: ClockReading, is_doubtful: bool
) -> None:
    intake = intake_of_registered()
    taken = intake.take(uplink("rep", world.report(clock=clock).encode()))
    stored, _ = taken.records
    assert isinstance(stored, DayBlock)
    assert stored.flags == (BlockFlag.CLOCK_DOUBTFUL if is_doubtful else BlockFlag(0))
    assert intake.flagged == ({"clock doubtful": 1} if is_doubtful else {})


# Set aside


@pytest.mark.parametrize(
    ("payload", "disposition", "said"),
    [
        (b"", Disposition.UNREADABLE, "not CBOR"),
        (b"\x83\x01", Disposition.UNREADABLE, "not CBOR"),
        (world.report().encode() + b"\x00", Disposition.UNREADABLE, "trailing octets"),
        (cbor2.dumps([1, 2]), Disposition.UNREADABLE, "wrong size"),
        (cbor2.dumps({"day": 1}), Disposition.UNREADABLE, "wrong type"),
        (changed(lambda t: t.__setitem__(1, -1)), Disposition.UNREADABLE, "out of range"),
        (
            world.report(day=TODAY + 2).encode(),
            Disposition.QUARANTINED,
            f"day {TODAY + 2} is out of range",
        ),
        (
            world.report(day=TODAY - DAY_AGE_MAX - 1).encode(),
            Disposition.QUARANTINED,
            "is out of range",
        ),
        (
            world.report(channel_set=99).encode(),
            Disposition.QUARANTINED,
            "channel set 99 was never declared",
        ),
    ],
    ids=[
        "nothing", "not CBOR", "trailing octets", "wrong size", "map", "negative day",
        "day to come", "day long gone", "channel set never declared",
    ],
)  # fmt: skip
def test_report_that_cannot_be_taken_is_kept_whole_and_told(
    payload: bytes, disposition: Disposition, said: str
) -> None:
    intake = intake_of_registered()
    taken = intake.take(uplink("rep", payload))
    (kept,) = taken.records
    assert isinstance(kept, QuarantinedRecord)
    assert kept.payload == payload
    assert said in kept.reason
    (verdict,) = acknowledge(taken).verdicts
    assert verdict.record.kind is RecordKind.WHOLE
    assert verdict.disposition is disposition
    assert said in verdict.reason
    assert intake.quarantined == {f"{disposition.name.lower()} whole": 1}


@pytest.mark.parametrize(
    ("payload", "place", "disposition", "said"),
    [
        pytest.param(
            world.report(blocks=[block(1), block(9)]).encode(),
            RecordRef(RecordKind.BLOCK, 1),
            Disposition.QUARANTINED,
            "unknown channel",
            # No reading type was declared for it, so it is not taken.
            marks=pytest.mark.requirement("ENT-DATA-29"),
        ),
        (
            world.report(blocks=[block(1), block(2, interval_s=1800)]).encode(),
            RecordRef(RecordKind.BLOCK, 1),
            Disposition.QUARANTINED,
            "wrong interval length",
        ),
        (
            changed(
                lambda t: t[4].append([2, 15, 0, 0, b"\x01\x02"]),  # type: ignore[attr-defined]
                world.report().encode(),
            ),
            RecordRef(RecordKind.BLOCK, 1),
            Disposition.UNREADABLE,
            "",
        ),
        (
            changed(
                lambda t: t[4].insert(0, "no block"),  # type: ignore[attr-defined]
                world.report().encode(),
            ),
            RecordRef(RecordKind.BLOCK, 0),
            Disposition.UNREADABLE,
            "wrong type",
        ),
        (
            changed(
                lambda t: t[5].append([1, 2]),  # type: ignore[attr-defined]
                world.report().encode(),
            ),
            RecordRef(RecordKind.ENTRY, 0),
            Disposition.UNREADABLE,
            "wrong size",
        ),
        (
            changed(
                lambda t: t[4].append(t[4][0]),  # type: ignore[attr-defined,index]
                world.report().encode(),
            ),
            RecordRef(RecordKind.BLOCK, 1),
            Disposition.UNREADABLE,
            "bad block",
        ),
    ],
    ids=[
        "unknown channel", "interval length", "packing", "no block at all", "entry",
        "channel twice",
    ],
)  # fmt: skip
def test_bad_record_is_set_aside_and_its_neighbour_taken(
    payload: bytes, place: RecordRef, disposition: Disposition, said: str
) -> None:
    intake = intake_of_registered()
    taken = intake.take(uplink("rep", payload))
    (kept,) = [record for record in taken.records if isinstance(record, QuarantinedRecord)]
    assert kept.payload == payload
    (stored,) = [record for record in taken.records if isinstance(record, DayBlock)]
    assert stored.channel == 1
    assert any(isinstance(record, ReportRecord) for record in taken.records)
    (verdict,) = acknowledge(taken).verdicts
    assert verdict.record == place
    if said:
        assert verdict.disposition is disposition
    assert said in verdict.reason
    assert sum(intake.quarantined.values()) == 1


def test_contradicting_record_is_told_once_as_quarantined() -> None:
    intake = intake_of_registered()
    made = world.report(blocks=[block(1, advance=1)], entries=[entry()])
    taken = intake.take(uplink("rep", made.encode()))
    kept = [
        Kept.CONFLICT if isinstance(record, DayBlock | LogRecord) else Kept.REPEATED
        for record in taken.records
    ]
    verdicts = acknowledge(taken, *kept).verdicts
    assert [(str(v.record), v.disposition) for v in verdicts] == [
        ("block 0", Disposition.QUARANTINED),
        ("entry 0", Disposition.QUARANTINED),
    ]
    assert intake.quarantined == {"conflicting block": 1, "conflicting entry": 1}


def test_acknowledgement_of_the_oddest_report_still_fits() -> None:
    """Every block flagged and contradicted, every entry contradicted."""
    intake = intake_of_registered()
    channels = [world.channel(number) for number in range(16)]
    registration = world.registration(METER, channels=channels)
    intake.take(uplink("reg", registration.encode())).answer((Kept.NEW,), 0)
    made = world.report(
        blocks=[block(number, advance=1) for number in range(16)],
        entries=[entry(number) for number in range(256)],
    )
    taken = intake.take(uplink("rep", made.encode()))
    verdicts = acknowledge(taken, *[Kept.CONFLICT] * len(taken.records)).verdicts
    assert len(verdicts) == 16 + 256


@settings(max_examples=150)
@given(payload=st.binary(max_size=80))
def test_arbitrary_octets_are_kept_as_they_came(payload: bytes) -> None:
    taken = intake_of_registered().take(uplink("rep", payload))
    assert [r.payload for r in taken.records if isinstance(r, QuarantinedRecord)] == [payload]
    assert acknowledge(taken).verdicts


@settings(max_examples=150)
@given(data=st.data())
def test_every_record_of_a_damaged_report_is_accounted_for(data: st.DataObject) -> None:
    original = world.report(
        blocks=[block(1), block(2), block(9)], entries=[entry(1), entry(2)]
    ).encode()
    octets = bytearray(original)
    for _ in range(data.draw(st.integers(0, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    taken = intake_of_registered().take(uplink("rep", bytes(octets)))
    verdicts = acknowledge(taken).verdicts
    aside = [r for r in taken.records if isinstance(r, QuarantinedRecord)]
    assert all(record.payload == octets for record in aside)
    told = [v for v in verdicts if v.disposition is not Disposition.ACCEPTED]
    assert len(told) == len(aside)
    if any(v.record.kind is RecordKind.WHOLE for v in told):
        return
    kept = [r for r in taken.records if isinstance(r, DayBlock | LogRecord)]
    tree = cbor2.loads(bytes(octets))
    assert len(kept) + len(aside) == len(tree[4]) + len(tree[5])


# What is no report


def refusal(message: Message, intake: Intake | None = None) -> Refused:
    with pytest.raises(Refused) as refused:
        (intake or intake_of_registered()).take(Uplink(METER, message, NOW * 1000))
    return refused.value


NOT_UTF8 = Option(OptionNumber.URI_PATH, b"\xff\xfe")
ANOTHER = world.registration(meter_id(2)).encode()
NO_VERSION = world.registration(METER, versions=(9,)).encode()


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (post("nowhere", b""), Code.NOT_FOUND, "no such resource"),
        (Message.request(Code.GET, "rep"), Code.METHOD_NOT_ALLOWED, "method not allowed"),
        (Message.request(Code.POST, "time"), Code.METHOD_NOT_ALLOWED, "method not allowed"),
        (Message.request(Code.GET, "reg"), Code.METHOD_NOT_ALLOWED, "method not allowed"),
        (
            Message.request(Code.POST, "rep", payload=b"x"),
            Code.UNSUPPORTED_CONTENT_FORMAT,
            "unsupported content format",
        ),
        (
            Message.request(Code.POST, "reg", payload=b"x", content_format=60),
            Code.UNSUPPORTED_CONTENT_FORMAT,
            "unsupported content format",
        ),
        (Message.request(Code.POST, options=[NOT_UTF8]), Code.BAD_REQUEST, ""),
        (post("reg", b"\x00"), Code.BAD_REQUEST, "registration: wrong type"),
        (post("reg", ANOTHER), Code.FORBIDDEN, "registration of another meter"),
        (post("reg", NO_VERSION), Code.UNPROCESSABLE_ENTITY, "no common model version"),
        (
            Message.request(Code.POST, "rep", payload=b"x", content_format=65001, accept=60),
            Code.NOT_ACCEPTABLE,
            "answer wanted in another format",
        ),
        (
            Message.request(Code.GET, "time", accept=60),
            Code.NOT_ACCEPTABLE,
            "answer wanted in another format",
        ),
    ],
    ids=[
        "no such resource", "GET a report", "POST the time", "GET a registration",
        "no content format", "other content format", "path that is no text",
        "registration that is none", "another meter's registration", "no common version",
        "Accept of a report", "Accept of the time",
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_refused_with_its_code(
    message: Message, code: Code, reason: str
) -> None:
    refused = refusal(message)
    assert refused.answer.code == code
    assert reason in refused.reason


def test_refused_registration_declares_nothing() -> None:
    intake = Intake(KnownMeters())
    refusal(post("reg", NO_VERSION), intake)
    taken = intake.take(uplink("rep", world.report().encode()))
    assert all(isinstance(record, QuarantinedRecord) for record in taken.records)


def test_registration_counts_from_its_commit_on() -> None:
    intake = Intake(KnownMeters())
    registration = world.registration(METER)
    taken = intake.take(uplink("reg", registration.encode()))
    (record,) = taken.records
    assert record == record_of(registration, NOW)
    assert isinstance(record, RegistrationRecord)
    early = intake.take(uplink("rep", world.report().encode()))
    assert isinstance(early.records[0], QuarantinedRecord)
    answer = taken.answer((Kept.NEW,), 3)
    assert RegistrationAcknowledgement.decode(answer.payload).model_version == 1
    late = intake.take(uplink("rep", world.report().encode()))
    assert isinstance(late.records[0], DayBlock)


def test_set_that_is_declared_anew_otherwise_is_taken_and_flagged() -> None:
    intake = intake_of_registered()
    for channels, count in ((None, 0), ([world.channel(1, interval_s=1_800)], 1)):
        again = world.registration(METER, channels=channels)
        taken = intake.take(uplink("reg", again.encode()))
        assert isinstance(taken.records[0], RegistrationRecord)
        assert intake.flagged["channel set declared anew, otherwise"] == count


def test_time_is_told_and_not_to_be_kept() -> None:
    message = Message.request(Code.GET, "time")
    taken = intake_of_registered().take(Uplink(METER, message, NOW * 1000 + 7))
    assert taken.records == ()
    answer = taken.answer((), 4)
    assert answer.code == Code.CONTENT
    assert TimeAnswer.decode(answer.payload) == TimeAnswer(NOW * 1000 + 7, 4)
    assert answer.uint_option(OptionNumber.MAX_AGE) == 0
