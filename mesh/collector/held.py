"""What reaches a collector without a backhaul and is worth keeping: alarms, and the last report of
each node. It is told as soon as there is a backhaul.

Spec    docs/protocol/backhaul.md, "How a connection goes"
Limit   HELD_COUNT_MAX alarms and REPORTS_HELD_MAX reports, the oldest going first: the newest say
        what is the case now
Never   keeps anything else: whatever else is not acknowledged from end to end comes again
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import replace
from typing import Final

from amistack.framing import Priority
from mesh.backhaul import Up
from mesh.backhaul.messages import SECONDS_MAX
from mesh.packet import NO_ADDRESS, PacketKind

HELD_COUNT_MAX: Final = 64
REPORTS_HELD_MAX: Final = 1_024
"""Most nodes say nothing in the minutes of an outage, and those that moved say it once."""


def is_report(message: Up) -> bool:
    """Whether a node tells its place; an empty one is the head-end's own question."""
    return (
        message.kind == PacketKind.TOPOLOGY
        and bool(message.payload)
        and message.source != NO_ADDRESS
        and message.priority is not Priority.ALARM
    )


def is_worth_holding(message: Up) -> bool:
    """Whether it waits for a backhaul, or for room."""
    return message.priority is Priority.ALARM or is_report(message)


class Held:
    """What waits, with when it came."""

    def __init__(self) -> None:
        self._held: deque[tuple[float, Up]] = deque()
        self._reports: OrderedDict[int, tuple[float, Up]] = OrderedDict()
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held) + len(self._reports)

    @property
    def alarm_count(self) -> int:
        """How many of them are alarms."""
        return len(self._held)

    def put(self, message: Up, *, now: float) -> None:
        """Keep an alarm, or a report in the place of the node's last; all else is gone.

        What is not kept is counted.
        """
        # One that a connection took with it had waited before.
        since = now - message.held
        if is_report(message):
            self._reports.pop(message.source, None)
            self._reports[message.source] = (since, message)
            if len(self._reports) > REPORTS_HELD_MAX:
                self._reports.popitem(last=False)
                self.counters["dropped: too many reports"] += 1
        elif message.priority is Priority.ALARM:
            if len(self._held) >= HELD_COUNT_MAX:
                self._held.popleft()
                self.counters["dropped: too many alarms"] += 1
            self._held.append((since, message))
        else:
            self.counters["dropped: no backhaul"] += 1

    def put_back(self, message: Up, *, now: float) -> None:
        """It was on its way: a report that came from the node meanwhile says more."""
        if not is_report(message) or message.source not in self._reports:
            self.put(message, now=now)

    def forget_report(self, source: int) -> None:
        """The node has told something newer, and it is on its way."""
        self._reports.pop(source, None)

    def take_all(self, *, now: float) -> list[Up]:
        """All alarms, the oldest first, with how long they waited; then none waits."""
        held = [_waited(message, now - since) for since, message in self._held]
        self._held.clear()
        return held

    def take_reports(self, count_max: int, *, now: float) -> list[Up]:
        """The oldest reports, with how long they waited."""
        taken: list[Up] = []
        while self._reports and len(taken) < count_max:
            _, (since, message) = self._reports.popitem(last=False)
            taken.append(_waited(message, now - since))
        return taken


def _waited(message: Up, seconds: float) -> Up:
    return replace(message, held=min(max(round(seconds), 0), SECONDS_MAX))
