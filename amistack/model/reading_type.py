"""What a number means: the ReadingType code of IEC 61968-9, eighteen fields.

Spec    IEC 61968-9 Annex C (order of the fields and their codes)
Raises  `ModelError` on text that is not such a code
Never   checks a field against a code list: lists grow, and a head-end tolerates what it does
        not know
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire

FIELD_COUNT: Final = 18
FIELD_MAX: Final = 65_535
MULTIPLIER_MAX: Final = 24  # 10^24, yotta; and 10^-24, yocto
TEXT_SIZE_MAX: Final = 110

_NUMBER: Final = r"(?:0|[1-9][0-9]{0,4})"
_CODE: Final = re.compile(
    rf"{_NUMBER}(?:\.{_NUMBER}){{14}}\.(?:0|-?[1-9][0-9]?)(?:\.{_NUMBER}){{2}}", re.ASCII
)

# Codes below: ReadingType field lists as published in NAESB ESPI 4.0 (espi.xsd, Apache-2.0).
BULK_QUANTITY: Final = 1
DELTA_DATA: Final = 4
ELECTRICITY_SECONDARY_METERED: Final = 1
ENERGY: Final = 12
WATT_HOUR: Final = 72

MEASURING_PERIODS: Final[Mapping[int, int]] = {
    60: 3,
    120: 10,
    180: 14,
    300: 6,
    600: 1,
    900: 2,
    1200: 31,
    1800: 5,
    3600: 7,
    86_400: 4,
}
"""Interval length in seconds to the code of field 3; other lengths have none, and are 0."""


class FlowDirection(enum.IntEnum):
    """Which way energy flows (field 5); codes 1, 19 and 4 of a longer list."""

    FORWARD = 1  # delivered by the utility
    REVERSE = 19  # received by the utility
    NET = 4  # forward - reverse


@dataclass(frozen=True, slots=True)
class ReadingType:
    """One ReadingType code: eighteen numbers, each 0 where it does not apply.

    All are 0..65535 but `multiplier`, a power of ten from -24 to 24. Written with dots, in the
    order of the fields: `0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0`.
    """

    macro_period: int = 0
    aggregate: int = 0
    measuring_period: int = 0
    accumulation: int = 0
    flow_direction: int = 0
    commodity: int = 0
    measurement_kind: int = 0
    interharmonic_numerator: int = 0
    interharmonic_denominator: int = 0
    argument_numerator: int = 0
    argument_denominator: int = 0
    tou: int = 0
    cpp: int = 0
    consumption_tier: int = 0
    phases: int = 0
    multiplier: int = 0
    unit: int = 0
    currency: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            least, most = (
                (-MULTIPLIER_MAX, MULTIPLIER_MAX) if field.name == "multiplier" else (0, FIELD_MAX)
            )
            wire.integer(int(getattr(self, field.name)), least, most, field.name)

    def __str__(self) -> str:
        return ".".join(str(int(getattr(self, field.name))) for field in dataclasses.fields(self))

    @classmethod
    def parse(cls, text: str) -> ReadingType:
        """The code that `text` writes, in its one form: no blanks, no leading zeros.

        Raises ModelError otherwise.
        """
        if len(text) > TEXT_SIZE_MAX or not _CODE.fullmatch(text):
            raise ModelError(
                "bad reading type", f"{text[:TEXT_SIZE_MAX]!r}, expected 18 numbers with dots"
            )
        return cls(*(int(number) for number in text.split(".")))


def interval_energy(interval_s: int, flow: FlowDirection) -> ReadingType:
    """Wh that flowed in each interval of `interval_s` seconds (delta data)."""
    return ReadingType(
        measuring_period=MEASURING_PERIODS.get(interval_s, 0),
        accumulation=DELTA_DATA,
        flow_direction=int(flow),
        commodity=ELECTRICITY_SECONDARY_METERED,
        measurement_kind=ENERGY,
        unit=WATT_HOUR,
    )


def register_energy(flow: FlowDirection) -> ReadingType:
    """Wh on the register, ever (bulk quantity): the dial."""
    return ReadingType(
        accumulation=BULK_QUANTITY,
        flow_direction=int(flow),
        commodity=ELECTRICITY_SECONDARY_METERED,
        measurement_kind=ENERGY,
        unit=WATT_HOUR,
    )
