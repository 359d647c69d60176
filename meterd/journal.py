"""Small tables that survive a power cut at any write: a journal of transactions, kept in memory.

A transaction is a list of changes, each a table, a key and its new value (or none). It is one
frame, appended and flushed: after a power cut it is there whole, or not at all. Now and then the
tables are written anew as the first frame of a new segment, and the old segment goes.

::

    segment   magic 8 octets, frame, frame, ...
    frame     size of the body (4, big-endian), CRC-32 (4), body
    body      CBOR: [[table, key, value], ...]; the first frame of a segment holds every table

The CRC of a frame, over size and body, goes on from that of the frame before; that of the first
from the segment's name. So a frame counts only where it was written: octets that a file system
brings back from elsewhere, from an older segment say, are noise.

A segment is written to only as long as every octet in it is known to be durable. After a flush
that failed nothing is known: the kernel may have dropped what it could not write, and a later
flush succeeds without it. So the next transaction begins a new segment. So does every start:
what it reads may be in the kernel's memory alone, left by a program that was killed.

Gives   reads from memory; `transact`, durable when it returns; at birth what is there is made
        durable before it is shown
Raises  StoreUnusable at birth on a journal that is newer, damaged or not ours; StoreError from
        `transact` when the disk fails: then nothing has changed, though a later start may find
        the change made if no other transaction comes between
Limit   SEGMENT_SIZE_MAX octets before a new segment, or twice the tables if that is more;
        FRAME_SIZE_MAX a transaction, and all tables
Cost    one flush a transaction, two more and all tables written a segment: 96 intervals a day
        of one channel are some 100 flushes and 13 kB a day
"""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import cbor2

from amistack.cbor import is_array
from amistack.errors import StoreError, StoreUnusable
from meterd.files import Appendable, Files

MAGIC: Final = b"AMIMTR1\n"
"""What a segment begins with; the digit is the version of the format."""
MAGIC_SIZE: Final = 8
HEADER: Final = struct.Struct("!II")  # size of the body, crc
SEGMENT_SIZE_MAX: Final = 128 * 1024
FRAME_SIZE_MAX: Final = 4 * 1024 * 1024
SEGMENT_READ_MAX: Final = FRAME_SIZE_MAX + 4096
"""More than a segment can have: it is no longer than a frame, or has only one."""
PREFIX: Final = "journal-"
UNFINISHED: Final = "unfinished"

_NAME: Final = re.compile(re.escape(PREFIX) + r"([0-9]{8,12})")
_NEWER_MAGIC: Final = re.compile(rb"AMIMTR[2-9]\n")
# What the decoder raises, also from the tags that it makes objects of.
_DECODE_ERRORS: Final = (
    cbor2.CBORError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    RecursionError,
    MemoryError,
    re.error,
)

Key = int | str | tuple[int, int]
Value = Any
"""Anything that CBOR holds; None means that there is no such key."""
Change = tuple[str, Key, Value]
Tables = dict[str, dict[Key, Value]]


