"""Drive the recorder: at the start what was missed, then every interval as it ends.

Raises  StoreError, SourceError as the recorder does
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from amistack.model.events import (
    COLD_STARTED,
    PRIMARY_POWER_FAILED,
    PRIMARY_POWER_RESTORED,
    STORAGE_DAMAGED,
)
from meterd.clock import MeterClock
from meterd.recorder import Recorder
from meterd.storage import LOG, Storage

ROUNDING_S: Final = 0.05
"""So much after an interval's end: rounding in a timer must not meet it still running."""
UNSET_S: Final = 10.0
"""So long while the time is lost until it is looked for again: without it no interval begins."""
LAST_ENTRIES: Final = 8
"""So many can follow a power failure before the end, on what was left in the supply."""


class Recording:
    """When one meter records."""

    def __init__(
        self, recorder: Recorder, clock: MeterClock, storage: Storage, counters: Counter[str]
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._storage = storage
        self._counters = counters
        self.at: float | None = None
        """When to record next; None before the start."""

    def start(self, *, now: float) -> tuple[bool, int]:
        """Record what is missing, log the start. Whether it is the first, and octets lost."""
        utc = self._clock.utc(now)
        is_first = self._recorder.recorded_until is None
        if self._clock.is_set:
            self._recorder.advance(utc)
        lost = self._log_damage(utc)
        event = COLD_STARTED if is_first else PRIMARY_POWER_RESTORED
        self._recorder.log(utc, event, self._outage(utc), is_time_doubtful=True)
        self._plan(now)
        return is_first, lost

    def record(self, now: float) -> None:
        """Record every interval that has ended by now."""
        if self._clock.is_set:
            recorded = self._recorder.advance(self._clock.utc(now))
            self._counters["intervals recorded"] += recorded
        self._plan(now)

    def _plan(self, now: float) -> None:
        if not self._clock.is_set:
            self.at = now + UNSET_S
            return
        due = self._clock.when(self._recorder.next_due(self._clock.utc(now)))
        self.at = max(due + ROUNDING_S, now)

    def _outage(self, utc: float) -> str | None:
        """How long the power was away, if its failure was noticed before the end."""
        newest = self._storage.next_sequence
        for number in range(newest - 1, newest - 1 - LAST_ENTRIES, -1):
            row = self._storage.get(LOG, number)
            if row is None or row[1] == str(PRIMARY_POWER_RESTORED) or not self._clock.is_set:
                return None
            if row[1] == str(PRIMARY_POWER_FAILED):
                return f"after {max(int(utc) - row[0], 0)} s"
        return None

    def _log_damage(self, utc: float) -> int:
        lost = self._storage.lost_octets
        if not lost:
            return 0
        with self._storage.together():
            # What was lost may have been log entries, fewer than octets: their numbers are used.
            self._recorder.log(
                utc, STORAGE_DAMAGED, f"{lost} octets lost", is_time_doubtful=True, skipped=lost
            )
            self._storage.settle_loss()
        self._counters["storage damaged"] += 1
        return lost
