"""Each kind of read, as SQL. Called on the reader's own thread and connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from amistack.identifiers import Eui64
from amistack.keystore import Sealer
from headend.domain.meters import (
    ChannelRecord,
    CloneSign,
    FormerSession,
    Location,
    Meter,
    MeterState,
    RegistrationRecord,
    StoredSession,
    Suspicion,
)
from headend.domain.readings import BlockFlag, DayBlock, LogRecord, OnDemandRead, ReadResult
from headend.store.interface import Counts, MeterOverview, StoredBlock
from headend.store.sqlite.sealing import opened

Row = tuple[Any, ...]
"""A row as SQLite gives it; the DDL of the STRICT tables is its type."""

_OVERVIEW = """
SELECT m.meter, m.public_key, m.state, m.enrolled_at,
  EXISTS (SELECT 1 FROM session s WHERE s.meter = m.meter),
  l.path, l.confirmed_at,
  g.registered_at, g.reason, g.software, g.model_version, g.channel_set, g.standard_offset_min,
  (SELECT max(day) FROM report p WHERE p.meter = m.meter),
  (SELECT count(*) FROM report p WHERE p.meter = m.meter),
  u.meter, u.reason, u.first_at, u.last_at, u.count, u.path, u.other_path
FROM meter m LEFT JOIN location l ON l.meter = m.meter LEFT JOIN registration g ON g.meter = m.meter
LEFT JOIN suspicion u ON u.meter = m.meter
"""

_SESSION = (
    "s.meter, s.recipient_id, s.sender_id, s.master_secret, s.master_salt, s.algorithm, "
    "s.reserved_until, s.window_base, s.window_bitmap, s.established_at, s.is_window_doubtful"
)

_BLOCK = """
SELECT b.meter, b.channel, b.day, b.channel_set, b.interval_s, b.opening, b.advance, b.packed,
  b.qualities, b.flags, c.reading_type, c.register_type, c.multiplier, c.unit, c.interval_s,
  p.received_ms, p.method, p.path, p.offset_min
