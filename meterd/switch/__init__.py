"""The switch between line and load: commands, moves that are measured, the load limit."""

from __future__ import annotations

from meterd.switch.resource import SwitchPart
from meterd.switch.switch import Log, Switch

__all__ = ["Log", "Switch", "SwitchPart"]
