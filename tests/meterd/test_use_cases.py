"""What the use cases ask of a meter, each as its check in the catalogue says.

The contract under test: intervals of a known load are right and stay for 45 days; a daily report
has every part and leaves by itself, whatever comes back; what failed to leave goes with the next
one; the clock goes on without a network.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from amistack.model import ClockState, ReadAnswer, ReadParts
from amistack.model.events import COLD_STARTED, REGISTERED
from meterd.agent import RETRY_MAX, Reported, Schedule
from meterd.metrology import ConstantSource
from meterd.recorder import Recorder
from meterd.storage import Storage
from tests.meterd.bench import DAY, EPOCH, METER, Bench
from tests.meterd.test_recorder import StubSource
from tests.support.head_end import read_request
from tests.support.power import TornFiles

TODAY = int(EPOCH) // DAY
KEPT_DAYS = 45
"""As the use cases have it; not taken from the program under test."""


def settled(source: StubSource) -> Bench:
    """A meter that has said everything it owed, and reports five minutes after midnight."""
    one = Bench(make_source=lambda: source, schedule=Schedule(300.0, 0.0, 1.0))
    one.power_on()
    one.world.elapse(60)
    assert one.recorder.owed_days() == []
    return one


def expected(source: StubSource, day: int, place: int) -> tuple[int | None, ...]:
    return tuple(source.value(day * DAY + at, place) for at in range(0, DAY, source.interval_s))


# Recording


@pytest.mark.requirement("B1-FR-122")
def test_fixed_load_gives_every_interval_of_a_day_its_energy() -> None:
    source = ConstantSource(watts=400, interval_s=900)
    storage = Storage.on(TornFiles(random.Random(0)))
    recorder = Recorder(storage, source, offset_min=0)
    recorder.advance((TODAY + 1) * DAY)
    (block,) = recorder.block(TODAY)
    assert block.values() == (100,) * 96
    assert block.closing - block.opening == 9_600
    storage.close()


@pytest.mark.parametrize(
    ("interval_s", "flow_count"),
    [
        pytest.param(900, 1, marks=pytest.mark.requirement("B1-FR-123"), id="usual"),
        pytest.param(60, 2, marks=pytest.mark.requirement("B1-NFR-19"), id="finest, all channels"),
    ],
)
def test_latest_45_days_of_46_can_be_read_back(interval_s: int, flow_count: int) -> None:
    source = StubSource(interval_s, flow_count=flow_count, known_from=TODAY * DAY)
    storage = Storage.on(TornFiles(random.Random(0)))
    recorder = Recorder(storage, source, offset_min=0)
    recorder.advance(TODAY * DAY + 1)
    for day in range(TODAY, TODAY + KEPT_DAYS + 1):
        recorder.advance((day + 1) * DAY)
    for day in range(TODAY + 1, TODAY + KEPT_DAYS + 1):
        blocks = recorder.block(day)
        assert [block.values() for block in blocks] == [
            expected(source, day, place) for place in range(flow_count)
        ]
    storage.close()


# Reporting


@pytest.mark.requirement("B1-FR-27")
def test_daily_report_has_every_part_and_is_of_the_day_before() -> None:
    source = StubSource(900, flow_count=2)
    one = settled(source)
    one.world.run(until=one.midnight(TODAY + 1) + 301)
    heard = one.head_end.heard[-1]
    report = heard.report
    assert report is not None
    # The day's intervals and the register reads of both its midnights, on every channel.
    assert report.day == TODAY
    (registration,) = one.head_end.registrations
    assert [block.channel for block in report.blocks] == [c.number for c in registration.channels]
    for place, block in enumerate(report.blocks):
        assert block.values() == expected(source, TODAY, place)
        assert block.opening == sum(
            sum(value or 0 for value in expected(source, day, place))
            for day in range(TODAY - KEPT_DAYS, TODAY)
        )
        assert block.closing == block.opening + sum(
            value or 0 for value in expected(source, TODAY, place)
        )
    # The log of the day, and of no other.
    assert [entry.event for entry in report.entries] == [COLD_STARTED, REGISTERED]
    assert {entry.at // DAY for entry in report.entries} == {TODAY}
    # Who says so (by its session), and when; and, as it applies, what the channels are declared in.
    assert heard.meter == METER
    assert report.clock.state is ClockState.SET
    assert report.clock.utc_s == int(one.utc(one.midnight(TODAY + 1) + 300))
    assert report.channel_set == registration.channel_set


@pytest.mark.requirement("B1-FR-128")
def test_report_leaves_at_its_time_though_nothing_ever_comes_back() -> None:
    one = settled(StubSource(900))
    one.world.passes = lambda _, receiver, __: receiver != "meter"
    before = len(one.head_end.reports)
    one.world.run(until=one.midnight(TODAY + 1) + 299)
    assert len(one.head_end.reports) == before
    one.world.run(until=one.midnight(TODAY + 1) + 301)
    assert one.head_end.days[before:] == [TODAY]


@pytest.mark.requirement("B1-FR-143")
def test_report_after_two_that_failed_brings_everything_since_the_last_good_one() -> None:
    source = StubSource(900)
    one = settled(source)
    before = len(one.head_end.reports)
    one.silence_head_end()
    one.world.run(until=one.midnight(TODAY + 3) + 299)
    assert len(one.head_end.reports) == before, "two have failed"
    one.open_head_end()
    one.world.run(until=one.midnight(TODAY + 3) + 300 + 2 * RETRY_MAX)
    reports = one.head_end.reports[before:]
    assert sorted(report.day for report in reports) == [TODAY, TODAY + 1, TODAY + 2]
    for report in reports:
        (block,) = report.blocks
        assert block.values() == expected(source, report.day, 0)


@pytest.mark.requirement("B1-NFR-07")
def test_month_has_a_report_of_every_day_on_the_day_after_it() -> None:
    one = settled(StubSource(3600))
    before = len(one.head_end.heard)
    one.world.run(until=one.midnight(TODAY + 31) - 1)
    reads = Counter(
        int(one.utc(heard.now)) // DAY
        for heard in one.head_end.heard[before:]
        if heard.report is not None
    )
    assert reads == dict.fromkeys(range(TODAY + 1, TODAY + 31), 1)
    assert len(one.events(Reported)) == len(one.head_end.reports), "each was acknowledged"


# Time


@pytest.mark.requirement("B1-FR-91")
def test_clock_goes_on_through_days_without_a_network() -> None:
    one = settled(StubSource(3600))
    one.world.passes = lambda *_: False
    one.world.elapse(5 * DAY + 12_345)
    one.open_head_end()
    one.head_end.ask(
        METER, read_request(b"whatTime", ReadParts.REGISTERS), "meter", now=one.world.now
    )
    one.settle_head_end()
    asked = one.world.now
    one.world.elapse(1)
    answer = ReadAnswer.decode(one.head_end.answers[-1].message.payload)
    assert answer.identifier == b"whatTime"
    assert answer.clock.state is ClockState.SET
    assert abs(answer.clock.utc_s - one.utc(asked)) <= 1
