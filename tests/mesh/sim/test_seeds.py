"""Two hundred small worlds in which nearly everything goes wrong, one for each seed.

Real nodes with the real seal; crashes, restarts, areas without power, fades, a partition, jamming,
a collector and a backhaul lost, damaged and doubled frames, clocks that drift. Then it is calm,
and the judges, who share no code with the router, look: whoever the air lets be reached is read;
the tree has no loop; nothing that a node holds grew over its bound; nothing arrived that nobody
sent; and no counter of a node was used for two different frames, whatever it forgot.
"""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from collections.abc import Iterator

import pytest

from mesh.security.frame import ACK_FIRST_OCTET, FrameHeader
from mesh.sim.faults import plan
from mesh.sim.machine import NodeMachine
from mesh.sim.nodes import make_mesh_router
from mesh.sim.oracles import cycles
from mesh.sim.results import unreachable
from mesh.sim.scenario import Fault, Load, Scenario, Settlement, read_scenario
from mesh.sim.traffic import Exchange, Kind
from mesh.sim.world import World
from tests.mesh.sim.worlds import RADIO

SEEDS = 200
FORMED_S = 200.0
FAULTS_END_S = 650.0
CALM_S = 150.0
"""From the end of the last fault until everybody must be reachable again."""
READ_S = 90.0
METERS, COLLECTORS = 9, 2
HELD_MAX = 128
"""Entries of the largest table of a node."""
LOAD = Load(c1_per_day=48, c2_per_day=48, c3_per_day=48, c4_per_day=96, on_demand_per_day=96)


def faults(seed: int) -> Iterator[Fault]:
    """Some of each kind, between FORMED_S and FAULTS_END_S; crashed nodes come back."""
    dice = random.Random(seed)

    def some_time(fault: Fault, longest_s: float) -> Fault:
        at = dice.uniform(FORMED_S, FAULTS_END_S - 60)
        length = dice.uniform(5, min(longest_s, FAULTS_END_S - 40 - at))
        return dataclasses.replace(fault, at_s=at, for_s=length)

    yield Fault("drift", at_s=10, share=1.0, ppm=100)
    yield Fault("damage", at_s=5, for_s=FAULTS_END_S - 5, share=0.02)
    yield Fault("double", at_s=5, for_s=FAULTS_END_S - 5, share=0.05)
    fade_db = dice.choice((6.0, 12.0, 200.0))
    drawn = (
        some_time(Fault("crash", count=dice.randint(1, 3)), 300),
        some_time(Fault("crash", whom="relays", count=1), 300),
        some_time(Fault("restart", count=dice.randint(1, 4)), 300),
        some_time(Fault("restart", whom="collectors", count=1), 300),
        some_time(Fault("crash", whom="collectors", count=1), 120),
        some_time(Fault("backhaul", whom="collectors", count=1), 200),
        some_time(Fault("area-off", radius_m=45), 120),
        some_time(Fault("link-fade", share=0.3, loss_db=fade_db), 200),
        some_time(Fault("jam", radius_m=60, jam_dbm=-85), 120),
        some_time(Fault("partition"), 200),
    )
    yield from dice.sample(drawn, 6)


def scenario(seed: int) -> Scenario:
    return dataclasses.replace(
        read_scenario("street"),
        power_up_s=20.0,
        cipher="fast",
        settlement=Settlement("street", METERS, COLLECTORS),
        load=LOAD,
        faults=tuple(faults(seed)),
    )


class CounterWatch:
    """Of every node, which octets each of its counters went with: a nonce is used once."""

    def __init__(self, world: World) -> None:
        self.twice: list[str] = []
        self._seen: dict[tuple[bytes, int, int], bytes] = {}
        world.stations.watchers.append(self.note)

    def note(self, time: float, source: int, destination: int, octets: bytes) -> None:
        if octets[0] == ACK_FIRST_OCTET:
            return  # It carries the counter of what it acknowledges.
        header = FrameHeader.decode(octets)
        nonce = (header.source, header.key_index, header.counter)
        if self._seen.setdefault(nonce, octets) != octets:
            self.twice.append(f"t={time:.3f} {source} uses counter {header.counter} again")


def largest(node: NodeMachine) -> tuple[int, str]:
    """The largest table anywhere in a node, whatever it is called: all of it is walked."""
    found = (0, "")
    seen: set[int] = set()
    waiting: list[tuple[object, str]] = [(node, "node")]
    while waiting:
        thing, name = waiting.pop()
        if id(thing) in seen or isinstance(thing, bytes | str | int | float | type):
            continue
        seen.add(id(thing))
        if isinstance(thing, dict | list | tuple | set | deque):
            found = max(found, (len(thing), name))
            values = thing.values() if isinstance(thing, dict) else thing
            waiting += [(each, f"{name}[]") for each in values]
        elif type(thing).__module__.startswith(("mesh.", "amistack.")):
            waiting += [(each, f"{name}.{what}") for what, each in attributes(thing)]
    return found


def attributes(thing: object) -> Iterator[tuple[str, object]]:
    for kind in type(thing).__mro__:
        for slot in getattr(kind, "__slots__", ()):
            name = f"_{kind.__name__}{slot}" if slot.startswith("__") else slot
            if hasattr(thing, name):
                yield slot, getattr(thing, name)
    yield from getattr(thing, "__dict__", {}).items()


def read_all(world: World) -> list[Exchange]:
    begun = (world.traffic.begin(Kind.REQUEST, meter) for meter in world.meters)
    return [exchange for exchange in begun if exchange is not None]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_world(seed: int) -> None:
    world = World(scenario(seed), make_mesh_router, seed=seed, radio=RADIO)
    counters = CounterWatch(world)
    plan(world, until=FAULTS_END_S)
    world.start()
    world.run_until(FORMED_S)
    world.traffic.start(until=FAULTS_END_S)
    world.run_until(FAULTS_END_S + CALM_S)
    assert all(world.is_up(number) for number in range(world.count))
    reads = read_all(world)
    world.run_until(world.clock.now + READ_S)

    cut_off = set(unreachable(world))
    silent = [read.meter for read in reads if read.done_at is None and read.meter not in cut_off]
    assert not silent, [note.text for note in world.notes]
    parents = world.parents()
    assert not cycles(parents)
    assert [meter for meter in world.meters if parents[meter] < 0 and meter not in cut_off] == []
    assert world.faults.lines == []
    assert counters.twice == []
    for number, machine in world.machines():
        size, name = largest(machine)
        assert size <= HELD_MAX, f"{number}: {name}"
