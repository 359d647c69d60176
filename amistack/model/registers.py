"""Every register of a meter as it stands: energy of each tariff, and demand with its periods.

Spec    docs/protocol/model.md, "Registers"
Raises  `ModelError`, and nothing else, from every decoder
Limit   CHANNEL_COUNT_MAX registers, PERIOD_COUNT_MAX periods of demand that are over
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from amistack.model import wire
from amistack.model.clock import ClockReading
from amistack.model.programme import DemandRules
from amistack.model.quantity import DEMAND_KIND, INDICATING, WATT
from amistack.model.reading_type import (
    ELECTRICITY_SECONDARY_METERED,
    TEXT_SIZE_MAX,
    FlowDirection,
    ReadingType,
)
from amistack.model.registration import CHANNEL_COUNT_MAX

PERIOD_COUNT_MAX: Final = 64
RESET_COUNT_MAX: Final = 2**32 - 1

# Codes as published in NAESB ESPI 4.0 (espi.xsd, Apache-2.0).
BILLING_PERIOD: Final = 8
MAXIMUM: Final = 8
CUMULATIVE: Final = 3
FIXED_BLOCKS: Final = {60: 50, 30: 51, 20: 52, 15: 53, 10: 54, 5: 55}
"""The code of field 3 by the minutes of a block."""
ROLLING_BLOCKS: Final = {
    (60, 30): 57,
    (60, 20): 58,
    (60, 15): 59,
    (60, 10): 61,
    (60, 5): 63,
    (30, 15): 65,
    (30, 10): 66,
    (30, 5): 68,
    (15, 5): 71,
    (10, 5): 74,
}
"""The same by the minutes of a sliding window and of its sub-interval."""


def peak_type(rules: DemandRules) -> ReadingType:
    """The ReadingType of the highest demand since the last reset, under those rules."""
    window, sub = rules.window_s // 60, rules.sub_interval_s // 60
    return ReadingType(
        macro_period=BILLING_PERIOD,
        aggregate=MAXIMUM,
        measuring_period=FIXED_BLOCKS.get(window, 0)
        if window == sub
        else ROLLING_BLOCKS.get((window, sub), 0),
        accumulation=INDICATING,
        flow_direction=int(FlowDirection.FORWARD),
        commodity=ELECTRICITY_SECONDARY_METERED,
        measurement_kind=DEMAND_KIND,
        unit=WATT,
    )


def cumulative_type(rules: DemandRules) -> ReadingType:
    """The ReadingType of the sum of the peaks before the last reset."""
    return replace(peak_type(rules), macro_period=0, accumulation=CUMULATIVE)


@dataclass(frozen=True, slots=True)
class RegisterReading:
    """What a register shows; its ReadingType says of what, and of which tariff."""

    reading_type: ReadingType
    value: int

    def __post_init__(self) -> None:
        wire.integer(self.value, -wire.REGISTER_MAX, wire.REGISTER_MAX, "register")


@dataclass(frozen=True, slots=True)
class PeakPeriod:
    """From one reset to the next: the peak (W), and the end of the window that reached it.

    Times are UTC in seconds: `since` is 0 where nobody has ever reset, `until` while it runs,
    `peak_at` before the first whole window.
    """

    since: int
    until: int
    peak: int
    peak_at: int

    def __post_init__(self) -> None:
        for at in (self.since, self.until, self.peak_at):
            wire.integer(at, 0, wire.UTC_S_MAX, "time of demand")
        wire.integer(self.peak, -wire.REGISTER_MAX, wire.REGISTER_MAX, "peak")

    def to_tree(self) -> list[object]:
        """The period's items."""
        return [self.since, self.until, self.peak, self.peak_at]

    @classmethod
    def from_tree(cls, item: object) -> PeakPeriod:
        """The period that `to_tree` wrote."""
        since, until, peak, peak_at = wire.array(item, 4, 4, "period")
        return cls(
            wire.integer(since, 0, wire.UTC_S_MAX, "time of demand"),
            wire.integer(until, 0, wire.UTC_S_MAX, "time of demand"),
            wire.integer(peak, -wire.REGISTER_MAX, wire.REGISTER_MAX, "peak"),
            wire.integer(peak_at, 0, wire.UTC_S_MAX, "time of demand"),
        )


