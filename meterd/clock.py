"""The meter's clock: UTC from a monotonic one, checked against the head-end's.

Spec    docs/protocol/model.md, "Time"; time is only believed from an authenticated session
Gives   UTC in seconds, its state, and the error as measured by the best of several samples
Limit   SAMPLE_COUNT_MAX samples are kept
Never   corrects itself yet: it says how far off it is, and flags what it dates when that is much
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from amistack.model import ClockReading, ClockState
from amistack.model.clock import IN_SYNC_WITHIN_S

SAMPLE_COUNT_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """One comparison: how far this clock is behind the head-end's (s), give or take `bound`."""

    error_s: float
    bound_s: float


class MeterClock:
    """UTC as this meter believes it, as a function of the driver's monotonic time."""

    def __init__(self, *, utc: float, now: float) -> None:
        """`utc` is what the host's clock showed at the monotonic time `now`."""
        self._offset = utc - now
        self._samples: deque[Sample] = deque(maxlen=SAMPLE_COUNT_MAX)

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
        travel = (got - sent) - held_ms / 1000
        # Stamps are whole milliseconds, so a fast link may seem to take a little less than none.
        if travel < -0.002:
            return None
        bound = max(travel, 0.0) / 2
        theirs = received_ms / 1000
        ours = self.utc(sent) + bound
        sample = Sample(theirs - ours, bound + 0.001)
        self._samples.append(sample)
        return sample

    @property
    def best(self) -> Sample | None:
        """The sample with the smallest bound, or None before the first."""
        return min(self._samples, key=lambda sample: sample.bound_s, default=None)

    @property
    def state(self) -> ClockState:
        """SET once a sample says that the error is within IN_SYNC_WITHIN_S seconds."""
        best = self.best
        if best is None or abs(best.error_s) + best.bound_s > IN_SYNC_WITHIN_S:
            return ClockState.DOUBTFUL
        return ClockState.SET

    def reading(self, now: float) -> ClockReading:
        """What goes into a message made at `now`."""
        return ClockReading(int(self.utc(now)), self.state)
