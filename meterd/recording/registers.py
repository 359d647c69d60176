"""The registers as a part of the meter: read at any moment, the demand reset by command.

    GET  /regs                2.05 registers: energy by tariff, demand with time and periods
    POST /regs   demand reset 2.04 registers after it; 4.09 for another count, or within a day

Raises  ModelError on a payload that is no command; StoreError when the storage fails
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model.event_catalogue import DEMAND_RESET
from amistack.model.registers import (
    DemandReading,
    DemandReset,
    PeakPeriod,
    RegisterReading,
    RegistersAnswer,
    peak_type,
)
from amistack.model.resources import REGISTERS
from meterd.clock import MeterClock
from meterd.parts import Log, Resource, granted, refused, unfit
from meterd.recorder import Recorder
from meterd.recording.demand import DemandPeriod
from meterd.storage import Storage


class RegistersPart:
    """What one meter's registers show."""

    def __init__(
        self, storage: Storage, recorder: Recorder, clock: MeterClock, *, log: Log
    ) -> None:
        self._storage = storage
        self._recorder = recorder
        self._clock = clock
        self._log = log
        self._resources: Final = (_RegistersResource(self),)

    def read(self, *, now: float) -> RegistersAnswer:
        """All registers at `now`."""
        utc = self._clock.utc(now)
        self._recorder.advance(utc)
        types = {one.number: one.register_type for one in self._recorder.channels}
        return RegistersAnswer(
            self._clock.reading(now),
            tuple(
                RegisterReading(types[number], value)
                for number, value in self._recorder.registers(utc)
            ),
            self._demand(),
        )

    def reset(self, count: int, *, now: float) -> str | None:
        """Make it `count` resets of the demand; why not, or None."""
        demand = self._recorder.demand
        if demand.reset_count == count:
            return None
        if demand.reset_count != count - 1:
            return f"{demand.reset_count} resets so far, not {count - 1}"
        utc = self._clock.utc(now)
        self._recorder.advance(utc)
        with self._storage.together():
            if not demand.reset(int(utc)):
                return "reset less than a day ago"
            self._log(DEMAND_RESET, "by command", now=now)
        return None

    def _demand(self) -> DemandReading | None:
        demand, rules = self._recorder.demand, self._recorder.demand_rules
        if rules is None:
            return None
        running = demand.period
        return DemandReading(
            peak_type(rules),
            _period(running),
            tuple(_period(one) for one in demand.periods),
            running.cumulative,
            demand.reset_count,
        )

    # As a part

    def resources(self) -> Sequence[Resource]:
        """The one path."""
        return self._resources

    def handle_timer(self, *, now: float) -> None:
        """Nothing is ever due: the recorder counts."""

    def next_timer(self) -> float | None:
        """Never."""
        return None


class _RegistersResource:
    """What the head-end may ask of the registers."""

    path: Final = REGISTERS
    kind: Final = "amistack.registers"

    def __init__(self, part: RegistersPart) -> None:
        self._part = part

    def answer(self, message: Message, *, now: float) -> Message:
        """The answer to a request."""
        wrong = unfit(message, Code.GET, Code.POST)
        if wrong is not None:
            return wrong
        if message.code == Code.GET:
            return granted(Code.CONTENT, self._part.read(now=now).encode())
        reason = self._part.reset(DemandReset.decode(message.payload).reset_count, now=now)
        if reason is not None:
            return refused(Code.CONFLICT, reason)
        return granted(Code.CHANGED, self._part.read(now=now).encode())


def _period(period: DemandPeriod) -> PeakPeriod:
    return PeakPeriod(period.since, period.until, period.peak, period.peak_at)
