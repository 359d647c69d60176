"""OSCORE with aiocoap: message by message, and over sockets in both roles.

Gives   what either protects the other reads, for both algorithms, with and without ID Context, for
        Partial IVs of every length, with the request's nonce and without; forgeries and replays of
        ours that it refuses; whole exchanges
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber, read_uint
from amistack.session.oscore import (
    AES_CCM_16_64_128,
    AES_CCM_16_128_128,
    SEQUENCE_NUMBER_MAX,
    SecurityContext,
    find_kid,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)
from interop.conformance.live_plain import Asked, Observer, answering_cases, asked_cases, dismissal
from interop.conformance.suite import Case, LiveSuite, VectorSuite
from interop.peers import aiocoap_oscore, aiocoap_plain
from interop.peers.aiocoap_oscore import Secrets, from_peer, make_context, to_peer
from interop.peers.exchange import (
    BLOCK_WISE,
    CRITICAL,
    LONG_OPTIONS,
    PLAIN,
    UNKNOWN_ELECTIVE,
)
from interop.peers.identities import METER
from interop.peers.party import LOOPBACK
from interop.peers.secured import SecuredClient, open_secured

OBSERVE: Final = int(OptionNumber.OBSERVE)
NUMBERS: Final = (0, 1, 255, 256, 70_000, 2**32, SEQUENCE_NUMBER_MAX - 5)
SETUPS: Final = (
    (AES_CCM_16_64_128, None, b"\x01"),
    (AES_CCM_16_128_128, b"", b"client!"),
    (AES_CCM_16_64_128, b"a context!", b"\x01\x02"),
    (AES_CCM_16_128_128, None, b"\x00"),
)
SECRET: Final = b"a secret of some"
SALT: Final = b"salt"

REQUEST: Final = Message(
    Code.POST,
    Type.CON,
    0x1234,
    b"\x4a",
    in_order(
        [
            Option(OptionNumber.IF_MATCH, b"\x01\x02"),
            Option(OptionNumber.URI_PATH, b"meter"),
            Option(OptionNumber.URI_PATH, b"readings"),
            Option(OptionNumber.CONTENT_FORMAT, b"\x3c"),
            Option(OptionNumber.URI_QUERY, b"from=2026-11-01"),
            Option(OptionNumber.ACCEPT, b"\x3c"),
            Option(UNKNOWN_ELECTIVE, bytes(20)),
        ]
    ),
    b"a payload of some octets",
)
RESPONSE: Final = Message(
    Code.CONTENT,
    Type.ACK,
    0x1234,
    b"\x4a",
    in_order(
        [
            Option(OptionNumber.ETAG, b"\xaa\xbb"),
            Option(OptionNumber.CONTENT_FORMAT, b"\x3c"),
            Option(OptionNumber.MAX_AGE, b"\x0f"),
        ]
    ),
    b"an answer",
)

Seen = tuple[int, list[tuple[int, bytes]], bytes]


@dataclass(frozen=True, slots=True)
class Pair:
    """Our context and theirs, with the same secrets."""

    ours: SecurityContext
    peer: aiocoap_oscore.PeerContext


def pair(index: int, number: int, *, we_ask: bool) -> Pair:
    """Setup `index` of SETUPS, with that sender sequence number on both sides."""
    algorithm, id_context, client_id = SETUPS[index % len(SETUPS)]
    server_id = b"\x02"
    our_id, peer_id = (client_id, server_id) if we_ask else (server_id, client_id)
    ours = SecurityContext.derive(
        master_secret=SECRET,
        master_salt=SALT,
        sender_id=our_id,
        recipient_id=peer_id,
        id_context=id_context,
        algorithm=algorithm,
    )
    ours.reserve(SEQUENCE_NUMBER_MAX + 1)
    ours.next_sequence_number = number
    peer = make_context(Secrets(SECRET, SALT, our_id, peer_id, id_context, algorithm))
    peer.sender_sequence_number = number
    return Pair(ours, peer)


def seen_by_peer(theirs: aiocoap_plain.PeerMessage) -> Seen:
    """What the library read."""
    found = [(int(one.number), one.encode()) for one in theirs.opt.option_list()]
    return int(theirs.code), sorted(found), theirs.payload


def meant(message: Message) -> Seen:
    """The same of a message of ours."""
    return int(message.code), sorted((n, v) for n, v in message.options), message.payload


def we_ask(index: int, number: int, *, has_own: bool) -> object:
    """Our request across, and their response back."""
    both = pair(index, number, we_ask=True)
    protected, sent = protect_request(both.ours, REQUEST)
    seen, request_id = both.peer.unprotect(to_peer(protected, is_incoming=True))
    request_id.can_reuse_nonce = request_id.can_reuse_nonce and not has_own
    answer, _ = both.peer.protect(to_peer(RESPONSE, is_incoming=False), request_id)
    across = from_peer(answer, RESPONSE)
    return seen_by_peer(seen), meant(unprotect_response(both.ours, across, sent))


def they_ask(index: int, number: int, *, has_own: bool) -> object:
    """Their request across, and our response back."""
    both = pair(index, number, we_ask=False)
    protected, request_id = both.peer.protect(to_peer(REQUEST, is_incoming=False))
    across = from_peer(protected, REQUEST)
    kid, kid_context = find_kid(across)
    if (kid, kid_context) != (both.ours.recipient_id, both.ours.id_context):
        return f"kid {kid.hex()}, kid context {kid_context!r}"
    unprotected, received = unprotect_request(both.ours, across)
    answer = protect_response(both.ours, RESPONSE, received, own_partial_iv=has_own)
    seen, _ = both.peer.unprotect(to_peer(answer, is_incoming=True), request_id)
    return meant(unprotected), seen_by_peer(seen)


REGISTRATION: Final = replace(
    REQUEST, code=Code.GET, payload=b"", options=in_order([*REQUEST.options, Option(OBSERVE, b"")])
)


def _notification(count: int, value: bytes) -> Message:
    return Message(Code.CONTENT, options=(Option(OBSERVE, value),), payload=b"%d" % count)


def they_notify() -> list[tuple[bytes, int]]:
    """What we read of four notifications: payload and order; the first has the request's nonce."""
    both = pair(0, 7, we_ask=True)
    protected, sent = protect_request(both.ours, REGISTRATION)
    _, request_id = both.peer.unprotect(to_peer(protected, is_incoming=True))
    heard = []
    for count in range(4):
        plain = _notification(count, b"")
        made, _ = both.peer.protect(to_peer(plain, is_incoming=False), request_id)
        message = unprotect_response(both.ours, from_peer(made, plain), sent)
        heard.append((message.payload, read_uint(message.option(OBSERVE) or b"")))
    return heard


