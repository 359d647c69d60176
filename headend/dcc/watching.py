"""Who waits for what the center tells: answers of collectors, rows of traces, isolations.

In      `take`, each event that somebody may wait for; `stop`
Gives   what was asked for, step by step as it is known
Raises  NotThere for a collector that is not connected or gave no answer, TooMany at a bound
Limit   WATCHED_MAX steps that wait for a slow reader; neither a trace nor an isolation has so many
Never   keeps anything for who has gone away
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from amistack.errors import TableFull
from amistack.identifiers import Eui64, format_eui64
from headend.dcc.center import Center
from headend.dcc.events import Answer, Isolated, RequestEnded, RequestNumber, RowTraced, Tried
from headend.domain.refusals import NotThere, TooMany

WATCHED_MAX: Final = 512

Begin = Callable[[], RequestNumber | None]


class Watching:
    """Everybody who waits, at one center."""

    def __init__(
        self, center: Center, *, now: Callable[[], float], settle: Callable[[], None]
    ) -> None:
        """`settle` is called after each command to the center."""
        self._center = center
        self._now = now
        self._settle = settle
        self._asked: dict[RequestNumber, asyncio.Queue[RowTraced | RequestEnded]] = {}
        self._isolated: dict[Eui64, list[asyncio.Queue[Tried | Isolated]]] = {}

    def __len__(self) -> int:
        return len(self._asked) + sum(map(len, self._isolated.values()))

    async def ask(self, collector: Eui64, begin: Begin) -> Answer:
        """What a collector answers to the question that `begin` puts. Raises NotThere, TooMany."""
        return [answer async for answer in self.answers(collector, begin)][-1]

    async def answers(self, collector: Eui64, begin: Begin) -> AsyncIterator[Answer]:
        """The same, and before the answer each row of a trace. Raises NotThere, TooMany."""
        try:
            number = begin()
        except TableFull as error:
            raise TooMany(str(error)) from error
        if number is None:
            raise NotThere(f"collector {format_eui64(collector)} is not connected")
        queue = self._asked[number] = asyncio.Queue(WATCHED_MAX)
        try:
            self._settle()
            while isinstance(event := await queue.get(), RowTraced):
                yield event.row
        finally:
            del self._asked[number]
        if event.answer is None:
            raise NotThere(f"collector {format_eui64(collector)} gave no answer")
        yield event.answer

    async def isolate(self, meter: Eui64) -> AsyncIterator[Tried | Isolated]:
        """Find out why a meter is silent: each step, and the end. Raises MeshError, TooMany."""
        queue: asyncio.Queue[Tried | Isolated] = asyncio.Queue(WATCHED_MAX)
        watching = self._isolated.setdefault(meter, [])
        watching.append(queue)
        try:
            self._center.isolate(meter, now=self._now())
            self._settle()
            while True:
                event = await queue.get()
                yield event
                if isinstance(event, Isolated):
                    return
        finally:
            watching.remove(queue)
            if not watching:
                del self._isolated[meter]
                self._center.give_up_isolation(meter)

    def take(self, event: RowTraced | RequestEnded | Tried | Isolated) -> None:
        """Tell who waits for it, if there is anybody."""
        match event:
            case RowTraced() | RequestEnded():
                asked = self._asked.get(event.request)
                if asked is not None and not asked.full():
                    asked.put_nowait(event)
            case Tried() | Isolated():
                for queue in self._isolated.get(event.meter, ()):
                    if not queue.full():
                        queue.put_nowait(event)

    def stop(self) -> None:
        """The head-end is stopping: nothing more will come."""
        for number in self._asked:
            self.take(RequestEnded(number, None))
        for meter in self._isolated:
            self.take(Isolated(meter, None, "the head-end is stopping"))
