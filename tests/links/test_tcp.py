"""TCP links: real sockets on loopback, on both loops, with and without TLS.

The contract under test: machines on both sides hear each other; at most UNSENT_SIZE_MAX octets
are beyond recall; silent, slow, strange and too many connections end without harm to the others;
a client comes back; TLS shows the peer's key, and a wrong one gets nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import os
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from amistack.errors import LinkError
from amistack.framing import (
    TCP,
    Closed,
    Ending,
    Event,
    Frame,
    FramePassed,
    FrameReceived,
    Kind,
    Opened,
    Priority,
)
from amistack.framing import peer as peer_module
from amistack.links import streams, tcp
from amistack.links.capture import open_capture
from amistack.links.streams import PIECE_SIZE, UNSENT_SIZE_MAX, StreamLink
from amistack.links.tcp import TcpServer, Tls, keep_tcp, key_hash_of, open_tcp, open_tcp_server
from amistack.links.udp import Direction
from tests.links.streams_support import COLLECTOR, HEAD_END, WAIT_MAX, Maker, Notes, Plain

HOST: Final = "127.0.0.1"
SIOCOUTQNSD: Final = 0x894B
COAP: Final = bytes.fromhex("40010001")


def reading(payload: bytes = COAP, priority: Priority = Priority.SCHEDULED) -> Frame:
    return Frame(Kind.COAP, priority, COLLECTOR, payload)


class Identity:
    """A key and a certificate that its owner signed."""

    def __init__(self, folder: Path, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=36_500))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.name = name
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        self.key_hash = key_hash_of(certificate.public_bytes(Encoding.DER))

    def tls(self, trusted: Identity, *, is_server: bool, pins: frozenset[bytes] | None) -> Tls:
        purpose = ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(purpose)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.file)
        context.load_verify_locations(trusted.file)
        context.verify_mode = ssl.CERT_REQUIRED
        return Tls(context, pins, trusted.name)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, Identity]:
    folder = tmp_path_factory.mktemp("tls")
    return Identity(folder, "head-end"), Identity(folder, "collector")


def tls_of(identities: tuple[Identity, Identity], *, is_tls: bool) -> tuple[Tls | None, Tls | None]:
    if not is_tls:
        return None, None
    head_end, collector = identities
    return (
        head_end.tls(collector, is_server=True, pins=frozenset({collector.key_hash})),
        collector.tls(head_end, is_server=False, pins=frozenset({head_end.key_hash})),
    )


@contextlib.asynccontextmanager
async def served(
    notes: Notes, maker: Maker | None = None, *, tls: Tls | None = None, **bounds: int
) -> AsyncIterator[TcpServer[Event]]:
    server = await open_tcp_server(
        maker or Maker(HEAD_END), notes, host=HOST, port=0, tls=tls, **bounds
    )
    try:
        yield server
    finally:
        await asyncio.wait_for(server.close(), WAIT_MAX)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def connected(
    server: TcpServer[Event], notes: Notes, maker: Maker | None = None, tls: Tls | None = None
) -> AsyncIterator[StreamLink[Event]]:
    port = server.address[1]
    link = await open_tcp(maker or Maker(COLLECTOR), notes, host=HOST, port=port, tls=tls)
    try:
        yield link
    finally:
        link.close()
        await asyncio.wait_for(link.wait_ended(), WAIT_MAX)


@contextlib.asynccontextmanager
async def raw(
    server: TcpServer[Event], receive_buffer: int | None = None
) -> AsyncIterator[socket.socket]:
    """A client without any manners."""
    with socket.socket() as sock:
        sock.settimeout(0)
        await asyncio.get_running_loop().sock_connect(sock, server.address)
        yield sock


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_MAX):
        while not condition():  # noqa: ASYNC110  of things that tell nobody
            await asyncio.sleep(0.002)


WITH_AND_WITHOUT_TLS = pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])


@pytest.mark.both_loops
@WITH_AND_WITHOUT_TLS
async def test_frames_go_both_ways_and_both_sides_are_told_of_the_end(
    is_tls: bool, identities: tuple[Identity, Identity]
) -> None:
    server_tls, client_tls = tls_of(identities, is_tls=is_tls)
    there, here = Notes(), Notes()
    head_ends, collectors = Maker(HEAD_END), Maker(COLLECTOR)
    async with served(there, head_ends, tls=server_tls) as server:
        async with connected(server, here, collectors, client_tls) as link:
            await there.wait_for(Opened)
            await here.wait_for(Opened)
            sent = [reading(bytes([n]) * 2000) for n in range(20)]
            for frame in sent:
                collectors.made[0].send(frame, now=link.now())
            link.settle()
            assert await there.wait_for(FrameReceived, 20) == [FrameReceived(f) for f in sent]
            head_ends.made[0].send(reading(b"down"), now=there.links[0].now())
            there.links[0].settle()
            await here.wait_for(FrameReceived)
            assert there.links[0].peer_address == link.address
            assert link.peer_address == server.address
            if is_tls:
                head_end, collector = identities
                assert link.peer_key_hash == head_end.key_hash
                assert there.links[0].peer_key_hash == collector.key_hash
            else:
                assert link.peer_key_hash is None
        (closed,) = await there.wait_for(Closed)
        assert isinstance(closed, Closed)
        assert closed.ending is Ending.PEER_LEFT
        assert [type(event) for event in here.events[-1:]] == [Closed]
        await until(lambda: not server.links)


def kernel_unsent(link: StreamLink[Event]) -> int:
    """Octets that the kernel has and did not put on the wire yet."""
    assert link._transport is not None
    fd = link._transport.get_extra_info("socket").fileno()
    (count,) = struct.unpack("i", fcntl.ioctl(fd, SIOCOUTQNSD, bytes(4)))
    assert isinstance(count, int)
    return count


@pytest.mark.both_loops
@WITH_AND_WITHOUT_TLS
async def test_at_most_four_thousand_octets_are_beyond_recall_and_an_alarm_overtakes_the_rest(
    is_tls: bool, identities: tuple[Identity, Identity]
) -> None:
    """The reader stops; what fits into its and our kernel's wire goes, the rest waits in order."""
    server_tls, client_tls = tls_of(identities, is_tls=is_tls)
    there, here = Notes(), Notes()
    collectors = Maker(COLLECTOR)
    async with (
        served(there, tls=server_tls) as server,
        connected(server, here, collectors, client_tls) as link,
    ):
        await here.wait_for(Opened)
        await there.wait_for(Opened)
        reader = there.links[0]._transport
        assert reader is not None
        reader.pause_reading()
        machine = collectors.made[0]
        worst = 0
        filled = 0
        # Until the other kernel takes no more and the queue itself begins to fill.
        while machine.depth(Priority.FIRMWARE)[0] < 20:
            machine.send(reading(bytes(2000), Priority.FIRMWARE), now=link.now())
            filled += 1
            link.settle()
            await asyncio.sleep(0)
            worst = max(worst, kernel_unsent(link), link.unsent)
            assert filled < 20_000
        assert 0 < worst <= UNSENT_SIZE_MAX
        at = machine.counters["frames sent"]
        machine.send(reading(b"power lost", Priority.ALARM), now=link.now())
        link.settle()
        reader.resume_reading()
        await there.wait_for(FrameReceived, filled + 1)
        order = [event.frame.priority for event in there.events if isinstance(event, FrameReceived)]
        # Nobody is woken for room that nobody needs.
        assert isinstance(link.gauge, tcp._KernelQueue)
        await until(lambda: link.unsent == 0)
        assert not link.gauge._is_watching
        # Frames sent so far include the hello; the one that had begun may come before.
        assert order.index(Priority.ALARM) in (at - 1, at)


