"""Which datagrams are sent again: each repetition takes another way up.

What the stack sends again (`mesh.repeated`) was not answered, and nobody knows why; whatever holds
it up may lie behind the first parent alone.

Spec    docs/protocol/mesh.md, "up"; docs/decisions/0022
Limit   ROWS_MAX datagrams are remembered, for MEMORY_S each
Never   looks into a datagram: its first octets tell it from others
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from mesh.repeated import ATTEMPT_MAX, MEMORY_S, mark_of

ROWS_MAX: Final = 64


class Repeats:
    """The datagrams of the last minutes, and how often each was sent."""

    def __init__(self) -> None:
        # Who was sent last stands last.
        self._rows: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def note(self, datagram: bytes, *, now: float) -> int:
        """It is sent now: how often it was before, at most ATTEMPT_MAX."""
        rows, mark = self._rows, mark_of(datagram)
        while rows and next(iter(rows.values()))[1] <= now:
            rows.popitem(last=False)
        attempt = 0
        if (row := rows.pop(mark, None)) is not None:
            attempt = min(row[0] + 1, ATTEMPT_MAX)
        elif len(rows) >= ROWS_MAX:
            rows.popitem(last=False)
        rows[mark] = attempt, now + MEMORY_S
        return attempt
