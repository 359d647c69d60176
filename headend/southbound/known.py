"""What is kept in memory of every meter: where it was heard, its offset, what its channels mean.

A head-end knows millions of meters, of which few speak at any moment. So a meter is one row of
octets here, and what many of them declare alike is kept once.

::

    octet   0..1         2..3          4..7              8 ..
            offset, min  channel set   its declaration   path, in UTF-8

Raises  nothing
Limit   the registry: only what an enrolled meter said makes a row. Earlier channel sets of a meter
        are kept beside, as reports under them may still come
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final

from amistack.identifiers import Eui64
from headend.domain.meters import ChannelRecord

ROW: Final = struct.Struct("!hHI")

Channels = Mapping[int, ChannelRecord]
"""The channels of a set by their number."""

_NEW: Final = ROW.pack(0, 0, 0)
_UNDECLARED: Final = 0


class KnownMeters:
    """Every meter that was heard or has registered."""

    def __init__(self) -> None:
        self._rows: dict[Eui64, bytes] = {}
        # Most meters of a fleet declare the same: one copy serves them all.
        self._declarations: list[Channels] = [{}]
        self._numbers: dict[tuple[ChannelRecord, ...], int] = {}
        self._earlier: dict[tuple[Eui64, int], int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    # Where it was heard

    def hear(self, meter: Eui64, path: str) -> str | None:
        """Note the path on which a meter is heard; the one before, or None the first time."""
        row = self._rows.get(meter, _NEW)
        before, now = row[ROW.size :], path.encode()
        if before != now:
            self._rows[meter] = row[: ROW.size] + now
        return before.decode() if before else None

    def path_of(self, meter: Eui64) -> str | None:
        """The path on which a meter was last heard."""
        row = self._rows.get(meter, _NEW)
        return row[ROW.size :].decode() if len(row) > ROW.size else None

    # What it declared

    def add(self, meter: Eui64, channel_set: int, channels: Iterable[ChannelRecord]) -> None:
        """Note what the channels of a set mean; a later declaration replaces an earlier one."""
        declared = tuple(channels)
        number = self._numbers.get(declared)
        if number is None:
            number = self._numbers[declared] = len(self._declarations)
            self._declarations.append({channel.number: channel for channel in declared})
        row = self._rows.get(meter, _NEW)
        offset_min, present_set, present = ROW.unpack_from(row)
        if present != _UNDECLARED and present_set != channel_set:
            self._earlier[(meter, present_set)] = present
        self._earlier.pop((meter, channel_set), None)
        self._rows[meter] = ROW.pack(offset_min, channel_set, number) + row[ROW.size :]

    def find(self, meter: Eui64, channel_set: int) -> Channels | None:
        """The channels of a set, or None if it was never declared."""
        _, present_set, number = ROW.unpack_from(self._rows.get(meter, _NEW))
        if present_set != channel_set or number == _UNDECLARED:
            number = self._earlier.get((meter, channel_set), _UNDECLARED)
        return None if number == _UNDECLARED else self._declarations[number]

    def set_offset(self, meter: Eui64, offset_min: int) -> None:
        """Note the standard-time offset in which a meter counts its days from now on."""
        row = self._rows.get(meter, _NEW)
        _, channel_set, number = ROW.unpack_from(row)
        self._rows[meter] = ROW.pack(offset_min, channel_set, number) + row[ROW.size :]

    def offset_of(self, meter: Eui64) -> int:
        """A registered meter's standard-time offset in minutes."""
        offset_min: int
        offset_min, _, _ = ROW.unpack_from(self._rows.get(meter, _NEW))
        return offset_min
