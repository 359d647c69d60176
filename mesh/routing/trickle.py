"""Trickle: say it rarely while all agree, and at once when somebody does not.

Spec    RFC 6206 section 4.2
In      `start`, `hear_consistent`, `hear_inconsistent`, `handle_timer`
Out     `handle_timer` returns whether to transmit; `deadline` is when to call it
Limit   one timer; the interval never leaves [Imin, Imax]
Never   reads a clock; draws only from the chance that is handed to it
"""

from __future__ import annotations

import random
from typing import Final

NEVER: Final = float("inf")


class Trickle:
    """One Trickle timer. Times in seconds; `redundancy` 0 suppresses nothing."""

    __slots__ = (
        "_chance",
        "_counter",
        "_ends_at",
        "_interval",
        "_interval_max",
        "_interval_min",
        "_redundancy",
        "_sends_at",
        "deadline",
    )

    def __init__(
        self,
        interval_min: float,
        doublings: int,
        redundancy: int,
        chance: random.Random,
    ) -> None:
        self._interval_min = interval_min
        self._interval_max = interval_min * 2**doublings
        self._redundancy = redundancy
        self._chance = chance
        self._interval = interval_min
        self._counter = 0
        self._sends_at = NEVER
        self._ends_at = NEVER
        self.deadline = NEVER
        """When `handle_timer` has something to do; NEVER while it is stopped."""

    @property
    def interval(self) -> float:
        """The present interval, in seconds."""
        return self._interval

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self.deadline != NEVER

    def start(self, *, now: float) -> None:
        """Begin with the shortest interval, whatever was before."""
        self._interval = self._interval_min
        self._begin(now)

    def stop(self) -> None:
        """Say nothing until the next `start`."""
        self._sends_at = self._ends_at = self.deadline = NEVER

    def hear_consistent(self) -> None:
        """Somebody else has said what we would (rule 3)."""
        self._counter += 1

    def hear_inconsistent(self, *, now: float) -> None:
        """Something is new (rule 6): a shortest interval begins, unless one runs already."""
        if self.deadline == NEVER or self._interval > self._interval_min:
            self.start(now=now)

    def handle_timer(self, *, now: float, is_news: bool = False) -> bool:
        """Whether to transmit now. Early calls are harmless.

        `is_news`: what we would say is not what we said last, so nobody has said it for us.
        """
        is_due = False
        if now >= self._sends_at:
            is_due = is_news or self._redundancy == 0 or self._counter < self._redundancy
            self._sends_at = NEVER
            self.deadline = self._ends_at
        if now >= self._ends_at:
            self._interval = min(2 * self._interval, self._interval_max)
            self._begin(now)
        return is_due

    def _begin(self, now: float) -> None:
        self._counter = 0
        self._sends_at = now + self._interval * (0.5 + 0.5 * self._chance.random())
        self._ends_at = now + self._interval
        self.deadline = self._sends_at
