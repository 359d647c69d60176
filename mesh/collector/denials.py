"""Who is kept out of the mesh, by word of the head-end.

Limit   DENIED_COUNT_MAX nodes; one more is not denied, and the head-end is told so
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.identifiers import Eui64
from mesh.backhaul.messages import NO_NODE

DENIED_COUNT_MAX: Final = 1024


class Denials:
    """By EUI-64, which a neighbour shows, and by the short address that a packet bears."""

    def __init__(self) -> None:
        self._denied: dict[Eui64, int] = {}
        self.shorts: set[int] = set()
        """Those whose short address is known, by that."""

    def __len__(self) -> int:
        return len(self._denied)

    @property
    def nodes(self) -> set[Eui64]:
        """All of them."""
        return set(self._denied)

    def is_on(self, way: Sequence[int]) -> bool:
        """Whether one of these short addresses is kept out."""
        return not self.shorts.isdisjoint(way)

    def set(self, node: Eui64, short: int, *, is_denied: bool) -> bool:
        """Whether it is as wished: False at the bound."""
        if not is_denied:
            self._denied.pop(node, None)
        elif node in self._denied or len(self._denied) < DENIED_COUNT_MAX:
            self._denied[node] = short
        else:
            return False
        self.shorts = {short for short in self._denied.values() if short != NO_NODE}
        return True
