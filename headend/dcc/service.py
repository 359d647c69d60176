"""The DCC on the network: listens for collectors, drives the center, answers who asks.

Gives   datagrams of meters to the southbound; probes, traces, orders and isolations as coroutines
Raises  LinkError from `start` when the socket cannot be had; NotThere and TooMany from questions
Limit   CONNECTIONS_MAX streams, CONNECTIONS_PER_HOST_MAX from one address; what a stream's queues
        have no room for is counted, as lost on the way; who waits, as `Watching` keeps it
Never   decides anything that the center can
"""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Protocol

from amistack import telemetry
from amistack.errors import LocalProtocolError, TableFull
from amistack.framing import TCP, Closed, Frame, FramedPeer, FrameReceived, Kind, Opened, Priority
from amistack.framing import Event as FrameEvent
from amistack.identifiers import Eui64, format_eui64
from amistack.links.streams import MakeMachine, OnEvent, StreamLink
from amistack.links.tcp import Tls, open_tcp_server
from amistack.links.udp import Observer
from headend.dcc.center import Center
from headend.dcc.events import (
    CollectorJoined,
    CollectorLeft,
    CollectorRefused,
    Connection,
    DatagramReceived,
    Event,
    HangUp,
    Isolated,
    ReportTaken,
    RequestEnded,
    RowTraced,
    Tried,
)
from headend.dcc.saving import Saving
from headend.dcc.showing import Showing
from headend.dcc.watching import Watching
from headend.domain.mesh import Assignment, MeshPeer
from headend.store.interface import Store
from mesh.backhaul import CommandDone, Order, Probed, Traced
from mesh.topology.graph import NODES_MAX
from mesh.topology.paths import Path

RUN_MAX: Final = 0xFFFF_FFFF
CONNECTIONS_MAX: Final = 4_096
"""Five million meters have a thousand collectors, each of which may come anew before it left."""
CONNECTIONS_PER_HOST_MAX: Final = 64
"""From one address; a gateway may stand before some collectors."""


class Server(Protocol):
    """A listening socket and the streams that came of it, as `TcpServer` is one."""

    @property
    def address(self) -> tuple[str, int]:
        """The host and port that it is bound to."""

    async def close(self) -> None:
        """Take no more, let every machine take its leave, end all."""


class OpenServer(Protocol):
    """Listens for streams, as `open_tcp_server` does."""

    async def __call__(
        self,
        make_machine: MakeMachine[FrameEvent],
        on_event: OnEvent[FrameEvent],
        *,
        host: str,
        port: int,
        tls: Tls | None = None,
        connection_count_max: int = ...,
        connection_count_per_host_max: int = ...,
    ) -> Server:
        """See `open_tcp_server`."""


