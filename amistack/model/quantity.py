"""What a meter can record on a channel, and the ReadingTypes that say so.

A quantity flows or it stands. What flows (energy) is counted: an interval's value is a difference
of the register. What stands (voltage, power) is averaged: an interval's value is its mean, and the
register is the running sum of those values, so that the same check holds for both.

Spec    docs/protocol/model.md, "Programme"; IEC 61968-9 Annex C
Gives   the two ReadingTypes of a quantity and tariff, the quantity of a ReadingType; power factor
Raises  `ModelError` from `measured` and `registered` on a ReadingType that is of none
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from typing import Final

from amistack.errors import ModelError
from amistack.model.reading_type import (
    ELECTRICITY_SECONDARY_METERED,
    MEASURING_PERIODS,
    FlowDirection,
    ReadingType,
    interval_energy,
    register_energy,
)

# Codes as published in NAESB ESPI 4.0 (espi.xsd, Apache-2.0).
AVERAGE: Final = 2
SUM: Final = 26
INDICATING: Final = 6
SUMMATION: Final = 9
DEMAND_KIND: Final = 8
VOLTAGE_KIND: Final = 54
VOLT: Final = 29
WATT: Final = 38
VAR_HOUR: Final = 73

TIER_MAX: Final = 8
"""Tariffs of a time-of-use calendar, from 1; 0 is all of them together."""


class Quantity(enum.Enum):
    """What is recorded; the values are the names that people write."""

    DELIVERED = "delivered"
    RECEIVED = "received"
    NET = "net"  # delivered less received
    REACTIVE = "reactive"  # lagging, as an inductive load takes it
    VOLTAGE = "voltage"
    DEMAND = "demand"  # the mean power that was delivered

    @property
    def is_counted(self) -> bool:
        """Whether it flows and has a register; else its intervals are means."""
        return self not in (Quantity.VOLTAGE, Quantity.DEMAND)

    @property
    def has_tiers(self) -> bool:
        """Whether a calendar may divide it into tariffs."""
        return self in (Quantity.DELIVERED, Quantity.RECEIVED)

    @property
    def unit(self) -> str:
        """Its unit in words; a value is so many of it times ten to the `multiplier`."""
        return _UNITS[self]

    @property
    def multiplier(self) -> int:
        """The power of ten of its values."""
        return _BASES[self].multiplier


@dataclass(frozen=True, slots=True)
class Measured:
    """What a channel records: a quantity, in one tariff (1..TIER_MAX) or in all of them (0)."""

    quantity: Quantity
    tier: int = 0

    def __str__(self) -> str:
        return f"{self.quantity.value} tier {self.tier}" if self.tier else self.quantity.value

    def interval_type(self, interval_s: int) -> ReadingType:
        """The ReadingType of its intervals."""
        period = MEASURING_PERIODS.get(interval_s, 0)
        return replace(_BASES[self.quantity], measuring_period=period, tou=self.tier)

    @property
    def register_type(self) -> ReadingType:
        """The ReadingType of its register."""
        register = _REGISTERS[self.quantity]
        # A register that counts at some times only is a summation.
        return replace(register, accumulation=SUMMATION, tou=self.tier) if self.tier else register


def measured(reading_type: ReadingType, interval_s: int) -> Measured:
    """What the intervals of `interval_s` with this ReadingType hold. Raises ModelError."""
    for quantity in Quantity:
        one = Measured(quantity, reading_type.tou)
        if one.interval_type(interval_s) == reading_type and (
            not one.tier or (quantity.has_tiers and one.tier <= TIER_MAX)
        ):
            return one
    raise ModelError("unknown reading type", f"{reading_type} of {interval_s} s")


def registered(reading_type: ReadingType) -> Measured:
    """What a register with this ReadingType shows. Raises ModelError."""
    for quantity in Quantity:
        one = Measured(quantity, reading_type.tou)
        if one.register_type == reading_type and (
            not one.tier or (quantity.has_tiers and one.tier <= TIER_MAX)
        ):
            return one
    raise ModelError("unknown reading type", f"{reading_type} of a register")


def power_factor(active: int, reactive: int) -> float | None:
    """The power factor, 0 to 1, of active (Wh) and reactive energy (varh) of the same time.

    That of the fundamental alone: |P| / sqrt(P² + Q²). None where nothing flowed.
    """
    apparent = math.hypot(active, reactive)
    return abs(active) / apparent if apparent else None


_VOLTAGE: Final = ReadingType(
    aggregate=AVERAGE,
    accumulation=INDICATING,
    commodity=ELECTRICITY_SECONDARY_METERED,
    measurement_kind=VOLTAGE_KIND,
    multiplier=-1,
    unit=VOLT,
)
_DEMAND: Final = ReadingType(
    aggregate=AVERAGE,
    accumulation=INDICATING,
    flow_direction=int(FlowDirection.FORWARD),
    commodity=ELECTRICITY_SECONDARY_METERED,
    measurement_kind=DEMAND_KIND,
    unit=WATT,
)
_BASES: Final = {
    Quantity.DELIVERED: interval_energy(0, FlowDirection.FORWARD),
    Quantity.RECEIVED: interval_energy(0, FlowDirection.REVERSE),
    Quantity.NET: interval_energy(0, FlowDirection.NET),
    Quantity.REACTIVE: replace(interval_energy(0, FlowDirection.FORWARD), unit=VAR_HOUR),
    Quantity.VOLTAGE: _VOLTAGE,
    Quantity.DEMAND: _DEMAND,
}
_REGISTERS: Final = {
    Quantity.DELIVERED: register_energy(FlowDirection.FORWARD),
    Quantity.RECEIVED: register_energy(FlowDirection.REVERSE),
    Quantity.NET: register_energy(FlowDirection.NET),
    Quantity.REACTIVE: replace(register_energy(FlowDirection.FORWARD), unit=VAR_HOUR),
    Quantity.VOLTAGE: replace(_VOLTAGE, aggregate=SUM, accumulation=SUMMATION),
    Quantity.DEMAND: replace(_DEMAND, aggregate=SUM, accumulation=SUMMATION),
}
_UNITS: Final = {
    Quantity.DELIVERED: "Wh",
    Quantity.RECEIVED: "Wh",
    Quantity.NET: "Wh",
    Quantity.REACTIVE: "varh",
    Quantity.VOLTAGE: "V",
    Quantity.DEMAND: "W",
}
