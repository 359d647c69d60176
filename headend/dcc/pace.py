"""How often one node is listened to: a report changes routes, and one node must not have them all.

Gives   BURST reports at once, then one each INTERVAL_S
Limit   one number a node that was heard; the rest is forgotten with `forget`
"""

from __future__ import annotations

from typing import Final

from amistack.identifiers import Eui64

INTERVAL_S: Final = 60.0
"""A node by the book reports changes 300 s apart, and beyond that only when asked."""
BURST: Final = 6


class Pace:
    """Of every node, when it will have used up what it may say."""

    def __init__(self) -> None:
        self._until: dict[Eui64, float] = {}

    def admit(self, node: Eui64, *, now: float) -> bool:
        """Whether one more report of it is taken now; then it counts."""
        until = max(self._until.get(node, now), now)
        if until - now > (BURST - 1) * INTERVAL_S:
            return False
        self._until[node] = until + INTERVAL_S
        return True

    def forget(self, node: Eui64) -> None:
        """It is not there any more."""
        self._until.pop(node, None)
