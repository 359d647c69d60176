"""Pins of a small computer: the case's contacts, a button, a relay and what is seen of it."""

from __future__ import annotations

from meterd.gpio.panel import Changed, Panel, Role
from meterd.gpio.settings import PinSettings

__all__ = ["Changed", "Panel", "PinSettings", "Role"]
