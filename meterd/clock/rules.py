"""When a clock is set right, and when it is only told of: the rules, as functions.

Spec    docs/protocol/model.md, "Clock"
Gives   what a sample proves (`judge`), and the next moment at which a clock may jump (`fit_moment`)
Never   decides on what is not proved: the bound counts against every decision
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

from amistack.model.clock import IN_SYNC_WITHIN_S

CORRECT_BELOW_S: Final = 120
"""From this error on a clock is not corrected: an operator sets it."""
GUARD_S: Final = 1.0
"""Seconds that a jump keeps away from every boundary of an interval, on both of its sides."""
WINDOW_MIN_S: Final = 1.0
"""Seconds that an interval must leave for a jump to begin in: a driver may be a little late."""
LOST_BEHIND_S: Final = 120
"""Seconds that a host's clock may be behind what is on record before it has lost the time."""
MADE_AT: Final = 1_767_225_600
"""UTC seconds at 2026-01-01: this program runs after that."""
_ROUNDING_S: Final = 1e-6
_ROUNDS_MAX: Final = 64


def is_lost(utc: float, recorded_until: int | None) -> bool:
    """Whether a host that shows `utc` has lost the time: it shows one that is over for sure."""
    return utc < max(MADE_AT, (recorded_until or 0) - LOST_BEHIND_S)


class Judgement(enum.Enum):
    """What is proved of a clock's error."""

    IN_STEP = "in step"
    """At most IN_SYNC_WITHIN_S."""
    CORRECTABLE = "correctable"
    """More than that, and less than CORRECT_BELOW_S."""
    OUT_OF_STEP = "out of step"
    """More than CORRECT_BELOW_S."""
    UNSURE = "unsure"
    """None of the three, whatever is likely: another sample may prove more."""


def judge(error_s: float, bound_s: float) -> Judgement:
    """What an error of `error_s`, give or take `bound_s`, is for sure."""
    least, most = abs(error_s) - bound_s, abs(error_s) + bound_s
    if most <= IN_SYNC_WITHIN_S:
        return Judgement.IN_STEP
    if least > CORRECT_BELOW_S:
        return Judgement.OUT_OF_STEP
    if least > IN_SYNC_WITHIN_S and most < CORRECT_BELOW_S:
        return Judgement.CORRECTABLE
    return Judgement.UNSURE


def fit_moment(utc: float, by_s: float, *, lengths: Sequence[int], offset_s: int) -> float | None:
    """The first UTC second from `utc` on at which a clock may jump by `by_s`.

    Then old and new time lie strictly inside the same interval of each of the `lengths` (s),
    which are counted from midnight in the standard offset. None: no moment allows that.
    """
    if any(length - 2 * GUARD_S - WINDOW_MIN_S < abs(by_s) for length in lengths):
        return None
    moment = utc
    for _ in range(_ROUNDS_MAX):
        wait = max((_wait(moment, by_s, length, offset_s) for length in lengths), default=0.0)
        if not wait:
            return moment
        moment += wait
    return None


def free_moment(utc: float, by_s: float, *, lengths: Sequence[int], offset_s: int) -> float:
    """The first UTC second from `utc` on at which neither old nor new time is at a boundary.

    For a jump that an operator ordered, which may be into another interval.
    """
    moment = utc
    for _ in range(_ROUNDS_MAX):
        wait = max(
            (_wait(moment + by, 0.0, length, offset_s) for length in lengths for by in (0.0, by_s)),
            default=0.0,
        )
        if not wait:
            break
        moment += wait
    return moment


def _wait(utc: float, by_s: float, length: int, offset_s: int) -> float:
    """Seconds until one length of interval allows the jump."""
    into = (utc + offset_s) % length
    first = GUARD_S + max(-by_s, 0.0)
    last = length - GUARD_S - max(by_s, 0.0)
    if into < first - _ROUNDING_S:
        return first - into
    if into > last + _ROUNDING_S:
        return length - into + first
    return 0.0
