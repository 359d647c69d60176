"""A meter's whole conversation with its head-end."""

from __future__ import annotations

from meterd.agent.agent import STORAGE_RETRY_S, Agent
from meterd.agent.keys import RENEW_MAX_S, RENEW_MIN_S
from meterd.agent.registering import SOFTWARE
from meterd.agent.uplink import REPLAYS_MAX, WAIT_MAX
from meterd.backoff import RETRY_MAX, RETRY_MIN
from meterd.happenings import (
    AgentEvent,
    HeadEndWanted,
    Hindered,
    KeyChanged,
    ReadAnswered,
    ReadSent,
    Recovered,
    Registered,
    Reported,
    Secured,
    Stage,
    StorageDamaged,
    StorageFailed,
)
from meterd.schedules.daily import PAYLOAD_SIZE_MAX, Schedule

__all__ = [
    "PAYLOAD_SIZE_MAX",
    "RENEW_MAX_S",
    "RENEW_MIN_S",
    "REPLAYS_MAX",
    "RETRY_MAX",
    "RETRY_MIN",
    "SOFTWARE",
    "STORAGE_RETRY_S",
    "WAIT_MAX",
    "Agent",
    "AgentEvent",
    "HeadEndWanted",
    "Hindered",
    "KeyChanged",
    "ReadAnswered",
    "ReadSent",
    "Recovered",
    "Registered",
    "Reported",
    "Schedule",
    "Secured",
    "Stage",
    "StorageDamaged",
    "StorageFailed",
]
