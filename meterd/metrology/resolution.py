"""How often a source measures: often enough for any programme, however long its intervals are.

Never   changes what a recorded file has: its rows are as fine as it gets
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from meterd.config import MetrologySettings

FINEST_S: Final = 300
"""The shortest interval that a programme can ask for."""
INTERVAL_S: Final = 900
"""Of a source that was given none."""


def refined(settings: MetrologySettings) -> tuple[MetrologySettings, int | None]:
    """The same source, measuring on a grid of FINEST_S or finer, and the interval it was given.

    The interval is None where the source itself says it, as a recorded file does.
    """
    if settings.source == "replay":
        return settings, None
    interval_s = settings.interval_s or INTERVAL_S
    return replace(settings, interval_s=math.gcd(interval_s, FINEST_S)), interval_s