@pytest.mark.both_loops
async def test_machine_is_asked_for_no_more_than_a_piece_and_only_while_nothing_waits() -> None:
    machine = Plain()
    machine.out = bytes(3 * 1024 * 1024)
    link: StreamLink[bytes] = StreamLink(lambda link, *, now: machine, lambda link, event: None)
    with socket.create_server((HOST, 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: link, *listening.getsockname())
        await asyncio.sleep(0.05)
        left = len(machine.out)
        assert left > 0
        assert set(machine.asked) == {PIECE_SIZE}
        await asyncio.sleep(0.05)
        assert len(machine.out) == left
        # No gauge here: what is beyond recall is the kernel's, and less than a piece besides.
        assert link.gauge is None
        assert 0 < link.unsent <= PIECE_SIZE
        link.abort()
        await link.wait_ended()


@pytest.mark.both_loops
async def test_each_deadline_costs_one_wakeup_and_none_comes_early() -> None:
    loop = asyncio.get_running_loop()
    gaps = random.Random(4)
    due, deadlines = loop.time() + 0.05, []
    for _ in range(40):
        due += gaps.uniform(0.0011, 0.0049)
        deadlines.append(due)
    machine = Plain(deadlines)
    done = asyncio.Event()

    def on_event(link: StreamLink[bytes], event: bytes, /) -> None:
        if not machine.deadlines:
            done.set()

    server = await open_tcp_server(lambda link, *, now: machine, on_event, host=HOST, port=0)
    async with asyncio.timeout(WAIT_MAX):
        _, writer = await asyncio.open_connection(*server.address)
        await done.wait()
    assert len(machine.wakeups) <= 40
    assert machine.wakeups == sorted(machine.wakeups)
    assert machine.wakeups[0] >= deadlines[0]
    writer.close()
    await server.close()
    await writer.wait_closed()


@pytest.mark.both_loops
async def test_what_speaks_another_protocol_is_sent_away_and_the_others_stay() -> None:
    there, here = Notes(), Notes()
    collectors = Maker(COLLECTOR)
    async with (
        served(there) as server,
        connected(server, here, collectors) as link,
        raw(server) as sock,
    ):
        await here.wait_for(Opened)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\n\r\n")
        said = b""
        async with asyncio.timeout(WAIT_MAX):
            while octets := await loop.sock_recv(sock, 4096):
                said += octets
        deframer = TCP.make_deframer()
        frames = deframer.receive_data(said)
        assert [f.kind for f in frames if isinstance(f, Frame)] == [Kind.HELLO, Kind.GOODBYE]
        (closed,) = await there.wait_for(Closed)
        assert isinstance(closed, Closed)
        assert closed.ending is Ending.UNREADABLE
        collectors.made[0].send(reading(), now=link.now())
        link.settle()
        await there.wait_for(FrameReceived)


@pytest.mark.both_loops
@pytest.mark.parametrize("octets", [b"", b"\x00"], ids=["silent", "one octet at a time"])
async def test_connection_that_never_says_hello_ends_by_itself(
    octets: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "HELLO_TIMEOUT", 0.2)
    there = Notes()
    async with served(there) as server, raw(server) as sock:
        await until(lambda: bool(server.links))
        hello = TCP.wrap(Frame(Kind.HELLO, Priority.CONTROL, COLLECTOR, bytes(1000)))
        sent = 0
        async with asyncio.timeout(WAIT_MAX):
            while server.links:
                if octets and sent < len(hello):
                    with contextlib.suppress(OSError):
                        sock.send(hello[sent : sent + 1])
                    sent += 1
                await asyncio.sleep(0.01)
        (closed,) = there.of(Closed)
        assert isinstance(closed, Closed)
        assert closed.ending is Ending.NO_HELLO


@pytest.mark.both_loops
async def test_peer_that_vanished_without_a_word_is_noticed() -> None:
    """Half open: it said hello, its socket stays, and nothing comes any more."""
    there = Notes()
    async with served(there, Maker(HEAD_END, silence_max=1)) as server, raw(server) as sock:
        hello = TCP.wrap(
            Frame(
                Kind.HELLO, Priority.CONTROL, COLLECTOR, bytes.fromhex("0101005a0000000900000000")
            )
        )
        await asyncio.get_running_loop().sock_sendall(sock, hello)
        await there.wait_for(Opened)
        (closed,) = await there.wait_for(Closed)
        assert isinstance(closed, Closed)
        assert closed.ending is Ending.SILENT
        await until(lambda: not server.links)


async def test_last_octets_that_nobody_takes_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CLOSE_TIMEOUT", 0.1)
    machine = Plain()
    machine.out = bytes(8 * 1024 * 1024)
    server = await open_tcp_server(
        lambda link, *, now: machine, lambda link, event: None, host=HOST, port=0
    )
    with socket.create_connection(server.address):
        await until(lambda: bool(machine.asked))
        await asyncio.wait_for(server.close(), WAIT_MAX)
        assert not server.links


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("bounds", "counter"),
    [
        ({"connection_count_max": 2}, "connections refused, at the bound"),
        ({"connection_count_per_host_max": 2}, "connections refused, at the bound of one host"),
    ],
)
async def test_connections_beyond_the_bound_are_cut_and_places_come_free_again(
    bounds: dict[str, int], counter: str
) -> None:
    there, here = Notes(), Notes()
    async with served(there, **bounds) as server, connected(server, here):
        async with connected(server, here):
            await there.wait_for(Opened, 2)
            async with raw(server) as sock:
                loop = asyncio.get_running_loop()
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.wait_for(loop.sock_recv(sock, 1), WAIT_MAX) == b""
            assert server.counters[counter] == 1
            assert len(server.links) == 2
        await until(lambda: len(server.links) == 1)
        async with connected(server, here):
            await there.wait_for(Opened, 3)
    assert server.counters["connections"] == 3


