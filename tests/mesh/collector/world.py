"""The medium of the routing's tests with a collector at its root, and a head-end by the book."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from amistack.framing import (
    TCP,
    Closed,
    Ending,
    Frame,
    FramedPeer,
    FrameReceived,
    Kind,
    Opened,
    Priority,
)
from amistack.identifiers import Eui64
from mesh.backhaul import (
    Fate,
    Hello,
    Message,
    RouteGone,
    RouteRow,
    Status,
    TableBegin,
    TableEnd,
    Welcome,
    What,
    decode,
    encode,
)
from mesh.collector.collector import Collector
from mesh.collector.events import DropRow, KeepDenied, KeepEpoch, KeepRow, KeepVersion
from mesh.routing.node import MeshNode
from mesh.station.station import Station
from tests.mesh.station.world import StationWorld

HEAD_END = Eui64(bytes.fromhex("70b3d5fffeffffff"))
AREA = 7
LATENCY = 0.02
MessageT = TypeVar("MessageT")


class HeadEnd:
    """One connection's other end. Accepts whoever says hello, unless told otherwise."""

    def __init__(self, now: float, status: Status = Status.ACCEPTED, epoch: int = 1) -> None:
        self.peer = FramedPeer(HEAD_END, TCP, now=now, run=1)
        self.status = status
        self.epoch = epoch
        self.ending: Ending | None = None
        self.heard: list[tuple[Priority, Message]] = []

    def receive(self, data: bytes, now: float) -> None:
        self.peer.receive_data(data, now=now)
        for event in self.peer.events():
            if isinstance(event, FrameReceived):
                message = decode(event.frame.payload)
                self.heard.append((event.frame.priority, message))
                if isinstance(message, Hello):
                    self.say(Welcome(self.status, self.epoch), now)
            elif isinstance(event, Closed):
                self.ending = event.ending
            else:
                assert isinstance(event, Opened), event

    def say(self, message: Message | bytes, now: float) -> None:
        octets = message if isinstance(message, bytes) else encode(message)
        self.peer.send(Frame(Kind.BACKHAUL, Priority.ON_DEMAND, HEAD_END, octets), now=now)

    def of(self, made: type[MessageT]) -> list[MessageT]:
        return [message for _, message in self.heard if isinstance(message, made)]

    def table(self) -> dict[int, RouteRow]:
        """What a head-end has after all that it heard."""
        rows: dict[int, RouteRow] = {}
        since: set[int] | None = None
        for _, message in self.heard:
            match message:
                case TableBegin():
                    since = set()
                case RouteRow(target=target):
                    rows[target] = message
                    if since is not None:
                        since.add(target)
                case RouteGone(target=target):
                    rows.pop(target, None)
                case TableEnd():
                    assert since is not None
                    rows = {target: row for target, row in rows.items() if target in since}
                    since = None
                case _:
                    pass
        return rows


