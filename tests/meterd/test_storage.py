"""What a meter keeps: durable when it returns, all together or not at all, in nobody else's hands.

The contract under test: what a method kept is there after reopening; a folder that cannot be used
is StoreUnusable in one line; a disk that fails later is StoreError, and the storage works on when
the disk does; when anything that was written may be missing, so is the session.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import StoreError, StoreUnusable
from amistack.model.events import COLD_STARTED, REGISTERED
from amistack.model.schedule import ReadSchedule
from meterd.files import LOCK, RealFiles
from meterd.journal import Change, Journal
from meterd.storage import ENTRY_COUNT_MAX, ChannelDay, SavedSession, Storage
from tests.support.power import PowerCut, TornFiles

SESSION = SavedSession(
    b"\xa1\x04head", b"\x07", b"\x01\x02\x03\x04", b"s" * 16, b"t" * 8, 64, (5, (1 << 63) - 1)
)
DAY = ChannelDay(20_000, 1, 123, 45, 96, b"packed", 0b101 << 90)


def torn(seed: int = 0) -> TornFiles:
    return TornFiles(random.Random(seed))


def log(storage: Storage, at: int, *, skipped: int = 0) -> int:
    entry = storage.keep_entry(at, COLD_STARTED, None, is_time_doubtful=False, skipped=skipped)
    return entry.sequence


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and what is in it; the lock is always empty."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


def segment(folder: Path) -> Path:
    (path,) = folder.glob("journal-*")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meter-data"


def test_everything_kept_is_there_after_reopening(path: Path) -> None:
    storage = Storage.open(path)
    storage.keep_note("recorded until", "17")
    storage.keep_channel_days([DAY])
    storage.owe(20_000)
    storage.owe(20_001)
    entry = storage.keep_entry(1_790_000_000, REGISTERED, "detail", is_time_doubtful=True)
    storage.keep_session(SESSION)
    storage.reserve_numbers(SESSION.recipient_id, 128)
    storage.close()

    again = Storage.open(path)
    assert again.note("recorded until") == "17"
    assert again.note("never kept") is None
    assert again.channel_days(20_000) == [DAY]
    assert again.owed_days() == [20_001, 20_000]
    assert again.entries(0, 1 << 32, limit=9) == [entry]
    saved = again.session()
    assert saved is not None
    assert (saved.reserved_until, saved.window) == (128, SESSION.window)
    assert (saved.master_secret, saved.head_end) == (SESSION.master_secret, SESSION.head_end)
    again.close()


def test_folder_and_all_in_it_are_readable_by_nobody_else(path: Path) -> None:
    before = os.umask(0o000)
    try:
        storage = Storage.open(path)
        storage.keep_session(SESSION)
    finally:
        os.umask(before)
    files = [path, *path.iterdir()]
    assert len(files) == 3
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
def test_every_replay_window_comes_back(base: int, bitmap: int) -> None:
    files = torn()
    storage = Storage.on(files)
    storage.keep_session(SESSION)
    storage.keep_window(SESSION.recipient_id, (base, bitmap))
    files.crash()
    assert Storage.on(files).session() == replace(SESSION, window=(base, bitmap))


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


# Folders that cannot be used


def _file(path: Path) -> None:
    path.write_text("this is no folder\n")


def _nowhere(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("in the way\n")


def _foreign(path: Path) -> None:
    path.mkdir()
    (path / "journal-00000001").write_text("what somebody did, day by day\n" * 40)


def _newer(path: Path) -> None:
    Storage.open(path).close()
    octets = segment(path).read_bytes()
    segment(path).write_bytes(octets.replace(b"AMIMTR1", b"AMIMTR2", 1))


def _damaged(path: Path) -> None:
    Storage.open(path).close()
    octets = bytearray(segment(path).read_bytes())
    octets[10:] = b"\xa5" * (len(octets) - 10)
    segment(path).write_bytes(octets)


_SCHEDULE = ReadSchedule(1, 3600).encode()


def _other(changes: list[Change]) -> Callable[[Path], None]:
    """A whole journal, of other tables than a storage's."""

    def make(path: Path) -> None:
        journal = Journal(RealFiles(path))
        journal.transact(changes)
        journal.close()

    return make


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_file, "cannot be used"),
        (_nowhere, "cannot be used"),
        (_foreign, "is damaged at its beginning; move it away"),
        (_newer, "was made by a newer meterd: run that one"),
        (_damaged, "is damaged at its beginning; move it away"),
        (_other([("note", 1, "text")]), "no meterd writes (note 1)"),
        (_other([("note", "one", 1)]), "no meterd writes (note one)"),
        (_other([("note", "octets lost", "many")]), "no meterd writes"),
        (_other([("day", 1, [0, 0, 0, b"", b""])]), "no meterd writes"),
        (_other([("day", (1, 1), [0, 0, 0, b"", 0])]), "no meterd writes"),
        (_other([("day", (1, 1), {})]), "no meterd writes"),
        (_other([("owed", "day", True)]), "no meterd writes"),
        (_other([("owed", 1, b"")]), "no meterd writes"),
        (_other([("schedule", 1, [b"\xff", 0, 0, []])]), "no meterd writes"),
        (_other([("schedule", 2, [_SCHEDULE, 0, 0, []])]), "no meterd writes (schedule 2)"),
        (_other([("schedule", 1, [_SCHEDULE, 0, 0, [5]])]), "no meterd writes (schedule 1)"),
        (_other([("schedule", 1, [_SCHEDULE, 0, 0, ["a", 5]])]), "no meterd writes (schedule 1)"),
        (_other([("log", 1, [0, "3.26.0.216", None, False])]), "no meterd writes"),
        (_other([("log", 1, [0, "3.26.0", None, False, False])]), "no meterd writes"),
        (_other([("log", -1, [0, "3.26.0.216", None, False, False])]), "no meterd writes"),
        (_other([("session", 1, [b"", b"", b"", b"", b"", 1, 1])]), "no meterd writes"),
        (_other([("session", 1, [b"", b"", b"", b"", "", 1, 1, 1])]), "no meterd writes"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else None,
)
def test_folder_that_cannot_be_used_is_refused_in_one_line_and_left_as_it_was(
    tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    path = tmp_path / "box" / "meter-data"
    path.parent.mkdir()
    spoil(path)
    before = list(contents(tmp_path).values())
    with pytest.raises(StoreUnusable) as refused:
        Storage.open(path)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert says in message
    assert "\n" not in message
    if "no meterd writes" not in says:
        assert list(contents(tmp_path).values()) == before
    # Nothing is held: whoever mends it can open it at once.
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        Storage.open(path).close()


# All or nothing


def test_together_is_all_or_nothing() -> None:
    files = torn()
    storage = Storage.on(files)
    storage.owe(1)
    calls = len(files.calls)
    with pytest.raises(ValueError, match="on the way"), storage.together():  # noqa: PT012
        storage.settle_day(1)
        storage.keep_note("half", "done")
        assert storage.note("half") == "done", "whoever writes it sees it"
        with storage.together():  # Inside another it is part of it.
            storage.owe(2)
        assert storage.owed_days() == [2]
        assert log(storage, 5) == 0
        raise ValueError("on the way")
    assert len(files.calls) == calls
    assert storage.owed_days() == [1]
    assert storage.note("half") is None
    with storage.together():
        storage.settle_day(1)
        with storage.together():
            storage.keep_note("all", "done")
        assert log(storage, 5) == 0, "the number was not used"
    assert len(files.calls) == calls + 2, "one write, one flush"
    files.crash()
    again = Storage.on(files)
    assert again.owed_days() == []
    assert again.note("all") == "done"


def test_nothing_written_together_is_no_write() -> None:
    files = torn()
    storage = Storage.on(files)
    calls = len(files.calls)
    with storage.together():
        storage.drop_days_before(1)
        storage.settle_entries([1, 2])
    assert len(files.calls) == calls


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("call", [0, 1])
def test_disk_that_fails_changes_nothing_and_afterwards_changes_are_durable_again(
    call: int, seed: int
) -> None:
    files = torn(seed)
    storage = Storage.on(files)
    assert log(storage, 1) == 0
    files.fail_after([call])
    with pytest.raises(StoreError, match="No space left"), storage.together():  # noqa: PT012
        storage.keep_note("lost", "1")
        log(storage, 2)
    assert storage.note("lost") is None
    assert [entry.sequence for entry in storage.entries(0, 9, limit=9)] == [0]
    with storage.together():
        storage.keep_note("kept together", "1")
    storage.keep_note("kept alone", "1")
    assert log(storage, 3) == 1, "no number is left out"
    files.crash()
    again = Storage.on(files)
    assert again.note("lost") is None
    assert again.note("kept together") == again.note("kept alone") == "1"
    assert [entry.at for entry in again.entries(0, 9, limit=9)] == [1, 3]


# Damage


def _filled(files: TornFiles) -> Storage:
    storage = Storage.on(files)
    storage.keep_channel_days([DAY])
    storage.keep_session(SESSION)
    storage.reserve_numbers(SESSION.recipient_id, 128)
    return storage


def _damage(files: TornFiles, change: Callable[[bytes], bytes]) -> None:
    (name,) = files.names()
    octets = change(files.read(name, 1 << 20))
    files.crash()
    files.put(name, octets)


@pytest.mark.parametrize(
    "change",
    [
        lambda octets: octets[:-1],
        lambda octets: octets[:-1] + b"?",
        lambda octets: octets + b"\x00",
        lambda octets: octets + octets[8:],
    ],
    ids=["cut", "flipped", "zero behind", "copy behind"],
)
def test_session_of_a_damaged_storage_is_gone_and_the_damage_known_until_settled(
    change: Callable[[bytes], bytes],
) -> None:
    files = torn()
    storage = _filled(files)
    assert storage.lost_octets == 0
    _damage(files, change)
    storage = Storage.on(files)
    lost = storage.journal.dropped_octets
    assert storage.session() is None
    assert storage.lost_octets == lost > 0
    assert storage.channel_days(DAY.day) == [DAY], "what is whole stays"
    storage.keep_session(SESSION)
    files.crash()
    # Told again until somebody has taken it; a session of afterwards is as good as any.
    storage = Storage.on(files)
    assert storage.journal.dropped_octets == 0
    assert storage.lost_octets == lost
    assert storage.session() == SESSION
    _damage(files, lambda octets: octets + b"12345")
    storage = Storage.on(files)
    assert storage.lost_octets == lost + 5
    storage.settle_loss()
    files.crash()
    assert Storage.on(files).lost_octets == 0


def test_empty_segment_that_hides_an_older_one_is_damage() -> None:
    files = torn()
    _filled(files)
    files.crash()
    files.put("journal-00000009", b"")
    storage = Storage.on(files)
    assert storage.session() is None
    assert storage.lost_octets == 1


def test_power_cut_while_a_damaged_storage_opens_never_brings_the_session_back() -> None:
    for seed in range(20):
        for cut in range(20):
            files = torn(seed)
            _filled(files)
            _damage(files, lambda octets: octets[:-1])
            files.cut_after(cut)
            try:
                Storage.on(files)
            except PowerCut:
                files.crash()
                storage = Storage.on(files)
                assert storage.session() is None
                assert storage.lost_octets > 0
            else:
                break
        assert cut > 3


def test_looking_into_a_storage_changes_no_octet_of_it(path: Path) -> None:
    with pytest.raises(StoreUnusable, match="cannot be used"):
        Storage.look(path)
    assert not path.exists()
    storage = Storage.open(path)
    storage.keep_session(SESSION)
    with pytest.raises(StoreUnusable, match="in use by another meterd"):
        Storage.look(path)
    storage.close()
    segment(path).write_bytes(segment(path).read_bytes() + b"torn")
    before = contents(path)
    looked = Storage.look(path)
    # Of a damaged storage too: what was said with it can still be read.
    assert looked.session() == SESSION
    looked.owe(1)
    with pytest.raises(StoreUnusable, match="in use by another meterd"):
        Storage.open(path)
    other = Storage.look(path)
    assert other.owed_days() == []
    other.close()
    looked.close()
    assert contents(path) == before
    storage = Storage.open(path)
    assert storage.session() is None
    storage.close()


def test_looking_into_a_damaged_beginning_is_one_line(path: Path) -> None:
    _damaged(path)
    with pytest.raises(StoreUnusable, match="move it away") as refused:
        Storage.look(path)
    assert str(path) in str(refused.value)
    segment(path).unlink()
    Storage.open(path).close()


# The log


def test_log_numbers_go_on_after_old_entries_were_dropped() -> None:
    files = torn()
    storage = Storage.on(files)
    for at in (10, 20, 30):
        log(storage, at)
    storage.drop_entries_before(1_000)
    assert [entry.sequence for entry in storage.entries(0, 100, limit=9)] == [2]
    assert log(storage, 40) == 3
    storage.drop_entries_before(1_000)
    files.crash()
    storage = Storage.on(files)
    assert log(storage, 50) == 4
    assert log(storage, 50, skipped=10) == 15
    assert log(storage, 50) == 16


def test_log_is_bounded_and_keeps_the_newest() -> None:
    files = torn()
    storage = Storage.on(files)
    with storage.together():
        for at in range(ENTRY_COUNT_MAX + 10):
            log(storage, at)
    storage.drop_entries_before(0)
    kept = storage.entries(0, 1 << 32, limit=ENTRY_COUNT_MAX + 100)
    assert len(kept) == ENTRY_COUNT_MAX
    assert kept[-1].sequence == ENTRY_COUNT_MAX + 9
    files.crash()
    assert Storage.on(files).entries(0, 1 << 32, limit=ENTRY_COUNT_MAX + 100) == kept


def test_entries_are_given_until_they_are_acknowledged() -> None:
    files = torn()
    storage = Storage.on(files)
    entries = [
        storage.keep_entry(at, REGISTERED, f"at {at}", is_time_doubtful=at == 2) for at in range(4)
    ]
    storage.settle_entries([1, 3, 77])
    for _ in range(2):
        assert storage.entries(0, 100, limit=9) == [entries[0], entries[2]]
        assert storage.entries(0, 2, limit=9) == [entries[0]]
        assert storage.entries(1, 100, limit=9) == [entries[2]]
        assert storage.entries(0, 100, limit=1) == [entries[0]]
        files.crash()
        storage = Storage.on(files)


# Days


def test_days_are_given_by_channel_and_dropped_with_what_is_owed_of_them() -> None:
    files = torn()
    storage = Storage.on(files)
    days = [replace(DAY, day=day, channel=channel) for day in (8, 9, 10) for channel in (2, 1)]
    storage.keep_channel_days(days)
    for day in (8, 9, 10):
        storage.owe(day)
    assert [one.channel for one in storage.channel_days(9)] == [1, 2]
    storage.keep_channel_days([replace(DAY, day=9, channel=1, count=97)])
    storage.drop_days_before(9)
    files.crash()
    storage = Storage.on(files)
    assert storage.channel_days(8) == []
    assert [one.count for one in storage.channel_days(9)] == [97, 96]
    assert storage.owed_days() == [10, 9]


@settings(max_examples=50)
@given(missing=st.integers(0, (1 << 2880) - 1), opening=st.integers(0, 1 << 60))
def test_every_day_comes_back(missing: int, opening: int) -> None:
    files = torn()
    day = replace(DAY, missing=missing, opening=opening)
    Storage.on(files).keep_channel_days([day])
    files.crash()
    assert Storage.on(files).channel_days(DAY.day) == [day]
