"""Who tries to come in over the network without the right to: each reason is put on record.

The conversation itself refuses and counts them; this looks whether a count has risen. It is asked
after everything that happens, so an attempt is on record at once, and a flood of them as one entry
a QUIET_S.

Raises  StoreError where an event cannot be kept: it is told later
Limit   an entry of each of REASONS in QUIET_S seconds
Never   takes a message that came twice, or was lost on the way, for an attempt
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from amistack.model.events import ACCESS_DENIED
from amistack.session.oscore.protect import CONTEXT_NOT_FOUND, DECRYPTION_FAILED, NOT_PROTECTED
from meterd.parts import Log, Resource

LAYER: Final = "session: "
REASONS: Final = (NOT_PROTECTED, CONTEXT_NOT_FOUND, DECRYPTION_FAILED)
"""No credential; one that is not known here, or no longer; a false one."""
QUIET_S: Final = 60.0


class NetworkAttempts:
    """A part of the meter."""

    def __init__(self, *, log: Log) -> None:
        self._log = log
        self._refused: Callable[[], Mapping[str, int]] = dict
        self._told: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    def watch(self, refused: Callable[[], Mapping[str, int]]) -> None:
        """`refused` gives the conversation's counts, by `layer: reason`."""
        self._refused = refused

    def resources(self) -> Sequence[Resource]:
        """None."""
        return ()

    def handle_timer(self, *, now: float) -> None:
        """Put on record what has come since."""
        counts = self._refused()
        for reason in REASONS:
            count = counts.get(LAYER + reason, 0)
            more = count - self._told.get(reason, 0)
            if more > 0 and self._not_before.get(reason, now) <= now:
                times = "" if more == 1 else f", {more} times"
                self._log(ACCESS_DENIED, f"network: {reason}{times}", now=now)
                self._told[reason] = count
                self._not_before[reason] = now + QUIET_S

    def next_timer(self) -> float | None:
        """At once where there is something to tell, or once the quiet is over."""
        counts = self._refused()
        dues = [
            self._not_before.get(reason, 0.0)
            for reason in REASONS
            if counts.get(LAYER + reason, 0) > self._told.get(reason, 0)
        ]
        return min(dues, default=None)
