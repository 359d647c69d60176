"""An event log over a storage that can be torn, and a head-end that acknowledges notices."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from amistack.coap.codes import Code, format_code
from amistack.coap.message import Message
from amistack.identifiers import Eui64
from amistack.model import CONTENT_FORMAT_V1, LogEntry, ReportAcknowledgement
from amistack.model.event_notice import EventNotice, EventRules
from amistack.model.resources import EVENTS
from meterd.clock import MeterClock
from meterd.events.log import EventLog
from meterd.storage import LOG, Storage, entry_of
from tests.support.power import TornFiles

EPOCH = 1_790_000_000.0
"""UTC at the time 0."""
METER = Eui64(bytes.fromhex("02aabbccddeeff01"))


@dataclass
class EventBench:
    """One meter's event log; time is the test's."""

    seed: int = 0
    is_clock_set: bool = True
    is_reachable: bool = True
    answer: Message | None = None
    """What the head-end says instead of an acknowledgement."""
    now: float = 0.0
    notices: list[tuple[float, EventNotice]] = field(default_factory=list)
    tries: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files = TornFiles(random.Random(f"files {self.seed}"))
        self.power_on()

    def power_on(self, *, is_clock_set: bool | None = None) -> None:
        """Begin, or begin again, with what is durable."""
        is_set = self.is_clock_set if is_clock_set is None else is_clock_set
        self.storage = Storage.on(self.files)
        utc = EPOCH + self.now if is_set else 1000.0
        self.clock = MeterClock(utc=utc, now=self.now, is_set=is_set)
        if is_set:
            self.tell_time()
        self.log = EventLog(
            self.storage, self.clock, meter=METER, dice=random.Random(self.seed), now=self.now
        )

    def restart(self, *, is_clock_set: bool | None = None) -> None:
        self.files.crash()
        self.power_on(is_clock_set=is_clock_set)

    def tell_time(self) -> None:
        """A sample of the right time."""
        received_ms = round((EPOCH + self.now) * 1000)
        self.clock.take_sample(sent=self.now, got=self.now, received_ms=received_ms, held_ms=0)

    def elapse(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        end = self.now + seconds
        for _ in range(5_000):
            timer = self.log.next_timer()
            if timer is not None and timer <= self.now:
                self.log.handle_timer(now=self.now)
            due = self.log.next_word(now=self.now)
            if due is not None and due.at <= self.now:
                self._speak()
                continue
            times = [self.log.next_timer(), None if due is None else due.at]
            at = max(min((time for time in times if time is not None), default=math.inf), self.now)
            if at > end:
                break
            self.now = at
        else:
            raise AssertionError("it turns and turns")
        self.now = end

    def _speak(self) -> None:
        message = self.log.word(now=self.now)
        assert message is not None
        self.tries.append(self.now)
        if not self.is_reachable:
            self.log.take_failure("no answer", now=self.now)
            return
        assert (message.code, message.path) == (Code.POST, EVENTS)
        if self.answer is not None:
            self.log.take_failure(format_code(self.answer.code), now=self.now)
            return
        self.notices.append((self.now, EventNotice.decode(message.payload)))
        received_ms = round((EPOCH + self.now) * 1000)
        acknowledgement = ReportAcknowledgement(received_ms, 0)
        answer = Message.response(
            Code.CHANGED, payload=acknowledgement.encode(), content_format=CONTENT_FORMAT_V1
        )
        self.log.take_answer(answer, sent=self.now, now=self.now)

    @property
    def sent(self) -> list[LogEntry]:
        """Every entry that arrived, in order."""
        return [one.entry for _, notice in self.notices for one in notice.events]

    def rows(self) -> list[tuple[LogEntry, bool]]:
        """Everything on record, and whether it is settled."""
        return [(entry_of(key, row), row[4]) for key, row in sorted(self.storage.items(LOG))]

    def logged(self) -> list[LogEntry]:
        return [entry for entry, _ in self.rows()]

    def put_rules(self, rules: EventRules) -> Message:
        return self.command(
            Message.request(
                Code.PUT, EVENTS, payload=rules.encode(), content_format=CONTENT_FORMAT_V1
            )
        )

    def command(self, message: Message) -> Message:
        (resource,) = self.log.resources()
        assert resource.path == EVENTS
        return resource.answer(message, now=self.now)
