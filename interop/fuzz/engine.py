"""Run a target on input after input, and keep what led somewhere new.

Gives   `Fuzzer`: replays a corpus, then mutates it; `Crash`: an input that broke something, with
        where, and the way back to it
Limit   CORPUS_MAX inputs are kept and OUTCOME_COUNT_MAX outcomes told apart; beyond, both stay
Never   goes on after a crash by itself, or draws from anything but its seed
"""

from __future__ import annotations

import random
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from interop.fuzz.mutate import Mutator
from interop.fuzz.target import Outcome, Target

CORPUS_MAX: Final = 4_096
OUTCOME_COUNT_MAX: Final = 65_536
HANG_S: Final = 10
"""Seconds after which a run is taken to have no end. A run takes milliseconds at most."""

_ROOT: Final = Path(__file__).parents[2]
_OWN: Final = Path(__file__).parent
_TARGETS: Final = _OWN / "targets"
_PACKAGES: Final = frozenset({"amistack", "mesh", "headend", "meterd", "interop"})


class Hang(BaseException):
    """A run did not end. Not an Exception, so that no target takes it for a refusal."""


@dataclass(frozen=True, slots=True)
class Crash:
    """An input that a target does not stand.

    `kind` is the exception's name, `where` the line of this project that it came from and the
    function there: together they tell one defect from another. `run` counts from the first
    mutation; 0 is an input of the corpus.
    """

    target: str
    data: bytes = field(repr=False)
    kind: str
    where: str
    message: str
    trace: str = field(repr=False)
    seed: int
    run: int

    @property
    def identity(self) -> tuple[str, str]:
        """What another input must have in common to show the same defect."""
        return self.kind, self.where

    def __str__(self) -> str:
        said = f": {self.message}" if self.message else ""
        return f"{self.kind} at {self.where}{said}"


class Fuzzer:
    """One target and what is known of it."""

    def __init__(self, target: Target, *, seed: int, corpus: Iterable[bytes] = ()) -> None:
        """`corpus` comes beside the target's own seeds."""
        self.target = target
        self.seed = seed
        self.run_count = 0
        """Mutations run."""
        self.beat_count = 0
        """Runs of any kind."""
        self.corpus: list[bytes] = []
        self.outcomes: set[Outcome] = set()
        self._waiting = list(dict.fromkeys((*target.seeds(), *corpus)))
        self._waiting.reverse()
        self._mutator = Mutator(target, random.Random(f"{target.name} {seed}"))

    def replay(self) -> Crash | None:
        """Run the seeds and the corpus that are still to be run; the crash that ended it."""
        while self._waiting:
            data = self._waiting.pop()
            crash = self._try(data)
            if crash is not None:
                return crash
            if len(self.corpus) < CORPUS_MAX and data not in self.corpus:
                self.corpus.append(data)
        if not self.corpus:
            self.corpus.append(b"")
        return None

    def take(self, inputs: Iterable[bytes]) -> None:
        """Have these inputs run by the next `replay`, those that are known already left out."""
        known = set(self.corpus)
        self._waiting = [data for data in dict.fromkeys(inputs) if data not in known][::-1]

    def mutate(self, count: int) -> Crash | None:
        """Run `count` mutations; the crash that ended them early."""
        corpus, outcomes, target_run = self.corpus, self.outcomes, self.target.run
        mutate = self._mutator.mutate
        for _ in range(count):
            data = mutate(corpus)
            self.run_count += 1
            self.beat_count += 1
            try:
                outcome = target_run(data)
            except (Exception, Hang) as error:  # noqa: BLE001  that is what is looked for
                return self._crash(data, error)
            if outcome not in outcomes and self._note(outcome) and len(corpus) < CORPUS_MAX:
                corpus.append(data)
        return None

    def _note(self, outcome: Outcome) -> bool:
        """Remember an outcome; whether it is a new one."""
        several = outcome if isinstance(outcome, frozenset) else frozenset((outcome,))
        if several <= self.outcomes or len(self.outcomes) >= OUTCOME_COUNT_MAX:
            return False
        self.outcomes |= several
        return True

    def _try(self, data: bytes) -> Crash | None:
        self.beat_count += 1
        try:
            self._note(self.target.run(data))
        except (Exception, Hang) as error:  # noqa: BLE001  that is what is looked for
            return self._crash(data, error)
        return None

    def _crash(self, data: bytes, error: BaseException) -> Crash:
        return crash_of(self.target, data, error, seed=self.seed, run=self.run_count)


def crash_of(target: Target, data: bytes, error: BaseException, *, seed: int, run: int) -> Crash:
    """What is to be said about `error`, which `data` brought about."""
    trace = "".join(traceback.format_exception(error))
    message = " ".join(str(error).split())[:200]
    return Crash(target.name, data, type(error).__name__, _where(error), message, trace, seed, run)


def probe(target: Target, data: bytes, *, seed: int = 0) -> Crash | None:
    """Run one input; the crash that it brings about."""
    try:
        target.run(data)
    except (Exception, Hang) as error:  # noqa: BLE001  that is what is looked for
        return crash_of(target, data, error, seed=seed, run=0)
    return None


def _where(error: BaseException) -> str:
    """The innermost line of what is fuzzed; else of the target, which found a promise broken."""
    fuzzed = found = innermost = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        path, function = Path(frame.f_code.co_filename), frame.f_code.co_name
        innermost = f"{path.name}:{line} in {function}"
        if not path.is_relative_to(_ROOT):
            continue
        inside = path.relative_to(_ROOT)
        if path.is_relative_to(_TARGETS):
            found = f"{inside.as_posix()}:{line} in {function}"
        elif inside.parts[0] in _PACKAGES and not path.is_relative_to(_OWN):
            fuzzed = f"{inside.as_posix()}:{line} in {function}"
    return fuzzed or found or innermost


@contextmanager
def no_hanging(beats: Callable[[], int], *, hang_s: float = HANG_S) -> Iterator[None]:
    """End a run that goes on for `hang_s`, or up to twice that, by raising Hang in it.

    `beats` counts runs. Costs the runs nothing. Works in the main thread alone, as signals do;
    elsewhere a run that has no end has none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = -1

    def look(_: int, __: FrameType | None) -> None:
        nonlocal seen
        if beats() == seen:
            raise Hang(f"no end after {hang_s:g} s")
        seen = beats()

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, hang_s, hang_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def probe_watched(target: Target, data: bytes, *, seed: int = 0) -> Crash | None:
    """Run one input, which may have no end; the crash that it brings about."""
    with no_hanging(lambda: 0):
        return probe(target, data, seed=seed)
