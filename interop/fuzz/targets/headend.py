"""The head-end behind the protocol: what is decided about uplinks, and what is stored of them."""

from __future__ import annotations

import functools
import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Final, TypeVar

from amistack.coap.codes import Code
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber, uint_value
from amistack.errors import ConfigError, ModelError
from amistack.identifiers import Eui64, format_eui64, parse_eui64
from amistack.model import (
    CONTENT_FORMAT_V1,
    DailyReport,
    EndDeviceEventType,
    IntervalBlock,
    LogEntry,
    RecordKind,
    Registration,
    RegistrationAcknowledgement,
    ReportAcknowledgement,
    TimeAnswer,
)
from amistack.session.fleet import parse_public_key
from headend.domain.meters import ChannelRecord, RegistrationRecord
from headend.domain.readings import (
    BlockFlag,
    DayBlock,
    LogRecord,
    Method,
    QuarantinedRecord,
    ReportRecord,
)
from headend.domain.refusals import Refusal
from headend.lifecycle.enrolment import parse_enrolment
from headend.southbound.intake import Intake, Refused, Taken, Uplink, record_of
from headend.southbound.known import KnownMeters
from headend.store.interface import KeepDelivery, Kept, Record
from headend.store.sqlite.schema import migrations
from headend.store.sqlite.writing import apply
from interop.fuzz.target import Outcome, Reader, Target, Trail, promise, refusal, size_class
from interop.fuzz.targets.model import (
    CLOCK,
    DAY,
    METER,
    block,
    registration,
    report,
    report_seeds,
)

OTHER_METER: Final = Eui64(bytes.fromhex("02004c00000000a2"))
RECEIVED_MS: Final = CLOCK.utc_s * 1000 + 500
RECIPIENT_ID: Final = b"\x01\x02\x03\x04"
PATH: Final = "udp:192.0.2.7:5683"
STEP_COUNT_MAX: Final = 6
_KEPT: Final = tuple(Kept)

KeyT = TypeVar("KeyT", tuple[bytes, int, int], tuple[bytes, int])


# Intake


@functools.lru_cache(maxsize=1)
def _channels() -> tuple[ChannelRecord, ...]:
    return record_of(registration(), 0).channels


def _intake() -> Intake:
    """An intake that knows the channels of one meter."""
    channel_sets = KnownMeters()
    channel_sets.add(METER, 7, _channels())
    channel_sets.set_offset(METER, 60)
    return Intake(channel_sets)


def _post(path: str, payload: bytes) -> Message:
    return Message.request(Code.POST, path, payload=payload, content_format=CONTENT_FORMAT_V1)


_PATHS: Final = ("rep", "reg", "time", "", "rep/x", "read", "\x00", "REP")
_CODES: Final = (Code.POST, Code.GET, Code.PUT, Code.FETCH)


def run_intake(data: bytes) -> Outcome:
    """Two octets of manner, then the payload of an authentic request.

    The first says the path (3 bits), the method (2), whether the content format is another, whether
    the meter is. The second says what becomes of the records.
    """
    reader = Reader(data)
    manner, fate = reader.octet(), reader.octet()
    path = _PATHS[manner & 7]
    format_ = 60 if manner & 0x20 else CONTENT_FORMAT_V1
    options = [
        Option(OptionNumber.URI_PATH, segment.encode()) for segment in path.split("/") if segment
    ]
    if manner == 0xFF:
        options = [Option(OptionNumber.URI_PATH, b"\xff\xfe")]
    options.append(Option(OptionNumber.CONTENT_FORMAT, uint_value(format_)))
    message = Message(_CODES[manner >> 3 & 3], options=in_order(options), payload=reader.rest())
    meter = OTHER_METER if manner & 0x40 else METER
    intake = _intake()
    try:
        taken = intake.take(Uplink(meter, message, RECEIVED_MS))
    except Refused as error:
        promise(error.answer.code >= 0x80, "a refusal has a code that refuses")
        error.answer.encode()
        return error.reason
    kept = tuple(_KEPT[(fate >> place % 4) % len(_KEPT)] for place in range(len(taken.records)))
    answer = taken.answer(kept, fate)
    answer.encode()
    if path == "time":
        return TimeAnswer.decode(answer.payload).held_ms == fate
    if path == "reg":
        RegistrationAcknowledgement.decode(answer.payload)
        return "registered", size_class(len(taken.records))
    _check_report(taken, kept, ReportAcknowledgement.decode(answer.payload), message.payload)
    said = tuple(sorted({*intake.flagged, *intake.quarantined}))
    return said, size_class(len(taken.records))


