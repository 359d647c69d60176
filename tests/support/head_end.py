"""A head-end by the book, for tests of meters: one machine on the stack, no store, no asyncio.

It knows its meters' credentials, takes every registration and report, says so at once, and keeps
all it heard. What it answers instead is set by a test: `answer_to` (any answer, or None for
silence), `forget_sessions`, or a head-end removed from its world.

Never   answers before it has noted what it was told
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from amistack.coap.codes import Code
from amistack.coap.link_format import Link
from amistack.coap.message import Message
from amistack.identifiers import Eui64
from amistack.machine import Peer
from amistack.model import (
    CONTENT_FORMAT_V1,
    DailyReport,
    ReadAnswer,
    ReadParts,
    ReadRequest,
    Registration,
    RegistrationAcknowledgement,
    ReportAcknowledgement,
    TimeAnswer,
)
from amistack.model.event_notice import EventNotice
from amistack.model.resources import EVENTS, READ, REGISTRATION, REPORT, SCHEDULED_READ, TIME
from amistack.model.scheduled_read import ScheduledRead
from amistack.session.credentials import AuthenticationKey, Credential
from amistack.session.fleet import encode_public_key, head_end_credential, meter_named
from amistack.session.handshakes import CredentialWanted, SessionProposed
from amistack.stack import (
    SEQUENCE_BLOCK,
    Event,
    HandshakeFailed,
    NumbersWanted,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
    Stack,
)

LINKS: Final = (Link(f"/{REGISTRATION}", ("amistack.registration",)),)


def key_of(number: int) -> ec.EllipticCurvePrivateKey:
    """A P-256 key that depends on a small number alone."""
    return ec.derive_private_key(1_000_003 * number + 17, ec.SECP256R1())


def head_end_key(number: int) -> AuthenticationKey:
    """A head-end's key with its credential."""
    key = key_of(number)
    return AuthenticationKey(key, head_end_credential(encode_public_key(key.public_key())))


@dataclass(frozen=True, slots=True)
class Heard:
    """One request of a meter's, as it was understood; `now` is the world's time."""

    now: float
    meter: Eui64
    message: Message
    registration: Registration | None = None
    report: DailyReport | None = None
    read: ScheduledRead | None = None
    notice: EventNotice | None = None


