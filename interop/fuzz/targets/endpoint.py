"""The CoAP endpoint: operations from above, datagrams from below, and time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from amistack.coap.codes import Code, Type, is_request
from amistack.coap.endpoint import Endpoint
from amistack.coap.events import (
    Event,
    ExchangeId,
    Limits,
    ObservationEnded,
    ObservationStale,
    RequestFailed,
    RequestId,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.message import HEADER, Message, in_order
from amistack.coap.options import Option, OptionNumber
from amistack.errors import LocalProtocolError, TableFull
from amistack.machine import Peer
from interop.fuzz.target import Outcome, Reader, Target, Trail, promise, refusal

PEERS: Final[tuple[Peer, ...]] = ("a", "b", "c")
LIMITS: Final = Limits(
    nstart=1,
    backlog_max=2,
    outgoing_max=5,
    incoming_max=3,
    separate_max=2,
    remembered_max=6,
    conversations_max=3,
    observing_max=2,
    observers_max=2,
    observers_per_peer_max=2,
    token_size_max=16,
)
"""So small that every bound is reached."""
STEP_COUNT_MAX: Final = 16
TIMER_COUNT_MAX: Final = 400
"""Alarms in a row, of a machine that is left alone, until it is taken to be never at rest."""
CALM_S: Final = 2_000.0
"""Longer than anything of an exchange lives."""

REQUEST_CODES: Final = (Code.GET, Code.POST, Code.PUT, Code.DELETE, Code.FETCH)
RESPONSE_CODES: Final = (Code.CONTENT, Code.CHANGED, Code.NOT_FOUND, Code.SERVICE_UNAVAILABLE)
CODES: Final = (*REQUEST_CODES, *RESPONSE_CODES, Code.EMPTY, 0x1F, 0x20, 0xE1)
TOKENS: Final = (b"", b"\x00", b"\x00\x01", b"\xff" * 8)
OPTIONS: Final[tuple[tuple[Option, ...], ...]] = (
    (),
    (Option(OptionNumber.URI_PATH, b"rep"),),
    (Option(OptionNumber.OBSERVE, b""),),
    (Option(OptionNumber.OBSERVE, b"\x01"),),
    (Option(OptionNumber.OBSERVE, b"\x02\x03"), Option(OptionNumber.MAX_AGE, b"\x05")),
    (Option(9, b"\x01"), Option(OptionNumber.URI_PATH, b"x")),
    (Option(13, b"unknown and critical"),),
    (Option(OptionNumber.PROXY_URI, b"coap://x"),),
)


class _Play:
    """One endpoint, what it owes, and a clock."""

    def __init__(self) -> None:
        self.endpoint = Endpoint(dice=random.Random(7), limits=LIMITS)
        self.now = 0.0
        self.trail = Trail()
        self.asked: list[RequestId] = []
        self.under_way: set[RequestId] = set()
        self.waiting: list[ExchangeId] = []
        self.seen: set[ExchangeId] = set()
        self.observing: set[RequestId] = set()
        self.observed: list[ExchangeId] = []
        self.sent: list[tuple[Peer, bytes]] = []
        self.received: list[tuple[Peer, bytes]] = []

    def step(self, reader: Reader) -> None:
        """One operation, as the input has it."""
        operation = reader.below(16)
        try:
            match operation:
                case 0:
                    self._receive(reader.piece(), _peer(reader))
                case 1 | 2:
                    self._receive_made(reader)
                case 3 | 4:
                    self._receive_reply(reader)
                case 5:
                    self._receive_again(reader)
                case 6 | 7:
                    self._ask(reader)
                case 8 | 9:
                    self._respond(reader)
                case 10:
                    self._cancel(reader)
                case 11:
                    self._elapse(reader)
                case 12 | 13:
                    self._notify(reader)
                case _:
                    self._register(reader)
        except (LocalProtocolError, TableFull) as error:
            promise(operation >= 6 and operation != 11, "a machine never raises at what comes in")
            self.trail.note(refusal(error))
        self._collect()

    # What happens

    def _receive(self, data: bytes, peer: Peer) -> None:
        self.received.append((peer, data))
        self.endpoint.receive_datagram(data, peer, now=self.now)

    def _receive_made(self, reader: Reader) -> None:
        """A datagram of a stranger's making."""
        peer, head, code = _peer(reader), reader.octet(), CODES[reader.below(len(CODES))]
        message_id = reader.below(4)
        if code == Code.EMPTY:
            self._receive(HEADER.pack(0x40 | (head & 3) << 4, 0, message_id), peer)
            return
        token = TOKENS[head >> 2 & 3]
        options = OPTIONS[head >> 4 & 7]
        message = Message(code, Type(head & 3), message_id, token, in_order(options))
        try:
            octets = message.encode()
        except LocalProtocolError:
            octets = HEADER.pack(0x40 | (head & 3) << 4 | len(token), code, message_id) + token
        self._receive(octets, peer)

    def _receive_reply(self, reader: Reader) -> None:
        """A reply to something that was sent: an acknowledgement, a reset, a response."""
        if not self.sent:
            return
        peer, octets = self.sent[-1 - reader.below(len(self.sent))]
        manner = reader.octet()
        message = Message.decode(octets)
        if manner & 0x80:
            peer = _peer(reader)
        match manner & 7:
            case 0:
                data = HEADER.pack(0x60, 0, message.message_id)
            case 1:
                data = HEADER.pack(0x70, 0, message.message_id)
            case kind:
                options = OPTIONS[(manner >> 3 & 7) if kind > 3 else 0]
                data = Message(
                    RESPONSE_CODES[reader.below(len(RESPONSE_CODES))],
                    (Type.ACK, Type.CON, Type.NON)[kind % 3],
                    message.message_id if kind % 3 == 0 else reader.octet(),
                    message.token if kind != 7 else b"\x09",
                    in_order(options),
                    b"payload",
                ).encode()
        self._receive(data, peer)

    def _receive_again(self, reader: Reader) -> None:
        """A datagram comes a second time, or with an octet changed."""
        if not self.received:
            return
        peer, data = self.received[-1 - reader.below(len(self.received))]
        if reader.below(4) == 0 and data:
            octets = bytearray(data)
            octets[reader.below(len(octets))] ^= 1 + reader.below(255)
            data = bytes(octets)
        self._receive(data, peer)

    def _ask(self, reader: Reader) -> None:
        head = reader.octet()
        codes = (*REQUEST_CODES, Code.CONTENT)
        message = Message(
            codes[reader.below(len(codes))],
            options=in_order(OPTIONS[head >> 4 & 7]),
            payload=b"x" * (5_000 if head == 0xFF else 5),
        )
        request = self.endpoint.request(
            message, PEERS[head % len(PEERS)], now=self.now, is_confirmable=bool(head & 4)
        )
        promise(request not in self.asked, "a request's name is used twice")
        self.asked.append(request)
        self.under_way.add(request)

    def _respond(self, reader: Reader) -> None:
        exchange = (
            self.waiting[reader.below(len(self.waiting))]
            if self.waiting
            else ExchangeId(reader.octet())
        )
        codes = (*RESPONSE_CODES, Code.GET)
        head = reader.octet()
        size = 5_000 if head == 0xFF else 5
        is_observed = self.endpoint.respond(
            exchange,
            Message.response(codes[reader.below(len(codes))], payload=b"y" * size),
            opens_observation=bool(head & 1),
            now=self.now,
        )
        promise(exchange in self.waiting, "an exchange that is over was answered")
        self.waiting.remove(exchange)
        if is_observed:
            promise(head & 1, "an observation that nobody opened")
            self.observed.append(exchange)

    def _notify(self, reader: Reader) -> None:
        """An observer is told the newer state, or nothing any more."""
        head = reader.octet()
        exchange = (
            self.observed[head >> 5 if head >> 5 < len(self.observed) else 0]
            if self.observed
            else ExchangeId(head)
        )
        if head & 1 and head & 2:
            self.endpoint.end_observation(exchange, now=self.now)
            self._forget(exchange)
            return
        code = Code.NOT_FOUND if head & 4 else Code.CONTENT
        self.endpoint.notify(
            exchange,
            Message.response(code, payload=b"state", max_age=head >> 4 & 3),
            is_confirmable=(None, True, False, None)[head & 3],
            is_last=bool(head & 8),
            now=self.now,
        )
        promise(exchange in self.observed, "nobody observed that")
        if head & 12:
            self._forget(exchange)

    def _forget(self, exchange: ExchangeId) -> None:
        if exchange in self.observed:
            self.observed.remove(exchange)

    def _register(self, reader: Reader) -> None:
        """An observation of ours is registered again, or ended, or watched for its age."""
        head = reader.octet()
        request = (
            self.asked[head >> 3 & 3 if len(self.asked) > head >> 3 & 3 else 0]
            if (self.asked)
            else RequestId(head)
        )
        match head & 3:
            case 0 | 1:
                self.endpoint.register_again(request, now=self.now)
            case 2:
                self.endpoint.deregister(request, now=self.now)
            case _:
                self.endpoint.expect_notification(request, within=float(head), now=self.now)
        promise(request in self.observing, "an observation that is not open")

    def _cancel(self, reader: Reader) -> None:
        request = (
            self.asked[reader.below(len(self.asked))] if self.asked else RequestId(reader.octet())
        )
        self.endpoint.cancel(request, now=self.now)
        self.under_way.discard(request)
        self.observing.discard(request)

    def _elapse(self, reader: Reader) -> None:
        """Some time, 0.1 s to 54 min, with every alarm on the way: or without, and then late."""
        head = reader.octet()
        end = self.now + 0.1 * (1 << (head & 15))
        if head & 16:
            self.now = end
            self.endpoint.handle_timer(now=end)
            return
        self._run_until(end)

    def _run_until(self, end: float) -> None:
        for _ in range(TIMER_COUNT_MAX):
            due = self.endpoint.next_timer()
            if due is None or due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            self.endpoint.handle_timer(now=self.now)
            after = self.endpoint.next_timer()
            promise(after is None or after > self.now, "an alarm that was heard is still due")
            self._collect()
        promise(False, "the machine never comes to rest")  # noqa: FBT003

    # What comes of it

    def _collect(self) -> None:
        for peer, octets in self.endpoint.data_to_send():
            promise(peer in PEERS, "a datagram for nobody")
            self.trail.note(("out", octets[0] >> 4 & 3, octets[1] >> 5))
            # What is sent can be read; Message.decode raises otherwise.
            Message.decode(octets)
            self.sent.append((peer, octets))
        promise(not self.endpoint.data_to_send(), "a datagram was handed over twice")
        for event in self.endpoint.events():
            self._note(event)
        promise(not self.endpoint.events(), "an event was handed over twice")
        for name, (depth, bound) in self.endpoint.depths.items():
            promise(0 <= depth <= bound, f"{name}: {depth}, at most {bound}")
        promise(len(self.waiting) <= LIMITS.incoming_max, "more wait for an answer than may")
        for reason, count in self.endpoint.refused.items():
            promise(
                count > 0 and reason.isprintable() and len(reason) <= 64, f"count of {reason!r}"
            )

    def _note(self, event: Event) -> None:
        self.trail.note(type(event).__name__)
        match event:
            case RequestReceived():
                promise(is_request(event.message.code), "a request that is none")
                promise(event.exchange not in self.seen, "an exchange's name is used twice")
                self.seen.add(event.exchange)
                self.waiting.append(event.exchange)
            case ResponseReceived(is_final=False):
                promise(event.request in self.under_way, "an event for a request that was over")
                self.observing.add(event.request)
            case ResponseReceived() | RequestFailed():
                promise(event.request in self.under_way, "an event for a request that was over")
                self.under_way.discard(event.request)
                self.observing.discard(event.request)
            case ObservationStale():
                promise(event.request in self.observing, "what nobody observes is no longer fresh")
            case ObservationEnded():
                promise(event.exchange in self.observed, "what nobody observed is over")
                self._forget(event.exchange)

    def calm_down(self) -> None:
        """Answer what waits and let time pass: nothing may be left over."""
        for exchange in self.waiting:
            self.endpoint.respond(exchange, Message.response(Code.CONTENT), now=self.now)
        self.waiting.clear()
        self._collect()
        for request in sorted(self.observing):
            self.endpoint.cancel(request, now=self.now)
            self.under_way.discard(request)
        for exchange in self.observed:
            self.endpoint.end_observation(exchange, now=self.now)
        self.observing.clear()
        self.observed.clear()
        self._run_until(self.now + CALM_S)
        promise(not self.under_way, "a request without an end")
        promise(self.endpoint.next_timer() is None, "an alarm for nothing")
        depths = self.endpoint.depths
        promise(depths["requests under way"][0] == 0, "a request is kept")
        promise(depths["requests to answer"][0] == 0, "an exchange is kept")


