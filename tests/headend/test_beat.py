"""How a head-end notices that its store was put back from a backup.

The contract under test: a store that is older than what ran here last is noticed at the first start
on it, whatever was cut off when; then every session's window is doubtful and every meter is to be
asked for past days, durably, before anything else happens; a store that is not older is not taken
for one unless there is no note to go by; and no state of the note stops a head-end.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import sqlite3
from pathlib import Path

import pytest

from amistack.errors import StoreError, StoreUnusable
from headend.domain.meters import Meter, MeterState
from headend.store.interface import EnrolMeters, KeepSession, RecallDone
from headend.store.sqlite import SqliteStore
from headend.store.sqlite import store as store_module
from headend.store.sqlite.beat import COUNT_MAX, MAGIC, NOTE, Beat
from headend.store.sqlite.schema import connect
from tests.headend.test_store import PATH, deliver, report_record, session
from tests.support.headend import NOW, meter_id, public_key

A, B = meter_id(1), meter_id(2)


class Place:
    """A folder with a store, its note, and a backup; each step runs a head-end's store once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "headend.sqlite"
        self.note_path = folder / "headend.sqlite-beat"
        self.backup = folder / "backup.sqlite"

    async def run(self, group_count: int = 1) -> bool:
        """Start, commit so many groups, stop; whether it was said to be restored."""
        store = SqliteStore.open(self.path)
        for _ in range(group_count):
            await store.commit(RecallDone(meter_id(99)))
        await store.close()
        return store.is_restored

    def back_up(self) -> None:
        self.backup.unlink(missing_ok=True)
        with sqlite3.connect(self.path) as source:
            source.execute("VACUUM INTO ?", (str(self.backup),))
        source.close()

    def put_back(self) -> None:
        for name in ("-wal", "-shm"):
            self.path.with_name(self.path.name + name).unlink(missing_ok=True)
        shutil.copy(self.backup, self.path)

    @property
    def noted(self) -> int:
        return int(NOTE.unpack(self.note_path.read_bytes())[1])

    @property
    def counted(self) -> int:
        with sqlite3.connect(self.path) as connection:
            (count,) = connection.execute("SELECT count FROM beat").fetchone()
        connection.close()
        return int(count)

    def kill_before_note(self) -> None:
        """A crash between a commit and its note: the store is one group ahead."""
        with sqlite3.connect(self.path) as connection:
            connection.execute("UPDATE beat SET count = count + 1")
        connection.close()


def descriptor_count() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# What is noticed


async def test_first_start_and_every_later_one_is_no_restore(place: Place) -> None:
    assert [await place.run() for _ in range(3)] == [False] * 3
    assert place.noted == place.counted == 3


async def test_start_without_a_write_leaves_both_counts(place: Place) -> None:
    assert not await place.run(0)
    assert not await place.run(0)
    assert not await place.run(2)
    assert not await place.run(0)
    assert place.noted == place.counted == 2


async def test_backup_that_is_one_group_behind_is_noticed(place: Place) -> None:
    await place.run(5)
    place.back_up()
    await place.run(1)
    place.put_back()
    assert await place.run(0)
    assert not await place.run(0), "once noticed it is marked, and not noticed again"


async def test_backup_with_nothing_written_since_is_not_older(place: Place) -> None:
    await place.run(5)
    place.back_up()
    place.put_back()
    assert not await place.run()


async def test_same_backup_put_back_twice_is_noticed_twice(place: Place) -> None:
    await place.run(5)
    place.back_up()
    await place.run(10)
    place.put_back()
    assert await place.run(0)
    place.put_back()
    assert await place.run(3)
    assert place.counted == place.noted > 15, "the count never goes back"
    place.put_back()
    assert await place.run(0)


async def test_backup_taken_after_a_restore_is_noticed_too(place: Place) -> None:
    await place.run(5)
    place.back_up()
    await place.run(10)
    place.put_back()
    await place.run(1)
    place.back_up()
    await place.run(1)
    place.put_back()
    assert await place.run()


