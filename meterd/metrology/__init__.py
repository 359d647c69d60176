"""Where a meter's energy comes from: a real meter, a file, a made-up household, a constant load."""

from __future__ import annotations

from meterd.metrology.constant import ConstantSource
from meterd.metrology.live import LiveSource
from meterd.metrology.profile import HouseholdProfile
from meterd.metrology.replay import ReplaySource, Report, Shift, Stamp, Unit
from meterd.metrology.source import Energy, Flow, Source

__all__ = [
    "ConstantSource",
    "Energy",
    "Flow",
    "HouseholdProfile",
    "LiveSource",
    "ReplaySource",
    "Report",
    "Shift",
    "Source",
    "Stamp",
    "Unit",
]
