"""Alarms that reach a collector without a backhaul: kept, and told as soon as there is one.

Spec    docs/protocol/backhaul.md, "How a connection goes"
Limit   HELD_COUNT_MAX alarms, the oldest going first: the newest say what is the case now
Never   keeps anything but alarms: whatever else is not acknowledged from end to end comes again
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Final

from amistack.framing import Priority
from mesh.backhaul import Up
from mesh.backhaul.messages import SECONDS_MAX

HELD_COUNT_MAX: Final = 64


class Held:
    """What waits, with when it came."""

    def __init__(self) -> None:
        self._held: deque[tuple[float, Up]] = deque()
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def put(self, message: Up, *, now: float) -> None:
        """Keep it if it is an alarm; else it is gone. Neither is so without a count."""
        if message.priority is not Priority.ALARM:
            self.counters["dropped: no backhaul"] += 1
            return
        if len(self._held) >= HELD_COUNT_MAX:
            self._held.popleft()
            self.counters["dropped: too many alarms"] += 1
        # One that a connection took with it had waited before.
        self._held.append((now - message.held, message))

    def take_all(self, *, now: float) -> list[Up]:
        """All of them, the oldest first, with how long they waited; then nothing waits."""
        held = [
            replace(message, held=min(max(round(now - since), 0), SECONDS_MAX))
            for since, message in self._held
        ]
        self._held.clear()
        return held
