"""Readings as the head-end keeps them: day blocks, log entries, on-demand reads, quarantine."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amistack.identifiers import Eui64
from amistack.values import frozen_value


class Method(enum.IntEnum):
    """How a value was obtained (provenance)."""

    SCHEDULE = 1
    ON_DEMAND = 2
    RECOVERY = 3


class BlockFlag(enum.IntFlag):
    """What is odd about a block that is stored all the same."""

    SUM_MISMATCH = 1
    """Its intervals do not add up to the difference of its register reads."""
    NEGATIVE = 2
    """A delivered or received energy below zero."""
    CLOCK_DOUBTFUL = 4
    """The meter's clock was unset, doubtful, or far from the head-end's."""


@frozen_value(frozen=True, slots=True)
class DayBlock:
    """One channel's day: key (meter, channel, day), values packed as they came.

    `day` is whole days since 1970-01-01 in the meter's standard-time offset; `opening` is the
    register (Wh) at its midnight and `advance` what it grew until the next; `packed` and
    `qualities` are the model's own octets (docs/protocol/model.md).
    """

    meter: Eui64
    channel: int
    day: int
    channel_set: int
    interval_s: int
    opening: int
    advance: int
    packed: bytes
    qualities: bytes
    flags: BlockFlag


@frozen_value(frozen=True, slots=True)
class ReportRecord:
    """That a day's report came, and its provenance; clock is the meter's own at sending, UTC s.

    `offset_min` is the standard-time offset in which its day is counted: the one that the meter
    had declared when it sent this.
    """

    meter: Eui64
    day: int
    method: Method
    clock_s: int
    clock_state: int
    offset_min: int


@frozen_value(frozen=True, slots=True)
class LogRecord:
    """One entry of a meter's event log: key (meter, sequence); `at` UTC s by the meter's clock."""

    meter: Eui64
    sequence: int
    at: int
    event_type: str
    detail: str
    is_time_doubtful: bool


@dataclass(frozen=True, slots=True)
class QuarantinedRecord:
    """An authentic record that could not be taken as it is: kept whole, with the reason."""

    meter: Eui64
    reason: str
    payload: bytes


class ReadResult(enum.IntEnum):
    """How an on-demand read stands."""

    ASKED = 0
    ANSWERED = 1
    TIMED_OUT = 2
    UNREACHABLE = 3
    REFUSED = 4
    UNREADABLE = 5
    INTERRUPTED = 6

    @property
    def words(self) -> str:
        """The result in lower-case words."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class OnDemandRead:
    """One on-demand read. Times are UTC ms; `answer` is the model's own octets.

    `detail` says in a few words why there is no answer; empty where there is one.
    """

    identifier: bytes
    meter: Eui64
    asked_ms: int
    result: ReadResult
    answered_ms: int | None = None
    path: str = ""
    answer: bytes | None = None
    detail: str = ""
