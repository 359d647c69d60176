"""EDHOC carried in CoAP: the responder's desk for many peers, and one initiator's approach.

Spec    RFC 9528 appendix A.2 (resource /.well-known/edhoc, content formats 64 and 65)
Gives   the CoAP message to send next, or an event that wants a command first
Raises  `Approach.receive` raises EdhocError; `Desk` never does on what a peer sends: a refused
        message becomes an EDHOC error message and is counted by reason in `refused`
Limit   HALF_OPEN_MAX handshakes under way, each HALF_OPEN_LIFETIME s; at the bound the oldest is
        dropped, so that a flood costs that much memory and no more
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NewType

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import EdhocError, LocalProtocolError
from amistack.machine import Peer
from amistack.session.credentials import AuthenticationKey, Credential, IdCred
from amistack.session.edhoc import (
    ErrorCode,
    ErrorMessage,
    Fault,
    Initiator,
    Method,
    OscoreParameters,
    Responder,
    State,
    encode_error,
    ephemeral_from_entropy,
    is_error_message,
    prepend_connection_id,
    split_connection_id,
    suites_after_refusal,
)

WELL_KNOWN_EDHOC: Final = ".well-known/edhoc"
CONTENT_FORMAT_EDHOC: Final = 64
CONTENT_FORMAT_CID_EDHOC: Final = 65

HALF_OPEN_MAX: Final = 4_096
HALF_OPEN_LIFETIME: Final = 60.0
IDENTIFIER_SIZE: Final = 4
"""Octets of the identifiers that a responder gives out: room for millions of peers."""
IDENTIFIER_TRY_COUNT: Final = 64
"""Draws for an identifier that is free; a source of entropy that gives none is broken."""
ENTROPY_SIZE: Final = 32
BUSY_MAX_AGE: Final = 30
"""Seconds after which a peer may come again when too many handshakes wait."""

Entropy = Callable[[int], bytes]
"""A source of secret random octets, so many at a call. Real in programs, seeded in simulations."""

HandshakeId = NewType("HandshakeId", int)
"""One handshake that waits for a command."""


@dataclass(frozen=True, slots=True)
class CredentialWanted:
    """Somebody claims to be the owner of `id_cred`. Answer with `provide_credential`."""

    handshake: HandshakeId
    peer: Peer
    id_cred: IdCred


@dataclass(frozen=True, slots=True)
class SessionProposed:
    """The owner of `id_cred` is authentic. Make its keys durable, then `accept_session`."""

    handshake: HandshakeId
    peer: Peer
    id_cred: IdCred
    parameters: OscoreParameters


@dataclass(slots=True)
class _HalfOpen:
    """A handshake of the desk, by the identifier that we gave out for it."""

    responder: Responder
    until: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A handshake whose message_3 came, and which waits for a command; it does not expire."""

    c_r: bytes
    responder: Responder
    id_cred: IdCred


