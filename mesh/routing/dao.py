"""Telling the root where we are, and what the root makes of it.

Spec    RFC 6550 section 9 (non-storing mode), sections 6.4, 6.7.7, 6.7.8
Gives   `DaoSender` in every node: when a DAO is due, and what it says; `RouteTable` in every root:
        who has which parents, and source routes from that
Limit   the parent set in a DAO, at most four; ROUTE_COUNT_MAX rows of at most PARENT_COUNT_MAX
        parents; a search looks at each node twice at the most
Never   lets a DAO that contradicts itself, or is older than what is known, change a row
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from mesh.packet import NODE_ADDRESS_MAX, ROUTE_LENGTH_MAX
from mesh.routing.messages import (
    LIFETIME_INFINITE,
    LOLLIPOP_INITIAL,
    SEQUENCE_WINDOW,
    Configuration,
    Dao,
    DaoAck,
    Transit,
    address_of,
    is_newer,
    sequence_after,
    short_of,
)
from mesh.routing.place import INSTANCE
from mesh.routing.profile import Routes
from mesh.routing.trickle import NEVER

ROUTE_COUNT_MAX: Final = 60_000
PARENT_COUNT_MAX: Final = 4
PATH_CONTROLS: Final = (0x80, 0x20, 0x08, 0x02)
"""Preference of the first to the fourth parent: one bit in each of PC1 to PC4 (section 9.9)."""
STATUS_ACCEPTED: Final = 0
STATUS_REFUSED: Final = 128
STATUS_OLD: Final = 129
"""The root knows a newer path sequence: ours started again, and jumps."""
RETRY_MAX: Final = 600.0
"""Seconds at most between DAOs that nobody answers."""
URGENT_DELAY_MAX: Final = 120.0
"""Seconds at most in which changes of the preferred parent gather: DAO_DELAY, doubled each time."""
URGENT_MEMORY: Final = 600.0
"""Seconds without a DAO after which it is DAO_DELAY again."""
LATER_DELAY: Final = 60.0
"""Seconds in which changes of other than the preferred parent gather; doubled each time."""
LATER_DELAY_MAX: Final = 3600.0
"""A node whose alternates come and go tells so at most about so often."""
QUIET_SHARE: Final = 0.2
"""How much of the first spread is enough for a node that looks for a way alone."""
PATH_ETX_MAX: Final = 16.0
"""From so far away on nobody waits longer with the first DAO."""
EDGE_DENY_TIME: Final = 120.0
"""Seconds for which a hop that failed under a source route is not used."""
EDGE_DENY_COUNT_MAX: Final = 1024


class DaoSender:
    """When to tell the root of our parents, until it says that it knows."""

    __slots__ = (
        "_attempt",
        "_chance",
        "_first_at",
        "_is_changed",
        "_is_crowded",
        "_is_urgent",
        "_later_delay",
        "_routes",
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
        self._attempt = 0
        self._is_changed = False
        self._is_crowded = False
        self._is_urgent = False
        self._later_delay = LATER_DELAY
        self._urgent_delay = routes.dao_delay
        self._sent_at = -NEVER
        self._first_at: float | None = None
        self._share = 0.0
        self._silent_until = NEVER
        self.told: tuple[int, ...] = ()
        """The parents in the last one."""

    def change(
        self, *, now: float, is_urgent: bool, path_etx: float = 1.0, is_crowded: bool = False
    ) -> None:
        """What we said is not true any more. Changes gather; nothing said before is waited for.

        The first time in a life the node waits longer if it is not alone: power comes back to a
        whole area at once. Who is near the root goes first, for a route to us needs those of all
        above us.
        """
        is_urgent = is_urgent or self._is_urgent
        if self._first_at is None:
            self._first_at, self._share = now, self._chance.random()
            self._silent_until = NEVER
        if now < self._silent_until:
            levels = min(max(path_etx, 1.0), PATH_ETX_MAX) - 1.0 + self._share
            self._is_crowded = self._is_crowded or is_crowded
            spread = self._routes.first_spread * (1.0 if self._is_crowded else QUIET_SHARE)
            self._silent_until = max(self._first_at + spread * levels, now)
            self.deadline = NEVER
        if not is_urgent and now - self._sent_at > 2 * LATER_DELAY_MAX:
            self._later_delay = LATER_DELAY
        if now - self._sent_at > URGENT_MEMORY:
            self._urgent_delay = self._routes.dao_delay
        delay = self._urgent_delay if is_urgent else self._later_delay
        due = max(now + delay * (0.5 + 0.5 * self._chance.random()), self._silent_until)
        self.deadline = min(self.deadline, due)
        self._attempt = 0
        self._is_urgent = is_urgent
        self._is_changed = True
        self.is_acknowledged = False

    def hurry(self, *, now: float) -> None:
        """The node speaks, and whoever answers needs the way: the first one need not wait."""
        if self._first_at is not None and now < self._silent_until:
            self._silent_until = now
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
        tries = self._attempt
        if self._is_changed and self._is_urgent:
            self._urgent_delay = min(2 * self._urgent_delay, URGENT_DELAY_MAX)
        elif self._is_changed:
            self._later_delay = min(2 * self._later_delay, LATER_DELAY_MAX)
        self._sent_at = now
        self._is_urgent = self._is_changed = False
        self.is_acknowledged = False
        self._attempt += 1
        wait = min(self._routes.dao_retry * 2 ** min(tries, 16), RETRY_MAX)
        self.deadline = now + wait * (0.75 + 0.5 * self._chance.random())
        if self._attempt >= self._routes.dao_tries:
            # Not the same one for ever: the next is a new one, and long after.
            self._attempt = 0
            self.deadline = now + min(4 * wait, RETRY_MAX) * (0.75 + 0.5 * self._chance.random())

    def hear_ack(self, ack: DaoAck, configuration: Configuration, *, now: float) -> bool:
        """Whether the answer is one to our last DAO."""
        if ack.sequence != self.sequence or self.is_acknowledged or self._is_changed:
            return False
        if ack.status >= STATUS_REFUSED:
            if ack.status == STATUS_OLD:
                # From the circle to the straight part, which is newer than most of the circle;
                # from there around its end. One of the two is newer than whatever is known.
                if self.path_sequence < LOLLIPOP_INITIAL:
                    self.path_sequence = LOLLIPOP_INITIAL - 1
                else:
                    self.path_sequence = self.path_sequence + SEQUENCE_WINDOW & 0xFF
            self._attempt = 0
            self.deadline = now + self._routes.dao_retry * (0.5 + self._chance.random())
            return True
        self.is_acknowledged = True
        self._attempt = 0
        self.deadline = NEVER
        if configuration.lifetime != LIFETIME_INFINITE:
            life = configuration.lifetime * configuration.lifetime_unit
            share = self._routes.refresh_share * (0.8 + 0.2 * self._chance.random())
            self.deadline = now + life * share
        return True


@dataclass(frozen=True, slots=True)
class Route:
    """What one node said of itself: its parents, the preferred one first."""

    parents: tuple[int, ...]
    path_sequence: int
    expires_at: float


class RouteTable:
    """Where everybody is, as the DAOs say: a root's own table.

    A row is a target's parents; `own` is the root, where every route begins.
    """

    __slots__ = ("_denied", "_roots", "counters", "refused", "rows")

    def __init__(self, own: int) -> None:
        self._roots = {own}
        self.rows: dict[int, Route] = {}
        self._denied: dict[tuple[int, int], float] = {}
        self.refused: set[int] = set()
        """Nodes that get no route, by word of the head-end."""
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.rows)

    def take(
        self, dao: Dao, configuration: Configuration, *, source: int, now: float
    ) -> tuple[int, int]:
        """The target of a DAO from `source`, and the status to answer it with.

        Raises MeshError where an address is not one of ours; then, and from status 128 on, nothing
        has changed.
        """
        target = short_of(dao.target)
        if not 1 <= target <= NODE_ADDRESS_MAX or target in self._roots:
            return self._refuse(target, "bad target")
        if target in self.refused:
            return self._refuse(target, "denied")
        if target != source:
            return self._refuse(target, "not its own target")
        if dao.instance != INSTANCE or len(dao.transits) > PARENT_COUNT_MAX:
            return self._refuse(target, "not our instance, or too many parents")
        ordered = sorted(dao.transits, key=lambda transit: -transit.path_control)
        parents = tuple(dict.fromkeys(short_of(transit.parent) for transit in ordered))
        sequence = dao.transits[0].path_sequence
        if target in parents or not all(1 <= parent <= NODE_ADDRESS_MAX for parent in parents):
            return self._refuse(target, "its own parent")
        if 128 <= sequence < LOLLIPOP_INITIAL:
            # Nobody counts there, and nothing that follows would be newer.
            return self._refuse(target, "impossible path sequence")
        if any(transit.path_sequence != sequence for transit in dao.transits):
            return self._refuse(target, "two path sequences")
        known = self.rows.get(target)
        if known is not None and known.expires_at > now and known.path_sequence != sequence:
            if not is_newer(sequence, known.path_sequence):
                self.counters["dao: old path sequence"] += 1
                return target, STATUS_OLD
        elif known is not None and known.expires_at > now and known.parents != parents:
            return self._refuse(target, "same sequence, other parents")
        lifetime = dao.transits[0].path_lifetime
        if lifetime == 0:
            self.rows.pop(target, None)
            return target, STATUS_ACCEPTED
        if known is None and len(self.rows) >= ROUTE_COUNT_MAX and not self._make_place(now):
            return self._refuse(target, "table full")
        if self._makes_loop(target, parents, now):
            return self._refuse(target, "a loop")
        expires_at = NEVER
        if lifetime != LIFETIME_INFINITE:
            expires_at = now + lifetime * configuration.lifetime_unit
        self.rows[target] = Route(parents, sequence, expires_at)
        return target, STATUS_ACCEPTED

    def forget(self, target: int, *, path_sequence: int) -> bool:
        """It told another root something newer (the head-end says so). Whether a row went."""
        row = self.rows.get(target)
        if row is None or not is_newer(path_sequence, row.path_sequence):
            return False
        del self.rows[target]
        return True

    def deny(self, relay: int, neighbour: int, *, now: float) -> None:
        """The hop from `relay` to `neighbour` failed: other ways first, for a while."""
        if len(self._denied) >= EDGE_DENY_COUNT_MAX:
            self._denied = {hop: until for hop, until in self._denied.items() if until > now}
            if len(self._denied) >= EDGE_DENY_COUNT_MAX:
                del self._denied[next(iter(self._denied))]
        self._denied[relay, neighbour] = now + EDGE_DENY_TIME

    def route_to(
        self, target: int, *, now: float, avoid: Collection[int] = ()
    ) -> tuple[int, ...] | None:
        """The relays from here to `target`, nearest first; () for a neighbour, None for no way.

        Hops that failed lately are taken when there is no other way.
        """
        found = self._search(target, now, avoid, is_strict=True)
        if found is None and self._denied:
            found = self._search(target, now, avoid, is_strict=False)
        return found

    def routes_to(self, target: int, *, now: float, count_max: int = 3) -> list[tuple[int, ...]]:
        """Up to `count_max` different routes without loops, those with fewest relays in common
        with the ones before first.
        """
        best = self.route_to(target, now=now)
        if best is None:
            return []
        found = [best]
        used = set(best)
        while len(found) < count_max:
            other = self.route_to(target, now=now, avoid=used)
            if other is None or other in found:
                other = None
                for relay in sorted(used):
                    candidate = self.route_to(target, now=now, avoid={relay})
                    if candidate is not None and candidate not in found:
                        other = candidate
                        break
            if other is None:
                break
            found.append(other)
            used |= set(other)
        return found

    def _search(
        self, target: int, now: float, avoid: Collection[int], *, is_strict: bool
    ) -> tuple[int, ...] | None:
        """From the target up: preferred parents as long as they lead home, then others.

        A long detour may hide a short way that still fits into a source route: then by length.
        """
        for is_by_length in (False, True):
            came_from: dict[int, int] = {}
            depth = {target: -1}
            edge = deque([(target, target)])
            is_cut = False
            while edge:
                node, child = edge.popleft() if is_by_length else edge.pop()
                if node in came_from:
                    continue
                came_from[node] = child
                depth[node] = depth[child] + 1
                if node in self._roots:
                    return self._relays(node, target, came_from)
                if depth[node] > ROUTE_LENGTH_MAX:
                    is_cut = True
                    continue
                row = self.rows.get(node)
                if row is None or row.expires_at <= now:
                    continue
                for parent in row.parents if is_by_length else reversed(row.parents):
                    if parent in avoid or parent in came_from:
                        continue
                    if is_strict and self._denied.get((parent, node), 0.0) > now:
                        continue
                    edge.append((parent, node))
            if not is_cut:
                return None
        return None

    @staticmethod
    def _relays(root: int, target: int, came_from: dict[int, int]) -> tuple[int, ...]:
        relays: list[int] = []
        node = root
        while node != target:
            node = came_from[node]
            relays.append(node)
        return tuple(relays[:-1])

    def _makes_loop(self, target: int, parents: tuple[int, ...], now: float) -> bool:
        """Whether every parent is known, and its way home leads through the target."""
        for parent in parents:
            if parent in self._roots or parent not in self.rows:
                return False
            if self.route_to(parent, now=now, avoid=(target,)) is not None:
                return False
        return any(
            target in (self.route_to(parent, now=now) or ()) or self._is_above(target, parent)
            for parent in parents
        )

    def _is_above(self, target: int, node: int) -> bool:
        """Whether the preferred parents of `node` lead to `target`."""
        seen: set[int] = set()
        while node not in seen and node in self.rows:
            seen.add(node)
            node = self.rows[node].parents[0]
            if node == target:
                return True
        return False

    def _make_place(self, now: float) -> bool:
        ended = [target for target, row in self.rows.items() if row.expires_at <= now]
        for target in ended:
            del self.rows[target]
        return bool(ended)

    def _refuse(self, target: int, reason: str) -> tuple[int, int]:
        self.counters[f"dao: {reason}"] += 1
        return target, STATUS_REFUSED
