"""CoAP's message layer and request/response layer for every peer of a socket, without I/O.

Spec    RFC 7252 sections 4 and 5: confirmable and non-confirmable messages, retransmission,
        deduplication, piggybacked and separate responses, NSTART, PROBING_RATE, reset, ping;
        RFC 7641 (Observe, both roles), RFC 8132 (its methods), RFC 8974 (long tokens of peers)
In      commands, `receive_datagram`, `handle_timer`
Out     `data_to_send`, `events`, `next_timer`: collect all three after every call in
Raises  `TableFull` and `LocalProtocolError` on commands; nothing on what comes in: a peer's mistake
        is answered as the RFC says (reset, 4.02, or silence) and counted by reason in `refused`
Limit   `Limits`: every table and backlog has a bound, and what happens there is said beside it.
        A peer that was asked costs some 250 octets until it is forgotten, 500 on a slow path; a
        request in flight 1 kB; a request answered 300 and its answer, while it is remembered; an
        idle observation 900. The path to a peer has its own timeouts while anything is under way
        with it, and for an EXCHANGE_LIFETIME after (`amistack.coap.path`)
Never   reads a clock, opens a message's protection, decides what a resource answers, or sends to
        or answers a multicast address (RFC 7252 section 8)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Container

from amistack.coap.client import Client
from amistack.coap.codes import Type, is_request
from amistack.coap.delivery import Delivery
from amistack.coap.duplicates import Duplicates
from amistack.coap.events import (
    Ending,
    Event,
    ExchangeId,
    Failure,
    Limits,
    ObservationEnded,
    ObservationStale,
    RequestFailed,
    RequestId,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.message import HEADER, VERSION, Message
from amistack.coap.observers import Observation, Observers
from amistack.coap.options import UNDERSTOOD
from amistack.coap.outgoing import Outgoing
from amistack.coap.server import Server
from amistack.coap.timing import Timing
from amistack.errors import CoapError
from amistack.machine import Peer

__all__ = [
    "Ending",
    "Endpoint",
    "Event",
    "ExchangeId",
    "Failure",
    "Limits",
    "ObservationEnded",
    "ObservationStale",
    "RequestFailed",
    "RequestId",
    "RequestReceived",
    "ResponseReceived",
]


class Endpoint:
    """The CoAP machine of one socket: client and server at once, for all its peers."""

    def __init__(
        self,
        *,
        dice: random.Random,
        timing: Timing | None = None,
        limits: Limits | None = None,
        piggyback_wait: float = 1.0,
        response_wait: float = 60.0,
        understood: Container[int] = UNDERSTOOD,
    ) -> None:
        """`timing`: what holds for a path where nothing was measured; never shorter than that.

        `piggyback_wait`: s until an unanswered request gets its empty acknowledgement.
        `response_wait`: s to wait for a response after the acknowledgement of a request.
        `understood`: critical options that are handed up; a resource that does not act on one of
        them (If-Match, say) refuses it itself, with `check_options`.
        """
        self.timing = timing or Timing()
        self.limits = limits or Limits()
        self.refused: Counter[str] = Counter()
        self._events: list[Event] = []
        self._delivery = Delivery(
            dice, self.timing, conversations_max=self.limits.conversations_max
        )
        self._duplicates = Duplicates(count_max=self.limits.remembered_max)
        self._observers = Observers(self._delivery, self._events, self.limits)
        self._client = Client(
            self._delivery,
            self._duplicates,
            self._events,
            self.refused,
            dice=dice,
            limits=self.limits,
            response_wait=response_wait,
            understood=understood,
        )
        self._server = Server(
            self._delivery,
            self._duplicates,
            self._observers,
            self._events,
            self.refused,
            limits=self.limits,
            piggyback_wait=piggyback_wait,
            understood=understood,
        )

    # Commands from above: asking

    def request(
        self,
        message: Message,
        peer: Peer,
        *,
        now: float,
        is_confirmable: bool = True,
        timing: Timing | None = None,
        response_wait: float | None = None,
        hop_count: int | None = None,
    ) -> RequestId:
        """Send `message` to `peer`, at once or when its turn comes.

        Exactly one ResponseReceived or RequestFailed follows, unless it is cancelled. A GET or
        FETCH with Observe 0 may be answered by more than one ResponseReceived: the last one, or
        RequestFailed, ends it, and so does `cancel`.
        `timing` wins over what was measured on the path; `hop_count` is what the path is known
        to have, and raises its shortest timeout.
        Raises TableFull when a bound of `Limits` is reached, LocalProtocolError when the message
        cannot be written; nothing is sent then.
        """
        return self._client.request(
            message,
            peer,
            now=now,
            is_confirmable=is_confirmable,
            timing=timing,
            response_wait=response_wait,
            hop_count=hop_count,
        )

    def cancel(self, request: RequestId, *, now: float) -> None:
        """Forget a request: no event names it any more. One that is over already is no error.

        Of an observation the peer is not told at once: its next notification is answered with a
        reset (RFC 7641 section 3.6).
        """
        self._client.cancel(request, now=now)

    def register_again(
        self, request: RequestId, message: Message | None = None, *, now: float
    ) -> None:
        """Register an open observation once more, under its token (RFC 7641 section 3.3.1).

        `message` is the request, without one the same as before; it gets Observe 0. Answered by
        events that name `request`, like the first time. Raises LocalProtocolError where no
        observation is open, where one asks again already, and for a protected request without a
        message: it needs a new number; TableFull when the peer's backlog is full.
        """
        self._client.register_again(request, message, now=now)

    def deregister(self, request: RequestId, message: Message | None = None, *, now: float) -> None:
        """Tell the peer that an open observation is over (RFC 7641 section 3.6).

        Like `register_again`, with Observe 1. A final ResponseReceived or RequestFailed follows.
        """
        self._client.deregister(request, message, now=now)

    def expect_notification(self, request: RequestId, *, within: float, now: float) -> None:
        """Give ObservationStale unless a notification comes in `within` s and 5 to 15 s more.

        For protected observations: only the layer above knows their Max-Age. Others have theirs
        kept here. Raises LocalProtocolError where no observation is open.
        """
        self._client.expect_notification(request, within=within, now=now)

    # Commands from above: answering

    def respond(
        self,
        exchange: ExchangeId,
        message: Message,
        *,
        opens_observation: bool = False,
        now: float,
    ) -> bool:
        """Answer a peer's request: piggybacked if its acknowledgement is still owed.

        With `opens_observation`, a success that answers Observe 0 begins an observation, which
        `exchange` names from now on: `notify`. True if it did. False if the peer did not ask, the
        answer is no success, or a bound of `Limits` is reached: the response has no Observe then.
        Observe is written here, whatever `message` says.

        Raises LocalProtocolError when the exchange is unknown or answered already, or the message
        cannot be written; the exchange then still waits for its answer.
        """
        return self._server.respond(exchange, message, opens_observation=opens_observation, now=now)

    def respond_with(self, exchange: ExchangeId, code: int, body: bytes, *, now: float) -> None:
        """`respond` in octets: `body` is all that stands behind the token, and no Observe in it.

        It must be what a message of that code has there; nobody looks at it again.
        """
        self._server.respond_with(exchange, code, body, now=now)

    def refuse(self, exchange: ExchangeId, message: Message, *, now: float) -> None:
        """`respond` to what proved nothing and changed nothing, and forget that it came.

        Its source may be false: it must not stand in the way of a message of the true peer's that
        has the same id. If it comes again it is judged again.
        """
        self._server.refuse(exchange, message, now=now)

    def may_observe(self, exchange: ExchangeId) -> bool:
        """Whether `respond` with `opens_observation` and a success would open an observation."""
        return self._server.may_observe(exchange)

    def notify(
        self,
        exchange: ExchangeId,
        message: Message,
        *,
        is_confirmable: bool | None = None,
        is_last: bool = False,
        now: float,
    ) -> None:
        """Tell an observer the resource's new state, at once or when its turn comes.

        Of the states that wait only the newest is sent. `is_confirmable`: without it, as the
        registration was; even where False, some are made confirmable to see that the observer
        is still there. A message that is no success, or `is_last`, ends the observation, is sent
        without Observe, and no event follows. Otherwise ObservationEnded says when it is over.
        Raises LocalProtocolError where nothing is observed, or the message cannot be written.
        """
        self._observers.notify(
            exchange, message, is_confirmable=is_confirmable, is_last=is_last, now=now
        )

    def end_observation(self, exchange: ExchangeId, *, now: float) -> None:
        """Forget an observer, without a word to it. One that is gone already is no error."""
        self._observers.end(exchange, now=now)

    # Inputs from below.

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram. Never raises on bad data."""
        try:
            message = Message.decode(data)
        except CoapError as error:
            self.refused[error.reason] += 1
            self._reset_if_confirmable(data, peer)
            return
        kind = message.type
        if self._client.is_probing:
            self._client.note_life(peer, now=now)
        if kind is Type.ACK or kind is Type.RST:
            self._receive_acknowledgement(message, peer, now=now)
        elif is_request(message.code):
            self._server.receive_request(message, peer, now=now)
        elif message.is_empty:
            if kind is Type.CON:  # A ping (section 4.3).
                self._delivery.send_empty(Type.RST, message.message_id, peer)
            else:
                self.refused["empty message that asks nothing"] += 1
        else:
            self._client.receive_response(message, peer, now=now)

    @property
    def has_observers(self) -> bool:
        """Whether any peer observes."""
        return len(self._observers) > 0

    @property
    def is_full(self) -> bool:
        """Whether a further request would be told to come later."""
        return self._server.is_full

    def is_repeated(self, data: bytes, peer: Peer, *, now: float) -> bool:
        """Whether a datagram has the message id of a message that came before."""
        message_id = int.from_bytes(data[2:4], "big")
        return self._duplicates.find(peer, message_id, now=now) is not None

    def admit(self, message: Message, peer: Peer, *, now: float) -> ExchangeId | None:
        """Take a request that another layer has read already: what to answer it as. No event.

        It has no options for this layer. None if it repeats an earlier message, which is then
        answered as that was. There must be room (`is_full`).
        """
        if self._client.is_probing:
            self._client.note_life(peer, now=now)
        return self._server.admit(message, peer, now=now)

    def handle_timer(self, *, now: float) -> None:
        """Acknowledge, send again and give up whatever is due."""
        delivery = self._delivery
        again, given_up = delivery.retransmission.take_due(now=now)
        for key, datagram in again:
            owner = delivery.sent.get(key)
            if isinstance(owner, Observation) and self._observers.take_newer(owner, key, now=now):
                continue
            delivery.data.append((key[0], datagram))
        for key in given_up:
            delivery.note_silence(key[0])
            owner = delivery.sent.get(key)
            if isinstance(owner, Outgoing):
                self._client.give_up(owner, now=now)
            elif isinstance(owner, Observation):
                self._observers.give_up(owner, now=now)
            else:
                self._server.forget(key)
        self._server.handle_timer(now=now)
        self._client.handle_timer(now=now)
        self._observers.handle_timer(now=now)
        self._duplicates.forget_expired(now=now)
        delivery.forget_idle(now=now)

    # Outputs, for the driver to collect.

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams and where they go, in order. Each is handed over once."""
        data, self._delivery.data = self._delivery.data, []
        return data

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        events = self._events.copy()
        self._events.clear()
        return events

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        soonest = self._delivery.retransmission.next_timer()
        for due in (
            self._server.next_timer(),
            self._client.next_timer(),
            self._observers.next_timer(),
        ):
            if due is not None and (soonest is None or due < soonest):
                soonest = due
        return soonest

    @property
    def busy_count(self) -> int:
        """Requests that were put off with 5.03, since the start."""
        return self._server.busy_count

    @property
    def depths(self) -> dict[str, tuple[int, int]]:
        """Each bounded table's name, its present depth and its bound."""
        return {
            "requests under way": (len(self._client.outgoing), self.limits.outgoing_max),
            "requests to answer": (len(self._server.incoming), self.limits.incoming_max),
            "messages remembered": (len(self._duplicates), self.limits.remembered_max),
            "observations": (self._client.observing_count, self.limits.observing_max),
            "observers": (len(self._observers), self.limits.observers_max),
        }

    # What comes back

    def _receive_acknowledgement(self, message: Message, peer: Peer, *, now: float) -> None:
        if is_request(message.code) or (message.type is Type.RST and not message.is_empty):
            self.refused["request or response where none may be"] += 1
            return
        key = (peer, message.message_id)
        if key not in self._delivery.sent:
            self.refused["unknown message id"] += 1
            return
        owner = self._delivery.sent[key]
        if isinstance(owner, Outgoing):
            self._client.receive_acknowledgement(owner, message, key, now=now)
        elif not message.is_empty:
            self.refused["request or response where none may be"] += 1
        elif isinstance(owner, Observation):
            self._observers.receive_acknowledgement(owner, message, key, now=now)
        else:
            self._server.receive_acknowledgement(key, now=now)

    def _reset_if_confirmable(self, data: bytes, peer: Peer) -> None:
        """Reject what looks like a confirmable message of our version (section 4.2)."""
        if len(data) < HEADER.size:
            return
        first, _, message_id = HEADER.unpack_from(data)
        if first >> 6 == VERSION and first >> 4 & 3 == Type.CON:
            self._delivery.send_empty(Type.RST, message_id, peer)
