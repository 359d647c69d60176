"""Whether a particular meter can do what a programme wants.

Gives   every misfit with its place, in words that say what to change
Raises  nothing
Limit   the memory: HISTORY_DAYS days of every channel, `octets_of` says how many octets
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from amistack.model.programme import Programme, ThresholdKind
from amistack.model.programme_check import INTERVALS_PER_REPORT_MAX, Fault, recorded
from amistack.model.quantity import Quantity
from amistack.model.registration import CHANNEL_COUNT_MAX
from amistack.model.wire import DAY_S
from meterd.recording.measuring import Metering
from meterd.recording.plan import step_of

HISTORY_DAYS: Final = 46
"""45 whole days and the running one."""
DAY_OCTETS: Final = 48
"""A channel's day in the journal without its values: keys, registers, widths, gaps."""
VALUE_OCTETS: Final = 2
"""An interval's value as packed: enough for 16,383 Wh in five minutes, which are 196 kW."""


def history_octets(channel_count: int, interval_count: int) -> int:
    """What HISTORY_DAYS days take: `interval_count` a day in all of the channels together."""
    return HISTORY_DAYS * (DAY_OCTETS * channel_count + VALUE_OCTETS * interval_count)


MEMORY_OCTETS: Final = history_octets(CHANNEL_COUNT_MAX, INTERVALS_PER_REPORT_MAX)
"""What a meter has for its history if nothing else is said: room for any programme there can be."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a meter can: which quantities, how often, and what it has room for.

    `resolution_s` is how often it measures; its days begin `offset_min` minutes east of UTC.
    """

    quantities: frozenset[Quantity]
    resolution_s: int
    offset_min: int
    memory_octets: int = MEMORY_OCTETS

    @classmethod
    def of(
        cls, metering: Metering, *, offset_min: int, memory_octets: int = MEMORY_OCTETS
    ) -> Abilities:
        """Those of a meter that measures so."""
        return cls(metering.quantities, metering.resolution_s, offset_min, memory_octets)


def octets_of(programme: Programme) -> int:
    """What the history of a programme takes in memory.

    For each channel and day DAY_OCTETS, and VALUE_OCTETS for every interval of it.
    """
    interval_count = sum(DAY_S // one.interval_s for one in programme.channels)
    return history_octets(len(programme.channels), interval_count)


def misfits(programme: Programme, abilities: Abilities) -> Iterator[Fault]:
    """What this meter cannot do of a programme whose parts agree."""
    if programme.standard_offset_min != abilities.offset_min:
        yield Fault(
            "standard offset",
            f"{programme.standard_offset_min} min, but the days kept here begin at "
            f"{abilities.offset_min} min: it is fixed as a meter is set up",
        )
    for what, number in recorded(programme).items():
        if what.quantity not in abilities.quantities:
            yield Fault(f"channel {number}", f"this meter does not measure {what.quantity.value}")
    step_s = step_of(programme)
    if step_s % abilities.resolution_s:
        yield Fault(
            "channels",
            f"a grid of {step_s} s, but this meter measures every {abilities.resolution_s} s: "
            "longer intervals, or switch times on that grid",
        )
    octets = octets_of(programme)
    if octets > abilities.memory_octets:
        yield Fault(
            "channels",
            f"{HISTORY_DAYS} days take {octets} octets ({DAY_OCTETS} a channel and day, "
            f"{VALUE_OCTETS} an interval); {abilities.memory_octets} are there",
        )
    for one in programme.thresholds:
        is_voltage = one.kind in (ThresholdKind.VOLTAGE_LOW, ThresholdKind.VOLTAGE_HIGH)
        if is_voltage and Quantity.VOLTAGE not in abilities.quantities:
            yield Fault("thresholds", "this meter does not measure voltage")
            break
