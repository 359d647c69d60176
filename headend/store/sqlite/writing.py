"""Each kind of write, as SQL. Called by the writer inside its transaction."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Final, assert_never

from amistack.identifiers import Eui64
from headend.domain.meters import MeterState, RegistrationRecord, StoredSession
from headend.domain.readings import (
    DayBlock,
    LogRecord,
    OnDemandRead,
    QuarantinedRecord,
    ReadResult,
    ReportRecord,
)
from headend.store.interface import (
    ChangeStanding,
    ConfirmTrust,
    DismissSuspicion,
    EndSessions,
    EnrolMeters,
    InterruptReads,
    KeepDelivery,
    KeepRead,
    KeepSession,
    Kept,
    NotEnrolled,
    Outcome,
    RecallDone,
    Record,
    Reserved,
    ReserveNumbers,
    SuspectClone,
    Write,
)
from headend.store.mesh import (
    AssignAddresses,
    KeepArea,
    KeepDenied,
    KeepTopologyReports,
    ReleaseAddresses,
)
from headend.store.sqlite import mesh, standing
from headend.store.sqlite.batches import batch_at, keep_batch

_MAY_JOIN: Final = (None, MeterState.ENROLLED)
"""Where a meter stands that may have a session; one without a place is known to the tests alone."""

FORMER_KEPT_S: Final = 7 * 86_400
"""Seconds that a session is kept after it was replaced: a copy of a meter speaks every day."""
KEPT_DAYS_S: Final = 45 * 86_400
"""Seconds of history that every meter keeps."""


def apply(connection: sqlite3.Connection, write: Write) -> Outcome:
    """Carry out one write; what it answers is its outcome once the transaction is committed."""
    match write:
        case KeepDelivery():
            return _keep_delivery(connection, write)
        case ReserveNumbers():
            return _reserve(connection, write)
        case KeepSession():
            # In the same transaction as the look: a handshake must not outrun a revocation.
            if standing.state_of(connection, write.session.meter) not in _MAY_JOIN:
                return NotEnrolled()
            _set_aside_session(connection, write.session.meter, write.session.established_at)
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
            return standing.enrol(connection, write)
        case ChangeStanding():
            return standing.change(connection, write)
        case EndSessions():
            return standing.end_sessions(connection, write)
        case ConfirmTrust():
            return standing.confirm_trust(connection, write)
        case SuspectClone():
            _suspect(connection, write)
            return None
        case DismissSuspicion():
            gone = connection.execute("DELETE FROM suspicion WHERE meter = ?", (write.meter,))
            return bool(gone.rowcount)
        case (
            KeepArea()
            | AssignAddresses()
            | ReleaseAddresses()
            | KeepTopologyReports()
            | KeepDenied()
        ):
            return mesh.apply(connection, write)
        case InterruptReads():
            connection.execute(
                "UPDATE on_demand_read SET result = ? WHERE result = ?",
                (ReadResult.INTERRUPTED, ReadResult.ASKED),
            )
            return None
        case _:
            assert_never(write)


def apply_all(connection: sqlite3.Connection, writes: Sequence[Write]) -> list[Outcome]:
    """`apply` to each, in order; deliveries of many meters in a row are kept together."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(writes):
        batch = batch_at(writes, len(outcomes))
        kept = keep_batch(connection, batch) if batch else None
        if kept is not None:
            outcomes += kept
            continue
        alone = writes[len(outcomes) : len(outcomes) + max(1, len(batch))]
        outcomes += [apply(connection, write) for write in alone]
    return outcomes


def doubt(connection: sqlite3.Connection, at: int) -> None:
    """Mark what cannot be trusted in a store that was put back from a backup; `at` UTC s."""
    connection.execute("UPDATE session SET is_window_doubtful = 1")
    connection.execute("INSERT OR IGNORE INTO recall SELECT meter FROM meter")
    connection.execute("UPDATE beat SET restored_at = ?", (at,))


def _set_aside_session(connection: sqlite3.Connection, meter: Eui64, at: int) -> None:
    """Keep the session that a meter has now as its former one; `at` UTC s."""
    connection.execute(
        "INSERT OR REPLACE INTO former_session SELECT meter, recipient_id, sender_id, "
        "master_secret, master_salt, algorithm, window_base, window_bitmap, ? "
        "FROM session WHERE meter = ?",
        (at, meter),
    )
    connection.execute("DELETE FROM former_session WHERE replaced_at < ?", (at - FORMER_KEPT_S,))


def _suspect(connection: sqlite3.Connection, write: SuspectClone) -> None:
    connection.execute(
        "INSERT INTO suspicion VALUES (?, ?, ?, ?, 1, ?, ?) ON CONFLICT (meter) DO UPDATE SET "
        "reason = excluded.reason, last_at = excluded.last_at, count = count + 1, "
        "path = excluded.path, other_path = excluded.other_path",
        (write.meter, write.sign.name, write.at, write.at, write.path, write.other_path),
    )
    if write.ends_session:
        _set_aside_session(connection, write.meter, write.at)
        connection.execute("DELETE FROM session WHERE meter = ?", (write.meter,))


def _reserve(connection: sqlite3.Connection, write: ReserveNumbers) -> Outcome:
    connection.execute(
        "UPDATE session SET reserved_until = max(reserved_until, ?), "
        "reserved_count = reserved_count + ? WHERE recipient_id = ?",
        (write.until, write.count, write.recipient_id),
    )
    row = connection.execute(
        "SELECT reserved_count FROM session WHERE recipient_id = ?", (write.recipient_id,)
    ).fetchone()
    return Reserved(0 if row is None else row[0])


def _keep_session(connection: sqlite3.Connection, session: StoredSession) -> None:
    base, bitmap = session.window
    connection.execute(
        "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
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
            session.established_at,
            session.reserved_until,
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
        "UPDATE session SET window_base = ?, window_bitmap = ?, is_window_doubtful = 0, "
        "heard_at = coalesce(?, heard_at) WHERE recipient_id = ?",
        (
            base,
            bitmap.to_bytes(8, "big"),
            None if delivery.is_behind else delivery.received_ms // 1000,
            delivery.recipient_id,
        ),
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
