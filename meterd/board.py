"""What the board under a meter says of itself: its temperature, its battery, the socket it sits in.

The kernel and the add-on boards of a small computer tell these in files of one line.

Spec    I2-FR-02 (wrong socket), I2-FR-16 (events of the meter's own state)
Gives   `BoardSettings`, the table [board]; `Board`, a part that looks every LOOK_INTERVAL_S and
        tells the meter's event sources
Raises  ConfigError for settings that cannot be
Limit   LINE_SIZE_MAX octets of a file are read
Never   raises for a file that is gone or says nonsense: that is counted, and nothing is told
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from amistack.errors import ConfigError
from meterd.parts import Resource

LOOK_INTERVAL_S: Final = 60.0
LINE_SIZE_MAX: Final = 64
CELSIUS_MIN: Final = -80.0
CELSIUS_MAX: Final = 200.0
VOLTS_MAX: Final = 100.0

Read = Callable[[Path], str]
"""The first line of a file. Raises OSError."""


@dataclass(frozen=True, slots=True)
class BoardSettings:
    """Which files there are; empty for none."""

    temperature: str = ""
    """Thousandths of a degree Celsius, as `/sys/class/thermal/thermal_zone0/temp` has them."""
    battery: str = ""
    """Microvolts, as `voltage_now` below `/sys/class/power_supply` has them."""
    socket: str = ""
    """The form of the socket, as the small memory of an add-on board names it."""
    form: str = ""
    """The form that the meter is made for, "2S" say."""

    def __post_init__(self) -> None:
        for name in ("temperature", "battery", "socket"):
            path = getattr(self, name)
            if path and not Path(path).is_absolute():
                raise ConfigError(f"board.{name} is {path!r}, expected an absolute path")
        if bool(self.socket) is not bool(self.form):
            raise ConfigError("board: socket and form go together")


class Sources(Protocol):
    """Who is told. Raises StoreError."""

    def expect_socket(self, form: str) -> None:
        """The form that the meter is made for."""

    def socket(self, form: str, *, now: float) -> bool:
        """Which form the meter found itself in."""

    def temperature(self, celsius: float, *, now: float) -> None:
        """The temperature inside."""

    def battery(self, volts: float, *, now: float) -> None:
        """The voltage of the battery."""


def read_line(path: Path) -> str:
    """The first line of a file. Raises OSError."""
    with path.open("rb") as file:
        octets = file.read(LINE_SIZE_MAX)
    return octets.split(b"\n", 1)[0].rstrip(b"\0").decode(errors="replace").strip()


class Board:
    """The files of one board."""

    def __init__(self, settings: BoardSettings, sources: Sources, read: Read = read_line) -> None:
        self._settings = settings
        self._sources = sources
        self._read = read
        self._due = 0.0
        self.counters: Counter[str] = Counter()
        if settings.form:
            sources.expect_socket(settings.form)

    def resources(self) -> Sequence[Resource]:
        """None."""
        return ()

    def handle_timer(self, *, now: float) -> None:
        """Look, if it is time. Raises StoreError."""
        if now < self._due:
            return
        self._due = now + LOOK_INTERVAL_S
        settings, sources = self._settings, self._sources
        celsius = self._number("temperature", settings.temperature, 1e-3)
        if celsius is not None and self._is_sane("temperature", CELSIUS_MIN, celsius, CELSIUS_MAX):
            sources.temperature(celsius, now=now)
        volts = self._number("battery", settings.battery, 1e-6)
        if volts is not None and self._is_sane("battery", 0.0, volts, VOLTS_MAX):
            sources.battery(volts, now=now)
        form = self._text("socket", settings.socket)
        if form:
            sources.socket(form, now=now)

    def next_timer(self) -> float | None:
        """When to look again."""
        return self._due

    def _text(self, name: str, path: str) -> str | None:
        if not path:
            return None
        try:
            return self._read(Path(path))
        except OSError:
            self.counters[f"board: {name} not read"] += 1
            return None

    def _number(self, name: str, path: str, unit: float) -> float | None:
        text = self._text(name, path)
        if text is None:
            return None
        try:
            return int(text) * unit
        except ValueError:
            self.counters[f"board: {name} is no number"] += 1
            return None

    def _is_sane(self, name: str, least: float, value: float, most: float) -> bool:
        if least <= value <= most:
            return True
        self.counters[f"board: {name} out of range"] += 1
        return False
