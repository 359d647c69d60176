"""What the tests of streams share: machines, and a way to wait for what they report."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

from amistack.framing import TCP, Event, FramedPeer
from amistack.framing.carriers import Carrier
from amistack.identifiers import Eui64
from amistack.links.streams import StreamLink

HEAD_END = Eui64(bytes.fromhex("70b3d5fffe0000aa"))
COLLECTOR = Eui64(bytes.fromhex("70b3d5fffe0000bb"))
WAIT_MAX = 10.0
RUNS = itertools.count(1)


class Notes:
    """A callback that notes events, and lets a test wait for some."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.links: list[StreamLink[Event]] = []
        self._changed = asyncio.Event()

    def __call__(self, link: StreamLink[Event], event: Event, /) -> None:
        self.events.append(event)
        self.links.append(link)
        self._changed.set()

    def of(self, kind: type) -> list[object]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_MAX):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def wait_for(self, kind: type, count: int = 1) -> list[object]:
        await self.until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)


class Maker:
    """Makes framed peers, and keeps them for the test."""

    def __init__(
        self,
        own: Eui64,
        carrier: Carrier = TCP,
        *,
        silence_max: int = 90,
        expected: Eui64 | None = None,
        is_watched: bool = False,
    ) -> None:
        self._own = own
        self._carrier = carrier
        self._silence_max = silence_max
        self._expected = expected
        self._is_watched = is_watched
        self.made: list[FramedPeer] = []

    def __call__(self, link: StreamLink[Event], /, *, now: float) -> FramedPeer:
        machine = FramedPeer(
            self._own,
            self._carrier,
            now=now,
            run=next(RUNS),
            expected=self._expected,
            silence_max=self._silence_max,
            is_watched=self._is_watched,
        )
        self.made.append(machine)
        return machine


class Plain:
    """A machine that does what a test tells it, and notes what it is given."""

    def __init__(self, deadlines: Sequence[float] = ()) -> None:
        self.deadlines = list(deadlines)
        self.received = b""
        self.wakeups: list[float] = []
        self.out = b""
        self.asked: list[int | None] = []
        self.reports: list[bytes] = []
        self.is_over = False

    def receive_data(self, data: bytes, *, now: float) -> None:
        self.received += data
        self.reports.append(data)

    def handle_timer(self, *, now: float) -> None:
        self.wakeups.append(now)
        while self.deadlines and self.deadlines[0] <= now:
            self.deadlines.pop(0)
            self.reports.append(b"due")

    def data_to_send(self, room: int | None = None) -> list[bytes]:
        self.asked.append(room)
        taken, self.out = self.out[:room], self.out[len(self.out[:room]) :]
        return [taken] if taken else []

    def events(self) -> list[bytes]:
        reports, self.reports = self.reports, []
        return reports

    def next_timer(self) -> float | None:
        return self.deadlines[0] if self.deadlines else None

    def close(self, *, now: float) -> None:
        self.is_over = True
        self.reports.append(b"closed")

    def end(self, *, now: float) -> None:
        self.reports.append(b"ended")
        self.is_over = True
