"""Telegrams of a DSMR P1 port (the Netherlands, Belgium, Luxembourg in clear, Sweden, Hungary).

Spec    DSMR P1 companion standard 5.0.2, and 2.2 to 4.2 before it; OBIS as IEC 62056-61
In      any pieces of the stream
Out     readings: the registers 1.8.x, 2.8.x and 3.8.x, power, voltages and currents, the serial
        number, the telegram's own time
Raises  ConfigError at birth where `dsmr-parser` is not installed; nothing after
Limit   TELEGRAM_SIZE_MAX octets from `/` to the end; what is longer is dropped and counted
Never   takes a telegram without a check sum, unless told that this meter has none
"""

from __future__ import annotations

import importlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final, Protocol, TypeVar

from amistack.errors import ConfigError
from meterd.metrology.checks import crc16_arc
from meterd.metrology.registers import METER_SIZE_MAX, Reading, Register, pick
from meterd.metrology.source import Flow

TELEGRAM_SIZE_MAX: Final = 8_192
"""Octets; DSMR 5 has at most some 2,000 with a text message of 1,024 characters."""
BAUD_RATE: Final = 115_200

T = TypeVar("T")

START: Final = b"/"
END: Final = re.compile(rb"!([0-9A-Fa-f]{0,4})\x00?\r?\n")
MWH_PER_KWH: Final = 1_000_000

METER: Final = "meter"
OTHER_METER: Final = "meter, where 96.1.0 names it"
TIME: Final = "time"
_REGISTERS: Final = tuple(f"{flow}.8.{tariff}" for flow in (1, 2) for tariff in range(5))
_REACTIVE: Final = tuple(f"3.8.{tariff}" for tariff in range(5))
_VOLTAGES: Final = ("32.7.0", "52.7.0", "72.7.0")
_CURRENTS: Final = ("31.7.0", "51.7.0", "71.7.0")
_POWERS: Final = ("1.7.0", "2.7.0")
_KILOWATTS: Final = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,6})?", re.ASCII)
_AMPERES: Final = re.compile(r"[0-9]{1,4}(?:\.[0-9]{0,3})?", re.ASCII)
_VOLTS: Final = re.compile(r"[0-9]{1,4}(?:\.[0-9]{0,3})?", re.ASCII)
_FIGURE: Final = re.compile(r"([0-9]{1,9})\.([0-9]{0,6})", re.ASCII)


class _Value(Protocol):
    """What the library says of a line with one value."""

    value: object
    unit: object


class _Parser(Protocol):
    def parse(self, telegram_data: str, *, throw_ex: bool) -> object: ...


class DsmrTelegrams:
    """Finds the telegrams in what a P1 port sends."""

    def __init__(self, *, has_check_sum: bool = True) -> None:
        """`has_check_sum` is False for meters before DSMR 4 alone: nothing guards their figures.

        Raises ConfigError.
        """
        self.refused: Counter[str] = Counter()
        self._has_check_sum: Final = has_check_sum
        self._parser, self._read_time = _library()
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> Sequence[Reading]:
        """The readings that are complete with `data`."""
        readings = []
        for at in range(0, len(data), TELEGRAM_SIZE_MAX):
            piece = data[at : at + TELEGRAM_SIZE_MAX]
            # Old ports send seven bits and a parity; the line is read with eight.
            self._buffer += piece if self._has_check_sum else bytes(one & 0x7F for one in piece)
            while (telegram := self._next()) is not None:
                reading = self._read(*telegram)
                if reading is not None:
                    readings.append(reading)
        return readings

    def reset(self) -> None:
        """The stream begins anew."""
        self._buffer.clear()

    def _next(self) -> tuple[bytes, bytes] | None:
        """The next telegram up to its `!`, and the check sum's digits."""
        buffer = self._buffer
        start = buffer.find(START)
        if start != 0:
            del buffer[: len(buffer) if start < 0 else start]
        end = END.search(buffer)
        if end is None:
            if len(buffer) > TELEGRAM_SIZE_MAX:
                self.refused["too long"] += 1
                # The next one may have begun in what was collected.
                again = buffer.rfind(b"\n/", 1)
                del buffer[: again + 1 if again >= 0 else len(buffer)]
            return None
        # A telegram that was cut off has the beginning of the next behind it.
        start = max(buffer.rfind(b"\n/", 0, end.start()) + 1, 0)
        if start:
            self.refused["cut off"] += 1
        telegram = bytes(buffer[start : end.start() + 1]), bytes(end[1])
        del buffer[: end.end()]
        return telegram

    def _read(self, telegram: bytes, digits: bytes) -> Reading | None:
        if self._has_check_sum:
            if not digits:
                self.refused["no check sum"] += 1
                return None
            if crc16_arc(telegram) != int(digits, 16):
                self.refused["check sum wrong"] += 1
                return None
        try:
            parsed = self._parser.parse(telegram.decode("ascii") + "\r\n", throw_ex=True)
            registers = tuple(
                register
                for name in _REGISTERS
                if (value := _value_of(parsed, name)) is not None
                for register in (_register(name, value),)
            )
            registers += tuple(self._optional(parsed, _REACTIVE, _reactive))
            volts = tuple(self._optional(parsed, _VOLTAGES, _volts))
            currents = tuple(self._optional(parsed, _CURRENTS, _amperes))
            power_w = self._power_w(parsed)
            meter = _value_of(parsed, METER) or _value_of(parsed, OTHER_METER)
            at = _value_of(parsed, TIME)
        except Exception:  # noqa: BLE001  a library's; whatever it stumbles over is a bad telegram
            self.refused["unreadable"] += 1
            return None
        if not registers:
            self.refused["no register"] += 1
            return None
        return Reading(
            pick(registers),
            None if meter is None else str(meter.value or "")[:METER_SIZE_MAX] or None,
            self._time(at),
            volts,
            power_w,
            currents,
        )

    def _optional(
        self, parsed: object, names: Sequence[str], read: Callable[[str, _Value], T]
    ) -> Iterator[T]:
        """What can be read of values that a telegram is good without."""
        for name in names:
            value = _value_of(parsed, name)
            if value is None:
                continue
            try:
                found = read(name, value)
            except ValueError:
                self.refused[f"unreadable: {name}"] += 1
            else:
                yield found

    def _power_w(self, parsed: object) -> float | None:
        """What is drawn, less what is fed back; None unless all that is there can be read."""
        said = [name for name in _POWERS if _value_of(parsed, name) is not None]
        watts = dict(self._optional(parsed, said, lambda name, value: (name, _watts(name, value))))
        if _POWERS[0] not in watts or len(watts) < len(said):
            return None
        return watts[_POWERS[0]] - watts.get(_POWERS[1], 0.0)

    def _time(self, value: _Value | None) -> int | None:
        """The telegram's own time; it only has to move on, so an odd one is none."""
        moment = None if value is None else self._read_time(str(value.value))
        return None if moment is None else int(moment.timestamp())


