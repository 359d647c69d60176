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
from mesh.sim.failures import Failures
from mesh.sim.faults import plan
from mesh.sim.garbage import few_collections
from mesh.sim.isolations import IsolationCases
from mesh.sim.repairs import RepairWatch
from mesh.sim.results import DAY_S, Figures, figures
from mesh.sim.returns import ReturnWatch
from mesh.sim.router import Router
from mesh.sim.scenario import Scenario, radio_of
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
    failures: Failures
    figures: Figures
    control_frames_node_day: float | None


class Simulation:
    """A scenario that is running: its world, with its load, its faults and who watches it."""

    def __init__(
        self,
        scenario: Scenario,
        make_router: MakeRouter,
        *,
        seed: int,
        prepare: Callable[[World], None] | None = None,
    ) -> None:
        """`prepare` may add watchers to the world before anything happens in it."""
        self.world = world = World(scenario, make_router, seed=seed, radio=radio_of(scenario))
        self.repairs = RepairWatch(world)
        world.watch_deaths(self.repairs.died)
        self.returns = ReturnWatch(world)
        world.watch_deaths(self.returns.died)
        world.watch_returns(self.returns.came_back)
        self.isolations: IsolationCases | None = None
        if scenario.isolations.each:
            self.isolations = IsolationCases(world, scenario.isolations)
        if prepare is not None:
            prepare(world)
        self.end = scenario.hours * 3600
        self._forming = min(scenario.forming_s, self.end)
        self._airtime = Airtime([], [])
        self._control_frames = 0
        world.clock.at(self._forming, self._begin)
        self.failures = plan(world, until=self.end)
        world.start()

    def _begin(self, _: int) -> None:
        world, scenario = self.world, self.world.scenario
        before = world.stations.airtime
        self._airtime = Airtime(list(before.control), list(before.data))
        self._control_frames = world.stations.counters.control
        world.traffic.start(until=max(self._forming, self.end - scenario.draining_s))
        if self.isolations is not None:
            self.isolations.start(until=self.end - scenario.draining_s)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left of the scenario, by its hours or because all was isolated."""
        is_isolated = self.isolations is not None and self.isolations.is_done
        return self.world.clock.now >= self.end or is_isolated

    def drain(self) -> None:
        """What is under way may end, without new load, as before the end of the hours."""
        world = self.world
        world.traffic.end()
        world.run_until(min(self.end, world.clock.now + world.scenario.draining_s))

    @property
    def control_frames_node_day(self) -> float | None:
        """Frames of control that a node sends in a day, of others too; None while all forms."""
        measured_s = self.world.clock.now - self._forming
        if not self._airtime.control or measured_s <= 0:
            return None
        sent = self.world.stations.counters.control - self._control_frames
        return sent / self.world.count * DAY_S / measured_s

    def figures(self, *, wall_s: float, cpu_s: float) -> Figures:
        """What it came to by now; the seconds that it took are the caller's to know."""
        return figures(
            self.world,
            repairs=self.repairs,
            isolations=self.isolations,
            returns=self.returns,
            measured_s=self.world.clock.now - self._forming if self._airtime.control else 0.0,
            airtime=self._airtime,
            wall_s=wall_s,
            cpu_s=cpu_s,
        )


@few_collections()
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
    running = Simulation(scenario, make_router, seed=seed, prepare=prepare)
    for step in range(1, STEP_COUNT + 1):
        running.world.run_until(running.end * step / STEP_COUNT)
        if progress is not None:
            progress(running.world, step / STEP_COUNT)
        if running.is_over:
            running.drain()
            break
    found = running.figures(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu)
    return Run(
        running.world,
        running.repairs,
        running.isolations,
        running.failures,
        found,
        running.control_frames_node_day,
    )
