"""Real meters and collectors whose node speaks over a simulated radio instead of a socket.

The radio's driver (`mesh.sim.stations`) pulls frames when the air is free, tells what was heard and
wakes the whole program by its own clock, which may drift; the program sees the link that it always
has.

Gives   `OnAir`, a program as the radio drives it; `AirMeter` and `AirCollector`, which are the real
        ones with an aerial; `AirHost`, what they take from their machine
Never   changes what a program decides: frames alone take another way
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from amistack.links import UdpLink
from amistack.links.host import Host
from amistack.machine import DatagramMachine, Peer
from mesh.collector.collector import Collector
from mesh.collector.events import Event as CollectorEvent
from mesh.lan import Lan, Radio
from mesh.routing.events import Outgoing
from mesh.security import Seal
from mesh.sim.stations import Stations
from meterd.daemon import Meter
from meterd.meshing.collector import CollectorDaemon
from meterd.meshing.keeper import NodeKeeper
from meterd.meshing.making import RadioTraits, make_station
from meterd.meshing.over_mesh import OverMesh
from meterd.meshing.settings import MeshSettings

EventT = TypeVar("EventT")

ANTENNA: Final = ("air", 0)
"""In place of a socket's address."""


class Node(Protocol):
    """What `Station` and `Collector` are to a radio that has a turn to wait for."""

    def frame_to_send(self, *, now: float) -> Outgoing | None:
        """What to send next."""

    def ack_to_send(self, *, now: float) -> Outgoing | None:
        """An acknowledgement that need not wait."""

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        """The frame handed out last is gone."""

    def events(self) -> Sequence[object]:
        """What happened."""

    def next_timer(self) -> float | None:
        """When to call `handle_timer`."""


class Aerial(Lan[EventT]):
    """A node's radio, of which the air takes the frames itself."""

    def __init__(self, node: Radio[EventT], seal: Seal) -> None:
        super().__init__(node, seal, ())
        self._heard: list[EventT] = []
        self._told: list[EventT] = []

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one frame; the peer is its strength in dBm."""
        self.give_way(now=now)
        assert peer is None or isinstance(peer, float), "the air says how strong a frame came"
        self._node.receive_frame(data, now=now, rssi_dbm=peer)

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """None: the air pulls them."""
        return []

    def events(self) -> list[EventT]:
        """What happened, for the program; the world hears of it by `told`."""
        self.listen()
        heard, self._heard = self._heard, []
        return heard

    def listen(self) -> bool:
        """Keep for the program what its node has to say; whether it had anything."""
        events = self._node.events()
        self._heard += events
        self._told += events
        return bool(self._heard)

    def told(self) -> list[EventT]:
        """What was told since it was asked last."""
        told, self._told = self._told, []
        return told

    def next_timer(self) -> float | None:
        """None: the air asks the node itself."""
        return None


class OnAir:
    """A program, as the driver of radios sees it: `mesh.sim.machine.NodeMachine`."""

    def __init__(self, number: int, stations: Stations, *, has_backhaul: bool) -> None:
        """With a backhaul there may be something for it that is no event of the node."""
        self.node: Node | None = None
        self.aerial: Aerial[Any] | None = None
        self.machine: DatagramMachine[Any] | None = None
        self._number = number
        self._has_backhaul = has_backhaul
        self._stations = stations
        self._link: AirLink[Any] | None = None
        self._is_turn = False
        self._is_settling = False
        self._program_due: float | None = None

    # What the program asks for

    async def open_link(
        self,
        machine: DatagramMachine[EventT],
        on_event: Callable[[EventT], None],
        *,
        host: str,  # noqa: ARG002  an aerial has no address
        port: int,  # noqa: ARG002  as above
    ) -> UdpLink[EventT]:
        """A link for the program's machine, in the place of `open_udp`."""
        self.machine = machine
        self._link = link = AirLink(machine, on_event, self)
        link.connection_made(_Antenna())
        return link

    def now(self) -> float:
        """The time by the node's own clock."""
        return self._stations.own_time(self._number)

    def settled(self) -> None:
        """The program did something: what it wants next, and what is for the air."""
        assert self.machine is not None, "there is a link"
        self._program_due = self.machine.next_timer()
        if not self._is_settling and self._stations.machine(self._number) is self:
            self._stations.touch(self._number)

    # What the driver of radios does

    def receive_frame(self, octets: bytes, *, now: float, rssi_dbm: float | None = None) -> None:
        """Take a frame that the radio heard. Never raises on bad data."""
        assert self.machine is not None, "it was started"
        self.machine.receive_datagram(octets, rssi_dbm, now=now)
        self._is_turn = self._is_turn or self._has_backhaul

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due."""
        assert self.machine is not None, "it was started"
        assert self.aerial is not None, "it was started"
        due = self._program_due
        if not self._has_backhaul and (due is None or now < due):
            # Most timers are the node's alone: the program need not look at all of its own.
            self.aerial.handle_timer(now=now)
            if not self.aerial.listen():
                return
        self.machine.handle_timer(now=now)
        self._is_turn = True

    def frame_to_send(self, *, now: float) -> Outgoing | None:
        """What the radio shall send next."""
        assert self.node is not None, "it was started"
        return self.node.frame_to_send(now=now)

    def ack_to_send(self, *, now: float) -> Outgoing | None:
        """A link acknowledgement, though another frame is handed out."""
        assert self.node is not None, "it was started"
        return self.node.ack_to_send(now=now)

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        """The frame handed out last has left the antenna, or was given up."""
        assert self.node is not None, "it was started"
        self.node.frame_sent(now=now, was_on_air=was_on_air)
        self._is_turn = self._is_turn or self._has_backhaul

    def events(self) -> Sequence[object]:
        """What happened: the program has heard of it when this returns."""
        assert self.aerial is not None, "it was started"
        if (self.aerial.listen() or self._is_turn) and self._link is not None:
            self._is_turn = False
            before, self._is_settling = self._is_settling, True
            try:
                self._link.settle()
            finally:
                self._is_settling = before
        return self.aerial.told()

    def next_timer(self) -> float | None:
        """When to call `handle_timer`: the node's, or the program's."""
        assert self.node is not None, "it was started"
        node, program = self.node.next_timer(), self._program_due
        if node is None or program is None:
            return program if node is None else node
        return min(node, program)


class AirLink(UdpLink[EventT]):
    """The link of a program on the air: its time and its timer are the node's own."""

    def __init__(
        self, machine: DatagramMachine[EventT], on_event: Callable[[EventT], None], on_air: OnAir
    ) -> None:
        super().__init__(machine, on_event)
        self._on_air = on_air

    def now(self) -> float:
        """The machine's time (s)."""
        return self._on_air.now()

    def _rearm(self) -> None:
        if self._transport is not None:
            self._on_air.settled()


