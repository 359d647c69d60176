"""What a head-end asks of a meter's switch, and what the meter says of it.

Spec    docs/protocol/model.md, "The switch"
Raises  `ModelError`, and nothing else, from every decoder
Limit   WINDOW_COUNT_MAX windows of a load limit, which do not overlap
Never   says that a switch has moved: that is for what the meter measures afterwards (`Outcome`)
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.clock import ClockReading

SEQUENCE_MAX: Final = 2**32 - 1
WINDOW_COUNT_MAX: Final = 16
LIMIT_W_MAX: Final = 10_000_000
OVER_S_MAX: Final = 3_600
REST_S_MIN: Final = 10
REST_S_MAX: Final = wire.DAY_S
CLOSES_MAX: Final = 255
CONFIRM_S_MAX: Final = 255
DAY_MIN: Final = 1_440
EVERY_DAY: Final = 0b111_1111


class Action(enum.IntEnum):
    """What a command asks for."""

    DISCONNECT = 0
    CONNECT = 1
    ARM = 2  # let whoever is at the meter close it
    LIMIT = 3  # from now on this load limit, in place of any other
    UNLIMIT = 4  # no load limit any more


class Position(enum.IntEnum):
    """Where the switch was told to be."""

    OPEN = 0
    ARMED = 1  # open; closes when somebody at the meter asks for it
    CLOSED = 2
    LIMITED = 3  # open for a while, by the load limit


class Outcome(enum.IntEnum):
    """What the metrology says about the last move."""

    NONE = 0  # the switch was never told to move
    PENDING = 1
    CONFIRMED = 2
    UNCONFIRMED = 3  # it cannot be told from what is measured
    CONTRADICTED = 4  # what is measured says that it did not happen


class Sense(enum.IntEnum):
    """Whether there is current, or voltage at the load side."""

    ABSENT = 0
    PRESENT = 1
    UNKNOWN = 2


class Refusal(enum.IntEnum):
    """Why a command was not taken.

    The first five change nothing. The others use the sequence number up, so that the command cannot
    have an effect later.
    """

    NONE = 0  # it was taken
    OLD = 1  # a newer one was taken before
    REUSED = 2  # another command had this number
    EXPIRED = 3
    CLOCK_UNSET = 4  # whether it has expired cannot be told
    LOAD_SIDE_LIVE = 5  # closing onto a source of the customer's
    LOAD_SIDE_UNKNOWN = 6
    NOT_OPEN = 7  # nothing to arm


@dataclass(frozen=True, slots=True)
class LimitWindow:
    """When and at what a load is limited: on `days`, from `start_min` until before `end_min`.

    `days` has a bit for each day of the week, Monday's the lowest; minutes count from midnight in
    the meter's fixed standard time. A window over midnight is two.
    """

    days: int
    start_min: int
    end_min: int
    limit_w: int

    def __post_init__(self) -> None:
        wire.integer(self.days, 1, EVERY_DAY, "days of the week")
        wire.integer(self.start_min, 0, DAY_MIN - 1, "start of a window")
        wire.integer(self.end_min, self.start_min + 1, DAY_MIN, "end of a window")
        wire.integer(self.limit_w, 0, LIMIT_W_MAX, "limit")

    def overlaps(self, other: LimitWindow) -> bool:
        """Whether there is a minute that both have."""
        return (
            bool(self.days & other.days)
            and self.start_min < other.end_min
            and other.start_min < self.end_min
        )

    def to_tree(self) -> list[object]:
        """The window's items."""
        return [self.days, self.start_min, self.end_min, self.limit_w]

    @classmethod
    def from_tree(cls, item: object) -> LimitWindow:
        """The window that `to_tree` wrote."""
        days, start, end, limit = wire.array(item, 4, 4, "window")
        start_min = wire.integer(start, 0, DAY_MIN - 1, "start of a window")
        return cls(
            wire.integer(days, 1, EVERY_DAY, "days of the week"),
            start_min,
            wire.integer(end, start_min + 1, DAY_MIN, "end of a window"),
            wire.integer(limit, 0, LIMIT_W_MAX, "limit"),
        )


@dataclass(frozen=True, slots=True)
class LoadLimit:
    """Open after `over_s` seconds over the limit, close again `rest_s` later.

    At most `closes_max` times in one window on one day; after that the switch is armed. It is in
    force from `starts_s` until before `ends_s`, UTC.
    """

    over_s: int
    rest_s: int
    closes_max: int
    starts_s: int
    ends_s: int
    windows: tuple[LimitWindow, ...]

    def __post_init__(self) -> None:
        wire.integer(self.over_s, 1, OVER_S_MAX, "seconds over the limit")
        wire.integer(self.rest_s, REST_S_MIN, REST_S_MAX, "seconds of rest")
        wire.integer(self.closes_max, 0, CLOSES_MAX, "closes")
        wire.integer(self.starts_s, 0, wire.UTC_S_MAX, "start")
        wire.integer(self.ends_s, self.starts_s + 1, wire.UTC_S_MAX, "end")
        wire.array(self.windows, 1, WINDOW_COUNT_MAX, "windows")
        for place, window in enumerate(self.windows):
            if any(window.overlaps(other) for other in self.windows[:place]):
                raise ModelError("bad load limit", f"window {place} overlaps another")

    def to_tree(self) -> list[object]:
        """The limit's items."""
        return [
            self.over_s,
            self.rest_s,
            self.closes_max,
            self.starts_s,
            self.ends_s,
            [window.to_tree() for window in self.windows],
        ]

    @classmethod
    def from_tree(cls, item: object) -> LoadLimit:
        """The limit that `to_tree` wrote."""
        over, rest, closes, starts, ends, windows = wire.array(item, 6, 6, "load limit")
        starts_s = wire.integer(starts, 0, wire.UTC_S_MAX, "start")
        return cls(
            wire.integer(over, 1, OVER_S_MAX, "seconds over the limit"),
            wire.integer(rest, REST_S_MIN, REST_S_MAX, "seconds of rest"),
            wire.integer(closes, 0, CLOSES_MAX, "closes"),
            starts_s,
            wire.integer(ends, starts_s + 1, wire.UTC_S_MAX, "end"),
            tuple(
                LimitWindow.from_tree(one)
                for one in wire.array(windows, 1, WINDOW_COUNT_MAX, "windows")
            ),
        )


