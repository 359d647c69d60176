"""Turn what the source measures into recorded days, and days into reports.

A day runs from midnight to midnight in the meter's standard-time offset, always 24 hours, and is
recorded by one programme. Values are differences of the cumulative register, so they add up to it;
an interval that the source does not know is a gap, and adds nothing. Behind a real meter the
register is its dial's: what flowed in a gap is on the register as soon as the dial is seen again
(and on that of the tariff in force then), and in no interval.

Gives   interval blocks, midnight register reads, the registers now, and which reports are owed
Raises  StoreError when the storage fails; SourceError when the source does
Limit   RETENTION_DAYS whole days and their log; older ones are dropped, reported or not
Never   reads a clock: UTC comes with each call
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from amistack.errors import ConfigError
from amistack.model import Channel, EndDeviceEventType, IntervalBlock, LogEntry
from amistack.model.event_catalogue import DEMAND_RESET
from amistack.model.programme import DemandRules
from amistack.model.programme_check import INTERVALS_PER_REPORT_MAX
from meterd.metrology import LiveSource, Source
from meterd.metrology.supply import Supply
from meterd.programme.fit import Abilities, misfits
from meterd.programme.shelf import FIRST_CHANNEL_SET, Shelf, Shelved
from meterd.recording.days import DayRecorder
from meterd.recording.demand import DemandRegister
from meterd.recording.measuring import Metering
from meterd.recording.plan import default_programme
from meterd.storage import Storage

DAY_S: Final = 86_400
RETENTION_DAYS: Final = 45
ENTRIES_PER_REPORT_MAX: Final = 64

RECORDED_UNTIL: Final = "recorded until"
"""The note with the UTC second up to which everything is recorded."""
SOURCE: Final = "source"
"""The note with a real meter's source as it was."""
CHANNEL_SET: Final = FIRST_CHANNEL_SET
"""The set of a meter that was never programmed; else `Recorder.channel_set_of` says."""


