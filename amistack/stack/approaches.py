"""Handshakes of ours: under way, proposed, and those whose message_3 goes along with requests.

Spec    RFC 9528 appendix A.2, RFC 9668 section 3.2
Limit   the endpoint's requests; PROPOSALS_MAX sessions that wait for `accept_session`, the oldest
        is dropped beyond; UNSAID_MAX whose message_3 goes along
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from amistack.coap.endpoint import Endpoint
from amistack.coap.endpoint import RequestId as ExchangeRequestId
from amistack.coap.message import Message
from amistack.errors import EdhocError, TableFull
from amistack.machine import Peer
from amistack.session.handshakes import Approach, HandshakeId, SessionProposed
from amistack.stack.events import Event, HandshakeFailed
from amistack.stack.numbers import Held

PROPOSALS_MAX: Final = 64
"""Sessions that we began and that wait for `accept_session`; the oldest is dropped beyond."""
UNSAID_MAX: Final = 64
"""Sessions that we began whose message_3 still goes along with every request; beyond, the oldest
goes on without."""


@dataclass(slots=True)
class Approaching:
    """A handshake of ours that waits for the responder."""

    approach: Approach
    peer: Peer
    identity: bytes | None = None
    """Of the session in use, where message_3 goes along with its first request."""
    waiting: list[Held] = field(default_factory=list)
    """Requests that wait until message_3, which went alone, is answered."""
    is_alone: bool = False
    """Message_3 went alone, and its answer is awaited."""
    is_over: bool = False
    """It failed, and the responder is told why."""


class Approaches:
    """All handshakes that this side began."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        events: list[Event],
        refused: Counter[str],
        resume: Callable[[Held, float], None],
        drop: Callable[[Held, str, float], None],
        hop_count_of: Callable[[Peer], int | None],
    ) -> None:
        """`resume` sends a request that waited; `drop` tells its sender that it will not go.

        `hop_count_of`: see `Stack`.
        """
        self._endpoint = endpoint
        self._events = events
        self._refused = refused
        self._hop_count_of = hop_count_of
        self._resume = resume
        self._drop = drop
        self._approaches: dict[ExchangeRequestId, Approaching] = {}
        self._proposed: dict[HandshakeId, Approaching] = {}
        self._unsaid: dict[bytes, Approaching] = {}  # identity to whose message_3 is to go along
        self._next_id = 0

    def begin(self, approach: Approach, peer: Peer, *, now: float) -> None:
        """Send message_1. Raises TableFull at a bound of the endpoint."""
        self._advance(Approaching(approach, peer), approach.first_message(), now=now)

    def owns(self, exchange: ExchangeRequestId) -> bool:
        """Whether that request is a message of a handshake."""
        return exchange in self._approaches

    def is_proposed(self, handshake: HandshakeId) -> bool:
        """Whether that session waits for `accept_session`."""
        return handshake in self._proposed

    def take_proposed(self, handshake: HandshakeId) -> Approaching | None:
        """That session is accepted or rejected; None if it is not of ours."""
        return self._proposed.pop(handshake, None)

    # message_3 with the first request

    def say_later(self, identity: bytes, approaching: Approaching) -> None:
        """Let message_3 go along with the session's requests until one is answered."""
        if len(self._unsaid) >= UNSAID_MAX:
            del self._unsaid[next(iter(self._unsaid))]
        approaching.identity = identity
        self._unsaid[identity] = approaching

    def unsaid(self, identity: bytes) -> Approaching | None:
        """The handshake whose message_3 is to go along with that session's requests, if any."""
        return self._unsaid.get(identity)

    def said(self, identity: bytes, approaching: Approaching) -> None:
        """Something authentic came under the session's keys: the responder has message_3."""
        if self._unsaid.get(identity) is approaching:
            del self._unsaid[identity]

    def say_alone(self, approaching: Approaching, held: Held, *, now: float) -> None:
        """Send message_3 by itself, if it is not under way: a request is too long to take it."""
        if not approaching.is_alone:
            self._advance(approaching, approaching.approach.third_message(), now=now)
            approaching.is_alone = True
        approaching.waiting.append(held)

    def refused(self, identity: bytes, approaching: Approaching, response: Message) -> None:
        """An unprotected answer came to a request with message_3: count what it says."""
        if self._unsaid.get(identity) is not approaching:
            return
        try:
            approaching.approach.receive(response)
        except EdhocError as error:
            self._refused[f"handshake: {error.reason}"] += 1

    def forget(self, identity: bytes, *, now: float) -> None:
        """That session ended, and what waits for its message_3 with it."""
        approaching = self._unsaid.pop(identity, None)
        if approaching is not None:
            self._drop_waiting(approaching, "session ended", now)

    # What comes back

    def receive(self, exchange: ExchangeRequestId, response: Message, *, now: float) -> None:
        """The responder answered a message of a handshake."""
        approaching = self._approaches.pop(exchange)
        if approaching.is_over:
            return
        try:
            outcome = approaching.approach.receive(response)
        except EdhocError as error:
            self._refused[f"handshake: {error.reason}"] += 1
            self._fail(approaching, error.reason, error.detail, now)
            farewell = approaching.approach.farewell(error)
            if farewell is not None:
                leaving = Approaching(approaching.approach, approaching.peer, is_over=True)
                with contextlib.suppress(TableFull):
                    self._advance(leaving, farewell, now=now)
            return
        if isinstance(outcome, Message):
            try:
                self._advance(approaching, outcome, now=now)
            except TableFull as error:
                self._fail(approaching, str(error), "", now)
            return
        if approaching.is_alone:
            self._go_on(approaching, now)
            return
        self._next_id += 1
        # Below zero: never one of the desk's.
        handshake = HandshakeId(-self._next_id)
        if len(self._proposed) >= PROPOSALS_MAX:
            del self._proposed[next(iter(self._proposed))]
        self._proposed[handshake] = approaching
        self._events.append(
            SessionProposed(handshake, approaching.peer, approaching.approach.id_cred, outcome)
        )

    def fail(self, exchange: ExchangeRequestId, reason: str, *, now: float) -> None:
        """The responder did not answer a message of a handshake."""
        approaching = self._approaches.pop(exchange)
        if not approaching.is_over:
            self._fail(approaching, reason, "", now)

    def _advance(self, approaching: Approaching, message: Message, *, now: float) -> None:
        peer = approaching.peer
        exchange = self._endpoint.request(
            message, peer, now=now, hop_count=self._hop_count_of(peer)
        )
        self._approaches[exchange] = approaching

    def _go_on(self, approaching: Approaching, now: float) -> None:
        """The responder has message_3: what waited for that goes out."""
        if approaching.identity is not None:
            self.said(approaching.identity, approaching)
        waiting, approaching.waiting = approaching.waiting, []
        for held in waiting:
            self._resume(held, now)

    def _fail(self, approaching: Approaching, reason: str, detail: str, now: float) -> None:
        """A handshake ends without a session, or with one that the responder has not."""
        self._events.append(HandshakeFailed(approaching.peer, reason, detail))
        approaching.is_alone = False  # The next request takes message_3 along, or sends it again.
        self._drop_waiting(approaching, reason, now)

    def _drop_waiting(self, approaching: Approaching, reason: str, now: float) -> None:
        waiting, approaching.waiting = approaching.waiting, []
        for held in waiting:
            self._drop(held, reason, now)
