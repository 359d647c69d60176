"""The whole stack of a socket, as a head-end's and as a meter's, between an honest peer and others.

The honest peer has the keys: it joins, asks, and answers properly, or says in an authentic message
whatever the input has. Strangers, and the network, do the rest.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Final

from amistack.coap.codes import Code, Type
from amistack.coap.endpoint import ExchangeId, Limits
from amistack.coap.link_format import Link
from amistack.coap.message import HEADER, Message, encode_body, in_order
from amistack.coap.options import Option, OptionNumber
from amistack.errors import AmiError, LocalProtocolError, TableFull
from amistack.machine import Peer
from amistack.session.edhoc import (
    prepend_connection_id,
    split_connection_id,
)
from amistack.session.handshakes import (
    CONTENT_FORMAT_CID_EDHOC,
    CONTENT_FORMAT_EDHOC,
    WELL_KNOWN_EDHOC,
    CredentialWanted,
    SessionProposed,
)
from amistack.session.oscore import (
    RequestBinding,
    SecurityContext,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)
from amistack.stack import (
    NumbersWanted,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
    Stack,
)
from interop.fuzz.target import Outcome, Reader, Target, Trail, promise, refusal
from interop.fuzz.targets import honest
from interop.fuzz.targets.honest import HEAD_END_KEY, KNOWN, METER, METER_KEY
from interop.fuzz.targets.oscore import CLIENT_ID, SERVER_ID, born, seal

HONEST: Final[Peer] = ("192.0.2.7", 5683)
STRANGER: Final[Peer] = ("192.0.2.66", 5683)
PEERS: Final = (HONEST, STRANGER)
LIMITS: Final = Limits(
    backlog_max=2, outgoing_max=4, incoming_max=3, separate_max=2, remembered_max=8
)
LINKS: Final = (Link("/read", ("amistack.read",), content_formats=(65001,)),)
STEP_COUNT_MAX: Final = 6
TIMER_COUNT_MAX: Final = 400
CALM_S: Final = 2_000.0
BLOCK: Final = 3
"""Sender sequence numbers that a session begins with: few, so that they run out."""
IDENTITY: Final = bytes(METER)

_OPTIONS: Final[tuple[tuple[Option, ...], ...]] = (
    (Option(OptionNumber.URI_PATH, b"rep"),),
    (Option(OptionNumber.OBSERVE, b""), Option(OptionNumber.URI_PATH, b"rep")),
    (Option(13, b"unknown and critical"),),
    (Option(OptionNumber.ECHO, b"\x01" * 8),),
)
_CLEAR: Final[tuple[tuple[Option, ...], ...]] = (
    (Option(OptionNumber.URI_PATH, b".well-known"), Option(OptionNumber.URI_PATH, b"core")),
    (
        Option(OptionNumber.URI_PATH, b".well-known"),
        Option(OptionNumber.URI_PATH, b"core"),
        Option(OptionNumber.URI_QUERY, b"rt=amistack.*"),
        Option(OptionNumber.ACCEPT, b"\x28"),
    ),
    (Option(OptionNumber.URI_PATH, b".well-known"), Option(OptionNumber.URI_PATH, b"edhoc")),
    (Option(OptionNumber.URI_PATH, b"\xff\xfe"),),
    (Option(OptionNumber.URI_PATH, b"rep"),),
    (Option(OptionNumber.OSCORE, b"\x09\x00\x01"),),
    (Option(OptionNumber.OSCORE, b"\xe0"),),
    (Option(OptionNumber.OSCORE, b"\x09\x00\x01"), Option(OptionNumber.EDHOC, b"")),
)


def _session(sender_id: bytes, recipient_id: bytes, reserved: int) -> SecurityContext:
    return born(_derived(sender_id, recipient_id), reserved=reserved)


@functools.lru_cache(maxsize=2)
def _derived(sender_id: bytes, recipient_id: bytes) -> SecurityContext:
    return SecurityContext.derive(
        master_secret=b"a secret of some",
        master_salt=b"salt",
        sender_id=sender_id,
        recipient_id=recipient_id,
    )


class _Play:
    """A stack with one session, its program, the honest peer, and a clock."""

    def __init__(self, *, is_head_end: bool) -> None:
        entropy = random.Random(5)
        self.is_head_end = is_head_end
        self.stack = Stack(
            key=HEAD_END_KEY if is_head_end else METER_KEY,
            entropy=entropy.randbytes,
            dice=random.Random(6),
            links=LINKS,
            limits=LIMITS,
            is_responder=is_head_end,
        )
        self.stack.add_session(IDENTITY, _session(SERVER_ID, CLIENT_ID, BLOCK))
        self.honest = _session(CLIENT_ID, SERVER_ID, 1 << 20)
        self.now = 0.0
        self.trail = Trail()
        self.sent: list[tuple[Peer, bytes]] = []
        self.received: list[tuple[Peer, bytes]] = []
        self.message_id = 100
        self.asked: list[RequestId] = []
        self.under_way: set[RequestId] = set()
        self.waiting: list[SecureRequest] = []
        self.seen: set[ExchangeId] = set()
        self.wanted: list[CredentialWanted] = []
        self.proposed: list[SessionProposed] = []
        self.numbers: list[NumbersWanted] = []
        self.bindings: dict[int, RequestBinding] = {}
        """Of requests of the stack, by their message id."""
        self.honest_asked: dict[int, RequestBinding] = {}
        """Of requests of the honest peer, by their message id."""

    def step(self, reader: Reader) -> None:
        """One operation, as the input has it."""
        operation = reader.below(16)
        try:
            match operation:
                case 0:
                    self._receive(reader.piece(), self._peer(reader))
                case 1 | 2:
                    self._receive_clear(reader)
                case 3:
                    self._join()
                case 4 | 5:
                    self._receive_protected(reader)
                case 6:
                    self._receive_sealed(reader)
                case 7:
                    self._receive_again(reader)
                case 8:
                    self._receive_reply(reader)
                case 9:
                    self._ask(reader)
                case 10:
                    self._respond(reader)
                case 11:
                    self._grant(reader)
                case 12:
                    self._settle_handshake(reader)
                case 13:
                    self._elapse(reader)
                case 14:
                    self._change_session(reader)
                case _:
                    self._connect(reader)
        except (LocalProtocolError, TableFull) as error:
            promise(operation >= 9, "a machine never raises at what comes in")
            self.trail.note(refusal(error))
        self._collect()

    # From below

    def _receive(self, data: bytes, peer: Peer) -> None:
        self.received.append((peer, data))
        self.stack.receive_datagram(data, peer, now=self.now)

    def _send(self, message: Message, peer: Peer, type_: Type = Type.CON) -> None:
        """A peer's message, under a number that is not used yet."""
        self.message_id += 1
        self._receive(
            message.addressed(type=type_, message_id=self.message_id, token=b"t").encode(), peer
        )

    def _receive_clear(self, reader: Reader) -> None:
        head = reader.octet()
        code = (Code.GET, Code.POST, Code.FETCH, Code.DELETE)[head >> 3 & 3]
        options = list(_CLEAR[head & 7])
        if head & 0x20:
            options.append(Option(OptionNumber.CONTENT_FORMAT, bytes((CONTENT_FORMAT_CID_EDHOC,))))
        message = Message(code, options=in_order(options), payload=reader.piece())
        self._send(message, self._peer(reader), Type.NON if head & 0x40 else Type.CON)

    def _join(self) -> None:
        """The honest meter begins a handshake, or goes on with the one it has an answer to."""
        payload = prepend_connection_id(None, honest.message_1())
        for peer, octets in reversed(self.sent):
            answer = Message.decode(octets)
            if peer == HONEST and answer.content_format == CONTENT_FORMAT_EDHOC:
                payload = honest.message_3(answer.payload) or payload
                break
        self._send(_edhoc(payload), HONEST)

    def _receive_protected(self, reader: Reader) -> None:
        """An authentic request, in its own words."""
        head = reader.octet()
        options = list(_OPTIONS[head & 3])
        if head & 0x10:
            echo = self._echo()
            options.append(Option(OptionNumber.ECHO, echo))
        plain = Message(
            (Code.POST, Code.GET)[head >> 2 & 1], options=in_order(options), payload=reader.take(3)
        )
        protected, binding = protect_request(self.honest, plain)
        self.honest_asked[self.message_id + 1] = binding
        peer = STRANGER if head & 0x20 else HONEST
        self._send(protected, peer, Type.NON if head & 8 else Type.CON)

    def _receive_sealed(self, reader: Reader) -> None:
        """An authentic request whose inside is not what a message is made of."""
        number = self.honest.take_sequence_number()
        piv = number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")
        payload = seal(
            self.honest.sender_key, self.honest.common_iv, CLIENT_ID, number, piv, reader.piece()
        )
        option = Option(OptionNumber.OSCORE, bytes((8 | len(piv),)) + piv + CLIENT_ID)
        self._send(Message(Code.POST, options=(option,), payload=payload), HONEST)

    def _echo(self) -> bytes:
        """The Echo value that was asked for last, if the honest peer can read one."""
        for peer, octets in reversed(self.sent):
            answer = Message.decode(octets)
            binding = self.honest_asked.get(answer.message_id)
            if peer == HONEST and answer.type is Type.ACK and binding is not None:
                try:
                    inner = unprotect_response(self.honest, answer, binding)
                except AmiError:
                    break
                return inner.option(OptionNumber.ECHO) or b""
        return b"\x02" * 8

    def _receive_again(self, reader: Reader) -> None:
        """A datagram comes a second time, under another message id, or with an octet changed."""
        if not self.received:
            return
        peer, data = self.received[-1 - reader.below(len(self.received))]
        manner = reader.below(4)
        octets = bytearray(data)
        if manner == 1 and len(octets) >= HEADER.size:
            self.message_id += 1
            octets[2:4] = self.message_id.to_bytes(2, "big")
        elif manner == 2 and octets:
            octets[reader.below(len(octets))] ^= 1 + reader.below(255)
        elif manner == 3:
            peer = self._peer(reader)
        self._receive(bytes(octets), peer)

    def _receive_reply(self, reader: Reader) -> None:
        """A reply to something that the stack sent, in its own words or in somebody's."""
        if not self.sent:
            return
        peer, octets = self.sent[-1 - reader.below(len(self.sent))]
        message = Message.decode(octets)
        manner = reader.octet()
        head = (
            (Type.ACK, message.message_id)
            if manner & 0x40
            else (Type.CON if manner & 0x20 else Type.NON, reader.octet())
        )
        answer: Message
        match manner & 7:
            case 0:
                answer = Message(Code.EMPTY, Type.ACK, message.message_id)
            case 1:
                answer = Message(Code.EMPTY, Type.RST, message.message_id)
            case 2 | 3:
                answer = Message.response(
                    (Code.CHANGED, Code.UNAUTHORIZED, Code.BAD_REQUEST)[manner >> 3 & 1],
                    payload=reader.take(6),
                    options=(Option(OptionNumber.OSCORE, b""),) if manner & 0x10 else (),
                )
            case 4:
                answer = Message.response(
                    Code.BAD_REQUEST,
                    payload=(b"\x03\xf5", b"\x02\x82\x02\x03", b"\x01\x63why")[manner >> 3 & 1],
                    content_format=CONTENT_FORMAT_EDHOC,
                )
            case _:
                proper = self._honest_answer(message, reader)
                if proper is None:
                    return
                answer = proper
        if not answer.is_empty:
            answer = answer.addressed(type=head[0], message_id=head[1], token=message.token)
        self._receive(answer.encode(), peer)

    def _honest_answer(self, message: Message, reader: Reader) -> Message | None:
        """What the honest peer answers to a request of the stack."""
        if message.option(OptionNumber.OSCORE) is not None:
            key = message.message_id
            if key not in self.bindings:
                try:
                    _, self.bindings[key] = unprotect_request(self.honest, message)
                except AmiError:
                    return None
            plain = Message.response(
                (Code.CHANGED, Code.UNAUTHORIZED)[reader.below(2)],
                payload=reader.take(2),
                options=(Option(OptionNumber.ECHO, b"\x03" * 8),) if reader.below(2) else (),
            )
            binding = self.bindings[key]
            return protect_response(
                self.honest, plain, binding, own_partial_iv=not binding.nonce_is_free
            )
        if message.code != Code.POST:
            return None
        try:
            c_r, body = split_connection_id(message.payload)
        except AmiError:
            return None
        if c_r is not None:
            return Message.response(Code.CHANGED)
        message_2 = honest.message_2(body)
        if message_2 is None:
            return None
        return Message.response(
            Code.CHANGED, payload=message_2, content_format=CONTENT_FORMAT_EDHOC
        )

    # From above

    def _ask(self, reader: Reader) -> None:
        head = reader.octet()
        if head & 0x40 and self.asked:
            request = self.asked[reader.below(len(self.asked))]
            self.stack.cancel(request, now=self.now)
            self.under_way.discard(request)
            return
        payload = b"x" * (5_000 if head == 0x3F else 3)
        message = Message(
            (Code.POST, Code.GET, Code.CONTENT)[head % 3],
            options=in_order(_OPTIONS[head >> 2 & 3]),
            payload=payload,
        )
        identity = b"nobody" if head & 0x20 else IDENTITY
        request = self.stack.request(identity, message, HONEST, now=self.now)
        promise(request not in self.asked, "a request's name is used twice")
        self.asked.append(request)
        self.under_way.add(request)

    def _respond(self, reader: Reader) -> None:
        head = reader.octet()
        code = (Code.CHANGED, Code.CONTENT, Code.NOT_FOUND, Code.GET)[head & 3]
        message = Message.response(code, payload=b"y" * (5_000 if head == 0xFF else 2))
        if not self.waiting:
            self.stack.respond(ExchangeId(head), message, is_durable=True, now=self.now)
            return
        one = self.waiting[head >> 2 & 3 if len(self.waiting) > head >> 2 & 3 else 0]
        self.stack.respond(one.exchange, message, is_durable=bool(head & 0x10), now=self.now)
        self.waiting.remove(one)

    def _grant(self, reader: Reader) -> None:
        head = reader.octet()
        if not self.numbers:
            self.stack.numbers_reserved(CLIENT_ID, head, now=self.now)
            return
        one = self.numbers.pop(0)
        until = one.until - (head & 1) * 63
        self.stack.numbers_reserved(one.recipient_id, until, now=self.now)

    def _settle_handshake(self, reader: Reader) -> None:
        head = reader.octet()
        if self.wanted and not head & 0x80:
            wanted = self.wanted[0]
            credential = KNOWN.get(wanted.id_cred) if head & 1 else None
            if head & 2:
                credential = HEAD_END_KEY.credential
            self.stack.provide_credential(wanted, credential, now=self.now)
            self.wanted.pop(0)
        elif self.proposed:
            proposed = self.proposed[0]
            if head & 4:
                self.stack.reject_session(proposed, retry_after=30, now=self.now)
            else:
                identity = b"other" if head & 8 else IDENTITY
                self.stack.accept_session(proposed, identity, reserved_until=BLOCK, now=self.now)
            if not head & 16:
                self.proposed.pop(0)

    def _elapse(self, reader: Reader) -> None:
        head = reader.octet()
        end = self.now + 0.1 * (1 << (head & 15))
        if head & 16:
            self.now = end
            self.stack.handle_timer(now=end)
        else:
            self._run_until(end)

    def _change_session(self, reader: Reader) -> None:
        head = reader.octet()
        if head & 1:
            self.stack.remove_session(IDENTITY)
            return
        context = _session(SERVER_ID, CLIENT_ID, 0)
        # As after a restart: what may have been used is not used again.
        context.resume(reserved_until=1_000 * len(self.sent) + 1_000, window=(0, 0))
        self.stack.add_session(
            b"other" if head & 4 else IDENTITY, context, is_window_doubtful=bool(head & 2)
        )

    def _connect(self, reader: Reader) -> None:
        head = reader.octet()
        trusted = () if head & 1 else (HEAD_END_KEY.credential,)
        self.stack.connect(
            HONEST, trusted, c_i=CLIENT_ID if head & 2 else bytes((head,)), now=self.now
        )

    # What comes of it

    def _run_until(self, end: float) -> None:
        for _ in range(TIMER_COUNT_MAX):
            due = self.stack.next_timer()
            if due is None or due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            self.stack.handle_timer(now=self.now)
            after = self.stack.next_timer()
            promise(after is None or after > self.now, "an alarm that was heard is still due")
            self._collect()
        promise(False, "the machine never comes to rest")  # noqa: FBT003

    def _collect(self) -> None:
        for peer, octets in self.stack.data_to_send():
            promise(peer in PEERS, "a datagram for nobody")
            message = Message.decode(octets)
            is_clear = not message.is_empty and message.option(OptionNumber.OSCORE) is None
            self.trail.note(("out", message.type, message.code, is_clear))
            if is_clear and message.code in (Code.CONTENT, Code.CHANGED):
                promise(
                    message.content_format in (None, CONTENT_FORMAT_EDHOC, 40),
                    "something was said in the clear",
                )
            self.sent.append((peer, octets))
        for event in self.stack.events():
            self.trail.note(type(event).__name__)
            match event:
                case SecureRequest():
                    promise(event.exchange not in self.seen, "an exchange's name is used twice")
                    self.seen.add(event.exchange)
                    self.waiting.append(event)
                case SecureResponse() | RequestFailed():
                    promise(event.request in self.under_way, "an event for a request that was over")
                    self.under_way.discard(event.request)
                case CredentialWanted():
                    self.wanted.append(event)
                case SessionProposed():
                    self.proposed.append(event)
                case NumbersWanted():
                    self.numbers.append(event)
                case _:
                    pass
        for name, (depth, bound) in self.stack.depths.items():
            promise(0 <= depth <= bound, f"{name}: {depth}, at most {bound}")

    def calm_down(self) -> None:
        """End the sessions and let time pass: nothing may be left over."""
        for one in self.waiting:
            self.stack.respond(
                one.exchange, Message.response(Code.CHANGED), is_durable=True, now=self.now
            )
        self.waiting.clear()
        for wanted in self.wanted:
            self.stack.provide_credential(wanted, None, now=self.now)
        self._collect()
        for identity in (IDENTITY, b"other"):
            self.stack.remove_session(identity)
        self._collect()
        self._run_until(self.now + CALM_S)
        promise(not self.under_way, "a request without an end")

    def _peer(self, reader: Reader) -> Peer:
        return PEERS[reader.below(len(PEERS))]


