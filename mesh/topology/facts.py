"""What nodes say about their links, how long it counts, and what is known of a node in the end.

Gives   `LinkFact` and `NodeFact` for people and programs; `packed` words for the graph's tables
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NewType

from amistack.identifiers import Eui64
from mesh.reports import (
    AGE_MINUTES_MAX,
    ETX_ONE,
    ETX_UNKNOWN,
    REPORT_PERIOD_S,
    LinkReport,
    Reason,
)

AreaId = NewType("AreaId", int)
"""The number of an area, given out by the head-end."""
Index = NewType("Index", int)
"""A node's place in the tables here; used again after the node is gone."""
Change = tuple[Index, Index, int]
"""Two ends of a link and what it costs now, or GONE."""

GONE: Final = 0
LINK_ETX_MAX: Final = 8 * ETX_ONE
"""A direction worse than this carries nothing that anybody should plan with."""

MINUTE_S: Final = 60.0


class Stage(enum.IntEnum):
    """How old a node's last report is, and what its words still count for.

    A report is missed an hour after its period, so that one lost report makes a node's words
    cost half as much again, and three make them three times as dear; after four they are not
    believed at all.
    """

    FRESH = 0
    OLD = 1
    STALE = 2
    SILENT = 3


STAGE_ENDS_S: Final = (
    REPORT_PERIOD_S + 3600.0,
    2 * REPORT_PERIOD_S + 3600.0,
    4 * REPORT_PERIOD_S + 3600.0,
)
"""When FRESH, OLD and STALE end, in seconds since the report came."""
WEIGHTS: Final = (4, 6, 12)
"""What an ETX counts for at each stage, in quarters."""
WEIGHT_ONE: Final = 4


class Role(enum.Enum):
    """What a node is."""

    METER = "meter"
    COLLECTOR = "collector"


class Backhaul(enum.Enum):
    """Whether the head-end has a collector's connection."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class LinkFact:
    """One end's last word about one link; `age_s` since it was measured, at least.

    ETX in 1/128, ETX_UNKNOWN or ETX_UNUSABLE. `place` is 0 for the preferred parent, 1 and up for
    the further ones, None for other neighbours.
    """

    neighbour: Eui64
    etx_to: int
    etx_from: int
    samples: int
    age_s: float
    place: int | None


@dataclass(frozen=True, slots=True)
class NodeFact:
    """What is known of one node; rank and hops by its own last word, `age_s` None before that."""

    node: Eui64
    area: AreaId
    short: int
    role: Role
    backhaul: Backhaul | None
    rank: int
    hops: int
    age_s: float | None
    stage: Stage
    last_reason: Reason | None
    links: tuple[LinkFact, ...]


# One end's word about a link, in one integer: 100,000 nodes have some 700,000 of them.
# ETX to, 16 bits | ETX from, 16 | samples, 8 | age in minutes, 8 | place, 4
FROM_SHIFT: Final = 16
SAMPLES_SHIFT: Final = 32
AGE_SHIFT: Final = 40
PLACE_SHIFT: Final = 48
NO_PARENT: Final = 0xF


def packed(link: LinkReport, place: int) -> int:
    return (
        link.etx_to
        | link.etx_from << FROM_SHIFT
        | link.samples << SAMPLES_SHIFT
        | link.age_minutes << AGE_SHIFT
        | place << PLACE_SHIFT
    )


def weight_of(word: int, stage: int) -> int:
    """A link that its own reporter had not used for hours is never fresh."""
    if word >> AGE_SHIFT & 0xFF == AGE_MINUTES_MAX:
        stage = max(stage, Stage.OLD)
    return WEIGHTS[stage]


def direction(sender: int, sender_weight: int, hearer: int, hearer_weight: int) -> int:
    """ETX of one direction in quarters of 1/128; 0 where nobody knows, -1 where it is unusable.

    The sender counts its own acknowledgements, so its word goes first unless it is the older.
    """
    etx, weight = sender, sender_weight
    if sender == ETX_UNKNOWN or (hearer != ETX_UNKNOWN and hearer_weight < sender_weight):
        etx, weight = hearer, hearer_weight
    if etx > LINK_ETX_MAX:
        return -1
    return etx * weight
