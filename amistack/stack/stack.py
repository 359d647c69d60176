"""All the layers of one socket: whole requests and responses, protected, however long they are.

What does not fit one message travels in blocks (RFC 7959), inside the protection; what a peer
observes (RFC 7641) is told in whole states. One message each way is `secured`'s.

Spec    RFC 7252, 7641, 7959, 9175 over RFC 8613 over RFC 9528 and 9668; docs/ARCHITECTURE.md
In      commands, `receive_datagram`, `handle_timer`
Out     `data_to_send`, `events`, `next_timer`: collect all three after every call in
Raises  LocalProtocolError and TableFull on commands; nothing on what a peer sends: that is
        answered as the RFCs say and counted by reason in `refused`
Limit   what `secured` and `coap.blockwise` keep
Never   what `secured` never does; hands up a body that is not whole
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from amistack.coap.blockwise import (
    BLOCK_SIZE_MAX,
    BlockServer,
    Complete,
    Delivered,
    RequestTags,
    Transfer,
    is_whole,
)
from amistack.coap.blockwise import Limits as BlockLimits
from amistack.coap.blockwise.block import has_block_options
from amistack.coap.codes import format_code, is_success
from amistack.coap.endpoint import ExchangeId, Limits
from amistack.coap.link_format import Link
from amistack.coap.message import Message
from amistack.coap.timing import Timing
from amistack.errors import CoapError, LocalProtocolError, TableFull
from amistack.machine import Peer
from amistack.session.credentials import AuthenticationKey, Credential, IdCred
from amistack.session.edhoc import EadItem, Message1Facts
from amistack.session.handshakes import Answering, CredentialWanted, Entropy, SessionProposed
from amistack.session.oscore import SecurityContext
from amistack.stack.events import (
    Event,
    ObservationEnded,
    ObservationStale,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
)
from amistack.stack.secured import Secured


@dataclass(slots=True)
class _Asking:
    """A request of ours, whole; and what is under way of it."""

    identity: bytes
    message: Message
    peer: Peer
    response_wait: float | None
    part: RequestId
    """What `secured` calls the part that is under way, or the observation."""
    transfer: Transfer | None = None
    observing: RequestId | None = None
    """The same of the observation, while `part` fetches the rest of a state."""


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
        choose: Callable[[Message1Facts], Answering] | None = None,
        block_size: int = BLOCK_SIZE_MAX,
        block_limits: BlockLimits | None = None,
        hop_count_of: Callable[[Peer], int | None] | None = None,
    ) -> None:
        """`links` are the resources that /.well-known/core tells of.

        Without `is_responder` a handshake that a peer begins is refused. `choose` says with which
        of several keys of ours one is answered; without it that is `key`. `block_size` (octets):
        a longer body goes in blocks of that size. `hop_count_of` is asked before each request how
        many hops of a mesh it has to go, None where that is not known: its first timeout follows
        them. Raises LocalProtocolError where `block_size` is none.
        """
        self._secured = Secured(
            key=key,
            entropy=entropy,
            dice=dice,
            links=links,
            timing=timing,
            limits=limits,
            is_responder=is_responder,
            choose=choose,
            hop_count_of=hop_count_of,
        )
        self._block_size = block_size
        self._blocks = BlockServer(limits=block_limits, block_size=block_size)
        # A peer that crashes forgets which blocks of a body that was not whole it has seen, so a
        # message of a concluded operation may come again there: no tag is used twice in a session.
        self._tags = RequestTags(can_recycle=False)
        self._refused: Counter[str] = Counter()
        self._delivered: dict[ExchangeId, Delivered] = {}
        self._asking: dict[RequestId, _Asking] = {}
        self._parts: dict[RequestId, RequestId] = {}  # of `secured`, to the request they are of
        self._latest = 0.0
        self._events: list[Event] = []

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
        """Begin a handshake with the responder at `peer`, who must own one of `trusted`.

        Or what `believe` gives for what the responder calls itself and sends along in EAD_2.
        `is_combining`: message_3 goes along with the session's requests until one is answered
        (RFC 9668), so that there is no proof before that of who the responder is to us.

        SessionProposed or HandshakeFailed follows. Raises LocalProtocolError if a session in use
        has `c_i` already: a late message must never fit another session than its own; TableFull
        at a bound of the endpoint.
        """
        self._secured.connect(
            peer,
            trusted,
            c_i=c_i,
            now=now,
            ead_1=ead_1,
            believe=believe,
            is_combining=is_combining,
        )
        self._turn(now)

    def provide_credential(
        self, wanted: CredentialWanted, credential: Credential | None, *, now: float
    ) -> None:
        """Answer CredentialWanted: what belongs to that name, or None for nobody.

        Raises LocalProtocolError on a handshake that does not wait for that, or on the credential
        of another name; nothing has changed then.
        """
        self._secured.provide_credential(wanted, credential, now=now)
        self._turn(now)

    def accept_session(
        self, proposed: SessionProposed, identity: bytes, *, reserved_until: int, now: float
    ) -> SecurityContext:
        """Answer SessionProposed: its keys are durable, with numbers below `reserved_until`.

        The session takes the place of an earlier one of that identity: what the peer observed in
        that one has ended; what was asked of it there may still be answered. A request that came
        with the handshake follows as SecureRequest. Raises LocalProtocolError if the proposal is
        answered already, for its keys must not begin at number 0 again.
        """
        self._forget_bodies(identity)
        context = self._secured.accept_session(
            proposed, identity, reserved_until=reserved_until, now=now
        )
        self._turn(now)
        return context

    def reject_session(self, proposed: SessionProposed, *, retry_after: int, now: float) -> None:
        """Answer SessionProposed: it could not be made durable; the peer may come again.

        `retry_after` in s. Raises LocalProtocolError if the proposal is answered already.
        """
        self._secured.reject_session(proposed, retry_after=retry_after, now=now)

    def add_session(
        self, identity: bytes, context: SecurityContext, *, is_window_doubtful: bool = False
    ) -> None:
        """Use `context` with that identity from now on, in place of an earlier one.

        With `is_window_doubtful` its replay window may be older than what was accepted (a
        restored backup): the next request must prove that it is new before it counts.
        Raises LocalProtocolError if its recipient id is that of another identity's session.
        """
        self._forget_bodies(identity)
        self._secured.add_session(identity, context, is_window_doubtful=is_window_doubtful)
        if context.next_sequence_number:
            # An earlier run had fewer operations than numbers, and a tag for each at most.
            self._tags.skip(identity, context.next_sequence_number)

    def remove_session(self, identity: bytes) -> None:
        """Forget the session of that identity, if there is one; its messages are refused.

        What was asked in it fails, and its observations end. An answer that was held for want of
        numbers becomes an unprotected 5.03.
        """
        self._forget_bodies(identity)
        self._secured.remove_session(identity)

    def session_of(self, identity: bytes) -> SecurityContext | None:
        """The security context in use with that identity, or None."""
        return self._secured.session_of(identity)

    def numbers_reserved(self, recipient_id: bytes, until: int, *, now: float) -> None:
        """Answer NumbersWanted: it is durable. What was held for want of numbers goes out."""
        self._secured.numbers_reserved(recipient_id, until, now=now)
        self._turn(now)

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
        """Send a protected request. SecureResponse or RequestFailed follows, unless cancelled.

        With Observe 0 there may be more than one SecureResponse: the last is final, or
        RequestFailed ends it. `response_wait`: s to wait for a response after the acknowledgement.
        Raises LocalProtocolError without a session or on a body that is too long, TableFull at a
        bound.
        """
        transfer = None
        first = message
        if len(message.payload) > self._block_size or has_block_options(message):
            transfer = self._transfer(message, identity)
            first = transfer.first()
        try:
            part = self._secured.request(
                identity, first, peer, now=now, response_wait=response_wait
            )
        except (LocalProtocolError, TableFull):
            if transfer is not None:
                transfer.abandon(is_unsent=True)
            raise
        # A request has the name of its first part.
        self._asking[part] = _Asking(identity, message, peer, response_wait, part, transfer)
        self._parts[part] = part
        self._turn(now)
        return part

    def cancel(self, request: RequestId, *, now: float) -> None:
        """Forget a request: no event names it any more. One that is over already is no error.

        Of an observation the peer is told by a reset of its next notification.
        """
        asking = self._asking.pop(request, None)
        if asking is None:
            return
        self._leave_part(asking, now=now)
        if asking.observing is not None:
            self._parts.pop(asking.observing, None)
            self._secured.cancel(asking.observing, now=now)

    def deregister(self, request: RequestId, *, now: float) -> None:
        """Tell the peer that an observation is over (RFC 7641 3.6). A final event follows.

        Raises LocalProtocolError if that request observes nothing, TableFull at a bound.
        """
        asking = self._asking.get(request)
        if asking is None:
            raise LocalProtocolError(f"request {request} observes nothing")
        self._secured.deregister(asking.observing or asking.part, now=now)
        self._turn(now)

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
        """Answer a SecureRequest.

        `is_durable` says that its replay window is committed: only then the answer may go under
        the request's nonce. Otherwise it takes a number of our own. With `opens_observation`, a
        success that answers Observe 0 begins an observation, which `exchange` names from then on:
        True if it did. False if the peer did not ask, or a bound is reached.

        Raises LocalProtocolError when the exchange is unknown or answered already, or the message
        cannot be sent, TableFull when too many wait for numbers; the exchange still waits for its
        answer then.
        """
        delivered = self._delivered.get(exchange)
        part = message
        if delivered is not None and (
            delivered.terms is not None or len(message.payload) > self._block_size
        ):
            part = self._blocks.respond(delivered, message, now=now)
        try:
            opened = self._secured.respond(
                exchange, part, is_durable=is_durable, opens_observation=opens_observation, now=now
            )
        except LocalProtocolError:
            if not self._secured.is_waiting(exchange):
                self._delivered.pop(exchange, None)
            raise
        if not opened:
            self._delivered.pop(exchange, None)
        self._turn(now)
        return opened

    def notify(
        self,
        exchange: ExchangeId,
        message: Message,
        *,
        is_confirmable: bool | None = None,
        is_last: bool = False,
        now: float,
    ) -> None:
        """Tell an observer the resource's new state, as soon as it may be.

        Of the states that wait only the newest is sent. A message that is no success, or `is_last`,
        ends the observation, and no event follows. Otherwise ObservationEnded says when it is
        over. Raises LocalProtocolError where nothing is observed, or the message cannot be sent;
        TableFull when too many wait for numbers.
        """
        delivered = self._delivered.get(exchange)
        part = message
        if delivered is not None:
            part = self._blocks.respond(delivered, message, now=now)
        ends = is_last or not is_success(message.code)
        try:
            self._secured.notify(
                exchange, part, is_confirmable=is_confirmable, is_last=ends, now=now
            )
        finally:
            if ends or not self._secured.is_observed(exchange):
                self._delivered.pop(exchange, None)
        self._turn(now)

    def end_observation(self, exchange: ExchangeId, *, now: float) -> None:
        """Forget an observer, without a word to it. One that is gone already is no error."""
        self._delivered.pop(exchange, None)
        self._secured.end_observation(exchange, now=now)

    # Inputs from below.

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram. Never raises on bad data."""
        self._secured.receive_datagram(data, peer, now=now)
        self._turn(now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        self._secured.handle_timer(now=now)
        self._blocks.handle_timer(now=now)
        self._turn(now)

    # Outputs, for the driver to collect.

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams and where they go, in order. Each is handed over once."""
        return self._secured.data_to_send()

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        # A session that is removed tells of what it drops; no time passes by that.
        self._turn(self._latest)
        events, self._events = self._events, []
        return events

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        times = (self._secured.next_timer(), self._blocks.next_timer())
        return min((time for time in times if time is not None), default=None)

    @property
    def refused(self) -> Mapping[str, int]:
        """What was refused since the start, by `layer: reason`."""
        blocks = self._blocks.refused + self._refused
        return {
            **self._secured.refused,
            **{f"blocks: {reason}": count for reason, count in blocks.items()},
        }

    @property
    def session_count(self) -> int:
        """Sessions in use."""
        return self._secured.session_count

    @property
    def depths(self) -> dict[str, tuple[int, int]]:
        """Each bounded table's name, its present depth and its bound."""
        return {**self._secured.depths, **self._blocks.depths}

    # From messages to bodies

    def _turn(self, now: float) -> None:
        self._latest = now
        while events := self._secured.events():
            for event in events:
                match event:
                    case SecureRequest():
                        self._receive_request(event, now)
                    case SecureResponse():
                        self._receive_response(event, now)
                    case RequestFailed():
                        self._receive_failure(event, now)
                    case ObservationStale():
                        self._receive_stale(event)
                    case ObservationEnded():
                        self._delivered.pop(event.exchange, None)
                        self._events.append(event)
                    case _:
                        self._events.append(event)

    def _receive_request(self, event: SecureRequest, now: float) -> None:
        outcome = self._blocks.receive(event.identity, event.message, now=now)
        if isinstance(outcome, Message):
            self._secured.answer_at_once(event.exchange, outcome, now=now)
            return
        self._delivered[event.exchange] = outcome
        if outcome.request is not event.message:
            event = replace(event, message=outcome.request)
        self._events.append(event)

    def _receive_response(self, event: SecureResponse, now: float) -> None:
        request = self._parts.get(event.request)
        if request is None:
            return  # It was cancelled.
        asking = self._asking[request]
        if event.is_final:
            del self._parts[event.request]
            if asking.observing == event.request:
                self._leave_part(asking, now=now)
                asking.observing = None
        elif asking.observing is None:
            asking.observing = event.request
        else:
            # A newer state: the rest of the one before is of no use.
            self._leave_part(asking, now=now)
        self._step(request, asking, event.message, now)

    def _step(self, request: RequestId, asking: _Asking, message: Message, now: float) -> None:
        """Take one response to a part: it is the whole, or there is a next part to ask for."""
        if asking.transfer is None:
            if is_whole(message):
                self._conclude(request, asking, message)
                return
            asking.transfer = self._transfer(asking.message, asking.identity)
        try:
            step = asking.transfer.receive(message)
            if isinstance(step, Complete):
                if asking.observing is not None and not is_success(step.response.code):
                    # No state, but why its rest is not to be had; a state that is an error says
                    # so by itself, and ends the observation.
                    self._give_up(request, asking, format_code(step.response.code))
                else:
                    self._conclude(request, asking, step.response)
                return
            part = self._secured.request(
                asking.identity, step, asking.peer, now=now, response_wait=asking.response_wait
            )
        except CoapError as error:
            self._refused[error.reason] += 1
            self._give_up(request, asking, error.reason)
        except (LocalProtocolError, TableFull) as error:
            asking.transfer.abandon()
            self._give_up(request, asking, str(error))
        else:
            asking.part = part
            self._parts[part] = request

    def _conclude(self, request: RequestId, asking: _Asking, message: Message) -> None:
        is_final = asking.observing is None
        if is_final:
            del self._asking[request]
        else:
            asking.transfer = None
            asking.part = asking.observing or asking.part
        self._events.append(
            SecureResponse(request, asking.identity, asking.peer, message, is_final=is_final)
        )

    def _give_up(self, request: RequestId, asking: _Asking, reason: str) -> None:
        """A part failed: so does the request, unless it observes: the next state may come whole."""
        if asking.observing is None:
            del self._asking[request]
            self._events.append(RequestFailed(request, asking.identity, reason))
        else:
            self._refused["rest of a state not had"] += 1
            asking.transfer = None
            asking.part = asking.observing

    def _receive_failure(self, event: RequestFailed, now: float) -> None:
        request = self._parts.pop(event.request, None)
        if request is None:
            return  # It was cancelled.
        asking = self._asking[request]
        if asking.transfer is not None:
            asking.transfer.abandon()
        if asking.observing is not None and asking.observing != event.request:
            self._give_up(request, asking, event.reason)
            return
        if asking.observing is not None:
            self._leave_part(asking, now=now)
        del self._asking[request]
        self._events.append(replace(event, request=request))

    def _receive_stale(self, event: ObservationStale) -> None:
        request = self._parts.get(event.request)
        if request is not None:
            self._events.append(replace(event, request=request))

    def _leave_part(self, asking: _Asking, *, now: float) -> None:
        """Ask for no further part; an observation stays."""
        if asking.transfer is not None:
            asking.transfer.abandon()
            asking.transfer = None
        if asking.part != asking.observing:
            self._parts.pop(asking.part, None)
            self._secured.cancel(asking.part, now=now)
            asking.part = asking.observing or asking.part

    def _transfer(self, message: Message, identity: bytes) -> Transfer:
        return Transfer(message, peer=identity, tags=self._tags, block_size=self._block_size)

    def _forget_bodies(self, identity: bytes) -> None:
        """What is under way of bodies belongs to a session."""
        self._blocks.forget(identity)
        self._tags.forget(identity)
