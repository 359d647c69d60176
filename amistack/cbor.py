"""What every reader of CBOR here needs of its library: one error, and what an array is.

Spec    RFC 8949
Raises  CborError, and nothing else, whatever the octets: cbor2's tags leak decimal, type, value,
        overflow and other errors of what they make
Never   takes for an array what is only a sequence to Python: a string, or a simple value, which
        cbor2 gives as a named tuple of one
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, TypeGuard

import cbor2

from amistack.errors import CborError

DETAIL_SIZE_MAX = 80


def read_item(stream: io.BytesIO) -> Any:
    """The next item of `stream`, which stands behind it then. Raises CborError."""
    try:
        return cbor2.load(stream)
    except Exception as error:
        detail = "".join(filter(str.isprintable, str(error)))[:DETAIL_SIZE_MAX]
        raise CborError("not CBOR", detail) from error


def is_array(item: object) -> TypeGuard[Sequence[Any]]:
    """Whether `item`, as cbor2 read it, is an array. It is free to give a list or a tuple."""
    return type(item) is list or type(item) is tuple
