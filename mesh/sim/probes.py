"""Probes of the head-end, as frames through the real nodes: down a way, and back up the same.

In      `ask` with a path of `mesh.topology`
Out     each outcome, given to whoever asked; silence is for the asker to time
Limit   ASKED_MAX probes are remembered; what is said of an older one is lost
Never   knows what is broken: it hears what a collector with a connection hears, and no more
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from amistack.errors import MeshError, TableFull
from mesh.packet import PacketKind
from mesh.routing.events import RouteFailed
from mesh.sim.nodes import short_address
from mesh.sim.world import BACKHAUL_DELAY_S, World
from mesh.station.echo import Echo
from mesh.station.events import EchoAnswered
from mesh.station.station import Station
from mesh.topology.paths import Path
from mesh.topology.verdicts import Answered, LostAfter, NoConnection, NotPassed, Outcome

ASKED_MAX: Final = 256

Told = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class _Asked:
    collector: int
    way: tuple[int, ...]
    """Short addresses, the collector's and those of all nodes of the way."""
    told: Told


class Probes:
    """All probes of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: dict[int, _Asked] = {}
        self._count = 0
        world.listeners.append(self._happened)

    def ask(self, path: Path, told: Told) -> None:
        """Let a probe go over exactly this way; `told` is called with what is heard of it."""
        world = self._world
        collector = world.stations.numbers[path.collector]
        self._count += 1
        self._asked[self._count] = _Asked(collector, (short_address(collector), *path.shorts), told)
        if len(self._asked) > ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        world.clock.at(world.clock.now + BACKHAUL_DELAY_S, self._send, self._count)

    def _send(self, number: int) -> None:
        asked = self._asked.get(number)
        if asked is None:
            return
        if not self._world.is_connected(asked.collector):
            self._tell(number, NoConnection())
        elif len(asked.way) == 1:
            self._tell(number, Answered())
        else:
            stations = self._world.stations
            station = stations.machine(asked.collector)
            assert isinstance(station, Station)
            try:
                station.ask(number, asked.way, now=stations.own_time(asked.collector))
            except TableFull:
                return  # As lost as one that collides.
            stations.touch(asked.collector)

    def _happened(self, number: int, event: object) -> None:
        if not isinstance(event, RouteFailed | EchoAnswered):
            return
        if self._world.is_connected(number):
            if isinstance(event, EchoAnswered):
                self._tell(event.echo.number, Answered())
            else:
                self._note_failed(event)

    def _note_failed(self, event: RouteFailed) -> None:
        """A relay could not go on: that is the end of whatever was to go the same way."""
        packet = event.packet
        if event.is_unknown and packet is not None and packet.kind == PacketKind.PROBE:
            echo = _echo(packet.payload)
            if echo is not None and echo.is_answer:
                # The question arrived: who was asked, or a relay, does not know the way back.
                self._tell(echo.number, Answered())
                return
        for number, asked in list(self._asked.items()):
            for hops, pair in enumerate(itertools.pairwise(asked.way)):
                if pair == (event.relay, event.neighbour):
                    self._tell(number, NotPassed(hops) if event.is_unknown else LostAfter(hops))

    def _tell(self, number: int, outcome: Outcome) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            clock = self._world.clock
            clock.at(clock.now + BACKHAUL_DELAY_S, lambda _: asked.told(outcome))


def _echo(payload: bytes) -> Echo | None:
    try:
        return Echo.decode(payload)
    except MeshError:
        return None
