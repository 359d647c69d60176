"""The secrets in the store, sealed at rest: the master secret of every session.

A store is sealed as a whole or not at all; one row, which the same secret opens, says so. Each
master secret is bound to its meter. Nothing else in the store is secret to whoever may read it.

Raises  StoreUnusable, one line: sealed and no secret given, or another one
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Final

from amistack.errors import ConfigError, StoreUnusable
from amistack.identifiers import Eui64, format_eui64
from amistack.keystore import Sealer
from headend.store.interface import KeepSession, Write
from headend.store.sqlite.schema import connect

SEALED: Final = b"a head-end's store"
"""What the one row opens to."""
MASTER_SECRET_SIZE: Final = 16
_TABLES: Final = ("session", "former_session")


def prepare(connection: sqlite3.Connection, path: Path, sealer: Sealer | None) -> None:
    """Check that `sealer` is the store's; seal the store if it is not yet.

    Raises StoreUnusable, and sqlite3.Error when it cannot be written.
    """
    row = connection.execute("SELECT sealed FROM seal").fetchone()
    if sealer is None:
        if row is not None:
            raise StoreUnusable(
                f"{path} is sealed, and there is no secret to open it: name its file as "
                "identity.secret"
            )
        return
    if row is None:
        reseal(connection, path, None, sealer)
    elif not _opens(sealer, row[0]):
        raise StoreUnusable(f"{path} is not opened by this secret: give the one it was sealed with")


def reseal(connection: sqlite3.Connection, path: Path, old: Sealer | None, new: Sealer) -> None:
    """Seal everything anew, in one transaction; harmless where it is done already.

    Raises StoreUnusable if neither opens the store, and sqlite3.Error.
    """
    row = connection.execute("SELECT sealed FROM seal").fetchone()
    if row is not None and _opens(new, row[0]):
        return
    if row is not None and (old is None or not _opens(old, row[0])):
        raise StoreUnusable(f"{path} is not opened by this secret: give the one it was sealed with")
    # What was readable before must not stay in freed space or in the log beside the file.
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for table in _TABLES:
            rows = connection.execute(f"SELECT meter, master_secret FROM {table}").fetchall()
            connection.executemany(
                f"UPDATE {table} SET master_secret = ? WHERE meter = ?",
                [
                    (new.seal(_plain(meter, kept, old, is_sealed=row is not None), meter), meter)
                    for meter, kept in rows
                ],
            )
        connection.execute("INSERT OR REPLACE INTO seal VALUES (1, ?)", (new.seal(SEALED, b""),))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute("PRAGMA secure_delete = OFF")


def seal_store(path: Path, old: Sealer | None, new: Sealer) -> None:
    """Seal the store in the file at `path` anew, while nobody has it open. Raises StoreUnusable."""
    connection = connect(path)
    try:
        reseal(connection, path, old, new)
    except sqlite3.Error as error:
        raise StoreUnusable(f"{path} cannot be sealed: {error}") from error
    finally:
        connection.close()


def sealed(write: Write, sealer: Sealer | None) -> Write:
    """A write as it is stored."""
    if sealer is None or not isinstance(write, KeepSession):
        return write
    session = write.session
    secret = sealer.seal(session.master_secret, session.meter)
    return replace(write, session=replace(session, master_secret=secret))


def opened(meter: Eui64, kept: bytes, sealer: Sealer | None) -> bytes:
    """The master secret of a stored session as it is used.

    Where somebody changed it, it becomes keys that nobody has: the meter is refused, and joins
    anew.
    """
    if sealer is None:
        return kept
    try:
        return sealer.open(kept, meter)
    except ConfigError:
        return os.urandom(MASTER_SECRET_SIZE)


def _plain(meter: Eui64, kept: bytes, sealer: Sealer | None, *, is_sealed: bool) -> bytes:
    if not is_sealed:
        return kept
    assert sealer is not None, "checked at the start"
    try:
        return sealer.open(kept, meter)
    except ConfigError as error:
        raise StoreUnusable(
            f"the keys of meter {format_eui64(meter)} in the store: {error}; with the head-end "
            f"running, `headend meters rekey {format_eui64(meter)}` gives them up"
        ) from error


def _opens(sealer: Sealer, octets: bytes) -> bool:
    try:
        return sealer.open(octets, b"") == SEALED
    except ConfigError:
        return False
