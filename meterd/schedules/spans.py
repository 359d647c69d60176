"""What a schedule owes: stretches of time, cut at midnights, and the part of a day's block in one.

Never   gives an interval to two stretches that touch, or to none of them
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from amistack.model import IntervalBlock
from amistack.model.scheduled_read import Span
from amistack.model.wire import DAY_S


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """From UTC second `begin` on, before `end`; all of it of one day."""

    begin: int
    end: int


def cut(begin: int, end: int, *, offset_s: int) -> list[Stretch]:
    """The stretches between two instants, one for each day, the newest first."""
    found = []
    while begin < end:
        midnight = begin + DAY_S - (begin + offset_s) % DAY_S
        found.append(Stretch(begin, min(end, midnight)))
        begin = midnight
    return found[::-1]


def joined(stretches: Iterable[Stretch], *, offset_s: int) -> list[Stretch]:
    """Those stretches with what touches in one day as one, the newest first."""
    found: list[Stretch] = []
    for one in sorted(stretches):
        last = found[-1] if found else None
        if last is not None and last.end == one.begin and (one.begin + offset_s) % DAY_S:
            found[-1] = Stretch(last.begin, one.end)
        else:
            found.append(one)
    return found[::-1]


def span_of(block: IntervalBlock, stretch: Stretch, *, midnight: int) -> Span:
    """The intervals of a day's `block` that end in the stretch.

    An interval belongs to the stretch that its end falls in, so that of a channel with longer
    intervals than a stretch is long none is lost.
    """
    first = min((stretch.begin - midnight) // block.interval_s, block.count)
    end = min((stretch.end - midnight) // block.interval_s, block.count)
    values = block.values()
    opening = _register_at(block, values, first)
    part = IntervalBlock.of(
        values[first:end],
        channel=block.channel,
        interval_s=block.interval_s,
        opening=opening,
        advance=_register_at(block, values, end) - opening,
        flags=block.flags()[first:end],
    )
    return Span(first, part)


def _register_at(block: IntervalBlock, values: tuple[int | None, ...], number: int) -> int:
    """The register at the beginning of interval `number`.

    What flowed in gaps is in no interval: it is counted at the end of the first of them.
    """
    counted = sum(value or 0 for value in values[:number])
    if None in values[:number]:
        counted += block.advance - sum(value or 0 for value in values)
    return block.opening + counted
