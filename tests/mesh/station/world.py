"""The medium of the routing's tests, with stations on its nodes."""

from __future__ import annotations

import random
from typing import Any

from mesh.fragments import FragmentSettings
from mesh.reports import Reason
from mesh.routing.events import PacketReceived
from mesh.routing.node import MeshNode
from mesh.station.station import Station
from tests.mesh.routing.medium import World, short_of


class Driven(Station):
    """A station that also answers for its node: the medium's oracles ask for that."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)


class StationWorld(World):
    """Nodes by short address, each a `Driven`."""

    boot = Reason.COLD_BOOT
    fragments: FragmentSettings | None = None

    def start(self, *shorts: int, **more: object) -> None:
        for short in shorts or sorted(self.hearers):
            super().start(short, **more)

    def wrap(self, node: MeshNode) -> Any:
        chance = random.Random(self._dice.random())
        return Driven(node, chance, boot=self.boot, fragments=self.fragments)

    def station(self, short: int) -> Station:
        station = self.nodes[short]
        assert isinstance(station, Station)
        return station

    def delivered(self, at: int, kind: int) -> list[PacketReceived]:
        return [event for _, short, event in self.received if short == at and event.kind == kind]

    def way_to(self, short: int, root: int = 1) -> tuple[int, ...]:
        """The best way of the root's table, both ends included."""
        relays = self.nodes[root].route_to(short, now=self.now)
        assert relays is not None
        return (root, *relays, short)

    def way_up(self, short: int) -> int:
        """How many hops its preferred parents make."""
        return len(self.path_up(short)) - 1


__all__ = ["Driven", "StationWorld", "short_of"]
