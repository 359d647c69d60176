"""What a root makes of the DAOs that it hears.

Spec    RFC 6550 section 9 (non-storing mode), sections 6.4, 6.7.7, 6.7.8
Gives   `RouteTable`: who has which parents, and source routes from that
Limit   the parent set in a DAO, at most four; ROUTE_COUNT_MAX rows of at most PARENT_COUNT_MAX
        parents; a search looks at each node twice at the most
Never   lets a DAO that contradicts itself, or is older than what is known, change a row
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, TypeVar

from mesh.packet import NODE_ADDRESS_MAX, ROUTE_LENGTH_MAX
from mesh.routing.messages import (
    LIFETIME_INFINITE,
    LOLLIPOP_INITIAL,
    Configuration,
    Dao,
    is_newer,
    short_of,
)
from mesh.routing.place import INSTANCE
from mesh.routing.trickle import NEVER

ROUTE_COUNT_MAX: Final = 60_000
PARENT_COUNT_MAX: Final = 4
STATUS_ACCEPTED: Final = 0
STATUS_REFUSED: Final = 128
STATUS_OLD: Final = 129
"""The root knows a newer path sequence: ours started again, and jumps."""
EDGE_DENY_TIME: Final = 120.0
"""Seconds for which a hop that failed under a source route is not used."""
EDGE_DENY_COUNT_MAX: Final = 1024

Key = TypeVar("Key")


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

    __slots__ = ("_denied", "_failed_from", "_out", "_roots", "counters", "refused", "rows")

    def __init__(self, own: int) -> None:
        self._roots = {own}
        self.rows: dict[int, Route] = {}
        self._denied: dict[tuple[int, int], float] = {}
        self._failed_from: dict[int, tuple[int, float]] = {}
        """From where a node was not reached last, and until when that counts."""
        self._out: dict[int, float] = {}
        """Nodes that two neighbours did not reach, and until when nothing goes over them."""
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
        parents = _parents_in(dao)
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
        self._failed_from.pop(target, None)
        self._out.pop(target, None)
        return target, STATUS_ACCEPTED

    def forget(self, target: int, *, path_sequence: int) -> bool:
        """It told another root something newer (the head-end says so). Whether a row went."""
        row = self.rows.get(target)
        if row is None or not is_newer(path_sequence, row.path_sequence):
            return False
        del self.rows[target]
        return True

    def deny(self, relay: int, neighbour: int, *, now: float, is_unknown: bool = False) -> None:
        """The hop from `relay` to `neighbour` failed: other ways first, for a while.

        If two of its neighbours did not reach a node, none will: other ways than over it first,
        until it tells of itself. `is_unknown`: nothing was tried, so that says nothing of the node.
        """
        until = now + EDGE_DENY_TIME
        _make_room(self._denied, now)
        self._denied[relay, neighbour] = until
        if is_unknown:
            return
        other, counts_until = self._failed_from.get(neighbour, (relay, 0.0))
        if other != relay and counts_until > now:
            _make_room(self._out, now)
            self._out[neighbour] = until
            self.counters["node avoided"] += 1
        if len(self._failed_from) >= EDGE_DENY_COUNT_MAX:
            del self._failed_from[next(iter(self._failed_from))]
        self._failed_from[neighbour] = relay, until

    def route_to(
        self, target: int, *, now: float, avoid: Collection[int] = ()
    ) -> tuple[int, ...] | None:
        """The relays from here to `target`, nearest first; () for a neighbour, None for no way.

        Hops that failed lately, and nodes that nobody reached, are taken when there is no other
        way.
        """
        found = self._search(target, now, avoid, is_strict=True)
        if found is None and self._denied:
            found = self._search(target, now, avoid, is_strict=False)
        return found

    def route_around(self, node: int, target: int, *, now: float) -> tuple[int, ...] | None:
        """The relays to `target`, where a packet just failed to reach `node`; as `route_to`.

        Without that node if there is such a way: it may be dead, and each of its neighbours would
        have to find that out anew.
        """
        found = None
        if node != target:
            found = self._search(target, now, (node,), is_strict=True)
        return self.route_to(target, now=now) if found is None else found

    def way_told(self, dao: Dao, *, now: float) -> tuple[int, ...] | None:
        """The relays to the target of a DAO by what it says itself, be that believed or not.

        For who refuses it: what is known instead may be a way that leads there no more, and the
        node would never hear why. Raises MeshError where an address is not one of ours.
        """
        target = short_of(dao.target)
        if target in self.refused or target in self._roots:
            return None
        for parent in _parents_in(dao):
            if parent in self._roots:
                return ()
            if parent == target or parent in self.refused:
                continue
            way = self.route_to(parent, now=now, avoid=(target,))
            if way is not None and len(way) < ROUTE_LENGTH_MAX:
                return (*way, parent)
        return None

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
                    if is_strict and (
                        self._denied.get((parent, node), 0.0) > now
                        or self._out.get(parent, 0.0) > now
                    ):
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


def _make_room(table: dict[Key, float], now: float) -> None:
    """What is over goes, and if that is nothing the oldest."""
    if len(table) < EDGE_DENY_COUNT_MAX:
        return
    for key in [key for key, until in table.items() if until <= now]:
        del table[key]
    if len(table) >= EDGE_DENY_COUNT_MAX:
        del table[next(iter(table))]


def _parents_in(dao: Dao) -> tuple[int, ...]:
    """Those that it tells, the preferred one first. Raises MeshError."""
    ordered = sorted(dao.transits, key=lambda transit: -transit.path_control)
    return tuple(dict.fromkeys(short_of(transit.parent) for transit in ordered))
