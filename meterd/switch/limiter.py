"""The load limit: which one is in force, and whether it has been exceeded for long enough.

Gives   the window in force, when that may change, and when a load has been over its limit for the
        seconds that it may be
Never   opens on what is not known: a gap in the measurements begins the count anew
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amistack.model.control import WINDOW_COUNT_MAX, LoadLimit
from amistack.model.wire import DAY_S

MINUTE_S: Final = 60
MONDAY: Final = 4
"""1970-01-01 was a Thursday: the first Monday after it was day 4."""
GAP_S: Final = 3.0
"""Seconds without a measurement, after which the load may have been under the limit."""


@dataclass(frozen=True, slots=True)
class InForce:
    """A window of today: its limit, and a number that no other window of any day has."""

    limit_w: int
    occurrence: int


class Limiter:
    """One load limit, or none, for a meter whose days begin at midnight in its standard time."""

    def __init__(self, limit: LoadLimit | None, *, offset_min: int) -> None:
        self.limit: Final = limit
        self._offset_s = offset_min * MINUTE_S
        self._over_since: float | None = None
        self._last: float | None = None

    def in_force(self, utc: float) -> InForce | None:
        """What limits the load at `utc`."""
        limit = self.limit
        if limit is None or not limit.starts_s <= utc < limit.ends_s:
            return None
        day, second = divmod(int(utc + self._offset_s), DAY_S)
        weekday = 1 << (day - MONDAY) % 7
        for place, window in enumerate(limit.windows):
            if (
                window.days & weekday
                and window.start_min * MINUTE_S <= second < window.end_min * MINUTE_S
            ):
                return InForce(window.limit_w, day * WINDOW_COUNT_MAX + place)
        return None

    def next_change(self, utc: float) -> float | None:
        """UTC at which something else may be in force; None for never."""
        limit = self.limit
        if limit is None or utc >= limit.ends_s:
            return None
        if utc < limit.starts_s:
            return limit.starts_s
        midnight = (int(utc + self._offset_s) // DAY_S) * DAY_S - self._offset_s
        edges = [midnight + DAY_S, limit.ends_s]
        for window in limit.windows:
            edges += [midnight + edge * MINUTE_S for edge in (window.start_min, window.end_min)]
        return min(edge for edge in edges if edge > utc)

    def take(self, power_w: int | None, *, limit_w: int, now: float) -> bool:
        """Whether the load, of which this is a measurement, has been over `limit_w` too long."""
        assert self.limit is not None, "there is something in force"
        has_gap = self._last is None or now - self._last > GAP_S
        self._last = now
        if power_w is None or power_w <= limit_w:
            self._over_since = None
            return False
        if self._over_since is None or has_gap:
            self._over_since = now
        return now - self._over_since >= self.limit.over_s

    def forget(self) -> None:
        """The load was off, or nobody looked: begin to count anew."""
        self._over_since = self._last = None