class Journal:
    """The tables of one meter."""

    def __init__(
        self, files: Files, *, amend: Callable[[Journal], Sequence[Change]] | None = None
    ) -> None:
        """Take over `files` and what they hold. Raises StoreUnusable; then they are closed.

        If octets had to be dropped, `amend` says what to change because of that. The changes are
        durable together with the taking up: no later start finds the tables without them.
        """
        self._files = files
        self._amend = amend
        self._tables: Tables = {}
        self._segment: Appendable | None = None
        """What may be written to: None while a write is under way, and after one that failed."""
        self._name = ""
        self._number = 0
        """The highest that was ever given to a segment, or tried."""
        self._size = 0
        self._size_max = 0
        self._crc = 0
        self._is_closed = False
        self.dropped_octets = 0
        """Octets found that were no whole transaction: a power cut's, or a damaged disk's.

        An empty segment counts as one.
        """
        self.written_octets = 0
        self.sync_count = 0
        try:
            self._recover()
        except StoreUnusable:
            self.close()
            raise
        except StoreError as error:
            self.close()
            raise StoreUnusable(
                f"the meter's storage holds what no meterd writes ({error}); "
                "move it away to start anew"
            ) from error
        except OSError as error:
            self.close()
            raise StoreUnusable(
                f"the meter's storage cannot be used: {error.strerror or error}; check its disk, "
                "folder and rights"
            ) from error

    # Reading

    def get(self, table: str, key: Key) -> Value:
        """The value of a key, or None. Not to be changed."""
        return self._tables.get(table, {}).get(key)

    def table(self, table: str) -> Mapping[Key, Value]:
        """All of a table, in the order of its keys' first writing. Not kept over a transaction."""
        return self._tables.get(table, {})

    # Writing

    def transact(self, changes: Sequence[Change]) -> None:
        """Make `changes` durable together. Raises StoreError; then none of them counts."""
        if self._is_closed:
            raise StoreError("the meter's storage is closed")
        if not changes:
            return
        try:
            # What later starts will read, and nothing that the caller may still change.
            changes = _decode(_encode(changes))
        except _DECODE_ERRORS as error:
            raise StoreError(f"a change that cannot be read back: {error}") from error
        # Encoded again, as a new segment will have to.
        body = _encode(changes)
        try:
            if self._segment is None or self._size + HEADER.size + len(body) > self._size_max:
                tables = {table: dict(rows) for table, rows in self._tables.items()}
                _apply(tables, changes)
                self._begin_segment(tables)
            else:
                self._append(self._segment, body)
                _apply(self._tables, changes)
        except OSError as error:
            raise StoreError(f"the meter's storage failed: {error.strerror or error}") from error

    def examine(self) -> tuple[str | None, str | None]:
        """Read the segment anew: what is wrong on disk, and in the tables in use; None for nothing.

        As the kernel gives it, which may be from its own memory. Raises StoreError while there is
        no segment that can be written to: the next transaction begins one.
        """
        if self._is_closed or self._segment is None:
            raise StoreError("no segment of the meter's storage can be written to")
        try:
            octets = self._files.read(self._name, SEGMENT_READ_MAX)
            tables, end = _read_tables(self._name, octets)
        except (OSError, StoreError, *_DECODE_ERRORS) as error:
            return f"{self._name} cannot be read: {error}", None
        if end != self._size or end != len(octets):
            return f"{self._name}: check sum wrong at octet {end} of {self._size}", None
        in_use = {table: rows for table, rows in self._tables.items() if rows}
        on_disk = {table: rows for table, rows in tables.items() if rows}
        return None, None if in_use == on_disk else "tables in use are not those on disk"

    def close(self) -> None:
        """Give the files back."""
        if self._is_closed:
            return
        self._is_closed = True
        self._leave_segment()
        self._files.close()

    def _append(self, segment: Appendable, body: bytes) -> None:
        frame, crc = _frame(body, self._crc)
        # Until this is durable nothing may be written behind it, whatever interrupts us.
        self._segment = None
        try:
            segment.append(frame)
        except OSError:
            self._cut_back(segment)
            raise
        try:
            segment.sync()
        except OSError:
            # What the kernel keeps of the segment and what is on disk may differ from now on.
            _close(segment)
            raise
        self._segment = segment
        self._crc = crc
        self._size += len(frame)
        self.written_octets += len(frame)
        self.sync_count += 1

    def _cut_back(self, segment: Appendable) -> None:
        """Remove what a failed write left in the segment, or never write to it again.

        A new segment would need more room, and the disk may be full.
        """
        _close(segment)
        with contextlib.suppress(OSError):
            self._segment = self._files.open_at(self._name, self._size)

    def _begin_segment(self, tables: Tables) -> None:
        """Write `tables` into a new segment, which takes the old one's place by its number."""
        body = _encode(
            [(table, key, value) for table, rows in tables.items() for key, value in rows.items()]
        )
        # A number is used once: after a rename that failed there may be a segment of that name.
        self._number += 1
        name = _name_of(self._number)
        frame, crc = _frame(body, zlib.crc32(name.encode()))
        octets = MAGIC + frame
        segment = self._files.create(UNFINISHED)
        try:
            segment.append(octets)
            segment.sync()
        except OSError:
            _close(segment)
            with contextlib.suppress(OSError):
                self._files.remove(UNFINISHED)
            raise
        # A rename that fails may have been made all the same, and then the new segment is what a
        # start takes up: whatever happens now, nothing may be written to the old one.
        self._leave_segment()
        try:
            self._files.rename(UNFINISHED, name)
        except OSError:
            _close(segment)
            raise
        self._tables = tables
        self._segment, self._name = segment, name
        self._crc = crc
        self._size = len(octets)
        # Whatever a segment holds must fit into the first frame of the next.
        self._size_max = min(max(SEGMENT_SIZE_MAX, 2 * self._size), FRAME_SIZE_MAX)
        self.written_octets += len(octets)
        self.sync_count += 2
        self._remove_others(name)

    def _leave_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            _close(segment)

    def _remove_others(self, name: str) -> None:
        # If the power fails before this, the next start finds several and takes the newest.
        with contextlib.suppress(OSError):
            for other in self._files.names():
                if other != name and _number_of(other) is not None:
                    self._files.remove(other)

    # Taking up

    def _recover(self) -> None:
        numbers = sorted(
            number for name in self._files.names() if (number := _number_of(name)) is not None
        )
        for number in reversed(numbers):
            octets = self._files.read(_name_of(number), SEGMENT_READ_MAX)
            end = self._take_up(_name_of(number), octets)
            self.dropped_octets += len(octets) - end if end else max(len(octets), 1)
            if end:
                break
        else:
            if numbers:
                raise StoreUnusable(
                    f"the meter's storage ({_name_of(numbers[-1])}) is damaged at its beginning; "
                    "move it away to start anew"
                )
        self._number = numbers[-1] if numbers else 0
        if self.dropped_octets and self._amend is not None:
            _apply(self._tables, self._amend(self))
        self._begin_segment(self._tables)

    def _take_up(self, name: str, octets: bytes) -> int:
        """Read a segment as far as it is whole; where that ends. 0 if not even its first frame is.

        Only the newest segment is ever written to, and its first frame is durable before it has
        its name: an older one is only asked when the disk has broken its word.
        """
        if octets[:MAGIC_SIZE] != MAGIC:
            if _NEWER_MAGIC.match(octets):
                raise StoreUnusable(
                    f"the meter's storage ({name}) was made by a newer meterd: run that one"
                )
            return 0
        try:
            tables, end = _read_tables(name, octets)
        except _DECODE_ERRORS as error:
            raise StoreUnusable(
                f"the meter's storage ({name}) holds what no meterd writes; "
                "move it away to start anew"
            ) from error
        if end:
            self._tables = tables
        return end


