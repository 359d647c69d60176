"""A town of real programs: head-end, collectors and meters, over the radio of `mesh.sim`.

Gives   `Town`, a `mesh.sim.world.World` whose nodes are programs and whose load is the head-end's
        own; one clock, one seed, one history
Raises  what the programs raise at their start, by then the world's own fault
Limit   READ_COUNT_MAX reads and ALARM_COUNT_MAX alarms are kept
Never   hands a message over itself: it goes by the programs, or not at all
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from amistack.errors import AmiError
from amistack.identifiers import Eui64
from amistack.model.event_catalogue import COVER_OPENED
from headend.dcc import views
from headend.domain.readings import ReadResult
from headend.lifecycle.enrolment import Device
from interop.simulate.deeds import Kill, Whose
from interop.simulate.head_end import Entropy, HeadEnd
from interop.simulate.homes import AREA, DODAG, OFFSET_MIN, Homes, host_of
from interop.world.clock_loop import ClockLoop
from interop.world.streams import Streams
from mesh.routing.profile import anywhere
from mesh.sim.capture import EPOCH_S
from mesh.sim.chance import Chance
from mesh.sim.faults import node_name
from mesh.sim.radio import RadioParameters
from mesh.sim.repairs import RepairWatch
from mesh.sim.router import Router
from mesh.sim.scenario import Scenario
from mesh.sim.world import LOOK_EVERY_S, World
from mesh.topology.facts import AreaId, Role

DAY_S: Final = 86_400
MIDNIGHT_S: Final = -OFFSET_MIN * 60.0
"""The world's second of its meters' first midnight."""
OPENING_S: Final = 60.0
"""Virtual seconds that the head-end may need to be ready."""
READ_DEADLINE_S: Final = 120.0
READ_COUNT_MAX: Final = 1_000_000
ALARM_COUNT_MAX: Final = 1_000_000


@dataclass(slots=True)
class Read:
    """One on-demand read, as who asked for it saw it. `hops` as the head-end thought then."""

    meter: int
    asked_at: float
    hops: int
    result: ReadResult = ReadResult.ASKED
    answered_at: float | None = None
    path: str = ""
    identifier: bytes = b""
    is_void: bool = False
    """The meter or the head-end had no power for it: nobody can be blamed."""

    @property
    def latency_s(self) -> float | None:
        """How long it took; None without an answer."""
        return None if self.answered_at is None else self.answered_at - self.asked_at


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm that a meter put on record, and that is to be told at once."""

    meter: int
    sequence: int
    at: float


