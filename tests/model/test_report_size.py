"""What a day costs on the wire.

The contract under test: over 1,000 household days, one in five with solar generation on a second
channel, the median payload of a daily report with its registers and one event is at most 150
octets; and none needs more than one datagram of 1,280 octets with room to spare.
"""

from __future__ import annotations

import random
import statistics

from amistack.model import ClockReading, ClockState, DailyReport, IntervalBlock, LogEntry
from amistack.model.events import CLOCK_SET
from meterd.metrology.profile import HouseholdProfile

DAY_S = 86_400
MEDIAN_MAX = 150
SIZE_MAX = 400


def report_of(seed: int, *, solar: bool) -> DailyReport:
    day = 20_000 + seed * 37 % 365
    dice = random.Random(seed)
    energy = HouseholdProfile(seed, solar=solar).energy(day * DAY_S, 96)
    blocks = tuple(
        IntervalBlock.of(
            values, channel=channel, interval_s=900, opening=dice.randrange(10**6, 3 * 10**7)
        )
        for channel, values in enumerate(zip(*energy, strict=True), start=1)
    )
    assert len(blocks) == 1 + solar
    clock = ClockReading((day + 1) * DAY_S + 400, ClockState.SET)
    entry = LogEntry(dice.randrange(5000), day * DAY_S + dice.randrange(DAY_S), CLOCK_SET)
    return DailyReport(1, day, clock, blocks, (entry,))


def test_median_of_a_thousand_household_days_is_at_most_150_octets() -> None:
    sizes = {True: [], False: []}
    for seed in range(1000):
        solar = seed % 5 == 0
        report = report_of(seed, solar=solar)
        octets = report.encode()
        sizes[solar].append(len(octets))
        if seed < 100:
            again = DailyReport.decode(octets)
            assert again == report
            assert all(block.is_consistent for block in again.blocks)
    every = sizes[True] + sizes[False]
    for name, some in (("no solar", sizes[False]), ("solar", sizes[True]), ("all", every)):
        print(f"{name}: median {statistics.median(some):.0f}, largest {max(some)} octets")
    assert statistics.median(every) <= MEDIAN_MAX
    assert max(every) <= SIZE_MAX
