"""The resources at which the head-end reads the meter now, and what it keeps of the past.

Spec    docs/protocol/model.md, "On-demand read" and "History"
Gives   every answer that can be given; of a read that cannot, its reason to the head-end, to the
        log and to a counter
Raises  StoreError where an answer or that entry cannot be made durable
Limit   an answer of PAYLOAD_SIZE_MAX octets, the log as far as it fits LOG_FITS_IN
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import ModelError, SourceError
from amistack.model import CONTENT_FORMAT_V1, ReadAnswer, ReadParts, ReadRequest
from amistack.model.diagnosis import Diagnosis
from amistack.model.event_catalogue import READ_FAILED
from amistack.model.events import ENTRY_COUNT_MAX
from amistack.model.history import (
    DAY_COUNT_MAX,
    HistoryAnswer,
    HistoryParts,
    HistoryRequest,
    PastDay,
)
from amistack.model.resources import HISTORY, READ
from meterd.clock import MeterClock
from meterd.happenings import AgentEvent, ReadAnswered
from meterd.parts import Log, Resource, refused, unfit
from meterd.recorder import Recorder
from meterd.storage import Storage

LOG_FITS_IN: Final = 3_500
"""Octets up to which a read of this day brings log entries, the newest first."""

TOO_LONG: Final = "too long"
NOT_KEPT: Final = "days not kept"
NO_SELF_TEST: Final = "no self-test"
SOURCE_FAILED: Final = "source failed"

_CODES: Final = {
    TOO_LONG: Code.INTERNAL_SERVER_ERROR,
    NOT_KEPT: Code.UNPROCESSABLE_ENTITY,
    NO_SELF_TEST: Code.UNPROCESSABLE_ENTITY,
    SOURCE_FAILED: Code.INTERNAL_SERVER_ERROR,
}

SelfTest = Callable[[float], Diagnosis]
"""Looks at the meter, at a monotonic time."""


class _Unable(Exception):
    """A read that cannot be answered, and why."""


class OnDemand:
    """What a meter answers when it is read."""

    def __init__(
        self,
        storage: Storage,
        recorder: Recorder,
        clock: MeterClock,
        counters: Counter[str],
        *,
        record: Callable[[float], None],
        tell: Callable[[AgentEvent], None],
        log: Log,
        self_test: SelfTest | None = None,
    ) -> None:
        """`record` records every interval that has ended by then."""
        self._storage = storage
        self._recorder = recorder
        self._clock = clock
        self._counters = counters
        self._record = record
        self._tell = tell
        self._log = log
        self._self_test = self_test

    def resources(self) -> Sequence[Resource]:
        """Where it is read."""
        return (_ReadResource(self), _HistoryResource(self))

    def read(self, wanted: ReadRequest, *, now: float) -> Message:
        """The answer to a read of this day."""
        return self._answered(wanted.identifier, lambda: self._today(wanted, now), READ, now)

    def look_back(self, wanted: HistoryRequest, *, now: float) -> Message:
        """The answer to a read of the past."""
        return self._answered(wanted.identifier, lambda: self._past(wanted, now), HISTORY, now)

    def _answered(
        self, identifier: bytes, make: Callable[[], bytes], path: str, now: float
    ) -> Message:
        try:
            self._record(now)
            answer = make()
        except (_Unable, SourceError, ModelError) as error:
            reason = _reason_of(error)
            self._counters[f"{path} refused: {reason}"] += 1
            self._log(READ_FAILED, f"on demand: {reason}", now=now)
            return refused(_CODES[reason], reason)
        self._counters["reads answered"] += 1
        self._tell(ReadAnswered(identifier))
        return Message.response(
            Code.CONTENT, payload=answer, content_format=CONTENT_FORMAT_V1, max_age=0
        )

    def _today(self, wanted: ReadRequest, now: float) -> bytes:
        """What the meter knows now, as far as it was asked; the log as far as it fits."""
        utc = self._clock.utc(now)
        day = self._recorder.day_of(utc)
        registers = self._recorder.registers(utc) if ReadParts.REGISTERS in wanted.parts else ()
        blocks = tuple(self._recorder.block(day)) if ReadParts.INTERVALS in wanted.parts else ()
        entries = tuple(self._recorder.entries_of(day)) if ReadParts.LOG in wanted.parts else ()
        while True:
            payload = ReadAnswer(
                wanted.identifier,
                self._recorder.channel_set,
                day,
                self._clock.reading(now),
                registers,
                blocks,
                entries,
            ).encode()
            if len(payload) <= LOG_FITS_IN or not entries:
                return payload
            entries = entries[len(entries) // 2 + 1 :]

    def _past(self, wanted: HistoryRequest, now: float) -> bytes:
        """What the meter has of what it is asked for."""
        parts = wanted.parts
        utc = self._clock.utc(now)
        days = tuple(self._days(wanted, self._recorder.day_of(utc)))
        if wanted.ranges and not days:
            raise _Unable(NOT_KEPT)
        diagnosis = None
        if HistoryParts.SELF_TEST in parts:
            if self._self_test is None:
                raise _Unable(NO_SELF_TEST)
            diagnosis = self._self_test(now)
        registers = self._recorder.registers(utc) if HistoryParts.REGISTERS in parts else ()
        return HistoryAnswer(
            wanted.identifier, self._clock.reading(now), registers, days, diagnosis
        ).encode()

    def _days(self, wanted: HistoryRequest, today: int) -> list[PastDay]:
        found = []
        for one in wanted.ranges:
            # A meter keeps some dozens of days, whatever it is asked for.
            first, last = max(one.first, today - DAY_COUNT_MAX + 1), min(one.last, today)
            found += [
                self._past_day(day, wanted.parts)
                for day in range(first, last + 1)
                if day == today or self._storage.channel_days(day)
            ]
        return found

    def _past_day(self, day: int, parts: HistoryParts) -> PastDay:
        recorder = self._recorder
        blocks = recorder.block(day) if HistoryParts.INTERVALS in parts else []
        begin, end = recorder.start_of(day), recorder.start_of(day + 1)
        entries = (
            self._storage.entries_between(begin, end, limit=ENTRY_COUNT_MAX)
            if HistoryParts.LOG in parts
            else []
        )
        return PastDay(day, recorder.channel_set_of(day), tuple(blocks), tuple(entries))


def _reason_of(error: Exception) -> str:
    if isinstance(error, _Unable):
        return str(error)
    # What is made here and is not of the model has no other fault than its length.
    return SOURCE_FAILED if isinstance(error, SourceError) else TOO_LONG


class _ReadResource:
    path = READ
    kind = "amistack.read"

    def __init__(self, reads: OnDemand) -> None:
        self._reads = reads

    def answer(self, message: Message, *, now: float) -> Message:
        """2.05 with the parts of today that were asked for."""
        if (other := unfit(message, Code.FETCH)) is not None:
            return other
        return self._reads.read(ReadRequest.decode(message.payload), now=now)


class _HistoryResource:
    path = HISTORY
    kind = "amistack.history"

    def __init__(self, reads: OnDemand) -> None:
        self._reads = reads

    def answer(self, message: Message, *, now: float) -> Message:
        """2.05 with what is kept of what was asked for."""
        if (other := unfit(message, Code.FETCH)) is not None:
            return other
        return self._reads.look_back(HistoryRequest.decode(message.payload), now=now)
