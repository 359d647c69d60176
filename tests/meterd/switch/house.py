"""A switch in a simulated service, with a clock of the test's, and power that can go."""

from __future__ import annotations

import random
from dataclasses import replace

from amistack.model import ClockReading, ClockState, EndDeviceEventType
from amistack.model.control import (
    Action,
    ControlAnswer,
    ControlCommand,
    LimitWindow,
    LoadLimit,
)
from meterd.metrology import ConstantSource
from meterd.service import Faults, SimulatedService
from meterd.storage import Storage
from meterd.switch import Switch
from tests.support.power import TornFiles

MONDAY = 20_696 * 86_400
"""2026-08-31 at midnight."""
OFFSET = float(MONDAY)


class Clock:
    """UTC is `now` and a bit; it can be lost, and jump."""

    def __init__(self) -> None:
        self.offset = OFFSET
        self.state = ClockState.SET

    def utc(self, now: float) -> float:
        return now + self.offset

    def when(self, utc: float) -> float:
        return utc - self.offset

    def reading(self, now: float) -> ClockReading:
        return ClockReading(int(self.utc(now)), self.state)


class House:
    """One meter's switch, from the storage up."""

    def __init__(self, *, watts: int = 500, seed: int = 0, has_load_sensor: bool = True) -> None:
        self.files = TornFiles(random.Random(seed))
        self.clock = Clock()
        self.now = 0.0
        self.log: list[tuple[str, str | None]] = []
        self.watts = watts
        self.has_load_sensor = has_load_sensor
        self.open()

    def open(self) -> None:
        """Make everything anew from the storage, as after a start."""
        self.storage = Storage.on(self.files)
        source = ConstantSource(watts=self.watts)
        self.service = SimulatedService(self.storage, source, utc=self.clock.utc)
        self.switch = Switch(
            self.storage,
            self.service,
            self.clock,
            log=self.take_event,
            has_load_sensor=self.has_load_sensor,
        )

    def take_event(self, event: EndDeviceEventType, detail: str | None) -> None:
        self.log.append((str(event), detail))

    def restart(self, *, faults: Faults | None = None, down_s: float = 60.0) -> None:
        """The program is killed; what is wrong with the service stays wrong."""
        kept = self.service.faults if faults is None else faults
        load_w = self.service.load_w
        self.files.kill()
        self.now += down_s
        self.open()
        self.service.load_w = load_w
        self.service.set_faults(kept, now=self.now)
        self.switch.start(now=self.now)

    def fault(self, **faults: int | bool) -> None:
        self.service.set_faults(replace(self.service.faults, **faults), now=self.now)

    def run(self, seconds: float) -> None:
        """Let time pass, waking the switch whenever it wants to be woken."""
        end = self.now + seconds
        woken = 0
        while (due := self.switch.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.switch.handle_timer(now=self.now)
            woken += 1
            assert woken < 200_000, "it never sleeps"
        self.now = end

    def command(
        self,
        sequence: int,
        action: Action,
        *,
        valid_s: int = 600,
        limit: LoadLimit | None = None,
    ) -> ControlAnswer:
        expires_s = int(self.clock.utc(self.now)) + valid_s
        return self.switch.command(ControlCommand(sequence, expires_s, action, limit), now=self.now)

    def events(self) -> list[str]:
        """What was logged since last asked."""
        found = [event for event, _ in self.log]
        self.log.clear()
        return found


def always(limit_w: int, **changed: int) -> LoadLimit:
    """A load limit all day, every day."""
    whole = LoadLimit(
        over_s=30,
        rest_s=300,
        closes_max=2,
        starts_s=0,
        ends_s=2**32 - 1,
        windows=(LimitWindow(0b111_1111, 0, 1_440, limit_w),),
    )
    return replace(whole, **changed)  # type: ignore[arg-type]  # its own fields
