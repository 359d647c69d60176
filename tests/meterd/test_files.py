"""The folder on disk: what the journal asks of a file system, done in the order that makes it last.

The contract under test: a write is flushed before it is said to be durable, and so is a name; one
process holds the folder; what cannot be used is StoreUnusable in one line; a write that the
kernel takes in pieces arrives whole.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from amistack.errors import StoreError, StoreUnusable
from meterd.files import LOCK, FrozenFiles, RealFiles
from meterd.journal import SEGMENT_SIZE_MAX, Journal
from tests.support.rights import without_privilege


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "meter"


def path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the operating system is told that matters after a power cut, as it is told."""
    told: list[str] = []

    def watch(name: str, say: Callable[..., str]) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            told.append(say(*arguments))
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    watch("write", lambda descriptor, _: f"write {path_of(descriptor).name}")
    watch("fsync", lambda descriptor: f"fsync {path_of(descriptor).name}")
    watch("ftruncate", lambda descriptor, size: f"cut {path_of(descriptor).name} {size}")
    watch("replace", lambda old, new: f"rename {Path(old).name} {Path(new).name}")
    watch("unlink", lambda path: f"remove {Path(path).name}")
    return told


# In the right order


def test_transaction_is_flushed_when_transact_returns(folder: Path, watched: list[str]) -> None:
    journal = Journal(RealFiles(folder))
    watched.clear()
    journal.transact([("a", 1, 1)])
    assert watched == ["write journal-00000001", "fsync journal-00000001"]
    journal.close()


