"""CoAP exchanges over loopback, client and server in this one process: ours, or aiocoap's.

The work    many clients, each on a socket of its own, ask one server; each has one request under
            way at a time: CON POST of 300 octets, found by its path, answered 2.04 in its
            acknowledgement
Loop        uvloop for both, where there is one
Out         one line of JSON, `Outcome`
Run         python -m interop.bench.coap_exchanges ours|aiocoap CLIENTS ROUNDS

A program of its own, so that neither implementation pays for what the other leaves in memory.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, cast

from amistack.coap.codes import Code
from amistack.coap.endpoint import Endpoint, Event, RequestReceived, ResponseReceived
from amistack.coap.message import Message
from amistack.links.udp import UdpLink, open_udp
from interop.bench.figure import BenchError
from interop.peers.aiocoap_plain import PeerMessage, be_quiet, free_port
from interop.peers.party import LOOPBACK

PATH: Final = "r"
CONTENT_FORMAT: Final = 60
PAYLOAD: Final = random.Random(3).randbytes(300)
TRANSPORTS: Final = ("udp6",)
"""aiocoap's own choice on Linux, without those that are not UDP in the clear."""
WARM_UP_ROUNDS: Final = 10
"""Exchanges of each client before those that count."""
END_S: Final = 120.0
"""How long all of it may take."""

Address = tuple[str, int]
Exchanges = Callable[[int], Awaitable[None]]
"""Make so many exchanges, one after the other."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What it cost, and in hexadecimal what was said in one exchange.

    Message id and token are cut out: the others' token may be an octet shorter now and then.
    """

    cpu_us: float
    request: str
    response: str


class Side(Protocol):
    """An implementation, as a server and as a client."""

    def serving(self) -> AbstractAsyncContextManager[Address]:
        """A server, and where it listens."""

    def asking(self, server: Address) -> AbstractAsyncContextManager[Exchanges]:
        """A client of that server."""


