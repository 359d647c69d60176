"""Loosening what binds a node to the lowest rank that it had: it asks its children what they hold.

Spec    docs/decisions/0016, docs/protocol/mesh.md
In      `note` whenever ranks may have moved, `handle_timer`
Out     questions in the actions of the place; `deadline`
Limit   one question at a time, one to a child in ASK_AGAIN
Never   asks while the node may go where it likes
"""

from __future__ import annotations

import random
from typing import Final

from amistack.identifiers import Eui64
from mesh.routing.acts import Act, State
from mesh.routing.neighbours import Neighbour
from mesh.routing.place import Place
from mesh.routing.trickle import NEVER

BOUND_ETX: Final = 1
"""By how much ETX the lowest rank must be below the rank, for children to be asked."""
ASK_INTERVAL: Final = 8.0
"""Seconds, about, from one question to the next."""
ASK_INTERVAL_MAX: Final = 240.0
"""The same where they do not help."""
ASK_GROWTH: Final = 1.25
ASK_AGAIN: Final = 60.0
"""Seconds from a question to the next to the same child: it may have had to ask its own."""


class Binding:
    """Which child one node asks next."""

    __slots__ = ("_asked", "_chance", "_interval", "_place", "deadline")

    def __init__(self, place: Place, chance: random.Random) -> None:
        self._place = place
        self._chance = chance
        self._asked: dict[Eui64, float] = {}
        self._interval = ASK_INTERVAL
        self.deadline = NEVER

    @property
    def is_bound(self) -> bool:
        """Whether there may be neighbours that would be better but for the lowest rank."""
        place = self._place
        return place.state is State.JOINED and place.rank >= place.lowest + BOUND_ETX * place.step

    def note(self, now: float) -> None:
        """Ranks may have moved."""
        if self.deadline == NEVER and self.is_bound:
            self._interval = ASK_INTERVAL
            self._wait(now)

    def handle_timer(self, *, now: float) -> None:
        """Ask the child that holds us most and was not asked lately."""
        place = self._place
        place.relax(now)
        self._asked = {eui: at for eui, at in self._asked.items() if now - at < ASK_AGAIN}
        if not self.is_bound:
            self.deadline = NEVER
            return
        most: Neighbour | None = None
        for row in place.neighbours:
            if (
                row.child_until > now
                and row.floor <= place.rank
                and row.eui not in self._asked
                and (most is None or row.floor < most.floor)
            ):
                most = row
        if most is not None:
            self._asked[most.eui] = now
            place.ask(Act.ASK, most.eui)
        self._interval = min(ASK_GROWTH * self._interval, ASK_INTERVAL_MAX)
        self._wait(now)

    def _wait(self, now: float) -> None:
        self.deadline = now + self._interval * (0.75 + 0.5 * self._chance.random())