@pytest.mark.both_loops
async def test_client_comes_back_when_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    here, told = Notes(), []
    first = await open_tcp_server(Maker(HEAD_END), Notes(), host=HOST, port=0)
    port = first.address[1]

    def on_down(error: LinkError | None, wait: float, /) -> None:
        told.append(str(error) if error else None)

    monkeypatch.setattr(
        tcp, "Backoff", lambda dice: streams.Backoff(dice, first=0.01, longest=0.05)
    )
    kept = keep_tcp(
        Maker(COLLECTOR), here, host=HOST, port=port, dice=random.Random(1), on_down=on_down
    )
    await here.wait_for(Opened)
    assert kept.link is not None
    await first.close()
    (closed,) = await here.wait_for(Closed)
    assert isinstance(closed, Closed)
    assert closed.ending is Ending.PEER_LEFT
    await until(lambda: len(told) >= 2)
    second = await open_tcp_server(Maker(HEAD_END), Notes(), host=HOST, port=port)
    await here.wait_for(Opened, 2)
    await kept.close()
    await second.close()
    assert told[0] is None
    assert told[1] == (
        f"TCP to {HOST} port {port}: refused: start the server there, or correct the address"
    )


@pytest.mark.both_loops
async def test_peer_with_another_key_than_pinned_gets_nowhere(
    identities: tuple[Identity, Identity],
) -> None:
    head_end, collector = identities
    there, here = Notes(), Notes()
    wrong = frozenset({bytes(32)})
    server_tls = head_end.tls(collector, is_server=True, pins=None)
    client_tls = collector.tls(head_end, is_server=False, pins=wrong)
    async with served(there, tls=server_tls) as server:
        with pytest.raises(LinkError, match="the peer's key is none of those pinned"):
            await open_tcp(
                Maker(COLLECTOR), here, host=HOST, port=server.address[1], tls=client_tls
            )
        assert here.events == []
        await until(lambda: not server.links)
    there = Notes()
    server_tls = head_end.tls(collector, is_server=True, pins=wrong)
    client_tls = collector.tls(head_end, is_server=False, pins=None)
    async with served(there, tls=server_tls) as server:
        link = await open_tcp(
            Maker(COLLECTOR), here, host=HOST, port=server.address[1], tls=client_tls
        )
        await asyncio.wait_for(link.wait_ended(), WAIT_MAX)
        await until(lambda: not server.links)
        assert there.events == []
        assert server.counters["connections without an opening"] == 1


