"""Asking a meter now, and what it answers.

Spec    docs/protocol/model.md, "On-demand read"
Raises  `ModelError`, and nothing else, from every decoder
Limit   as a daily report
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.clock import ClockReading
from amistack.model.events import ENTRY_COUNT_MAX, LogEntry, entries_from_tree
from amistack.model.packing import VALUE_COUNT_MAX
from amistack.model.readings import BLOCK_COUNT_MAX, CHANNEL_MAX, IntervalBlock
from amistack.model.report import CHANNEL_SET_MAX

IDENTIFIER_SIZE_MIN: Final = 8
IDENTIFIER_SIZE_MAX: Final = 16
PARTS_MAX: Final = 7


class ReadParts(enum.IntFlag):
    """What a request asks for; at least one."""

    REGISTERS = 1  # every channel's register, now
    INTERVALS = 2  # whole intervals since midnight
    LOG = 4  # log entries not reported yet


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Asks for `parts`. A request with the same `identifier` (8 to 16 octets) is the same one."""

    identifier: bytes
    parts: ReadParts

    def __post_init__(self) -> None:
        wire.octets(self.identifier, IDENTIFIER_SIZE_MIN, IDENTIFIER_SIZE_MAX, "identifier")
        wire.integer(int(self.parts), 1, PARTS_MAX, "parts")

    def encode(self) -> bytes:
        """The request's one encoding."""
        return wire.dump([self.identifier, int(self.parts)])

    @classmethod
    def decode(cls, data: bytes) -> ReadRequest:
        """The request that `data` is the encoding of."""
        items = wire.array(wire.load(data), 2, 2, "request")
        return cls(
            wire.octets(items[0], IDENTIFIER_SIZE_MIN, IDENTIFIER_SIZE_MAX, "identifier"),
            ReadParts(wire.integer(items[1], 1, PARTS_MAX, "parts")),
        )


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """What the meter knows now, as far as it was asked.

    `registers` are pairs of channel and reading at the instant of `clock`. `blocks` begin at
    the start of `day` (counted as in a daily report) and hold the whole intervals since.
    """

    identifier: bytes
    channel_set: int
    day: int
    clock: ClockReading
    registers: tuple[tuple[int, int], ...] = ()
    blocks: tuple[IntervalBlock, ...] = ()
    entries: tuple[LogEntry, ...] = ()

    def __post_init__(self) -> None:
        wire.octets(self.identifier, IDENTIFIER_SIZE_MIN, IDENTIFIER_SIZE_MAX, "identifier")
        wire.integer(self.channel_set, 0, CHANNEL_SET_MAX, "channel set")
        wire.integer(self.day, 0, wire.DAY_MAX, "day")
        wire.array(self.registers, 0, BLOCK_COUNT_MAX, "registers")
        for channel, reading in self.registers:
            wire.integer(channel, 0, CHANNEL_MAX, "channel")
            wire.integer(reading, -wire.REGISTER_MAX, wire.REGISTER_MAX, "register")
        wire.array(self.blocks, 0, BLOCK_COUNT_MAX, "blocks")
        wire.array(self.entries, 0, ENTRY_COUNT_MAX, "entries")
        for channels in (
            [channel for channel, _ in self.registers],
            [block.channel for block in self.blocks],
        ):
            if len(set(channels)) < len(channels):
                raise ModelError("bad answer", "a channel comes twice")

    def encode(self) -> bytes:
        """The answer's one encoding. Raises ModelError if it is too long for a message."""
        base_s = self.day * wire.DAY_S
        return wire.dump(
            [
                self.identifier,
                self.channel_set,
                self.day,
                self.clock.utc_s,
                int(self.clock.state),
                [list(register) for register in self.registers],
                [[block.count, *block.to_tree()] for block in self.blocks],
                [entry.to_tree(base_s) for entry in self.entries],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> ReadAnswer:
        """The answer that `data` is the encoding of. Packed values are not looked into."""
        items = wire.array(wire.load(data), 8, 8, "answer")
        day = wire.integer(items[2], 0, wire.DAY_MAX, "day")
        blocks = wire.array(items[6], 0, BLOCK_COUNT_MAX, "blocks")
        return cls(
            wire.octets(items[0], IDENTIFIER_SIZE_MIN, IDENTIFIER_SIZE_MAX, "identifier"),
            wire.integer(items[1], 0, CHANNEL_SET_MAX, "channel set"),
            day,
            ClockReading.from_tree(items[3], items[4]),
            registers_from_tree(items[5]),
            tuple(partial_block_from_tree(item) for item in blocks),
            entries_from_tree(items[7], day * wire.DAY_S),
        )


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Asks a meter to send the reports of these days (once more), `last_day` included.

    Days are counted as in a daily report. The meter sends those that it still has.
    """

    first_day: int
    last_day: int

    def __post_init__(self) -> None:
        wire.integer(self.first_day, 0, wire.DAY_MAX, "first day")
        wire.integer(self.last_day, self.first_day, wire.DAY_MAX, "last day")

    def encode(self) -> bytes:
        """The request's one encoding."""
        return wire.dump([self.first_day, self.last_day])

    @classmethod
    def decode(cls, data: bytes) -> ReportRequest:
        """The request that `data` is the encoding of."""
        items = wire.array(wire.load(data), 2, 2, "report request")
        first_day = wire.integer(items[0], 0, wire.DAY_MAX, "first day")
        return cls(first_day, wire.integer(items[1], first_day, wire.DAY_MAX, "last day"))


def registers_from_tree(item: object) -> tuple[tuple[int, int], ...]:
    """Pairs of a channel and what its register shows."""
    pairs = wire.array(item, 0, BLOCK_COUNT_MAX, "registers")
    return tuple(_register_from_tree(pair) for pair in pairs)


def _register_from_tree(item: object) -> tuple[int, int]:
    channel, reading = wire.array(item, 2, 2, "register")
    return (
        wire.integer(channel, 0, CHANNEL_MAX, "channel"),
        wire.integer(reading, -wire.REGISTER_MAX, wire.REGISTER_MAX, "register"),
    )


def partial_block_from_tree(item: object) -> IntervalBlock:
    """A block with its number of intervals in front."""
    count, *rest = wire.array(item, 6, 7, "block")
    return IntervalBlock.from_tree(
        rest, count=wire.integer(count, 0, VALUE_COUNT_MAX, "interval count")
    )
