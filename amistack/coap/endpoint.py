"""CoAP's message layer and request/response layer for every peer of a socket, without I/O.

Spec    RFC 7252 sections 4 and 5.2: confirmable and non-confirmable messages, retransmission,
        deduplication, piggybacked and separate responses, NSTART, reset, ping
In      commands (`request`, `respond`, `cancel`), `receive_datagram`, `handle_timer`
Out     `data_to_send`, `events`, `next_timer`: collect all three after every call in
Raises  `TableFull` and `LocalProtocolError` on commands; nothing on what comes in: a peer's mistake
        is answered as the RFC says (reset, 4.02, or silence) and counted by reason in `refused`
Limit   `Limits`: every table and backlog has a bound, and what happens there is said beside it
Never   reads a clock, opens a message's protection, or decides what a resource answers
"""

from __future__ import annotations

import enum
import heapq
import random
from collections import Counter, deque
from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Final, NewType

from amistack.coap.codes import Code, Type, is_request, is_response
from amistack.coap.duplicates import Duplicates, Key, Remembered
from amistack.coap.message import HEADER, VERSION, Message
from amistack.coap.options import UNDERSTOOD, OptionNumber, check_options
from amistack.coap.retransmission import QUEUE_SLACK, Retransmission
from amistack.coap.timing import Timing
from amistack.errors import CoapError, LocalProtocolError, TableFull
from amistack.machine import Peer

RequestId = NewType("RequestId", int)
"""One request of ours, for as long as it is under way."""

ExchangeId = NewType("ExchangeId", int)
"""One request of a peer's, until it is answered."""

TOKEN_SIZE: Final = 2
PROXY_OPTIONS: Final = frozenset({OptionNumber.PROXY_URI, OptionNumber.PROXY_SCHEME})


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of an endpoint's tables, and what happens at each."""

    nstart: int = 1
    """Confirmable requests in flight to one peer; more wait in its backlog (RFC 7252 4.7)."""
    backlog_max: int = 8
    """Requests waiting for one peer; `request` raises TableFull beyond."""
    outgoing_max: int = 16_384
    """Requests of ours in all, in flight and waiting; `request` raises TableFull beyond."""
    incoming_max: int = 4_096
    """Requests of peers that wait for an answer; a further one gets 5.03 with Max-Age."""
    separate_max: int = 4_096
    """Separate responses that wait for their acknowledgement; a further one is sent once, NON."""
    remembered_max: int = 65_536
    """Messages remembered against duplicates; the oldest is forgotten beyond."""
    conversations_max: int = 65_536
    """Peers whose message ids are counted; beyond, one with nothing under way is forgotten."""
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
    """A request of ours was answered. No further event names this request."""

    request: RequestId
    peer: Peer
    message: Message


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


Event = RequestReceived | ResponseReceived | RequestFailed


@dataclass(slots=True)
class _Outgoing:
    """A request of ours."""

    id: RequestId
    peer: Peer
    message: Message
    timing: Timing
    response_wait: float
    is_sent: bool = False


@dataclass(slots=True)
class _Incoming:
    """A request of a peer's that is not answered yet."""

    peer: Peer
    type: Type
    message_id: int
    token: bytes
    remembered: Remembered
    is_acknowledged: bool = False


