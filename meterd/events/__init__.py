"""What a meter notices: its log, what is told at once, and the watches that find something."""

from __future__ import annotations

from meterd.events.log import EventLog
from meterd.events.sources import EventSources

__all__ = ["EventLog", "EventSources"]
