"""Probes, what becomes of them, and what an isolation comes to."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from amistack.identifiers import format_eui64
from mesh.topology.paths import Component, Part, Path, PathKind


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of the way answered."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nothing came back in time."""


@dataclass(frozen=True, slots=True)
class LostAfter:
    """The node `hops` links down, 0 for the collector, said that it could not go on from there."""

    hops: int


@dataclass(frozen=True, slots=True)
class NotPassed:
    """The node `hops` links down does not know the next one: nothing was tried beyond it."""

    hops: int


@dataclass(frozen=True, slots=True)
class NoConnection:
    """The head-end has no connection to the collector of this way."""


Outcome = Answered | NoAnswer | LostAfter | NotPassed | NoConnection


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the end of `path` over exactly this way. `number` goes with the outcome."""

    number: int
    path: Path


@dataclass(frozen=True, slots=True)
class Cause:
    """A component that explains everything seen, and what it is to the meter."""

    part: Part
    component: Component

    def __str__(self) -> str:
        return f"{self.part.value} {' - '.join(map(format_eui64, self.component.ends))}"


@dataclass(frozen=True, slots=True)
class WayTried:
    """One way to the meter and how it went; `kind` None for the way that was tried first."""

    path: Path
    kind: PathKind | None
    outcome: Outcome


class Finding(enum.Enum):
    """What an isolation comes to."""

    ANSWERS = "the meter answers over the best way that can be tried"
    COMPONENT = "one component failed"
    CLASS = "one of these failed, and no probe can tell which"
    SEVERAL = "more than one component failed"
    UNSTABLE = "what failed does not fail every time"
    NO_WAY = "no way to the meter is known that can be tried"
    UNFINISHED = "the bound on probes was met"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known at the end.

    `causes` are the components each of which explains all that was seen if it alone failed; for
    SEVERAL, those that are part of an explanation by two. `is_certain` says that one of `causes`
    has failed even if two components failed at once. `left` counts the alternates that answered by
    kind, `known` all that were tried, `untried` those that there are besides: a meter that answers
    over the first way is asked over no other.
    """

    finding: Finding
    causes: tuple[Cause, ...]
    is_certain: bool
    ways: tuple[WayTried, ...]
    left: Mapping[PathKind, int]
    known: Mapping[PathKind, int]
    untried: Mapping[PathKind, int]
    probe_count: int

    def __str__(self) -> str:
        named = ", ".join(map(str, self.causes)) or "nothing to name"
        doubt = "" if self.is_certain or not self.causes else " (if only one failed)"
        untried = sum(self.untried.values())
        rest = f", {untried} not tried" if untried else ""
        return (
            f"{self.finding.value}: {named}{doubt}; "
            f"{sum(self.left.values())} of {sum(self.known.values())} alternates answer{rest}"
        )
