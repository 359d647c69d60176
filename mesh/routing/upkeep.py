"""Looking after the links: those of the parents now and then, and others that might be better.

Spec    RFC 8036 section 7.1.3; every link of the parent set by traffic or a probe
In      `begin` with a new parent, `handle_timer`
Out     probes in the actions of the place; `deadline`
Limit   one probe at each look: EXPLORE_INTERVAL_MIN to EXPLORE_INTERVAL_HOPE apart while there is
        one that was hardly tried, up to EXPLORE_INTERVAL_AGAIN while one may have begun badly or
        little is known of the parent, and up to EXPLORE_INTERVAL_MAX where nobody may be better
"""

from __future__ import annotations

import random
from typing import Final

from mesh.routing.acts import Act, State
from mesh.routing.metric import FRAMES_CERTAIN
from mesh.routing.neighbours import Neighbour
from mesh.routing.place import Place
from mesh.routing.trickle import NEVER

EXPLORE_INTERVAL_MIN: Final = 20.0
"""Seconds from a new parent to the first look at a neighbour that might be a better one."""
EXPLORE_INTERVAL_HOPE: Final = 120.0
"""Seconds at most between looks, while there is one that was hardly tried."""
EXPLORE_INTERVAL_AGAIN: Final = 180.0
"""The same while one may only have begun badly, or the parent well. See decisions 17 and 23."""
EXPLORE_INTERVAL_MAX: Final = 1800.0
"""The same where nobody may be better: by then a figure is an old one."""
EXPLORE_GROWTH: Final = 1.25
"""By how much it grows with each look."""


class Explorer:
    """Which link one node tries next of those that it does not use."""

    __slots__ = ("_chance", "_interval", "_place", "deadline")

    def __init__(self, place: Place, chance: random.Random) -> None:
        self._place = place
        self._chance = chance
        self._interval = EXPLORE_INTERVAL_MIN
        self.deadline = NEVER

    def begin(self, now: float) -> None:
        """There is a parent: look around, often at first."""
        if self.deadline == NEVER:
            self._interval = EXPLORE_INTERVAL_MIN
            self._wait(now, 0.5, 1.0)

    def handle_timer(self, *, now: float) -> None:
        """Try the link that would make the best parent if it were as good as it might be.

        First those of which next to nothing is known. Then, where nothing else is to be done, those
        that began badly: they would not be used, and so never be found to be better. At last the
        parent, while its figure rests on few frames: all that others may hope is measured by it,
        and all below us go by it.
        """
        longest = EXPLORE_INTERVAL_HOPE
        best = self._best(now, is_known=False)
        if best is None:
            longest = EXPLORE_INTERVAL_AGAIN
            best = self._best(now, is_known=True) or self._uncertain_parent()
        if best is None:
            longest = EXPLORE_INTERVAL_MAX
        else:
            self._place.ask(Act.PROBE, best.eui)
        self._interval = min(EXPLORE_GROWTH * self._interval, longest)
        self._wait(now, 0.75, 0.5)

    def _uncertain_parent(self) -> Neighbour | None:
        parent = self._place.preferred
        if parent is None or parent.metric.frames >= FRAMES_CERTAIN:
            return None
        return parent

    def _wait(self, now: float, least: float, spread: float) -> None:
        self.deadline = now + self._interval * (least + spread * self._chance.random())

    def _best(self, now: float, *, is_known: bool) -> Neighbour | None:
        place = self._place
        parent = place.preferred
        if place.state is not State.JOINED or parent is None:
            return None
        unit, lowest = place.unit, place.lowest
        best: Neighbour | None = None
        best_rank = place.path_rank(parent) - place.worth
        for row in place.neighbours:
            if row is parent or row.rank >= lowest or row.rank >= best_rank:
                continue
            metric = row.metric
            hoped = row.rank + int(unit * (metric.least if is_known else metric.hoped))
            if (
                hoped < best_rank
                and (is_known or metric.is_doubtful(now=now))
                and not metric.is_at_rest(now=now)
                and place.is_usable(row, now)
            ):
                best, best_rank = row, hoped
        return best
