"""The customer's service between line and load: the port, and one that is simulated."""

from __future__ import annotations

from meterd.service.interface import NOTHING_MEASURED, Measured, Service
from meterd.service.simulated import Faults, SimulatedService
from meterd.service.source import ServiceSource

__all__ = [
    "NOTHING_MEASURED",
    "Faults",
    "Measured",
    "Service",
    "ServiceSource",
    "SimulatedService",
]