def we_notify() -> list[tuple[bytes, int | None]]:
    """What they read of ours: payload and order."""
    both = pair(0, 7, we_ask=False)
    protected, request_id = both.peer.protect(to_peer(REGISTRATION, is_incoming=False))
    _, received = unprotect_request(both.ours, from_peer(protected, REGISTRATION))
    heard = []
    for count in range(4):
        plain = _notification(count, bytes((count,)))
        made = protect_response(both.ours, plain, received, own_partial_iv=True)
        seen, _ = both.peer.unprotect(to_peer(made, is_incoming=True), request_id)
        heard.append((seen.payload, seen.opt.observe))
    return heard


def refused_by_peer(messages: Sequence[Message]) -> str:
    """The library's word on the last of these protected requests of ours."""
    from aiocoap import oscore

    both = pair(0, 0, we_ask=True)
    for message in messages[:-1]:
        both.peer.unprotect(to_peer(message, is_incoming=True))
    try:
        both.peer.unprotect(to_peer(messages[-1], is_incoming=True))
    except (oscore.ProtectionInvalid, oscore.ReplayError) as error:
        return type(error).__name__
    return "accepted"


def codec_cases() -> list[Case]:
    """Every number under each setup in turn, both ways; notifications; what it must refuse."""
    found = []
    for index, (number, has_own) in enumerate(itertools.product(NUMBERS, (False, True))):
        how = f"number {number}, {'its own' if has_own else 'the request'}'s nonce in the response"
        both = (meant(REQUEST), meant(RESPONSE))
        asked = functools.partial(we_ask, index // 2, number, has_own=has_own)
        answered = functools.partial(they_ask, index // 2, number, has_own=has_own)
        found.append(Case(f"we ask, {how}", both, asked))
        found.append(Case(f"they ask, {how}", both, answered))
    ours = pair(0, 0, we_ask=True).ours
    genuine, _ = protect_request(ours, REQUEST)
    last = bytes((genuine.payload[-1] ^ 1,))
    forged = replace(genuine, payload=genuine.payload[:-1] + last)
    return [
        *found,
        Case("their notifications", [(b"0", 0), (b"1", 7), (b"2", 8), (b"3", 9)], they_notify),
        Case("our notifications", [(b"0", 7), (b"1", 8), (b"2", 9), (b"3", 10)], we_notify),
        Case("it takes our request", "accepted", lambda: refused_by_peer([genuine])),
        Case(
            "it refuses one with a flipped bit",
            "ProtectionInvalid",
            lambda: refused_by_peer([forged]),
        ),
        Case(
            "it refuses the same one again", "ReplayError", lambda: refused_by_peer([genuine] * 2)
        ),
    ]


SESSION: Final = Secrets(b"0123456789abcdef", b"saltsalt", our_id=b"\x0c", peer_id=b"theirs")


def _our_session() -> SecurityContext:
    return SecurityContext.derive(
        master_secret=SESSION.master_secret,
        master_salt=SESSION.master_salt,
        sender_id=SESSION.our_id,
        recipient_id=SESSION.peer_id,
    )


@asynccontextmanager
async def _they_ask() -> AsyncIterator[Asked]:
    async with open_secured(METER) as party:
        party.add_session(_our_session())
        root = f"coap://{LOOPBACK}:{party.port}"
        async with aiocoap_oscore.open_client(root, make_context(SESSION)) as client:
            yield Asked(party, client)


@asynccontextmanager
async def _we_ask() -> AsyncIterator[Observer]:
    async with (
        aiocoap_oscore.open_server(lambda _: {aiocoap_oscore.NAME: make_context(SESSION)}) as peer,
        open_secured(METER) as party,
    ):
        party.add_session(_our_session())
        yield SecuredClient(party, peer)


MESSAGES: Final = VectorSuite(
    "oscore-aiocoap",
    "OSCORE: messages protected by either side, read by the other",
    aiocoap_plain.version(),
    codec_cases,
    aiocoap_plain.missing,
    is_live=True,
)
THEY_ASK: Final = LiveSuite(
    "oscore-aiocoap-client",
    "OSCORE: aiocoap's client, our stack as server",
    aiocoap_plain.version,
    _they_ask,
    # Its client never says that it does not observe any more, so here we end it.
    lambda: [*asked_cases([*PLAIN, CRITICAL, LONG_OPTIONS, *BLOCK_WISE]), dismissal()],
    aiocoap_plain.missing,
)
WE_ASK: Final = LiveSuite(
    "oscore-aiocoap-server",
    "OSCORE: our stack as client, aiocoap's server",
    aiocoap_plain.version,
    _we_ask,
    # The stack sends confirmable requests alone.
    lambda: answering_cases(
        [one for one in (*PLAIN, LONG_OPTIONS, *BLOCK_WISE) if one.ask.is_confirmable]
    ),
    aiocoap_plain.missing,
)
