"""Where a meter's local port is, and who may come in: the table [local] of its settings.

Raises  ConfigError for a port that is nowhere, or a key that is none
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amistack.errors import ConfigError

BAUD_RATE: Final = 115_200
ORDERS: Final = ("shared", "local", "network")


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """A serial device or a TCP address, and the public keys of field tools."""

    device: str | None = None
    """The serial line, such as /dev/ttyUSB0."""
    baud_rate: int = BAUD_RATE
    listen: str | None = None
    """HOST:PORT to wait at for field tools over TCP, instead of a serial line."""
    programmers: tuple[str, ...] = ()
    """Public keys (66 hex digits) of tools that may read and change; `meterd tool key` has one."""
    readers: tuple[str, ...] = ()
    """Public keys of tools that may only read, all that there is."""
    viewers: tuple[str, ...] = ()
    """Public keys of tools that may only read what is now: registers and states, no dump."""
    changers: tuple[str, ...] = ()
    """Public keys of tools that may change, and read nothing."""
    order: str = "shared"
    """Who goes first: `local`, `network`, or `shared` for both at once."""

    def __post_init__(self) -> None:
        if (self.device is None) == (self.listen is None):
            raise ConfigError("local: device or listen is needed, one of them")
        if self.order not in ORDERS:
            raise ConfigError(f"local: order is {self.order!r}, expected {', '.join(ORDERS)}")
        if self.baud_rate < 1:
            raise ConfigError(f"local: baud_rate is {self.baud_rate}, expected such as {BAUD_RATE}")
        if not (*self.programmers, *self.readers, *self.viewers, *self.changers):
            raise ConfigError("local: no tool may come in; name a key in programmers or readers")
