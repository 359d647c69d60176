"""Scheduled reads that do not come through.

The contract under test: a read is tried again twice, then it has failed, which is logged once; what
is not acknowledged goes with the next read, by days, the newest first; a head-end that says "later"
is obeyed; nothing that is not durable counts.
"""

from __future__ import annotations

import itertools

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import (
    Disposition,
    ReadParts,
    RecordKind,
    RecordRef,
    ReportAcknowledgement,
    Verdict,
)
from amistack.model.schedule import (
    ReadSchedule,
)
from meterd.agent import RETRY_MAX, ReadSent
from meterd.parts import Urgency
from meterd.schedules.daily import GIVE_UP_S as DAY_GIVE_UP_S
from meterd.schedules.daily import RETRY_COUNT as DAY_RETRY_COUNT
from meterd.schedules.reads import GIVE_UP_S, RETRY_COUNT, RETRY_MAX_S
from tests.meterd.bench import DAY, Bench
from tests.meterd.scheduling import (
    HOUR,
    KNOWN_IN_S,
    TODAY,
    at,
    bench,
    bounds,
    cancel,
    failures,
    put,
    set_up,
    table,
)
from tests.support.head_end import Heard, changed


def refuse_reads(one: Bench, count: int = 10_000) -> list[float]:
    """The head-end refuses that many reads from now on; when they came."""
    refused: list[float] = []

    def answer(heard: Heard) -> Message:
        if heard.read is not None and len(refused) < count:
            refused.append(heard.now)
            return Message.response(Code.INTERNAL_SERVER_ERROR)
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = answer
    return refused


@pytest.mark.requirement("B1-FR-141", "B1-FR-142", "B1-FR-143")
def test_reads_that_fail_are_logged_once_each_and_go_with_the_next() -> None:
    one = bench()
    set_up(one, ReadSchedule(1, HOUR))
    one.world.run(until=at(one, 15) + 10)
    one.silence_head_end()
    one.world.run(until=at(one, 15.9))
    assert failures(one) == []
    one.world.run(until=at(one, 16) + KNOWN_IN_S)
    assert failures(one) == ["schedule 1"], "known soon after the last retry"
    one.world.run(until=at(one, 17.5))
    assert failures(one) == ["schedule 1"] * 2
    one.open_head_end()
    one.world.run(until=at(one, 18) + 10)
    reads = one.head_end.reads
    assert [bounds(read) for read in reads] == [
        (TODAY * DAY, TODAY * DAY + 15 * HOUR),
        (TODAY * DAY + 15 * HOUR, TODAY * DAY + 18 * HOUR),
    ]
    assert failures(one) == ["schedule 1"] * 2


@pytest.mark.parametrize("refusals", [1, 2, 3, 4])
def test_read_is_tried_again_twice_and_no_more(refusals: int) -> None:
    one = bench()
    set_up(one, ReadSchedule(1, HOUR))
    refused = refuse_reads(one, refusals)
    one.world.run(until=at(one, 15.99))
    first = [h.now for h in one.head_end.heard if h.read]
    assert len(first) == min(refusals, RETRY_COUNT) + 1
    gaps = [later - earlier for earlier, later in itertools.pairwise(first)]
    assert all(10 <= gap <= RETRY_MAX_S + 1 for gap in gaps)
    assert failures(one) == ["schedule 1"] * (refusals > RETRY_COUNT)
    one.world.run(until=at(one, 16) + 2 * RETRY_MAX_S + 5)
    assert len(refused) == refusals
    acknowledged = [event for event in one.events(ReadSent) if isinstance(event, ReadSent)]
    assert acknowledged[-1] == ReadSent(1, TODAY * DAY + 16 * HOUR)
    assert bounds(one.head_end.reads[-1])[0] == TODAY * DAY + (0 if refusals >= 3 else 15 * HOUR)
    assert failures(one) == ["schedule 1"] * (refusals > RETRY_COUNT)


