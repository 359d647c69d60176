"""Strategies for the messages about read schedules, any value that they may hold."""

from __future__ import annotations

from hypothesis import strategies as st

from amistack.model import ReadParts
from amistack.model.schedule import (
    ReadSchedule,
    ScheduleAcknowledgement,
    ScheduleCancellation,
    ScheduleTable,
    StoredSchedule,
)

DAY_S = 86_400
PERIODS = [30, 60, 300, 900, 3600, 6 * 3600, 12 * 3600, DAY_S, 7 * DAY_S]

utc_s = st.integers(0, 2**32 - 1)
numbers = st.integers(0, 255)
revisions = st.integers(0, 2**32 - 1)


@st.composite
def schedules(draw: st.DrawFn, number: int | None = None) -> ReadSchedule:
    if number is None:
        number = draw(numbers)
    start_s = draw(st.integers(0, 2**32 - 2))
    if number == 0:
        return ReadSchedule(0, DAY_S, draw(st.integers(0, 8 * 3600)), start_s)
    period_s = draw(st.sampled_from(PERIODS))
    return ReadSchedule(
        number,
        period_s,
        draw(st.integers(0, period_s - 1)),
        start_s,
        draw(st.just(0) | st.integers(start_s + 1, 2**32 - 1)),
        ReadParts(draw(st.integers(1, 7))),
    )


@st.composite
def tables(draw: st.DrawFn) -> ScheduleTable:
    chosen = sorted(draw(st.sets(numbers, max_size=4)))
    return ScheduleTable(
        draw(revisions),
        tuple(StoredSchedule(draw(schedules(number)), draw(utc_s)) for number in chosen),
    )


MESSAGES = {
    "read-schedule": (ReadSchedule, schedules()),
    "schedule-cancellation": (ScheduleCancellation, st.builds(ScheduleCancellation, numbers)),
    "schedule-acknowledgement": (
        ScheduleAcknowledgement,
        st.builds(ScheduleAcknowledgement, numbers, revisions),
    ),
    "schedule-table": (ScheduleTable, tables()),
}
"""By the name of its rule in the CDDL: the class of each message, and a strategy for it."""
