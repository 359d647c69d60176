"""Failures made on purpose, one at a time, and what an isolation says of each.

In      `start`; the world's clock does the rest
Out     `cases`, `is_done`
Limit   one isolation at a time, ISOLATION_S_MAX long; a case that nobody can be found for is left
        out and noted
Never   tells an isolation what was broken, or probes but by frames

In each case a part of the best way to some meter fails and the meter is isolated, with what the
head-end knew before. The verdict is judged, what failed is mended, and the network has time to
settle.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from amistack.identifiers import Eui64
from mesh.routing.profile import load_profile
from mesh.sim.equal_causes import Around, is_told_apart
from mesh.sim.equal_causes import Component as Plain
from mesh.sim.knowledge import what_the_head_end_knows
from mesh.sim.probes import Probes
from mesh.sim.scenario import Isolations
from mesh.sim.world import World
from mesh.topology.dcc import Dcc
from mesh.topology.facts import Backhaul
from mesh.topology.isolate import Isolation
from mesh.topology.location import BehindCollector
from mesh.topology.paths import (
    BACKHAUL,
    LINK,
    Component,
    Part,
    Path,
    backhaul_component,
    link_component,
    node_component,
)
from mesh.topology.verdicts import Outcome, Probe, Verdict

FADE_DB: Final = 200.0
NOTICED_S: Final = 60.0
"""From the failure to the first probe: somebody asked the meter, again and again, in vain."""
ISOLATION_S_MAX: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Case:
    """One failure, and what was said of it."""

    part: Part
    meter: int
    failed: Component
    began_at: float
    took_s: float
    verdict: Verdict | None
    is_right: bool
    """What failed is named, and with it at most what no probe can tell from it."""
    is_wrong_certain: bool
    """Called certain, and what failed is not named."""


class IsolationCases:
    """As many cases of each part as are asked for."""

    def __init__(self, world: World, wanted: Isolations) -> None:
        self.cases: list[Case] = []
        self._world = world
        self._probes = Probes(world)
        self._dice = world.chance.of("isolations")
        self._settle_s = wanted.settle_s
        self._until = 0.0
        self._hop_rank_increase = load_profile(world.scenario.profile).dodag.hop_rank_increase_min
        # In turn, so that a run that is cut short has some of each.
        self._wanted = [part for _ in range(wanted.each) for part in Part][::-1]
        self._is_running = False

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self._wanted and not self._is_running

    def start(self, *, until: float) -> None:
        """Begin with the first case now; none begins after `until`."""
        self._until = until
        self._next(0)

    def counts(self) -> Mapping[Part, tuple[int, int, int]]:
        """Of each part how many cases, how many right, how many wrong though called certain."""
        cases = Counter(case.part for case in self.cases)
        right = Counter(case.part for case in self.cases if case.is_right)
        wrong = Counter(case.part for case in self.cases if case.is_wrong_certain)
        return {part: (cases[part], right[part], wrong[part]) for part in Part}

    def _next(self, _: int) -> None:
        if not self._wanted or self._world.clock.now > self._until:
            return
        part = self._wanted.pop()
        world = self._world
        dcc = what_the_head_end_knows(world, hop_rank_increase=self._hop_rank_increase)
        drawn = _draw(world, dcc, part, self._dice)
        if drawn is None:
            world.note(f"isolation: nobody's way has a {part.value} that could fail")
            self._next(0)
            return
        path, failed = drawn
        self._is_running = True
        began_at = world.clock.now
        around = _around(world, dcc)
        mend = _break(world, failed)
        if part in (Part.COLLECTOR, Part.BACKHAUL):
            dcc.set_backhaul(path.collector, Backhaul.DOWN, now=began_at)

        def ended(verdict: Verdict | None) -> None:
            mend()
            self._is_running = False
            self.cases.append(_judged(world, part, path, failed, began_at, verdict, around))
            world.clock.at(world.clock.now + self._settle_s, self._next)

        def begin(_: int) -> None:
            Drive(world, self._probes, dcc, path.destination, ended).go_on()

        world.clock.at(began_at + NOTICED_S, begin)


class Drive:
    """One isolation, from its first probe to its verdict."""

    def __init__(
        self,
        world: World,
        probes: Probes,
        dcc: Dcc,
        meter: Eui64,
        ended: Callable[[Verdict | None], None],
    ) -> None:
        self._world = world
        self._probes = probes
        self._ended = ended
        self._is_over = False
        self._give_up_at = world.clock.now + ISOLATION_S_MAX
        self._isolation: Isolation = dcc.isolate(
            meter, now=world.clock.now, can_probe_collectors=True
        )

    def go_on(self, _: int = 0) -> None:
        """Do what is to be done now."""
        if self._is_over:
            return
        now = self._world.clock.now
        self._isolation.handle_timer(now=now)
        while (probe := self._isolation.probe_to_send(now=now)) is not None:
            self._probes.ask(probe.path, self._taker(probe))
        verdict = self._isolation.verdict()
        if verdict is not None or now >= self._give_up_at:
            self._is_over = True
            self._ended(verdict)
            return
        due = self._isolation.next_timer()
        if due is not None:
            self._world.clock.at(max(now, due), self.go_on)

    def _taker(self, probe: Probe) -> Callable[[Outcome], None]:
        def take(outcome: Outcome) -> None:
            self._isolation.take_outcome(probe.number, outcome)
            self.go_on()

        return take


def _draw(world: World, dcc: Dcc, part: Part, dice: random.Random) -> tuple[Path, Component] | None:
    """The way to some meter, and what fails on it; None where nobody's has such a part."""
    for number in dice.sample(world.meters, len(world.meters)):
        path = _way(dcc, world.stations.addresses[number])
        if path is None or not world.is_up(number):
            continue
        if part is Part.METER:
            return path, node_component(path.destination)
        if part is Part.COLLECTOR:
            return path, node_component(path.collector)
        if part is Part.BACKHAUL:
            return path, backhaul_component(path.collector)
        if part is Part.LINK:
            at = dice.randrange(path.hops)
            return path, link_component(path.nodes[at], path.nodes[at + 1])
        if path.relays:
            return path, node_component(dice.choice(path.relays))
    return None