@dataclass(frozen=True, slots=True)
class DemandReading:
    """The demand register: the running period, those before (latest first), the cumulative."""

    peak_type: ReadingType
    running: PeakPeriod
    periods: tuple[PeakPeriod, ...]
    cumulative: int
    reset_count: int

    def __post_init__(self) -> None:
        wire.array(self.periods, 0, PERIOD_COUNT_MAX, "periods")
        wire.integer(self.cumulative, 0, wire.REGISTER_MAX, "cumulative demand")
        wire.integer(self.reset_count, 0, RESET_COUNT_MAX, "resets")

    def to_tree(self) -> list[object]:
        """The reading's items."""
        return [
            str(self.peak_type),
            self.running.to_tree(),
            [period.to_tree() for period in self.periods],
            self.cumulative,
            self.reset_count,
        ]

    @classmethod
    def from_tree(cls, item: object) -> DemandReading:
        """The reading that `to_tree` wrote."""
        items = wire.array(item, 5, 5, "demand")
        periods = wire.array(items[2], 0, PERIOD_COUNT_MAX, "periods")
        return cls(
            _type(items[0]),
            PeakPeriod.from_tree(items[1]),
            tuple(PeakPeriod.from_tree(period) for period in periods),
            wire.integer(items[3], 0, wire.REGISTER_MAX, "cumulative demand"),
            wire.integer(items[4], 0, RESET_COUNT_MAX, "resets"),
        )


@dataclass(frozen=True, slots=True)
class RegistersAnswer:
    """All registers at the instant of `clock`; no demand where the programme has no such rules."""

    clock: ClockReading
    registers: tuple[RegisterReading, ...]
    demand: DemandReading | None = None

    def __post_init__(self) -> None:
        wire.array(self.registers, 0, CHANNEL_COUNT_MAX, "registers")

    def encode(self) -> bytes:
        """The answer's one encoding."""
        return wire.dump(
            [
                self.clock.utc_s,
                int(self.clock.state),
                [[str(one.reading_type), one.value] for one in self.registers],
                [] if self.demand is None else self.demand.to_tree(),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> RegistersAnswer:
        """The answer that `data` is the encoding of."""
        items = wire.array(wire.load(data), 4, 4, "registers")
        registers = wire.array(items[2], 0, CHANNEL_COUNT_MAX, "registers")
        demand = wire.array(items[3], 0, 5, "demand")
        return cls(
            ClockReading.from_tree(items[0], items[1]),
            tuple(_register(one) for one in registers),
            DemandReading.from_tree(demand) if demand else None,
        )


@dataclass(frozen=True, slots=True)
class DemandReset:
    """Asks for the reset that makes it `reset_count` of them: the same again is the same one."""

    reset_count: int

    def __post_init__(self) -> None:
        wire.integer(self.reset_count, 1, RESET_COUNT_MAX, "resets")

    def encode(self) -> bytes:
        """The command's one encoding."""
        return wire.dump([self.reset_count])

    @classmethod
    def decode(cls, data: bytes) -> DemandReset:
        """The command that `data` is the encoding of."""
        (count,) = wire.array(wire.load(data), 1, 1, "demand reset")
        return cls(wire.integer(count, 1, RESET_COUNT_MAX, "resets"))


def _type(item: object) -> ReadingType:
    return ReadingType.parse(wire.text(item, 1, TEXT_SIZE_MAX, "reading type"))


def _register(item: object) -> RegisterReading:
    reading_type, value = wire.array(item, 2, 2, "register")
    return RegisterReading(
        _type(reading_type),
        wire.integer(value, -wire.REGISTER_MAX, wire.REGISTER_MAX, "register"),
    )
