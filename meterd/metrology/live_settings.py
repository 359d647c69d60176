"""What the settings of a real meter may be, beyond their types.

Raises  ConfigError, one line that begins with the key
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol

from amistack.errors import ConfigError

TOLERANCE_S: Final = 15.0
"""Seconds that a reading may be older than a boundary; old meters send every ten."""
POLL_S: Final = 5.0
PHASES_MAX: Final = 3

_SHARED: Final = frozenset(
    {
        "interval_s",
        "meter",
        "power_max_w",
        "tolerance_s",
        "silence_s",
        "device",
        "baud_rate",
    }
)
_DIALS: Final = _SHARED | {"received", "reactive", "voltage", "dial_kwh"}
_REGISTERS: Final = frozenset(
    {
        "delivered_register",
        "received_register",
        "reactive_register",
        "voltage_registers",
        "register_v",
        "register_table",
        "register_words",
        "register_wh",
        "low_word_first",
    }
)

LIVE_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "dsmr": _DIALS | {"check_sum"},
    "sml": _DIALS,
    "modbus": _DIALS | {"address", "unit_id", "poll_s", "model"} | _REGISTERS,
    "pulse": (_SHARED - {"meter"}) | {"pulses_per_kwh", "gpio_chip", "gpio_line", "debounce_ms"},
}
"""The keys that go with each source, besides `source`."""

LIVE_NEEDED_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "dsmr": ("device",),
    "sml": ("device",),
    "pulse": ("pulses_per_kwh",),
}

_LIMITS: Final[Mapping[str, tuple[float, float, str]]] = {
    "dial_kwh": (1, 1_000_000_000, "kWh"),
    "power_max_w": (100, 100_000_000, "W"),
    "tolerance_s": (1, 300, "s"),
    "silence_s": (5, 86_400, "s"),
    "baud_rate": (300, 4_000_000, "baud"),
    "unit_id": (0, 247, "as set on the meter"),
    "poll_s": (0.2, 300, "s"),
    "register_wh": (0.001, 1_000_000, "Wh"),
    "register_v": (0.001, 1_000, "V"),
    "pulses_per_kwh": (1, 100_000, "as printed on the meter"),
    "gpio_line": (0, 1023, "the chip's number of the line"),
    "debounce_ms": (0, 1000, "ms"),
}
_METER: Final = re.compile(r"[!-~]{1,64}", re.ASCII)


class LiveSettings(Protocol):
    """The settings of one source; see `meterd.config.MetrologySettings`."""

    @property
    def source(self) -> str:
        """Its kind."""

    @property
    def interval_s(self) -> int | None:
        """Seconds of an interval."""


def check_live(settings: LiveSettings) -> None:
    """Raises ConfigError where values cannot be, or do not go together."""
    given = {
        name: getattr(settings, name)
        for name in LIVE_KEYS[settings.source]
        if getattr(settings, name) is not None
    }
    for name, value in sorted(given.items()):
        if name in _LIMITS:
            least, most, unit = _LIMITS[name]
            if not least <= value <= most:
                raise ConfigError(f"{name} is {value}, expected {least:g} to {most:.10g} ({unit})")
    if "meter" in given and not _METER.fullmatch(given["meter"]):
        raise ConfigError(
            f"meter is {given['meter']!r}, expected the serial number as `meterd status` shows it"
        )
    half = (settings.interval_s or 900) / 2
    if given.get("tolerance_s", 0) > half:
        raise ConfigError(f"tolerance_s is {given['tolerance_s']}, expected up to {half:g} s here")
    if settings.source == "modbus":
        _check_modbus(given)
        poll_s, tolerance_s = given.get("poll_s", POLL_S), given.get("tolerance_s", TOLERANCE_S)
        if poll_s >= min(tolerance_s, given.get("silence_s", tolerance_s)):
            raise ConfigError(
                f"poll_s is {poll_s:g}, expected less than tolerance_s and silence_s: "
                "every boundary needs an answer"
            )
    if settings.source == "pulse":
        _check_pulse(given)


def _check_modbus(given: Mapping[str, object]) -> None:
    if ("address" in given) == ("device" in given):
        raise ConfigError("address or device is needed, one of them: HOST:PORT or a serial line")
    if ("model" in given) == ("delivered_register" in given):
        raise ConfigError("model or delivered_register is needed, one of them")
    extra = sorted(_REGISTERS & given.keys()) if "model" in given else []
    if extra:
        raise ConfigError(f"{extra[0]} does not go with model, which knows it")
    for name, register in (
        ("received", "received_register"),
        ("reactive", "reactive_register"),
        ("voltage", "voltage_registers"),
    ):
        if bool(given.get(name)) and "model" not in given and register not in given:
            raise ConfigError(f"{register} is missing; {name} = true needs it")
        if register in given and not given.get(name):
            raise ConfigError(f"{register} needs {name} = true")
    if not 1 <= len(given.get("voltage_registers", "L")) <= PHASES_MAX:  # type: ignore[arg-type]  # a tuple
        raise ConfigError(f"voltage_registers are of 1 to {PHASES_MAX} phases")
    if "baud_rate" in given and "address" in given:
        raise ConfigError("baud_rate goes with device, not with address")


def _check_pulse(given: Mapping[str, object]) -> None:
    if ("gpio_line" in given) == ("device" in given):
        raise ConfigError("gpio_line or device is needed, one of them: a pin or a serial line")
    wrong = ("baud_rate",) if "gpio_line" in given else ("gpio_chip", "debounce_ms")
    for name in wrong:
        if name in given:
            other = "gpio_line" if name == "baud_rate" else "device"
            raise ConfigError(f"{name} does not go with {other}")
