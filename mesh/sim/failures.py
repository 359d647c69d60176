"""What failed in a run, where, and for how long: what the faults of a scenario came to.

In      `began`, `ended`, by those who bring the faults
Out     `shown`, oldest first
Limit   the last FAILURE_COUNT_MAX are kept; `forgotten` counts the others
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mesh.sim.scenario import FaultKind

FAILURE_COUNT_MAX: Final = 1000


@dataclass(slots=True)
class Failure:
    """One fault, with whom it met. Times in seconds of the world, places in metres."""

    kind: FaultKind
    began_at: float
    nodes: Sequence[int] = ()
    pairs: Sequence[tuple[int, int]] = ()
    """The links that lost power."""
    centre: tuple[float, float] | None = None
    radius_m: float = 0.0
    axis: int = 0
    """Of a partition: 0 where west and east of `middle` are parted, 1 for south and north."""
    middle: float = 0.0
    share: float = 0.0
    """Of the frames that were damaged or doubled."""
    ended_at: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether it was mended."""
        return self.ended_at is not None


class Failures:
    """All of a run."""

    def __init__(self) -> None:
        self.forgotten = 0
        self._kept: deque[Failure] = deque(maxlen=FAILURE_COUNT_MAX)

    def began(self, failure: Failure) -> None:
        """It begins."""
        self.forgotten += len(self._kept) == FAILURE_COUNT_MAX
        self._kept.append(failure)

    def ended(self, failure: Failure, *, at: float) -> None:
        """It is mended: from `at` on those that it met come back."""
        failure.ended_at = at

    @property
    def shown(self) -> Sequence[Failure]:
        """Those that are kept."""
        return tuple(self._kept)
