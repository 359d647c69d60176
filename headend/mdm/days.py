"""Days as people write them, and as readings count them.

A day here is civil in a meter's standard-time offset: 24 hours, never daylight saving, counted from
1970-01-01.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from amistack.model.wire import DAY_MAX, DAY_S
from headend.domain.refusals import BadWish

_EPOCH: Final = dt.date(1970, 1, 1)
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_day(text: str) -> int:
    """The day that `2026-11-20` is. Raises BadWish."""
    try:
        if not _DAY.fullmatch(text):
            raise ValueError("another form")
        day = (dt.date.fromisoformat(text) - _EPOCH).days
    except ValueError:
        raise BadWish(f"{text[:40]!r} is not a day, expected a form like 2026-11-20") from None
    if not 0 <= day <= DAY_MAX:
        raise BadWish(f"{text} is out of range, expected {format_day(0)} to {format_day(DAY_MAX)}")
    return day


def format_day(day: int) -> str:
    """`2026-11-20`, the inverse of `parse_day`."""
    return (_EPOCH + dt.timedelta(days=day)).isoformat()


def day_of(utc_s: float, offset_min: int) -> int:
    """The day in which an instant lies, in a standard-time offset."""
    return int(utc_s + offset_min * 60) // DAY_S


def start_of(day: int, offset_min: int) -> int:
    """The first instant of a day, UTC s."""
    return day * DAY_S - offset_min * 60
