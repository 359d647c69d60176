"""What a collector finds when it is back: whom it reaches, and who had to seek a new place.

Gives   for each return of a collector, which meters were read within LIMIT_S of it, and which were
        without a parent at some time since it went
Limit   one return at a time; who comes back before LIMIT_S of another are over is not followed
Never   asks a table whether somebody is reachable: each meter is read
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mesh.sim.traffic import Exchange, Kind
from mesh.sim.world import World

LIMIT_S: Final = 120.0
READ_FROM_S: Final = 30.0
READ_UNTIL_S: Final = 90.0
"""Between these, after the return, every meter is asked once; retries go on as ever."""
LOOK_EVERY_S: Final = 1.0


@dataclass(slots=True)
class Return:
    """One collector that was away."""

    collector: int
    went_at: float
    back_at: float | None = None
    reads: list[Exchange] = field(default_factory=list)
    detached: set[int] = field(default_factory=set)

    @property
    def reached(self) -> int:
        """How many meters were read in time."""
        assert self.back_at is not None
        limit = self.back_at + LIMIT_S
        return sum(read.done_at is not None and read.done_at <= limit for read in self.reads)


class ReturnWatch:
    """Follows the collectors of a world."""

    def __init__(self, world: World) -> None:
        self.returns: list[Return] = []
        self._world = world
        self._dice = world.chance.of("returns")
        self._open: Return | None = None

    def died(self, number: int, parents: list[int]) -> None:
        """A node lost power."""
        del parents
        world = self._world
        if number in world.collectors and self._open is None:
            self._open = Return(number, world.clock.now)
            self._look(0)

    def came_back(self, number: int) -> None:
        """A node has power again."""
        one, world = self._open, self._world
        if one is None or one.collector != number or one.back_at is not None:
            return
        one.back_at = now = world.clock.now
        self.returns.append(one)
        for meter in world.meters:
            world.clock.at(now + self._dice.uniform(READ_FROM_S, READ_UNTIL_S), self._read, meter)
        world.clock.at(now + LIMIT_S, self._end)

    def _read(self, meter: int) -> None:
        read = self._world.traffic.begin(Kind.REQUEST, meter)
        if read is not None and self._open is not None:
            self._open.reads.append(read)

    def _look(self, _: int) -> None:
        one, world = self._open, self._world
        if one is not None:
            parents = world.parents()
            one.detached.update(
                meter for meter in world.meters if parents[meter] < 0 and world.is_up(meter)
            )
            world.clock.at(world.clock.now + LOOK_EVERY_S, self._look)

    def _end(self, _: int) -> None:
        self._open = None
