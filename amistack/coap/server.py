"""Requests of peers: asked once each, answered once each, in the acknowledgement or after it.

Spec    RFC 7252 sections 4.5, 5.2, 5.4 and 5.7 to 5.10; RFC 8974 section 2.2; RFC 7641 section 4.1
Limit   `Limits`: incoming_max, separate_max, remembered_max, token_size_max
Never   knows a resource: an unknown method or path is for the layer above to refuse
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Code, Type, is_response, is_success
from amistack.coap.delivery import Delivery
from amistack.coap.duplicates import Duplicates, Key, Remembered
from amistack.coap.events import Event, ExchangeId, Limits, RequestReceived
from amistack.coap.message import (
    HEADER,
    MESSAGE_SIZE_MAX,
    TOKEN_SIZE_PLAIN_MAX,
    VERSION,
    Message,
    decode_body,
)
from amistack.coap.observe import DEREGISTER, OBSERVABLE, REGISTER, observe_of, with_observe
from amistack.coap.observers import Observers
from amistack.coap.options import OptionNumber, check_options
from amistack.errors import CoapError, LocalProtocolError
from amistack.machine import Peer

_ACK_HEAD: Final = VERSION << 6 | Type.ACK << 4
PROXY_OPTIONS = frozenset({OptionNumber.PROXY_URI, OptionNumber.PROXY_SCHEME})


@dataclass(slots=True)
class Incoming:
    """A request of a peer's that is not answered yet."""

    peer: Peer
    type: Type
    message_id: int
    token: bytes
    remembered: Remembered
    observe: int | None = None
    is_acknowledged: bool = False


