"""A made-up network of many areas, as its nodes would report it.

Every area is a square with collectors inside and meters at random; a link's ETX grows with its
length. Nodes report what a routing node would: up to three parents by cost, four neighbours more.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from amistack.identifiers import Eui64
from interop.bench.figure import Size
from mesh.reports import (
    ETX_ONE,
    HOPS_UNKNOWN,
    INFINITE_RANK,
    LinkReport,
    Reason,
    TopologyReport,
)
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId, Backhaul, Role
from mesh.topology.graph import HOP_RANK_INCREASE

AREA_COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 20, Size.QUICK: 20, Size.TINY: 2}
AREA_NODES: Final[Mapping[Size, int]] = {Size.FULL: 5_000, Size.QUICK: 5_000, Size.TINY: 60}
COLLECTORS: Final = 2
DEGREE: Final = 24.0
"""Usable neighbours of a node in the middle of its area, on average."""
PARENTS: Final = 3
OTHERS: Final = 4
ETX_WORST: Final = 3.0
"""Of the longest usable links; the shortest have 1."""
NOW: Final = 1_000.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Where nodes stand in relation to each other: for each its neighbours and lengths, 0 to 1."""

    neighbours: list[dict[int, float]]


def plan(count: int, *, seed: int) -> Plan:
    """The first COLLECTORS nodes are the collectors."""
    dice = random.Random(seed)
    places = [(0.25, 0.5), (0.75, 0.5)]
    places += [(dice.random(), dice.random()) for _ in range(count - COLLECTORS)]
    reach = math.sqrt(DEGREE / (math.pi * count))
    cells: dict[tuple[int, int], list[int]] = {}
    for node, (x, y) in enumerate(places):
        cells.setdefault((int(x / reach), int(y / reach)), []).append(node)
    neighbours: list[dict[int, float]] = [{} for _ in places]
    for node, (x, y) in enumerate(places):
        column, row = int(x / reach), int(y / reach)
        for across, along in itertools.product((-1, 0, 1), repeat=2):
            for other in cells.get((column + across, row + along), ()):
                length = math.hypot(places[other][0] - x, places[other][1] - y) / reach
                if other != node and length <= 1.0:
                    neighbours[node][other] = length
    return Plan(neighbours)


def reports(layout: Plan, *, seed: int) -> Iterator[tuple[int, TopologyReport]]:
    """What every node of an area reports, by its number; addresses are one above the number."""
    dice = random.Random(seed)
    etx: list[dict[int, int]] = [{} for _ in layout.neighbours]
    for node, lengths in enumerate(layout.neighbours):
        for other, length in lengths.items():
            worst = 1.0 + (ETX_WORST - 1.0) * length**3 * dice.uniform(0.5, 1.0)
            etx[node][other] = int(worst * ETX_ONE)
    distances, hops = _distances(etx)
    for node, links in enumerate(etx):
        by_cost = sorted(links, key=lambda other: (distances[other] + links[other], other))
        parents = [other for other in by_cost if distances[other] < distances[node]][:PARENTS]
        if node < COLLECTORS:
            parents = []
        best = sorted((cost, other) for other, cost in links.items() if other not in parents)
        said = [
            tuple(
                LinkReport(other + 1, links[other], etx[other][node], dice.randrange(8, 200), 5)
                for other in some
            )
            for some in (parents, [other for _, other in best[:OTHERS]])
        ]
        if node < COLLECTORS:
            rank, hop_count = HOP_RANK_INCREASE, 0
        elif parents:
            hop_count = hops[parents[0]] + 1
            rank = HOP_RANK_INCREASE * (hop_count + 1)
        else:
            rank, hop_count = INFINITE_RANK, HOPS_UNKNOWN
        yield node, TopologyReport(Reason.PERIODIC, 1, rank, hop_count, said[0], said[1])


def network(size: Size) -> Dcc:
    """All areas as the DCC knows them; every figure of it is a seed's."""
    dcc = Dcc()
    layout = plan(AREA_NODES[size], seed=1)
    for number in range(1, AREA_COUNTS[size] + 1):
        area = AreaId(number)
        for node in range(len(layout.neighbours)):
            role = Role.COLLECTOR if node < COLLECTORS else Role.METER
            dcc.place(eui_of(number, node), area=area, short=node + 1, role=role, now=NOW)
        for node, report in reports(layout, seed=number):
            dcc.take_report(report, area=area, short=node + 1, now=NOW)
        for node in range(COLLECTORS):
            dcc.set_backhaul(eui_of(number, node), Backhaul.UP, now=NOW)
    return dcc


def eui_of(area: int, node: int) -> Eui64:
    """The EUI-64 of a made-up node."""
    return Eui64(bytes((2, 0, 0, 0)) + area.to_bytes(2, "big") + node.to_bytes(2, "big"))


def _distances(etx: list[dict[int, int]]) -> tuple[list[int], list[int]]:
    """Cost and hops of every node to its nearest collector."""
    distances, hops = [1 << 40] * len(etx), [0] * len(etx)
    heap = [(0, node) for node in range(COLLECTORS)]
    for _, node in heap:
        distances[node] = 0
    while heap:
        distance, node = heapq.heappop(heap)
        if distance > distances[node]:
            continue
        for other, cost in etx[node].items():
            if distance + cost < distances[other]:
                distances[other] = distance + cost
                hops[other] = hops[node] + 1
                heapq.heappush(heap, (distance + cost, other))
    return distances, hops
