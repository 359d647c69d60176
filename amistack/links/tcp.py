"""Drive stream machines over TCP, or TLS over TCP: a server for many, a client that comes back.

Gives   each machine's events to one callback, with the link they happened on
Raises  LinkError from `open_tcp_server` when the socket cannot be had, saying what to do; a client
        tells of failures and tries again
Limit   `connection_count_max` streams at a server, `..._per_host_max` from one address: others are
        cut as they come; TLS_TIMEOUT s for a handshake, CONNECT_TIMEOUT s to be connected;
        UNSENT_SIZE_MAX octets that were taken from a machine and have not left this computer
Never   decides anything a machine can: silence, a bad greeting, an end are the machine's
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import random
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from amistack.errors import LinkError
from amistack.links.streams import (
    CLOSE_TIMEOUT,
    EARLY_SIZE_MAX,
    UNSENT_SIZE_MAX,
    Backoff,
    KeptLink,
    MakeMachine,
    OnDown,
    OnEvent,
    StreamLink,
    ignore_down,
)

EventT = TypeVar("EventT")

PORT_MAX: Final = 0xFFFF
CONNECTION_COUNT_MAX: Final = 256
CONNECTION_COUNT_PER_HOST_MAX: Final = 32
CONNECT_TIMEOUT: Final = 10.0
TLS_TIMEOUT: Final = 10.0
SIOCOUTQNSD: Final = 0x894B
"""Linux: how many octets of a TCP socket were never sent (linux/sockios.h)."""


class _KernelQueue:
    """What waits behind a connection's transports, and in the kernel, without having been sent.

    The kernel calls a socket writable when less than half of TCP_NOTSENT_LOWAT is unsent. That
    alone is no bound: it takes a whole segment, tens of kilobytes, before it looks. Hence
    the question before each piece.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        """`transport` is the one next to the socket. Linux only: see `_tune`."""
        self._transport = transport
        # An own descriptor of the same socket: those of transports are not ours to watch.
        self._descriptor = os.dup(transport.get_extra_info("socket").fileno())
        self._loop = asyncio.get_running_loop()
        self._is_watching = False
        self._is_closed = False

    def unsent(self) -> int:
        """How many octets were handed over and are not on the wire."""
        if self._is_closed:
            return 0
        answer = fcntl.ioctl(self._descriptor, SIOCOUTQNSD, bytes(4))
        return int.from_bytes(answer, sys.byteorder) + self._transport.get_write_buffer_size()

    def when_less(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, when it is less than half of UNSENT_SIZE_MAX."""
        if self._is_watching or self._is_closed:
            return
        self._is_watching = True
        self._loop.add_writer(self._descriptor, self._on_writable, callback)

    def close(self) -> None:
        """Call nobody any more."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stop()
        os.close(self._descriptor)

    def _on_writable(self, callback: Callable[[], None]) -> None:
        self._stop()
        callback()

    def _stop(self) -> None:
        if self._is_watching:
            self._is_watching = False
            self._loop.remove_writer(self._descriptor)


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS, and whom to trust beyond what `context` checks.

    `pins`: SHA-256 hashes of the public keys (SubjectPublicKeyInfo, DER) that a peer may have;
    None for any that the context takes. `server_hostname`: what a client expects to find in the
    certificate, its host if None.
    """

    context: ssl.SSLContext
    pins: frozenset[bytes] | None = None
    server_hostname: str | None = None


class _Door(asyncio.Protocol):
    """What a new connection meets first: it becomes a link's, by TLS or as it is."""

    def __init__(
        self,
        link: StreamLink[EventT],
        tls: Tls | None,
        *,
        server_hostname: str | None,
        admit: Callable[[asyncio.Transport], bool],
        on_done: Callable[[Exception | None], None],
    ) -> None:
        """`server_hostname` is None at a server. `on_done` is told once how it went."""
        self._link = link
        self._tls = tls
        self._server_hostname = server_hostname
        self._admit = admit
        self._on_done = on_done
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_done = False
        self._early = b""

    def data_received(self, data: bytes) -> None:
        # uvloop begins to read when `connection_made` is over, whatever that asked for: a hello
        # that is here already comes before TLS is.
        self._early += data
        if len(self._early) > EARLY_SIZE_MAX:
            self.cut()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, as in `StreamLink.connection_made`.
        self._transport = cast("asyncio.Transport", transport)
        if not self._admit(self._transport):
            self._is_done = True
            self._transport.abort()
            return
        self._link.gauge = _tune(self._transport)
        if self._tls is None:
            self._transport.set_protocol(self._link)
            self._link.connection_made(self._transport)
            self._done(None)
            return
        # Whatever comes now is for TLS to read, and nobody else.
        self._transport.pause_reading()
        # TLS pauses as soon as anything waits below it, and with it the machine.
        self._transport.set_write_buffer_limits(high=0)
        task = self._secure(self._transport, self._tls)
        self._task = asyncio.get_running_loop().create_task(task)

    def connection_lost(self, exc: Exception | None) -> None:
        self._done(exc or ConnectionResetError("the peer went away"))

    def cut(self) -> None:
        """End the connection, whatever state it is in."""
        if self._transport is not None:
            self._transport.abort()

    async def _secure(self, below: asyncio.Transport, tls: Tls) -> None:
        try:
            securing = asyncio.ensure_future(
                asyncio.get_running_loop().start_tls(
                    below,
                    self._link,
                    tls.context,
                    server_side=self._server_hostname is None,
                    server_hostname=self._server_hostname,
                    ssl_handshake_timeout=TLS_TIMEOUT,
                    ssl_shutdown_timeout=CLOSE_TIMEOUT,
                )
            )
            await asyncio.sleep(0)  # From here on TLS is the transport's protocol.
            if self._early and (above_us := below.get_protocol()) is not self:
                _feed(above_us, self._early)
            above = await securing
            if above is None:
                raise ConnectionResetError("the peer went away")
            key_hash = _peer_key_hash(above)
            if tls.pins is not None and key_hash not in tls.pins:
                raise ConnectionError("the peer's key is none of those pinned; check the pins")
        except (OSError, ValueError) as error:
            below.abort()
            self._done(error)
            return
        self._link.peer_key_hash = key_hash
        self._link.connection_made(above)
        self._done(None)

    def _done(self, error: Exception | None) -> None:
        if self._is_done:
            return
        self._is_done = True
        if error is not None:
            self._link.connection_lost(error)
        self._on_done(error)


def _feed(protocol: asyncio.BaseProtocol, octets: bytes) -> None:
    """Give TLS what came before it."""
    # A cast: uvloop's own is none of that class, and has its methods.
    buffered = cast("asyncio.BufferedProtocol", protocol)
    while octets:
        room = memoryview(buffered.get_buffer(len(octets)))
        piece = octets[: len(room)]
        room[: len(piece)] = piece
        buffered.buffer_updated(len(piece))
        octets = octets[len(piece) :]


class TcpServer(Generic[EventT]):
    """A listening socket and the streams that came of it."""

    def __init__(
        self,
        make_machine: MakeMachine[EventT],
        on_event: OnEvent[EventT],
        *,
        tls: Tls | None,
        connection_count_max: int,
        connection_count_per_host_max: int,
    ) -> None:
        """`open_tcp_server` makes one."""
        self._make_machine = make_machine
        self._on_event = on_event
        self._tls = tls
        self._count_max = connection_count_max
        self._count_per_host_max = connection_count_per_host_max
        self._server: asyncio.Server | None = None
        self._doors: dict[StreamLink[EventT], tuple[_Door, str]] = {}
        self.counters: Counter[str] = Counter()

    @property
    def address(self) -> tuple[str, int]:
        """The host and port that the socket is bound to."""
        assert self._server is not None, "address before the socket is ready"
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    @property
    def links(self) -> tuple[StreamLink[EventT], ...]:
        """The streams that there are now, those in a handshake as well."""
        return tuple(self._doors)

    async def listen(self, sock: socket.socket) -> None:
        """Begin, on a bound socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._make_door, sock=sock)

    async def close(self) -> None:
        """Take no more, let every machine take its leave, end all."""
        if self._server is not None:
            self._server.close()
        doors = dict(self._doors)
        for link, (door, _) in doors.items():
            if link.machine is None:
                door.cut()
            link.close()
        for link in doors:
            await link.wait_ended()

    def _make_door(self) -> _Door:
        link = StreamLink(self._make_machine, self._on_event)

        def admit(transport: asyncio.Transport) -> bool:
            return self._admit(transport, link, door)

        door = _Door(link, self._tls, server_hostname=None, admit=admit, on_done=self._note)
        return door

    def _admit(self, transport: asyncio.Transport, link: StreamLink[EventT], door: _Door) -> bool:
        """Whether there is a place for one more; then it has it until its link has ended."""
        name = transport.get_extra_info("peername")
        host = str(name[0]) if name else ""
        if len(self._doors) >= self._count_max:
            self.counters["connections refused, at the bound"] += 1
            return False
        if sum(1 for _, other in self._doors.values() if other == host) >= self._count_per_host_max:
            self.counters["connections refused, at the bound of one host"] += 1
            return False
        self.counters["connections"] += 1
        self._doors[link] = (door, host)
        link.when_ended(self._forget)
        return True

    def _note(self, error: Exception | None) -> None:
        if error is not None:
            self.counters["connections without an opening"] += 1

    def _forget(self, link: StreamLink[EventT]) -> None:
        self._doors.pop(link, None)


async def open_tcp_server(
    make_machine: MakeMachine[EventT],
    on_event: OnEvent[EventT],
    *,
    host: str,
    port: int,
    tls: Tls | None = None,
    connection_count_max: int = CONNECTION_COUNT_MAX,
    connection_count_per_host_max: int = CONNECTION_COUNT_PER_HOST_MAX,
) -> TcpServer[EventT]:
    """A server at `host` and `port` (0: any free port), with a machine for each connection.

    Raises LinkError with one line that says what to do.
    """
    server = TcpServer(
        make_machine,
        on_event,
        tls=tls,
        connection_count_max=connection_count_max,
        connection_count_per_host_max=connection_count_per_host_max,
    )
    sock = await _bound_socket(host, port)
    try:
        await server.listen(sock)
    except OSError as error:
        sock.close()
        raise LinkError(_explain(error, f"TCP {host} port {port}")) from error
    except BaseException:
        sock.close()
        raise
    return server


async def open_tcp(
    make_machine: MakeMachine[EventT],
    on_event: OnEvent[EventT],
    *,
    host: str,
    port: int,
    tls: Tls | None = None,
) -> StreamLink[EventT]:
    """A link to the server at `host` and `port`. Raises LinkError in one line."""
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[None] = loop.create_future()

    def on_done(error: Exception | None) -> None:
        if opened.done():
            return
        if error is None:
            opened.set_result(None)
        else:
            opened.set_exception(error)

    link = StreamLink(make_machine, on_event)
    name = None if tls is None else tls.server_hostname or host
    door = _Door(link, tls, server_hostname=name, admit=lambda _: True, on_done=on_done)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await loop.create_connection(lambda: door, host, port)
            await opened
    except (OSError, ValueError) as error:
        door.cut()
        raise LinkError(_explain(error, f"TCP to {host} port {port}")) from error
    except BaseException:
        door.cut()
        raise
    finally:
        opened.cancel()
    return link


def keep_tcp(
    make_machine: MakeMachine[EventT],
    on_event: OnEvent[EventT],
    *,
    host: str,
    port: int,
    dice: random.Random,
    tls: Tls | None = None,
    on_down: OnDown = ignore_down,
) -> KeptLink[EventT]:
    """A link to `host` and `port` that is opened again, with a new machine, when it ends."""

    async def connect() -> StreamLink[EventT]:
        return await open_tcp(make_machine, on_event, host=host, port=port, tls=tls)

    return KeptLink(connect, Backoff(dice), on_down)


def key_hash_of(certificate: bytes) -> bytes:
    """What to pin: SHA-256 of the public key in a DER certificate. Raises ValueError."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


def _peer_key_hash(transport: asyncio.BaseTransport) -> bytes | None:
    """Raises ValueError for a certificate that cannot be read, OSError if the peer is gone."""
    secured = transport.get_extra_info("ssl_object")
    if secured is None:
        raise ConnectionResetError("the peer went away")
    certificate = secured.getpeercert(binary_form=True)
    return None if certificate is None else key_hash_of(certificate)


def _tune(transport: asyncio.Transport) -> _KernelQueue | None:
    """Send at once; where the kernel can be asked what waits in it, a way to do so."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform != "linux":
        return None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_SIZE_MAX)
    return _KernelQueue(transport)


async def _bound_socket(host: str, port: int) -> socket.socket:
    """A socket at `host` and `port`, not listening yet."""
    where = f"TCP {host} port {port}"
    if not 0 <= port <= PORT_MAX:
        raise LinkError(f"{where} is none: choose one of 0 to {PORT_MAX}")
    try:
        (family, _, _, _, address), *_ = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
    except (OSError, UnicodeError) as error:
        raise LinkError(_explain(error, where)) from error
    return sock


ADVICE: Final = {
    errno.EADDRINUSE: "in use: stop the program that holds it, or choose another port",
    errno.EACCES: "not allowed for this user: choose a port above 1023, or give the right",
    errno.EADDRNOTAVAIL: "no address of this machine: choose one of its own",
    errno.ECONNREFUSED: "refused: start the server there, or correct the address",
}


def _explain(error: Exception, where: str) -> str:
    if isinstance(error, TimeoutError):
        return f"{where}: no answer in {CONNECT_TIMEOUT:g} s; check the address and the network"
    if isinstance(error, UnicodeError):
        return f"{where}: not a host's name"
    if isinstance(error, ssl.SSLError):
        # Which of these there is depends on who raised it.
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
        return f"{where}: no TLS: {reason}; check the certificates on both sides"
    if isinstance(error, OSError):
        advice = ADVICE.get(error.errno or 0)
        return f"{where}: {advice or error.strerror or error}"
    return f"{where}: {error}"
