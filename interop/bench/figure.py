"""What a benchmark gives: one number, the least it could be, and what would be good."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amistack.errors import AmiError


class BenchError(AmiError):
    """A benchmark could not be run; the message is one line."""


class Size(enum.Enum):
    """How much work a benchmark does. TINY only shows that it works: its numbers mean nothing."""

    FULL = "full"
    QUICK = "quick"
    TINY = "tiny"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    `limit` is what the unavoidable part of the same work took in the same run, if that was
    measured. `goal` is the largest good `ratio` then, else the largest good `value`. `beside` is
    for people: what else was seen, and how much was measured.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    goal: float | None = None
    beside: str = ""

    @property
    def ratio(self) -> float | None:
        """The value in units of the limit, or None without one."""
        return None if self.limit is None else self.value / self.limit

    @property
    def is_good(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal is None:
            return None
        measured = self.value if self.ratio is None else self.ratio
        return measured <= self.goal

    def to_json(self) -> dict[str, str | float | None]:
        """The entry of this figure in the file of results."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "limit": _rounded(self.limit),
            "ratio": _rounded(self.ratio),
            "goal": self.goal,
        }


def _rounded(number: float | None) -> float | None:
    """Four significant digits: none of these is known better."""
    return None if number is None else float(f"{number:.4g}")
