"""Runs a scenario from its first second to its last.

Gives   the world as it is at the end, its figures, and what the judges found
Never   lets the time of day into the world: it is read only to say how long the run took
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from amistack.identifiers import Eui64
from mesh.sim.faults import plan
from mesh.sim.isolations import IsolationCases
from mesh.sim.radio import read_radio
from mesh.sim.repairs import RepairWatch
from mesh.sim.results import Figures, figures
from mesh.sim.returns import ReturnWatch
from mesh.sim.router import Router
from mesh.sim.scenario import Scenario
from mesh.sim.stations import Airtime
from mesh.sim.world import World

STEP_COUNT: Final = 400
"""Into so many steps a run is cut, to tell how far it is."""

MakeRouter = Callable[[Sequence[Eui64], Scenario], Router]
Progress = Callable[[World, float], None]
"""Called with the world and the share of the run that is done."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over."""

    world: World
    repairs: RepairWatch
    isolations: IsolationCases | None
    figures: Figures


def simulate(
    scenario: Scenario,
    make_router: MakeRouter,
    *,
    seed: int,
    progress: Progress | None = None,
    prepare: Callable[[World], None] | None = None,
) -> Run:
    """Run it. `prepare` may add watchers to the world before anything happens in it."""
    wall, cpu = time.perf_counter(), time.process_time()
    radio = read_radio(scenario.radio).at_rate(scenario.rate_bps)
    world = World(scenario, make_router, seed=seed, radio=radio)
    repairs = RepairWatch(world)
    world.watch_deaths(repairs.died)
    returns = ReturnWatch(world)
    world.watch_deaths(returns.died)
    world.watch_returns(returns.came_back)
    isolations: IsolationCases | None = None
    if scenario.isolations.each:
        isolations = IsolationCases(world, scenario.isolations)
    if prepare is not None:
        prepare(world)
    end = scenario.hours * 3600
    forming = min(scenario.forming_s, end)
    airtime = Airtime([], [])

    def begin(_: int) -> None:
        nonlocal airtime
        airtime = Airtime(list(world.stations.airtime.control), list(world.stations.airtime.data))
        world.traffic.start(until=max(forming, end - scenario.draining_s))
        if isolations is not None:
            isolations.start(until=end - scenario.draining_s)

    world.clock.at(forming, begin)
    plan(world, until=end)
    world.start()
    for step in range(1, STEP_COUNT + 1):
        world.run_until(end * step / STEP_COUNT)
        if progress is not None:
            progress(world, step / STEP_COUNT)
        if isolations is not None and isolations.is_done:
            break
    found = figures(
        world,
        repairs=repairs,
        isolations=isolations,
        returns=returns,
        measured_s=world.clock.now - forming if airtime.control else 0.0,
        airtime=airtime,
        wall_s=time.perf_counter() - wall,
        cpu_s=time.process_time() - cpu,
    )
    return Run(world, repairs, isolations, found)
