"""The pins of a running meter: what they say put on record, and what a button does.

Raises  ConfigError at birth
Limit   events are held to the log's own budget
Never   raises after `start`: a storage that fails costs the entry, and says so
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from amistack.errors import ConfigError, StoreError
from amistack.model import EndDeviceEventType
from meterd.gpio.driver import PinDriver
from meterd.gpio.panel import Changed, Panel, Role
from meterd.gpio.pins import GpiodPins, Pins
from meterd.gpio.service import PinService, Power
from meterd.gpio.settings import PinSettings

PINS_LOST: Final = EndDeviceEventType(3, 21, 60, 47)  # Metrology, IO, LossDetected
PINS_RETURNED: Final = EndDeviceEventType(3, 21, 60, 216)  # Metrology, IO, Restored
DETAIL_CHARACTERS_MAX: Final = 16
"""Of a trouble's text; four octets each at most."""


class Sources(Protocol):
    """Where it is told what a contact means."""

    def cover(self, *, is_open: bool, now: float) -> None: ...

    def tilt(self, *, is_tilted: bool, now: float) -> None: ...

    def power(self, *, is_there: bool, now: float) -> None: ...


class PinKeeper:
    """Panel, driver and relay of one meter."""

    def __init__(
        self, settings: PinSettings, pins: Pins | None = None, power: Power | None = None
    ) -> None:
        """`pins` stand in for those of the chip; `power` is what the real meter says of it."""
        chip = pins or GpiodPins(settings.chip)
        self.panel: Final = Panel(settings.inputs)
        self._driver = PinDriver(self.panel, chip, settings.inputs, active_low=settings.active_low)
        self.has_load_sensor: Final = settings.load is not None
        self.service: Final = (
            None
            if settings.relay is None
            else PinService(
                self.panel,
                chip,
                relay_line=settings.relay,
                opens_when_active=settings.relay_opens_when_active,
                power=power,
            )
        )
        self._has_inputs = bool(settings.inputs)
        self._log = structlog.get_logger("meterd")

    def start(
        self,
        *,
        sources: Sources,
        press: Callable[[], None],
        record: Callable[[EndDeviceEventType, str | None], None],
        now: Callable[[], float],
        dice: random.Random,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Begin, in the running loop; `press` is what the button does."""
        self._log = log

        def on_change(change: Changed, _: float) -> None:
            self._guarded(lambda: self._tell(change, sources, press, now()))

        def on_presence(trouble: str | None) -> None:
            if trouble is None:
                log.info("pins are back")
                self._guarded(lambda: record(PINS_RETURNED, None))
            else:
                log.warning("pins are gone", reason=trouble)
                self._guarded(lambda: record(PINS_LOST, trouble[:DETAIL_CHARACTERS_MAX]))

        if self._has_inputs:
            self._driver.start(on_change=on_change, on_presence=on_presence, dice=dice)

    def stop(self) -> None:
        """Give the pins back; a relay stays as it is, as far as the board keeps it."""
        self._driver.stop()
        if self.service is not None:
            self.service.close()

    async def wait_stopped(self) -> None:
        """Until the pins were given back."""
        await self._driver.wait_stopped()

    def _tell(
        self, change: Changed, sources: Sources, press: Callable[[], None], now: float
    ) -> None:
        match change.role:
            case Role.COVER:
                sources.cover(is_open=change.is_on, now=now)
            case Role.TILT:
                sources.tilt(is_tilted=change.is_on, now=now)
            case Role.POWER:
                sources.power(is_there=not change.is_on, now=now)
            case Role.BUTTON:
                if change.is_on:
                    press()
            case Role.CONTACT | Role.LOAD:
                pass  # The switch looks at them itself.

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except StoreError as error:
            self._log.error("log entry lost", reason=str(error))


def open_pins(settings: PinSettings, *, is_live: bool, power: Power | None = None) -> PinKeeper:
    """The pins that the settings name, of a meter with that `power`. Raises ConfigError."""
    if settings.relay is not None and not is_live:
        raise ConfigError("pins: a relay goes with a real meter; a made-up load has its own")
    return PinKeeper(settings, power=power)
