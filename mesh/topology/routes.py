"""Best routes and alternates of the whole network, across its collectors.

In      `take_changes` with what the graph changed, `backhaul_changed`, `rebuild`
Out     `route_of` the best way, `alternates_of` up to ALTERNATES_MAX more, `way_around`
Raises  MeshError for a node that is not known
Limit   HOPS_MAX hops; EXPANSIONS_MAX nodes looked at for the alternates of one node
Never   uses a collector as a relay, or visits a node twice on one way

What is promised of `alternates_of`: all ways given are different and free of loops. The first
alternate shares the fewest relays and collectors with the best way that any way can, and is the
cheapest of those; so if there is a way that shares nothing, the first alternate shares nothing.
Each later one shares the fewest with all those before it, each counted for every way it is on.
Where that would give a way a second time, the best deviation from those given follows (Yen 1971).
The bound on hops comes first: a way within it is found if there is one, but where a longer way
was cut off, it need not be the cheapest.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from amistack.identifiers import Eui64
from mesh.topology.facts import AreaId, Backhaul, Change, Index
from mesh.topology.graph import Graph
from mesh.topology.paths import HOPS_MAX, Path
from mesh.topology.trees import BARRED, NOBODY, UNREACHABLE, Trees

ALTERNATES_MAX: Final = 3
ENTRIES_MAX: Final = 4
EXPANSIONS_MAX: Final = 40_000
"""At this many the alternates found so far are all that are given."""

# One shared relay is worse than the dearest way without: no way costs as much as this.
_SHARED: Final = UNREACHABLE
# Added to every hop in turn until a way fits into HOPS_MAX; the last leaves only hops to count.
_SURCHARGES: Final = (0, 128, 1024, 16 * 1024, 1 << 60)

_INFINITE: Final = 1 << 80

Way = tuple[Index, ...]
"""From a node up to a collector; a Path goes down."""


@dataclass(slots=True)
class Search:
    """What one search must avoid, and what it has spent."""

    shared: Mapping[Index, int] = field(default_factory=dict)
    nodes: Collection[Index] = ()
    links: Collection[tuple[Index, Index]] = ()
    hops_max: int = HOPS_MAX
    expansions: int = 0


class Routes:
    """Of every node the way that costs least, and ways around what fails."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._trees = Trees(graph.costs)
        self._open_roots: dict[AreaId, set[Index]] = {}

    # Inputs

    def take_changes(self, changes: Sequence[Change]) -> None:
        """Make every best route right after a change of the graph."""
        self._trees.grow(self._graph.capacity)
        self._trees.update(changes)

    def backhaul_changed(self, index: Index) -> None:
        """A collector came, went, or its connection did."""
        self._trees.grow(self._graph.capacity)
        state = self._graph.backhauls.get(index)
        for roots in self._open_roots.values():
            roots.discard(index)
        if state is Backhaul.UP:
            self._open_roots.setdefault(self._graph.area_of(index), set()).add(index)
        self._trees.set_root(index, is_open=None if state is None else state is Backhaul.UP)

    def rebuild(self) -> None:
        """Every best route anew from the costs of the graph."""
        self._trees.grow(self._graph.capacity)
        self._trees.rebuild(self._graph.costs)

    # Outputs

    @property
    def touched_count(self) -> int:
        """How many nodes the last change gave another best way or cost."""
        return self._trees.settled_count

    @property
    def distances(self) -> Sequence[int]:
        """What the best way of every Index costs; UNREACHABLE or BARRED without one."""
        return self._trees.distances

    def cost_of(self, node: Eui64) -> int | None:
        """What the best way costs in 1/128 transmissions, whatever its hops; None without one."""
        distance = self._trees.distances[self._graph.index_of(node)]
        return None if distance in (BARRED, UNREACHABLE) else distance

    def parent_of(self, node: Eui64) -> Eui64 | None:
        """The next node on the best way up; None at its end or without one."""
        parent = self._trees.parents[self._graph.index_of(node)]
        return None if parent == NOBODY else self._graph.eui_of(parent)

    def route_of(self, node: Eui64) -> Path | None:
        """The best way down to a node that a source route has room for, or None."""
        way = self._best(self._graph.index_of(node))
        return None if way is None else self._path(way)

    def alternates_of(self, node: Eui64, *, count: int = ALTERNATES_MAX) -> tuple[Path, ...]:
        """Up to `count` further ways, best first: the module says what is promised of them."""
        best = self._best(self._graph.index_of(node))
        if best is None or len(best) < 2:
            return ()
        search = Search()
        ways = [best]
        while len(ways) <= min(count, ALTERNATES_MAX) and search.expansions < EXPANSIONS_MAX:
            shared: dict[Index, int] = {}
            for way in ways:
                for index in way[1:]:
                    shared[index] = shared.get(index, 0) + 1
            self._forgive(best[0], shared)
            search.shared, search.nodes, search.links = shared, (), ()
            search.hops_max = HOPS_MAX
            found = self._find(best[0], search)
            if found is None or found in ways:
                found = self._deviation(ways, search)
            if found is None:
                break
            ways.append(found)
        return tuple(self._path(way) for way in ways[1:])

    def way_around(
        self,
        node: Eui64,
        *,
        nodes: Iterable[Eui64] = (),
        links: Iterable[tuple[Eui64, Eui64]] = (),
    ) -> Path | None:
        """The best way down to `node` that touches none of these, or None."""
        index_of = self._graph.index_of
        avoided = {index_of(each) for each in nodes}
        start = index_of(node)
        if start in avoided:
            return None
        pairs = set()
        for one, other in links:
            ends = (index_of(one), index_of(other))
            pairs |= {ends, ends[::-1]}
        way = self._find(start, Search(nodes=avoided, links=pairs))
        return None if way is None else self._path(way)

    def way_over(
        self,
        upper: Eui64,
        lower: Eui64,
        *,
        nodes: Iterable[Eui64] = (),
        links: Iterable[tuple[Eui64, Eui64]] = (),
    ) -> Path | None:
        """The best way whose last hop goes down from `upper` to `lower`, or None."""
        end = self._graph.index_of(lower)
        above = self._graph.index_of(upper)
        if end in self._graph.backhauls or end not in self._graph.costs[above]:
            return None
        path = self.way_around(upper, nodes=(*nodes, lower), links=links)
        if path is None or path.hops == HOPS_MAX:
            return None
        return Path(
            path.area,
            (*path.nodes, lower),
            (*path.shorts, self._graph.short_of(end)),
            path.cost + self._graph.costs[above][end],
        )

    def way_to_collector(
        self,
        collector: Eui64,
        *,
        nodes: Iterable[Eui64] = (),
        links: Iterable[tuple[Eui64, Eui64]] = (),
    ) -> Path | None:
        """A way through the mesh to a collector from another one, that touches none of these.

        Over the first of its ENTRIES_MAX nearest neighbours that has one, so not always the best.
        """
        end = self._graph.index_of(collector)
        nodes, links = tuple(nodes), tuple(links)
        avoided = {tuple(sorted(link)) for link in links}
        around = sorted((cost, index) for index, cost in self._graph.costs[end].items())
        for cost, index in around[:ENTRIES_MAX]:
            above = self._graph.eui_of(index)
            if tuple(sorted((above, collector))) in avoided:
                continue
            path = self.way_around(above, nodes=(*nodes, collector), links=links)
            if path is not None and path.hops < HOPS_MAX:
                return Path(
                    path.area,
                    (*path.nodes, collector),
                    (*path.shorts, self._graph.short_of(end)),
                    path.cost + cost,
                )
        return None

    def way_by(self, collector: Eui64, node: Eui64) -> Path | None:
        """The best way from one collector, whether or not its backhaul is up, or None."""
        root = self._graph.index_of(collector)
        if root not in self._graph.backhauls:
            return None
        way = self._find(self._graph.index_of(node), Search(), goal=root)
        return None if way is None else self._path(way)

    # Rules

    def _forgive(self, start: Index, shared: dict[Index, int]) -> None:
        """What every way must share is no reason to look for another: some collector of the area.

        It changes no order of ways, and spares a search through the whole area.
        """
        roots = self._open_roots.get(self._graph.area_of(start), ())
        least = min((shared.get(root, 0) for root in roots), default=0)
        if least:
            for root in roots:
                shared[root] -= least

    def _best(self, index: Index) -> Way | None:
        parents = self._trees.parents
        if self._trees.distances[index] in (BARRED, UNREACHABLE):
            return None
        way = [index]
        while (above := parents[way[-1]]) != NOBODY:
            way.append(above)
            if len(way) > HOPS_MAX + 1:
                return self._find(index, Search())
        return tuple(way)

    def _find(self, start: Index, search: Search, goal: Index | None = None) -> Way | None:
        """The way that shares least, then costs least, within HOPS_MAX; None if there is none."""
        for surcharge in _SURCHARGES:
            way, was_cut = self._astar(start, search, surcharge, goal)
            if way is not None or not was_cut:
                return way
        return None

    def _astar(
        self, start: Index, search: Search, surcharge: int, goal: Index | None
    ) -> tuple[Way | None, bool]:
        """A way, and whether the bound on hops cut another one off.

        A* with the distances of the trees as its estimate: exact where nothing is to be avoided,
        and never too much, since what is avoided only makes ways longer.
        """
        distances, costs = self._trees.distances, self._graph.costs
        collectors = self._graph.backhauls
        shared, nodes, links = search.shared, search.nodes, search.links
        if start in collectors:
            is_end = start == goal if goal is not None else self._trees.is_root(start)
            return ((start,) if is_end else None), False
        if goal is None and distances[start] == UNREACHABLE:
            return None, False
        is_informed = goal is None
        avoids = bool(nodes or links)
        closed = () if is_informed else collectors.keys() - {goal}
        was_cut = False
        reached: dict[Index, int] = {start: 0}
        above: dict[Index, Index] = {}
        heap = [(distances[start] if is_informed else 0, 0, 0, start)]
        pop, push, known = heapq.heappop, heapq.heappush, reached.get
        while heap:
            _, spent, hops, index = pop(heap)
            if spent > reached[index]:
                continue
            if index in collectors:
                way = [index]
                while way[-1] != start:
                    way.append(above[way[-1]])
                return tuple(reversed(way)), was_cut
            if hops == search.hops_max:
                was_cut = True
                continue
            search.expansions += 1
            spent += surcharge
            for neighbour, cost in costs[index].items():
                total = spent + cost
                if neighbour in shared:
                    total += shared[neighbour] * _SHARED
                if total >= known(neighbour, _INFINITE):
                    continue
                if avoids and (neighbour in nodes or (index, neighbour) in links):
                    continue
                ahead = distances[neighbour] if is_informed else 0
                if ahead < 0 or neighbour in closed:
                    continue
                reached[neighbour] = total
                above[neighbour] = index
                push(heap, (total + ahead, total, hops + 1, neighbour))
        return None, was_cut

    def _deviation(self, ways: Sequence[Way], search: Search) -> Way | None:
        """The way that shares and costs least among those that leave a known one at some node."""
        shared = search.shared
        best: tuple[int, Way] | None = None
        tried: set[Way] = set()
        for known in ways:
            for leave in range(len(known) - 1):
                start = known[: leave + 1]
                if start in tried or search.expansions >= EXPANSIONS_MAX:
                    continue
                tried.add(start)
                search.nodes = set(start[:-1])
                search.links = {
                    (way[leave], way[leave + 1])
                    for way in ways
                    if way[: leave + 1] == start and len(way) > leave + 1
                }
                search.hops_max = HOPS_MAX - leave
                found = self._find(start[-1], search)
                if found is None:
                    continue
                way = start[:-1] + found
                costs = sum(self._graph.costs[a][b] for a, b in itertools.pairwise(way))
                total = costs + sum(shared.get(index, 0) for index in way[1:]) * _SHARED
                if best is None or (total, way) < best:
                    best = (total, way)
        return None if best is None else best[1]

    def _path(self, way: Way) -> Path:
        graph = self._graph
        down = way[::-1]
        cost = sum(graph.costs[one][other] for one, other in itertools.pairwise(way))
        return Path(
            graph.area_of(way[0]),
            tuple(graph.eui_of(index) for index in down),
            tuple(graph.short_of(index) for index in down[1:]),
            cost,
        )
