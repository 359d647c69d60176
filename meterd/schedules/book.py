"""The schedules that a meter keeps, and how far each was acknowledged.

Gives   every change durable, logged and numbered before it is answered
Raises  StoreError; then nothing has changed
Limit   SCHEDULE_COUNT_MAX schedules; those that have ended make room for others
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from amistack.model import ClockState
from amistack.model.event_catalogue import SCHEDULE_CHANGED, SCHEDULE_REFUSED
from amistack.model.schedule import (
    DEFAULT_NUMBER,
    ReadSchedule,
    ScheduleTable,
    StoredSchedule,
)
from meterd.clock import MeterClock
from meterd.journal import Change, Value
from meterd.parts import Log
from meterd.recorder import Recorder
from meterd.schedules import rules
from meterd.schedules.spans import Stretch
from meterd.storage import SCHEDULE, Storage

REVISION: Final = "schedule revision"
"""The note that counts the changes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A schedule and where it stands.

    Everything before `cursor` (UTC s; 0: nothing was read yet) is acknowledged but the stretches
    `owed`. `settled` is the instant of the last read that is over, acknowledged or failed.
    """

    schedule: ReadSchedule
    cursor: int = 0
    settled: int = 0
    owed: tuple[Stretch, ...] = ()

    @property
    def change(self) -> Change:
        """What keeps it."""
        owed = [second for one in self.owed for second in (one.begin, one.end)]
        row = [self.schedule.encode(), self.cursor, self.settled, owed]
        return (SCHEDULE, self.schedule.number, row)


class ScheduleBook:
    """The schedules of one meter."""

    def __init__(self, storage: Storage, recorder: Recorder, clock: MeterClock, log: Log) -> None:
        self._storage = storage
        self._recorder = recorder
        self._clock = clock
        self._log = log

    # What there is

    def all(self) -> list[Kept]:
        """Every schedule, by number, the default one too if it was ever set."""
        return [_kept(row) for _, row in sorted(self._storage.items(SCHEDULE))]

    def find(self, number: int) -> Kept | None:
        """The schedule of that number, if there is one."""
        row = self._storage.get(SCHEDULE, number)
        return None if row is None else _kept(row)

    @property
    def default(self) -> ReadSchedule | None:
        """The default schedule, if it was ever set."""
        kept = self.find(DEFAULT_NUMBER)
        return None if kept is None else kept.schedule

    @property
    def revision(self) -> int:
        """How many changes there were."""
        return int(self._storage.note(REVISION) or 0)

    def table(self) -> ScheduleTable:
        """All of it, as a message."""
        return ScheduleTable(
            self.revision,
            tuple(
                StoredSchedule(
                    kept.schedule, min((one.begin for one in kept.owed), default=kept.cursor)
                )
                for kept in self.all()
            ),
        )

    # What changes it

    def take(self, schedule: ReadSchedule, *, now: float) -> str | None:
        """Set a schedule, new or in place of that with its number; why not, or None.

        What was acknowledged of the old one stays so. The same once more changes nothing.
        """
        found = self.find(schedule.number)
        if found is not None and found.schedule == schedule:
            return None
        utc = self._clock.utc(now)
        fault = self._find_fault(schedule, utc)
        if fault is not None:
            self._refuse(schedule, fault, now)
            return fault
        ended = [
            one.schedule.number
            for one in self.all()
            if rules.has_ended(one.schedule, utc) and one.schedule.number != schedule.number
        ]
        with self._storage.together():
            self._storage.put(*((SCHEDULE, number, None) for number in ended))
            self._set(schedule, found, utc, now)
        return None

    def replace(self, schedules: Sequence[ReadSchedule], *, interval_s: int, now: float) -> None:
        """Have those schedules and no others; what is recorded then is every `interval_s`.

        As `take` and `cancel` of each, in one transaction, and judged against each other alone. One
        that cannot be any more, because its time is over, is left out; that is logged.
        """
        # A clock that was lost is not before what it has recorded.
        utc = max(self._clock.utc(now), float(self._recorder.recorded_until or 0))
        before = {kept.schedule.number: kept for kept in self.all()}
        standing: list[ReadSchedule] = []
        with self._storage.together():
            for schedule in schedules:
                found = before.get(schedule.number)
                if found is None or found.schedule != schedule:
                    fault = self._fault_beside(standing, schedule, utc, interval_s)
                    if fault is not None:
                        self._refuse(schedule, fault, now)
                        continue
                    self._set(schedule, found, utc, now)
                standing.append(schedule)
            for number in sorted(before.keys() - {schedule.number for schedule in standing}):
                self._end(number, now)

    def cancel(self, number: int, *, now: float) -> str | None:
        """End a schedule, the default one for its built-in time; why not, or None."""
        if self.find(number) is None:
            self._log(SCHEDULE_REFUSED, f"schedule {number}: {rules.UNKNOWN}", now=now)
            return rules.UNKNOWN
        with self._storage.together():
            self._end(number, now)
        return None

    def _find_fault(self, schedule: ReadSchedule, utc: float) -> str | None:
        if self._clock.state is ClockState.UNSET:
            return rules.CLOCK_UNSET
        standing = [kept.schedule for kept in self.all()]
        interval_s = min(channel.interval_s for channel in self._recorder.channels)
        return self._fault_beside(standing, schedule, utc, interval_s)

    def _fault_beside(
        self, standing: Sequence[ReadSchedule], schedule: ReadSchedule, utc: float, interval_s: int
    ) -> str | None:
        offset_s = -self._recorder.start_of(0)
        return rules.find_fault(
            schedule, standing, utc=utc, interval_s=interval_s, offset_s=offset_s
        )

    def _set(self, schedule: ReadSchedule, found: Kept | None, utc: float, now: float) -> None:
        # Reads that were due before this are nobody's.
        kept = replace(found or Kept(schedule), schedule=schedule, settled=int(utc))
        self._storage.put(kept.change)
        self._count(f"schedule {schedule.number} set, every {schedule.period_s} s", now)

    def _end(self, number: int, now: float) -> None:
        self._storage.put((SCHEDULE, number, None))
        self._count(f"schedule {number} cancelled", now)

    def _refuse(self, schedule: ReadSchedule, fault: str, now: float) -> None:
        self._log(SCHEDULE_REFUSED, f"schedule {schedule.number}: {fault}", now=now)

    def _count(self, detail: str, now: float) -> None:
        self._storage.keep_note(REVISION, str(self.revision + 1))
        self._log(SCHEDULE_CHANGED, detail, now=now)


def _kept(row: Value) -> Kept:
    encoded, cursor, settled, owed = row
    pairs = zip(owed[::2], owed[1::2], strict=True)
    return Kept(_decoded(encoded), cursor, settled, tuple(Stretch(*pair) for pair in pairs))


@functools.lru_cache(maxsize=256)
def _decoded(encoded: bytes) -> ReadSchedule:
    """Looked at after everything that happens, and hardly ever another."""
    return ReadSchedule.decode(encoded)
