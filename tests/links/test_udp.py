"""The UDP link: real sockets on loopback, on both loops, and an independent CoAP peer.

The contract under test: the link hands a machine what comes in and carries out what it asks for;
each deadline costs one wakeup; nothing that the network or a callback does ends it; what the
operator must mend is a `LinkError` in one line.
"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amistack.coap import link_format
from amistack.coap.codes import Code
from amistack.coap.endpoint import (
    Endpoint,
    Event,
    Failure,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.message import Message
from amistack.coap.options import OptionNumber
from amistack.coap.timing import Timing
from amistack.errors import LinkError
from amistack.links import udp
from amistack.links.udp import UdpLink, open_udp
from amistack.machine import Peer

HOST = "127.0.0.1"
WAIT_MAX = 10.0
LINKS = (
    link_format.Link("/readings", ("amistack.readings",), content_formats=(60,), title="Readings"),
    link_format.Link("/time", ("amistack.time",), is_observable=True),
)


class Plain:
    """A machine that does what a test tells it, and notes what it is given."""

    def __init__(self, deadlines: list[float] | None = None) -> None:
        self.deadlines = deadlines or []
        self.received: list[tuple[bytes, Peer]] = []
        self.wakeups: list[float] = []
        self.out: list[tuple[Peer, bytes]] = []
        self.reports: list[bytes] = []

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        self.received.append((data, peer))
        self.reports.append(data)

    def handle_timer(self, *, now: float) -> None:
        self.wakeups.append(now)
        while self.deadlines and self.deadlines[0] <= now:
            self.reports.append(b"due %d" % len(self.deadlines))
            self.deadlines.pop(0)

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        out, self.out = self.out, []
        return out

    def events(self) -> list[bytes]:
        reports, self.reports = self.reports, []
        return reports

    def next_timer(self) -> float | None:
        return self.deadlines[0] if self.deadlines else None


def ignore(event: object) -> None:
    """A callback that wants nothing."""


@asynccontextmanager
async def linked(
    machine: Plain, on_event: Callable[[bytes], None] = ignore
) -> AsyncIterator[UdpLink[bytes]]:
    link = await open_udp(machine, on_event, host=HOST, port=0)
    try:
        yield link
    finally:
        link.close()
        await asyncio.sleep(0)


def collector(wanted: int) -> tuple[list[bytes], Callable[[bytes], None], asyncio.Event]:
    """A callback that notes events, and what tells that `wanted` of them are there."""
    found: list[bytes] = []
    complete = asyncio.Event()

    def on_event(event: bytes) -> None:
        found.append(event)
        if len(found) >= wanted:
            complete.set()

    return found, on_event, complete


@pytest.mark.both_loops
async def test_datagrams_go_both_ways_and_a_peer_is_its_socket_address() -> None:
    found, on_event, complete = collector(1)
    there, here = Plain(), Plain()
    async with linked(there, on_event) as far, linked(here) as near:
        here.out.append((far.address, b"hello"))
        near.settle()
        await asyncio.wait_for(complete.wait(), WAIT_MAX)
        assert found == [b"hello"]
        assert there.received == [(b"hello", near.address)]
        assert near.counters["datagrams sent"] == far.counters["datagrams received"] == 1


@pytest.mark.both_loops
async def test_each_deadline_costs_one_wakeup_and_none_comes_early() -> None:
    """Deadlines of uneven fractions of a millisecond, which uvloop rounds."""
    loop = asyncio.get_running_loop()
    count = 60
    _, on_event, complete = collector(count)
    gaps = random.Random(4)
    due, deadlines = loop.time() + 0.02, []
    for _ in range(count):
        due += gaps.uniform(0.0011, 0.0049)
        deadlines.append(due)
    machine = Plain(list(deadlines))
    async with linked(machine, on_event):
        await asyncio.wait_for(complete.wait(), WAIT_MAX)
    assert len(machine.wakeups) <= count
    assert machine.wakeups == sorted(machine.wakeups)
    assert machine.wakeups[0] >= deadlines[0]
    assert machine.wakeups[-1] >= deadlines[-1]


@pytest.mark.both_loops
async def test_machine_time_never_goes_back() -> None:
    _, on_event, complete = collector(20)
    machine = Plain()
    async with linked(machine, on_event) as link:
        machine.deadlines = [link.now() + 0.0013 * (step + 1) for step in range(20)]
        link.settle()
        seen = []
        while not complete.is_set():
            seen.append(link.now())
            await asyncio.sleep(0)
        seen.append(link.now())
    assert seen == sorted(seen)
    assert seen[-1] >= machine.wakeups[-1]


@pytest.mark.both_loops
async def test_a_deadline_put_off_costs_no_wakeup() -> None:
    loop = asyncio.get_running_loop()
    _, on_event, complete = collector(1)
    machine = Plain([loop.time() + 0.02])
    async with linked(machine, on_event) as link:
        machine.deadlines = [loop.time() + 0.06]
        link.settle()
        await asyncio.wait_for(complete.wait(), WAIT_MAX)
    assert len(machine.wakeups) == 1


@pytest.mark.both_loops
async def test_nobody_listening_does_not_end_the_link() -> None:
    """Whether or not the kernel reports that the port is unreachable."""
    _, on_event, complete = collector(1)
    machine, other = Plain(), Plain()
    dead = free_port()
    async with linked(machine, on_event) as link, linked(other) as near:
        for _ in range(5):
            machine.out.append(((HOST, dead), b"anybody?"))
            link.settle()
            await asyncio.sleep(0.01)
        link.error_received(ConnectionRefusedError())  # As where the kernel does report it.
        other.out.append((link.address, b"I am"))
        near.settle()
        await asyncio.wait_for(complete.wait(), WAIT_MAX)
        assert link.counters["send errors"] >= 1
    assert [data for data, _ in machine.received] == [b"I am"]


@pytest.mark.both_loops
@pytest.mark.parametrize(
    "impossible",
    [((HOST, 9), bytes(70_000)), (("::1", 9), b"x"), (("255.255.255.255", 9), b"x")],
    ids=["too long", "other family", "broadcast"],
)
async def test_a_datagram_that_cannot_be_sent_costs_only_itself(
    impossible: tuple[Peer, bytes],
) -> None:
    _, on_event, complete = collector(1)
    there, here = Plain(), Plain()
    async with linked(there, on_event) as far, linked(here) as near:
        here.out = [impossible, (far.address, b"fine")]
        near.settle()
        await asyncio.wait_for(complete.wait(), WAIT_MAX)
        assert near.counters["send errors"] == 1
    assert there.received[0][0] == b"fine"


async def test_a_send_buffer_at_its_bound_drops_and_counts() -> None:
    """The transport says when it is full; the link then sends nothing until it says otherwise."""
    machine = Plain()
    async with linked(machine) as link:
        link.pause_writing()
        machine.out = [((HOST, 9), b"x")] * 3
        link.settle()
        assert link.counters["datagrams dropped, send buffer full"] == 3
        assert link.counters["datagrams sent"] == 0
        link.resume_writing()
        machine.out = [((HOST, 9), b"x")]
        link.settle()
        assert link.counters["datagrams sent"] == 1


async def test_the_transport_itself_reports_a_full_send_buffer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a kernel that takes nothing, and a small bound."""
    monkeypatch.setattr(udp, "SEND_BUFFER_MAX", 1000)
    machine = Plain()
    async with linked(machine) as link:
        transport = link._transport
        assert transport is not None
        real = transport._sock  # type: ignore[attr-defined]

        class Stuck:
            def sendto(self, *_: object) -> int:
                raise BlockingIOError

            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

        monkeypatch.setattr(transport, "_sock", Stuck())
        machine.out = [((HOST, 9), bytes(100))] * 100
        link.settle()
        assert link.counters["datagrams dropped, send buffer full"] >= 85
        assert transport.get_write_buffer_size() <= 1500  # type: ignore[attr-defined]
        monkeypatch.undo()
        transport.abort()


