"""When a meter sends reads by itself: schedules, what changes them, and what is in force.

Spec    docs/protocol/model.md, "Read schedules"
Raises  `ModelError`, and nothing else, from every decoder
Limit   SCHEDULE_COUNT_MAX in a table
Never   says whether a meter can keep to a schedule: that is the meter's to judge
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.on_demand import ReadParts

DEFAULT_NUMBER: Final = 0
"""The schedule of the daily reports."""
NUMBER_MAX: Final = 255
SCHEDULE_COUNT_MAX: Final = 16
REVISION_MAX: Final = 2**32 - 1
WEEK_S: Final = 7 * wire.DAY_S
DEFAULT_OFFSET_MAX: Final = 8 * 3600
"""The default read is over by 8 in the morning."""
EVERY_PART: Final = ReadParts.REGISTERS | ReadParts.INTERVALS | ReadParts.LOG


@dataclass(frozen=True, slots=True)
class ReadSchedule:
    """Reads every `period_s`, each `offset_s` into its period.

    A period divides a day, is a day, or is a week; days begin at midnight in the meter's standard
    offset, weeks on Monday. Reads fall from `start_s` on and before `end_s` (UTC; 0: until the
    schedule is cancelled). The default schedule, number 0, is daily, without an end, and reads all.
    """

    number: int
    period_s: int
    offset_s: int = 0
    start_s: int = 0
    end_s: int = 0
    parts: ReadParts = EVERY_PART

    def __post_init__(self) -> None:
        wire.integer(self.number, 0, NUMBER_MAX, "schedule number")
        wire.integer(self.period_s, wire.INTERVAL_S_MIN, WEEK_S, "period")
        wire.integer(self.offset_s, 0, WEEK_S - 1, "offset in the period")
        wire.integer(self.start_s, 0, wire.UTC_S_MAX, "start")
        wire.integer(self.end_s, 0, wire.UTC_S_MAX, "end")
        wire.integer(int(self.parts), 1, int(EVERY_PART), "parts")
        if self.period_s != WEEK_S and wire.DAY_S % self.period_s:
            raise ModelError("bad schedule", f"a day is no whole number of {self.period_s} s")
        if self.offset_s >= self.period_s:
            raise ModelError("bad schedule", f"offset {self.offset_s} s beyond {self.period_s} s")
        if self.end_s and self.end_s <= self.start_s:
            raise ModelError("bad schedule", "the end is not after the start")
        if self.is_default and (
            self.period_s != wire.DAY_S
            or self.offset_s > DEFAULT_OFFSET_MAX
            or self.end_s
            or self.parts != EVERY_PART
        ):
            raise ModelError("bad schedule", "the default one is daily by 08:00, whole, for good")

    @property
    def is_default(self) -> bool:
        """Whether it is the schedule of the daily reports."""
        return self.number == DEFAULT_NUMBER

    def to_tree(self) -> list[object]:
        """The schedule's items."""
        return [
            self.number,
            self.period_s,
            self.offset_s,
            self.start_s,
            self.end_s,
            int(self.parts),
        ]

    @classmethod
    def from_tree(cls, item: object) -> ReadSchedule:
        """The schedule that `to_tree` wrote."""
        items = wire.array(item, 6, 6, "schedule")
        return cls(
            wire.integer(items[0], 0, NUMBER_MAX, "schedule number"),
            wire.integer(items[1], wire.INTERVAL_S_MIN, WEEK_S, "period"),
            wire.integer(items[2], 0, WEEK_S - 1, "offset in the period"),
            wire.integer(items[3], 0, wire.UTC_S_MAX, "start"),
            wire.integer(items[4], 0, wire.UTC_S_MAX, "end"),
            ReadParts(wire.integer(items[5], 1, int(EVERY_PART), "parts")),
        )

    def encode(self) -> bytes:
        """The schedule's one encoding."""
        return wire.dump(self.to_tree())

    @classmethod
    def decode(cls, data: bytes) -> ReadSchedule:
        """The schedule that `data` is the encoding of."""
        return cls.from_tree(wire.load(data))


@dataclass(frozen=True, slots=True)
class ScheduleCancellation:
    """Asks to end the schedule `number`; the default one goes back to its built-in time."""

    number: int

    def __post_init__(self) -> None:
        wire.integer(self.number, 0, NUMBER_MAX, "schedule number")

    def encode(self) -> bytes:
        """The request's one encoding."""
        return wire.dump([self.number])

    @classmethod
    def decode(cls, data: bytes) -> ScheduleCancellation:
        """The request that `data` is the encoding of."""
        (number,) = wire.array(wire.load(data), 1, 1, "cancellation")
        return cls(wire.integer(number, 0, NUMBER_MAX, "schedule number"))


@dataclass(frozen=True, slots=True)
class ScheduleAcknowledgement:
    """The schedule `number` is set, or cancelled, for good; `revision` counts the changes."""

    number: int
    revision: int

    def __post_init__(self) -> None:
        wire.integer(self.number, 0, NUMBER_MAX, "schedule number")
        wire.integer(self.revision, 0, REVISION_MAX, "revision")

    def encode(self) -> bytes:
        """The acknowledgement's one encoding."""
        return wire.dump([self.number, self.revision])

    @classmethod
    def decode(cls, data: bytes) -> ScheduleAcknowledgement:
        """The acknowledgement that `data` is the encoding of."""
        number, revision = wire.array(wire.load(data), 2, 2, "schedule acknowledgement")
        return cls(
            wire.integer(number, 0, NUMBER_MAX, "schedule number"),
            wire.integer(revision, 0, REVISION_MAX, "revision"),
        )


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A schedule as a meter has it; reads up to `acknowledged_s` are acknowledged (0: none)."""

    schedule: ReadSchedule
    acknowledged_s: int = 0

    def __post_init__(self) -> None:
        wire.integer(self.acknowledged_s, 0, wire.UTC_S_MAX, "time acknowledged")


@dataclass(frozen=True, slots=True)
class ScheduleTable:
    """Every schedule that a meter has, by number, after `revision` changes."""

    revision: int
    schedules: tuple[StoredSchedule, ...] = ()

    def __post_init__(self) -> None:
        wire.integer(self.revision, 0, REVISION_MAX, "revision")
        wire.array(self.schedules, 0, SCHEDULE_COUNT_MAX, "schedules")
        numbers = [one.schedule.number for one in self.schedules]
        if numbers != sorted(set(numbers)):
            raise ModelError("bad schedule", "the table is not in the order of its numbers")

    def encode(self) -> bytes:
        """The table's one encoding."""
        return wire.dump(
            [
                self.revision,
                [[*one.schedule.to_tree(), one.acknowledged_s] for one in self.schedules],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> ScheduleTable:
        """The table that `data` is the encoding of."""
        revision, rows = wire.array(wire.load(data), 2, 2, "schedule table")
        return cls(
            wire.integer(revision, 0, REVISION_MAX, "revision"),
            tuple(_stored(row) for row in wire.array(rows, 0, SCHEDULE_COUNT_MAX, "schedules")),
        )


def _stored(row: object) -> StoredSchedule:
    *items, acknowledged_s = wire.array(row, 7, 7, "stored schedule")
    return StoredSchedule(
        ReadSchedule.from_tree(items),
        wire.integer(acknowledged_s, 0, wire.UTC_S_MAX, "time acknowledged"),
    )
