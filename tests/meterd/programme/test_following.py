"""Read schedules that come with a programme.

The contract under test: they are in force with the programme, in place of all others, not before;
each goes on, under its number, where it was acknowledged, changed or not; a programme without any
leaves them alone; one whose schedules cannot be is refused whole.
"""

from __future__ import annotations

import dataclasses

import pytest

from amistack.coap.codes import Code
from amistack.model.event_catalogue import SCHEDULE_CHANGED, SCHEDULE_REFUSED
from amistack.model.programme import Programme
from amistack.model.programme_state import ProgrammeRefusal
from amistack.model.schedule import SCHEDULE_COUNT_MAX, ReadSchedule
from meterd.clock import MeterClock
from meterd.programme.following import follow_schedules
from meterd.schedules.book import ScheduleBook
from meterd.schedules.spans import Stretch
from tests.meterd.programme.bench import DAY, MIDNIGHT, Meter, programme

HOURLY = ReadSchedule(1, 3600, 60)
QUARTERLY = ReadSchedule(2, 900, 30)
DAILY = ReadSchedule(3, DAY, 7200)


def with_schedules(version: int, *schedules: ReadSchedule) -> Programme:
    return dataclasses.replace(programme(version), schedules=schedules)


class Followed(Meter):
    """A meter whose schedule book follows its programme."""

    def __init__(self) -> None:
        super().__init__(utc=MIDNIGHT + 5, on_change=self.follow)

    def start(self) -> None:
        super().start()
        self.book = ScheduleBook(self.storage, self.recorder, self.clock, self.log)

    def follow(self, wanted: Programme, now: float) -> None:
        follow_schedules(self.book, wanted, now=now)

    @property
    def schedules(self) -> list[ReadSchedule]:
        return [kept.schedule for kept in self.book.all()]


def test_schedules_are_in_force_with_their_programme_and_not_before() -> None:
    meter = Followed()
    assert meter.book.take(DAILY, now=meter.utc) is None
    meter.ask(Code.PUT, with_schedules(1, HOURLY, QUARTERLY).encode())
    assert meter.schedules == [DAILY]
    meter.run_until(MIDNIGHT + DAY - 1)
    assert meter.schedules == [DAILY]
    meter.run_until(MIDNIGHT + DAY + 1)
    assert meter.schedules == [HOURLY, QUARTERLY]
    meter.restart()
    assert meter.schedules == [HOURLY, QUARTERLY]


def test_each_schedule_keeps_how_far_it_was_acknowledged_whether_it_changes_or_not() -> None:
    meter = Followed()
    owed = (Stretch(MIDNIGHT - 7200, MIDNIGHT - 3600),)
    for one in (HOURLY, DAILY):
        meter.book.take(one, now=meter.utc)
        kept = meter.book.find(one.number)
        assert kept is not None
        meter.storage.put(dataclasses.replace(kept, cursor=MIDNIGHT, owed=owed).change)
    same, changed = meter.book.find(1), dataclasses.replace(DAILY, offset_s=60)
    meter.ask(Code.PUT, with_schedules(1, HOURLY, QUARTERLY, changed).encode())
    revision = meter.book.revision
    meter.run_until(MIDNIGHT + DAY + 1)
    assert meter.book.find(1) == same
    found = meter.book.find(3)
    assert found is not None
    assert (found.schedule, found.cursor, found.owed) == (changed, MIDNIGHT, owed)
    # Reads that the old one had due are nobody's.
    assert MIDNIGHT + DAY <= found.settled <= MIDNIGHT + DAY + 1
    new = meter.book.find(2)
    assert new is not None
    assert (new.cursor, new.owed) == (0, ())
    assert meter.details(SCHEDULE_CHANGED)[-2:] == [
        "schedule 2 set, every 900 s",
        "schedule 3 set, every 86400 s",
    ]
    assert meter.book.revision == revision + 2


def test_schedules_come_into_force_though_the_clock_is_lost_meanwhile() -> None:
    meter = Followed()
    meter.ask(Code.PUT, with_schedules(1, HOURLY).encode())
    meter.utc = MIDNIGHT + DAY
    meter.recorder.advance(meter.utc)
    meter.clock = MeterClock(utc=1_000.0, now=meter.utc, is_set=False)
    meter.book = ScheduleBook(meter.storage, meter.recorder, meter.clock, meter.log)
    # What runs is there, and nobody knows since when.
    follow_schedules(meter.book, with_schedules(1, HOURLY), now=meter.utc)
    found = meter.book.find(1)
    assert found is not None
    assert found.settled == MIDNIGHT + DAY


def test_schedule_whose_time_is_over_as_its_programme_begins_is_left_out_and_logged() -> None:
    meter = Followed()
    short = dataclasses.replace(HOURLY, number=4, end_s=MIDNIGHT + DAY + 3600)
    meter.ask(Code.PUT, with_schedules(1, short, QUARTERLY).encode())
    # The power is off for three days.
    meter.utc = MIDNIGHT + 3 * DAY
    meter.restart()
    meter.keeper.handle_timer(now=meter.utc)
    assert meter.schedules == [QUARTERLY]
    assert meter.details(SCHEDULE_REFUSED) == ["schedule 4: past"]


def test_schedules_that_change_places_are_both_in_force() -> None:
    meter = Followed()
    meter.book.take(HOURLY, now=meter.utc)
    meter.book.take(QUARTERLY, now=meter.utc)
    swapped = (
        dataclasses.replace(QUARTERLY, number=1),
        dataclasses.replace(HOURLY, number=2),
    )
    meter.ask(Code.PUT, with_schedules(1, *swapped).encode())
    meter.run_until(MIDNIGHT + DAY + 1)
    assert meter.schedules == list(swapped)


def test_programme_without_schedules_leaves_those_that_are_set_alone() -> None:
    meter = Followed()
    meter.book.take(HOURLY, now=meter.utc)
    meter.ask(Code.PUT, programme(1).encode())
    meter.run_until(MIDNIGHT + DAY + 1)
    assert meter.schedules == [HOURLY]


@pytest.mark.parametrize(
    ("schedules", "said"),
    [
        ((ReadSchedule(1, 300),), "schedule 1: too frequent"),
        ((HOURLY, dataclasses.replace(HOURLY, number=2)), "schedule 2: overlapping"),
        ((ReadSchedule(1, 3600, 0, 0, MIDNIGHT),), "schedule 1: past"),
        ((HOURLY, dataclasses.replace(DAILY, number=1)), "schedule 1: its number comes twice"),
    ],
)
def test_programme_whose_schedules_cannot_be_is_refused_whole(
    schedules: tuple[ReadSchedule, ...], said: str
) -> None:
    meter = Followed()
    answer = meter.ask(Code.PUT, with_schedules(1, *schedules).encode())
    assert answer.code == Code.UNPROCESSABLE_ENTITY
    faults = ProgrammeRefusal.decode(answer.payload).faults
    assert any(str(fault).startswith(said) for fault in faults), faults
    meter.run_until(MIDNIGHT + 2 * DAY)
    assert meter.schedules == []
    assert meter.keeper.running(now=meter.utc).version == 0


def test_as_many_schedules_as_there_may_be_come_with_a_programme() -> None:
    meter = Followed()
    many = tuple(ReadSchedule(n, 3600, 60 * n) for n in range(1, SCHEDULE_COUNT_MAX + 1))
    meter.ask(Code.PUT, with_schedules(1, *many).encode())
    meter.run_until(MIDNIGHT + DAY + 1)
    assert meter.schedules == list(many)
    assert SCHEDULE_COUNT_MAX == 16