def test_retries_of_a_street_are_spread() -> None:
    gaps = set()
    for seed in range(4):
        one = bench(HOUR, seed=seed)
        set_up(one, ReadSchedule(1, HOUR))
        refused = refuse_reads(one, 2)
        one.world.run(until=at(one, 15.5))
        gaps.add(round(refused[1] - refused[0], 3))
    assert len(gaps) == 4


def test_later_is_obeyed_and_is_no_failure_of_the_read() -> None:
    one = bench()
    set_up(one, ReadSchedule(1, HOUR))
    told: list[float] = []

    def busy(heard: Heard) -> Message:
        if heard.read is not None and len(told) < 3:
            told.append(heard.now)
            return Message.response(Code.SERVICE_UNAVAILABLE, max_age=400)
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = busy
    one.world.run(until=at(one, 15.99))
    sent = [h.now for h in one.head_end.heard if h.read]
    assert len(sent) == 4
    assert all(b - a >= 400 for a, b in itertools.pairwise(sent))
    assert {bounds(read) for read in one.head_end.reads} == {(TODAY * DAY, TODAY * DAY + 15 * HOUR)}
    assert failures(one) == []


def test_head_end_that_forgot_the_session_costs_no_read() -> None:
    one = bench()
    set_up(one, ReadSchedule(1, HOUR))
    one.head_end.forget_sessions()
    one.world.run(until=at(one, 15) + 60)
    assert [bounds(read) for read in one.head_end.reads] == [(TODAY * DAY, TODAY * DAY + 15 * HOUR)]
    assert failures(one) == []


def test_three_days_of_silence_are_caught_up_by_days_newest_first() -> None:
    one = bench(HOUR)
    set_up(one, ReadSchedule(1, HOUR, parts=ReadParts.INTERVALS))
    one.world.run(until=at(one, 15) + 10)
    one.silence_head_end()
    one.world.run(until=at(one, 12.5, day=TODAY + 3))
    one.open_head_end()
    before = len(one.head_end.reads)
    one.world.run(until=at(one, 13.5, day=TODAY + 3))
    caught_up = one.head_end.reads[before:]
    midnight = (TODAY + 3) * DAY
    assert [bounds(read) for read in caught_up] == [
        (midnight, midnight + 13 * HOUR),
        (midnight - DAY, midnight),
        (midnight - 2 * DAY, midnight - DAY),
        (midnight - 3 * DAY + 15 * HOUR, midnight - 2 * DAY),
    ]
    # Each was acknowledged by itself, and the next read has only what is new.
    sent = [event for event in one.events(ReadSent) if isinstance(event, ReadSent)]
    assert [event.until for event in sent[-4:]] == [bounds(read)[1] for read in caught_up]
    one.world.run(until=at(one, 14.5, day=TODAY + 3))
    assert bounds(one.head_end.reads[-1]) == (midnight + 13 * HOUR, midnight + 14 * HOUR)


def test_catch_up_that_breaks_off_goes_on_with_the_next_read() -> None:
    one = bench(HOUR)
    set_up(one, ReadSchedule(1, HOUR, parts=ReadParts.INTERVALS))
    one.world.run(until=at(one, 15) + 10)
    one.silence_head_end()
    one.world.run(until=at(one, 12.5, day=TODAY + 3))
    one.open_head_end()
    seen: list[int] = []

    def answer(heard: Heard) -> Message | None:
        if heard.read is not None:
            seen.append(heard.read.day)
            if len(seen) > 2 and one.world.now < at(one, 13.9, day=TODAY + 3):
                return None  # Two days came through.
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = answer
    one.world.run(until=at(one, 13.5, day=TODAY + 3))
    assert set(seen) == {TODAY + 3, TODAY + 2, TODAY + 1}
    (stored,) = table(one).schedules
    assert stored.acknowledged_s == TODAY * DAY + 15 * HOUR
    one.restart()
    before = len(one.head_end.reads)
    one.world.run(until=at(one, 14.5, day=TODAY + 3))
    midnight = (TODAY + 3) * DAY
    assert [bounds(read) for read in one.head_end.reads[before:]] == [
        (midnight + 13 * HOUR, midnight + 14 * HOUR),
        (midnight - 2 * DAY, midnight - DAY),
        (midnight - 3 * DAY + 15 * HOUR, midnight - 2 * DAY),
    ]
    (stored,) = table(one).schedules
    assert stored.acknowledged_s == midnight + 14 * HOUR


