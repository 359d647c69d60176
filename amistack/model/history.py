"""Asking a meter for any of what it keeps: past days, registers, its log, a self-test.

Spec    docs/protocol/model.md, "History"
Raises  `ModelError`, and nothing else, from every decoder
Limit   RANGE_COUNT_MAX ranges in a request, DAY_COUNT_MAX days in an answer; wire.PAYLOAD_SIZE_MAX
"""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.clock import ClockReading
from amistack.model.diagnosis import Diagnosis
from amistack.model.events import ENTRY_COUNT_MAX, LogEntry, entries_from_tree
from amistack.model.on_demand import (
    IDENTIFIER_SIZE_MAX,
    IDENTIFIER_SIZE_MIN,
    partial_block_from_tree,
    registers_from_tree,
)
from amistack.model.readings import BLOCK_COUNT_MAX, CHANNEL_MAX, IntervalBlock
from amistack.model.report import CHANNEL_SET_MAX

PARTS_MAX: Final = 15
RANGE_COUNT_MAX: Final = 16
DAY_COUNT_MAX: Final = 64
DIAGNOSIS_SIZE_MAX: Final = 4_096


class HistoryParts(enum.IntFlag):
    """What a request asks for; at least one."""

    REGISTERS = 1  # every channel's register, now
    INTERVALS = 2  # of the days in the ranges
    LOG = 4  # entries of the days in the ranges, reported or not
    SELF_TEST = 8  # what the meter finds when it looks at itself, now


@dataclass(frozen=True, slots=True, order=True)
class DayRange:
    """Days from `first` to `last`, both included, counted as in a daily report."""

    first: int
    last: int

    def __post_init__(self) -> None:
        wire.integer(self.first, 0, wire.DAY_MAX, "first day")
        wire.integer(self.last, self.first, wire.DAY_MAX, "last day")

    def days(self) -> range:
        """Every day of it."""
        return range(self.first, self.last + 1)


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """Asks for `parts`, of `ranges` where those are of days; ranges ascend and do not touch.

    A request with the same `identifier` (8 to 16 octets) is the same one.
    """

    identifier: bytes
    parts: HistoryParts
    ranges: tuple[DayRange, ...] = ()

    def __post_init__(self) -> None:
        wire.octets(self.identifier, IDENTIFIER_SIZE_MIN, IDENTIFIER_SIZE_MAX, "identifier")
        wire.integer(int(self.parts), 1, PARTS_MAX, "parts")
        wire.array(self.ranges, 0, RANGE_COUNT_MAX, "ranges")
        for one, following in itertools.pairwise(self.ranges):
            if following.first <= one.last + 1:
                raise ModelError("bad request", "ranges touch, or are not in order")
        wants_days = bool(self.parts & (HistoryParts.INTERVALS | HistoryParts.LOG))
        if wants_days != bool(self.ranges):
            raise ModelError("bad request", "intervals and log are of days, the rest is not")

    def encode(self) -> bytes:
        """The request's one encoding."""
        ranges = [[one.first, one.last] for one in self.ranges]
        return wire.dump([self.identifier, int(self.parts), ranges])

    @classmethod
    def decode(cls, data: bytes) -> HistoryRequest:
        """The request that `data` is the encoding of."""
        items = wire.array(wire.load(data), 3, 3, "request")
        return cls(
            wire.octets(items[0], IDENTIFIER_SIZE_MIN, IDENTIFIER_SIZE_MAX, "identifier"),
            HistoryParts(wire.integer(items[1], 1, PARTS_MAX, "parts")),
            tuple(_range(item) for item in wire.array(items[2], 0, RANGE_COUNT_MAX, "ranges")),
        )


