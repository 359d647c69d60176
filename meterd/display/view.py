"""What a meter's display shows, as one value, and what is behind it.

Gives   `View`, which goes through a door as a line of JSON; `Viewer`, which gathers it
Raises  nothing: what cannot be kept is shown all the same, and a key then does nothing
Never   shows anything secret
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from amistack.errors import SourceError, StoreError
from amistack.model import Channel, FlowDirection, register_energy
from meterd.display.mailbox import Clock, Mailbox
from meterd.metrology import Energy, Flow, Source
from meterd.service import Service
from meterd.switch import Switch


@dataclass(frozen=True, slots=True)
class Note:
    """A text message on the display."""

    text: str
    is_to_acknowledge: bool


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show. Energy in Wh, power in W, None for what is not known.

    `at` is UTC in seconds, `offset_min` the meter's fixed standard time. `interval_used_wh` and
    `interval_returned_wh` are of the last interval that has ended. `demand_w` is below 0 while
    energy is returned. `position` and `outcome` are the switch's, None without one.
    """

    meter: str
    at: int
    offset_min: int
    clock: str
    used_wh: int | None
    returned_wh: int | None
    interval_s: int
    interval_used_wh: int | None
    interval_returned_wh: int | None
    demand_w: int | None
    position: str | None
    outcome: str | None
    messages: tuple[Note, ...] = ()

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> View:
        """The view that `to_json` wrote. Raises ValueError."""
        try:
            fields: dict[str, Any] = json.loads(line)
            notes = tuple(Note(**note) for note in fields.pop("messages"))
            return cls(**fields, messages=notes)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no view: {error}") from error


class Registers(Protocol):
    """What a display needs of the recorder."""

    @property
    def channels(self) -> Sequence[Channel]: ...

    def registers(self, utc: float) -> tuple[tuple[int, int], ...]: ...


class Viewer:
    """Gathers what there is to show."""

    def __init__(
        self,
        *,
        meter: str,
        offset_min: int,
        clock: Clock,
        registers: Registers,
        source: Source,
        mailbox: Mailbox,
        service: Service | None = None,
        switch: Switch | None = None,
    ) -> None:
        self._meter = meter
        self._offset_min = offset_min
        self._clock = clock
        self._registers = registers
        self._source = source
        self._mailbox = mailbox
        self._service = service
        self._switch = switch

    def look(self, *, now: float) -> View:
        """What there is to show; its messages count as shown."""
        utc = self._clock.utc(now)
        messages = self._mailbox.in_force(now=now)
        with contextlib.suppress(StoreError):  # They are shown all the same, and marked later.
            self._mailbox.mark_shown([one.identifier for one in messages], now=now)
        used, returned = self._totals(utc)
        interval_used, interval_returned = self._last_interval(utc)
        state = None if self._switch is None else self._switch.state(now=now)
        return View(
            self._meter,
            int(utc),
            self._offset_min,
            self._clock.reading(now).state.name.lower(),
            used,
            returned,
            self._interval_s,
            interval_used,
            interval_returned,
            self._demand(utc, now),
            None if state is None else state.position.name.lower(),
            None if state is None else state.outcome.name.lower(),
            tuple(Note(one.text, one.is_to_acknowledge) for one in messages),
        )

    def press_button(self, *, now: float) -> None:
        """The one button of a meter: a message that waits for a sign first, the switch after."""
        is_asked = any(one.is_to_acknowledge for one in self._mailbox.in_force(now=now))
        self.press("acknowledge" if is_asked else "close", now=now)

    def press(self, key: str, *, now: float) -> None:
        """A key at the meter: `acknowledge` a message, or `close` a switch that is armed."""
        with contextlib.suppress(StoreError):  # What cannot be kept is not done.
            if key == "acknowledge":
                self._mailbox.acknowledge(now=now)
            elif key == "close" and self._switch is not None:
                self._switch.press(now=now)

    def _totals(self, utc: float) -> tuple[int | None, int | None]:
        """The registers of energy used and returned."""
        try:
            found = dict(self._registers.registers(utc))
        except SourceError:
            return None, None
        shown: dict[FlowDirection, int | None] = {}
        for flow in (FlowDirection.FORWARD, FlowDirection.REVERSE):
            total = register_energy(flow)
            numbers = [one.number for one in self._registers.channels if one.register_type == total]
            shown[flow] = found.get(numbers[0]) if numbers else None
        return shown[FlowDirection.FORWARD], shown[FlowDirection.REVERSE]

    def _last_interval(self, utc: float) -> tuple[int | None, int | None]:
        step = self._source.interval_s
        start = _boundary(utc, self._interval_s, self._offset_min) - self._interval_s
        try:
            parts = self._source.energy(start, self._interval_s // step)
        except SourceError:
            return None, None
        used = [self._of(energy, Flow.DELIVERED) for energy in parts]
        returned = [self._of(energy, Flow.RECEIVED) for energy in parts]
        return _sum(used), _sum(returned)

    def _demand(self, utc: float, now: float) -> int | None:
        """The power now where it is measured; else the mean of the running interval so far."""
        if self._service is not None:
            return self._service.measure(now=now).power_w
        begin = _boundary(utc, self._source.interval_s, self._offset_min)
        if utc - begin < 1:
            return None
        try:
            energy = self._source.partial(begin, utc)
        except SourceError:
            return None
        used, returned = self._of(energy, Flow.DELIVERED), self._of(energy, Flow.RECEIVED)
        return None if used is None else round((used - (returned or 0)) * 3_600 / (utc - begin))

    def _of(self, energy: Energy, flow: Flow) -> int | None:
        return energy[self._source.flows.index(flow)] if flow in self._source.flows else None

    @property
    def _interval_s(self) -> int:
        """The interval that is recorded: the source may know finer ones."""
        recorded = [one.interval_s for one in self._registers.channels]
        step = self._source.interval_s
        return recorded[0] if recorded and not recorded[0] % step else step


def _boundary(utc: float, interval_s: int, offset_min: int) -> int:
    """When the running interval began."""
    shifted = int(utc + offset_min * 60)
    return shifted - shifted % interval_s - offset_min * 60


def _sum(values: Sequence[int | None]) -> int | None:
    """None if one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
