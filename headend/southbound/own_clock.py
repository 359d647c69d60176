"""Whether the head-end's own clock can be believed: only then is time served to meters.

It is believed unless something speaks against it: it shows a time before this program was made, or
before the newest thing in the store; or most of the meters whose clocks were right are off from it
in the same direction. A kernel that says that its clock is synchronised, or an operator who vouches
for it, overrules both store and meters: these may have learnt a wrong time from here.

Spec    use case B1: a meter's time is corrected from the head-end's, which must then be right
Limit   METERS_MAX meters are heard; the one heard longest ago gives way
Never   reads a clock or the kernel by itself, or sets anything
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from amistack.identifiers import Eui64

MADE_AT: Final = 1_767_225_600
"""UTC seconds at 2026-01-01: this program runs after that."""
BEHIND_MAX_S: Final = 120
"""Seconds that the clock may be behind the newest thing stored."""
OFF_MAX_S: Final = 120
"""Seconds that a meter's clock may be off before it speaks against ours."""
METERS_MIN: Final = 3
"""Meters that must have been heard before they can outvote us."""
METERS_MAX: Final = 64
SHARE_MIN: Final = 0.75
"""How many of the meters heard must be off in the same direction."""


class OwnClock:
    """What speaks for and against the host's UTC."""

    def __init__(
        self,
        *,
        wall: Callable[[], float],
        is_synchronised: Callable[[], bool] = lambda: False,
        is_vouched_for: bool = False,
    ) -> None:
        """`wall` is UTC in seconds; `is_synchronised` asks the kernel."""
        self._wall = wall
        self.newest_stored = 0
        """UTC seconds of the newest thing in the store."""
        self._is_synchronised = is_synchronised
        self._is_vouched_for = is_vouched_for
        self._errors: dict[Eui64, int] = {}  # -1 behind ours, 0 with ours, 1 ahead of it

    def hear(self, meter: Eui64, ahead_s: float) -> None:
        """A meter whose clock was right as far as it knows is so much ahead of ours."""
        self._errors.pop(meter, None)
        self._errors[meter] = (ahead_s > OFF_MAX_S) - (ahead_s < -OFF_MAX_S)
        if len(self._errors) > METERS_MAX:
            del self._errors[next(iter(self._errors))]

    @property
    def doubt(self) -> str | None:
        """Why the clock is not believed now, or None if it is."""
        if self._is_vouched_for:
            return None
        now = self._wall()
        if now < MADE_AT:
            return "it shows a time before this program was made"
        if self._is_synchronised():
            return None
        behind_s = self.newest_stored - now
        if behind_s > BEHIND_MAX_S:
            return f"it is {behind_s:.0f} s behind the newest thing in the store"
        errors = self._errors.values()
        if len(errors) >= METERS_MIN:
            for direction, word in ((1, "ahead of"), (-1, "behind")):
                count = sum(error == direction for error in errors)
                if count >= SHARE_MIN * len(errors):
                    return f"{count} of {len(errors)} meters with the right time are {word} it"
        return None
