"""The local port: a field tool over a serial line or TCP, and the meter's side of it."""

from __future__ import annotations
