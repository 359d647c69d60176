"""Programs on a stack, for tests: each answers every event, keeps a disk, and can be restarted.

Nothing here is random but by seed. What a party was given and what became of its requests stands
in its lists, so that a test judges it after the run.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from amistack.coap.codes import Code
from amistack.coap.endpoint import ExchangeId, Limits
from amistack.coap.link_format import Link
from amistack.coap.message import Message
from amistack.identifiers import Eui64
from amistack.machine import Peer
from amistack.session.credentials import AuthenticationKey, Credential, IdCred
from amistack.session.edhoc import OscoreParameters
from amistack.session.fleet import encode_public_key, head_end_credential, meter_credential
from amistack.session.handshakes import WELL_KNOWN_EDHOC, CredentialWanted, SessionProposed
from amistack.session.oscore import ReplayWindow, SecurityContext
from amistack.stack import (
    SEQUENCE_BLOCK,
    Event,
    HandshakeFailed,
    NumbersWanted,
    ObservationEnded,
    ObservationStale,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
    SessionWorn,
    Stack,
    context_of,
)
from tests.support.worlds import PERFECT, Host, World

METER: Final = Eui64(bytes.fromhex("70b3d5fffe000017"))
OTHER_METER: Final = Eui64(bytes.fromhex("70b3d5fffe000018"))
HEAD_END_NAME: Final = b"the head-end"
CONTENT: Final = 65001
LINKS: Final = (Link("/read", ("amistack.read",), content_formats=(CONTENT,)),)


def private_key(name: str) -> ec.EllipticCurvePrivateKey:
    octets = hashlib.sha256(name.encode()).digest()
    return ec.derive_private_key(int.from_bytes(octets), ec.SECP256R1())


def meter_key(meter: Eui64, name: str = "meter") -> AuthenticationKey:
    key = private_key(f"{name} {meter.hex()}")
    return AuthenticationKey(key, meter_credential(meter, encode_public_key(key.public_key())))


def head_end_key(name: str = "head-end") -> AuthenticationKey:
    key = private_key(name)
    return AuthenticationKey(key, head_end_credential(encode_public_key(key.public_key())))


def seeded_entropy(seed: object) -> random.Random:
    return random.Random(f"entropy {seed}")


@dataclass(slots=True)
class Saved:
    """What a party's disk has of one session."""

    parameters: OscoreParameters
    reserved_until: int
    window: tuple[int, int]

    def restored(self) -> SecurityContext:
        context = context_of(self.parameters)
        context.replay_window = ReplayWindow.restore(*self.window)
        context.next_sequence_number = context.reserved_until = self.reserved_until
        return context


@dataclass(slots=True)
class Disk:
    """What outlives a restart."""

    sessions: dict[bytes, Saved] = field(default_factory=dict)

    def reserve(self, recipient_id: bytes, until: int) -> None:
        for saved in self.sessions.values():
            if saved.parameters.recipient_id == recipient_id:
                saved.reserved_until = max(saved.reserved_until, until)

    def keep_window(self, recipient_id: bytes, window: tuple[int, int]) -> None:
        for saved in self.sessions.values():
            if saved.parameters.recipient_id == recipient_id:
                saved.window = window


