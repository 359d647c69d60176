"""Whether a switch has done what it was told, judged by what the metrology measures.

Open is confirmed by no current and a load side that is dead while the line is not; closed by
current, or by voltage at the load side that came with the line's. What is seen must be seen twice
in a row to count; what contradicts has until the end, since a contact takes its time.

Gives   an outcome within CONFIRM_S of the start, and why
Never   takes the relay's word: an auxiliary contact can contradict, not confirm
"""

from __future__ import annotations

from typing import Final

from amistack.model.control import Outcome
from meterd.service import Measured

CONFIRM_S: Final = 10.0
"""Seconds from telling the relay to an outcome, whatever it is."""
LOOK_S: Final = 1.0
STEADY_LOOKS: Final = 2


def contradiction(measured: Measured, *, is_closed: bool) -> str | None:
    """What is measured that cannot be if the contact is where it was told to be; or None."""
    if is_closed:
        if measured.is_contact_closed is False:
            return "contact open"
        if measured.is_current:
            return None
        return (
            "load side dead" if measured.is_line_live and measured.is_load_live is False else None
        )
    if measured.is_current:
        return "current flows"
    if measured.is_load_live:
        return "load side live"
    return "contact closed" if measured.is_contact_closed else None


class Confirmation:
    """One move that waits for its outcome."""

    def __init__(self, *, is_closed: bool, has_flowed: bool, now: float) -> None:
        """`has_flowed`: there was current just before, which an opening must have ended."""
        self.why: str | None = None
        """What contradicts, or why it cannot be told."""
        self._is_closed = is_closed
        self._has_flowed = has_flowed
        self._ends = now + CONFIRM_S
        self._steady = 0

    def look(self, measured: Measured, *, now: float) -> Outcome | None:
        """The outcome, once there is one."""
        self.why = contradiction(measured, is_closed=self._is_closed)
        is_seen = self.why is None and self._is_seen(measured)
        self._steady = self._steady + 1 if is_seen else 0
        if self._steady >= STEADY_LOOKS:
            return Outcome.CONFIRMED
        if now < self._ends:
            return None
        if self.why is not None:
            return Outcome.CONTRADICTED
        self.why = "nothing to tell it by"
        return Outcome.UNCONFIRMED

    def _is_seen(self, measured: Measured) -> bool:
        if self._is_closed:
            return bool(measured.is_current or (measured.is_load_live and measured.is_line_live))
        if measured.is_current or measured.is_line_live is False:
            return False  # In an outage both sides are dead, whatever the contact does.
        if measured.is_load_live is None:
            return measured.is_current is False and self._has_flowed
        return measured.is_current is False or bool(measured.is_line_live)
