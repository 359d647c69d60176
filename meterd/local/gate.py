"""Who goes first: a field tool at the meter, or the network; or both at once.

Gives   whether either side may act now
Limit   HOLD_S after its last sign of life the side that goes first lets the other on
Never   stops the meter from measuring and recording
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from amistack.machine import DatagramMachine, Peer

HOLD_S: Final = 10.0

EventT = TypeVar("EventT")


class Order(enum.Enum):
    """Whose session goes on while both have one."""

    LOCAL = "local"
    NETWORK = "network"
    SHARED = "shared"


class Gate:
    """Both sides tell of their life, and ask whether they may go on."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._local_until = 0.0
        self._network_until = 0.0
        self._is_closed = False

    def close(self) -> None:
        """The meter stops: no field tool is served any more."""
        self._is_closed = True

    def note_local(self, now: float) -> None:
        """The field tool has just been served."""
        self._local_until = now + HOLD_S

    def end_local(self) -> None:
        """The field tool has gone."""
        self._local_until = 0.0

    def note_network(self, now: float) -> None:
        """The network has just brought or taken something."""
        self._network_until = now + HOLD_S

    def may_local(self, now: float) -> bool:
        """Whether a field tool may be served."""
        is_free = self._order is not Order.NETWORK or now >= self._network_until
        return is_free and not self._is_closed

    def may_network(self, now: float) -> bool:
        """Whether the network may be heard and spoken to."""
        return self._order is not Order.LOCAL or now >= self._local_until


class Yielding(Generic[EventT]):
    """The conversation with the network, which falls silent while a field tool goes first.

    What comes then is lost, as on a bad link: the other side sends it again.
    """

    def __init__(self, machine: DatagramMachine[EventT], gate: Gate) -> None:
        self._machine = machine
        self._gate = gate
        self._now = 0.0
        self.counters: Counter[str] = Counter()

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram."""
        self._now = now
        if not self._gate.may_network(now):
            self.counters["not heard: a field tool goes first"] += 1
            return
        self._gate.note_network(now)
        self._machine.receive_datagram(data, peer, now=now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due: recording does not wait."""
        self._now = now
        self._machine.handle_timer(now=now)

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams and where they go."""
        datagrams = self._machine.data_to_send()
        if datagrams and not self._gate.may_network(self._now):
            self.counters["not said: a field tool goes first"] += len(datagrams)
            return []
        return datagrams

    def events(self) -> Sequence[EventT]:
        """What happened."""
        return self._machine.events()

    def next_timer(self) -> float | None:
        """When to wake."""
        return self._machine.next_timer()
