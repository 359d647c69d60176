"""Plant recorded mutations one by one, and see that each is noticed: `make mutations`.

Everything happens in a copy of the project, as it is when the run begins: the tests must be green
there without a mutation, and each must fail with its own, saying what its record says.

Out     one line for each mutation, and a sum
Exit    0 all were noticed; 1 one was not, or a record is stale; 2 wrong usage; 130 Ctrl-C
Limit   TEST_S for the test of one mutation, GREEN_S for all of them without any; then the run is
        killed, and the mutation counts as not noticed
Never   changes the project itself
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutations.records import (
    ROOT,
    Mutation,
    RecordError,
    chosen,
    mutated,
    read_records,
)

TEST_S: Final = 100.0
GREEN_S: Final = 600.0
BUILT: Final = ("__pycache__", "*.egg-info")
BUILT_AT_THE_TOP: Final = (*BUILT, ".*", "build", "dist")
PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no")
ASSERTED: Final = re.compile(r"AssertionError|assert |Failed: |ExceptionGroup: Hypothesis")
"""How a failure begins that somebody asked for, and not a program that fell over."""
SAID: Final = re.compile(r"^(?:>|E) ", re.MULTILINE)
FIRST_CHANGE_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a test that was run: `fault` is None if it passed."""

    name: str
    fault: str | None = None
    """The first line of why it failed."""
    said: str = ""
    """The lines that failed, and what pytest says of them."""
    is_error: bool = False
    """It could not be set up, or not even collected."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a mutation was noticed; why not, in a line."""

    is_noticed: bool
    why: str = ""


class Copy:
    """A copy of a project in which something can be planted."""

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self._output: Final = folder / "output.txt"
        self._changes = 0

    @contextlib.contextmanager
    def planted(self, one: Mutation) -> Iterator[None]:
        """Inside the block the mutation is there. Raises RecordError if it does not apply."""
        path = self.folder / one.file
        changed, before = mutated(one, self.folder), path.read_text(encoding="utf-8")
        self._write(path, changed)
        try:
            yield
        finally:
            self._write(path, before)

    def run(self, tests: Iterable[str], *, limit_s: float) -> list[Case] | None:
        """Every case of those tests; None if they did not end in time."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        if not self._pytest(limit_s, f"--junitxml={report}", *tests):
            return None
        return cases_of(report)

    @property
    def last_word(self) -> str:
        """The last line that pytest said."""
        lines = self._output.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")

    def marks(self, tests: Iterable[str]) -> dict[str, list[str]]:
        """For each requirement the tests of these that carry it."""
        self._pytest(GREEN_S, "--collect-only", "--requirements", *tests)
        report = self.folder / "build" / "requirements.json"
        if not report.exists():
            return {}
        rows = json.loads(report.read_text(encoding="utf-8"))
        return {id_: row["tests"] for id_, row in rows.items() if row["tests"]}

    def _pytest(self, limit_s: float, *arguments: str) -> bool:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                [*PYTEST, *arguments],
                cwd=self.folder,
                # Dice of a property test are the same in every run; a program that a test starts
                # is the copy's.
                env={**ours, "CI": "true", "PYTHONPATH": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return False
            finally:
                # With all that it started.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return True

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        # Python knows an outdated .pyc by time and size, and two mutations may be made in a second.
        self._changes += 1
        os.utime(path, (FIRST_CHANGE_S + self._changes,) * 2)


@contextlib.contextmanager
def copied(root: Path = ROOT) -> Iterator[Copy]:
    """A copy of a project; it is gone after the block."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        patterns = BUILT_AT_THE_TOP if Path(folder) == root else BUILT
        return shutil.ignore_patterns(*patterns)(folder, names)

    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        shutil.copytree(root, folder, ignore=left_out, dirs_exist_ok=True)
        yield Copy(Path(folder))


def cases_of(report: Path) -> list[Case]:
    """What a JUnit report says. None at all where pytest wrote none."""
    if not report.exists():
        return []
    return [_case(element) for element in ET.parse(report).iter("testcase")]


def _case(element: ET.Element) -> Case:
    name = element.get("name", "")
    for tag in ("error", "failure"):
        found = element.find(tag)
        if found is not None:
            fault = found.get("message", "").strip().partition("\n")[0]
            lines = (found.text or "").splitlines()
            said = "\n".join(line for line in lines if SAID.match(line))
            return Case(name, fault, said, is_error=tag == "error")
    return Case(name)


