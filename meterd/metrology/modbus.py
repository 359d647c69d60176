"""An energy meter on Modbus: which registers to ask for, and what their words mean.

Spec    Modbus application protocol 1.1b3, 6.3 and 6.4; the maker's register table for the rest
Gives   a plan of reads; the reading that their answers make
Raises  ConfigError for a table that cannot be; SourceError for words that are no figure
Never   asks or waits: that is the driver's
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from amistack.errors import ConfigError, SourceError
from meterd.metrology.registers import MWH_PER_WH, REGISTER_MWH_MAX, Reading, Register, total_name
from meterd.metrology.source import Flow

ADDRESS_MAX: Final = 0xFFFF
UNIT_MAX: Final = 247
PORT: Final = 502


class Table(enum.Enum):
    """Which of a device's two tables of 16-bit words."""

    INPUT = "input"
    HOLDING = "holding"


class Words(enum.Enum):
    """What the words of a figure are together, the first one the highest unless said otherwise."""

    UINT32 = "uint32"
    INT32 = "int32"
    UINT64 = "uint64"
    INT64 = "int64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"

    @property
    def count(self) -> int:
        """How many 16-bit words."""
        return int(self.value[-2:]) // 16


_FORMATS: Final[Mapping[Words, str]] = {
    Words.UINT32: ">I",
    Words.INT32: ">i",
    Words.UINT64: ">Q",
    Words.INT64: ">q",
    Words.FLOAT32: ">f",
    Words.FLOAT64: ">d",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a figure stands: address as on the wire (from 0), and what its words are."""

    address: int
    words: Words
    table: Table = Table.INPUT
    is_low_first: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.address <= ADDRESS_MAX + 1 - self.words.count:
            raise ConfigError(
                f"a Modbus register at {self.address}, expected 0 to {ADDRESS_MAX} as on the wire"
            )


@dataclass(frozen=True, slots=True)
class ModbusTable:
    """A meter's registers of energy: their places, and the Wh that a one in them stands for.

    `volts` are the places of the voltages of its phases, in which a one stands for `volt`;
    `power` is that of the active power in W, below 0 when fed back.
    """

    places: Mapping[Flow, Place]
    wh: Decimal
    serial: Place | None = None
    volts: tuple[Place, ...] = ()
    volt: Decimal = Decimal(1)
    power: Place | None = None

    def __post_init__(self) -> None:
        if not self.wh.is_finite() or not Decimal("0.001") <= self.wh <= 1_000_000:
            raise ConfigError(f"register_wh is {self.wh}, expected 0.001 to 1000000 Wh")

    def reading(
        self,
        words: Mapping[Flow, Sequence[int]],
        serial: str | None,
        volts: Sequence[Sequence[int]] = (),
        power: Sequence[int] | None = None,
    ) -> Reading:
        """The reading that the words of each flow make, and of each voltage. Raises SourceError.

        Without `power` the meter was not asked, or does not say; words that are none say nothing.
        """
        return Reading(
            tuple(self._register(flow, place, words[flow]) for flow, place in self.places.items()),
            serial,
            volts=tuple(
                figure_of(place, one) * float(self.volt)
                for place, one in zip(self.volts, volts, strict=True)
            ),
            power_w=None if power is None else self._power_w(power),
        )

    def _power_w(self, words: Sequence[int]) -> float | None:
        assert self.power is not None, "it was asked for"
        try:
            return float(figure_of(self.power, words))
        except SourceError:
            return None

    def _register(self, flow: Flow, place: Place, words: Sequence[int]) -> Register:
        figure = figure_of(place, words)
        mwh = int(Decimal(figure) * self.wh * MWH_PER_WH)
        if not 0 <= mwh <= REGISTER_MWH_MAX:
            raise SourceError(f"Modbus register {place.address} holds {figure}, which is no energy")
        width = None
        if place.words in (Words.UINT32, Words.UINT64):
            width = int((1 << 16 * place.words.count) * self.wh * MWH_PER_WH)
            if width > REGISTER_MWH_MAX:
                width = None  # No meter counts that far.
        return Register(total_name(flow), flow, mwh, width)


def figure_of(place: Place, words: Sequence[int]) -> int | float:
    """The figure in the words of a place. Raises SourceError where they are none."""
    if len(words) != place.words.count or not all(0 <= word <= 0xFFFF for word in words):
        raise SourceError(
            f"{len(words)} words from Modbus register {place.address}, "
            f"expected {place.words.count} of 16 bits"
        )
    ordered = reversed(words) if place.is_low_first else words
    octets = b"".join(word.to_bytes(2, "big") for word in ordered)
    (figure,) = struct.unpack(_FORMATS[place.words], octets)
    if isinstance(figure, float):
        if not math.isfinite(figure):
            raise SourceError(f"Modbus register {place.address} holds {figure}, which is no figure")
        return figure
    return int(figure)


_EASTRON: Final = {
    Flow.DELIVERED: Place(0x0048, Words.FLOAT32),
    Flow.RECEIVED: Place(0x004A, Words.FLOAT32),
    Flow.REACTIVE: Place(0x004C, Words.FLOAT32),
}
_EASTRON_SERIAL: Final = Place(0xFC00, Words.UINT32, Table.HOLDING)
_PHASES: Final = tuple(Place(address, Words.FLOAT32) for address in (0x0000, 0x0002, 0x0004))
MODELS: Final[Mapping[str, ModbusTable]] = {
    # Eastron's protocol documents: kWh, kvarh, V, W; serial number in the holding registers.
    "sdm120": ModbusTable(
        _EASTRON,
        Decimal(1000),
        _EASTRON_SERIAL,
        _PHASES[:1],
        power=Place(0x000C, Words.FLOAT32),
    ),
    "sdm630": ModbusTable(
        _EASTRON,
        Decimal(1000),
        _EASTRON_SERIAL,
        _PHASES,
        power=Place(0x0034, Words.FLOAT32),
    ),
}
"""Meters whose tables are known."""
