"""What goes wrong, done to a world: at a time, or by chance.

Gives   every fault of a scenario planned on the world's clock, its targets drawn when it comes,
        a note when it begins and when it ends
Never   undoes more than it did
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Final

from mesh.sim.scenario import Fault, FaultKind, Whom
from mesh.sim.traffic import DAY_S
from mesh.sim.world import POWER_UP_SPREAD_S, World

_Undo = Callable[[], None]


def plan(world: World, *, until: float) -> None:
    """Plan all faults of the world's scenario that begin before `until`."""
    for index, fault in enumerate(world.scenario.faults):
        dice = world.chance.of(f"fault.{index}")
        if not fault.per_day:
            if fault.at_s < until:
                world.clock.at(fault.at_s, _bring(world, fault, dice))
            continue
        rate = fault.per_day / DAY_S
        time = dice.expovariate(rate)
        while time < until:
            world.clock.at(time, _bring(world, fault, dice))
            time += dice.expovariate(rate)


def _bring(world: World, fault: Fault, dice: random.Random) -> Callable[[int], None]:
    def begin(_: int) -> None:
        undo = _DOERS[fault.what](world, fault, dice)
        if undo is not None and fault.for_s:

            def end(_: int) -> None:
                world.note(f"{fault.kind} ends")
                undo()

            world.clock.at(world.clock.now + fault.for_s, end)

    return begin


def _targets(world: World, fault: Fault, dice: random.Random) -> list[int]:
    pool: Collection[int] = world.meters
    if fault.target is Whom.RELAYS:
        pool = world.relays()
    elif fault.target is Whom.COLLECTORS:
        pool = world.collectors
    awake = [number for number in pool if world.is_up(number)]
    wanted = fault.count or round(fault.share * len(awake))
    return sorted(dice.sample(awake, min(len(awake), max(1, wanted) if awake else 0)))


def _crash(world: World, fault: Fault, dice: random.Random) -> _Undo:
    return _without_power(world, _targets(world, fault, dice), dice, fault.kind)


def _area_off(world: World, fault: Fault, dice: random.Random) -> _Undo:
    within = [number for number in _within(world, fault, dice) if world.is_up(number)]
    return _without_power(world, within, dice, fault.kind)


def _without_power(world: World, numbers: list[int], dice: random.Random, kind: str) -> _Undo:
    world.note(f"{kind}: {_named(world, numbers)} without power")
    for number in numbers:
        world.power_off(number)

    def undo() -> None:
        spread = POWER_UP_SPREAD_S if len(numbers) > 1 else 0.0
        for number in numbers:
            world.clock.at(world.clock.now + dice.random() * spread, world.power_on, number)

    return undo


def _restart(world: World, fault: Fault, dice: random.Random) -> None:
    numbers = _targets(world, fault, dice)
    world.note(f"restart: {_named(world, numbers)}")
    for number in numbers:
        world.power_off(number)
        world.clock.at(world.clock.now + RESTART_S, world.power_on, number)


def _backhaul(world: World, fault: Fault, dice: random.Random) -> _Undo:
    numbers = _targets(world, fault, dice)
    world.note(f"backhaul: {_named(world, numbers)} cut off from the head-end")
    for number in numbers:
        world.cut_backhaul(number, is_cut=True)

    def undo() -> None:
        for number in numbers:
            world.cut_backhaul(number, is_cut=False)

    return undo


def _drift(world: World, fault: Fault, dice: random.Random) -> _Undo:
    numbers = _targets(world, fault, dice)
    world.note(f"drift: {_named(world, numbers)} up to {fault.ppm:g} ppm off")
    for number in numbers:
        world.stations.set_drift(number, dice.uniform(-fault.ppm, fault.ppm))

    def undo() -> None:
        for number in numbers:
            world.stations.set_drift(number, 0)

    return undo


