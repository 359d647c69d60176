"""Schedules that are set, changed, cancelled and refused, in conversation with a head-end.

The contract under test: a change of the schedules is durable, logged and acknowledged by its
number; what a meter cannot keep to it refuses with the reason, and keeps what it had.
"""

from __future__ import annotations

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import (
    CONTENT_FORMAT_V1,
)
from amistack.model.event_catalogue import SCHEDULE_CHANGED, SCHEDULE_REFUSED
from amistack.model.resources import SCHEDULES
from amistack.model.schedule import (
    ReadSchedule,
    ScheduleAcknowledgement,
    ScheduleTable,
)
from meterd.agent import Schedule
from tests.meterd.bench import DAY, EPOCH, Bench
from tests.meterd.scheduling import (
    HOUR,
    TODAY,
    ask,
    at,
    bench,
    cancel,
    entries_of,
    put,
    set_up,
    table,
)


@pytest.mark.requirement("B1-FR-117", "B1-FR-127", "B1-FR-131", "B1-FR-147")
def test_change_is_stored_logged_and_acknowledged_by_its_number() -> None:
    one = bench()
    answers = len(one.head_end.answers)
    first = ReadSchedule(7, HOUR)
    answer = put(one, first)
    assert len(one.head_end.answers) == answers + 1, "one acknowledgement"
    assert ScheduleAcknowledgement.decode(answer.payload) == ScheduleAcknowledgement(7, 1)
    second = ReadSchedule(7, 2 * HOUR, 120)
    answer = put(one, second)
    assert ScheduleAcknowledgement.decode(answer.payload) == ScheduleAcknowledgement(7, 2)
    one.restart()
    one.world.elapse(60)
    kept = table(one)
    assert kept.revision == 2
    assert [stored.schedule for stored in kept.schedules] == [second]
    logged = [entry.detail for entry in entries_of(one) if entry.event == SCHEDULE_CHANGED]
    assert logged == ["schedule 7 set, every 3600 s", "schedule 7 set, every 7200 s"]
    # It was not only kept: it reads, and by the second one.
    one.world.run(until=at(one, 18) + 125)
    assert [int(one.utc(h.now)) % DAY for h in one.head_end.heard if h.read] == [
        16 * HOUR + 120,
        18 * HOUR + 120,
    ]


def test_same_schedule_once_more_gets_the_same_answer_and_changes_nothing() -> None:
    one = bench()
    answers = {put(one, ReadSchedule(7, HOUR)).payload for _ in range(3)}
    assert answers == {ScheduleAcknowledgement(7, 1).encode()}
    assert [entry.event for entry in entries_of(one)].count(SCHEDULE_CHANGED) == 1


@pytest.mark.requirement("B1-FR-43", "B1-FR-148")
def test_default_read_time_follows_a_good_schedule_and_no_bad_one() -> None:
    one = bench()
    one.world.run(until=at(one, 1, day=TODAY + 1))
    assert one.head_end.heard[-1].now == pytest.approx(at(one, 0, day=TODAY + 1) + 300, abs=1)
    good = ReadSchedule(0, DAY, 5 * HOUR)
    answer = put(one, good)
    assert ScheduleAcknowledgement.decode(answer.payload) == ScheduleAcknowledgement(0, 1)
    malformed = [
        b"",
        good.encode()[:-1],
        b"\x86\x00\x1a\x00\x01\x51\x80\x19\x70\x81\x00\x00\x07",  # A second after 08:00.
        b"\x86\x00\x19\x0e\x10\x00\x00\x00\x07",  # Hourly.
    ]
    for bad in malformed:
        message = Message.request(
            Code.PUT, SCHEDULES, payload=bad, content_format=CONTENT_FORMAT_V1
        )
        assert ask(one, message).code == Code.BAD_REQUEST
    assert [stored.schedule for stored in table(one).schedules] == [good]
    for day in (TODAY + 2, TODAY + 3):
        one.world.run(until=at(one, 24, day=day))
        (heard,) = (h for h in one.head_end.heard if h.report and h.report.day == day - 1)
        assert heard.now == pytest.approx(at(one, 5, day=day), abs=1)
    assert cancel(one, 0).code == Code.CHANGED
    one.world.run(until=at(one, 1, day=TODAY + 4))
    assert one.head_end.heard[-1].now == pytest.approx(at(one, 0, day=TODAY + 4) + 300, abs=1)


@pytest.mark.requirement("B1-FR-158")
@pytest.mark.parametrize("offset_s", [None, 0, 8 * HOUR])
def test_meter_without_another_schedule_reads_once_a_day_by_eight(offset_s: int | None) -> None:
    one = Bench(schedule=Schedule(300.0, 3600.0, 1.0))
    one.power_on()
    one.world.elapse(60)
    if offset_s is not None:
        set_up(one, ReadSchedule(0, DAY, offset_s))
    before = len(one.head_end.heard)
    one.world.run(until=at(one, 24, day=TODAY + 3))
    heard = one.head_end.heard[before:]
    assert [int(one.utc(h.now)) // DAY for h in heard] == [TODAY + 1, TODAY + 2, TODAY + 3]
    for each in heard:
        assert each.report is not None
        assert int(one.utc(each.now)) % DAY <= 8 * HOUR
        (block,) = each.report.blocks
        assert block.count == 24
        assert block.closing > block.opening
    assert heard[0].report is not None
    assert heard[0].report.entries


NOW = int(EPOCH) + 60


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (ReadSchedule(2, HOUR, start_s=NOW - DAY, end_s=NOW - 1), "past"),
        (ReadSchedule(2, HOUR, start_s=NOW - HOUR, end_s=NOW + 10), "past"),
        (ReadSchedule(2, DAY, start_s=NOW + 10, end_s=NOW + 20), "contradictory"),
        (ReadSchedule(2, 12 * HOUR, 60), "overlapping"),
        (ReadSchedule(2, 12 * HOUR, 60, start_s=NOW + 90 * DAY), "overlapping"),
        (ReadSchedule(2, 450), "too frequent"),
    ],
)
def test_schedule_that_cannot_be_kept_to_is_refused_with_its_reason(
    schedule: ReadSchedule, reason: str
) -> None:
    one = bench()
    set_up(one, ReadSchedule(1, 12 * HOUR, 60))
    before = table(one)
    answer = put(one, schedule)
    assert (answer.code, answer.payload) == (Code.UNPROCESSABLE_ENTITY, reason.encode())
    assert one.agent.counters[f"sched refused: {reason}"] == 1
    assert table(one) == before
    refusal = entries_of(one)[-1]
    assert (refusal.event, refusal.detail) == (SCHEDULE_REFUSED, f"schedule 2: {reason}")


