"""Where a meter's energy comes from: a recorded file, a made-up household, a constant load."""

from __future__ import annotations

from meterd.metrology.constant import ConstantSource
from meterd.metrology.profile import HouseholdProfile
from meterd.metrology.replay import ReplaySource, Report, Shift, Stamp, Unit
from meterd.metrology.source import Energy, Flow, Source

__all__ = [
    "ConstantSource",
    "Energy",
    "Flow",
    "HouseholdProfile",
    "ReplaySource",
    "Report",
    "Shift",
    "Source",
    "Stamp",
    "Unit",
]
