"""How good each interval's value is: flags, written as runs of intervals that share them.

Raises  `ModelError` on runs that `runs_of` would not have written
Limit   as many runs as intervals
Never   writes an interval without a flag: a clean day costs nothing
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.packing import VALUE_COUNT_MAX


class Quality(enum.IntFlag):
    """What is to be said about one interval; 0 is a plain good value."""

    MISSING = 1  # no value is known: a gap
    POWER_OFF = 2  # no power in all or part of the interval; the value is known
    PARTIAL = 4  # the interval is shorter than its nominal length
    CLOCK_ADJUSTED = 8  # the clock was corrected or set within it
    TIME_DOUBTFUL = 16  # the clock was not known to be right
    ESTIMATED = 32
    TEST = 64  # the meter was in test mode


GOOD: Final = Quality(0)
FLAGS_MAX: Final = 127


@dataclass(frozen=True, slots=True)
class QualityRun:
    """`count` intervals from number `first` (0 is the earliest), all with the same `flags`."""

    first: int
    count: int
    flags: Quality

    def __post_init__(self) -> None:
        wire.integer(self.first, 0, VALUE_COUNT_MAX - 1, "first interval")
        wire.integer(self.count, 1, VALUE_COUNT_MAX, "interval count")
        wire.integer(int(self.flags), 1, FLAGS_MAX, "flags")

    @property
    def end(self) -> int:
        """The number of the first interval after the run."""
        return self.first + self.count


def runs_of(flags: Sequence[Quality]) -> tuple[QualityRun, ...]:
    """The runs of an interval's flags each, in order; nothing for those that are good."""
    runs: list[QualityRun] = []
    first = 0
    for shared, group in itertools.groupby(flags):
        count = sum(1 for _ in group)
        if shared:
            runs.append(QualityRun(first, count, shared))
        first += count
    return tuple(runs)


def expand(runs: Sequence[QualityRun], count: int) -> list[Quality]:
    """The flags of each of `count` intervals. Raises ModelError unless `runs` are in order."""
    check_runs(runs, count)
    flags = [GOOD] * count
    for run in runs:
        flags[run.first : run.end] = [run.flags] * run.count
    return flags


def check_runs(runs: Sequence[QualityRun], count: int) -> None:
    """Raises ModelError unless `runs` ascend, touch only if they differ, and end by `count`."""
    end, flags = 0, GOOD
    for run in runs:
        if run.first < end:
            raise ModelError("bad quality", f"run at {run.first}, expected {end} or later")
        if run.first == end and run.flags == flags:
            raise ModelError("bad quality", f"run at {run.first} continues the one before it")
        end, flags = run.end, run.flags
    if end > count:
        raise ModelError("bad quality", f"a run ends at {end}, beyond {count} intervals")


def runs_to_tree(runs: Sequence[QualityRun]) -> list[object]:
    """Three numbers for each run: first, count, flags."""
    return [[run.first, run.count, int(run.flags)] for run in runs]


def runs_from_tree(item: object) -> tuple[QualityRun, ...]:
    """The runs that `runs_to_tree` wrote; at least one."""
    runs: list[QualityRun] = []
    for numbers in wire.array(item, 1, VALUE_COUNT_MAX, "qualities"):
        first, count, flags = wire.array(numbers, 3, 3, "quality run")
        runs.append(
            QualityRun(
                wire.integer(first, 0, VALUE_COUNT_MAX - 1, "first interval"),
                wire.integer(count, 1, VALUE_COUNT_MAX, "interval count"),
                Quality(wire.integer(flags, 1, FLAGS_MAX, "flags")),
            )
        )
    return tuple(runs)
