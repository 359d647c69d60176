"""A meter's conversation over its node of the mesh, as one datagram machine without I/O.

In      those of a datagram machine; `start`
Out     those of a datagram machine: frames to neighbours; the agent's events, and the node's of
        its place in the tree
Raises  StoreError from `start`; what cannot be kept later is told by the agent's own storage
Limit   the node's queues: a datagram without room is dropped and counted, as on any network
Never   shows the agent anything but whole datagrams, nor the mesh what is in them
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from amistack.coap.codes import Type
from amistack.errors import LocalProtocolError, StoreError, TableFull
from amistack.framing import Priority
from amistack.machine import Peer
from mesh.lan import Lan
from mesh.packet import PacketKind
from mesh.reports import HOPS_UNKNOWN
from mesh.routing.events import PacketReceived, ParentChanged, RouteConfirmed
from mesh.security import CountersWanted
from mesh.station.events import Event as StationEvent
from mesh.station.station import Station
from meterd.agent import Agent, Stage
from meterd.happenings import MeterEvent, PlaceChanged
from meterd.meshing.keeper import CounterKeeper, NodeKeeper
from meterd.meshing.repeats import Repeats
from meterd.meshing.status import MeshStatus, mesh_status

HEAD_END: Final[Peer] = "over the mesh"
"""The agent's one peer: wherever the packet goes, it is for the head-end."""


class OverMesh:
    """One meter and its node."""

    def __init__(
        self, agent: Agent, station: Station, lan: Lan[StationEvent], keeper: NodeKeeper
    ) -> None:
        """The agent's head-end is at HEAD_END."""
        self.counters: Counter[str] = Counter()
        self._agent = agent
        self._station = station
        self._lan = lan
        self._keeper = keeper
        self._counters = CounterKeeper(station.node, keeper)
        self._repeats = Repeats()
        self._events: list[MeterEvent] = []
        self._latest = 0.0

    def counts(self) -> dict[str, int]:
        """What this, its link and its node counted since the start, by `mesh: reason`."""
        node = self._station.node
        every = (
            self.counters,
            self._lan.counters,
            self._station.counters,
            node.counters,
            node.dodag.counters,
            node.seal.refused,
        )
        counted = sum((Counter(one) for one in every), Counter[str]())
        if self._counters.failures:
            counted["storage failed"] += self._counters.failures
        return {f"mesh: {reason}": count for reason, count in counted.items()}

    def place(self) -> MeshStatus:
        """Where its node stands."""
        return mesh_status(self._station)

    # Commands from above

    def start(self, *, now: float) -> None:
        """Begin to take part, before the agent does. Raises StoreError."""
        self._latest = now
        self._counters.start()
        self._station.start(now=now)

    # Inputs from below

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one frame. Never raises on bad data."""
        self._latest = now
        self._lan.receive_datagram(data, peer, now=now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        self._latest = now
        self._counters.handle_timer(now=now)
        self._lan.handle_timer(now=now)
        self._agent.handle_timer(now=now)

    # Outputs, for the driver to collect

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Frames and where they go, in order. Each is handed over once."""
        datagrams: list[tuple[Peer, bytes]] = []
        while True:
            self._pass_down()
            frames = self._lan.data_to_send()
            datagrams += frames
            if not self._pass_up() and not frames:
                return datagrams

    def events(self) -> list[MeterEvent]:
        """What happened, oldest first. Each is handed over once."""
        events, self._events = self._events, []
        return [*events, *self._agent.events()]

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        times = (
            self._lan.next_timer(),
            self._agent.next_timer(),
            self._counters.next_timer(),
        )
        return min((time for time in times if time is not None), default=None)

    # Between the two

    def _pass_down(self) -> None:
        for _, datagram in self._agent.data_to_send():
            try:
                self._station.send(
                    datagram,
                    priority=self._priority(datagram),
                    attempt=self._repeats.note(datagram, now=self._latest),
                    now=self._latest,
                )
            except TableFull:
                self.counters["datagrams dropped, no room"] += 1
            except LocalProtocolError:
                self.counters["datagrams dropped, too long"] += 1
        self._lan.give_way(now=self._latest)

    def _pass_up(self) -> bool:
        """Carry what the node heard to the agent; whether there was anything."""
        happened = self._lan.events()
        for event in happened:
            match event:
                case PacketReceived(kind=PacketKind.COAP, payload=payload):
                    self._agent.receive_datagram(payload, HEAD_END, now=self._latest)
                case CountersWanted(until):
                    self._counters.want(until, now=self._latest)
                case RouteConfirmed(path_sequence):
                    self._keep(path_sequence)
                case ParentChanged(short=short, rank=rank):
                    self._events.append(PlaceChanged(short, rank))
                case _:
                    pass
        if happened:
            hops = self._station.hops
            self._agent.hop_count = None if hops == HOPS_UNKNOWN else hops
        return bool(happened)

    def _keep(self, path_sequence: int) -> None:
        """The root knows us: a good moment to keep what a restart would have to find out."""
        try:
            self._keeper.keep_path_sequence(path_sequence)
            self._keeper.keep_short(self._station.node.short)
            self._keeper.keep_report_sequence(self._station.report_sequence)
            if self._lan.has_learned:
                self._keeper.keep_addresses(self._lan.learned)
                self._lan.has_learned = False
        except StoreError:
            # Only what a restart finds out by itself.
            self.counters["storage failed"] += 1

    def _priority(self, datagram: bytes) -> Priority:
        """An answer goes as urgently as its question came; a handshake gives way to all else."""
        if len(datagram) > 1 and (datagram[0] >> 4 & 3 >= Type.ACK or datagram[1] >= 0x40):
            return Priority.ON_DEMAND
        if self._agent.stage is Stage.SECURING:
            return Priority.JOINING
        return Priority(self._agent.urgency)
