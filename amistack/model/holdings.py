"""What a meter holds that no path of its own carries: the parts of a dump beside those messages.

Spec    docs/protocol/model.md, "Dump"
Raises  `ModelError`, and nothing else, from every decoder
Limit   LOG_ENTRY_COUNT_MAX entries, RUN_COUNT_MAX runs, ROW_COUNT_MAX rows in one message
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from amistack.cbor import is_array
from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.events import SEQUENCE_MAX, LogEntry
from amistack.model.programme import Programme
from amistack.model.report import CHANNEL_SET_MAX

LOG: Final = "log"
"""The path of a part with log entries."""
TEXT: Final = "text"
"""The path of a part with a text message; `msg` has what became of them."""
KEPT_PROGRAMME: Final = "kept"
"""The path of a part with a programme: one that runs, waits, or ran on a day that is kept."""
OWED: Final = "owed"
"""The path of the part that says what is not acknowledged."""
TABLE: Final = "table"
"""The path of a part with rows of the meter's own bookkeeping."""

LOG_ENTRY_COUNT_MAX: Final = 512
DAY_COUNT_MAX: Final = 64
RUN_COUNT_MAX: Final = 2_048
OWED_ENTRY_COUNT_MAX: Final = 65_536
ROW_COUNT_MAX: Final = 1_024
TABLE_NAME_SIZE_MAX: Final = 24
DEPTH_MAX: Final = 4
"""Arrays in arrays of a row."""


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Log entries, by sequence: those that were reported as well."""

    entries: tuple[LogEntry, ...]

    def __post_init__(self) -> None:
        wire.array(self.entries, 1, LOG_ENTRY_COUNT_MAX, "entries")

    def encode(self) -> bytes:
        """The batch's one encoding; times are from that of the first entry on."""
        base_s = self.entries[0].at
        return wire.dump([base_s, [entry.to_tree(base_s) for entry in self.entries]])

    @classmethod
    def decode(cls, data: bytes) -> LogBatch:
        """The batch that `data` is the encoding of."""
        base, entries = wire.array(wire.load(data), 2, 2, "log batch")
        base_s = wire.integer(base, 0, wire.UTC_S_MAX, "time of the first entry")
        items = wire.array(entries, 1, LOG_ENTRY_COUNT_MAX, "entries")
        found = tuple(LogEntry.from_tree(item, base_s) for item in items)
        if found[0].at != base_s:
            raise ModelError("not deterministic", "times are not from that of the first entry on")
        return cls(found)


@dataclass(frozen=True, slots=True)
class KeptProgramme:
    """A programme that is in force from `since` (UTC s) on, and the number of its channel set."""

    since: int
    channel_set: int
    programme: Programme

    def __post_init__(self) -> None:
        wire.integer(self.since, 0, wire.UTC_S_MAX, "time of the programme")
        wire.integer(self.channel_set, 0, CHANNEL_SET_MAX, "channel set")

    def encode(self) -> bytes:
        """The one encoding."""
        return wire.dump([self.since, self.channel_set, self.programme.encode()])

    @classmethod
    def decode(cls, data: bytes) -> KeptProgramme:
        """The programme that `data` is the encoding of."""
        since, channel_set, octets = wire.array(wire.load(data), 3, 3, "kept programme")
        return cls(
            wire.integer(since, 0, wire.UTC_S_MAX, "time of the programme"),
            wire.integer(channel_set, 0, CHANNEL_SET_MAX, "channel set"),
            Programme.decode(wire.octets(octets, 1, wire.PAYLOAD_SIZE_MAX, "programme")),
        )


