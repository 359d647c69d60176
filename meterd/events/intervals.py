"""What ends says of limits: intervals of energy that flows back and voltage, windows of demand.

Limit   one look for each step that is recorded; what ended while nobody looked is not looked at
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.model import IntervalBlock
from amistack.model.quantity import Measured, Quantity, measured
from meterd.clock import MeterClock
from meterd.events.sources import EventSources
from meterd.parts import Resource
from meterd.recorder import Recorder

HOUR_S: Final = 3600
LATER_S: Final = 1.0
"""Seconds after the end of a step to look: it is recorded first."""


class IntervalWatch:
    """A part of the meter."""

    def __init__(
        self, recorder: Recorder, clock: MeterClock, sources: EventSources, *, now: float
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._sources = sources
        self._at = now
        self._seen: dict[int, tuple[int, int]] = {}
        """Of each channel the day and number of intervals that were looked at."""
        self._window = 0
        """The end of the demand window that was looked at last."""

    def resources(self) -> Sequence[Resource]:
        """None."""
        return ()

    def handle_timer(self, *, now: float) -> None:
        """Look at the newest whole interval of each flow, and at the newest window of demand."""
        if now < self._at:
            return
        utc = self._clock.utc(now)
        self._at = max(self._clock.when(self._recorder.next_due(utc)), now) + LATER_S
        if not self._clock.is_set:
            return
        self._look_at_demand(now)
        # The interval that ends with a day is that day's.
        day = self._recorder.day_of(utc - 2 * LATER_S)
        for block in self._recorder.block(day):
            if self._seen.get(block.channel) != (day, block.count):
                self._look(block, day, now)
                self._seen[block.channel] = (day, block.count)

    def next_timer(self) -> float | None:
        """A moment after the running step."""
        return self._at

    def _look_at_demand(self, now: float) -> None:
        latest = self._recorder.demand.latest
        if latest is None or self._recorder.demand_rules is None or latest[0] <= self._window:
            return
        self._window, watts = latest
        self._sources.demand(watts, now=now)

    def _look(self, block: IntervalBlock, day: int, now: float) -> None:
        if not block.count:
            return
        value = block.values()[-1]
        if value is None:
            return
        for channel in self._recorder.channels_of(day):
            if channel.number == block.channel:
                what = measured(channel.reading_type, channel.interval_s)
                self._tell(what, value, channel.interval_s, now)

    def _tell(self, what: Measured, value: int, interval_s: int, now: float) -> None:
        if what == Measured(Quantity.DELIVERED):
            # Where no rules say what demand is, it is the mean of an interval.
            if self._recorder.demand_rules is None:
                self._sources.demand(value * HOUR_S / interval_s, now=now)
        elif what == Measured(Quantity.RECEIVED):
            self._sources.received(value, now=now)
        elif what == Measured(Quantity.VOLTAGE):
            # A mean: it was so, more or less, from the interval's beginning to its end.
            volts = value * 10.0**what.quantity.multiplier
            self._sources.voltage(volts, now=now - interval_s)
            self._sources.voltage(volts, now=now)