class Party:
    """A head-end or a meter: everything that a program must do, and nothing else.

    `block` numbers are reserved with a new session. With `answers_at_once` off, requests wait in
    `waiting` for the test. `is_durable` is what the answers say. Who asks for the resource "state"
    gets `state`, once there is one.
    """

    def __init__(
        self,
        name: str,
        key: AuthenticationKey,
        known: Iterable[Credential],
        *,
        seed: object = 0,
        is_responder: bool = True,
        limits: Limits | None = None,
        block: int = SEQUENCE_BLOCK,
    ) -> None:
        self.name = name
        self.key = key
        self.known: Mapping[IdCred, Credential] = {one.id_cred: one for one in known}
        self.seed = seed
        self.is_responder = is_responder
        self.limits = limits
        self.block = block
        self.disk = Disk()
        self.answers_at_once = True
        self.is_durable = True
        self.grants_numbers = True
        self.life_count = 0
        self.hop_count: int | None = None
        self.waiting: list[SecureRequest] = []
        self.delivered: list[tuple[bytes, Message]] = []
        self.responses: dict[RequestId, Message] = {}
        self.failures: dict[RequestId, RequestFailed] = {}
        self.handshake_failures: list[HandshakeFailed] = []
        self.proposals: list[SessionProposed] = []
        self.wanted: list[NumbersWanted] = []
        self.states: dict[RequestId, list[Message]] = {}
        self.stale: list[RequestId] = []
        self.observers: list[ExchangeId] = []
        self.endings: list[str] = []
        self.state: bytes | None = None
        self.worn: list[bytes] = []
        self.stack = self._born()
        self.host: Host[Event] | None = None

    def _born(self) -> Stack:
        self.life_count += 1
        return Stack(
            key=self.key,
            entropy=seeded_entropy((self.name, self.seed, self.life_count)).randbytes,
            dice=random.Random(f"{self.name} {self.seed} {self.life_count}"),
            links=LINKS,
            is_responder=self.is_responder,
            limits=self.limits,
            hop_count_of=lambda _: self.hop_count,
        )

    def identity_of(self, proposed: SessionProposed) -> bytes:
        return HEAD_END_NAME if not self.is_responder else bytes(proposed.id_cred.value)  # type: ignore[union-attr]  # Kids only.

    @property
    def now(self) -> float:
        assert self.host is not None
        return self.host.world.now

    def settle(self) -> None:
        assert self.host is not None
        self.host.settle()

    def on_event(self, event: Event) -> None:
        stack, now = self.stack, self.now
        match event:
            case CredentialWanted():
                stack.provide_credential(event, self.known.get(event.id_cred), now=now)
            case SessionProposed():
                self.proposals.append(event)
                identity = self.identity_of(event)
                self.disk.sessions[identity] = Saved(
                    event.parameters, self.block, ReplayWindow().state
                )
                stack.accept_session(event, identity, reserved_until=self.block, now=now)
            case NumbersWanted():
                self.wanted.append(event)
                if self.grants_numbers:
                    self.grant(event)
            case SecureRequest():
                self.delivered.append((event.identity, event.message))
                if self.answers_at_once:
                    self.answer(event)
                else:
                    self.waiting.append(event)
            case SecureResponse(is_final=False):
                assert event.request not in self.responses | self.failures
                self.states.setdefault(event.request, []).append(event.message)
            case SecureResponse():
                assert event.request not in self.responses | self.failures
                self.responses[event.request] = event.message
            case ObservationEnded():
                self.observers.remove(event.exchange)
                self.endings.append(event.reason)
            case ObservationStale():
                self.stale.append(event.request)
            case SessionWorn():
                self.worn.append(event.identity)
            case RequestFailed():
                assert event.request not in self.responses | self.failures
                self.failures[event.request] = event
            case HandshakeFailed():
                self.handshake_failures.append(event)

    def grant(self, wanted: NumbersWanted) -> None:
        self.disk.reserve(wanted.recipient_id, wanted.until)
        self.stack.numbers_reserved(wanted.recipient_id, wanted.until, now=self.now)

    def answer(self, event: SecureRequest) -> None:
        if self.is_durable:
            self.disk.keep_window(event.recipient_id, event.window)
        opened = self.stack.respond(
            event.exchange,
            self.answer_to(event.message),
            is_durable=self.is_durable,
            opens_observation=True,
            now=self.now,
        )
        if opened:
            self.observers.append(event.exchange)

    def answer_to(self, message: Message) -> Message:
        if self.state is None or message.path != "state":
            return answer_to(message)
        return Message.response(Code.CONTENT, payload=self.state, content_format=CONTENT)

    def connect(self, peer: Peer, *, c_i: bytes = b"\x05", is_combining: bool = False) -> None:
        known = tuple(self.known.values())
        self.stack.connect(peer, known, c_i=c_i, now=self.now, is_combining=is_combining)
        self.settle()

    def ask(self, identity: bytes, peer: Peer, payload: bytes) -> RequestId:
        request = self.stack.request(identity, question(payload), peer, now=self.now)
        self.settle()
        return request

    def restart(self) -> None:
        """Die and come back with what is on the disk."""
        assert self.host is not None
        self.stack = self._born()
        self.waiting.clear()
        # Their numbers begin anew with the stack.
        self.responses, self.failures = {}, {}
        for identity, saved in self.disk.sessions.items():
            self.stack.add_session(identity, saved.restored())
        self.host.machine = self.stack
        self.host.settle()


