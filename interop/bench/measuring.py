"""Measure what a process costs: its CPU time and its memory, not the time on the wall.

Raises  BenchError where the operating system does not tell (/proc of Linux is needed)
"""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from interop.bench.figure import BenchError

KIB_PER_MIB = 1024


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of all living threads of a process so far."""
    total_ns = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # A thread may end meanwhile.
                total_ns += int((task / "schedstat").read_text().split()[0])
    except OSError as error:
        raise BenchError(f"the CPU time of process {pid} cannot be read: {error}") from error
    return total_ns / 1e9


def memory_kib(pid: int, field: str) -> int:
    """`Rss`, `Pss` or another sum over the mappings of a process, in KiB."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    except OSError as error:
        raise BenchError(f"the memory of process {pid} cannot be read: {error}") from error
    raise BenchError(f"the memory of process {pid} has no {field}")


def cpu_us_each(work: Callable[[], int]) -> float:
    """CPU microseconds of this process for each of the things that `work` says it did."""
    gc.collect()
    begun = time.process_time()
    count = work()
    return (time.process_time() - begun) / count * 1e6


def contest(
    ours: Callable[[], Callable[[], int]],
    bare: Callable[[], Callable[[], int]],
    *,
    repetitions: int,
) -> tuple[float, float]:
    """Median CPU microseconds of our work and of the bare work, taken in turn.

    Each is called to prepare a repetition, which costs nothing, and gives the work to be measured.
    """
    taken: tuple[list[float], list[float]] = [], []
    # One more of each: the first fills caches and is not counted.
    for _ in range(1 + repetitions):
        for kept, prepare in zip(taken, (ours, bare), strict=True):
            kept.append(cpu_us_each(prepare()))
    return statistics.median(taken[0][1:]), statistics.median(taken[1][1:])


@contextlib.contextmanager
def first_core() -> Iterator[None]:
    """Start the process to be measured in here: it has the first core, this one the others."""
    own = os.sched_getaffinity(0)
    first, *others = sorted(own)
    os.sched_setaffinity(0, {first})
    try:
        yield
    finally:
        os.sched_setaffinity(0, others or own)


@contextlib.contextmanager
def all_cores_after() -> Iterator[None]:
    """Undo what `first_core` left, at the end."""
    own = os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)
