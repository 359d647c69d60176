"""How a figure spreads: how often it fell into each of a few ranges, and its sum."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Spread:
    """Counts of a figure by range: up to and with each of `bounds`, and above the last.

    One thread notes; others may read meanwhile, and miss the newest at most.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` rise."""
        self.bounds = tuple(bounds)
        self.total: float = 0
        self._counts = [0] * (len(self.bounds) + 1)

    def note(self, figure: float) -> None:
        """Count one."""
        self._counts[bisect_left(self.bounds, figure)] += 1
        self.total += figure

    @property
    def counts(self) -> tuple[int, ...]:
        """How many fell into each range; one more than there are bounds."""
        return tuple(self._counts)
