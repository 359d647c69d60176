"""EDHOC carried in CoAP: the responder's desk for many peers, and one initiator's approach.

Spec    RFC 9528 appendix A.2 (resource /.well-known/edhoc, content formats 64 and 65); RFC 9668
        (message_3 with the first OSCORE request); RFC 9175 2.4 (under load an address is asked for)
Gives   the CoAP message to send next, or an event that wants a command first
Raises  `Approach.receive` raises EdhocError; `Desk` never does on what a peer sends: a refused
        message becomes an EDHOC error message and is counted by reason in `refused`
Limit   `half_open`: handshakes under way of one source and in all; `gate`: under load no more work
        than a MAC is done for a message_1 from an address that may be false

Whoever drives a desk does this, in this order:

    datagram in          `challenge`: octets to send at once, and nothing else; or None: go on
    request to           `receive`: a Message to answer with, or CredentialWanted
    /.well-known/edhoc
    request with OSCORE  `receive_combined`: the same, or RequestRemains (message_3 was taken
    and EDHOC options    before: go on with the request alone)
    CredentialWanted     look it up, judge it, then `provide_credential` or `refuse_credential`:
                         a Message to answer with, or SessionProposed
    SessionProposed      make it durable, then `conclude` or `give_up`. With `proposed.request` the
                         session answers, not the desk: after `conclude`, whose message is not sent
                         then, unprotect that request in the new session as if it had just come

And whoever drives an approach: send `first_message`, give each response to `receive`, send what it
gives, until it gives keys. With `is_combining` keys come with message_2 and message_3 is still to
go: protect the first request under them and send what `combine` makes of both; where that is None,
or there is nothing to ask for, send `third_message` instead, and `receive` its response. An
unprotected response to a combined request goes to `receive` as well: it is a refusal.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NewType

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import EdhocError, LocalProtocolError
from amistack.machine import Peer
from amistack.session.approach import Approach
from amistack.session.carried import (
    CONTENT_FORMAT_CID_EDHOC,
    CONTENT_FORMAT_EDHOC,
    ENTROPY_SIZE,
    WELL_KNOWN_EDHOC,
    Entropy,
    edhoc_response,
    error_response,
)
from amistack.session.combined import bad_combination, split
from amistack.session.credentials import AuthenticationKey, Credential, IdCred
from amistack.session.edhoc import (
    EadItem,
    ErrorCode,
    ErrorMessage,
    Fault,
    Message1Facts,
    Method,
    OscoreParameters,
    Responder,
    State,
    encode_error,
    ephemeral_from_entropy,
    is_error_message,
    split_connection_id,
)
from amistack.session.gate import SECRET_SIZE, Gate
from amistack.session.half_open import (
    HALF_OPEN_LIFETIME,
    HALF_OPEN_MAX,
    SOURCE_MAX,
    HalfOpenTable,
    Source,
)

__all__ = [
    "CONTENT_FORMAT_CID_EDHOC",
    "CONTENT_FORMAT_EDHOC",
    "HALF_OPEN_LIFETIME",
    "HALF_OPEN_MAX",
    "SOURCE_MAX",
    "WELL_KNOWN_EDHOC",
    "Answering",
    "Approach",
    "CredentialWanted",
    "Desk",
    "Entropy",
    "HandshakeId",
    "RequestRemains",
    "SessionProposed",
    "host_of",
]

IDENTIFIER_SIZE: Final = 4
"""Octets of the identifiers that a responder gives out: room for millions of peers.

