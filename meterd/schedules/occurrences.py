"""The instants at which a schedule reads: arithmetic on UTC seconds, no clock.

A period counts from midnight in the meter's standard offset, a week from Monday's.
"""

from __future__ import annotations

from typing import Final

from amistack.model.schedule import WEEK_S, ReadSchedule

MONDAY_S: Final = 4 * 86_400
"""1970-01-05, a Monday."""


def first_from(schedule: ReadSchedule, utc: float, *, offset_s: int) -> int | None:
    """The first instant at or after `utc`, or None if the schedule has ended by then."""
    least = max(utc, schedule.start_s)
    anchor = _anchor(schedule, offset_s)
    periods = -((anchor - least) // schedule.period_s)  # Rounded up.
    at = anchor + int(periods) * schedule.period_s
    return None if schedule.end_s and at >= schedule.end_s else at


def last_until(schedule: ReadSchedule, utc: float, *, offset_s: int) -> int | None:
    """The last instant at or before `utc`, or None if there is none."""
    most = min(utc, schedule.end_s - 1) if schedule.end_s else utc
    anchor = _anchor(schedule, offset_s)
    at = anchor + int((most - anchor) // schedule.period_s) * schedule.period_s
    return None if at < schedule.start_s else at


def count_between(schedule: ReadSchedule, after: int, until: float, *, offset_s: int) -> int:
    """How many instants there are after `after`, up to and with `until`."""
    first = first_from(schedule, after + 1, offset_s=offset_s)
    last = last_until(schedule, until, offset_s=offset_s)
    if first is None or last is None or last < first:
        return 0
    return (last - first) // schedule.period_s + 1


def _anchor(schedule: ReadSchedule, offset_s: int) -> int:
    """Some instant that the schedule's grid has, whatever its start and end."""
    base = MONDAY_S if schedule.period_s == WEEK_S else 0
    return base - offset_s + schedule.offset_s
