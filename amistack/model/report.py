"""A day's readings and log entries in one message, and what the head-end answers.

Spec    docs/protocol/model.md, "Daily report"; docs/protocol/model-v1.cddl
Raises  `ModelError`, and nothing else, from every decoder
Limit   BLOCK_COUNT_MAX blocks, ENTRY_COUNT_MAX entries, PAYLOAD_SIZE_MAX octets
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.clock import ClockReading
from amistack.model.events import ENTRY_COUNT_MAX, LogEntry, entries_from_tree
from amistack.model.readings import BLOCK_COUNT_MAX, IntervalBlock

CHANNEL_SET_MAX: Final = 65_535
REASON_SIZE_MAX: Final = 64
VERDICT_COUNT_MAX: Final = 1 + BLOCK_COUNT_MAX + ENTRY_COUNT_MAX


class RecordKind(enum.IntEnum):
    """What part of a report a verdict is about."""

    WHOLE = 0
    BLOCK = 1
    ENTRY = 2


@dataclass(frozen=True, slots=True)
class RecordRef:
    """One record of a report, by its place in the message as it came: 0 is the first."""

    kind: RecordKind
    index: int = 0

    def __post_init__(self) -> None:
        most = {
            RecordKind.WHOLE: 0,
            RecordKind.BLOCK: BLOCK_COUNT_MAX - 1,
            RecordKind.ENTRY: ENTRY_COUNT_MAX - 1,
        }
        wire.integer(self.index, 0, most[self.kind], "record index")

    def __str__(self) -> str:
        name = self.kind.name.lower()
        return name if self.kind is RecordKind.WHOLE else f"{name} {self.index}"


class Disposition(enum.IntEnum):
    """What became of a record. All three are final: the meter does not send it again."""

    ACCEPTED = 0  # and flagged, for `reason`
    QUARANTINED = 1  # kept aside until somebody decides
    UNREADABLE = 2  # counted and dropped


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of `record`, and why in at most 64 octets."""

    record: RecordRef
    disposition: Disposition
    reason: str

    def __post_init__(self) -> None:
        wire.text(self.reason, 0, REASON_SIZE_MAX, "reason")


