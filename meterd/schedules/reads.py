"""Send what the schedules owe, at their times: a part of the meter, and a voice.

A read is due at each instant of its schedule. It is the newest stretch of time that was not
acknowledged to that schedule, with registers and log, and then the older ones, a day at a time.

    waiting --instant--> due --word--> under way --acknowledged--> due, or over
                          ^                |
                          +-- jittered ----+-- RETRY_COUNT times, then failed: logged once

Gives   what is not acknowledged once more at the next instant
Raises  StoreError when something cannot be kept
Limit   RETRY_COUNT retries of a message; a read that is GIVE_UP_S late, or met by the next, has
        failed; of those missed while the meter was off one entry tells
Never   reads while the clock is not set
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import SourceError
from amistack.model import CONTENT_FORMAT_V1, ClockState, LogEntry, ReadParts, ReportAcknowledgement
from amistack.model.event_catalogue import READ_FAILED
from amistack.model.resources import SCHEDULED_READ
from amistack.model.schedule import ReadSchedule
from amistack.model.scheduled_read import ScheduledRead, Span
from amistack.model.wire import DAY_S
from meterd.clock import MeterClock
from meterd.happenings import AgentEvent, ReadSent
from meterd.parts import Due, Log, Resource, Urgency
from meterd.recorder import RETENTION_DAYS, Recorder
from meterd.schedules.book import Kept, ScheduleBook
from meterd.schedules.daily import AT_ONCE, PAYLOAD_SIZE_MAX, ROUNDING_S, in_words, take_time
from meterd.schedules.occurrences import count_between, first_from, last_until
from meterd.schedules.resource import SchedulesResource
from meterd.schedules.spans import Stretch, cut, joined, span_of
from meterd.storage import Storage

RETRY_COUNT: Final = 2
RETRY_MIN_S: Final = 10.0
RETRY_MAX_S: Final = 60.0
"""Seconds, by chance between these, from a failure to the next try."""
GIVE_UP_S: Final = 3_600


@dataclass(slots=True)
class _Read:
    """The read of `schedule` that is due at the UTC second `instant`."""

    schedule: ReadSchedule
    instant: int
    stretches: list[Stretch] | None = None
    """What it still has to send, newest first; None until its first word."""
    until: int = 0
    """Up to where it reads: what its schedule's cursor will be."""
    attempt_count: int = 0
    not_before: float = AT_ONCE


@dataclass(frozen=True, slots=True)
class _Told:
    """The message under way."""

    number: int
    stretch: Stretch
    entries: tuple[LogEntry, ...]


