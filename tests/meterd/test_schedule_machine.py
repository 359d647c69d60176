"""Schedules through weeks of bad luck, beside a model that knows nothing of how they work.

The contract under test, whatever is set, cancelled, lost, refused or cut off, in any order:
every instant of a schedule ends in one way, acknowledged or failed, and each failure is on record
once; to each schedule every interval since the midnight of its first read is acknowledged once and
with its right value; nothing is sent before its instant, or more than three times in a row.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import EndDeviceEventType, ReportAcknowledgement
from amistack.model.event_catalogue import READ_FAILED
from amistack.model.schedule import WEEK_S, ReadSchedule
from amistack.model.scheduled_read import ScheduledRead
from meterd.agent.recording import Recording
from meterd.clock import MeterClock
from meterd.parts import Urgency
from meterd.recorder import Recorder
from meterd.schedules.book import ScheduleBook
from meterd.schedules.reads import ScheduledReads
from meterd.storage import Storage
from tests.meterd.test_recorder import StubSource
from tests.support.power import TornFiles

DAY = 86_400
HOUR = 3600
EPOCH = 20_700 * DAY + 10 * HOUR + 17
"""UTC at the time 0."""
OFFSET_MIN = 60
TRIES = 3
FAILED = re.compile(r"schedule (\d+)(?:, (\d+) times)?")

UP, FLAKY, SILENT, AWAY = "up", "flaky", "silent", "away"
"""The head-end acknowledges; every other time by chance; never; there is no session."""


def source() -> StubSource:
    return StubSource(HOUR, known_from=EPOCH - 2 * DAY)


def instants_of(schedule: ReadSchedule, after: float, until: float) -> list[int]:
    """Every instant of a schedule after one time and up to another, by walking along the days."""
    found = []
    day = int(after + 60 * OFFSET_MIN) // DAY - 8
    while day * DAY - 60 * OFFSET_MIN <= until:
        midnight = day * DAY - 60 * OFFSET_MIN
        # 1970-01-01 was a Thursday.
        steps = [0] if schedule.period_s >= DAY else range(0, DAY, schedule.period_s)
        if schedule.period_s != WEEK_S or (day + 3) % 7 == 0:
            found += [midnight + step + schedule.offset_s for step in steps]
        day += 1
    return [
        at
        for at in found
        if after < at <= until
        and at >= schedule.start_s
        and (not schedule.end_s or at < schedule.end_s)
    ]


@dataclass
class Expected:
    """What the model knows of one schedule."""

    schedule: ReadSchedule
    since: float
    """Instants after this (UTC s) are its own."""
    begin: int | None = None
    """From here on (UTC s) everything is owed; None before the first read has ended."""
    acknowledged: set[int] = field(default_factory=set)
    """Beginnings of the intervals (UTC s) that were acknowledged."""
    done: int = 0
    failed: int = 0
    """Instants since `since` that ended one way or the other."""
    tries: int = 0
    """Failures in a row."""

    def passed(self, utc: float) -> list[int]:
        return instants_of(self.schedule, self.since, utc)

    def owed_by(self, utc: float) -> range:
        """The intervals that are acknowledged once the last instant before has ended well."""
        assert self.begin is not None
        last = self.passed(utc)[-1]
        return range(max(self.begin, KNOWN_FROM), last - last % HOUR, HOUR)

    def pin(self, utc: float) -> None:
        if self.begin is None:
            first = self.passed(utc)[0]
            if self.schedule.period_s >= DAY:
                first -= self.schedule.period_s
            shifted = first + 60 * OFFSET_MIN
            self.begin = shifted - shifted % DAY - 60 * OFFSET_MIN


@dataclass
class UnderWay:
    """A read that was sent and has not ended."""

    read: ScheduledRead
    of: Expected
    sent: float
    ends_at: float


class Schedules(RuleBasedStateMachine):
    """One meter's schedules, driven by hand."""

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        self.now = 0.0
        self.dice = random.Random(seed)
        self.files = TornFiles(random.Random(seed))
        self.link = UP
        self.model: dict[int, Expected] = {}
        self.seen_entries = 0
        self.under_way: UnderWay | None = None
        self.power_on()
        self.set_schedule(1, HOUR, 0, None, None)
        self.set_schedule(2, DAY, 60, None, None)

    # The meter

    @property
    def utc(self) -> float:
        return EPOCH + self.now

    def power_on(self) -> None:
        self.storage = Storage.on(self.files)
        self.recorder = Recorder(self.storage, source(), offset_min=OFFSET_MIN)
        self.clock = MeterClock(utc=self.utc, now=self.now)
        self.clock.take_sample(
            sent=self.now, got=self.now, received_ms=int(self.utc * 1000), held_ms=0
        )
        counters: Counter[str] = Counter()
        self.recording = Recording(self.recorder, self.clock, self.storage, counters)
        self.recording.start(now=self.now)
        self.book = ScheduleBook(self.storage, self.recorder, self.clock, self.log)
        self.part = ScheduledReads(
            self.book,
            self.storage,
            self.recorder,
            self.clock,
            catch_up_s=5.0,
            dice=self.dice,
            counters=counters,
            log=self.log,
            record=self.recording.record,
            tell=lambda _: None,
        )

    def log(self, event: EndDeviceEventType, detail: str | None, *, now: float) -> None:
        self.recorder.log(self.clock.utc(now), event, detail)

    def next_at(self) -> float:
        times = [self.recording.at, self.part.next_timer()]
        if self.under_way is not None:
            times.append(self.under_way.ends_at)
        elif self.link != AWAY and (due := self.part.next_word(now=self.now)) is not None:
            times.append(due.at)
        return max(min(one for one in times if one is not None), self.now)

    def run(self, until: float) -> None:
        """Let time pass, and everything happen that is due."""
        turns = 0
        while (at := self.next_at()) <= until:
            turns = turns + 1 if at == self.now else 0
            assert turns < 10, "it turns on the spot"
            self.now = at
            if self.recording.at is not None and self.recording.at <= self.now:
                self.recording.record(self.now)
            due = self.part.next_timer()
            if due is not None and due <= self.now:
                self.part.handle_timer(now=self.now)
                self.note_failures()
            if self.under_way is None:
                if self.link != AWAY:
                    self.speak()
            elif self.under_way.ends_at <= self.now:
                self.end_word()
        self.now = until

    def speak(self) -> None:
        due = self.part.next_word(now=self.now)
        if due is None or due.at > self.now:
            return
        message = self.part.word(now=self.now)
        if message is not None:
            read = ScheduledRead.decode(message.payload)
            self.check_sent(read, due.urgency)
            takes = 93.0 if self.link == SILENT else 0.2
            self.under_way = UnderWay(read, self.model[read.number], self.utc, self.now + takes)

    def end_word(self) -> None:
        assert self.under_way is not None
        read, expected, sent = self.under_way.read, self.under_way.of, self.under_way.sent
        self.under_way = None
        if self.link == UP or (self.link == FLAKY and self.dice.random() < 0.5):
            stamps = ReportAcknowledgement(int(self.utc * 1000), 0)
            answer = Message.response(Code.CHANGED, payload=stamps.encode())
            self.part.take_answer(answer, sent=self.now - 0.2, now=self.now)
            if self.model.get(read.number) is expected:
                self.check_acknowledged(read, expected, sent)
        elif self.link in (SILENT, FLAKY):
            expected.tries += 1
            self.part.take_failure("no acknowledgement", now=self.now)
        else:
            self.part.take_back(now=self.now)

    # What is checked at once

    def check_sent(self, read: ScheduledRead, urgency: Urgency) -> None:
        expected = self.model[read.number]
        over = expected.done + expected.failed
        assert len(expected.passed(self.utc)) > over, "nothing is sent before its instant"
        assert expected.tries < TRIES
        midnight = read.day * DAY - 60 * OFFSET_MIN
        for span in read.spans:
            for number, value in enumerate(span.block.values(), start=span.first):
                assert value == source().value(midnight + number * HOUR, 0)
        usual = Urgency.DEFAULT if expected.schedule.period_s >= DAY else Urgency.FREQUENT
        assert urgency in (usual, Urgency.RECOVERY)

    def check_acknowledged(self, read: ScheduledRead, expected: Expected, sent: float) -> None:
        expected.pin(self.utc)
        assert expected.begin is not None
        midnight = read.day * DAY - 60 * OFFSET_MIN
        told = {
            midnight + number * HOUR
            for span in read.spans
            for number in range(span.first, span.end)
        }
        assert not told & expected.acknowledged, "no interval twice"
        assert min(told, default=expected.begin) >= expected.begin
        expected.acknowledged |= told
        expected.tries = 0
        if expected.acknowledged >= set(expected.owed_by(sent)):
            expected.done += 1

    def note_failures(self) -> None:
        """What is on record as failed since the last look."""
        for entry in self.storage.entries(0, 2**32, limit=100_000):
            if entry.sequence < self.seen_entries:
                continue
            self.seen_entries = entry.sequence + 1
            if entry.event == READ_FAILED:
                match = FAILED.fullmatch(entry.detail or "")
                assert match is not None
                expected = self.model[int(match[1])]
                expected.pin(self.utc)
                expected.failed += int(match[2] or 1)
                expected.tries = 0

    @invariant()
    def every_instant_ends_in_one_way(self) -> None:
        for number, expected in getattr(self, "model", {}).items():
            open_count = len(expected.passed(self.utc)) - expected.done - expected.failed
            is_told = self.under_way is not None and self.under_way.read.number == number
            assert 0 <= open_count <= (2 if is_told else 1), f"schedule {number}"

    # What happens

    @rule(
        number=st.integers(1, 4),
        period_s=st.sampled_from([HOUR, 2 * HOUR, 6 * HOUR, DAY, WEEK_S]),
        offset_s=st.integers(0, HOUR - 1),
        lasts=st.none() | st.integers(1, 5),
        delay=st.none() | st.integers(0, DAY - 1),
    )
    def set_schedule(
        self, number: int, period_s: int, offset_s: int, lasts: int | None, delay: int | None
    ) -> None:
        start = 0 if delay is None else int(self.utc) + delay
        end = 0 if lasts is None else int(self.utc) + lasts * DAY
        schedule = ReadSchedule(number, period_s, offset_s, start, end)
        if self.book.take(schedule, now=self.now) is not None:
            return
        before = self.model.get(number)
        if before is not None and before.schedule == schedule:
            return
        kept = {one.schedule.number for one in self.book.all()}
        self.model = {key: value for key, value in self.model.items() if key in kept}
        now = Expected(schedule, int(self.utc))
        if before is not None:
            now.begin, now.acknowledged = before.begin, before.acknowledged
        self.model[number] = now
        self.run(self.now)

    @rule(number=st.integers(1, 4))
    def cancel(self, number: int) -> None:
        refusal = self.book.cancel(number, now=self.now)
        assert (refusal is None) == (number in self.model)
        self.model.pop(number, None)
        self.run(self.now)

    @rule(
        link=st.sampled_from([UP, FLAKY, SILENT, AWAY]),
        seconds=st.sampled_from([30, 600, 3000, 4 * HOUR, DAY, 3 * DAY]),
    )
    def wait(self, link: str, seconds: int) -> None:
        self.link = link
        if self.now + seconds < 40 * DAY:
            self.run(self.now + seconds)

    @rule(off=st.sampled_from([1, 1800, 10 * HOUR, 2 * DAY]))
    def cut_power(self, off: int) -> None:
        self.under_way = None
        self.files.crash()
        self.now += off
        self.power_on()
        for expected in self.model.values():
            expected.tries = 0
        self.run(self.now)

    @rule()
    def recover(self) -> None:
        """After a while of good luck everything is there, once, whatever was before."""
        self.link = UP
        self.run(self.now + HOUR + 120)
        for expected in self.model.values():
            passed = expected.passed(self.utc)
            if passed and passed[-1] > self.utc - HOUR + 60:
                # It fell due while all was well: nothing of the past is missing any more.
                assert expected.acknowledged >= set(expected.owed_by(self.utc))
                assert expected.done + expected.failed == len(passed)


KNOWN_FROM = int(source().known_from or 0) // HOUR * HOUR + HOUR

Schedules.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestSchedules = Schedules.TestCase
