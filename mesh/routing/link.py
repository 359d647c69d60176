"""One hop: a frame at a time, repeated until it is acknowledged or given up.

In      `begin` with a sealed frame, `frame_sent`, `handle_timer`, `end`
Out     `octets_to_send`, `deadline`; `begin` and `handle_timer` say what became of a frame
Limit   one frame in flight; `attempts_max` transmissions of it; `blocked_max` times in a row that
        the radio found no free moment
Never   chooses whom to send to; takes a busy channel for a neighbour that does not answer
"""

from __future__ import annotations

import enum
import random

from mesh.routing.profile import Links
from mesh.routing.trickle import NEVER
from mesh.security import Sealed


class Phase(enum.Enum):
    """What the frame in flight waits for."""

    IDLE = "no frame"
    READY = "the radio"
    ON_AIR = "the end of its transmission"
    AWAITED = "its acknowledgement"
    PAUSED = "the time to repeat it"


class Hop:
    """The frame in flight, if there is one."""

    __slots__ = (
        "_chance",
        "_profile",
        "attempts",
        "attempts_max",
        "blocked",
        "deadline",
        "patience",
        "phase",
        "sealed",
    )

    def __init__(self, profile: Links, chance: random.Random) -> None:
        self._profile = profile
        self._chance = chance
        self.phase = Phase.IDLE
        self.sealed: Sealed | None = None
        self.attempts = 0
        """Transmissions so far."""
        self.attempts_max = profile.attempts_max
        """How many there may be of this one."""
        self.patience = 1.0
        """By how much longer than usual the pauses are."""
        self.blocked = 0
        """Times in a row that the radio found no free moment."""
        self.deadline = NEVER

    def begin(
        self, sealed: Sealed, *, patience: float = 1.0, attempts_max: int | None = None
    ) -> None:
        """That frame is in flight; it may go less often than others."""
        limit = self._profile.attempts_max
        self.attempts_max = limit if attempts_max is None else min(attempts_max, limit)
        self.sealed = sealed
        self.patience = patience
        self.attempts = 0
        self.blocked = 0
        self.phase = Phase.READY
        self.deadline = NEVER

    def hand_out(self) -> Sealed | None:
        """The frame, if it waits for the radio."""
        if self.phase is not Phase.READY:
            return None
        self.phase = Phase.ON_AIR
        return self.sealed

    def frame_sent(self, *, now: float, was_on_air: bool) -> bool:
        """Whether it is done with: nobody acknowledges it, or the radio cannot get it out."""
        if self.sealed is None or self.phase is not Phase.ON_AIR:
            return False
        if not was_on_air:
            self.blocked += 1
            if self.blocked >= self._profile.blocked_max:
                return True
            # Whoever holds the channel needs it: longer than after a frame that was lost.
            self._pause(now, self.blocked + 1)
            return False
        self.blocked = 0
        self.attempts += 1
        if not self.sealed.wants_ack:
            return True
        self.phase = Phase.AWAITED
        self.deadline = now + self._profile.ack_wait
        return False

    def handle_timer(self, *, now: float) -> bool:
        """Whether it is given up: no acknowledgement came, and it was tried often enough."""
        if self.deadline > now:
            return False
        self.deadline = NEVER
        if self.phase is Phase.PAUSED:
            self.phase = Phase.READY
            return False
        if self.phase is not Phase.AWAITED:
            return False
        if self.attempts >= self.attempts_max:
            return True
        self._pause(now, self.attempts)
        return False

    def end(self) -> None:
        """No frame is in flight."""
        self.phase = Phase.IDLE
        self.sealed = None
        self.deadline = NEVER

    def _pause(self, now: float, tries: int) -> None:
        window = self.patience * self._profile.retry_delay * 2 ** min(tries - 1, 6)
        self.phase = Phase.PAUSED
        self.deadline = now + window * self._chance.random()
