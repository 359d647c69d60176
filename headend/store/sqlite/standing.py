"""Where meters stand, as SQL: enrolment, steps, and their history.

The writes are called by the writer inside its transaction, so that nothing comes between the look
at where a meter stands and the step; the reads on the reader's own thread and connection.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from amistack.identifiers import Eui64
from headend.domain.meters import MeterState
from headend.domain.standing import SESSION_KEPT, DeviceDetails, StandingChange, Step, next_state
from headend.store.interface import (
    ChangeStanding,
    ConfirmTrust,
    EndSessions,
    Enrolled,
    EnrolmentConflict,
    EnrolMeters,
    Outcome,
    StandingChanged,
    StandingRefused,
)

# Writing


_IN_SERVICE: Final = (MeterState.ENROLLED, MeterState.SUSPENDED)
"""Who speaks with the head-end, now or again."""


def enrol(connection: sqlite3.Connection, write: EnrolMeters) -> Outcome:
    """See `EnrolMeters`."""
    known: dict[Eui64, tuple[bytes, int]] = {}
    for meter in write.meters:
        row = connection.execute(
            "SELECT public_key, state FROM meter WHERE meter = ?", (meter.id,)
        ).fetchone()
        if row is not None:
            known[meter.id] = row
    conflicts = tuple(
        m.id for m in write.meters if m.id in known and known[m.id][0] != m.public_key
    )
    if conflicts:
        return EnrolmentConflict(conflicts)
    new = [m for m in write.meters if m.id not in known]
    moved = [
        m
        for m in write.meters
        if m.state is MeterState.ENROLLED and m.id in known and known[m.id][1] == MeterState.KNOWN
    ]
    outcome = Enrolled(new=len(new), known=len(known), moved=len(moved))
    if write.is_rehearsal:
        return outcome
    connection.executemany(
        "INSERT INTO meter VALUES (?, ?, ?, ?)",
        [(m.id, m.public_key, m.state, m.enrolled_at) for m in new],
    )
    connection.executemany(
        "UPDATE meter SET state = ?, enrolled_at = ? WHERE meter = ?",
        [(m.state, m.enrolled_at, m.id) for m in moved],
    )
    for meter in (*new, *moved):
        step = Step.IMPORT if meter.state is MeterState.KNOWN else Step.ENROL
        at_ms = meter.enrolled_at * 1000
        _note(connection, meter.id, at_ms, step, meter.state, write.actor, write.reason)
    connection.executemany(
        "INSERT OR REPLACE INTO device VALUES (?, ?, ?, ?, ?, ?)",
        [
            (meter, one.manufacturer, one.model, one.serial, one.hardware, one.firmware)
            for meter, one in write.details.items()
        ],
    )
    return outcome


def change(connection: sqlite3.Connection, write: ChangeStanding) -> Outcome:
    """See `ChangeStanding`."""
    states = {meter: state_of(connection, meter) for meter in write.meters}
    moves = {
        meter: None if state is None else next_state(state, write.step)
        for meter, state in states.items()
    }
    refused = tuple((meter, states[meter]) for meter, to in moves.items() if to is None)
    if refused:
        return StandingRefused(refused)
    changed: list[Eui64] = []
    for meter, to in moves.items():
        if to is None or to is states[meter]:
            continue
        changed.append(meter)
        connection.execute("UPDATE meter SET state = ? WHERE meter = ?", (to, meter))
        _note(connection, meter, write.at_ms, write.step, to, write.actor, write.reason)
        if to not in SESSION_KEPT:
            _delete_session(connection, meter)
            connection.execute("DELETE FROM former_session WHERE meter = ?", (meter,))
    return StandingChanged(tuple(changed), len(moves) - len(changed))


def end_sessions(connection: sqlite3.Connection, write: EndSessions) -> Outcome:
    """See `EndSessions`."""
    meters = tuple(dict.fromkeys(write.meters))
    unknown = tuple((meter, None) for meter in meters if state_of(connection, meter) is None)
    if unknown:
        return StandingRefused(unknown)
    ended = tuple(meter for meter in meters if _delete_session(connection, meter))
    return StandingChanged(ended, len(meters) - len(ended))


def confirm_trust(connection: sqlite3.Connection, write: ConfirmTrust) -> Outcome:
    """See `ConfirmTrust`."""
    connection.execute(
        "INSERT OR REPLACE INTO trust VALUES (?, ?, ?)", (write.meter, write.kid, write.at)
    )
    return None


def state_of(connection: sqlite3.Connection, meter: Eui64) -> MeterState | None:
    """Where a meter stands, None if it is not in the registry."""
    row = connection.execute("SELECT state FROM meter WHERE meter = ?", (meter,)).fetchone()
    return None if row is None else MeterState(row[0])


def _delete_session(connection: sqlite3.Connection, meter: Eui64) -> bool:
    return bool(connection.execute("DELETE FROM session WHERE meter = ?", (meter,)).rowcount)


def _note(
    connection: sqlite3.Connection,
    meter: Eui64,
    at_ms: int,
    step: Step,
    state: MeterState,
    actor: str,
    reason: str,
) -> None:
    connection.execute(
        "INSERT INTO standing_change SELECT ?, coalesce(max(number), 0) + 1, ?, ?, ?, ?, ? "
        "FROM standing_change WHERE meter = ?",
        (meter, at_ms, step, state, actor, reason, meter),
    )


# Reading


def history(connection: sqlite3.Connection, meter: Eui64, limit: int) -> list[StandingChange]:
    """See `Store.history`."""
    rows = connection.execute(
        "SELECT meter, number, at_ms, step, state, actor, reason FROM standing_change "
        "WHERE meter = ? ORDER BY number DESC LIMIT ?",
        (meter, limit),
    )
    return [
        StandingChange(of, number, at_ms, Step(step), MeterState(state), actor, reason)
        for of, number, at_ms, step, state, actor, reason in rows
    ]


def trust_counts(connection: sqlite3.Connection) -> dict[bytes, int]:
    """See `Store.trust_counts`."""
    rows = connection.execute(
        "SELECT coalesce(t.kid, x''), count(*) FROM meter m LEFT JOIN trust t ON t.meter = m.meter "
        "WHERE m.state IN (?, ?) GROUP BY 1",
        _IN_SERVICE,
    )
    return dict(rows.fetchall())


def unconfirmed(connection: sqlite3.Connection, kid: bytes) -> list[Eui64]:
    """See `Store.unconfirmed`."""
    rows = connection.execute(
        "SELECT m.meter FROM meter m LEFT JOIN trust t ON t.meter = m.meter "
        "WHERE m.state IN (?, ?) AND t.kid IS NOT ?",
        (*_IN_SERVICE, kid),
    )
    return [meter for (meter,) in rows]


def find_details(connection: sqlite3.Connection, meter: Eui64) -> DeviceDetails | None:
    """See `Store.find_details`."""
    row = connection.execute(
        "SELECT manufacturer, model, serial, hardware, firmware FROM device WHERE meter = ?",
        (meter,),
    ).fetchone()
    return None if row is None else DeviceDetails(*row)
