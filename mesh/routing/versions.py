"""Versions of the DODAG: heard of, moved to, and begun by a root.

Spec    RFC 6550 sections 3.7.2 and 8.2.2.1 (global repair)
In      `note` what a neighbour said, `bump` at a root, `handle_timer`
Out     the place moves to the new version, and looks for a parent there; `deadline`
Never   moves a whole area at once: everybody waits a moment of its own, less if its parent moved
"""

from __future__ import annotations

import random
from typing import Final

from mesh.routing.acts import State
from mesh.routing.advertising import Advertiser
from mesh.routing.messages import INFINITE_RANK, Dio, is_newer, sequence_after
from mesh.routing.neighbours import Neighbour
from mesh.routing.parents import Parenting
from mesh.routing.place import Place
from mesh.routing.trickle import NEVER

ALONE_TIME: Final = 600.0
"""Seconds without a way after which a node follows a neighbour that has one into an older version:
the area counted on, and around, while it was away."""


class Versions:
    """One node's way from a version to the next."""

    __slots__ = (
        "_advertiser",
        "_alone_from",
        "_chance",
        "_next",
        "_parenting",
        "_place",
        "deadline",
    )

    def __init__(
        self, place: Place, advertiser: Advertiser, parenting: Parenting, chance: random.Random
    ) -> None:
        self._place = place
        self._advertiser = advertiser
        self._parenting = parenting
        self._chance = chance
        self._alone_from = NEVER
        self._next = -1
        self.deadline = NEVER

    def bump(self, *, now: float) -> int:
        """A root begins a new version: global repair. Returns it."""
        self._place.version = sequence_after(self._place.version)
        self._advertiser.begin(now=now)
        return self._place.version

    def note(self, row: Neighbour, dio: Dio, now: float) -> None:
        """A neighbour said which version it is in."""
        place = self._place
        if dio.version == place.version:
            return
        if place.version < 0:
            if dio.rank < INFINITE_RANK:
                place.version = dio.version
            return
        if not is_newer(dio.version, place.version):
            place.counters["dio: old version"] += 1
            if not is_newer(place.version, dio.version):
                self._note_other(dio, now)
            elif place.state is not State.DETACHED:
                self._advertiser.hear_request(now)
            elif self._is_long_alone(now):
                self._note_other(dio, now)
            return
        if place.state is State.ROOT:
            # Versions belong to the whole area: another collector was told of a newer one.
            place.version = dio.version
            self._advertiser.begin(now=now)
            return
        if dio.rank == INFINITE_RANK:
            return
        repair = place.profile.repair
        if not place.is_leaving or is_newer(dio.version, self._next):
            self._next = dio.version
            place.is_leaving = True
            wait = repair.version_settle_time
            self.deadline = now + wait * (0.5 + 0.5 * self._chance.random())
        if row is place.preferred or place.preferred is None:
            self.deadline = min(self.deadline, now + repair.settle_time * self._chance.random())

    def _is_long_alone(self, now: float) -> bool:
        """Whether we had no way for ALONE_TIME; in a life without one, since we first asked."""
        since = self._parenting.detached_at
        if since is None:
            since = self._alone_from = min(self._alone_from, now)
        return now - since >= ALONE_TIME

    def _note_other(self, dio: Dio, now: float) -> None:
        """A version that cannot be compared (RFC 6550 section 7.2), as of a root that has an older
        disk again; or that counts as older after a long time alone.

        A node without a way whose children all know that loses nothing by it, and would wait for
        ever. A root that is nobody's parent yet finds its area, or that of others, as it is.
        """
        place = self._place
        if dio.rank == INFINITE_RANK:
            return
        if place.state is State.ROOT and not place.has_children(now):
            place.version = dio.version
            self._advertiser.begin(now=now)
        is_free = place.lowest == INFINITE_RANK and place.pending is None
        if place.state is State.DETACHED and is_free:
            place.version = dio.version

    def handle_timer(self, *, now: float) -> None:
        """Leave the old version, with its parents, for the new one."""
        place = self._place
        self.deadline = NEVER
        if not place.is_leaving:
            return
        place.is_leaving = False
        place.version = self._next
        place.lowest = INFINITE_RANK
        self._parenting.stop_asking()
        place.preferred = None
        place.rank = INFINITE_RANK
        self._advertiser.stop()
        self._parenting.choose(now)
