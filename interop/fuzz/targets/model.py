"""The application model's octets: every message, and packed values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from amistack.errors import ModelError
from amistack.identifiers import Eui64
from amistack.model import (
    Channel,
    ClockReading,
    ClockState,
    DailyReport,
    Disposition,
    EndDeviceEventType,
    FlowDirection,
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
    interval_energy,
    kept_indices,
    pack,
    register_energy,
    unpack,
)
from amistack.model.packing import VALUE_COUNT_MAX
from interop.fuzz.target import Outcome, Reader, Target, promise, refusal, size_class

METER: Final = Eui64(bytes.fromhex("02004c00000000a1"))
DAY: Final = 20_777
CLOCK: Final = ClockReading(DAY * 86_400 + 30_000, ClockState.SET)


class _Encodable(Protocol):
    def encode(self) -> bytes: ...


def _reread(message: _Encodable, data: bytes) -> None:
    promise(message.encode() == data, "a message has one encoding, and this is another")


def run_registration(data: bytes) -> Outcome:
    """A registration."""
    try:
        registration = Registration.decode(data)
    except ModelError as error:
        return refusal(error)
    _reread(registration, data)
    return (
        size_class(len(registration.channels)),
        registration.reason,
        len(registration.model_versions) > 1,
        tuple(channel.unit == "Wh" for channel in registration.channels[:2]),
    )


def run_report(data: bytes) -> Outcome:
    """A daily report, strictly and leniently."""
    try:
        lenient, verdicts = DailyReport.decode_leniently(data)
    except ModelError as error:
        outcome = refusal(error)
        try:
            DailyReport.decode(data)
        except ModelError:
            return outcome
        promise(False, "what is strictly a report is leniently none")  # noqa: FBT003
    for verdict in verdicts:
        promise(verdict.disposition is Disposition.UNREADABLE, "a lenient decoder judges no more")
        promise(len(verdict.reason.encode()) <= 64, "a reason is too long to be said")
    for kind, count in (
        (RecordKind.BLOCK, len(lenient.blocks)),
        (RecordKind.ENTRY, len(lenient.entries)),
    ):
        places = kept_indices(kind, count, verdicts)
        promise(len(places) == count, "a record that was kept has no place")
        dropped = {verdict.record.index for verdict in verdicts if verdict.record.kind is kind}
        promise(not dropped & set(places), "a record was kept and dropped")
    # What is kept can be said again, and is the same then.
    promise(DailyReport.decode(lenient.encode()) == lenient, "what was kept reads otherwise")
    looks = tuple(_look_into(block) for block in lenient.blocks)[:2]
    try:
        strict = DailyReport.decode(data)
    except ModelError as error:
        return refusal(error), size_class(len(verdicts)), looks
    _reread(strict, data)
    promise(strict == lenient and not verdicts, "strictly and leniently it is not the same")
    return size_class(len(strict.blocks)), size_class(len(strict.entries)), looks


def run_read_answer(data: bytes) -> Outcome:
    """The answer to an on-demand read."""
    try:
        answer = ReadAnswer.decode(data)
    except ModelError as error:
        return refusal(error)
    _reread(answer, data)
    return (
        size_class(len(answer.registers)),
        size_class(len(answer.entries)),
        tuple(_look_into(block) for block in answer.blocks[:3]),
    )


def _look_into(block: IntervalBlock) -> Outcome:
    """What a head-end asks a block: its values, whether they add up, its flags."""
    promise(len(block.flags()) == block.count, "an interval without a flag, or a flag without one")
    try:
        values = block.values()
    except ModelError as error:
        return refusal(error)
    promise(len(values) == block.count, "another number of intervals than the block says")
    promise((None in values) == block.has_missing, "an interval is missing, or it is not")
    return block.is_consistent, block.has_missing, size_class(block.count)


SMALL: Final[tuple[Callable[[bytes], _Encodable], ...]] = (
    RegistrationAcknowledgement.decode,
    ReportAcknowledgement.decode,
    ReadRequest.decode,
    ReportRequest.decode,
    TimeAnswer.decode,
)


def run_small(data: bytes) -> Outcome:
    """One payload, as each of the small messages."""
    outcome: list[Outcome] = []
    for decode in SMALL:
        try:
            message = decode(data)
        except ModelError as error:
            outcome.append(refusal(error))
        else:
            _reread(message, data)
            outcome.append(type(message).__name__)
    return tuple(outcome)


def run_packing(data: bytes) -> Outcome:
    """How many values (two octets), then those values packed."""
    reader = Reader(data)
    count = reader.number(2) % (VALUE_COUNT_MAX + 2)
    packed = reader.rest()
    try:
        values = unpack(packed, count)
    except ModelError as error:
        return refusal(error)
    promise(len(values) == count, "another number of values than was asked for")
    promise(pack(values) == packed, "values have one packing, and this is another")
    return size_class(count), size_class(len(packed)), min(values, default=0) < 0


def run_texts(data: bytes) -> Outcome:
    """A text, as a reading type and as an event type."""
    text = data.decode(errors="surrogateescape")
    outcome: list[Outcome] = []
    for parse in (ReadingType.parse, EndDeviceEventType.parse):
        try:
            code = parse(text)
        except ModelError as error:
            # A refusal's detail may become a diagnostic payload.
            str(error).encode()
            outcome.append(refusal(error))
        else:
            promise(str(code) == text, "a code has one form, and this is another")
            outcome.append(type(code).__name__)
    return tuple(outcome)


# Seeds


def block(channel: int = 1, *, missing: bool = False, interval_s: int = 3600) -> IntervalBlock:
    """A day on one channel; `missing` leaves a gap in it."""
    count = 86_400 // interval_s
    values: list[int | None] = [17 * index % 40 for index in range(count)]
    flags = [Quality(0)] * count
    if missing:
        values[2:5] = [None] * 3
        flags[7:9] = [Quality.POWER_OFF | Quality.CLOCK_ADJUSTED] * 2
    return IntervalBlock.of(
        values,
        channel=channel,
        interval_s=interval_s,
        opening=1_000,
        advance=2_000 if missing else None,
        flags=flags,
    )


def report(*, day: int = DAY, blocks: Sequence[IntervalBlock] = (), entry_count: int = 0) -> bytes:
    """A report of a proper meter."""
    entries = tuple(
        LogEntry(
            number,
            day * 86_400 + 60 * number,
            EndDeviceEventType(3, 26, 0, 216),
            "by night" if number % 2 else None,
            is_time_doubtful=number % 3 == 2,
        )
        for number in range(entry_count)
    )
    return DailyReport(7, day, CLOCK, tuple(blocks), entries).encode()


def registration(*, interval_s: int = 3600) -> Registration:
    """A registration of a proper meter with two channels."""
    return Registration(
        METER,
        (1, 2),
        "meterd 0.1.0",
        7,
        60,
        tuple(
            Channel(
                number,
                interval_energy(interval_s, flow),
                register_energy(flow),
                0,
                "Wh",
                interval_s,
            )
            for number, flow in ((1, FlowDirection.FORWARD), (2, FlowDirection.REVERSE))
        ),
        RegistrationReason.COLD_BOOT,
    )


def report_seeds() -> Sequence[bytes]:
    """Reports from the empty one to the full one."""
    return [
        report(),
        report(blocks=[block()]),
        report(blocks=[block(1), block(2, missing=True)], entry_count=3),
        report(blocks=[block(1, interval_s=7200, missing=True)], entry_count=1),
        report(blocks=[block(number, interval_s=43_200) for number in range(16)]),
        report(entry_count=8),
    ]


def answer_seeds() -> Sequence[bytes]:
    """Answers with any of the parts, and with all."""
    identifier = b"identity"
    half = IntervalBlock.of([1, None, 3], channel=1, interval_s=3600, opening=5, advance=9)
    entry = LogEntry(3, DAY * 86_400 - 5, EndDeviceEventType(3, 26, 0, 47), "x" * 64)
    return [
        answer.encode()
        for answer in (
            ReadAnswer(identifier, 7, DAY, CLOCK),
            ReadAnswer(identifier, 7, DAY, CLOCK, ((1, 2**40), (2, -5))),
            ReadAnswer(identifier * 2, 0, 0, ClockReading(0, ClockState.UNSET), (), (half,)),
            ReadAnswer(identifier, 9, DAY, CLOCK, ((1, 5),), (half,), (entry,)),
        )
    ]


def small_seeds() -> Sequence[bytes]:
    """One or two of each."""
    verdicts = (
        Verdict(RecordRef(RecordKind.BLOCK, 1), Disposition.QUARANTINED, "unknown channel"),
        Verdict(RecordRef(RecordKind.WHOLE), Disposition.UNREADABLE, ""),
    )
    messages: list[_Encodable] = [
        RegistrationAcknowledgement(1_795_170_000_123, 12, 1),
        ReportAcknowledgement(1_795_170_000_123, 3),
        ReportAcknowledgement(1_795_170_000_123, 3, verdicts),
        ReadRequest(b"identity", ReadParts.REGISTERS | ReadParts.LOG),
        ReportRequest(DAY - 3, DAY),
        TimeAnswer(0, 0),
        TimeAnswer(1_795_170_000_123, 2**32 - 1),
    ]
    return [message.encode() for message in messages]


def packing_seeds() -> Sequence[bytes]:
    """Series of every width."""
    series: list[list[int]] = [
        [],
        [0] * 24,
        [5] * 9,
        list(range(24)),
        [-3, 7, 2**20, 2**52, -(2**52), 0, 1, 2, 3],
        [2**53 - 1, -(2**53 - 1)],
        [(index * 977) % 4000 for index in range(96)],
    ]
    return [len(values).to_bytes(2, "big") + pack(values) for values in series]


def text_seeds() -> Sequence[bytes]:
    """Codes as they are written."""
    return [
        str(interval_energy(900, FlowDirection.FORWARD)).encode(),
        str(register_energy(FlowDirection.REVERSE)).encode(),
        b"3.26.0.216",
        b"65535.65535.65535.65535",
        "٣.1.1.1".encode(),
    ]


TARGETS: Final = (
    Target(
        "model_registration",
        "a registration is refused by ModelError, or encodes again to the same octets",
        run_registration,
        lambda: [registration().encode(), registration(interval_s=900).encode()],
        is_cbor=True,
    ),
    Target(
        "model_report",
        "a report, strictly and leniently: ModelError, or every record kept or spoken of",
        run_report,
        report_seeds,
        is_cbor=True,
    ),
    Target(
        "model_read_answer",
        "an on-demand answer is refused by ModelError, or encodes again to the same octets",
        run_read_answer,
        answer_seeds,
        is_cbor=True,
    ),
    Target(
        "model_small",
        "acknowledgements, wishes and times: ModelError, or the same octets again",
        run_small,
        small_seeds,
        is_cbor=True,
        size_max=256,
    ),
    Target(
        "model_packing",
        "packed values are refused by ModelError, or pack again to the same octets",
        run_packing,
        packing_seeds,
        tokens=(b"\xff" * 7, b"\x80" * 8, b"\x0f\xf0", b"\x36", b"\x00\x60"),
        size_max=256,
    ),
    Target(
        "model_texts",
        "reading types and event types: ModelError, or the same text again",
        run_texts,
        text_seeds,
        tokens=(b".", b"0", b"00", b"65535", b"65536", b"-", b" ", b"\n", "٣".encode()),
        size_max=128,
    ),
)
