"""How long the DCC takes to make every route of 100,000 nodes anew.

What    median CPU time to work out every link's cost from what its two ends reported, and from
        these the best way of every node, as at a start
Worry   above 2,000 ms: so long nothing else is done, and no read can be routed
Beside  the routes alone, over costs that stand already
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Final

from interop.bench.figure import Figure, Size
from interop.bench.topology_network import network

NAME: Final = "topology_rebuild_ms"
GOAL: Final = 2_000.0
REPETITIONS: Final[Mapping[Size, int]] = {Size.FULL: 5, Size.QUICK: 3, Size.TINY: 1}


def measure(size: Size) -> Figure:
    """The same network again and again."""
    dcc = network(size)
    whole, routes = [], []
    for _ in range(REPETITIONS[size]):
        begun = time.process_time()
        dcc.rebuild()
        whole.append((time.process_time() - begun) * 1e3)
        begun = time.process_time()
        dcc.routes.rebuild()
        routes.append((time.process_time() - begun) * 1e3)
    links = sum(len(links) for links in dcc.graph.costs) // 2
    return Figure(
        NAME,
        statistics.median(whole),
        "ms",
        goal=GOAL,
        beside=f"{len(dcc.graph)} nodes, {links} links; routes alone "
        f"{statistics.median(routes):.0f} ms",
    )
