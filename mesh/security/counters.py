"""Frame counters: never one twice, not even after a power cut, and few writes to flash.

Spec    docs/protocol/mesh.md, "Counters"
In      `reserved` when a block is on disk
Out     `wanted`, the end of the block to put there next
Raises  SequenceExhausted from `take` when nothing is reserved or COUNTER_MAX is behind us; then
        nothing has changed
Never   gives a counter from beyond what was said to be on disk
"""

from __future__ import annotations

from typing import Final

from amistack.errors import LocalProtocolError, SequenceExhausted
from mesh.security.frame import COUNTER_MAX

RESERVE_STEP: Final = 8192
"""A relay that sends 100,000 frames a day writes 13 times; a start costs one block, and 2^32
counters are half a million starts."""
RESERVE_AHEAD: Final = RESERVE_STEP // 2
"""The next block is asked for when fewer are left."""


class Counters:
    """Our own frame counter.

    `stored` is what was last put on disk: the end of the block that an earlier life may have used
    up. 0 for a node that never sent under this key.
    """

    __slots__ = ("_asked_until", "_next", "_reserved_until", "is_low")

    def __init__(self, *, stored: int = 0) -> None:
        if not 0 <= stored <= COUNTER_MAX + 1:
            raise LocalProtocolError(f"counter {stored}, expected 0 to {COUNTER_MAX + 1}")
        self._next = stored
        self._reserved_until = stored
        self._asked_until = stored
        self.is_low = True
        """Whether `wanted` may have something to say: for who asks after every frame."""

    @property
    def next(self) -> int:
        """The counter that `take` gives, if it is reserved."""
        return self._next

    @property
    def available(self) -> int:
        """How many `take` gives before it must be reserved more."""
        return self._reserved_until - self._next

    def take(self) -> int:
        """A counter that nobody ever had. Raises SequenceExhausted."""
        counter = self._next
        if counter >= self._reserved_until:
            if counter > COUNTER_MAX:
                raise SequenceExhausted("all frame counters of this key are used: a new key")
            raise SequenceExhausted(f"frame counters are reserved until {self._reserved_until}")
        self._next = counter + 1
        if self._asked_until - counter <= RESERVE_AHEAD:
            self.is_low = True
        return counter

    def wanted(self) -> int | None:
        """Up to where, the end not included, to reserve on disk; once for each block."""
        self.is_low = False
        if self._asked_until - self._next >= RESERVE_AHEAD or self._asked_until > COUNTER_MAX:
            return None
        self._asked_until = min(max(self._asked_until, self._next) + RESERVE_STEP, COUNTER_MAX + 1)
        return self._asked_until

    def reserved(self, until: int) -> None:
        """`until` is on disk. What is behind what we know changes nothing."""
        if not 0 <= until <= COUNTER_MAX + 1:
            raise LocalProtocolError(f"counter {until}, expected 0 to {COUNTER_MAX + 1}")
        self._reserved_until = max(self._reserved_until, until)
        self._asked_until = max(self._asked_until, until)
