"""How many octets a day of readings is, before any protection.

What    the median payload of a daily report: 1,000 household days of 96 values, one in five with
        solar on a second channel, each with its registers and one event
Worry   above 150 octets: a report with its headers should stay near the 200 octets that a slow
        radio carries in one frame, and five million a day are stored
Beside  the same with both channels full: every household's second channel a whole day too
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Final

from interop.bench.figure import Figure, Size
from interop.bench.households import daily_report, full_report

NAME: Final = "report_payload_bytes"
GOAL: Final = 150.0
DAY_COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 1_000, Size.QUICK: 200, Size.TINY: 5}


def measure(size: Size) -> Figure:
    """Encode the reports and take the median."""
    seeds = range(1, DAY_COUNTS[size] + 1)
    octets = [len(daily_report(seed).encode()) for seed in seeds]
    full = [len(full_report(seed).encode()) for seed in seeds]
    return Figure(
        NAME,
        statistics.median(octets),
        "octets",
        goal=GOAL,
        beside=f"{len(octets)} household days, largest {max(octets)}; "
        f"both channels full: {statistics.median(full):g}",
    )
