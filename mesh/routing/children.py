"""Who has us as its parent and must hear that we have no way, each for itself.

In      `begin` when the node detaches, `note` what became of a poison, `drop` who needs none
Gives   whether nobody is left: then any neighbour may become our parent
Limit   POISON_TRIES frames to one child, each with all its attempts
"""

from __future__ import annotations

from typing import Final

from amistack.identifiers import Eui64
from mesh.routing.acts import Act
from mesh.routing.neighbours import Neighbour
from mesh.routing.place import Place

POISON_TRIES: Final = 2
"""Frames, each with all its attempts, to a child that must hear of a rank without end."""


class Children:
    """Those who are still to be told."""

    __slots__ = ("_place", "_tries")

    def __init__(self, place: Place) -> None:
        self._place = place
        self._tries: dict[Eui64, int] = {}

    def __bool__(self) -> bool:
        return bool(self._tries)

    def begin(self, now: float) -> None:
        """All of them must hear of it."""
        for row in self._place.neighbours:
            if row.child_until > now:
                self.add(row.eui)

    def add(self, child: Eui64) -> None:
        """That one must, if it is not being told."""
        if child not in self._tries:
            self._tries[child] = 0
            self._place.ask(Act.POISON, child)

    def note(self, row: Neighbour, *, is_acknowledged: bool) -> bool:
        """A poison for that child was acknowledged or given up; whether it was the last."""
        tries = self._tries.get(row.eui)
        if tries is None:
            return False
        if not is_acknowledged and tries + 1 < POISON_TRIES:
            self._tries[row.eui] = tries + 1
            self._place.ask(Act.POISON, row.eui)
            return False
        if not is_acknowledged:
            self._place.counters["child given up"] += 1
        row.child_until = row.below_until = 0.0
        return self.drop(row.eui)

    def drop(self, child: Eui64) -> bool:
        """That one needs to hear nothing; whether it was the last."""
        return self._tries.pop(child, None) is not None and not self._tries

    def clear(self) -> None:
        """We have a way."""
        self._tries.clear()
