"""What a meter keeps: durable when it returns, all together or not at all, in nobody else's hands.

The contract under test: what a method kept is there after reopening; a file that cannot be used is
StoreUnusable in one line; a disk that fails later is StoreError, and the storage works on when the
disk does.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import StoreError, StoreUnusable
from amistack.model.events import COLD_STARTED, REGISTERED
from meterd.storage import (
    APPLICATION_ID,
    ENTRY_COUNT_MAX,
    SCHEMA_VERSION,
    ChannelDay,
    SavedSession,
    Storage,
)

SESSION = SavedSession(
    b"\xa1\x04head", b"\x07", b"\x01\x02\x03\x04", b"s" * 16, b"t" * 8, 64, (5, (1 << 63) - 1)
)


class FailingConnection:
    """A connection whose disk is full for every statement that begins with `fails_on`."""

    def __init__(self, real: sqlite3.Connection, fails_on: tuple[str, ...]) -> None:
        self.real = real
        self.fails_on = fails_on
        self.failure_count = 0

    def execute(self, sql: str, arguments: object = ()) -> sqlite3.Cursor:
        if self.fails_on and sql.startswith(self.fails_on):
            self.failure_count += 1
            raise sqlite3.OperationalError("database or disk is full")
        return self.real.execute(sql, arguments)  # type: ignore[arg-type]

    @property
    def in_transaction(self) -> bool:
        return self.real.in_transaction

    def close(self) -> None:
        self.real.close()


def fail(storage: Storage, *statements: str) -> FailingConnection:
    connection = FailingConnection(storage._connection, statements)
    storage._connection = connection  # type: ignore[assignment]
    return connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meter.sqlite"


def test_everything_kept_is_there_after_reopening(path: Path) -> None:
    day = ChannelDay(20_000, 1, 123, 45, 96, b"packed", 0b101 << 90)
    storage = Storage.open(path)
    storage.keep_note("recorded until", "17")
    storage.keep_channel_days([day])
    storage.owe(20_000)
    storage.owe(20_001)
    entry = storage.keep_entry(1_790_000_000, REGISTERED, "detail", is_time_doubtful=True)
    storage.keep_session(SESSION)
    storage.reserve_numbers(SESSION.recipient_id, 128)
    storage.close()

    again = Storage.open(path)
    assert again.note("recorded until") == "17"
    assert again.note("never kept") is None
    assert again.channel_days(20_000) == [day]
    assert again.owed_days() == [20_001, 20_000]
    assert again.entries(0, 1 << 32, limit=9) == [entry]
    saved = again.session()
    assert saved is not None
    assert (saved.reserved_until, saved.window) == (128, SESSION.window)
    assert (saved.master_secret, saved.head_end) == (SESSION.master_secret, SESSION.head_end)
    again.close()


def test_file_and_its_journal_are_readable_by_nobody_else(path: Path) -> None:
    before = os.umask(0o000)
    try:
        storage = Storage.open(path)
        storage.keep_session(SESSION)
    finally:
        os.umask(before)
    files = list(path.parent.iterdir())
    assert path in files
    assert [file.name for file in files if file.stat().st_mode & 0o077] == []
    storage.close()


def test_numbers_reserved_are_never_taken_back(path: Path) -> None:
    storage = Storage.open(path)
    storage.keep_session(SESSION)
    for until in (256, 128, 0):
        storage.reserve_numbers(SESSION.recipient_id, until)
        saved = storage.session()
        assert saved is not None
        assert saved.reserved_until == 256
    storage.close()


def test_numbers_and_window_of_a_replaced_session_change_nothing(path: Path) -> None:
    storage = Storage.open(path)
    storage.keep_session(SESSION)
    storage.reserve_numbers(b"other", 640)
    storage.keep_window(b"other", (99, 0))
    saved = storage.session()
    assert saved == SESSION
    storage.close()


@settings(max_examples=20)
@given(base=st.integers(0, 1 << 40), bitmap=st.integers(0, (1 << 63) - 1))
def test_every_replay_window_comes_back(
    tmp_path_factory: pytest.TempPathFactory, base: int, bitmap: int
) -> None:
    storage = Storage.open(tmp_path_factory.mktemp("window") / "meter.sqlite")
    storage.keep_session(SESSION)
    storage.keep_window(SESSION.recipient_id, (base, bitmap))
    saved = storage.session()
    assert saved is not None
    assert saved.window == (base, bitmap)
    storage.close()


def test_second_process_is_refused_with_one_line_and_the_first_works_on(path: Path) -> None:
    storage = Storage.open(path)
    storage.keep_note("who", "first")
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from amistack.errors import StoreUnusable
        from meterd.storage import Storage
        try:
            Storage.open(Path({str(path)!r}))
        except StoreUnusable as error:
            print(error)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"{path} is in use by another meterd: stop that one first\n"
    storage.keep_note("who", "still first")
    assert storage.note("who") == "still first"
    storage.close()
    Storage.open(path).close()


def test_second_opening_in_one_process_is_refused(path: Path) -> None:
    storage = Storage.open(path)
    with pytest.raises(StoreUnusable, match="in use by another meterd"):
        Storage.open(path)
    storage.keep_note("a", "b")
    storage.close()


def _foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE readings (one)")
    connection.close()


def _newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.execute("CREATE TABLE note (one)")
    connection.close()


def _text(path: Path) -> None:
    path.write_text("this is no database, but long enough to be looked into\n" * 40)


def _torn(path: Path) -> None:
    Storage.open(path).close()
    octets = bytearray(path.read_bytes())
    octets[100:] = b"\xa5" * (len(octets) - 100)
    path.write_bytes(octets)


def _folder(path: Path) -> None:
    path.mkdir()


def _nowhere(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_foreign, "is a database of another program"),
        (_newer, f"newer meterd (schema {SCHEMA_VERSION + 1}"),
        (_text, "not a database"),
        (_torn, "cannot be used"),
        (_folder, "cannot be"),
        (_nowhere, "cannot be"),
    ],
    ids=["foreign", "newer", "text", "torn", "folder", "nowhere"],
)
def test_file_that_cannot_be_used_is_refused_in_one_line_and_left_as_it_was(
    tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    path = tmp_path / "box" / "meter.sqlite"
    path.parent.mkdir()
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreUnusable) as refused:
        Storage.open(path)
    message = str(refused.value)
    assert str(path) in message
    assert says in message
    assert "\n" not in message
    assert (path.read_bytes() if path.is_file() else None) == before


def test_together_is_all_or_nothing(path: Path) -> None:
    storage = Storage.open(path)
    storage.owe(1)
    with pytest.raises(ValueError, match="on the way"), storage.together():  # noqa: PT012
        storage.settle_day(1)
        storage.keep_note("half", "done")
        with storage.together():  # Inside another it is part of it.
            storage.owe(2)
        raise ValueError("on the way")
    assert storage.owed_days() == [1]
    assert storage.note("half") is None
    with storage.together():
        storage.settle_day(1)
    storage.close()
    again = Storage.open(path)
    assert again.owed_days() == []
    again.close()


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "COMMIT"])
def test_full_disk_is_a_store_error_and_after_it_changes_are_durable_again(
    path: Path, statement: str
) -> None:
    storage = Storage.open(path)
    connection = fail(storage, statement)
    with pytest.raises(StoreError, match="disk is full"), storage.together():
        storage.keep_note("lost", "1")
    assert connection.failure_count == 1
    connection.fails_on = ()
    assert storage.note("lost") is None
    with storage.together():
        storage.keep_note("kept together", "1")
    storage.keep_note("kept alone", "1")
    storage.close()
    again = Storage.open(path)
    assert again.note("lost") is None
    assert again.note("kept together") == again.note("kept alone") == "1"
    again.close()


def test_rollback_that_fails_too_is_still_a_store_error(path: Path) -> None:
    storage = Storage.open(path)
    connection = fail(storage, "INSERT", "ROLLBACK")
    with pytest.raises(StoreError, match="disk is full"), storage.together():
        storage.keep_note("lost", "1")
    assert connection.failure_count == 2
    storage.close()


def test_disk_that_fails_in_the_middle_of_an_answer_is_a_store_error(path: Path) -> None:
    storage = Storage.open(path)
    for day in range(5):
        storage.owe(day)

    class Rows:
        def fetchall(self) -> list[tuple[int]]:
            raise sqlite3.OperationalError("disk I/O error")

    class Connection(FailingConnection):
        def execute(self, sql: str, arguments: object = ()) -> sqlite3.Cursor:
            return Rows()  # type: ignore[return-value]

    storage._connection = Connection(storage._connection, ())  # type: ignore[assignment]
    with pytest.raises(StoreError, match="disk I/O error"):
        storage.owed_days()
    storage.close()


def test_log_numbers_go_on_after_old_entries_were_dropped(path: Path) -> None:
    storage = Storage.open(path)
    for at in (10, 20, 30):
        storage.keep_entry(at, COLD_STARTED, None, is_time_doubtful=False)
    storage.drop_entries_before(1_000)
    assert [entry.sequence for entry in storage.entries(0, 100, limit=9)] == [2]
    entry = storage.keep_entry(40, COLD_STARTED, None, is_time_doubtful=False)
    assert entry.sequence == 3
    storage.close()


def test_log_is_bounded_and_keeps_the_newest(path: Path) -> None:
    storage = Storage.open(path)
    with storage.together():
        for at in range(ENTRY_COUNT_MAX + 10):
            storage.keep_entry(at, COLD_STARTED, None, is_time_doubtful=False)
    storage.drop_entries_before(0)
    kept = storage.entries(0, 1 << 32, limit=ENTRY_COUNT_MAX + 100)
    assert len(kept) == ENTRY_COUNT_MAX
    assert kept[-1].sequence == ENTRY_COUNT_MAX + 9
    storage.close()


def test_entries_are_given_until_they_are_acknowledged(path: Path) -> None:
    storage = Storage.open(path)
    entries = [
        storage.keep_entry(at, COLD_STARTED, None, is_time_doubtful=False) for at in range(4)
    ]
    storage.settle_entries([1, 3])
    assert storage.entries(0, 100, limit=9) == [entries[0], entries[2]]
    assert storage.entries(0, 2, limit=9) == [entries[0]]
    assert storage.entries(0, 100, limit=1) == [entries[0]]
    storage.close()