def question(payload: bytes) -> Message:
    return Message.request(Code.POST, "rep", payload=payload, content_format=CONTENT)


def answer_to(message: Message) -> Message:
    return Message.response(Code.CHANGED, payload=b"re " + message.payload, content_format=CONTENT)


class Street:
    """One head-end and one meter in a world."""

    METER_AT: Final = "meter"
    HEAD_END_AT: Final = "head-end"

    def __init__(
        self,
        world: World | None = None,
        *,
        seed: object = 0,
        limits: Limits | None = None,
        block: int = SEQUENCE_BLOCK,
    ) -> None:
        self.world = world or World()
        meter, head_end = meter_key(METER), head_end_key()
        self.meter = Party(
            "meter",
            meter,
            [head_end.credential],
            seed=seed,
            is_responder=False,
            limits=limits,
            block=block,
        )
        self.head_end = Party(
            "head-end", head_end, [meter.credential], seed=seed, limits=limits, block=block
        )
        for address, party in ((self.METER_AT, self.meter), (self.HEAD_END_AT, self.head_end)):
            party.host = self.world.add(address, party.stack, party.on_event)

    def join(self, *, c_i: bytes = b"\x05") -> None:
        self.meter.connect(self.HEAD_END_AT, c_i=c_i)
        self.world.elapse(300)

    def report(self, payload: bytes) -> RequestId:
        return self.meter.ask(HEAD_END_NAME, self.HEAD_END_AT, payload)

    def read(self, payload: bytes) -> RequestId:
        return self.head_end.ask(METER, self.METER_AT, payload)

    def contexts(self) -> tuple[SecurityContext, SecurityContext]:
        """The meter's and the head-end's, of the session in use."""
        ours = self.meter.stack.session_of(HEAD_END_NAME)
        theirs = self.head_end.stack.session_of(METER)
        assert ours is not None
        assert theirs is not None
        return ours, theirs

    def calm_down(self) -> None:
        """Let all that is under way end, half-open handshakes too: they go when the next comes."""
        self.world.quality = PERFECT
        self.world.elapse(700)
        poke = Message.request(Code.POST, WELL_KNOWN_EDHOC, payload=b"\xf5")
        self.world.send("stranger", self.HEAD_END_AT, poke.encode())
        self.world.elapse(10)

    def expect_rest(self) -> None:
        """Nothing is under way anywhere: no table keeps what is over."""
        for party in (self.meter, self.head_end):
            assert leaks(party.stack) == {}, party.name


# Tables whose entries must all be gone when nothing is under way. They have no public face, and a
# leak in one of them is what a program would notice after a year.
TABLES: Final = ("_handshake_exchanges",)
REQUEST_TABLES: Final = ("_asked", "_under_way")
APPROACH_TABLES: Final = ("_approaches", "_proposed", "_unsaid")
BODY_TABLES: Final = ("_asking", "_parts", "_delivered")


def leaks(stack: Stack) -> dict[str, int]:
    secured = stack._secured
    tables = {name: len(getattr(secured, name)) for name in TABLES}
    tables |= {name: len(getattr(secured._approaches, name)) for name in APPROACH_TABLES}
    tables |= {name: len(getattr(secured._requests, name)) for name in REQUEST_TABLES}
    tables["_exchanges"] = len(secured._answers._exchanges)
    numbers = secured._numbers
    tables |= {name: len(getattr(numbers, name)) for name in ("_held", "_wanting")}
    tables |= {name: len(getattr(stack, name)) for name in BODY_TABLES}
    depths = {name: depth for name, (depth, _) in stack.depths.items()}
    depths.pop("messages remembered")
    return {name: size for name, size in (tables | depths).items() if size}


def state_of(stack: Stack) -> object:
    """All that a refused message must leave as it is: sessions, windows, numbers, tables."""
    sessions = {
        identity: (
            context.recipient_id,
            context.sender_key,
            context.replay_window.state,
            context.next_sequence_number,
            context.reserved_until,
        )
        for identity, context in stack._secured._sessions.items()
    }
    owners = {one.recipient_id: one.owner for one in stack._secured._sessions.values()}
    return sessions, owners, leaks(stack)


def refused_since(stack: Stack, before: Mapping[str, int]) -> dict[str, int]:
    return dict(Counter(stack.refused) - Counter(before))
