"""Our side of a live exchange under protection: the whole stack on a real socket.

Raises  PeerError when a handshake or a request of ours ends without success
Never   keeps anything: numbers are said to be durable as soon as they are wanted
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from amistack.coap.endpoint import ExchangeId
from amistack.coap.link_format import Link
from amistack.coap.message import Message
from amistack.coap.observe import REGISTER, observe_of, with_observe
from amistack.links import UdpLink, open_udp
from amistack.machine import Peer
from amistack.session.credentials import Credential
from amistack.session.handshakes import CredentialWanted, SessionProposed
from amistack.session.oscore import SecurityContext
from amistack.stack import (
    Event,
    HandshakeFailed,
    NumbersWanted,
    ObservationEnded,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
    Stack,
)
from interop.peers.application import Application, Reply
from interop.peers.exchange import Answer, Ask, answer_of
from interop.peers.identities import Identity
from interop.peers.party import LOOPBACK, Heard, Observed, PeerError, message_of, response_of

STRANGER: Final = b"stranger"
"""What we call the peer, whoever it is."""
RESERVED: Final = 64
LINKS: Final = (Link("/hello"),)


class SecuredParty:
    """Our stack on a socket, with the resources of an application behind it, for one peer."""

    link: UdpLink[Event]

    def __init__(self, own: Identity, known: Credential | None = None) -> None:
        """`known` is the peer's credential, where it is to join by EDHOC."""
        self.stack = Stack(key=own.key, entropy=os.urandom, dice=random.Random(1), links=LINKS)
        self.application = Application()
        self.request_count = 0
        self.observed = Observed(self.application, self._notify)
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._pending: dict[RequestId, Heard] = {}
        self._joined: asyncio.Future[None] = self._loop.create_future()

    @property
    def port(self) -> int:
        """Where we listen."""
        return self.link.address[1]

    def add_session(self, context: SecurityContext) -> None:
        """A session whose keys were agreed on otherwise."""
        context.reserve(RESERVED)
        self.stack.add_session(STRANGER, context)

    async def join(
        self, peer: Peer, trusted: Credential, *, c_i: bytes, is_combining: bool = False
    ) -> None:
        """Begin a handshake. Raises PeerError where there comes no session of it.

        `is_combining`: message_3 goes along with the first request.
        """
        self.stack.connect(peer, [trusted], c_i=c_i, is_combining=is_combining, now=self.link.now())
        self.link.settle()
        await self._joined

    async def request(self, message: Message, peer: Peer) -> Message:
        """Send a protected request, and wait for its response. Raises PeerError."""
        async with self._asking(message, peer) as (_, heard):
            return response_of(await heard.get())

    async def observe(self, message: Message, peer: Peer, count: int) -> list[Message]:
        """Register, take so many notifications, deregister; the last is the answer to that."""
        registration = with_observe(message, REGISTER)
        async with self._asking(registration, peer) as (request, heard):
            found = [response_of(await heard.get()) for _ in range(count)]
            self.stack.deregister(request, now=self.link.now())
            self.link.settle()
            while True:
                last = response_of(await heard.get())
                if observe_of(last) is None:
                    return [*found, last]

    @asynccontextmanager
    async def _asking(self, message: Message, peer: Peer) -> AsyncIterator[tuple[RequestId, Heard]]:
        """A request under way, and what is heard of it."""
        request = self.stack.request(STRANGER, message, peer, now=self.link.now())
        heard: Heard = asyncio.Queue()
        self._pending[request] = heard
        self.link.settle()
        try:
            yield request, heard
        finally:
            del self._pending[request]
            self.stack.cancel(request, now=self.link.now())
            self.link.settle()

    def on_event(self, event: Event) -> None:
        """What the link brings."""
        now = self.link.now()
        match event:
            case CredentialWanted():
                known = self._known
                is_known = known is not None and event.id_cred == known.id_cred
                self.stack.provide_credential(event, known if is_known else None, now=now)
            case SessionProposed():
                self.stack.accept_session(event, STRANGER, reserved_until=RESERVED, now=now)
                if not self._joined.done():
                    self._joined.set_result(None)
            case HandshakeFailed() if not self._joined.done():
                self._joined.set_exception(PeerError(f"{event.reason}: {event.detail}"))
            case NumbersWanted():
                self.stack.numbers_reserved(event.recipient_id, event.until, now=now)
            case SecureRequest():
                self._serve(event)
            case SecureResponse():
                if (heard := self._pending.get(event.request)) is not None:
                    heard.put_nowait(event.message)
            case RequestFailed():
                if (heard := self._pending.get(event.request)) is not None:
                    heard.put_nowait(PeerError(event.reason))
            case ObservationEnded():
                self.observed.end(event.exchange)
            case _:
                pass

    def _serve(self, event: SecureRequest) -> None:
        self.request_count += 1
        reply = self.application.answer(event.message)
        if reply.after_s:
            self._loop.call_later(reply.after_s, self._respond, event, reply)
        else:
            self._respond(event, reply)

    def _respond(self, event: SecureRequest, reply: Reply) -> None:
        # Every other one under a number of its own, so that the peer reads both forms.
        is_observing = self.stack.respond(
            event.exchange,
            reply.message,
            is_durable=self.request_count % 2 == 0,
            opens_observation=reply.is_observable,
            now=self.link.now(),
        )
        if is_observing:
            self.observed.begin(event.exchange)
        self.link.settle()

    def _notify(self, exchange: ExchangeId, message: Message, *, is_last: bool) -> None:
        self.stack.notify(exchange, message, is_last=is_last, now=self.link.now())
        self.link.settle()


class SecuredClient:
    """Our stack as a client of one foreign server."""

    def __init__(self, party: SecuredParty, peer: Peer) -> None:
        self._party, self._peer = party, peer

    async def ask(self, ask: Ask) -> Answer:
        """Send it, and wait for the response. Large bodies are the stack's to slice."""
        response = await self._party.request(message_of(ask), self._peer)
        return answer_of(response.code, response.payload)

    async def observe(self, ask: Ask, count: int) -> list[Answer]:
        """So many notifications, and the answer to the end of it."""
        found = await self._party.observe(message_of(ask), self._peer, count)
        return [answer_of(message.code, message.payload) for message in found]


@asynccontextmanager
async def open_secured(
    own: Identity, known: Credential | None = None
) -> AsyncIterator[SecuredParty]:
    """Our stack on a free port of the loopback address."""
    party = SecuredParty(own, known)
    party.link = await open_udp(party.stack, party.on_event, host=LOOPBACK, port=0)
    try:
        yield party
    finally:
        party.link.close()