@dataclass(frozen=True, slots=True)
class ControlCommand:
    """Do `action`, unless it is `expires_s` (UTC) or later.

    Numbers rise from 1; a meter takes none twice and none below one that it took. `limit` goes
    with LIMIT, and with nothing else.
    """

    sequence: int
    expires_s: int
    action: Action
    limit: LoadLimit | None = None

    def __post_init__(self) -> None:
        wire.integer(self.sequence, 1, SEQUENCE_MAX, "sequence")
        wire.integer(self.expires_s, 0, wire.UTC_S_MAX, "expiry")
        if (self.limit is not None) is not (self.action is Action.LIMIT):
            raise ModelError("bad load limit", "it goes with the action LIMIT, and only with that")

    def encode(self) -> bytes:
        """The command's one encoding."""
        items: list[object] = [self.sequence, self.expires_s, int(self.action)]
        if self.limit is not None:
            items.append(self.limit.to_tree())
        return wire.dump(items)

    @classmethod
    def decode(cls, data: bytes) -> ControlCommand:
        """The command that `data` is the encoding of."""
        items = wire.array(wire.load(data), 3, 4, "command")
        return cls(
            wire.integer(items[0], 1, SEQUENCE_MAX, "sequence"),
            wire.integer(items[1], 0, wire.UTC_S_MAX, "expiry"),
            wire.member(items[2], Action, "action"),
            LoadLimit.from_tree(items[3]) if len(items) == 4 else None,
        )


@dataclass(frozen=True, slots=True)
class ControlAnswer:
    """What the meter says at once to the command `sequence`.

    `newest` is the highest number that it has used up. Within `confirm_s` seconds the outcome
    of a command that was taken stands in the state of the switch; 0 where nothing moves.
    """

    sequence: int
    refusal: Refusal
    newest: int
    confirm_s: int

    def __post_init__(self) -> None:
        wire.integer(self.sequence, 1, SEQUENCE_MAX, "sequence")
        wire.integer(self.newest, 0, SEQUENCE_MAX, "newest sequence")
        wire.integer(self.confirm_s, 0, CONFIRM_S_MAX, "seconds to confirm")

    def encode(self) -> bytes:
        """The answer's one encoding."""
        return wire.dump([self.sequence, int(self.refusal), self.newest, self.confirm_s])

    @classmethod
    def decode(cls, data: bytes) -> ControlAnswer:
        """The answer that `data` is the encoding of."""
        sequence, refusal, newest, confirm_s = wire.array(wire.load(data), 4, 4, "answer")
        return cls(
            wire.integer(sequence, 1, SEQUENCE_MAX, "sequence"),
            wire.member(refusal, Refusal, "refusal"),
            wire.integer(newest, 0, SEQUENCE_MAX, "newest sequence"),
            wire.integer(confirm_s, 0, CONFIRM_S_MAX, "seconds to confirm"),
        )


@dataclass(frozen=True, slots=True)
class SwitchState:
    """How the switch is.

    `newest` is the highest number used up; `position` since `since_s` (UTC), of which the metrology
    says `outcome`. `current` and `load_side` are what it sees now; `closes` how often the load
    limit has closed in its present window.
    """

    clock: ClockReading
    newest: int
    position: Position
    since_s: int
    outcome: Outcome
    current: Sense
    load_side: Sense
    closes: int
    limit: LoadLimit | None = None

    def __post_init__(self) -> None:
        wire.integer(self.newest, 0, SEQUENCE_MAX, "newest sequence")
        wire.integer(self.since_s, 0, wire.UTC_S_MAX, "time of the last move")
        wire.integer(self.closes, 0, CLOSES_MAX, "closes")

    def encode(self) -> bytes:
        """The state's one encoding."""
        return wire.dump(
            [
                self.clock.utc_s,
                int(self.clock.state),
                self.newest,
                int(self.position),
                self.since_s,
                int(self.outcome),
                int(self.current),
                int(self.load_side),
                self.closes,
                False if self.limit is None else self.limit.to_tree(),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> SwitchState:
        """The state that `data` is the encoding of."""
        items = wire.array(wire.load(data), 10, 10, "switch state")
        return cls(
            ClockReading.from_tree(items[0], items[1]),
            wire.integer(items[2], 0, SEQUENCE_MAX, "newest sequence"),
            wire.member(items[3], Position, "position"),
            wire.integer(items[4], 0, wire.UTC_S_MAX, "time of the last move"),
            wire.member(items[5], Outcome, "outcome"),
            wire.member(items[6], Sense, "current"),
            wire.member(items[7], Sense, "load side"),
            wire.integer(items[8], 0, CLOSES_MAX, "closes"),
            None if items[9] is False else LoadLimit.from_tree(items[9]),
        )
