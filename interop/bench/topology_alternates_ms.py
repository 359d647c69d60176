"""How soon the DCC has three alternate ways to one meter, on 100,000 nodes.

What    median CPU time of the best way and three alternates across the collectors of its area, for
        meters at random in 20 areas of 5,000 nodes and two collectors
Worry   above 20 ms: every failed read asks for them, and thousands fail together in an outage
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping
from typing import Final

from interop.bench.figure import Figure, Size
from interop.bench.topology_network import AREA_COUNTS, AREA_NODES, COLLECTORS, eui_of, network

NAME: Final = "topology_alternates_ms"
GOAL: Final = 20.0
METER_COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 400, Size.QUICK: 150, Size.TINY: 5}


def measure(size: Size) -> Figure:
    """Meter by meter; nothing is kept from one to the next."""
    dcc = network(size)
    dice = random.Random(6)
    taken, counts, hops = [], [], []
    for _ in range(METER_COUNTS[size]):
        area = dice.randrange(1, AREA_COUNTS[size] + 1)
        meter = eui_of(area, dice.randrange(COLLECTORS, AREA_NODES[size]))
        begun = time.process_time()
        route = dcc.routes.route_of(meter)
        alternates = dcc.routes.alternates_of(meter)
        taken.append((time.process_time() - begun) * 1e3)
        counts.append(len(alternates))
        if route is not None:
            hops.append(route.hops)
    taken.sort()
    return Figure(
        NAME,
        statistics.median(taken),
        "ms",
        goal=GOAL,
        beside=f"{len(dcc.graph)} nodes, {len(taken)} meters: 95 % within "
        f"{taken[int(0.95 * len(taken))]:.3g} ms, all within {taken[-1]:.3g} ms; "
        f"{statistics.mean(counts):.3g} alternates each; best ways of {statistics.median(hops):g} "
        f"hops, at most {max(hops)}",
    )
