"""Read schedules that come with a programme.

The contract under test: they are in force with the programme, in place of all others, not before;
what stays the same keeps how far it was acknowledged; a programme without any leaves them alone;
one whose schedules cannot be is refused whole.
"""

from __future__ import annotations

import dataclasses

import pytest

from amistack.coap.codes import Code
from amistack.model.programme import Programme
from amistack.model.programme_state import ProgrammeRefusal
from amistack.model.schedule import SCHEDULE_COUNT_MAX, ReadSchedule
from meterd.programme.following import follow_schedules
from meterd.schedules.book import ScheduleBook
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


def test_schedule_that_stays_the_same_keeps_how_far_it_was_acknowledged() -> None:
    meter = Followed()
    meter.book.take(HOURLY, now=meter.utc)
    meter.book.take(DAILY, now=meter.utc)
    kept = dataclasses.replace(meter.book.all()[0], cursor=MIDNIGHT)
    meter.storage.put(kept.change)
    changed = dataclasses.replace(DAILY, offset_s=60)
    meter.ask(Code.PUT, with_schedules(1, HOURLY, changed).encode())
    meter.run_until(MIDNIGHT + DAY + 1)
    assert meter.book.find(1) == kept
    found = meter.book.find(3)
    assert found is not None
    assert (found.schedule, found.cursor) == (changed, 0)


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
