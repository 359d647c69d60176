"""Packets longer than a frame, at one node: what `mesh.fragments` does for `mesh.routing`.

Spec    RFC 8931; docs/protocol/mesh.md, "Fragments"
In      `begin` and `receive` from the node, `handle_timer`
Out     fragments into the node's queues; `arrived`, packets that are whole at their destination;
        `deadline`
Raises  nothing: what is refused is counted by reason
Limit   those of `FragmentSettings`; AT_ONCE packets of our own, WAITING_COUNT_MAX more
Never   lets an unproven neighbour end a packet, or steer it
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

from amistack.errors import LocalProtocolError, MeshError, TableFull
from amistack.identifiers import Eui64
from mesh.fragments import (
    Fragment,
    FragmentFrame,
    Fragments,
    FragmentSettings,
    PacketAbandoned,
    PacketDelivered,
    PacketLost,
    PacketPutTogether,
    is_control,
)
from mesh.fragments.machine import LINK_FAILED
from mesh.packet import UNPROTECTED, Packet
from mesh.routing.jobs import Job
from mesh.routing.node import MeshNode
from mesh.routing.trickle import NEVER
from mesh.station.ways import Ways

AT_ONCE: Final = 2
"""Packets of a node under way: its neighbour puts three together at a time, and the air is one."""
WAITING_COUNT_MAX: Final = 16
CONGESTED_COUNT: Final = 16
"""Packets that wait here, from which on a fragment that passes is marked (RFC 8931 section 4.2)."""


class Long:
    """One node's packets in fragments: its own, those for it, and those that pass through."""

    def __init__(self, node: MeshNode, settings: FragmentSettings, dice: random.Random) -> None:
        self._node = node
        self._fragments = Fragments(settings, Ways(node), dice)
        self._jobs: dict[int, Job] = {}
        self._waiting: list[Job] = []
        self._arrived: list[Packet] = []
        self.counters: Counter[str] = Counter()
        self.packet_size_max = settings.packet_size_max
        """The octets of a packet that goes whole."""

    @property
    def deadline(self) -> float:
        """When `handle_timer` has something to do."""
        due = self._fragments.next_timer()
        return NEVER if due is None else due

    # Commands from the node

    def begin(self, job: Job, octets: bytes, next_hop: Eui64, *, now: float) -> None:
        """Send a packet by way of `next_hop`."""
        if len(self._jobs) >= AT_ONCE:
            self._wait(job)
            return
        job.neighbour = next_hop
        try:
            number = self._fragments.send(octets, next_hop, now=now)
        except TableFull:
            self._node.carrying.lose(job, "too many in fragments")
        except LocalProtocolError:
            self._node.carrying.lose(job, "too long for a frame")
        else:
            self._jobs[number] = job
        self._settle(now)

    # Inputs from below

    def receive(self, octets: bytes, neighbour: Eui64, *, is_fresh: bool, now: float) -> bool:
        """Take a fragment that came. One that is refused is acknowledged all the same.

        False for the first one of control that does not count, as its sender is not proven.
        """
        if not is_fresh and is_control(octets):
            self.counters["unproven neighbour"] += 1
            return True
        if not is_fresh and _kind_begun(octets) in UNPROTECTED:
            return False
        try:
            self._fragments.receive(
                octets,
                neighbour,
                now=now,
                is_congested=self._node.queue_length >= CONGESTED_COUNT,
            )
        except MeshError as error:
            self.counters[f"refused: {error.reason}"] += 1
        self._settle(now)
        return True

    def link_failed(self, frame: FragmentFrame, *, now: float) -> None:
        """All repetitions of a frame of ours were in vain."""
        self._fragments.link_failed(frame, now=now)
        self._tell_broken(frame, now)
        self._settle(now)

    def handle_timer(self, *, now: float) -> None:
        """Send what is due, and throw away what is too old."""
        self._fragments.handle_timer(now=now)
        self._settle(now)

    # Outputs

    def arrived(self) -> list[Packet]:
        """Packets of this node that their destination has whole. Each is handed over once."""
        arrived, self._arrived = self._arrived, []
        return arrived

    # Steps

    def _wait(self, job: Job) -> None:
        """Later: as many packets at a time as their destination puts together of one neighbour."""
        if len(self._waiting) >= WAITING_COUNT_MAX:
            self._node.carrying.lose(job, "too many in fragments")
            return
        job.neighbour = None
        self._waiting.append(job)
        self._waiting.sort(key=lambda waiting: waiting.priority)

    def _release(self, now: float) -> None:
        """There is room: the most urgent of those that wait looks for its way again."""
        for _ in range(min(AT_ONCE - len(self._jobs), len(self._waiting))):
            self._node.carrying.send_again(self._waiting.pop(0), now=now)

    def _settle(self, now: float) -> None:
        had = len(self._jobs)
        for frame in self._fragments.frames_to_send():
            if not self._node.carrying.send_fragment(frame, now=now):
                self.counters["no room for a fragment"] += 1
        for event in self._fragments.events():
            match event:
                case PacketPutTogether(neighbour, octets):
                    self._node.take_packet(octets, neighbour, now=now)
                case PacketDelivered(number):
                    packet = self._jobs.pop(number).packet
                    if packet is not None:
                        self._arrived.append(packet)
                case PacketLost(number=number, reason=reason):
                    self._lost(self._jobs.pop(number), reason, now)
                case PacketAbandoned(reason=reason):
                    self.counters[f"abandoned: {reason}"] += 1
        if len(self._jobs) < had:
            self._release(now)

    def _lost(self, job: Job, reason: str, now: float) -> None:
        if reason == LINK_FAILED:
            self._node.carrying.send_again(job, now=now)
        else:
            self._node.carrying.lose(job, "in fragments")

    def _tell_broken(self, frame: FragmentFrame, now: float) -> None:
        """A source route broke at us: the root must know, and nobody but us does."""
        if self._node.routes is not None:
            return
        try:
            fragment = Fragment.decode(frame.octets)
            packet = Packet.decode(fragment.octets) if fragment.is_first else None
        except MeshError:
            return  # An acknowledgement, which has no way of its own.
        if packet is None or packet.rpl is None or not packet.rpl.is_down:
            return
        if packet.source != self._node.short:
            route = packet.route
            following = packet.destination if route is None else route.next_relay
            self._node.carrying.tell_broken(
                packet,
                packet.destination if following is None else following,
                is_unknown=False,
                now=now,
            )


def _kind_begun(octets: bytes) -> int | None:
    """Of what kind the packet is that a fragment begins; None if it begins none."""
    try:
        fragment = Fragment.decode(octets)
        return Packet.decode(fragment.octets).kind if fragment.is_first else None
    except MeshError:
        return None  # Who takes it counts why.
