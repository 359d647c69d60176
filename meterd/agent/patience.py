"""When to try again, for stages before the head-end has taken the registration.

Limit   RETRY_MAX s, half as much again by chance; ALARM_RETRY_S while an alarm waits; what the
        head-end asks for is obeyed in any case
"""

from __future__ import annotations

import random
from typing import Final

from meterd.backoff import Backoff

ALARM_RETRY_S: Final = 300.0
"""Seconds between attempts to reach the head-end while an alarm waits for that, at most."""


class Patience:
    """When the agent acts next, and how much longer it waits each time that comes to nothing."""

    def __init__(self, dice: random.Random) -> None:
        self.backoff: Final = Backoff(dice)
        self.act_at: float | None = None
        """When to act next, or None for not by itself."""
        self._hindered_at: float | None = None
        """When something did not work, unless the head-end said how long to wait."""

    def take(self, *, now: float) -> bool:
        """Whether it is time to act; if so it is taken."""
        if self.act_at is None or self.act_at > now:
            return False
        self.act_at = None
        return True

    def lose(self, *, now: float, at_least: float = 0.0) -> float:
        """Something came to nothing: seconds until it is tried again."""
        wait = self.backoff.wait(at_least=at_least)
        self.act_at = now + wait
        self._hindered_at = None if at_least else now
        return wait

    def hurry(self, alarm_at: float, *, now: float) -> None:
        """From `alarm_at` on wait no longer than ALARM_RETRY_S after the last attempt."""
        if self.act_at is not None and self._hindered_at is not None:
            soon = max(self._hindered_at + ALARM_RETRY_S, alarm_at, now)
            self.act_at = min(self.act_at, soon)

    def end(self) -> None:
        """A stage is over."""
        self._hindered_at = self.act_at = None
