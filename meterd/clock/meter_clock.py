"""The meter's clock: UTC from a monotonic one, checked against the head-end's.

Spec    docs/protocol/model.md, "Clock"; time is only believed from an authenticated session
Gives   UTC in seconds, its state, and the error as measured by the best of several samples
Limit   SAMPLE_COUNT_MAX samples are kept; alone it drifts by DRIFT_PPM_MAX at most, so what a
        sample proved is worth less with every second
Never   corrects itself: that is its keeper's. Only a clock that was lost takes its first time here
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from amistack.model import ClockReading, ClockState
from amistack.model.clock import IN_SYNC_WITHIN_S

SAMPLE_COUNT_MAX: Final = 8
DRIFT_PPM_MAX: Final = 40
"""Parts in a million by which the host's crystal may be off, less than 3.5 s a day: one for meters
keeps well within that (IEC 62054-21 allows 0.5 s a day), and a board computer's does."""
SETTING_BOUND_MAX_S: Final = 10.0
"""A sample that is surer than this sets a clock that was lost; another is taken otherwise."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One comparison: how far this clock is behind the head-end's (s), give or take `bound`.

    `taken` is the monotonic time at which the answer was there.
    """

    error_s: float
    bound_s: float
    taken: float = 0.0

    def bound_at(self, now: float) -> float:
        """The bound, `now - taken` seconds of drift later."""
        return self.bound_s + max(now - self.taken, 0.0) * DRIFT_PPM_MAX * 1e-6


@dataclass(frozen=True, slots=True)
class Change:
    """The clock jumped: at the monotonic time `at` from `old` to `new`, both UTC seconds."""

    at: float
    old: float
    new: float


class MeterClock:
    """UTC as this meter believes it, as a function of the driver's monotonic time."""

    def __init__(self, *, utc: float, now: float, is_set: bool = True) -> None:
        """`utc` is what the host's clock showed at the monotonic time `now`.

        Not `is_set`: the host lost the time, and what it showed means nothing.
        """
        self._offset = utc - now
        self._is_set = is_set
        self._samples: deque[Sample] = deque(maxlen=SAMPLE_COUNT_MAX)
        self.sample_count = 0
        """Samples ever taken."""
        self.refused_count = 0
        """Samples whose stamps contradicted our own monotonic clock."""
        self.sampled = now
        """The monotonic time of the last sample, refused or not."""
        self.first_setting: Change | None = None
        """How a clock that was lost took its first time."""

    def utc(self, now: float) -> float:
        """UTC in seconds at `now`."""
        return now + self._offset

    def when(self, utc: float) -> float:
        """The monotonic time at which this clock shows `utc`."""
        return utc - self._offset

    def take_sample(
        self, *, sent: float, got: float, received_ms: int, held_ms: int
    ) -> Sample | None:
        """Compare with the head-end's stamps of a message that we sent and got answered.

        `sent` and `got` are our monotonic times. Half of what the round trip took beyond
        `held_ms` bounds the error. None if the stamps contradict our own monotonic clock.
        """
        self.sampled = got
        travel = (got - sent) - held_ms / 1000
        # Stamps are whole milliseconds, so a fast link may seem to take a little less than none.
        if travel < -0.002:
            self.refused_count += 1
            return None
        bound = max(travel, 0.0) / 2
        theirs = received_ms / 1000
        ours = self.utc(sent) + bound
        sample = Sample(theirs - ours, bound + 0.001, got)
        self._samples.append(sample)
        self.sample_count += 1
        if not self._is_set and sample.bound_s <= SETTING_BOUND_MAX_S:
            self.first_setting = self.move(sample.error_s, now=got)
        return sample

    def move(self, by_s: float, *, now: float) -> Change:
        """Set the clock forward by so many seconds, or back; from now on it counts as set."""
        old = self.utc(now)
        self._offset += by_s
        self._is_set = True
        moved = [Sample(one.error_s - by_s, one.bound_s, one.taken) for one in self._samples]
        self._samples = deque(moved, maxlen=SAMPLE_COUNT_MAX)
        return Change(now, old, self.utc(now))

    def forget_samples(self) -> None:
        """Nothing is known of its error any more."""
        self._samples.clear()

    @property
    def is_set(self) -> bool:
        """Whether what it shows means anything."""
        return self._is_set

    @property
    def newest(self) -> Sample | None:
        """The sample taken last, or None before the first."""
        return self._samples[-1] if self._samples else None

    def best_at(self, now: float) -> Sample | None:
        """The sample with the smallest bound by `now`, or None before the first."""
        return min(self._samples, key=lambda sample: sample.bound_at(now), default=None)

    def state_at(self, now: float) -> ClockState:
        """SET while a sample says that the error is within IN_SYNC_WITHIN_S seconds at `now`."""
        if not self._is_set:
            return ClockState.UNSET
        best = self.best_at(now)
        if best is None or abs(best.error_s) + best.bound_at(now) > IN_SYNC_WITHIN_S:
            return ClockState.DOUBTFUL
        return ClockState.SET

    @property
    def best(self) -> Sample | None:
        """The best sample as the newest was taken, or None before the first."""
        return self.best_at(self._latest)

    @property
    def state(self) -> ClockState:
        """The state as the newest sample was taken."""
        return self.state_at(self._latest)

    @property
    def _latest(self) -> float:
        return max((sample.taken for sample in self._samples), default=0.0)

    def reading(self, now: float) -> ClockReading:
        """What goes into a message made at `now`."""
        return ClockReading(int(self.utc(now)), self.state_at(now))
