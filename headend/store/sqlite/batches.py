"""Deliveries of many meters at once: rows for the same table go into it together.

Each statement gives the interpreter away and has to get it back from the thread that receives, so
a statement for each row costs more than the row does. A batch writes what `writing` would write
for its deliveries one by one, in fewer statements.

Gives   for each delivery what became of its records; None where a record is not new: then nothing
        of the batch is kept, and one by one it is found out which
Limit   a batch has one delivery of a meter and of a session at most, so that order says nothing
        within it; ROW_COUNTS rows go into one statement
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from typing import Final

from headend.domain.readings import DayBlock, LogRecord, ReportRecord
from headend.store.interface import KeepDelivery, Kept, Write

ROW_COUNTS: Final = (64, 16, 4, 1)
"""Rows in a statement: few sizes, so that each is prepared once and kept."""

_SESSION: Final = (
    "WITH new(recipient_id, base, bitmap, heard_at) AS (VALUES {rows}) "
    "UPDATE session SET window_base = new.base, window_bitmap = new.bitmap, "
    "is_window_doubtful = 0, heard_at = coalesce(new.heard_at, session.heard_at) "
    "FROM new WHERE session.recipient_id = new.recipient_id"
)
_LOCATION: Final = (
    "INSERT INTO location VALUES {rows} ON CONFLICT (meter) DO UPDATE "
    "SET path = excluded.path, confirmed_at = excluded.confirmed_at "
    "WHERE path <> excluded.path"
)
_REPORT: Final = "INSERT INTO report VALUES {rows} ON CONFLICT DO NOTHING"
_BLOCK: Final = "INSERT INTO day_block VALUES {rows} ON CONFLICT DO NOTHING"
_ENTRY: Final = "INSERT INTO log_entry VALUES {rows} ON CONFLICT DO NOTHING"


def _sized(template: str, columns: int) -> dict[int, str]:
    row = f"({', '.join('?' * columns)})"
    return {count: template.format(rows=", ".join([row] * count)) for count in ROW_COUNTS}


_SESSION_SQL: Final = _sized(_SESSION, 4)
_LOCATION_SQL: Final = _sized(_LOCATION, 3)
_REPORT_SQL: Final = _sized(_REPORT, 8)
_BLOCK_SQL: Final = _sized(_BLOCK, 10)
_ENTRY_SQL: Final = _sized(_ENTRY, 7)

_PLAIN: Final = frozenset({ReportRecord, DayBlock, LogRecord})

Row = tuple[object, ...]


def batch_at(writes: Sequence[Write], start: int) -> list[KeepDelivery]:
    """The deliveries from `start` on that can be one batch: none, or two and more."""
    batch: list[KeepDelivery] = []
    seen: set[bytes] = set()
    for write in itertools.islice(writes, start, None):
        if (
            not isinstance(write, KeepDelivery)
            or write.meter in seen
            or write.recipient_id in seen
            or not _PLAIN.issuperset(map(type, write.records))
        ):
            break
        seen.add(write.meter)
        seen.add(write.recipient_id)
        batch.append(write)
    return batch if len(batch) > 1 else []


def keep_batch(
    connection: sqlite3.Connection, batch: Sequence[KeepDelivery]
) -> list[tuple[Kept, ...]] | None:
    """Keep all of it, inside the caller's transaction."""
    reports: list[Row] = []
    blocks: list[Row] = []
    entries: list[Row] = []
    for delivery in batch:
        received_ms = delivery.received_ms
        for record in delivery.records:
            if isinstance(record, DayBlock):
                blocks.append(
                    (
                        record.meter,
                        record.channel,
                        record.day,
                        record.channel_set,
                        record.interval_s,
                        record.opening,
                        record.advance,
                        record.packed,
                        record.qualities,
                        int(record.flags),
                    )
                )
            elif isinstance(record, LogRecord):
                entries.append(
                    (
                        record.meter,
                        record.sequence,
                        record.at,
                        record.event_type,
                        record.detail,
                        int(record.is_time_doubtful),
                        received_ms,
                    )
                )
            else:
                assert isinstance(record, ReportRecord), "`batch_at` takes no other"
                reports.append(
                    (
                        record.meter,
                        record.day,
                        int(record.method),
                        delivery.path,
                        received_ms,
                        record.clock_s,
                        int(record.clock_state),
                        record.offset_min,
                    )
                )
    connection.execute("SAVEPOINT batch")
    is_new = (
        _execute(connection, _REPORT_SQL, reports) == len(reports)
        and _execute(connection, _BLOCK_SQL, blocks) == len(blocks)
        and _execute(connection, _ENTRY_SQL, entries) == len(entries)
    )
    if not is_new:
        connection.execute("ROLLBACK TO batch")
        connection.execute("RELEASE batch")
        return None
    _execute(
        connection,
        _SESSION_SQL,
        [
            (
                one.recipient_id,
                one.window[0],
                one.window[1].to_bytes(8, "big"),
                None if one.is_behind else one.received_ms // 1000,
            )
            for one in batch
        ],
    )
    _execute(
        connection,
        _LOCATION_SQL,
        [(one.meter, one.path, one.received_ms // 1000) for one in batch],
    )
    connection.execute("RELEASE batch")
    return [(Kept.NEW,) * len(one.records) for one in batch]


def _execute(connection: sqlite3.Connection, sized: dict[int, str], rows: Sequence[Row]) -> int:
    """Write all of `rows`; how many changed anything."""
    changed = at = 0
    for size in ROW_COUNTS:
        while len(rows) - at >= size:
            flat = list(itertools.chain.from_iterable(rows[at : at + size]))
            changed += connection.execute(sized[size], flat).rowcount
            at += size
    return changed
