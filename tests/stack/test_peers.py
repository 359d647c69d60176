"""A stack on a real socket against a meter, and a server, that others wrote.

The contract under test: a stranger with `lakers` for EDHOC and `aiocoap` for CoAP and OSCORE, who
knows docs/protocol/identity.md and none of our code, joins and is answered; and a server of
`aiocoap` answers what we ask.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.links import UdpLink, open_udp
from amistack.session.edhoc import OscoreParameters
from amistack.session.handshakes import CredentialWanted, SessionProposed
from amistack.stack import (
    Event,
    NumbersWanted,
    RequestFailed,
    SecureRequest,
    SecureResponse,
    Stack,
    context_of,
)
from tests.stack.parties import LINKS, METER, answer_to, head_end_key, meter_key

# Not there on every machine that runs this stack.
aiocoap = pytest.importorskip("aiocoap")
oscore = pytest.importorskip("aiocoap.oscore")
lakers = pytest.importorskip("lakers")

HOST = "127.0.0.1"
WAIT_MAX = 10.0


class PeerContext(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):  # type: ignore[misc,name-defined]
    """The peer's side of a session, in memory."""

    echo_recovery = None
    authenticated_claims = ("head-end",)

    def __init__(self, secret: bytes, salt: bytes, sender_id: bytes, recipient_id: bytes) -> None:
        self.alg_aead = oscore.AES_CCM_16_64_128()
        self.hashfun = oscore.hashfunctions["sha256"]
        self.sender_id, self.recipient_id, self.id_context = sender_id, recipient_id, None
        self.sender_sequence_number = 0
        self.recipient_replay_window = oscore.ReplayWindow(32, lambda: None)
        self.recipient_replay_window.initialize_empty()
        self.derive_keys(salt, secret)

    def post_seqnoincrease(self) -> None:
        pass

    def get_oscore_context_for(self, unprotected: dict[object, bytes]) -> PeerContext | None:
        return self if unprotected.get(oscore.COSE_KID) == self.recipient_id else None

    def find_all_used_contextless_oscore_kid(self) -> set[bytes]:
        return {self.recipient_id}


class HeadEnd:
    """A stack on a socket, that knows one meter."""

    link: UdpLink[Event]

    def __init__(self) -> None:
        self.stack = Stack(
            key=head_end_key(), entropy=os.urandom, dice=random.Random(1), links=LINKS
        )
        self.delivered: list[SecureRequest] = []
        self.outcome: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

    def on_event(self, event: Event) -> None:
        now = self.link.now()
        match event:
            case CredentialWanted():
                known = meter_key(METER).credential
                credential = known if event.id_cred == known.id_cred else None
                self.stack.provide_credential(event, credential, now=now)
            case SessionProposed():
                self.stack.accept_session(event, METER, reserved_until=64, now=now)
            case NumbersWanted():
                self.stack.numbers_reserved(event.recipient_id, event.until, now=now)
            case SecureRequest():
                self.delivered.append(event)
                is_durable = len(self.delivered) % 2 == 0
                answer = answer_to(event.message)
                self.stack.respond(event.exchange, answer, is_durable=is_durable, now=now)
            case SecureResponse() | RequestFailed():
                self.outcome.set_result(event)
            case _:
                pass


@asynccontextmanager
async def head_end() -> AsyncIterator[HeadEnd]:
    one = HeadEnd()
    one.link = await open_udp(one.stack, one.on_event, host=HOST, port=0)
    try:
        yield one
    finally:
        one.link.close()


@asynccontextmanager
async def client() -> AsyncIterator[Any]:
    context = await aiocoap.Context.create_client_context(transports=["oscore", "simple6"])
    try:
        yield context
    finally:
        await context.shutdown()


async def asked(context: Any, message: object) -> Any:
    return await asyncio.wait_for(context.request(message).response, WAIT_MAX)