class ScheduledReads:
    """All schedules of one meter but the default one."""

    def __init__(
        self,
        book: ScheduleBook,
        storage: Storage,
        recorder: Recorder,
        clock: MeterClock,
        *,
        catch_up_s: float,
        dice: random.Random,
        counters: Counter[str],
        log: Log,
        record: Callable[[float], None],
        tell: Callable[[AgentEvent], None],
    ) -> None:
        self._book = book
        self._storage = storage
        self._recorder = recorder
        self._clock = clock
        self._resources = (SchedulesResource(book, counters),)
        self._catch_up_s = catch_up_s
        self._dice = dice
        self._log = log
        self._record = record
        self._tell = tell
        self._due: dict[int, _Read] = {}
        self._told: _Told | None = None

    # The part

    def resources(self) -> Sequence[Resource]:
        """Where the schedules are set."""
        return self._resources

    def handle_timer(self, *, now: float) -> None:
        """Find what has become due, and what has failed."""
        if self._clock.state is ClockState.UNSET:
            return
        utc = self._clock.utc(now)
        kept = {one.schedule.number: one for one in self._reading()}
        self._forget_changed(kept)
        for one in kept.values():
            self._look_at(one, utc, now)

    def next_timer(self) -> float | None:
        """When the next read becomes due or has failed."""
        if self._clock.state is ClockState.UNSET:
            return None
        times = [at for one in self._reading() if (at := self._next_look(one)) is not None]
        return min(times, default=None)

    def _reading(self) -> list[Kept]:
        return [one for one in self._book.all() if not one.schedule.is_default]

    def _next_look(self, kept: Kept) -> float | None:
        schedule, read = kept.schedule, self._due.get(kept.schedule.number)
        if self._is_told(schedule.number):
            return None  # Its end comes first.
        if read is None or read.instant <= kept.settled:
            at = first_from(schedule, kept.settled + 1, offset_s=self._offset_s)
        elif read.attempt_count > RETRY_COUNT:
            return AT_ONCE
        else:
            following = first_from(schedule, read.instant + 1, offset_s=self._offset_s)
            at = read.instant + GIVE_UP_S
            at = at if following is None else min(at, following)
        return None if at is None else self._clock.when(at) + ROUNDING_S

    def _look_at(self, kept: Kept, utc: float, now: float) -> None:
        schedule, number = kept.schedule, kept.schedule.number
        if self._is_told(number):
            return
        latest = last_until(schedule, utc, offset_s=self._offset_s)
        if latest is None or latest <= kept.settled:
            self._due.pop(number, None)
            return
        # Before the one that is due now: those that were never begun or never came to an end.
        missed = count_between(schedule, kept.settled, latest, offset_s=self._offset_s) - 1
        read = self._due.get(number)
        has_failed = read is not None and read.attempt_count > RETRY_COUNT
        if utc >= latest + GIVE_UP_S or (has_failed and missed == 0):
            self._fail(kept, latest, missed + 1, now)
            return
        if missed:
            before = latest - schedule.period_s
            self._fail(kept, before, missed, now)
        if read is None or read.instant != latest:
            self._due[number] = _Read(schedule, latest)

    def _fail(self, kept: Kept, instant: int, count: int, now: float) -> None:
        """The reads up to that of `instant` have failed: told once, for good."""
        number = kept.schedule.number
        times = "" if count == 1 else f", {count} times"
        with self._storage.together():
            self._log(READ_FAILED, f"schedule {number}{times}", now=now)
            # Failed or not, the first read says from where on everything is owed.
            cursor = kept.cursor or self._first_second(kept)
            self._storage.put(replace(kept, settled=instant, cursor=cursor).change)
        self._due.pop(number, None)

    def _forget_changed(self, kept: Mapping[int, Kept]) -> None:
        """What was due by schedules that were cancelled, or are others now, is nobody's."""
        for number, read in tuple(self._due.items()):
            one = kept.get(number)
            if one is None or one.schedule != read.schedule or read.instant <= one.settled:
                del self._due[number]

    def _is_told(self, number: int) -> bool:
        return self._told is not None and self._told.number == number

    # The voice

    def next_word(self, *, now: float) -> Due | None:
        """When the most urgent of the reads that are due may go out."""
        if self._told is not None:
            return None
        dues = [
            Due(read.not_before, self._urgency(read))
            for read in self._due.values()
            if read.attempt_count <= RETRY_COUNT
        ]
        ready = [due for due in dues if due.at <= now]
        return min(ready, key=lambda due: due.urgency) if ready else min(dues, default=None)

    def word(self, *, now: float) -> Message | None:
        """The most urgent read that may go out now."""
        self._record(now)
        kept = {one.schedule.number: one for one in self._reading()}
        self._forget_changed(kept)
        ready = sorted(
            (self._urgency(read), read.instant, number)
            for number, read in self._due.items()
            if read.not_before <= now and read.attempt_count <= RETRY_COUNT
        )
        if not ready:
            return None
        *_, number = ready[0]
        read = self._due[number]
        if read.stretches is None:
            self._begin(read, kept[number])
        assert read.stretches, "a read that sent everything is over"
        stretch = read.stretches[0]
        is_newest = stretch.end == read.until
        payload, entries = self._message(kept[number], stretch, now, is_newest=is_newest)
        self._told = _Told(number, stretch, entries)
        return Message.request(
            Code.POST, SCHEDULED_READ, payload=payload, content_format=CONTENT_FORMAT_V1
        )

    def take_answer(self, message: Message, *, sent: float, now: float) -> None:
        """A stretch is acknowledged: its values, registers and entries are settled."""
        told = self._told
        assert told is not None, "an answer without a word"
        acknowledgement = ReportAcknowledgement.decode(message.payload)
        take_time(self._clock, acknowledgement, sent=sent, now=now)
        kept, read = self._book.find(told.number), self._due.get(told.number)
        if kept is not None and read is not None and read.schedule == kept.schedule:
            self._settle(kept, read, told, now)
        self._told = None
        self._tell(ReadSent(told.number, told.stretch.end, in_words(acknowledgement.verdicts)))

    def take_failure(self, reason: str, *, now: float) -> float:  # noqa: ARG002
        """Again soon, or not before the next instant."""
        told, self._told = self._told, None
        read = None if told is None else self._due.get(told.number)
        if read is None:
            return 0.0
        read.attempt_count += 1
        wait = self._dice.uniform(RETRY_MIN_S, RETRY_MAX_S)
        read.not_before = now + wait
        return wait

    def take_back(self, *, now: float) -> None:  # noqa: ARG002
        """Again when there is a session; it was no try."""
        self._told = None

    @staticmethod
    def _urgency(read: _Read) -> Urgency:
        if read.stretches and read.stretches[0].end != read.until:
            return Urgency.RECOVERY
        is_frequent = read.schedule.period_s < DAY_S
        return Urgency.FREQUENT if is_frequent else Urgency.DEFAULT

    # What is sent

    @property
    def _offset_s(self) -> int:
        return -self._recorder.start_of(0)

    def _begin(self, read: _Read, kept: Kept) -> None:
        """Find out what a read has to send: everything since the last one that succeeded."""
        until = self._recorder.recorded_until or read.instant
        begin = kept.cursor or self._first_second(kept)
        oldest = self._recorder.start_of(self._recorder.day_of(until) - RETENTION_DAYS)
        offset_s = self._offset_s
        new = cut(max(begin, oldest), until, offset_s=offset_s)
        # Where nothing was recorded since, registers and log are due all the same.
        newest = new[0] if new else Stretch(max(until, begin), max(until, begin))
        older = joined((*new[1:], *kept.owed), offset_s=offset_s)
        read.until = newest.end
        read.stretches = [newest, *(one for one in older if self._is_recorded(one))]

    def _is_recorded(self, stretch: Stretch) -> bool:
        """Whether there still is, or ever was, anything to say of its day."""
        return bool(self._recorder.block(self._recorder.day_of(stretch.begin)))

    def _first_second(self, kept: Kept) -> int:
        """Where the first read of a schedule begins: at a midnight, a whole period back."""
        schedule = kept.schedule
        first = first_from(schedule, kept.settled + 1, offset_s=self._offset_s)
        assert first is not None, "a schedule that reads has a first read"
        since = first - schedule.period_s if schedule.period_s >= DAY_S else first
        return self._recorder.start_of(self._recorder.day_of(since))

    def _message(
        self, kept: Kept, stretch: Stretch, now: float, *, is_newest: bool
    ) -> tuple[bytes, tuple[LogEntry, ...]]:
        parts = kept.schedule.parts
        utc = self._clock.utc(now)
        day = self._recorder.day_of(stretch.begin)
        midnight = self._recorder.start_of(day)
        spans: tuple[Span, ...] = ()
        if ReadParts.INTERVALS in parts:
            spans = tuple(
                span
                for block in self._recorder.block(day)
                if (span := span_of(block, stretch, midnight=midnight)).block.count
            )
        registers: tuple[tuple[int, int], ...] = ()
        if is_newest and ReadParts.REGISTERS in parts:
            # What the source cannot say now keeps nothing else from being sent.
            with contextlib.suppress(SourceError):
                registers = self._recorder.registers(utc)
        entries: tuple[LogEntry, ...] = ()
        if is_newest and ReadParts.LOG in parts:
            entries = tuple(self._recorder.entries_due(self._recorder.day_of(utc)))
        while True:
            payload = ScheduledRead(
                kept.schedule.number,
                self._recorder.channel_set_of(day),
                day,
                self._clock.reading(now),
                registers,
                spans,
                entries,
            ).encode()
            if len(payload) <= PAYLOAD_SIZE_MAX or not entries:
                return payload, entries
            entries = entries[: len(entries) // 2]

    def _settle(self, kept: Kept, read: _Read, told: _Told, now: float) -> None:
        assert read.stretches is not None, "what was told was planned"
        rest = [one for one in read.stretches if one != told.stretch]
        settled = kept.settled if rest else max(kept.settled, read.instant)
        with self._storage.together():
            self._storage.settle_entries([entry.sequence for entry in told.entries])
            self._storage.put(
                replace(kept, cursor=read.until, settled=settled, owed=tuple(rest)).change
            )
        read.stretches = rest
        read.attempt_count = 0
        if rest:
            read.not_before = now + self._dice.uniform(0.0, 2 * self._catch_up_s)
        else:
            del self._due[kept.schedule.number]