async def test_crash_between_commit_and_note_is_no_restore(place: Place) -> None:
    await place.run(5)
    place.kill_before_note()
    assert (place.counted, place.noted) == (6, 5)
    assert not await place.run()
    assert place.counted == place.noted == 7


async def test_crash_between_marking_and_note_leaves_the_marks(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.run(5)
    await used(place)
    place.back_up()
    await place.run(10)
    place.put_back()
    with monkeypatch.context() as patch:
        patch.setattr(Beat, "note", lambda _: None)
        assert await place.run(0)
    store = SqliteStore.open(place.path)
    assert not store.is_restored
    assert all(one.is_window_doubtful for one in await store.sessions())
    assert set(await store.recalls()) == {A, B}
    await store.close()


async def test_crash_before_the_marks_are_committed_is_noticed_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.run(5)
    place.back_up()
    await place.run(10)
    place.put_back()

    def fails(connection: sqlite3.Connection, at: int) -> None:
        connection.execute("DELETE FROM meter")
        raise sqlite3.OperationalError("disk I/O error")

    descriptors = descriptor_count()
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "doubt", fails)
        with pytest.raises(StoreUnusable, match="put back from a backup, and cannot be marked"):
            SqliteStore.open(place.path)
    assert descriptor_count() == descriptors, "nothing is left open"
    assert place.noted == 15
    assert await place.run()


# The note's fate


async def test_store_moved_with_its_note_is_the_same_store(place: Place, tmp_path: Path) -> None:
    await place.run(5)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for one in (place.path, place.note_path):
        one.rename(elsewhere / one.name)
    assert not await Place(elsewhere).run()


async def test_store_moved_without_its_note_counts_as_put_back(
    place: Place, tmp_path: Path
) -> None:
    await place.run(5)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place.path.rename(elsewhere / place.path.name)
    moved = Place(elsewhere)
    assert await moved.run()
    assert not await moved.run(), "from then on there is a note"
    moved.note_path.unlink()
    assert await moved.run(0)
    assert not await moved.run(0), "also if nothing was written"


async def test_new_store_beside_an_old_note_counts_on_from_it(place: Place) -> None:
    """The store was lost or thrown away; what was counted once is not counted again."""
    await place.run(5)
    place.path.unlink()
    assert await place.run()
    assert place.counted == place.noted > 5


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\0" * NOTE.size,
        MAGIC,
        NOTE.pack(MAGIC, 5)[:-1],
        NOTE.pack(b"somebody", 5),
        NOTE.pack(MAGIC, 0),
        NOTE.pack(MAGIC, COUNT_MAX + 1),
        NOTE.pack(MAGIC, 2**64 - 1),
    ],
    ids=["empty", "zeros", "cut", "cut-by-one", "foreign", "none", "too-far", "farthest"],
)
async def test_note_that_is_none_counts_as_missing_and_is_written_anew(
    place: Place, octets: bytes
) -> None:
    await place.run(5)
    place.note_path.write_bytes(octets)
    assert await place.run()
    assert place.counted == place.noted == 7
    assert not await place.run()


async def test_farthest_note_that_counts_stops_no_write(place: Place) -> None:
    await place.run(5)
    place.note_path.write_bytes(NOTE.pack(MAGIC, COUNT_MAX))
    assert await place.run(3)
    assert place.counted == place.noted == COUNT_MAX + 4


async def test_note_longer_than_it_should_be_is_read_as_far_as_it_goes(place: Place) -> None:
    await place.run(5)
    with place.note_path.open("ab") as note:
        note.write(b"more")
    assert not await place.run()


