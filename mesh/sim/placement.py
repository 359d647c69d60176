"""Where the houses and the collectors stand: streets, drawn by a seed.

Gives   places in metres, collectors first; all of one seed and shape the same for ever
Raises  ConfigError for a shape that cannot be
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import ConfigError
from mesh.sim.radio import PLACE_COUNT_MAX, Place

LOT_WIDTH_M: Final = 18.0
"""From house to house along a street of a grid."""
LONELY_LOT_WIDTH_M: Final = 30.0
"""From house to house where there is but one street: the edge of a village."""
STREET_WIDTH_M: Final = 28.0
"""From front to front across a street."""
BACK_M: Final = 32.0
"""From house to house across the gardens."""
BLOCK_LOTS: Final = 10
CROSSING_M: Final = 16.0
"""What a crossing street takes after each BLOCK_LOTS houses."""
SCATTER_M: Final = 4.0
"""Sigma of where on its lot a meter hangs."""
EMPTY_LOT_SHARE: Final = 0.08
"""Lots without a meter: parks, shops, the next building site."""


class Shape(enum.Enum):
    """How a settlement lies."""

    STREET = "street"  # one street, houses on both sides
    GRID = "grid"  # parallel streets with crossings, as wide as long


@dataclass(frozen=True, slots=True)
class Placement:
    """Places of all nodes: the first `collector_count` are collectors, on poles in the street."""

    places: tuple[Place, ...]
    collector_count: int


def place(
    shape: Shape, *, meter_count: int, collector_count: int, chance: random.Random
) -> Placement:
    """Draw a settlement. Raises ConfigError for counts that make none."""
    if meter_count < 1 or collector_count < 1:
        raise ConfigError(
            f"{meter_count} meters and {collector_count} collectors, expected at least one of each"
        )
    if meter_count + collector_count > PLACE_COUNT_MAX:
        raise ConfigError(f"{meter_count + collector_count} nodes, at most {PLACE_COUNT_MAX}")
    lots = _street_lots(meter_count) if shape is Shape.STREET else _grid_lots(meter_count)
    # The lots without a meter are drawn, the others taken in their order.
    taken = sorted(chance.sample(range(len(lots)), meter_count))
    meters = [
        (lots[n][0] + chance.gauss(0, SCATTER_M), lots[n][1] + chance.gauss(0, SCATTER_M))
        for n in taken
    ]
    return Placement((*_collectors(meters, collector_count), *meters), collector_count)


def _lots_wanted(meter_count: int) -> int:
    return math.ceil(meter_count / (1 - EMPTY_LOT_SHARE))


def _street_lots(meter_count: int) -> list[Place]:
    return [
        (n // 2 * LONELY_LOT_WIDTH_M, n % 2 * STREET_WIDTH_M)
        for n in range(_lots_wanted(meter_count))
    ]


def _grid_lots(meter_count: int) -> list[Place]:
    wanted = _lots_wanted(meter_count)
    row_m = (STREET_WIDTH_M + BACK_M) / 2
    lot_m = LOT_WIDTH_M + CROSSING_M / BLOCK_LOTS
    columns = max(1, round(math.sqrt(wanted * row_m / lot_m)))
    lots: list[Place] = []
    for n in range(wanted):
        row, column = divmod(n, columns)
        street, side = divmod(row, 2)
        north = street * (STREET_WIDTH_M + BACK_M) + side * STREET_WIDTH_M
        lots.append((column * LOT_WIDTH_M + column // BLOCK_LOTS * CROSSING_M, north))
    return lots


def _collectors(meters: Sequence[Place], count: int) -> list[Place]:
    """Evenly over the longer side: where a utility that has poles would hang them."""
    lows = [min(place[axis] for place in meters) for axis in (0, 1)]
    spans = [max(place[axis] for place in meters) - lows[axis] for axis in (0, 1)]
    collectors = []
    for n in range(count):
        east, north = 0.5, 0.5
        share = (n + 0.5) / count
        if spans[0] >= spans[1]:
            east = share
        else:
            north = share
        collectors.append((lows[0] + east * spans[0], lows[1] + north * spans[1]))
    return collectors
