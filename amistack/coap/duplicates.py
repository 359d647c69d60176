"""Which messages came before, and what was answered.

Spec    RFC 7252 sections 4.2 and 4.5 (a repeated message is acknowledged again, not acted on again)
Limit   `count_max` messages; at the bound the oldest is forgotten. Acting twice on a message whose
        memory was lost is then for the layer above to prevent (the OSCORE replay window does). One
        whose id was used again before its turn to be forgotten came counts twice until then
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from amistack.machine import Peer

Key = tuple[Peer, int]
"""Peer and message id: what makes two messages the same."""


@dataclass(slots=True, eq=False)
class Remembered:
    """One message that came in: when it may be forgotten, and the octets it was answered with."""

    key: Key
    until: float
    reply: bytes | None = None


class Duplicates:
    """A first-in, first-out memory of messages."""

    def __init__(self, *, count_max: int) -> None:
        self._count_max = count_max
        self._remembered: dict[Key, Remembered] = {}
        # The dict's own order will not do: its first entry is behind all that were deleted there.
        self._order: deque[Remembered] = deque()
        self.evicted_count = 0

    def __len__(self) -> int:
        return len(self._remembered)

    def find(self, peer: Peer, message_id: int, *, now: float) -> Remembered | None:
        """The earlier message of that peer and id, if it is still remembered."""
        self.forget_expired(now=now)
        entry = self._remembered.get((peer, message_id))
        # A short life may end behind a longer one, where `forget_expired` does not look yet.
        return None if entry is None or entry.until <= now else entry

    def remember(self, peer: Peer, message_id: int, *, now: float, lifetime: float) -> Remembered:
        """Note a message that `find` did not know, for `lifetime` (s)."""
        key = (peer, message_id)
        entry = Remembered(key, now + lifetime)
        self._remembered[key] = entry
        self._order.append(entry)
        if len(self._order) > self._count_max and self._forget_first():
            self.evicted_count += 1
        return entry

    def forget(self, peer: Peer, message_id: int) -> None:
        """What comes under that id is another message, or may be taken for one."""
        self._remembered.pop((peer, message_id), None)

    def forget_expired(self, *, now: float) -> None:
        """Drop what is too old to come again, oldest first, up to the first that is not."""
        order = self._order
        while order and order[0].until <= now:
            self._forget_first()

    def _forget_first(self) -> bool:
        """False where its id was used again since: that message stays."""
        entry = self._order.popleft()
        if self._remembered.get(entry.key) is not entry:
            return False
        del self._remembered[entry.key]
        return True
