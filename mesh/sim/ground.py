"""What is true of the air, whatever the nodes believe: for judging, never for routing.

Gives   usable neighbours, true shortest paths by mean transmissions, and how hard a world is
Never   imports anything of the router
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from mesh.sim.radio import Links

ETX_USABLE_MAX: Final = 4.0
"""RFC 6719's MAX_LINK_METRIC: what costs more is not used."""
RATIO_BAND: Final = (0.5, 0.95)


def usable(links: Links) -> list[list[tuple[int, float]]]:
    """For each node its usable neighbours and what a frame to them costs, in transmissions."""
    rows: list[list[tuple[int, float]]] = []
    for sender, receivers in enumerate(links.receivers):
        costs = ((receiver, links.etx(sender, receiver)) for receiver in receivers)
        rows.append([(receiver, etx) for receiver, etx in costs if etx <= ETX_USABLE_MAX])
    return rows


@dataclass(frozen=True, slots=True)
class ShortestPaths:
    """The cheapest ways to the nearest root: cost in transmissions, hops, and the next node."""

    costs: tuple[float, ...]
    hops: tuple[int, ...]
    parents: tuple[int, ...]


def shortest_paths(
    links: Links, roots: Collection[int], *, without: Collection[int] = ()
) -> ShortestPaths:
    """Dijkstra from the roots over usable links, and none through the nodes `without`.

    A node that has no way costs infinity, with -1 for hops and parent.
    """
    rows = usable(links)
    down = frozenset(without)
    costs = [math.inf] * links.count
    hops = [-1] * links.count
    parents = [-1] * links.count
    waiting: list[tuple[float, int]] = []
    for root in sorted(set(roots) - down):
        costs[root] = 0.0
        hops[root] = 0
        heapq.heappush(waiting, (0.0, root))
    while waiting:
        cost, node = heapq.heappop(waiting)
        if cost > costs[node]:
            continue
        # The cost of a pair is the same both ways: each frame needs its acknowledgement.
        for neighbour, etx in rows[node]:
            if neighbour not in down and cost + etx < costs[neighbour]:
                costs[neighbour] = cost + etx
                hops[neighbour] = hops[node] + 1
                parents[neighbour] = node
                heapq.heappush(waiting, (cost + etx, neighbour))
    return ShortestPaths(tuple(costs), tuple(hops), tuple(parents))


@dataclass(frozen=True, slots=True)
class Hardness:
    """How hard a world is."""

    neighbours_median: float
    doubtful_share: float
    """Of the links to neighbours nearer the root: how many receive 50 to 95 % of frames."""
    hops_median: float
    hops_max: int
    unreachable: int


def hardness(links: Links, roots: Collection[int]) -> Hardness:
    """Measure it: over the true cheapest paths, not over what nodes choose."""
    rows = usable(links)
    paths = shortest_paths(links, roots)
    meters = [node for node in range(links.count) if node not in set(roots)]
    doubtful = candidates = 0
    for node in meters:
        for neighbour, _ in rows[node]:
            if paths.costs[neighbour] < paths.costs[node]:
                candidates += 1
                ratio = links.reception_ratio(node, neighbour)
                doubtful += RATIO_BAND[0] <= ratio <= RATIO_BAND[1]
    hops = [paths.hops[node] for node in meters if paths.hops[node] > 0]
    return Hardness(
        neighbours_median=statistics.median(len(rows[node]) for node in meters),
        doubtful_share=doubtful / candidates if candidates else 0.0,
        hops_median=statistics.median(hops) if hops else 0.0,
        hops_max=max(hops, default=0),
        unreachable=len(meters) - len(hops),
    )
