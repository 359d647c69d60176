"""The parts of one meter: those that every meter has, and others that it is given.

Gives   their resources and voices; one timer for all of them
Raises  StoreError as they do
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from amistack.model import ClockState, EndDeviceEventType
from meterd.agent.recording import Recording
from meterd.backoff import Backoff
from meterd.clock import MeterClock
from meterd.happenings import AgentEvent
from meterd.on_demand import OnDemand, SelfTest
from meterd.parts import Log, Part, Resource, Voice
from meterd.recorder import Recorder
from meterd.schedules.book import ScheduleBook
from meterd.schedules.daily import DailyReports, Schedule
from meterd.schedules.reads import ScheduledReads
from meterd.storage import Storage


@dataclass(frozen=True, slots=True)
class Foundation:
    """What the parts of one meter stand on."""

    storage: Storage
    recorder: Recorder
    clock: MeterClock
    counters: Counter[str]
    dice: random.Random
    tell: Callable[[AgentEvent], None]

    def log(self, event: EndDeviceEventType, detail: str | None = None, *, now: float) -> None:
        """The door of the log where there is no other before it."""
        is_doubtful = self.clock.state_at(now) is not ClockState.SET
        self.recorder.log(self.clock.utc(now), event, detail, is_time_doubtful=is_doubtful)


class Parts:
    """What a meter is made of, as the agent needs it."""

    def __init__(
        self,
        base: Foundation,
        recording: Recording,
        schedule: Schedule,
        backoff: Backoff,
        *,
        others: Sequence[Part],
        voices: Sequence[Voice],
        log: Log | None,
        self_test: SelfTest | None,
    ) -> None:
        log = log or base.log
        record = recording.record
        self.book: Final = ScheduleBook(base.storage, base.recorder, base.clock, log)
        self.daily: Final = DailyReports(
            base.storage,
            base.recorder,
            base.clock,
            self.book,
            schedule,
            backoff,
            dice=base.dice,
            counters=base.counters,
            log=log,
            tell=base.tell,
        )
        reads = ScheduledReads(
            self.book,
            base.storage,
            base.recorder,
            base.clock,
            catch_up_s=schedule.catch_up_s,
            dice=base.dice,
            counters=base.counters,
            log=log,
            record=record,
            tell=base.tell,
        )
        on_demand = OnDemand(
            base.storage,
            base.recorder,
            base.clock,
            base.counters,
            record=record,
            tell=base.tell,
            log=log,
            self_test=self_test,
        )
        self._parts: tuple[Part, ...] = (self.daily, reads, *others)
        self.voices: tuple[Voice, ...] = (*voices, reads, self.daily)
        self.resources: tuple[Resource, ...] = (
            *on_demand.resources(),
            *(one for part in self._parts for one in part.resources()),
        )
        self.not_before = 0.0
        """No part is woken before this."""

    def handle_timer(self, *, now: float) -> None:
        """Wake those that are due."""
        if self.not_before > now:
            return
        for part in self._parts:
            due = part.next_timer()
            if due is not None and due <= now:
                part.handle_timer(now=now)

    def next_timer(self) -> float | None:
        """When the next one is due."""
        dues = [due for part in self._parts if (due := part.next_timer()) is not None]
        return max(min(dues), self.not_before) if dues else None
