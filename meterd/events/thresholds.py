"""Which limits a meter watches: those of the last programme that named any, through restarts.

Gives   the thresholds that were set last, or DEFAULT_THRESHOLDS
Raises  StoreError where they cannot be kept: then the old ones hold on
Limit   THRESHOLD_COUNT_MAX of them, as a programme
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from amistack.errors import ModelError
from amistack.model.programme import Threshold, ThresholdKind
from meterd.storage import Storage

NOTE: Final = "thresholds"
DEFAULT_THRESHOLDS: Final = (
    Threshold(ThresholdKind.VOLTAGE_HIGH, 2530, hysteresis=23, hold_s=10),
    Threshold(ThresholdKind.VOLTAGE_LOW, 2070, hysteresis=23, hold_s=10),
)
"""A tenth above and below 230 V, as EN 50160 has it, for ten seconds."""


class ThresholdTable:
    """The thresholds of one meter. Their moment is the programme's: nothing of them is dated."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """What was kept last."""
        note = self._storage.note(NOTE)
        return DEFAULT_THRESHOLDS if note is None else _read(note)

    def keep(self, thresholds: Sequence[Threshold]) -> None:
        """Thresholds in place of all before; durable when this returns, or with the transaction."""
        rows = [[int(one.kind), one.limit, one.hysteresis, one.hold_s] for one in thresholds]
        self._storage.keep_note(NOTE, json.dumps(rows))


def _read(note: str) -> tuple[Threshold, ...]:
    try:
        rows = [(ThresholdKind(kind), *limits) for kind, *limits in json.loads(note)]
        return tuple(Threshold(*row) for row in rows)
    except (ModelError, TypeError, ValueError):
        # Of a later version: what every meter watches is a better guess than nothing.
        return DEFAULT_THRESHOLDS
