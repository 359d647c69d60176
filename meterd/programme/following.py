"""What of a programme other parts keep: its read schedules, put in force with it.

A programme that names schedules replaces all there are; one that names none leaves them alone. A
schedule is known by its number: what stays or changes under it goes on where it was acknowledged;
what is new begins anew.

Raises  StoreError when the storage fails
"""

from __future__ import annotations

from collections.abc import Iterator

from amistack.model.programme import Programme
from amistack.model.programme_check import Fault
from meterd.schedules import rules
from meterd.schedules.book import ScheduleBook


def follow_schedules(book: ScheduleBook, programme: Programme, *, now: float) -> None:
    """Make the schedules of `programme` those of the meter."""
    if not programme.schedules:
        return
    interval_s = min(one.interval_s for one in programme.channels)
    book.replace(programme.schedules, interval_s=interval_s, now=now)


def schedule_faults(programme: Programme, *, utc: float) -> Iterator[Fault]:
    """What keeps its schedules from being in force together, at `utc` and with its channels."""
    interval_s = min(one.interval_s for one in programme.channels)
    offset_s = programme.standard_offset_min * 60
    for place, schedule in enumerate(programme.schedules):
        fault = rules.find_fault(
            schedule,
            programme.schedules[:place],
            utc=utc,
            interval_s=interval_s,
            offset_s=offset_s,
        )
        if fault is not None:
            yield Fault(f"schedule {schedule.number}", f"{fault}: change it or leave it out")
