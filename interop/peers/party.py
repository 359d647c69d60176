"""Our side of a live exchange: the endpoint machine on a real socket, as client and as server.

Raises  PeerError when a request of ours ends without a response
Limit   one event loop's life; every request is bounded by the endpoint's own times
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from typing import Final, Protocol

from amistack.coap.blockwise import (
    BLOCK_OPTIONS,
    BlockServer,
    Complete,
    Delivered,
    RequestTags,
    Transfer,
)
from amistack.coap.endpoint import (
    Endpoint,
    Event,
    ExchangeId,
    ObservationEnded,
    RequestFailed,
    RequestId,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.message import Message
from amistack.coap.observe import REGISTER, observe_of, with_observe
from amistack.coap.options import UNDERSTOOD, Option, OptionNumber
from amistack.errors import AmiError
from amistack.links import UdpLink, open_udp
from amistack.machine import Peer
from interop.peers.application import Application, Reply
from interop.peers.exchange import Answer, Ask, answer_of

LOOPBACK: Final = "127.0.0.1"
LOOPBACK_6: Final = "::1"
PIGGYBACK_WAIT_S: Final = 0.1
TICK_S: Final = 0.05


class PeerError(AmiError):
    """A foreign program did not do its part; the message says which."""


class Notify(Protocol):
    """Tells one observer a new state."""

    def __call__(self, exchange: ExchangeId, message: Message, *, is_last: bool) -> None:
        """`is_last`: and no more after it."""


class Observed:
    """Who observes the counter of an application; it ticks for as long as anybody does."""

    def __init__(self, application: Application, notify: Notify) -> None:
        self._application = application
        self._notify = notify
        self._observers: list[ExchangeId] = []
        self.is_over = asyncio.Event()
        self.is_over.set()

    def begin(self, exchange: ExchangeId) -> None:
        """That one observes from now on."""
        self._observers.append(exchange)
        self.is_over.clear()
        asyncio.get_running_loop().call_later(TICK_S, self._tick, exchange)

    def end(self, exchange: ExchangeId) -> None:
        """And no longer."""
        self._observers.remove(exchange)
        if not self._observers:
            self.is_over.set()

    def finish(self) -> None:
        """End every observation from our side, with a last state."""
        for exchange in self._observers.copy():
            self._notify(exchange, self._application.tick(), is_last=True)
            self.end(exchange)

    def _tick(self, exchange: ExchangeId) -> None:
        if exchange in self._observers:
            self._notify(exchange, self._application.tick(), is_last=False)
            asyncio.get_running_loop().call_later(TICK_S, self._tick, exchange)


Heard = asyncio.Queue[Message | PeerError]
"""What comes of a request, one after the other."""


class Party:
    """Our endpoint on a socket, with the resources of `application` behind it."""

    link: UdpLink[Event]

    def __init__(
        self, application: Application, *, understood: Container[int] = UNDERSTOOD | BLOCK_OPTIONS
    ) -> None:
        """`understood`: the critical options that this server acts on."""
        self.application = application
        self.endpoint = Endpoint(
            dice=random.Random(1), piggyback_wait=PIGGYBACK_WAIT_S, understood=understood
        )
        self.tokens_seen: list[bytes] = []
        self.observed = Observed(application, self._notify)
        self._blocks = BlockServer()
        self._pending: dict[RequestId, Heard] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def port(self) -> int:
        """Where we listen."""
        return self.link.address[1]

    async def request(
        self, message: Message, peer: Peer, *, is_confirmable: bool = True
    ) -> Message:
        """Send a request and wait for its response. Raises PeerError if there is none."""
        async with self._asking(message, peer, is_confirmable=is_confirmable) as (_, heard):
            return response_of(await heard.get())

    async def observe(self, message: Message, peer: Peer, count: int) -> list[Message]:
        """Register, take so many notifications, deregister; the last is the answer to that."""
        registration = with_observe(message, REGISTER)
        async with self._asking(registration, peer, is_confirmable=True) as (request, heard):
            found = [response_of(await heard.get()) for _ in range(count)]
            self.endpoint.deregister(request, now=self.link.now())
            self.link.settle()
            while True:
                last = response_of(await heard.get())
                if observe_of(last) is None:
                    return [*found, last]

    @asynccontextmanager
    async def _asking(
        self, message: Message, peer: Peer, *, is_confirmable: bool
    ) -> AsyncIterator[tuple[RequestId, Heard]]:
        """A request under way, and what is heard of it."""
        now = self.link.now()
        request = self.endpoint.request(message, peer, now=now, is_confirmable=is_confirmable)
        heard: Heard = asyncio.Queue()
        self._pending[request] = heard
        self.link.settle()
        try:
            yield request, heard
        finally:
            # Of one that was given up nothing is to be heard, and the next need not wait for it.
            del self._pending[request]
            self.endpoint.cancel(request, now=self.link.now())
            self.link.settle()

    def on_event(self, event: Event) -> None:
        """What the link brings."""
        match event:
            case RequestReceived():
                self.tokens_seen.append(event.message.token)
                self._serve(event)
            case ResponseReceived():
                if (heard := self._pending.get(event.request)) is not None:
                    heard.put_nowait(event.message)
            case RequestFailed():
                if (heard := self._pending.get(event.request)) is not None:
                    heard.put_nowait(PeerError(event.failure.value))
            case ObservationEnded():
                self.observed.end(event.exchange)
            case _:
                pass

    def _serve(self, event: RequestReceived) -> None:
        now = self.link.now()
        outcome = self._blocks.receive(event.peer, event.message, now=now)
        if isinstance(outcome, Message):
            self.endpoint.respond(event.exchange, outcome, now=now)
            return
        reply = self.application.answer(outcome.request)
        if reply.after_s:
            self._loop.call_later(reply.after_s, self._respond, event, outcome, reply)
        else:
            self._respond(event, outcome, reply)

    def _respond(self, event: RequestReceived, delivered: Delivered, reply: Reply) -> None:
        now = self.link.now()
        message = self._blocks.respond(delivered, reply.message, now=now)
        is_observing = self.endpoint.respond(
            event.exchange, message, opens_observation=reply.is_observable, now=now
        )
        if is_observing:
            self.observed.begin(event.exchange)
        self.link.settle()

    def _notify(self, exchange: ExchangeId, message: Message, *, is_last: bool) -> None:
        self.endpoint.notify(exchange, message, is_last=is_last, now=self.link.now())
        self.link.settle()


def response_of(heard: Message | PeerError) -> Message:
    """The response. Raises PeerError where there is none."""
    if isinstance(heard, PeerError):
        raise heard
    return heard


class OurClient:
    """Our side as a client of one foreign server."""

    def __init__(self, party: Party, peer: Peer) -> None:
        self.party = party
        self._peer = peer
        self._tags = RequestTags()

    async def ask(self, ask: Ask) -> Answer:
        """Send it, in as many blocks as it takes, and wait for the response."""
        transfer = Transfer(message_of(ask), peer=self._peer, tags=self._tags)
        step: Message | Complete = transfer.first()
        while isinstance(step, Message):
            response = await self.party.request(step, self._peer, is_confirmable=ask.is_confirmable)
            step = transfer.receive(response)
        return answer_of(step.response.code, step.response.payload)

    async def observe(self, ask: Ask, count: int) -> list[Answer]:
        """So many notifications, and the answer to the end of it."""
        found = await self.party.observe(message_of(ask), self._peer, count)
        return [answer_of(message.code, message.payload) for message in found]


def message_of(ask: Ask) -> Message:
    """The request as a message of ours."""
    return Message.request(
        ask.code,
        ask.path,
        payload=ask.payload,
        content_format=ask.content_format,
        options=[*(Option(OptionNumber.URI_QUERY, q.encode()) for q in ask.queries), *ask.options],
    )


@asynccontextmanager
async def open_party(host: str = LOOPBACK) -> AsyncIterator[Party]:
    """Our side on a free port of a loopback address."""
    party = Party(Application())
    party.link = await open_udp(party.endpoint, party.on_event, host=host, port=0)
    try:
        yield party
    finally:
        party.link.close()
