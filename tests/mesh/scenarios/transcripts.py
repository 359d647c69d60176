"""Scenarios as text: commands above the rule, what became of them below it.

    scenario NAME         one in the box, with its radio, load, faults and isolations, or a small
                          one of it: `settlement.meters=40 hours=1 faults.at_s=1800` and the like
or
    nodes c1 m1..m4       the nodes; then links, one or more a line
    link c1-m1-m2 0.9     a chain of links with this reception ratio (0.999 if it is left out)
    start                 everybody gets power; nothing before it takes time
    fade m1-m2, mend m1-m2, kill m2, revive m2, restart m2, cut c1, uncut c1
    read m4, isolate m4, advance 60s

A block is commands, a rule of four dashes, what happened, and an empty line. What happened is:
reads as they end, isolations, changes of preferred parents by the second, and after `advance` the
tree. Of a scenario in the box: faults as they come, isolations, and after `advance` what was said
by then and in time; where there are more than TREE_COUNT_MAX nodes, how many changed their parent
and how many are how far away, in the place of every name. `run` gives back the whole text as it
should be.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from mesh.routing.profile import load_profile
from mesh.sim.faults import node_name
from mesh.sim.isolations import Drive
from mesh.sim.knowledge import what_the_head_end_knows
from mesh.sim.nodes import make_mesh_router
from mesh.sim.probes import Probes
from mesh.sim.run import Simulation
from mesh.sim.scenario import Scenario, read_scenario
from mesh.sim.traffic import LIMITS_S, Exchange, Kind
from mesh.sim.world import World
from mesh.topology.dcc import Dcc
from mesh.topology.facts import Backhaul
from mesh.topology.verdicts import Verdict
from tests.mesh.sim.laid import LOSS_DB, change, laid

RULE: Final = "----"
PROFILE: Final = "lab"
TREE_COUNT_MAX: Final = 32
READ_LIMIT_S: Final = 30.0
SEED: Final = 1


def run(text: str) -> str:
    """The transcript that the commands of `text` make now."""
    told = []
    player = _Player()
    for block in text.split("\n\n"):
        commands = block.split(RULE)[0].strip().splitlines()
        if commands:
            said = [line for command in commands for line in player.do(command)]
            told.append("\n".join([*commands, RULE, *said]))
    return "\n\n".join(told) + "\n"


class _Player:
    def __init__(self) -> None:
        self._names: list[str] = []
        self._links: dict[tuple[int, int], float] = {}
        self._world: World | None = None
        self._said: list[str] = []
        self._parents: list[int] = []
        self._known: Dcc | None = None
        self._running: Simulation | None = None
        self._ended: list[Exchange] = []
        self._changes = 0
        self._noted = 0
        self._judged = 0

    def do(self, command: str) -> Iterator[str]:
        """Carry a command out; what is to be said of it."""
        if not command.startswith("#"):
            word, *rest = command.split()
            doers: dict[str, Callable[..., None]] = {
                "scenario": self._scenario,
                "nodes": self._nodes,
                "link": self._link,
                "start": self._start,
                "fade": self._fade,
                "mend": self._mend,
                "kill": lambda name: self._need().power_off(self._number(name)),
                "revive": lambda name: self._need().power_on(self._number(name)),
                "restart": self._restart,
                "cut": lambda name: self._need().cut_backhaul(self._number(name), is_cut=True),
                "uncut": lambda name: self._need().cut_backhaul(self._number(name), is_cut=False),
                "read": self._read,
                "isolate": self._isolate,
                "advance": self._advance,
            }
            doers[word](*rest)
        yield from self._said
        self._said.clear()

    # The world

    def _nodes(self, *words: str) -> None:
        for word in words:
            first, _, last = word.partition("..")
            numbers = range(int(first[1:]), int(last[1:] or 0) + 1) if last else [int(first[1:])]
            self._names += [f"{first[0]}{number}" for number in numbers]

    def _link(self, names: str, ratio: str = "0.999") -> None:
        for one, other in itertools.pairwise(names.split("-")):
            self._links[self._number(one), self._number(other)] = float(ratio)

    def _scenario(self, name: str, *changes: str) -> None:
        scenario = smaller(read_scenario(name), dict(change.split("=") for change in changes))
        self._running = running = Simulation(scenario, make_mesh_router, seed=SEED)
        self._world = world = running.world
        self._names = [node_name(world, number) for number in range(world.count)]
        self._parents = [-1] * world.count
        world.traffic.done = self._ended.append
        world.clock.at(0.0, self._look)

    def _start(self) -> None:
        collectors = sum(name.startswith("c") for name in self._names)
        self._world = laid(self._links, collectors=collectors, profile=PROFILE)
        self._parents = [-1] * len(self._names)
        self._world.traffic.done = self._read_done
        self._probes = Probes(self._world)
        self._world.clock.at(0.0, self._look)

    def _need(self) -> World:
        assert self._world is not None, "before `start` there are no nodes"
        return self._world

    def _number(self, name: str) -> int:
        return self._names.index(name)

    def _name(self, number: int) -> str:
        return self._names[number] if number >= 0 else "nobody"

    # What is done to it

    def _fade(self, names: str) -> None:
        for one, other in itertools.pairwise(names.split("-")):
            change(self._need(), self._number(one), self._number(other), LOSS_DB)

    def _mend(self, names: str) -> None:
        for one, other in itertools.pairwise(names.split("-")):
            change(self._need(), self._number(one), self._number(other), -LOSS_DB)

    def _restart(self, name: str) -> None:
        world = self._need()
        world.power_off(self._number(name))
        world.clock.at(world.clock.now + 1, world.power_on, self._number(name))

    def _read(self, name: str) -> None:
        self._need().traffic.begin(Kind.REQUEST, self._number(name))

    def _isolate(self, name: str) -> None:
        world = self._need()
        assert self._known is not None
        for collector in world.collectors:
            if not world.is_connected(collector):
                address = world.stations.addresses[collector]
                self._known.set_backhaul(address, Backhaul.DOWN, now=world.clock.now)

        def ended(verdict: Verdict | None) -> None:
            assert verdict is not None
            causes = ", ".join(
                f"{cause.part.value} {self._ends(cause.component.ends)}" for cause in verdict.causes
            )
            doubt = "" if verdict.is_certain else " (if only one failed)"
            left = f"{sum(verdict.left.values())} of {sum(verdict.known.values())} alternates left"
            self._say(f"{name} isolated: {causes or verdict.finding.value}{doubt}; {left}")

        meter = world.stations.addresses[self._number(name)]
        Drive(world, self._probes, self._known, meter, ended).go_on()

    def _ends(self, ends: tuple[bytes, ...]) -> str:
        numbers = self._need().stations.numbers
        return "-".join(sorted(self._name(number) for e, number in numbers.items() if e in ends))

    def _advance(self, seconds: str) -> None:
        world = self._need()
        world.run_until(world.clock.now + float(seconds.rstrip("s")))
        if self._running is not None:
            self._said += self._progress(self._running)
            return
        increase = load_profile(PROFILE).dodag.hop_rank_increase_min
        self._said += self._tree()
        if all(world.is_connected(collector) for collector in world.collectors):
            # What the head-end knew last before something failed.
            self._known = what_the_head_end_knows(world, hop_rank_increase=increase)

    # What is said

    def _say(self, line: str) -> None:
        self._said.append(f"t={self._need().clock.now:<7.0f}{line}")

    def _read_done(self, exchange: Exchange) -> None:
        latency = exchange.latency_s
        name = self._name(exchange.meter)
        if latency is None:
            self._say(f"{name} not read")
        else:
            self._say(f"{name} read in {'less than a' if latency < 1 else f'{latency:.0f}'} second"
                      f"{'s' if latency >= 1.5 else ''}")  # fmt: skip

    def _look(self, _: int) -> None:
        world = self._need()
        parents = world.parents()
        if world.clock.now > 0:
            for number, parent in enumerate(parents):
                if parent != self._parents[number] and self._tree_is_told and world.is_up(number):
                    self._changes += 1
                    if world.count <= TREE_COUNT_MAX:
                        self._say(f"{self._name(number)} parent {self._name(parent)}")
            self._tell_notes()
        self._parents = parents
        world.clock.at(world.clock.now + 1, self._look)

    def _tell_notes(self) -> None:
        """Faults and isolations, by the second."""
        world, running = self._need(), self._running
        for note in world.notes[self._noted :] if running is not None else ():
            self._said.append(f"t={note.at:<7.0f}{note.text}")
        self._noted = len(world.notes)
        if running is None or running.isolations is None:
            return
        for case in running.isolations.cases[self._judged :]:
            right = "right" if case.is_right else "not right"
            causes = () if case.verdict is None else case.verdict.causes
            named = [f"{one.component.kind} {self._ends(one.component.ends)}" for one in causes]
            told = ", ".join(named) or "nothing"
            failed = f"{case.failed.kind} {self._ends(case.failed.ends)}"
            certain = " for certain" * (case.verdict is not None and case.verdict.is_certain)
            self._say(
                f"{self._name(case.meter)} isolated while {failed} failed: {told}{certain}; {right}"
            )
        self._judged = len(running.isolations.cases)

    def _progress(self, running: Simulation) -> Iterator[str]:
        """What was said, and how the network stands, in so many words as its size allows."""
        world = running.world
        kinds = Counter(exchange.kind for exchange in self._ended)
        for kind in sorted(kinds):
            of_kind = [exchange for exchange in self._ended if exchange.kind is kind]
            limit = LIMITS_S.get(kind, READ_LIMIT_S)
            times = [time for one in of_kind if (time := one.latency_s) is not None]
            in_time = sum(time <= limit for time in times)
            name = "read" if kind is Kind.REQUEST else kind.name
            lost = f", {kinds[kind] - len(times)} not at all" * (kinds[kind] > len(times))
            yield f"{name:5} {in_time} of {kinds[kind]} within {limit:g} s{lost}"
        self._ended.clear()
        if world.count <= TREE_COUNT_MAX:
            yield from self._tree()
        else:
            if self._tree_is_told:
                yield f"changes of parents: {self._changes}"
            self._tree_is_told = True
            hops = Counter(hops for meter in world.meters if (hops := self._hops(meter)))
            shown = ", ".join(f"{count} at {hop}" for hop, count in sorted(hops.items()))
            yield f"hops to a collector: {shown}"
            yield self._routed()
        self._changes = 0
        if world.faults.count:
            yield f"{world.faults.count} of what must never be"
        if running.is_over:
            yield "over"

    def _hops(self, meter: int) -> int:
        """How far a meter is from a collector by the preferred parents; 0 where it is cut off."""
        world = self._need()
        parents, node = self._parents, meter
        for hops in range(world.count):
            if node in world.collectors:
                return hops
            if node < 0 or not world.is_up(node):
                break
            node = parents[node]
        return 0

    _tree_is_told = False

    def _tree(self) -> Iterator[str]:
        """Each way from its end, as the preferred parents have it; those of others left out."""
        world = self._need()
        self._tree_is_told = True
        parents = world.parents()
        for number in world.meters:
            if number in parents or not world.is_up(number):
                continue
            way = [number]
            while parents[way[-1]] >= 0 and len(way) <= world.count:
                way.append(parents[way[-1]])
            yield " -> ".join(map(self._name, way))
        yield self._routed()

    def _routed(self) -> str:
        world = self._need()
        up = [meter for meter in world.meters if world.is_up(meter)]
        routed = sum(self._is_routed(meter) for meter in up)
        return f"{routed} of {len(up)} meters have a route"

    def _is_routed(self, meter: int) -> bool:
        world = self._need()
        for collector in world.collectors:
            root = world.stations.machine(collector)
            if root is not None and world.is_connected(collector):
                way = world.router.route(root, meter, now=world.stations.own_time(collector))
                if way is not None and all(world.is_up(node) for node in way):
                    return True
        return False


def smaller(scenario: Scenario, changes: Mapping[str, str]) -> Scenario:
    """The scenario with other values: `hours`, `settlement.meters`, `faults.at_s` of all faults."""
    for key, text in changes.items():
        table, _, field = key.rpartition(".")
        value: dict[str, Any] = {field: json.loads(text)}
        if table == "faults":
            value = {table: tuple(dataclasses.replace(fault, **value) for fault in scenario.faults)}
        elif table:
            value = {table: dataclasses.replace(getattr(scenario, table), **value)}
        scenario = dataclasses.replace(scenario, **value)
    return scenario
