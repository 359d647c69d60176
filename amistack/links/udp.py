"""Drive a datagram machine with a UDP socket, under asyncio's own loop or uvloop.

Gives   the machine's events to one callback, oldest first; a peer is the socket address
Raises  LinkError from `open_udp` when the socket cannot be had, saying what to do
Limit   SEND_BUFFER_MAX octets waiting in the transport; datagrams beyond are dropped and counted,
        as the medium itself would
Never   decides anything: what to send, when to wake and what it means is the machine's; shows an
        observer what was dropped here
"""

from __future__ import annotations

import asyncio
import enum
import errno
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar, cast

from amistack.errors import LinkError
from amistack.machine import DatagramMachine, Peer

EventT = TypeVar("EventT")

PORT_MAX: Final = 0xFFFF
SEND_BUFFER_MAX: Final = 4 * 1024 * 1024
WILDCARDS: Final = ("0.0.0.0", "::")
RECEIVE_BUFFER: Final = 4 * 1024 * 1024
"""Octets asked of the kernel for datagrams that wait: a street that wakes at once fits in."""
OWN_ADDRESS_COUNT_MAX: Final = 1024


class Direction(enum.Enum):
    """Which way a datagram went, from where we stand."""

    RECEIVED = "received"
    SENT = "sent"


class Observer(Protocol):
    """Is shown every datagram that a link takes in or sends. Must not raise."""

    def __call__(
        self, direction: Direction, source: Peer, destination: Peer, octets: bytes, utc: float
    ) -> None:
        """`utc` in seconds.

        Our side of a socket that is bound to every address is the one from which it sends.
        """