def test_read_missed_while_the_meter_was_off_is_told_once_and_goes_with_the_next() -> None:
    one = bench(HOUR)
    set_up(one, ReadSchedule(1, HOUR))
    one.world.run(until=at(one, 15) + 10)
    one.power_off()
    one.world.run(until=at(one, 20.5))
    one.power_on()
    one.world.run(until=at(one, 20.6))
    # Half an hour late is late, and not yet failed; the four before it have.
    assert failures(one) == ["schedule 1, 4 times"]
    assert bounds(one.head_end.reads[-1]) == (TODAY * DAY + 15 * HOUR, TODAY * DAY + 20 * HOUR)
    one.world.run(until=at(one, 21) + 10)
    assert bounds(one.head_end.reads[-1]) == (TODAY * DAY + 20 * HOUR, TODAY * DAY + 21 * HOUR)
    assert failures(one) == ["schedule 1, 4 times"]


@pytest.mark.parametrize("late_s", [-60, 60])
def test_daily_read_an_hour_late_has_failed(late_s: int) -> None:
    one = bench(HOUR)
    set_up(one, ReadSchedule(1, DAY, 16 * HOUR))
    one.power_off()
    one.world.run(until=at(one, 16) + GIVE_UP_S + late_s)
    one.power_on()
    one.world.elapse(30)
    assert failures(one) == ["schedule 1"] * (late_s > 0)
    assert len(one.head_end.reads) == (0 if late_s > 0 else 2)


def test_late_days_are_less_urgent_than_yesterday() -> None:
    one = bench(HOUR)
    one.silence_head_end()
    one.world.run(until=at(one, 12, day=TODAY + 2))
    urgencies = []
    for day in (TODAY + 1, TODAY):
        assert one.recorder.owed_days()[0] == day
        due = one.agent._parts.daily.next_word(now=one.world.now)
        assert due is not None
        urgencies.append(due.urgency)
        one.recorder.settle(day, ())
    assert urgencies == [Urgency.DEFAULT, Urgency.RECOVERY]


@pytest.mark.parametrize("late_s", [-60, 60])
def test_daily_report_an_hour_late_is_logged_once_and_tried_on(late_s: int) -> None:
    one = bench(HOUR)
    one.head_end.forget_sessions()
    one.silence_head_end()
    one.world.run(until=at(one, 0, day=TODAY + 1) + 300 + DAY_GIVE_UP_S + late_s)
    one.open_head_end()
    one.restart()
    one.world.elapse(3000)
    assert one.head_end.days[-1] == TODAY
    one.world.run(until=at(one, 23, day=TODAY + 1))
    assert failures(one) == [f"day {TODAY}"]


