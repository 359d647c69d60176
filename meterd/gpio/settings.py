"""Which pins a meter has: the table [pins] of its settings.

Raises  ConfigError for a pin that cannot be, or that is named twice
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from amistack.errors import ConfigError
from meterd.gpio.panel import Role

LINE_MAX: Final = 1_023


@dataclass(frozen=True, slots=True)
class PinSettings:
    """The chip's number of the line for each pin that there is."""

    chip: str = "/dev/gpiochip0"
    active_low: bool = True
    """Inputs are pulled up, and on while a contact pulls them to ground."""
    cover: int | None = None
    """On while the cover is open."""
    tilt: int | None = None
    """On while the meter is tilted."""
    power: int | None = None
    """On while the mains have failed."""
    button: int | None = None
    """On while somebody presses it: a message is read, an armed switch closes."""
    contact: int | None = None
    """On while the relay's auxiliary contact says closed."""
    load: int | None = None
    """On while there is voltage at the load side."""
    relay: int | None = None
    """The relay's output."""
    relay_opens_when_active: bool = True
    """Whether the relay rests closed, and is driven to open."""

    def __post_init__(self) -> None:
        given = [*self.inputs.values(), *([] if self.relay is None else [self.relay])]
        for line in given:
            if not 0 <= line <= LINE_MAX:
                raise ConfigError(f"pins: {line} is no line of a chip, expected 0 to {LINE_MAX}")
        if len(set(given)) < len(given):
            raise ConfigError("pins: a line is named twice")
        if self.relay is None and (self.contact is not None or self.load is not None):
            raise ConfigError("pins: contact and load go with a relay")

    @property
    def inputs(self) -> Mapping[Role, int]:
        """The lines of the inputs that there are."""
        lines = {role: getattr(self, role.value) for role in Role}
        return {role: line for role, line in lines.items() if line is not None}
