"""Intervals, marks, registers and answers of two months, beside the model's."""

from __future__ import annotations

from amistack.coap.codes import Code
from amistack.model import DailyReport, IntervalBlock, Quality
from amistack.model.quantity import Quantity
from amistack.model.registers import RegistersAnswer
from amistack.model.resources import REGISTERS
from tests.meterd.months.life import Life
from tests.meterd.months.model import (
    DAY,
    NEVER,
    SLOT,
    Expected,
    Facts,
    Proofs,
    demand_periods,
    expected_days,
    part_of,
    proofs_of,
)

MARKS = Quality.CLOCK_ADJUSTED | Quality.TIME_DOUBTFUL


def check_days(life: Life) -> None:
    """Each day was told, in one way, and as it was."""
    facts, reports = life.facts, life.bench.head_end.reports
    told: dict[int, DailyReport] = {}
    for report in reports:
        first = told.setdefault(report.day, report)
        assert (first.blocks, first.channel_set) == (report.blocks, report.channel_set), report.day
    last = facts.day_of(facts.epoch + facts.end) - 1
    assert sorted(told) == list(range(facts.first_day, last + 1))
    expected = expected_days(facts, last)
    proofs = proofs_of(facts, [one.now for one in life.bench.head_end.heard])
    heard = {one.report.day: one.now for one in reversed(life.bench.head_end.heard) if one.report}
    for day, report in told.items():
        assert {one.channel for one in report.blocks} == expected[day].keys(), day
        for block in report.blocks:
            check_block(facts, proofs, day, block, expected[day][block.channel], heard[day])


def check_block(
    facts: Facts, proofs: Proofs, day: int, block: IntervalBlock, wanted: Expected, at: float
) -> None:
    """A day of a channel, told at the world's time `at`."""
    where = f"day {day}, channel {block.channel}"
    assert block.interval_s == wanted.interval_s, where
    assert block.values() == wanted.values, where
    assert (block.opening, block.advance) == (wanted.opening, wanted.advance), where
    for place, flags in enumerate(block.flags()):
        begin = facts.midnight(day) + place * block.interval_s
        must, may = marks_of(facts, proofs, begin, begin + block.interval_s, at)
        missing = Quality.MISSING if wanted.values[place] is None else Quality(0)
        assert flags & ~MARKS == missing, f"{where}, interval {place}"
        assert must & flags == must, f"{where}, interval {place}: {flags!r} without {must!r}"
        assert flags & MARKS & ~may == 0, f"{where}, interval {place}: {flags!r}"


def marks_of(
    facts: Facts, proofs: Proofs, begin: int, end: int, at: float
) -> tuple[Quality, Quality]:
    """What is to be said of the clock in an interval, and what at the most, by the time `at`."""
    must = may = Quality(0)
    for moved, old, new in facts.moves:
        if moved >= at:
            continue
        life = next(one for one in facts.lives if one.begin <= moved <= one.end)
        is_sure = not life.was_torn or life.end > moved + 2
        if facts.error(moved - 1e-6) is None:
            # The first time after it was lost: all that this life had before is doubtful.
            since, flag = new - (moved - life.begin), Quality.TIME_DOUBTFUL
            must |= flag * (is_sure and since + 2 < end and new - 2 >= begin)
            may |= flag * (since - 2 < end and new + 2 >= begin)
            # By an operator or by the first answer: of both there is an entry.
            may |= Quality.CLOCK_ADJUSTED * (begin <= int(new) < end)
        elif begin <= int(old) < end or begin <= int(new) < end:
            may |= Quality.CLOCK_ADJUSTED
            must |= Quality.CLOCK_ADJUSTED * is_sure
    for doubt in proofs.doubts:
        if doubt.proved_at >= at:
            continue
        if doubt.least_begin < min(end, doubt.least_end) and doubt.least_end >= begin:
            must |= Quality.TIME_DOUBTFUL
        if doubt.most_begin < end and doubt.most_end >= begin:
            may |= Quality.TIME_DOUBTFUL
    return must, may


def check_registers(life: Life) -> None:
    """What all registers show in the end, each tariff's too; and demand with all its periods."""
    facts, bench = life.facts, life.bench
    answer = bench.ask(Code.GET, REGISTERS)
    assert answer is not None
    told = RegistersAnswer.decode(answer.payload)
    utc = told.clock.utc_s
    today = facts.day_of(utc)
    programme = facts.programme_of(today)
    channels = facts.default if programme is None else programme.channels
    (yesterday, tomorrow) = (expected_days(facts, today)[day] for day in (today - 1, today))
    values = {one.reading_type: one.value for one in told.registers}
    assert values.keys() == {one.measured.register_type for one in channels}
    for one in channels:
        value = values[one.measured.register_type]
        opening = tomorrow[one.number].opening
        share = (utc - facts.midnight(today)) / DAY
        assert 0 <= share < 1
        if one.measured.quantity in (Quantity.DELIVERED, Quantity.RECEIVED):
            # Between the five minutes that have passed and those that run.
            least = opening + part_of(facts, today, utc, one.measured)
            most = opening + part_of(facts, today, utc + SLOT, one.measured)
            assert least <= value <= most, one.measured
    assert yesterday
    until = bench.recorder.recorded_until
    assert until is not None
    assert utc - 3600 <= until <= utc + 1
    periods = demand_periods(facts, until)
    demand = told.demand
    if programme is None or programme.demand is None:
        assert demand is None
        return
    assert demand is not None
    running = demand.running
    assert (running.since, running.peak, running.peak_at) == (
        periods[-1].since,
        periods[-1].peak,
        periods[-1].peak_at,
    )
    assert [(one.since, one.until, one.peak, one.peak_at) for one in demand.periods] == [
        (one.since, one.until, one.peak, one.peak_at) for one in periods[-2::-1]
    ]
    assert demand.cumulative == sum(one.peak for one in periods[:-1])
    assert demand.reset_count == len(periods) - 1


def check_answers(life: Life) -> None:
    """Reads on demand: today's intervals as far as it is, registers between their neighbours."""
    facts = life.facts
    expected = expected_days(facts, facts.day_of(facts.epoch + facts.end) + 1)
    for one in life.asked:
        answer = one.answer
        day = expected[answer.day]
        registers = dict(answer.registers)
        for block in answer.blocks:
            wanted = day[block.channel]
            assert block.interval_s == wanted.interval_s
            assert block.values() == wanted.values[: block.count]
            assert block.opening == wanted.opening
            if min(wanted.opening, wanted.advance) >= 0 and block.channel <= 2:
                closing = wanted.opening + wanted.advance
                assert block.closing <= registers[block.channel] <= closing
        utc = facts.utc(one.at)
        assert utc is not None
        assert abs(answer.clock.utc_s - utc) <= 6
        assert facts.reach(utc, one.at) < NEVER
