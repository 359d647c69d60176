"""Reads that a meter sends by its schedules, in conversation with a head-end by the book.

The contract under test: each schedule reads at its own instants, what it was told to read, and goes
on where its last read that was acknowledged ended, with neither gap nor overlap.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from amistack.coap.codes import Code
from amistack.model import (
    ClockState,
    EndDeviceEventType,
    ReadParts,
)
from amistack.model.event_catalogue import SCHEDULE_CHANGED, SCHEDULE_REFUSED
from amistack.model.events import COLD_STARTED, REGISTERED
from amistack.model.schedule import (
    WEEK_S,
    ReadSchedule,
)
from meterd.clock import MeterClock
from meterd.recorder import Recorder
from meterd.schedules.book import ScheduleBook
from meterd.schedules.reads import ScheduledReads
from meterd.storage import Storage
from tests.meterd.bench import DAY, EPOCH, METER, Bench
from tests.meterd.scheduling import (
    HOUR,
    QUARTER,
    TODAY,
    assert_joined,
    at,
    bench,
    bounds,
    cancel,
    entries_of,
    failures,
    put,
    set_up,
    table,
)
from tests.meterd.test_on_demand import BlindSource
from tests.meterd.test_recorder import StubSource


@pytest.mark.requirement("B1-FR-119", "B1-FR-120", "B1-FR-73")
def test_first_read_is_from_midnight_on_and_those_that_follow_join_it() -> None:
    one = bench(flow_count=2)
    source = one.make_source()
    assert isinstance(source, StubSource)
    tomorrow = TODAY + 1
    set_up(one, ReadSchedule(3, HOUR, start_s=tomorrow * DAY + 10 * HOUR))
    one.world.run(until=at(one, 9, day=tomorrow))
    noted = one.recorder.log(one.utc(one.world.now), COLD_STARTED, "of the morning")
    one.world.run(until=at(one, 10, day=tomorrow) - 0.1)
    assert one.head_end.reads == []
    one.world.run(until=at(one, 13, day=tomorrow) + 5)
    reads = one.head_end.reads
    assert [bounds(read) for read in reads] == [
        (tomorrow * DAY + begin * HOUR, tomorrow * DAY + end * HOUR)
        for begin, end in ((0, 10), (10, 11), (11, 12), (12, 13))
    ]
    assert_joined(reads, source)
    # The six parts: intervals, registers, all channels, log, meter identifier, time stamp.
    for read, heard in zip(reads, [h for h in one.head_end.heard if h.read], strict=True):
        assert [span.block.channel for span in read.spans] == [1, 2]
        assert [channel for channel, _ in read.registers] == [1, 2]
        for (_, register), span in zip(read.registers, read.spans, strict=True):
            assert register >= span.block.closing
        assert heard.meter == METER
        assert read.clock.state is ClockState.SET
        assert abs(read.clock.utc_s - one.utc(heard.now)) <= 1
        assert read.number == 3
    told = [entry for read in reads for entry in read.entries]
    assert told == [noted], "an entry of the morning went with the first read, and with no other"


@pytest.mark.requirement("B1-FR-118")
def test_read_brings_what_is_recorded_and_what_was_logged() -> None:
    one = bench(flow_count=2)
    set_up(one, ReadSchedule(1, HOUR))
    due = entries_of(one)
    assert [entry.event for entry in due] == [COLD_STARTED, REGISTERED, SCHEDULE_CHANGED]
    one.world.run(until=at(one, 15) + 5)
    (read,) = one.head_end.reads
    assert list(read.entries) == due
    assert entries_of(one) == []
    blocks = one.recorder.block(TODAY)
    assert [span.block for span in read.spans] == blocks
    assert [span.first for span in read.spans] == [0, 0]
    assert read.registers == one.recorder.registers(one.utc(at(one, 15)))


@pytest.mark.parametrize(
    ("parts", "has"),
    [
        (ReadParts.REGISTERS, (True, False, False)),
        (ReadParts.INTERVALS, (False, True, False)),
        (ReadParts.LOG, (False, False, True)),
    ],
)
def test_read_brings_what_its_schedule_says_and_no_more(
    parts: ReadParts, has: tuple[bool, ...]
) -> None:
    one = bench()
    set_up(one, ReadSchedule(1, HOUR, parts=parts))
    one.world.run(until=at(one, 15) + 5)
    (read,) = one.head_end.reads
    assert (bool(read.registers), bool(read.spans), bool(read.entries)) == has


def test_read_without_registers_is_sent_where_the_source_cannot_be_read() -> None:
    source = BlindSource(QUARTER)
    one = Bench(make_source=lambda: source)
    one.power_on()
    one.world.elapse(60)
    set_up(one, ReadSchedule(1, HOUR))
    source.is_blind = True
    one.world.run(until=at(one, 15) + 5)
    (read,) = one.head_end.reads
    assert read.registers == ()
    assert bounds(read) == (TODAY * DAY, TODAY * DAY + 15 * HOUR)


def test_read_longer_than_a_message_comes_in_blocks() -> None:
    class Noisy(StubSource):
        def value(self, start: int, place: int) -> int | None:
            return (start + place) * 7919 % (1 << 16)

    source = Noisy(60, flow_count=2, known_from=TODAY * DAY)
    one = Bench(make_source=lambda: source)
    one.power_on()
    one.world.elapse(60)
    set_up(one, ReadSchedule(1, DAY, 23 * HOUR))
    one.world.run(until=at(one, 23) + 30)
    (heard,) = [h for h in one.head_end.heard if h.read]
    assert len(heard.message.payload) > 4_096
    assert heard.read is not None
    assert [span.block.count for span in heard.read.spans] == [23 * 60] * 2
    assert all(len(line.datagram) <= 4_096 for line in one.world.datagrams())
    assert failures(one) == []


def test_meter_that_does_not_know_the_time_takes_no_schedule_and_reads_by_none() -> None:
    one = bench(HOUR)
    set_up(one, ReadSchedule(1, HOUR))
    one.power_off()
    storage = Storage.on(one.files)
    recorder = Recorder(storage, one.make_source(), offset_min=0)
    lost = MeterClock(utc=at(one, 20), now=0.0, is_set=False)
    assert lost.state is ClockState.UNSET
    logged: list[tuple[EndDeviceEventType, str | None]] = []
    book = ScheduleBook(
        storage, recorder, lost, lambda event, detail, *, now: logged.append((event, detail))
    )
    assert book.take(ReadSchedule(2, HOUR), now=5.0) == "clock unset"
    assert logged == [(SCHEDULE_REFUSED, "schedule 2: clock unset")]
    part = ScheduledReads(
        book,
        storage,
        recorder,
        lost,
        catch_up_s=0.0,
        dice=random.Random(0),
        counters=Counter(),
        log=lambda event, detail, *, now: logged.append((event, detail)),
        record=lambda now: None,
        tell=lambda event: None,
    )
    part.handle_timer(now=1e6)
    assert part.next_timer() is part.next_word(now=1e6) is None


@pytest.mark.requirement("B1-FR-129", "B1-FR-130", "B1-NFR-13")
def test_four_schedules_at_once_send_every_due_read_of_each() -> None:
    one = bench()
    source = one.make_source()
    assert isinstance(source, StubSource)
    four = (
        ReadSchedule(1, HOUR, 60),
        ReadSchedule(2, HOUR // 2, 60),  # Twice in an hour, once together with the first.
        ReadSchedule(3, 6 * HOUR),
        ReadSchedule(4, DAY, 9 * HOUR),
    )
    set_up(one, *four)
    assert [stored.schedule for stored in table(one).schedules] == list(four)
    begin, end = at(one, 0, day=TODAY + 1), at(one, 0, day=TODAY + 2)
    one.world.run(until=end)
    for schedule in four:
        heard = [h for h in one.head_end.heard if h.read and h.read.number == schedule.number]
        that_day = sorted({int(h.now - begin) for h in heard if h.now >= begin})
        due = range(schedule.offset_s, DAY, schedule.period_s)
        assert len(that_day) == len(due)
        assert all(0 <= sent - instant < 5 for sent, instant in zip(that_day, due, strict=True))
        assert_joined(sorted((h.read for h in heard if h.read), key=bounds), source)
    assert one.head_end.days[-1] == TODAY, "the daily report came, too"
    assert failures(one) == []


@pytest.mark.parametrize("offset_min", [0, 60, -330])
def test_week_is_from_monday_in_the_meters_offset(offset_min: int) -> None:
    one = bench(HOUR, offset_min=offset_min)
    set_up(one, ReadSchedule(9, WEEK_S, 2 * HOUR))
    one.world.run(until=one.midnight(TODAY + 15))
    days = [int(one.utc(h.now) + 60 * offset_min) // DAY for h in one.head_end.heard if h.read]
    mondays = sorted(set(days))
    assert [(day + 3) % 7 for day in mondays] == [0, 0]
    # The first has the whole week before it, a day in a message, the newest first.
    first = [read.day for read in one.head_end.reads][: days.count(mondays[0])]
    assert first == sorted(first, reverse=True)
    assert set(range(TODAY, mondays[0])) <= set(first)


@pytest.mark.requirement("B1-FR-114")
@pytest.mark.parametrize(
    ("period_s", "code"),
    [
        (12 * HOUR, Code.CHANGED),
        (HOUR, Code.CHANGED),
        (QUARTER, Code.CHANGED),
        (864, Code.UNPROCESSABLE_ENTITY),
        (300, Code.UNPROCESSABLE_ENTITY),
    ],
)
def test_reads_are_as_frequent_as_the_recording_and_not_more(period_s: int, code: int) -> None:
    one = bench()
    answer = put(one, ReadSchedule(1, period_s))
    assert answer.code == code
    if code == Code.CHANGED:
        one.world.run(until=at(one, 0, day=TODAY + 1) + 5)
        before = len(one.head_end.reads)
        one.world.run(until=at(one, 0, day=TODAY + 2) + 5)
        assert len(one.head_end.reads) - before == DAY // period_s
    else:
        assert answer.payload == b"too frequent"
        assert table(one).schedules == ()


def test_schedule_for_two_days_ends_and_one_without_end_goes_on_until_cancelled() -> None:
    one = bench(HOUR)
    begin = (TODAY + 1) * DAY
    set_up(
        one,
        ReadSchedule(1, 6 * HOUR, start_s=begin, end_s=begin + 2 * DAY),
        ReadSchedule(2, 6 * HOUR, 60, start_s=begin),
    )
    one.world.run(until=at(one, 12, day=TODAY + 4))
    counts = [sum(read.number == number for read in one.head_end.reads) for number in (1, 2)]
    assert counts == [8, 14]
    set_up(one, ReadSchedule(2, 12 * HOUR, 60, start_s=begin))
    one.world.run(until=at(one, 12, day=TODAY + 6))
    assert sum(read.number == 2 for read in one.head_end.reads) == 14 + 4
    assert cancel(one, 2).code == Code.CHANGED
    one.world.run(until=at(one, 12, day=TODAY + 8))
    assert sum(read.number == 2 for read in one.head_end.reads) == 14 + 4
    assert_joined(
        [read for read in one.head_end.reads if read.number == 2],
        StubSource(HOUR, known_from=int(EPOCH) - 3 * DAY),
    )