class Server:
    """The answering side of an endpoint."""

    def __init__(
        self,
        delivery: Delivery,
        duplicates: Duplicates,
        observers: Observers,
        events: list[Event],
        refused: Counter[str],
        *,
        limits: Limits,
        piggyback_wait: float,
        understood: Container[int],
    ) -> None:
        self.incoming: dict[ExchangeId, Incoming] = {}
        self.busy_count = 0
        self._separate: set[Key] = set()
        self._unacknowledged: deque[tuple[float, ExchangeId]] = deque()
        self._delivery = delivery
        self._duplicates = duplicates
        self._observers = observers
        self._events = events
        self._refused = refused
        self._limits = limits
        self._piggyback_wait = piggyback_wait
        self._understood = understood
        self._next_id = 0

    # Commands from above.

    def respond(
        self, exchange: ExchangeId, message: Message, *, opens_observation: bool, now: float
    ) -> bool:
        """See `Endpoint.respond`."""
        incoming = self.incoming.get(exchange)
        if incoming is None:
            raise LocalProtocolError(f"exchange {exchange} is unknown or answered already")
        if not is_response(message.code):
            raise LocalProtocolError(f"code {message.code:#04x} is not a response's")
        peer, token = incoming.peer, incoming.token
        sequence = None
        if incoming.observe is not None or opens_observation:
            if opens_observation and is_success(message.code) and self.may_observe(exchange):
                sequence = self._observers.next_sequence()
            message = with_observe(message, sequence)
        is_confirmable = incoming.type is Type.CON
        is_piggybacked = is_confirmable and not incoming.is_acknowledged
        if is_piggybacked:
            kind = Type.ACK
        else:
            # As the request came, so the response goes (sections 5.2.2, 5.2.3).
            is_confirmable = is_confirmable and len(self._separate) < self._limits.separate_max
            kind = Type.CON if is_confirmable else Type.NON
        # Raises before anything has changed.
        octets = message.addressed(type=kind, message_id=incoming.message_id, token=token).encode()
        del self.incoming[exchange]
        if incoming.observe == DEREGISTER and is_success(message.code):
            self._observers.deregister(peer, token, now=now)
        observation = None
        if sequence is not None:
            observation = self._observers.open(
                exchange,
                peer,
                token,
                sequence=sequence,
                is_confirmable=incoming.type is Type.CON,
                now=now,
            )
        if is_piggybacked:
            incoming.remembered.reply = octets
            self._delivery.data.append((peer, octets))
            return observation is not None
        conversation = self._delivery.conversation(peer, now=now)
        if observation is not None:
            self._observers.send_first(
                observation, octets, conversation, is_confirmable=is_confirmable, now=now
            )
            return True
        if is_confirmable:
            timing = self._delivery.timing_of(conversation)
            key = self._delivery.send(octets, conversation, peer, None, timing=timing, now=now)
            self._separate.add(key)
        else:
            self._delivery.send_once(octets, conversation, peer)
        self._delivery.touch(conversation, peer, now=now)
        return False

    def respond_with(self, exchange: ExchangeId, code: int, body: bytes, *, now: float) -> None:
        """See `Endpoint.respond_with`."""
        incoming = self.incoming.get(exchange)
        if (
            incoming is None
            or incoming.type is not Type.CON
            or incoming.is_acknowledged
            or incoming.observe is not None
            or len(incoming.token) > TOKEN_SIZE_PLAIN_MAX
        ):
            options, payload = decode_body(body, 0)
            message = Message(code, options=options, payload=payload)
            self.respond(exchange, message, opens_observation=False, now=now)
            return
        token = incoming.token
        octets = HEADER.pack(_ACK_HEAD | len(token), code, incoming.message_id) + token + body
        if len(octets) > MESSAGE_SIZE_MAX:
            raise LocalProtocolError(
                f"message of {len(octets)} octets, at most {MESSAGE_SIZE_MAX} are sent"
            )
        del self.incoming[exchange]
        incoming.remembered.reply = octets
        self._delivery.data.append((incoming.peer, octets))

    def refuse(self, exchange: ExchangeId, message: Message, *, now: float) -> None:
        """See `Endpoint.refuse`."""
        incoming = self.incoming.get(exchange)
        self.respond(exchange, message, opens_observation=False, now=now)
        if incoming is not None:
            self._duplicates.forget(incoming.peer, incoming.message_id)

    def may_observe(self, exchange: ExchangeId) -> bool:
        """See `Endpoint.may_observe`."""
        incoming = self.incoming.get(exchange)
        return (
            incoming is not None
            and incoming.observe == REGISTER
            and self._observers.may_open(incoming.peer, incoming.token)
        )

    # Inputs from below.

    def receive_request(self, message: Message, peer: Peer, *, now: float) -> None:
        """A request, or one that came before."""
        is_full = self.is_full
        exchange = self._begin(message, peer, now=now)
        if exchange is None:
            return
        incoming = self.incoming[exchange]
        is_confirmable = message.type is Type.CON
        if len(message.token) > self._limits.token_size_max:
            # Not a reset: that would say that no long token is understood (RFC 8974 2.2.2).
            self._refused["token too long"] += 1
            self._answer(exchange, Message.response(Code.BAD_REQUEST), now=now)
            return
        if is_full:
            self.busy_count += 1
            answer = Message.response(Code.SERVICE_UNAVAILABLE, max_age=self._limits.busy_max_age)
            self.respond(exchange, answer, opens_observation=False, now=now)
            return
        try:
            check_options(message.options, self._understood)
        except CoapError as error:
            self._refused[error.reason] += 1
            if not is_confirmable:
                del self.incoming[exchange]  # A non-confirmable one is rejected in silence.
                return
            is_proxying = any(option.number in PROXY_OPTIONS for option in message.options)
            code = Code.PROXYING_NOT_SUPPORTED if is_proxying else Code.BAD_OPTION
            answer = Message.response(code, payload=error.detail.encode())
            self._answer(exchange, answer, now=now)
            return
        if message.code in OBSERVABLE:
            incoming.observe = observe_of(message)
        if incoming.observe == DEREGISTER and message.option(OptionNumber.OSCORE) is None:
            # A protected one counts when the layer above has opened it, and answers.
            self._observers.deregister(peer, message.token, now=now)
        if is_confirmable:
            self._unacknowledged.append((now + self._piggyback_wait, exchange))
        self._events.append(RequestReceived(exchange, peer, message))

    def admit(self, message: Message, peer: Peer, *, now: float) -> ExchangeId | None:
        """See `Endpoint.admit`."""
        exchange = self._begin(message, peer, now=now)
        if exchange is not None and message.type is Type.CON:
            self._unacknowledged.append((now + self._piggyback_wait, exchange))
        return exchange

    @property
    def is_full(self) -> bool:
        """See `Endpoint.is_full`."""
        return len(self.incoming) >= self._limits.incoming_max

    def _begin(self, message: Message, peer: Peer, *, now: float) -> ExchangeId | None:
        """A new exchange, or None for a message that came before, which is dealt with then."""
        is_confirmable = message.type is Type.CON
        earlier = self._duplicates.find(peer, message.message_id, now=now)
        if earlier is not None:
            # A repetition: the same answer if there is one, else the one that is being made.
            if earlier.reply is not None and is_confirmable:
                self._delivery.data.append((peer, earlier.reply))
            return None
        remembered = self._duplicates.remember(
            peer,
            message.message_id,
            now=now,
            lifetime=self._delivery.lifetime_of(peer, is_confirmable=is_confirmable),
        )
        self._next_id += 1
        exchange = ExchangeId(self._next_id)
        self.incoming[exchange] = Incoming(
            peer, message.type, message.message_id, message.token, remembered
        )
        return exchange

    def receive_acknowledgement(self, key: Key, *, now: float) -> None:
        """A separate response has arrived, or the peer gave up on it."""
        self._delivery.take_acknowledged(key, now=now)
        self.forget(key)

    def forget(self, key: Key) -> None:
        """Nothing more is to be done about a separate response."""
        self._separate.discard(key)
        self._delivery.sent.pop(key, None)

    def handle_timer(self, *, now: float) -> None:
        """Acknowledge what was not answered soon enough."""
        waiting = self._unacknowledged
        while waiting and waiting[0][0] <= now:
            _, exchange = waiting.popleft()
            incoming = self.incoming.get(exchange)
            if incoming is not None:
                incoming.is_acknowledged = True
                incoming.remembered.reply = self._delivery.send_empty(
                    Type.ACK, incoming.message_id, incoming.peer
                )

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        waiting = self._unacknowledged
        while waiting and waiting[0][1] not in self.incoming:
            waiting.popleft()
        return waiting[0][0] if waiting else None

    def _answer(self, exchange: ExchangeId, message: Message, *, now: float) -> None:
        self.refuse(exchange, message, now=now)
