"""OSCORE: its option, authentic garbage, and two contexts that talk through a hostile network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cbor2
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from amistack.coap.codes import Code, Type, is_request
from amistack.coap.message import OPTION_COUNT_MAX, Message, encode_body, in_order
from amistack.coap.options import Option, OptionNumber
from amistack.errors import AmiError, LocalProtocolError, OscoreError, SequenceExhausted
from amistack.session.oscore import (
    OscoreOption,
    ReplayWindow,
    RequestBinding,
    SecurityContext,
    find_kid,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)
from interop.fuzz.target import Outcome, Reader, Target, Trail, promise, refusal, size_class

CLIENT_ID: Final = b"\x01"
SERVER_ID: Final = b"\xa0\xa1"
ID_CONTEXT: Final = b"context"
STEP_COUNT_MAX: Final = 16
BLOCK: Final = 8
"""Sequence numbers reserved at a time."""
OUTER_OPTIONS: Final = (
    Option(OptionNumber.URI_HOST, b"host"),
    Option(OptionNumber.OBSERVE, b""),
    Option(OptionNumber.OBSERVE, b"\x01"),
    Option(OptionNumber.URI_PATH, b"outside"),
    Option(OptionNumber.EDHOC, b""),
    Option(OptionNumber.MAX_AGE, b"\x05"),
    Option(OptionNumber.OSCORE, b""),
)


def _derived(sender_id: bytes, recipient_id: bytes) -> SecurityContext:
    return SecurityContext.derive(
        master_secret=b"a secret of some",
        master_salt=b"salt",
        sender_id=sender_id,
        recipient_id=recipient_id,
        id_context=ID_CONTEXT,
    )


_CLIENT: Final = _derived(CLIENT_ID, SERVER_ID)
_SERVER: Final = _derived(SERVER_ID, CLIENT_ID)


def born(context: SecurityContext, *, reserved: int) -> SecurityContext:
    """A context as it is after a handshake."""
    return SecurityContext(
        sender_id=context.sender_id,
        recipient_id=context.recipient_id,
        id_context=context.id_context,
        algorithm=context.algorithm,
        sender_key=context.sender_key,
        recipient_key=context.recipient_key,
        common_iv=context.common_iv,
        replay_window=ReplayWindow(),
        reserved_until=reserved,
    )


def seal(
    key: bytes, common_iv: bytes, sender: bytes, number: int, request: bytes, text: bytes
) -> bytes:
    """AES-CCM-16-64-128 as RFC 8613 sections 5.2 and 5.4 have it, written a second time.

    `sender` and `number` give the nonce; `request` is the Partial IV of the request.
    """
    padded = bytes((len(sender),)) + sender.rjust(7, b"\x00") + number.to_bytes(5, "big")
    nonce = bytes(one ^ other for one, other in zip(padded, common_iv, strict=True))
    aad = cbor2.dumps([1, [10], CLIENT_ID, request, b""])
    return AESCCM(key, 8).encrypt(nonce, text, cbor2.dumps(["Encrypt0", b"", aad]))


def run_option(data: bytes) -> Outcome:
    """The value of an OSCORE option."""
    try:
        option = OscoreOption.decode(data)
    except OscoreError as error:
        return refusal(error), error.code
    promise(option.encode() == data, "an option has one encoding, and this is another")
    piv, kid, context = option
    return tuple(-1 if part is None else size_class(len(part)) for part in (piv, kid, context))


def run_unprotect(data: bytes) -> Outcome:
    """What an authentic peer may hide inside: one octet of manner, one of outer options, plaintext.

    Manner, by its bits: 1 a response and no request, 2 a tag that is wrong, 4 a Partial IV of its
    own in a response, 8 a response to a registration; the rest is a sequence number.
    """
    reader = Reader(data)
    manner, outer = reader.octet(), reader.octet()
    plaintext = reader.rest()
    number = manner >> 4
    options = [one for place, one in enumerate(OUTER_OPTIONS) if outer >> place & 1]
    if manner & 1:
        return _unprotect_response(manner, number, options, plaintext)
    server = born(_SERVER, reserved=BLOCK)
    piv = bytes((number,))
    payload = seal(_CLIENT.sender_key, _CLIENT.common_iv, CLIENT_ID, number, piv, plaintext)
    if manner & 2:
        payload = payload[:-1] + bytes((payload[-1] ^ 1,))
    options.append(Option(OptionNumber.OSCORE, OscoreOption(piv, CLIENT_ID, ID_CONTEXT).encode()))
    message = Message(Code.POST, Type.CON, 1, b"t", in_order(options), payload)
    before = server.replay_window.state
    try:
        find_kid(message)
        inner, _ = unprotect_request(server, message)
    except OscoreError as error:
        is_authentic = error.reason == "malformed plaintext"
        promise(not (is_authentic and manner & 2), "a wrong tag passed")
        promise(
            server.replay_window.is_fresh(number) != is_authentic,
            "a number counts if, and only if, it is authentic",
        )
        promise(is_authentic or server.replay_window.state == before, "a refusal left its mark")
        return refusal(error), error.code
    promise(not manner & 2, "a wrong tag passed")
    promise(not server.replay_window.is_fresh(number), "an accepted number is still fresh")
    _check_inner(inner, plaintext)
    try:
        unprotect_request(server, message)
    except OscoreError:
        pass
    else:
        promise(False, "accepted twice")  # noqa: FBT003
    return _shape(inner)


def _unprotect_response(
    manner: int, number: int, options: list[Option], plaintext: bytes
) -> Outcome:
    client = born(_CLIENT, reserved=BLOCK)
    observe = (Option(OptionNumber.OBSERVE, b""),) if manner & 8 else ()
    _, binding = protect_request(client, Message.request(Code.GET, "x", options=observe))
    piv = binding.request_piv
    if manner & 4:
        value = OscoreOption(bytes((number,))).encode()
        sender, nonce_number = SERVER_ID, number
    else:
        value = b""
        sender, nonce_number = CLIENT_ID, 0
    payload = seal(_SERVER.sender_key, _SERVER.common_iv, sender, nonce_number, piv, plaintext)
    if manner & 2:
        payload = payload[:-1] + bytes((payload[-1] ^ 1,))
    options.append(Option(OptionNumber.OSCORE, value))
    message = Message(Code.CHANGED, Type.ACK, 1, b"t", in_order(options), payload)
    floor = binding.response_floor
    try:
        inner = unprotect_response(client, message, binding)
    except OscoreError as error:
        promise(binding.response_floor == floor, "a refusal left its mark")
        return refusal(error), 1
    promise(not manner & 2, "a wrong tag passed")
    _check_inner(inner, plaintext)
    return 1, _shape(inner)


def _check_inner(inner: Message, plaintext: bytes) -> None:
    promise(inner.code == plaintext[0], "the code comes from inside")
    if len(inner.options) <= OPTION_COUNT_MAX:
        # A few more may have come from outside, beside as many as may be inside.
        inner.encode()
    promise(len(inner.options) <= 2 * OPTION_COUNT_MAX, "options without a bound")
    protected = [one for one in inner.options if one.number not in (3, 7, 21, 39)]
    outside = encode_body([o for o in protected if o.number != OptionNumber.OBSERVE], inner.payload)
    # All that is class E stood inside; Observe inside has another value than it comes out with.
    if not any(one.number in (3, 6, 7, 21, 39) for one in inner.options):
        promise(outside == plaintext[1:], "what came out is not what was inside")


def _shape(inner: Message) -> Outcome:
    numbers = tuple(one.number for one in inner.options[:3] if one.number < 64)
    return inner.code >> 5, numbers, not inner.payload


# Two contexts


@dataclass(slots=True)
class _Sent:
    """A protected request on its way, and what the client keeps of it."""

    plain: Message
    wire: Message
    binding: RequestBinding
    life: int


@dataclass(slots=True)
class _Taken:
    """A request that the server took, and what it keeps of it."""

    request: int
    binding: RequestBinding
    life: int


@dataclass(slots=True)
class _Answer:
    """A protected response on its way."""

    request: int
    plain: Message
    wire: Message


class _Session:
    """A client and a server that keep on a disk what they must, and who checks them."""

    def __init__(self) -> None:
        self.client = born(_CLIENT, reserved=BLOCK)
        self.server = born(_SERVER, reserved=BLOCK)
        self.client_disk = BLOCK
        self.server_disk = BLOCK
        self.server_window = self.server.replay_window.state
        self.sent: list[_Sent] = []
        self.taken: list[_Taken] = []
        self.answers: list[_Answer] = []
        self.accepted: set[int] = set()
        self.used: dict[tuple[object, ...], bytes] = {}
        self.life = 0
        self.trail = Trail()

    def step(self, reader: Reader) -> None:
        """One operation, as the input has it."""
        operation = reader.below(10)
        try:
            match operation:
                case 0 | 1:
                    self._ask(reader)
                case 2 | 3:
                    self._deliver(reader)
                case 4 | 5:
                    self._answer(reader)
                case 6 | 7:
                    self._deliver_answer(reader)
                case 8:
                    self._reserve(reader)
                case _:
                    self._restart(reader)
        except (OscoreError, SequenceExhausted, LocalProtocolError) as error:
            self.trail.note(refusal(error))
        else:
            self.trail.note(operation)

    def _ask(self, reader: Reader) -> None:
        plain = _message(reader, (Code.GET, Code.POST, Code.FETCH, Code.CONTENT))
        before = self.client.next_sequence_number
        try:
            wire, binding = protect_request(self.client, plain)
        except AmiError:
            promise(self.client.next_sequence_number == before, "a refused request took a number")
            raise
        self._use((1, CLIENT_ID, binding.request_piv), wire.payload)
        self.sent.append(_Sent(plain, wire, binding, self.life))

    def _deliver(self, reader: Reader) -> None:
        if not self.sent:
            return
        place = reader.below(len(self.sent))
        one = self.sent[place]
        wire, is_touched = _touched(one.wire, reader)
        before = self.server.replay_window.state
        try:
            inner, binding = unprotect_request(self.server, wire)
        except OscoreError:
            promise(self.server.replay_window.state == before, "a refusal left its mark")
            raise
        number = int.from_bytes(one.binding.request_piv, "big")
        promise(not is_touched, "a request that was tampered with passed")
        promise(number not in self.accepted, f"number {number} was accepted twice")
        promise(_content(inner) == _content(one.plain), "another request came out")
        self.accepted.add(number)
        if reader.below(4):
            # The delivery is committed, with its window.
            self.server_window = self.server.replay_window.state
        self.taken.append(_Taken(place, binding, self.life))

    def _answer(self, reader: Reader) -> None:
        if not self.taken:
            return
        one = self.taken[reader.below(len(self.taken))]
        if one.life != self.life:
            return  # What was kept of it went with the program.
        plain = _message(reader, (Code.CONTENT, Code.CHANGED, Code.NOT_FOUND, Code.GET))
        number = int.from_bytes(one.binding.request_piv, "big")
        window = ReplayWindow.restore(*self.server_window)
        is_durable = not window.is_fresh(number)
        own = bool(reader.below(2)) or not is_durable
        before = self.server.next_sequence_number
        try:
            wire = protect_response(self.server, plain, one.binding, own_partial_iv=own)
        except AmiError:
            promise(self.server.next_sequence_number == before, "a refused response took a number")
            raise
        piv = OscoreOption.decode(wire.option(OptionNumber.OSCORE) or b"").partial_iv
        promise((piv is not None) == own, "a response has a Partial IV as it was told")
        nonce = (CLIENT_ID, one.binding.request_piv) if piv is None else (SERVER_ID, piv)
        self._use((2, *nonce), wire.payload)
        self.answers.append(_Answer(one.request, plain, wire))

    def _deliver_answer(self, reader: Reader) -> None:
        if not self.answers:
            return
        answer = self.answers[reader.below(len(self.answers))]
        # To its own request, or now and then to another one.
        place = reader.below(len(self.sent)) if reader.below(4) == 0 else answer.request
        one = self.sent[place]
        wire, is_touched = _touched(answer.wire, reader)
        floor = one.binding.response_floor
        try:
            inner = unprotect_response(self.client, wire, one.binding)
        except OscoreError:
            promise(one.binding.response_floor == floor, "a refusal left its mark")
            raise
        promise(not is_touched, "a response that was tampered with passed")
        promise(place == answer.request, "a response passed for another request's")
        promise(one.binding.response_floor > floor, "a response may come again")
        promise(_content(inner) == _content(answer.plain), "another response came out")

    def _reserve(self, reader: Reader) -> None:
        """A block becomes durable, then may be used."""
        if reader.below(2):
            self.client_disk += BLOCK
            self.client.reserve(self.client_disk)
        else:
            self.server_disk += BLOCK
            self.server.reserve(self.server_disk)

    def _restart(self, reader: Reader) -> None:
        """A program goes on from its disk."""
        if reader.below(2):
            self.client.resume(
                reserved_until=self.client_disk, window=self.client.replay_window.state
            )
        else:
            self.server.resume(reserved_until=self.server_disk, window=self.server_window)
            self.accepted = {
                number for number in self.accepted if not self.server.replay_window.is_fresh(number)
            }
            self.life += 1

    def _use(self, nonce: tuple[object, ...], ciphertext: bytes) -> None:
        """No nonce covers two plaintexts with one key."""
        promise(self.used.setdefault(nonce, ciphertext) == ciphertext, f"nonce {nonce} used twice")


def run_session(data: bytes) -> Outcome:
    """Operations: protect, deliver in any order or again or tampered with, reserve, restart."""
    reader = Reader(data)
    session = _Session()
    for _ in range(STEP_COUNT_MAX):
        if reader.is_spent:
            break
        session.step(reader)
    return session.trail.outcome


_MANNERS: Final = (
    (),
    (Option(OptionNumber.OBSERVE, b""),),
    (Option(OptionNumber.URI_HOST, b"h"), Option(OptionNumber.URI_PATH, b"p")),
    (Option(OptionNumber.PROXY_URI, b"coap://x"),),
)


def _message(reader: Reader, codes: Sequence[Code]) -> Message:
    code = codes[reader.below(len(codes))]
    return Message(
        code, Type.CON, 1, b"t", in_order(_MANNERS[reader.below(len(_MANNERS))]), reader.take(2)
    )


def _touched(wire: Message, reader: Reader) -> tuple[Message, bool]:
    """`wire`, and now and then an octet of it that protection covers is another."""
    manner = reader.below(8)
    if manner == 0 and wire.payload:
        at = reader.below(len(wire.payload))
        octets = bytearray(wire.payload)
        octets[at] ^= 1 + reader.below(255)
        return replace(wire, payload=bytes(octets)), True
    if manner == 1:
        return replace(wire, payload=wire.payload[: reader.below(len(wire.payload))]), True
    if manner == 2:
        # Not covered: the outer code and what may be added outside.
        outer = in_order((*wire.options, Option(OptionNumber.URI_PATH, b"outside")))
        return replace(
            wire, code=Code.POST if is_request(wire.code) else wire.code, options=outer
        ), False
    return wire, False


def _content(message: Message) -> Outcome:
    """What protection vouches for; the order that Observe gives is the Partial IV's."""
    options = tuple(
        one for one in message.options if one.number not in (OptionNumber.OBSERVE, 3, 7, 39)
    )
    has_observe = any(one.number == OptionNumber.OBSERVE for one in message.options)
    return message.code, options, message.payload, has_observe