def _link_fade(world: World, fault: Fault, dice: random.Random) -> _Undo:
    pairs = [pair for pair in _pairs(world) if dice.random() < fault.share]
    world.note(f"link-fade: {len(pairs)} pairs lose {fault.loss_db:g} dB")
    return _with_loss(world, pairs, fault.loss_db)


def _partition(world: World, fault: Fault, dice: random.Random) -> _Undo:
    places = world.placement.places
    axis = 0 if _span(world, 0) >= _span(world, 1) else 1
    middle = sorted(place[axis] for place in places)[len(places) // 2]
    middle += dice.uniform(-0.1, 0.1) * _span(world, axis)
    is_low = [place[axis] < middle for place in places]
    pairs = [(a, b) for a, b in _pairs(world) if is_low[a] != is_low[b]]
    world.note(f"partition: {len(pairs)} pairs cut")
    return _with_loss(world, pairs, fault.loss_db)


def _pairs(world: World) -> list[tuple[int, int]]:
    """All pairs of which at least one hears the other, each once."""
    index = world.links.index
    return [
        (sender, receiver)
        for sender, row in enumerate(world.links.receivers)
        for receiver in row
        if sender < receiver or sender not in index[receiver]
    ]


def _with_loss(world: World, pairs: list[tuple[int, int]], loss_db: float) -> _Undo:
    def change(loss: float) -> None:
        for a, b in pairs:
            world.links.change_loss(a, b, loss)
            world.links.change_loss(b, a, loss)

    change(loss_db)
    return lambda: change(-loss_db)


def _jam(world: World, fault: Fault, dice: random.Random) -> _Undo:
    within = _within(world, fault, dice)
    world.note(f"jam: {fault.jam_dbm:g} dBm at {_named(world, within)}")
    return world.stations.medium.jam(within, fault.jam_dbm)


def _damage(world: World, fault: Fault, dice: random.Random) -> _Undo:
    del dice
    world.note(f"damage: {fault.share:.1%} of frames")
    before = world.stations.damage_share
    world.stations.damage_share = fault.share

    def undo() -> None:
        world.stations.damage_share = before

    return undo


def _double(world: World, fault: Fault, dice: random.Random) -> _Undo:
    del dice
    world.note(f"double: {fault.share:.1%} of frames")
    before = world.stations.double_share
    world.stations.double_share = fault.share

    def undo() -> None:
        world.stations.double_share = before

    return undo


def _within(world: World, fault: Fault, dice: random.Random) -> list[int]:
    """All meters within the fault's radius of one that is drawn."""
    centre = world.placement.places[dice.choice(world.meters)]
    reach = fault.radius_m**2
    return [
        number
        for number in world.meters
        if sum((a - b) ** 2 for a, b in zip(world.placement.places[number], centre, strict=True))
        <= reach
    ]


def _span(world: World, axis: int) -> float:
    values = [place[axis] for place in world.placement.places]
    return max(values) - min(values)


def _named(world: World, numbers: Collection[int]) -> str:
    if len(numbers) > NAMED_MAX:
        return f"{len(numbers)} nodes"
    return " ".join(node_name(world, number) for number in numbers) or "nobody"


def node_name(world: World, number: int) -> str:
    """`c1` for the first collector, `m1` for the first meter."""
    count = len(world.collectors)
    return f"c{number + 1}" if number < count else f"m{number - count + 1}"


NAMED_MAX: Final = 8
RESTART_S: Final = 2.0
"""A node that starts anew is back after so long."""

_DOERS: Final[dict[FaultKind, Callable[[World, Fault, random.Random], _Undo | None]]] = {
    FaultKind.CRASH: _crash,
    FaultKind.RESTART: _restart,
    FaultKind.AREA_OFF: _area_off,
    FaultKind.LINK_FADE: _link_fade,
    FaultKind.JAM: _jam,
    FaultKind.BACKHAUL: _backhaul,
    FaultKind.DRIFT: _drift,
    FaultKind.DAMAGE: _damage,
    FaultKind.DOUBLE: _double,
    FaultKind.PARTITION: _partition,
}