class Desk:
    """The responder for all peers of a socket."""

    def __init__(
        self,
        key: AuthenticationKey,
        *,
        entropy: Entropy,
        is_taken: Callable[[bytes], bool],
        suites: Sequence[int] = (2, 3),
    ) -> None:
        """`is_taken` says whether a security context has that recipient identifier already."""
        self.refused: Counter[str] = Counter()
        self.evicted_count = 0
        self._key = key
        self._suites = suites
        self._entropy = entropy
        self._is_taken = is_taken
        self._half_open: dict[bytes, _HalfOpen] = {}
        self._waiting: dict[HandshakeId, _Waiting] = {}
        self._next_id = 0

    @property
    def depth(self) -> tuple[int, int]:
        """Handshakes under way, and their bound."""
        return len(self._half_open) + len(self._waiting), HALF_OPEN_MAX

    def receive(self, message: Message, peer: Peer, *, now: float) -> Message | CredentialWanted:
        """Take a request to /.well-known/edhoc: the answer to it, or an event that comes first."""
        self._expire(now)
        try:
            if message.code != Code.POST:
                return Message.response(Code.METHOD_NOT_ALLOWED)
            if message.content_format not in (None, CONTENT_FORMAT_CID_EDHOC):
                return Message.response(Code.UNSUPPORTED_CONTENT_FORMAT)
            c_r, body = split_connection_id(message.payload)
            if c_r is None:
                return self._receive_message_1(body, now=now)
            return self._receive_message_3(c_r, body, peer)
        except EdhocError as error:
            return self._refuse(error)

    def provide_credential(
        self, handshake: HandshakeId, credential: Credential | None, peer: Peer
    ) -> Message | SessionProposed:
        """Go on with the credential that was wanted; None: nobody is known by that name."""
        waiting = self._find(handshake)
        if credential is None:
            refusal = waiting.responder.refuse_initiator()
            del self._waiting[handshake]
            self.refused[str(Fault.UNKNOWN_CREDENTIAL)] += 1
            return _error_response(refusal)
        try:
            waiting.responder.authenticate_initiator(credential)
        except EdhocError as error:
            del self._waiting[handshake]
            return self._refuse(error)
        parameters = waiting.responder.oscore_parameters()
        return SessionProposed(handshake, peer, waiting.id_cred, parameters)

    def conclude(self, handshake: HandshakeId) -> Message:
        """The session is durable: the answer that says so."""
        self._find(handshake)
        del self._waiting[handshake]
        return Message.response(Code.CHANGED)

    def give_up(self, handshake: HandshakeId, *, retry_after: int) -> Message:
        """The session could not be made durable: ask the peer to come again in so many s."""
        self._find(handshake)
        del self._waiting[handshake]
        return Message.response(Code.SERVICE_UNAVAILABLE, max_age=retry_after)

    def _receive_message_1(self, body: bytes, *, now: float) -> Message:
        # Method 3 alone: a key that agrees must not sign as well (RFC 9528 section 9.1).
        responder = Responder(self._key, suites=self._suites, methods=(Method.STATIC_STATIC,))
        facts = responder.receive_message_1(body)
        c_r = self._choose_identifier(facts.c_i)
        if c_r is None:
            self.refused["no identifier is free"] += 1
            return Message.response(Code.SERVICE_UNAVAILABLE, max_age=BUSY_MAX_AGE)
        ephemeral = ephemeral_from_entropy(facts.suite, self._entropy(ENTROPY_SIZE))
        message_2 = responder.message_2(ephemeral, c_r=c_r)
        if len(self._half_open) >= HALF_OPEN_MAX:
            del self._half_open[next(iter(self._half_open))]
            self.evicted_count += 1
            self.refused["half open, dropped for a newer one"] += 1
        self._half_open[c_r] = _HalfOpen(responder, now + HALF_OPEN_LIFETIME)
        return Message.response(
            Code.CHANGED, payload=message_2, content_format=CONTENT_FORMAT_EDHOC
        )

    def _receive_message_3(self, c_r: bytes, body: bytes, peer: Peer) -> Message | CredentialWanted:
        half_open = self._half_open.get(c_r)
        if half_open is None:
            raise EdhocError(Fault.UNEXPECTED, f"no handshake of ours is called {c_r.hex()!r}")
        if len(self._waiting) >= HALF_OPEN_MAX:
            return Message.response(Code.SERVICE_UNAVAILABLE, max_age=BUSY_MAX_AGE)
        del self._half_open[c_r]
        if is_error_message(body):
            self.refused["given up by the initiator"] += 1
            return Message.response(Code.CHANGED)
        id_cred = half_open.responder.receive_message_3(body)
        self._next_id += 1
        handshake = HandshakeId(self._next_id)
        self._waiting[handshake] = _Waiting(c_r, half_open.responder, id_cred)
        return CredentialWanted(handshake, peer, id_cred)

    def _choose_identifier(self, c_i: bytes) -> bytes | None:
        for _ in range(IDENTIFIER_TRY_COUNT):
            c_r = self._entropy(IDENTIFIER_SIZE)
            is_waiting = any(waiting.c_r == c_r for waiting in self._waiting.values())
            if c_r != c_i and not (c_r in self._half_open or is_waiting or self._is_taken(c_r)):
                return c_r
        return None

    def _find(self, handshake: HandshakeId) -> _Waiting:
        waiting = self._waiting.get(handshake)
        if waiting is None:
            raise LocalProtocolError(f"handshake {handshake} is unknown or over")
        return waiting

    def _expire(self, now: float) -> None:
        while self._half_open:
            c_r = next(iter(self._half_open))
            if self._half_open[c_r].until > now:
                return
            del self._half_open[c_r]

    def _refuse(self, error: EdhocError) -> Message:
        self.refused[str(error.reason)] += 1
        return _error_response(encode_error(error))


