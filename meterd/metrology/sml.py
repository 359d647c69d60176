"""Telegrams of an SML meter at its optical head: what German meters send by themselves.

Spec    SML 1.04 (BSI TR-03109-1 Anlage IV), transport protocol version 1; OBIS as IEC 62056-61
In      any pieces of the stream
Out     readings: the registers 1.8.x, 2.8.x and 3.8.x, power, voltages and currents, the server's
        identifier
Raises  nothing: whatever is no telegram is counted by reason
Limit   TELEGRAM_SIZE_MAX octets; lists DEPTH_MAX deep, ITEM_COUNT_MAX items in all
Never   takes a telegram whose check sum is wrong; reads signatures
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from meterd.metrology.checks import crc16_kermit, crc16_x25
from meterd.metrology.registers import Reading, Register, pick
from meterd.metrology.source import Flow

TELEGRAM_SIZE_MAX: Final = 8_192
DEPTH_MAX: Final = 8
ITEM_COUNT_MAX: Final = 4_096
BAUD_RATE: Final = 9_600

ESCAPE: Final = b"\x1b\x1b\x1b\x1b"
START: Final = ESCAPE + b"\x01\x01\x01\x01"
END_SIZE: Final = 8
"""Octets: the escape, 1A, how many zeros were filled in, the check sum."""
FILL_MAX: Final = 3

LIST_RESPONSE: Final = 0x0701
WATT_HOUR: Final = 30
VAR_HOUR: Final = 32
WATT: Final = 27
AMPERE: Final = 33
VOLT: Final = 35
"""The units' numbers (IEC 62056-62)."""
SCALER_MAX: Final = 9
_REGISTER: Final = re.compile(rb"\x01\x00([\x01\x02\x03])\x08([\x00-\x04])\xff", re.DOTALL)
_VOLTAGE: Final = re.compile(rb"\x01\x00[\x20\x34\x48]\x07\x00\xff", re.DOTALL)
_CURRENT: Final = re.compile(rb"\x01\x00[\x1f\x33\x47]\x07\x00\xff", re.DOTALL)
_POWER: Final = re.compile(rb"\x01\x00\x10\x07\x00\xff", re.DOTALL)
_FLOWS: Final = {1: Flow.DELIVERED, 2: Flow.RECEIVED, 3: Flow.REACTIVE}

Item = bytes | int | bool | None | list["Item"]


class _BadTelegramError(Exception):
    """Why a telegram is none; a counter's label."""


class SmlTelegrams:
    """Finds the telegrams in what an optical head hears."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self._buffer = bytearray()
        self._scanned = 0

    def receive_data(self, data: bytes) -> Sequence[Reading]:
        """The readings that are complete with `data`."""
        readings = []
        for at in range(0, len(data), TELEGRAM_SIZE_MAX):
            self._buffer += data[at : at + TELEGRAM_SIZE_MAX]
            while (telegram := self._next()) is not None:
                try:
                    readings.append(_reading(_unwrapped(telegram)))
                except _BadTelegramError as error:
                    self.refused[str(error)] += 1
        return readings

    def reset(self) -> None:
        """The stream begins anew."""
        self._buffer.clear()
        self._scanned = 0

    def _next(self) -> bytes | None:
        """The next telegram with its transport octets."""
        buffer = self._buffer
        if not self._scanned:
            start = buffer.find(START)
            if start < 0:
                # Perhaps the first octets of one.
                del buffer[: max(len(buffer) - len(START) + 1, 0)]
                return None
            del buffer[:start]
            self._scanned = len(START)
        while True:
            at = buffer.find(ESCAPE, self._scanned)
            if at < 0 or len(buffer) < at + END_SIZE:
                if len(buffer) > TELEGRAM_SIZE_MAX:
                    self._drop("too long")
                    return self._next()
                if at < 0:
                    self._scanned = max(len(buffer) - len(ESCAPE) + 1, len(START))
                return None
            meant = bytes(buffer[at + 4 : at + 8])
            if meant == ESCAPE:
                self._scanned = at + 8
            elif meant[0] == 0x1A:
                telegram = bytes(buffer[: at + END_SIZE])
                del buffer[: at + END_SIZE]
                self._scanned = 0
                return telegram
            elif meant == START[4:]:
                self.refused["cut off"] += 1
                del buffer[:at]
                self._scanned = len(START)
            else:
                # 1B is also a value: four of them before the end mark may belong to the data.
                self._scanned = at + 1

    def _drop(self, reason: str) -> None:
        """Go on behind the beginning of what is no telegram."""
        self.refused[reason] += 1
        del self._buffer[:4]
        self._scanned = 0


def _unwrapped(telegram: bytes) -> bytes:
    """The messages of a telegram, without the transport's octets. Raises _BadTelegramError."""
    said = int.from_bytes(telegram[-2:], "little")
    # KERMIT is a slip of some makers (Holley DTZ541), which the meters in the field have.
    if said not in (crc16_x25(telegram[:-2]), crc16_kermit(telegram[:-2])):
        raise _BadTelegramError("check sum wrong")
    fill = telegram[-3]
    body = telegram[len(START) : -END_SIZE].replace(ESCAPE + ESCAPE, ESCAPE)
    if fill > FILL_MAX or fill > len(body):
        raise _BadTelegramError("unreadable")
    return body[: len(body) - fill]