def run_endpoint(data: bytes) -> Outcome:
    """Operations: datagrams of all kinds from three peers, requests, answers, time."""
    reader = Reader(data)
    play = _Play()
    for _ in range(STEP_COUNT_MAX):
        if reader.is_spent:
            break
        play.step(reader)
    play.calm_down()
    for reason in play.endpoint.refused:
        play.trail.note(reason)
    return play.trail.outcome


def _peer(reader: Reader) -> Peer:
    return PEERS[reader.below(len(PEERS))]


def endpoint_seeds() -> Sequence[bytes]:
    """Exchanges as RFC 7252 draws them, then every operation by itself."""
    ask_con, ask_non = b"\x06\x04\x00", b"\x06\x00\x00"
    ack, piggybacked, separate, reset = (
        b"\x03\x00\x00",
        b"\x03\x00\x03\x00",
        b"\x03\x00\x04\x00\x07",
        b"\x03\x00\x01",
    )
    later, much_later = b"\x0b\x04", b"\x0b\x0e"
    asked_con, asked_non, answer = b"\x01\x00\x14\x00\x01", b"\x01\x01\x15\x00\x02", b"\x08\x00\x00"
    again = b"\x05\x00\x01"
    watched, opens, state = b"\x01\x00\x24\x00\x03", b"\x08\x01\x00", b"\x0c\x00"
    watch, told = b"\x06\x24\x00", b"\x03\x00\x26\x00"
    return [
        ask_con + piggybacked,
        ask_con + ack + separate + again,
        ask_con + much_later,
        ask_con + later + later + piggybacked + again,
        ask_con + reset,
        ask_non + separate + ask_con * 4 + b"\x0a\x01",
        asked_con + answer + again,
        asked_con + later * 5 + answer + ack,
        asked_con + b"\x0b\x05" + answer + reset + again,
        asked_non + answer + again + much_later + again,
        b"".join(b"\x01" + bytes((peer, 0x14 | peer, 0, peer)) for peer in range(4)) + answer,
        watched + opens + state + ack + state + reset,
        watched + opens + b"\x0c\x01" + b"\x0c\x01" + ack + b"\x0c\x0d",
        watched + opens + b"\x0c\x01" + much_later + state + watched + opens,
        watched + opens + b"\x01\x00\x34\x00\x04" + answer + b"\x0c\x03",
        watch + told + b"\x03\x00\x25\x00\x08" + b"\x0e\x00" + told + b"\x0e\x02" + piggybacked,
        watch + told + much_later + b"\x0e\x07" + b"\x0a\x00" + b"\x05\x00\x01",
        *(bytes((operation, 3, 0x40, 1, 2, 3, 4)) for operation in range(16)),
        *(b"\x01\x00" + bytes((head, code, 1)) for head in (0x54, 0x64, 0x74) for code in (0, 5)),
    ]


TARGETS: Final = (
    Target(
        "coap_endpoint",
        "the endpoint machine: tables bounded, one end for each request, rest, no exception",
        run_endpoint,
        endpoint_seeds,
        tokens=(b"\x06\x04\x00", b"\x03\x00\x00", b"\x0b\x04", b"\x0b\x0e", b"\x05\x00\x01"),
        size_max=80,
    ),
)
