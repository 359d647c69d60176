"""The long runs, one part after the other: `python -m tests.support.soak [PART ...]`.

Out     one line for each job as it ends, with its figure; all that it said in build/soak/JOB.log
Exit    0 everything held; 1 something did not, or was not done in time; 2 wrong usage; 130 Ctrl-C
Limit   every job has an end (s) after which it is killed with all that it started
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final

from interop.fuzz import targets

ROOT: Final = Path(__file__).parents[2]
LOGS: Final = ROOT / "build" / "soak"
INTEROP: Final = str(Path(sys.executable).parent / "interop")
MESH: Final = str(Path(sys.executable).parent / "mesh")
PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "-m", "soak", "-rP", "--color=no")

CONFORMANCE_S: Final = 600.0
FLOOD_S: Final = 900.0
MUTATIONS_S: Final = 1_800.0
KILLS_S: Final = 3_900.0
WORLD_S: Final = 2.0
"""For each world, on whatever cores there are."""
MONTHS_S: Final = 20.0
"""For each life of two months, on whatever cores there are."""
MESH_S: Final[Mapping[str, float]] = {
    "city": 7_200.0,
    "district": 1_800.0,
    "isolation": 3_600.0,
    "repair": 900.0,
}
"""The large scenarios of the mesh, the longest first."""
WORLDS_SLACK_S: Final = 300.0
FUZZ_SLACK_S: Final = 300.0
"""To start, to make a crash small, and to wait for a run that does not end."""
LAST_WORDS_S: Final = 10.0
"""Between SIGINT and SIGKILL."""
POLL_S: Final = 0.1


class Misuse(Exception):
    """Something was asked for that there is not; the message is one line."""


@dataclass(frozen=True, slots=True)
class Job:
    """One command, its end (s), and how its figure is found in what it says."""

    name: str
    command: Sequence[str]
    limit_s: float
    figure: Callable[[str], str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """Jobs that belong together. So many run at once; `sum_up` makes one of all their lines."""

    title: str
    jobs: Callable[[], Sequence[Job]]
    width: Callable[[], int] = lambda: 1
    sum_up: Callable[[Sequence[str]], str] | None = None


# What is run


def conformance() -> Sequence[Job]:
    """Every suite, the live ones among them."""
    return [Job("conformance", (INTEROP, "conformance"), CONFORMANCE_S, conformance_figure)]


def flood() -> Sequence[Job]:
    """`edhoc_flood_cpu_us` at ten times its length."""
    return [_pytest("flood", "tests/interop/test_flood_soak.py", FLOOD_S, flood_figure)]


def mutations() -> Sequence[Job]:
    """Every recorded defect, which its test must notice."""
    command = (sys.executable, "-m", "tests.mutations.runner")
    return [Job("mutations", command, MUTATIONS_S, mutations_figure)]


def kills() -> Sequence[Job]:
    """500 kills of real processes."""
    return [_pytest("kills", "tests/scenarios/test_kills.py", KILLS_S, kills_figure)]


def months() -> Sequence[Job]:
    """Two months of one meter against a model, seed after seed."""
    first = _number("AMISTACK_SEED", 10_000)
    count = _number("AMISTACK_SOAK_MONTHS", 60)
    return [
        _pytest(
            "months",
            "tests/meterd/months/test_months_soak.py",
            WORLDS_SLACK_S + MONTHS_S * count,
            lambda text: f"{tests_figure(text)}; seeds {first:.0f} to {first + count - 1:.0f}",
            "-n",
            f"{_number('PYTEST_WORKERS', 2):.0f}",
        )
    ]


def worlds() -> Sequence[Job]:
    """Thousands of streets on a virtual clock."""
    first = _number("AMISTACK_SEED", 10_000)
    count = _number("AMISTACK_SOAK_SEEDS", 4_000)
    return [
        _pytest(
            "worlds",
            "tests/simulation/test_world_soak.py",
            WORLDS_SLACK_S + WORLD_S * count,
            lambda text: f"{tests_figure(text)}; seeds {first:.0f} to {first + count - 1:.0f}",
            "-n",
            f"{_number('PYTEST_WORKERS', 2):.0f}",
        )
    ]


def mesh() -> Sequence[Job]:
    """The large scenarios of the mesh, each whole; what may never be there ends one badly."""
    seed = f"{_number('AMISTACK_SEED', 1):.0f}"
    return [
        Job(f"mesh {name}", (MESH, "figures", name, "--seed", seed), limit_s, mesh_figure)
        for name, limit_s in MESH_S.items()
    ]


def fuzz() -> Sequence[Job]:
    """Every fuzz target for SOAK_FUZZ_S seconds, with a seed drawn anew."""
    seconds = _number("SOAK_FUZZ_S", 600)
    seed = f"{_number('AMISTACK_SEED', time.time_ns() % 10**9):.0f}"
    return [
        Job(
            f"fuzz {name}",
            (INTEROP, "fuzz", name, "--seconds", f"{seconds:g}", "--seed", seed),
            seconds + FUZZ_SLACK_S,
            lambda text, seed=seed: f"{fuzz_figure(text)}; seed {seed}",  # type: ignore[misc]
        )
        for name in targets.every()
    ]


def cores() -> int:
    """How many targets or scenarios run at once: SOAK_JOBS, or one on each core."""
    return max(1, int(_number("SOAK_JOBS", len(os.sched_getaffinity(0)))))


def _pytest(
    name: str, file: str, limit_s: float, figure: Callable[[str], str], *arguments: str
) -> Job:
    return Job(name, (*PYTEST, *arguments, file), limit_s, figure, {"AMISTACK_SOAK": "1"})


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e18:
        raise Misuse(f"{variable}={text} is not a number from 0 on")
    return number


# Figures, from what is said


def tests_figure(text: str) -> str:
    """`4000 passed`, and what else pytest counted."""
    sums = re.findall(r"^((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s", text, re.MULTILINE)
    return sums[-1] if sums else "no figure"


def kills_figure(text: str) -> str:
    """Who was killed how often, and the seed."""
    kills = re.search(r"^\{([^}]*)\}, (\d+) meters", text, re.MULTILINE)
    seed = re.search(r"AMISTACK_SEED=(\d+)", text)
    counted = f"{kills[1]}; {kills[2]} meters; " if kills else ""
    return f"{counted}{tests_figure(text)}{f'; seed {seed[1]}' if seed else ''}"


def flood_figure(text: str) -> str:
    """The benchmark's line, and what it says beside it."""
    row = re.search(r"^edhoc_flood_cpu_us +(\S+) us.*\n +(.*)$", text, re.MULTILINE)
    return f"{row[1]} us each; {row[2]}" if row else "no figure"


