"""How long those whose parent died take to come back: three clocks, read from outside.

Gives   for each orphan when it noticed, when it had a new parent, and when a collector that has
        a way to the head-end had a route to it over nodes that are alive
Limit   WATCH_S for an orphan; then it counts as not repaired
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mesh.sim.world import World

WATCH_S: Final = 4 * 3600.0
GRAIN_S: Final = 0.02
"""How often an orphan is looked at: all three clocks are right to this."""
GRAIN_COARSE_S: Final = 0.5
FINE_S: Final = 60.0


@dataclass(slots=True)
class Orphan:
    """A meter whose preferred parent lost power. Times in seconds of the world."""

    node: int
    parent: int
    died_at: float
    noticed_at: float | None = None
    """The dead one is its preferred parent no more."""
    adopted_at: float | None = None
    """It has another preferred parent, who lives."""
    routed_at: float | None = None
    is_gone: bool = False
    """It lost power itself, or nobody alive is in its reach: there is nothing to repair."""


class RepairWatch:
    """Follows the orphans of every death that it is told of."""

    def __init__(self, world: World) -> None:
        self.orphans: list[Orphan] = []
        self._world = world
        self._open: list[Orphan] = []
        self._is_planned = False

    def died(self, number: int, parents: list[int]) -> None:
        """A node lost power; `parents` are the preferred parents of all at that time."""
        now = self._world.clock.now
        for node, parent in enumerate(parents):
            if parent == number and self._world.is_up(node):
                orphan = Orphan(node, number, now)
                self.orphans.append(orphan)
                self._open.append(orphan)
        if self._open and not self._is_planned:
            self._is_planned = True
            self._world.clock.at(now + GRAIN_S, self._look)

    def _look(self, _: int) -> None:
        now = self._world.clock.now
        self._open = [orphan for orphan in self._open if self._is_open(orphan, now)]
        self._is_planned = bool(self._open)
        if self._open:
            is_fine = any(
                now - (orphan.noticed_at or orphan.died_at) < FINE_S for orphan in self._open
            )
            self._world.clock.at(now + (GRAIN_S if is_fine else GRAIN_COARSE_S), self._look)

    def _is_open(self, orphan: Orphan, now: float) -> bool:
        world = self._world
        machine = world.stations.machine(orphan.node)
        if machine is None:
            orphan.is_gone = orphan.routed_at is None
            return False
        if now - orphan.died_at > WATCH_S:
            return False
        if orphan.adopted_at is None:
            found = world.router.parents(machine)
            preferred = found[0] if found else -1
            # One that came back to life is a parent as good as any.
            if preferred == orphan.parent and not world.is_up(orphan.parent):
                return True
            if orphan.noticed_at is None:
                orphan.noticed_at = now
            if preferred < 0 or not world.is_up(preferred):
                return True
            orphan.adopted_at = now
        if not self._is_routed(orphan.node):
            return True
        orphan.routed_at = now
        return False

    def _is_routed(self, node: int) -> bool:
        world = self._world
        for collector in world.collectors:
            machine = world.stations.machine(collector)
            if machine is not None:
                way = world.router.route(machine, node, now=world.stations.own_time(collector))
                if way is not None and all(world.is_up(relay) for relay in way):
                    return True
        return False
