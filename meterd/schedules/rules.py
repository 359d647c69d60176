"""What a meter answers to a schedule that it cannot keep to, in words for the head-end.

Gives   the reason of a refusal, a short fixed word group; None if the schedule can be taken
Never   changes anything
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from amistack.model.schedule import SCHEDULE_COUNT_MAX, ReadSchedule
from meterd.schedules.occurrences import first_from

PAST: Final = "past"
"""Its last read would have been before now."""
TOO_FREQUENT: Final = "too frequent"
"""More often than the meter records."""
TOO_MANY: Final = "too many"
CONTRADICTORY: Final = "contradictory"
"""No read falls between its start and its end."""
OVERLAPPING: Final = "overlapping"
"""Another schedule reads at the same instants."""
UNKNOWN: Final = "unknown schedule"
CLOCK_UNSET: Final = "clock unset"


def find_fault(
    schedule: ReadSchedule,
    others: Iterable[ReadSchedule],
    *,
    utc: float,
    interval_s: int,
    offset_s: int,
) -> str | None:
    """Why `schedule` cannot stand beside `others`, at `utc`, where `interval_s` are recorded."""
    if schedule.period_s < interval_s:
        return TOO_FREQUENT
    if schedule.end_s and schedule.end_s <= utc:
        return PAST
    if first_from(schedule, schedule.start_s, offset_s=offset_s) is None:
        return CONTRADICTORY
    if first_from(schedule, utc, offset_s=offset_s) is None:
        return PAST
    # Those that have ended make room.
    standing = [one for one in others if not has_ended(one, utc) and one.number != schedule.number]
    if len(standing) >= SCHEDULE_COUNT_MAX:
        return TOO_MANY
    if any(_coincide(schedule, one) for one in standing):
        return OVERLAPPING
    return None


def has_ended(schedule: ReadSchedule, utc: float) -> bool:
    """Whether no read of it can be due any more."""
    return bool(schedule.end_s) and schedule.end_s <= utc


def _coincide(one: ReadSchedule, other: ReadSchedule) -> bool:
    """Whether two schedules read at the same instants for some time.

    The default read is another message than any other, so nothing coincides with it.
    """
    if one.is_default or other.is_default:
        return False
    if (one.period_s, one.offset_s) != (other.period_s, other.offset_s):
        return False
    starts_before_end = not other.end_s or one.start_s < other.end_s
    ends_after_start = not one.end_s or other.start_s < one.end_s
    return starts_before_end and ends_after_start