class Recorder:
    """The memory of one meter."""

    def __init__(
        self,
        storage: Storage,
        source: Source,
        *,
        offset_min: int,
        register_start: Sequence[int] = (),
        interval_s: int | None = None,
        supply: Supply | None = None,
    ) -> None:
        """`interval_s`: of a meter without a programme, if not the source's own.

        Raises ConfigError when the storage was begun with other channels, or when what measures
        cannot do what the meter was programmed to.
        """
        self._storage = storage
        self._source = source
        default = default_programme(
            source, interval_s=interval_s or source.interval_s, offset_min=offset_min
        )
        count = sum(DAY_S // one.interval_s for one in default.channels)
        if count > INTERVALS_PER_REPORT_MAX:
            raise ConfigError(
                f"{len(default.channels)} channels of {default.channels[0].interval_s} s make a "
                f"report too long: at most {INTERVALS_PER_REPORT_MAX} intervals a day in all"
            )
        self.shelf = Shelf(storage, default)
        self._offset_s = self.shelf.offset_s
        self.demand = DemandRegister(storage, offset_s=self._offset_s)
        self.metering = Metering(source, supply)
        self.mark: Callable[[IntervalBlock, int], IntervalBlock] | None = None
        """Gives a block that begins at a UTC second its flags: what the clock was like then."""
        self._days = DayRecorder(storage, self.metering, self.shelf, register_start=register_start)
        self._check_ability()

    # What is recorded

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of the running day."""
        return self._running.plan.channels

    @property
    def channel_set(self) -> int:
        """The number of their set."""
        return self._running.channel_set

    def channels_of(self, day: int) -> tuple[Channel, ...]:
        """The channels that a day was recorded on."""
        return self.shelf.of_day(day).plan.channels

    def channel_set_of(self, day: int) -> int:
        """The number of their set: what the report of that day says."""
        return self.shelf.of_day(day).channel_set

    @property
    def demand_rules(self) -> DemandRules | None:
        """How demand is measured on the running day."""
        return self._running.plan.demand

    @property
    def _running(self) -> Shelved:
        return self.shelf.of_day(self.day_of(self.recorded_until or 0))

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
        note = self._storage.note(RECORDED_UNTIL)
        return None if note is None else int(note)

    def next_due(self, utc: float) -> int:
        """The UTC second at which the running interval ends: the shortest one, or part of one."""
        step_s = self.shelf.of_day(self.day_of(utc)).plan.step_s
        shifted = int(utc + self._offset_s)
        return shifted - shifted % step_s + step_s - self._offset_s

    def advance(self, utc: float) -> int:
        """Record every step that has ended by `utc`; how many those were.

        The first time this takes up to RETENTION_DAYS of history from the source. All of it
        becomes durable at once.
        """
        begin = self.recorded_until
        if begin is None:
            begin = self._first_second(utc)
        end = self.next_due(utc) - self.shelf.of_day(self.day_of(utc)).plan.step_s
        if end <= begin:
            return 0
        recorded = 0
        with self._storage.together():
            while begin < end:
                day = self.day_of(begin)
                until = min(end, self.start_of(day + 1))
                recorded += self._record(day, begin, until)
                if until == self.start_of(day + 1):
                    self._storage.owe(day)
                    self._begin_day(day + 1)
                begin = until
            self._storage.keep_note(RECORDED_UNTIL, str(end))
            self.keep_source()
            oldest = self.day_of(utc) - RETENTION_DAYS
            self._storage.drop_days_before(oldest)
            self._storage.drop_entries_before(self.start_of(oldest))
            self.shelf.drop_before(oldest, utc=utc)
        return recorded

    def _record(self, day: int, begin: int, until: int) -> int:
        """Record a day from `begin` to `until`, both of them on its grid; the steps of it."""
        plan = self.shelf.of_day(day).plan
        delivered = self._days.record(day, begin, (until - begin) // plan.step_s)
        if plan.demand is not None:
            self.demand.take(begin, delivered, step_s=plan.step_s, rules=plan.demand)
        return len(delivered)

    def _begin_day(self, day: int) -> None:
        rules = self.shelf.of_day(day).plan.demand
        start = self.start_of(day)
        if rules is not None and self.demand.begin_day(day, start, rules):
            self.log(start, DEMAND_RESET, "by date")

    def keep_source(self) -> None:
        """Keep what a real meter's source needs to go on after a restart, if there is one."""
        state = self._source.state() if isinstance(self._source, LiveSource) else None
        if state is not None:
            self._storage.keep_note(SOURCE, state)

    def _first_second(self, utc: float) -> int:
        oldest = self.start_of(self.day_of(utc) - RETENTION_DAYS)
        known_from, _ = self._source.available()
        if known_from is None or known_from <= oldest:
            return oldest
        return min(self.start_of(self.day_of(known_from)), self.start_of(self.day_of(utc)))

    def _check_ability(self) -> None:
        """Refuse a source that cannot do what runs, or waits."""
        abilities = Abilities.of(self.metering, offset_min=self._offset_s // 60)
        since = self.shelf.at(self.recorded_until or 0).since
        for row in self.shelf.rows():
            if row.since < since or not row.programme.version:
                continue
            for fault in misfits(row.programme, abilities):
                raise ConfigError(
                    f"programme {row.programme.version} wants more than the metrology settings "
                    f"give ({fault}): name a new storage folder, or go back to the old settings"
                )

    # What is told

    def block(self, day: int) -> list[IntervalBlock]:
        """The blocks of a day as far as it is recorded, one for each channel."""
        blocks = self._days.blocks(day)
        if self.mark is None:
            return blocks
        start = self.start_of(day)
        return [self.mark(block, start) for block in blocks]

    def registers(self, utc: float) -> tuple[tuple[int, int], ...]:
        """Channel and register at `utc`, with the running interval's part."""
        day = self.day_of(utc)
        begin = self.next_due(utc) - self.shelf.of_day(day).plan.step_s
        until = self.recorded_until
        if until is not None and until > begin:
            # The host's clock went back: a register never does.
            day, begin, utc = self.day_of(until), until, until
        return self._days.registers(day, begin, utc)

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
