"""Whether the kernel says that its clock is synchronised to others (Linux)."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

TIMEX_SIZE: Final = 512
"""Octets: more than `struct timex` takes anywhere. All zero it only asks."""
TIME_ERROR: Final = 5


def is_synchronised() -> bool:
    """What adjtimex(2) says; False where it cannot be asked."""
    if sys.platform != "linux":
        return False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(TIMEX_SIZE))
    except (OSError, AttributeError):
        return False
    return isinstance(state, int) and 0 <= state < TIME_ERROR
