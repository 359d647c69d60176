"""A meter on the bench with read schedules, and what a head-end by the book heard of them."""

from __future__ import annotations

from collections.abc import Sequence

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import (
    CONTENT_FORMAT_V1,
    LogEntry,
)
from amistack.model.event_catalogue import READ_FAILED
from amistack.model.resources import SCHEDULES
from amistack.model.schedule import (
    ReadSchedule,
    ScheduleCancellation,
    ScheduleTable,
)
from amistack.model.scheduled_read import ScheduledRead
from tests.meterd.bench import DAY, EPOCH, METER, Bench
from tests.meterd.test_recorder import StubSource

TODAY = int(EPOCH) // DAY
HOUR = 3600
QUARTER = 900
KNOWN_IN_S = 600
"""Seconds in which a read that nobody answers has failed: three requests, two waits."""


def bench(interval_s: int = QUARTER, *, flow_count: int = 1, **settings: object) -> Bench:
    """A meter that has said everything it owed, some minutes after 14:00."""
    one = Bench(
        make_source=lambda: StubSource(
            interval_s, flow_count=flow_count, known_from=int(EPOCH) - 3 * DAY
        ),
        **settings,  # type: ignore[arg-type]
    )
    one.power_on()
    one.world.elapse(60)
    assert one.recorder.owed_days() == []
    return one


def ask(one: Bench, message: Message) -> Message:
    before = len(one.head_end.answers)
    one.head_end.ask(METER, message, "meter", now=one.world.now)
    one.settle_head_end()
    one.world.elapse(1)
    (answer,) = one.head_end.answers[before:]
    return answer.message


def put(one: Bench, schedule: ReadSchedule) -> Message:
    return ask(
        one,
        Message.request(
            Code.PUT, SCHEDULES, payload=schedule.encode(), content_format=CONTENT_FORMAT_V1
        ),
    )


def cancel(one: Bench, number: int) -> Message:
    wish = ScheduleCancellation(number).encode()
    return ask(
        one,
        Message.request(Code.POST, SCHEDULES, payload=wish, content_format=CONTENT_FORMAT_V1),
    )


def table(one: Bench) -> ScheduleTable:
    answer = ask(one, Message.request(Code.GET, SCHEDULES))
    assert answer.code == Code.CONTENT
    return ScheduleTable.decode(answer.payload)


def set_up(one: Bench, *schedules: ReadSchedule) -> None:
    for schedule in schedules:
        assert put(one, schedule).code == Code.CHANGED


def at(one: Bench, hour: float, *, day: int = TODAY) -> float:
    """The world's time at an hour of a day in the meter's offset."""
    return one.midnight(day) + hour * HOUR


def bounds(read: ScheduledRead) -> tuple[int, int]:
    """From which to which UTC second the intervals of the first channel of a read are."""
    span = read.spans[0]
    midnight = read.day * DAY
    interval_s = span.block.interval_s
    return midnight + span.first * interval_s, midnight + span.end * interval_s


def assert_joined(reads: Sequence[ScheduledRead], source: StubSource) -> None:
    """Consecutive reads have every interval once, with the registers to match."""
    for place in range(len(reads[0].spans)):
        values: list[int | None] = []
        closing = None
        for read in reads:
            span = read.spans[place]
            if closing is not None:
                assert span.block.opening == closing
            closing = span.block.closing
            values += span.block.values()
        begin = bounds(reads[0])[0]
        assert values == [
            source.value(begin + number * source.interval_s, place) for number in range(len(values))
        ]


def entries_of(one: Bench) -> list[LogEntry]:
    return one.storage.entries(0, 2**32, limit=10_000)


def failures(one: Bench) -> list[str | None]:
    """The details of the failed reads that are in the log or were in reads."""
    kept = [entry for read in one.head_end.reads for entry in read.entries]
    kept += [entry for report in one.head_end.reports for entry in report.entries]
    found = {entry.sequence: entry for entry in [*kept, *entries_of(one)]}
    return [found[number].detail for number in sorted(found) if found[number].event == READ_FAILED]
