"""Whom a node hears: their place in the tree, and how good the link to them is.

In      what DIOs say, what the link layer counted
Gives   `Neighbour` rows by EUI-64 and by short address
Limit   `count_max` rows; at the bound a newcomer takes the place of the least useful row that is
        neither pinned nor better than itself, or is not taken in
Never   chooses: that is `mesh.routing.dodag`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from amistack.identifiers import Eui64
from mesh.routing.messages import INFINITE_RANK
from mesh.routing.metric import LinkMetric

NO_SHORT = 0xFFFE


class Neighbour:
    """One neighbour. `rank` is what it said last, in the DODAG version that it said then."""

    __slots__ = (
        "below_until",
        "child_until",
        "denials",
        "denied_until",
        "dtsn",
        "eui",
        "floor",
        "heard_at",
        "is_grounded",
        "metric",
        "rank",
        "refused_until",
        "short",
        "version",
    )

    def __init__(self, eui: Eui64, short: int, *, now: float) -> None:
        self.eui = eui
        self.short = short
        self.rank = INFINITE_RANK
        self.version = -1
        self.dtsn = -1
        self.heard_at = now
        self.is_grounded = True
        self.metric = LinkMetric(now=now)
        self.denied_until = 0.0
        self.denials = 0
        """How often it was denied since it last acknowledged a frame of ours."""
        self.refused_until = 0.0
        """Until when it is not asked again whether it goes below what it has said."""
        self.below_until = 0.0
        """Until when it counts as below us: what it sends up may come through us."""
        self.child_until = 0.0
        """Until when we must believe that we are its preferred parent."""
        self.floor = 0
        """The rank below which it promised, as our child, not to go; 0 for no promise."""


class NeighbourTable:
    """The rows, bounded."""

    __slots__ = ("_by_short", "_count_max", "_oldest_at", "_rows")

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._rows: dict[Eui64, Neighbour] = {}
        self._by_short: dict[int, Neighbour] = {}
        # Every row was heard at this time or later: so `forget_silent` need not look each time.
        self._oldest_at = -math.inf

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(self._rows.values())

    def get(self, eui: Eui64) -> Neighbour | None:
        """The row of `eui`, if there is one."""
        return self._rows.get(eui)

    def by_short(self, short: int) -> Neighbour | None:
        """The row that said to have that short address last."""
        return self._by_short.get(short)

    def take_in(
        self,
        eui: Eui64,
        short: int,
        rank: int,
        pinned: Callable[[], Iterable[Neighbour]],
        *,
        now: float,
    ) -> Neighbour | None:
        """The row of `eui`, made if there is place for it; None at the bound.

        `pinned` says which rows must stay, where one has to go.

        An address is its last user's: a second node that claims it takes it over. NO_SHORT says
        nothing about it.
        """
        row = self._rows.get(eui)
        if row is None:
            if len(self._rows) >= self._count_max and not self._make_place(rank, pinned(), now):
                return None
            row = self._rows[eui] = Neighbour(eui, short, now=now)
            if short != NO_SHORT:
                self._by_short[short] = row
        elif short == NO_SHORT:
            pass
        elif row.short != short:
            if self._by_short.get(row.short) is row:
                del self._by_short[row.short]
            row.short = short
            self._by_short[short] = row
        elif short not in self._by_short:
            self._by_short[short] = row
        row.heard_at = now
        return row

    def forget(self, row: Neighbour) -> None:
        """Without that row."""
        del self._rows[row.eui]
        if self._by_short.get(row.short) is row:
            del self._by_short[row.short]

    def forget_silent(
        self, age_max: float, pinned: Iterable[Neighbour], *, now: float
    ) -> list[Neighbour]:
        """Without those of whom nothing was heard for so long; returns them."""
        if now - self._oldest_at <= age_max:
            return []
        kept = set(map(id, pinned))
        silent = [
            row
            for row in self._rows.values()
            if now - row.heard_at > age_max and id(row) not in kept and row.child_until <= now
        ]
        for row in silent:
            self.forget(row)
        # What is heard makes rows younger, and new ones are the youngest.
        self._oldest_at = min((row.heard_at for row in self._rows.values()), default=now)
        return silent

    def _make_place(self, rank: int, pinned: Iterable[Neighbour], now: float) -> bool:
        kept = set(map(id, pinned))
        worst: Neighbour | None = None
        for row in self._rows.values():
            if id(row) in kept or row.child_until > now:
                continue
            if worst is None or (row.rank, row.metric.etx) > (worst.rank, worst.metric.etx):
                worst = row
        if worst is None or worst.rank < rank:
            return False
        self.forget(worst)
        return True
