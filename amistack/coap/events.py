"""What an endpoint tells, and the bounds that it keeps.

Spec    RFC 7252 sections 4 and 5, RFC 7641
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NewType

from amistack.coap.message import Message
from amistack.machine import Peer

RequestId = NewType("RequestId", int)
"""One request of ours, for as long as it is under way; an observation of ours while it is open."""

ExchangeId = NewType("ExchangeId", int)
"""One request of a peer's, until it is answered; its observation for as long as that is open."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of an endpoint's tables, and what happens at each."""

    nstart: int = 1
    """Requests to one peer that are neither answered nor acknowledged, and besides notifications
    to one peer that are outstanding; more wait (RFC 7252 4.7, RFC 7641 4.5.1)."""
    backlog_max: int = 8
    """Requests waiting for one peer; `request` raises TableFull beyond."""
    outgoing_max: int = 16_384
    """Requests of ours in all, in flight and waiting; `request` raises TableFull beyond."""
    observing_max: int = 4_096
    """Of these, ones that register an observation or hold it open; TableFull beyond."""
    incoming_max: int = 4_096
    """Requests of peers that wait for an answer; a further one gets 5.03 with Max-Age."""
    separate_max: int = 4_096
    """Separate responses that wait for their acknowledgement; a further one is sent once, NON."""
    remembered_max: int = 65_536
    """Messages remembered against duplicates; the oldest is forgotten beyond."""
    conversations_max: int = 65_536
    """Peers whose message ids are counted; beyond, one with nothing under way is forgotten."""
    observers_max: int = 4_096
    """Observations by peers; a further one is answered without Observe: once, and not observed."""
    observers_per_peer_max: int = 8
    """The same for one peer."""
    token_size_max: int = 256
    """Octets of a peer's token, which are kept with its answer; a longer one gets 4.00."""
    busy_max_age: int = 30
    """Seconds that a peer is asked to wait by that 5.03."""


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A peer asks. Answer with `respond(exchange, ...)`; every such event wants one answer."""

    exchange: ExchangeId
    peer: Peer
    message: Message


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """A request of ours was answered. No further event names this request, if it `is_final`.

    Otherwise it observes: this is what the resource is like now, and there may be more.
    """

    request: RequestId
    peer: Peer
    message: Message
    is_final: bool = True


class Failure(enum.Enum):
    """Why a request of ours has no answer."""

    NO_ACKNOWLEDGEMENT = "no acknowledgement"
    NO_RESPONSE = "no response after the acknowledgement"
    RESET = "reset by the peer"


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request of ours ends without an answer. The peer may still have acted on it."""

    request: RequestId
    peer: Peer
    failure: Failure


@dataclass(frozen=True, slots=True)
class ObservationStale:
    """What was notified last is older than its Max-Age and some: `register_again`, or wait.

    The observation is still open. Said once, and again only after a further notification.
    """

    request: RequestId
    peer: Peer


class Ending(enum.Enum):
    """Why a peer observes no more."""

    RESET = "reset by the observer"
    NO_ACKNOWLEDGEMENT = "no acknowledgement"
    DEREGISTERED = "deregistered"
    REPLACED = "registered again"


@dataclass(frozen=True, slots=True)
class ObservationEnded:
    """A peer observes no more; `exchange` names nothing any longer."""

    exchange: ExchangeId
    peer: Peer
    ending: Ending


Event = RequestReceived | ResponseReceived | RequestFailed | ObservationStale | ObservationEnded