def _reading(body: bytes) -> Reading:
    """The reading in the messages of a telegram. Raises _BadTelegramError."""
    cursor = _Cursor(body)
    while cursor.is_more:
        message = cursor.item()
        if message is None:
            continue  # Zeros between messages end them, or fill up.
        if not isinstance(message, list) or len(message) < 4:
            raise _BadTelegramError("unreadable")
        choice = message[3]
        if isinstance(choice, list) and len(choice) == 2 and choice[0] == LIST_RESPONSE:
            return _list_response(choice[1])
    raise _BadTelegramError("no list of values")


def _list_response(response: Item) -> Reading:
    """clientId, serverId, listName, actSensorTime, valList, listSignature, actGatewayTime."""
    if not isinstance(response, list) or len(response) < 5 or not isinstance(response[4], list):
        raise _BadTelegramError("unreadable")
    registers = [register for entry in response[4] if (register := _register(entry)) is not None]
    if not registers:
        raise _BadTelegramError("no register")
    server = response[1]
    meter = server.hex() if isinstance(server, bytes) and server else None
    volts = tuple(_figures(response[4], _VOLTAGE, VOLT))
    return Reading(
        pick(registers),
        meter,
        volts=volts,
        power_w=next(_figures(response[4], _POWER, WATT), None),
        currents_a=tuple(_figures(response[4], _CURRENT, AMPERE)),
    )


def _register(entry: Item) -> Register | None:
    """objName, status, valTime, unit, scaler, value, valueSignature: an energy, or None."""
    if not isinstance(entry, list) or len(entry) != 7 or not isinstance(entry[0], bytes):
        raise _BadTelegramError("unreadable")
    name = _REGISTER.fullmatch(entry[0])
    if name is None:
        return None
    unit, scaler, value = entry[3], entry[4], entry[5]
    if value is None:
        return None  # Not shown without the PIN.
    flow = _FLOWS[name[1][0]]
    scaler = 0 if scaler is None else scaler
    if (
        unit != (VAR_HOUR if flow is Flow.REACTIVE else WATT_HOUR)
        or type(value) is not int
        or type(scaler) is not int
        or not -SCALER_MAX <= scaler <= SCALER_MAX
        or value < 0
    ):
        if flow is Flow.REACTIVE:
            return None  # A telegram is good without it.
        raise _BadTelegramError("unreadable")
    power = scaler + 3
    mwh = value * 10**power if power >= 0 else value // 10**-power
    return Register(f"{name[1][0]}.8.{name[2][0]}", flow, mwh)


def _figures(entries: list[Item], name: re.Pattern[bytes], unit: int) -> Iterator[float]:
    """What stands under a name in its unit; what is none of a house is refused where it is used."""
    for entry in entries:
        if (figure := _figure(entry, name, unit)) is not None:
            yield figure


def _figure(entry: Item, name: re.Pattern[bytes], wanted: int) -> float | None:
    if not isinstance(entry, list) or len(entry) != 7 or not isinstance(entry[0], bytes):
        raise _BadTelegramError("unreadable")
    unit, scaler, value = entry[3], entry[4] or 0, entry[5]
    if (
        not name.fullmatch(entry[0])
        or unit != wanted
        or type(value) is not int
        or type(scaler) is not int
        or not -SCALER_MAX <= scaler <= SCALER_MAX
    ):
        return None
    return float(value * 10.0**scaler)


class _Cursor:
    """Reads the items of SML's binary encoding (type and length in the first octets)."""

    def __init__(self, data: bytes) -> None:
        self._data: Final = data
        self._at = 0
        self._count = 0

    @property
    def is_more(self) -> bool:
        """Whether octets are left."""
        return self._at < len(self._data)

    def item(self, depth: int = 0) -> Item:
        """The next item; None for an absent one and for the end of a message."""
        self._count += 1
        if depth > DEPTH_MAX or self._count > ITEM_COUNT_MAX:
            raise _BadTelegramError("unreadable")
        began = self._at
        first = octet = self._octet()
        length = octet & 0x0F
        while octet & 0x80:
            octet = self._octet()
            if octet & 0x70:
                raise _BadTelegramError("unreadable")
            length = length << 4 | octet & 0x0F
            if length > TELEGRAM_SIZE_MAX:
                raise _BadTelegramError("unreadable")
        kind = first >> 4 & 0x07
        if kind == 7:
            return [self.item(depth + 1) for _ in range(length)]
        if first == 0:
            return None
        # Except of lists, the length counts the octets that say it.
        data = self._octets(length - (self._at - began))
        if kind == 0:
            return data or None
        if not data:
            raise _BadTelegramError("unreadable")
        if kind == 4:
            return data != b"\0"
        if kind in (5, 6):
            return int.from_bytes(data, "big", signed=kind == 5)
        raise _BadTelegramError("unreadable")

    def _octet(self) -> int:
        return self._octets(1)[0]

    def _octets(self, count: int) -> bytes:
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise _BadTelegramError("unreadable")
        data = self._data[self._at : end]
        self._at = end
        return data