def judge(one: Mutation, cases: Sequence[Case] | None, *, last_word: str = "") -> Verdict:
    """Whether what a test did with the mutation is what its record says."""
    if cases is None:
        return Verdict(is_noticed=False, why=f"the test did not end within {TEST_S:g} s")
    failed = [case for case in cases if case.fault is not None]
    if not cases:
        return Verdict(is_noticed=False, why=f"the test could not be run: {last_word}")
    if not failed:
        return Verdict(is_noticed=False, why="SURVIVED: the test passes with it")
    for case in failed:
        if case.is_error or not _is_expected(one, case.fault or ""):
            return Verdict(is_noticed=False, why=f"broken, not noticed: {case.fault}")
    if not any(one.mentions in case.said for case in failed):
        return Verdict(
            is_noticed=False, why=f"red for another reason: {failed[0].fault}, no {one.mentions!r}"
        )
    return Verdict(is_noticed=True)


def _is_expected(one: Mutation, fault: str) -> bool:
    if one.raises is None:
        return ASSERTED.match(fault) is not None
    return fault.partition(":")[0].rpartition(".")[2] == one.raises


def faults_of(every: Sequence[Mutation], copy: Copy) -> Iterator[str]:
    """What is wrong with records before anything is planted, a line each: texts, then tests."""
    are_texts_there = True
    for one in every:
        try:
            mutated(one, copy.folder)
        except RecordError as error:
            are_texts_there = False
            yield str(error)
    if not are_texts_there:
        return
    tests = list(dict.fromkeys(one.test for one in every))
    files = {test.partition("::")[0] for test in tests}
    missing = {file for file in files if not (copy.folder / file).is_file()}
    marks = copy.marks(sorted(files - missing))
    known = {_whole(test) for marked in marks.values() for test in marked}
    for one in every:
        marked = {_whole(test) for test in marks.get(one.requirement or "", ())}
        if one.test.partition("::")[0] in missing or (
            one.test not in known and not _is_defined(one.test, copy.folder)
        ):
            yield f"{one}: there is no test {one.test}"
        elif one.requirement is not None and one.test not in marked:
            yield f"{one}: {one.test} does not carry the mark {one.requirement}"


def _whole(test: str) -> str:
    """A test without the name of one of its cases."""
    return test.partition("[")[0]


def _is_defined(test: str, root: Path) -> bool:
    file, _, name = test.partition("::")
    source = (root / file).read_text(encoding="utf-8")
    return re.search(rf"^\s*(?:async )?def {re.escape(name)}\(", source, re.MULTILINE) is not None


def red_without(every: Sequence[Mutation], copy: Copy) -> Iterator[str]:
    """Tests that are not green before anything is planted, a line each."""
    tests = list(dict.fromkeys(one.test for one in every))
    cases = copy.run(tests, limit_s=GREEN_S)
    if not cases:
        why = f"not within {GREEN_S:g} s" if cases is None else copy.last_word
        yield f"the tests could not be run without a mutation: {why}"
        return
    for case in cases:
        if case.fault is not None:
            yield f"{case.name} fails without a mutation: {case.fault}"


def run(every: Sequence[Mutation], copy: Copy) -> int:
    """Plant each and tell of it; how many were not noticed."""
    begun, missed = time.monotonic(), 0
    width = max(len(one.name) for one in every)
    for one in every:
        started = time.monotonic()
        with copy.planted(one):
            cases = copy.run([one.test], limit_s=TEST_S)
        verdict = judge(one, cases, last_word=copy.last_word)
        took = f"{time.monotonic() - started:5.1f} s"
        said = "noticed" if verdict.is_noticed else "MISSED"
        print(f"{one.name:{width}}  {one.requirement or '-':10}  {said:7}  {took}", flush=True)
        if not verdict.is_noticed:
            missed += 1
            print(f"    {one.breaks}\n    {one.test}\n    {verdict.why}", flush=True)
    rows = len({one.requirement for one in every} - {None})
    noticed = f"{len(every) - missed} of {len(every)} mutations noticed"
    print(f"{noticed}, {rows} requirements, {time.monotonic() - begun:.0f} s")
    return missed


def mutations(wanted: Sequence[str], *, is_list: bool) -> int:
    """List or run what is wanted; the exit code. Raises RecordError."""
    every = chosen(read_records(), wanted)
    if is_list:
        for one in every:
            print(f"{one.name}\n    {one.requirement or '-'}: {one.breaks}\n    {one.test}")
        return 0
    with copied() as copy:
        faults = [*faults_of(every, copy)]
        faults = faults or [*red_without(every, copy)]
        for fault in faults:
            print(fault, file=sys.stderr)
        return 1 if faults or run(every, copy) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="mutations", description="Recorded mutations.")
    parser.add_argument(
        "wanted", nargs="*", metavar="WHICH", help="a name, a requirement or a file of records"
    )
    parser.add_argument("--list", action="store_true", help="say what there is, run nothing")
    options = parser.parse_args(arguments)
    try:
        return mutations(options.wanted, is_list=options.list)
    except RecordError as error:
        print(f"mutations: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mutations: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
