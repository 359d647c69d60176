"""CoAP under OSCORE under EDHOC, composed into one machine for all peers of a socket.

Spec    RFC 7252, RFC 8613, RFC 9528 and its appendix A; docs/ARCHITECTURE.md
In      commands, `receive_datagram`, `handle_timer`
Out     `data_to_send`, `events`, `next_timer`: collect all three after every call in
Raises  LocalProtocolError and TableFull on commands; nothing on what a peer sends: that is
        answered as the RFCs say and counted by reason in `refused`
Limit   the endpoint's and the desk's; HELD_MAX messages of a session that wait for numbers;
        PROPOSALS_MAX sessions of our own that wait for an answer
Never   answers anything in the clear but EDHOC and /.well-known/core; uses a sender sequence number
        that is not said to be durable; answers under a request's nonce unless told that the
        request's Partial IV is durable
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NewType

from amistack.coap.codes import Code
from amistack.coap.endpoint import (
    Endpoint,
    ExchangeId,
    Limits,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.endpoint import RequestFailed as ExchangeFailed
from amistack.coap.endpoint import RequestId as ExchangeRequestId
from amistack.coap.link_format import CONTENT_FORMAT as CONTENT_FORMAT_LINK
from amistack.coap.link_format import WELL_KNOWN_CORE, Link, build, select
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber, check_options
from amistack.coap.timing import Timing
from amistack.errors import (
    CoapError,
    EdhocError,
    LocalProtocolError,
    OscoreError,
    SequenceExhausted,
    TableFull,
)
from amistack.machine import Peer
from amistack.session.credentials import AuthenticationKey, Credential, IdCred, Kid
from amistack.session.edhoc import OscoreParameters
from amistack.session.handshakes import (
    WELL_KNOWN_EDHOC,
    Approach,
    CredentialWanted,
    Desk,
    Entropy,
    HandshakeId,
    SessionProposed,
)
from amistack.session.oscore import (
    SEQUENCE_NUMBER_MAX,
    ContextTable,
    ReplayWindow,
    RequestBinding,
    SecurityContext,
    find_kid,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)

SEQUENCE_BLOCK: Final = 64
"""Sender sequence numbers reserved at a time."""
SEQUENCE_LOW: Final = 16
"""With fewer left the next block is asked for, ahead of need."""
HELD_MAX: Final = 32
"""Messages of one session that wait for the next block of numbers."""
HINT_SIZE_MAX: Final = 64
ECHO_SIZE: Final = 8
ECHO_RATE_MAX: Final = 200
"""Sessions with a doubtful window that are asked for freshness in a second; others come later."""
ECHO_LATER_S: Final = 60
PROPOSALS_MAX: Final = 64
"""Sessions that we began and that wait for `accept_session`; the oldest is dropped beyond."""

RequestId = NewType("RequestId", int)
"""One request of ours, from `request` to the event that ends it."""


@dataclass(frozen=True, slots=True)
class SecureRequest:
    """An authentic, fresh request. Commit `window` with what it brings, then `respond`."""

    exchange: ExchangeId
    identity: bytes
    recipient_id: bytes
    peer: Peer
    message: Message
    window: tuple[int, int]


@dataclass(frozen=True, slots=True)
class SecureResponse:
    """The authentic response to a request of ours. No further event names the request."""

    request: RequestId
    identity: bytes
    peer: Peer
    message: Message


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


Event = (
    SecureRequest
    | SecureResponse
    | RequestFailed
    | CredentialWanted
    | SessionProposed
    | HandshakeFailed
    | NumbersWanted
)


@dataclass(slots=True)
class _Asked:
    """A protected request of ours that waits for its response."""

    request: RequestId
    identity: bytes
    context: SecurityContext
    binding: RequestBinding
    message: Message
    peer: Peer
    response_wait: float | None


@dataclass(frozen=True, slots=True)
class _Held:
    """A message that may have to wait for sequence numbers.

    `request` if it is one of ours, `exchange` if it answers a peer's.
    """

    send: Callable[[float], None]
    request: RequestId | None = None
    identity: bytes = b""
    exchange: ExchangeId | None = None


@dataclass(slots=True)
class _Approaching:
    """A handshake of ours that waits for the responder."""

    approach: Approach
    peer: Peer


class Stack:
    """All the layers of one socket, for a head-end (many sessions) or a meter (one)."""

    def __init__(
        self,
        *,
        key: AuthenticationKey,
        entropy: Entropy,
        dice: random.Random,
        links: Sequence[Link],
        timing: Timing | None = None,
        limits: Limits | None = None,
        is_responder: bool = True,
    ) -> None:
        """`links` are the resources that /.well-known/core tells of.

        Without `is_responder` a handshake that a peer begins is refused.
        """
        self._key = key
        self._entropy = entropy
        self._links = tuple(links)
        self._endpoint = Endpoint(dice=dice, timing=timing, limits=limits)
        self._contexts = ContextTable()
        self._desk = Desk(key, entropy=entropy, is_taken=self._is_taken)
        self._is_responder = is_responder
        self._refused: Counter[str] = Counter()

        self._identities: dict[bytes, bytes] = {}  # recipient id to identity
        self._sessions: dict[bytes, SecurityContext] = {}  # identity to context
        self._wanting: dict[bytes, int] = {}  # recipient id to the bound asked for
        self._doubtful: dict[bytes, bytes] = {}  # recipient id to the Echo value asked for, if any
        self._echo_since = 0.0
        self._echo_count = 0
        self._held: dict[bytes, deque[_Held]] = {}

        self._exchanges: dict[ExchangeId, tuple[SecurityContext, RequestBinding]] = {}
        self._handshake_exchanges: dict[HandshakeId, ExchangeId] = {}
        self._asked: dict[ExchangeRequestId, _Asked] = {}
        self._under_way: dict[RequestId, ExchangeRequestId | None] = {}
        self._approaches: dict[ExchangeRequestId, _Approaching] = {}
        self._proposed: dict[HandshakeId, _Approaching] = {}
        self._next_id = 0
        self._latest = 0.0
        self._events: list[Event] = []

    # Commands from above: sessions

    def connect(self, peer: Peer, trusted: Sequence[Credential], *, c_i: bytes, now: float) -> None:
        """Begin a handshake with the responder at `peer`, who must own one of `trusted`.

        SessionProposed or HandshakeFailed follows. Raises LocalProtocolError if a session in use
        has `c_i` already: a late message must never fit another session than its own; TableFull
        at a bound of the endpoint.
        """
        if self._is_taken(c_i):
            raise LocalProtocolError(f"C_I {c_i.hex()} is that of a session in use, take another")
        approach = Approach(self._key, trusted, c_i=c_i, entropy=self._entropy)
        self._advance(_Approaching(approach, peer), approach.first_message(), now=now)

    def provide_credential(
        self, wanted: CredentialWanted, credential: Credential | None, *, now: float
    ) -> None:
        """Answer CredentialWanted: what belongs to that name, or None for nobody.

        Raises LocalProtocolError on a handshake that does not wait for that, or on the credential
        of another name; nothing has changed then.
        """
        outcome = self._desk.provide_credential(wanted.handshake, credential, wanted.peer)
        if isinstance(outcome, Message):
            exchange = self._handshake_exchanges.pop(wanted.handshake)
            self._endpoint.respond(exchange, outcome, now=now)
        else:
            self._events.append(outcome)

    def accept_session(
        self, proposed: SessionProposed, identity: bytes, *, reserved_until: int, now: float
    ) -> SecurityContext:
        """Answer SessionProposed: its keys are durable, with numbers below `reserved_until`.

        The session takes the place of an earlier one of that identity. Raises LocalProtocolError
        if the proposal is answered already, for its keys must not begin at number 0 again.
        """
        self._latest = now
        self._require_proposed(proposed)
        context = context_of(proposed.parameters)
        context.reserve(reserved_until)
        self.add_session(identity, context)
        if self._proposed.pop(proposed.handshake, None) is None:
            exchange = self._handshake_exchanges.pop(proposed.handshake)
            answer = self._desk.conclude(proposed.handshake)
            self._endpoint.respond(exchange, answer, now=now)
        return context

    def reject_session(self, proposed: SessionProposed, *, retry_after: int, now: float) -> None:
        """Answer SessionProposed: it could not be made durable; the peer may come again.

        `retry_after` in s. Raises LocalProtocolError if the proposal is answered already.
        """
        self._require_proposed(proposed)
        if self._proposed.pop(proposed.handshake, None) is None:
            exchange = self._handshake_exchanges.pop(proposed.handshake)
            answer = self._desk.give_up(proposed.handshake, retry_after=retry_after)
            self._endpoint.respond(exchange, answer, now=now)

    def add_session(
        self, identity: bytes, context: SecurityContext, *, is_window_doubtful: bool = False
    ) -> None:
        """Use `context` with that identity from now on, in place of an earlier one.

        With `is_window_doubtful` its replay window may be older than what was accepted (a
        restored backup): the next request must prove that it is new before it counts.
        Raises LocalProtocolError if its recipient id is that of another identity's session.
        """
        if self._identities.get(context.recipient_id, identity) != identity:
            raise LocalProtocolError(
                f"recipient id {context.recipient_id.hex()} is that of another identity's session"
            )
        self.remove_session(identity)
        self._contexts.add(context)
        self._identities[context.recipient_id] = identity
        self._sessions[identity] = context
        if is_window_doubtful:
            self._doubtful[context.recipient_id] = b""

    def remove_session(self, identity: bytes) -> None:
        """Forget the session of that identity, if there is one; its messages are refused.

        What was held for want of numbers is dropped: a request of ours fails, and an answer
        becomes an unprotected 5.03.
        """
        context = self._sessions.pop(identity, None)
        if context is None:
            return
        self._contexts.remove(context)
        del self._identities[context.recipient_id]
        self._wanting.pop(context.recipient_id, None)
        self._doubtful.pop(context.recipient_id, None)
        for held in self._held.pop(context.recipient_id, ()):
            self._drop(held, "session ended", self._latest)

    def session_of(self, identity: bytes) -> SecurityContext | None:
        """The security context in use with that identity, or None."""
        return self._sessions.get(identity)

    def numbers_reserved(self, recipient_id: bytes, until: int, *, now: float) -> None:
        """Answer NumbersWanted: it is durable. What was held for want of numbers goes out."""
        self._latest = now
        if self._wanting.pop(recipient_id, None) is None:
            return  # The session was replaced meanwhile, or it is said twice.
        context = self._sessions[self._identities[recipient_id]]
        context.reserve(until)
        held = self._held.get(recipient_id, deque())
        while held:
            try:
                held[0].send(now)
            except SequenceExhausted:
                break  # Fewer than were wanted.
            except (LocalProtocolError, TableFull) as error:
                self._drop(held[0], str(error), now)
            held.popleft()
        if not held:
            self._held.pop(recipient_id, None)
        self._want_numbers(context)

    # Commands from above: messages

    def request(
        self,
        identity: bytes,
        message: Message,
        peer: Peer,
        *,
        now: float,
        response_wait: float | None = None,
    ) -> RequestId:
        """Send a protected request. SecureResponse or RequestFailed follows, unless cancelled.

        `response_wait`: s to wait for a response after the acknowledgement.
        Raises LocalProtocolError without a session, TableFull at a bound.
        """
        context = self._sessions.get(identity)
        if context is None:
            raise LocalProtocolError(f"no session with {identity.hex()}")
        self._next_id += 1
        request = RequestId(self._next_id)
        self._under_way[request] = None
        try:
            self._ask(request, identity, context, message, peer, response_wait, now=now)
        except (LocalProtocolError, TableFull):
            del self._under_way[request]
            raise
        return request

    def _ask(
        self,
        request: RequestId,
        identity: bytes,
        context: SecurityContext,
        message: Message,
        peer: Peer,
        response_wait: float | None,
        *,
        now: float,
    ) -> None:
        def send(now: float) -> None:
            if request not in self._under_way:
                return  # Cancelled while it was held.
            protected, binding = protect_request(context, message)
            exchange = self._endpoint.request(protected, peer, now=now, response_wait=response_wait)
            self._under_way[request] = exchange
            self._asked[exchange] = _Asked(
                request, identity, context, binding, message, peer, response_wait
            )

        self._with_numbers(context, _Held(send, request, identity), now=now)

    def cancel(self, request: RequestId, *, now: float) -> None:
        """Forget a request: no event names it any more. One that is over already is no error."""
        exchange = self._under_way.pop(request, None)
        if exchange is not None:
            self._asked.pop(exchange, None)
            self._endpoint.cancel(exchange, now=now)

    def respond(
        self, exchange: ExchangeId, message: Message, *, is_durable: bool, now: float
    ) -> None:
        """Answer a SecureRequest.

        `is_durable` says that its replay window is committed: only then the answer may go under
        the request's nonce. Otherwise it takes a number of our own. Raises LocalProtocolError when
        the exchange is unknown or answered already, or the message cannot be sent, TableFull when
        too many wait for numbers; the exchange still waits for its answer then.
        """
        entry = self._exchanges.get(exchange)
        if entry is None:
            raise LocalProtocolError(f"exchange {exchange} is unknown or answered already")
        context, binding = entry
        # A message that was too large may have used up the request's nonce.
        own_partial_iv = not (is_durable and binding.nonce_is_free)

        def send(now: float) -> None:
            protected = protect_response(context, message, binding, own_partial_iv=own_partial_iv)
            self._endpoint.respond(exchange, protected, now=now)

        if own_partial_iv:
            self._with_numbers(context, _Held(send, exchange=exchange), now=now)
        else:
            send(now)
        del self._exchanges[exchange]

    # Inputs from below.

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram. Never raises on bad data."""
        self._latest = now
        self._endpoint.receive_datagram(data, peer, now=now)
        self._turn(now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        self._latest = now
        self._endpoint.handle_timer(now=now)
        self._turn(now)

    # Outputs, for the driver to collect.

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams and where they go, in order. Each is handed over once."""
        return self._endpoint.data_to_send()

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        events, self._events = self._events, []
        return events

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        return self._endpoint.next_timer()

    @property
    def refused(self) -> Mapping[str, int]:
        """What was refused since the start, by `layer: reason`."""
        layers = (
            ("coap", self._endpoint.refused),
            ("edhoc", self._desk.refused),
            ("session", self._refused),
        )
        return {
            f"{layer}: {reason}": count
            for layer, counter in layers
            for reason, count in counter.items()
        }

    @property
    def session_count(self) -> int:
        """Sessions in use."""
        return len(self._sessions)

    @property
    def depths(self) -> dict[str, tuple[int, int]]:
        """Each bounded table's name, its present depth and its bound."""
        return {**self._endpoint.depths, "handshakes under way": self._desk.depth}

    # From the endpoint's events to ours

    def _turn(self, now: float) -> None:
        for event in self._endpoint.events():
            match event:
                case RequestReceived():
                    self._receive_request(event, now)
                case ResponseReceived():
                    self._receive_response(event, now)
                case ExchangeFailed():
                    self._receive_failure(event)

    def _receive_request(self, event: RequestReceived, now: float) -> None:
        message = event.message
        if message.option(OptionNumber.OSCORE) is not None:
            self._receive_protected(event, now)
            return
        try:
            path = message.path
        except CoapError as error:
            self._refuse_in_clear(event, error.reason, Code.BAD_REQUEST, now)
            return
        if path == WELL_KNOWN_EDHOC and self._is_responder:
            outcome = self._desk.receive(message, event.peer, now=now)
            if isinstance(outcome, Message):
                self._endpoint.respond(event.exchange, outcome, now=now)
            else:
                self._handshake_exchanges[outcome.handshake] = event.exchange
                self._events.append(outcome)
        elif path == WELL_KNOWN_CORE:
            self._endpoint.respond(event.exchange, self._core(message), now=now)
        else:
            self._refuse_in_clear(event, "not protected", Code.UNAUTHORIZED, now)

    def _core(self, message: Message) -> Message:
        if message.code != Code.GET:
            return Message.response(Code.METHOD_NOT_ALLOWED)
        accept = message.uint_option(OptionNumber.ACCEPT)
        if accept not in (None, CONTENT_FORMAT_LINK):
            return Message.response(Code.NOT_ACCEPTABLE)
        queries = message.option_values(OptionNumber.URI_QUERY)
        try:
            document = build(
                select(self._links, [query.decode(errors="replace") for query in queries])
            )
        except CoapError as error:
            return Message.response(Code.BAD_REQUEST, payload=error.reason.encode())
        return Message.response(Code.CONTENT, payload=document, content_format=CONTENT_FORMAT_LINK)

    def _receive_protected(self, event: RequestReceived, now: float) -> None:
        try:
            kid, kid_context = find_kid(event.message)
            context = self._contexts.find(kid, kid_context)
            if context is None:
                raise OscoreError(
                    "security context not found", f"kid {kid.hex()!r}", code=Code.UNAUTHORIZED
                )
            inner, binding = unprotect_request(context, event.message)
        except OscoreError as error:
            self._refuse_in_clear(event, error.reason, error.code, now)
            return
        self._exchanges[event.exchange] = (context, binding)
        try:
            check_options(inner.options)
        except CoapError as error:
            self._refused[error.reason] += 1
            answer = Message.response(Code.BAD_OPTION, payload=error.detail.encode())
            self._answer_at_once(event.exchange, answer, now)
            return
        if context.recipient_id in self._doubtful and not self._is_fresh(
            event.exchange, context, inner, binding, now
        ):
            return
        self._events.append(
            SecureRequest(
                event.exchange,
                self._identities[context.recipient_id],
                context.recipient_id,
                event.peer,
                inner,
                context.replay_window.state,
            )
        )

    def _is_fresh(
        self,
        exchange: ExchangeId,
        context: SecurityContext,
        inner: Message,
        binding: RequestBinding,
        now: float,
    ) -> bool:
        """Whether a request proves that it is new, in a session whose window may be an old one.

        If not it is asked to, by an Echo value that only its true sender can read, or to come
        later if too many were asked lately (RFC 8613 appendix B.1.2, RFC 9175 section 2.3).
        """
        recipient_id = context.recipient_id
        wanted = self._doubtful[recipient_id]
        if wanted and inner.option(OptionNumber.ECHO) == wanted:
            del self._doubtful[recipient_id]
            number = int.from_bytes(binding.request_piv, "big")
            # Everything up to this number may have been seen in the time that was lost.
            context.replay_window = ReplayWindow.restore(number + 1, 0)
            return True
        if now - self._echo_since >= 1.0:
            self._echo_since, self._echo_count = now, 0
        if self._echo_count >= ECHO_RATE_MAX:
            self._refused["freshness asked too often, later"] += 1
            answer = Message.response(Code.SERVICE_UNAVAILABLE, max_age=ECHO_LATER_S)
        else:
            self._echo_count += 1
            self._refused["freshness asked"] += 1
            if not wanted:
                wanted = self._doubtful[recipient_id] = self._entropy(ECHO_SIZE)
            answer = Message.response(
                Code.UNAUTHORIZED, options=(Option(OptionNumber.ECHO, wanted),)
            )
        self._answer_at_once(exchange, answer, now)
        return False

    def _answer_at_once(self, exchange: ExchangeId, answer: Message, now: float) -> None:
        """Answer in place of the program, under a number of our own."""
        try:
            self.respond(exchange, answer, is_durable=False, now=now)
        except (LocalProtocolError, TableFull):
            del self._exchanges[exchange]
            self._drop_answer(exchange, now)

    def _refuse_in_clear(self, event: RequestReceived, reason: str, code: int, now: float) -> None:
        """Answer as RFC 8613 section 8.2 says: unprotected, and not to be kept by anyone."""
        self._refused[reason] += 1
        answer = Message.response(code, payload=reason.encode(), max_age=0)
        self._endpoint.respond(event.exchange, answer, now=now)

    def _receive_response(self, event: ResponseReceived, now: float) -> None:
        approaching = self._approaches.pop(event.request, None)
        if approaching is not None:
            self._receive_handshake_response(approaching, event.message, now)
            return
        asked = self._asked.pop(event.request)
        del self._under_way[asked.request]
        if event.message.option(OptionNumber.OSCORE) is None:
            self._refused["response not protected"] += 1
            self._events.append(
                RequestFailed(
                    asked.request,
                    asked.identity,
                    "response not protected",
                    event.message.code,
                    event.message.payload[:HINT_SIZE_MAX].decode(errors="replace"),
                )
            )
            return
        try:
            inner = unprotect_response(asked.context, event.message, asked.binding)
            check_options(inner.options)
        except (OscoreError, CoapError) as error:
            self._refused[f"response: {error.reason}"] += 1
            self._events.append(RequestFailed(asked.request, asked.identity, error.reason))
            return
        echo = inner.option(OptionNumber.ECHO)
        if inner.code == Code.UNAUTHORIZED and echo and self._repeat(asked, echo, now):
            return
        self._events.append(SecureResponse(asked.request, asked.identity, event.peer, inner))

    def _repeat(self, asked: _Asked, echo: bytes, now: float) -> bool:
        """Send a request once more, with the Echo value that was asked for (RFC 9175 2.3)."""
        if asked.message.option(OptionNumber.ECHO) is not None:
            return False  # It had one already: its sender is told how that ended.
        options = in_order((*asked.message.options, Option(OptionNumber.ECHO, echo)))
        message = replace(asked.message, options=options)
        self._under_way[asked.request] = None
        try:
            self._ask(
                asked.request,
                asked.identity,
                asked.context,
                message,
                asked.peer,
                asked.response_wait,
                now=now,
            )
        except (LocalProtocolError, TableFull) as error:
            del self._under_way[asked.request]
            self._events.append(RequestFailed(asked.request, asked.identity, str(error)))
        return True

    def _receive_failure(self, event: ExchangeFailed) -> None:
        approaching = self._approaches.pop(event.request, None)
        if approaching is not None:
            self._events.append(HandshakeFailed(event.peer, event.failure.value))
            return
        asked = self._asked.pop(event.request)
        del self._under_way[asked.request]
        self._events.append(RequestFailed(asked.request, asked.identity, event.failure.value))

    # Handshakes of ours

    def _advance(self, approaching: _Approaching, message: Message, *, now: float) -> None:
        exchange = self._endpoint.request(message, approaching.peer, now=now)
        self._approaches[exchange] = approaching

    def _receive_handshake_response(
        self, approaching: _Approaching, response: Message, now: float
    ) -> None:
        try:
            outcome = approaching.approach.receive(response)
        except EdhocError as error:
            self._refused[f"handshake: {error.reason}"] += 1
            self._events.append(HandshakeFailed(approaching.peer, error.reason, error.detail))
            return
        if isinstance(outcome, Message):
            self._advance(approaching, outcome, now=now)
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

    def _require_proposed(self, proposed: SessionProposed) -> None:
        handshake = proposed.handshake
        if handshake not in self._proposed and handshake not in self._handshake_exchanges:
            raise LocalProtocolError(f"handshake {handshake} is unknown or over")

    # Sender sequence numbers

    def _with_numbers(self, context: SecurityContext, one: _Held, *, now: float) -> None:
        """Send now, or when the next block of numbers is durable."""
        held = self._held.get(context.recipient_id)
        try:
            if held:
                raise SequenceExhausted("others wait already")  # Order is kept.
            one.send(now)
        except SequenceExhausted:
            if self._contexts.find(context.recipient_id, context.id_context) is not context:
                self._drop(one, "session ended", now)
                return
            held = self._held.setdefault(context.recipient_id, deque())
            if len(held) >= HELD_MAX:
                raise TableFull(f"{HELD_MAX} messages wait for numbers already") from None
            held.append(one)
        self._want_numbers(context)

    def _drop(self, held: _Held, reason: str, now: float) -> None:
        """Give up a message that waits for numbers; who waits for it is told so."""
        if held.exchange is not None:
            self._drop_answer(held.exchange, now)
            return
        self._refused["request dropped for want of numbers"] += 1
        if held.request is not None and held.request in self._under_way:
            del self._under_way[held.request]
            self._events.append(RequestFailed(held.request, held.identity, reason))

    def _drop_answer(self, exchange: ExchangeId, now: float) -> None:
        """Say that there is no answer: protected it cannot be said, and unsaid it would be kept."""
        self._refused["answer dropped for want of numbers"] += 1
        answer = Message.response(Code.SERVICE_UNAVAILABLE, max_age=0)
        self._endpoint.respond(exchange, answer, now=now)

    def _want_numbers(self, context: SecurityContext) -> None:
        recipient_id = context.recipient_id
        left = context.reserved_until - context.next_sequence_number
        identity = self._identities.get(recipient_id)
        if left >= SEQUENCE_LOW or recipient_id in self._wanting or identity is None:
            return
        until = min(context.reserved_until + SEQUENCE_BLOCK, SEQUENCE_NUMBER_MAX + 1)
        if until <= context.reserved_until:
            return  # The space is used up: only a new session helps.
        self._wanting[recipient_id] = until
        self._events.append(NumbersWanted(identity, recipient_id, until))

    def _is_taken(self, recipient_id: bytes) -> bool:
        return recipient_id in self._identities


def context_of(parameters: OscoreParameters) -> SecurityContext:
    """The security context that follows from a handshake (RFC 9528 appendix A.1)."""
    return SecurityContext.derive(
        master_secret=parameters.master_secret,
        master_salt=parameters.master_salt,
        sender_id=parameters.sender_id,
        recipient_id=parameters.recipient_id,
    )


def name_of(id_cred: IdCred) -> bytes:
    """The name by which a credential is looked up: the `kid`, or the certificate's digest."""
    return id_cred.value if isinstance(id_cred, Kid) else id_cred.digest