def test_segment_is_flushed_before_it_has_its_name_and_the_name_before_the_old_one_goes(
    folder: Path, watched: list[str]
) -> None:
    journal = Journal(RealFiles(folder))
    watched.clear()
    while not any(told.startswith("rename") for told in watched):
        watched.clear()
        journal.transact([("a", 1, bytes(SEGMENT_SIZE_MAX // 4))])
    assert watched == [
        "remove unfinished",
        "write unfinished",
        "fsync unfinished",
        "rename unfinished journal-00000002",
        "fsync meter",
        "remove journal-00000001",
    ]
    journal.close()


def test_folder_is_durable_before_anything_is_in_it(tmp_path: Path, watched: list[str]) -> None:
    RealFiles(tmp_path / "new" / "newer" / "newest").close()
    assert sorted(watched) == sorted([f"fsync {tmp_path.name}", "fsync new", "fsync newer"])


def test_folder_that_was_there_is_made_durable_again(tmp_path: Path, watched: list[str]) -> None:
    """Who made it may have been killed before the power went."""
    (tmp_path / "meter").mkdir()
    RealFiles(tmp_path / "meter").close()
    assert watched == [f"fsync {tmp_path.name}"]


def test_folder_under_one_that_nobody_may_read_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def without_rights(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *rest)  # type: ignore[arg-type]  # whatever a path is

    monkeypatch.setattr(os, "open", without_rights)
    RealFiles(folder).close()


# The port


def test_file_is_made_read_cut_renamed_and_removed(folder: Path) -> None:
    files = RealFiles(folder)
    assert files.names() == []
    file = files.create("one")
    file.append(b"abc")
    file.append(b"def")
    file.sync()
    file.close()
    assert files.read("one", 99) == b"abcdef"
    assert files.read("one", 4) == b"abcd"
    file = files.open_at("one", 2)
    file.append(b"xyz")
    file.close()
    assert files.read("one", 99) == b"abxyz"
    files.create("two").close()
    files.rename("one", "two")
    assert files.names() == ["two"]
    assert files.read("two", 99) == b"abxyz"
    files.remove("two")
    files.remove("two")
    assert files.names() == []
    files.close()
    files.close()


def test_file_made_again_is_another_file(folder: Path) -> None:
    """One that could not be flushed is never emptied and trusted again."""
    files = RealFiles(folder)
    first = files.create("one")
    first.append(b"old")
    second = files.create("one")
    first.append(b"old")
    second.append(b"new")
    assert files.read("one", 99) == b"new"
    for closing in (first, second, files):
        closing.close()


def test_file_that_is_closed_is_not_written_through_its_old_number(folder: Path) -> None:
    """The number may be another file's by now."""
    files = RealFiles(folder)
    first = files.create("one")
    first.close()
    second = files.create("two")
    first.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        first.append(b"lost")
    second.append(b"kept")
    assert files.read("two", 99) == b"kept"
    second.close()
    files.close()


def test_short_writes_arrive_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    sizes = []

    def short(descriptor: int, octets: memoryview) -> int:
        sizes.append(len(octets))
        return real(descriptor, octets[: max(1, len(octets) // 2)])

    monkeypatch.setattr(os, "write", short)
    journal = Journal(RealFiles(folder))
    journal.transact([("a", 1, bytes(range(256)))])
    journal.close()
    assert len(sizes) > 10
    monkeypatch.undo()
    again = Journal(RealFiles(folder))
    assert again.get("a", 1) == bytes(range(256))
    assert again.dropped_octets == 0
    again.close()


def test_short_write_on_a_full_disk_is_taken_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(RealFiles(folder))
    journal.transact([("a", 1, b"one")])
    size = (folder / "journal-00000001").stat().st_size
    real = os.write
    calls = []

    def full(descriptor: int, octets: memoryview) -> int:
        calls.append(len(octets))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, octets[:9])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="No space left on device"):
        journal.transact([("a", 2, b"two")])
    assert (folder / "journal-00000001").stat().st_size == size
    monkeypatch.undo()
    journal.transact([("a", 3, b"three")])
    journal.close()
    again = Journal(RealFiles(folder))
    assert dict(again.table("a")) == {1: b"one", 3: b"three"}
    again.close()


def test_write_that_takes_nothing_is_an_error_and_no_endless_loop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = RealFiles(folder)
    file = files.create("one")
    monkeypatch.setattr(os, "write", lambda descriptor, octets: 0)
    with pytest.raises(OSError, match="Input/output error"):
        file.append(b"abc")
    file.close()
    files.close()


def test_flush_that_fails_is_told_and_another_file_is_begun(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(RealFiles(folder))
    journal.transact([("a", 1, b"one")])

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    for _ in range(2):
        with pytest.raises(StoreError, match="Input/output error"):
            journal.transact([("a", 2, b"two")])
    monkeypatch.undo()
    before = (folder / "journal-00000001").read_bytes()
    journal.transact([("a", 3, b"three")])
    assert not (folder / "journal-00000001").exists()
    assert before.count(b"two") == 1
    journal.close()
    again = Journal(RealFiles(folder))
    assert dict(again.table("a")) == {1: b"one", 3: b"three"}
    again.close()


def test_nothing_is_readable_by_anybody_else(folder: Path) -> None:
    before = os.umask(0o000)
    try:
        journal = Journal(RealFiles(folder))
        journal.transact([("a", 1, b"key")])
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o077 == 0
    assert [file.name for file in folder.iterdir() if file.stat().st_mode & 0o077] == []
    journal.close()


def test_files_are_given_back(folder: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        Journal(RealFiles(folder)).close()
    (file,) = (file for file in folder.iterdir() if file.name != LOCK)
    file.write_bytes(b"AMIMTR9\n")
    for _ in range(3):
        with pytest.raises(StoreUnusable, match="newer"):
            Journal(RealFiles(folder))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Who may have it


def test_frozen_files_are_read_and_never_written(folder: Path, watched: list[str]) -> None:
    journal = Journal(RealFiles(folder))
    journal.transact([("a", 1, "kept")])
    journal.close()
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    watched.clear()
    frozen = Journal(FrozenFiles(folder))
    assert frozen.get("a", 1) == "kept"
    for number in range(10):
        frozen.transact([("a", number, bytes(SEGMENT_SIZE_MAX // 4))])
    assert len(frozen.table("a")) == 10
    frozen.close()
    assert watched == []
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_frozen_files_need_only_the_right_to_read(folder: Path) -> None:
    Journal(RealFiles(folder)).close()
    modes = {path: path.stat().st_mode for path in (folder, *folder.iterdir())}
    for path in modes:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        Journal(FrozenFiles(folder)).close()
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_second_holder_is_refused_in_one_line_until_the_first_lets_go(folder: Path) -> None:
    first = RealFiles(folder)
    with pytest.raises(StoreUnusable, match="in use by another meterd") as refusal:
        RealFiles(folder)
    assert "\n" not in str(refusal.value)
    first.close()
    RealFiles(folder).close()


KILLED: str = """
    import itertools, sys
    from pathlib import Path
    from meterd.files import RealFiles
    from meterd.journal import Journal

    journal = Journal(RealFiles(Path(sys.argv[1])))
    for count in itertools.count(1):
        journal.transact([("a", "count", count), ("a", count % 50, bytes(900))])
        print(count, flush=True)
"""


def test_process_that_is_killed_has_kept_what_it_said_and_lets_go(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), folder], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for said in process.stdout:
            if int(said) == 200:
                break
        with pytest.raises(StoreUnusable, match="in use by another meterd"):
            RealFiles(folder)
        process.send_signal(signal.SIGKILL)
        last = [200, *map(int, process.stdout.read().split())][-1]
    assert process.returncode == -signal.SIGKILL
    journal = Journal(RealFiles(folder))
    assert journal.get("a", "count") in (last, last + 1)
    assert len(journal.table("a")) == 51
    journal.close()


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, error: int, *, name: str) -> None:
    real = getattr(os, call)

    def refused(path: object, *arguments: object) -> object:
        if name in (Path(str(path)).name, ""):
            raise OSError(error, os.strerror(error))
        return real(path, *arguments)

    monkeypatch.setattr(os, call, refused)


@pytest.mark.parametrize(("call", "name"), [("mkdir", "meter"), ("open", "lock")])
def test_folder_without_rights_is_refused_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    refuse(monkeypatch, call, errno.EACCES, name=name)
    with pytest.raises(StoreUnusable, match="Permission denied; check its rights") as refusal:
        RealFiles(folder)
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)


def test_folder_that_cannot_be_written_to_is_noticed_at_birth(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(RealFiles(folder)).close()
    refuse(monkeypatch, "open", errno.EROFS, name="unfinished")
    with pytest.raises(StoreUnusable, match="Read-only file system") as refusal:
        Journal(RealFiles(folder))
    assert "\n" not in str(refusal.value)
    monkeypatch.undo()
    Journal(RealFiles(folder)).close()


@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_folder_with_its_rights_taken_away_is_refused(mode: int) -> None:
    with without_privilege() as own:
        folder = own / "meter-data"
        folder.mkdir()
        folder.chmod(mode)
        try:
            with pytest.raises(StoreUnusable, match="Permission denied"):
                RealFiles(folder)
        finally:
            folder.chmod(0o700)


def test_file_in_place_of_the_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreUnusable, match="cannot be used") as refusal:
            RealFiles(path)
        assert "\n" not in str(refusal.value)


def test_folder_that_cannot_be_locked_is_refused_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(StoreUnusable, match="cannot be locked: No locks available"):
        RealFiles(folder)


def test_folder_in_place_of_a_segment_is_refused_in_one_line(folder: Path) -> None:
    (folder / "journal-00000009").mkdir(parents=True)
    with pytest.raises(StoreUnusable, match="cannot be used: Is a directory") as refusal:
        Journal(RealFiles(folder))
    assert "\n" not in str(refusal.value)
