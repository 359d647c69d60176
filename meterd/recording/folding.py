"""Steps into intervals: what a channel has of the interval that is still running.

Gives   the intervals that are complete, and what is left over
Raises  nothing
Never   gives an interval a value of which any step is missing
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from amistack.model.quantity import Quantity

HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Running:
    """The running interval as far as it is recorded: `passed_s` of it, with `total` in them."""

    passed_s: int = 0
    total: int = 0
    is_broken: bool = False


NOTHING = Running()


def fold(
    quantity: Quantity,
    interval_s: int,
    step_s: int,
    running: Running,
    steps: Iterable[int | None],
) -> tuple[list[int | None], Running]:
    """The intervals that the steps complete, None for one with a gap, and the running one."""
    finished: list[int | None] = []
    passed_s, total, is_broken = running.passed_s, running.total, running.is_broken
    for step in steps:
        passed_s += step_s
        total += step or 0
        is_broken |= step is None
        if passed_s == interval_s:
            value = None if is_broken else _value(quantity, total, interval_s, step_s)
            finished.append(value)
            passed_s, total, is_broken = 0, 0, False
    return finished, Running(passed_s, total, is_broken)


def power(watt_hours: int, seconds: int) -> int:
    """The mean power in W, rounded half up."""
    return (2 * watt_hours * HOUR_S + seconds) // (2 * seconds)


def _value(quantity: Quantity, total: int, interval_s: int, step_s: int) -> int:
    match quantity:
        case Quantity.DEMAND:
            return power(total, interval_s)
        case Quantity.VOLTAGE:
            count = interval_s // step_s
            return (2 * total + count) // (2 * count)
        case _:
            return total