With 5 million in use, one draw in 860 meets one of them and is drawn again.
"""
IDENTIFIER_TRY_COUNT: Final = 64
"""Draws for an identifier that is free; a source of entropy that gives none is broken."""
BUSY_MAX_AGE: Final = 30
"""Seconds after which a peer may come again when too many handshakes wait."""
REPEATED_MAX_AGE: Final = 2
"""Seconds after which a message_3 may be repeated whose first copy still waits for the program."""

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
    """The owner of `id_cred` is authentic. Make its keys durable, then `accept_session`.

    `request` is the OSCORE request that came with message_3, to be unprotected in the session
    then; `ead` is the EAD_3 or EAD_2 that the owner vouches for.
    """

    handshake: HandshakeId
    peer: Peer
    id_cred: IdCred
    parameters: OscoreParameters
    request: Message | None = None
    ead: tuple[EadItem, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestRemains:
    """A combined request whose message_3 was taken before: its OSCORE request, to be unprotected.

    Nothing in it is authentic yet.
    """

    message: Message


@dataclass(frozen=True, slots=True)
class Answering:
    """How to answer one message_1: with which key of ours, and what goes along in EAD_2."""

    key: AuthenticationKey
    ead_2: tuple[EadItem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A handshake whose message_3 came, and which waits for a command; it does not expire."""

    c_r: bytes
    responder: Responder
    id_cred: IdCred
    message_3: bytes
    since: float
    request: Message | None


def host_of(peer: Peer) -> Source:
    """What one host cannot have many of: of a socket's address the IPv4 address or the IPv6 /64.

    Any other peer is its own source, and so is each socket of this very host, whose address
    says nothing about who it is.
    """
    if not isinstance(peer, tuple) or not peer or not isinstance(peer[0], str):
        return peer
    try:
        address = ipaddress.ip_address(peer[0].partition("%")[0])
    except ValueError:
        return peer[0]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return peer
    return address.packed if address.version == 4 else address.packed[:8]