async def joined(context: Any, root: str) -> PeerContext:
    """What identity.md tells a stranger to do: two POSTs, then the keys."""
    meter, head = meter_key(METER), head_end_key().credential
    numbers = meter.private_key.private_numbers()  # type: ignore[union-attr]  # It is on P-256.
    secret = numbers.private_value.to_bytes(32)
    ours, theirs = lakers.Credential(meter.credential.octets), lakers.Credential(head.octets)
    uri, c_i = root + "/.well-known/edhoc", b"\x0c"
    initiator = lakers.EdhocInitiator()
    payload = b"\xf5" + initiator.prepare_message_1(c_i=c_i)
    message_2 = await asked(
        context, aiocoap.Message(code=aiocoap.POST, uri=uri, payload=payload, content_format=65)
    )
    assert (message_2.code, int(message_2.opt.content_format)) == (aiocoap.CHANGED, 64)
    c_r, id_cred_r, _ = initiator.parse_message_2(message_2.payload)
    assert id_cred_r == head.id_cred.encode_map()
    initiator.verify_message_2(secret, ours, theirs)
    message_3, _ = initiator.prepare_message_3(lakers.CredentialTransfer.ByReference)
    payload = bytes((0x40 | len(c_r),)) + c_r + message_3
    done = await asked(
        context, aiocoap.Message(code=aiocoap.POST, uri=uri, payload=payload, content_format=65)
    )
    assert (done.code, done.payload) == (aiocoap.CHANGED, b"")
    initiator.completed_without_message_4()
    return PeerContext(
        initiator.edhoc_exporter(0, b"", 16), initiator.edhoc_exporter(1, b"", 8), c_r, c_i
    )


async def test_a_stranger_joins_and_is_answered_under_protection() -> None:
    async with head_end() as one, client() as context:
        root = f"coap://{HOST}:{one.link.address[1]}"
        context.client_credentials[root + "/rep"] = await joined(context, root)
        for payload in (b"under a number of its own", b"under the request's nonce", b"x" * 900):
            message = aiocoap.Message(
                code=aiocoap.POST, uri=root + "/rep", payload=payload, content_format=65001
            )
            answer = await asked(context, message)
            assert (answer.code, answer.payload) == (aiocoap.CHANGED, b"re " + payload)
        assert [event.identity for event in one.delivered] == [METER] * 3
        assert one.stack.refused == {}


async def test_a_stranger_who_did_not_join_hears_unauthorized() -> None:
    async with head_end() as one, client() as context:
        root = f"coap://{HOST}:{one.link.address[1]}"
        message = aiocoap.Message(code=aiocoap.GET, uri=root + "/time")
        assert (await asked(context, message)).code == aiocoap.UNAUTHORIZED
        context.client_credentials[root + "/rep"] = PeerContext(b"guess", b"", b"who", b"?")
        message = aiocoap.Message(code=aiocoap.POST, uri=root + "/rep", payload=b"x")
        with pytest.raises(oscore.NotAProtectedMessage):
            await asked(context, message)
        assert one.delivered == []
        assert one.stack.refused == {
            "session: not protected": 1,
            "session: security context not found": 1,
        }


async def test_a_server_of_others_answers_our_protected_request() -> None:
    from aiocoap import oscore_sitewrapper, resource
    from aiocoap.credentials import CredentialsMap

    class Read(resource.Resource):  # type: ignore[misc]
        async def render_fetch(self, request: Any) -> object:
            return aiocoap.Message(code=aiocoap.CONTENT, payload=b"read " + request.payload)

    parameters = OscoreParameters(b"0123456789abcdef", b"saltsalt", b"\x0c", b"ours")
    credentials = CredentialsMap()
    credentials[":head-end"] = PeerContext(
        parameters.master_secret,
        parameters.master_salt,
        parameters.recipient_id,
        parameters.sender_id,
    )
    site = resource.Site()
    site.add_resource(["read"], Read())
    wrapped = oscore_sitewrapper.OscoreSiteWrapper(site, credentials)
    port = free_port()
    context = await aiocoap.Context.create_server_context(
        wrapped, bind=(HOST, port), transports=["simplesocketserver"]
    )
    try:
        async with head_end() as one:
            session = context_of(parameters)
            session.reserve(64)
            one.stack.add_session(METER, session)
            one.stack.request(
                METER,
                Message.request(Code.FETCH, "read", payload=b"all", content_format=60),
                (HOST, port),
                now=one.link.now(),
            )
            one.link.settle()
            event = await asyncio.wait_for(one.outcome, WAIT_MAX)
            assert isinstance(event, SecureResponse)
            assert (event.message.code, event.message.payload) == (Code.CONTENT, b"read all")
    finally:
        await context.shutdown()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
