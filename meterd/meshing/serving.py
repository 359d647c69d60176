"""A collector with its disk and its radio, as one datagram machine without I/O.

In      those of a datagram machine; the backhaul's by `backhaul`; `start`
Out     those of a datagram machine: frames to neighbours; events that a driver may want to tell
Raises  StoreError from `start`; later a row that cannot be kept is counted
Never   lets a frame out before what it promises is on disk
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

from amistack.errors import StoreError
from amistack.machine import Peer
from mesh.backhaul import RouteRow
from mesh.collector.collector import Collector
from mesh.collector.events import (
    BackhaulChanged,
    DropRow,
    Event,
    KeepDenied,
    KeepEpoch,
    KeepRow,
    KeepVersion,
)
from mesh.lan import Lan
from mesh.packet import NODE_ADDRESS_MAX
from mesh.security import CountersWanted
from meterd.meshing.keeper import CounterKeeper, NodeKeeper


class Serving:
    """One collector at work."""

    def __init__(
        self,
        collector: Collector,
        lan: Lan[Event],
        keeper: NodeKeeper,
        *,
        utc: Callable[[], float],
    ) -> None:
        """`lan` is the collector's; `utc` dates the rows on disk, in seconds."""
        self.collector = collector
        self.counters: Counter[str] = Counter()
        self._lan = lan
        self._keeper = keeper
        self._utc = utc
        self._reserving = CounterKeeper(collector.station.node, keeper)
        self._events: list[BackhaulChanged] = []
        self._dodag = collector.station.node.dodag
        self._dtsn = keeper.dtsn
        self._neighbours = keeper.neighbours()
        self._latest = 0.0
        self.when_turned: Callable[[], None] | None = None
        """Called when there may be something for the backhaul."""

    @property
    def epoch(self) -> int:
        """The lease that it serves under, 0 for none."""
        return self._keeper.epoch

    def counts(self) -> dict[str, int]:
        """What this, its node and its line counted since the start."""
        node, collector = self.collector.station.node, self.collector
        every = (
            self.counters,
            self._lan.counters,
            collector.counters,
            collector.line.counters,
            collector.requests.counters,
            collector.held.counters,
            collector.station.counters,
            node.counters,
            node.dodag.counters,
            {} if node.routes is None else node.routes.counters,
            node.seal.refused,
        )
        counted = sum((Counter(one) for one in every), Counter[str]())
        if self._reserving.failures:
            counted["storage failed"] += self._reserving.failures
        return dict(counted)

    # Commands from above

    def start(self, *, now: float) -> None:
        """Begin to take part, with what the disk has."""
        self._latest = now
        for node, short in self._keeper.denied():
            self.collector.keep_out(node, short, is_denied=True)
        self._reserving.start()
        self.collector.start(self._keeper.rows(self._utc()), now=now)
        for neighbour, short in self._neighbours:
            self._dodag.note_address(neighbour, short, now=now)
        self._lan.give_way(now=now)

    def backhaul_opened(self, *, now: float) -> None:
        """There is a connection to the head-end. Raises StoreError."""
        self._note(now)
        self.collector.backhaul_opened(run=self._keeper.next_run(), now=now)

    def backhaul_lost(self, *, now: float) -> None:
        """It ended."""
        self._note(now)
        self.collector.backhaul_lost(now=now)

    def backhaul_received(self, data: bytes, *, now: float) -> None:
        """The head-end said something. Never raises on bad data."""
        self._note(now)
        self.collector.receive_data(data, now=now)

    def backhaul_data(self, room: int | None = None) -> list[bytes]:
        """Octets for the head-end, in order."""
        self._take_events()
        return self.collector.data_to_send(room)

    # Inputs from below

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one frame. Never raises on bad data."""
        self._latest = now
        self._lan.receive_datagram(data, peer, now=now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        self._latest = now
        self._reserving.handle_timer(now=now)
        self._lan.handle_timer(now=now)

    # Outputs, for the driver to collect

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Frames and where they go, in order. Each is handed over once."""
        datagrams: list[tuple[Peer, bytes]] = []
        while self._take_events() or not datagrams:
            frames = self._lan.data_to_send()
            datagrams += frames
            if not frames:
                break
        if self.when_turned is not None:
            self.when_turned()
        return datagrams

    def events(self) -> list[BackhaulChanged]:
        """What happened, oldest first. Each is handed over once."""
        self._take_events()
        events, self._events = self._events, []
        return events

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        times = (self._lan.next_timer(), self._reserving.next_timer())
        return min((time for time in times if time is not None), default=None)

    # What is kept

    def _note(self, now: float) -> None:
        self._latest = max(self._latest, now)
        self._lan.give_way(now=now)

    def _take_events(self) -> bool:
        """Keep what is to be kept; whether there was anything."""
        if self._dodag.dtsn != self._dtsn:
            # Before a DIO says it: after a restart under another one everybody is asked again.
            self._try(self._keep_dtsn)
        happened = self._lan.events()
        for event in happened:
            self._try(functools.partial(self._take, event))
        if happened:
            self._try(self._keep_neighbours)
        return bool(happened)

    def _try(self, keep: Callable[[], None]) -> None:
        try:
            keep()
        except StoreError:
            self.counters["storage failed"] += 1

    def _keep_dtsn(self) -> None:
        self._keeper.keep_dtsn(self._dodag.dtsn)
        self._dtsn = self._dodag.dtsn

    def _keep_row(self, row: RouteRow) -> None:
        try:
            self._keeper.keep_row(row, self._utc())
        except StoreError:
            self.collector.table.not_kept(row.target)
            raise

    def _keep_neighbours(self) -> None:
        """What makes a restart go unnoticed by those below."""
        known = [
            (row.eui, row.short)
            for row in self._dodag.neighbours
            if 1 <= row.short <= NODE_ADDRESS_MAX
        ]
        if set(known) != set(self._neighbours):
            self._keeper.keep_neighbours(known)
            self._neighbours = known
        if self._lan.has_learned:
            self._keeper.keep_addresses(self._lan.learned)
            self._lan.has_learned = False

    def _take(self, event: Event) -> None:
        match event:
            case CountersWanted(until):
                self._reserving.want(until, now=self._latest)
            case KeepRow(row):
                self._keep_row(row)
            case DropRow(target):
                self._keeper.drop_row(target)
            case KeepVersion(version):
                self._keeper.keep_version(version)
            case KeepEpoch(epoch):
                self._keeper.keep_epoch(epoch)
            case KeepDenied(node, short, is_denied):
                self._keeper.keep_denied(node, short, is_denied=is_denied)
            case BackhaulChanged(is_up=is_up):
                self._events.append(event)
                if is_up:
                    self._keeper.keep_short(self.collector.station.node.short)
            case _:
                pass  # Of the tree below: the collector has told the head-end.
