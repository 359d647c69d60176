"""How many events may be put on record: a chattering sensor neither floods the log nor starves it.

The first event of each type in a day is always kept. What comes after it takes a token of its
type's and one of the meter's; both grow again with time. What finds none is counted, and the
counts are put on record in their turn.

Limit   FIRST_TYPES_MAX + ALL_PER_DAY + SUMMARIES_PER_DAY entries a day and ALL_BURST more: what
        45 days and the running one come to fits into the storage's log
Never   lets one type take what the others need: TYPE_BURST, then TYPE_PER_HOUR an hour
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from amistack.model import EndDeviceEventType
from amistack.model.event_catalogue import CATALOGUE, kind_of

HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0
TYPE_BURST: Final = 6
TYPE_PER_HOUR: Final = 2
ALL_BURST: Final = 60
ALL_PER_DAY: Final = 120
SUMMARIES_PER_DAY: Final = 24
SUMMARY_AFTER_S: Final = 900.0
"""Seconds from the first event left out to the summary that counts it, if none was just made."""
FIRST_TYPES_MAX: Final = len(CATALOGUE) + 1
"""Types that have a first event a day: those of the catalogue, and all others as one."""


class Bucket:
    """Tokens: `burst` at most, `per_s` more every second."""

    def __init__(self, burst: float, per_s: float, *, level: float, now: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._level = level
        self._at = now

    def level(self, now: float) -> float:
        """The tokens there are."""
        self._level = min(self._burst, self._level + max(now - self._at, 0.0) * self._per_s)
        self._at = max(now, self._at)
        return self._level

    def take(self, now: float) -> None:
        """One token less, or none at all."""
        self._level = max(self.level(now) - 1, 0.0)


class EventBudget:
    """Whether an event may be put on record now, and how many could not."""

    def __init__(self, logged: Iterable[tuple[EndDeviceEventType, float]], *, now: float) -> None:
        """`logged`: what is on record of the last day, with the monotonic time of each."""
        self._last: dict[EndDeviceEventType | None, float] = {}
        recent = 0
        for event, at in logged:
            name = _name(event)
            self._last[name] = max(at, self._last.get(name, at))
            recent += now - at < DAY_S
        level = min(max(ALL_BURST + ALL_PER_DAY - recent, 0), ALL_BURST)
        self._all = Bucket(ALL_BURST, ALL_PER_DAY / DAY_S, level=level, now=now)
        self._types: dict[EndDeviceEventType | None, Bucket] = {}
        self._left_out: dict[EndDeviceEventType, int] = {}
        self._summary_due: float | None = None
        self._summary_made = now - HOUR_S

    def ask(self, event: EndDeviceEventType, *, now: float) -> bool:
        """Whether an event may be put on record; if not it is counted."""
        is_first = self._is_first(event, now)
        if is_first or (self._bucket_of(event, now).level(now) >= 1 <= self._all.level(now)):
            return True
        self._leave_out(event, now)
        return False

    def spend(self, event: EndDeviceEventType, *, now: float) -> None:
        """An event is on record, whether or not anybody asked."""
        if not self._is_first(event, now):
            self._all.take(now)
        self._bucket_of(event, now).take(now)
        self._last[_name(event)] = now

    def _is_first(self, event: EndDeviceEventType, now: float) -> bool:
        last = self._last.get(_name(event))
        return last is None or now - last >= DAY_S

    def _bucket_of(self, event: EndDeviceEventType, now: float) -> Bucket:
        return self._types.setdefault(
            _name(event), Bucket(TYPE_BURST, TYPE_PER_HOUR / HOUR_S, level=TYPE_BURST, now=now)
        )

    def _leave_out(self, event: EndDeviceEventType, now: float) -> None:
        if event in CATALOGUE or event in self._left_out or len(self._left_out) < FIRST_TYPES_MAX:
            self._left_out[event] = self._left_out.get(event, 0) + 1
        if self._summary_due is None:
            self._summary_due = max(now + SUMMARY_AFTER_S, self._summary_made + HOUR_S)

    # What was left out

    @property
    def summary_due(self) -> float | None:
        """When the counts go on record, or None: nothing was left out."""
        return self._summary_due

    def left_out(self) -> list[tuple[EndDeviceEventType, int]]:
        """How many of each type were left out since they were last told, weightiest first."""
        return sorted(self._left_out.items(), key=lambda one: (kind_of(one[0]).importance, -one[1]))

    def settle(self, told: Iterable[EndDeviceEventType], *, now: float) -> None:
        """The counts of those types are on record; the others follow in an hour."""
        for event in told:
            self._left_out.pop(event, None)
        self._summary_made = now
        self._summary_due = now + HOUR_S if self._left_out else None


def _name(event: EndDeviceEventType) -> EndDeviceEventType | None:
    """Under what an event is counted: what the catalogue does not know is one type."""
    return event if event in CATALOGUE else None