# Seeds


def option_seeds() -> Sequence[bytes]:
    """Options of requests and responses."""
    return [
        b"",
        OscoreOption(b"\x14", b"\x01").encode(),
        OscoreOption(b"\x00", b"", b"\x37\xcb\xf3\x21\x00\x17\xa2\xd3").encode(),
        OscoreOption(b"\xff" * 5).encode(),
        OscoreOption(None, b"kid", b"").encode(),
    ]


def plaintext_seeds() -> Sequence[bytes]:
    """Requests and responses, in every manner."""
    path = Option(OptionNumber.URI_PATH, b"rep")
    observe = Option(OptionNumber.OBSERVE, b"")
    bodies = [
        bytes((Code.GET,)),
        bytes((Code.POST,)) + encode_body((path,), b"payload"),
        bytes((Code.GET,)) + encode_body((observe, path), b""),
        bytes((Code.CONTENT,)) + encode_body((), b"payload"),
        bytes((Code.CONTENT,)) + encode_body((observe,), b"payload"),
        bytes((Code.GET,)) + encode_body((Option(OptionNumber.URI_HOST, b"inside"),), b""),
    ]
    return [
        bytes((manner, outer)) + body
        for manner in (0x00, 0x10, 0x02, 0x01, 0x05, 0x0D, 0x3D, 0x03)
        for outer in (0, 0x0B)
        for body in bodies
    ]


