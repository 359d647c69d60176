"""What a stack tells its program.

Every event that wants a command says which. Names of requests and exchanges are good from one call
to the event that ends them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NewType

from amistack.coap.endpoint import ExchangeId
from amistack.coap.message import Message
from amistack.machine import Peer
from amistack.session.handshakes import CredentialWanted, SessionProposed
from amistack.values import frozen_value

RequestId = NewType("RequestId", int)
"""One request of ours, from `request` to the event that ends it, or an observation while open."""


@frozen_value(frozen=True, slots=True)
class SecureRequest:
    """An authentic, fresh request. Commit `window` with what it brings, then `respond`.

    `is_behind`: a request with a higher number came earlier, and not within the last LATE_MAX_S
    seconds as far as is remembered. A peer that counts upwards does not do that.
    """

    exchange: ExchangeId
    identity: bytes
    recipient_id: bytes
    peer: Peer
    message: Message
    window: tuple[int, int]
    is_behind: bool = False


@dataclass(frozen=True, slots=True)
class NumberTaken:
    """An authentic request was refused, for another one may have been accepted under its number.

    Whoever sent it holds the session's keys. `is_other`: the accepted one is remembered, and is
    not the same. If not, it may be a replay, unless it is younger than `remembered_s`: for so long
    back everything that was accepted is remembered. `newest_s`: for how long the session's highest
    number is there; infinite if that is not remembered. `message` must change nothing.
    """

    identity: bytes
    peer: Peer
    message: Message
    is_other: bool
    remembered_s: float
    newest_s: float = math.inf


@dataclass(frozen=True, slots=True)
class StrangeSession:
    """A request under a session that is not in use was refused; it may be one of earlier."""

    recipient_id: bytes
    peer: Peer
    message: Message


@dataclass(frozen=True, slots=True)
class SecureResponse:
    """The authentic response to a request of ours. No further event names it, if it `is_final`.

    Otherwise it observes: this is what the resource is like now, and there may be more.
    """

    request: RequestId
    identity: bytes
    peer: Peer
    message: Message
    is_final: bool = True


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request of ours ends without an authentic response; `code` is an unprotected answer's.

    An unprotected answer proves nothing: it is a hint, at most. `hint` is what its sender said.
    """

    request: RequestId
    identity: bytes
    reason: str
    code: int | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ObservationStale:
    """What was notified last is older than its Max-Age and some. The observation is still open.

    Wait, or `cancel` and ask again. Said once, and again only after a further notification.
    """

    request: RequestId
    identity: bytes


@dataclass(frozen=True, slots=True)
class ObservationEnded:
    """A peer observes no more; `exchange` names nothing any longer."""

    exchange: ExchangeId
    identity: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class HandshakeFailed:
    """A handshake that we began ends without a session."""

    peer: Peer
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NumbersWanted:
    """Make it durable that numbers below `until` may be used, then `numbers_reserved`."""

    identity: bytes
    recipient_id: bytes
    until: int


@dataclass(frozen=True, slots=True)
class SessionWorn:
    """A session's keys must not be used any more, and it has ended: only a new one helps.

    Too many messages that were no peer's came in its name (`amistack.session.key_limits`).
    """

    identity: bytes
    recipient_id: bytes


Event = (
    SecureRequest
    | SecureResponse
    | RequestFailed
    | ObservationStale
    | ObservationEnded
    | CredentialWanted
    | SessionProposed
    | HandshakeFailed
    | NumbersWanted
    | NumberTaken
    | StrangeSession
    | SessionWorn
)
