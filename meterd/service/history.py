"""When a simulated service was connected: the edges, kept, so that a past interval stays as it was.

Gives   the connected stretches of any window of UTC
Raises  StoreError when an edge cannot be kept; StoreUnusable for rows that no meterd writes
Limit   EDGE_COUNT_MAX edges; before the oldest of them it always was as just before that one
Never   lets time go back: an edge that comes before the last one counts as at the last one
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from amistack.errors import StoreUnusable
from meterd.storage import SERVICE, Storage

EDGE_COUNT_MAX: Final = 4_096
"""90 a day for as long as days are kept; a load limit makes some dozens on a bad day."""


class Path(enum.IntEnum):
    """Which way the customer's energy goes."""

    NONE = 0  # nowhere: the contact is open
    METERED = 1
    SHARED = 2  # half of it around the meter
    AROUND = 3  # all of it around the meter


class History:
    """Which path there was from when on."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        rows = sorted((int(number), row) for number, row in storage.items(SERVICE))
        if any(path not in set(Path) for _, row in rows for path in row[1:]):
            raise StoreUnusable("the simulated service's rows are none of ours")
        self._next = rows[-1][0] + 1 if rows else 0
        self._numbers = [number for number, _ in rows]
        self._times: list[float] = [row[0] / 1000 for _, row in rows]
        self._paths = [Path(row[1]) for _, row in rows]
        self._first = Path(rows[0][1][2]) if rows else Path.METERED

    @property
    def path(self) -> Path:
        """The path since the last edge."""
        return self._paths[-1] if self._paths else self._first

    def note(self, path: Path, *, utc: float) -> None:
        """From `utc` on the path is this one; durable when it returns."""
        if path is self.path:
            return
        at = round(utc, 3)
        if self._times:
            at = max(at, self._times[-1])
        too_many = len(self._times) + 1 - EDGE_COUNT_MAX
        dropped = self._numbers[: max(too_many, 0)]
        self._storage.put(
            (SERVICE, self._next, [round(at * 1000), int(path), int(self.path)]),
            *((SERVICE, number, None) for number in dropped),
        )
        if dropped:
            self._first = self._paths[len(dropped) - 1]
        self._numbers = [*self._numbers[len(dropped) :], self._next]
        self._times = [*self._times[len(dropped) :], at]
        self._paths = [*self._paths[len(dropped) :], path]
        self._next += 1

    def stretches(self, start: float, end: float) -> Iterator[tuple[float, float, Path]]:
        """The paths from `start` until `end`, in order: each with its own start and end."""
        place = bisect_right(self._times, start)
        path = self._paths[place - 1] if place else self._first
        while start < end:
            until = min(end, self._times[place]) if place < len(self._times) else end
            if until > start:
                yield start, until, path
            if place < len(self._paths):
                path = self._paths[place]
            start = max(start, until)
            place += 1
