"""The shape of every protocol machine in this project.

A machine is a protocol with the I/O left out. Whoever drives it (`amistack.links` on a
real network, a simulated world in a test) hands it octets and the time, then collects
what it wants done:

    in      receive_datagram(data, peer, now=...)    handle_timer(now=...)
    out     data_to_send()      events()             next_timer()

After any call in, and after any command, collect all three outputs. `now` is seconds on
a clock that never goes back; only differences mean anything. A machine that draws
chance takes a `random.Random` at birth; keys are made outside and handed in.

The datagram form serves every peer of a socket with one machine. Answering is a command,
so that it can wait for a commit; what must be durable before it is used (a reserved block
of sender sequence numbers, say) is an event answered by a command.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

Peer = Hashable
"""Where a datagram came from or goes to; a row in a machine's table. Its meaning is the link's."""

EventT_co = TypeVar("EventT_co", covariant=True)


class StreamMachine(Protocol[EventT_co]):
    """A machine for one peer and a stream of octets."""

    def receive_data(self, data: bytes, *, now: float) -> None:
        """Take any piece of the stream. Never raises on bad data."""

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""

    def data_to_send(self) -> list[bytes]:
        """Octets for the peer, in order. Each is handed over once."""

    def events(self) -> Sequence[EventT_co]:
        """What happened, oldest first. Each is handed over once."""

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""


class DatagramMachine(Protocol[EventT_co]):
    """A machine for all peers of one datagram socket."""

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram. Never raises on bad data."""

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams and where they go, in order. Each is handed over once."""

    def events(self) -> Sequence[EventT_co]:
        """What happened, oldest first. Each is handed over once."""

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
