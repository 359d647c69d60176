"""The best way from every node to a collector, kept right link by link.

Spec    Dijkstra (1959) for the whole; for changes, the batch form of Ramalingam and Reps (1996):
        what hung on a worse link is loosened, then settled anew from its still settled neighbours
In      `update` with what the graph changed, `set_root`, `rebuild`
Out     `distances` and `parents` of every node
Limit   a change costs in proportion to what it changes: at worst the nodes that hung on a link
Never   leads through a collector: that is where ways end, whether or not its backhaul is up
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Final

from mesh.topology.facts import GONE, Change, Index

UNREACHABLE: Final = 1 << 40
"""Farther than any node: more than every link of the largest graph at its dearest."""
BARRED: Final = -1
"""The distance of a collector without its backhaul: nothing is nearer, so nothing improves it."""
NOBODY: Final = Index(-1)


class Trees:
    """One tree for each collector with a backhaul, in one forest over all nodes."""

    def __init__(self, costs: Sequence[dict[Index, int]]) -> None:
        """`costs` of every node its links, as `Graph.costs`; looked at again at every call."""
        self._costs = costs
        self.distances: list[int] = []
        self.parents: list[Index] = []
        self.settled_count = 0
        """How many nodes the last call settled anew."""
        self._roots: dict[Index, bool] = {}

    def grow(self, capacity: int) -> None:
        """Have room for every Index below `capacity`."""
        missing = capacity - len(self.distances)
        if missing > 0:
            self.distances += [UNREACHABLE] * missing
            self.parents += [NOBODY] * missing

    def is_root(self, index: Index) -> bool:
        """Whether ways may end here: a collector with its backhaul."""
        return self._roots.get(index, False)

    def set_root(self, index: Index, *, is_open: bool | None) -> None:
        """A collector whose backhaul is up (True) or down (False), or no collector (None)."""
        if self._roots.get(index) is is_open and (is_open is not None or index not in self._roots):
            return
        loosened = {index}
        self._loosen(index, loosened)
        if is_open is None:
            self._roots.pop(index, None)
        else:
            self._roots[index] = is_open
        heap: list[tuple[int, Index]] = []
        self._attach(loosened, heap)
        self._settle(heap)

    def update(self, changes: Iterable[Change]) -> None:
        """Take over what became of some links; `costs` shows all of it already."""
        distances, parents = self.distances, self.parents
        loosened: set[Index] = set()
        better: list[tuple[Index, Index, int]] = []
        for one, other, _ in changes:
            # A link can change twice in one go; only what it costs now counts.
            cost = self._costs[one].get(other, GONE)
            for upper, lower in ((one, other), (other, one)):
                is_worse = cost == GONE or distances[upper] + cost > distances[lower]
                if is_worse and parents[lower] == upper and lower not in loosened:
                    loosened.add(lower)
                    self._loosen(lower, loosened)
                if cost != GONE:
                    better.append((upper, lower, cost))
        heap: list[tuple[int, Index]] = []
        self._attach(loosened, heap)
        for upper, lower, cost in better:
            # A loosened node looked at all its links, and tells its neighbours when it settles.
            if upper in loosened or distances[upper] == BARRED:
                continue
            distance = distances[upper] + cost
            if distance < distances[lower]:
                distances[lower] = distance
                parents[lower] = upper
                heapq.heappush(heap, (distance, lower))
        self._settle(heap)

    def rebuild(self, costs: Sequence[dict[Index, int]] | None = None) -> None:
        """Everything anew, over other costs if they are given."""
        if costs is not None:
            self._costs = costs
        count = len(self.distances)
        self.distances = [UNREACHABLE] * count
        self.parents = [NOBODY] * count
        heap: list[tuple[int, Index]] = []
        for root, is_open in self._roots.items():
            self.distances[root] = 0 if is_open else BARRED
            if is_open:
                heap.append((0, root))
        heapq.heapify(heap)
        self._settle(heap)

    def _loosen(self, top: Index, loosened: set[Index]) -> None:
        """Add all that hangs on `top` to `loosened`, which has `top` already."""
        costs, parents = self._costs, self.parents
        # Whatever hangs on a link that is gone from `costs` is named by that link's own change.
        stack = [top]
        while stack:
            upper = stack.pop()
            for lower in costs[upper]:
                if parents[lower] == upper and lower not in loosened:
                    loosened.add(lower)
                    stack.append(lower)

    def _attach(self, loosened: set[Index], heap: list[tuple[int, Index]]) -> None:
        """Give each loosened node its best way over a neighbour that still has one."""
        costs, distances, parents = self._costs, self.distances, self.parents
        for index in loosened:
            is_open = self._roots.get(index)
            distances[index] = UNREACHABLE if is_open is None else 0 if is_open else BARRED
            parents[index] = NOBODY
            if is_open:
                heap.append((0, index))
        for index in loosened:
            if index in self._roots:
                continue
            best, above = UNREACHABLE, NOBODY
            for neighbour, cost in costs[index].items():
                distance = distances[neighbour]
                if distance + cost < best and distance != BARRED and neighbour not in loosened:
                    best, above = distance + cost, neighbour
            if above != NOBODY:
                distances[index], parents[index] = best, above
                heap.append((best, index))
        heapq.heapify(heap)

    def _settle(self, heap: list[tuple[int, Index]]) -> None:
        """Dijkstra from what is in the heap."""
        costs, distances, parents = self._costs, self.distances, self.parents
        pop, push = heapq.heappop, heapq.heappush
        count = 0
        while heap:
            distance, index = pop(heap)
            if distance > distances[index]:
                continue
            count += 1
            for neighbour, cost in costs[index].items():
                further = distance + cost
                if further < distances[neighbour]:
                    distances[neighbour] = further
                    parents[neighbour] = index
                    push(heap, (further, neighbour))
        self.settled_count = count
