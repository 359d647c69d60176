"""Small networks made by a seed, and the plain truth about them.

What is here shares no code with what is tested: its ways are all ways there are, walked one by one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from amistack.identifiers import Eui64
from mesh.reports import (
    HOPS_UNKNOWN,
    INFINITE_RANK,
    LinkReport,
    Reason,
    TopologyReport,
)
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId, Backhaul, Role
from mesh.topology.graph import HOP_RANK_INCREASE as ROOT_RANK

AREA = AreaId(7)
COLLECTOR_BASE = 0xC0
Link = frozenset[int]
"""The two ends of a link, by short address."""


def eui(short: int, area: int = AREA) -> Eui64:
    return Eui64(area.to_bytes(4, "big") + short.to_bytes(4, "big"))


@dataclass
class World:
    """Nodes by short address, links with one cost; some of the nodes are collectors."""

    collectors: tuple[int, ...]
    meters: tuple[int, ...]
    links: dict[Link, int]
    etx: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[int, ...]:
        return self.collectors + self.meters

    def neighbours(self, node: int) -> Iterator[tuple[int, int]]:
        for link, cost in self.links.items():
            if node in link:
                (other,) = link - {node}
                yield other, cost

    def depths(self) -> dict[int, int]:
        found = dict.fromkeys(self.collectors, 0)
        queue = list(self.collectors)
        for node in queue:
            if node in self.collectors or node in found:
                for other, _ in self.neighbours(node):
                    if other not in found:
                        found[other] = found[node] + 1
                        queue.append(other)
        return found

    def reports(self, sequence: int = 1) -> Iterator[tuple[int, TopologyReport]]:
        depths = self.depths()
        for node in self.nodes:
            around = [
                LinkReport(other, cost, cost, 40, 5)
                for other, cost in sorted(self.neighbours(node))
            ]
            yield node, report_of(node, depths, around, self.collectors, sequence)

    def dcc(self, now: float = 0.0) -> Dcc:
        dcc = Dcc()
        for node in self.nodes:
            role = Role.COLLECTOR if node in self.collectors else Role.METER
            dcc.place(eui(node), area=AREA, short=node, role=role, now=now)
        for node in self.collectors:
            dcc.set_backhaul(eui(node), Backhaul.UP, now=now)
        for node, report in self.reports():
            dcc.take_report(report, area=AREA, short=node, now=now)
        return dcc

    def ways(self, node: int, collectors: tuple[int, ...] | None = None) -> Iterator[list[int]]:
        """Every way from a collector down to `node` that visits nobody twice."""
        ends = self.collectors if collectors is None else collectors
        stack = [[node]]
        while stack:
            way = stack.pop()
            if way[-1] in self.collectors:
                if way[-1] in ends:
                    yield way[::-1]
                continue
            stack += [[*way, other] for other, _ in self.neighbours(way[-1]) if other not in way]

    def cost(self, way: list[int]) -> int:
        return sum(self.links[frozenset(pair)] for pair in itertools.pairwise(way))


def report_of(
    node: int,
    depths: Mapping[int, int],
    around: list[LinkReport],
    collectors: tuple[int, ...],
    sequence: int,
) -> TopologyReport:
    if node in collectors:
        return TopologyReport(Reason.PERIODIC, sequence, ROOT_RANK, 0, (), tuple(around[:4]))
    depth = depths.get(node)
    parents = [
        link for link in around if depth is not None and depths.get(link.neighbour, 99) < depth
    ][:8]
    others = tuple(link for link in around if link not in parents)[:4]
    if not parents:
        return TopologyReport(
            Reason.PERIODIC, sequence, INFINITE_RANK, HOPS_UNKNOWN, (), tuple(around[:4])
        )
    hops = depths[parents[0].neighbour] + 1
    return TopologyReport(
        Reason.PERIODIC, sequence, ROOT_RANK * (hops + 1), hops, tuple(parents), others
    )


def made_world(seed: int, *, meters: int = 7, collectors: int = 2, degree: float = 3.0) -> World:
    """A random network in which nobody has more neighbours than reports have room for."""
    dice = random.Random(seed)
    roots = tuple(COLLECTOR_BASE + number for number in range(collectors))
    others = tuple(range(1, meters + 1))
    pairs = [
        pair for pair in itertools.combinations(roots + others, 2) if not set(pair) <= set(roots)
    ]
    count = min(len(pairs), round(degree * len(roots + others) / 2))
    links: dict[Link, int] = {}
    degrees = dict.fromkeys(roots + others, 0)
    for pair in dice.sample(pairs, len(pairs)):
        if len(links) < count and all(degrees[node] < 4 for node in pair):
            links[frozenset(pair)] = dice.randrange(128, 513)
            for node in pair:
                degrees[node] += 1
    return World(roots, others, links)
