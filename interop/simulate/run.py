"""Runs a scenario with real programs from its first second to its last.

Gives   the town as it is at the end, its figures, and what must never be
Raises  ConfigError for a scenario that is none for programs; AmiError of a program that cannot
        start or go on
Never   lets the time of day into the world: it is read only to say how long the run took
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from amistack.errors import ConfigError
from amistack.settings import load
from interop.simulate.deeds import Kill, check_kills
from interop.simulate.figures import figures
from interop.simulate.town import OPENING_S, Town
from interop.simulate.truth import Days, Topology, days, stored_reads, topology
from mesh.sim import scenario as in_the_box
from mesh.sim.faults import plan
from mesh.sim.results import Figures
from mesh.sim.scenario import SUFFIX, Scenario, radio_of
from mesh.sim.stations import Airtime

STEP_COUNT: Final = 400
"""Into so many steps a run is cut, to tell how far it is."""
HISTORY_DAYS: Final = 2
STOP_S: Final = 60.0
METERS_MAX: Final = 1_000
_FOLDER: Final = Path(__file__).parent / "scenarios"
_MEMORY: Final = Path("/dev/shm")

Progress = Callable[[Town, float], None]
"""Called with the town and the share of the run that is done."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over."""

    town: Town
    days: Days
    topology: Topology
    figures: Figures
    faults: Sequence[str]
    """What must never be, and was."""


def scenarios() -> list[str]:
    """The names of the scenarios for programs in the box."""
    return sorted(file.stem for file in _FOLDER.glob(f"*{SUFFIX}"))


def read_scenario(name: str) -> Scenario:
    """The scenario of that name, ours or one of `mesh simulate`, or in a file. Raises ConfigError.

    Raises it too for one of isolations, and for more meters than there is room for.
    """
    if name in scenarios():
        return load(_FOLDER / (name + SUFFIX), Scenario)
    if not name.endswith(SUFFIX) and name not in in_the_box.scenarios():
        known = sorted({*scenarios(), *in_the_box.scenarios()} - {"isolation"})
        raise ConfigError(f"no scenario {name!r}: expected one of {', '.join(known)}, or a file")
    return in_the_box.read_scenario(name)


def check_scenario(scenario: Scenario) -> None:
    """Raises ConfigError for one that is none for programs."""
    if scenario.isolations.each:
        raise ConfigError(f"{scenario.name} isolates failures, which `mesh simulate` alone does")
    if scenario.settlement.meters > METERS_MAX:
        raise ConfigError(
            f"{scenario.settlement.meters} meters, at most {METERS_MAX} as programs: "
            "--meters makes them fewer, `mesh simulate` has room for more nodes"
        )


def simulate(
    scenario: Scenario,
    *,
    seed: int,
    kills: Sequence[Kill] = (),
    history_days: int = HISTORY_DAYS,
    progress: Progress | None = None,
    prepare: Callable[[Town], None] | None = None,
) -> Run:
    """Run it. `prepare` may add watchers to the town before anything happens in it."""
    check_scenario(scenario)
    end = scenario.hours * 3600
    check_kills(kills, scenario.settlement, until=end)
    folder = Path(tempfile.mkdtemp(prefix="town-", dir=_MEMORY if _MEMORY.is_dir() else None))
    try:
        return _simulate(
            scenario, seed, folder, kills, history_days, progress=progress, prepare=prepare
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _simulate(
    scenario: Scenario,
    seed: int,
    folder: Path,
    kills: Sequence[Kill],
    history_days: int,
    *,
    progress: Progress | None,
    prepare: Callable[[Town], None] | None,
) -> Run:
    wall, cpu = time.perf_counter(), time.process_time()
    town = Town(
        scenario,
        seed=seed,
        radio=radio_of(scenario),
        folder=folder,
        history_days=history_days,
        kills=kills,
    )
    if prepare is not None:
        prepare(town)
    end = scenario.hours * 3600
    forming = min(scenario.forming_s, end)
    airtime = Airtime([], [])

    def begin(_: int) -> None:
        nonlocal airtime
        held = town.stations.airtime
        airtime = Airtime(list(held.control), list(held.data))
        town.begin_load(until=max(forming, end - scenario.draining_s))

    with town.loop.current():
        plan(town, until=end)
        town.loop.finish(town.open(), within_s=OPENING_S)
        town.start()
        town.clock.at(max(forming, town.clock.now), begin)
        for step in range(1, STEP_COUNT + 1):
            town.run_until(max(end * step / STEP_COUNT, town.clock.now))
            town.loop.check()
            if progress is not None:
                progress(town, step / STEP_COUNT)
        if not town.head_end.is_up:
            # Somebody has to say what is stored.
            town.loop.finish(town.head_end.start(), within_s=OPENING_S)
        now, trace = town.clock.now, town.history
        in_store = town.loop.finish(days(town), within_s=OPENING_S)
        shown = town.loop.finish(topology(town), within_s=OPENING_S)
        kept = town.loop.finish(stored_reads(town), within_s=OPENING_S)
        found = figures(
            town,
            days=in_store,
            topology=shown,
            stored_reads=kept,
            airtime=airtime,
            measured_s=now - forming if airtime.control else 0.0,
            wall_s=time.perf_counter() - wall,
            cpu_s=time.process_time() - cpu,
        )
        # To look at the end took a moment of the world's time, too.
        found["simulated_s"], found["history"] = round(now, 3), f"{trace:08x}"
        faults = _faults(town, in_store)
        town.loop.finish(town.head_end.stop(), within_s=STOP_S)
        town.close()
        town.loop.check()
    return Run(town, in_store, shown, found, faults)


def _faults(town: Town, in_store: Days) -> list[str]:
    found = [*town.faults.lines, *in_store.wrong]
    if not town.head_end.account()[1]:
        found.append("the head-end's account of uplinks does not agree")
    return found
