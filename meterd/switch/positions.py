"""Where a switch can be told to be, and every legal move between the positions.

This file is the whole truth: the switch asks it and the tests walk it. It knows no relay, no time
and no limit.

               DISCONNECT           ARM
    CLOSED ---------------> OPEN ---------> ARMED ---- PRESSED, CONNECT ---> CLOSED
      |                      ^ CONNECT: CLOSED  ^
      | EXCEEDED             |                  | EXHAUSTED (also from CLOSED), HINDERED, ARM
      +--------> LIMITED ----+ DISCONNECT ------+
                    |
                    +---- RESTED, CONNECT ---> CLOSED
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from amistack.model.control import Action, Position


class Trigger(enum.Enum):
    """What can move a switch."""

    DISCONNECT = "disconnect commanded"
    CONNECT = "connect commanded"
    ARM = "arm commanded"
    PRESSED = "closing asked for at the meter"
    EXCEEDED = "load limit exceeded"
    EXHAUSTED = "load limit exceeded once more than it closes again"
    RESTED = "rest after the load limit over"
    HINDERED = "rest over, but the load side is live or not known"


TRANSITIONS: Final[Mapping[Position, Mapping[Trigger, Position]]] = {
    Position.CLOSED: {
        Trigger.DISCONNECT: Position.OPEN,
        Trigger.CONNECT: Position.CLOSED,
        Trigger.EXCEEDED: Position.LIMITED,
        Trigger.EXHAUSTED: Position.ARMED,
        # After a start: the relay was found open, and may not be closed.
        Trigger.HINDERED: Position.ARMED,
    },
    Position.OPEN: {
        Trigger.DISCONNECT: Position.OPEN,
        Trigger.CONNECT: Position.CLOSED,
        Trigger.ARM: Position.ARMED,
    },
    Position.ARMED: {
        Trigger.DISCONNECT: Position.OPEN,
        Trigger.CONNECT: Position.CLOSED,
        Trigger.ARM: Position.ARMED,
        Trigger.PRESSED: Position.CLOSED,
    },
    Position.LIMITED: {
        Trigger.DISCONNECT: Position.OPEN,
        Trigger.CONNECT: Position.CLOSED,
        Trigger.ARM: Position.ARMED,
        Trigger.RESTED: Position.CLOSED,
        Trigger.HINDERED: Position.ARMED,
    },
}

COMMANDED: Final[Mapping[Action, Trigger]] = {
    Action.DISCONNECT: Trigger.DISCONNECT,
    Action.CONNECT: Trigger.CONNECT,
    Action.ARM: Trigger.ARM,
}
"""The commands that move the switch; those of the load limit do not."""


def next_position(position: Position, trigger: Trigger) -> Position | None:
    """Where `trigger` leads from `position`, or None if nowhere."""
    return TRANSITIONS[position].get(trigger)
