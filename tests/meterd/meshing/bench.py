"""A small mesh on virtual time: a root with a head-end, a relay, and a meter with a disk."""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass, field
from typing import Final

from amistack.errors import LocalProtocolError, TableFull
from amistack.framing import Priority
from amistack.identifiers import Eui64
from amistack.machine import Peer
from mesh.lan import Lan
from mesh.packet import PacketKind
from mesh.routing.events import PacketReceived
from mesh.routing.node import MeshNode, Role
from mesh.routing.profile import load_profile
from mesh.security import CountersWanted, Seal
from mesh.security.frame import read_header
from mesh.station.events import Event
from mesh.station.station import Station
from meterd.agent import Agent, Schedule
from meterd.clock import MeterClock
from meterd.happenings import MeterEvent
from meterd.meshing.keeper import NodeKeeper
from meterd.meshing.over_mesh import HEAD_END, OverMesh
from meterd.recorder import Recorder
from meterd.storage import Storage
from tests.meterd.bench import EPOCH, METER, constant, meter_key
from tests.support.head_end import HeadEnd, head_end_key
from tests.support.power import TornFiles
from tests.support.worlds import Host, LinkQuality, World

KEY: Final = bytes(range(16))
DODAG_ID: Final = bytes.fromhex("fd000000000000000000000000000001")
LAN: Final = LinkQuality(delay_min=0.001, delay_max=0.004)
ROOT_EUI: Final = Eui64(bytes.fromhex("02000000000000c1"))
RELAY_EUI: Final = Eui64(bytes.fromhex("02000000000000b2"))
STRANGER_EUI: Final = Eui64(bytes.fromhex("02000000000000d3"))
METER_SHORT: Final = 3
STRANGER_SHORT: Final = 9


def station_of(
    own: Eui64, short: int, dice: random.Random, *, counter: int = 0, dtsn: int | None = None
) -> Station:
    """A station with nothing kept; a root if its short address is 1, or a stranger's."""
    dodag_id = {1: DODAG_ID, STRANGER_SHORT: bytes(16)}.get(short)
    node = MeshNode(
        own,
        short,
        Seal(own, {0: KEY}, active=0, stored_counter=counter),
        load_profile("lab"),
        dice,
        role=Role.METER if dodag_id is None else Role.COLLECTOR,
        dodag_id=dodag_id,
        dtsn=dtsn,
    )
    return Station(node, dice)


class Simple:
    """A node that keeps nothing; with a head-end, the root that hands over what comes up."""

    def __init__(
        self, own: Eui64, short: int, neighbours: tuple[Peer, ...], head_end: HeadEnd | None = None
    ) -> None:
        self.station = station_of(own, short, random.Random(short))
        self.lan: Lan[Event] = Lan(self.station, self.station.node.seal, neighbours)
        self.head_end = head_end
        self.now = 0.0

    def start(self, now: float) -> None:
        self._carry()
        self.station.start(now=now)
        self.lan.give_way(now=now)

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        self.now = now
        self.lan.receive_datagram(data, peer, now=now)

    def handle_timer(self, *, now: float) -> None:
        self.now = now
        self.lan.handle_timer(now=now)
        if self.head_end is not None:
            self.head_end.handle_timer(now=now)

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        datagrams = []
        while True:
            self._carry()
            frames = self.lan.data_to_send()
            datagrams += frames
            if not frames:
                return datagrams

    def events(self) -> list[object]:
        return []

    def next_timer(self) -> float | None:
        times = [self.lan.next_timer()]
        if self.head_end is not None:
            times.append(self.head_end.next_timer())
        return min((time for time in times if time is not None), default=None)

    def _carry(self) -> None:
        for event in self.lan.events():
            if isinstance(event, CountersWanted):
                self.station.node.counters_reserved(event.until)
            elif (
                isinstance(event, PacketReceived)
                and event.kind == PacketKind.COAP
                and self.head_end is not None
            ):
                self.head_end.receive_datagram(event.payload, event.source, now=self.now)
        if self.head_end is None:
            return
        self.head_end.events()
        for peer, datagram in self.head_end.data_to_send():
            assert isinstance(peer, int)
            try:
                self.station.send(
                    datagram, destination=peer, priority=Priority.ON_DEMAND, now=self.now
                )
            except (TableFull, LocalProtocolError):
                continue
        self.lan.give_way(now=self.now)


def stranger_beside(*neighbours: Peer) -> Simple:
    """A root of another DODAG, with the same network key."""
    return Simple(STRANGER_EUI, STRANGER_SHORT, neighbours)


@dataclass
class MeshBench:
    """Root, relay and meter in a line; the meter's power can be cut."""

    seed: int = 0
    quality: LinkQuality = LAN
    world: World = field(init=False)
    files: TornFiles = field(init=False)
    head_end: HeadEnd = field(init=False)
    root: Simple = field(init=False)
    relay: Simple = field(init=False)
    agent: Agent = field(init=False)
    meter: OverMesh = field(init=False)
    station: Station = field(init=False)
    host: Host[MeterEvent] = field(init=False)
    log: list[tuple[float, MeterEvent]] = field(default_factory=list)
    life: int = 0

    def __post_init__(self) -> None:
        self.files = TornFiles(random.Random(f"files {self.seed}"))
        self.world = World(self.seed, self.quality)
        self.head_end = HeadEnd(
            head_end_key(1), {METER: meter_key().credential}, self.utc, seed=self.seed
        )
        self.root = Simple(ROOT_EUI, 1, (), self.head_end)
        self.relay = Simple(RELAY_EUI, 2, ("root",))
        for name, node in (("root", self.root), ("relay", self.relay)):
            node.start(0.0)
            self.world.add(name, node)

    def utc(self, now: float) -> float:
        return EPOCH + now

    def power_on(self) -> None:
        self.life += 1
        dice = random.Random(f"meter {self.seed} {self.life}")
        now = self.world.now
        storage = Storage.on(self.files)
        self.agent = Agent(
            meter=METER,
            key=meter_key(),
            head_end=self.head_end.key.credential,
            head_end_peer=HEAD_END,
            storage=storage,
            recorder=Recorder(storage, constant(), offset_min=0),
            clock=MeterClock(utc=self.utc(now), now=now),
            schedule=Schedule(300.0, 0.0, 1.0),
            offset_min=0,
            entropy=dice.randbytes,
            dice=dice,
        )
        keeper = NodeKeeper(storage)
        self.station = station_of(METER, METER_SHORT, dice, counter=keeper.counter)
        lan: Lan[Event] = Lan(self.station, self.station.node.seal, ("relay",))
        self.meter = OverMesh(self.agent, self.station, lan, keeper)
        self.meter.start(now=now)
        self.agent.start(now=now)
        self.host = self.world.add("meter", self.meter)
        self.log += self.host.log
        self.host.log = self.log

    def power_off(self) -> None:
        self.world.remove("meter")
        self.files.crash()

    def fill_disk(self) -> None:
        self.files.fails_with = errno.ENOSPC

    def mend_disk(self) -> None:
        self.files.fails_with = None

    def events(self, kind: type[object]) -> list[object]:
        return [event for _, event in self.log if isinstance(event, kind)]

    def frames_of_the_meter(self) -> dict[int, set[bytes]]:
        """Every frame that the meter sealed, through all its lives, by its counter."""
        found: dict[int, set[bytes]] = {}
        for passage in self.world.datagrams():
            if passage.sender == "meter" and len(passage.datagram) > 11:
                header = read_header(passage.datagram)
                found.setdefault(header[4], set()).add(passage.datagram)
        return found
