"""What a meter says about its clock, with everything it sends.

Raises  `ModelError` on a time beyond 32 bits of seconds or an unknown state
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from amistack.model import wire

IN_SYNC_WITHIN_S: Final = 20


class ClockState(enum.IntEnum):
    """How far a clock is to be believed."""

    UNSET = 0  # time was lost: what it shows means nothing
    SET = 1  # in sync within IN_SYNC_WITHIN_S seconds
    DOUBTFUL = 2  # set once, but its error is no longer bounded


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The clock as the message was made: UTC in seconds, and its state."""

    utc_s: int
    state: ClockState

    def __post_init__(self) -> None:
        wire.integer(self.utc_s, 0, wire.UTC_S_MAX, "clock")

    @classmethod
    def from_tree(cls, utc_s: object, state: object) -> ClockReading:
        """The reading written as two items."""
        return cls(
            wire.integer(utc_s, 0, wire.UTC_S_MAX, "clock"),
            wire.member(state, ClockState, "clock state"),
        )
