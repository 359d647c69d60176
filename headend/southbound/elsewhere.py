"""Peers that are not on the UDP socket: the seam between the stack and the mesh.

Gives   `Forked`, the stack as the socket's link drives it: what goes to nodes of the mesh is handed
        to `Elsewhere` and never to the socket
Never   holds anything back: what is handed over has left the stack
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, Protocol, TypeVar

from amistack.coap.message import Message
from amistack.errors import CoapError
from amistack.framing import Priority
from amistack.identifiers import Eui64
from amistack.machine import DatagramMachine, Peer
from amistack.model.resources import HEAD_END_KEY, REPORT
from headend.domain.mesh import MeshPeer

EventT = TypeVar("EventT")

MASS: Final = frozenset({REPORT, HEAD_END_KEY})
"""What is asked of many meters at once, and of none in a hurry."""


class Elsewhere(Protocol):
    """Carries datagrams to nodes of the mesh, and is told what the session layer learns of them."""

    def send(self, peer: MeshPeer, datagram: bytes) -> None:
        """Send, as far as there is a way: a datagram may be lost like any other."""

    def heard(self, peer: MeshPeer, meter: Eui64) -> MeshPeer:
        """Something authentic of `meter` came from that node just now.

        The same peer, with the collector by which it came.
        """

    def hop_count(self, peer: MeshPeer) -> int | None:
        """How many hops of the mesh it is away, as far as anybody knows."""

    def unanswered(self, meter: Eui64) -> None:
        """The meter was asked, with all repetitions, and was silent."""


class Forked(Generic[EventT]):
    """A machine some of whose peers are elsewhere."""

    def __init__(self, machine: DatagramMachine[EventT], elsewhere: Elsewhere) -> None:
        self._machine = machine
        self._elsewhere = elsewhere

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram. Never raises on bad data."""
        self._machine.receive_datagram(data, peer, now=now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due."""
        self._machine.handle_timer(now=now)

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Those for the socket; the others are handed over now."""
        ours: list[tuple[Peer, bytes]] = []
        for peer, datagram in self._machine.data_to_send():
            if isinstance(peer, MeshPeer):
                self._elsewhere.send(peer, datagram)
            else:
                ours.append((peer, datagram))
        return ours

    def events(self) -> Sequence[EventT]:
        """What happened, oldest first."""
        return self._machine.events()

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None."""
        return self._machine.next_timer()


def priority_of(message: Message) -> Priority:
    """How urgent it is that a meter gets a request of ours."""
    try:
        return Priority.RECOVERY if message.path in MASS else Priority.ON_DEMAND
    except CoapError:
        return Priority.ON_DEMAND