def _value_of(parsed: object, name: str) -> _Value | None:
    return getattr(parsed, name, None)


def _register(name: str, value: _Value) -> Register:
    """A register, with the width of a dial that has so many digits before the point."""
    if value.unit != "kWh":
        raise ValueError(f"{name}: {value.value} {value.unit}")
    return _dial(name, value, Flow.DELIVERED if name[0] == "1" else Flow.RECEIVED)


def _reactive(name: str, value: _Value) -> Register:
    """A register of reactive energy; makers differ in how they write its unit."""
    if str(value.unit).lower() != "kvarh":
        raise ValueError(f"{name}: {value.value} {value.unit}")
    return _dial(name, value, Flow.REACTIVE)


def _dial(name: str, value: _Value, flow: Flow) -> Register:
    figure = _FIGURE.fullmatch(str(value.value))
    if figure is None:
        raise ValueError(f"{name}: {value.value}")
    whole, part = figure[1], figure[2].ljust(6, "0")
    mwh = int(whole) * MWH_PER_KWH + int(part)
    return Register(name, flow, mwh, 10 ** len(whole) * MWH_PER_KWH)


def _volts(name: str, value: _Value) -> float:
    if value.unit != "V" or not _VOLTS.fullmatch(str(value.value)):
        raise ValueError(f"{name}: {value.value} {value.unit}")
    return float(str(value.value))


def _watts(name: str, value: _Value) -> float:
    if value.unit != "kW" or not _KILOWATTS.fullmatch(str(value.value)):
        raise ValueError(f"{name}: {value.value} {value.unit}")
    return float(str(value.value)) * 1000


def _amperes(name: str, value: _Value) -> float:
    if value.unit != "A" or not _AMPERES.fullmatch(str(value.value)):
        raise ValueError(f"{name}: {value.value} {value.unit}")
    return float(str(value.value))


def _library() -> tuple[_Parser, Callable[[str], datetime | None]]:
    """The library's parser for what a meter of ours needs of any country's telegram."""
    try:
        parsers = importlib.import_module("dsmr_parser.parsers")
        values = importlib.import_module("dsmr_parser.value_types")
    except ImportError:
        raise ConfigError(
            "dsmr-parser is not installed: pip install 'amistack[dsmr]', or use another source"
        ) from None
    # What it stumbles over is counted here; its own lines would flood the program's log.
    logging.getLogger("dsmr_parser").setLevel(logging.CRITICAL + 1)
    line = parsers.CosemParser(parsers.ValueParser(str))
    objects = [
        {
            "obis_reference": rf"^1-[0-9]:{name.replace('.', '[.]')}\(.*?\r\n",
            "value_parser": line,
            "value_name": name,
        }
        for name in (*_REGISTERS, *_REACTIVE, *_VOLTAGES, *_POWERS, *_CURRENTS)
    ]
    # 96.1.1 in most countries; 96.1.0 in Hungary. Devices behind it have other channels than 0.
    for pattern, name in (
        (r"^[01]-0:96[.]1[.]1\(.*?\r\n", METER),
        (r"^[01]-0:96[.]1[.]0\(.*?\r\n", OTHER_METER),
        (r"^0-0:1[.]0[.]0\(.*?\r\n", TIME),
    ):
        objects.append({"obis_reference": pattern, "value_parser": line, "value_name": name})
    parser: _Parser = parsers.TelegramParser({"checksum_support": False, "objects": objects})
    read_time: Callable[[str], datetime | None] = values.timestamp
    return parser, read_time
