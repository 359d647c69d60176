"""A line of nodes that pass fragments on, over links that lose, double and reorder."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field, replace

from amistack.errors import MeshError
from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.fragments import (
    Event,
    Fragments,
    FragmentSettings,
    Onward,
    PacketAbandoned,
    PacketDelivered,
    PacketLost,
    PacketPutTogether,
)
from mesh.packet import ROOT, Attempt, Packet, PacketKind, RplMark, ShortAddress

SETTINGS = FragmentSettings.for_radio(127, overhead=2)


def eui(number: int) -> Eui64:
    return Eui64(b"node" + number.to_bytes(4))


def packet_of(payload: bytes, *, source: int = 1, hop_limit: int = 40) -> bytes:
    """An upward packet as a meter makes it."""
    return Packet(
        PacketKind.COAP,
        Priority.SCHEDULED,
        ShortAddress(source),
        ROOT,
        payload,
        hop_limit,
        rpl=RplMark(512),
        attempt=Attempt(3),
    ).encode()


@dataclass
class UpTheLine:
    """Everything goes to the next lower number; node 0 is where it ends."""

    number: int
    refusals: Counter[str] = field(default_factory=Counter)
    is_closed: bool = False

    def route_first(self, head: bytes, previous: Eui64, *, now: float) -> Onward | None:
        packet = Packet.decode(head)
        if self.is_closed:
            raise MeshError("no route", "closed")
        if self.number == 0:
            return None
        if packet.hop_limit <= 1:
            raise MeshError("hop limit", "reached")
        onward = replace(packet, hop_limit=packet.hop_limit - 1, rpl=RplMark(256 * self.number))
        return Onward(eui(self.number - 1), onward.encode())


@dataclass
class Weather:
    """What links do to a frame: chances, and up to so many seconds on the way."""

    loss: float = 0.0
    doubling: float = 0.0
    delay: float = 0.02
    jitter: float = 0.0


class Line:
    """Nodes 0 to `count - 1`, and the account of every frame's payload between them."""

    def __init__(
        self,
        count: int,
        *,
        seed: int,
        weather: Weather | None = None,
        settings: FragmentSettings = SETTINGS,
    ) -> None:
        self.dice = random.Random(seed)
        self.weather = Weather() if weather is None else weather
        self.routers = [UpTheLine(number) for number in range(count)]
        self.nodes = [
            Fragments(settings, router, random.Random(seed + router.number))
            for router in self.routers
        ]
        self.now = 0.0
        self.events: list[list[Event]] = [[] for _ in range(count)]
        self.sent_count = [0] * count
        self.arrived_count = [0] * count
        self.is_congested_at: set[int] = set()
        self._flight: list[tuple[float, int, int, int, bytes]] = []
        self._order = 0

    def send(self, source: int, packet: bytes) -> int:
        number = self.nodes[source].send(packet, eui(source - 1), now=self.now)
        self.settle(source)
        return number

    def settle(self, number: int) -> None:
        node = self.nodes[number]
        self.events[number] += node.events()
        for frame in node.frames_to_send():
            self.sent_count[number] += 1
            to = int.from_bytes(frame.neighbour[4:])
            copies = (self.dice.random() >= self.weather.loss) + (
                self.dice.random() < self.weather.doubling
            )
            for _ in range(copies):
                self._order += 1
                at = self.now + self.weather.delay + self.dice.random() * self.weather.jitter
                heapq.heappush(self._flight, (at, self._order, number, to, frame.octets))

    def run(self, until: float) -> None:
        """Let things happen until then, or until nothing more can."""
        for _ in range(200_000):
            timers = [
                (due, number)
                for number, node in enumerate(self.nodes)
                if (due := node.next_timer()) is not None
            ]
            due, number = min(timers, default=(float("inf"), -1))
            if min(due, self._flight[0][0] if self._flight else float("inf")) > until:
                self.now = until
                return
            if self._flight and self._flight[0][0] <= due:
                at, _, source, number, octets = heapq.heappop(self._flight)
                self.now = max(self.now, at)
                self.arrived_count[number] += 1
                is_congested = number in self.is_congested_at
                try:
                    self.nodes[number].receive(
                        octets, eui(source), now=self.now, is_congested=is_congested
                    )
                except MeshError as error:
                    self.routers[number].refusals[error.reason] += 1
            else:
                self.now = max(self.now, due)
                self.nodes[number].handle_timer(now=self.now)
            self.settle(number)
        raise AssertionError("the line never comes to rest")

    def check_accounts(self) -> None:
        """Of everything that arrived, one fate is known."""
        for number, node in enumerate(self.nodes):
            assert node.received_count == self.arrived_count[number]
            assert sum(node.fates.values()) == node.received_count
            for reason, count in self.routers[number].refusals.items():
                assert node.fates[reason] == count

    def check_nothing_is_left(self) -> None:
        for node in self.nodes:
            assert node.next_timer() is None

    def put_together(self, number: int = 0) -> list[bytes]:
        return [e.octets for e in self.events[number] if isinstance(e, PacketPutTogether)]

    def delivered(self, number: int) -> list[int]:
        return [e.number for e in self.events[number] if isinstance(e, PacketDelivered)]

    def lost(self, number: int) -> list[PacketLost]:
        return [e for e in self.events[number] if isinstance(e, PacketLost)]

    def abandoned(self, number: int) -> list[str]:
        return [e.reason for e in self.events[number] if isinstance(e, PacketAbandoned)]