class UdpLink(asyncio.DatagramProtocol, Generic[EventT]):
    """Feeds a machine what the loop brings, and carries out what it asks for."""

    def __init__(
        self, machine: DatagramMachine[EventT], on_event: Callable[[EventT], None]
    ) -> None:
        self._machine = machine
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._latest = self._loop.time()
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._is_settling = False
        self._is_paused = False
        self._unreported: deque[EventT] = deque()
        self.counters: Counter[str] = Counter()

    def now(self) -> float:
        """The machine's time (s). Commands to the machine take theirs from here too."""
        now = self._loop.time()
        if now > self._latest:
            self._latest = now
        return self._latest

    @property
    def address(self) -> tuple[str, int]:
        """The host and port that the socket is bound to."""
        assert self._transport is not None, "address before the socket is ready"
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    def settle(self) -> None:
        """Send, report, re-arm: every entry ends here, and so must every command.

        A callback may give the machine further commands; they are carried out before this returns.
        """
        if self._is_settling or self._transport is None:
            return
        self._is_settling = True
        try:
            while True:
                for peer, datagram in self._machine.data_to_send():
                    self._send(peer, datagram)
                self._unreported += self._machine.events()
                if not self._unreported:
                    break
                while self._unreported:
                    self._on_event(self._unreported.popleft())
        finally:
            # A callback that fails costs its own event: neither the others nor the timer.
            self._is_settling = False
            self._rearm()

    def close(self) -> None:
        """Stop the timer and give the socket back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.close()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: on neither loop is the transport an instance of the class it stands for.
        self._transport = cast("asyncio.DatagramTransport", transport)
        # Also a cast: both loops let a datagram transport's send buffer be bounded like a stream's.
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(high=SEND_BUFFER_MAX)
        self.settle()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.counters["datagrams received"] += 1
        self._machine.receive_datagram(data, addr, now=self.now())
        self.settle()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False

    def error_received(self, exc: Exception) -> None:  # noqa: ARG002
        # A peer that is away answers with "port unreachable"; the machine's timers deal with it.
        self.counters["send errors"] += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.close()

    # Small things

    def _send(self, peer: Peer, datagram: bytes) -> bool:
        """Whether the datagram is on its way, as far as can be told here."""
        transport = self._transport
        if transport is None:
            return False
        if self._is_paused:
            self.counters["datagrams dropped, send buffer full"] += 1
            return False
        try:
            transport.sendto(datagram, cast("tuple[str, int]", peer))
        except (OSError, ValueError):
            self.counters["send errors"] += 1
            return False
        self.counters["datagrams sent"] += 1
        return True

    def _rearm(self) -> None:
        if self._transport is None:
            return  # Closed, maybe by the callback.
        due = self._machine.next_timer()
        if self._timer is not None:
            if due == self._timer_due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer, due)

    def _on_timer(self, due: float) -> None:
        # uvloop rounds to milliseconds and fires early. Taking its word for it costs under a
        # millisecond; re-arming for the rest was seen to spin hundreds of times.
        self._timer = None
        self._latest = max(self._latest, due)
        self._machine.handle_timer(now=self.now())
        self.settle()


class _ObservedLink(UdpLink[EventT]):
    """A link with an observer: a class of its own, so that none costs nothing."""

    def __init__(
        self,
        machine: DatagramMachine[EventT],
        on_event: Callable[[EventT], None],
        observer: Observer,
        wall: Callable[[], float],
    ) -> None:
        super().__init__(machine, on_event)
        self._observer = observer
        self._wall = wall
        self._own: dict[str, Peer] = {}

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            # Shown first: the machine's answers come after it.
            self._observer(Direction.RECEIVED, addr, self._own_towards(addr), data, self._wall())
        super().datagram_received(data, addr)

    def _send(self, peer: Peer, datagram: bytes) -> bool:
        is_sent = super()._send(peer, datagram)
        if is_sent:
            own = self._own_towards(cast("tuple[str, int]", peer))
            self._observer(Direction.SENT, own, peer, datagram, self._wall())
        return is_sent

    def _own_towards(self, peer: tuple[str, int]) -> Peer:
        """Our socket address as `peer` sees it."""
        own = self._own.get(peer[0])
        if own is None:
            if len(self._own) >= OWN_ADDRESS_COUNT_MAX:
                self._own.clear()
            host, port = self.address
            own = (_address_towards(peer) or host, port) if host in WILDCARDS else (host, port)
            self._own[peer[0]] = own
        return own


async def open_udp(
    machine: DatagramMachine[EventT],
    on_event: Callable[[EventT], None],
    *,
    host: str,
    port: int,
    observer: Observer | None = None,
    wall: Callable[[], float] = time.time,
) -> UdpLink[EventT]:
    """A link on a new UDP socket bound to `host` and `port` (0: any free port).

    An `observer` is shown every datagram with its UTC by `wall`. Raises LinkError with one line
    that says what to do.
    """
    loop = asyncio.get_running_loop()

    def make_link() -> UdpLink[EventT]:
        if observer is None:
            return UdpLink(machine, on_event)
        return _ObservedLink(machine, on_event, observer, wall)

    sock = await _bound_socket(loop, host, port)
    try:
        _, link = await loop.create_datagram_endpoint(make_link, sock=sock)
    except BaseException:
        sock.close()
        raise
    return link


async def _bound_socket(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """A socket at `host` and `port`. Not left to the loop: uvloop keeps the cause to itself."""
    if not 0 <= port <= PORT_MAX:
        raise LinkError(f"UDP {host} port {port} is none: choose one of 0 to {PORT_MAX}")
    try:
        (family, _, _, _, address), *_ = await loop.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            # The kernel may give less (net.core.rmem_max); then bursts cost retransmissions only.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
    except UnicodeError as error:
        raise LinkError(f"UDP {host} port {port} cannot be opened: not a host's name") from error
    except OSError as error:
        raise LinkError(_explain(error, host, port)) from error
    return sock


def _address_towards(peer: tuple[str, int]) -> str | None:
    """The address that this machine sends from to `peer`, or None if it has none."""
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Nothing is sent: the kernel only picks the address.
            probe.connect(peer)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _explain(error: OSError, host: str, port: int) -> str:
    where = f"UDP {host} port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: stop the program that holds it, or choose another port"
    if error.errno == errno.EACCES:
        return f"{where} is not allowed for this user: choose a port above 1023, or give the right"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: this machine has no such address; choose one of its own"
    return f"{where} cannot be opened: {error.strerror or error}"
