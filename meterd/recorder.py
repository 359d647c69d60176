"""Turn what the source measures into recorded days, and days into reports.

A day runs from midnight to midnight in the meter's standard-time offset, always 24 hours. Values
are differences of the cumulative register, so they add up to it; an interval that the source does
not know is a gap, and adds nothing. Behind a real meter the register is its dial's: what flowed in
a gap is on the register as soon as the dial is seen again, and in no interval.

Gives   interval blocks, midnight register reads, the registers now, and which reports are owed
Raises  StoreError when the storage fails; SourceError when the source does
Limit   RETENTION_DAYS whole days and their log; older ones are dropped, reported or not
Never   reads a clock: UTC comes with each call
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.errors import ConfigError
from amistack.model import (
    Channel,
    EndDeviceEventType,
    FlowDirection,
    IntervalBlock,
    LogEntry,
    interval_energy,
    pack,
    register_energy,
    unpack,
)
from amistack.model.quality import Quality, QualityRun, runs_of
from meterd.metrology import Flow, LiveSource, Source
from meterd.storage import ChannelDay, Storage

DAY_S: Final = 86_400
RETENTION_DAYS: Final = 45
INTERVALS_PER_REPORT_MAX: Final = 2_880
"""Values that one report can hold on all channels: it must fit one datagram."""
ENTRIES_PER_REPORT_MAX: Final = 64

SOURCE: Final = "source"
"""The note with a real meter's source as it was."""
DIAL: Final = "dial"
"""The note that a real meter's dial was seen at the end of an interval."""
CHANNEL_SET: Final = 1
FLOW_DIRECTIONS: Final = {
    Flow.DELIVERED: FlowDirection.FORWARD,
    Flow.RECEIVED: FlowDirection.REVERSE,
}


