"""A value beside its limit: crossed for long enough it is a finding, well back it is over.

Gives   `Watch`: True as the limit counts as crossed, False as that is over, None in between
Never   finds twice what was not over: a value that dances on its limit is one event
"""

from __future__ import annotations

from typing import Final

_ROUNDING: Final = 1e-9


class Watch:
    """One limit, from below (`is_upper`) or from above."""

    def __init__(
        self, limit: float, *, hysteresis: float = 0.0, hold_s: float = 0.0, is_upper: bool = True
    ) -> None:
        """Crossed beyond `limit` for `hold_s`; over when back within it by `hysteresis`."""
        self._sign = 1 if is_upper else -1
        self._limit = limit * self._sign
        self._hysteresis = hysteresis
        self._hold_s = hold_s
        self._beyond_since: float | None = None
        self.is_on = False
        """Whether the limit counts as crossed."""

    def take(self, value: float, *, now: float) -> bool | None:
        """What a value seen at `now` changes."""
        distance = value * self._sign - self._limit
        if self.is_on:
            if distance > 0 or -distance < self._hysteresis - _ROUNDING:
                return None
            self.is_on = False
            self._beyond_since = None
            return False
        if distance <= 0:
            self._beyond_since = None
            return None
        if self._beyond_since is None:
            self._beyond_since = now
        if now - self._beyond_since < self._hold_s:
            return None
        self.is_on = True
        return True

    def undo(self) -> None:
        """What the last value changed could not be told: the next one is to change it again."""
        self.is_on = not self.is_on


class Latch:
    """A condition that is there or not; True and False as it changes, None else."""

    def __init__(self) -> None:
        self.is_on = False

    def take(self, *, is_on: bool) -> bool | None:
        """What a look at the condition changes."""
        if is_on == self.is_on:
            return None
        self.is_on = is_on
        return is_on

    def undo(self) -> None:
        """The change could not be told: the next look is to find it again."""
        self.is_on = not self.is_on
