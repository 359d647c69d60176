"""The voltage of a real meter: what its readings say, as means over the steps of its source.

A step is known if readings cover it: none of it is further than `tolerance_s` from a reading, at
its ends and in between. Else it has no mean; nothing is filled in.

Gives   the answers of a `Supply`, of voltage alone: reactive energy is on a dial of its own
Raises  SourceError for a window that no source can answer
Limit   STEP_COUNT_MAX steps are kept, the latest; a restart begins anew
Never   reads a clock: UTC comes with each reading
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.model.quantity import Quantity
from meterd.metrology.live_settings import TOLERANCE_S
from meterd.metrology.source import MINUTE_S, check_settings, check_window
from meterd.metrology.supply import Quality

STEP_COUNT_MAX: Final = 2_880
VOLTS_MAX: Final = 1_000.0
"""More is no voltage of a house."""
DECIVOLTS: Final = 10


@dataclass(slots=True)
class _Step:
    """What the readings of one step say: their sum (V) and number, when the last one came."""

    total: float
    count: int
    last: float
    is_broken: bool


class LiveSupply:
    """The supply of a real meter, fed by its sensor with `take`."""

    quantities: Final = frozenset((Quantity.VOLTAGE,))

    def __init__(
        self, *, interval_s: int, offset_min: int = 0, tolerance_s: float = TOLERANCE_S
    ) -> None:
        """On the grid of a source with these settings. Raises ConfigError."""
        check_settings(interval_s, offset_min)
        self._interval_s: Final = interval_s
        self._offset_min: Final = offset_min
        self._tolerance_s: Final = tolerance_s
        self._steps: dict[int, _Step] = {}

    def take(self, volts: Sequence[float], *, utc: float) -> None:
        """Take the voltages of the phases (V) that a meter showed at `utc`: their mean counts."""
        known = [one for one in volts if math.isfinite(one) and 0 <= one <= VOLTS_MAX]
        if not known or len(known) < len(volts):
            return
        mean = sum(known) / len(known)
        start = self._start_of(utc)
        step = self._steps.get(start)
        if step is None:
            is_late = utc - start > self._tolerance_s
            self._steps[start] = _Step(mean, 1, utc, is_late)
            while len(self._steps) > STEP_COUNT_MAX:
                del self._steps[min(self._steps)]
            return
        # A clock that went back: what was counted already is counted again.
        step.is_broken |= not 0 <= utc - step.last <= self._tolerance_s
        step.total += mean
        step.count += 1
        step.last = utc

    def quality(self, start: int, count: int, *, length_s: int) -> list[Quality]:
        """See `Supply`. Ask about what is over."""
        check_window(start, count, interval_s=self._interval_s, offset_min=self._offset_min)
        return [
            Quality(self._mean(start + place * length_s, length_s), None) for place in range(count)
        ]

    def _mean(self, start: int, length_s: int) -> int | None:
        """Decivolts, the mean of the steps from `start` on."""
        means = [
            self._mean_of(start + at, self._interval_s)
            for at in range(0, length_s, self._interval_s)
        ]
        known = [one for one in means if one is not None]
        if len(known) < len(means):
            return None
        return math.floor(DECIVOLTS * sum(known) / len(known) + 0.5)

    def _mean_of(self, start: int, length_s: int) -> float | None:
        step = self._steps.get(start)
        if step is None or step.is_broken or start + length_s - step.last > self._tolerance_s:
            return None
        return step.total / step.count

    def _start_of(self, utc: float) -> int:
        offset_s = self._offset_min * MINUTE_S
        return math.floor((utc + offset_s) / self._interval_s) * self._interval_s - offset_s
