"""A suite: cases that somebody else made up, each with a name, what they expect, and what we give.

Gives   `VectorSuite` for what can be compared at once, `LiveSuite` for exchanges with a foreign
        program over sockets; both run case by case, and neither ends at a failure
Raises  nothing: a case that raises has failed, and says what it raised
Limit   CASE_S_MAX seconds a live exchange, SETUP_S_MAX to start a foreign program
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from amistack.errors import AmiError

CASE_S_MAX: Final = 10.0
SETUP_S_MAX: Final = 30.0
SHOWN_SIZE_MAX: Final = 200

BenchT = TypeVar("BenchT")


@dataclass(frozen=True, slots=True)
class Case:
    """One vector or one intermediate value: what is expected, and how to find out what we give."""

    name: str
    expected: object
    got: Callable[[], object]


@dataclass(frozen=True, slots=True)
class LiveCase(Generic[BenchT]):
    """One exchange with a foreign program, through a bench that is open for its suite."""

    name: str
    expected: object
    got: Callable[[BenchT], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one case went. What was expected and given is for people, and cut to a bearable size."""

    name: str
    has_passed: bool
    expected: str = ""
    got: str = ""

    @classmethod
    def of(cls, name: str, expected: object, got: object) -> Outcome:
        """The outcome of a case that gave `got`. Of transcripts the first difference is shown."""
        has_passed = got == expected
        if not has_passed and isinstance(expected, list) and isinstance(got, list):
            pairs = itertools.zip_longest(expected, got, fillvalue="nothing more")
            expected, got = next((e, g) for e, g in pairs if e != g)
        return cls(name, has_passed, shown(expected), shown(got))

    @classmethod
    def of_error(cls, name: str, expected: object, error: BaseException) -> Outcome:
        """The outcome of a case that raised."""
        told = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
        return cls(name, has_passed=False, expected=shown(expected), got=told)

    def __str__(self) -> str:
        verdict = "passed" if self.has_passed else "FAILED"
        return f"{verdict} {self.name}: expected {self.expected}, got {self.got}"


class Suite(Protocol):
    """What a command or a test needs of a suite."""

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def title(self) -> str:
        """What is tried, for a table."""

    @property
    def source(self) -> str:
        """Who made the cases up: a specification, or an implementation with its version."""

    @property
    def is_live(self) -> bool:
        """Whether a foreign program is needed."""

    def missing(self) -> str | None:
        """Why it cannot run here, and the line that would help; None if it can."""

    def run(self) -> Iterator[Outcome]:
        """The outcome of every case, in order."""


def nothing() -> str | None:
    """What a suite needs whose cases are all in this package."""
    return None


@dataclass(frozen=True, slots=True)
class VectorSuite:
    """Cases that need no bench: values, or a foreign library that is called at once."""

    name: str
    title: str
    source: str
    cases: Callable[[], Sequence[Case]]
    need: Callable[[], str | None] = nothing
    is_live: bool = False

    def missing(self) -> str | None:
        """Why it cannot run here, and the line that would help; None if it can."""
        return self.need()

    def run(self) -> Iterator[Outcome]:
        """The outcome of every case, in order."""
        return (judge(case) for case in self.cases())


@dataclass(frozen=True, slots=True)
class LiveSuite(Generic[BenchT]):
    """Cases that share one bench: the foreign program, our side, and the sockets between."""

    name: str
    title: str
    peer: Callable[[], str]
    open: Callable[[], AbstractAsyncContextManager[BenchT]]
    cases: Callable[[], Sequence[LiveCase[BenchT]]]
    need: Callable[[], str | None]
    is_live: bool = True

    @property
    def source(self) -> str:
        """The foreign implementation and its version."""
        return self.peer()

    def missing(self) -> str | None:
        """Why it cannot run here, and the line that would help; None if it can."""
        return self.need()

    def run(self) -> Iterator[Outcome]:
        """The outcome of every case, in order; a bench that does not open fails them all."""
        return iter(asyncio.run(self._run()))

    async def _run(self) -> list[Outcome]:
        cases = self.cases()
        outcomes: list[Outcome] = []
        try:
            async with asyncio.timeout(SETUP_S_MAX + len(cases) * CASE_S_MAX), self.open() as bench:
                for case in cases:
                    outcomes.append(await judge_live(case, bench))  # noqa: PERF401  kept if one hangs
        except (AmiError, OSError, TimeoutError) as error:
            unheard = cases[len(outcomes) :]
            outcomes += [Outcome.of_error(one.name, one.expected, error) for one in unheard]
        return outcomes


def judge(case: Case) -> Outcome:
    """Run one case."""
    try:
        got = case.got()
    except Exception as error:  # noqa: BLE001  whatever it raises, the case has failed
        return Outcome.of_error(case.name, case.expected, error)
    return Outcome.of(case.name, case.expected, got)


async def judge_live(case: LiveCase[BenchT], bench: BenchT) -> Outcome:
    """Run one exchange, within its time."""
    try:
        async with asyncio.timeout(CASE_S_MAX):
            got = await case.got(bench)
    except Exception as error:  # noqa: BLE001  whatever it raises, the case has failed
        return Outcome.of_error(case.name, case.expected, error)
    return Outcome.of(case.name, case.expected, got)


def reason_of(refusing: Callable[[], object]) -> str:
    """The reason of the typed error that `refusing` raises, or `accepted`."""
    try:
        refusing()
    except AmiError as error:
        return str(getattr(error, "reason", type(error).__name__))
    return "accepted"


def shown(value: object) -> str:
    """A value for people: octets as hex, and nothing longer than SHOWN_SIZE_MAX characters."""
    text = value.hex() or "(no octets)" if isinstance(value, bytes) else repr(value)
    if len(text) <= SHOWN_SIZE_MAX:
        return text
    half = SHOWN_SIZE_MAX // 2
    return f"{text[:half]}...{text[-half:]}"
