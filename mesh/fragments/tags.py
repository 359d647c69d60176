"""Datagram tags towards each neighbour: none again while anybody may still mean the last one.

Limit   TAG_COUNT tags a neighbour; TableFull when all of them are in use or resting
"""

from __future__ import annotations

import random
from collections import OrderedDict

from amistack.errors import TableFull
from amistack.identifiers import Eui64
from mesh.fragments.codec import TAG_COUNT

NEIGHBOUR_COUNT_MAX = 512


class Tags:
    """Whose are taken, whose rest and until when.

    The first tag towards a neighbour is drawn, so that after a restart we hardly meet what it
    remembers of before.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._by_neighbour: OrderedDict[Eui64, _Pool] = OrderedDict()

    def take(self, neighbour: Eui64, *, now: float) -> int:
        """A tag that is not in use. Raises TableFull."""
        pool = self._by_neighbour.get(neighbour)
        if pool is None:
            pool = self._by_neighbour[neighbour] = _Pool(self._dice.randrange(TAG_COUNT))
            self._drop_idle(now=now)
        self._by_neighbour.move_to_end(neighbour)
        return pool.take(neighbour, now=now)

    def rest(self, neighbour: Eui64, tag: int, *, until: float) -> None:
        """It is not in use any more, and free again then."""
        pool = self._by_neighbour.get(neighbour)
        if pool is not None:
            pool.busy_until[tag] = until

    def _drop_idle(self, *, now: float) -> None:
        """At NEIGHBOUR_COUNT_MAX those go of whom no tag is in use or rests."""
        if len(self._by_neighbour) <= NEIGHBOUR_COUNT_MAX:
            return
        for neighbour, pool in list(self._by_neighbour.items()):
            if pool.is_used and all(until <= now for until in pool.busy_until.values()):
                del self._by_neighbour[neighbour]
                return


class _Pool:
    __slots__ = ("busy_until", "is_used", "next")

    def __init__(self, start: int) -> None:
        self.next = start
        self.is_used = False
        self.busy_until: dict[int, float] = {}

    def take(self, neighbour: Eui64, *, now: float) -> int:
        for step in range(TAG_COUNT):
            tag = (self.next + step) % TAG_COUNT
            if self.busy_until.get(tag, 0.0) <= now:
                self.busy_until[tag] = float("inf")
                self.next = (tag + 1) % TAG_COUNT
                self.is_used = True
                return tag
        raise TableFull(f"all {TAG_COUNT} datagram tags towards {neighbour.hex()} are in use")
