"""What a meter keeps through a restart: one SQLite file, every commit flushed to disk.

Raises  StoreUnusable, one line that says what to do, when the file cannot be opened; StoreError
        when a write or read fails later
Limit   ENTRY_COUNT_MAX log entries; else the recorder's: what is beyond its retention is dropped
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from amistack.errors import StoreError, StoreUnusable
from amistack.model import EndDeviceEventType, LogEntry

APPLICATION_ID: Final = 0x414D494D
"""`AMIM`: how a file is known to be a meter's storage."""
SCHEMA_VERSION: Final = 1

ENTRY_COUNT_MAX: Final = 10_000
"""Log entries kept: more than 200 a day for as long as days are kept."""

_SCHEMA: Final = """
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE channel_day (
  day INTEGER NOT NULL, channel INTEGER NOT NULL, opening INTEGER NOT NULL,
  advance INTEGER NOT NULL, count INTEGER NOT NULL, packed BLOB NOT NULL, missing BLOB NOT NULL,
  PRIMARY KEY (day, channel)
) STRICT, WITHOUT ROWID;
CREATE TABLE owed (day INTEGER PRIMARY KEY) STRICT;
CREATE TABLE log (
  sequence INTEGER PRIMARY KEY, at INTEGER NOT NULL, event TEXT NOT NULL, detail TEXT,
  is_time_doubtful INTEGER NOT NULL, is_acknowledged INTEGER NOT NULL
) STRICT;
CREATE INDEX log_unacknowledged ON log (at) WHERE NOT is_acknowledged;
CREATE TABLE session (
  one INTEGER PRIMARY KEY CHECK (one = 1), head_end BLOB NOT NULL, recipient_id BLOB NOT NULL,
  sender_id BLOB NOT NULL, master_secret BLOB NOT NULL, master_salt BLOB NOT NULL,
  reserved_until INTEGER NOT NULL, window_base INTEGER NOT NULL, window_bitmap BLOB NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class ChannelDay:
    """One channel's day as far as it is recorded: `count` intervals, packed; register in Wh.

    `missing` has a bit for each interval that is not known, the first in the lowest.
    """

    day: int
    channel: int
    opening: int
    advance: int
    count: int
    packed: bytes
    missing: int


@dataclass(frozen=True, slots=True)
class SavedSession:
    """The security context with the head-end called `head_end` (its kid)."""

    head_end: bytes
    recipient_id: bytes
    sender_id: bytes
    master_secret: bytes
    master_salt: bytes
    reserved_until: int
    window: tuple[int, int]


class Storage:
    """The file. Every method that changes it has flushed the change when it returns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._is_in_transaction = False

    @classmethod
    def open(cls, path: Path) -> Storage:
        """The storage in the file at `path`, made if it is not there. Raises StoreUnusable."""
        connection: sqlite3.Connection | None = None
        try:
            _make_private(path)
            connection = sqlite3.connect(path, isolation_level=None, timeout=0)
            _prepare(connection, path)
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise StoreUnusable(
                    f"{path} is in use by another meterd: stop that one first"
                ) from error
            raise StoreUnusable(
                f"{path} cannot be used: {error}; check its folder and rights, "
                "or move it away to start anew"
            ) from error
        except StoreUnusable:
            if connection is not None:
                connection.close()
            raise
        return cls(connection)

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Everything written inside becomes durable at once, or not at all."""
        if self._is_in_transaction:
            yield
            return
        self._run("BEGIN IMMEDIATE")
        self._is_in_transaction = True
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            # A COMMIT that failed may leave the transaction open; in it nothing is ever durable.
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            raise
        finally:
            self._is_in_transaction = False

    # Notes

    def note(self, name: str) -> str | None:
        """A small fact kept by name."""
        rows = self._run("SELECT value FROM note WHERE name = ?", name)
        return rows[0][0] if rows else None

    def keep_note(self, name: str, value: str) -> None:
        """Keep a small fact by name."""
        self._run("INSERT OR REPLACE INTO note VALUES (?, ?)", name, value)

    # Recorded days

    def channel_days(self, day: int) -> list[ChannelDay]:
        """What is recorded of a day, by channel."""
        rows = self._run(
            "SELECT day, channel, opening, advance, count, packed, missing FROM channel_day "
            "WHERE day = ? ORDER BY channel",
            day,
        )
        return [_channel_day(row) for row in rows]

    def keep_channel_days(self, days: Sequence[ChannelDay]) -> None:
        """Keep days, in place of what was recorded of them before."""
        for one in days:
            missing = one.missing.to_bytes((one.missing.bit_length() + 7) // 8, "little")
            self._run(
                "INSERT OR REPLACE INTO channel_day VALUES (?, ?, ?, ?, ?, ?, ?)",
                *(one.day, one.channel, one.opening, one.advance, one.count, one.packed, missing),
            )

    def drop_days_before(self, day: int) -> None:
        """Forget days that are too old, and that their reports are owed."""
        self._run("DELETE FROM channel_day WHERE day < ?", day)
        self._run("DELETE FROM owed WHERE day < ?", day)

    # Reports

    def owe(self, day: int) -> None:
        """A day is complete: its report is owed."""
        self._run("INSERT OR IGNORE INTO owed VALUES (?)", day)

    def owed_days(self) -> list[int]:
        """Days whose reports are not acknowledged, newest first."""
        return [row[0] for row in self._run("SELECT day FROM owed ORDER BY day DESC")]

    def settle_day(self, day: int) -> None:
        """A day's report is acknowledged."""
        self._run("DELETE FROM owed WHERE day = ?", day)

    # Log

    def keep_entry(
        self, at: int, event: EndDeviceEventType, detail: str | None, *, is_time_doubtful: bool
    ) -> LogEntry:
        """Append to the log; the entry gets the next sequence number."""
        ((sequence,),) = self._run("SELECT coalesce(max(sequence) + 1, 0) FROM log")
        entry = LogEntry(sequence, at, event, detail, is_time_doubtful)
        self._run(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, 0)",
            *(entry.sequence, at, str(event), detail, int(is_time_doubtful)),
        )
        return entry

    def entries(self, first_s: int, end_s: int, *, limit: int) -> list[LogEntry]:
        """Entries from `first_s` on, before `end_s`, that are not acknowledged; oldest first."""
        rows = self._run(
            "SELECT sequence, at, event, detail, is_time_doubtful FROM log "
            "WHERE NOT is_acknowledged AND at >= ? AND at < ? ORDER BY sequence LIMIT ?",
            *(first_s, end_s, limit),
        )
        return [
            LogEntry(sequence, at, EndDeviceEventType.parse(event), detail, bool(doubtful))
            for sequence, at, event, detail, doubtful in rows
        ]

    def settle_entries(self, sequences: Sequence[int]) -> None:
        """Entries are acknowledged."""
        for sequence in sequences:
            self._run("UPDATE log SET is_acknowledged = 1 WHERE sequence = ?", sequence)

    def drop_entries_before(self, at: int) -> None:
        """Forget entries that are too old or too many; the newest stays: it holds the numbering."""
        self._run("DELETE FROM log WHERE at < ? AND sequence < (SELECT max(sequence) FROM log)", at)
        self._run(
            "DELETE FROM log WHERE sequence <= (SELECT max(sequence) FROM log) - ?", ENTRY_COUNT_MAX
        )

    # Security session

    def session(self) -> SavedSession | None:
        """The session in use, or None."""
        rows = self._run("SELECT * FROM session")
        if not rows:
            return None
        row = rows[0]
        fields = (*row[1:7], (row[7], int.from_bytes(row[8], "big")))
        return SavedSession(*fields)

    def keep_session(self, session: SavedSession) -> None:
        """Keep a new session in place of the old."""
        base, bitmap = session.window
        self._run(
            "INSERT OR REPLACE INTO session VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
            session.head_end,
            session.recipient_id,
            session.sender_id,
            session.master_secret,
            session.master_salt,
            session.reserved_until,
            base,
            bitmap.to_bytes(8, "big"),
        )

    def reserve_numbers(self, recipient_id: bytes, until: int) -> None:
        """Sender sequence numbers below `until` may be used from now on, and never again after."""
        self._run(
            "UPDATE session SET reserved_until = max(reserved_until, ?) WHERE recipient_id = ?",
            *(until, recipient_id),
        )

    def keep_window(self, recipient_id: bytes, window: tuple[int, int]) -> None:
        """The replay window has taken a number."""
        base, bitmap = window
        self._run(
            "UPDATE session SET window_base = ?, window_bitmap = ? WHERE recipient_id = ?",
            *(base, bitmap.to_bytes(8, "big"), recipient_id),
        )

    def _run(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        try:
            # All rows at once: a disk may fail at any of them.
            return self._connection.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the meter's storage failed: {error}") from error


def _channel_day(row: tuple[Any, ...]) -> ChannelDay:
    fields = (*row[:6], int.from_bytes(row[6], "little"))
    return ChannelDay(*fields)


def _make_private(path: Path) -> None:
    """Make the file for its owner alone: it holds the keys of a session. Raises StoreUnusable."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be made: {error.strerror or error}") from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # Held by one process alone: two with one identity would use the same nonces.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("COMMIT")
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (table_count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if table_count and application_id != APPLICATION_ID:
        raise StoreUnusable(
            f"{path} is a database of another program; name another file as storage"
        )
    if version > SCHEMA_VERSION:
        raise StoreUnusable(
            f"{path} was made by a newer meterd (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); run that one"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # A street keeps many of these open: 256 KiB of cache each is plenty for one meter.
    connection.execute("PRAGMA cache_size = -256")
    if not table_count:
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