def session_seeds() -> Sequence[bytes]:
    """Sequences of a well-kept session."""
    ask, deliver = b"\x00\x01\x00ab", b"\x02\x00\x07\x01"
    answer, hear = b"\x04\x00\x00\x00cd\x00", b"\x06\x00\x01\x07"
    watch, notify = b"\x00\x00\x01ef", b"\x04\x00\x00\x01gh\x01"
    reserve, restart = b"\x08\x01\x08\x00", b"\x09\x00\x09\x01"
    return [
        ask + deliver + answer + hear,
        ask + deliver + deliver + answer + answer + hear + hear,
        watch + deliver + notify + hear + notify + hear + answer + hear,
        (ask + deliver + answer + hear) * 2 + restart + deliver + ask + reserve + ask,
        reserve + ask * 4 + b"\x02\x03\x07\x01\x02\x01\x07\x01" + restart + deliver,
    ]


TARGETS: Final = (
    Target(
        "oscore_option",
        "an OSCORE option is refused by OscoreError, or encodes again to the same octets",
        run_option,
        option_seeds,
        tokens=(b"\x09", b"\x19", b"\x10", b"\x08", b"\x1d", b"\xe0", b"\x00"),
        size_max=300,
    ),
    Target(
        "oscore_unprotect",
        "authentic garbage inside OSCORE: OscoreError, or just what was inside; no mark on refusal",
        run_unprotect,
        plaintext_seeds,
        tokens=(b"\xff", b"\xd0\x00", b"\x60", b"\x90", b"\xb3rep", b"\xf0", b"\x01", b"\x45"),
        size_max=256,
    ),
    Target(
        "oscore_session",
        "protect, deliver, answer, tamper, restart in any order: no nonce and no number used twice",
        run_session,
        session_seeds,
        size_max=100,
    ),
)