@pytest.mark.both_loops
async def test_certificate_of_a_stranger_is_refused_in_one_line(
    identities: tuple[Identity, Identity], tmp_path: Path
) -> None:
    head_end, collector = identities
    stranger = Identity(tmp_path, "stranger")
    there = Notes()
    async with served(there, tls=head_end.tls(collector, is_server=True, pins=None)) as server:
        tls = collector.tls(stranger, is_server=False, pins=None)
        with pytest.raises(LinkError) as caught:
            await open_tcp(Maker(COLLECTOR), Notes(), host=HOST, port=server.address[1], tls=tls)
        assert "no TLS: " in str(caught.value)
        assert "\n" not in str(caught.value)
        await until(lambda: not server.links)
        assert there.events == []


@pytest.mark.both_loops
@pytest.mark.parametrize("octets", [b"", TCP.wrap(reading())], ids=["silent", "no TLS"])
async def test_connection_that_never_makes_a_handshake_ends_by_itself(
    octets: bytes, identities: tuple[Identity, Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "TLS_TIMEOUT", 0.2)
    head_end, collector = identities
    there = Notes()
    tls = head_end.tls(collector, is_server=True, pins=None)
    async with served(there, tls=tls) as server, raw(server) as sock:
        if octets:
            await asyncio.get_running_loop().sock_sendall(sock, octets)
        await until(lambda: server.counters["connections without an opening"] == 1)
        await until(lambda: not server.links)
    assert there.events == []


@pytest.mark.both_loops
async def test_server_that_closes_during_a_handshake_ends_that_too(
    identities: tuple[Identity, Identity],
) -> None:
    head_end, collector = identities
    tls = head_end.tls(collector, is_server=True, pins=None)
    async with served(Notes(), tls=tls) as server, raw(server):
        await until(lambda: bool(server.links))
        await asyncio.wait_for(server.close(), WAIT_MAX)


@pytest.mark.both_loops
@WITH_AND_WITHOUT_TLS
async def test_no_descriptor_is_left_behind(
    is_tls: bool, identities: tuple[Identity, Identity]
) -> None:
    """After good and failed openings, closings from either side, and cuts."""
    server_tls, client_tls = tls_of(identities, is_tls=is_tls)
    bad_tls = Tls(client_tls.context, frozenset()) if client_tls is not None else None
    there, here = Notes(), Notes()

    async def use(server: TcpServer[Event]) -> None:
        async with connected(server, here, tls=client_tls) as link:
            await here.wait_for(Opened)
            link.machine.end(now=link.now())  # type: ignore[union-attr]  # it has begun
        link = await open_tcp(
            Maker(COLLECTOR), here, host=HOST, port=server.address[1], tls=client_tls
        )
        link.abort()
        await link.wait_ended()
        async with raw(server) as sock:
            await asyncio.get_running_loop().sock_sendall(sock, b"nonsense" * 5)
        if bad_tls is not None:
            with pytest.raises(LinkError):
                await open_tcp(
                    Maker(COLLECTOR), here, host=HOST, port=server.address[1], tls=bad_tls
                )
        await until(lambda: not server.links)
        await asyncio.sleep(0.01)

    async with served(there, tls=server_tls) as server:
        await use(server)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  as many names as descriptors
        for _ in range(4):
            await use(server)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.both_loops
async def test_callback_that_fails_costs_its_own_event_alone() -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: failures.append(context.get("exception"))
    )
    notes = Notes()

    def on_event(link: StreamLink[Event], event: Event, /) -> None:
        notes(link, event)
        if isinstance(event, FrameReceived) and event.frame.payload == b"bad":
            raise ValueError("of the callback")

    here, collectors = Notes(), Maker(COLLECTOR)
    server = await open_tcp_server(Maker(HEAD_END), on_event, host=HOST, port=0)
    async with connected(server, here, collectors) as link:
        await here.wait_for(Opened)
        for payload in (b"bad", b"good"):
            collectors.made[0].send(reading(payload), now=link.now())
            link.settle()
            await notes.until(
                lambda payload=payload: notes.events[-1] == FrameReceived(reading(payload))
            )
    await server.close()


