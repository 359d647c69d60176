"""Scenarios as text: commands above the rule, what became of them below it.

    nodes c1 m1..m4       the nodes; then links, one or more a line
    link c1-m1-m2 0.9     a chain of links with this reception ratio (0.999 if it is left out)
    start                 everybody gets power; nothing before it takes time
    fade m1-m2, mend m1-m2, kill m2, revive m2, restart m2, cut c1, uncut c1
    read m4, isolate m4, advance 60s

A block is commands, a rule of four dashes, what happened, and an empty line. What happened is:
reads as they end, isolations, changes of preferred parents by the second, and after `advance` the
tree. `run` gives back the whole text as it should be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

from mesh.routing.profile import load_profile
from mesh.sim.isolations import Drive
from mesh.sim.knowledge import what_the_head_end_knows
from mesh.sim.probes import Probes
from mesh.sim.traffic import Exchange, Kind
from mesh.sim.world import World
from mesh.topology.dcc import Dcc
from mesh.topology.facts import Backhaul
from mesh.topology.verdicts import Verdict
from tests.mesh.sim.laid import LOSS_DB, change, laid

RULE: Final = "----"
PROFILE: Final = "lab"


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

    def do(self, command: str) -> Iterator[str]:
        """Carry a command out; what is to be said of it."""
        if not command.startswith("#"):
            word, *rest = command.split()
            doers: dict[str, Callable[..., None]] = {
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
        increase = load_profile(PROFILE).dodag.hop_rank_increase_min
        world.run_until(world.clock.now + float(seconds.rstrip("s")))
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
                    self._say(f"{self._name(number)} parent {self._name(parent)}")
        self._parents = parents
        world.clock.at(world.clock.now + 1, self._look)

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
        up = [meter for meter in world.meters if world.is_up(meter)]
        routed = sum(self._is_routed(meter) for meter in up)
        yield f"{routed} of {len(up)} meters have a route"

    def _is_routed(self, meter: int) -> bool:
        world = self._need()
        for collector in world.collectors:
            root = world.stations.machine(collector)
            if root is not None and world.is_connected(collector):
                way = world.router.route(root, meter, now=world.stations.own_time(collector))
                if way is not None and all(world.is_up(node) for node in way):
                    return True
        return False
