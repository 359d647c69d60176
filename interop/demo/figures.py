"""What the demo knows of its street, all of it from the head-end's store through the API."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from headend.api.documents import ChannelDayDocument, ReadDocument

BARS: Final = "▁▂▃▄▅▆▇█"
DELIVERED: Final = "1"
RECEIVED: Final = "19"
"""Field 5 of a reading type (IEC 61968-9 Annex C): which way the energy went."""
ANSWERED: Final = "answered"


@dataclass(frozen=True, slots=True)
class Household:
    """One row of the table: yesterday's kWh each way, its hours, and the last on-demand read."""

    meter: str
    delivered_kwh: float | None = None
    received_kwh: float | None = None
    hours: tuple[float, ...] = ()
    read: ReadDocument | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """How far the street is; `reads` are the stored on-demand reads, newest first."""

    meters: int
    secured: int = 0
    registered: int = 0
    reports_stored: int = 0
    reads: tuple[ReadDocument, ...] = ()
    households: tuple[Household, ...] = ()
    wall_s: float = 0.0
    readings: tuple[ChannelDayDocument, ...] = field(default=(), repr=False)

    @property
    def asked(self) -> int:
        """Meters that were asked at least once."""
        return len({read.meter for read in self.reads})

    @property
    def answered(self) -> int:
        """Meters that answered at least once."""
        return len({read.meter for read in self.reads if read.result == ANSWERED})

    @property
    def is_complete(self) -> bool:
        """Whether every meter is registered, its report stored, its read answered."""
        return self.registered == self.reports_stored == self.asked == self.answered == self.meters

    @property
    def latencies(self) -> list[float]:
        """Seconds from asked to answered of every answered read, ascending."""
        return sorted(
            (_instant(read.answered_at) - _instant(read.asked_at)).total_seconds()
            for read in self.reads
            if read.result == ANSWERED and read.answered_at is not None
        )

    def to_json(self) -> str:
        """The one object that `--json` prints."""
        return json.dumps(
            {
                "meters": self.meters,
                "registered": self.registered,
                "reports_expected": self.meters,
                "reports_stored": self.reports_stored,
                "on_demand_asked": self.asked,
                "on_demand_answered": self.answered,
                "on_demand_p50_s": percentile(self.latencies, 50),
                "on_demand_p99_s": percentile(self.latencies, 99),
                "wall_s": round(self.wall_s, 2),
            }
        )


def percentile(ascending: Sequence[float], percent: float) -> float | None:
    """The smallest value that `percent` of all are not above (nearest rank); None of none."""
    if not ascending:
        return None
    rank = math.ceil(len(ascending) * percent / 100)
    return round(ascending[max(rank, 1) - 1], 4)


def households(
    meters: Sequence[str],
    readings: Sequence[ChannelDayDocument],
    reads: Sequence[ReadDocument],
) -> tuple[Household, ...]:
    """A row for each meter, in their order; what is not stored yet is left open."""
    by_meter: dict[str, dict[str, ChannelDayDocument]] = {}
    for reading in readings:
        direction = reading.reading_type.split(".")[4]
        by_meter.setdefault(reading.meter, {})[direction] = reading
    newest: dict[str, ReadDocument] = {}
    for read in reads:
        newest.setdefault(read.meter, read)
    rows = []
    for meter in meters:
        delivered = by_meter.get(meter, {}).get(DELIVERED)
        received = by_meter.get(meter, {}).get(RECEIVED)
        rows.append(
            Household(
                meter,
                None if delivered is None else delivered.total / 1000,
                None if received is None else received.total / 1000,
                () if delivered is None else hours_of(delivered),
                newest.get(meter),
            )
        )
    return tuple(rows)


def hours_of(day: ChannelDayDocument) -> tuple[float, ...]:
    """The energy of each hour, missing intervals as none; a shorter list for longer intervals."""
    per_hour = max(1, 3600 // day.interval_s)
    values = [value or 0 for value in day.values]
    return tuple(
        float(sum(values[first : first + per_hour])) for first in range(0, len(values), per_hour)
    )


def sparkline(values: Sequence[float]) -> str:
    """`values` as bars, the largest the highest."""
    top = max(values, default=0.0)
    if top <= 0:
        return BARS[0] * len(values)
    return "".join(BARS[min(len(BARS) - 1, int(value / top * len(BARS)))] for value in values)


def _instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
