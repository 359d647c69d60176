"""The virtual clock: what is to happen, in order of time.

Gives   each call at its time, those of one time in the order in which they were asked for
Raises  LocalProtocolError for a call in the past
Limit   CALL_COUNT_MAX calls that wait
Never   sleeps, or reads the time of day
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from amistack.errors import LocalProtocolError, TableFull

CALL_COUNT_MAX: Final = 4_000_000

Call = Callable[[int], None]
"""What the clock calls, with the number that was left with it (a node's, most often)."""


class VirtualClock:
    """Seconds since the world began, and what waits for its time.

    A call cannot be taken back: who asked looks, when it comes, whether it still means anything.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.call_count = 0
        self._waiting: list[tuple[float, int, Call, int]] = []
        self._asked = 0

    def at(self, time: float, call: Call, number: int = 0) -> None:
        """Let `call(number)` be called at `time`, which is not before now."""
        if time < self.now:
            raise LocalProtocolError(f"a call at {time} s, expected {self.now} s or later")
        if len(self._waiting) >= CALL_COUNT_MAX:
            raise TableFull(f"{len(self._waiting)} calls wait, the bound")
        self._asked += 1
        heapq.heappush(self._waiting, (time, self._asked, call, number))

    def run(self, until: float) -> None:
        """Let everything happen whose time is before `until`, then be at `until`."""
        waiting = self._waiting
        pop = heapq.heappop
        while waiting:
            entry = pop(waiting)
            time, _, call, number = entry
            if time >= until:
                heapq.heappush(waiting, entry)
                break
            self.now = time
            self.call_count += 1
            call(number)
        self.now = max(self.now, until)
