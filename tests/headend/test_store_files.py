"""What may stand where the store's file should be.

The contract under test: a file that cannot be a head-end's store is refused with StoreUnusable, one
line that names it and says what to do; nothing in it is changed; and the store's files are for
their owner alone.
"""

from __future__ import annotations

import re
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from amistack.errors import StoreUnusable
from headend.store import sqlite as store_of
from headend.store.sqlite import SqliteStore
from headend.store.sqlite.schema import APPLICATION_ID, connect, migrations


def text(path: Path) -> None:
    path.write_text("this is no database\n" * 100)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()


def newer(path: Path) -> None:
    connect(path).close()
    made = sqlite3.connect(path)
    made.execute("PRAGMA user_version = 4711")
    made.close()


def fill(made: sqlite3.Connection) -> None:
    made.execute("BEGIN")
    made.executemany(
        "INSERT INTO location VALUES (?, ?, 1)",
        [(number.to_bytes(8), "x" * 200) for number in range(500)],
    )
    made.execute("COMMIT")


def truncated(path: Path) -> None:
    made = connect(path)
    fill(made)
    made.execute("PRAGMA journal_mode = DELETE")
    made.close()
    path.write_bytes(path.read_bytes()[: 12 * 4096])


def overwritten(path: Path) -> None:
    truncated_size = 20 * 4096
    made = connect(path)
    fill(made)
    made.execute("PRAGMA journal_mode = DELETE")
    made.close()
    octets = bytearray(path.read_bytes())
    octets[8 * 4096 : truncated_size] = b"\xa5" * (truncated_size - 8 * 4096)
    path.write_bytes(octets)


def modes_in(path: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()}


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (text, "restore it from a backup"),
        (foreign, "another program; name another file"),
        (newer, r"newer head-end \(schema 4711, this one knows \d+\)"),
        (truncated, "restore it from a backup"),
        (overwritten, "restore it from a backup"),
        (folder, "check that its folder exists"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_file_that_is_no_store_is_refused_in_one_line_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "head-end.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreUnusable, match=said) as refusal:
        SqliteStore.open(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_missing_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="check that its folder exists"):
        SqliteStore.open(tmp_path / "nowhere" / "head-end.sqlite")


async def test_new_store_is_marked_flushed_and_private(tmp_path: Path) -> None:
    path = tmp_path / "head-end.sqlite"
    store = SqliteStore.open(path)
    modes = modes_in(tmp_path)
    assert set(modes.values()) == {0o600}, modes
    assert len(modes) == 4, "the file, its log, the log's index, and the note of its count"
    await store.close()
    made = connect(path)
    assert made.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert made.execute("PRAGMA user_version").fetchone() == (migrations()[-1][0],)
    assert made.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert made.execute("PRAGMA synchronous").fetchone() == (2,), "FULL: a commit is on disk"
    made.close()


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


def test_statements_name_their_values_in_no_way_that_a_later_python_refuses() -> None:
    """`?1` with a sequence is as good as `?` to 3.11, a warning to 3.12, and may be an error."""
    for source in Path(store_of.__file__).parent.glob("*.py"):
        assert not re.findall(r"\?\d", source.read_text()), source.name