class DccService:
    """Every collector's stream, and the one center."""

    def __init__(
        self,
        *,
        own: Eui64,
        store: Store,
        wall: Callable[[], float],
        dice: random.Random,
        open_server: OpenServer = open_tcp_server,
        observer: Observer | None = None,
    ) -> None:
        """`own` is the head-end's EUI-64; an `observer` is shown what its collectors carry."""
        self._open_server = open_server
        self.deliver: Callable[[bytes, MeshPeer], None] | None = None
        """Takes the datagrams that came up."""
        self.center = Center(first_epoch=int(wall()))
        self._showing = None if observer is None else Showing(self.center, observer, wall=wall)
        self.saving = Saving(store=store, wall=wall)
        self._own = own
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._latest = self._loop.time()
        self._server: Server | None = None
        self._context: ssl.SSLContext | None = None
        self._connections: dict[StreamLink[FrameEvent], tuple[Connection, Eui64]] = {}
        self._links: dict[Connection, StreamLink[FrameEvent]] = {}
        self._numbers = itertools.count(1)
        self._watching = Watching(self.center, now=self.now, settle=self.settle)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._is_settling = False
        self._is_stopping = False
        self._refusal_logged_at = -1.0
        self._refusals_skipped = 0
        self._log = telemetry.logger()
        self.counters: Counter[str] = Counter()

    # Start and stop

    async def load(self) -> None:
        """Take up where the store left off. Raises StoreError."""
        await self.saving.load(self.center, now=self.now)

    async def start(
        self, host: str, port: int, *, context: ssl.SSLContext | None = None
    ) -> tuple[str, int]:
        """Listen for collectors; the address bound to. With a `context`, under TLS 1.3.

        Whom the context trusts is completed by the collectors' certificates. Raises LinkError.
        """
        self._context = context
        for collector in self.center.collectors.known.values():
            self.trust(collector)
        self._server = await self._open_server(
            self._make_machine,
            self._on_event,
            host=host,
            port=port,
            tls=None if context is None else Tls(context),
            connection_count_max=CONNECTIONS_MAX,
            connection_count_per_host_max=CONNECTIONS_PER_HOST_MAX,
        )
        self.settle()
        return self._server.address

    async def stop(self) -> None:
        """Take leave of every collector, end what waits, store what is not stored."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            await self._server.close()
        self._watching.stop()
        await self.saving.stop()

    def abandon(self) -> None:
        """End as a kill would: what is not stored is never stored, nobody is told."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self.saving.abandon()

    def trust(self, collector: Assignment) -> None:
        """Let a collector's certificate pass the handshake; its hello must be its own besides."""
        if self._context is not None and collector.certificate is not None:
            self._context.load_verify_locations(cadata=collector.certificate)

    def now(self) -> float:
        """The center's time (s)."""
        self._latest = max(self._latest, self._loop.time())
        return self._latest

    # What the southbound sends and learns: `headend.southbound.elsewhere.Elsewhere`

    def send(self, peer: MeshPeer, datagram: bytes) -> None:
        """See `Elsewhere.send`."""
        is_sent = self.center.send(peer, datagram, now=self.now())
        if is_sent and self._showing is not None:
            self._showing.went(peer, datagram)
        self.settle()

    def heard(self, peer: MeshPeer, meter: Eui64) -> MeshPeer:
        """See `Elsewhere.heard`."""
        found = self.center.heard(peer, meter, now=self.now())
        self.saving.note_statuses(now=self.now())
        return found

    def hop_count(self, peer: MeshPeer) -> int | None:
        """See `Elsewhere.hop_count`."""
        return self.center.hop_count(peer)

    def unanswered(self, meter: Eui64) -> None:
        """See `Elsewhere.unanswered`."""
        self.center.unanswered(meter, now=self.now())
        self.saving.note_statuses(now=self.now())

    # Questions and orders

    async def probe(self, path: Path) -> Probed:
        """Ask the end of a way whether it is there. Raises NotThere, TooMany."""
        answer = await self._watching.ask(
            path.collector, lambda: self.center.questions.probe(path, now=self.now())
        )
        assert isinstance(answer, Probed), "a probe is answered by Probed"
        return answer

    async def trace(self, path: Path) -> AsyncIterator[Probed | Traced]:
        """Ask every node of a way: each row as it is known, then all. Raises NotThere, TooMany."""
        async for answer in self._watching.answers(
            path.collector, lambda: self.center.questions.trace(path, now=self.now())
        ):
            assert isinstance(answer, Probed | Traced), "a trace is answered by Traced"
            yield answer

    async def order(self, collector: Eui64, order: Order, node: Eui64 | None = None) -> CommandDone:
        """Have a collector do something. Raises NotThere, TooMany."""
        answer = await self._watching.ask(
            collector, lambda: self.center.questions.order(collector, order, node, now=self.now())
        )
        assert isinstance(answer, CommandDone), "an order is answered by CommandDone"
        return answer

    def ask_reports(self, collector: Eui64) -> None:
        """Have every node that a collector reaches report anew."""
        self.center.questions.ask_reports(collector)
        self.settle()

    def isolate(self, meter: Eui64) -> AsyncIterator[Tried | Isolated]:
        """Find out why a meter is silent: each step, and the end. Raises MeshError, TooMany."""
        return self._watching.isolate(meter)

    # Driving

    def settle(self) -> None:
        """Send, report, re-arm: every entry ends here, and so must every command."""
        if self._is_settling:
            return
        self._is_settling = True
        try:
            while True:
                touched = [self._send(*each) for each in self.center.messages_to_send()]
                for link in dict.fromkeys(link for link in touched if link is not None):
                    link.settle()
                events = self.center.events()
                if not events and not touched:
                    break
                for event in events:
                    self._take(event)
        finally:
            self._is_settling = False
            self.saving.note_statuses(now=self.now())
            self._rearm()

    def _make_machine(self, link: StreamLink[FrameEvent], /, *, now: float) -> FramedPeer:  # noqa: ARG002
        return FramedPeer(self._own, TCP, now=now, run=self._dice.randint(1, RUN_MAX))

    def _on_event(self, link: StreamLink[FrameEvent], event: FrameEvent, /) -> None:
        match event:
            case Opened(peer):
                connection = Connection(next(self._numbers))
                self._connections[link] = connection, peer
                self._links[connection] = link
                self.center.connect(connection, peer, link.peer_key_hash, now=self.now())
            case FrameReceived(frame):
                self._receive(link, frame)
            case Closed():
                ended = self._connections.pop(link, None)
                if ended is not None:
                    self._links.pop(ended[0], None)
                    self.center.disconnect(ended[0], now=self.now())
            case _:
                self.counters["stream: octets skipped"] += 1
        self.settle()

    def _receive(self, link: StreamLink[FrameEvent], frame: Frame) -> None:
        # Who said goodbye in the same read is no peer of the link any more: its last words count,
        # but not what follows where we have hung up.
        connection, peer = self._connections[link]
        if connection not in self._links:
            return
        if frame.kind != Kind.BACKHAUL:
            self.counters["stream: frame of another kind"] += 1
        elif frame.source != peer:
            self.counters["stream: frame of another source"] += 1
        else:
            self.center.receive(connection, frame.payload, now=self.now())

    def _send(
        self, connection: Connection, priority: Priority, octets: bytes
    ) -> StreamLink[FrameEvent] | None:
        link = self._links.get(connection)
        if link is None or link.machine is None:
            return None
        machine = link.machine
        assert isinstance(machine, FramedPeer), "made here"
        try:
            machine.send(Frame(Kind.BACKHAUL, priority, self._own, octets), now=link.now())
        except (TableFull, LocalProtocolError):
            self.center.not_sent(connection, octets, now=self.now())
        return link

    def _take(self, event: Event) -> None:
        match event:
            case DatagramReceived():
                if self._showing is not None:
                    self._showing.came(event.peer, event.octets)
                if self.deliver is not None:
                    self.deliver(event.octets, event.peer)
            case ReportTaken():
                self.saving.note(event.node, event.octets)
            case RowTraced() | RequestEnded() | Tried() | Isolated():
                self._watching.take(event)
            case HangUp():
                link = self._links.pop(event.connection, None)
                if link is not None:
                    link.close()
            case CollectorJoined():
                self._log.info(
                    "collector joined",
                    collector=format_eui64(event.collector),
                    area=event.area,
                    routes=event.route_count,
                )
            case CollectorRefused():
                self._log_refusal(event)
            case CollectorLeft():
                self._log.warning("collector left", collector=format_eui64(event.collector))

    def _log_refusal(self, event: CollectorRefused) -> None:
        """One a second: anybody who reaches the port can be refused as often as he likes."""
        if self.now() < self._refusal_logged_at + 1.0:
            self._refusals_skipped += 1
            return
        self._refusal_logged_at = self.now()
        skipped, self._refusals_skipped = self._refusals_skipped, 0
        self._log.warning(
            "collector refused",
            collector=format_eui64(event.collector),
            reason=event.reason,
            not_logged_before=skipped,
        )

    def _rearm(self) -> None:
        due = None if self._is_stopping else self.center.next_timer()
        if self._timer is not None:
            if due == self._timer_due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer, due)

    def _on_timer(self, due: float) -> None:
        # uvloop rounds to milliseconds and fires early; see `amistack.links.udp`.
        self._timer = None
        self._latest = max(self._latest, due)
        self.center.handle_timer(now=self.now())
        self.settle()

    @property
    def depths(self) -> Mapping[str, tuple[int, int]]:
        """Each bounded table's name, its depth and its bound."""
        return {
            **self.center.depths,
            "reports to be stored": (self.saving.waiting_count, NODES_MAX),
            "statuses to be stored": (self.saving.changed_count, NODES_MAX),
        }

    @property
    def refused(self) -> Mapping[str, int]:
        """What was not believed, by `dcc: reason`."""
        return {f"dcc: {reason}": count for reason, count in self.center.all_refused.items()}