@pytest.mark.requirement("B1-FR-141", "B1-FR-142", "B1-FR-143")
def test_daily_reads_that_fail_are_one_entry_each_tried_on_and_the_next_brings_all() -> None:
    one = bench(HOUR)
    refused: list[tuple[float, int]] = []

    def answer(heard: Heard) -> Message:
        if heard.report is not None and heard.now < at(one, 0, day=TODAY + 3):
            refused.append((heard.now, heard.report.day))
            return Message.response(Code.INTERNAL_SERVER_ERROR)
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = answer
    for day in (TODAY, TODAY + 1):
        before, instant = len(refused), at(one, 0, day=day + 1) + 300
        # Three tries take seconds at first, and most of an hour for one that tries ever later.
        one.world.run(until=instant + (60 if day == TODAY else DAY_GIVE_UP_S + 60))
        assert failures(one) == [f"day {each}" for each in range(TODAY, day + 1)]
        one.world.run(until=instant + 23 * HOUR)
        # Two retries, and it has failed; tried on, ever later.
        newest = [when for when, told in refused[before:] if told == day]
        gaps = [later - earlier for earlier, later in itertools.pairwise(newest)]
        assert len(newest) > DAY_RETRY_COUNT + 50
        assert all(RETRY_MAX <= gap <= 1.5 * RETRY_MAX + 1 for gap in gaps[10:])
        assert gaps[0] < 4 if day == TODAY else gaps[0] >= RETRY_MAX
    hourly = [sum(when // HOUR == hour for when, _ in refused) for hour in range(12, 30)]
    assert max(hourly) <= 5, "nobody is flooded"
    one.world.run(until=at(one, 2, day=TODAY + 3))
    taken = [heard.report for heard in one.head_end.heard if heard.report is not None]
    assert [report.day for report in taken[-3:]] == [TODAY + 2, TODAY + 1, TODAY]
    assert failures(one) == [f"day {TODAY}", f"day {TODAY + 1}"]
    assert one.recorder.owed_days() == []


def test_acknowledgement_that_cannot_be_kept_means_the_read_goes_again() -> None:
    one = bench(HOUR)
    set_up(one, ReadSchedule(1, HOUR))
    one.world.run(until=at(one, 15) - 1)

    def answer(heard: Heard) -> Message:
        if heard.read is not None and len(one.head_end.reads) == 1:
            one.fill_disk()
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = answer
    one.world.run(until=at(one, 15) + 30)
    one.mend_disk()
    one.world.run(until=at(one, 15) + 400)
    assert [bounds(read) for read in one.head_end.reads] == [
        (TODAY * DAY, TODAY * DAY + 15 * HOUR)
    ] * 2
    one.world.run(until=at(one, 16) + 60)
    assert bounds(one.head_end.reads[-1])[0] == TODAY * DAY + 15 * HOUR
    assert failures(one) == []


def test_schedule_cancelled_or_replaced_while_its_read_is_under_way_leaves_nothing() -> None:
    one = bench(HOUR)
    for change in ("cancel", "replace"):
        set_up(one, ReadSchedule(1, HOUR))
        one.head_end.answer_to = lambda heard: (
            None if heard.read is not None else one.head_end.plain_answer(heard)
        )
        hour = 15 if change == "cancel" else 16
        one.world.run(until=at(one, hour) + 5)
        if change == "cancel":
            assert cancel(one, 1).code == Code.CHANGED
        else:
            set_up(one, ReadSchedule(1, 6 * HOUR))
        one.head_end.answer_to = None
        before = len(one.head_end.reads)
        one.world.run(until=at(one, hour + 0.9))
        assert len(one.head_end.reads) == before, "it is not said again"
        assert failures(one) == []
    assert put(one, ReadSchedule(1, HOUR)).code == Code.CHANGED
    one.world.run(until=at(one, 17) + 5)
    assert bounds(one.head_end.reads[-1]) == (TODAY * DAY, TODAY * DAY + 17 * HOUR)


def test_verdicts_are_told_and_the_read_is_settled() -> None:
    one = bench(HOUR)
    set_up(one, ReadSchedule(1, HOUR))
    verdict = Verdict(RecordRef(RecordKind.BLOCK, 0), Disposition.QUARANTINED, "unknown channel")
    one.head_end.answer_to = lambda heard: changed(
        ReportAcknowledgement(int(one.utc(heard.now) * 1000), 0, (verdict,)).encode()
    )
    one.world.run(until=at(one, 16) + 5)
    sent = [event for event in one.events(ReadSent) if isinstance(event, ReadSent)]
    assert sent[0].verdicts == ("block 0: quarantined, unknown channel",)
    assert [bounds(read)[1] - TODAY * DAY for read in one.head_end.reads] == [15 * HOUR, 16 * HOUR]


@pytest.mark.parametrize("answer", [changed(b""), changed(b"\xff"), Message.response(Code.CREATED)])
def test_answer_that_is_no_acknowledgement_counts_for_nothing(answer: Message) -> None:
    one = bench(HOUR)
    set_up(one, ReadSchedule(1, HOUR))
    one.head_end.answer_to = lambda heard: (
        answer if len(one.head_end.reads) == 1 else one.head_end.plain_answer(heard)
    )
    one.world.run(until=at(one, 15) + 100)
    assert [bounds(read)[0] for read in one.head_end.reads] == [TODAY * DAY] * 2
