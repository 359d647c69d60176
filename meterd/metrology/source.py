"""What a source of energy values is: the measuring part of a meter, reduced to one question.

Gives   `Source`, the question; `Flow`, the directions; the checks that every source shares
Raises  SourceError for a window no source can answer, ConfigError for settings none can have
Never   remembers who asked: any window, in any order, gets the same answer after a restart
"""

from __future__ import annotations

import enum
import math
from typing import Final, Protocol

from amistack.errors import ConfigError, SourceError

DAY_S: Final = 86_400
MINUTE_S: Final = 60

INTERVAL_COUNT_MAX: Final = 200_000
"""Intervals in one answer: more than five years of quarter hours."""

SECOND_MAX: Final = 253_402_300_800
"""UTC seconds at the end of the year 9999; no meter counts further."""

OFFSET_MIN_MAX: Final = 15 * 60
"""Minutes that a standard time can be from UTC; the world uses -12 h to +14 h."""

Energy = tuple[int | None, ...]
"""Whole watt-hours, one for each flow of the source in its order; None where it does not know."""


class Flow(enum.Enum):
    """Which way the energy went, seen from the grid: delivered to the customer, or received.

    Reactive energy is a flow as well, counted in varh where others are in Wh.
    """

    DELIVERED = "delivered"
    RECEIVED = "received"
    REACTIVE = "reactive"  # lagging, as an inductive load takes it: OBIS 3.8.0


class Source(Protocol):
    """Knows the energy that flowed in past intervals.

    Values are differences of a cumulative register that shows whole watt-hours (rounded
    half up), so that rounding never adds up. Intervals divide the day of the meter, which
    begins at midnight of its standard time: `start` is a UTC second on that grid.
    """

    @property
    def interval_s(self) -> int:
        """Length of an interval in seconds; divides a day."""

    @property
    def flows(self) -> tuple[Flow, ...]:
        """One channel each, in the order of the values."""

    def energy(self, start: int, count: int) -> list[Energy]:
        """What flowed in each of `count` intervals from `start` on, in Wh.

        Raises SourceError if `start` is off the grid or `count` is beyond INTERVAL_COUNT_MAX.
        """

    def partial(self, start: int, now: float) -> Energy:
        """What flowed from `start` until `now`, within the interval that begins at `start`, in Wh.

        Never falls as `now` rises; 0 at the interval's start and `energy(start, 1)` from its
        end on. Raises SourceError if `start` is off the grid.
        """

    def available(self) -> tuple[int | None, int | None]:
        """First UTC second known, and the second after the last; None stands for no limit."""


def check_settings(interval_s: int, offset_min: int) -> None:
    """Raise ConfigError unless intervals of `interval_s` divide a day and the offset can exist."""
    if interval_s <= 0 or DAY_S % interval_s:
        raise ConfigError(f"interval_s is {interval_s}, expected a divisor of {DAY_S} such as 900")
    if abs(offset_min) > OFFSET_MIN_MAX:
        raise ConfigError(
            f"offset_min is {offset_min}, expected minutes from UTC within {OFFSET_MIN_MAX}"
        )


def check_window(start: int, count: int, *, interval_s: int, offset_min: int) -> None:
    """Raise SourceError unless `count` intervals from `start` on are something to ask for."""
    if not 0 <= count <= INTERVAL_COUNT_MAX:
        raise SourceError(f"{count} intervals asked for, expected 0 to {INTERVAL_COUNT_MAX}")
    if not 0 <= start <= SECOND_MAX - count * interval_s:
        raise SourceError(f"start is {start}, expected UTC seconds from 1970 to 9999")
    if (start + offset_min * MINUTE_S) % interval_s:
        raise SourceError(
            f"start is {start}, expected the start of an interval of {interval_s} s"
            f" in a day that begins at midnight, UTC{offset_min:+d} min"
        )


def elapsed_within(start: int, now: float, *, interval_s: int) -> float:
    """Seconds of the interval at `start` that have passed at `now`, from 0 to `interval_s`.

    Raises SourceError if `now` is not a number.
    """
    if math.isnan(now):
        raise SourceError("now is not a number, expected UTC seconds")
    return min(max(now - start, 0.0), float(interval_s))