def mutations_figure(text: str) -> str:
    """How many were noticed, and of how many requirements."""
    sums = re.search(r"^(\d+ of \d+ mutations noticed, \d+ requirements)", text, re.MULTILINE)
    return sums[1] if sums else "no figure"


def mesh_figure(text: str) -> str:
    """How many goals were reached, and the names of the others."""
    rows = re.findall(r"^\| (.+?) \| .* \| (yes|\*\*no\*\*) \|$", text, re.MULTILINE)
    missed = [name for name, reached in rows if reached != "yes"]
    said = f"{len(rows) - len(missed)} of {len(rows)} goals reached" if rows else "no figure"
    return f"{said}; not: {'; '.join(missed)}" if missed else said


def fuzz_figure(text: str) -> str:
    """Runs, rate, corpus, outcomes, as the last line of progress has them."""
    lines = re.findall(r"^\S+ +([\d,]+ runs .*)$", text, re.MULTILINE)
    return " ".join(lines[-1].split()) if lines else "no figure"


def conformance_figure(text: str) -> str:
    """Cases and how many passed, and what could not be run."""
    sums = re.search(r"^all +(\d+) +(\d+)$", text, re.MULTILINE)
    left_out = re.findall(r"^(\S+) .*not run: ", text, re.MULTILINE)
    said = f"{sums[2]} of {sums[1]} cases passed" if sums else "no figure"
    return f"{said}; not run: {', '.join(left_out)}" if left_out else said


