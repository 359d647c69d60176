"""Block-wise transfer on real sockets with implementations that others wrote, in both roles.

The contract under test: bodies of 5 kB go to and come from `aiocoap` and libcoap whole, in
requests, responses and both, with the sizes of either side, and each is handed up once.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from amistack.coap.blockwise import (
    BLOCK_OPTIONS,
    BlockServer,
    Complete,
    Delivered,
    Limits,
    RequestTags,
    Transfer,
)
from amistack.coap.codes import Code
from amistack.coap.endpoint import Endpoint, Event, RequestReceived, ResponseReceived
from amistack.coap.message import Message
from amistack.coap.options import UNDERSTOOD
from amistack.links import UdpLink, open_udp
from amistack.machine import Peer

# Not there on every machine that runs this stack.
aiocoap = pytest.importorskip("aiocoap")

HOST = "127.0.0.1"
WAIT_MAX = 20.0
BODY = random.Random(7959).randbytes(5000)
OTHER_BODY = random.Random(9175).randbytes(5003)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def endpoint() -> Endpoint:
    return Endpoint(dice=random.Random(1), understood=UNDERSTOOD | BLOCK_OPTIONS)


class Asker:
    """Our client: an endpoint on a socket, and one transfer after the other."""

    link: UdpLink[Event]

    def __init__(self) -> None:
        self.endpoint = endpoint()
        self.tags = RequestTags()
        self.responses: asyncio.Queue[Event] = asyncio.Queue()
        self.round_count = 0

    async def ask(self, request: Message, peer: Peer, **more: int | bool) -> Message:
        transfer = Transfer(request, peer=peer, tags=self.tags, **more)  # type: ignore[arg-type]
        step: Message | Complete = transfer.first()
        while isinstance(step, Message):
            self.round_count += 1
            self.endpoint.request(step, peer, now=self.link.now())
            self.link.settle()
            event = await asyncio.wait_for(self.responses.get(), WAIT_MAX)
            assert isinstance(event, ResponseReceived)
            step = transfer.receive(event.message)
        return step.response


class Answerer:
    """Our server: an endpoint on a socket, and a resource above the assembled requests."""

    link: UdpLink[Event]

    def __init__(self, answer: Callable[[Message], Message], block_size: int) -> None:
        self.endpoint = endpoint()
        self.blocks = BlockServer(block_size=block_size)
        self.answer = answer
        self.delivered: list[Message] = []

    def on_event(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            now = self.link.now()
            answer = self.blocks.receive(event.peer, event.message, now=now)
            if isinstance(answer, Delivered):
                self.delivered.append(answer.request)
                answer = self.blocks.respond(answer, self.answer(answer.request), now=now)
            self.endpoint.respond(event.exchange, answer, now=now)


@asynccontextmanager
async def asker() -> AsyncIterator[Asker]:
    one = Asker()
    one.link = await open_udp(one.endpoint, one.responses.put_nowait, host=HOST, port=0)
    try:
        yield one
    finally:
        one.link.close()


@asynccontextmanager
async def answerer(
    answer: Callable[[Message], Message], block_size: int = 1024
) -> AsyncIterator[tuple[Answerer, str]]:
    one = Answerer(answer, block_size)
    one.link = await open_udp(one.endpoint, one.on_event, host=HOST, port=0)
    try:
        yield one, f"coap://{HOST}:{one.link.address[1]}/body"
    finally:
        one.link.close()


@asynccontextmanager
async def their_client() -> AsyncIterator[Any]:
    context = await aiocoap.Context.create_client_context(transports=["simple6"])
    try:
        yield context
    finally:
        await context.shutdown()


@asynccontextmanager
async def their_server(site: Any) -> AsyncIterator[Peer]:
    port = free_port()
    context = await aiocoap.Context.create_server_context(
        site, bind=(HOST, port), transports=["simplesocketserver"]
    )
    try:
        yield (HOST, port)
    finally:
        await context.shutdown()


def body_site() -> Any:
    from aiocoap import resource

    class Body(resource.Resource):  # type: ignore[misc]
        """Keeps what is put, and turns around what is fetched with."""

        content = OTHER_BODY

        async def render_get(self, request: Any) -> object:
            return aiocoap.Message(code=aiocoap.CONTENT, payload=self.content)

        async def render_put(self, request: Any) -> object:
            self.content = request.payload
            return aiocoap.Message(code=aiocoap.CHANGED)

        async def render_fetch(self, request: Any) -> object:
            return aiocoap.Message(code=aiocoap.CONTENT, payload=request.payload[::-1] * 2)

        async def render_post(self, request: Any) -> object:
            return aiocoap.Message(code=aiocoap.CHANGED, payload=request.payload[::-1])

    site = resource.Site()
    site.add_resource(["body"], Body())
    return site


def turned_around(request: Message) -> Message:
    if request.code == Code.GET:
        return Message.response(Code.CONTENT, payload=BODY)
    if request.code == Code.PUT:
        return Message.response(Code.CHANGED)
    code = Code.CONTENT if request.code == Code.FETCH else Code.CHANGED
    return Message.response(code, payload=request.payload[::-1])


@pytest.mark.parametrize("block_size", [1024, 256])
async def test_a_server_of_others_takes_and_gives_our_bodies(block_size: int) -> None:
    async with asker() as ours, their_server(body_site()) as peer:
        sizes = {"block_size": block_size}
        got = await ours.ask(Message.request(Code.GET, "body"), peer, **sizes)
        assert (got.code, got.payload) == (Code.CONTENT, OTHER_BODY)
        # It offers blocks of 1,024 octets first, and gives ours from the second on.
        assert ours.round_count == 1 + -(-(5003 - 1024) // block_size)

        put = await ours.ask(Message.request(Code.PUT, "body", payload=BODY), peer, **sizes)
        assert put.code == Code.CHANGED
        got = await ours.ask(Message.request(Code.GET, "body"), peer, is_early=True, **sizes)
        assert got.payload == BODY

        for code, answer in ((Code.FETCH, Code.CONTENT), (Code.POST, Code.CHANGED)):
            request = Message.request(code, "body", payload=BODY)
            both = await ours.ask(request, peer, **sizes)
            assert (both.code, both.payload) == (answer, BODY[::-1] * (1 + (code == Code.FETCH)))
        small = await ours.ask(Message.request(Code.FETCH, "body", payload=BODY[:600]), peer)
        assert small.payload == BODY[599::-1] * 2
        assert len(ours.tags) == 0


@pytest.mark.parametrize("block_size", [1024, 256])
async def test_a_client_of_others_gives_and_takes_bodies_here(block_size: int) -> None:
    async with answerer(turned_around, block_size) as (ours, uri), their_client() as context:

        async def ask(code: object, payload: bytes = b"", **options: object) -> Any:
            message = aiocoap.Message(code=code, uri=uri, payload=payload)
            for name, value in options.items():
                setattr(message.opt, name, value)
            return await asyncio.wait_for(context.request(message).response, WAIT_MAX)

        got = await ask(aiocoap.GET)
        assert (got.code, got.payload) == (aiocoap.CONTENT, BODY)
        got = await ask(aiocoap.GET, block2=(0, False, 2))
        assert got.payload == BODY
        assert (await ask(aiocoap.PUT, OTHER_BODY)).code == aiocoap.CHANGED
        assert (await ask(aiocoap.FETCH, BODY)).payload == BODY[::-1]
        assert (await ask(aiocoap.FETCH, BODY[:1000])).payload == BODY[999::-1]
        assert (await ask(aiocoap.POST, BODY)).payload == BODY[::-1]
        # Each came once, and whole: nothing was done again for a further block.
        bodies = [b"", b"", OTHER_BODY, BODY, BODY[:1000], BODY]
        assert [request.payload for request in ours.delivered] == bodies
        assert not ours.blocks.refused


async def test_a_client_of_others_is_served_from_a_response_that_is_not_kept() -> None:
    """What a block of it is asked for is answered from the resource, asked again."""
    async with answerer(turned_around) as (ours, uri), their_client() as context:
        ours.blocks = BlockServer(limits=Limits(responses_max=0))
        message = aiocoap.Message(code=aiocoap.GET, uri=uri)
        got = await asyncio.wait_for(context.request(message).response, WAIT_MAX)
        assert got.payload == BODY
        assert len(ours.delivered) == 5


async def test_a_client_of_others_hears_that_its_body_is_too_large() -> None:
    async with answerer(turned_around) as (ours, uri), their_client() as context:
        ours.blocks = BlockServer(limits=Limits(body_size_max=4096))
        message = aiocoap.Message(code=aiocoap.PUT, uri=uri, payload=BODY)
        answer = await asyncio.wait_for(context.request(message).response, WAIT_MAX)
        assert answer.code == aiocoap.REQUEST_ENTITY_TOO_LARGE
        assert ours.delivered == []


# libcoap, as Debian packs it


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install -y libcoap3-bin")
    return found


async def output_of(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), WAIT_MAX)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return out


@pytest.mark.parametrize("block_size", [1024, 64])
async def test_libcoap_s_client_gives_and_takes_bodies_here(
    block_size: int, tmp_path: Path
) -> None:
    client = program("coap-client-notls")
    files = {size: tmp_path / str(size) for size in (600, 5000)}
    for size, file in files.items():
        file.write_bytes(BODY[:size])
    async with answerer(turned_around, block_size) as (ours, uri):
        assert await output_of(client, uri) == BODY + b"\n"
        assert await output_of(client, "-b", "128", uri) == BODY + b"\n"
        await output_of(client, "-m", "put", "-f", str(files[5000]), uri)
        for method in ("fetch", "post"):
            for size, file in files.items():
                answer = await output_of(client, "-m", method, "-f", str(file), uri)
                assert answer == BODY[:size][::-1] + b"\n"
        # It sends a FETCH's body again for each block, which is answered from what is kept.
        bodies = [b"", b"", BODY, BODY[:600], BODY, BODY[:600], BODY]
        assert [request.payload for request in ours.delivered] == bodies
        assert not ours.blocks.refused


async def test_libcoap_s_server_takes_and_gives_our_bodies() -> None:
    server = program("coap-server-notls")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(server, "-A", HOST, "-p", str(port), "-d", "10"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asker() as ours:
            # Sent again until it listens: by the message layer.
            for block_size in (1024, 64):
                request = Message.request(Code.PUT, f"body{block_size}", payload=BODY)
                put = await ours.ask(request, (HOST, port), block_size=block_size)
                assert put.code == Code.CREATED
                for is_early in (False, True):
                    got = await ours.ask(
                        Message.request(Code.GET, f"body{block_size}"),
                        (HOST, port),
                        block_size=block_size,
                        is_early=is_early,
                    )
                    assert got.payload == BODY
    finally:
        process.kill()
        await process.wait()
