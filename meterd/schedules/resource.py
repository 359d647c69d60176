"""The resource at which the head-end sets, ends and looks at a meter's schedules.

Spec    docs/protocol/model.md, "Read schedules"
"""

from __future__ import annotations

from collections import Counter

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model.resources import SCHEDULES
from amistack.model.schedule import ReadSchedule, ScheduleAcknowledgement, ScheduleCancellation
from meterd.parts import granted, refused, unfit
from meterd.schedules import rules
from meterd.schedules.book import ScheduleBook


class SchedulesResource:
    """PUT a schedule, POST a cancellation, GET all of them."""

    path = SCHEDULES
    kind = "amistack.schedules"

    def __init__(self, book: ScheduleBook, counters: Counter[str]) -> None:
        self._book = book
        self._counters = counters

    def answer(self, message: Message, *, now: float) -> Message:
        """2.04 that names the schedule once it is set; 4.22 or 4.04 with the reason otherwise."""
        if (other := unfit(message, Code.GET, Code.PUT, Code.POST)) is not None:
            return other
        if message.code == Code.GET:
            return granted(Code.CONTENT, self._book.table().encode())
        if message.code == Code.PUT:
            schedule = ReadSchedule.decode(message.payload)
            number, fault = schedule.number, self._book.take(schedule, now=now)
        else:
            number = ScheduleCancellation.decode(message.payload).number
            fault = self._book.cancel(number, now=now)
        if fault is not None:
            self._counters[f"{SCHEDULES} refused: {fault}"] += 1
            is_unknown = fault == rules.UNKNOWN
            return refused(Code.NOT_FOUND if is_unknown else Code.UNPROCESSABLE_ENTITY, fault)
        acknowledgement = ScheduleAcknowledgement(number, self._book.revision)
        return granted(Code.CHANGED, acknowledgement.encode())
