"""Which address of the head-end to try next, when nobody wrote one down.

A search gives addresses that anybody on the link may have announced. Each is tried once; one at
which the head-end proved itself is left after LOST_AFTER failures in a row. When none is left the
next search is due.

Never   searches, waits, or takes an address for the head-end's before it has proved itself there
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from amistack.machine import Peer

LOST_AFTER: Final = 3


class Finding:
    """The addresses of one search, and how far we are with them."""

    def __init__(self) -> None:
        self._untried: deque[Peer] = deque()
        self._current: Peer | None = None
        self._proved: Peer | None = None
        self._is_proved_now = False
        self._failure_count = 0

    def take(self, found: Iterable[Peer]) -> None:
        """Begin with what a search found.

        Where the head-end was last comes first if it is still announced, and last if not:
        announcements may be lost on the way, too.
        """
        addresses = list(dict.fromkeys(found))
        if self._proved is not None:
            if self._proved in addresses:
                addresses.remove(self._proved)
                addresses.insert(0, self._proved)
            else:
                addresses.append(self._proved)
        self._untried = deque(addresses)

    def next(self) -> Peer | None:
        """The address to try now, or None: search first."""
        self._current = self._untried.popleft() if self._untried else None
        self._is_proved_now = False
        return self._current

    def fail(self) -> bool:
        """Nobody proved to be the head-end there. Whether to leave that address."""
        self._failure_count += 1
        return self._failure_count >= (LOST_AFTER if self._is_proved_now else 1)

    def prove(self) -> None:
        """The head-end was heard, authentic."""
        if self._current is not None:
            self._proved = self._current
        self._is_proved_now = True
        self._failure_count = 0