class Town(World):
    """All of it. `open` comes first, on its own loop."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        seed: int,
        radio: RadioParameters,
        folder: Path,
        history_days: int,
        kills: Sequence[Kill] = (),
    ) -> None:
        """`history_days` whole days are in each meter's record when it is mounted."""
        self._folder = folder
        self._entropy_of = _entropy(seed)
        self.streams = Streams()
        self.history_days = history_days

        def make_router(addresses: Sequence[Eui64], _: Scenario) -> Router:
            self.homes = Homes(
                addresses, scenario, folder, seed, self.streams, self.utc, self._entropy_of
            )
            return self.homes

        super().__init__(scenario, make_router, seed=seed, radio=radio)
        self.homes.stations = self.stations
        self.loop = ClockLoop(self.clock)
        chance = Chance(seed)
        self.head_end = HeadEnd(
            folder,
            seed=seed,
            utc=self.utc,
            streams=self.streams,
            entropy=self._entropy_of,
            dice=chance.of,
        )
        self.kills = tuple(kills)
        self.reads: list[Read] = []
        self.alarms: list[Alarm] = []
        self.counters: Counter[str] = Counter()
        self.dark: dict[int, list[tuple[float, float | None]]] = {}
        """When which node had no power, from and until."""
        self.repairs = RepairWatch(self)
        self.watch_deaths(self.repairs.died)
        self.watch_deaths(self._went_dark)
        self.watch_returns(self._came_back)
        self._load_ends_at = 0.0

    def utc(self) -> float:
        """True UTC."""
        return EPOCH_S + self.clock.now

    @property
    def history(self) -> int:
        """A digest of every frame and of all that went over a backhaul."""
        return zlib.crc32(self.streams.trace.to_bytes(4, "big"), self.trace)

    # Before anything happens

    async def open(self) -> None:
        """Start the head-end, enrol and place everybody, by its own operations."""
        await self.head_end.start()
        operations, mesh = self.head_end.operations, self.head_end.operations.mesh
        homes = self.homes
        devices = []
        for number in self.meters:
            identity = homes.furnish_meter(number, head_end_key=self.head_end.public_key)
            devices.append(Device(identity.meter, identity.public_key))
        await operations.enrol(devices)
        area = AreaId(AREA)
        await mesh.set_area(
            area, profile=anywhere(self.scenario.profile), dodag_id=bytes.fromhex(DODAG)
        )
        addresses = self.stations.addresses
        shorts = {}
        for numbers, role in ((self.collectors, Role.COLLECTOR), (self.meters, Role.METER)):
            nodes = [addresses[number] for number in numbers]
            done = await mesh.assign(area, nodes, role=role)
            shorts.update({each.node: each.short for each in done.assignments})
        first_midnight = int(EPOCH_S + MIDNIGHT_S)
        mounted_at = first_midnight - (self.history_days + 1) * DAY_S
        for number in self.collectors:
            homes.furnish_collector(number, short=shorts[addresses[number]])
        for number in self.meters:
            short = shorts[addresses[number]]
            homes.place_meter(number, short=short, mounted_at=mounted_at)

    def start(self) -> None:
        """Everybody gets power: collectors at once, meters within the scenario's `power_up_s`."""
        begins_at, dice = self.clock.now, self.chance.of("power")
        for number in self.collectors:
            self.power_on(number)
        for number in self.meters:
            at = begins_at + dice.random() * self.scenario.power_up_s
            self.clock.at(at, self.power_on, number)
        self.clock.at(begins_at + LOOK_EVERY_S, self._look)
        for index, kill in enumerate(self.kills):
            self.clock.at(max(kill.at_s, begins_at), self._kill, index)

    # Power

    def cut_backhaul(self, collector: int, *, is_cut: bool) -> None:
        """The collector's way to the head-end is lost, or is there again."""
        self._is_cut[collector] = is_cut
        self.streams.cut(host_of(collector), is_cut=is_cut)

    def is_dark(self, number: int, begin: float, end: float) -> bool:
        """Whether a node was without power at any time between."""
        return any(
            since < end and (until is None or until > begin)
            for since, until in self.dark.get(number, ())
        )

    def _went_dark(self, number: int, _: list[int]) -> None:
        self.dark.setdefault(number, []).append((self.clock.now, None))
        for read in self.reads:
            if read.meter == number and read.result is ReadResult.ASKED:
                read.is_void = True

    def _came_back(self, number: int) -> None:
        since, _ = self.dark[number].pop()
        self.dark[number].append((since, self.clock.now))

    def _kill(self, index: int) -> None:
        kill = self.kills[index]
        if kill.whose is Whose.HEAD_END:
            if self.head_end.is_up:
                assert kill.for_s is not None, "it always comes back"
                self.note("kill: head-end")
                self.loop.create_task(self._restart_head_end(kill.for_s))
            return
        number = self._number_of(kill)
        if number is None or not self.is_up(number):
            self.note(f"kill: {kill.name} is not there")
            return
        self.note(f"kill: {node_name(self, number)} without power")
        self.power_off(number)
        if kill.for_s is not None:
            self.clock.at(self.clock.now + kill.for_s, self.power_on, number)

    def _number_of(self, kill: Kill) -> int | None:
        if kill.whose is Whose.COLLECTOR:
            return kill.number - 1
        if kill.whose is Whose.METER:
            return len(self.collectors) + kill.number - 1
        below = self.below()
        return max(self.relays(), key=lambda relay: (below[relay], -relay), default=None)

    def below(self) -> list[int]:
        """How many nodes are below each one, by the preferred parents of now."""
        parents, counts = self.parents(), [0] * self.count
        for number in self.meters:
            seen: set[int] = set()
            while (number := parents[number]) >= 0 and number not in seen:
                seen.add(number)
                counts[number] += 1
        return counts

    async def _restart_head_end(self, for_s: float) -> None:
        for read in self.reads:
            if read.result is ReadResult.ASKED:
                read.is_void = True
        await self.head_end.kill()
        await asyncio.sleep(for_s)
        await self.head_end.start()
        self.note("kill: head-end is back")

    def close(self) -> None:
        """End every program, without a word."""
        for number, machine in self.machines():
            self.homes.stopped(number, machine)
            self.stations.stop(number)

    # Load

    def begin_load(self, *, until: float) -> None:
        """Reads and alarms by chance from now on, none after `until`."""
        self._load_ends_at = until
        load = self.scenario.load
        if load.on_demand_per_day:
            self._plan(load.on_demand_per_day, self.chance.of("town.reads"), self.ask)
        if load.c1_per_day:
            self._plan(load.c1_per_day, self.chance.of("town.alarms"), self.alarm)

    def _plan(self, per_day: float, dice: random.Random, call: Callable[[int], None]) -> None:
        """A Poisson process over all meters: as seldom events of many come."""
        rate = per_day * len(self.meters) / DAY_S

        def come(_: int) -> None:
            if self.clock.now >= self._load_ends_at:
                return
            call(dice.choice(self.meters))
            self.clock.at(self.clock.now + dice.expovariate(rate), come)

        self.clock.at(self.clock.now + dice.expovariate(rate), come)

    def ask(self, meter: int) -> None:
        """Have the head-end read a meter now, if both have power."""
        if not self.is_up(meter) or not self.head_end.is_up or len(self.reads) >= READ_COUNT_MAX:
            self.counters["reads not asked for"] += 1
            return
        read = Read(meter, self.clock.now, self._hops(meter))
        self.reads.append(read)
        self.head_end.spawn(self._read(read))

    def _hops(self, meter: int) -> int:
        # What `headend path` shows: the head-end's word, not the world's.
        dcc = self.head_end.dcc.center.dcc
        ways = views.ways_of(dcc, self.stations.addresses[meter])
        return len(ways[0][0].nodes) - 1 if ways else 0

    async def _read(self, read: Read) -> None:
        meter = self.stations.addresses[read.meter]
        try:
            done = await self.head_end.operations.read(meter, deadline_s=READ_DEADLINE_S)
        except AmiError as error:
            read.result = ReadResult.INTERRUPTED
            self.counters[f"reads refused: {type(error).__name__}"] += 1
            return
        except asyncio.CancelledError:
            read.result = ReadResult.INTERRUPTED
            raise
        read.result, read.path, read.identifier = done.result, done.path, done.identifier
        if done.result is ReadResult.ANSWERED:
            read.answered_at = self.clock.now

    def alarm(self, number: int) -> None:
        """Somebody opens a meter's cover, and the meter puts it on record."""
        meter = self.homes.homes[number].meter
        if meter is None or len(self.alarms) >= ALARM_COUNT_MAX:
            return
        now = self.stations.own_time(number)
        entry = meter.oversight.events.log(COVER_OPENED, now=now)
        if entry is None:
            self.counters["alarms left out"] += 1
        else:
            self.alarms.append(Alarm(number, entry.sequence, self.clock.now))
        meter.settle()


def _entropy(seed: int) -> Callable[[str], Entropy]:
    """Octets that nobody draws twice, for each purpose a source of its own."""

    def of(purpose: str) -> Entropy:
        count = 0

        def draw(size: int) -> bytes:
            nonlocal count
            count += 1
            return hashlib.shake_256(f"{seed}/{purpose}/{count}".encode()).digest(size)

        return draw

    return of