class _Antenna(asyncio.DatagramTransport):
    """Where a socket would be."""

    def sendto(self, data: Any, addr: Any = None) -> None:  # noqa: ARG002  as asyncio has it
        raise AssertionError("frames are pulled, not sent")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ANTENNA if name == "sockname" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer: the air takes a frame at a time."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class AirHost(Host):
    """What a program on the air takes from its machine."""

    on_air: OnAir = field(kw_only=True)
    radio: RadioTraits = field(kw_only=True)


def _air_of(host: Host) -> AirHost:
    assert isinstance(host, AirHost), "whoever is on the air has such a host"
    return host


class AirMeter(Meter):
    """The real meter, with an aerial."""

    def join_mesh(self, mesh: MeshSettings, neighbours: Sequence[Peer]) -> None:
        """Speak over a node of the mesh, whose neighbours are whoever hears it. Before `start`."""
        del neighbours
        host = _air_of(self._host)
        keeper = NodeKeeper(self._storage)
        station = make_station(self.agent.meter, mesh, keeper, dice=host.dice, radio=host.radio)
        aerial = Aerial(station, station.node.seal)
        host.on_air.node, host.on_air.aerial = station, aerial
        self._machine = self._over_mesh = OverMesh(self.agent, station, aerial, keeper)

    def settle(self) -> None:
        """Carry out what the agent was told from outside."""
        assert self._link is not None, "start() comes first"
        self._link.settle()


class AirCollector(CollectorDaemon):
    """The real collector, with an aerial."""

    @classmethod
    def radio_of(cls, host: Host) -> RadioTraits:
        """Of the air that it is on."""
        return _air_of(host).radio

    @classmethod
    def make_lan(
        cls,
        collector: Collector,
        neighbours: Sequence[Peer],
        keeper: NodeKeeper,
        host: Host,
    ) -> Lan[CollectorEvent]:
        """The aerial."""
        del neighbours, keeper
        aerial = Aerial(collector, collector.station.node.seal)
        on_air = _air_of(host).on_air
        on_air.node, on_air.aerial = collector, aerial
        return aerial
