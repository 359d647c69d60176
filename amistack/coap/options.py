"""CoAP options: their numbers, their values, and what an unknown one means.

Spec    RFC 7252 sections 3.2 and 5.4; 5.4.6 (critical, unsafe, no-cache-key are bits of the number)
Gives   option values as octets, and readers and writers for uint and text
Raises  CoapError on a value outside its registered length, or an uint or text that is none
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from amistack.errors import CoapError, LocalProtocolError


class OptionNumber(enum.IntEnum):
    """The registered options that this stack knows."""

    IF_MATCH = 1
    URI_HOST = 3
    ETAG = 4
    IF_NONE_MATCH = 5
    OBSERVE = 6
    URI_PORT = 7
    LOCATION_PATH = 8
    OSCORE = 9
    URI_PATH = 11
    CONTENT_FORMAT = 12
    MAX_AGE = 14
    URI_QUERY = 15
    ACCEPT = 17
    LOCATION_QUERY = 20
    EDHOC = 21
    BLOCK2 = 23
    BLOCK1 = 27
    SIZE2 = 28
    PROXY_URI = 35
    PROXY_SCHEME = 39
    SIZE1 = 60
    ECHO = 252
    NO_RESPONSE = 258
    REQUEST_TAG = 292


class Format(enum.Enum):
    """What an option's value is (RFC 7252 section 3.2)."""

    EMPTY = "empty"
    OPAQUE = "opaque"
    UINT = "uint"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Definition:
    """One row of the option table: format, length bounds in octets, whether it may repeat."""

    format: Format
    length_min: int
    length_max: int
    is_repeatable: bool = False


DEFINITIONS: Final[dict[int, Definition]] = {
    OptionNumber.IF_MATCH: Definition(Format.OPAQUE, 0, 8, is_repeatable=True),
    OptionNumber.URI_HOST: Definition(Format.STRING, 1, 255),
    OptionNumber.ETAG: Definition(Format.OPAQUE, 1, 8, is_repeatable=True),
    OptionNumber.IF_NONE_MATCH: Definition(Format.EMPTY, 0, 0),
    OptionNumber.OBSERVE: Definition(Format.UINT, 0, 3),
    OptionNumber.URI_PORT: Definition(Format.UINT, 0, 2),
    OptionNumber.LOCATION_PATH: Definition(Format.STRING, 0, 255, is_repeatable=True),
    OptionNumber.OSCORE: Definition(Format.OPAQUE, 0, 255),
    OptionNumber.URI_PATH: Definition(Format.STRING, 0, 255, is_repeatable=True),
    OptionNumber.CONTENT_FORMAT: Definition(Format.UINT, 0, 2),
    OptionNumber.MAX_AGE: Definition(Format.UINT, 0, 4),
    OptionNumber.URI_QUERY: Definition(Format.STRING, 0, 255, is_repeatable=True),
    OptionNumber.ACCEPT: Definition(Format.UINT, 0, 2),
    OptionNumber.LOCATION_QUERY: Definition(Format.STRING, 0, 255, is_repeatable=True),
    # Whatever value it has is ignored, not refused (RFC 9668 section 3.1).
    OptionNumber.EDHOC: Definition(Format.EMPTY, 0, 255),
    OptionNumber.BLOCK2: Definition(Format.UINT, 0, 3),
    OptionNumber.BLOCK1: Definition(Format.UINT, 0, 3),
    OptionNumber.SIZE2: Definition(Format.UINT, 0, 4),
    OptionNumber.PROXY_URI: Definition(Format.STRING, 1, 1034),
    OptionNumber.PROXY_SCHEME: Definition(Format.STRING, 1, 255),
    OptionNumber.SIZE1: Definition(Format.UINT, 0, 4),
    OptionNumber.ECHO: Definition(Format.OPAQUE, 1, 40),
    OptionNumber.NO_RESPONSE: Definition(Format.UINT, 0, 1),
    OptionNumber.REQUEST_TAG: Definition(Format.OPAQUE, 0, 8, is_repeatable=True),
}


class Option(NamedTuple):
    """One option of a message: its number and its value as octets."""

    number: int
    value: bytes


def is_critical(number: int) -> bool:
    """Whether a message with this option must be refused by who does not understand it."""
    return bool(number & 1)


def is_elective(number: int) -> bool:
    """Whether who does not understand this option just ignores it."""
    return not number & 1


def uint_value(value: int) -> bytes:
    """The shortest octets for `value`: none at all for 0 (RFC 7252 section 3.2)."""
    if value < 0:
        raise LocalProtocolError(f"{value} cannot be an option's uint")
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def read_uint(value: bytes) -> int:
    """The number in an uint option. Leading zeros are tolerated, as the RFC asks of receivers."""
    return int.from_bytes(value, "big")


def read_text(option: Option) -> str:
    """The text of a string option. Raises CoapError when it is not UTF-8."""
    try:
        return option.value.decode()
    except UnicodeDecodeError:
        raise CoapError("option not utf-8", f"option {option.number}") from None


UNDERSTOOD: Final = frozenset(
    {
        OptionNumber.URI_HOST,
        OptionNumber.URI_PORT,
        OptionNumber.OSCORE,
        OptionNumber.URI_PATH,
        OptionNumber.URI_QUERY,
        OptionNumber.ACCEPT,
    }
)
"""The critical options that a server of this stack acts on; any other is refused with 4.02."""


def check_options(options: Iterable[Option], understood: Container[int] = UNDERSTOOD) -> None:
    """Refuse what a receiver must refuse (RFC 7252 sections 5.4.1, 5.4.3, 5.4.5).

    Raises CoapError, reason `bad option`, for a critical option that is not in `understood`,
    and for one that repeats though it may not or whose length is out of bounds. Elective ones
    with such defects are for the reader to ignore.
    """
    previous = -1
    for number, value in options:
        if number & 1:
            if number not in understood:
                raise CoapError("bad option", f"critical option {number} is not understood")
            definition = DEFINITIONS.get(number)
            if definition is None:
                continue  # Understood by who made `understood`; its bounds are theirs as well.
            if number == previous and not definition.is_repeatable:
                raise CoapError("bad option", f"option {number} twice")
            if not definition.length_min <= len(value) <= definition.length_max:
                raise CoapError(
                    "bad option",
                    f"option {number} with {len(value)} octets, "
                    f"expected {definition.length_min} to {definition.length_max}",
                )
        previous = number