class Ours:
    """Our endpoint on our UDP link."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Address]:
        """A server, and where it listens."""
        endpoint = Endpoint(dice=random.Random(1))

        def on_event(event: Event) -> None:
            assert isinstance(event, RequestReceived)
            message = event.message
            is_known = message.code == Code.POST and message.path == PATH
            code = Code.CHANGED if is_known else Code.NOT_FOUND
            endpoint.respond(event.exchange, Message.response(code), now=link.now())

        link = await open_udp(endpoint, on_event, host=LOOPBACK, port=0)
        try:
            yield link.address
        finally:
            link.close()

    @asynccontextmanager
    async def asking(self, server: Address) -> AsyncIterator[Exchanges]:
        """A client of that server."""
        client = _Asking(server)
        client.link = await open_udp(client.endpoint, client.on_event, host=LOOPBACK, port=0)
        try:
            yield client.exchange
        finally:
            client.link.close()


class _Asking:
    """One client of ours: the next request goes out when the one before is answered."""

    link: UdpLink[Event]

    def __init__(self, server: Address) -> None:
        self.endpoint = Endpoint(dice=random.Random(2))
        self._server = server
        self._left = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def exchange(self, count: int) -> None:
        """Make so many exchanges."""
        self._left = count
        self._done = asyncio.get_running_loop().create_future()
        self._ask()
        self.link.settle()
        await self._done

    def on_event(self, event: Event) -> None:
        """What comes of a request."""
        if not isinstance(event, ResponseReceived) or event.message.code != Code.CHANGED:
            self._done.set_exception(BenchError(f"no answer of ours: {event}"))
            return
        self._left -= 1
        if self._left:
            self._ask()
        else:
            self._done.set_result(None)

    def _ask(self) -> None:
        message = Message.request(Code.POST, PATH, payload=PAYLOAD, content_format=CONTENT_FORMAT)
        self.endpoint.request(message, self._server, now=self.link.now())


class Aiocoap:
    """The contexts of aiocoap, as its documentation uses them, and quiet."""

    def __init__(self) -> None:
        be_quiet()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Address]:
        """A server, and where it listens."""
        import aiocoap
        from aiocoap.resource import Resource, Site

        async def changed(_: PeerMessage) -> PeerMessage:
            message: PeerMessage = aiocoap.Message(code=aiocoap.CHANGED)
            return message

        site = Site()
        members = {"render_post": staticmethod(changed)}
        site.add_resource([PATH], type("Changed", (Resource,), members)())
        address = (LOOPBACK, free_port())
        context = await aiocoap.Context.create_server_context(
            site, bind=address, transports=TRANSPORTS
        )
        try:
            yield address
        finally:
            await context.shutdown()

    @asynccontextmanager
    async def asking(self, server: Address) -> AsyncIterator[Exchanges]:
        """A client of that server."""
        import aiocoap

        context = await aiocoap.Context.create_client_context(transports=TRANSPORTS)
        uri = f"coap://{server[0]}:{server[1]}/{PATH}"

        async def exchange(count: int) -> None:
            for _ in range(count):
                request = aiocoap.Message(
                    code=aiocoap.POST, uri=uri, payload=PAYLOAD, content_format=CONTENT_FORMAT
                )
                response = await context.request(request).response
                if response.code != aiocoap.CHANGED:
                    raise BenchError(f"no answer of aiocoap's: {response}")

        try:
            yield exchange
        finally:
            await context.shutdown()


class _Relay(asyncio.DatagramProtocol):
    """Stands between one client and the server, and keeps what goes through."""

    def __init__(self, server: Address) -> None:
        self.heard: list[bytes] = []
        self._server = server
        self._client: Address | None = None
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> Address:
        """Where the client takes it for the server."""
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        assert self._transport is not None
        self.heard.append(data)
        if addr != self._server:
            self._client = addr
            self._transport.sendto(data, self._server)
        elif self._client is not None:
            self._transport.sendto(data, self._client)

    def close(self) -> None:
        """Give the socket back."""
        assert self._transport is not None
        self._transport.close()


async def heard_of(side: Side, server: Address) -> tuple[str, str]:
    """The octets of one exchange, without message id and token. Raises BenchError."""
    loop = asyncio.get_running_loop()
    _, relay = await loop.create_datagram_endpoint(lambda: _Relay(server), local_addr=(LOOPBACK, 0))
    try:
        async with side.asking(relay.address) as exchange:
            await exchange(1)
    finally:
        relay.close()
    if len(relay.heard) != 2:
        raise BenchError(f"{len(relay.heard)} datagrams in one exchange, expected 2")
    request, response = (_without_numbers(octets).hex() for octets in relay.heard)
    return request, response


def _without_numbers(octets: bytes) -> bytes:
    """The octets of a message, its token and its message id cut out."""
    token_size = octets[0] & 0x0F
    return bytes((octets[0] - token_size, octets[1])) + octets[4 + token_size :]


async def measured(side: Side, client_count: int, rounds: int) -> Outcome:
    """So many exchanges of each client, all clients at once."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(side.serving())
        request, response = await heard_of(side, server)
        clients = [
            await stack.enter_async_context(side.asking(server)) for _ in range(client_count)
        ]
        await asyncio.gather(*(exchange(WARM_UP_ROUNDS) for exchange in clients))
        gc.collect()
        begun = time.process_time()
        await asyncio.gather(*(exchange(rounds) for exchange in clients))
        taken = time.process_time() - begun
    return Outcome(taken / (client_count * rounds) * 1e6, request, response)


SIDES: Final[Mapping[str, Callable[[], Side]]] = {"ours": Ours, "aiocoap": Aiocoap}


def run_on_loop(main: Coroutine[None, None, Outcome]) -> Outcome:
    """Run it on uvloop where there is one, as the programs do."""
    try:
        import uvloop
    except ImportError:  # 32-bit ARM has none.
        return asyncio.run(main)
    return uvloop.run(main)


def main(arguments: list[str]) -> int:
    """Measure one side; the exit code."""
    name, client_count, rounds = arguments
    try:
        outcome = run_on_loop(
            asyncio.wait_for(measured(SIDES[name](), int(client_count), int(rounds)), END_S)
        )
    except (BenchError, OSError, TimeoutError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(dataclasses.asdict(outcome)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