@dataclass(slots=True)
class _Conversation:
    """What is kept about one peer while anything is under way with it, and a while after."""

    next_message_id: int
    idle_since: float
    is_listed: bool = False
    in_flight: int = 0
    backlog: deque[_Outgoing] = field(default_factory=deque)


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
        """`piggyback_wait`: s until an unanswered request gets its empty acknowledgement.

        `response_wait`: s to wait for a response after the acknowledgement of a request.
        """
        self.timing = timing or Timing()
        self.limits = limits or Limits()
        self.refused: Counter[str] = Counter()
        self.busy_count = 0
        self._dice = dice
        self._piggyback_wait = piggyback_wait
        self._response_wait = response_wait
        self._understood = understood

        self._outgoing: dict[tuple[Peer, bytes], _Outgoing] = {}
        self._tokens: dict[RequestId, tuple[Peer, bytes]] = {}
        self._request_keys: dict[Key, _Outgoing] = {}
        self._awaiting: list[tuple[float, RequestId]] = []
        self._retransmission = Retransmission(dice)
        self._separate: set[Key] = set()
        self._conversations: dict[Peer, _Conversation] = {}
        self._idle: deque[tuple[float, Peer]] = deque()

        self._incoming: dict[ExchangeId, _Incoming] = {}
        self._unacknowledged: deque[tuple[float, ExchangeId]] = deque()
        self._duplicates = Duplicates(count_max=self.limits.remembered_max)
        self._lifetimes = {
            Type.CON: self.timing.exchange_lifetime,
            Type.NON: self.timing.non_lifetime,
        }

        self._next_token = dice.randrange(1 << 8 * TOKEN_SIZE)
        self._next_id = 0
        self._data: list[tuple[Peer, bytes]] = []
        self._events: list[Event] = []

    # Commands from above.

    def request(
        self,
        message: Message,
        peer: Peer,
        *,
        now: float,
        is_confirmable: bool = True,
        timing: Timing | None = None,
        response_wait: float | None = None,
    ) -> RequestId:
        """Send `message` to `peer`, at once or when its turn comes.

        Exactly one ResponseReceived or RequestFailed follows, unless it is cancelled.
        Raises TableFull when a bound of `Limits` is reached, LocalProtocolError when the message
        cannot be written; nothing is sent then.
        """
        if not is_request(message.code):
            raise LocalProtocolError(f"code {message.code:#04x} is not a request's")
        if len(self._outgoing) >= self.limits.outgoing_max:
            raise TableFull(f"{self.limits.outgoing_max} requests are under way already")
        token = self._free_token(peer)
        header = message.addressed(
            type=Type.CON if is_confirmable else Type.NON, message_id=0, token=token
        )
        header.encode()  # Raises now what would raise later, out of a timer.
        conversation = self._conversation(peer, now=now)
        waits = conversation.in_flight >= self.limits.nstart
        if waits and len(conversation.backlog) >= self.limits.backlog_max:
            raise TableFull(f"{self.limits.backlog_max} requests wait for this peer already")
        outgoing = _Outgoing(
            RequestId(self._take_id()),
            peer,
            header,
            timing or self.timing,
            self._response_wait if response_wait is None else response_wait,
        )
        self._outgoing[(peer, token)] = outgoing
        self._tokens[outgoing.id] = (peer, token)
        if waits:
            conversation.backlog.append(outgoing)
        else:
            self._start(conversation, outgoing, now=now)
        return outgoing.id

    def cancel(self, request: RequestId, *, now: float) -> None:
        """Forget a request: no event names it any more. One that is over already is no error."""
        key = self._tokens.get(request)
        if key is not None:
            self._finish(self._outgoing[key], now=now)

    def respond(self, exchange: ExchangeId, message: Message, *, now: float) -> None:
        """Answer a peer's request: piggybacked if its acknowledgement is still owed.

        Raises LocalProtocolError when the exchange is unknown or answered already, or the message
        cannot be written; the exchange then still waits for its answer.
        """
        incoming = self._incoming.get(exchange)
        if incoming is None:
            raise LocalProtocolError(f"exchange {exchange} is unknown or answered already")
        if not is_response(message.code):
            raise LocalProtocolError(f"code {message.code:#04x} is not a response's")
        if incoming.type is Type.CON and not incoming.is_acknowledged:
            datagram = message.addressed(
                type=Type.ACK, message_id=incoming.message_id, token=incoming.token
            ).encode()
            del self._incoming[exchange]
            incoming.remembered.reply = datagram
            self._data.append((incoming.peer, datagram))
            return
        # As the request came, so the response goes (sections 5.2.2, 5.2.3).
        is_confirmable = (
            incoming.type is Type.CON and len(self._separate) < self.limits.separate_max
        )
        addressed = message.addressed(
            type=Type.CON if is_confirmable else Type.NON, message_id=0, token=incoming.token
        )
        addressed.encode()  # Raises before anything has changed.
        del self._incoming[exchange]
        conversation = self._conversation(incoming.peer, now=now)
        message_id = self._take_message_id(conversation, incoming.peer)
        self._touch(conversation, incoming.peer, now=now)
        datagram = replace(addressed, message_id=message_id).encode()
        if is_confirmable:
            key = (incoming.peer, message_id)
            self._separate.add(key)
            self._retransmission.add(key, datagram, self.timing, now=now)
        self._data.append((incoming.peer, datagram))

    # Inputs from below.

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram. Never raises on bad data."""
        try:
            message = Message.decode(data)
        except CoapError as error:
            self.refused[error.reason] += 1
            self._reset_if_confirmable(data, peer)
            return
        if message.type is Type.ACK or message.type is Type.RST:
            self._receive_acknowledgement(message, peer, now=now)
        elif is_request(message.code):
            self._receive_request(message, peer, now=now)
        elif message.is_empty:
            if message.type is Type.CON:  # A ping (section 4.3).
                self._send_empty(Type.RST, message.message_id, peer)
            else:
                self.refused["empty message that asks nothing"] += 1
        else:
            self._receive_separate_response(message, peer, now=now)

    def handle_timer(self, *, now: float) -> None:
        """Acknowledge, send again and give up whatever is due."""
        again, given_up = self._retransmission.take_due(now=now)
        for (peer, _), datagram in again:
            self._data.append((peer, datagram))
        for key in given_up:
            self._separate.discard(key)
            outgoing = self._request_keys.get(key)
            if outgoing is not None:
                self._fail(outgoing, Failure.NO_ACKNOWLEDGEMENT, now=now)
        while self._unacknowledged and self._unacknowledged[0][0] <= now:
            _, exchange = self._unacknowledged.popleft()
            incoming = self._incoming.get(exchange)
            if incoming is not None:
                incoming.is_acknowledged = True
                datagram = self._send_empty(Type.ACK, incoming.message_id, incoming.peer)
                incoming.remembered.reply = datagram
        while self._awaiting and self._awaiting[0][0] <= now:
            _, request = heapq.heappop(self._awaiting)
            token_key = self._tokens.get(request)
            if token_key is not None:
                self._fail(self._outgoing[token_key], Failure.NO_RESPONSE, now=now)
        self._duplicates.forget_expired(now=now)
        self._forget_idle_conversations(now=now)

    # Outputs, for the driver to collect.

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams and where they go, in order. Each is handed over once."""
        data, self._data = self._data, []
        return data

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        events, self._events = self._events, []
        return events

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        while self._unacknowledged and self._unacknowledged[0][1] not in self._incoming:
            self._unacknowledged.popleft()
        times = []
        if (due := self._retransmission.next_timer()) is not None:
            times.append(due)
        if self._unacknowledged:
            times.append(self._unacknowledged[0][0])
        while self._awaiting and self._awaiting[0][1] not in self._tokens:
            heapq.heappop(self._awaiting)
        if self._awaiting:
            times.append(self._awaiting[0][0])
        return min(times) if times else None

    @property
    def depths(self) -> dict[str, tuple[int, int]]:
        """Each bounded table's name, its present depth and its bound."""
        return {
            "requests under way": (len(self._outgoing), self.limits.outgoing_max),
            "requests to answer": (len(self._incoming), self.limits.incoming_max),
            "messages remembered": (len(self._duplicates), self.limits.remembered_max),
        }

    # Requests of peers

    def _receive_request(self, message: Message, peer: Peer, *, now: float) -> None:
        earlier = self._duplicates.find(peer, message.message_id, now=now)
        if earlier is not None:
            # A repetition: the same answer if there is one, else the one that is being made.
            if earlier.reply is not None and message.type is Type.CON:
                self._data.append((peer, earlier.reply))
            return
        remembered = self._duplicates.remember(
            peer, message.message_id, now=now, lifetime=self._lifetimes[message.type]
        )
        exchange = ExchangeId(self._take_id())
        incoming = _Incoming(peer, message.type, message.message_id, message.token, remembered)
        if len(self._incoming) >= self.limits.incoming_max:
            self.busy_count += 1
            self._incoming[exchange] = incoming
            self.respond(
                exchange,
                Message.response(Code.SERVICE_UNAVAILABLE, max_age=self.limits.busy_max_age),
                now=now,
            )
            return
        self._incoming[exchange] = incoming
        try:
            check_options(message.options, self._understood)
        except CoapError as error:
            self.refused[error.reason] += 1
            is_proxying = any(option.number in PROXY_OPTIONS for option in message.options)
            if message.type is Type.CON:
                code = Code.PROXYING_NOT_SUPPORTED if is_proxying else Code.BAD_OPTION
                self.respond(
                    exchange, Message.response(code, payload=error.detail.encode()), now=now
                )
            else:
                del self._incoming[exchange]  # A non-confirmable one is rejected in silence.
            return
        if message.type is Type.CON:
            self._unacknowledged.append((now + self._piggyback_wait, exchange))
        self._events.append(RequestReceived(exchange, peer, message))

    # Answers to our requests, and to our separate responses

    def _receive_acknowledgement(self, message: Message, peer: Peer, *, now: float) -> None:
        key = (peer, message.message_id)
        if is_request(message.code) or (message.type is Type.RST and not message.is_empty):
            self.refused["request or response where none may be"] += 1
            return
        outgoing = self._request_keys.get(key)
        if outgoing is None:
            # It may end a separate response of ours; a reset means that the peer gave up on it.
            self._separate.discard(key)
            if not self._retransmission.remove(key):
                self.refused["unknown message id"] += 1
        elif message.type is Type.RST:
            self._fail(outgoing, Failure.RESET, now=now)
        elif message.is_empty:
            if self._retransmission.remove(key):
                # Never success: the response is still to come (section 5.2.2).
                self._await_response(outgoing, now=now)
        elif message.token != outgoing.message.token:
            self.refused["token of another request"] += 1
        else:
            self._succeed(outgoing, message, now=now)

    def _receive_separate_response(self, message: Message, peer: Peer, *, now: float) -> None:
        outgoing = self._outgoing.get((peer, message.token))
        if message.type is Type.CON:
            earlier = self._duplicates.find(peer, message.message_id, now=now)
            if earlier is not None and earlier.reply is not None:
                self._data.append((peer, earlier.reply))
                return
            is_wanted = outgoing is not None and outgoing.is_sent and self._is_readable(message)
            kind = Type.ACK if is_wanted else Type.RST
            remembered = self._duplicates.remember(
                peer, message.message_id, now=now, lifetime=self._lifetimes[Type.CON]
            )
            remembered.reply = self._send_empty(kind, message.message_id, peer)
        if outgoing is None or not outgoing.is_sent:
            self.refused["response to no request"] += 1
            return
        self._succeed(outgoing, message, now=now)

    def _is_readable(self, response: Message) -> bool:
        """False for a response that must be rejected for its options (section 5.4.1)."""
        try:
            check_options(response.options, self._understood)
        except CoapError:
            return False
        return True

    def _succeed(self, outgoing: _Outgoing, message: Message, *, now: float) -> None:
        try:
            check_options(message.options, self._understood)
        except CoapError as error:
            # Such a response is rejected, which leaves the request without one (section 5.4.1).
            self.refused[error.reason] += 1
            self._fail(outgoing, Failure.NO_RESPONSE, now=now)
            return
        self._events.append(ResponseReceived(outgoing.id, outgoing.peer, message))
        self._finish(outgoing, now=now)

    def _fail(self, outgoing: _Outgoing, failure: Failure, *, now: float) -> None:
        self._events.append(RequestFailed(outgoing.id, outgoing.peer, failure))
        self._finish(outgoing, now=now)

    def _finish(self, outgoing: _Outgoing, *, now: float) -> None:
        """Forget a request of ours and start the next one of its peer's backlog."""
        del self._outgoing[(outgoing.peer, outgoing.message.token)]
        del self._tokens[outgoing.id]
        conversation = self._conversations[outgoing.peer]
        if not outgoing.is_sent:
            conversation.backlog.remove(outgoing)
            return
        key = (outgoing.peer, outgoing.message.message_id)
        self._request_keys.pop(key, None)
        self._retransmission.remove(key)
        conversation.in_flight -= 1
        if conversation.backlog:
            self._start(conversation, conversation.backlog.popleft(), now=now)
        else:
            self._touch(conversation, outgoing.peer, now=now)

    def _start(self, conversation: _Conversation, outgoing: _Outgoing, *, now: float) -> None:
        message_id = self._take_message_id(conversation, outgoing.peer)
        message = outgoing.message.addressed(
            type=outgoing.message.type, message_id=message_id, token=outgoing.message.token
        )
        datagram = message.encode()
        outgoing.message = message
        outgoing.is_sent = True
        conversation.in_flight += 1
        key = (outgoing.peer, message_id)
        self._request_keys[key] = outgoing
        if message.type is Type.CON:
            self._retransmission.add(key, datagram, outgoing.timing, now=now)
        else:
            self._await_response(outgoing, now=now)
        self._data.append((outgoing.peer, datagram))

    def _await_response(self, outgoing: _Outgoing, *, now: float) -> None:
        if len(self._awaiting) >= QUEUE_SLACK + 2 * len(self._tokens):
            # Most of it is about requests long answered.
            self._awaiting = [item for item in self._awaiting if item[1] in self._tokens]
            heapq.heapify(self._awaiting)
        heapq.heappush(self._awaiting, (now + outgoing.response_wait, outgoing.id))

    # Small things

    def _send_empty(self, type: Type, message_id: int, peer: Peer) -> bytes:  # noqa: A002
        datagram = HEADER.pack(VERSION << 6 | type << 4, Code.EMPTY, message_id)
        self._data.append((peer, datagram))
        return datagram

    def _reset_if_confirmable(self, data: bytes, peer: Peer) -> None:
        """Reject what looks like a confirmable message of our version (section 4.2)."""
        if len(data) < HEADER.size:
            return
        first, _, message_id = HEADER.unpack_from(data)
        if first >> 6 == VERSION and first >> 4 & 3 == Type.CON:
            self._send_empty(Type.RST, message_id, peer)

    def _conversation(self, peer: Peer, *, now: float) -> _Conversation:
        conversation = self._conversations.get(peer)
        if conversation is None:
            # Here as well, since a server that answers at once may never need a timer.
            self._forget_idle_conversations(now=now)
            if len(self._conversations) >= self.limits.conversations_max:
                self._forget_one_conversation()
            conversation = _Conversation(self._dice.randrange(1 << 16), now)
            self._conversations[peer] = conversation
        return conversation

    def _take_message_id(self, conversation: _Conversation, peer: Peer) -> int:
        message_id = conversation.next_message_id
        while (peer, message_id) in self._request_keys or (peer, message_id) in self._separate:
            message_id = (message_id + 1) & 0xFFFF
        conversation.next_message_id = (message_id + 1) & 0xFFFF
        return message_id

    def _touch(self, conversation: _Conversation, peer: Peer, *, now: float) -> None:
        """Keep a peer's counter until its last message id may be used again (section 4.4)."""
        conversation.idle_since = now
        if not conversation.is_listed:
            conversation.is_listed = True
            self._idle.append((now + self.timing.exchange_lifetime, peer))

    def _forget_idle_conversations(self, *, now: float) -> None:
        while self._idle and self._idle[0][0] <= now:
            _, peer = self._idle.popleft()
            conversation = self._conversations[peer]
            conversation.is_listed = False
            if conversation.in_flight or conversation.backlog:
                continue  # It is listed again when it falls idle.
            if conversation.idle_since + self.timing.exchange_lifetime <= now:
                del self._conversations[peer]
            else:
                self._touch(conversation, peer, now=conversation.idle_since)

    def _forget_one_conversation(self) -> None:
        while self._idle:
            _, peer = self._idle.popleft()
            conversation = self._conversations[peer]
            conversation.is_listed = False
            if not conversation.in_flight and not conversation.backlog:
                del self._conversations[peer]
                return

    def _free_token(self, peer: Peer) -> bytes:
        while True:
            token = self._next_token.to_bytes(TOKEN_SIZE, "big")
            self._next_token = (self._next_token + 1) & (1 << 8 * TOKEN_SIZE) - 1
            if (peer, token) not in self._outgoing:
                return token

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id
