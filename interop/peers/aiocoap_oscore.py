"""aiocoap's OSCORE: a security context in memory, its client, and its server.

Limit   the library's own classes say nothing about their types, so what is used of them stands here
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, cast

from amistack.coap.message import Message
from amistack.session.oscore import AES_CCM_16_64_128, AES_CCM_16_128_128
from interop.peers import aiocoap_plain
from interop.peers.aiocoap_plain import PeerMessage
from interop.peers.party import LOOPBACK

NAME: Final = ":peer"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What both parties know beforehand. The peer is the one that sends as `peer_id`."""

    master_secret: bytes
    master_salt: bytes
    our_id: bytes
    peer_id: bytes
    id_context: bytes | None = None
    algorithm: int = AES_CCM_16_64_128


class PeerRequestId(Protocol):
    """The library's notes about a request."""

    can_reuse_nonce: bool


class PeerContext(Protocol):
    """What is used of a security context of the library."""

    sender_sequence_number: int

    def protect(
        self, message: PeerMessage, request_id: PeerRequestId | None = None
    ) -> tuple[PeerMessage, PeerRequestId]:
        """Protect a request, or a response to the request of those notes."""

    def unprotect(
        self, message: PeerMessage, request_id: PeerRequestId | None = None
    ) -> tuple[PeerMessage, PeerRequestId]:
        """The inverse."""


def make_context(secrets: Secrets) -> PeerContext:
    """The peer's side of a session, in memory."""
    from aiocoap import oscore

    algorithms = {
        AES_CCM_16_64_128: oscore.AES_CCM_16_64_128,
        AES_CCM_16_128_128: oscore.AES_CCM_16_128_128,
    }

    def is_wanted(context: object, unprotected: Mapping[object, bytes]) -> object | None:
        return context if unprotected.get(oscore.COSE_KID) == secrets.our_id else None

    bases = (oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils)
    members = {
        "echo_recovery": None,
        "authenticated_claims": ("us",),
        "post_seqnoincrease": lambda _: None,
        "get_oscore_context_for": is_wanted,
        "find_all_used_contextless_oscore_kid": lambda _: {secrets.our_id},
    }
    context = type("InMemory", bases, members)()
    context.alg_aead = algorithms[secrets.algorithm]()
    context.hashfun = oscore.hashfunctions["sha256"]
    context.sender_id, context.recipient_id = secrets.peer_id, secrets.our_id
    context.id_context = secrets.id_context
    context.sender_sequence_number = 0
    context.recipient_replay_window = oscore.ReplayWindow(32, lambda: None)
    context.recipient_replay_window.initialize_empty()
    context.derive_keys(secrets.master_salt, secrets.master_secret)
    return cast("PeerContext", context)


def to_peer(message: Message, *, is_incoming: bool) -> PeerMessage:
    """Our message as the library's, by its octets."""
    import aiocoap

    theirs = aiocoap.Message.decode(message.encode())
    directions = aiocoap.message.Direction
    theirs.direction = directions.INCOMING if is_incoming else directions.OUTGOING
    return cast("PeerMessage", theirs)


def from_peer(theirs: PeerMessage, like: Message) -> Message:
    """The library's message as ours, by its octets, with the header that `like` has."""
    import aiocoap

    class Encodable(Protocol):
        mtype: int
        mid: int
        token: bytes

        def encode(self) -> bytes:
            """As octets."""

    whole = cast("Encodable", theirs)
    whole.mtype = aiocoap.Type(int(like.type))
    whole.mid, whole.token = like.message_id, like.token
    return Message.decode(whole.encode())


@asynccontextmanager
async def open_client(root: str, context: object) -> AsyncIterator[aiocoap_plain.AiocoapClient]:
    """The library's client, whose requests to `root` are protected by `context`.

    `context` is a security context, or credentials of EDHOC that make one.
    """
    async with aiocoap_plain.open_client(root, is_protected=True) as client:
        client.context.client_credentials[f"{root}/*"] = context
        yield client


@asynccontextmanager
async def open_server(
    credentials: Callable[[str], Mapping[str, object]],
) -> AsyncIterator[tuple[str, int]]:
    """The library's server with the resources of `exchange`, protected; its address.

    `credentials` are those of a server at that root (`coap://host:port`), by name.
    """
    from aiocoap import oscore_sitewrapper
    from aiocoap.credentials import CredentialsMap

    port = aiocoap_plain.free_port()
    known = CredentialsMap()
    for name, credential in credentials(f"coap://{LOOPBACK}:{port}").items():
        known[name] = credential
    wrapped = oscore_sitewrapper.OscoreSiteWrapper(aiocoap_plain.make_site(), known)
    async with aiocoap_plain.open_server(wrapped, port=port) as address:
        yield address