def _check_report(
    taken: Taken,
    kept: tuple[Kept, ...],
    acknowledgement: ReportAcknowledgement,
    payload: bytes,
) -> None:
    """Every record of a report is stored, or kept aside and spoken of."""
    promise(acknowledgement.received_ms == RECEIVED_MS, "another time of receipt")
    promise(len(kept) == len(taken.records), "an outcome for each record")
    places = [verdict.record for verdict in acknowledgement.verdicts]
    aside = [record for record in taken.records if isinstance(record, QuarantinedRecord)]
    promise(all(record.payload == payload for record in aside), "kept aside as it came")
    promise(len(aside) <= len(places), "kept aside, and not a word")
    try:
        whole, verdicts = DailyReport.decode_leniently(payload)
    except ModelError:
        promise(len(aside) == 1 and len(taken.records) == 1, "unreadable as a whole is kept once")
        return
    stored = [record for record in taken.records if isinstance(record, DayBlock)]
    logged = [record for record in taken.records if isinstance(record, LogRecord)]
    came = [record for record in taken.records if isinstance(record, ReportRecord)]
    is_set_aside = any(place.kind is RecordKind.WHOLE for place in places)
    if not is_set_aside:
        readable = len(whole.blocks) + len(whole.entries) + len(verdicts)
        promise(len(stored) + len(logged) + len(aside) == readable, "a record is lost, or made up")
    promise(len(came) == bool(stored), "a day that came is noted once, and no other")


# Store


@functools.lru_cache(maxsize=1)
def _store() -> sqlite3.Connection:
    """A store's tables, empty. Every run leaves them as they are."""
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=256)
    for _, script in migrations():
        connection.executescript(script)
    return connection


