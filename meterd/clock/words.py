"""What the log says of a clock, in at most DETAIL_SIZE_MAX octets."""

from __future__ import annotations

import datetime as dt

from meterd.clock.meter_clock import Sample


def of_change(old: float, new: float) -> str:
    """Old and new time, and how far it is from one to the other."""
    return f"{_stamp(old)} to {_stamp(new)}, {new - old:+.1f} s"


def of_error(sample: Sample, now: float) -> str:
    """What a sample proves by `now`."""
    return f"{sample.error_s:+.3f} s behind, give or take {sample.bound_at(now):.3f} s"


def _stamp(utc: float) -> str:
    """`2026-09-21T14:13:20Z`; a time that no calendar has, as its number."""
    try:
        moment = dt.datetime.fromtimestamp(utc, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{utc:.0f}"
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