FROM day_block b
JOIN channel c ON c.meter = b.meter AND c.channel_set = b.channel_set AND c.channel = b.channel
JOIN report p ON p.meter = b.meter AND p.day = b.day
"""


def meters(
    connection: sqlite3.Connection, after: Eui64 | None, limit: int
) -> Sequence[MeterOverview]:
    """See `Store.meters`."""
    rows = connection.execute(
        f"{_OVERVIEW} WHERE m.meter > ? ORDER BY m.meter LIMIT ?", (after or b"", limit)
    ).fetchall()
    return [_overview(connection, row) for row in rows]


def find_overview(connection: sqlite3.Connection, meter: Eui64) -> MeterOverview | None:
    """See `Store.find_overview`."""
    row = connection.execute(f"{_OVERVIEW} WHERE m.meter = ?", (meter,)).fetchone()
    return None if row is None else _overview(connection, row)


def _overview(connection: sqlite3.Connection, row: Row) -> MeterOverview:
    meter, public_key, state, enrolled_at, is_secured, path, confirmed_at = row[:7]
    declared = row[7:13]
    newest_day, report_count = row[13:15]
    suspected = row[15:]
    record: RegistrationRecord | None = None
    if declared[0] is not None:
        registered_at, reason, software, model_version, channel_set, offset = declared
        record = RegistrationRecord(
            meter,
            registered_at,
            reason,
            software,
            model_version,
            channel_set,
            offset,
            channels(connection, meter, channel_set),
        )
    return MeterOverview(
        Meter(meter, public_key, MeterState(state), enrolled_at),
        bool(is_secured),
        None if path is None else Location(meter, path, confirmed_at),
        record,
        newest_day,
        report_count,
        None if suspected[0] is None else _suspicion(suspected),
    )


def _suspicion(row: Row) -> Suspicion:
    meter, sign, first_at, last_at, count, path, other_path = row
    return Suspicion(Eui64(meter), CloneSign[sign], first_at, last_at, count, path, other_path)


def channels(
    connection: sqlite3.Connection, meter: Eui64, channel_set: int
) -> tuple[ChannelRecord, ...]:
    """See `Store.channels`."""
    rows = connection.execute(
        "SELECT channel, reading_type, register_type, multiplier, unit, interval_s FROM channel "
        "WHERE meter = ? AND channel_set = ? ORDER BY channel",
        (meter, channel_set),
    )
    return tuple(ChannelRecord(*row) for row in rows)


def find_meter(connection: sqlite3.Connection, meter: Eui64) -> Meter | None:
    """See `Store.find_meter`."""
    row = connection.execute("SELECT * FROM meter WHERE meter = ?", (meter,)).fetchone()
    return None if row is None else Meter(row[0], row[1], MeterState(row[2]), row[3])


def sessions(
    connection: sqlite3.Connection, after: Eui64, limit: int | None, sealer: Sealer | None
) -> list[StoredSession]:
    """See `Store.sessions`."""
    # A session of nobody in the registry counts as well: there is no standing to forbid it.
    rows = connection.execute(
        f"SELECT {_SESSION} FROM session s LEFT JOIN meter m ON m.meter = s.meter "
        "WHERE (m.state IS NULL OR m.state = ?) AND s.meter > ? ORDER BY s.meter LIMIT ?",
        (MeterState.ENROLLED, after, _bound(limit)),
    )
    return [_session(row, sealer) for row in rows]


def find_session(
    connection: sqlite3.Connection, meter: Eui64, sealer: Sealer | None
) -> StoredSession | None:
    """See `Store.find_session`."""
    row = connection.execute(
        f"SELECT {_SESSION} FROM session s WHERE s.meter = ?", (meter,)
    ).fetchone()
    return None if row is None else _session(row, sealer)


def _session(row: Row, sealer: Sealer | None) -> StoredSession:
    meter, recipient_id, sender_id, secret, salt, algorithm, until, base, bitmap, at, doubt = row
    return StoredSession(
        meter,
        recipient_id,
        sender_id,
        opened(meter, secret, sealer),
        salt,
        algorithm,
        until,
        (base, int.from_bytes(bitmap, "big")),
        at,
        bool(doubt),
    )


def heard_at(connection: sqlite3.Connection, meter: Eui64) -> int | None:
    """See `Store.heard_at`."""
    row = connection.execute("SELECT heard_at FROM session WHERE meter = ?", (meter,)).fetchone()
    return None if row is None else int(row[0])


def newest_at(connection: sqlite3.Connection) -> int:
    """See `Store.newest_at`."""
    (newest,) = connection.execute(
        "SELECT max(coalesce((SELECT max(heard_at) FROM session), 0), "
        "coalesce((SELECT max(enrolled_at) FROM meter), 0))"
    ).fetchone()
    return int(newest)


def find_former(
    connection: sqlite3.Connection, recipient_id: bytes, sealer: Sealer | None
) -> FormerSession | None:
    """See `Store.find_former`."""
    row = connection.execute(
        "SELECT meter, recipient_id, sender_id, master_secret, master_salt, algorithm, "
        "window_base, window_bitmap, replaced_at FROM former_session WHERE recipient_id = ?",
        (recipient_id,),
    ).fetchone()
    if row is None:
        return None
    meter, recipient_id, sender_id, secret, salt, algorithm, base, bitmap, replaced_at = row
    return FormerSession(
        meter,
        recipient_id,
        sender_id,
        opened(meter, secret, sealer),
        salt,
        algorithm,
        (base, int.from_bytes(bitmap, "big")),
        replaced_at,
    )


def suspicions(connection: sqlite3.Connection) -> list[Suspicion]:
    """See `Store.suspicions`."""
    rows = connection.execute("SELECT * FROM suspicion ORDER BY last_at DESC, meter")
    return [_suspicion(row) for row in rows]


def recalls(connection: sqlite3.Connection) -> list[Eui64]:
    """See `Store.recalls`."""
    return [meter for (meter,) in connection.execute("SELECT meter FROM recall")]


def report_days(
    connection: sqlite3.Connection, meter: Eui64, first_day: int, last_day: int
) -> list[int]:
    """See `Store.report_days`."""
    rows = connection.execute(
        "SELECT day FROM report WHERE meter = ? AND day BETWEEN ? AND ?",
        (meter, first_day, last_day),
    )
    return [day for (day,) in rows]


def locations(connection: sqlite3.Connection, after: Eui64, limit: int | None) -> list[Location]:
    """See `Store.locations`."""
    rows = connection.execute(
        "SELECT * FROM location WHERE meter > ? ORDER BY meter LIMIT ?", (after, _bound(limit))
    )
    return [Location(*row) for row in rows]


def channel_sets(
    connection: sqlite3.Connection, after: Eui64, limit: int | None
) -> list[tuple[Eui64, int, ChannelRecord]]:
    """See `Store.channel_sets`."""
    rows = connection.execute(
        "SELECT * FROM channel WHERE meter IN "
        "(SELECT DISTINCT meter FROM channel WHERE meter > ? ORDER BY meter LIMIT ?) "
        "ORDER BY meter, channel_set, channel",
        (after, _bound(limit)),
    )
    # A fleet declares a handful of different channels: one value each is enough.
    shared: dict[tuple[Any, ...], ChannelRecord] = {}
    found = []
    for meter, channel_set, *rest in rows:
        key = tuple(rest)
        channel = shared.get(key)
        if channel is None:
            channel = shared[key] = ChannelRecord(*rest)
        found.append((meter, channel_set, channel))
    return found


def offsets(
    connection: sqlite3.Connection, after: Eui64, limit: int | None
) -> list[tuple[Eui64, int]]:
    """See `Store.offsets`."""
    return connection.execute(
        "SELECT meter, standard_offset_min FROM registration WHERE meter > ? "
        "ORDER BY meter LIMIT ?",
        (after, _bound(limit)),
    ).fetchall()


def _bound(limit: int | None) -> int:
    """As SQLite has it: below zero is none."""
    return -1 if limit is None else limit


def blocks(
    connection: sqlite3.Connection, meter: Eui64, first_day: int, last_day: int
) -> list[StoredBlock]:
    """See `Store.blocks`."""
    rows = connection.execute(
        f"{_BLOCK} WHERE b.meter = ? AND b.day BETWEEN ? AND ? ORDER BY b.channel, b.day",
        (meter, first_day, last_day),
    )
    return [_block(row) for row in rows]


def blocks_of_day(connection: sqlite3.Connection, day: int) -> list[StoredBlock]:
    """See `Store.blocks_of_day`."""
    rows = connection.execute(f"{_BLOCK} WHERE p.day = ? ORDER BY b.meter, b.channel", (day,))
    return [_block(row) for row in rows]


def _block(row: Row) -> StoredBlock:
    values = (*row[:9], BlockFlag(row[9]))
    return StoredBlock(DayBlock(*values), ChannelRecord(row[1], *row[10:15]), *row[15:])


def log_entries(connection: sqlite3.Connection, meter: Eui64, limit: int) -> list[LogRecord]:
    """See `Store.log_entries`."""
    rows = connection.execute(
        "SELECT meter, sequence, at, event_type, detail, is_time_doubtful FROM log_entry "
        "WHERE meter = ? ORDER BY sequence DESC LIMIT ?",
        (meter, limit),
    )
    return [
        LogRecord(meter, sequence, at, event_type, detail, bool(is_time_doubtful))
        for meter, sequence, at, event_type, detail, is_time_doubtful in rows
    ]


def reads(connection: sqlite3.Connection, meter: Eui64 | None, limit: int) -> list[OnDemandRead]:
    """See `Store.reads`."""
    where = "" if meter is None else "WHERE meter = ?"
    arguments = (limit,) if meter is None else (meter, limit)
    rows = connection.execute(
        f"SELECT * FROM on_demand_read {where} ORDER BY asked_ms DESC, identifier LIMIT ?",
        arguments,
    )
    return [_read(row) for row in rows]


def find_read(connection: sqlite3.Connection, identifier: bytes) -> OnDemandRead | None:
    """See `Store.find_read`."""
    row = connection.execute(
        "SELECT * FROM on_demand_read WHERE identifier = ?", (identifier,)
    ).fetchone()
    return None if row is None else _read(row)


def _read(row: Row) -> OnDemandRead:
    identifier, meter, asked_ms, answered_ms, result, path, answer, detail = row
    return OnDemandRead(
        identifier, meter, asked_ms, ReadResult(result), answered_ms, path, answer, detail
    )


def counts(connection: sqlite3.Connection, days: Sequence[int]) -> Counts:
    """See `Store.counts`."""

    def one(sql: str, *arguments: object) -> int:
        (number,) = connection.execute(f"SELECT count(*) FROM {sql}", arguments).fetchone()
        assert isinstance(number, int)
        return number

    return Counts(
        meters=one("meter"),
        secured=one("session"),
        registered=one("registration"),
        reports=one("report"),
        reports_of_day={day: one("report WHERE day = ?", day) for day in days},
        blocks=one("day_block"),
        log_entries=one("log_entry"),
        quarantined=one("quarantine"),
        reads_asked=one("on_demand_read"),
        reads_answered=one("on_demand_read WHERE result = ?", int(ReadResult.ANSWERED)),
        suspected=one("suspicion"),
        standing={
            MeterState(state): count
            for state, count in connection.execute("SELECT state, count(*) FROM meter GROUP BY 1")
        },
    )
