"""What a meter finds when it looks at itself, and how often it does.

Spec    docs/protocol/model.md, "Self-diagnosis"; docs/protocol/model-v1.cddl
Raises  `ModelError`, and nothing else, from every decoder
Limit   one finding for each kind of check
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.clock import ClockReading
from amistack.model.events import DETAIL_SIZE_MAX

FINDING_COUNT_MAX: Final = 32
PERIOD_H_MIN: Final = 1
PERIOD_H_MAX: Final = 31 * 24
METROLOGY_DAYS_MIN: Final = 1
METROLOGY_DAYS_MAX: Final = 28
"""At least once in every month."""
CHECKS_MAX: Final = 2**32 - 1


class Check(enum.IntEnum):
    """What is looked at."""

    PROGRAM = 0  # the program's files against their check sums
    CHECKSUM = 1  # the journal's octets against their check sums
    MEMORY = 2  # the journal's tables against those in use
    ROOM = 3  # in the storage
    CLOCK = 4
    METROLOGY = 5  # what was recorded against what was measured
    DATA = 6  # what is stored against itself
    UPGRADE = 7  # whether the last firmware upgrade failed
    SOCKET = 8
    BATTERY = 9
    TEMPERATURE = 10
    COMMUNICATION = 11
    SENSOR = 12  # the real meter behind this one


class Outcome(enum.IntEnum):
    """What a check came to."""

    PASSED = 0
    FAILED = 1
    NOT_POSSIBLE = 2  # there is nothing to look at, no sensor say


class Occasion(enum.IntEnum):
    """Why a meter looked at itself."""

    INSTALLATION = 0
    SCHEDULE = 1
    DEMAND = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome; `detail` for people, at most 64 octets."""

    check: Check
    outcome: Outcome
    detail: str = ""

    def __post_init__(self) -> None:
        wire.text(self.detail, 0, DETAIL_SIZE_MAX, "detail")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings of one look, by the meter's clock; no check comes twice."""

    clock: ClockReading
    occasion: Occasion
    findings: tuple[Finding, ...]

    def __post_init__(self) -> None:
        wire.array(self.findings, 0, FINDING_COUNT_MAX, "findings")
        if len({one.check for one in self.findings}) < len(self.findings):
            raise ModelError("bad diagnosis", "a check comes twice")

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings that are failures."""
        return tuple(one for one in self.findings if one.outcome is Outcome.FAILED)

    def encode(self) -> bytes:
        """The diagnosis's one encoding."""
        return wire.dump(
            [
                self.clock.utc_s,
                int(self.clock.state),
                int(self.occasion),
                [[int(one.check), int(one.outcome), one.detail] for one in self.findings],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> Diagnosis:
        """The diagnosis that `data` is the encoding of."""
        items = wire.array(wire.load(data), 4, 4, "diagnosis")
        return cls(
            ClockReading.from_tree(items[0], items[1]),
            wire.member(items[2], Occasion, "occasion"),
            tuple(
                _finding_from_tree(item)
                for item in wire.array(items[3], 0, FINDING_COUNT_MAX, "findings")
            ),
        )


def _finding_from_tree(item: object) -> Finding:
    check, outcome, detail = wire.array(item, 3, 3, "finding")
    return Finding(
        wire.member(check, Check, "check"),
        wire.member(outcome, Outcome, "outcome"),
        wire.text(detail, 0, DETAIL_SIZE_MAX, "detail"),
    )


@dataclass(frozen=True, slots=True)
class DiagnosisWish:
    """Asks a meter to look at itself now: at each of `checks`, bit by number; 0 is all of them."""

    checks: int = 0

    def __post_init__(self) -> None:
        wire.integer(self.checks, 0, CHECKS_MAX, "checks")

    def includes(self, check: Check) -> bool:
        """Whether a check is asked for."""
        return not self.checks or bool(self.checks >> check & 1)

    def encode(self) -> bytes:
        """The wish's one encoding."""
        return wire.dump([self.checks])

    @classmethod
    def decode(cls, data: bytes) -> DiagnosisWish:
        """The wish that `data` is the encoding of."""
        (checks,) = wire.array(wire.load(data), 1, 1, "diagnosis wish")
        return cls(wire.integer(checks, 0, CHECKS_MAX, "checks"))


@dataclass(frozen=True, slots=True)
class DiagnosisPlan:
    """How often a meter looks at itself: at all but its metrology, and at that."""

    period_h: int = 24
    metrology_days: int = 1

    def __post_init__(self) -> None:
        wire.integer(self.period_h, PERIOD_H_MIN, PERIOD_H_MAX, "period in hours")
        wire.integer(self.metrology_days, METROLOGY_DAYS_MIN, METROLOGY_DAYS_MAX, "period in days")

    def encode(self) -> bytes:
        """The plan's one encoding."""
        return wire.dump([self.period_h, self.metrology_days])

    @classmethod
    def decode(cls, data: bytes) -> DiagnosisPlan:
        """The plan that `data` is the encoding of."""
        items = wire.array(wire.load(data), 2, 2, "diagnosis plan")
        return cls(
            wire.integer(items[0], PERIOD_H_MIN, PERIOD_H_MAX, "period in hours"),
            wire.integer(items[1], METROLOGY_DAYS_MIN, METROLOGY_DAYS_MAX, "period in days"),
        )