@pytest.mark.both_loops
async def test_a_callback_that_fails_costs_its_own_event_and_nothing_else() -> None:
    loop = asyncio.get_running_loop()
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    found, note, complete = collector(2)

    def on_event(event: bytes) -> None:
        if event == b"due 3":
            raise RuntimeError("a callback's own mistake")
        note(event)

    now = loop.time()
    machine = Plain([now + 0.01, now + 0.01, now + 0.03])
    async with linked(machine, on_event):
        await asyncio.wait_for(complete.wait(), WAIT_MAX)
    assert found == [b"due 2", b"due 1"]
    assert len(faults) == 1


@pytest.mark.both_loops
async def test_commands_from_a_callback_are_carried_out_before_settle_returns() -> None:
    there, here = Plain(), Plain()
    _, arrived, complete = collector(1)
    async with linked(there, arrived) as far:

        def on_event(event: bytes) -> None:
            here.out.append((far.address, b"answer to " + event))
            near.settle()  # As a command's caller does, who cannot know where it stands.

        async with linked(here, on_event) as near:
            here.reports.append(b"question")
            near.settle()
            assert near.counters["datagrams sent"] == 1
            await asyncio.wait_for(complete.wait(), WAIT_MAX)
    assert there.received[0][0] == b"answer to question"