class Recorder:
    """The memory of one meter."""

    def __init__(
        self,
        storage: Storage,
        source: Source,
        *,
        offset_min: int,
        register_start: Sequence[int] = (),
    ) -> None:
        """Raises ConfigError when the storage was recorded with other channels."""
        self._storage = storage
        self._source = source
        self._offset_s = offset_min * 60
        self._interval_s = source.interval_s
        self._per_day = DAY_S // source.interval_s
        self._register_start = register_start
        self.channels = tuple(
            Channel(
                number,
                interval_energy(source.interval_s, FLOW_DIRECTIONS[flow]),
                register_energy(FLOW_DIRECTIONS[flow]),
                0,
                "Wh",
                source.interval_s,
            )
            for number, flow in enumerate(source.flows, start=1)
        )
        if self._per_day * len(self.channels) > INTERVALS_PER_REPORT_MAX:
            raise ConfigError(
                f"{len(self.channels)} channels of {self._interval_s} s make a report too long: "
                f"at most {INTERVALS_PER_REPORT_MAX} intervals a day in all"
            )
        self._check_channels()

    # Days

    def day_of(self, utc: float) -> int:
        """The day that `utc` falls in."""
        return int(utc + self._offset_s) // DAY_S

    def start_of(self, day: int) -> int:
        """The UTC second at which a day begins."""
        return day * DAY_S - self._offset_s

    # Recording

    @property
    def recorded_until(self) -> int | None:
        """The UTC second up to which every interval is recorded; None before the first record."""
        note = self._storage.note("recorded until")
        return None if note is None else int(note)

    def next_due(self, utc: float) -> int:
        """The UTC second at which the running interval ends."""
        shifted = int(utc + self._offset_s)
        return shifted - shifted % self._interval_s + self._interval_s - self._offset_s

    def advance(self, utc: float) -> int:
        """Record every interval that has ended by `utc`; how many those were.

        The first time this takes up to RETENTION_DAYS of history from the source. All of it
        becomes durable at once.
        """
        begin = self.recorded_until
        if begin is None:
            begin = self._first_second(utc)
        end = self.next_due(utc) - self._interval_s
        if end <= begin:
            return 0
        recorded = 0
        with self._storage.together():
            while begin < end:
                day = self.day_of(begin)
                until = min(end, self.start_of(day + 1))
                recorded += self._record(day, begin, (until - begin) // self._interval_s)
                if until == self.start_of(day + 1):
                    self._storage.owe(day)
                begin = until
            self._storage.keep_note("recorded until", str(end))
            self.keep_source()
            oldest = self.day_of(utc) - RETENTION_DAYS
            self._storage.drop_days_before(oldest)
            self._storage.drop_entries_before(self.start_of(oldest))
        return recorded

    def _record(self, day: int, begin: int, count: int) -> int:
        measured = self._source.energy(begin, count)
        dials = self._dials(begin + count * self._interval_s)
        before = {one.channel: one for one in self._storage.channel_days(day)}
        days = []
        for place, channel in enumerate(self.channels):
            so_far = before.get(channel.number) or self._new_day(day, channel.number)
            values = unpack(so_far.packed, so_far.count)
            missing = so_far.missing
            gap = (begin - self.start_of(day)) // self._interval_s - so_far.count
            # A first record in the middle of a day: what came before is not known.
            missing |= ((1 << gap) - 1) << so_far.count
            values += [0] * gap
            for interval in measured:
                energy = interval[place]
                if energy is None:
                    missing |= 1 << len(values)
                values.append(energy or 0)
            opening = so_far.opening
            advance = so_far.advance + sum(interval[place] or 0 for interval in measured)
            if dials is not None and self._storage.note(DIAL) is None:
                # The first time that the meter's own dial is seen: it says where to begin.
                opening = dials[place] - advance
            elif dials is not None:
                # What flowed in gaps is in no interval, and on the dial all the same.
                advance = max(dials[place] - opening, advance)
            days.append(
                ChannelDay(
                    day,
                    channel.number,
                    opening,
                    advance,
                    len(values),
                    pack(values),
                    missing,
                )
            )
        self._storage.keep_channel_days(days)
        if dials is not None and self._storage.note(DIAL) is None:
            self._storage.keep_note(DIAL, "seen")
        return count

    def _dials(self, utc: float) -> tuple[int, ...] | None:
        """What a real meter's registers showed at `utc` (Wh), if there is one and it is known."""
        return self._source.register(utc) if isinstance(self._source, LiveSource) else None

    def keep_source(self) -> None:
        """Keep what a real meter's source needs to go on after a restart, if there is one."""
        state = self._source.state() if isinstance(self._source, LiveSource) else None
        if state is not None:
            self._storage.keep_note(SOURCE, state)

    def _new_day(self, day: int, channel: int) -> ChannelDay:
        """An empty day that opens with what the register showed at the end of the one before."""
        for one in self._storage.channel_days(day - 1):
            if one.channel == channel:
                return ChannelDay(day, channel, one.opening + one.advance, 0, 0, b"", 0)
        start = self._register_start[channel - 1 :][:1]
        return ChannelDay(day, channel, start[0] if start else 0, 0, 0, b"", 0)

    def _first_second(self, utc: float) -> int:
        oldest = self.start_of(self.day_of(utc) - RETENTION_DAYS)
        known_from, _ = self._source.available()
        if known_from is None or known_from <= oldest:
            return oldest
        return min(self.start_of(self.day_of(known_from)), self.start_of(self.day_of(utc)))

    # What is told

    def block(self, day: int) -> list[IntervalBlock]:
        """The blocks of a day as far as it is recorded, one for each channel."""
        return [self._block(one) for one in self._storage.channel_days(day)]

    def _block(self, one: ChannelDay) -> IntervalBlock:
        flags: tuple[QualityRun, ...] = ()
        if one.missing:
            flags = runs_of(
                [Quality.MISSING if one.missing >> i & 1 else Quality(0) for i in range(one.count)]
            )
        return IntervalBlock(
            one.channel,
            self._interval_s,
            one.count,
            one.opening,
            one.advance,
            one.packed,
            flags,
        )

    def registers(self, utc: float) -> tuple[tuple[int, int], ...]:
        """Channel and register (Wh) at `utc`, with the running interval's part."""
        day = self.day_of(utc)
        begin = self.next_due(utc) - self._interval_s
        until = self.recorded_until
        if until is not None and until > begin:
            # The host's clock went back: a register never does.
            day, begin, utc = self.day_of(until), until, until
        dials = self._dials(utc)
        if dials is not None:
            return tuple(
                (channel.number, dial) for channel, dial in zip(self.channels, dials, strict=True)
            )
        days = {one.channel: one for one in self._storage.channel_days(day)}
        partial = self._source.partial(begin, utc)
        registers = []
        for place, channel in enumerate(self.channels):
            one = days.get(channel.number) or self._new_day(day, channel.number)
            registers.append((channel.number, one.opening + one.advance + (partial[place] or 0)))
        return tuple(registers)

    def owed_days(self) -> list[int]:
        """Days whose reports are not acknowledged, newest first."""
        return self._storage.owed_days()

    def owe_again(self, first_day: int, last_day: int) -> int:
        """Owe the reports of those days, both included, as far as they are kept; how many."""
        until = self.recorded_until
        if until is None:
            return 0
        newest = self.day_of(until) - 1
        kept = [
            day
            for day in range(max(first_day, newest - RETENTION_DAYS), min(last_day, newest) + 1)
            if self._storage.channel_days(day)
        ]
        with self._storage.together():
            for day in kept:
                self._storage.owe(day)
        return len(kept)

    def settle(self, day: int, entries: Sequence[LogEntry]) -> None:
        """A day's report with those entries is acknowledged: it is not sent again."""
        with self._storage.together():
            self._storage.settle_day(day)
            self._storage.settle_entries([entry.sequence for entry in entries])

    # Log

    def log(
        self,
        utc: float,
        event: EndDeviceEventType,
        detail: str | None = None,
        *,
        is_time_doubtful: bool = False,
        skipped: int = 0,
    ) -> LogEntry:
        """Log an event at `utc`, `skipped` sequence numbers further than usual."""
        return self._storage.keep_entry(
            int(utc), event, detail, is_time_doubtful=is_time_doubtful, skipped=skipped
        )

    def entries_due(self, day: int) -> list[LogEntry]:
        """What the report of a day carries of the log: what is not acknowledged up to its end.

        Older entries too: one that found no room in its own day's report goes with a later one.
        """
        return self._storage.entries(0, self.start_of(day + 1), limit=ENTRIES_PER_REPORT_MAX)

    def entries_of(self, day: int) -> list[LogEntry]:
        """A day's log entries that are not acknowledged yet, oldest first."""
        return self._storage.entries(
            self.start_of(day), self.start_of(day + 1), limit=ENTRIES_PER_REPORT_MAX
        )

    def _check_channels(self) -> None:
        """Refuse a storage that was recorded with other channels or another offset."""
        described = (
            f"offset {self._offset_s} s; "
            + ", ".join(f"{channel.number}: {channel.reading_type}" for channel in self.channels)
            + f"; every {self._interval_s} s"
        )
        kept = self._storage.note("channels")
        if kept is None:
            self._storage.keep_note("channels", described)
        elif kept != described:
            raise ConfigError(
                f"the storage was recorded with other channels ({kept}; now {described}): "
                "name a new storage folder, or go back to the old metrology settings"
            )
