"""Observe on real sockets with an implementation that others wrote, in both roles.

The contract under test: `aiocoap` observes us and is observed by us; every state comes, in order;
deregistering from either side ends it on both, and so does a reset.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amistack.coap.codes import Code
from amistack.coap.endpoint import (
    Ending,
    Endpoint,
    Event,
    ExchangeId,
    ObservationEnded,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.message import Message
from amistack.coap.observe import with_observe
from amistack.links import UdpLink, open_udp
from amistack.machine import Peer

# Not there on every machine that runs this stack.
aiocoap = pytest.importorskip("aiocoap")

HOST = "127.0.0.1"
WAIT_MAX = 10.0
OBSERVE = with_observe(Message.request(Code.GET, "state"), 0)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(int(WAIT_MAX * 100)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {WAIT_MAX} s")


# They are observed by us


def their_resource() -> Any:
    from aiocoap import resource

    class State(resource.ObservableResource):  # type: ignore[misc]  # Comes without types.
        """A number, whose observers are told when it changes."""

        number = 0
        count = 0

        def update_observation_count(self, newcount: int) -> None:
            self.count = newcount

        async def render_get(self, request: Any) -> Any:
            del request
            return aiocoap.Message(payload=b"%d" % self.number)

        def set(self, number: int) -> None:
            self.number = number
            self.updated_state()

    return State()


@asynccontextmanager
async def their_server(state: Any) -> AsyncIterator[Peer]:
    from aiocoap import resource

    site = resource.Site()
    site.add_resource(["state"], state)
    port = free_port()
    context = await aiocoap.Context.create_server_context(
        site, bind=(HOST, port), transports=["simplesocketserver"]
    )
    try:
        yield (HOST, port)
    finally:
        await context.shutdown()


class Watcher:
    """Our client, with one observation."""

    link: UdpLink[Event]

    def __init__(self) -> None:
        self.endpoint = Endpoint(dice=random.Random(1))
        self.events: list[ResponseReceived] = []

    def on_event(self, event: Event) -> None:
        assert isinstance(event, ResponseReceived)
        self.events.append(event)

    async def sees(self, number: int) -> None:
        await until(lambda: bool(self.events) and self.events[-1].message.payload == b"%d" % number)


@asynccontextmanager
async def watcher() -> AsyncIterator[Watcher]:
    one = Watcher()
    one.link = await open_udp(one.endpoint, one.on_event, host=HOST, port=0)
    try:
        yield one
    finally:
        one.link.close()


@pytest.mark.parametrize("how", ["deregister", "cancel"])
async def test_we_observe_aiocoap_until_we_say_that_we_do_not(how: str) -> None:
    state = their_resource()
    async with their_server(state) as peer, watcher() as one:
        request = one.endpoint.request(OBSERVE, peer, now=one.link.now())
        one.link.settle()
        await one.sees(0)
        assert state.count == 1
        for number in range(1, 4):
            state.set(number)
            await one.sees(number)
        one.endpoint.register_again(request, now=one.link.now())
        one.link.settle()
        await until(lambda: len(one.events) == 5)
        assert [event.is_final for event in one.events] == [False] * 5
        if how == "deregister":
            one.endpoint.deregister(request, now=one.link.now())
        else:
            one.endpoint.cancel(request, now=one.link.now())
        one.link.settle()
        state.set(4)
        await until(lambda: state.count == 0)
        if how == "deregister":
            await until(lambda: one.events[-1].is_final)
        assert one.endpoint.depths["observations"][0] == 0


# We are observed by them


class Watched:
    """Our server, with one resource."""

    link: UdpLink[Event]

    def __init__(self) -> None:
        self.endpoint = Endpoint(dice=random.Random(1))
        self.number = 0
        self.observers: set[ExchangeId] = set()
        self.endings: list[Ending] = []

    def on_event(self, event: Event) -> None:
        if isinstance(event, ObservationEnded):
            self.observers.discard(event.exchange)
            self.endings.append(event.ending)
            return
        assert isinstance(event, RequestReceived)
        if self.endpoint.respond(
            event.exchange, self.state(), opens_observation=True, now=self.link.now()
        ):
            self.observers.add(event.exchange)

    def state(self) -> Message:
        return Message.response(Code.CONTENT, payload=b"%d" % self.number, content_format=0)

    def set(self, number: int, *, is_confirmable: bool = True) -> None:
        self.number = number
        for exchange in self.observers:
            self.endpoint.notify(
                exchange, self.state(), is_confirmable=is_confirmable, now=self.link.now()
            )
        self.link.settle()


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Watched, str]]:
    one = Watched()
    one.link = await open_udp(one.endpoint, one.on_event, host=HOST, port=0)
    try:
        yield one, f"coap://{HOST}:{one.link.address[1]}/state"
    finally:
        one.link.close()


@asynccontextmanager
async def their_client() -> AsyncIterator[Any]:
    context = await aiocoap.Context.create_client_context(transports=["simple6"])
    try:
        yield context
    finally:
        await context.shutdown()


class TheirObservation:
    """What an aiocoap client is told of one resource, and how that ended."""

    def __init__(self, client: Any, uri: str) -> None:
        request = aiocoap.Message(code=aiocoap.GET, uri=uri, observe=0)
        # With its block-wise layer it goes on after a cancel, until that layer is collected.
        self.asked = client.request(request, handle_blockwise=False)
        self.seen: list[bytes] = []
        self.task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async for message in self.asked.observation:
            self.seen.append(message.payload)

    async def begins(self) -> Any:
        return await asyncio.wait_for(self.asked.response, WAIT_MAX)

    async def ends(self) -> None:
        await asyncio.wait({self.task}, timeout=WAIT_MAX)
        assert self.task.done()
        self.task.cancelled() or self.task.exception()


@pytest.mark.parametrize("is_confirmable", [True, False])
async def test_aiocoap_observes_us_until_it_says_that_it_does_not(is_confirmable: bool) -> None:
    async with watched() as (one, uri), their_client() as client:
        theirs = TheirObservation(client, uri)
        first = await theirs.begins()
        assert (first.payload, first.opt.observe) == (b"0", 1)
        one.set(1, is_confirmable=is_confirmable)
        await until(lambda: theirs.seen[-1:] == [b"1"])
        one.set(2)
        await until(lambda: theirs.seen[-1:] == [b"2"])
        theirs.asked.observation.cancel()
        theirs.task.cancel()
        await theirs.ends()
        for number in range(3, 8):  # It notices with the first that comes, and resets the next.
            one.set(number)
            await asyncio.sleep(0.1)
        await until(lambda: not one.observers)
        assert len(one.endings) == 1
        assert one.endings[0] in (Ending.RESET, Ending.DEREGISTERED)
        assert theirs.seen[-2:] == [b"1", b"2"]


async def test_an_error_ends_what_aiocoap_observes() -> None:
    async with watched() as (one, uri), their_client() as client:
        theirs = TheirObservation(client, uri)
        await theirs.begins()
        (exchange,) = one.observers
        gone = Message.response(Code.NOT_FOUND)
        one.endpoint.notify(exchange, gone, now=one.link.now())
        one.link.settle()
        await theirs.ends()
        await until(lambda: one.endpoint.depths["observers"][0] == 0)
        assert one.endpoint.next_timer() is None