@pytest.mark.both_loops
async def test_closed_from_a_callback_stays_closed() -> None:
    machine = Plain()
    links: list[UdpLink[bytes]] = []
    async with linked(machine, lambda _: links[0].close()) as link:
        links.append(link)
        machine.deadlines = [link.now() + 0.01]
        machine.reports.append(b"stop")
        link.settle()
        await asyncio.sleep(0.03)  # There is no event to await: nothing is what must happen.
    assert machine.wakeups == []


@pytest.mark.both_loops
async def test_port_in_use_is_one_line_that_says_what_to_do() -> None:
    async with linked(Plain()) as link:
        _, port = link.address
        with pytest.raises(LinkError, match=f"UDP {HOST} port {port} is in use: stop") as caught:
            await open_udp(Plain(), ignore, host=HOST, port=port)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("192.0.2.1", 5683, "no such address"),
        (HOST, 70_000, "choose one of 0 to 65535"),
        (HOST, -1, "choose one of 0 to 65535"),
        ("a" * 70 + ".invalid", 5683, "cannot be opened"),
    ],
)
async def test_an_address_that_cannot_be_had_is_a_link_error(
    host: str, port: int, says: str
) -> None:
    with pytest.raises(LinkError, match=says) as caught:
        await open_udp(Plain(), ignore, host=host, port=port)
    assert "\n" not in str(caught.value)


def test_a_fault_without_advice_of_its_own_is_told_in_its_own_words() -> None:
    fault = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    told = udp._explain(fault, "meter", 5683)
    assert told == "UDP meter port 5683 cannot be opened: Name or service not known"
    assert "above 1023" in udp._explain(PermissionError(errno.EACCES, "denied"), HOST, 1)


# CoAP over it, with an independent peer


def serve(endpoint: Endpoint, link: UdpLink[Event], event: Event) -> None:
    """A server of two resources and their list."""
    assert isinstance(event, RequestReceived)
    message = event.message
    if message.path == link_format.WELL_KNOWN_CORE:
        queries = [value.decode() for value in message.option_values(OptionNumber.URI_QUERY)]
        response = Message.response(
            Code.CONTENT,
            payload=link_format.build(link_format.select(LINKS, queries)),
            content_format=link_format.CONTENT_FORMAT,
        )
    elif message.path == "echo":
        response = Message.response(Code.CHANGED, payload=message.payload)
    else:
        response = Message.response(Code.NOT_FOUND)

    def answer() -> None:
        endpoint.respond(event.exchange, response, now=link.now())
        link.settle()

    if message.code == Code.PUT:  # Asked so, it takes its time, and answers separately.
        asyncio.get_running_loop().call_later(0.15, answer)
    else:
        answer()


@asynccontextmanager
async def coap_server() -> AsyncIterator[UdpLink[Event]]:
    endpoint = Endpoint(dice=random.Random(1), piggyback_wait=0.05)
    links: list[UdpLink[Event]] = []
    link = await open_udp(
        endpoint, lambda event: serve(endpoint, links[0], event), host=HOST, port=0
    )
    links.append(link)
    try:
        yield link
    finally:
        link.close()
        await asyncio.sleep(0)


