"""The programmes that a meter has: what ran on which day, what runs, what waits.

A programme that records otherwise than the one before begins at a midnight, so that every day is
of one plan: no interval is cut, none is counted twice, and a day's report has one meaning. From
when on each is in force is written down as it is taken; nothing has to happen at that moment.

Gives   the programme and plan of any day that is kept, and of now
Raises  ConfigError at birth on a storage of other channels; StoreError when the storage fails
Limit   what was in force within the retention, what runs, the one before it, and one that waits
Never   gives a channel set's number to other channels
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import ConfigError, ModelError, StoreUnusable
from amistack.model import Channel
from amistack.model.programme import Programme
from amistack.model.wire import DAY_S
from meterd.recording.plan import Plan, plan_of
from meterd.storage import PROGRAMME, Storage

FIRST_CHANNEL_SET: Final = 1
CHANNELS: Final = "channels"
"""The note on what the storage was begun with."""
READ_COUNT_MAX: Final = 1024
"""Programmes of a process that are kept as they were read: a street's meters share theirs."""
CHANNEL_SETS: Final = "channel sets"
"""The note on the highest number that a channel set has."""


@dataclass(frozen=True, slots=True)
class Shelved:
    """A programme, in force from `since` (UTC s) on; `number` orders them."""

    number: int
    since: int
    channel_set: int
    programme: Programme
    plan: Plan


class Shelf:
    """The programmes of one meter."""

    def __init__(self, storage: Storage, default: Programme) -> None:
        """`default` is what it does without any. Raises ConfigError if it once did otherwise.

        Raises StoreUnusable on a programme that cannot be read.
        """
        self._storage = storage
        self._offset_s = default.standard_offset_min * 60
        self._first = Shelved(0, 0, FIRST_CHANNEL_SET, default, plan_of(default))
        self._check(self._first.plan.channels)
        try:
            self.rows()
        except ModelError as error:
            raise _unreadable(error) from error

    @property
    def offset_s(self) -> int:
        """The standard-time offset, the same in all of them."""
        return self._offset_s

    # What there is

    def rows(self) -> tuple[Shelved, ...]:
        """Every programme that is kept, in the order of their times; the default is the first."""
        kept = sorted(self._storage.items(PROGRAMME))
        return (self._first, *(_shelved(number, *row) for number, row in kept))

    def at(self, utc: float) -> Shelved:
        """What is in force at `utc`."""
        return next(row for row in reversed(self.rows()) if row.since <= max(utc, 0))

    def of_day(self, day: int) -> Shelved:
        """What was in force as a day began: all of the day was recorded by its plan."""
        return self.at(day * DAY_S - self._offset_s)

    def waiting(self, utc: float) -> Shelved | None:
        """What comes into force after `utc`."""
        last = self.rows()[-1]
        return last if last.since > max(utc, 0) else None

    def previous(self, utc: float) -> Shelved | None:
        """What was in force before that of `utc`."""
        earlier = [row for row in self.rows() if row.number < self.at(utc).number]
        return earlier[-1] if earlier else None

    def channels_of_set(self, channel_set: int) -> tuple[Channel, ...] | None:
        """The channels that a set has, as long as a programme of it is kept."""
        rows = (row for row in self.rows() if row.channel_set == channel_set)
        return next((row.plan.channels for row in rows), None)

    # What changes it

    def add(self, programme: Programme, *, since: int, utc: float) -> Shelved:
        """Keep a programme that is in force from `since` on, in place of any that waits."""
        plan = plan_of(programme)
        number = self.rows()[-1].number + 1
        channel_set = self._channel_set(plan.channels)
        with self._storage.together():
            self.drop_waiting(utc)
            self._storage.put((PROGRAMME, number, [since, channel_set, programme.encode()]))
            self._storage.keep_note(CHANNEL_SETS, str(max(channel_set, self._highest_set())))
        return Shelved(number, since, channel_set, programme, plan)

    def drop_waiting(self, utc: float) -> None:
        """What has not come into force never will."""
        late = [row.number for row in self.rows() if row.since > max(utc, 0)]
        self._storage.put(*((PROGRAMME, number, None) for number in late))

    def drop_before(self, day: int, *, utc: float) -> None:
        """Forget what no day from `day` on was recorded by, other than what runs and its last."""
        running, previous = self.at(utc), self.previous(utc)
        start = day * DAY_S - self._offset_s
        rows = self.rows()
        gone = [
            row.number
            for row, after in itertools.pairwise(rows[1:])
            if row not in (running, previous)
            and not self._covers_midnight(max(row.since, start), after.since)
        ]
        if gone:
            self._storage.put(*((PROGRAMME, number, None) for number in gone))

    def _covers_midnight(self, first: int, end: int) -> bool:
        """Whether some day begins from `first` on, before `end`."""
        return -((-first - self._offset_s) // DAY_S) * DAY_S - self._offset_s < end

    def _channel_set(self, channels: Sequence[Channel]) -> int:
        """The number of a set of channels: of the same ones the same, else a new one."""
        rows = self.rows()
        for row in rows:
            if row.plan.channels == channels:
                return row.channel_set
        return self._highest_set() + 1

    def _highest_set(self) -> int:
        """Of all that were ever given; programmes go, numbers stay used."""
        note = self._storage.note(CHANNEL_SETS)
        return max(int(note or 0), *(row.channel_set for row in self.rows()), FIRST_CHANNEL_SET)

    def _check(self, channels: Sequence[Channel]) -> None:
        """Refuse a storage that was begun with other channels or another offset."""
        described = (
            f"offset {self._offset_s} s; "
            + ", ".join(f"{channel.number}: {channel.reading_type}" for channel in channels)
            + f"; every {channels[0].interval_s} s"
        )
        kept = self._storage.note(CHANNELS)
        if kept is None:
            self._storage.keep_note(CHANNELS, described)
        elif kept != described:
            raise ConfigError(
                f"the storage was recorded with other channels ({kept}; now {described}): "
                "name a new storage folder, or go back to the old metrology settings"
            )


def kept_programmes(storage: Storage) -> list[tuple[int, Programme]]:
    """What a meter was told, with the time (UTC s) that each is in force from, in that order.

    Raises StoreUnusable on a programme that cannot be read.
    """
    try:
        return [(row[0], _read(row[2])[0]) for _, row in sorted(storage.items(PROGRAMME))]
    except ModelError as error:
        raise _unreadable(error) from error


def _unreadable(error: ModelError) -> StoreUnusable:
    return StoreUnusable(
        f"the meter's storage holds a programme that this meterd cannot read ({error}); "
        "move it away to start anew"
    )


def _shelved(number: int, since: int, channel_set: int, octets: bytes) -> Shelved:
    return Shelved(number, since, channel_set, *_read(octets))


@functools.lru_cache(maxsize=READ_COUNT_MAX)
def _read(octets: bytes) -> tuple[Programme, Plan]:
    programme = Programme.decode(octets)
    return programme, plan_of(programme)
