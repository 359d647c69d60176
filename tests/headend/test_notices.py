"""Events that come before their report.

The contract under test: an entry of a notice is stored as one of a report would be, once, whichever
of the two brings it and how often; a notice is never refused for its content; one record that
cannot be read costs no other; nothing but Refused is ever raised.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import cbor2
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import (
    ClockReading,
    ClockState,
    Disposition,
    LogEntry,
    RecordKind,
    RecordRef,
    ReportAcknowledgement,
)
from amistack.model.event_catalogue import COVER_OPENED, TILTED, Importance
from amistack.model.event_notice import EventNotice, NoticedEvent
from headend.domain.readings import LogRecord, QuarantinedRecord
from headend.southbound.intake import Intake, Refused, Uplink
from headend.southbound.known import KnownMeters
from headend.store.interface import Kept
from tests.headend.test_southbound import METER, Street
from tests.model import noticing
from tests.support import headend as world
from tests.support.headend import NOW, meter_id, post

TILT = LogEntry(41, NOW - 60, TILTED, "north", is_time_doubtful=True)
COVER = LogEntry(42, NOW - 50, COVER_OPENED)


def notice(*entries: LogEntry, number: int = 1, clock_s: int = NOW) -> EventNotice:
    return EventNotice(
        meter_id(number),
        ClockReading(clock_s, ClockState.SET),
        tuple(NoticedEvent(Importance.SAFETY, entry) for entry in entries or (TILT, COVER)),
    )


def uplink(payload: bytes) -> Uplink:
    return Uplink(METER, post("ev", payload), NOW * 1000)


@pytest_asyncio.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    made = Street(tmp_path / "s.sqlite")
    await made.start()
    yield made
    for meter in made.meters:
        meter.close()
    await made.stop()


async def test_event_is_stored_once_whether_a_notice_brings_it_or_a_report(street: Street) -> None:
    meter = await street.registered()
    report = world.report(entries=(TILT, COVER)).encode()
    for message in (
        post("ev", notice(TILT).encode()),
        post("ev", notice(TILT, COVER).encode()),
        post("rep", report),
        post("ev", notice(TILT, clock_s=NOW + 30).encode()),
    ):
        answer = await meter.ask(message)
        assert answer.code == Code.CHANGED
        assert ReportAcknowledgement.decode(answer.payload).verdicts == ()
    stored = await street.store.log_entries(METER)
    assert sorted(stored, key=lambda one: one.sequence) == [
        LogRecord(METER, 41, NOW - 60, str(TILTED), "north", is_time_doubtful=True),
        LogRecord(METER, 42, NOW - 50, str(COVER_OPENED), "", is_time_doubtful=False),
    ]
    assert street.southbound.quarantined == {}


async def test_other_event_under_a_number_that_is_stored_is_set_aside(street: Street) -> None:
    meter = await street.registered()
    await meter.ask(post("ev", notice(TILT).encode()))
    other = LogEntry(41, NOW - 60, COVER_OPENED)
    answer = await meter.ask(post("ev", notice(other, COVER).encode()))
    (verdict,) = ReportAcknowledgement.decode(answer.payload).verdicts
    assert verdict.record == RecordRef(RecordKind.ENTRY, 0)
    assert verdict.disposition is Disposition.QUARANTINED
    stored = await street.store.log_entries(METER)
    assert {(one.sequence, one.event_type) for one in stored} == {
        (41, str(TILTED)),
        (42, str(COVER_OPENED)),
    }


def test_event_that_cannot_be_read_costs_no_other() -> None:
    tree = cbor2.loads(notice().encode())
    tree[3][0][1] = ["no entry"]
    taken = Intake(KnownMeters()).take(uplink(cbor2.dumps(tree)))
    aside, kept = taken.records
    assert isinstance(aside, QuarantinedRecord)
    assert isinstance(kept, LogRecord)
    assert kept.sequence == 42
    answer = taken.answer((Kept.NEW, Kept.NEW), 0)
    (verdict,) = ReportAcknowledgement.decode(answer.payload).verdicts
    assert verdict.record == RecordRef(RecordKind.ENTRY, 0)
    assert verdict.disposition is Disposition.UNREADABLE


def test_notice_that_is_none_or_of_another_meter_is_kept_whole_and_told() -> None:
    for payload in (b"\x00", notice(number=2).encode()):
        taken = Intake(KnownMeters()).take(uplink(payload))
        (aside,) = taken.records
        assert isinstance(aside, QuarantinedRecord)
        assert aside.payload == payload
        answer = taken.answer((Kept.NEW,), 7)
        assert answer.code == Code.CHANGED
        acknowledgement = ReportAcknowledgement.decode(answer.payload)
        assert acknowledgement.received_ms == NOW * 1000
        (verdict,) = acknowledgement.verdicts
        assert verdict.record == RecordRef(RecordKind.WHOLE)


def test_clock_of_a_notice_speaks_as_that_of_a_report() -> None:
    heard: list[float] = []
    intake = Intake(KnownMeters())
    intake.on_clock = lambda _, ahead_s: heard.append(ahead_s)
    intake.take(uplink(notice(clock_s=NOW + 9).encode()))
    assert heard == [9.0]


notices = st.builds(notice, noticing.entries, number=st.integers(1, 2), clock_s=st.just(NOW))


@given(payload=st.one_of(st.binary(max_size=200), notices.map(EventNotice.encode)))
def test_whatever_comes_is_taken_and_answered(payload: bytes) -> None:
    taken = Intake(KnownMeters()).take(uplink(payload))
    answer = taken.answer((Kept.NEW,) * len(taken.records), 0)
    assert answer.code == Code.CHANGED


def test_another_method_or_format_is_refused_with_its_code() -> None:
    for message, code in (
        (Message.request(Code.GET, "ev"), Code.METHOD_NOT_ALLOWED),
        (Message.request(Code.POST, "ev"), Code.UNSUPPORTED_CONTENT_FORMAT),
    ):
        with pytest.raises(Refused) as refused:
            Intake(KnownMeters()).take(Uplink(METER, message, NOW * 1000))
        assert refused.value.answer.code == code