def _name_of(number: int) -> str:
    return f"{PREFIX}{number:08}"


def _number_of(name: str) -> int | None:
    """The number of a segment; None for a file of another kind."""
    match = _NAME.fullmatch(name)
    if match is None or _name_of(int(match[1])) != name:
        return None
    return int(match[1])


def _close(segment: Appendable) -> None:
    """Close what has nothing more to say: all that counts in it is flushed, or lost."""
    with contextlib.suppress(OSError):
        segment.close()


def _apply(tables: Tables, changes: Iterable[Change]) -> None:
    for table, key, value in changes:
        rows = tables.setdefault(table, {})
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value


# Octets


def _frame(body: bytes, crc_before: int) -> tuple[bytes, int]:
    """A frame and its CRC, behind a frame with `crc_before`."""
    crc = _crc(body, crc_before)
    return HEADER.pack(len(body), crc) + body, crc


def _read_tables(name: str, octets: bytes) -> tuple[Tables, int]:
    """The tables of a segment as far as it is whole, and where that ends: 0 for not at all.

    Raises one of _DECODE_ERRORS.
    """
    tables: Tables = {}
    end = 0
    at, crc = MAGIC_SIZE, zlib.crc32(name.encode())
    while (found := _read_frame(octets, at, crc)) is not None:
        body, crc = found
        _apply(tables, _decode(body))
        end = at = at + HEADER.size + len(body)
    return tables, end


def _read_frame(octets: bytes, at: int, crc_before: int) -> tuple[bytes, int] | None:
    """The body of the frame at `at` and its CRC, or None if there is no whole one."""
    begin = at + HEADER.size
    if begin > len(octets):
        return None
    size, crc = HEADER.unpack_from(octets, at)
    if not 0 < size <= FRAME_SIZE_MAX or begin + size > len(octets):
        return None
    body = octets[begin : begin + size]
    if _crc(body, crc_before) != crc:
        return None
    return body, crc


def _crc(body: bytes, crc_before: int) -> int:
    return zlib.crc32(body, zlib.crc32(len(body).to_bytes(4, "big"), crc_before))


def _encode(changes: Sequence[Change]) -> bytes:
    try:
        body = cbor2.dumps([list(change) for change in changes])
    except (cbor2.CBOREncodeError, ValueError, RecursionError) as error:
        raise StoreError(f"a change that CBOR does not hold: {error}") from error
    if len(body) > FRAME_SIZE_MAX:
        raise StoreError(f"a transaction of {len(body)} octets, at most {FRAME_SIZE_MAX}")
    return body


def _decode(body: bytes) -> list[Change]:
    """The changes in a body. Raises one of _DECODE_ERRORS."""
    changes: list[Change] = []
    for change in _array(cbor2.loads(body)):
        table, key, value = _array(change)
        if not isinstance(table, str):
            raise TypeError("a table is known by a text")
        changes.append((table, _key(key), value))
    return changes


def _key(key: object) -> Key:
    """A key as it was: CBOR has arrays, not tuples."""
    if isinstance(key, int | str):
        return key
    first, second = _array(key)
    if not (isinstance(first, int) and isinstance(second, int)):
        raise TypeError("a key is a number, a text or a pair of numbers")
    return (first, second)


def _array(value: object) -> Sequence[object]:
    if not is_array(value):
        raise TypeError("an array was expected")
    return value
