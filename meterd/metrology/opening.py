"""From the settings of a real meter to what listens to it.

Raises  ConfigError for a library that is not installed or a model that is not known; SourceError
        for a kept state that is none
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from amistack.errors import ConfigError
from meterd.metrology import dsmr, pulse, sml
from meterd.metrology.drivers import (
    CHECK_S,
    Driver,
    EdgeDriver,
    ModbusDriver,
    SerialDriver,
    gpio_input,
    modbus_client,
)
from meterd.metrology.live import SILENCE_S, LiveSource, Sensor
from meterd.metrology.live_settings import POLL_S, TOLERANCE_S
from meterd.metrology.modbus import MODELS, PORT, ModbusTable, Place, Table, Words
from meterd.metrology.power import PulsePower
from meterd.metrology.registers import MWH_PER_WH, POWER_MAX_W, RegisterTracker, total_name
from meterd.metrology.source import Flow
from meterd.metrology.voltage import LiveSupply

if TYPE_CHECKING:
    from meterd.config import MetrologySettings

INTERVAL_S: Final = 900
MODBUS_BAUD_RATE: Final = 9_600
GPIO_CHIP: Final = "/dev/gpiochip0"
DEBOUNCE_MS: Final = 15
"""Half of the shortest pulse that a meter may give (EN 62053-31)."""


def open_driver(
    settings: MetrologySettings,
    *,
    offset_min: int,
    today: int,
    register_start: Sequence[int],
    kept: str | None,
) -> Driver:
    """See `MetrologySettings.open_driver`."""
    is_pulse = settings.source == "pulse"
    flows = (
        Flow.DELIVERED,
        *((Flow.RECEIVED,) if settings.received else ()),
        *((Flow.REACTIVE,) if settings.reactive else ()),
    )
    dial_kwh = settings.dial_kwh
    tracker = RegisterTracker(
        flows,
        meter=settings.meter,
        power_max_w=settings.power_max_w or POWER_MAX_W,
        width_mwh=None if dial_kwh is None else int(Decimal(str(dial_kwh)) * 1_000_000),
        # Pulses have no dial: it is the operator who says where the meter stands.
        start_mwh=_padded(register_start, len(flows)) if is_pulse else None,
        is_guarded=settings.check_sum is not False,
    )
    source = LiveSource(
        tracker,
        interval_s=settings.interval_s or INTERVAL_S,
        offset_min=offset_min,
        known_from=today,
        tolerance_s=settings.tolerance_s or TOLERANCE_S,
    )
    if kept is not None:
        source.resume(kept)
    silence_s = settings.silence_s or SILENCE_S
    supply = None
    if settings.voltage:
        supply = LiveSupply(
            interval_s=source.interval_s, offset_min=offset_min, tolerance_s=source.tolerance_s
        )
    power = PulsePower(settings.pulses_per_kwh) if is_pulse and settings.pulses_per_kwh else None
    sensor = Sensor(source, silence_s=silence_s, supply=supply, power=power)
    match settings.source:
        case "dsmr":
            return _serial(
                settings,
                sensor,
                dsmr.DsmrTelegrams(has_check_sum=settings.check_sum is not False),
                dsmr.BAUD_RATE,
                silence_s,
            )
        case "sml":
            return _serial(settings, sensor, sml.SmlTelegrams(), sml.BAUD_RATE, silence_s)
        case "modbus":
            return _modbus(settings, sensor, silence_s)
        case "pulse":
            shown = tracker.shown_mwh(total_name(Flow.DELIVERED)) or 0
            counter = pulse.PulseCounter(settings.pulses_per_kwh or 0, start_mwh=shown)
            return _pulse(settings, sensor, counter, silence_s)
        case _:
            raise ConfigError(f"source is {settings.source!r}, which listens to nothing")


def _padded(register_start: Sequence[int], count: int) -> tuple[int, ...]:
    given = [wh * MWH_PER_WH for wh in register_start[:count]]
    return tuple(given + [0] * (count - len(given)))


def _serial(
    settings: MetrologySettings,
    sensor: Sensor,
    telegrams: dsmr.DsmrTelegrams | sml.SmlTelegrams | pulse.PulseLines,
    baud_rate: int,
    silence_s: float,
) -> Driver:
    return SerialDriver(
        sensor,
        telegrams,
        device=settings.device or "",
        baud_rate=settings.baud_rate or baud_rate,
        silence_s=silence_s,
        has_dial=not isinstance(telegrams, pulse.PulseLines),
    )


def _pulse(
    settings: MetrologySettings, sensor: Sensor, counter: pulse.PulseCounter, silence_s: float
) -> Driver:
    if settings.gpio_line is None:
        return _serial(settings, sensor, pulse.PulseLines(counter), pulse.BAUD_RATE, silence_s)
    debounce_ms = DEBOUNCE_MS if settings.debounce_ms is None else settings.debounce_ms
    pin = gpio_input(settings.gpio_chip or GPIO_CHIP, settings.gpio_line, debounce_ms)
    # Often enough that a boundary never waits for it.
    check_s = min(CHECK_S, sensor.source.tolerance_s / 3)
    return EdgeDriver(sensor, counter, pin, silence_s=silence_s, check_s=check_s)


def _modbus(settings: MetrologySettings, sensor: Sensor, silence_s: float) -> Driver:
    from amistack.addresses import parse_address

    address = None
    if settings.address is not None:
        address = parse_address(settings.address, default_port=PORT, what="address")
    client = modbus_client(
        host_and_port=address,
        device=settings.device or "",
        baud_rate=settings.baud_rate or MODBUS_BAUD_RATE,
    )
    return ModbusDriver(
        sensor,
        modbus_table(settings, sensor.source.flows),
        client,
        name=f"Modbus {settings.address or settings.device}",
        unit=1 if settings.unit_id is None else settings.unit_id,
        poll_s=settings.poll_s or POLL_S,
        silence_s=silence_s,
    )


def modbus_table(settings: MetrologySettings, flows: Sequence[Flow]) -> ModbusTable:
    """The registers that the settings name, or those of a model. Raises ConfigError."""
    if settings.model is not None:
        known = MODELS.get(settings.model)
        if known is None:
            raise ConfigError(
                f"model is {settings.model!r}, expected {', '.join(MODELS)}, or name the registers"
            )
        places = {flow: known.places[flow] for flow in flows}
        return replace(known, places=places, volts=known.volts if settings.voltage else ())
    numbers = {
        Flow.DELIVERED: settings.delivered_register,
        Flow.RECEIVED: settings.received_register,
        Flow.REACTIVE: settings.reactive_register,
    }
    try:
        words = Words(settings.register_words or "float32")
        table = Table(settings.register_table or "input")
    except ValueError as error:
        raise ConfigError(
            f"{error}; expected register_words {', '.join(one.value for one in Words)} "
            f"and register_table {', '.join(one.value for one in Table)}"
        ) from None

    def place(number: int) -> Place:
        return Place(number, words, table, is_low_first=bool(settings.low_word_first))

    places = {
        flow: place(number)
        for flow, number in numbers.items()
        if flow in flows and number is not None
    }
    wh = Decimal(1000) if settings.register_wh is None else Decimal(str(settings.register_wh))
    volts = tuple(map(place, settings.voltage_registers)) if settings.voltage_registers else ()
    volt = Decimal(1) if settings.register_v is None else Decimal(str(settings.register_v))
    return ModbusTable(places, wh, None, volts, volt)
