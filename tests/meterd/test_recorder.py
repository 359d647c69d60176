"""The recorder: what the source measured, cut into days, whenever it is asked to go on.

The contract under test, with a naive recomputation from the source as the oracle: however the calls
of `advance` fall and however often the meter restarts in between, the recorded days are the
source's; the register is continuous from midnight to midnight; a complete day is owed exactly
once; what is beyond the retention is gone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError
from amistack.model import IntervalBlock, LogEntry
from amistack.model.events import CLOCK_SET, COLD_STARTED, REGISTERED
from meterd.metrology import ConstantSource, Flow, ReplaySource, Source
from meterd.metrology.source import Energy
from meterd.recorder import ENTRIES_PER_REPORT_MAX, RETENTION_DAYS, Recorder
from meterd.storage import Storage
from tests.support.power import TornFiles

DAY = 86_400
MIDNIGHT = 20_700 * DAY
"""UTC of some midnight, 2026-09-04."""


class StubSource:
    """Values that depend on the interval alone, with gaps; known from and until given seconds."""

    def __init__(
        self,
        interval_s: int = 3600,
        *,
        flow_count: int = 1,
        gap_every: int = 0,
        known_from: int | None = None,
        known_until: int | None = None,
    ) -> None:
        self.interval_s = interval_s
        self.flows = (Flow.DELIVERED, Flow.RECEIVED)[:flow_count]
        self.gap_every = gap_every
        self.known_from = known_from
        self.known_until = known_until

    def value(self, start: int, place: int) -> int | None:
        if self.known_from is not None and start < self.known_from:
            return None
        if self.known_until is not None and start >= self.known_until:
            return None
        number = start // self.interval_s
        if self.gap_every and number % self.gap_every == place:
            return None
        return (number * 7919 + 31 * place) % 1013

    def energy(self, start: int, count: int) -> list[Energy]:
        return [
            tuple(self.value(start + i * self.interval_s, place) for place in range(self._width))
            for i in range(count)
        ]

    def partial(self, start: int, now: float) -> Energy:
        share = min(max(now - start, 0.0), self.interval_s) / self.interval_s
        values = (self.value(start, place) for place in range(self._width))
        return tuple(None if value is None else int(value * share) for value in values)

    def available(self) -> tuple[int | None, int | None]:
        return self.known_from, self.known_until

    @property
    def _width(self) -> int:
        return len(self.flows)


class Bench:
    """A recorder that can be killed; its files stay."""

    def __init__(self, make: Callable[[Storage], Recorder]) -> None:
        self.files = TornFiles(random.Random(0))
        self._make = make
        self.start()

    def start(self) -> None:
        self.storage = Storage.on(self.files)
        self.recorder = self._make(self.storage)

    def restart(self) -> None:
        self.files.kill()
        self.start()

    def values(self, day: int) -> list[tuple[int | None, ...]]:
        return [block.values() for block in self.recorder.block(day)]


def bench(
    source: Source,
    *,
    offset_min: int = 0,
    register_start: tuple[int, ...] = (),
) -> Bench:
    return Bench(
        lambda storage: Recorder(
            storage, source, offset_min=offset_min, register_start=register_start
        ),
    )


def check_days(
    recorder: Recorder, source: StubSource, days: range, offset_s: int, starts: tuple[int, ...]
) -> None:
    """Compare whole recorded days with the source, and each with the one before."""
    per_day = DAY // source.interval_s
    registers: dict[int, int] = {}
    for day in days:
        blocks = recorder.block(day)
        assert [block.channel for block in blocks] == list(range(1, len(source.flows) + 1))
        begin = day * DAY - offset_s
        for place, block in enumerate(blocks):
            expected = tuple(
                source.value(begin + i * source.interval_s, place) for i in range(per_day)
            )
            assert block.values() == expected
            assert block.advance == sum(value or 0 for value in expected)
            opening = registers.get(block.channel)
            if opening is None:
                opening = starts[place] if place < len(starts) else 0
            assert block.opening == opening
            registers[block.channel] = block.closing


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    interval_s=st.sampled_from([3600, 1800, 900, 300]),
    flow_count=st.integers(1, 2),
    offset_min=st.integers(-48, 56).map(lambda quarters: quarters * 15),
    gap_every=st.sampled_from([0, 2, 3, 7, 97]),
    known_back=st.one_of(st.integers(-DAY, 4 * DAY), st.integers(-DAY, 4 * DAY), st.none()),
    starts=st.lists(st.integers(0, 10**9), max_size=2).map(tuple),
    steps=st.lists(st.tuples(st.integers(0, 3 * DAY), st.booleans()), min_size=1, max_size=8),
)
@example(
    interval_s=900,
    flow_count=2,
    offset_min=345,
    gap_every=7,
    known_back=None,
    starts=(5,),
    steps=[(0, True), (1, True), (DAY, False), (2 * DAY + 17, True)],
)
def test_recorded_days_are_the_sources_however_the_calls_fall(
    interval_s: int,
    flow_count: int,
    offset_min: int,
    gap_every: int,
    known_back: int | None,
    starts: tuple[int, ...],
    steps: list[tuple[int, bool]],
) -> None:
    offset_s = offset_min * 60
    # A source cannot be asked off its grid: a day of any offset must begin on it.
    if offset_s % interval_s:
        offset_s, offset_min = 0, 0
    # The first call, where history begins, is the first step.
    utc = MIDNIGHT + 12_345 + steps[0][0]
    known_from = None if known_back is None else utc - known_back
    source = StubSource(
        interval_s, flow_count=flow_count, gap_every=gap_every, known_from=known_from
    )
    one = bench(source, offset_min=offset_min, register_start=starts)
    first_day = one.recorder.day_of(utc) - RETENTION_DAYS
    if known_from is not None:
        first_day = max(first_day, min(one.recorder.day_of(known_from), one.recorder.day_of(utc)))
    total = 0
    owed: set[int] = set()
    settled: set[int] = set()
    for number, (step, restarts) in enumerate(steps):
        utc += step if number else 0
        total += one.recorder.advance(utc)
        assert one.recorder.advance(utc) == 0
        today = one.recorder.day_of(utc)
        oldest = max(first_day, today - RETENTION_DAYS)
        owed = set(range(oldest, today)) - settled
        assert one.recorder.owed_days() == sorted(owed, reverse=True)
        if owed:
            newest = max(owed)
            one.recorder.settle(newest, ())
            settled.add(newest)
            owed.discard(newest)
        if restarts:
            one.restart()
    until = one.recorder.next_due(utc) - interval_s
    assert total == (until - (first_day * DAY - offset_s)) // interval_s
    assert one.recorder.owed_days() == sorted(owed, reverse=True)
    today = one.recorder.day_of(utc)
    oldest = max(first_day, today - RETENTION_DAYS)
    assert one.recorder.block(oldest - 1) == []
    if oldest == first_day:
        check_days(one.recorder, source, range(first_day, today), offset_s, starts)
    # The running day: exactly the intervals that have ended.
    for place, block in enumerate(one.recorder.block(today)):
        begin = today * DAY - offset_s
        assert block.count == (until - begin) // interval_s
        assert block.values() == tuple(
            source.value(begin + i * interval_s, place) for i in range(block.count)
        )


@pytest.mark.requirement("B1-FR-85")
def test_every_midnight_has_one_register_read_on_every_channel() -> None:
    source = StubSource(900, flow_count=2)
    one = bench(source, register_start=(1_000, 2_000))
    one.recorder.advance(MIDNIGHT)
    for hour in range(24 * 5):
        one.recorder.advance(MIDNIGHT + hour * 3600 + 1)
    first = 20_700 - RETENTION_DAYS
    for place in (0, 1):
        register = 1_000 * (place + 1)
        register += sum(
            source.value(second, place) or 0 for second in range(first * DAY, MIDNIGHT, 900)
        )
        for day in range(20_700, 20_704):
            block = one.recorder.block(day)[place]
            assert block.opening == register
            register += sum(
                source.value(second, place) or 0
                for second in range(day * DAY, (day + 1) * DAY, 900)
            )
            assert block.closing == register


def test_day_is_owed_the_moment_it_is_complete_and_not_before() -> None:
    one = bench(StubSource(known_from=MIDNIGHT))
    one.recorder.advance(MIDNIGHT + DAY - 0.001)
    assert one.recorder.owed_days() == []
    assert one.recorder.block(20_700)[0].count == 23
    one.recorder.advance(MIDNIGHT + DAY)
    assert one.recorder.owed_days() == [20_700]
    one.recorder.settle(20_700, ())
    one.restart()
    one.recorder.advance(MIDNIGHT + DAY + 3600)
    assert one.recorder.owed_days() == []


@pytest.mark.parametrize("offset_min", [-720, -330, 0, 60, 345, 840])
def test_days_have_24_hours_in_the_standard_offset(offset_min: int) -> None:
    source = StubSource(900)
    one = bench(source, offset_min=offset_min)
    one.recorder.advance(MIDNIGHT + 400 * DAY)
    for day in one.recorder.owed_days():
        (block,) = one.recorder.block(day)
        assert block.count == 96
        assert one.recorder.start_of(day + 1) - one.recorder.start_of(day) == DAY
        assert (one.recorder.start_of(day) + offset_min * 60) % DAY == 0
        assert one.recorder.day_of(one.recorder.start_of(day)) == day
        assert one.recorder.day_of(one.recorder.start_of(day) - 0.001) == day - 1


def test_first_record_goes_45_days_back_and_no_further() -> None:
    one = bench(StubSource())
    one.recorder.advance(MIDNIGHT + 7200)
    assert one.recorder.owed_days() == list(range(20_699, 20_699 - RETENTION_DAYS, -1))
    assert len(one.recorder.block(20_700 - RETENTION_DAYS)) == 1
    assert one.recorder.block(20_699 - RETENTION_DAYS) == []


def test_days_beyond_the_retention_go_reported_or_not() -> None:
    one = bench(StubSource(known_from=MIDNIGHT - DAY))
    one.recorder.advance(MIDNIGHT)
    assert one.recorder.owed_days() == [20_699]
    one.recorder.advance(MIDNIGHT + RETENTION_DAYS * DAY - 1)
    assert 20_699 in one.recorder.owed_days()
    one.recorder.advance(MIDNIGHT + RETENTION_DAYS * DAY)
    assert one.recorder.owed_days()[-1] == 20_700
    assert one.recorder.block(20_699) == []


def test_register_goes_on_over_an_absence_longer_than_the_retention() -> None:
    source = StubSource(known_from=MIDNIGHT)
    one = bench(source, register_start=(77,))
    one.recorder.advance(MIDNIGHT + DAY)
    end = MIDNIGHT + 100 * DAY
    one.recorder.advance(end)
    block = one.recorder.block(20_799)[0]
    assert block.closing == 77 + sum(
        source.value(second, 0) or 0 for second in range(MIDNIGHT, end, 3600)
    )


def test_registers_now_are_what_is_recorded_and_the_running_intervals_part() -> None:
    one = bench(ConstantSource(watts=1000, interval_s=3600), register_start=(10_000,))
    first = (20_700 - RETENTION_DAYS) * DAY
    seen = []
    for second in (0, 1, 1800, 3599, 3600, 3601, 9000):
        utc = MIDNIGHT + second
        one.recorder.advance(utc)
        ((channel, register),) = one.recorder.registers(utc)
        assert channel == 1
        # 1 kW: a Wh every 3.6 s, rounded half up.
        assert register == 10_000 + (utc - first) // 3600 * 1000 + round((utc - first) % 3600 / 3.6)
        seen.append(register)
    assert seen == sorted(seen)


def test_register_of_the_moment_after_midnight_is_the_midnight_read() -> None:
    one = bench(StubSource(), register_start=(5,))
    one.recorder.advance(MIDNIGHT)
    (block,) = one.recorder.block(20_699)
    assert one.recorder.registers(float(MIDNIGHT)) == ((1, block.closing),)
    assert one.recorder.block(20_700) == []


def test_register_does_not_fall_when_the_hosts_clock_goes_back() -> None:
    one = bench(ConstantSource(watts=1000, interval_s=3600))
    one.recorder.advance(MIDNIGHT + 7200)
    ((_, before),) = one.recorder.registers(MIDNIGHT + 7200)
    one.restart()
    for back in (1, 3600, 7200, DAY, 3 * DAY):
        utc = MIDNIGHT + 7200 - back
        assert one.recorder.advance(utc) == 0
        ((_, register),) = one.recorder.registers(utc)
        assert register == before
    one.recorder.advance(MIDNIGHT + 10_800)
    assert one.recorder.registers(MIDNIGHT + 10_800) == ((1, before + 1000),)


def test_next_due_is_the_end_of_the_running_interval() -> None:
    one = bench(StubSource(900), offset_min=345)
    for utc in (MIDNIGHT, MIDNIGHT + 0.5, MIDNIGHT + 899.999, MIDNIGHT + 900):
        due = one.recorder.next_due(utc)
        assert utc < due <= utc + 900
        assert due % 900 == 0


# Sources with a beginning, an end and holes


def _replay(folder: Path, rows: list[tuple[int, str]], **settings: object) -> ReplaySource:
    file = folder / "load.csv"
    file.write_text("time,value\n" + "".join(f"{at},{value}\n" for at, value in rows))
    return ReplaySource.open(file, unit="Wh", interval_s=3600, **settings)  # type: ignore[arg-type]


def test_replay_with_a_gap_and_an_end_gives_gaps_there_and_days_that_are_owed(
    tmp_path: Path,
) -> None:
    rows = [(MIDNIGHT - 2 * DAY + hour * 3600, str(100 + hour)) for hour in range(30) if hour != 5]
    one = bench(_replay(tmp_path, rows))
    one.recorder.advance(MIDNIGHT + DAY)
    assert one.recorder.owed_days() == [20_700, 20_699, 20_698]
    ((first,), (second,), (third,)) = (one.values(day) for day in (20_698, 20_699, 20_700))
    assert first == tuple(None if hour == 5 else 100 + hour for hour in range(24))
    assert second == (*range(124, 130), *[None] * 18)
    assert third == (None,) * 24
    blocks = [one.recorder.block(day)[0] for day in (20_698, 20_699, 20_700)]
    assert blocks[0].advance == sum(100 + hour for hour in range(24) if hour != 5)
    assert blocks[1].opening == blocks[0].closing
    assert blocks[2].opening == blocks[2].closing == blocks[1].closing


def test_source_that_starts_in_the_middle_of_a_day_leaves_the_hours_before_it_missing() -> None:
    source = StubSource(known_from=MIDNIGHT - DAY + 10 * 3600)
    one = bench(source)
    one.recorder.advance(MIDNIGHT + 60)
    assert one.recorder.owed_days() == [20_699]
    ((values),) = one.values(20_699)
    assert values[:10] == (None,) * 10
    assert None not in values[10:]


@pytest.mark.parametrize("known_from", [MIDNIGHT + 3 * 3600, MIDNIGHT + 5 * DAY])
def test_source_that_starts_later_begins_with_today(known_from: int) -> None:
    one = bench(StubSource(known_from=known_from))
    assert one.recorder.advance(MIDNIGHT + 5) == 0
    assert one.recorder.recorded_until is None
    one.recorder.advance(MIDNIGHT + 2 * 3600)
    assert one.values(20_700) == [(None, None)]
    assert one.recorder.owed_days() == []


# Log


def test_log_entries_go_by_day_until_they_are_acknowledged() -> None:
    one = bench(StubSource(), offset_min=60)
    start = one.recorder.start_of(20_700)
    before = one.recorder.log(start - 1, COLD_STARTED, "detail", is_time_doubtful=True)
    first = one.recorder.log(start, REGISTERED)
    last = one.recorder.log(start + DAY - 0.1, CLOCK_SET)
    after = one.recorder.log(start + DAY, REGISTERED)
    assert one.recorder.entries_of(20_699) == [before]
    assert one.recorder.entries_of(20_700) == [first, last]
    assert one.recorder.entries_of(20_701) == [after]
    one.recorder.settle(20_700, [first])
    one.restart()
    assert one.recorder.entries_of(20_700) == [last]
    assert [entry.sequence for entry in (before, first, last, after)] == [0, 1, 2, 3]
    assert before.detail == "detail"
    assert before.is_time_doubtful


def test_entries_that_found_no_room_go_with_a_later_report() -> None:
    one = bench(StubSource())
    entries = [one.recorder.log(MIDNIGHT + i, REGISTERED) for i in range(100)]
    due = one.recorder.entries_due(20_700)
    assert due == entries[:ENTRIES_PER_REPORT_MAX]
    assert one.recorder.entries_due(20_699) == []
    one.recorder.settle(20_700, due)
    assert one.recorder.entries_due(20_701) == entries[ENTRIES_PER_REPORT_MAX:]


@pytest.mark.requirement("I2-NFR-05")
def test_log_of_45_days_is_kept_and_what_is_older_is_dropped() -> None:
    one = bench(StubSource(known_from=MIDNIGHT))
    one.recorder.advance(MIDNIGHT)
    old = one.recorder.log(MIDNIGHT + 5, REGISTERED)
    new = one.recorder.log(MIDNIGHT + DAY + 5, REGISTERED)
    one.recorder.advance(MIDNIGHT + 46 * DAY - 1)
    assert one.recorder.entries_due(20_800) == [old, new]
    one.recorder.advance(MIDNIGHT + 46 * DAY)
    assert one.recorder.entries_due(20_800) == [new]


# What a storage is bound to


@pytest.mark.parametrize(
    ("source", "offset_min"),
    [
        (StubSource(1800), 0),
        (StubSource(3600, flow_count=2), 0),
        (StubSource(3600), 60),
    ],
    ids=["interval", "channels", "offset"],
)
def test_storage_of_other_channels_is_refused_with_one_line(
    source: StubSource, offset_min: int
) -> None:
    one = bench(StubSource(3600))
    one.recorder.advance(MIDNIGHT)
    with pytest.raises(ConfigError, match="name a new storage folder") as refused:
        Recorder(one.storage, source, offset_min=offset_min)
    assert "\n" not in str(refused.value)
    assert len(one.recorder.block(20_699)) == 1


@pytest.mark.parametrize(("interval_s", "flow_count"), [(30, 2), (40, 2)])
def test_more_intervals_than_a_report_holds_are_refused_at_the_start(
    interval_s: int, flow_count: int
) -> None:
    with pytest.raises(ConfigError, match="make a report too long"):
        bench(StubSource(interval_s, flow_count=flow_count))


def test_blocks_of_every_size_up_to_the_bound_are_reports() -> None:
    one = bench(StubSource(60, flow_count=2, known_from=MIDNIGHT))
    one.recorder.advance(MIDNIGHT + DAY)
    blocks: list[IntervalBlock] = one.recorder.block(20_700)
    assert [block.count for block in blocks] == [1440, 1440]
    entries: list[LogEntry] = one.recorder.entries_of(20_700)
    assert entries == []