async def test_disk_that_refuses_the_note_stops_no_write(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.run(5)

    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("headend.store.sqlite.beat.os.pwrite", refuse)
        assert not await place.run(5)
    assert (place.counted, place.noted) == (10, 5)
    assert not await place.run(1), "a note that is behind is as after a crash"
    assert place.noted == 11


async def test_note_that_cannot_be_opened_is_one_line(place: Place) -> None:
    await place.run(5)
    place.note_path.unlink()
    place.note_path.mkdir()
    descriptors = descriptor_count()
    with pytest.raises(StoreUnusable, match=r"headend\.sqlite: its note of writes"):
        SqliteStore.open(place.path)
    assert descriptor_count() == descriptors, "nothing is left open"


def test_store_without_its_count_leaves_nothing_open(place: Place) -> None:
    connection = connect(place.path)
    connection.execute("DROP TABLE beat")
    descriptors = descriptor_count()
    with pytest.raises(sqlite3.Error):
        Beat(connection, place.path)
    assert descriptor_count() == descriptors
    connection.close()


async def test_note_is_for_its_owner_alone(place: Place) -> None:
    await place.run()
    assert place.note_path.stat().st_mode & 0o777 == 0o600


async def test_group_that_fails_is_not_counted_and_the_next_is(place: Place) -> None:
    store = SqliteStore.open(place.path)
    await store.commit(EnrolMeters(()))
    bad = Meter(A, None, MeterState.ENROLLED, NOW)  # type: ignore[arg-type]  # Refused on purpose.
    with pytest.raises(StoreError):
        await store.commit(EnrolMeters((bad,)))
    assert place.counted == place.noted == 1
    await store.commit(EnrolMeters(()))
    await store.close()
    assert place.counted == place.noted > 1
    assert not await place.run()


async def test_store_without_threads_keeps_the_same_count(place: Place) -> None:
    store = SqliteStore.open(place.path, is_threaded=False)
    for _ in range(3):
        await store.commit(RecallDone(A))
    store.submit(RecallDone(A), lambda _: None)
    store.abandon()  # As a kill: the last is neither committed nor noted.
    await asyncio.sleep(0.01)
    assert place.counted == place.noted == 3
    assert not await place.run()


# What follows from it


async def used(place: Place) -> None:
    """Two meters are enrolled, one has a session, a report and a window."""
    store = SqliteStore.open(place.path)
    meters = tuple(Meter(m, public_key(m.hex()), MeterState.ENROLLED, NOW) for m in (A, B))
    await store.commit(EnrolMeters(meters))
    await store.commit(KeepSession(session(A, b"\x01"), PATH))
    await store.commit(deliver(report_record(A), window=(5, 1)))
    await store.close()


async def test_restored_store_doubts_every_session_and_recalls_every_meter(place: Place) -> None:
    await used(place)
    store = SqliteStore.open(place.path)
    assert [one.is_window_doubtful for one in await store.sessions()] == [False]
    assert list(await store.recalls()) == []
    await store.close()
    place.back_up()
    await place.run()
    place.put_back()
    store = SqliteStore.open(place.path)
    (kept,) = await store.sessions()
    assert kept.is_window_doubtful
    assert kept.window == (5, 1), "what is known of the window stays"
    assert set(await store.recalls()) == {A, B}
    await store.close()


async def test_doubt_ends_with_a_delivery_and_not_with_a_restart_or_a_number(place: Place) -> None:
    await used(place)
    place.note_path.unlink()
    assert await place.run()
    assert not await place.run()
    store = SqliteStore.open(place.path)
    assert [one.is_window_doubtful for one in await store.sessions()] == [True]
    await store.commit(deliver(window=(9, 0)))
    (kept,) = await store.sessions()
    assert not kept.is_window_doubtful
    assert kept.window == (9, 0)
    await store.close()


async def test_doubt_ends_with_a_new_session(place: Place) -> None:
    await used(place)
    place.note_path.unlink()
    store = SqliteStore.open(place.path)
    await store.commit(KeepSession(session(A, b"\x07"), PATH))
    assert [one.is_window_doubtful for one in await store.sessions()] == [False]
    await store.close()


async def test_recall_that_is_done_stays_done_until_the_next_restore(place: Place) -> None:
    await used(place)
    place.note_path.unlink()
    store = SqliteStore.open(place.path)
    await store.commit(RecallDone(A))
    assert list(await store.recalls()) == [B]
    await store.close()
    assert not await place.run()
    store = SqliteStore.open(place.path)
    assert list(await store.recalls()) == [B]
    await store.close()
    place.note_path.unlink()
    store = SqliteStore.open(place.path)
    assert set(await store.recalls()) == {A, B}
    await store.close()
