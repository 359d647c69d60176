"""Things that come due: at most one time for each, and cheap to put off or to drop.

Limit   the caller's for things; the queue of times stays under twice that and QUEUE_SLACK
"""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

KeyT = TypeVar("KeyT")

QUEUE_SLACK: Final = 64
"""Times in a queue that may be out of date before it is swept."""


class Alarms(Generic[KeyT]):
    """A queue of deadlines, each with the name of what it is for."""

    def __init__(self) -> None:
        self._due: dict[KeyT, float] = {}
        self._queue: list[tuple[float, int, KeyT]] = []
        self._order = 0  # Ties are broken by order of setting, never by comparing names.

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: KeyT) -> bool:
        return key in self._due

    def set(self, key: KeyT, due: float) -> None:
        """`key` is due at `due` (s), and at no other time that was said before."""
        self._due[key] = due
        if len(self._queue) >= QUEUE_SLACK + 2 * len(self._due):
            # Most of it is about what was dropped or put off long ago.
            self._queue = [item for item in self._queue if self._due.get(item[2]) == item[0]]
            heapq.heapify(self._queue)
        self._order += 1
        heapq.heappush(self._queue, (due, self._order, key))

    def drop(self, key: KeyT) -> None:
        """`key` is never due. No error if it was not set."""
        self._due.pop(key, None)

    def take_due(self, *, now: float) -> list[KeyT]:
        """What is due by now, earliest first; it is not set any more."""
        found: list[KeyT] = []
        queue = self._queue
        while queue and queue[0][0] <= now:
            due, _, key = heapq.heappop(queue)
            if self._due.get(key) == due:
                del self._due[key]
                found.append(key)
        return found

    def next_timer(self) -> float | None:
        """When `take_due` has something to say."""
        queue = self._queue
        while queue:
            due, _, key = queue[0]
            if self._due.get(key) == due:
                return due
            heapq.heappop(queue)
        return None
