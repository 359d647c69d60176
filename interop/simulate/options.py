"""`interop simulate`: its options, and what becomes of them.

Gives   exit code 0; 1 when it could not be done or something was found that must never be
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.command import EXIT_FAILED, one_line

if TYPE_CHECKING:
    from interop.simulate.town import Town
    from mesh.sim.capture import Capture
    from mesh.sim.scenario import Scenario

PROGRESS_EVERY_S: Final = 1.0
PROGRESS_LINE_EVERY_S: Final = 10.0
"""Where standard error is no terminal: a line now and then, for whoever reads a log."""
SEED_MAX: Final = 2**63 - 1
METERS_MAX: Final = 20_000
HISTORY_DAYS_MAX: Final = 45
FAULT_LINES_MAX: Final = 20


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "simulate",
        help="the real head-end, collectors and meters over a simulated radio",
        description=(
            "Let the real head-end, real collectors and real meters live on one virtual clock, "
            "with the radio of `mesh simulate` between them. One seed, one history."
        ),
    )
    parser.add_argument(
        "scenario",
        metavar="SCENARIO",
        nargs="?",
        help="a name (without one: which there are), or a file",
    )
    parser.add_argument("--seed", type=_seed, default=1, metavar="N", help="of all chance (1)")
    parser.add_argument(
        "--meters", type=_meters, metavar="N", help="how many, if not the scenario's"
    )
    parser.add_argument(
        "--hours", type=_hours, metavar="H", help="simulated, if not the scenario's"
    )
    parser.add_argument(
        "--history",
        type=_history,
        default=2,
        metavar="DAYS",
        help="whole days that a meter has on record when it is mounted (2)",
    )
    parser.add_argument(
        "--kill",
        action="append",
        default=[],
        metavar="WHO@S[+FOR]",
        help=(
            "cut the power of m1, c1 or the busiest relay, or kill the head-end, at a second of "
            "the run, and bring it back FOR seconds later; may be repeated"
        ),
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--pcap", type=Path, metavar="FILE", help="what was on the air: pcapng")
    parser.set_defaults(run=_run)


def _seed(text: str) -> int:
    return _whole(text, 0, SEED_MAX)


def _meters(text: str) -> int:
    return _whole(text, 1, METERS_MAX)


def _history(text: str) -> int:
    return _whole(text, 0, HISTORY_DAYS_MAX)


def _whole(text: str, low: int, high: int) -> int:
    value = int(text)
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text}, expected {low} to {high}")
    return value


def _hours(text: str) -> float:
    from mesh.sim.scenario import HOURS_MAX

    hours = float(text)
    if not 0 < hours <= HOURS_MAX:
        raise argparse.ArgumentTypeError(f"{text}, expected above 0 and up to {HOURS_MAX:g}")
    return hours


def _run(options: argparse.Namespace) -> int:
    from amistack.telemetry import configure
    from interop.simulate import show
    from interop.simulate.deeds import parse_kill
    from interop.simulate.run import read_scenario, scenarios, simulate
    from mesh.sim.outputs import check_output

    if options.scenario is None:
        for name in scenarios():
            print(f"{name:12} {read_scenario(name).text}")
        return 0
    scenario = _scenario(options)
    kills = [parse_kill(text) for text in options.kill]
    if options.pcap is not None:
        check_output(options.pcap)
    # What programs log of a bad day is of no use to who asked how it ended.
    configure("error")
    capture: Capture | None = None

    def prepare(town: Town) -> None:
        nonlocal capture
        if options.pcap is not None:
            from mesh.sim.nodes import capture_of

            capture = capture_of(options.pcap, town.stations.addresses, scenario)
            town.stations.watchers.append(capture.note)

    progress = Progress(scenario.name)
    try:
        done = simulate(
            scenario,
            seed=options.seed,
            kills=kills,
            history_days=options.history,
            progress=progress.tell,
            prepare=prepare,
        )
    finally:
        progress.end()
        if capture is not None:
            capture.close()
    print(json.dumps(done.figures) if options.json else show.run(done))
    code = 0
    if capture is not None and capture.shortfall:
        print(f"interop: {one_line(capture.shortfall)}", file=sys.stderr)
        code = EXIT_FAILED if capture.refusal else 0
    for line in done.faults[:FAULT_LINES_MAX]:
        print(f"interop: must never be: {one_line(line)}", file=sys.stderr)
    return EXIT_FAILED if done.faults else code


def _scenario(options: argparse.Namespace) -> Scenario:
    from interop.simulate.run import read_scenario

    scenario = read_scenario(options.scenario)
    if options.meters is not None:
        settlement = dataclasses.replace(scenario.settlement, meters=options.meters)
        scenario = dataclasses.replace(scenario, settlement=settlement)
    if options.hours is not None:
        scenario = dataclasses.replace(scenario, hours=options.hours)
    return scenario


class Progress:
    """How far a run is, on standard error: one line that changes, or a line now and then."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_terminal = sys.stderr.isatty()
        self._started = self._told = time.monotonic()
        self._is_open = False

    def tell(self, town: Town, share: float) -> None:
        """So much is done."""
        now = time.monotonic()
        every = PROGRESS_EVERY_S if self._is_terminal else PROGRESS_LINE_EVERY_S
        if now - self._told < every:
            return
        self._told = now
        left = (now - self._started) * (1 - share) / share
        hours, minutes = divmod(int(town.clock.now) // 60, 60)
        seen = town.head_end.seen
        line = (
            f"{self._name} {share:4.0%}  {hours:d}:{minutes:02d} simulated, "
            f"{len(seen.registered)} of {len(town.meters)} registered, {len(seen.reports)} days "
            f"stored, {len(town.reads)} reads, about {left:.0f} s to go"
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
