"""Small airs and worlds of dummies, for tests."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence

from amistack.identifiers import Eui64
from mesh.sim.chance import Chance
from mesh.sim.clock import VirtualClock
from mesh.sim.machine import NodeMachine
from mesh.sim.radio import Links, RadioParameters, read_radio
from mesh.sim.scenario import Scenario
from mesh.sim.stations import Stations
from mesh.sim.world import station_address
from tests.mesh.sim.dummy import DummyNode, DummyReceived

RADIO = read_radio("ref-915")
SILENT = dataclasses.replace(RADIO, shadowing_frame_db=0.0)
"""Nothing fades: what is above the sensitivity is heard."""
GOOD = RADIO.sensitivity_dbm + 30


class Air:
    """Stations with dummies over links that a test lays down."""

    def __init__(
        self,
        powers: Sequence[Mapping[int, float]],
        *,
        radio: RadioParameters = SILENT,
        seed: int = 1,
        interval: float | None = None,
    ) -> None:
        chance = Chance(seed)
        self.clock = VirtualClock()
        self.links = Links(radio, powers)
        self.events: list[tuple[float, int, object]] = []
        addresses = [station_address(number) for number in range(len(powers))]
        self.stations = Stations(
            self.clock,
            self.links,
            addresses,
            backoff=chance.of("backoff"),
            fading=chance.of("fading"),
            faults=chance.of("faults"),
            happened=lambda number, event: self.events.append((self.clock.now, number, event)),
        )
        self.nodes = [
            DummyNode(address, interval=interval, chance=chance.of(f"node {number}"), now=0.0)
            for number, address in enumerate(addresses)
        ]
        for number, node in enumerate(self.nodes):
            self.stations.start(number, node)

    def send(self, source: int, destination: int | None, size: int = 100) -> None:
        to = None if destination is None else self.stations.addresses[destination]
        self.nodes[source].send_to(to, size)
        self.stations.touch(source)

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds)


def mesh_of(count: int, dbm: float = GOOD) -> list[dict[int, float]]:
    """Everybody hears everybody alike."""
    return [{other: dbm for other in range(count) if other != own} for own in range(count)]


class FloodRouter:
    """`mesh.sim.router.Router` with dummies that flood: everything arrives where there is a way."""

    def __init__(self, addresses: Sequence[Eui64], scenario: Scenario) -> None:
        self.addresses = addresses
        self.numbers = {address: number for number, address in enumerate(addresses)}
        self.roots = scenario.settlement.collectors

    def make(self, number: int, *, is_root: bool, chance: random.Random, now: float) -> NodeMachine:
        node = DummyNode(self.addresses[number], interval=600.0, chance=chance, now=now)
        node.first_number(chance.randrange(1 << 30))
        return node

    def send(
        self,
        machine: NodeMachine,
        payload: bytes,
        *,
        destination: int | None,
        priority: int,
        attempt: int,
        now: float,
    ) -> bool:
        assert isinstance(machine, DummyNode)
        to = 0xFFFF if destination is None else destination
        machine.send(to.to_bytes(2, "big") + payload)
        return True

    def take(self, number: int, machine: NodeMachine, event: object) -> tuple[int, bytes] | None:
        if not isinstance(event, DummyReceived):
            return None
        to = int.from_bytes(event.payload[:2], "big")
        if to == number or (to == 0xFFFF and number < self.roots):
            return self.numbers.get(Eui64(event.source), 0), event.payload[2:]
        return None

    def stopped(self, number: int, machine: NodeMachine) -> None:
        pass

    def parents(self, machine: NodeMachine) -> Sequence[int]:
        return ()

    def route(self, root: NodeMachine, number: int, *, now: float) -> Sequence[int] | None:
        return [number]

    def set_ground(self, root: NodeMachine, *, has_ground: bool, now: float) -> None:
        pass

    def queue_share(self, machine: NodeMachine) -> float:
        return 0.0