class Desk:
    """The responder for all peers of a socket."""

    def __init__(
        self,
        key: AuthenticationKey,
        *,
        entropy: Entropy,
        is_taken: Callable[[bytes], bool],
        suites: Sequence[int] = (2, 3),
        methods: Sequence[int] = (Method.STATIC_STATIC,),
        choose: Callable[[Message1Facts], Answering] | None = None,
        source_of: Callable[[Peer], Source] = host_of,
    ) -> None:
        """`is_taken` says whether a security context has that recipient identifier already.

        One method, as a key that agrees must not sign as well (RFC 9528 9.1): more only where
        `choose` has a key for each. `choose` says how to answer a message_1 of which nothing is
        authentic, by its EAD_1 say; without it `key` answers all. `source_of` says what the
        bound for one source counts.
        """
        self.refused: Counter[str] = Counter()
        self.repeated_count = 0
        self._key = key
        self._suites = tuple(suites)
        self._methods = tuple(methods)
        self._entropy = entropy
        self._is_taken = is_taken
        self._choose = choose
        self._source_of = source_of
        self._gate = Gate(entropy(SECRET_SIZE))
        self._table = HalfOpenTable(
            count_max=HALF_OPEN_MAX, source_max=SOURCE_MAX, lifetime=HALF_OPEN_LIFETIME
        )
        self._waiting: dict[HandshakeId, _Waiting] = {}
        self._waiting_ids: dict[bytes, HandshakeId] = {}
        self._next_id = 0

    @property
    def depth(self) -> tuple[int, int]:
        """Handshakes under way, and their bound."""
        return len(self._table) + len(self._waiting), self._table.count_max

    @property
    def evicted_count(self) -> int:
        """Handshakes dropped for newer ones at the bound for all."""
        return self._table.dropped_count

    def is_under_load(self, *, now: float) -> bool:
        """Whether who begins a handshake is asked to show where it is."""
        return self._gate.is_shut(half_open_count=len(self._table), now=now)

    # Inputs from below.

    def challenge(self, datagram: bytes, peer: Peer, *, now: float) -> bytes | None:
        """The datagram to answer at once, where there is load; None: let it pass, as usual.

        Before anything is decoded or remembered: see `gate`.
        """
        answer = self._gate.challenge(datagram, peer, half_open_count=len(self._table), now=now)
        if answer is not None:
            self.refused["asked to show its address"] += 1
            self._table.expire(now)
        return answer

    def receive(self, message: Message, peer: Peer, *, now: float) -> Message | CredentialWanted:
        """Take a request to /.well-known/edhoc: the answer to it, or an event that comes first."""
        self._table.expire(now)
        try:
            if message.code != Code.POST:
                return Message.response(Code.METHOD_NOT_ALLOWED)
            if message.content_format not in (None, CONTENT_FORMAT_CID_EDHOC):
                return Message.response(Code.UNSUPPORTED_CONTENT_FORMAT)
            c_r, body = split_connection_id(message.payload)
            if c_r is None:
                return self._receive_message_1(body, peer, now=now)
            if self._table.is_concluded(c_r, body):
                self.repeated_count += 1
                return Message.response(Code.CHANGED)
            return self._receive_message_3(c_r, body, peer, None, now=now)
        except EdhocError as error:
            return self._refuse(error)

    def receive_combined(
        self, message: Message, peer: Peer, *, now: float
    ) -> Message | CredentialWanted | RequestRemains:
        """Take a request with the OSCORE and the EDHOC option (RFC 9668 3.3.1).

        Whatever becomes of message_3, an error about it is of code 1 (there, last but one
        paragraph).
        """
        self._table.expire(now)
        try:
            parts = split(message)
        except EdhocError as error:
            self.refused[str(error.reason)] += 1
            return bad_combination()
        try:
            if self._table.is_concluded(parts.c_r, parts.message_3):
                self.repeated_count += 1
                return RequestRemains(parts.request)
            return self._receive_message_3(parts.c_r, parts.message_3, peer, parts.request, now=now)
        except EdhocError as error:
            return self._refuse(error, is_combined=True)

    # Commands from above.

    def provide_credential(
        self, handshake: HandshakeId, credential: Credential | None, peer: Peer
    ) -> Message | SessionProposed:
        """Go on with the credential that was wanted; None: nobody is known by that name."""
        waiting = self._find(handshake)
        if credential is None:
            waiting.responder.refuse_initiator()
            unknown = EdhocError(
                Fault.UNKNOWN_CREDENTIAL,
                str(waiting.id_cred),
                err_code=ErrorCode.UNKNOWN_CREDENTIAL,
                err_info=True,
            )
            self._forget(handshake)
            return self._refuse(unknown, is_combined=waiting.request is not None)
        try:
            waiting.responder.authenticate_initiator(credential)
        except EdhocError as error:
            self._forget(handshake)
            return self._refuse(error, is_combined=waiting.request is not None)
        return SessionProposed(
            handshake,
            peer,
            waiting.id_cred,
            waiting.responder.oscore_parameters(),
            waiting.request,
            waiting.responder.ead_3,
        )

    def refuse_credential(self, handshake: HandshakeId, error: EdhocError) -> Message:
        """End a handshake whose ID_CRED_I was judged and found wanting, for that reason.

        Raises LocalProtocolError if it does not wait for a credential.
        """
        waiting = self._find(handshake)
        waiting.responder.refuse_initiator()
        self._forget(handshake)
        return self._refuse(error, is_combined=waiting.request is not None)

    def conclude(self, handshake: HandshakeId) -> Message:
        """The session is durable: the answer that says so, also to a repeated message_3.

        Raises LocalProtocolError if nobody is authentic in it yet.
        """
        waiting = self._find(handshake)
        if waiting.responder.state is not State.COMPLETED:
            raise LocalProtocolError(f"handshake {handshake} waits for a credential")
        self._forget(handshake)
        self._table.conclude(waiting.c_r, waiting.message_3, now=waiting.since)
        return Message.response(Code.CHANGED)

    def give_up(self, handshake: HandshakeId, *, retry_after: int) -> Message:
        """The session could not be made durable: ask the peer to come again in so many s."""
        self._find(handshake)
        self._forget(handshake)
        return Message.response(Code.SERVICE_UNAVAILABLE, max_age=retry_after)

    def _receive_message_1(self, body: bytes, peer: Peer, *, now: float) -> Message:
        message_2 = self._table.repeated(body, peer)
        if message_2 is not None:
            self.repeated_count += 1
            return edhoc_response(message_2)
        self._gate.count(now=now)
        responder = Responder(self._key, suites=self._suites, methods=self._methods)
        facts = responder.receive_message_1(body)
        ead_2: tuple[EadItem, ...] = ()
        if self._choose is not None:
            answering = self._choose(facts)
            responder.use_key(answering.key)
            ead_2 = answering.ead_2
        c_r = self._choose_identifier(facts.c_i)
        if c_r is None:
            self.refused["no identifier is free"] += 1
            return Message.response(Code.SERVICE_UNAVAILABLE, max_age=BUSY_MAX_AGE)
        ephemeral = ephemeral_from_entropy(facts.suite, self._entropy(ENTROPY_SIZE))
        message_2 = responder.message_2(ephemeral, c_r=c_r, ead=ead_2)
        dropped = self._table.dropped_count, self._table.dropped_of_source_count
        self._table.add(
            c_r,
            responder,
            peer=peer,
            source=self._source_of(peer),
            message_1=body,
            message_2=message_2,
            now=now,
        )
        if self._table.dropped_count > dropped[0]:
            self.refused["half open, dropped for a newer one"] += 1
        if self._table.dropped_of_source_count > dropped[1]:
            self.refused["half open, dropped for a newer one of its source"] += 1
        return edhoc_response(message_2)

    def _receive_message_3(
        self, c_r: bytes, body: bytes, peer: Peer, request: Message | None, *, now: float
    ) -> Message | CredentialWanted:
        half_open = self._table.find(c_r)
        if half_open is None:
            waiting = self._waiting.get(self._waiting_ids.get(c_r, HandshakeId(0)))
            if waiting is not None and waiting.message_3 == body:
                self.repeated_count += 1
                return Message.response(Code.SERVICE_UNAVAILABLE, max_age=REPEATED_MAX_AGE)
            raise EdhocError(Fault.UNEXPECTED, f"no handshake of ours is called {c_r.hex()!r}")
        if len(self._waiting) >= self._table.count_max:
            return Message.response(Code.SERVICE_UNAVAILABLE, max_age=BUSY_MAX_AGE)
        self._table.take(c_r)
        if request is None and is_error_message(body):
            self.refused["given up by the initiator"] += 1
            return Message.response(Code.CHANGED)
        responder = half_open.responder
        id_cred = responder.receive_message_3(body)
        self._next_id += 1
        handshake = HandshakeId(self._next_id)
        self._waiting[handshake] = _Waiting(c_r, responder, id_cred, body, now, request)
        self._waiting_ids[c_r] = handshake
        return CredentialWanted(handshake, peer, id_cred)

    def _choose_identifier(self, c_i: bytes) -> bytes | None:
        for _ in range(IDENTIFIER_TRY_COUNT):
            c_r = self._entropy(IDENTIFIER_SIZE)
            is_ours = c_r in self._table or c_r in self._waiting_ids or self._is_taken(c_r)
            if c_r != c_i and not is_ours:
                return c_r
        return None

    def _find(self, handshake: HandshakeId) -> _Waiting:
        waiting = self._waiting.get(handshake)
        if waiting is None:
            raise LocalProtocolError(f"handshake {handshake} is unknown or over")
        return waiting

    def _forget(self, handshake: HandshakeId) -> None:
        del self._waiting_ids[self._waiting.pop(handshake).c_r]

    def _refuse(self, error: EdhocError, *, is_combined: bool = False) -> Message:
        self.refused[str(error.reason)] += 1
        if is_combined:
            return error_response(ErrorMessage(ErrorCode.UNSPECIFIED, str(error.reason)).encode())
        return error_response(encode_error(error))