def _way(dcc: Dcc, meter: Eui64) -> Path | None:
    """The way by which the head-end asks a meter: from the collector that it told its parents."""
    location = dcc.locations.find(meter)
    if location is None or not isinstance(location.place, BehindCollector):
        return None
    best = dcc.routes.route_of(meter)
    if best is not None and best.collector == location.place.collector:
        return best
    return dcc.routes.way_by(location.place.collector, meter)


def _break(world: World, failed: Component) -> Callable[[], None]:
    """Let a component fail; call what is returned to mend it."""
    numbers = [world.stations.numbers[end] for end in failed.ends]
    if failed.kind == LINK:
        links = world.links
        pairs = (numbers, numbers[::-1])

        def change(loss_db: float) -> None:
            for sender, receiver in pairs:
                links.change_loss(sender, receiver, loss_db)

        change(FADE_DB)
        return lambda: change(-FADE_DB)
    (number,) = numbers
    if failed.kind == BACKHAUL:
        world.cut_backhaul(number, is_cut=True)
        return lambda: world.cut_backhaul(number, is_cut=False)
    world.power_off(number)
    return lambda: world.power_on(number)


def _around(world: World, dcc: Dcc) -> Around:
    """Who is known as whose neighbour, as plain numbers, before anything fails."""
    graph, numbers = dcc.graph, world.stations.numbers
    return {
        numbers[graph.eui_of(index)]: {numbers[graph.eui_of(other)] for other in graph.costs[index]}
        for index in graph.nodes()
    }


def _judged(
    world: World,
    part: Part,
    path: Path,
    failed: Component,
    began_at: float,
    verdict: Verdict | None,
    around: Around,
) -> Case:
    """The case, judged by what no probe can tell apart."""
    named = [] if verdict is None else [cause.component for cause in verdict.causes]
    is_named = failed in named
    truth = _plain(world, failed)
    is_close = not any(
        is_told_apart(truth, _plain(world, other), around, world.collectors)
        for other in named
        if other != failed
    )
    return Case(
        part,
        world.stations.numbers[path.destination],
        failed,
        began_at,
        world.clock.now - began_at,
        verdict,
        is_right=is_named and is_close,
        is_wrong_certain=verdict is not None and verdict.is_certain and not is_named,
    )


def _plain(world: World, component: Component) -> Plain:
    ends = sorted(world.stations.numbers[end] for end in component.ends)
    return component.kind, tuple(ends)
