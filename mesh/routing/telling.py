"""When a node tells the root of its parents, and what it says.

Spec    RFC 6550 section 9 (non-storing mode), sections 6.4, 6.7.7, 6.7.8; docs/protocol/mesh.md,
        "How often the root is told"
In      `change` when what was said is not true any more, `hear_ack`, `hurry`
Out     `make` and `sent` when `deadline` comes
Limit   one DAO under way; between two of them PACE_MAX seconds at the most
Never   fills the air around a root that cannot keep up: what is late or lost makes it slower
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

from mesh.routing.dao import STATUS_OLD, STATUS_REFUSED
from mesh.routing.messages import (
    LIFETIME_INFINITE,
    LOLLIPOP_INITIAL,
    SEQUENCE_WINDOW,
    Configuration,
    Dao,
    DaoAck,
    Transit,
    address_of,
    sequence_after,
)
from mesh.routing.place import INSTANCE
from mesh.routing.profile import Routes
from mesh.routing.trickle import NEVER
from mesh.routing.width import WIDE_ETX, width_of

PATH_CONTROLS: Final = (0x80, 0x20, 0x08, 0x02)
"""Preference of the first to the fourth parent: one bit in each of PC1 to PC4 (section 9.9)."""
PACE_MAX: Final = 3600.0
"""Seconds at most between DAOs that nobody answers, or that are answered ever later, where the path
has an ETX of PATH_ETX_MAX."""
PACE_NEAR: Final = 240.0
"""The same near the root: those who are there are few, and their DAOs cross few links."""
LATE_FROM: Final = 1.0
LATE_PER_ETX: Final = 0.15
"""An answer that took longer than either waited in queues: from then on the pace goes with the
square of it."""
LATE_BY_PARENT: Final = 3.0
"""Up to how late the last answer may have been for the parent that is gone to be the reason: later
ones say that the road is full."""
URGENT_DELAY_MAX: Final = 300.0
"""Seconds at most in which changes gather that leave the root without a way: DAO_DELAY at first."""
URGENT_GROWTH: Final = 2.0
"""By how much that is longer each time."""
URGENT_MEMORY: Final = 1200.0
"""Seconds without a DAO after which it is DAO_DELAY again."""
LATER_DELAY: Final = 60.0
"""Seconds in which all other changes gather; doubled each time, but for a new preferred parent."""
LATER_DELAY_MAX: Final = 3600.0
"""A node whose alternates come and go tells so at most about so often. From a path of WIDE_ETX on
either is longer by its cube: the nodes are more by the square, and ways change with every hop."""
FREE: Final = 0.5
"""At which share of that an answer came as if nobody else were there: the pace is what it was at
first."""
YOUNG_TIME: Final = 3600.0
"""Seconds from the first answer of a life in which a node waits for the others around it, unless
the road is free: who has no way yet goes first."""
YOUNG_URGENT: Final = 40.0
"""What it makes of DAO_DELAY."""
QUIET_SHARE: Final = 0.2
"""How much of the first spread is enough for a node that looks for a way alone."""
ASKED_SHARE: Final = 0.05
"""How much of it, for the square of the path's ETX, where a root asks everybody."""
PATH_ETX_MAX: Final = 16.0
"""From so far away on nobody waits longer with the first DAO."""
ASKED_COUNT_MAX: Final = 8
"""DAOs whose answers are known when they come."""