class _Ledger:
    """A real store, an intake before it, and what ought to be in the store."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.intake = _intake()
        self.trail = Trail()
        self.blocks: dict[tuple[bytes, int, int], tuple[object, ...]] = {}
        self.entries: dict[tuple[bytes, int], tuple[object, ...]] = {}
        self.days: set[tuple[bytes, int]] = set()
        self.aside: set[tuple[bytes, str, bytes]] = set()
        self.registered: set[bytes] = set()
        self.deliveries: list[tuple[Record, ...]] = []
        self.received_ms = RECEIVED_MS

    def step(self, reader: Reader) -> None:
        """One delivery, as the input has it: stored, or all but."""
        operation = reader.below(8)
        taken = None
        match operation:
            case 0 | 1 | 2:
                records = _made_records(reader)
            case 3 | 4 if self.deliveries:
                records = self.deliveries[reader.below(len(self.deliveries))]
            case 5:
                taken = self._decide(
                    "rep", _made_report(reader) if reader.below(4) else reader.piece()
                )
            case 6:
                taken = self._decide("reg", _made_registration(reader))
            case _:
                self.received_ms += 1000 * reader.octet()
                return
        if operation in (5, 6):
            if taken is None:
                return
            records = taken.records
        self.deliveries.append(records)
        kept = self._deliver(records, is_aborted=reader.below(8) == 0)
        if kept is None or taken is None:
            return
        answer = taken.answer(kept, 0)
        if operation == 5:
            said = ReportAcknowledgement.decode(answer.payload).verdicts
            conflicts = [verdict for verdict in said if verdict.reason == Kept.CONFLICT.value]
            promise(len(conflicts) == kept.count(Kept.CONFLICT), "a conflict nobody spoke of")

    def _decide(self, path: str, payload: bytes) -> Taken | None:
        try:
            return self.intake.take(Uplink(METER, _post(path, payload), self.received_ms))
        except Refused as error:
            self.trail.note(error.reason)
            return None

    def _deliver(self, records: tuple[Record, ...], *, is_aborted: bool) -> tuple[Kept, ...] | None:
        """What became of each record; None if nothing did, for the commit failed."""
        window = (len(self.deliveries), 0)
        delivery = KeepDelivery(METER, RECIPIENT_ID, window, PATH, self.received_ms, records)
        if is_aborted:
            self.connection.execute("SAVEPOINT delivery")
        kept = apply(self.connection, delivery)
        assert isinstance(kept, tuple)
        if is_aborted:
            self.connection.execute("ROLLBACK TO delivery")
            self.connection.execute("RELEASE delivery")
            self.trail.note("aborted")
            return None
        promise(len(kept) == len(records), "an outcome for each record")
        for record, outcome in zip(records, kept, strict=True):
            expected = self._expect(record)
            promise(outcome is expected, f"{type(record).__name__} is {outcome}, not {expected}")
            self.trail.note((type(record).__name__, outcome.name))
        return kept

    def _expect(self, record: object) -> Kept:
        """What must become of a record, by a ledger of dictionaries."""
        match record:
            case DayBlock():
                values: tuple[object, ...] = (
                    record.channel_set,
                    record.interval_s,
                    record.opening,
                    record.advance,
                    record.packed,
                    record.qualities,
                )
                key = (bytes(record.meter), record.channel, record.day)
                return self._put(
                    self.blocks,
                    key,
                    values,
                    f"another block of channel {record.channel} and day {record.day} is stored",
                )
            case LogRecord():
                values = (
                    record.at,
                    record.event_type,
                    record.detail,
                    int(record.is_time_doubtful),
                )
                entry = (bytes(record.meter), record.sequence)
                return self._put(
                    self.entries, entry, values, f"another log entry {record.sequence} is stored"
                )
            case ReportRecord():
                day = (bytes(record.meter), record.day)
                outcome = Kept.REPEATED if day in self.days else Kept.NEW
                self.days.add(day)
                return outcome
            case QuarantinedRecord():
                return self._set_aside(bytes(record.meter), record.reason, record.payload)
            case RegistrationRecord():
                self.registered.add(bytes(record.meter))
                return Kept.NEW
        raise AssertionError(type(record))

    def _put(
        self, table: dict[KeyT, tuple[object, ...]], key: KeyT, values: tuple[object, ...], why: str
    ) -> Kept:
        stored = table.setdefault(key, values)
        if stored is values:
            return Kept.NEW
        if stored == values:
            return Kept.REPEATED
        self._set_aside(key[0], why, repr(values).encode())
        return Kept.CONFLICT

    def _set_aside(self, meter: bytes, reason: str, payload: bytes) -> Kept:
        key = (meter, reason, hashlib.sha256(payload).digest())
        outcome = Kept.REPEATED if key in self.aside else Kept.NEW
        self.aside.add(key)
        return outcome

    def check(self) -> None:
        """What is in the store is what ought to be: each record once, the first of its name."""
        rows = self.connection.execute(
            "SELECT meter, channel, day, channel_set, interval_s, opening, advance, packed, "
            "qualities FROM day_block"
        ).fetchall()
        promise({row[:3]: row[3:] for row in rows} == self.blocks, "the blocks are others")
        promise(len(rows) == len(self.blocks), "a block is there twice")
        rows = self.connection.execute(
            "SELECT meter, sequence, at, event_type, detail, is_time_doubtful FROM log_entry"
        ).fetchall()
        promise({row[:2]: row[2:] for row in rows} == self.entries, "the log is another")
        rows = self.connection.execute("SELECT meter, day FROM report").fetchall()
        promise(sorted(rows) == sorted(self.days), "other days came")
        rows = self.connection.execute("SELECT meter, reason, digest FROM quarantine").fetchall()
        promise(sorted(rows) == sorted(self.aside), "other things were kept aside")


def run_store(data: bytes) -> Outcome:
    """Operations: reports that repeat, conflict or are garbage, registrations, failed commits."""
    connection = _store()
    reader = Reader(data)
    connection.execute("BEGIN")
    try:
        ledger = _Ledger(connection)
        for _ in range(STEP_COUNT_MAX):
            if reader.is_spent:
                break
            ledger.step(reader)
        ledger.check()
    finally:
        connection.execute("ROLLBACK")
    return ledger.trail.outcome


def _made_records(reader: Reader) -> tuple[Record, ...]:
    """Records of few names and fewer contents, so that they repeat and conflict."""
    records: list[Record] = []
    for _ in range(1 + reader.below(3)):
        head = reader.octet()
        meter = METER if head & 0x40 else OTHER_METER
        day = DAY + (head >> 4 & 1)
        variant = head >> 2 & 3
        match head & 3:
            case 0 | 1:
                flags = BlockFlag(variant & 1)
                # A block that differs in nothing but what was thought of it is the same one.
                variant >>= 1
                block_ = DayBlock(
                    meter, 1, day, 7, 7200, variant, 5, b"packed"[variant:], b"", flags
                )
                records.append(block_)
            case 2:
                detail = "a detail" if variant & 2 else ""
                code = "3.26.0.216"
                records.append(LogRecord(meter, day, CLOCK.utc_s, code, detail, variant % 2 > 0))
            case _ if head & 0x20:
                records.append(ReportRecord(meter, day, Method.SCHEDULE, CLOCK.utc_s, 1, variant))
            case _:
                records.append(QuarantinedRecord(meter, "reason"[variant:], b"payload"[variant:]))
    return tuple(records)


def _made_report(reader: Reader) -> bytes:
    head = reader.octet()
    return _report_of(head & 3, head >> 2 & 3, head >> 4 & 3, is_other_set=head >> 7 == 1)


@functools.lru_cache(maxsize=256)
def _report_of(back: int, variant: int, entry_count: int, *, is_other_set: bool) -> bytes:
    day = DAY - back
    made = (
        block(1, missing=True)
        if variant == 3
        else IntervalBlock.of(
            [5 * variant] * 12, channel=1, interval_s=7200, opening=variant, advance=variant * 2
        )
    )
    entries = tuple(
        LogEntry(number, day * 86_400, EndDeviceEventType(3, 26, 0, variant), None)
        for number in range(entry_count)
    )
    return DailyReport(8 if is_other_set else 7, day, CLOCK, (made,), entries).encode()


@functools.lru_cache(maxsize=8)
def _registration_of(channel_set: int, interval_s: int, *, is_other: bool) -> bytes:
    made = registration(interval_s=interval_s)
    return Registration(
        OTHER_METER if is_other else METER,
        made.model_versions,
        made.software,
        channel_set,
        made.standard_offset_min,
        made.channels,
        made.reason,
    ).encode()


def _made_registration(reader: Reader) -> bytes:
    head = reader.octet()
    return _registration_of(7 + (head & 1), 7200 if head & 2 else 3600, is_other=head & 12 == 12)


# Lists


def run_enrolment(data: bytes) -> Outcome:
    """A list of meters and their public keys."""
    text = data.decode(errors="surrogateescape")
    try:
        devices = parse_enrolment(text)
    except Refusal as error:
        str(error).encode(errors="surrogateescape")
        return type(error).__name__, "".join(
            letter for letter in str(error)[-16:] if letter.isalpha() and letter.isascii()
        )
    promise(devices, "a list that is taken has somebody in it")
    promise(len({device.meter for device in devices}) == len(devices), "a meter comes twice")
    again = "".join(f"{format_eui64(one.meter)},{one.public_key.hex()}\n" for one in devices)
    promise(parse_enrolment(again) == devices, "a list of what was read is read otherwise")
    return size_class(len(devices))


def run_identifier(data: bytes) -> Outcome:
    """A text, as a meter's EUI-64 and as a public key."""
    text = data.decode(errors="surrogateescape")
    outcome: list[Outcome] = []
    for parse in (parse_eui64, parse_public_key):
        try:
            outcome.append(len(parse(text)))
        except ConfigError as error:
            promise("\n" not in str(error), "a refusal is one line")
            outcome.append(refusal(error))
    return tuple(outcome)


