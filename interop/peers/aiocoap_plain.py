"""aiocoap as a client and as a server, in the clear.

Limit   one process with us, each on sockets of its own; the library is Python like us, but shares
        no code with this stack
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from amistack.coap.codes import Code
from interop.peers.application import SLOW_S
from interop.peers.exchange import (
    BIG,
    UNSUPPORTED_FORMAT,
    Answer,
    Ask,
    answer_of,
    digest,
)
from interop.peers.party import LOOPBACK, TICK_S

INSTALL: Final = "pip install 'aiocoap[oscore]'"


class PeerOption(Protocol):
    """What is used of an option of the library."""

    number: int

    def encode(self) -> bytes:
        """Its value as octets."""


class PeerOptions(Protocol):
    """What is used of the options of a message of the library."""

    content_format: int | None
    uri_query: tuple[str, ...]
    uri_path: tuple[str, ...]
    observe: int | None

    def add_option(self, option: object) -> None:
        """Add one."""

    def option_list(self) -> Sequence[PeerOption]:
        """All of them, in order."""


class PeerMessage(Protocol):
    """What is used of a message of the library, which says nothing about its types."""

    code: int
    payload: bytes
    opt: PeerOptions
    mtype: int


class PeerObservable(Protocol):
    """A resource of the library that can be observed."""

    def updated_state(self) -> None:
        """Tell those who observe it."""


class PeerObservation(Protocol):
    """An observation of the library's client."""

    def __aiter__(self) -> AsyncIterator[PeerMessage]:
        """The notifications."""

    def cancel(self) -> None:
        """No more of it."""


class PeerRequest(Protocol):
    """A request of the library's client under way."""

    response: Awaitable[PeerMessage]
    observation: PeerObservation


class PeerContext(Protocol):
    """What is used of a context of the library."""

    client_credentials: dict[str, object]

    def request(self, message: PeerMessage) -> PeerRequest:
        """Send."""

    async def shutdown(self) -> None:
        """Give the sockets back."""