@dataclass(frozen=True, slots=True)
class DailyReport:
    """All that one meter owes for one day.

    `channel_set` is the version of the registration's channels that the blocks refer to.
    `day` counts whole days since 1970-01-01 in the fixed standard-time offset of the meter's
    programme; every day has 24 hours. The midnight reads of a channel are its block's
    `opening` and `closing`. No channel comes twice.
    """

    channel_set: int
    day: int
    clock: ClockReading
    blocks: tuple[IntervalBlock, ...] = ()
    entries: tuple[LogEntry, ...] = ()

    def __post_init__(self) -> None:
        wire.integer(self.channel_set, 0, CHANNEL_SET_MAX, "channel set")
        wire.integer(self.day, 0, wire.DAY_MAX, "day")
        wire.array(self.blocks, 0, BLOCK_COUNT_MAX, "blocks")
        wire.array(self.entries, 0, ENTRY_COUNT_MAX, "entries")
        for block in self.blocks:
            if block.count * block.interval_s != wire.DAY_S:
                raise ModelError("bad block", f"{block.count} x {block.interval_s} s is no day")
        if len({block.channel for block in self.blocks}) < len(self.blocks):
            raise ModelError("bad block", "a channel comes twice")

    def encode(self) -> bytes:
        """The report's one encoding. Raises ModelError if it is too long for a message."""
        base_s = self.day * wire.DAY_S
        return wire.dump(
            [
                self.channel_set,
                self.day,
                self.clock.utc_s,
                int(self.clock.state),
                [block.to_tree() for block in self.blocks],
                [entry.to_tree(base_s) for entry in self.entries],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> DailyReport:
        """The report that `data` is the encoding of. Packed values are not looked into."""
        channel_set, day, clock, blocks, entries = _take_apart(wire.load(data))
        return cls(
            channel_set,
            day,
            clock,
            tuple(IntervalBlock.from_tree(block) for block in blocks),
            entries_from_tree(entries, day * wire.DAY_S),
        )

    @classmethod
    def decode_leniently(cls, data: bytes) -> tuple[DailyReport, list[Verdict]]:
        """The report in `data` without the records that cannot be read, a verdict for each.

        A verdict names its record by the place in `data`; `kept_indices` gives those of the
        records kept. Raises ModelError where not even the outer array can be read.
        """
        channel_set, day, clock, block_items, entry_items = _take_apart(
            wire.load(data, is_strict=False)
        )
        blocks: list[IntervalBlock] = []
        entries: list[LogEntry] = []
        verdicts: list[Verdict] = []
        for index, item in enumerate(block_items):
            try:
                block = IntervalBlock.from_tree(item)
                if any(block.channel == other.channel for other in blocks):
                    raise ModelError("bad block", "a channel comes twice")
                blocks.append(block)
            except ModelError as error:
                verdicts.append(_unreadable(RecordRef(RecordKind.BLOCK, index), error))
        for index, item in enumerate(entry_items):
            try:
                entries.append(LogEntry.from_tree(item, day * wire.DAY_S))
            except ModelError as error:
                verdicts.append(_unreadable(RecordRef(RecordKind.ENTRY, index), error))
        return cls(channel_set, day, clock, tuple(blocks), tuple(entries)), verdicts


def kept_indices(kind: RecordKind, count: int, verdicts: Sequence[Verdict]) -> list[int]:
    """Where the `count` records of `kind` stood that a lenient decoding kept, in their order."""
    dropped = {
        verdict.record.index
        for verdict in verdicts
        if verdict.record.kind is kind and verdict.disposition is Disposition.UNREADABLE
    }
    return [index for index in range(count + len(dropped)) if index not in dropped][:count]


def _take_apart(
    tree: object,
) -> tuple[int, int, ClockReading, Sequence[object], Sequence[object]]:
    items = wire.array(tree, 6, 6, "report")
    return (
        wire.integer(items[0], 0, CHANNEL_SET_MAX, "channel set"),
        wire.integer(items[1], 0, wire.DAY_MAX, "day"),
        ClockReading.from_tree(items[2], items[3]),
        wire.array(items[4], 0, BLOCK_COUNT_MAX, "blocks"),
        wire.array(items[5], 0, ENTRY_COUNT_MAX, "entries"),
    )


def _unreadable(record: RecordRef, error: ModelError) -> Verdict:
    return Verdict(record, Disposition.UNREADABLE, error.reason)


@dataclass(frozen=True, slots=True)
class ReportAcknowledgement:
    """Said only after the commit. No verdict means that everything was plainly accepted.

    `received_ms` is when the report came, UTC in milliseconds; `held_ms` how long until this
    answer left. From the two a meter judges its clock.
    """

    received_ms: int
    held_ms: int
    verdicts: tuple[Verdict, ...] = ()

    def __post_init__(self) -> None:
        wire.integer(self.received_ms, 0, wire.UTC_MS_MAX, "time of receipt")
        wire.integer(self.held_ms, 0, wire.HELD_MS_MAX, "time held")
        wire.array(self.verdicts, 0, VERDICT_COUNT_MAX, "verdicts")

    def encode(self) -> bytes:
        """The acknowledgement's one encoding."""
        return wire.dump(
            [
                self.received_ms,
                self.held_ms,
                [
                    [
                        int(verdict.record.kind),
                        verdict.record.index,
                        int(verdict.disposition),
                        verdict.reason,
                    ]
                    for verdict in self.verdicts
                ],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> ReportAcknowledgement:
        """The acknowledgement that `data` is the encoding of."""
        items = wire.array(wire.load(data), 3, 3, "acknowledgement")
        return cls(
            wire.integer(items[0], 0, wire.UTC_MS_MAX, "time of receipt"),
            wire.integer(items[1], 0, wire.HELD_MS_MAX, "time held"),
            tuple(
                _verdict_from_tree(item)
                for item in wire.array(items[2], 0, VERDICT_COUNT_MAX, "verdicts")
            ),
        )


def _verdict_from_tree(item: object) -> Verdict:
    kind, index, disposition, reason = wire.array(item, 4, 4, "verdict")
    return Verdict(
        RecordRef(
            wire.member(kind, RecordKind, "record kind"),
            wire.integer(index, 0, ENTRY_COUNT_MAX - 1, "record index"),
        ),
        wire.member(disposition, Disposition, "disposition"),
        wire.text(reason, 0, REASON_SIZE_MAX, "reason"),
    )