class Disk:
    """What the collector asked to have kept; rows with the time at which they end."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[RouteRow, float]] = {}
        self.version = 240
        self.epoch = 0
        self.denied: dict[Eui64, int] = {}

    def take(self, event: object, now: float) -> None:
        match event:
            case KeepRow(row):
                self.rows[row.target] = (row, now + row.lifetime)
            case DropRow(target):
                del self.rows[target]
            case KeepVersion(version):
                self.version = version
            case KeepEpoch(epoch):
                self.epoch = epoch
            case KeepDenied(node, short, is_denied):
                if is_denied:
                    self.denied[node] = short
                else:
                    self.denied.pop(node, None)
            case _:
                pass

    def left(self, now: float) -> Iterable[RouteRow]:
        for row, ends_at in self.rows.values():
            if ends_at > now:
                yield RouteRow(row.target, row.parents, row.path_sequence, int(ends_at - now))


class DrivenCollector(Collector):
    """A collector that also answers for its node, and starts with what its disk has."""

    disk: Disk

    def start(self, rows: Iterable[RouteRow] = (), *, now: float) -> None:
        for node, short in self.disk.denied.items():
            self.keep_out(node, short, is_denied=True)
        super().start(self.disk.left(now), now=now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.station.node, name)


class CollectorWorld(StationWorld):
    """Stations, with a collector at each root, its disk, and its connection."""

    def __init__(self, seed: int, **more: Any) -> None:
        super().__init__(seed, **more)
        self.disks: dict[int, Disk] = {}
        self.head_ends: dict[int, HeadEnd] = {}
        self.is_piped = True
        self._pumping = False

    def start(self, *shorts: int, **more: object) -> None:
        for short in shorts or sorted(self.hearers):
            if short in self.roots:
                disk = self.disks.setdefault(short, Disk())
                super().start(short, version=disk.version, **more)
            else:
                super().start(short, **more)

    def wrap(self, node: MeshNode) -> Any:
        if node.routes is None:
            return super().wrap(node)
        disk = self.disks[node.short]
        collector = DrivenCollector(
            Station(node, random.Random(self._dice.random()), fragments=self.fragments),
            AREA,
            epoch=disk.epoch,
            hop_limit=self.profile.links.hop_limit,
        )
        collector.disk = disk
        return collector

    def collector(self, short: int = 1) -> Collector:
        collector = self.nodes[short]
        assert isinstance(collector, Collector)
        return collector

    def connect(self, short: int = 1, **more: Any) -> HeadEnd:
        head_end = self.head_ends[short] = HeadEnd(self.now, **more)
        self.collector(short).backhaul_opened(run=self._dice.randrange(1, 2**32), now=self.now)
        self.touch(short)
        self._live(short, head_end)
        return head_end

    def _live(self, short: int, head_end: HeadEnd) -> None:
        """Its keep-alives, as long as it is there."""
        if self.head_ends.get(short) is head_end:
            head_end.peer.handle_timer(now=self.now)
            self.pump(short)
            self.at(self.now + 10.0, lambda: self._live(short, head_end))

    def disconnect(self, short: int = 1) -> None:
        del self.head_ends[short]
        self.collector(short).backhaul_lost(now=self.now)
        self.touch(short)

    def say(self, message: Message | bytes, short: int = 1) -> None:
        self.head_ends[short].say(message, self.now)
        self.pump(short)

    def kill(self, *shorts: int) -> None:
        for short in shorts:
            self.head_ends.pop(short, None)
        super().kill(*shorts)

    def touch(self, short: int) -> None:
        super().touch(short)
        if short in self.head_ends and short in self.nodes:
            self.pump(short)

    def pump(self, short: int) -> None:
        """Carry octets both ways until none are left; a latency later, so that order is real."""
        if not self.is_piped:
            return
        head_end = self.head_ends[short]

        def arrive(act: Callable[[bytes, float], None], data: bytes) -> None:
            self.at(self.now + LATENCY, lambda: self._arrive(short, head_end, act, data))

        collector = self.collector(short)
        for data in collector.data_to_send():
            arrive(head_end.receive, data)
        for data in head_end.peer.data_to_send():
            arrive(lambda octets, now: collector.receive_data(octets, now=now), data)

    def _arrive(
        self, short: int, head_end: HeadEnd, act: Callable[[bytes, float], None], data: bytes
    ) -> None:
        if self.head_ends.get(short) is head_end and short in self.nodes:
            act(data, self.now)
            self.touch(short)

    def _collect(self, short: int) -> None:
        before = len(self.happened)
        super()._collect(short)
        if short in self.disks:
            for _, _, event in self.happened[before:]:
                self.disks[short].take(event, self.now)


def formed(count: int = 5, seed: int = 1, **more: object) -> CollectorWorld:
    world = CollectorWorld(seed, **more)
    world.line(count)
    world.start()
    world.run(900.0, until=lambda: not world.orphans() and not world.unrouted())
    assert not world.unrouted()
    return world


def connected(count: int = 5, seed: int = 1) -> tuple[CollectorWorld, HeadEnd]:
    world = formed(count, seed)
    head_end = world.connect()
    world.run(1.0)
    return world, head_end


def fates(head_end: HeadEnd, request: int) -> list[What]:
    return [fate.what for fate in head_end.of(Fate) if fate.request == request]