@dataclass(frozen=True, slots=True)
class Owed:
    """What the head-end has not acknowledged: days, newest first, and runs of log entries.

    A run is the sequence number of its first entry and how many follow one another from there.
    `next_sequence` is that of the entry that comes next.
    """

    next_sequence: int
    days: tuple[int, ...] = ()
    runs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        wire.integer(self.next_sequence, 0, SEQUENCE_MAX, "next sequence")
        wire.array(self.days, 0, DAY_COUNT_MAX, "days")
        for day in self.days:
            wire.integer(day, 0, wire.DAY_MAX, "day")
        wire.array(self.runs, 0, RUN_COUNT_MAX, "runs")
        for first, count in self.runs:
            wire.integer(first, 0, SEQUENCE_MAX, "sequence")
            wire.integer(count, 1, OWED_ENTRY_COUNT_MAX, "count of entries")
        if sum(count for _, count in self.runs) > OWED_ENTRY_COUNT_MAX:
            raise ModelError("too long", f"more than {OWED_ENTRY_COUNT_MAX} entries owed")

    @property
    def sequences(self) -> list[int]:
        """The entries, one by one."""
        return [number for first, count in self.runs for number in range(first, first + count)]

    def encode(self) -> bytes:
        """The one encoding."""
        return wire.dump([self.next_sequence, list(self.days), [list(run) for run in self.runs]])

    @classmethod
    def decode(cls, data: bytes) -> Owed:
        """What `data` is the encoding of."""
        next_sequence, days, runs = wire.array(wire.load(data), 3, 3, "owed")
        return cls(
            wire.integer(next_sequence, 0, SEQUENCE_MAX, "next sequence"),
            tuple(
                wire.integer(day, 0, wire.DAY_MAX, "day")
                for day in wire.array(days, 0, DAY_COUNT_MAX, "days")
            ),
            tuple(_run(run) for run in wire.array(runs, 0, RUN_COUNT_MAX, "runs")),
        )


def owed_of(next_sequence: int, days: Iterable[int], sequences: Iterable[int]) -> list[Owed]:
    """Those days and entries, in as many messages as it takes, one at least."""
    runs: list[tuple[int, int]] = []
    for number in sorted(sequences):
        if runs and number == sum(runs[-1]):
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((number, 1))
    first = Owed(next_sequence, tuple(days), tuple(runs[:RUN_COUNT_MAX]))
    more = range(RUN_COUNT_MAX, len(runs), RUN_COUNT_MAX)
    return [first, *(Owed(next_sequence, (), tuple(runs[at : at + RUN_COUNT_MAX])) for at in more)]


Cell = int | str | bytes | bool | tuple["Cell", ...]
"""What a row is made of."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows of a table of the meter's bookkeeping, each a key and what is kept under it.

    What they mean is the affair of the meter's software, and changes with it.
    """

    name: str
    rows: tuple[tuple[Cell, Cell], ...]

    def __post_init__(self) -> None:
        wire.text(self.name, 1, TABLE_NAME_SIZE_MAX, "table")
        wire.array(self.rows, 1, ROW_COUNT_MAX, "rows")

    def encode(self) -> bytes:
        """The one encoding."""
        return wire.dump([self.name, [[_tree(key), _tree(value)] for key, value in self.rows]])

    @classmethod
    def decode(cls, data: bytes) -> TableRows:
        """The rows that `data` are the encoding of."""
        name, rows = wire.array(wire.load(data), 2, 2, "table")
        return cls(
            wire.text(name, 1, TABLE_NAME_SIZE_MAX, "table"),
            tuple(_row(row) for row in wire.array(rows, 1, ROW_COUNT_MAX, "rows")),
        )


def cell(item: object, depth: int = 0) -> Cell:
    """`item` with tuples for arrays. Raises ModelError on what no row is made of."""
    if isinstance(item, int | str | bytes):
        return item
    if not is_array(item) or depth == DEPTH_MAX:
        raise ModelError("wrong type", f"a row has {type(item).__name__}, or too deep an array")
    return tuple(cell(one, depth + 1) for one in item)


def _tree(of: Cell) -> object:
    return [_tree(one) for one in of] if isinstance(of, tuple) else of


def _row(item: object) -> tuple[Cell, Cell]:
    key, value = wire.array(item, 2, 2, "row")
    return cell(key), cell(value)


def _run(item: object) -> tuple[int, int]:
    first, count = wire.array(item, 2, 2, "run")
    return (
        wire.integer(first, 0, SEQUENCE_MAX, "sequence"),
        wire.integer(count, 1, OWED_ENTRY_COUNT_MAX, "count of entries"),
    )
