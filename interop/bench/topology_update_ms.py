"""How soon every best route is right after one topology report, on 100,000 nodes.

What    CPU time from the octets of a report to routes that are right again, the worst in a hundred
        (99th percentile): in 20 areas of 5,000 nodes, nodes at random report their links 0.5 to 2
        times as dear, one report in three from a neighbour of a collector, where most hangs on it
Worry   above 50 ms: when power comes back, reports come by the thousand, and routes that lag
        behind them send every read into the dark
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping
from typing import Final

from interop.bench.figure import BenchError, Figure, Size
from interop.bench.topology_network import AREA_COUNTS, AREA_NODES, COLLECTORS, NOW, network
from mesh.reports import ETX_ONE, LinkReport, Reason, TopologyReport
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId, Index, LinkFact

NAME: Final = "topology_update_ms"
GOAL: Final = 50.0
REPORT_COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 1_000, Size.QUICK: 300, Size.TINY: 10}
ETX_MAX: Final = 6 * ETX_ONE


def measure(size: Size) -> Figure:
    """One report after the other; the next begins where the last has ended."""
    dcc = network(size)
    dice = random.Random(5)
    taken, touched = [], []
    for number in range(REPORT_COUNTS[size]):
        area = AreaId(dice.randrange(1, AREA_COUNTS[size] + 1))
        short = 1 + dice.randrange(COLLECTORS, AREA_NODES[size])
        if number % 3 == 0:
            root = dcc.graph.areas[area][1 + dice.randrange(COLLECTORS)]
            beneath = [each for each in dcc.graph.costs[root] if each not in dcc.graph.backhauls]
            short = dcc.graph.short_of(dice.choice(sorted(beneath)))
        report = changed(dcc, dcc.graph.areas[area][short], number + 2, dice)
        octets = report.encode()
        begun = time.process_time()
        dcc.take_octets(octets, area=area, short=short, now=NOW + 1_000.0 * (number + 1))
        taken.append((time.process_time() - begun) * 1e3)
        touched.append(dcc.routes.touched_count)
    before = dict(enumerate(dcc.routes.distances))
    dcc.rebuild()
    if before != dict(enumerate(dcc.routes.distances)):
        raise BenchError("routes kept right report by report differ from routes made anew")
    taken.sort()
    return Figure(
        NAME,
        taken[int(0.99 * len(taken))],
        "ms",
        goal=GOAL,
        beside=f"{len(dcc.graph)} nodes, {len(taken)} reports: median "
        f"{statistics.median(taken):.2g} ms, worst {taken[-1]:.3g} ms; up to {max(touched)} "
        "routes changed by one",
    )


def changed(dcc: Dcc, index: Index, sequence: int, dice: random.Random) -> TopologyReport:
    """What a node says when all its links are so much dearer or cheaper than it said before."""
    fact = dcc.graph.fact_of(index, now=NOW)
    factor = dice.choice((0.5, 0.7, 1.4, 2.0))

    def said(link: LinkFact) -> LinkReport:
        etx = max(ETX_ONE, min(ETX_MAX, int(link.etx_to * factor * dice.uniform(0.9, 1.1))))
        neighbour = dcc.graph.short_of(dcc.graph.index_of(link.neighbour))
        return LinkReport(neighbour, etx, link.etx_from, link.samples, 5)

    parents = tuple(said(link) for link in fact.links if link.place is not None)
    others = tuple(said(link) for link in fact.links if link.place is None)
    return TopologyReport(
        Reason.LINK_CHANGED, sequence & 0xFFFF, fact.rank, fact.hops, parents, others
    )
