"""The few things that a journal asks of a file system, as a port: so that a test can cut the power.

Raises  OSError, as the operating system does; the journal makes a StoreError of it
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
from pathlib import Path
from typing import Final, Protocol

from amistack.errors import StoreUnusable

LOCK: Final = "lock"
"""The file by which a process holds a folder; it stays empty."""


def allow_open_files(count: int) -> None:
    """Let this process have `count` files open, or as many as it may: a street has many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Appendable(Protocol):
    """A file open for appending."""

    def append(self, octets: bytes) -> None:
        """Write behind what is there. Durable only after `sync`; on an error, some of it is."""

    def sync(self) -> None:
        """Return when everything written is durable.

        After an error nothing is known of what was written before, not even if `sync` then works.
        """

    def close(self) -> None:
        """Give the file back."""


class Files(Protocol):
    """One folder, which belongs to one journal."""

    def names(self) -> list[str]:
        """The files in it."""

    def read(self, name: str, size_max: int) -> bytes:
        """All of a file, or its first `size_max` octets."""

    def create(self, name: str) -> Appendable:
        """A new file, in place of one of that name."""

    def open_at(self, name: str, size: int) -> Appendable:
        """An existing file for appending, cut to its first `size` octets: durable with `sync`."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, durably, in place of what had it.

        After an error it may have either name, now and after a power cut.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it is there. A power cut may bring it back."""

    def close(self) -> None:
        """Give the folder back."""


class _RealFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, octets: bytes) -> None:
        view = memoryview(octets)
        while view:
            written = os.write(self._descriptor, view)
            if not written:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            view = view[written:]

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class RealFiles:
    """A folder on disk, held by one process at a time.

    Raises StoreUnusable, one line, when it cannot be made or another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            _make_folder(folder)
        except OSError as error:
            raise _unusable(folder, error) from error
        self._lock = _lock(folder, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)

    def names(self) -> list[str]:
        return [entry.name for entry in self._folder.iterdir() if entry.name != LOCK]

    def read(self, name: str, size_max: int) -> bytes:
        with (self._folder / name).open("rb") as file:
            return file.read(size_max)

    def create(self, name: str) -> Appendable:
        # Never an old file emptied: one that could not be flushed may not be trusted again.
        self.remove(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        return _RealFile(os.open(self._folder / name, flags, 0o600))

    def open_at(self, name: str, size: int) -> Appendable:
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_APPEND)
        try:
            os.ftruncate(descriptor, size)
        except OSError:
            os.close(descriptor)
            raise
        return _RealFile(descriptor)

    def rename(self, old: str, new: str) -> None:
        (self._folder / old).replace(self._folder / new)
        # The new name is only durable once the folder is.
        _sync_folder(self._folder)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._folder / name).unlink()

    def close(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


class _Nowhere:
    """A file that takes everything and keeps nothing."""

    def append(self, octets: bytes) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class FrozenFiles(RealFiles):
    """A folder on disk to look into, while no process works in it: whatever is written vanishes.

    Raises StoreUnusable, one line, when a process holds it, or never did.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = _lock(folder, os.O_RDONLY, fcntl.LOCK_SH)

    def create(self, name: str) -> Appendable:  # noqa: ARG002
        return _Nowhere()

    def open_at(self, name: str, size: int) -> Appendable:  # noqa: ARG002
        return _Nowhere()

    def rename(self, old: str, new: str) -> None:
        pass

    def remove(self, name: str) -> None:
        pass


def _lock(folder: Path, flags: int, kind: int) -> int:
    """Hold a folder as long as the descriptor is open. Raises StoreUnusable."""
    try:
        lock = os.open(folder / LOCK, flags, 0o600)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise StoreUnusable(
                f"{folder} is in use by another meterd: stop that one first"
            ) from error
        raise StoreUnusable(f"{folder} cannot be locked: {error.strerror}") from error
    return lock


def _unusable(folder: Path, error: OSError) -> StoreUnusable:
    return StoreUnusable(
        f"{folder} cannot be used: {error.strerror or error}; check its rights, "
        "or name another folder as storage"
    )


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably: it must not go with what will be in it."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The folder above also when nothing was missing: its maker may have been killed before this.
    for above in {folder.parent, *(one.parent for one in missing)}:
        # What others own we may be unable to read; then they have made it, long ago.
        with contextlib.suppress(PermissionError):
            _sync_folder(above)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
