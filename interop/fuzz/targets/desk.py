"""The desk where handshakes are answered: honest meters, others, a slow program, and time."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from amistack.coap.codes import Code, Type
from amistack.coap.message import OPTION_COUNT_MAX, Message, in_order
from amistack.coap.options import Option, OptionNumber
from amistack.errors import EdhocError, LocalProtocolError
from amistack.machine import Peer
from amistack.session.credentials import (
    AuthenticationKey,
    Credential,
    IdCred,
    ccs_credential,
)
from amistack.session.edhoc import (
    Initiator,
    ephemeral_from_bytes,
    prepend_connection_id,
    split_connection_id,
)
from amistack.session.gate import BURST_MAX, SECRET_SIZE, Gate
from amistack.session.handshakes import (
    CONTENT_FORMAT_CID_EDHOC,
    CONTENT_FORMAT_EDHOC,
    WELL_KNOWN_EDHOC,
    CredentialWanted,
    Desk,
    HandshakeId,
    RequestRemains,
    SessionProposed,
)
from amistack.session.oscore import OscoreOption
from interop.fuzz.target import Outcome, Reader, Target, Trail, promise, refusal

PEERS: Final[tuple[Peer, ...]] = (("192.0.2.7", 5683), ("192.0.2.7", 9), ("fe80::1", 1, 0, 2), "x")
STEP_COUNT_MAX: Final = 6
BEGIN_COUNT_MAX: Final = 2
"""Handshakes that the honest meter begins in a run: each costs Diffie-Hellman."""
CALM_S: Final = 1_000.0
Answer = Message | CredentialWanted | SessionProposed | RequestRemains


SUITE: Final = 0
"""Its Diffie-Hellman takes half the time, and a desk does the same with every suite."""
C_I: Final = b"\x05"


def _key(name: str) -> AuthenticationKey:
    octets = hashlib.sha256(name.encode()).digest()
    key = X25519PrivateKey.from_private_bytes(octets)
    return AuthenticationKey(key, ccs_credential(octets[:3], name, key.public_key()))


METER_KEY: Final = _key("meter")
HEAD_END_KEY: Final = _key("head-end")
KNOWN: Final[dict[IdCred, Credential]] = {
    key.credential.id_cred: key.credential for key in (METER_KEY, HEAD_END_KEY)
}


# The honest meter's part: the same answer to the same octets, so asked for once.


@functools.lru_cache(maxsize=1)
def _message_1() -> bytes:
    return _begun()[1]


@functools.lru_cache(maxsize=512)
def _message_3(message_2: bytes) -> bytes:
    """What the meter says to `message_2`. Raises EdhocError where it refuses."""
    initiator, _ = _begun()
    initiator.authenticate_responder(KNOWN[initiator.receive_message_2(message_2)])
    return prepend_connection_id(initiator.c_r, initiator.message_3())


def _begun() -> tuple[Initiator, bytes]:
    initiator = Initiator(METER_KEY, suites=(SUITE,), c_i=C_I)
    ephemeral = ephemeral_from_bytes(SUITE, hashlib.sha256(b"x").digest())
    return initiator, initiator.message_1(ephemeral)


class _Play:
    """One desk, its program, what it said, and a clock."""

    def __init__(self) -> None:
        self.desk = Desk(
            HEAD_END_KEY,
            entropy=random.Random(5).randbytes,
            is_taken=lambda _: False,
            suites=(SUITE,),
        )
        self.now = 0.0
        self.begun_count = 0
        self.trail = Trail()
        self.heard: list[tuple[Message, Peer, bool]] = []
        self.messages_2: list[bytes] = []
        self.wanted: list[CredentialWanted] = []
        self.proposed: list[SessionProposed] = []
        self.handshakes: set[HandshakeId] = set()

    def step(self, reader: Reader) -> None:
        """One operation, as the input has it."""
        operation = reader.below(12)
        try:
            match operation:
                case 0:
                    self._hear(_post(reader.piece()), self._peer(reader))
                case 1 | 2 if self.begun_count < BEGIN_COUNT_MAX:
                    self.begun_count += 1
                    first = prepend_connection_id(None, _message_1())
                    self._hear(_post(first), self._peer(reader))
                case 1 | 2 | 3 | 4:
                    self._go_on(reader)
                case 5:
                    self._go_on(reader, is_combined=True)
                case 6:
                    self._repeat(reader)
                case 7 | 8:
                    self._provide(reader)
                case 9:
                    self._conclude(reader)
                case 10:
                    self._challenge(reader)
                case _:
                    self.now += 0.25 * (1 << reader.below(10))
        except LocalProtocolError as error:
            promise(operation in (7, 8, 9), "a desk never raises at what comes in")
            self.trail.note(refusal(error))
        depth, bound = self.desk.depth
        promise(0 <= depth <= bound, f"{depth} handshakes, at most {bound}")

    def _hear(self, message: Message, peer: Peer, *, is_combined: bool = False) -> None:
        self.heard.append((message, peer, is_combined))
        receive = self.desk.receive_combined if is_combined else self.desk.receive
        self._note(receive(message, peer, now=self.now))

    def _go_on(self, reader: Reader, *, is_combined: bool = False) -> None:
        """The honest meter answers a message_2 of ours; an octet of that may be another."""
        if not self.messages_2:
            return
        octets = _message_3(self.messages_2[-1 - reader.below(len(self.messages_2))])
        manner = reader.octet()
        if manner & 7 == 1:
            changed = bytearray(octets)
            changed[reader.below(len(changed))] ^= 1 + reader.below(255)
            octets = bytes(changed)
        elif manner & 7 == 2:
            octets = octets[:5] + reader.piece()
        elif manner & 7 == 3:
            octets = octets[:5] + b"\x01\x63why"
        if not is_combined:
            self._hear(_post(octets), self._peer(reader))
            return
        try:
            c_r, message_3 = split_connection_id(octets)
        except EdhocError:
            return
        options = [
            Option(OptionNumber.OSCORE, OscoreOption(b"\x00", c_r or b"").encode()),
            Option(OptionNumber.EDHOC, b"x" if manner & 8 else b""),
        ]
        if manner & 16:
            options.append(Option(OptionNumber.BLOCK1, b"\x08"))
        payload = message_3 + (b"" if manner & 32 else b"ciphertext")
        message = Message(Code.POST, options=in_order(options), payload=payload)
        self._hear(message, self._peer(reader), is_combined=True)

    def _repeat(self, reader: Reader) -> None:
        if self.heard:
            message, peer, is_combined = self.heard[-1 - reader.below(len(self.heard))]
            self._hear(
                message, self._peer(reader) if reader.below(2) else peer, is_combined=is_combined
            )

    def _provide(self, reader: Reader) -> None:
        head = reader.octet()
        if not self.wanted:
            self.desk.conclude(HandshakeId(1_000 + head))
            promise(False, "a handshake that is none was concluded")  # noqa: FBT003
        wanted = self.wanted[0]
        if head & 4:
            self.wanted.pop(0)
            self._note(
                self.desk.refuse_credential(wanted.handshake, EdhocError("judged and refused"))
            )
            return
        credential = KNOWN.get(wanted.id_cred) if head & 1 else None
        if head & 2:
            credential = HEAD_END_KEY.credential
        answer = self.desk.provide_credential(wanted.handshake, credential, wanted.peer)
        # Another's credential is a mistake of the program: then the handshake still waits.
        self.wanted.pop(0)
        self._note(answer)

    def _conclude(self, reader: Reader) -> None:
        head = reader.octet()
        if head & 4 and self.wanted:
            self.desk.conclude(self.wanted[0].handshake)
            promise(False, "concluded, and nobody is authentic")  # noqa: FBT003
        if not self.proposed:
            self.desk.give_up(HandshakeId(1_000 + head), retry_after=30)
            promise(False, "a handshake that is none was given up")  # noqa: FBT003
        proposed = self.proposed.pop(0)
        if head & 1:
            answer = self.desk.conclude(proposed.handshake)
            promise(answer.code == Code.CHANGED, "a session that is durable, and no success")
        else:
            answer = self.desk.give_up(proposed.handshake, retry_after=30)
            promise(answer.code >= 0x80, "given up, and no refusal")
        self._note(answer)

    def _challenge(self, reader: Reader) -> None:
        message = _post(prepend_connection_id(None, _message_1()))
        datagram = message.addressed(type=Type.CON, message_id=7, token=b"tk").encode()
        if reader.below(2):
            datagram = reader.piece()
        peer = self._peer(reader)
        answer = self.desk.challenge(datagram, peer, now=self.now)
        if answer is not None:
            promise(len(answer) <= len(datagram), "an answer longer than what it answers")
            Message.decode(answer)
        self.trail.note((answer is None, self.desk.is_under_load(now=self.now)))

    def _note(self, answer: Answer) -> None:
        match answer:
            case Message():
                answer.encode()
                promise(answer.code >= 0x40, "an answer that is none")
                is_second = bool(answer.payload) and answer.code == Code.CHANGED
                if is_second:
                    promise(answer.content_format == CONTENT_FORMAT_EDHOC, "another format")
                    self.messages_2.append(answer.payload)
                self.trail.note((answer.code, is_second, answer.payload[:1] == b"\x01"))
            case CredentialWanted():
                promise(answer.handshake not in self.handshakes, "a handshake's name is used twice")
                self.handshakes.add(answer.handshake)
                self.wanted.append(answer)
                self.trail.note("wanted")
            case SessionProposed():
                promise(answer.id_cred in KNOWN, "a session with nobody we know")
                parameters = answer.parameters
                promise(parameters.sender_id == C_I, "we send as the meter calls itself")
                self.proposed.append(answer)
                self.trail.note("proposed")
            case RequestRemains():
                promise(answer.message.option(OptionNumber.EDHOC) is None, "EDHOC is taken out")
                self.trail.note("remains")

    def calm_down(self) -> None:
        """Settle what waits and let time pass: nothing is kept."""
        for wanted in self.wanted:
            self.desk.provide_credential(wanted.handshake, None, wanted.peer)
        for proposed in self.proposed:
            self.desk.give_up(proposed.handshake, retry_after=1)
        self.now += CALM_S
        self.desk.receive(_post(b"\xf6"), PEERS[0], now=self.now)
        promise(self.desk.depth[0] == 0, "a handshake is kept for good")

    def _peer(self, reader: Reader) -> Peer:
        return PEERS[reader.below(len(PEERS))]


def _post(payload: bytes) -> Message:
    return Message.request(
        Code.POST, WELL_KNOWN_EDHOC, payload=payload, content_format=CONTENT_FORMAT_CID_EDHOC
    )


def run_desk(data: bytes) -> Outcome:
    """Operations: messages of all kinds, credentials, conclusions, time."""
    reader = Reader(data)
    play = _Play()
    for _ in range(STEP_COUNT_MAX):
        if reader.is_spent:
            break
        play.step(reader)
    play.calm_down()
    for reason in play.desk.refused:
        play.trail.note(reason)
    return play.trail.outcome


def desk_seeds() -> Sequence[bytes]:
    """Handshakes that go well, and every operation by itself."""
    begin, go_on, combined = b"\x01\x00", b"\x03\x00\x00\x00", b"\x05\x00\x00\x00"
    provide, conclude, repeat = b"\x07\x01", b"\x09\x01", b"\x06\x00\x00"
    return [
        begin + go_on + provide + conclude + repeat,
        begin + repeat + go_on + repeat + provide + b"\x09\x00" + repeat,
        begin + combined + provide + conclude + repeat,
        begin + b"\x01\x01" + b"\x01\x02" + go_on + b"\x07\x00" + b"\x03\x01\x00\x00",
        begin + go_on + b"\x07\x02" + begin + b"\x05\x00\x20\x00" + b"\x07\x04",
        begin + b"\x0b\x09" + go_on + begin + b"\x03\x00\x01\x06\x01\x00",
        begin + b"\x03\x00\x03\x00" + begin + b"\x03\x00\x02\x03\x41\x00\x00\x00",
        b"\x0a\x00\x00\x03" + begin + b"\x0a\x00\x00\x03" + b"\x0a\x01\x02\xf5\x01\x00\x00",
        begin + go_on + b"\x09\x05",
        *(bytes((operation, 1, 1, 2, 0)) for operation in range(12)),
    ]


# The gate


def run_gate(data: bytes) -> Outcome:
    """One octet of manner, then a datagram: at a gate that is open, or shut, or was shut long ago.

    Manner, by its bits: 1 many have come, 2 the datagram comes again later with the Echo value that
    it got, 4 that comes from elsewhere, 8 very much later.
    """
    reader = Reader(data)
    manner = reader.octet()
    gate = Gate(b"\x05" * SECRET_SIZE)
    for _ in range(3 * BURST_MAX if manner & 1 else 0):
        gate.count(now=1.0)
    datagram = reader.rest()
    first = gate.challenge(datagram, PEERS[0], half_open_count=0, now=1.0)
    if first is None:
        return "passed", manner & 1
    promise(manner & 1, "an open gate asks nobody")
    promise(len(first) <= len(datagram), "an answer longer than what it answers")
    asked, answer = Message.decode(datagram), Message.decode(first)
    promise(answer.token == asked.token, "an answer to somebody else")
    echo = answer.option(OptionNumber.ECHO)
    is_full = len(asked.options) >= OPTION_COUNT_MAX  # One more is not ours to send.
    if not manner & 2 or echo is None or is_full:
        return "challenged", echo is None, answer.type
    others = tuple(one for one in asked.options if one.number != OptionNumber.ECHO)
    again = Message(
        asked.code,
        asked.type,
        asked.message_id,
        asked.token,
        in_order((*others, Option(OptionNumber.ECHO, echo))),
        asked.payload,
    ).encode()
    peer = PEERS[2] if manner & 4 else PEERS[0]
    late = 1_000.0 if manner & 8 else 2.0
    for _ in range(3 * BURST_MAX):
        gate.count(now=late)
    second = gate.challenge(again, peer, half_open_count=0, now=late)
    promise((second is None) == (not manner & 12), "only who was asked may pass, and in time")
    return "asked twice", second is None


def gate_seeds() -> Sequence[bytes]:
    """message_1 as an honest meter sends it, and other requests."""
    first = _post(prepend_connection_id(None, _message_1()))
    datagrams = [
        message.addressed(type=type_, message_id=7, token=b"tokens").encode()
        for message in (first, Message.request(Code.GET, "time"), _post(b"\x05abc"))
        for type_ in (Type.CON, Type.NON)
    ]
    return [bytes((manner,)) + one for manner in (0, 1, 3, 7, 11) for one in datagrams]


TARGETS: Final = (
    Target(
        "edhoc_gate",
        "the gate under load: an answer no longer than the question, and only who got it passes",
        run_gate,
        gate_seeds,
        (b"\xf5", b"\xb5edhoc", b"\xbb.well-known", b"\xd2\xef", b"\x68"),
        size_max=256,
    ),
    Target(
        "edhoc_desk",
        "the desk for handshakes: bounded, nobody authentic by chance, nothing kept for good",
        run_desk,
        desk_seeds,
        (
            b"\x01\x00",
            b"\x03\x00\x00\x00",
            b"\x07\x01",
            b"\x09\x01",
            b"\x06\x00\x00",
            b"\x05\x00\x00\x00",
        ),
        size_max=28,
    ),
)
