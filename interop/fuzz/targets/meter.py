"""What meters are told and asked beside reports: programme, schedules, clock, switch, and so on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from amistack.errors import ModelError
from amistack.identifiers import Eui64
from amistack.model import ClockReading, ClockState, LogEntry
from amistack.model.clock import ClockSetting, ClockStatus, Comparison
from amistack.model.control import (
    Action,
    ControlAnswer,
    ControlCommand,
    LimitWindow,
    LoadLimit,
    SwitchState,
)
from amistack.model.diagnosis import Diagnosis, DiagnosisPlan, DiagnosisWish
from amistack.model.dump import DumpPage, DumpRequest
from amistack.model.event_catalogue import TILTED, Delivery, Importance
from amistack.model.event_notice import EventNotice, EventRule, EventRules, NoticedEvent
from amistack.model.head_end_key import HeadEndKeyNotice
from amistack.model.history import DayRange, HistoryAnswer, HistoryParts, HistoryRequest
from amistack.model.holdings import KeptProgramme, LogBatch, Owed, TableRows
from amistack.model.home import HomeList, Subscription, Unsubscription
from amistack.model.messages import MessageList, TextMessage
from amistack.model.programme import Programme
from amistack.model.programme_state import (
    ProgrammeRefusal,
    ProgrammeStamp,
    ProgrammeState,
    RollBack,
)
from amistack.model.registers import DemandReset, RegistersAnswer
from amistack.model.schedule import (
    ReadSchedule,
    ScheduleAcknowledgement,
    ScheduleCancellation,
    ScheduleTable,
)
from amistack.model.scheduled_read import ScheduledRead
from interop.fuzz.target import Outcome, Target, promise, refusal


class _Encodable(Protocol):
    def encode(self) -> bytes: ...


DECODERS: Final[tuple[Callable[[bytes], _Encodable], ...]] = (
    Programme.decode,
    ProgrammeStamp.decode,
    ProgrammeState.decode,
    ProgrammeRefusal.decode,
    RollBack.decode,
    RegistersAnswer.decode,
    DemandReset.decode,
    ReadSchedule.decode,
    ScheduleAcknowledgement.decode,
    ScheduleCancellation.decode,
    ScheduleTable.decode,
    ScheduledRead.decode,
    HistoryRequest.decode,
    HistoryAnswer.decode,
    EventNotice.decode,
    EventRules.decode,
    ClockStatus.decode,
    ClockSetting.decode,
    ControlCommand.decode,
    ControlAnswer.decode,
    SwitchState.decode,
    TextMessage.decode,
    MessageList.decode,
    Diagnosis.decode,
    DiagnosisWish.decode,
    DiagnosisPlan.decode,
    DumpRequest.decode,
    DumpPage.decode,
    LogBatch.decode,
    HeadEndKeyNotice.decode,
    Subscription.decode,
    Unsubscription.decode,
    HomeList.decode,
    KeptProgramme.decode,
    Owed.decode,
    TableRows.decode,
)


def run_meter(data: bytes) -> Outcome:
    """One octet that says which message it is, then its payload."""
    which = data[0] % len(DECODERS) if data else 0
    try:
        message = DECODERS[which](data[1:])
    except ModelError as error:
        return which, refusal(error)
    promise(message.encode() == data[1:], "a message has one encoding, and this is another")
    return which, type(message).__name__


def meter_seeds() -> Sequence[bytes]:
    """One of many, as the specification's examples have them."""
    clock = ClockReading(1_728_030_002, ClockState.SET)
    limit = LoadLimit(30, 300, 2, 0, 2**32 - 1, (LimitWindow(0b0011111, 1_020, 1_200, 3_000),))
    meter = Eui64(bytes.fromhex("70b3d5fffe000017"))
    tilted = NoticedEvent(Importance.SAFETY, LogEntry(42, 1_728_030_000, TILTED))
    parts = HistoryParts.INTERVALS | HistoryParts.LOG
    rule = EventRule(TILTED, Delivery.LOG_ONLY, Importance.INFORMATION)
    made: tuple[tuple[Callable[[bytes], _Encodable], _Encodable], ...] = (
        (RollBack.decode, RollBack(3)),
        (ProgrammeStamp.decode, ProgrammeStamp(3, bytes(32), 1_728_030_000)),
        (DemandReset.decode, DemandReset(4)),
        (ReadSchedule.decode, ReadSchedule(3, 3_600, 120, 0, 1_790_000_000)),
        (ScheduleCancellation.decode, ScheduleCancellation(3)),
        (HistoryRequest.decode, HistoryRequest(b"identity", parts, (DayRange(20_000, 20_003),))),
        (EventNotice.decode, EventNotice(meter, clock, (tilted,))),
        (EventRules.decode, EventRules(7, (rule,))),
        (ClockStatus.decode, ClockStatus(clock, Comparison(-350, 41, 1_728_030_000))),
        (ClockSetting.decode, ClockSetting(b"operator", 1_728_030_002_500)),
        (ControlCommand.decode, ControlCommand(2, 1_790_000_000, Action.LIMIT, limit)),
        (TextMessage.decode, TextMessage(1, 0, 1_790_000_000, True, "text")),  # noqa: FBT003
        (DiagnosisPlan.decode, DiagnosisPlan(12, 7)),
        (DiagnosisWish.decode, DiagnosisWish(1)),
        (DumpRequest.decode, DumpRequest(1)),
    )
    return [bytes((DECODERS.index(decode),)) + message.encode() for decode, message in made]


TARGETS: Final = (
    Target(
        "model_meter",
        "what a meter is told and asked: ModelError, or the same octets again",
        run_meter,
        meter_seeds,
        is_cbor=True,
    ),
)