def fuzz_sum(lines: Sequence[str]) -> str:
    """All runs of all targets."""
    runs = sum(
        int(found[1].replace(",", ""))
        for line in lines
        if (found := re.search(r"([\d,]+) runs", line))
    )
    return f"{len(lines)} targets, {runs:,} runs"


PARTS: Final[Mapping[str, Part]] = {
    "conformance": Part("published vectors and foreign implementations", conformance),
    "flood": Part("100,000 false handshakes", flood),
    "mutations": Part("recorded defects that a test must notice", mutations),
    "kills": Part("500 kills of real processes", kills),
    "months": Part("60 lives of two months", months),
    "worlds": Part("4,000 simulated worlds", worlds),
    "mesh": Part("the large scenarios of the mesh", mesh, cores),
    "fuzz": Part("every fuzz target, ten minutes each", fuzz, cores, fuzz_sum),
}


# Running


class Interrupted(Exception):
    """Somebody wants it to end."""


def run(job: Job, stop: Event) -> tuple[bool, str]:
    """Whether the job ended well, and its line. Raises Interrupted when `stop` is set."""
    log = LOGS / f"{job.name.replace(' ', '-')}.log"
    begun = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **job.environment},
            start_new_session=True,
        )
        with _nothing_left_of(process):
            while process.poll() is None and time.monotonic() - begun < job.limit_s:
                if stop.wait(POLL_S):
                    raise Interrupted
            code = process.poll()
    took = time.monotonic() - begun
    text = log.read_text(encoding="utf-8", errors="replace")
    if code == 0:
        return True, told(job.name, took, job.figure(text), is_good=True)
    why = f"not done after {_duration(job.limit_s)}" if code is None else f"exit code {code}"
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
    place = log.relative_to(ROOT) if log.is_relative_to(ROOT) else log
    what = f"{why}: {last.strip()}; {place} has the rest"
    return False, told(job.name, took, what, is_good=False)


@contextlib.contextmanager
def _nothing_left_of(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """At the end of the block its group is gone: asked first, then killed."""
    try:
        yield
    finally:
        if process.poll() is None:
            _signal(process, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LAST_WORDS_S)
        # What it started and left behind has its group still.
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def soak(parts: Mapping[str, Part]) -> int:
    """Run every job of every part; the exit code."""
    LOGS.mkdir(parents=True, exist_ok=True)
    stop = Event()
    is_good = True
    for name, part in parts.items():
        begun, lines = time.monotonic(), []
        is_part_good = True
        with ThreadPoolExecutor(part.width()) as pool:
            under_way = [pool.submit(run, job, stop) for job in part.jobs()]
            try:
                for done in as_completed(under_way):
                    is_job_good, line = done.result()
                    print(line, flush=True)
                    lines.append(line)
                    is_part_good &= is_job_good
            except KeyboardInterrupt:
                stop.set()
                pool.shutdown(cancel_futures=True)
                print("soak: interrupted", file=sys.stderr)
                return 130
        if part.sum_up is not None:
            print(told(name, time.monotonic() - begun, part.sum_up(lines), is_good=is_part_good))
        is_good &= is_part_good
    return 0 if is_good else 1


def told(name: str, seconds: float, what: str, *, is_good: bool) -> str:
    """The line of a job or of a part."""
    return f"{name:24} {'ok' if is_good else 'FAILED':7} {_duration(seconds):>12}  {what}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that are named, or all; the exit code."""
    parser = argparse.ArgumentParser(prog="soak", description="The long runs.")
    every = "; ".join(f"{name}: {part.title}" for name, part in PARTS.items())
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these ({every})")
    names = parser.parse_args(arguments).parts or list(PARTS)
    try:
        for name in names:
            if name not in PARTS:
                raise Misuse(f"{name} is not a part; expected {', '.join(PARTS)}")
        return soak({name: PARTS[name] for name in names})
    except Misuse as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    # An end like any other, so that nothing is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
