"""What a meter keeps through a restart, as typed tables of a journal.

Raises  StoreUnusable, one line that says what to do, when the folder cannot be used; StoreError
        when a write fails later: then nothing of it counts
Limit   ENTRY_COUNT_MAX log entries; else the recorder's: what is beyond its retention is dropped
Never   goes on with a session when anything that was written may be missing: its numbers may be
        used already
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Final

from amistack.errors import ModelError, StoreUnusable
from amistack.model import EndDeviceEventType, LogEntry
from amistack.model.schedule import ReadSchedule
from meterd.files import Files, FrozenFiles, RealFiles
from meterd.journal import Change, Journal, Key, Value

ENTRY_COUNT_MAX: Final = 10_000
"""Log entries kept: more than 200 a day for as long as days are kept."""

NOTE: Final = "note"
DAY: Final = "day"
OWED: Final = "owed"
LOG: Final = "log"
SESSION: Final = "session"
SCHEDULE: Final = "schedule"
PROGRAMME: Final = "programme"
RUNNING: Final = "running"
STOOD: Final = "stood"
DEMAND: Final = "demand"
SERVICE: Final = "service"
SWITCH: Final = "switch"
MESSAGE: Final = "message"
ROUTE: Final = "route"
DENIED: Final = "denied"
CLOCK_MARK: Final = "clock mark"
HOME: Final = "home"
THE_ONE: Final = 1

LOST: Final = "octets lost"

_Kind = type | tuple[type, ...]
_KINDS: Final[Mapping[str, tuple[_Kind, _Kind]]] = {
    NOTE: (str, str),
    DAY: (tuple, Sequence),
    OWED: (int, bool),
    LOG: (int, Sequence),
    SESSION: (int, Sequence),
    SCHEDULE: (int, Sequence),
    PROGRAMME: (int, Sequence),
    RUNNING: (int, Sequence),
    STOOD: (str, int),
    DEMAND: (int, Sequence),
    SERVICE: (int, Sequence),
    SWITCH: (int, Sequence),
    MESSAGE: (int, Sequence),
    ROUTE: (int, Sequence),
    CLOCK_MARK: (int, Sequence),
    DENIED: (str, int),
    HOME: (str, Sequence),
}
"""Of what kind a table's keys and values are."""
TABLES: Final = tuple(_KINDS)
"""The names of all tables."""
_COLUMNS: Final[Mapping[str, tuple[_Kind, ...]]] = {
    DAY: (int, int, int, bytes, bytes),  # opening, advance, count, packed, missing
    LOG: (int, str, (str, NoneType), bool, bool),  # at, event, detail, is doubtful, is settled
    SESSION: (bytes, bytes, bytes, bytes, bytes, int, int, int),  # as SavedSession
    SCHEDULE: (bytes, int, int, Sequence),  # encoded, cursor, settled, owed
    PROGRAMME: (int, int, bytes),  # effective at, channel set, programme
    RUNNING: (int, int, int, bool),  # day, passed_s, total, is broken
    DEMAND: (int, int, int, int, int, bytes),  # since, until, peak, peak at, cumulative, window
    SERVICE: (int, int, int),  # at (ms), path, path before
    SWITCH: (int, int, int, int, int, int, bytes, bytes, bytes),  # as SwitchRow
    MESSAGE: (bytes, int, int),  # message, state, since
    CLOCK_MARK: (int, int),  # end, flags
    HOME: (bytes, bool, int, int),  # subscription, is fixed, state, since
    ROUTE: (bytes, int, int),  # parents, path sequence, UTC at which it ends
}


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
    """The tables. Every method that changes them has made the change durable when it returns."""

    def __init__(self, journal: Journal) -> None:
        """Raises StoreUnusable when the journal is not one of a meter's storage."""
        _check(journal)
        self._journal = journal
        self._staged: dict[tuple[str, Key], Value] | None = None
        self._next_sequence = max((key for key, _ in self._items(LOG)), default=-1) + 1

    @classmethod
    def open(cls, folder: Path) -> Storage:
        """The storage in `folder`, made if it is not there. Raises StoreUnusable."""
        files = RealFiles(folder)
        with _named(folder):
            return cls.on(files)

    @classmethod
    def on(cls, files: Files) -> Storage:
        """The storage in those files. Raises StoreUnusable; then they are closed."""
        return cls(Journal(files, amend=_distrust))

    @classmethod
    def look(cls, folder: Path) -> Storage:
        """The storage in `folder` as it is: whatever is changed is not kept. Raises StoreUnusable.

        Here a session may be one that no meter may go on with.
        """
        files = FrozenFiles(folder)
        with _named(folder):
            return cls(Journal(files))

    def close(self) -> None:
        """Give the files back."""
        self._journal.close()

    @property
    def journal(self) -> Journal:
        """What is underneath, for its counters."""
        return self._journal

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Everything written inside becomes durable at once, or not at all."""
        if self._staged is not None:
            yield
            return
        self._staged = {}
        next_sequence = self._next_sequence
        try:
            try:
                yield
                changes = [(table, key, value) for (table, key), value in self._staged.items()]
            finally:
                self._staged = None
            self._journal.transact(changes)
        except BaseException:
            self._next_sequence = next_sequence
            raise

    # Damage

    @property
    def lost_octets(self) -> int:
        """Octets that no start could read, until `settle_loss`; what was behind them is lost."""
        return int(self.note(LOST) or 0)

    def settle_loss(self) -> None:
        """The loss is known."""
        self._put((NOTE, LOST, None))

    # Notes

    def note(self, name: str) -> str | None:
        """A small fact kept by name."""
        value: str | None = self._get(NOTE, name)
        return value

    def keep_note(self, name: str, value: str) -> None:
        """Keep a small fact by name."""
        self._put((NOTE, name, value))

    # Recorded days

    def channel_days(self, day: int) -> list[ChannelDay]:
        """What is recorded of a day, by channel."""
        return [
            _channel_day(day, channel, row)
            for (one, channel), row in sorted(self._items(DAY))
            if one == day
        ]

    def keep_channel_days(self, days: Sequence[ChannelDay]) -> None:
        """Keep days, in place of what was recorded of them before."""
        self._put(
            *(
                (
                    DAY,
                    (one.day, one.channel),
                    [
                        one.opening,
                        one.advance,
                        one.count,
                        one.packed,
                        one.missing.to_bytes((one.missing.bit_length() + 7) // 8, "little"),
                    ],
                )
                for one in days
            )
        )

    def drop_days_before(self, day: int) -> None:
        """Forget days that are too old, and that their reports are owed."""
        self._put(
            *((DAY, key, None) for key, _ in self._items(DAY) if key[0] < day),
            *((OWED, one, None) for one, _ in self._items(OWED) if one < day),
        )

    # Reports

    def owe(self, day: int) -> None:
        """A day is complete: its report is owed."""
        self._put((OWED, day, True))

    def owed_days(self) -> list[int]:
        """Days whose reports are not acknowledged, newest first."""
        return sorted((day for day, _ in self._items(OWED)), reverse=True)

    def settle_day(self, day: int) -> None:
        """A day's report is acknowledged."""
        self._put((OWED, day, None))

    # Log

    @property
    def next_sequence(self) -> int:
        """The number that the next log entry gets."""
        return self._next_sequence

    def keep_entry(
        self,
        at: int,
        event: EndDeviceEventType,
        detail: str | None,
        *,
        is_time_doubtful: bool,
        skipped: int = 0,
    ) -> LogEntry:
        """Append to the log; the entry gets the next sequence number, behind `skipped` others."""
        sequence = self._next_sequence + skipped
        entry = LogEntry(sequence, at, event, detail, is_time_doubtful)
        self._put((LOG, sequence, [at, str(event), detail, is_time_doubtful, False]))
        self._next_sequence = sequence + 1
        return entry

    def entries(self, first_s: int, end_s: int, *, limit: int) -> list[LogEntry]:
        """Entries from `first_s` on, before `end_s`, that are not acknowledged; oldest first."""
        found = sorted(
            (sequence, row)
            for sequence, row in self._items(LOG)
            if not row[4] and first_s <= row[0] < end_s
        )
        return [entry_of(sequence, row) for sequence, row in found[:limit]]

    def entries_between(self, first_s: int, end_s: int, *, limit: int) -> list[LogEntry]:
        """As `entries`, with those that are acknowledged; the newest, if there are too many."""
        found = sorted(
            (sequence, row) for sequence, row in self._items(LOG) if first_s <= row[0] < end_s
        )
        return [entry_of(sequence, row) for sequence, row in found[-limit:]]

    def settle_entries(self, sequences: Sequence[int]) -> None:
        """Entries are acknowledged."""
        self._put(
            *(
                (LOG, sequence, [*row[:4], True])
                for sequence in sequences
                if (row := self._get(LOG, sequence)) is not None
            )
        )

    def drop_entries_before(self, at: int) -> None:
        """Forget entries that are too old or too many; the newest stays: it holds the numbering."""
        newest = self._next_sequence - 1
        self._put(
            *(
                (LOG, sequence, None)
                for sequence, row in self._items(LOG)
                if (row[0] < at and sequence < newest) or sequence <= newest - ENTRY_COUNT_MAX
            )
        )

    # Security session

    def session(self) -> SavedSession | None:
        """The session in use, or None."""
        row = self._get(SESSION, THE_ONE)
        if row is None:
            return None
        fields = (*row[:6], (row[6], row[7]))
        return SavedSession(*fields)

    def keep_session(self, session: SavedSession) -> None:
        """Keep a new session in place of the old."""
        self._put_session(
            session.head_end,
            session.recipient_id,
            session.sender_id,
            session.master_secret,
            session.master_salt,
            session.reserved_until,
            *session.window,
        )

    def reserve_numbers(self, recipient_id: bytes, until: int) -> None:
        """Sender sequence numbers below `until` may be used from now on, and never again after."""
        row = self._session_row(recipient_id)
        if row is not None:
            self._put_session(*row[:5], max(row[5], until), *row[6:])

    def keep_window(self, recipient_id: bytes, window: tuple[int, int]) -> None:
        """The replay window has taken a number."""
        row = self._session_row(recipient_id)
        if row is not None:
            self._put_session(*row[:6], *window)

    def _session_row(self, recipient_id: bytes) -> Sequence[Value] | None:
        """The session's row, if the session is still that one."""
        row: Sequence[Value] | None = self._get(SESSION, THE_ONE)
        return row if row is not None and row[1] == recipient_id else None

    def _put_session(self, *row: Value) -> None:
        self._put((SESSION, THE_ONE, list(row)))

    # Tables of parts: each is declared in _KINDS, and read and written by its part alone

    def get(self, table: str, key: Key) -> Value:
        """The value of a key, or None. Not to be changed."""
        return self._get(table, key)

    def items(self, table: str) -> list[tuple[Any, Value]]:
        """All of a table; not in order."""
        return self._items(table)

    def put(self, *changes: Change) -> None:
        """Set keys to values, None for no such key; all of them at once."""
        self._put(*changes)

    # The journal, and what is staged above it

    def _get(self, table: str, key: Key) -> Value:
        if self._staged is not None and (table, key) in self._staged:
            return self._staged[(table, key)]
        return self._journal.get(table, key)

    def _items(self, table: str) -> list[tuple[Any, Value]]:
        if not self._staged:
            return list(self._journal.table(table).items())
        rows = dict(self._journal.table(table))
        for (of, key), value in self._staged.items():
            if of == table:
                rows[key] = value
        return [(key, value) for key, value in rows.items() if value is not None]

    def _put(self, *changes: Change) -> None:
        if self._staged is None:
            self._journal.transact(changes)
        else:
            for table, key, value in changes:
                self._staged[(table, key)] = value


