"""Scripted collectors on real streams, with meters behind them on sockets of their own.

A meter believes that its collector's socket is the head-end: what it sends there goes up, what
comes down goes there. Ways that the world has broken drop what goes over them, as in `worlds`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from amistack.framing import TCP, Closed, Event, Frame, FramedPeer, FrameReceived, Kind, Opened
from amistack.framing import Priority as FramePriority
from amistack.links.streams import StreamLink
from amistack.links.tcp import Tls, key_hash_of, open_tcp
from mesh.backhaul import Down, Message, Trace, Up, decode, encode
from mesh.packet import PacketKind
from mesh.reports import TopologyReport
from tests.headend.dcc.worlds import ScriptedCollector, row
from tests.mesh.topology.worlds import World

RUNS = itertools.count(1)
LATENCY_S = 0.001


class Certificate:
    """A key and a certificate that its owner signed, in one file."""

    def __init__(self, folder: Path, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=36_500))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.name = name
        self.der = certificate.public_bytes(Encoding.DER)
        self.key_hash = key_hash_of(self.der)
        self.key_file = folder / f"{name}-key.pem"
        self.key_file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def client_tls(self, server: Certificate) -> Tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.file, self.key_file)
        context.load_verify_locations(server.file)
        return Tls(context, frozenset({server.key_hash}), server.name)


class Tunnel(asyncio.DatagramProtocol):
    """The socket that a meter takes for the head-end."""

    def __init__(self, up: Callable[[bytes], None]) -> None:
        self._up = up
        self._transport: asyncio.DatagramTransport | None = None
        self._meter: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: on neither loop is the transport an instance of the class it stands for.
        self._transport = cast("asyncio.DatagramTransport", transport)

    @property
    def address(self) -> tuple[str, int]:
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")
        return host, port

    def serve(self, meter: tuple[str, int]) -> None:
        """That meter is behind this collector as well."""
        self._meter = meter

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._meter = addr
        self._up(data)

    def down(self, octets: bytes) -> None:
        if self._transport is not None and self._meter is not None:
            self._transport.sendto(octets, self._meter)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@dataclass
class WireCollector(ScriptedCollector):
    """A scripted collector with a stream to the head-end."""

    path_sequence: int = 241
    row_targets: tuple[int, ...] | None = None
    is_held: bool = False
    """It says to a trace nothing by itself, one message after the other by `go_on`."""
    unsaid: deque[Message] = field(default_factory=deque)
    link: StreamLink[Event] | None = None
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    is_closed: asyncio.Event = field(default_factory=asyncio.Event)
    tunnels: dict[int, Tunnel] = field(default_factory=dict)

    async def join(self, address: tuple[str, int], *, tls: Tls | None = None) -> None:
        """Connect and say hello; table and reports follow."""
        self.is_open.clear()
        self.is_closed.clear()
        self.link = await open_tcp(
            self._make, self._on_event, host=address[0], port=address[1], tls=tls
        )
        await asyncio.wait_for(self.is_open.wait(), 5)
        targets = self.world.meters if self.row_targets is None else self.row_targets
        rows = [row(self.world, target, self.path_sequence) for target in targets]
        self.say(self.hello(), *self.table(rows))

    def report(self) -> None:
        """Every node's topology report comes by this collector."""
        for short, report in self.world.reports():
            self.tell(short, report)

    def tell(self, short: int, report: TopologyReport) -> None:
        """One node's report comes by this collector."""
        self.say(self._up(short, report.encode(), PacketKind.TOPOLOGY))

    async def leave(self) -> None:
        assert self.link is not None
        self.link.close()
        await self.link.wait_ended()

    def cut(self) -> None:
        assert self.link is not None
        self.link.abort()

    async def tunnel(self, short: int) -> tuple[str, int]:
        """The address that the meter of that short takes for the head-end's."""
        loop = asyncio.get_running_loop()
        _, tunnel = await loop.create_datagram_endpoint(
            lambda: Tunnel(lambda octets: self._take_up(short, octets)),
            local_addr=("127.0.0.1", 0),
        )
        self.tunnels[short] = tunnel
        return tunnel.address

    def close(self) -> None:
        for tunnel in self.tunnels.values():
            tunnel.close()

    def say(self, *messages: Message) -> None:
        link = self.link
        assert link is not None
        assert isinstance(link.machine, FramedPeer)
        for message in messages:
            frame = Frame(Kind.BACKHAUL, FramePriority.CONTROL, self.node, encode(message))
            link.machine.send(frame, now=link.now())
            link.settle()

    def _take_up(self, short: int, octets: bytes) -> None:
        if self.link is not None and short not in self.broken:
            self.say(self._up(short, octets, PacketKind.COAP))

    def _up(self, short: int, octets: bytes, kind: int) -> Message:
        return Up(short, kind, FramePriority.SCHEDULED, octets, hops=1)

    def _make(self, _: StreamLink[Event], /, *, now: float) -> FramedPeer:
        return FramedPeer(self.node, TCP, now=now, run=next(RUNS))

    def _on_event(self, _: StreamLink[Event], event: Event, /) -> None:
        match event:
            case Opened():
                self.is_open.set()
            case FrameReceived(frame):
                self._take(decode(frame.payload))
            case Closed():
                self.is_closed.set()
            case _:
                raise AssertionError(f"the head-end sent {event}")

    def _take(self, message: Message) -> None:
        self.told.append(message)
        loop = asyncio.get_running_loop()
        if isinstance(message, Down):
            way = self.way(message.destination, message.relays)
            lost, _ = (None, False) if message.relays is None else self.walk(way)
            tunnel = self.tunnels.get(message.destination)
            if lost is None and tunnel is not None and message.destination not in self.broken:
                tunnel.down(message.payload)
        steps = [step for _, step in self.steps(message)]  # type: ignore[arg-type]
        answer = self.answer(message)  # type: ignore[arg-type]
        if answer is None:
            return
        said = (*steps, answer[1])
        if self.is_held and isinstance(message, Trace):
            self.unsaid.extend(said)
            return
        # The world's hops are slower than a test should be.
        delay = LATENCY_S if answer[0] < 5 else answer[0]
        loop.call_later(delay, self._say_if_open, *said)

    def go_on(self) -> None:
        """Say the next of what was held back."""
        self._say_if_open(self.unsaid.popleft())

    def _say_if_open(self, *messages: Message) -> None:
        if self.link is not None and not self.is_closed.is_set():
            self.say(*messages)


def wire(world: World, short: int, broken: set[object]) -> WireCollector:
    return WireCollector(short, world, broken)
