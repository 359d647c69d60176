"""Each kind of write, as SQL. Called by the writer inside its transaction."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import assert_never

from amistack.identifiers import Eui64
from headend.domain.meters import RegistrationRecord, StoredSession
from headend.domain.readings import (
    DayBlock,
    LogRecord,
    OnDemandRead,
    QuarantinedRecord,
    ReadResult,
    ReportRecord,
)
from headend.store.interface import (
    Enrolled,
    EnrolmentConflict,
    EnrolMeters,
    InterruptReads,
    KeepDelivery,
    KeepRead,
    KeepSession,
    Kept,
    Outcome,
    RecallDone,
    Record,
    ReserveNumbers,
    Write,
)


def apply(connection: sqlite3.Connection, write: Write) -> Outcome:
    """Carry out one write; what it answers is its outcome once the transaction is committed."""
    match write:
        case KeepDelivery():
            return _keep_delivery(connection, write)
        case ReserveNumbers():
            connection.execute(
                "UPDATE session SET reserved_until = max(reserved_until, ?) WHERE recipient_id = ?",
                (write.until, write.recipient_id),
            )
            return None
        case KeepSession():
            _keep_session(connection, write.session)
            _keep_location(
                connection, write.session.meter, write.path, write.session.established_at
            )
            return None
        case RecallDone():
            connection.execute("DELETE FROM recall WHERE meter = ?", (write.meter,))
            return None
        case KeepRead():
            _keep_read(connection, write.read)
            return None
        case EnrolMeters():
            return _enrol(connection, write)
        case InterruptReads():
            connection.execute(
                "UPDATE on_demand_read SET result = ? WHERE result = ?",
                (ReadResult.INTERRUPTED, ReadResult.ASKED),
            )
            return None
        case _:
            assert_never(write)


def doubt(connection: sqlite3.Connection) -> None:
    """Mark what cannot be trusted in a store that was put back from a backup."""
    connection.execute("UPDATE session SET is_window_doubtful = 1")
    connection.execute("INSERT OR IGNORE INTO recall SELECT meter FROM meter")


def _enrol(connection: sqlite3.Connection, write: EnrolMeters) -> Outcome:
    known: dict[Eui64, bytes] = {}
    for meter in write.meters:
        row = connection.execute(
            "SELECT public_key FROM meter WHERE meter = ?", (meter.id,)
        ).fetchone()
        if row is not None:
            known[meter.id] = row[0]
    conflicts = tuple(m.id for m in write.meters if known.get(m.id, m.public_key) != m.public_key)
    if conflicts:
        return EnrolmentConflict(conflicts)
    connection.executemany(
        "INSERT INTO meter VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(m.id, m.public_key, m.state, m.enrolled_at) for m in write.meters],
    )
    return Enrolled(new=len(write.meters) - len(known), known=len(known))


def _keep_session(connection: sqlite3.Connection, session: StoredSession) -> None:
    base, bitmap = session.window
    connection.execute(
        "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            session.meter,
            session.recipient_id,
            session.sender_id,
            session.master_secret,
            session.master_salt,
            session.algorithm,
            session.reserved_until,
            base,
            bitmap.to_bytes(8, "big"),
            session.established_at,
        ),
    )


def _keep_location(connection: sqlite3.Connection, meter: Eui64, path: str, at: int) -> None:
    # Written only when it changes: a meter that stays where it is costs no page a report.
    connection.execute(
        "INSERT INTO location VALUES (?, ?, ?) ON CONFLICT (meter) DO UPDATE "
        "SET path = excluded.path, confirmed_at = excluded.confirmed_at "
        "WHERE path <> excluded.path",
        (meter, path, at),
    )


def _keep_read(connection: sqlite3.Connection, read: OnDemandRead) -> None:
    connection.execute(
        "INSERT INTO on_demand_read VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (identifier) DO UPDATE "
        "SET answered_ms = excluded.answered_ms, result = excluded.result, path = excluded.path, "
        "answer = excluded.answer, detail = excluded.detail",
        (
            read.identifier,
            read.meter,
            read.asked_ms,
            read.answered_ms,
            read.result,
            read.path,
            read.answer,
            read.detail,
        ),
    )


def _keep_delivery(connection: sqlite3.Connection, delivery: KeepDelivery) -> tuple[Kept, ...]:
    base, bitmap = delivery.window
    connection.execute(
        "UPDATE session SET window_base = ?, window_bitmap = ?, is_window_doubtful = 0 "
        "WHERE recipient_id = ?",
        (base, bitmap.to_bytes(8, "big"), delivery.recipient_id),
    )
    _keep_location(connection, delivery.meter, delivery.path, delivery.received_ms // 1000)
    return tuple(_keep_record(connection, delivery, record) for record in delivery.records)


def _keep_record(connection: sqlite3.Connection, delivery: KeepDelivery, record: Record) -> Kept:
    match record:
        case DayBlock():
            return _keep_block(connection, delivery, record)
        case ReportRecord():
            inserted = connection.execute(
                "INSERT INTO report VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    record.meter,
                    record.day,
                    record.method,
                    delivery.path,
                    delivery.received_ms,
                    record.clock_s,
                    record.clock_state,
                    record.offset_min,
                ),
            ).rowcount
            return Kept.NEW if inserted else Kept.REPEATED
        case LogRecord():
            return _keep_log_entry(connection, delivery, record)
        case QuarantinedRecord():
            return _quarantine(connection, delivery, record)
        case RegistrationRecord():
            _keep_registration(connection, record)
            return Kept.NEW
        case _:
            assert_never(record)


def _keep_block(connection: sqlite3.Connection, delivery: KeepDelivery, block: DayBlock) -> Kept:
    values = (
        block.channel_set,
        block.interval_s,
        block.opening,
        block.advance,
        block.packed,
        block.qualities,
    )
    inserted = connection.execute(
        "INSERT INTO day_block VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (block.meter, block.channel, block.day, *values, block.flags),
    ).rowcount
    if inserted:
        return Kept.NEW
    stored = connection.execute(
        "SELECT channel_set, interval_s, opening, advance, packed, qualities FROM day_block "
        "WHERE meter = ? AND channel = ? AND day = ?",
        (block.meter, block.channel, block.day),
    ).fetchone()
    if stored == values:
        return Kept.REPEATED
    # What is stored stays: which of two versions is right is not for the intake to say.
    _quarantine(
        connection,
        delivery,
        QuarantinedRecord(
            block.meter,
            f"another block of channel {block.channel} and day {block.day} is stored",
            repr(values).encode(),
        ),
    )
    return Kept.CONFLICT


def _keep_log_entry(
    connection: sqlite3.Connection, delivery: KeepDelivery, entry: LogRecord
) -> Kept:
    values = (entry.at, entry.event_type, entry.detail, int(entry.is_time_doubtful))
    inserted = connection.execute(
        "INSERT INTO log_entry VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (entry.meter, entry.sequence, *values, delivery.received_ms),
    ).rowcount
    if inserted:
        return Kept.NEW
    stored = connection.execute(
        "SELECT at, event_type, detail, is_time_doubtful FROM log_entry "
        "WHERE meter = ? AND sequence = ?",
        (entry.meter, entry.sequence),
    ).fetchone()
    if stored == values:
        return Kept.REPEATED
    _quarantine(
        connection,
        delivery,
        QuarantinedRecord(
            entry.meter, f"another log entry {entry.sequence} is stored", repr(values).encode()
        ),
    )
    return Kept.CONFLICT


def _quarantine(
    connection: sqlite3.Connection, delivery: KeepDelivery, record: QuarantinedRecord
) -> Kept:
    inserted = connection.execute(
        "INSERT INTO quarantine (meter, reason, path, received_ms, payload, digest) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            record.meter,
            record.reason,
            delivery.path,
            delivery.received_ms,
            record.payload,
            hashlib.sha256(record.payload).digest(),
        ),
    ).rowcount
    return Kept.NEW if inserted else Kept.REPEATED


def _keep_registration(connection: sqlite3.Connection, record: RegistrationRecord) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO registration VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            record.meter,
            record.registered_at,
            record.reason,
            record.software,
            record.model_version,
            record.channel_set,
            record.standard_offset_min,
        ),
    )
    connection.executemany(
        "INSERT OR REPLACE INTO channel VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                record.meter,
                record.channel_set,
                channel.number,
                channel.reading_type,
                channel.register_type,
                channel.multiplier,
                channel.unit,
                channel.interval_s,
            )
            for channel in record.channels
        ],
    )
