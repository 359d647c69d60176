"""How long to wait after what did not work: each time twice as long, up to a bound.

Limit   RETRY_MIN to RETRY_MAX seconds, half as much again by chance: a street does not march
"""

from __future__ import annotations

import random
from typing import Final

RETRY_MIN: Final = 2.0
RETRY_MAX: Final = 900.0


class Backoff:
    """The patience of one meter."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.retry_s = RETRY_MIN

    @property
    def is_raised(self) -> bool:
        """Whether something has not worked since the last success."""
        return self.retry_s > RETRY_MIN

    def wait(self, *, at_least: float = 0.0) -> float:
        """Something did not work: seconds to wait before it is tried again."""
        wait = max(self.retry_s, at_least) * self._dice.uniform(1.0, 1.5)
        self.retry_s = min(self.retry_s * 2, RETRY_MAX)
        return wait

    def reset(self) -> None:
        """Something worked."""
        self.retry_s = RETRY_MIN
