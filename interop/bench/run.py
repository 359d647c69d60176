"""Run benchmarks, print a table as they end, and write a file that a program can compare.

Raises  BenchError, one line: a name that is none, or a file that cannot be written
Never   judges: a goal that is not met is said in the table, and the exit code is 0
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from amistack.errors import AmiError
from interop.bench.figure import BenchError, Figure, Size
from interop.bench.registry import BENCHMARKS

RESULTS: Final = Path("build/bench.json")
HEADER: Final = f"{'benchmark':26}{'value':>10} {'unit':8}{'limit':>8}{'ratio':>8}{'goal':>7}"


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    names: tuple[str, ...] = ()
    file: Path = RESULTS
    size: Size = Size.FULL


def bench(options: Options) -> int:
    """Run what was asked for, or everything; the exit code: 1 if one could not be run."""
    names = options.names or tuple(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            close = difflib.get_close_matches(name, BENCHMARKS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(BENCHMARKS)}"
            raise BenchError(f"{name} is not a benchmark; {hint}")
    print(HEADER)
    figures = []
    failures = 0
    for name in names:
        try:
            figure = BENCHMARKS[name](options.size)
        except AmiError as error:
            print(f"interop: {name}: {error}", file=sys.stderr, flush=True)
            failures += 1
            continue
        print(row(figure), flush=True)
        figures.append(figure)
    write(options.file, figures)
    return 1 if failures else 0


def row(figure: Figure) -> str:
    """A figure as a line of the table, and what is to be said beside it as another."""
    verdict = {None: "", True: "  good", False: "  above the goal"}[figure.is_good]
    return (
        f"{figure.name:26}{_short(figure.value):>10} {figure.unit:8}{_short(figure.limit):>8}"
        f"{_short(figure.ratio):>8}{_short(figure.goal):>7}{verdict}"
        + (f"\n    {figure.beside}" if figure.beside else "")
    )


def write(file: Path, figures: Sequence[Figure]) -> None:
    """The figures as JSON, one object each."""
    lines = ",\n".join(f"  {json.dumps(figure.to_json())}" for figure in figures)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{file} cannot be written: {error.strerror or error}") from error


def _short(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:.3g}" if abs(number) < 100 else f"{number:.0f}"
