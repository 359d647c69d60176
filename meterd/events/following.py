"""What an agent's happenings say of the network: its failures are events of the meter's own."""

from __future__ import annotations

from typing import Final

from meterd.events.sources import EventSources
from meterd.happenings import (
    AgentEvent,
    Hindered,
    ReadSent,
    Recovered,
    Registered,
    Reported,
    Secured,
)

LATER: Final = "the head-end says later"
"""Why an agent is hindered although it is heard: no failure of the network."""


def follow(event: AgentEvent, sources: EventSources, *, now: float) -> None:
    """Put on record that something the meter began to say came to nothing, or worked again.

    Raises StoreError.
    """
    match event:
        case Hindered(_, reason):
            if reason != LATER:
                sources.communication_failed(reason, now=now)
        case Secured() | Registered() | Reported() | ReadSent() | Recovered():
            sources.communication_works(now=now)
        case _:
            pass