async def test_what_an_operator_must_mend_is_said_in_one_line() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LinkError, match=f"^TCP {HOST} port {port}: in use: stop the program"):
            await open_tcp_server(Maker(HEAD_END), Notes(), host=HOST, port=port)
    with pytest.raises(LinkError, match="no address of this machine"):
        await open_tcp_server(Maker(HEAD_END), Notes(), host="192.0.2.1", port=0)
    with pytest.raises(LinkError, match="choose one of 0 to 65535"):
        await open_tcp_server(Maker(HEAD_END), Notes(), host=HOST, port=70_000)
    with pytest.raises(LinkError, match="not a host's name"):
        await open_tcp(Maker(HEAD_END), Notes(), host="a" * 70 + ".example", port=1)
    with pytest.raises(LinkError, match="refused: start the server there"):
        await open_tcp(Maker(HEAD_END), Notes(), host=HOST, port=port)


async def test_frames_can_be_put_into_a_capture_with_what_carried_them(tmp_path: Path) -> None:
    """The datagram is shown as one, and the frame around it is its comment."""
    capture = open_capture(tmp_path / "capture.txt")
    there, here = Notes(), Notes()
    collectors = Maker(COLLECTOR, is_watched=True)

    def on_event(link: StreamLink[Event], event: Event, /) -> None:
        here(link, event)
        if isinstance(event, FramePassed) and event.frame.kind == Kind.COAP:
            assert link.address is not None
            assert link.peer_address is not None
            direction = Direction.SENT if event.is_sent else Direction.RECEIVED
            ends = (link.address, link.peer_address)
            source, destination = ends if event.is_sent else ends[::-1]
            comment = event.frame.describe()
            capture.observe(direction, source, destination, event.frame.payload, 0, comment=comment)

    async with served(there) as server:
        link = await open_tcp(collectors, on_event, host=HOST, port=server.address[1])
        await here.wait_for(Opened)
        collectors.made[0].send(reading(), now=link.now())
        link.settle()
        await there.wait_for(FrameReceived)
        link.close()
        await link.wait_ended()
    capture.close()
    (line,) = (tmp_path / "capture.txt").read_text().splitlines()[1:]
    assert f"[4 octets] {COAP.hex()} # COAP [4 octets] from 70b3d5fffe0000bb, priority 4" in line
    assert line.endswith("0110800070b3d5fffe0000bb")


@pytest.mark.both_loops
async def test_a_hello_that_is_there_before_tls_is_opens_the_stream_all_the_same(
    identities: tuple[Identity, Identity],
) -> None:
    """A client that speaks at once, from another thread: its first octets come with it."""
    server_tls, client_tls = tls_of(identities, is_tls=True)
    assert client_tls is not None
    context, name = client_tls.context, client_tls.server_hostname

    def knock(port: int) -> str | None:
        with (
            socket.create_connection((HOST, port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            return secured.version()

    async with served(Notes(), tls=server_tls) as server:
        port = server.address[1]
        for _ in range(40):
            assert await asyncio.to_thread(knock, port) == "TLSv1.3"
