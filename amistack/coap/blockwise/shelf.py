"""Things kept for peers for a while, bounded in number and octets: for each peer, and in all.

Limit   at a peer's share its own stalest things go; at the bound of all, the stalest of anybody
        that was left alone for `idle_min` seconds, and where there is none the new one has no room
Never   lets one peer push out what others use
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from amistack.coap.blockwise.block import OperationKey
from amistack.machine import Peer

Key = tuple[Peer, OperationKey]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a shelf holds; `of_peer` is the share of one peer. Octets are of payloads."""

    count_max: int
    octets_max: int
    count_of_peer_max: int
    octets_of_peer_max: int


@dataclass(slots=True)
class _Place(Generic[T]):
    thing: T
    octets: int
    touched: float


class Shelf(Generic[T]):
    """Things by peer and operation, the stalest first."""

    def __init__(self, bounds: Bounds, *, lifetime: float, idle_min: float) -> None:
        """`lifetime`: s after the last touch until a thing goes; `idle_min`: s, see above."""
        self.bounds = bounds
        self.evicted_count = 0
        self.expired_count = 0
        self._lifetime = lifetime
        self._idle_min = idle_min
        self._places: dict[Key, _Place[T]] = {}
        self._of_peer: dict[Peer, dict[Key, _Place[T]]] = {}
        self._octets = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def octets(self) -> int:
        """Octets held in all."""
        return self._octets

    def find(self, key: Key) -> T | None:
        """What is kept under `key`, or None. Not touched by it."""
        place = self._places.get(key)
        return None if place is None else place.thing

    def put(self, key: Key, thing: T, octets: int, *, now: float) -> bool:
        """Keep `thing` under `key` in place of what was there, as touched now.

        False when there is no room for it; nothing has changed then.
        """
        if not self._make_room(key, octets, now=now):
            return False
        self.drop(key)
        place = _Place(thing, octets, now)
        self._places[key] = place
        self._of_peer.setdefault(key[0], {})[key] = place
        self._octets += octets
        return True

    def touch(self, key: Key, *, now: float) -> None:
        """Note that what is under `key` is in use."""
        place = self._places.pop(key)
        self._places[key] = place
        siblings = self._of_peer[key[0]]
        siblings[key] = siblings.pop(key)
        place.touched = now

    def drop(self, key: Key) -> None:
        """Forget what is under `key`, if anything is."""
        place = self._places.pop(key, None)
        if place is None:
            return
        self._octets -= place.octets
        siblings = self._of_peer[key[0]]
        del siblings[key]
        if not siblings:
            del self._of_peer[key[0]]

    def drop_all(self, peer: Peer) -> None:
        """Forget what is kept for `peer`."""
        for key in list(self._of_peer.get(peer, ())):
            self.drop(key)

    def forget_expired(self, *, now: float) -> None:
        """Drop what nobody touched for its lifetime."""
        places = self._places
        while places:
            key = next(iter(places))
            if places[key].touched + self._lifetime > now:
                return
            self.drop(key)
            self.expired_count += 1

    def next_timer(self) -> float | None:
        """When the first thing expires, or None."""
        if not self._places:
            return None
        return next(iter(self._places.values())).touched + self._lifetime

    def _make_room(self, key: Key, octets: int, *, now: float) -> bool:
        """Room for `octets` under `key`, counting what is there already as gone."""
        bounds = self.bounds
        siblings = self._of_peer.get(key[0], {})
        own_count, own_octets = len(siblings), sum(place.octets for place in siblings.values())
        count, total = len(self._places), self._octets
        going: dict[Key, None] = {}
        if (present := siblings.get(key)) is not None:
            own_count, own_octets = own_count - 1, own_octets - present.octets
            count, total = count - 1, total - present.octets
        if octets > bounds.octets_of_peer_max or bounds.count_of_peer_max < 1:
            return False
        for other, place in siblings.items():
            if own_count < bounds.count_of_peer_max and (
                own_octets + octets <= bounds.octets_of_peer_max
            ):
                break
            if other != key:
                going[other] = None
                own_count, own_octets = own_count - 1, own_octets - place.octets
                count, total = count - 1, total - place.octets
        for other, place in self._places.items():
            if count < bounds.count_max and total + octets <= bounds.octets_max:
                break
            if other == key or other in going:
                continue
            if now - place.touched < self._idle_min:
                return False
            going[other] = None
            count, total = count - 1, total - place.octets
        if count >= bounds.count_max or total + octets > bounds.octets_max:
            return False
        for other in going:
            self.drop(other)
        self.evicted_count += len(going)
        return True
