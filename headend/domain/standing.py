"""Where a meter stands in the registry, and every legal move between the places.

    who may do what             KNOWN   ENROLLED   SUSPENDED   REVOKED   RETIRED
    open a session                        yes
    have its messages taken               yes
    keep its session stored               yes         yes

              enrol             suspend, resume
    KNOWN ------------> ENROLLED <--------------> SUSPENDED
      |                  ^    |                       |
      |            enrol |    | retire                |
      +----------------> RETIRED <--------------------+
      |                       |
      +-- revoke, from everywhere --> REVOKED, for ever

This file is the whole truth: the store asks it inside its transaction, the tests walk it. It knows
no store, no session and no clock.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from amistack.identifiers import Eui64
from headend.domain.meters import MeterState

REASON_SIZE_MAX: Final = 200
"""Characters of the reason for a step."""
ACTOR_SIZE_MAX: Final = 64
METER_COUNT_MAX: Final = 100_000
"""Meters that one step may be about."""


class Step(enum.IntEnum):
    """What an operator can do to a meter's standing. The numbers are stored."""

    ENROL = 1
    SUSPEND = 2
    RESUME = 3
    REVOKE = 4
    RETIRE = 5
    IMPORT = 6
    """It came in a manufacturer's shipment: only ever the first step."""

    @property
    def word(self) -> str:
        """As it is written in commands and documents."""
        return self.name.lower()


TRANSITIONS: Final[Mapping[MeterState, Mapping[Step, MeterState]]] = {
    MeterState.KNOWN: {
        Step.ENROL: MeterState.ENROLLED,
        Step.REVOKE: MeterState.REVOKED,
        Step.RETIRE: MeterState.RETIRED,
    },
    MeterState.ENROLLED: {
        Step.ENROL: MeterState.ENROLLED,
        # Resuming what is not suspended is what is wanted already.
        Step.RESUME: MeterState.ENROLLED,
        Step.SUSPEND: MeterState.SUSPENDED,
        Step.REVOKE: MeterState.REVOKED,
        Step.RETIRE: MeterState.RETIRED,
    },
    MeterState.SUSPENDED: {
        # Not ENROL: a list that is repeated must not undo a suspension.
        Step.RESUME: MeterState.ENROLLED,
        Step.SUSPEND: MeterState.SUSPENDED,
        Step.REVOKE: MeterState.REVOKED,
        Step.RETIRE: MeterState.RETIRED,
    },
    MeterState.REVOKED: {
        # Nothing leads out: its key may be in other hands. A device with a new key is a new meter.
        Step.REVOKE: MeterState.REVOKED,
    },
    MeterState.RETIRED: {
        # Back from the workshop, with the key it had.
        Step.ENROL: MeterState.ENROLLED,
        Step.REVOKE: MeterState.REVOKED,
        Step.RETIRE: MeterState.RETIRED,
    },
}

SESSION_KEPT: Final = frozenset({MeterState.ENROLLED, MeterState.SUSPENDED})
"""Where the keys of a session stay in the store; elsewhere they are deleted with the step."""


def next_state(state: MeterState, step: Step) -> MeterState | None:
    """Where `step` leads from `state`; the same state if nothing is to be done, None if nowhere."""
    return TRANSITIONS[state].get(step)


@dataclass(frozen=True, slots=True)
class StandingChange:
    """One entry of a meter's history: who did what, when (UTC ms) and why, and what came of it."""

    meter: Eui64
    number: int
    at_ms: int
    step: Step
    state: MeterState
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceDetails:
    """What a manufacturer says of a device besides its key; empty where it says nothing."""

    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    hardware: str = ""
    firmware: str = ""
