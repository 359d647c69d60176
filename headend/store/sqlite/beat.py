"""Notice that a store was put back from a backup: count its groups of writes in two places.

The count stands in the store, in the same transaction as the writes, and is noted in a small file
beside it after each commit, without a flush. A crash or a power cut leaves the note at the store's
count or behind it. A backup that is put back is behind the note.

Limit   not found out: a note that is put back along with the store; a backup that is younger than
        the last note that the disk took
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from pathlib import Path
from typing import Final

NOTE: Final = struct.Struct("!8sQ")
MAGIC: Final = b"AMIHBEAT"
COUNT_MAX: Final = 1 << 62
"""What counts further is no note of ours, and would not fit the store."""


class Beat:
    """The two counts of one store."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Compare them. Raises sqlite3.Error or OSError when one cannot be read or written."""
        self._descriptor = os.open(
            path.with_name(path.name + "-beat"), os.O_RDWR | os.O_CREAT, 0o600
        )
        try:
            noted = _noted(os.pread(self._descriptor, NOTE.size, 0))
            (self._count,) = connection.execute("SELECT count FROM beat").fetchone()
        except BaseException:
            self.close()
            raise
        # Without a note nothing is known of what ran here: a store that was used then counts as
        # put back, too.
        self.is_restored = self._count < noted or (bool(self._count) and not noted)
        self._count = max(self._count, noted)

    def advance(self, connection: sqlite3.Connection) -> None:
        """Count one more group, inside its transaction."""
        self._count += 1
        connection.execute("UPDATE beat SET count = ?", (self._count,))

    def note(self) -> None:
        """Note the count, after the commit. A disk that refuses it stops no write."""
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, NOTE.pack(MAGIC, self._count), 0)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)


def _noted(octets: bytes) -> int:
    """The count in a note, 0 if it is none."""
    if len(octets) != NOTE.size:
        return 0
    magic, count = NOTE.unpack(octets)
    return int(count) if magic == MAGIC and count <= COUNT_MAX else 0
