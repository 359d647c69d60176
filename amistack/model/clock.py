"""What a meter says about its clock, with everything it sends; and setting it from afar.

Spec    docs/protocol/model.md, "Clock"
Raises  `ModelError`, and nothing else, from every decoder
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from amistack.model import wire

IN_SYNC_WITHIN_S: Final = 20
IDENTIFIER_SIZE_MIN: Final = 8
IDENTIFIER_SIZE_MAX: Final = 16
ERROR_MS_MAX: Final = 2**53 - 1
"""Magnitude of an error or its bound: exact also where numbers are doubles."""


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


@dataclass(frozen=True, slots=True)
class Comparison:
    """A clock beside the head-end's: behind it by `error_ms`, give or take `bound_ms`, at `at_s`.

    `at_s` is UTC in seconds by the meter's own clock.
    """

    error_ms: int
    bound_ms: int
    at_s: int

    def __post_init__(self) -> None:
        wire.integer(self.error_ms, -ERROR_MS_MAX, ERROR_MS_MAX, "clock error")
        wire.integer(self.bound_ms, 0, ERROR_MS_MAX, "bound of the clock error")
        wire.integer(self.at_s, 0, wire.UTC_S_MAX, "time of comparison")


@dataclass(frozen=True, slots=True)
class ClockStatus:
    """The clock read back: what it shows, how it is, and the best comparison, if there is one."""

    clock: ClockReading
    comparison: Comparison | None = None

    def encode(self) -> bytes:
        """The status's one encoding."""
        best = self.comparison
        return wire.dump(
            [
                self.clock.utc_s,
                int(self.clock.state),
                False if best is None else [best.error_ms, best.bound_ms, best.at_s],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> ClockStatus:
        """The status that `data` is the encoding of."""
        items = wire.array(wire.load(data), 3, 3, "clock status")
        comparison = None
        if items[2] is not False:
            error_ms, bound_ms, at_s = wire.array(items[2], 3, 3, "comparison")
            comparison = Comparison(
                wire.integer(error_ms, -ERROR_MS_MAX, ERROR_MS_MAX, "clock error"),
                wire.integer(bound_ms, 0, ERROR_MS_MAX, "bound of the clock error"),
                wire.integer(at_s, 0, wire.UTC_S_MAX, "time of comparison"),
            )
        return cls(ClockReading.from_tree(items[0], items[1]), comparison)


@dataclass(frozen=True, slots=True)
class ClockSetting:
    """An operator's command: set the clock, however far off it is.

    `utc_ms` is UTC in milliseconds as the command left. The same `identifier` (8 to 16 octets)
    is the same command.
    """

    identifier: bytes
    utc_ms: int

    def __post_init__(self) -> None:
        wire.octets(self.identifier, IDENTIFIER_SIZE_MIN, IDENTIFIER_SIZE_MAX, "identifier")
        wire.integer(self.utc_ms, 0, wire.UTC_MS_MAX, "time to set")

    def encode(self) -> bytes:
        """The command's one encoding."""
        return wire.dump([self.identifier, self.utc_ms])

    @classmethod
    def decode(cls, data: bytes) -> ClockSetting:
        """The command that `data` is the encoding of."""
        items = wire.array(wire.load(data), 2, 2, "clock setting")
        return cls(
            wire.octets(items[0], IDENTIFIER_SIZE_MIN, IDENTIFIER_SIZE_MAX, "identifier"),
            wire.integer(items[1], 0, wire.UTC_MS_MAX, "time to set"),
        )
