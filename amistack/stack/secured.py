"""One protected message each way: CoAP under OSCORE under EDHOC, for all peers of a socket.

Spec    RFC 7252, RFC 8613, RFC 9528 and its appendix A, RFC 9668, RFC 7641 as far as OSCORE has it
In      commands, `receive_datagram`, `handle_timer`
Out     `data_to_send`, `events`, `next_timer`: collect all three after every call in
Raises  LocalProtocolError and TableFull on commands; nothing on what a peer sends: that is
        answered as the RFCs say and counted by reason in `refused`
Limit   the endpoint's and the desk's; HELD_MAX messages of a session that wait for numbers;
        those of handshakes of ours in `approaches`
Never   answers anything in the clear but EDHOC and /.well-known/core; uses a sender sequence number
        that is not said to be durable; answers under a request's nonce unless told that the
        request's Partial IV is durable
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.endpoint import (
    Endpoint,
    ExchangeId,
    Limits,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.endpoint import ObservationEnded as ExchangeObservationEnded
from amistack.coap.endpoint import ObservationStale as ExchangeStale
from amistack.coap.endpoint import RequestFailed as ExchangeFailed
from amistack.coap.link_format import WELL_KNOWN_CORE, Link
from amistack.coap.message import Message
from amistack.coap.options import UNDERSTOOD, OptionNumber, check_options
from amistack.coap.timing import Timing
from amistack.errors import (
    CoapError,
    LocalProtocolError,
    OscoreError,
    TableFull,
)
from amistack.machine import Peer
from amistack.session.combined import is_combined
from amistack.session.credentials import AuthenticationKey, Credential, IdCred
from amistack.session.edhoc import EadItem, Message1Facts
from amistack.session.handshakes import (
    WELL_KNOWN_EDHOC,
    Answering,
    Approach,
    CredentialWanted,
    Desk,
    Entropy,
    HandshakeId,
    RequestRemains,
    SessionProposed,
)
from amistack.session.key_limits import FAILURES_MAX
from amistack.session.oscore import (
    DECRYPTION_FAILED,
    REPLAY,
    ContextTable,
    Doubles,
    Likeness,
    RequestBinding,
    SecurityContext,
    find_kid,
    open_again,
    open_request,
    unprotect_request,
)
from amistack.stack.answers import Answers
from amistack.stack.approaches import Approaches
from amistack.stack.clear import core_answer
from amistack.stack.events import (
    Event,
    NumberTaken,
    RequestId,
    SecureRequest,
    SessionWorn,
    StrangeSession,
)
from amistack.stack.freshness import Freshness
from amistack.stack.naming import context_of
from amistack.stack.numbers import Held, Numbers
from amistack.stack.requests import SESSION_ENDED, UNDERSTOOD_INSIDE, Requests

LATE_MAX_S: Final = 3_600.0
"""Seconds that a message can have been overtaken on its way; what is later is behind."""
_UNDERSTOOD_OUTSIDE: Final = UNDERSTOOD | {OptionNumber.EDHOC}


class Secured:
    """The protected side of one socket, for a head-end (many sessions) or a meter (one)."""

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
        choose: Callable[[Message1Facts], Answering] | None = None,
        hop_count_of: Callable[[Peer], int | None] | None = None,
    ) -> None:
        """See `Stack`."""
        hops = hop_count_of or _no_hops
        self._key = key
        self._entropy = entropy
        self._links = tuple(links)
        self._endpoint = Endpoint(
            dice=dice,
            timing=timing,
            limits=limits,
            understood=_UNDERSTOOD_OUTSIDE if is_responder else UNDERSTOOD,
        )
        self._contexts = ContextTable()
        self._desk = Desk(key, entropy=entropy, is_taken=self._is_taken, choose=choose)
        self._challenges: list[tuple[Peer, bytes]] = []
        self._is_responder = is_responder
        self._refused: Counter[str] = Counter()
        self._events: list[Event] = []

        self._sessions: dict[bytes, SecurityContext] = {}  # identity (its owner) to context
        self._named: dict[bytes, SecurityContext] = {}  # recipient id to one with an ID context
        self._freshness = Freshness(entropy=entropy, refused=self._refused)
        self._doubles = Doubles()
        self._numbers = Numbers(events=self._events, is_in_use=self._is_in_use, drop=self._drop)
        self._failures: dict[bytes, int] = {}  # recipient id to decryptions that failed

        self._handshake_exchanges: dict[HandshakeId, ExchangeId] = {}
        self._approaches = Approaches(
            endpoint=self._endpoint,
            events=self._events,
            refused=self._refused,
            resume=self._resume,
            drop=self._drop,
            hop_count_of=hops,
        )
        self._requests = Requests(
            endpoint=self._endpoint,
            numbers=self._numbers,
            approaches=self._approaches,
            events=self._events,
            refused=self._refused,
            count_failure=self._count_failure,
            hop_count_of=hops,
        )
        self._answers = Answers(
            endpoint=self._endpoint,
            numbers=self._numbers,
            events=self._events,
            refused=self._refused,
            is_in_use=self._is_in_use,
        )
        self._latest = 0.0

    # Commands from above: sessions

    def connect(
        self,
        peer: Peer,
        trusted: Sequence[Credential],
        *,
        c_i: bytes,
        now: float,
        ead_1: Sequence[EadItem] = (),
        believe: Callable[[IdCred, Sequence[EadItem]], Credential | None] | None = None,
        is_combining: bool = False,
    ) -> None:
        """See `Stack.connect`."""
        if self._is_taken(c_i):
            raise LocalProtocolError(f"C_I {c_i.hex()} is that of a session in use, take another")
        approach = Approach(
            self._key,
            trusted,
            c_i=c_i,
            entropy=self._entropy,
            ead_1=ead_1,
            believe=believe,
            is_combining=is_combining,
        )
        self._approaches.begin(approach, peer, now=now)

    def provide_credential(
        self, wanted: CredentialWanted, credential: Credential | None, *, now: float
    ) -> None:
        """See `Stack.provide_credential`."""
        outcome = self._desk.provide_credential(wanted.handshake, credential, wanted.peer)
        if isinstance(outcome, Message):
            exchange = self._handshake_exchanges.pop(wanted.handshake)
            self._endpoint.respond(exchange, outcome, now=now)
        else:
            self._events.append(outcome)

    def accept_session(
        self, proposed: SessionProposed, identity: bytes, *, reserved_until: int, now: float
    ) -> SecurityContext:
        """See `Stack.accept_session`."""
        self._latest = now
        self._require_proposed(proposed)
        context = context_of(proposed.parameters)
        context.reserve(reserved_until)
        self.add_session(identity, context)
        approaching = self._approaches.take_proposed(proposed.handshake)
        if approaching is not None:
            if approaching.approach.is_combining:
                self._approaches.say_later(identity, approaching)
            return context
        exchange = self._handshake_exchanges.pop(proposed.handshake)
        answer = self._desk.conclude(proposed.handshake)
        if proposed.request is None:
            self._endpoint.respond(exchange, answer, now=now)
        else:
            self._receive_protected(RequestReceived(exchange, proposed.peer, proposed.request), now)
        return context

    def reject_session(self, proposed: SessionProposed, *, retry_after: int, now: float) -> None:
        """See `Stack.reject_session`."""
        self._require_proposed(proposed)
        if self._approaches.take_proposed(proposed.handshake) is None:
            exchange = self._handshake_exchanges.pop(proposed.handshake)
            answer = self._desk.give_up(proposed.handshake, retry_after=retry_after)
            self._endpoint.respond(exchange, answer, now=now)

    def add_session(
        self, identity: bytes, context: SecurityContext, *, is_window_doubtful: bool = False
    ) -> None:
        """See `Stack.add_session`."""
        earlier = self._context_of(context.recipient_id)
        if earlier is not None and earlier.owner != identity:
            raise LocalProtocolError(
                f"recipient id {context.recipient_id.hex()} is that of another identity's session"
            )
        self._retire(identity)
        self._contexts.add(context)
        context.owner = identity
        if context.id_context is not None:
            self._named[context.recipient_id] = context
        self._sessions[identity] = context
        if is_window_doubtful:
            self._freshness.doubt(context.recipient_id)

    def remove_session(self, identity: bytes) -> None:
        """See `Stack.remove_session`."""
        context = self._retire(identity)
        if context is not None:
            self._requests.end_session(context, now=self._latest)

    def _retire(self, identity: bytes) -> SecurityContext | None:
        """Use that identity's session no more. What was asked in it may still be answered."""
        context = self._sessions.pop(identity, None)
        if context is None:
            return None
        self._contexts.remove(context)
        self._named.pop(context.recipient_id, None)
        self._failures.pop(context.recipient_id, None)
        self._freshness.forget(context.recipient_id)
        self._numbers.forget(context.recipient_id, now=self._latest)
        self._approaches.forget(identity, now=self._latest)
        self._answers.end_observations(context, now=self._latest)
        return context

    def session_of(self, identity: bytes) -> SecurityContext | None:
        """The security context in use with that identity, or None."""
        return self._sessions.get(identity)

    def numbers_reserved(self, recipient_id: bytes, until: int, *, now: float) -> None:
        """Answer NumbersWanted: it is durable. What was held for want of numbers goes out."""
        self._latest = now
        if not self._numbers.is_wanting(recipient_id):
            return  # The session was replaced meanwhile, or it is said twice.
        context = self._context_of(recipient_id)
        assert context is not None, "its numbers are not wanted any more when it is removed"
        self._numbers.reserved(context, until, now=now)

    # Commands from above: asking

    def request(
        self,
        identity: bytes,
        message: Message,
        peer: Peer,
        *,
        now: float,
        response_wait: float | None = None,
    ) -> RequestId:
        """See `Stack.request`."""
        context = self._sessions.get(identity)
        if context is None:
            raise LocalProtocolError(f"no session with {identity.hex()}")
        return self._requests.request(identity, context, message, peer, response_wait, now=now)

    def cancel(self, request: RequestId, *, now: float) -> None:
        """See `Stack.cancel`."""
        self._requests.cancel(request, now=now)

    def deregister(self, request: RequestId, *, now: float) -> None:
        """See `Stack.deregister`."""
        self._requests.deregister(request, now=now)

    # Commands from above: answering

    def respond(
        self,
        exchange: ExchangeId,
        message: Message,
        *,
        is_durable: bool,
        opens_observation: bool = False,
        now: float,
    ) -> bool:
        """See `Stack.respond`."""
        self._latest = now
        return self._answers.respond(
            exchange, message, is_durable=is_durable, opens_observation=opens_observation, now=now
        )

    def notify(
        self,
        exchange: ExchangeId,
        message: Message,
        *,
        is_confirmable: bool | None = None,
        is_last: bool = False,
        now: float,
    ) -> None:
        """See `Stack.notify`."""
        self._answers.notify(
            exchange, message, is_confirmable=is_confirmable, is_last=is_last, now=now
        )

    def end_observation(self, exchange: ExchangeId, *, now: float) -> None:
        """See `Stack.end_observation`."""
        self._answers.end_observation(exchange, now=now)

    def is_waiting(self, exchange: ExchangeId) -> bool:
        """Whether that exchange still waits for its answer."""
        return self._answers.is_waiting(exchange)

    def is_observed(self, exchange: ExchangeId) -> bool:
        """Whether an observation that a peer opened by that exchange is open."""
        return self._answers.is_observed(exchange)

    def answer_at_once(self, exchange: ExchangeId, answer: Message, *, now: float) -> None:
        """Answer in place of the program, under a number of our own."""
        self._answers.answer_at_once(exchange, answer, now=now)

    # Inputs from below.

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram. Never raises on bad data."""
        self._latest = now
        if self._is_responder:
            challenge = self._desk.challenge(data, peer, now=now)
            if challenge is not None:
                self._challenges.append((peer, challenge))
                return
        # What comes again is answered again and not opened, or its number would be used up.
        is_plain = not (self._endpoint.is_full or self._endpoint.is_repeated(data, peer, now=now))
        opened = open_request(data, self._contexts) if is_plain else None
        if opened is None:
            self._endpoint.receive_datagram(data, peer, now=now)
        else:
            # It is authentic and new, so the window has it; what is left is its exchange.
            context, inner, binding = opened
            exchange = self._endpoint.admit(inner, peer, now=now)
            if exchange is not None:
                self._accept(exchange, peer, data, context, inner, binding, now)
        self._turn(now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        self._latest = now
        self._endpoint.handle_timer(now=now)
        self._turn(now)

    # Outputs, for the driver to collect.

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams and where they go, in order. Each is handed over once."""
        data = self._endpoint.data_to_send()
        if self._challenges:
            data += self._challenges
            self._challenges = []
        return data

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        self._turn(self._latest)  # A command may have ended an observation.
        events = self._events.copy()
        self._events.clear()
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
                    if self._approaches.owns(event.request):
                        self._approaches.receive(event.request, event.message, now=now)
                    else:
                        self._requests.receive(event, now=now)
                case ExchangeFailed():
                    if self._approaches.owns(event.request):
                        self._approaches.fail(event.request, event.failure.value, now=now)
                    else:
                        self._requests.fail(event.request, event.failure.value)
                case ExchangeStale():
                    self._requests.note_stale(event.request)
                case ExchangeObservationEnded():
                    self._answers.receive_end(event)

    # Requests of peers

    def _receive_request(self, event: RequestReceived, now: float) -> None:
        message = event.message
        if message.option(OptionNumber.OSCORE) is not None:
            if self._is_responder and is_combined(message):
                outcome = self._desk.receive_combined(message, event.peer, now=now)
                if isinstance(outcome, RequestRemains):
                    event = replace(event, message=outcome.message)
                else:
                    self._go_on(outcome, event.exchange, now)
                    return
            self._receive_protected(event, now)
            return
        try:
            path = message.path
        except CoapError as error:
            self._refuse_in_clear(event, error.reason, Code.BAD_REQUEST, now)
            return
        if path == WELL_KNOWN_EDHOC and self._is_responder:
            self._go_on(self._desk.receive(message, event.peer, now=now), event.exchange, now)
        elif path == WELL_KNOWN_CORE:
            self._endpoint.refuse(event.exchange, core_answer(self._links, message), now=now)
        else:
            self._refuse_in_clear(event, "not protected", Code.UNAUTHORIZED, now)

    def _go_on(self, outcome: Message | CredentialWanted, exchange: ExchangeId, now: float) -> None:
        if isinstance(outcome, Message):
            # The desk knows by itself what it answered before.
            self._endpoint.refuse(exchange, outcome, now=now)
        else:
            self._handshake_exchanges[outcome.handshake] = exchange
            self._events.append(outcome)

    def _receive_protected(self, event: RequestReceived, now: float) -> None:
        context = None
        try:
            kid, kid_context = find_kid(event.message)
            context = self._contexts.find(kid, kid_context)
            if context is None:
                self._events.append(StrangeSession(kid, event.peer, event.message))
                raise OscoreError(
                    "security context not found", f"kid {kid.hex()!r}", code=Code.UNAUTHORIZED
                )
            inner, binding = unprotect_request(context, event.message)
        except OscoreError as error:
            if context is not None and error.reason == REPLAY:
                self._look_again(event, context, now)
            self._refuse_in_clear(event, error.reason, error.code, now)
            if context is not None and error.reason == DECRYPTION_FAILED:
                self._count_failure(context)
            return
        self._accept(
            event.exchange, event.peer, event.message.payload, context, inner, binding, now
        )

    def _accept(
        self,
        exchange: ExchangeId,
        peer: Peer,
        ciphertext: bytes,
        context: SecurityContext,
        inner: Message,
        binding: RequestBinding,
        now: float,
    ) -> None:
        """Hand up an authentic, fresh request; `ciphertext` may have more in front of it."""
        is_behind = self._note_accepted(context, ciphertext, binding, now)
        self._answers.admit(exchange, context, binding)
        try:
            check_options(inner.options, UNDERSTOOD_INSIDE)
        except CoapError as error:
            self._refused[error.reason] += 1
            answer = Message.response(Code.BAD_OPTION, payload=error.detail.encode())
            self.answer_at_once(exchange, answer, now=now)
            return
        if self._freshness.is_doubtful(context.recipient_id):
            challenge = self._freshness.challenge(context, inner, binding, now=now)
            if challenge is not None:
                self.answer_at_once(exchange, challenge, now=now)
                return
        self._events.append(
            SecureRequest(
                exchange,
                context.owner,
                context.recipient_id,
                peer,
                inner,
                context.window_state,
                is_behind,
            )
        )

    def _note_accepted(
        self, context: SecurityContext, ciphertext: bytes, binding: RequestBinding, now: float
    ) -> bool:
        """Remember a message; whether it is behind (see SecureRequest)."""
        recipient_id = context.recipient_id
        number = int.from_bytes(binding.request_piv, "big")
        base, bitmap = context.window_state
        is_newest = number == (base + bitmap.bit_length() if bitmap else base - 1)
        newest_at = None if is_newest else self._doubles.newest_at(recipient_id)
        self._doubles.note(recipient_id, number, ciphertext, is_newest=is_newest, now=now)
        return not is_newest and (newest_at is None or now - newest_at > LATE_MAX_S)

    def _look_again(self, event: RequestReceived, context: SecurityContext, now: float) -> None:
        """Tell of a message under a number that was used, unless it is the same or forged."""
        if self._freshness.is_doubtful(context.recipient_id):
            return  # The window of a restored backup proves nothing.
        try:
            inner, binding = open_again(context, event.message)
        except OscoreError:
            return
        number = int.from_bytes(binding.request_piv, "big")
        likeness = self._doubles.likeness(context.recipient_id, number, event.message.payload)
        if likeness is Likeness.SAME:
            return
        newest_at = self._doubles.newest_at(context.recipient_id)
        self._events.append(
            NumberTaken(
                context.owner,
                event.peer,
                inner,
                likeness is Likeness.OTHER,
                self._doubles.remembered_s(now=now),
                math.inf if newest_at is None else now - newest_at,
            )
        )

    def _count_failure(self, context: SecurityContext) -> None:
        """One more forgery in a session: after so many its keys must not be used any more."""
        if not self._is_in_use(context):
            return  # They are not, but for what was asked before.
        count = self._failures.get(context.recipient_id, 0) + 1
        self._failures[context.recipient_id] = count
        if count >= FAILURES_MAX[context.algorithm]:
            self._refused["session ended: too many forgeries"] += 1
            self.remove_session(context.owner)
            self._events.append(SessionWorn(context.owner, context.recipient_id))

    def _refuse_in_clear(self, event: RequestReceived, reason: str, code: int, now: float) -> None:
        """Answer as RFC 8613 section 8.2 says: unprotected, and not to be kept by anyone."""
        self._refused[reason] += 1
        answer = Message.response(code, payload=reason.encode(), max_age=0)
        self._endpoint.refuse(event.exchange, answer, now=now)

    def _require_proposed(self, proposed: SessionProposed) -> None:
        handshake = proposed.handshake
        if (
            not self._approaches.is_proposed(handshake)
            and handshake not in self._handshake_exchanges
        ):
            raise LocalProtocolError(f"handshake {handshake} is unknown or over")

    def _resume(self, held: Held, now: float) -> None:
        """Send a request that waited for message_3 to arrive."""
        context = self._sessions.get(held.identity)
        if context is None:
            self._drop(held, SESSION_ENDED, now)
            return
        try:
            self._numbers.send(context, held, now=now)
        except (LocalProtocolError, TableFull) as error:
            self._drop(held, str(error), now)

    # Small things

    def _drop(self, held: Held, reason: str, now: float) -> None:
        """Give up a message that waits for numbers; who waits for it is told so."""
        if held.exchange is not None:
            self._answers.drop(held.exchange, reason, now=now)
        else:
            self._requests.drop(held, reason, now=now)

    def _is_in_use(self, context: SecurityContext) -> bool:
        return self._contexts.find(context.recipient_id, context.id_context) is context

    def _is_taken(self, recipient_id: bytes) -> bool:
        return self._context_of(recipient_id) is not None

    def _context_of(self, recipient_id: bytes) -> SecurityContext | None:
        """The context in use with that recipient id, whether it has an ID context or not."""
        return self._contexts.find_plain(recipient_id) or self._named.get(recipient_id)


def _no_hops(_: Peer) -> int | None:
    return None
