"""What a meter can notice, as calls: sensors, metrology and programs say what they see.

Each call turns a state into events: once as it begins, once as it ends, never in between. How long
it lasted is said with the end.

In      one method for each thing that can be seen; what it sees is the caller's to measure
Raises  StoreError where an event cannot be kept
Limit   PHASES_MAX phases; states are kept in memory: one that lasts is told again after a restart
Never   watches a value that no threshold was set for
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.errors import StoreError
from amistack.model import EndDeviceEventType
from amistack.model import event_catalogue as types
from amistack.model.events import (
    ACCESS_DENIED,
    PRIMARY_POWER_FAILED,
    PRIMARY_POWER_RESTORED,
)
from amistack.model.programme import Threshold, ThresholdKind
from meterd.events.thresholds import DEFAULT_THRESHOLDS
from meterd.events.watch import Latch, Watch
from meterd.parts import Log

PHASES_MAX: Final = 3
DECIVOLTS: Final = 10
TEMPERATURE_MAX_C: Final = 85.0
TEMPERATURE_HYSTERESIS_C: Final = 5.0
BATTERY_MIN_V: Final = 2.7
BATTERY_HYSTERESIS_V: Final = 0.2

_VOLTAGE: Final = {
    ThresholdKind.VOLTAGE_HIGH: (types.VOLTAGE_HIGH, types.VOLTAGE_HIGH_CLEARED, True),
    ThresholdKind.VOLTAGE_LOW: (types.VOLTAGE_LOW, types.VOLTAGE_LOW_CLEARED, False),
}


class EventSources:
    """Everything that one meter can notice of itself and of what it stands in."""

    def __init__(
        self, log: Log, *, socket: str = "", thresholds: Sequence[Threshold] = DEFAULT_THRESHOLDS
    ) -> None:
        """`socket` is the form that the meter is made for, "1S" or "2S" say; empty: any will do."""
        self._log = log
        self._socket = socket
        self._latches: dict[EndDeviceEventType, Latch] = {}
        self._began: dict[EndDeviceEventType, float] = {}
        self._thermometer = Watch(TEMPERATURE_MAX_C, hysteresis=TEMPERATURE_HYSTERESIS_C)
        self._battery = Watch(BATTERY_MIN_V, hysteresis=BATTERY_HYSTERESIS_V, is_upper=False)
        self._failures = 0
        self.set_thresholds(thresholds)

    def set_thresholds(self, thresholds: Sequence[Threshold]) -> None:
        """Watch for these from now on; what is crossed is noticed anew."""
        self._voltage = {
            (one.kind, phase): Watch(
                one.limit / DECIVOLTS,
                hysteresis=one.hysteresis / DECIVOLTS,
                hold_s=one.hold_s,
                is_upper=_VOLTAGE[one.kind][2],
            )
            for one in thresholds
            if one.kind in _VOLTAGE
            for phase in range(1, PHASES_MAX + 1)
        }
        self._demand = _watch_of(thresholds, ThresholdKind.DEMAND)
        self._reverse = _watch_of(thresholds, ThresholdKind.REVERSE_FLOW)

    # Power

    def power(self, *, is_there: bool, now: float) -> None:
        """The mains failed, which may be the last thing that is said, or came back."""
        self._turn(PRIMARY_POWER_FAILED, PRIMARY_POWER_RESTORED, now, is_on=not is_there)

    def voltage(self, volts: float, *, now: float, phase: int = 1) -> None:
        """The voltage of a phase, counted from 1."""
        for kind, (found, over, _) in _VOLTAGE.items():
            watch = self._voltage.get((kind, phase))
            self._look(watch, volts, found, over, f"phase {phase}: {volts:.1f} V", now)

    # The case, and what it stands in

    def cover(self, *, is_open: bool, now: float) -> None:
        """The cover's contact."""
        self._turn(types.COVER_OPENED, types.COVER_CLOSED, now, is_on=is_open)

    def tilt(self, *, is_tilted: bool, now: float) -> None:
        """The tilt sensor: taken out of its socket, or knocked."""
        self._turn(types.TILTED, types.TILT_CLEARED, now, is_on=is_tilted)

    def expect_socket(self, form: str) -> None:
        """The form that the meter is made for; empty: any will do."""
        self._socket = form

    def socket(self, form: str, *, now: float) -> bool:
        """Which socket form the meter found itself in; whether it fits."""
        is_wrong = bool(self._socket) and form != self._socket
        if is_wrong != self._latch(types.WRONG_SOCKET).is_on:
            if is_wrong:
                self._log(types.WRONG_SOCKET, f"{form}, expected {self._socket}", now=now)
            self._latch(types.WRONG_SOCKET).take(is_on=is_wrong)
        return not is_wrong

    def temperature(self, celsius: float, *, now: float) -> None:
        """The temperature inside."""
        found, over = types.TEMPERATURE_HIGH, types.TEMPERATURE_NORMAL
        self._look(self._thermometer, celsius, found, over, f"{celsius:.0f} C", now)

    def battery(self, volts: float, *, now: float) -> None:
        """The voltage of the battery."""
        found, over = types.BATTERY_LOW, types.BATTERY_NORMAL
        self._look(self._battery, volts, found, over, f"{volts:.2f} V", now)

    # Metrology

    def demand(self, watts: float, *, now: float) -> None:
        """The mean power of the window that has just ended."""
        found, over = types.DEMAND_EXCEEDED, types.DEMAND_NORMAL
        self._look(self._demand, watts, found, over, f"{watts:.0f} W", now)

    def received(self, wh: float, *, now: float) -> None:
        """Energy that flowed back in the interval that has just ended."""
        found, over = types.FLOW_REVERSED, types.FLOW_NORMAL
        self._look(self._reverse, wh, found, over, f"{wh:.0f} Wh", now)

    def measurement(self, trouble: str | None, *, now: float) -> None:
        """Why nothing can be measured, or None while it can."""
        found, over = types.MEASUREMENT_FAILED, types.MEASUREMENT_CLEARED
        self._turn(found, over, now, is_on=trouble is not None, detail=trouble)

    # Memory and program

    def memory_failed(self, where: str, *, now: float) -> None:
        """Working memory that does not hold what was written to it."""
        self._log(types.RAM_FAILED, where, now=now)

    def checksum_wrong(self, where: str, *, now: float) -> None:
        """Stored octets that are not those that were written."""
        self._log(types.CHECKSUM_WRONG, where, now=now)

    def program_damaged(self, where: str, *, now: float) -> None:
        """A program that is not the one that was installed."""
        self._log(types.PROGRAM_DAMAGED, where, now=now)

    def program_failed(self, why: str, *, now: float) -> None:
        """A program that ended by itself, or did not answer."""
        self._log(types.PROGRAM_FAILED, why, now=now)

    def upgrade_failed(self, why: str, *, now: float) -> None:
        """A new image that did not work."""
        self._log(types.UPGRADE_FAILED, why, now=now)

    # The network, and who comes

    def communication_failed(self, reason: str, *, now: float) -> None:
        """Something that the meter began to say came to nothing; one entry until it works again."""
        self._failures += 1
        if not self._latch(types.COMMUNICATION_FAILED).is_on:
            self._turn(
                types.COMMUNICATION_FAILED,
                types.COMMUNICATION_RESTORED,
                now,
                is_on=True,
                detail=reason,
            )

    def communication_works(self, *, now: float) -> None:
        """Something that the meter said was answered."""
        found, over = types.COMMUNICATION_FAILED, types.COMMUNICATION_RESTORED
        self._turn(found, over, now, is_on=False, detail=f"{self._failures} failures")
        self._failures = 0

    def access(self, who: str, *, is_granted: bool, now: float) -> None:
        """Somebody came to the local port, or to a resource."""
        self._log(types.ACCESSED if is_granted else ACCESS_DENIED, who, now=now)

    # What was changed

    def programme_changed(self, version: int, *, now: float) -> None:
        """Another programme runs."""
        self._log(types.PROGRAMME_CHANGED, f"version {version}", now=now)

    def programme_refused(self, reason: str, *, now: float) -> None:
        """A programme was not taken."""
        self._log(types.PROGRAMME_REFUSED, reason, now=now)

    def schedule_changed(self, what: str, *, now: float) -> None:
        """A read schedule was made, changed or cancelled."""
        self._log(types.SCHEDULE_CHANGED, what, now=now)

    def schedule_refused(self, reason: str, *, now: float) -> None:
        """A read schedule was not taken."""
        self._log(types.SCHEDULE_REFUSED, reason, now=now)

    # Turning states into events

    def _latch(self, event: EndDeviceEventType) -> Latch:
        return self._latches.setdefault(event, Latch())

    def _turn(
        self,
        found: EndDeviceEventType,
        over: EndDeviceEventType,
        now: float,
        *,
        is_on: bool,
        detail: str | None = None,
    ) -> None:
        latch = self._latch(found)
        self._tell(latch, latch.take(is_on=is_on), found, over, detail, now)

    def _look(
        self,
        watch: Watch | None,
        value: float,
        found: EndDeviceEventType,
        over: EndDeviceEventType,
        detail: str,
        now: float,
    ) -> None:
        if watch is not None:
            self._tell(watch, watch.take(value, now=now), found, over, detail, now)

    def _tell(
        self,
        state: Watch | Latch,
        change: bool | None,
        found: EndDeviceEventType,
        over: EndDeviceEventType,
        detail: str | None,
        now: float,
    ) -> None:
        if change is None:
            return
        try:
            if change:
                self._log(found, detail, now=now)
                self._began[found] = now
            else:
                lasted = f"after {now - self._began.get(found, now):.0f} s"
                self._log(over, f"{lasted}: {detail}" if detail else lasted, now=now)
        except StoreError:
            state.undo()
            raise


def _watch_of(thresholds: Sequence[Threshold], kind: ThresholdKind) -> Watch | None:
    """The watch for the one threshold of a kind, if there is one."""
    for one in thresholds:
        if one.kind is kind:
            return Watch(one.limit, hysteresis=one.hysteresis, hold_s=one.hold_s)
    return None
