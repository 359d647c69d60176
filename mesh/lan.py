"""A node whose radio is a socket: each frame one UDP datagram to each neighbour that it is for.

Spec    docs/protocol/mesh.md, "Frames over UDP"
In      those of a datagram machine; `give_way` after a command to the node
Out     those of a datagram machine; the events are the node's
Raises  LocalProtocolError at birth for too many neighbours
Limit   NEIGHBOURS_MAX addresses: those named at birth stay, of those learned the stalest gives way
Never   believes an address of a frame that is not authentic; repeats a frame, which the node does
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from amistack.errors import LocalProtocolError
from amistack.identifiers import Eui64
from amistack.machine import Peer
from mesh.routing.events import Outgoing
from mesh.security import Seal

EventT = TypeVar("EventT")

NEIGHBOURS_MAX: Final = 64


class Radio(Protocol[EventT]):
    """What a node looks like to its radio."""

    def receive_frame(self, octets: bytes, *, now: float, rssi_dbm: float | None = None) -> None:
        """Take a frame that was heard."""

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        """The frame handed out last is gone."""

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due."""

    def frame_to_send(self, *, now: float) -> Outgoing | None:
        """What to send next."""

    def events(self) -> list[EventT]:
        """What happened."""

    def next_timer(self) -> float | None:
        """When to call `handle_timer`."""


class Lan(Generic[EventT]):
    """One node on a network of datagrams."""

    def __init__(
        self,
        node: Radio[EventT],
        seal: Seal,
        neighbours: Sequence[Peer],
        *,
        learned: Iterable[tuple[Eui64, Peer]] = (),
    ) -> None:
        """`seal` is the node's; `neighbours` are addresses that every frame for all goes to.

        `learned` is what `learned` was in an earlier run, so that a node that starts again reaches
        those who know it before they speak.
        """
        if len(neighbours) > NEIGHBOURS_MAX:
            raise LocalProtocolError(f"{len(neighbours)} neighbours, at most {NEIGHBOURS_MAX}")
        self.counters: Counter[str] = Counter()
        self._node = node
        self._seal = seal
        self._named = tuple(dict.fromkeys(neighbours))
        # By EUI-64, the one not heard for longest first.
        self._learned = OrderedDict(itertools.islice(learned, NEIGHBOURS_MAX))
        self.has_learned = False
        """Whether `learned` is another than when this was last set to False."""
        self._latest = 0.0

    @property
    def addresses(self) -> tuple[Peer, ...]:
        """Where a frame for everybody goes."""
        return tuple(dict.fromkeys((*self._named, *self._learned.values())))

    @property
    def learned(self) -> tuple[tuple[Eui64, Peer], ...]:
        """Where each neighbour was last, to be kept; the one not heard for longest first."""
        return tuple(self._learned.items())

    def address_of(self, neighbour: Eui64) -> Peer | None:
        """Where an authentic frame of that neighbour came from last; None before the first."""
        return self._learned.get(neighbour)

    # Commands from above

    def give_way(self, *, now: float) -> None:
        """The node was given a command at `now`: what comes of it is collected with that time."""
        self._latest = max(self._latest, now)

    # Inputs from below

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one frame. Never raises on bad data."""
        self.give_way(now=now)
        self._seal.latest_source = None
        self._node.receive_frame(data, now=now)
        source = self._heard_from()
        if source is None:
            self.counters["frames not taken"] += 1
            return
        before = self._learned.get(source)
        if before != peer:
            self.has_learned = True
            if before is not None:
                self.counters["neighbours that moved"] += 1
        self._learned[source] = peer
        self._learned.move_to_end(source)
        if len(self._learned) > NEIGHBOURS_MAX:
            self._learned.popitem(last=False)
            self.counters["neighbours that gave way"] += 1

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        self.give_way(now=now)
        self._node.handle_timer(now=now)

    # Outputs, for the driver to collect

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Frames and where they go, in order. Each is handed over once."""
        datagrams: list[tuple[Peer, bytes]] = []
        while (frame := self._node.frame_to_send(now=self._latest)) is not None:
            where = self._where(frame.destination)
            datagrams += [(peer, frame.octets) for peer in where]
            self._node.frame_sent(now=self._latest, was_on_air=bool(where))
        return datagrams

    def events(self) -> list[EventT]:
        """What happened, oldest first. Each is handed over once."""
        return self._node.events()

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        return self._node.next_timer()

    def _heard_from(self) -> Eui64 | None:
        return self._seal.latest_source

    def _where(self, destination: Eui64 | None) -> tuple[Peer, ...]:
        known = None if destination is None else self._learned.get(destination)
        return self.addresses if known is None else (known,)
