"""Whether an item of CBOR is an array: the one place that knows what its reader makes of one.

Spec    RFC 8949 section 3.1, major type 4
Never   takes for one what is only a sequence to Python: a string, or a simple value, which cbor2
        gives as a named tuple of one
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard


def is_array(item: object) -> TypeGuard[Sequence[Any]]:
    """Whether `item`, as cbor2 read it, is an array. It is free to give a list or a tuple."""
    return type(item) is list or type(item) is tuple