@pytest.mark.parametrize(
    "schedule",
    [
        ReadSchedule(2, HOUR, start_s=NOW - DAY, end_s=NOW + HOUR),
        ReadSchedule(2, 12 * HOUR, 61),
        ReadSchedule(2, 6 * HOUR, 60),
        ReadSchedule(1, 12 * HOUR, 60, start_s=NOW + 90 * DAY),  # In place of the old one.
        ReadSchedule(0, DAY, 60),
    ],
)
def test_schedule_beside_the_limits_is_taken(schedule: ReadSchedule) -> None:
    one = bench()
    set_up(one, ReadSchedule(1, 12 * HOUR, 60))
    assert put(one, schedule).code == Code.CHANGED


CHANGE = NOW + 10 * DAY
"""When one schedule makes way for another."""


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize(
    ("start_s", "end_s", "is_taken"),
    [
        (CHANGE, 0, True),
        (CHANGE + DAY, CHANGE + 2 * DAY, True),
        (CHANGE - 1, 0, False),
        (0, CHANGE - 1, False),
    ],
)
def test_schedules_that_read_at_the_same_instants_may_follow_one_another(
    start_s: int, end_s: int, is_taken: bool, is_reversed: bool
) -> None:
    one = bench(HOUR)
    until = ReadSchedule(1, 12 * HOUR, 60, end_s=CHANGE)
    then = ReadSchedule(2, 12 * HOUR, 60, start_s=start_s, end_s=end_s)
    first, second = (then, until) if is_reversed else (until, then)
    set_up(one, first)
    answer = put(one, second)
    assert (answer.code == Code.CHANGED, answer.payload == b"overlapping") == (
        is_taken,
        not is_taken,
    )


@pytest.mark.parametrize("is_default_first", [True, False])
def test_default_read_is_in_the_way_of_none(is_default_first: bool) -> None:
    one = bench(HOUR)
    both = ReadSchedule(0, DAY, 60), ReadSchedule(1, DAY, 60)
    set_up(one, *(both if is_default_first else both[::-1]))
    assert [stored.schedule for stored in table(one).schedules] == list(both)


def test_sixteen_schedules_are_kept_and_another_is_refused_until_one_has_ended() -> None:
    one = bench(HOUR)
    soon = int(one.utc(one.world.now)) + 2 * HOUR
    set_up(one, *(ReadSchedule(n, DAY, 10 * n) for n in range(15)))
    set_up(one, ReadSchedule(15, HOUR, end_s=soon))
    assert len(table(one).schedules) == 16
    answer = put(one, ReadSchedule(200, DAY, 9 * HOUR))
    assert (answer.code, answer.payload) == (Code.UNPROCESSABLE_ENTITY, b"too many")
    # In place of one of them there is always room.
    set_up(one, ReadSchedule(14, DAY, 9 * HOUR))
    one.world.elapse(2 * HOUR)
    set_up(one, ReadSchedule(200, DAY, 10 * HOUR))
    numbers = [stored.schedule.number for stored in table(one).schedules]
    assert numbers == [*range(15), 200]


def test_cancellation_of_what_is_not_there_is_refused() -> None:
    one = bench()
    answer = cancel(one, 5)
    assert (answer.code, answer.payload) == (Code.NOT_FOUND, b"unknown schedule")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Message.request(Code.DELETE, SCHEDULES), Code.METHOD_NOT_ALLOWED),
        (
            Message.request(Code.PUT, SCHEDULES, payload=ReadSchedule(1, HOUR).encode()),
            Code.UNSUPPORTED_CONTENT_FORMAT,
        ),
        *(
            (
                Message.request(method, SCHEDULES, payload=bad, content_format=CONTENT_FORMAT_V1),
                Code.BAD_REQUEST,
            )
            for method in (Code.PUT, Code.POST)
            for bad in (b"", b"\xff", b"\x82\x01\x02", b"\x81\x19\x01\x00")
        ),
    ],
)
def test_request_that_is_none_is_refused_with_its_code(message: Message, code: Code) -> None:
    one = bench()
    assert ask(one, message).code == code
    assert table(one).schedules == ()


def test_full_disk_refuses_a_schedule_for_now() -> None:
    one = bench()
    one.fill_disk()
    assert put(one, ReadSchedule(1, HOUR)).code == Code.SERVICE_UNAVAILABLE
    one.mend_disk()
    one.world.elapse(100)
    assert table(one) == ScheduleTable(0)
    assert put(one, ReadSchedule(1, HOUR)).code == Code.CHANGED
