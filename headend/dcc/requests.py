"""What was asked of collectors and is not answered yet.

Raises  TableFull at the bound
Limit   WAITING_MAX requests wait, each until its deadline
Never   gives a number out again while it waits, or takes an answer of another collector than asked
"""

from __future__ import annotations

from typing import Final

from amistack.errors import TableFull
from amistack.identifiers import Eui64
from headend.dcc.events import RequestNumber
from mesh.backhaul import Order

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


class Requests:
    """Every probe, trace and order under way."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._waiting: dict[RequestNumber, tuple[Eui64, float, Order | None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(
        self, collector: Eui64, *, deadline: float, order: Order | None = None
    ) -> RequestNumber:
        """A number for what is asked of a collector now, or ordered. Raises TableFull."""
        if len(self._waiting) >= WAITING_MAX:
            raise TableFull(f"{WAITING_MAX} requests to collectors wait already")
        number = self.number()
        self._waiting[number] = (collector, deadline, order)
        return number

    def number(self) -> RequestNumber:
        """A number that nothing under way has, for what nobody waits for."""
        while (number := self._numbers.take()) in self._waiting:
            pass
        return number

    def order_of(self, number: int) -> Order | None:
        """What was ordered under that number, if that is an order."""
        waiting = self._waiting.get(RequestNumber(number))
        return None if waiting is None else waiting[2]

    def end(self, number: int, collector: Eui64) -> bool:
        """Whether this collector was asked that, and had not answered."""
        waiting = self._waiting.get(RequestNumber(number))
        if waiting is None or waiting[0] != collector:
            return False
        del self._waiting[RequestNumber(number)]
        return True

    def lose(self, collector: Eui64) -> list[RequestNumber]:
        """A collector went away: nothing asked of it is answered any more."""
        lost = [number for number, (asked, *_) in self._waiting.items() if asked == collector]
        for number in lost:
            del self._waiting[number]
        return lost

    def expire(self, *, now: float) -> list[RequestNumber]:
        """Whose time is over."""
        over = [number for number, (_, deadline, _) in self._waiting.items() if deadline <= now]
        for number in over:
            del self._waiting[number]
        return over

    def next_timer(self) -> float | None:
        """When the next one's time is over."""
        return min((deadline for _, deadline, _ in self._waiting.values()), default=None)
