"""The default schedule: every day's report, from the day after it on until it is acknowledged.

Spec    docs/protocol/model.md, "Daily report" and "Reports once more"
Gives   one report at a time, the newest day first; older days follow `catch_up_s` apart; of a day
        that is not acknowledged RETRY_COUNT retries or GIVE_UP_S after its time, one log entry;
        it is tried on all the same: its next instant is a day away
Limit   PAYLOAD_SIZE_MAX octets of a report with log entries; intervals are never left out
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import (
    CONTENT_FORMAT_V1,
    DailyReport,
    LogEntry,
    RegistrationAcknowledgement,
    ReportAcknowledgement,
)
from amistack.model.event_catalogue import READ_FAILED
from amistack.model.report import Verdict
from amistack.model.resources import REPORT
from meterd.backoff import Backoff
from meterd.clock import MeterClock
from meterd.happenings import AgentEvent, Reported
from meterd.parts import Due, Log, Resource, Urgency
from meterd.recorder import Recorder
from meterd.schedules.book import ScheduleBook
from meterd.schedules.recall import RecallResource
from meterd.storage import Storage

PAYLOAD_SIZE_MAX: Final = 3_500
"""Octets of one report with log entries; what does not fit of the log waits for the next."""
ROUNDING_S: Final = 0.05
"""So much later, rounding in a timer wakes nobody before the time."""
AT_ONCE: Final = 0.0
RETRY_COUNT: Final = 2
"""Retries of the newest day's report before it counts as failed; it is tried on all the same."""
GIVE_UP_S: Final = 3_600
FAILED_DAY: Final = "failed day"
"""The note with the newest day whose report has failed."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a day's report goes out: `delay_s` after its midnight, spread over `spread_s`.

    Older days that are owed follow `catch_up_s` apart in the mean, so that a street that comes back
    does not flood the head-end.
    """

    delay_s: float = 300.0
    spread_s: float = 3600.0
    start_spread_s: float = 5.0
    catch_up_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Told:
    """The report under way."""

    day: int
    entries: tuple[LogEntry, ...]


