"""All the layers of one socket, composed into one machine: `Stack`, and what it tells."""

from __future__ import annotations

from amistack.stack.approaches import PROPOSALS_MAX
from amistack.stack.events import (
    Event,
    HandshakeFailed,
    NumbersWanted,
    NumberTaken,
    ObservationEnded,
    ObservationStale,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
    SessionWorn,
    StrangeSession,
)
from amistack.stack.freshness import ECHO_LATER_S, ECHO_RATE_MAX, ECHO_SIZE
from amistack.stack.naming import context_of, name_of
from amistack.stack.numbers import HELD_MAX, SEQUENCE_BLOCK, SEQUENCE_LOW
from amistack.stack.secured import LATE_MAX_S
from amistack.stack.stack import Stack

__all__ = [
    "ECHO_LATER_S",
    "ECHO_RATE_MAX",
    "ECHO_SIZE",
    "HELD_MAX",
    "LATE_MAX_S",
    "PROPOSALS_MAX",
    "SEQUENCE_BLOCK",
    "SEQUENCE_LOW",
    "Event",
    "HandshakeFailed",
    "NumberTaken",
    "NumbersWanted",
    "ObservationEnded",
    "ObservationStale",
    "RequestFailed",
    "RequestId",
    "SecureRequest",
    "SecureResponse",
    "SessionWorn",
    "Stack",
    "StrangeSession",
    "context_of",
    "name_of",
]
