"""A recorder and a keeper on files that a test can tear, with a clock that a test moves."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1, EndDeviceEventType
from amistack.model.programme import DemandRules, Programme, ProgrammeChannel
from amistack.model.quantity import Measured, Quantity
from amistack.model.tariff import DayType, Season, Switch, TariffCalendar
from meterd.clock import MeterClock
from meterd.metrology import Flow
from meterd.metrology.source import Energy
from meterd.metrology.supply import MadeUpSupply
from meterd.programme.fit import Abilities
from meterd.programme.keeper import ProgrammeKeeper
from meterd.recorder import Recorder
from meterd.storage import Storage
from tests.support.power import TornFiles

DAY = 86_400
TODAY = 20_700
MIDNIGHT = TODAY * DAY
"""UTC of some midnight, 2026-09-04."""


class FineSource:
    """Delivered and received energy in every five minutes, by its number; gaps on request."""

    interval_s = 300
    flows = (Flow.DELIVERED, Flow.RECEIVED)

    def __init__(self, *, known_from: int = MIDNIGHT - 2 * DAY, gaps: Sequence[int] = ()) -> None:
        self.known_from = known_from
        self.gaps = frozenset(gaps)

    def value(self, start: int, flow: Flow) -> int | None:
        """Wh in the five minutes from `start` on."""
        if start < self.known_from or start in self.gaps:
            return None
        number = start // self.interval_s
        return (number * 7919) % 211 if flow is Flow.DELIVERED else (number * 104_729) % 53

    def energy(self, start: int, count: int) -> list[Energy]:
        assert start % self.interval_s == 0
        return [
            tuple(self.value(start + i * self.interval_s, flow) for flow in self.flows)
            for i in range(count)
        ]

    def partial(self, start: int, now: float) -> Energy:
        share = min(max(now - start, 0.0), self.interval_s) / self.interval_s
        values = (self.value(start, flow) for flow in self.flows)
        return tuple(None if value is None else int(value * share) for value in values)

    def available(self) -> tuple[int | None, int | None]:
        return self.known_from, None


class Meter:
    """What can be killed and started again; `utc` is the time."""

    def __init__(
        self,
        *,
        utc: float = MIDNIGHT,
        offset_min: int = 0,
        interval_s: int = 3600,
        source: FineSource | None = None,
        files: TornFiles | None = None,
        memory_octets: int = 256 * 1024,
        has_supply: bool = False,
        on_change: Callable[[Programme, float], None] | None = None,
    ) -> None:
        self.files = files or TornFiles(random.Random(0))
        self.source = source or FineSource()
        self.offset_min = offset_min
        self.interval_s = interval_s
        self.memory_octets = memory_octets
        self.has_supply = has_supply
        self.on_change = on_change
        self.utc = utc
        self.start()

    def start(self) -> None:
        self.storage = Storage.on(self.files)
        self.recorder = Recorder(
            self.storage,
            self.source,
            offset_min=self.offset_min,
            register_start=(1_000, 2_000),
            interval_s=self.interval_s,
            supply=MadeUpSupply(self.source) if self.has_supply else None,
        )
        # Monotonic time is UTC here: one number less to think of.
        self.clock = MeterClock(utc=self.utc, now=self.utc)
        self.keeper = ProgrammeKeeper(
            self.storage,
            self.recorder,
            self.clock,
            abilities=Abilities.of(
                self.recorder.metering, offset_min=self.offset_min, memory_octets=self.memory_octets
            ),
            log=self.log,
            on_change=self.on_change,
        )
        self.recorder.advance(self.utc)

    def log(self, event: EndDeviceEventType, detail: str | None = None, *, now: float) -> object:
        return self.recorder.log(now, event, detail)

    def restart(self) -> None:
        self.files.kill()
        self.start()

    def run_until(self, utc: float) -> None:
        """Live until then, waking when a part wants to."""
        while True:
            due = min(
                self.recorder.next_due(self.utc) + 0.05, self.keeper.next_timer() or float("inf")
            )
            if due > utc:
                break
            self.utc = max(due, self.utc)
            self.recorder.advance(self.utc)
            self.keeper.handle_timer(now=self.utc)
        self.utc = utc
        self.recorder.advance(utc)
        self.keeper.handle_timer(now=utc)

    def ask(self, code: Code, payload: bytes = b"") -> Message:
        (resource,) = self.keeper.resources()
        request = Message.request(
            code,
            resource.path,
            payload=payload,
            content_format=None if code == Code.GET else CONTENT_FORMAT_V1,
        )
        return resource.answer(request, now=self.utc)

    def details(self, event: EndDeviceEventType) -> list[str | None]:
        """What the log says of an event type, in order."""
        entries = self.storage.entries(0, 2**32, limit=10_000)
        return [entry.detail for entry in entries if entry.event == event]


def channel(number: int, quantity: Quantity, minutes: int = 15, tier: int = 0) -> ProgrammeChannel:
    return ProgrammeChannel.of(number, Measured(quantity, tier), minutes * 60)


def programme(
    version: int = 1,
    *channels: ProgrammeChannel,
    applies_at: int = 0,
    offset_min: int = 0,
    calendar: TariffCalendar | None = None,
    demand: DemandRules | None = None,
    minutes: int = 15,
) -> Programme:
    return Programme(
        version,
        applies_at,
        offset_min,
        channels
        or (channel(1, Quantity.DELIVERED, minutes), channel(2, Quantity.RECEIVED, minutes)),
        calendar,
        demand,
    )


TWO_TIERS = TariffCalendar(
    (
        DayType((Switch(0, 1), Switch(7 * 60, 2), Switch(21 * 60 + 30, 1))),
        DayType((Switch(0, 1),)),
    ),
    (Season(1, 1, (0, 0, 0, 0, 0, 1, 1)),),
)
TARIFF_CHANNELS = (
    channel(1, Quantity.DELIVERED),
    channel(2, Quantity.RECEIVED),
    channel(11, Quantity.DELIVERED, 1440, 1),
    channel(12, Quantity.DELIVERED, 1440, 2),
)
