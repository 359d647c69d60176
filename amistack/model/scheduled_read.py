"""What a meter sends at the times of a schedule that is not the default one.

Spec    docs/protocol/model.md, "Scheduled read"
Raises  `ModelError`, and nothing else, from every decoder
Limit   as a daily report; one day, or a part of one, in a message
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.clock import ClockReading
from amistack.model.events import ENTRY_COUNT_MAX, LogEntry, entries_from_tree
from amistack.model.on_demand import registers_from_tree
from amistack.model.packing import VALUE_COUNT_MAX
from amistack.model.readings import BLOCK_COUNT_MAX, CHANNEL_MAX, IntervalBlock
from amistack.model.report import CHANNEL_SET_MAX
from amistack.model.schedule import NUMBER_MAX

FIRST_MAX: Final = VALUE_COUNT_MAX
"""The number in its day of a span's first interval, or of the one behind the last."""


@dataclass(frozen=True, slots=True)
class Span:
    """A block whose first interval is number `first` of its day, 0 the earliest."""

    first: int
    block: IntervalBlock

    def __post_init__(self) -> None:
        wire.integer(self.first, 0, FIRST_MAX, "first interval")
        if (self.first + self.block.count) * self.block.interval_s > wire.DAY_S:
            raise ModelError("bad block", "a span goes beyond its day")

    @property
    def end(self) -> int:
        """The number in its day of the interval behind the last."""
        return self.first + self.block.count


@dataclass(frozen=True, slots=True)
class ScheduledRead:
    """What the schedule `number` owes of one `day`, counted as in a daily report.

    `spans` begin where the last acknowledged read ended. `registers` are pairs of channel and
    reading at the instant of `clock`; only the newest of the messages of one read has them.
    """

    number: int
    channel_set: int
    day: int
    clock: ClockReading
    registers: tuple[tuple[int, int], ...] = ()
    spans: tuple[Span, ...] = ()
    entries: tuple[LogEntry, ...] = ()

    def __post_init__(self) -> None:
        wire.integer(self.number, 1, NUMBER_MAX, "schedule number")
        wire.integer(self.channel_set, 0, CHANNEL_SET_MAX, "channel set")
        wire.integer(self.day, 0, wire.DAY_MAX, "day")
        wire.array(self.registers, 0, BLOCK_COUNT_MAX, "registers")
        for channel, reading in self.registers:
            wire.integer(channel, 0, CHANNEL_MAX, "channel")
            wire.integer(reading, -wire.REGISTER_MAX, wire.REGISTER_MAX, "register")
        wire.array(self.spans, 0, BLOCK_COUNT_MAX, "spans")
        wire.array(self.entries, 0, ENTRY_COUNT_MAX, "entries")
        for channels in (
            [channel for channel, _ in self.registers],
            [span.block.channel for span in self.spans],
        ):
            if len(set(channels)) < len(channels):
                raise ModelError("bad block", "a channel comes twice")

    def encode(self) -> bytes:
        """The read's one encoding. Raises ModelError if it is too long for a message."""
        base_s = self.day * wire.DAY_S
        return wire.dump(
            [
                self.number,
                self.channel_set,
                self.day,
                self.clock.utc_s,
                int(self.clock.state),
                [list(register) for register in self.registers],
                [[one.first, one.block.count, *one.block.to_tree()] for one in self.spans],
                [entry.to_tree(base_s) for entry in self.entries],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> ScheduledRead:
        """The read that `data` is the encoding of. Packed values are not looked into."""
        items = wire.array(wire.load(data), 8, 8, "scheduled read")
        day = wire.integer(items[2], 0, wire.DAY_MAX, "day")
        return cls(
            wire.integer(items[0], 1, NUMBER_MAX, "schedule number"),
            wire.integer(items[1], 0, CHANNEL_SET_MAX, "channel set"),
            day,
            ClockReading.from_tree(items[3], items[4]),
            registers_from_tree(items[5]),
            tuple(_span(item) for item in wire.array(items[6], 0, BLOCK_COUNT_MAX, "spans")),
            entries_from_tree(items[7], day * wire.DAY_S),
        )


def _span(item: object) -> Span:
    first, count, *rest = wire.array(item, 7, 8, "span")
    return Span(
        wire.integer(first, 0, FIRST_MAX, "first interval"),
        IntervalBlock.from_tree(
            rest, count=wire.integer(count, 0, VALUE_COUNT_MAX, "interval count")
        ),
    )