def be_quiet() -> None:
    """Keep the library's log from standard error: what a case says is in its outcome."""
    for name in ("coap", "coap-server"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def missing() -> str | None:
    """The line that installs it, or None if it is there."""
    found = importlib.util.find_spec("aiocoap")
    return None if found is not None else f"aiocoap is not installed: {INSTALL}"


def version() -> str:
    """What judges."""
    try:
        return f"aiocoap {importlib.metadata.version('aiocoap')}"
    except importlib.metadata.PackageNotFoundError:
        return "aiocoap"


def request_of(ask: Ask, root: str) -> PeerMessage:
    """The request as a message of the library."""
    import aiocoap
    from aiocoap.numbers.optionnumbers import OptionNumber

    # Segments and queries as options, for a URI would drop an empty one.
    tuning = {} if ask.is_confirmable else {"transport_tuning": aiocoap.Unreliable}
    message: PeerMessage = aiocoap.Message(
        code=aiocoap.Code(ask.code), uri=f"{root}/{ask.path}", payload=ask.payload, **tuning
    )
    message.opt.uri_query = ask.queries
    message.opt.content_format = ask.content_format
    for number, value in ask.options:
        message.opt.add_option(OptionNumber(number).create_option(decode=value))
    return message


class AiocoapClient:
    """The library's client, towards one server of ours."""

    def __init__(self, context: PeerContext, root: str) -> None:
        self.context, self.root = context, root

    async def ask(self, ask: Ask) -> Answer:
        """Send it, and wait for the response."""
        response = await self.context.request(request_of(ask, self.root)).response
        return answer_of(int(response.code), response.payload)

    async def observe(self, ask: Ask, count: int) -> list[Answer]:
        """Register, give the first `count` notifications, and end it."""
        message = request_of(ask, self.root)
        message.opt.observe = 0
        under_way = self.context.request(message)
        first = await under_way.response
        heard = [answer_of(int(first.code), first.payload)]
        notifications = aiter(under_way.observation)
        while len(heard) < count:
            one = await anext(notifications)
            heard.append(answer_of(int(one.code), one.payload))
        under_way.observation.cancel()
        return heard


@asynccontextmanager
async def open_client(root: str, *, is_protected: bool = False) -> AsyncIterator[AiocoapClient]:
    """A client for the server at `root` (`coap://host:port`)."""
    import aiocoap

    be_quiet()
    transports = ["oscore", "simple6"] if is_protected else ["simple6"]
    context = await aiocoap.Context.create_client_context(transports=transports)
    try:
        yield AiocoapClient(context, root)
    finally:
        await context.shutdown()


Handler = Callable[[PeerMessage], Awaitable[PeerMessage]]


def make_site() -> object:
    """A site of the library with the resources that `exchange` asks."""
    import aiocoap
    from aiocoap import resource

    def response(code: Code, payload: bytes = b"") -> PeerMessage:
        message: PeerMessage = aiocoap.Message(code=aiocoap.Code(code), payload=payload)
        return message

    def made(**handlers: Handler) -> object:
        """A resource that has those methods alone."""
        members = {
            f"render_{method}": staticmethod(handler) for method, handler in handlers.items()
        }
        return type("Made", (resource.Resource,), members)()

    kept = {"value": b"", "count": b"0"}

    async def hello(_: PeerMessage) -> PeerMessage:
        return response(Code.CONTENT, b"hello")

    async def get_kept(_: PeerMessage) -> PeerMessage:
        return response(Code.CONTENT, kept["value"])

    async def put_kept(request: PeerMessage) -> PeerMessage:
        if request.opt.content_format == UNSUPPORTED_FORMAT:
            return response(Code.UNSUPPORTED_CONTENT_FORMAT)
        kept["value"] = request.payload
        return response(Code.CHANGED)

    async def delete_kept(_: PeerMessage) -> PeerMessage:
        kept["value"] = b""
        return response(Code.DELETED)

    async def post_echo(request: PeerMessage) -> PeerMessage:
        return response(Code.CHANGED, b"re " + request.payload)

    async def fetch_echo(request: PeerMessage) -> PeerMessage:
        return response(Code.CONTENT, b"re " + request.payload)

    async def query(request: PeerMessage) -> PeerMessage:
        return response(Code.CONTENT, "&".join(request.opt.uri_query).encode())

    async def slow(_: PeerMessage) -> PeerMessage:
        await asyncio.sleep(SLOW_S)
        return response(Code.CONTENT, b"at last")

    async def forbidden(_: PeerMessage) -> PeerMessage:
        return response(Code.FORBIDDEN)

    async def busy(_: PeerMessage) -> PeerMessage:
        return response(Code.SERVICE_UNAVAILABLE)

    async def get_big(_: PeerMessage) -> PeerMessage:
        return response(Code.CONTENT, BIG)

    async def put_big(request: PeerMessage) -> PeerMessage:
        return response(Code.CHANGED, digest(request.payload))

    async def fetch_big(request: PeerMessage) -> PeerMessage:
        return response(Code.CONTENT, digest(request.payload))

    async def post_big(request: PeerMessage) -> PeerMessage:
        return response(Code.CHANGED, request.payload[::-1])

    async def counted(_: PeerMessage) -> PeerMessage:
        kept["count"] = b"%d" % (int(kept["count"]) + 1)
        return response(Code.CONTENT, kept["count"])

    timers: list[asyncio.TimerHandle] = []

    def tick(counter: PeerObservable) -> None:
        counter.updated_state()
        timers[:] = [asyncio.get_running_loop().call_later(TICK_S, tick, counter)]

    def go_on(counter: PeerObservable, observer_count: int) -> None:
        """Tick for as long as somebody observes."""
        for timer in timers:
            timer.cancel()
        if observer_count:
            timers[:] = [asyncio.get_running_loop().call_later(TICK_S, tick, counter)]

    members = {"render_get": staticmethod(counted), "update_observation_count": go_on}
    counter = type("Counter", (resource.ObservableResource,), members)()
    site = resource.Site()
    site.add_resource(["counter"], counter)
    site.add_resource(["hello"], made(get=hello))
    site.add_resource(["kept"], made(get=get_kept, put=put_kept, delete=delete_kept))
    site.add_resource(["echo"], made(post=post_echo, fetch=fetch_echo))
    site.add_resource(["query"], made(get=query))
    site.add_resource(["slow"], made(get=slow))
    site.add_resource(["secret"], made(post=forbidden))
    site.add_resource(["busy"], made(get=busy))
    site.add_resource(["big"], made(get=get_big, put=put_big, fetch=fetch_big, post=post_big))
    site.add_resource(
        [".well-known", "core"], resource.WKCResource(site.get_resources_as_linkheader)
    )
    return site


@asynccontextmanager
async def open_server(
    site: object, *, host: str = LOOPBACK, port: int | None = None
) -> AsyncIterator[tuple[str, int]]:
    """A server of the library with that site, at a free port unless one is given; its address."""
    import aiocoap

    be_quiet()
    port = free_port(host) if port is None else port
    context = await aiocoap.Context.create_server_context(
        site, bind=(host, port), transports=["simplesocketserver"]
    )
    try:
        yield host, port
    finally:
        await context.shutdown()


def free_port(host: str = LOOPBACK) -> int:
    """A UDP port that nobody has at this moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


if TYPE_CHECKING:
    from interop.peers.exchange import Client

    def _is_client(client: AiocoapClient) -> Client:
        return client
