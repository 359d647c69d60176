"""Reports of made-up households: what meters send in the benchmarks."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Final

from amistack.model import (
    Channel,
    ClockReading,
    ClockState,
    DailyReport,
    FlowDirection,
    IntervalBlock,
    LogEntry,
    interval_energy,
    register_energy,
)
from amistack.model.events import CLOCK_SET
from meterd.metrology.profile import HouseholdProfile

DAY_S: Final = 86_400
INTERVAL_S: Final = 900
PER_DAY: Final = DAY_S // INTERVAL_S
SOLAR_EVERY: Final = 5
FIRST_DAY: Final = 20_000
CHANNEL_SET: Final = 1

CHANNELS: Final = tuple(
    Channel(
        number,
        interval_energy(INTERVAL_S, direction),
        register_energy(direction),
        0,
        "Wh",
        INTERVAL_S,
    )
    for number, direction in enumerate((FlowDirection.FORWARD, FlowDirection.REVERSE), start=1)
)


@lru_cache(maxsize=4_096)
def blocks_of(seed: int, *, is_solar: bool) -> tuple[IntervalBlock, ...]:
    """The day of one household, a block for each flow; the seed also picks the day of the year."""
    dice = random.Random(seed)
    household = HouseholdProfile(seed, interval_s=INTERVAL_S, solar=is_solar)
    energy = household.energy(day_of(seed) * DAY_S, PER_DAY)
    return tuple(
        IntervalBlock.of(
            values,
            channel=channel,
            interval_s=INTERVAL_S,
            opening=dice.randrange(10**6, 3 * 10**7),
        )
        for channel, values in enumerate(zip(*energy, strict=True), start=1)
    )


def day_of(seed: int) -> int:
    """A day somewhere in a year, in days since 1970-01-01."""
    return FIRST_DAY + seed * 37 % 365


def report_of(
    seed: int, *, day: int, clock_s: int, blocks: tuple[IntervalBlock, ...]
) -> DailyReport:
    """A report with these blocks and one event in its day; `clock_s` UTC s."""
    dice = random.Random(~seed)
    entry = LogEntry(dice.randrange(5_000), day * DAY_S + dice.randrange(DAY_S), CLOCK_SET)
    return DailyReport(CHANNEL_SET, day, ClockReading(clock_s, ClockState.SET), blocks, (entry,))


def daily_report(seed: int, *, is_solar: bool | None = None) -> DailyReport:
    """One household's report; one household in SOLAR_EVERY has solar unless it is said."""
    solar = seed % SOLAR_EVERY == 0 if is_solar is None else is_solar
    day = day_of(seed)
    return report_of(
        seed, day=day, clock_s=(day + 1) * DAY_S + 400, blocks=blocks_of(seed, is_solar=solar)
    )


def full_report(seed: int) -> DailyReport:
    """A report whose second channel carries a household's whole day as well."""
    day = day_of(seed)
    (first,) = blocks_of(seed, is_solar=False)
    (other,) = blocks_of(seed + 1, is_solar=False)
    second = IntervalBlock(
        2, other.interval_s, other.count, other.opening, other.advance, other.packed
    )
    return report_of(seed, day=day, clock_s=(day + 1) * DAY_S + 400, blocks=(first, second))
