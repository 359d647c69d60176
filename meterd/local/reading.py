"""What `meterd tool read` and `meterd tool test` show, as lines.

Raises  nothing: a register of an unknown kind is shown with its code
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from amistack.errors import ModelError
from amistack.model import IntervalBlock, ReadAnswer
from amistack.model.diagnosis import Diagnosis
from amistack.model.quantity import Measured, Quantity, power_factor, registered
from amistack.model.registers import RegistersAnswer
from amistack.model.wire import DAY_S


def read_lines(told: ReadAnswer, answer: RegistersAnswer, *, offset_min: int = 0) -> Iterator[str]:
    """The registers, means of the interval that ended last, demand, power factor.

    `offset_min`: by how much the meter's days begin before those of UTC.
    """
    yield f"{time(told.clock.utc_s)} clock {told.clock.state.name.lower()}"
    start = told.day * DAY_S - offset_min * 60
    latest = _Latest({block.channel: block for block in told.blocks}, start)
    found: dict[Measured, int] = {}
    # Both are of all channels, by number.
    for (channel, value), one in zip(told.registers, answer.registers, strict=False):
        try:
            what = registered(one.reading_type)
        except ModelError:
            yield f"channel {channel:<3} {value} of {one.reading_type}"
            continue
        found[what] = channel
        yield f"channel {channel:<3} {_shown(what, value, latest, channel)}"
    if answer.demand is not None:
        running = answer.demand.running
        at = f" at {time(running.peak_at)}" if running.peak_at else ""
        yield f"demand      peak {running.peak} W{at}, {answer.demand.reset_count} resets"
    active = latest.value(found.get(Measured(Quantity.DELIVERED)))
    reactive = latest.value(found.get(Measured(Quantity.REACTIVE)))
    if active is not None and reactive is not None:
        factor = power_factor(active, reactive)
        shown = "nothing flowed" if factor is None else f"{factor:.3f}"
        yield f"power factor {shown}, {latest.span(found[Measured(Quantity.DELIVERED)])}"


def test_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """What the meter found when it looked at itself."""
    for one in diagnosis.findings:
        words = one.outcome.name.lower().replace("_", " ")
        yield f"{one.check.name.lower():<14} {words} {one.detail}".rstrip()


def time(utc_s: int) -> str:
    """A moment, for people."""
    return datetime.fromtimestamp(utc_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


class _Latest:
    """The whole interval of each channel that ended last, today."""

    def __init__(self, blocks: Mapping[int, IntervalBlock], start: int) -> None:
        self._blocks = blocks
        self._start = start

    def value(self, channel: int | None) -> int | None:
        """Its value; None where it is not known, or none has ended today."""
        block = self._blocks.get(-1 if channel is None else channel)
        return block.values()[-1] if block is not None and block.count else None

    def span(self, channel: int) -> str:
        """From when to when it was."""
        block = self._blocks[channel]
        end = self._start + block.count * block.interval_s
        return f"{time(end - block.interval_s)} to {time(end)}"


def _shown(what: Measured, register: int, latest: _Latest, channel: int) -> str:
    if what.quantity.is_counted:
        return f"{register} {what.quantity.unit} {what}"
    value = latest.value(channel)
    if value is None:
        return f"- {what.quantity.unit} {what}"
    places = max(-what.quantity.multiplier, 0)
    shown = f"{value * 10.0**what.quantity.multiplier:.{places}f}"
    return f"{shown} {what.quantity.unit} {what}, mean of {latest.span(channel)}"