class DailyReports:
    """The default schedule: a part of the meter, and a voice."""

    def __init__(
        self,
        storage: Storage,
        recorder: Recorder,
        clock: MeterClock,
        book: ScheduleBook,
        schedule: Schedule,
        backoff: Backoff,
        *,
        dice: random.Random,
        counters: Counter[str],
        log: Log,
        tell: Callable[[AgentEvent], None],
    ) -> None:
        self._storage = storage
        self._recorder = recorder
        self._clock = clock
        self._book = book
        self._log = log
        self._resources = (RecallResource(recorder, counters),)
        self._schedule = schedule
        self._backoff = backoff
        self._dice = dice
        self._counters = counters
        self._tell = tell
        # Where in the spread this meter's report falls: the same moment every day.
        self._spread_s = dice.uniform(0.0, schedule.spread_s)
        self._prompt_until: int | None = None
        """Days up to this one were complete at the first start ever: they wait for nothing."""
        self._not_before = AT_ONCE
        self._told: _Told | None = None
        self._attempts: tuple[int, int] = (0, 0)
        """A day, and how often its report came to nothing."""
        self._acknowledged = 0
        """The newest day that is: asked for again, it is late for nobody."""
        self._since = 0.0
        """Before this nothing could be said."""

    def start(self, *, is_first: bool, now: float) -> None:
        """Begin: at the first start ever what is complete already is reported at once."""
        self._since = now
        if is_first:
            self._prompt_until = self._recorder.day_of(self._clock.utc(now)) - 1

    # The part

    def resources(self) -> Sequence[Resource]:
        """Where days are asked for again."""
        return self._resources

    def handle_timer(self, *, now: float) -> None:
        """Put on record, once, that yesterday's report did not come through in time."""
        day, fails_at = self._newest_day(), self.next_timer()
        if fails_at is None or fails_at > now:
            return
        with self._storage.together():
            self._storage.keep_note(FAILED_DAY, str(day))
            self._log(READ_FAILED, f"day {day}", now=now)

    def next_timer(self) -> float | None:
        """When yesterday's report has failed, if it is not acknowledged by then."""
        day = self._newest_day()
        failed = int(self._storage.note(FAILED_DAY) or 0)
        is_told = self._told is not None and self._told.day == day
        if is_told or day <= max(failed, self._acknowledged):
            return None
        if day not in self._recorder.owed_days():
            return None
        attempted, count = self._attempts
        if attempted == day and count > RETRY_COUNT:
            return AT_ONCE
        return max(self._clock.when(self._due(day)), self._since) + GIVE_UP_S + ROUNDING_S

    def _newest_day(self) -> int:
        until = self._recorder.recorded_until
        return 0 if until is None else self._recorder.day_of(until) - 1

    # The voice

    def next_word(self, *, now: float) -> Due | None:
        """When the newest day that is owed may go out, or an older one."""
        owed = self._recorder.owed_days()
        if not owed:
            return None  # The recording of midnight's interval comes back here.
        if (day := self._next_day(now)) is not None:
            is_late = day < self._recorder.day_of(self._clock.utc(now)) - 1
            return Due(self._not_before, Urgency.RECOVERY if is_late else Urgency.DEFAULT)
        due = self._clock.when(self._due(owed[0])) + ROUNDING_S
        return Due(max(due, self._not_before), Urgency.DEFAULT)

    def word(self, *, now: float) -> Message | None:
        """The report of the newest day that may go out now."""
        day = self._next_day(now)
        if day is None:
            return None
        payload, entries = self._report_of(day, now)
        self._told = _Told(day, entries)
        return Message.request(Code.POST, REPORT, payload=payload, content_format=CONTENT_FORMAT_V1)

    def take_answer(self, message: Message, *, sent: float, now: float) -> None:
        """The report is acknowledged: it is settled, whatever the verdicts."""
        told = self._told
        assert told is not None, "an answer without a word"
        acknowledgement = ReportAcknowledgement.decode(message.payload)
        take_time(self._clock, acknowledgement, sent=sent, now=now)
        self._recorder.settle(told.day, told.entries)
        self._told = None
        self._acknowledged = max(self._acknowledged, told.day)
        self._counters["reports acknowledged"] += 1
        self._tell(Reported(told.day, in_words(acknowledgement.verdicts)))
        self._backoff.reset()
        self._not_before = AT_ONCE
        if self._next_day(now) is not None:
            self._not_before = now + self._dice.uniform(0.0, 2 * self._schedule.catch_up_s)

    def take_failure(self, reason: str, *, now: float) -> float:  # noqa: ARG002
        """Again later, each time later."""
        told, self._told = self._told, None
        if told is not None:
            attempted, count = self._attempts
            self._attempts = told.day, count + 1 if attempted == told.day else 1
        wait = self._backoff.wait()
        self._not_before = now + wait
        return wait

    def take_back(self, *, now: float) -> None:  # noqa: ARG002
        """Again when there is a session."""
        self._told = None

    # What is due

    def _next_day(self, now: float) -> int | None:
        """The newest day that is owed and may go out now; older ones follow it."""
        utc = self._clock.utc(now)
        yesterday = self._recorder.day_of(utc) - 1
        for day in self._recorder.owed_days():
            if day < yesterday or self._is_prompt(day) or utc >= self._due(day):
                return day
        return None

    def _is_prompt(self, day: int) -> bool:
        return self._prompt_until is not None and day <= self._prompt_until

    def _due(self, day: int) -> float:
        """UTC at which the report of `day` is to go out."""
        midnight = self._recorder.start_of(day + 1)
        default = self._book.default
        if default is not None and midnight + default.offset_s >= default.start_s:
            return midnight + default.offset_s
        return midnight + self._schedule.delay_s + self._spread_s

    # What is said

    def _report_of(self, day: int, now: float) -> tuple[bytes, tuple[LogEntry, ...]]:
        blocks = tuple(self._recorder.block(day))
        entries = tuple(self._recorder.entries_due(day))
        clock = self._clock.reading(now)
        channel_set = self._recorder.channel_set_of(day)
        while True:
            report = DailyReport(channel_set, day, clock, blocks, entries)
            payload = report.encode()
            if len(payload) <= PAYLOAD_SIZE_MAX or not entries:
                return payload, entries
            entries = entries[: len(entries) // 2]


def take_time(
    clock: MeterClock,
    acknowledgement: ReportAcknowledgement | RegistrationAcknowledgement,
    *,
    sent: float,
    now: float,
) -> None:
    """Compare the clock with the stamps of an acknowledgement."""
    if acknowledgement.received_ms:  # Else the head-end does not know the time itself.
        clock.take_sample(
            sent=sent,
            got=now,
            received_ms=acknowledgement.received_ms,
            held_ms=acknowledgement.held_ms,
        )


def in_words(verdicts: tuple[Verdict, ...]) -> tuple[str, ...]:
    """What the head-end did not plainly accept, a line each."""
    return tuple(f"{one.record}: {one.disposition.name.lower()}, {one.reason}" for one in verdicts)
