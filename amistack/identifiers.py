"""The identifiers that every layer shares.

Raises  ConfigError where a person wrote one wrongly
"""

from __future__ import annotations

import re
from typing import Final, NewType

from amistack.errors import ConfigError

Eui64 = NewType("Eui64", bytes)
"""An IEEE EUI-64, 8 octets in transmission order: the identity of a meter, whatever its address."""

EUI64_SIZE: Final = 8
_HEX: Final = re.compile(r"[0-9a-f]{16}")


def eui64(octets: bytes) -> Eui64:
    """`octets` as an EUI-64. Raises ConfigError unless there are exactly 8 of them."""
    if len(octets) != EUI64_SIZE:
        raise ConfigError(f"{len(octets)} octets, an EUI-64 has {EUI64_SIZE}")
    return Eui64(bytes(octets))


def parse_eui64(text: str) -> Eui64:
    """The EUI-64 that a person wrote: 16 hex digits, also in pairs with `-` or `:` between.

    Raises ConfigError with one readable line otherwise.
    """
    plain = text.strip().lower()
    for separator in "-:":
        pairs = plain.split(separator)
        if len(pairs) == EUI64_SIZE and all(len(pair) == 2 for pair in pairs):
            plain = "".join(pairs)
    if not _HEX.fullmatch(plain):
        raise ConfigError(f"{text!r} is not a meter: expected an EUI-64 as 16 hex digits")
    return Eui64(bytes.fromhex(plain))


def format_eui64(meter: Eui64) -> str:
    """16 lower-case hex digits, the form used in files, commands and logs."""
    return meter.hex()