def _edhoc(payload: bytes) -> Message:
    return Message.request(
        Code.POST, WELL_KNOWN_EDHOC, payload=payload, content_format=CONTENT_FORMAT_CID_EDHOC
    )


def _run(data: bytes, *, is_head_end: bool) -> Outcome:
    reader = Reader(data)
    play = _Play(is_head_end=is_head_end)
    for _ in range(STEP_COUNT_MAX):
        if reader.is_spent:
            break
        play.step(reader)
    play.calm_down()
    for reason in play.stack.refused:
        play.trail.note(reason)
    return play.trail.outcome


def run_stack(data: bytes) -> Outcome:
    """One octet that says whose stack it is, a meter's if it is odd; then operations on it."""
    return _run(data[1:], is_head_end=not (data and data[0] & 1))


def stack_seeds() -> Sequence[bytes]:
    """Conversations that go well, and every operation by itself."""
    join, provide, accept = b"\x03", b"\x0c\x01", b"\x0c\x80"
    uplink, answer, grant = b"\x04\x00abc", b"\x0a\x10", b"\x0b\x00"
    ask, hear = b"\x09\x00", b"\x08\x00\x45\x00"
    connect, second = b"\x0f\x08", b"\x08\x00\x47"
    later, core = b"\x0d\x05", b"\x01\x01\x00\x00"
    garbage = b"\x06\x05" + bytes((Code.POST,)) + encode_body((), b"abc")
    every = [
        join + join + provide + accept + uplink,
        join * 2 + b"\x0c\x00" + join * 2 + provide + b"\x0c\x84",
        uplink + answer + uplink + answer,
        uplink + b"\x0a\x00" + uplink + b"\x0a\x00" + grant + (uplink + b"\x0a\x00") * 3 + grant,
        ask + hear + ask + ask + grant + hear,
        ask + b"\x08\x00\x40\x00" + later + ask + b"\x0d\x0e",
        connect + second + second + accept + later,
        connect + b"\x08\x00\x44\x00" + connect + b"\x0d\x0d",
        b"\x0e\x02" + uplink + b"\x04\x10abc" + answer,
        core + uplink + b"\x07\x00\x00" + b"\x07\x01\x01" + later,
        garbage + b"\x06\x00" + b"\x06\x01\x45",
        uplink + b"\x0e\x01" + b"\x0a\x00" + uplink,
        *(bytes((operation, 0x11, 3, 2, 1, 0, 7)) for operation in range(16)),
        *(b"\x01" + bytes((head, 2)) + b"\xf5\x03" + b"\x00" for head in range(0x20, 0x40, 3)),
    ]
    return [whose + one for one in every for whose in (b"\x00", b"\x01")]


_TOKENS: Final = (b"\x03", b"\x0c\x01", b"\x0c\x80", b"\x0a\x10", b"\x0d\x0e", b"\x08\x00\x45\x00")

TARGETS: Final = (
    Target(
        "stack",
        "a stack, an honest peer, strangers, time: bounded, one end for each request, no exception",
        run_stack,
        stack_seeds,
        _TOKENS,
        size_max=48,
    ),
)