def _distrust(journal: Journal) -> Sequence[Change]:
    """What follows from octets that no start can read."""
    lost = int(journal.get(NOTE, LOST) or 0) + journal.dropped_octets
    return [(NOTE, LOST, str(lost)), (SESSION, THE_ONE, None)]


def _channel_day(day: int, channel: int, row: Value) -> ChannelDay:
    opening, advance, count, packed, missing = row
    return ChannelDay(
        day, channel, opening, advance, count, packed, int.from_bytes(missing, "little")
    )


def entry_of(sequence: Any, row: Value) -> LogEntry:
    """The entry in a row of the log."""
    at, event, detail, is_time_doubtful, _ = row
    return LogEntry(sequence, at, EndDeviceEventType.parse(event), detail, is_time_doubtful)


def _check(journal: Journal) -> None:
    """Refuse tables that are whole but no storage's, and close their journal."""
    try:
        for table, (key_kind, value_kind) in _KINDS.items():
            columns = _COLUMNS.get(table)
            for key, value in journal.table(table).items():
                if not isinstance(key, key_kind) or not isinstance(value, value_kind):
                    raise ValueError(f"{table} {_line(key)}")
                if columns is not None and not _is_row(value, columns):
                    raise ValueError(f"{table} {_line(key)}")
                if table == LOG:
                    entry_of(key, value)
                if table == SCHEDULE:
                    _check_schedule(key, value)
        int(journal.get(NOTE, LOST) or 0)
    except (ModelError, ValueError) as error:
        journal.close()
        raise StoreUnusable(
            f"the meter's storage holds what no meterd writes ({error}); move it away to start anew"
        ) from error


def _check_schedule(key: Key, row: Value) -> None:
    encoded, _, _, owed = row
    if ReadSchedule.decode(encoded).number != key or len(owed) % 2:
        raise ValueError(f"{SCHEDULE} {_line(key)}")
    if not all(isinstance(second, int) for second in owed):
        raise ValueError(f"{SCHEDULE} {_line(key)}")


def _line(key: Key) -> str:
    """A key as a part of one line."""
    text = str(key)
    return text if text.isprintable() else repr(text)


def _is_row(row: Value, columns: Sequence[_Kind]) -> bool:
    return len(row) == len(columns) and all(map(isinstance, row, columns))


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Say which folder it is that cannot be used."""
    try:
        yield
    except StoreUnusable as error:
        raise StoreUnusable(f"{folder}: {error}") from error
