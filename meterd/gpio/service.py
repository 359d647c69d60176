"""A service behind pins: a relay on an output, what is seen of it on inputs and by the metrology.

Gives   `Service` for a real meter; without a pin for the load side nothing is known of it
Raises  LinkError from `drive` while the pin cannot be had
Never   moves the relay before it is told to: the output is opened with the level it is to have;
        takes what flowed before a move for what flows after it
"""

from __future__ import annotations

import math
from typing import Protocol

from amistack.errors import LinkError
from meterd.gpio.panel import Panel, Role
from meterd.gpio.pins import Output, Pins
from meterd.metrology.power import Flowing
from meterd.service import Measured

NOMINAL_MV = 230_000
"""What stands for live where a pin says no more than that."""


class Power(Protocol):
    """What the metrology says of what flows."""

    def look(self, *, now: float, moved: float) -> Flowing | None:
        """What flows at `now`; None where that is not known since the relay moved at `moved`."""


class PinService:
    """A relay and its contacts."""

    def __init__(
        self,
        panel: Panel,
        pins: Pins,
        *,
        relay_line: int,
        opens_when_active: bool = True,
        power: Power | None = None,
    ) -> None:
        """`opens_when_active`: the relay rests closed, so that supply outlives the meter.

        Without `power` nothing is known of what flows.
        """
        self._panel = panel
        self._pins = pins
        self._relay_line = relay_line
        self._opens_when_active = opens_when_active
        self._power = power
        self._moved = -math.inf
        self._output: Output | None = None

    def drive(self, *, is_closed: bool, now: float) -> None:
        """Set the relay's pin."""
        is_active = is_closed is not self._opens_when_active
        try:
            if self._output is None:
                self._output = self._pins.open_output(self._relay_line, is_active=is_active)
            else:
                self._output.set(is_active=is_active)
        except OSError as error:
            self._output = None
            raise LinkError(f"relay pin: {error.strerror or error}") from error
        self._moved = now

    def measure(self, *, now: float) -> Measured:
        """What the pins and the metrology say."""
        flowing = None if self._power is None else self._power.look(now=now, moved=self._moved)
        return Measured(
            line_mv=_voltage(_opposite(self._panel.level(Role.POWER))),
            load_mv=_voltage(self._panel.level(Role.LOAD)),
            current_ma=None if flowing is None else flowing.current_ma,
            power_w=None if flowing is None else flowing.power_w,
            is_contact_closed=self._panel.level(Role.CONTACT),
        )

    def close(self) -> None:
        """Give the pin back."""
        if self._output is not None:
            self._output.close()
            self._output = None


def _voltage(is_live: bool | None) -> int | None:
    return None if is_live is None else NOMINAL_MV if is_live else 0


def _opposite(is_on: bool | None) -> bool | None:
    return None if is_on is None else not is_on
