"""What waits to be sent, by priority: the first goes first, and every one has a floor.

Spec    docs/protocol/framing.md, "Priorities"
Gives   the next entry of the most urgent queue, except that a queue which waits while others
        send earns one octet for each FLOOR_DIVISOR of theirs, and goes first when it has earned
        its own first entry
Raises  TableFull from `put` at a queue's bound; then nothing has changed
Limit   QUEUE_SIZE_MAX octets and QUEUE_COUNT_MAX entries in each of the eight queues; a full one
        leaves the other seven as they are
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

from amistack.errors import TableFull
from amistack.framing.frame import Priority

EntryT = TypeVar("EntryT")

QUEUE_SIZE_MAX: Final = 64 * 1024
QUEUE_COUNT_MAX: Final = 256
FLOOR_DIVISOR: Final = 32
"""A queue that waits gets at least every 32nd octet: all seven others together 22 %."""


_PRIORITIES: Final = tuple(Priority)


class PriorityQueues(Generic[EntryT]):
    """Eight queues and whose turn it is."""

    def __init__(self, *, size_max: int = QUEUE_SIZE_MAX, count_max: int = QUEUE_COUNT_MAX) -> None:
        self._size_max = size_max
        self._count_max = count_max
        self._queues: tuple[deque[tuple[int, EntryT]], ...] = tuple(deque() for _ in Priority)
        self._sizes = [0] * len(Priority)
        self.count = 0
        """How many entries wait in all."""
        # In octets times FLOOR_DIVISOR, so that nothing is rounded away.
        self._earned = [0] * len(Priority)

    def __len__(self) -> int:
        return self.count

    def depth(self, priority: Priority) -> tuple[int, int]:
        """How many entries wait, and how many octets."""
        return len(self._queues[priority]), self._sizes[priority]

    def put(self, priority: Priority, size: int, entry: EntryT) -> None:
        """Let `entry` of `size` octets wait. Raises TableFull."""
        queue = self._queues[priority]
        if len(queue) >= self._count_max:
            raise TableFull(f"{len(queue)} frames of priority {int(priority)} wait, the bound")
        if self._sizes[priority] + size > self._size_max:
            raise TableFull(
                f"{self._sizes[priority]} octets of priority {int(priority)} wait, "
                f"at most {self._size_max}"
            )
        queue.append((size, entry))
        self._sizes[priority] += size
        self.count += 1

    def take(self) -> tuple[Priority, EntryT] | None:
        """The next one, or None if nothing waits."""
        if self.count <= 1:
            return self._take_only() if self.count else None
        waiting = [priority for priority in _PRIORITIES if self._queues[priority]]
        chosen = waiting[0]
        for priority in waiting:
            cost = self._queues[priority][0][0] * FLOOR_DIVISOR
            if self._earned[priority] >= cost:
                chosen = priority
                self._earned[priority] -= cost
                break
        size, entry = self._queues[chosen].popleft()
        self._sizes[chosen] -= size
        self.count -= 1
        for priority in waiting:
            if priority != chosen:
                self._earned[priority] += size
        if not self._queues[chosen]:
            # What was earned by waiting is not for later.
            self._earned[chosen] = 0
        return chosen, entry

    def _take_only(self) -> tuple[Priority, EntryT]:
        """The one that waits: nobody earns anything by it."""
        chosen = next(filter(self._queues.__getitem__, _PRIORITIES))
        _, entry = self._queues[chosen].popleft()
        self._sizes[chosen] = self._earned[chosen] = self.count = 0
        return chosen, entry

    def drain(self) -> list[EntryT]:
        """All that waits, the most urgent first; then nothing does."""
        entries = [entry for queue in self._queues for _, entry in queue]
        for queue in self._queues:
            queue.clear()
        self._sizes = [0] * len(Priority)
        self.count = 0
        self._earned = [0] * len(Priority)
        return entries
