"""What was asked of collectors and is not answered yet.

Raises  TableFull at the bound
Limit   WAITING_MAX requests wait, each until its deadline
Never   gives a number out again while it waits; takes a row of a trace twice, or one that its way
        has not
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amistack.errors import TableFull
from amistack.identifiers import Eui64
from headend.dcc.events import RequestNumber
from mesh.backhaul import CommandDone, Order, Probed, Traced

WAITING_MAX: Final = 4_096
NUMBER_MAX: Final = 0xFFFF_FFFF


class Numbers:
    """One line of request numbers for all that is asked, going round."""

    def __init__(self) -> None:
        self._last = 0

    def take(self) -> RequestNumber:
        """The next one."""
        self._last = self._last % NUMBER_MAX + 1
        return RequestNumber(self._last)


@dataclass(slots=True)
class _Waiting:
    """One request; of a trace how many rows it may have, and which one came last."""

    collector: Eui64
    deadline: float
    order: Order | None
    row_count_max: int | None
    row: int = 0


class Requests:
    """Every probe, trace and order under way."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._waiting: dict[RequestNumber, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(
        self,
        collector: Eui64,
        *,
        deadline: float,
        order: Order | None = None,
        row_count_max: int | None = None,
    ) -> RequestNumber:
        """A number for what is asked of a collector now, or ordered. Raises TableFull.

        `row_count_max` is for a trace: the nodes that there are to ask.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise TableFull(f"{WAITING_MAX} requests to collectors wait already")
        number = self.number()
        self._waiting[number] = _Waiting(collector, deadline, order, row_count_max)
        return number

    def number(self) -> RequestNumber:
        """A number that nothing under way has, for what nobody waits for."""
        while (number := self._numbers.take()) in self._waiting:
            pass
        return number

    def order_of(self, number: int) -> Order | None:
        """What was ordered under that number, if that is an order."""
        waiting = self._waiting.get(RequestNumber(number))
        return None if waiting is None else waiting.order

    def is_trace(self, number: int) -> bool:
        """Whether a trace under way has that number."""
        waiting = self._waiting.get(RequestNumber(number))
        return waiting is not None and waiting.row_count_max is not None

    def is_asked(self, number: int, collector: Eui64) -> bool:
        """Whether this collector was asked that, and has not answered."""
        waiting = self._waiting.get(RequestNumber(number))
        return waiting is not None and waiting.collector == collector

    def kind_of(self, number: int) -> type[Probed | Traced | CommandDone]:
        """What answers that request, which is under way."""
        waiting = self._waiting[RequestNumber(number)]
        if waiting.order is not None:
            return CommandDone
        return Probed if waiting.row_count_max is None else Traced

    def take_row(self, number: int, row: int) -> bool:
        """Whether a trace may have that row now: they come in order, if not all of them."""
        waiting = self._waiting[RequestNumber(number)]
        if not waiting.row < row <= (waiting.row_count_max or 0):
            return False
        waiting.row = row
        return True

    def end(self, number: int) -> None:
        """It has its answer, or never will."""
        del self._waiting[RequestNumber(number)]

    def lose(self, collector: Eui64) -> list[RequestNumber]:
        """A collector went away: nothing asked of it is answered any more."""
        lost = [number for number, one in self._waiting.items() if one.collector == collector]
        for number in lost:
            del self._waiting[number]
        return lost

    def expire(self, *, now: float) -> list[RequestNumber]:
        """Whose time is over."""
        over = [number for number, one in self._waiting.items() if one.deadline <= now]
        for number in over:
            del self._waiting[number]
        return over

    def next_timer(self) -> float | None:
        """When the next one's time is over."""
        return min((one.deadline for one in self._waiting.values()), default=None)