class DaoSender:
    """When to tell the root of our parents, until it says that it knows."""

    __slots__ = (
        "_attempt",
        "_chance",
        "_first_at",
        "_is_changed",
        "_is_crowded",
        "_is_urgent",
        "_known_at",
        "_late",
        "_later_delay",
        "_levels",
        "_pace",
        "_routes",
        "_sent",
        "_sent_at",
        "_share",
        "_silent_until",
        "_urgent_delay",
        "deadline",
        "is_acknowledged",
        "path_sequence",
        "sequence",
        "told",
    )

    def __init__(self, routes: Routes, chance: random.Random, *, path_sequence: int | None) -> None:
        """`path_sequence` is the last that an earlier life used, None for not known."""
        self._routes = routes
        self._chance = chance
        self.sequence = chance.randrange(128)
        if path_sequence is None or 128 <= path_sequence < LOLLIPOP_INITIAL:
            path_sequence = LOLLIPOP_INITIAL
        self.path_sequence = path_sequence
        self.deadline = NEVER
        self.is_acknowledged = False
        """Whether the root knows what is true now."""
        self.told: tuple[int, ...] = ()
        """The parents in the last one."""
        self._attempt = 0
        self._is_changed = False
        self._is_crowded = False
        self._is_urgent = False
        self._known_at = NEVER
        self._late = 0.0
        self._later_delay = LATER_DELAY
        self._levels = 1.0
        self._pace = routes.dao_retry
        self._sent: dict[int, tuple[float, int]] = {}
        self._sent_at = -NEVER
        self._first_at: float | None = None
        self._share = 0.0
        self._silent_until = NEVER
        self._urgent_delay = routes.dao_delay

    @property
    def is_known(self) -> bool:
        """Whether the root ever answered in this life: it has a way to us, if an old one."""
        return self._known_at != NEVER

    def change(
        self,
        *,
        now: float,
        is_urgent: bool,
        path_etx: float = 1.0,
        is_crowded: bool = False,
        is_asked: bool = False,
        is_moved: bool = False,
    ) -> None:
        """What we said is not true any more, or `is_asked` for again. Changes gather.

        `is_urgent`: the way that the root knows does not lead here any more; `is_moved`: it does,
        but over another parent than the preferred one. `is_crowded`: others around us look for a
        way too, as when power comes back to a whole area; then the first DAO of a life waits for a
        time by chance, and so does what comes after it while we are young.
        """
        is_urgent = is_urgent or not self.is_known
        self._levels = min(max(path_etx, 1.0), PATH_ETX_MAX)
        if self._first_at is None:
            self._first_at, self._share = now, self._chance.random()
        if now < self._silent_until and not self._sent:
            self._wait_for_turn(now, is_crowded=is_crowded)
        if is_asked:
            wait = self._turn_of_all()
        elif is_urgent:
            wait = self._wait_urgent(now, is_crowded=is_crowded)
        else:
            wait = self._wait_later(now, is_moved=is_moved)
        due = max(now + wait, self._silent_until)
        if is_urgent and self.is_known and not is_crowded and self._late <= LATE_BY_PARENT:
            # Answers that were late or did not come went by who is gone: that the road is full does
            # not follow.
            self._pace = min(self._pace, max(self._routes.dao_retry, self._urgent_delay))
        self._pace = min(self._pace, self._pace_max)
        if self._pace > self._routes.dao_retry:
            due = max(due, self._sent_at + self._pace * (0.75 + 0.5 * self._chance.random()))
        if self.is_known or self.deadline == NEVER:
            # Else the next one is due by its pace, and says what is true then.
            self.deadline = min(self.deadline, due)
        self._attempt = 0
        self._is_urgent = is_urgent or self._is_urgent
        self._is_changed = True
        self.is_acknowledged = False

    def _wait_for_turn(self, now: float, *, is_crowded: bool) -> None:
        """When the first DAO of this life is due: the further away, the more are with us."""
        assert self._first_at is not None
        self._is_crowded = self._is_crowded or is_crowded
        spread = self._routes.first_spread * self._levels
        if self._is_crowded:
            self._pace = self._routes.dao_retry * self._levels
        else:
            spread *= QUIET_SHARE
        self._silent_until = max(self._first_at + spread * self._share, now)
        self.deadline = NEVER

    @property
    def _pace_max(self) -> float:
        """How long nobody may make us wait: with the square of how far away we are."""
        return max(PACE_NEAR, PACE_MAX * (self._levels / PATH_ETX_MAX) ** 2)

    def _some_of(self, delay: float) -> float:
        return delay * (0.5 + 0.5 * self._chance.random())

    def _turn_of_all(self) -> float:
        """How long to wait if everybody was asked."""
        spread = ASKED_SHARE * self._routes.first_spread * self._levels**2
        return max(self._some_of(self._routes.dao_delay), spread * self._chance.random())

    def _wait_urgent(self, now: float, *, is_crowded: bool) -> float:
        """For how many seconds changes gather that leave the root without a way."""
        if now - self._sent_at > URGENT_MEMORY:
            self._urgent_delay = self._routes.dao_delay
        delay = self._urgent_delay
        if is_crowded and self._late > FREE and now - self._known_at < YOUNG_TIME:
            delay = max(delay, YOUNG_URGENT * self._routes.dao_delay * width_of(self._levels))
        return self._some_of(delay)

    def _wait_later(self, now: float, *, is_moved: bool) -> float:
        """For how many seconds all other changes gather."""
        if now - self._sent_at > 2 * LATER_DELAY_MAX:
            self._later_delay = LATER_DELAY
        delay = LATER_DELAY if is_moved else self._later_delay
        return self._some_of(delay) * max(1.0, (self._levels / WIDE_ETX) ** 3)

    def hurry(self, *, now: float) -> None:
        """The node speaks, and whoever answers needs the way: what the root lacks need not wait."""
        if self._first_at is None:
            return
        if now < self._silent_until:
            self._silent_until = now
        elif not self._is_urgent or now - self._sent_at < self._pace:
            return
        self.deadline = min(self.deadline, now + self._routes.dao_delay * self._chance.random())

    def stop(self) -> None:
        """There is no parent to tell of."""
        self.deadline = NEVER

    def make(self, prefix: bytes, own: int, parents: Iterable[int], lifetime: int) -> Dao:
        """The DAO that is due. A repetition is the same but for its own sequence."""
        told = tuple(parents)
        if self._attempt == 0 or told != self.told:
            self.path_sequence = sequence_after(self.path_sequence)
        self.told = told
        self.sequence = sequence_after(self.sequence)
        transits = tuple(
            Transit(address_of(prefix, parent), self.path_sequence, lifetime, control)
            for parent, control in zip(told, PATH_CONTROLS, strict=False)
        )
        return Dao(INSTANCE, self.sequence, address_of(prefix, own), transits)

    def sent(self, *, now: float) -> None:
        """It is on its way: wait for the answer, longer the more tries there were."""
        if self._is_changed and self._is_urgent:
            self._urgent_delay = min(URGENT_GROWTH * self._urgent_delay, URGENT_DELAY_MAX)
        elif self._is_changed:
            self._later_delay = min(2 * self._later_delay, LATER_DELAY_MAX)
        if len(self._sent) >= ASKED_COUNT_MAX:
            del self._sent[next(iter(self._sent))]
        self._sent[self.sequence] = (now, self.path_sequence)
        self._sent_at = now
        self._is_urgent = self._is_changed = False
        self.is_acknowledged = False
        self.deadline = now + self._pace * (0.75 + 0.5 * self._chance.random())
        self._pace = min(2 * self._pace, self._pace_max)
        self._attempt += 1
        if self._attempt >= self._routes.dao_tries:
            # Not the same one for ever: the next is a new one.
            self._attempt = 0

    def hear_ack(self, ack: DaoAck, configuration: Configuration, *, now: float) -> bool:
        """Whether the root knows a way to us: this answers a DAO of ours, if not the last."""
        asked = self._sent.get(ack.sequence)
        if asked is None:
            return False
        sent_at, path_sequence = asked
        is_last = path_sequence == self.path_sequence and not self._is_changed
        if ack.status >= STATUS_REFUSED:
            if is_last and not self.is_acknowledged:
                self._begin_again(ack.status, now)
            return False
        del self._sent[ack.sequence]
        if not self.is_known:
            self._known_at = now
        self._keep_pace(now - sent_at)
        if is_last and not self.is_acknowledged:
            self._rest(configuration, now)
        return True

    def _begin_again(self, status: int, now: float) -> None:
        """The root refuses: it is told in other words, and soon only if they are why.

        Otherwise as if nobody had answered, ever later: it may refuse for good.
        """
        self._attempt = 0
        if status != STATUS_OLD:
            return
        # From the circle to the straight part, which is newer than most of the circle;
        # from there around its end. One of the two is newer than whatever is known.
        if self.path_sequence < LOLLIPOP_INITIAL:
            self.path_sequence = LOLLIPOP_INITIAL - 1
        else:
            self.path_sequence = self.path_sequence + SEQUENCE_WINDOW & 0xFF
        self.deadline = now + self._routes.dao_retry * (0.5 + self._chance.random())

    def _keep_pace(self, took: float) -> None:
        """An answer came after so many seconds: the road is free, or it is not."""
        late = self._late = min(took / max(LATE_FROM, LATE_PER_ETX * self._levels), 100.0)
        least = self._routes.dao_retry
        # It was doubled when the DAO went out: half of what it was before.
        pace = least
        if late > FREE:
            pace = max(self._pace / 4, least * width_of(self._levels) * late**2, least)
        self._pace = min(pace, self._pace_max)

    def _rest(self, configuration: Configuration, now: float) -> None:
        """The root knows what is true: nothing is due until the route's life draws to its end."""
        self.is_acknowledged = True
        self._attempt = 0
        self.deadline = NEVER
        if configuration.lifetime != LIFETIME_INFINITE:
            life = configuration.lifetime * configuration.lifetime_unit
            share = self._routes.refresh_share * (0.8 + 0.2 * self._chance.random())
            self.deadline = now + life * share
