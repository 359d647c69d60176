"""What the head-end asked to be sent, and what became of each.

In      `begin` with a message down, `sent`, `failed`, `lost` from the node's events, `handle_timer`
Out     `fates`
Limit   REQUEST_COUNT_MAX open requests, the next is REFUSED_FULL; each ends with its deadline
Never   sends anything: the node does
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from mesh.backhaul import Down, Fate, What
from mesh.packet import Packet
from mesh.routing.trickle import NEVER

REQUEST_COUNT_MAX: Final = 512
AFTERMATH_S: Final = 30.0
"""Seconds from the first hop's acknowledgement in which a relay may say that it cannot go on."""
LOST: Final = {
    "too old": What.TOO_OLD,
    "too long for a frame": What.TOO_LONG,
    "no way down": What.NO_ROUTE,
    "queue full": What.REFUSED_FULL,
    "too many in fragments": What.REFUSED_FULL,
}
"""What the node's reasons are to the head-end; others are LOST."""


@dataclass(slots=True)
class _Open:
    message: Down
    ends_at: float
    is_sent: bool = False


class Requests:
    """Those that may still come to something."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._fates: list[Fate] = []
        self.deadline = NEVER
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    # Commands from above

    def begin(self, message: Down, *, now: float) -> bool:
        """Whether it is to be sent now: it is new, and there is room."""
        if message.request in self._open:
            self.counters["request repeated"] += 1
            return False
        if len(self._open) >= REQUEST_COUNT_MAX:
            self._fates.append(Fate(message.request, What.REFUSED_FULL))
            return False
        self._open[message.request] = _Open(message, now + message.deadline)
        self.deadline = min(self.deadline, now + message.deadline)
        return True

    def queued(self, request: int) -> None:
        """The node took it."""
        self._fates.append(Fate(request, What.QUEUED))

    def refused(self, request: int, what: What) -> None:
        """The node did not."""
        self._open.pop(request, None)
        self._fates.append(Fate(request, what))

    # Inputs from below

    def sent(self, packet: Packet, *, now: float) -> None:
        """The first hop acknowledged a packet."""
        if (found := self._find(packet)) is not None:
            found.is_sent = True
            found.ends_at = now + AFTERMATH_S
            self._fates.append(Fate(found.message.request, What.SENT))

    def delivered(self, packet: Packet) -> None:
        """Its destination has all its fragments."""
        if (found := self._find(packet)) is not None:
            self.refused(found.message.request, What.DELIVERED)

    def failed(self, packet: Packet, relay: int, neighbour: int) -> None:
        """A relay could not go on. On a way that was given, that is the end."""
        if (found := self._find(packet)) is None:
            return
        request = found.message.request
        self._fates.append(Fate(request, What.ROUTE_FAILED, relay, neighbour))
        if found.message.relays is not None:
            del self._open[request]

    def lost(self, destination: int, kind: int, payload: bytes, attempt: int, reason: str) -> None:
        """The node gave a packet up."""
        if (found := self._match(destination, kind, payload, attempt)) is not None:
            self.refused(found.message.request, LOST.get(reason, What.LOST))

    def handle_timer(self, *, now: float) -> None:
        """End those whose time is over: of one that was sent there is nothing more to say."""
        if now < self.deadline:
            return
        for request, one in list(self._open.items()):
            if one.ends_at <= now:
                del self._open[request]
                if not one.is_sent:
                    self._fates.append(Fate(request, What.TOO_OLD))
        self.deadline = min((one.ends_at for one in self._open.values()), default=NEVER)

    # Outputs

    def fates(self) -> list[Fate]:
        """What became of requests, oldest first. Each is handed over once."""
        fates, self._fates = self._fates, []
        return fates

    def _find(self, packet: Packet) -> _Open | None:
        number = 0 if packet.attempt is None else packet.attempt.number
        return self._match(packet.destination, packet.kind, packet.payload, number)

    def _match(self, destination: int, kind: int, payload: bytes, attempt: int) -> _Open | None:
        """The request that a packet is from: a second attempt says the same as the first."""
        same = [
            one
            for one in self._open.values()
            if one.message.destination == destination
            and one.message.kind == kind
            and one.message.payload == payload
        ]
        return next((one for one in same if one.message.attempt == attempt), next(iter(same), None))