class Client:
    """Asks one request at a time of our own endpoint, and awaits its end."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.endpoint = Endpoint(dice=random.Random(2), timing=timing)
        self.ended: asyncio.Queue[Event] = asyncio.Queue()

    async def open(self) -> UdpLink[Event]:
        self.link = await open_udp(self.endpoint, self.ended.put_nowait, host=HOST, port=0)
        return self.link

    async def ask(self, message: Message, peer: Peer) -> Event:
        self.endpoint.request(message, peer, now=self.link.now())
        self.link.settle()
        return await asyncio.wait_for(self.ended.get(), WAIT_MAX)


@pytest.mark.both_loops
async def test_our_client_and_our_server_agree() -> None:
    client = Client()
    async with coap_server() as server:
        await client.open()
        event = await client.ask(
            Message.request(Code.GET, link_format.WELL_KNOWN_CORE), server.address
        )
        assert isinstance(event, ResponseReceived)
        assert link_format.parse(event.message.payload) == LINKS
        event = await client.ask(Message.request(Code.PUT, "echo", payload=b"x"), server.address)
        assert isinstance(event, ResponseReceived)
        assert event.message.payload == b"x"
        client.link.close()


@pytest.mark.both_loops
async def test_a_peer_that_is_away_ends_a_request_by_time() -> None:
    client = Client(Timing(ack_timeout=0.01, max_retransmit=2))
    await client.open()
    event = await client.ask(Message.request(Code.GET, "x"), (HOST, free_port()))
    assert isinstance(event, RequestFailed)
    assert event.failure is Failure.NO_ACKNOWLEDGEMENT
    client.link.close()


@pytest.mark.both_loops
async def test_an_independent_client_reads_what_our_server_lists() -> None:
    aiocoap = pytest.importorskip("aiocoap")
    async with coap_server() as server:
        root = f"coap://{HOST}:{server.address[1]}"
        context = await aiocoap.Context.create_client_context(transports=["simple6"])

        async def ask(code: object, uri: str, payload: bytes = b"") -> Any:
            message = aiocoap.Message(code=code, uri=root + uri, payload=payload)
            return await asyncio.wait_for(context.request(message).response, WAIT_MAX)

        try:
            listed = await ask(aiocoap.GET, "/.well-known/core")
            assert listed.code == aiocoap.CONTENT
            assert listed.opt.content_format == 40
            assert link_format.parse(listed.payload) == LINKS
            fewer = await ask(aiocoap.GET, "/.well-known/core?rt=amistack.t*")
            assert link_format.parse(fewer.payload) == LINKS[1:]
            assert (await ask(aiocoap.GET, "/nothing")).code == aiocoap.NOT_FOUND
            assert (await ask(aiocoap.POST, "/echo", b"prompt")).payload == b"prompt"
            assert (await ask(aiocoap.PUT, "/echo", b"slow")).payload == b"slow"
        finally:
            await context.shutdown()


@pytest.mark.both_loops
async def test_our_client_reads_what_an_independent_server_lists() -> None:
    aiocoap = pytest.importorskip("aiocoap")
    from aiocoap import resource

    class Slow(resource.Resource):  # type: ignore[misc]
        """Answers after its empty acknowledgement."""

        async def render_get(self, request: object) -> object:
            await asyncio.sleep(0.3)
            return aiocoap.Message(payload=b"22.3 C")

    site = resource.Site()
    site.add_resource(
        [".well-known", "core"], resource.WKCResource(site.get_resources_as_linkheader)
    )
    site.add_resource(["temperature"], Slow())
    port = free_port()
    context = await aiocoap.Context.create_server_context(
        site, bind=(HOST, port), transports=["simplesocketserver"]
    )
    client = Client()
    await client.open()
    try:
        event = await client.ask(
            Message.request(Code.GET, link_format.WELL_KNOWN_CORE), (HOST, port)
        )
        assert isinstance(event, ResponseReceived)
        assert event.message.content_format == link_format.CONTENT_FORMAT
        targets = {link.target for link in link_format.parse(event.message.payload)}
        assert "/temperature" in targets
        event = await client.ask(Message.request(Code.GET, "temperature"), (HOST, port))
        assert isinstance(event, ResponseReceived)
        assert event.message.payload == b"22.3 C"
        assert client.endpoint.next_timer() is None
    finally:
        client.link.close()
        await context.shutdown()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