# Seeds


def intake_seeds() -> Sequence[bytes]:
    """What meters send, to the right place and to wrong ones."""
    reports = [*report_seeds(), report(blocks=[block(3), block(1)]), report(day=1)]
    return [
        *(b"\x00\x00" + one for one in reports),
        *(b"\x00\xe4" + one for one in reports[1:3]),
        b"\x01\x00" + registration().encode(),
        b"\x41\x00" + registration().encode(),
        b"\x0a\x05",
        b"\x20\x00" + reports[0],
        b"\xff\x00",
    ]


def store_seeds() -> Sequence[bytes]:
    """Reports that come once, again, and in another form."""
    plain, same, other = b"\x00\x00\x40\x01", b"\x00\x00\x44\x01", b"\x00\x00\x48\x01"
    logged, doubtful = b"\x01\x00\x42\x01", b"\x01\x00\x46\x01"
    again, aborted = b"\x03\x00\x01", b"\x00\x02\x40\x42\x63\x00"
    uplink, odd_uplink = b"\x05\x01\x34\x01", b"\x05\x01\x38\x01"
    register, garbage = b"\x06\x02\x01", b"\x05\x00\x03\x86\x00\x00\x01"
    return [
        plain + again + same,
        plain + other + again + other,
        logged + again + doubtful + again,
        b"\x00\x02\x63\x43\x47\x01" + again,
        aborted + again + plain,
        aborted + b"\x03\x00\x00" + again,
        register + uplink + again + odd_uplink,
        uplink + odd_uplink + b"\x07\x09" + uplink + garbage,
        garbage + again + garbage + register + b"\x06\x0d\x01",
        plain + b"\x00\x00\x00\x01" + b"\x00\x00\x50\x01",
    ]


