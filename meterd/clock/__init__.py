"""The meter's clock: what it shows, how far it is to be believed, and the rules of setting it."""

from __future__ import annotations

from meterd.clock.meter_clock import (
    DRIFT_PPM_MAX,
    SAMPLE_COUNT_MAX,
    SETTING_BOUND_MAX_S,
    Change,
    MeterClock,
    Sample,
)

__all__ = [
    "DRIFT_PPM_MAX",
    "SAMPLE_COUNT_MAX",
    "SETTING_BOUND_MAX_S",
    "Change",
    "MeterClock",
    "Sample",
]
