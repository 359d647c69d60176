"""Run suites and say how they went: a table, JSON, or the table of a document.

Raises  ConformanceError, one line: a name that is no suite
Gives   exit code 1 if a case failed, 0 otherwise; a suite whose foreign program is not installed
        is listed as not run, with the line that installs it, and fails nothing
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import AmiError
from interop.conformance.registry import SUITES
from interop.conformance.suite import Outcome, Suite

NAME_WIDTH: Final = 24


class ConformanceError(AmiError):
    """A suite cannot be run as asked; the message is one line."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    names: tuple[str, ...] = ()
    is_json: bool = False
    is_markdown: bool = False
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """How one suite went; `why` says why it was not run at all."""

    name: str
    title: str
    source: str
    is_live: bool
    outcomes: tuple[Outcome, ...]
    why: str | None = None

    @property
    def case_count(self) -> int:
        """How many cases were tried."""
        return len(self.outcomes)

    @property
    def passed_count(self) -> int:
        """How many of them passed."""
        return sum(outcome.has_passed for outcome in self.outcomes)

    @property
    def failed(self) -> list[Outcome]:
        """Those that did not."""
        return [outcome for outcome in self.outcomes if not outcome.has_passed]

    def to_json(self) -> dict[str, str | int]:
        """The entry of this suite in the command's JSON."""
        entry: dict[str, str | int] = {
            "name": self.name,
            "cases": self.case_count,
            "passed": self.passed_count,
            "source": self.source,
        }
        return entry if self.why is None else {**entry, "why": self.why}


def conformance(options: Options) -> int:
    """Run what was asked for, or everything; the exit code."""
    suites = chosen(options.names)
    if options.is_list:
        for suite in suites:
            print(f"{suite.name:{NAME_WIDTH}} {suite.title}")
        return 0
    is_table = not (options.is_json or options.is_markdown)
    if is_table:
        print(header())
    results = []
    for suite in suites:
        result = run(suite)
        results.append(result)
        if is_table:
            print(row(result), flush=True)
    if options.is_json:
        print(json.dumps({"suites": [result.to_json() for result in results]}))
    elif options.is_markdown:
        print(markdown(results))
    else:
        print(footer(results))
    failures = [(result, outcome) for result in results for outcome in result.failed]
    for result, outcome in failures:
        print(
            f"interop: {result.name}: {outcome.name}: "
            f"expected {outcome.expected}, got {outcome.got}",
            file=sys.stderr,
        )
    return 1 if failures else 0


def chosen(names: Sequence[str]) -> tuple[Suite, ...]:
    """The suites of those names, or all. Raises ConformanceError."""
    if not names:
        return SUITES
    by_name = {suite.name: suite for suite in SUITES}
    for name in names:
        if name not in by_name:
            close = difflib.get_close_matches(name, by_name, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(by_name)}"
            raise ConformanceError(f"{name} is not a suite; {hint}")
    return tuple(by_name[name] for name in names)


def run(suite: Suite) -> Result:
    """Every case of one suite, if what it needs is there."""
    why = suite.missing()
    outcomes = () if why is not None else tuple(suite.run())
    source = suite.source
    return Result(suite.name, suite.title, source, suite.is_live, outcomes, why)


def header() -> str:
    """The first line of the table."""
    return f"{'suite':{NAME_WIDTH}}{'cases':>6}{'passed':>8}  source"


def row(result: Result) -> str:
    """A suite as a line of the table."""
    if result.why is not None:
        return f"{result.name:{NAME_WIDTH}}{'-':>6}{'-':>8}  not run: {result.why}"
    verdict = "" if not result.failed else f"  {len(result.failed)} FAILED"
    counts = f"{result.case_count:>6}{result.passed_count:>8}"
    return f"{result.name:{NAME_WIDTH}}{counts}  {result.source}{verdict}"


def footer(results: Iterable[Result]) -> str:
    """The sums."""
    every = list(results)
    cases = sum(result.case_count for result in every)
    passed = sum(result.passed_count for result in every)
    return f"{'all':{NAME_WIDTH}}{cases:>6}{passed:>8}"


def markdown(results: Iterable[Result]) -> str:
    """The table of a document: what was tried, by whose judgement, and how it went."""
    lines = ["| what | judged by | cases | passed |", "|---|---|---:|---:|"]
    for result in results:
        if result.why is not None:
            lines.append(f"| {result.title} | {result.source} | not run | |")
        else:
            counts = f"{result.case_count} | {result.passed_count}"
            lines.append(f"| {result.title} | {result.source} | {counts} |")
    return "\n".join(lines)
