"""The `mesh` command: networks that are not there, in a world of their own.

Gives   exit code 0; 1 when it could not be done or a judge found what must never be, 2 for a
        wrong command line, 130 when interrupted
Never   a traceback for what a person can mend: one line on standard error
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.command import EXIT_FAILED, one_line
from amistack.command import run as run_command
from amistack.errors import ConfigError

if TYPE_CHECKING:
    from mesh.sim.capture import Capture
    from mesh.sim.scenario import Scenario
    from mesh.sim.world import World

PROGRESS_EVERY_S: Final = 1.0
PROGRESS_LINE_EVERY_S: Final = 10.0
"""Where standard error is no terminal: a line now and then, for whoever reads a log."""
SEED_MAX: Final = 2**63 - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    return run_command("mesh", lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mesh", description="A mesh of meters, simulated.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    simulate = commands.add_parser(
        "simulate",
        help="let a settlement of real nodes run on a virtual clock",
        description="Let a settlement of real nodes run on a virtual clock. One seed, one history.",
    )
    simulate.add_argument(
        "scenario", metavar="SCENARIO", help="a name from `mesh scenarios`, or a file"
    )
    simulate.add_argument("--seed", type=_seed, default=1, metavar="N", help="of all chance (1)")
    simulate.add_argument("--profile", metavar="P", help="of the routing, if not the scenario's")
    simulate.add_argument(
        "--hours", type=_hours, metavar="H", help="simulated, if not the scenario's"
    )
    simulate.add_argument("--rate", type=int, metavar="BPS", help="of the radio, in bit/s")
    simulate.add_argument(
        "--frame-octets", type=int, metavar="N", help="the longest frame, MAC and all (the radio's)"
    )
    simulate.add_argument("--json", action="store_true", help="print JSON")
    simulate.add_argument("--pcap", type=Path, metavar="FILE", help="what was on the air: pcapng")
    simulate.add_argument(
        "--plot",
        type=Path,
        metavar="FILE.png",
        help="draw the map at the end: .png, .svg, .pdf, ... (extra `plot`)",
    )
    simulate.set_defaults(run=_simulate)
    figures = commands.add_parser(
        "figures",
        help="run scenarios and put what they came to into the table of figures",
        description="Run scenarios and put what they came to beside what they were to reach.",
    )
    figures.add_argument("scenarios", metavar="SCENARIO", nargs="+", help="names, or files")
    figures.add_argument("--seed", type=_seed, default=1, metavar="N", help="of all chance (1)")
    figures.add_argument(
        "--into", type=Path, metavar="FILE.md", help="renew their sections there; else print them"
    )
    figures.set_defaults(run=_figures)
    scenarios = commands.add_parser("scenarios", help="list the scenarios in the box")
    scenarios.set_defaults(run=_scenarios)
    return parser


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed <= SEED_MAX:
        raise argparse.ArgumentTypeError(f"{text}, expected 0 to {SEED_MAX}")
    return seed


def _hours(text: str) -> float:
    from mesh.sim.scenario import HOURS_MAX

    hours = float(text)
    if not 0 < hours <= HOURS_MAX:
        raise argparse.ArgumentTypeError(f"{text}, expected above 0 and up to {HOURS_MAX:g}")
    return hours


# The commands


def _scenarios(options: argparse.Namespace) -> int:
    del options
    from mesh.sim.scenario import read_scenario, scenarios

    for name in scenarios():
        print(f"{name:12} {read_scenario(name).text}")
    return 0


def _figures(options: argparse.Namespace) -> int:
    from mesh.sim import table
    from mesh.sim.nodes import make_mesh_router
    from mesh.sim.outputs import check_output
    from mesh.sim.run import simulate
    from mesh.sim.scenario import read_scenario

    if options.into is not None:
        # Before the run: to learn of it an hour later helps nobody.
        check_output(options.into)
        _text(options.into)
    chosen = [read_scenario(name) for name in options.scenarios]
    fault_count = 0
    for scenario in chosen:
        progress = Progress(scenario)
        try:
            run = simulate(scenario, make_mesh_router, seed=options.seed, progress=progress.tell)
        finally:
            progress.end()
        section = table.section(run)
        fault_count += run.world.faults.count
        if options.into is None:
            print(section)
        else:
            # At once: a long one that follows may be interrupted.
            try:
                _renew(options.into, scenario.name, section)
            except ConfigError:
                print(section)
                raise
    return EXIT_FAILED if fault_count else 0


def _renew(path: Path, name: str, section: str) -> None:
    from mesh.sim import table

    text = table.renewed(_text(path), {name: section})
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def _text(path: Path) -> str:
    try:
        # A device has no sections, and may have no end.
        return path.read_text("utf-8") if path.is_file() else ""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read: it is no text") from error


def _simulate(options: argparse.Namespace) -> int:
    from mesh.sim import plot, show
    from mesh.sim.nodes import make_mesh_router
    from mesh.sim.outputs import check_output
    from mesh.sim.run import simulate

    scenario = _scenario(options)
    if options.plot is not None:
        # Before the run, as above.
        check_output(options.plot)
        plot.require(options.plot)
    if options.pcap is not None:
        check_output(options.pcap)
    capture: Capture | None = None

    def prepare(world: World) -> None:
        nonlocal capture
        if options.pcap is not None:
            from mesh.sim.nodes import capture_of

            capture = capture_of(options.pcap, world.stations.addresses, scenario)
            world.stations.watchers.append(capture.note)

    progress = Progress(scenario)
    try:
        run = simulate(
            scenario, make_mesh_router, seed=options.seed, progress=progress.tell, prepare=prepare
        )
    finally:
        progress.end()
        if capture is not None:
            capture.close()
    print(json.dumps(run.figures) if options.json else show.run(run))
    code = 0
    if capture is not None and capture.shortfall:
        print(f"mesh: {one_line(capture.shortfall)}", file=sys.stderr)
        code = EXIT_FAILED if capture.refusal else 0
    for line in run.world.faults.lines:
        print(f"mesh: must never be: {one_line(line)}", file=sys.stderr)
    if options.plot is not None:
        # Last, so that a map that fails takes nothing else along.
        plot.draw(run, options.plot)
    return EXIT_FAILED if run.world.faults.count else code


def _scenario(options: argparse.Namespace) -> Scenario:
    from mesh.sim.scenario import read_scenario

    scenario = read_scenario(options.scenario)
    if options.profile is not None:
        scenario = dataclasses.replace(scenario, profile=options.profile)
    if options.hours is not None:
        scenario = dataclasses.replace(scenario, hours=options.hours)
    if options.rate is not None:
        scenario = dataclasses.replace(scenario, rate_bps=options.rate)
    if options.frame_octets is not None:
        scenario = dataclasses.replace(scenario, frame_octets_max=options.frame_octets)
    return scenario


class Progress:
    """How far a run is, on standard error: one line that changes, or a line now and then."""

    def __init__(self, scenario: Scenario) -> None:
        self._name = scenario.name
        self._is_terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._told = self._started
        self._is_open = False

    def tell(self, world: World, share: float) -> None:
        """So much is done."""
        now = time.monotonic()
        every = PROGRESS_EVERY_S if self._is_terminal else PROGRESS_LINE_EVERY_S
        if now - self._told < every:
            return
        self._told = now
        left = (now - self._started) * (1 - share) / share
        hours, minutes = divmod(int(world.clock.now) // 60, 60)
        frames = world.stations.medium.counters.frames
        line = (
            f"{self._name} {share:4.0%}  {hours:d}:{minutes:02d} simulated, {frames:,} frames, "
            f"about {left:.0f} s to go"
        )
        if self._is_terminal:
            self._is_open = True
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing more to tell."""
        if self._is_open:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
