"""Which time was measured by a clock that moved, or was in doubt: it is on the intervals of then.

Raises  StoreError where a mark cannot be kept
Limit   MARK_COUNT_MAX spans, the newest; those of days that are not kept any more go
Never   marks by a guess: doubt begins when it is proved, and ends when the clock is set or proved
        to be right
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Final

from amistack.model import IntervalBlock, Quality, runs_of
from amistack.model.wire import UTC_S_MAX
from meterd.storage import CLOCK_MARK, Storage

MARK_COUNT_MAX: Final = 256
OPEN: Final = UTC_S_MAX
"""The end of a span that has not ended."""


class ClockMarks:
    """The marked spans of one meter, in UTC seconds as its clock showed them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def add(self, begin: float, end: float, flag: Quality) -> None:
        """Mark a span, both ends included."""
        first = int(min(begin, end))
        kept = self._storage.get(CLOCK_MARK, first)
        until, flags = kept or (0, 0)
        row = [max(int(max(begin, end)), until), int(flag) | flags]
        self._storage.put((CLOCK_MARK, first, row), *self._surplus(first))

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Everything that is kept inside becomes durable at once, or not at all."""
        return self._storage.together()

    def begin_doubt(self, utc: float) -> None:
        """From now on the clock is in doubt; once, until `end_doubt`."""
        if not self._open():
            self.add(utc, OPEN, Quality.TIME_DOUBTFUL)

    def end_doubt(self, utc: float) -> None:
        """The clock is right again, or set."""
        self._storage.put(
            *((CLOCK_MARK, begin, [max(int(utc), begin), row[1]]) for begin, row in self._open())
        )

    def drop_before(self, utc: float) -> None:
        """Forget what ended before."""
        self._storage.put(
            *(
                (CLOCK_MARK, begin, None)
                for begin, row in self._storage.items(CLOCK_MARK)
                if row[0] < utc
            )
        )

    def mark(self, block: IntervalBlock, start: int) -> IntervalBlock:
        """`block`, which begins at the UTC second `start`, with the flags of its time."""
        length = block.interval_s
        end = start + block.count * length
        spans = [
            (begin, row[0], Quality(row[1]))
            for begin, row in self._storage.items(CLOCK_MARK)
            if begin < end and row[0] >= start
        ]
        if not spans:
            return block
        flags = list(block.flags())
        for begin, until, flag in spans:
            first = max(begin - start, 0) // length
            last = min((min(until, end - 1) - start) // length, block.count - 1)
            for place in range(first, last + 1):
                flags[place] |= flag
        return dataclasses.replace(block, qualities=runs_of(flags))

    def _open(self) -> list[tuple[int, tuple[int, int]]]:
        return [(begin, row) for begin, row in self._storage.items(CLOCK_MARK) if row[0] == OPEN]

    def _surplus(self, added: int) -> list[tuple[str, int, None]]:
        begins = sorted({added, *(begin for begin, _ in self._storage.items(CLOCK_MARK))})
        return [(CLOCK_MARK, begin, None) for begin in begins[:-MARK_COUNT_MAX]]
