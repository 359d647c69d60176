"""The home area network of a meter: devices that are subscribed to it, and whether they answer."""

from __future__ import annotations