@dataclass(frozen=True, slots=True)
class PastDay:
    """What is kept of one day: blocks from its start on, the running one's as far as it is."""

    day: int
    channel_set: int
    blocks: tuple[IntervalBlock, ...] = ()
    entries: tuple[LogEntry, ...] = ()

    def __post_init__(self) -> None:
        wire.integer(self.day, 0, wire.DAY_MAX, "day")
        wire.integer(self.channel_set, 0, CHANNEL_SET_MAX, "channel set")
        wire.array(self.blocks, 0, BLOCK_COUNT_MAX, "blocks")
        wire.array(self.entries, 0, ENTRY_COUNT_MAX, "entries")
        channels = [block.channel for block in self.blocks]
        if len(set(channels)) < len(channels):
            raise ModelError("bad answer", "a channel comes twice")

    def to_tree(self) -> list[object]:
        """The day's items."""
        return [
            self.day,
            self.channel_set,
            [[block.count, *block.to_tree()] for block in self.blocks],
            [entry.to_tree(self.day * wire.DAY_S) for entry in self.entries],
        ]

    @classmethod
    def from_tree(cls, item: object) -> PastDay:
        """The day that `to_tree` wrote."""
        items = wire.array(item, 4, 4, "past day")
        day = wire.integer(items[0], 0, wire.DAY_MAX, "day")
        blocks = wire.array(items[2], 0, BLOCK_COUNT_MAX, "blocks")
        return cls(
            day,
            wire.integer(items[1], 0, CHANNEL_SET_MAX, "channel set"),
            tuple(partial_block_from_tree(block) for block in blocks),
            entries_from_tree(items[3], day * wire.DAY_S),
        )


@dataclass(frozen=True, slots=True)
class HistoryAnswer:
    """What the meter keeps, as far as it was asked, and has it.

    `registers` are pairs of channel and reading at the instant of `clock`; `days` ascend.
    """

    identifier: bytes
    clock: ClockReading
    registers: tuple[tuple[int, int], ...] = ()
    days: tuple[PastDay, ...] = ()
    diagnosis: Diagnosis | None = None

    def __post_init__(self) -> None:
        wire.octets(self.identifier, IDENTIFIER_SIZE_MIN, IDENTIFIER_SIZE_MAX, "identifier")
        wire.array(self.registers, 0, BLOCK_COUNT_MAX, "registers")
        for channel, reading in self.registers:
            wire.integer(channel, 0, CHANNEL_MAX, "channel")
            wire.integer(reading, -wire.REGISTER_MAX, wire.REGISTER_MAX, "register")
        channels = [channel for channel, _ in self.registers]
        if len(set(channels)) < len(channels):
            raise ModelError("bad answer", "a channel comes twice")
        wire.array(self.days, 0, DAY_COUNT_MAX, "days")
        days = [one.day for one in self.days]
        if days != sorted(set(days)):
            raise ModelError("bad answer", "the days are not in order")

    def encode(self) -> bytes:
        """The answer's one encoding. Raises ModelError if it is too long for a message."""
        return wire.dump(
            [
                self.identifier,
                self.clock.utc_s,
                int(self.clock.state),
                [list(register) for register in self.registers],
                [one.to_tree() for one in self.days],
                b"" if self.diagnosis is None else self.diagnosis.encode(),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> HistoryAnswer:
        """The answer that `data` is the encoding of. Packed values are not looked into."""
        items = wire.array(wire.load(data), 6, 6, "answer")
        days = wire.array(items[4], 0, DAY_COUNT_MAX, "days")
        diagnosis = wire.octets(items[5], 0, DIAGNOSIS_SIZE_MAX, "diagnosis")
        return cls(
            wire.octets(items[0], IDENTIFIER_SIZE_MIN, IDENTIFIER_SIZE_MAX, "identifier"),
            ClockReading.from_tree(items[1], items[2]),
            registers_from_tree(items[3]),
            tuple(PastDay.from_tree(item) for item in days),
            Diagnosis.decode(diagnosis) if diagnosis else None,
        )


def _range(item: object) -> DayRange:
    first, last = wire.array(item, 2, 2, "range")
    first_day = wire.integer(first, 0, wire.DAY_MAX, "first day")
    return DayRange(first_day, wire.integer(last, first_day, wire.DAY_MAX, "last day"))
