"""The arguments of `interop fuzz`. Imports nothing that takes time."""

from __future__ import annotations

import argparse
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECONDS: Final = 60.0
"""How long each target is driven, when nobody says."""
EVERY: Final = "all"
CRASHES: Final = Path("build/fuzz")


class Driver(enum.StrEnum):
    """What makes the inputs."""

    AUTO = "auto"
    ATHERIS = "atheris"
    SEEDED = "seeded"


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    names: tuple[str, ...] = ()
    is_list: bool = False
    seconds: float | None = None
    runs: int | None = None
    seed: int = 1
    corpus: Path | None = None
    crashes: Path = CRASHES
    replay: tuple[Path, ...] = ()
    minimise: bool = True
    distil: Path | None = None
    driver: Driver = Driver.AUTO


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's arguments, for `interop`."""
    parser = commands.add_parser(
        "fuzz",
        help="decoders and machines, given input that nobody made on purpose",
        description="Run a target on input after input. What breaks it is made small and saved, "
        "with the command that shows it again. Ends with 0 if nothing broke, 1 if something did.",
    )
    parser.add_argument("names", nargs="*", metavar="TARGET", help=f"which, or {EVERY!r}")
    parser.add_argument("--list", action="store_true", help="name every target and what it checks")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=_seconds, metavar="N", help=f"each that long (default {SECONDS:g})"
    )
    length.add_argument("--runs", type=_count, metavar="N", help="each so many inputs")
    parser.add_argument(
        "--seed", type=int, default=1, help="of all chance: the same one, the same inputs (1)"
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        metavar="DIR",
        help="a folder of inputs, one a file, to begin with; what is found new is put there "
        "(with several targets: into DIR/TARGET)",
    )
    parser.add_argument(
        "--crashes",
        type=Path,
        metavar="DIR",
        default=CRASHES,
        help="where crashes are saved (build/fuzz)",
    )
    parser.add_argument(
        "--replay",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="run these inputs alone, a crash that was saved for one",
    )
    parser.add_argument(
        "--minimise",
        "--minimize",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="make a crash small before it is saved (the default); with --replay: save it small",
    )
    parser.add_argument(
        "--distil",
        type=Path,
        metavar="FILE",
        help="write the few inputs that have every outcome seen into a .hex file",
    )
    parser.add_argument(
        "--driver",
        type=Driver,
        choices=[*map(str, Driver)],
        default=Driver.AUTO,
        help="atheris (coverage-guided; `pip install atheris`), seeded, or auto: "
        "atheris where it is installed",
    )
    parser.set_defaults(run=_run)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 1e7:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to 10^7")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return count


def _run(arguments: argparse.Namespace) -> int:
    options = Options(
        tuple(arguments.names),
        arguments.list,
        arguments.seconds,
        arguments.runs,
        arguments.seed,
        arguments.corpus,
        arguments.crashes,
        tuple(arguments.replay),
        # Left alone, a replay shows what is there and saves nothing.
        not arguments.replay if arguments.minimise is None else arguments.minimise,
        arguments.distil,
        Driver(arguments.driver),
    )
    from interop.fuzz.run import fuzz

    return fuzz(options)
