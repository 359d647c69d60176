"""What a supply is like beside the energy that it brings: its voltage, and reactive energy.

Gives   `Supply`, the question; `MadeUpSupply`, an answer for a load that is made up
Never   remembers who asked: any window, in any order, gets the same answer after a restart
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from amistack.model.quantity import Quantity
from meterd.metrology.source import Energy, Flow, Source

HOUR_S: Final = 3600
DAY_S: Final = 86_400
NOMINAL_DV: Final = 2300
"""Decivolts of a supply without load, on average."""
SWING_DV: Final = 40
"""Decivolts by which it is higher at night and lower by day."""
DROP_W: Final = 160
"""Watts that cost a decivolt on the way."""
DROP_MAX_DV: Final = 150
LAGGING_PER_MILLE: Final = 329
"""var for a thousand W: a power factor of 0.95."""


class Quality(NamedTuple):
    """Of an interval: the mean voltage (0.1 V) and the lagging reactive energy (varh)."""

    decivolts: int | None
    varh: int | None


class Supply(Protocol):
    """Knows past intervals, on the grid of its source."""

    @property
    def quantities(self) -> frozenset[Quantity]:
        """What of it is known: voltage, reactive energy, or both."""

    def quality(self, start: int, count: int, *, length_s: int) -> list[Quality]:
        """That of each of `count` intervals of `length_s` seconds from `start` on.

        Reactive energy of an interval is the sum of that of its parts.
        """


class MadeUpSupply:
    """The supply of a made-up load: its voltage swings by day and sags under the load."""

    quantities: Final = frozenset((Quantity.VOLTAGE, Quantity.REACTIVE))

    def __init__(self, source: Source) -> None:
        """`source` is the load; its intervals are the parts that everything is made of."""
        self._source: Final = source
        self._place: Final = source.flows.index(Flow.DELIVERED)

    def quality(self, start: int, count: int, *, length_s: int) -> list[Quality]:
        """See `Supply`."""
        step_s = self._source.interval_s
        share = length_s // step_s
        energies = self._source.energy(start, count * share)
        parts = [
            self._part(start + place * step_s, energy) for place, energy in enumerate(energies)
        ]
        return [_together(parts[at : at + share]) for at in range(0, len(parts), share)]

    def _part(self, start: int, energy: Energy) -> Quality:
        wh = energy[self._place]
        if wh is None:
            return Quality(None, None)
        watts = wh * HOUR_S // self._source.interval_s
        # A triangle over the day, highest at midnight UTC: an integer on every machine.
        noon = DAY_S // 2
        swing = abs(start % DAY_S - noon) * 2 * SWING_DV // noon - SWING_DV
        sag = min(watts // DROP_W, DROP_MAX_DV)
        varh = (wh * LAGGING_PER_MILLE + 500) // 1000
        return Quality(NOMINAL_DV + swing - sag, varh)


def _together(parts: Sequence[Quality]) -> Quality:
    volts = [part.decivolts for part in parts if part.decivolts is not None]
    varhs = [part.varh for part in parts if part.varh is not None]
    if len(volts) < len(parts) or len(varhs) < len(parts):
        return Quality(None, None)
    return Quality((2 * sum(volts) + len(parts)) // (2 * len(parts)), sum(varhs))
