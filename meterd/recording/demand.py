"""The demand register: the highest mean power over a window, and when that was.

A block window begins when the one before ends; a sliding one ends at every sub-interval. A window
with a step that is not known has no demand, nor has one across a reset; sub-intervals of another
length, from before a programme changed it, are in no window. Resetting keeps the peak as the end
of a period and adds it to the cumulative demand.

Spec    ANSI C12.19 (demand, cumulative demand, demand resets); docs/protocol/model.md, "Registers"
Gives   the running period and those before it
Raises  StoreError when the storage fails
Limit   PERIOD_COUNT_MAX periods; RESET_APART_S between two resets
Never   reads a clock: UTC comes with each call
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from amistack.model import wire
from amistack.model.programme import DemandRules
from meterd.recording.folding import power
from meterd.storage import DEMAND, Storage

RESET_APART_S: Final = 86_400
PERIOD_COUNT_MAX: Final = 64
"""Resets are a day apart at least: more than 45 days of them."""

_RUNNING: Final = 0
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class DemandPeriod:
    """From one reset to the next: its peak (W), reached in the window that ended at `peak_at`.

    `until` is 0 while it runs, `since` 0 where nobody has ever reset; `peak_at` is 0 before the
    first window. `cumulative` is the sum of the peaks of the periods before.
    """

    since: int = 0
    until: int = 0
    peak: int = 0
    peak_at: int = 0
    cumulative: int = 0


@dataclass(frozen=True, slots=True)
class _Window:
    """Up to `at`: the sub-intervals that count (Wh), the latest last, and the running one.

    `sub_interval_s` is how long they are: those of other rules count for nothing.
    """

    at: int = 0
    running: int = 0
    is_broken: bool = False
    done: tuple[int, ...] = ()
    sub_interval_s: int = 0


class DemandRegister:
    """One meter's demand."""

    def __init__(self, storage: Storage, *, offset_s: int = 0) -> None:
        """Windows begin on the hour of the standard time `offset_s` seconds east of UTC."""
        self._storage = storage
        self._offset_s = offset_s
        self.latest: tuple[int, int] | None = None
        """The end (UTC s) of the last window since the start that had a demand, and that (W)."""

    @property
    def period(self) -> DemandPeriod:
        """The period that runs."""
        return self._read(_RUNNING)[0]

    @property
    def periods(self) -> list[DemandPeriod]:
        """The periods that are over, the latest first."""
        numbers = sorted((key for key, _ in self._storage.items(DEMAND)), reverse=True)
        return [self._read(number)[0] for number in numbers if number != _RUNNING]

    @property
    def reset_count(self) -> int:
        """How often it was reset."""
        return max((key for key, _ in self._storage.items(DEMAND)), default=0)

    def take(
        self, begin: int, steps: Sequence[int | None], *, step_s: int, rules: DemandRules
    ) -> None:
        """Record the steps (Wh) from `begin` on; they fall on the grid of the rules."""
        period, window = self._read(_RUNNING)
        if window.at != begin or window.sub_interval_s != rules.sub_interval_s:
            # What was in between is not known: the running sub-interval cannot count.
            window = _Window(at=begin, is_broken=self._is_inside(begin, rules))
        count = rules.window_s // rules.sub_interval_s
        at, running, is_broken, done = window.at, window.running, window.is_broken, window.done
        for step in steps:
            at += step_s
            running += step or 0
            is_broken |= step is None
            if self._is_inside(at, rules):
                continue
            done = () if is_broken else (*done, running)[-count:]
            running, is_broken = 0, False
            if len(done) < count:
                continue
            peak = power(sum(done), rules.window_s)
            self.latest = at, peak
            if not period.peak_at or peak > period.peak:
                period = replace(period, peak=peak, peak_at=at)
        after = _Window(at, running, is_broken, done, rules.sub_interval_s)
        self._keep(_RUNNING, period, after)

    def reset(self, utc: int) -> bool:
        """Begin a new period at `utc`; whether it may: not within a day of the reset before."""
        period, window = self._read(_RUNNING)
        if period.since and utc - period.since < RESET_APART_S:
            return False
        number = self.reset_count + 1
        with self._storage.together():
            self._keep(number, replace(period, until=utc), _Window())
            after = DemandPeriod(since=utc, cumulative=period.cumulative + period.peak)
            # Energy from before the reset is in no window after it.
            is_broken = window.is_broken or utc != window.at or bool(window.running)
            begun = _Window(window.at, 0, is_broken, (), window.sub_interval_s)
            self._keep(_RUNNING, after, begun)
            self._storage.put(
                *(
                    (DEMAND, key, None)
                    for key, _ in self._storage.items(DEMAND)
                    if 0 < key <= number - PERIOD_COUNT_MAX
                )
            )
        return True

    def begin_day(self, day: int, start: int, rules: DemandRules) -> bool:
        """A day begins at `start`: reset if it is the date; whether it was."""
        date = dt.date.fromordinal(_EPOCH + day)
        return rules.reset_day == date.day and self.reset(start)

    def _is_inside(self, utc: int, rules: DemandRules) -> bool:
        """Whether `utc` is within a sub-interval, and not between two."""
        return bool((utc + self._offset_s) % rules.sub_interval_s)

    def _read(self, number: int) -> tuple[DemandPeriod, _Window]:
        row = self._storage.get(DEMAND, number)
        if row is None:
            return DemandPeriod(), _Window()
        since, until, peak, peak_at, cumulative, window = row
        return DemandPeriod(since, until, peak, peak_at, cumulative), _window(window)

    def _keep(self, number: int, period: DemandPeriod, window: _Window) -> None:
        tree: list[Any] = [
            window.at,
            window.running,
            window.is_broken,
            list(window.done),
            window.sub_interval_s,
        ]
        self._storage.put(
            (
                DEMAND,
                number,
                [
                    period.since,
                    period.until,
                    period.peak,
                    period.peak_at,
                    period.cumulative,
                    wire.dump(tree),
                ],
            )
        )


def _window(data: bytes) -> _Window:
    tree: Any = wire.load(data)
    at, running, is_broken, done, *rest = tree
    return _Window(at, running, is_broken, tuple(done), *rest)
