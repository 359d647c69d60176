"""What goes wrong, done to a world: at a time, or by chance.

Gives   every fault of a scenario planned on the world's clock, its targets drawn when it comes,
        a note when it begins and when it ends, and the failure with whom it met
Never   undoes more than it did
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Final

from mesh.sim.failures import Failure, Failures
from mesh.sim.scenario import Fault, FaultKind, Whom
from mesh.sim.traffic import DAY_S
from mesh.sim.world import POWER_UP_SPREAD_S, World

_Undo = Callable[[], None]
_Done = tuple[Failure, _Undo | None]
"""What failed, and how it is mended; None for what mends itself."""


def plan(world: World, *, until: float) -> Failures:
    """Plan all faults of the world's scenario that begin before `until`.

    What is returned fills as they come.
    """
    failures = Failures()
    for index, fault in enumerate(world.scenario.faults):
        dice = world.chance.of(f"fault.{index}")
        if not fault.per_day:
            if fault.at_s < until:
                world.clock.at(fault.at_s, _bring(world, fault, dice, failures))
            continue
        rate = fault.per_day / DAY_S
        time = dice.expovariate(rate)
        while time < until:
            world.clock.at(time, _bring(world, fault, dice, failures))
            time += dice.expovariate(rate)
    return failures


def _bring(
    world: World, fault: Fault, dice: random.Random, failures: Failures
) -> Callable[[int], None]:
    def begin(_: int) -> None:
        failure, undo = _DOERS[fault.what](world, fault, dice)
        failures.began(failure)
        if undo is None:
            failures.ended(failure, at=world.clock.now + RESTART_S)
        elif fault.for_s:

            def end(_: int) -> None:
                world.note(f"{fault.kind} ends")
                failures.ended(failure, at=world.clock.now)
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


def _failure(
    world: World,
    fault: Fault,
    *,
    nodes: Sequence[int] = (),
    pairs: Sequence[tuple[int, int]] = (),
    centre: tuple[float, float] | None = None,
) -> Failure:
    return Failure(
        fault.what,
        world.clock.now,
        nodes=nodes,
        pairs=pairs,
        centre=centre,
        radius_m=fault.radius_m if centre is not None else 0.0,
        share=fault.share,
    )


def _crash(world: World, fault: Fault, dice: random.Random) -> _Done:
    numbers = _targets(world, fault, dice)
    undo = _without_power(world, numbers, dice, fault.kind)
    return _failure(world, fault, nodes=numbers), undo


def _area_off(world: World, fault: Fault, dice: random.Random) -> _Done:
    centre, around = _within(world, fault, dice)
    within = [number for number in around if world.is_up(number)]
    undo = _without_power(world, within, dice, fault.kind)
    return _failure(world, fault, nodes=within, centre=centre), undo


def _without_power(world: World, numbers: list[int], dice: random.Random, kind: str) -> _Undo:
    world.note(f"{kind}: {_named(world, numbers)} without power")
    for number in numbers:
        world.power_off(number)

    def undo() -> None:
        spread = POWER_UP_SPREAD_S if len(numbers) > 1 else 0.0
        for number in numbers:
            world.clock.at(world.clock.now + dice.random() * spread, world.power_on, number)

    return undo


def _restart(world: World, fault: Fault, dice: random.Random) -> _Done:
    numbers = _targets(world, fault, dice)
    world.note(f"restart: {_named(world, numbers)}")
    for number in numbers:
        world.power_off(number)
        world.clock.at(world.clock.now + RESTART_S, world.power_on, number)
    return _failure(world, fault, nodes=numbers), None


def _backhaul(world: World, fault: Fault, dice: random.Random) -> _Done:
    numbers = _targets(world, fault, dice)
    world.note(f"backhaul: {_named(world, numbers)} cut off from the head-end")
    for number in numbers:
        world.cut_backhaul(number, is_cut=True)

    def undo() -> None:
        for number in numbers:
            world.cut_backhaul(number, is_cut=False)

    return _failure(world, fault, nodes=numbers), undo


def _drift(world: World, fault: Fault, dice: random.Random) -> _Done:
    numbers = _targets(world, fault, dice)
    world.note(f"drift: {_named(world, numbers)} up to {fault.ppm:g} ppm off")
    for number in numbers:
        world.stations.set_drift(number, dice.uniform(-fault.ppm, fault.ppm))

    def undo() -> None:
        for number in numbers:
            world.stations.set_drift(number, 0)

    return _failure(world, fault, nodes=numbers), undo


def _link_fade(world: World, fault: Fault, dice: random.Random) -> _Done:
    pairs = [pair for pair in _pairs(world) if dice.random() < fault.share]
    world.note(f"link-fade: {len(pairs)} pairs lose {fault.loss_db:g} dB")
    return _failure(world, fault, pairs=pairs), _with_loss(world, pairs, fault.loss_db)


def _partition(world: World, fault: Fault, dice: random.Random) -> _Done:
    places = world.placement.places
    axis = 0 if _span(world, 0) >= _span(world, 1) else 1
    middle = sorted(place[axis] for place in places)[len(places) // 2]
    middle += dice.uniform(-0.1, 0.1) * _span(world, axis)
    is_low = [place[axis] < middle for place in places]
    pairs = [(a, b) for a, b in _pairs(world) if is_low[a] != is_low[b]]
    world.note(f"partition: {len(pairs)} pairs cut")
    failure = _failure(world, fault, pairs=pairs)
    failure.axis, failure.middle = axis, middle
    return failure, _with_loss(world, pairs, fault.loss_db)


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


def _jam(world: World, fault: Fault, dice: random.Random) -> _Done:
    centre, within = _within(world, fault, dice)
    world.note(f"jam: {fault.jam_dbm:g} dBm at {_named(world, within)}")
    undo = world.stations.medium.jam(within, fault.jam_dbm)
    return _failure(world, fault, nodes=within, centre=centre), undo


def _damage(world: World, fault: Fault, dice: random.Random) -> _Done:
    del dice
    world.note(f"damage: {fault.share:.1%} of frames")
    before = world.stations.damage_share
    world.stations.damage_share = fault.share

    def undo() -> None:
        world.stations.damage_share = before

    return _failure(world, fault), undo


def _double(world: World, fault: Fault, dice: random.Random) -> _Done:
    del dice
    world.note(f"double: {fault.share:.1%} of frames")
    before = world.stations.double_share
    world.stations.double_share = fault.share

    def undo() -> None:
        world.stations.double_share = before

    return _failure(world, fault), undo


def _within(
    world: World, fault: Fault, dice: random.Random
) -> tuple[tuple[float, float], list[int]]:
    """The place of a meter that is drawn, and all meters within the fault's radius of it."""
    centre = world.placement.places[dice.choice(world.meters)]
    reach = fault.radius_m**2
    return centre, [
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

_DOERS: Final[dict[FaultKind, Callable[[World, Fault, random.Random], _Done]]] = {
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