@dataclass(slots=True)
class HeadEnd:
    """The machine; a host drives it like any other."""

    key: AuthenticationKey
    meters: Mapping[Eui64, Credential]
    wall: Callable[[float], float]
    """UTC (s) at a time of the world."""
    seed: int = 0
    answer_to: Callable[[Heard], Message | None] | None = None
    heard: list[Heard] = field(default_factory=list)
    answers: list[SecureResponse] = field(default_factory=list)
    failures: list[RequestFailed] = field(default_factory=list)
    session_count: int = 0
    is_time_known: bool = True
    unanswered_limit: int = 1_000
    _stack: Stack = field(init=False)
    _peers: dict[Eui64, Peer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        dice = random.Random(f"head-end {self.seed} {self.session_count}")
        self._stack = Stack(key=self.key, entropy=dice.randbytes, dice=dice, links=LINKS)

    # What a test does

    def forget_sessions(self) -> None:
        """Start anew with nothing but the registry, as after the loss of every disk."""
        self._begin()

    def ask(self, meter: Eui64, message: Message, peer: Peer, *, now: float) -> RequestId:
        """Send any request to a meter; its end is in `answers` or `failures`."""
        return self._stack.request(meter, message, peer, now=now)

    def read(
        self, meter: Eui64, parts: ReadParts, peer: Peer, *, now: float, name: bytes = b"read-one"
    ) -> RequestId:
        """Ask a meter for an on-demand read."""
        return self.ask(meter, read_request(name, parts), peer, now=now)

    def cancel(self, request: RequestId, *, now: float) -> None:
        """Give up a request: it is not sent again."""
        self._stack.cancel(request, now=now)

    @property
    def registrations(self) -> list[Registration]:
        """What was registered, oldest first."""
        return [one.registration for one in self.heard if one.registration is not None]

    @property
    def reports(self) -> list[DailyReport]:
        """Every report that came, oldest first, repetitions as well."""
        return [one.report for one in self.heard if one.report is not None]

    @property
    def days(self) -> list[int]:
        """The days of the reports, in the order they came."""
        return [report.day for report in self.reports]

    @property
    def reads(self) -> list[ScheduledRead]:
        """Every read of a schedule that came, oldest first, repetitions as well."""
        return [one.read for one in self.heard if one.read is not None]

    @property
    def notices(self) -> list[EventNotice]:
        """Every event notice that came, oldest first, repetitions as well."""
        return [one.notice for one in self.heard if one.notice is not None]

    @property
    def read_answers(self) -> list[ReadAnswer]:
        """The answers to on-demand reads that were given."""
        return [
            ReadAnswer.decode(one.message.payload)
            for one in self.answers
            if one.message.code == Code.CONTENT
        ]

    @property
    def refused(self) -> Mapping[str, int]:
        """What the stack refused, by reason."""
        return self._stack.refused

    # The machine

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram."""
        self._stack.receive_datagram(data, peer, now=now)
        self._turn(now)

    def handle_timer(self, *, now: float) -> None:
        """Do what is due."""
        self._stack.handle_timer(now=now)
        self._turn(now)

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams and where they go."""
        return self._stack.data_to_send()

    def events(self) -> list[Event]:
        """None: everything is dealt with here."""
        return []

    def next_timer(self) -> float | None:
        """When to wake."""
        return self._stack.next_timer()

    def settle_numbers(self, *, now: float) -> None:
        """Deal with what a command brought about."""
        self._turn(now)

    def _turn(self, now: float) -> None:
        while events := self._stack.events():
            for event in events:
                self._receive(event, now)

    def _receive(self, event: Event, now: float) -> None:
        match event:
            case CredentialWanted():
                meter = meter_named(event.id_cred)
                credential = None if meter is None else self.meters.get(meter)
                self._stack.provide_credential(event, credential, now=now)
            case SessionProposed():
                meter = meter_named(event.id_cred)
                assert meter is not None
                self.session_count += 1
                self._stack.accept_session(event, meter, reserved_until=SEQUENCE_BLOCK, now=now)
            case NumbersWanted():
                self._stack.numbers_reserved(event.recipient_id, event.until, now=now)
            case SecureRequest():
                self._answer(event, now)
            case SecureResponse():
                self.answers.append(event)
            case RequestFailed():
                self.failures.append(event)
            case HandshakeFailed():
                raise AssertionError("a head-end begins no handshake")

    def _answer(self, request: SecureRequest, now: float) -> None:
        heard = self._understood(request, now)
        self.heard.append(heard)
        answer = self.answer_to(heard) if self.answer_to is not None else self.plain_answer(heard)
        if answer is not None:
            self._stack.respond(request.exchange, answer, is_durable=True, now=now)

    def _understood(self, request: SecureRequest, now: float) -> Heard:
        meter = Eui64(request.identity)
        message = request.message
        if (message.code, message.path) == (Code.GET, TIME):
            return Heard(now, meter, message)
        assert message.code == Code.POST
        assert message.content_format == CONTENT_FORMAT_V1
        if message.path == REGISTRATION:
            return Heard(now, meter, message, registration=Registration.decode(message.payload))
        if message.path == SCHEDULED_READ:
            return Heard(now, meter, message, read=ScheduledRead.decode(message.payload))
        if message.path == EVENTS:
            return Heard(now, meter, message, notice=EventNotice.decode(message.payload))
        assert message.path == REPORT
        return Heard(now, meter, message, report=DailyReport.decode(message.payload))

    def plain_answer(self, heard: Heard) -> Message:
        """What a head-end says when all is well."""
        if heard.message.path == TIME:
            return self._time(heard.now)
        received_ms = int(self.wall(heard.now) * 1000) if self.is_time_known else 0
        acknowledgement = (
            RegistrationAcknowledgement(received_ms, 0, 1)
            if heard.registration is not None
            else ReportAcknowledgement(received_ms, 0)
        )
        return changed(acknowledgement.encode())

    def _time(self, now: float) -> Message:
        if not self.is_time_known:
            return Message.response(Code.SERVICE_UNAVAILABLE, max_age=300)
        answer = TimeAnswer(int(self.wall(now) * 1000), 0)
        return Message.response(
            Code.CONTENT, payload=answer.encode(), content_format=CONTENT_FORMAT_V1, max_age=0
        )


def changed(payload: bytes) -> Message:
    """2.04 with a payload of the model."""
    return Message.response(Code.CHANGED, payload=payload, content_format=CONTENT_FORMAT_V1)


def read_request(name: bytes, parts: ReadParts) -> Message:
    """The request of an on-demand read."""
    return Message.request(
        Code.FETCH,
        READ,
        payload=ReadRequest(name, parts).encode(),
        content_format=CONTENT_FORMAT_V1,
    )
