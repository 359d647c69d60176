"""A world: a settlement, its air, its nodes, and the head-end behind the collectors.

Gives   one history for one seed, whatever the machine it runs on
In      a scenario and a router; `run_until`
Out     `trace`, a digest of every frame that was on the air; the state that results are read from
Raises  WorldError when a machine breaks the rules of its shape
Limit   what a collector holds while its backhaul is cut: as many alarms as `mesh.collector` holds,
        the oldest going first; nothing else
Never   tells a node what it could not hear
"""

from __future__ import annotations

import math
import struct
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.collector.collector import GROUND_GRACE_S
from mesh.collector.held import HELD_COUNT_MAX
from mesh.sim.chance import Chance
from mesh.sim.clock import VirtualClock
from mesh.sim.machine import NodeMachine
from mesh.sim.oracles import Faults, Ledger, LoopWatch, QueueWatch
from mesh.sim.placement import Placement, place
from mesh.sim.radio import Links, RadioParameters, links_between
from mesh.sim.router import Router
from mesh.sim.scenario import Scenario
from mesh.sim.stations import Stations
from mesh.sim.traffic import Traffic

BACKHAUL_DELAY_S: Final = 0.05
"""One way, over somebody's mobile network."""
POWER_UP_SPREAD_S: Final = 30.0
"""Within this what lost power together has it again: switches and supplies differ."""
LOOK_EVERY_S: Final = 10.0
LOOP_BOUND_S: Final = 600.0
"""No loop may stand for longer."""
TRACED: Final = struct.Struct("!dHh")


@dataclass(frozen=True, slots=True)
class Note:
    """Something to tell the reader of a run."""

    at: float
    text: str


