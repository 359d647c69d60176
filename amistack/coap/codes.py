"""CoAP codes and message types (RFC 7252 sections 3 and 12.1; RFC 8132).

A code is one octet, class and detail: `0.02` is 0x02, `4.04` is 0x84. Codes that are not
listed here are still legal on the wire, so messages carry a plain int.
"""

from __future__ import annotations

import enum
from typing import Final


class Type(enum.IntEnum):
    """How a message is delivered (RFC 7252 section 4.2, 4.3)."""

    CON = 0
    NON = 1
    ACK = 2
    RST = 3


class Code(enum.IntEnum):
    """The registered codes that this stack uses, by their octet."""

    EMPTY = 0x00

    GET = 0x01
    POST = 0x02
    PUT = 0x03
    DELETE = 0x04
    FETCH = 0x05
    PATCH = 0x06
    IPATCH = 0x07

    CREATED = 0x41
    DELETED = 0x42
    VALID = 0x43
    CHANGED = 0x44
    CONTENT = 0x45
    CONTINUE = 0x5F

    BAD_REQUEST = 0x80
    UNAUTHORIZED = 0x81
    BAD_OPTION = 0x82
    FORBIDDEN = 0x83
    NOT_FOUND = 0x84
    METHOD_NOT_ALLOWED = 0x85
    NOT_ACCEPTABLE = 0x86
    REQUEST_ENTITY_INCOMPLETE = 0x88
    CONFLICT = 0x89
    PRECONDITION_FAILED = 0x8C
    REQUEST_ENTITY_TOO_LARGE = 0x8D
    UNSUPPORTED_CONTENT_FORMAT = 0x8F
    UNPROCESSABLE_ENTITY = 0x96
    TOO_MANY_REQUESTS = 0x9D

    INTERNAL_SERVER_ERROR = 0xA0
    NOT_IMPLEMENTED = 0xA1
    BAD_GATEWAY = 0xA2
    SERVICE_UNAVAILABLE = 0xA3
    GATEWAY_TIMEOUT = 0xA4
    PROXYING_NOT_SUPPORTED = 0xA5


_CODES: Final = {int(code): code for code in Code}


def is_request(code: int) -> bool:
    """Class 0, but not the empty message."""
    return 0x01 <= code <= 0x1F


def is_response(code: int) -> bool:
    """Class 2, 4 or 5; classes 1, 3, 6 and 7 are reserved (RFC 7252 section 3)."""
    return 0x40 <= code <= 0x5F or 0x80 <= code <= 0xBF


def is_success(code: int) -> bool:
    """Class 2."""
    return 0x40 <= code <= 0x5F


def format_code(code: int) -> str:
    """`4.04 NOT_FOUND`; a code without a name of ours is just its number."""
    number = f"{code >> 5}.{code & 0x1F:02}"
    known = _CODES.get(code)
    return number if known is None else f"{number} {known.name}"
