"""Open an SQLite file as a head-end's store, and bring its schema up to date.

Raises  StoreUnusable, one line that says what to do: no rights, not a database, another program's,
        corrupt, or made by a newer head-end
"""

from __future__ import annotations

import os
import sqlite3
from importlib import resources
from pathlib import Path
from typing import Final

from amistack.errors import StoreUnusable

APPLICATION_ID: Final = 0x414D4948
"""`AMIH`: how a file is known to be a head-end's store."""


def migrations() -> list[tuple[int, str]]:
    """The numbered schema changes, in order: version and SQL."""
    folder = resources.files("headend.store.sqlite") / "migrations"
    found = []
    for entry in folder.iterdir():
        number, _, rest = entry.name.partition("_")
        if rest.endswith(".sql"):
            found.append((int(number), entry.read_text(encoding="utf-8")))
    return sorted(found)


def connect(path: Path) -> sqlite3.Connection:
    """A connection for writing: WAL, every commit flushed to disk, the schema up to date."""
    _make_private(path)
    try:
        # Autocommit: transactions are begun and ended by the writer alone.
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StoreUnusable(
            f"{path} cannot be opened: {error}; check that its folder exists and may be written"
        ) from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise StoreUnusable(f"{path} cannot be used: {error}; {_cure(error)}") from error
    except StoreUnusable:
        connection.close()
        raise
    return connection


def connect_readonly(path: Path) -> sqlite3.Connection:
    """A connection for reading what is committed, beside the writer."""
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
        )
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise StoreUnusable(f"{path} cannot be opened a second time: {error}") from error
    return connection


def _cure(error: sqlite3.Error) -> str:
    """What an operator can do; the low octet of SQLite's code is the kind of the error."""
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if kind == sqlite3.SQLITE_FULL:
        return "make room on that disk, then start again; nothing in it is lost"
    if kind == sqlite3.SQLITE_READONLY:
        return "let this user write to it and to its folder"
    if kind == sqlite3.SQLITE_IOERR:
        return "check the disk, and the room on it"
    return "restore it from a backup, or move it away to start anew"


def _make_private(path: Path) -> None:
    """Make the file, if it is not there, for its owner alone: it will hold sessions' keys.

    SQLite gives the files that it puts beside it the same mode.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreUnusable(
            f"{path} cannot be opened: {error.strerror or error}; "
            "check that its folder exists and that this user may write there"
        ) from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA busy_timeout = 5000")
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (table_count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if table_count and application_id != APPLICATION_ID:
        raise StoreUnusable(
            f"{path} is a database of another program; name another file in headend.toml"
        )
    every = migrations()
    newest = every[-1][0]
    if version > newest:
        raise StoreUnusable(
            f"{path} was made by a newer head-end (schema {version}, this one knows {newest}); "
            "run that one"
        )
    if table_count:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreUnusable(
                f"{path} is corrupt ({' '.join(verdict.split())}); restore it from a backup, "
                "or move it away to start anew"
            )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    for number, script in every:
        if number > version:
            # One transaction a step: a crash leaves the old version or the new, nothing between.
            connection.executescript(
                f"BEGIN; {script}; PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {number}; COMMIT;"
            )