def enrolment_seeds() -> Sequence[bytes]:
    """Lists as utilities write them. The key is P-256's own generator."""
    key = "036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    return [
        f"meter,public_key\n02004c00000000a1,{key}\n02-00-4c-00-00-00-00-a2, {key} #2\n".encode(),
        f"\ufeff02004c00000000a1,{key}\r\n\r\n# a comment\n02004c00000000a1,{key}".encode(),
        f"02004c00000000a1,{key},x\n02004c0000,{key}\n02004c00000000a1,03{'00' * 32}\n".encode(),
        b"",
    ]


TARGETS: Final = (
    Target(
        "headend_intake",
        "authentic payloads: Refused, or every record stored, or kept aside and spoken of",
        run_intake,
        intake_seeds,
        is_cbor=False,
        tokens=(b"\x80", b"\x81", b"\x1a\xff\xff\xff\xff", b"\x1b" + b"\xff" * 8, b"\xf5", b"\x40"),
    ),
    Target(
        "store_intake",
        "uplinks into a real SQLite: each record once, the first stays, of a failed commit nothing",
        run_store,
        store_seeds,
        tokens=(b"\x03\x00\x01", b"\x00\x00\x40\x01", b"\x06\x02\x01", b"\x05\x01\x34\x01"),
        size_max=48,
    ),
    Target(
        "enrolment_list",
        "a list of meters: BadEnrolment that names its lines, or devices that are read again",
        run_enrolment,
        enrolment_seeds,
        tokens=(
            b"\n",
            b",",
            b"#",
            b"02004c00000000a1",
            b"\r",
            b"\xe2\x80\xa8",
            b"\xef\xbb\xbf",
            b"\x0c",
        ),
    ),
    Target(
        "identifiers",
        "texts of people as EUI-64 and public key: ConfigError of one line, or the octets",
        run_identifier,
        lambda: [b"02004c00000000a1", b"02:00:4c:00:00:00:00:a1", enrolment_seeds()[0][34:100]],
        tokens=(b"-", b":", b" ", b"\n", b"0x", b"\xd9\xa3", b"02", b"03"),
        size_max=128,
    ),
)
