"""The mesh as SQL: areas, addresses, the last reports and statuses of nodes, who is kept out.

The writes are called by the writer inside its transaction, the reads on the reader's own thread
and connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, assert_never

from amistack.identifiers import Eui64
from headend.domain.mesh import Area, Assignment, StoredReport, StoredStatus
from headend.store.mesh import (
    AssignAddresses,
    Assigned,
    AssignmentRefused,
    KeepArea,
    KeepDenied,
    KeepTopologyReports,
    MeshOutcome,
    MeshWrite,
    ReleaseAddresses,
    Released,
)
from mesh.packet import NODE_ADDRESS_MAX
from mesh.topology.facts import AreaId, Role

Row = tuple[Any, ...]

_NODE: Final = "SELECT node, area, short, is_collector, key_hash, certificate FROM mesh_node"

# Writing


def apply(connection: sqlite3.Connection, write: MeshWrite) -> MeshOutcome | bool | None:
    """Carry out one write; what it answers is its outcome once the transaction is committed."""
    match write:
        case KeepArea():
            area = write.area
            connection.execute(
                "INSERT INTO mesh_area (area, profile, dodag_id) VALUES (?, ?, ?) "
                "ON CONFLICT (area) DO UPDATE SET profile = excluded.profile",
                (area.area, area.profile, area.dodag_id),
            )
            return None
        case AssignAddresses():
            return _assign(connection, write)
        case ReleaseAddresses():
            return _release(connection, write)
        case KeepTopologyReports():
            connection.executemany(
                "INSERT OR REPLACE INTO mesh_report SELECT ?, ?, ? "
                "WHERE EXISTS (SELECT 1 FROM mesh_node WHERE node = ?)",
                [(one.node, one.received_at, one.octets, one.node) for one in write.reports],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO mesh_status SELECT ?, ?, ?, ?, ?, ? "
                "WHERE EXISTS (SELECT 1 FROM mesh_node WHERE node = ?)",
                [
                    (
                        one.node,
                        one.state,
                        one.since,
                        one.heard_at,
                        one.registered_at,
                        one.reason,
                        one.node,
                    )
                    for one in write.statuses
                ],
            )
            return None
        case KeepDenied():
            words = (
                "INSERT OR IGNORE INTO mesh_denied VALUES (?, ?)"
                if write.is_denied
                else "DELETE FROM mesh_denied WHERE area = ? AND node = ?"
            )
            return bool(connection.execute(words, (write.area, write.node)).rowcount)
        case _:
            assert_never(write)


def _assign(connection: sqlite3.Connection, write: AssignAddresses) -> MeshOutcome:
    row = connection.execute(
        "SELECT next_short FROM mesh_area WHERE area = ?", (write.area,)
    ).fetchone()
    if row is None:
        return AssignmentRefused(f"there is no area {write.area}")
    wanted = tuple(dict.fromkeys(write.nodes))
    held = {node: found for node in wanted if (found := _find(connection, node)) is not None}
    elsewhere = tuple(
        one for one in held.values() if (one.area, one.role) != (write.area, write.role)
    )
    if elsewhere and not write.is_moving:
        return AssignmentRefused("another area, or another role, holds them", elsewhere)
    new = [node for node in wanted if node not in held or held[node] in elsewhere]
    shorts = _free_shorts(connection, write.area, row[0], len(new))
    if shorts is None:
        return AssignmentRefused(f"it has no {len(new)} addresses left of {NODE_ADDRESS_MAX}")
    # What was said of links is of no use in another area; how the device is remains so.
    _forget(connection, [one.node for one in elsewhere], "mesh_node", "mesh_report")
    connection.executemany(
        "INSERT INTO mesh_node VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                node,
                write.area,
                short,
                write.role is Role.COLLECTOR,
                write.key_hash,
                write.certificate,
            )
            for node, short in zip(new, shorts, strict=True)
        ],
    )
    if shorts:
        connection.execute(
            "UPDATE mesh_area SET next_short = ? WHERE area = ?",
            (shorts[-1] % NODE_ADDRESS_MAX + 1, write.area),
        )
    if write.key_hash is not None:
        connection.executemany(
            "UPDATE mesh_node SET key_hash = ?, certificate = ? WHERE node = ?",
            [(write.key_hash, write.certificate, node) for node in wanted],
        )
    placed = (_find(connection, node) for node in wanted)
    return Assigned(tuple(one for one in placed if one is not None), len(new))


def _free_shorts(
    connection: sqlite3.Connection, area: AreaId, first: int, count: int
) -> list[int] | None:
    """Addresses that nobody holds, from `first` on and round again; None if there are too few."""
    if not count:
        return []
    taken = {
        short
        for (short,) in connection.execute("SELECT short FROM mesh_node WHERE area = ?", (area,))
    }
    if len(taken) + count > NODE_ADDRESS_MAX:
        return None
    found: list[int] = []
    for step in range(NODE_ADDRESS_MAX):
        short = (first - 1 + step) % NODE_ADDRESS_MAX + 1
        if short not in taken:
            found.append(short)
            if len(found) == count:
                break
    return found


def _release(connection: sqlite3.Connection, write: ReleaseAddresses) -> Released:
    wanted = dict.fromkeys(write.nodes)
    unknown = tuple(node for node in wanted if _find(connection, node) is None)
    if not unknown:
        _forget(connection, write.nodes, "mesh_node", "mesh_report", "mesh_status")
    return Released(unknown)


def _forget(connection: sqlite3.Connection, nodes: Sequence[Eui64], *tables: str) -> None:
    for table in tables:
        connection.executemany(f"DELETE FROM {table} WHERE node = ?", [(node,) for node in nodes])


def _find(connection: sqlite3.Connection, node: Eui64) -> Assignment | None:
    row = connection.execute(f"{_NODE} WHERE node = ?", (node,)).fetchone()
    return None if row is None else _assignment(row)


# Reading


def areas(connection: sqlite3.Connection) -> list[Area]:
    """See `Store.mesh_areas`."""
    rows = connection.execute("SELECT area, profile, dodag_id FROM mesh_area ORDER BY area")
    return [Area(AreaId(area), profile, dodag_id) for area, profile, dodag_id in rows]


def nodes(connection: sqlite3.Connection, after: Eui64, limit: int) -> list[Assignment]:
    """See `Store.mesh_nodes`."""
    rows = connection.execute(f"{_NODE} WHERE node > ? ORDER BY node LIMIT ?", (after, limit))
    return [_assignment(row) for row in rows]


def reports(
    connection: sqlite3.Connection, after: tuple[int, Eui64], limit: int
) -> list[StoredReport]:
    """See `Store.mesh_reports`."""
    rows = connection.execute(
        "SELECT node, received_at, octets FROM mesh_report WHERE (received_at, node) > (?, ?) "
        "ORDER BY received_at, node LIMIT ?",
        (*after, limit),
    )
    return [StoredReport(Eui64(node), at, octets) for node, at, octets in rows]


def statuses(connection: sqlite3.Connection, after: Eui64, limit: int) -> list[StoredStatus]:
    """See `Store.mesh_statuses`."""
    rows = connection.execute(
        "SELECT node, state, since, heard_at, registered_at, reason FROM mesh_status "
        "WHERE node > ? ORDER BY node LIMIT ?",
        (after, limit),
    )
    return [StoredStatus(Eui64(node), *numbers) for node, *numbers in rows]


def denied(connection: sqlite3.Connection) -> list[tuple[AreaId, Eui64]]:
    """See `Store.mesh_denied`."""
    rows = connection.execute("SELECT area, node FROM mesh_denied ORDER BY area, node")
    return [(AreaId(area), Eui64(node)) for area, node in rows]


def _assignment(row: Row) -> Assignment:
    node, area, short, is_collector, key_hash, certificate = row
    role = Role.COLLECTOR if is_collector else Role.METER
    return Assignment(Eui64(node), AreaId(area), short, role, key_hash, certificate)