class World:
    """All of it. Numbers below `collector_count` are collectors."""

    def __init__(
        self,
        scenario: Scenario,
        make_router: Callable[[Sequence[Eui64], Scenario], Router],
        *,
        seed: int,
        radio: RadioParameters,
        links: Links | None = None,
    ) -> None:
        """`links` are laid by hand, for as many nodes as the scenario has; None: by the radio."""
        self.scenario = scenario
        self.seed = seed
        self.chance = Chance(seed)
        self.clock = VirtualClock()
        self.placement: Placement = place(
            scenario.settlement.shape_kind,
            meter_count=scenario.settlement.meters,
            collector_count=scenario.settlement.collectors,
            chance=self.chance.of("placement"),
        )
        self.collectors = tuple(range(self.placement.collector_count))
        self.count = len(self.placement.places)
        self.meters = tuple(range(self.placement.collector_count, self.count))
        if links is None:
            links = links_between(self.placement.places, radio, chance=self.chance.of("links"))
        self.links: Links = links
        addresses = [station_address(number) for number in range(self.count)]
        self.stations = Stations(
            self.clock,
            self.links,
            addresses,
            backoff=self.chance.of("radio.backoff"),
            fading=self.chance.of("radio.fading"),
            faults=self.chance.of("radio.faults"),
            happened=self._happened,
        )
        self.stations.watchers.append(self._note_frame)
        self.trace = 0
        self.notes: list[Note] = []
        self.faults = Faults()
        self.ledger = Ledger(self.faults)
        self.loops = LoopWatch(self.faults, bound_s=LOOP_BOUND_S)
        self.queues = QueueWatch(self.faults)
        self.listeners: list[Callable[[int, object], None]] = []
        """Called with every event of every node."""
        self._deaths: list[Callable[[int, list[int]], None]] = []
        self._returns: list[Callable[[int], None]] = []
        self.router = make_router(addresses, scenario)
        self.traffic = Traffic(
            load=scenario.load,
            clock=self.clock,
            chance=self.chance,
            carrier=self,
            ledger=self.ledger,
            meters=self.meters,
        )
        self._lives = [0] * self.count
        self._is_cut = [False] * len(self.collectors)
        self._held: list[deque[tuple[int, bytes]]] = [
            deque(maxlen=HELD_COUNT_MAX) for _ in self.collectors
        ]

    # Running

    def start(self) -> None:
        """Everybody gets power: collectors at once, meters within the scenario's `power_up_s`."""
        dice = self.chance.of("power")
        for number in self.collectors:
            self.power_on(number)
        for number in self.meters:
            self.clock.at(dice.random() * self.scenario.power_up_s, self.power_on, number)
        self.clock.at(LOOK_EVERY_S, self._look)

    def run_until(self, time: float) -> None:
        """Let the world go on."""
        self.clock.run(time)

    # Power

    def power_on(self, number: int) -> None:
        """A node starts, with what it kept from an earlier life."""
        if self.is_up(number):
            return
        self._lives[number] += 1
        machine = self.router.make(
            number,
            is_root=number in self.collectors,
            chance=self.chance.of(f"node.{number}.{self._lives[number]}"),
            now=self.stations.own_time(number),
        )
        self.stations.start(number, machine)
        if self._lives[number] > 1:
            for came_back in self._returns:
                came_back(number)

    def power_off(self, number: int) -> None:
        """A node stops, without a word."""
        machine = self.stations.machine(number)
        if machine is not None:
            parents = self.parents() if self._deaths else []
            self.router.stopped(number, machine)
            self.stations.stop(number)
            for died in self._deaths:
                died(number, parents)
            if number in self.collectors:
                self._held[number].clear()
            else:
                self.traffic.meter_stopped(number)

    def watch_deaths(self, died: Callable[[int, list[int]], None]) -> None:
        """Call `died` with every node that loses power, and all preferred parents before that."""
        self._deaths.append(died)

    def watch_returns(self, came_back: Callable[[int], None]) -> None:
        """Call `came_back` with every node that has power again."""
        self._returns.append(came_back)

    def is_up(self, number: int) -> bool:
        """Whether the node has power."""
        return self.stations.machine(number) is not None

    def cut_backhaul(self, collector: int, *, is_cut: bool) -> None:
        """The collector's way to the head-end is lost, or is there again."""
        self._is_cut[collector] = is_cut
        # A connection that is lost for a moment is no reason to move a district.
        grace = GROUND_GRACE_S if is_cut else 0.0
        self.clock.at(self.clock.now + grace, self._tell_ground, collector)
        if not is_cut:
            held, self._held[collector] = self._held[collector], deque(maxlen=HELD_COUNT_MAX)
            for meter, payload in held:
                self._hand_over(meter, payload)

    def _tell_ground(self, collector: int) -> None:
        machine = self.stations.machine(collector)
        if machine is not None:
            now = self.stations.own_time(collector)
            self.router.set_ground(machine, has_ground=not self._is_cut[collector], now=now)
            self.stations.touch(collector)

    def is_connected(self, collector: int) -> bool:
        """Whether the head-end has a connection to this collector."""
        return self.is_up(collector) and not self._is_cut[collector]

    def note(self, text: str) -> None:
        """Tell the reader of the run."""
        self.notes.append(Note(self.clock.now, text))

    # What carries the messages

    def send_up(self, meter: int, payload: bytes, priority: Priority, attempt: int) -> None:
        """From a meter to the head-end, by whichever collector."""
        machine = self.stations.machine(meter)
        if machine is not None:
            self.router.send(
                machine,
                payload,
                destination=None,
                priority=priority,
                attempt=attempt,
                now=self.stations.own_time(meter),
            )
            self.stations.touch(meter)

    def send_down(self, meter: int, payload: bytes, priority: Priority, attempt: int) -> int:
        """From the head-end to a meter; how many hops it goes, 0 if there is no way now."""
        ways = []
        for collector in self.collectors:
            machine = self.stations.machine(collector)
            if machine is None or self._is_cut[collector]:
                continue
            way = self.router.route(machine, meter, now=self.stations.own_time(collector))
            if way is not None:
                ways.append((len(way), collector))
        if not ways:
            return 0
        # The shorter one first, and for the next attempt the other: nobody knows what was lost.
        ways.sort()
        hops, collector = ways[attempt % len(ways)]

        def arrive(_: int) -> None:
            machine = self.stations.machine(collector)
            if machine is None or self._is_cut[collector]:
                return
            self.router.send(
                machine,
                payload,
                destination=meter,
                priority=priority,
                attempt=attempt // len(ways),
                now=self.stations.own_time(collector),
            )
            self.stations.touch(collector)

        self.clock.at(self.clock.now + BACKHAUL_DELAY_S, arrive)
        return hops

    def neighbourhood(self, meter: int, count: int) -> Sequence[int]:
        """The `count` meters nearest to it in the street, itself too."""
        return self.nearest(self.placement.places[meter], self.meters)[:count]

    def nearest(self, centre: tuple[float, float], among: Sequence[int]) -> list[int]:
        """These nodes by their distance from `centre`."""
        places = self.placement.places
        return sorted(among, key=lambda node: (math.dist(places[node], centre), node))

    def _happened(self, number: int, event: object) -> None:
        machine = self.stations.machine(number)
        if machine is None:
            return
        packet = self.router.take(number, machine, event)
        if packet is not None:
            source, payload = packet
            if number not in self.collectors:
                self.traffic.arrived_at_meter(number, payload)
            elif self._is_cut[number]:
                # Alarms alone are worth holding; whoever sent the rest will send it again.
                if payload[:1] == _ALARM:
                    self._held[number].append((source, payload))
            else:
                self._hand_over(source, payload)
        for listener in self.listeners:
            listener(number, event)

    def _hand_over(self, meter: int, payload: bytes) -> None:
        def arrive(_: int) -> None:
            self.traffic.arrived_at_head_end(meter, payload)

        self.clock.at(self.clock.now + BACKHAUL_DELAY_S, arrive)

    # Looking

    def machines(self) -> list[tuple[int, NodeMachine]]:
        """All nodes that have power."""
        return self.stations.machines()

    def parents(self) -> list[int]:
        """The preferred parent of each node, -1 for none."""
        chosen = [-1] * self.count
        first_meter = len(self.collectors)
        of_machine = self.router.parents
        for number, machine in self.machines():
            if number >= first_meter and (candidates := of_machine(machine)):
                chosen[number] = candidates[0]
        return chosen

    def relays(self) -> list[int]:
        """Meters that are somebody's preferred parent now."""
        return sorted({parent for parent in self.parents() if parent >= len(self.collectors)})

    def _look(self, _: int) -> None:
        now = self.clock.now
        self.loops.look(self.parents(), at=now)
        self.queues.look(
            ((number, self.router.queue_share(machine)) for number, machine in self.machines()),
            at=now,
        )
        self.clock.at(now + max(LOOK_EVERY_S, self.count / 50), self._look)

    def _note_frame(self, time: float, source: int, destination: int, octets: bytes) -> None:
        self.trace = zlib.crc32(TRACED.pack(time, source, destination) + octets, self.trace)


def station_address(number: int) -> Eui64:
    """The EUI-64 of a simulated node: of a range that IEEE keeps for local use."""
    return Eui64(b"\x02\x00\x5e\x10\x00" + number.to_bytes(3, "big"))


_ALARM: Final = b"\x01"
