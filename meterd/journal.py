"""Small tables that survive a power cut at any write: a journal of transactions, kept in memory.

A transaction is a list of changes, each a table, a key and its new value (or none). It is one
frame, appended and flushed: after a power cut it is there whole, or not at all. Now and then the
tables are written anew as the first frame of a new segment, and the old segment goes.

::

    segment   magic 8 octets, frame, frame, ...
    frame     size of the body (4, big-endian), CRC-32 of size and body (4), body
    body      CBOR: [[table, key, value], ...]; the first frame of a segment holds every table

Gives   reads from memory; `transact`, durable when it returns
Raises  StoreUnusable at birth on a journal that is newer, damaged or not ours; StoreError from
        `transact` when the disk fails: then nothing has changed
Limit   SEGMENT_SIZE_MAX octets before a new segment; FRAME_SIZE_MAX a transaction
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import cbor2

from amistack.errors import StoreError, StoreUnusable
from meterd.files import Appendable, Files

MAGIC: Final = b"AMIMTR1\n"
"""What a segment begins with; the digit is the version of the format."""
MAGIC_SIZE: Final = 8
HEADER: Final = struct.Struct("!II")  # size of the body, crc
SEGMENT_SIZE_MAX: Final = 128 * 1024
FRAME_SIZE_MAX: Final = 4 * 1024 * 1024
PREFIX: Final = "journal-"
UNFINISHED: Final = "unfinished"

Key = int | str | tuple[int, int]
Value = Any
"""Anything that CBOR holds; None means that there is no such key."""
Change = tuple[str, Key, Value]


class Journal:
    """The tables of one meter."""

    def __init__(self, files: Files) -> None:
        """Take up what the folder holds. Raises StoreUnusable."""
        self._files = files
        self._tables: dict[str, dict[Key, Value]] = {}
        self._segment: Appendable | None = None
        self._name = ""
        self._size = 0
        self.dropped_octets = 0
        """Octets at the end of the last segment that were no whole transaction: a power cut's."""
        self.written_octets = 0
        self.sync_count = 0
        try:
            self._recover()
        except OSError as error:
            raise StoreUnusable(
                f"the meter's storage cannot be used: {error.strerror or error}; check its folder "
                "and rights"
            ) from error

    # Reading

    def get(self, table: str, key: Key) -> Value:
        """The value of a key, or None."""
        return self._tables.get(table, {}).get(key)

    def table(self, table: str) -> Mapping[Key, Value]:
        """All of a table. Not to be kept over a transaction."""
        return self._tables.get(table, {})

    # Writing

    def transact(self, changes: Sequence[Change]) -> None:
        """Make `changes` durable together. Raises StoreError; then none of them counts."""
        if not changes:
            return
        undo = self._apply(changes)
        try:
            self._write(changes)
        except OSError as error:
            self._apply(reversed(undo))
            self._cut_back()
            raise StoreError(f"the meter's storage failed: {error.strerror or error}") from error

    def close(self) -> None:
        """Give the files back."""
        if self._segment is not None:
            self._segment.close()
        self._files.close()

    def _write(self, changes: Sequence[Change]) -> None:
        frame = _frame(changes)
        if self._segment is None or self._size + len(frame) > SEGMENT_SIZE_MAX:
            self._begin_segment()  # The tables hold the changes already.
            return
        self._segment.append(frame)
        self._segment.sync()
        self._size += len(frame)
        self.written_octets += len(frame)
        self.sync_count += 1

    def _begin_segment(self) -> None:
        """Write every table into a new segment, which takes the old one's place by its name."""
        number = int(self._name.removeprefix(PREFIX) or "0") + 1
        name = f"{PREFIX}{number:08}"
        every = [
            (table, key, value)
            for table, rows in self._tables.items()
            for key, value in rows.items()
        ]
        octets = MAGIC + _frame(every)
        segment = self._files.create(UNFINISHED)
        try:
            segment.append(octets)
            segment.sync()
            self._files.rename(UNFINISHED, name)
        except OSError:
            segment.close()
            raise
        old, old_name = self._segment, self._name
        self._segment, self._name, self._size = segment, name, len(octets)
        self.written_octets += len(octets)
        self.sync_count += 2
        if old is not None:
            old.close()
        if old_name:
            # If the power fails before this, the next start finds both and takes the newer one.
            with contextlib.suppress(OSError):
                self._files.remove(old_name)

    def _cut_back(self) -> None:
        """Remove what a failed write left in the segment, or never write behind it again.

        If the disk refuses even that, the transaction may be found at a later start. It was
        one that its caller wanted, so that is harmless; a frame behind half a frame is not.
        """
        if self._segment is None:
            return
        with contextlib.suppress(OSError):
            self._segment.close()
        self._segment = None
        with contextlib.suppress(OSError):
            self._segment = self._files.open_at(self._name, self._size)

    def _apply(self, changes: Iterable[Change]) -> list[Change]:
        """Change the tables; what undoes it, in the same order."""
        undo: list[Change] = []
        for table, key, value in changes:
            rows = self._tables.setdefault(table, {})
            undo.append((table, key, rows.get(key)))
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        return undo

    # Taking up

    def _recover(self) -> None:
        names = sorted(name for name in self._files.names() if name.startswith(PREFIX))
        for name in reversed(names):
            if self._take_up(name):
                for other in names:
                    if other != name:
                        self._files.remove(other)
                return
        if names:
            raise StoreUnusable(
                f"the meter's storage ({names[-1]}) is damaged at its beginning; "
                "move it away to start anew"
            )

    def _take_up(self, name: str) -> bool:
        """Read a segment as far as it is whole. False if not even its first frame is."""
        octets = self._files.read(name)
        if octets[:MAGIC_SIZE] != MAGIC:
            if octets[: MAGIC_SIZE - 2] == MAGIC[:-2]:
                raise StoreUnusable(
                    f"the meter's storage ({name}) was made by a newer meterd: run that one"
                )
            return False
        at = MAGIC_SIZE
        tables_before = self._tables
        self._tables = {}
        is_first = True
        while (found := _read_frame(octets, at)) is not None:
            changes, at = found
            self._apply(changes)
            is_first = False
        if is_first:
            self._tables = tables_before
            return False
        self.dropped_octets = len(octets) - at
        self._name, self._size = name, at
        self._segment = self._files.open_at(name, at)
        return True


def _frame(changes: Sequence[Change]) -> bytes:
    body = cbor2.dumps([list(change) for change in changes])
    if len(body) > FRAME_SIZE_MAX:
        raise StoreError(f"a transaction of {len(body)} octets, at most {FRAME_SIZE_MAX}")
    size = len(body).to_bytes(4, "big")
    return HEADER.pack(len(body), zlib.crc32(body, zlib.crc32(size))) + body


def _read_frame(octets: bytes, at: int) -> tuple[list[Change], int] | None:
    """The frame at `at` and where it ends, or None if there is no whole one."""
    if at + HEADER.size > len(octets):
        return None
    size, crc = HEADER.unpack_from(octets, at)
    begin, end = at + HEADER.size, at + HEADER.size + size
    if size > FRAME_SIZE_MAX or end > len(octets):
        return None
    body = octets[begin:end]
    if zlib.crc32(body, zlib.crc32(octets[at : at + 4])) != crc:
        return None
    return [(table, _key(key), value) for table, key, value in cbor2.loads(body)], end


def _key(key: object) -> Key:
    """A key as it was: CBOR has arrays, not tuples."""
    if isinstance(key, int | str):
        return key
    assert isinstance(key, Sequence), "a key is a number, a text or a pair"
    first, second = key
    return (first, second)