class Approach:
    """One handshake as initiator: the messages to POST, until keys come out.

    `trusted` are the responder's credentials that are pinned; any other is refused.
    """

    def __init__(
        self,
        key: AuthenticationKey,
        trusted: Sequence[Credential],
        *,
        c_i: bytes,
        entropy: Entropy,
        suites: Sequence[int] = (2, 3),
    ) -> None:
        self._key = key
        self._trusted = {credential.id_cred: credential for credential in trusted}
        self._c_i = c_i
        self._entropy = entropy
        self._suites = tuple(suites)
        self._has_negotiated = False
        self._id_cred: IdCred | None = None
        self._initiator = self._begin(self._suites[:1])

    @property
    def id_cred(self) -> IdCred:
        """Who the responder is. Raises LocalProtocolError before it is authentic."""
        if self._id_cred is None:
            raise LocalProtocolError("the responder is not authentic yet")
        return self._id_cred

    def first_message(self) -> Message:
        """The request with message_1."""
        selected = self._offered[-1]
        ephemeral = ephemeral_from_entropy(selected, self._entropy(ENTROPY_SIZE))
        return _edhoc_request(None, self._initiator.message_1(ephemeral))

    def receive(self, response: Message) -> Message | OscoreParameters:
        """Take the response to the last message: the next request, or the keys.

        Raises EdhocError when the responder refuses, is not authentic, or is not trusted.
        """
        if response.code != Code.CHANGED:
            return self._receive_refusal(response)
        if self._initiator.state is State.WAIT_MESSAGE_2:
            wanted = self._initiator.receive_message_2(response.payload)
            credential = self._trusted.get(wanted)
            if credential is None:
                raise EdhocError(Fault.UNKNOWN_CREDENTIAL, f"the responder calls itself {wanted}")
            self._initiator.authenticate_responder(credential)
            message_3 = self._initiator.message_3()
            self._id_cred = wanted
            return _edhoc_request(self._initiator.c_r, message_3)
        return self._initiator.oscore_parameters()

    def _begin(self, suites: Sequence[int]) -> Initiator:
        self._offered = tuple(suites)
        return Initiator(self._key, suites=self._offered, c_i=self._c_i)

    def _receive_refusal(self, response: Message) -> Message:
        if response.content_format != CONTENT_FORMAT_EDHOC or not response.payload:
            raise EdhocError("refused by the responder", f"code {response.code:#04x}")
        error = ErrorMessage.decode(response.payload)
        if error.code != ErrorCode.WRONG_SUITE or self._has_negotiated:
            raise EdhocError("refused by the responder", _told(error))
        # The list is not authentic yet, but EDHOC makes a downgrade fail later (RFC 9528 6.3.1).
        self._has_negotiated = True
        assert isinstance(error.info, tuple)
        self._initiator = self._begin(suites_after_refusal(self._suites, error.info))
        return self.first_message()


def _told(error: ErrorMessage) -> str:
    """A refusal for people. Nothing proves who sent it, so its text is quoted."""
    if error.code == ErrorCode.UNKNOWN_CREDENTIAL:
        return "it does not know our credential (error 3)"
    return f"error {error.code}, {error.info!r}"


def _edhoc_request(c_r: bytes | None, octets: bytes) -> Message:
    return Message.request(
        Code.POST,
        WELL_KNOWN_EDHOC,
        payload=prepend_connection_id(c_r, octets),
        content_format=CONTENT_FORMAT_CID_EDHOC,
    )


def _error_response(octets: bytes) -> Message:
    return Message.response(Code.BAD_REQUEST, payload=octets, content_format=CONTENT_FORMAT_EDHOC)
