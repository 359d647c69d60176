"""How a meter watches over itself: its log, its clock, what it notices, and its self-diagnosis.

Gives   the parts and voices for the agent, the one door of the log, the sources of events
Raises  StoreError at birth where the log cannot be taken up
Limit   what the agent says of the network is put on record if it can be; it is no reason to stop
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Final

from amistack.errors import StoreError
from amistack.identifiers import Eui64
from amistack.model.diagnosis import Check
from amistack.model.event_notice import EventRules
from amistack.model.programme import Programme
from meterd.clock import MeterClock
from meterd.clock.keeper import ClockKeeper
from meterd.clock.marks import ClockMarks
from meterd.clock.rules import is_lost
from meterd.diagnosis import SelfDiagnosis
from meterd.diagnosis.checks import (
    Examine,
    Result,
    checksum_of,
    communication_of,
    data_of,
    memory_of,
    metrology_of,
    room_of,
    sensor_of,
    state_of,
)
from meterd.diagnosis.program import program_of
from meterd.events import EventLog, EventSources
from meterd.events.following import follow
from meterd.events.intervals import IntervalWatch
from meterd.events.thresholds import ThresholdTable
from meterd.happenings import AgentEvent, ReadSent, Registered, Reported
from meterd.metrology import Source
from meterd.parts import Part, Voice
from meterd.recorder import RECORDED_UNTIL, RETENTION_DAYS, Recorder
from meterd.storage import Storage

PROGRAM_FRESH_S: Final = 3600.0
"""Seconds for which one look at the program's files serves every meter of a process."""
DIAGNOSIS_SPREAD_S: Final = 300.0
MARKS_KEPT_S: Final = (RETENTION_DAYS + 2) * 86_400.0


def clock_of(storage: Storage, *, utc: float, now: float) -> MeterClock:
    """The clock of a meter whose host shows `utc`, unless that cannot be: then it is unset."""
    note = storage.note(RECORDED_UNTIL)
    lost = is_lost(utc, None if note is None else int(note))
    return MeterClock(utc=utc, now=now, is_set=not lost)


class Oversight:
    """All of it, for one meter."""

    def __init__(
        self,
        *,
        meter: Eui64,
        storage: Storage,
        clock: MeterClock,
        recorder: Recorder,
        source: Source,
        offset_min: int,
        folder: Path | None,
        dice: random.Random,
        now: float,
    ) -> None:
        """`folder` is where the storage is, if it is on a disk."""
        self.counters: Counter[str] = Counter()
        self._heard: float | None = None
        self.events: Final = EventLog(storage, clock, meter=meter, dice=dice, now=now)
        log = self.events.log
        self._thresholds: Final = ThresholdTable(storage)
        self.sources: Final = EventSources(log, thresholds=self._thresholds.thresholds)
        marks = ClockMarks(storage)
        marks.drop_before(clock.utc(now) - MARKS_KEPT_S)
        recorder.mark = marks.mark
        self.clock: Final = ClockKeeper(
            clock,
            log=log,
            lengths=lambda: sorted({channel.interval_s for channel in recorder.channels}),
            offset_min=offset_min,
            dice=dice,
            now=now,
            marks=marks,
        )
        checks: dict[Check, Examine] = {
            Check.PROGRAM: _PROGRAM.examine,
            Check.CHECKSUM: checksum_of(storage.journal),
            Check.MEMORY: memory_of(storage.journal),
            Check.ROOM: room_of(storage, lambda: _free_octets(folder)),
            Check.CLOCK: state_of(clock),
            Check.METROLOGY: metrology_of(recorder, source, clock),
            Check.DATA: data_of(storage, recorder),
            Check.SENSOR: sensor_of(source, clock),
            Check.COMMUNICATION: communication_of(lambda: self._heard, now),
        }
        self.diagnosis: Final = SelfDiagnosis(
            storage,
            clock,
            checks,
            log=log,
            now=now,
            delay_s=dice.uniform(0.0, DIAGNOSIS_SPREAD_S),
        )
        watch = IntervalWatch(recorder, clock, self.sources, now=now)
        self.parts: Final[tuple[Part, ...]] = (self.events, self.clock, watch, self.diagnosis)
        self.voices: Final[tuple[Voice, ...]] = (self.events, self.clock)

    @property
    def counts(self) -> dict[str, int]:
        """Everything that was counted since the start."""
        return {
            **self.counters,
            **self.events.counters,
            **self.clock.counters,
            **self.diagnosis.counters,
        }

    def take(self, event: AgentEvent, *, now: float) -> None:
        """Note what an agent's happening says of the network."""
        if isinstance(event, Registered | Reported | ReadSent):
            self._heard = now
        try:
            follow(event, self.sources, now=now)
        except StoreError:
            # Found again with the next failure; that the storage fails is told by the agent.
            self.counters["happening not kept"] += 1

    def follow_programme(self, programme: Programme, now: float) -> None:
        """Watch and tell as a programme says from now on. Raises StoreError."""
        if programme.thresholds:
            self._thresholds.keep(programme.thresholds)
            self.sources.set_thresholds(programme.thresholds)
        if programme.events and programme.events != self.events.rules.rules:
            self.events.take_rules(EventRules(programme.version, programme.events), now=now)


class _Shared:
    """A check of the process, not of a meter: looked at once for all of a street."""

    def __init__(self, examine: Examine) -> None:
        self._examine = examine
        self._found: tuple[float, Result] | None = None

    def examine(self, now: float) -> Result:
        """What was found within the last PROGRAM_FRESH_S, or is found now."""
        if self._found is None or not 0 <= now - self._found[0] < PROGRAM_FRESH_S:
            self._found = now, self._examine(now)
        return self._found[1]


_PROGRAM: Final = _Shared(program_of())


def _free_octets(folder: Path | None) -> int | None:
    """What is free on the disk of a folder; None where nobody knows."""
    if folder is None:
        return None
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
