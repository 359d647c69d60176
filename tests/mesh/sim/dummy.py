"""A node that is no router: it beacons now and then, and passes on what it hears once.

It keeps the shape of `mesh.sim.machine`, so that the simulator can be tried without the router.
"""

from __future__ import annotations

import random
import struct
from collections import deque
from dataclasses import dataclass

from amistack.identifiers import Eui64

BEACON = 0x61
PACKET = 0x62
HEAD = struct.Struct("!B8sI")
SEEN_MAX = 256


@dataclass(frozen=True, slots=True)
class DummyFrame:
    destination: Eui64 | None
    octets: bytes
    priority: int
    wants_ack: bool = False


@dataclass(frozen=True, slots=True)
class DummyHeard:
    """A beacon of `source`, the how many-eth of its."""

    source: bytes
    number: int


@dataclass(frozen=True, slots=True)
class DummyReceived:
    """A packet that was flooded here."""

    source: bytes
    payload: bytes


class DummyNode:
    def __init__(
        self,
        address: Eui64,
        *,
        interval: float | None,
        chance: random.Random,
        now: float,
        size: int = 100,
        reports_beacons: bool = False,
    ) -> None:
        self.address = address
        self.heard = 0
        self.sent = 0
        self.given_up = 0
        self._interval = interval
        self._chance = chance
        self._size = size
        self._reports_beacons = reports_beacons
        self._next = None if interval is None else now + chance.random() * interval
        self._queue: deque[DummyFrame] = deque()
        self._events: list[object] = []
        self._seen: deque[bytes] = deque(maxlen=SEEN_MAX)
        self._number = 0

    def first_number(self, number: int) -> None:
        """Where its packets' numbers begin: another life has others."""
        self._number = number

    def send(self, payload: bytes) -> None:
        self._number += 1
        octets = HEAD.pack(PACKET, self.address, self._number) + payload
        self._seen.append(octets[: HEAD.size])
        self._queue.append(DummyFrame(None, octets, 4))

    def send_to(self, destination: Eui64 | None, size: int) -> None:
        """A frame that nobody passes on."""
        self._number += 1
        octets = HEAD.pack(BEACON, self.address, self._number)
        self._queue.append(DummyFrame(destination, octets.ljust(size, b"."), 4))

    def receive_frame(self, octets: bytes, *, now: float, rssi_dbm: float | None = None) -> None:
        self.heard += 1
        if len(octets) < HEAD.size:
            return
        kind, source, number = HEAD.unpack_from(octets)
        if kind == BEACON:
            if self._reports_beacons:
                self._events.append(DummyHeard(source, number))
            return
        if octets[: HEAD.size] not in self._seen:
            self._seen.append(octets[: HEAD.size])
            self._events.append(DummyReceived(source, octets[HEAD.size :]))
            self._queue.append(DummyFrame(None, octets, 4))

    def handle_timer(self, *, now: float) -> None:
        if self._next is not None and self._interval is not None and now >= self._next:
            self._next += self._interval
            self._number += 1
            octets = HEAD.pack(BEACON, self.address, self._number)
            self._queue.append(DummyFrame(None, octets.ljust(self._size, b"."), 0))

    def frame_to_send(self, *, now: float) -> DummyFrame | None:
        return self._queue.popleft() if self._queue else None

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        if was_on_air:
            self.sent += 1
        else:
            self.given_up += 1

    def events(self) -> list[object]:
        taken, self._events = self._events, []
        return taken

    def next_timer(self) -> float | None:
        return self._next
