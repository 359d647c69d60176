"""How long the paths of small meshes are beside the best that the air allows.

What    streets of 25 meters behind two collectors, each with another seed, over the reference
        radio with the load of RFC 8036: the 90th percentile of each meter's path ETX over that of
        the best path, the mean over all streets. Nothing of it depends on the machine
Worry   above 1.2: each frame costs so much more air. `mesh figures` has the large scenarios
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Final

from interop.bench.figure import BenchError, Figure, Size
from mesh.sim.nodes import make_mesh_router
from mesh.sim.results import percentile
from mesh.sim.run import simulate
from mesh.sim.scenario import read_scenario

NAME: Final = "mesh_stretch_p90"
GOAL: Final = 1.2
SEED_COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 24, Size.QUICK: 8, Size.TINY: 1}


def measure(size: Size) -> Figure:
    """One street after the other."""
    seeds = range(1, SEED_COUNTS[size] + 1)
    scenario = read_scenario("street")
    found: list[float] = []
    waits: list[float] = []
    shares: list[float] = []
    asked = 0
    for seed in seeds:
        run = simulate(scenario, make_mesh_router, seed=seed)
        stretch, share = run.figures.get("stretch_p90"), run.figures.get("control_share_busiest")
        if not isinstance(stretch, float) or not isinstance(share, float):
            raise BenchError(f"nobody in the street of seed {seed} has a way")
        found.append(stretch)
        shares.append(share)
        exchanges = [each for each in run.world.traffic.exchanges if not each.is_void]
        asked += len(exchanges)
        waits += [each.latency_s for each in exchanges if each.latency_s is not None]
    return Figure(
        NAME,
        statistics.fmean(found),
        "",
        goal=GOAL,
        beside=f"{len(seeds)} streets: the worst {max(found):.2f}; {len(waits)} of {asked} reads "
        f"and reports done, 99 % of them in {percentile(waits, 0.99):.2g} s; control around the "
        f"busiest node {100 * max(shares):.2g} % of the time at most",
    )
