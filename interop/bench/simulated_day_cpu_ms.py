"""What a simulated day costs for each node of a mesh, in CPU.

What    CPU milliseconds for each node and simulated day: a street grid behind one collector forms
        its network, then carries the load of RFC 8036 with real node machines over the radio
        model; what the time after forming took is counted for the rest of the day
Worry   above 180 ms: a day of a city of 5,000 nodes would take more than 15 minutes of a core
Beside  CPU microseconds for each frame on the air while the network forms and after, which tell
        a dearer simulator from a mesh that says more; and the history's checksum, which is the
        same for one source text on every machine
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from interop.bench.figure import BenchError, Figure, Size
from mesh.sim.nodes import make_mesh_router
from mesh.sim.scenario import Load, Scenario, Settlement, radio_of
from mesh.sim.traffic import DAY_S
from mesh.sim.world import World

NAME: Final = "simulated_day_cpu_ms"
GOAL: Final = 180.0
METER_COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 300, Size.QUICK: 150, Size.TINY: 8}
FORMED_S: Final[Mapping[Size, float]] = {Size.FULL: 2_400.0, Size.QUICK: 1_800.0, Size.TINY: 60.0}
LOADED_S: Final[Mapping[Size, float]] = {Size.FULL: 7_200.0, Size.QUICK: 3_600.0, Size.TINY: 120.0}
SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some simulated time: what it cost, and how many frames were on the air."""

    cpu_s: float
    frames: int

    @property
    def us_each(self) -> float:
        """CPU microseconds for each frame."""
        return self.cpu_s / self.frames * 1e6


def measure(size: Size) -> Figure:
    """One world, from power to some hours of load."""
    formed_s, loaded_s = FORMED_S[size], LOADED_S[size]
    world = made(METER_COUNTS[size])
    world.start()
    forming = stretch(world, until=formed_s)
    world.traffic.start(until=formed_s + loaded_s)
    formed = stretch(world, until=formed_s + loaded_s)
    if world.faults.count:
        raise BenchError(f"must never be: {world.faults.lines[0]}")
    day_s = forming.cpu_s + formed.cpu_s / loaded_s * (DAY_S - formed_s)
    return Figure(
        NAME,
        day_s / world.count * 1e3,
        "ms",
        goal=GOAL,
        beside=f"{world.count} nodes; {forming.us_each:.0f} us a frame while it forms "
        f"({forming.frames} frames), {formed.us_each:.0f} us after ({formed.frames} in "
        f"{loaded_s:g} s); history {world.trace:08x}",
    )


def made(meter_count: int) -> World:
    """A small district behind one collector, without its power yet."""
    scenario = Scenario(
        name="bench",
        text="a small district",
        hours=24.0,
        power_up_s=min(300.0, 2.0 * meter_count),
        cipher="fast",
        settlement=Settlement("grid", meter_count, 1),
        load=Load(bursts_per_day=4.0),
    )
    radio = radio_of(scenario)
    return World(scenario, make_mesh_router, seed=SEED, radio=radio)


def stretch(world: World, *, until: float) -> Stretch:
    """Let the world go on; what that took."""
    frames, begun = world.stations.medium.counters.frames, time.process_time()
    world.run_until(until)
    cpu_s = time.process_time() - begun
    return Stretch(cpu_s, max(world.stations.medium.counters.frames - frames, 1))
