"""A way through the mesh, and what it is made of."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from amistack.identifiers import Eui64, format_eui64
from mesh.topology.facts import AreaId

HOPS_MAX: Final = 24
"""A source route has room for this many short addresses, the last being the destination's."""


class Part(enum.Enum):
    """What a component is."""

    METER = "meter"
    RELAY = "relay"
    LINK = "link"
    COLLECTOR = "collector"
    BACKHAUL = "backhaul"


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """Something that can fail by itself: a node, the link of two, a collector's backhaul.

    `ends` is one EUI-64, or the two of a link in ascending order. Whether a node is the meter asked
    about or a relay on the way to it is a matter of the question, not of the component.
    """

    kind: str
    ends: tuple[Eui64, ...]

    def __str__(self) -> str:
        return f"{self.kind} {' - '.join(format_eui64(end) for end in self.ends)}"


NODE: Final = "node"
LINK: Final = "link"
BACKHAUL: Final = "backhaul"


def node_component(node: Eui64) -> Component:
    """A meter, relay or collector."""
    return Component(NODE, (node,))


def link_component(one: Eui64, other: Eui64) -> Component:
    """The link of two nodes, both its directions."""
    return Component(LINK, (one, other) if one < other else (other, one))


def backhaul_component(collector: Eui64) -> Component:
    """What is between a collector and the head-end."""
    return Component(BACKHAUL, (collector,))


@dataclass(frozen=True, slots=True)
class Path:
    """A way from a collector down to a node.

    `nodes` begins with the collector and ends with the destination; `shorts` is the source route,
    without the collector. `cost` in 1/128 transmissions over all hops; it makes no other way.
    """

    area: AreaId
    nodes: tuple[Eui64, ...]
    shorts: tuple[int, ...]
    cost: int = field(compare=False)

    def __str__(self) -> str:
        return " > ".join(format_eui64(node) for node in self.nodes)

    @property
    def collector(self) -> Eui64:
        """Where it enters the mesh."""
        return self.nodes[0]

    @property
    def destination(self) -> Eui64:
        """Where it ends."""
        return self.nodes[-1]

    @property
    def relays(self) -> tuple[Eui64, ...]:
        """Who passes packets on, between the two."""
        return self.nodes[1:-1]

    @property
    def hops(self) -> int:
        """How many links."""
        return len(self.nodes) - 1

    @property
    def components(self) -> tuple[Component, ...]:
        """Everything on it that can fail, from the head-end on: one, then two for each hop."""
        parts = [backhaul_component(self.nodes[0]), node_component(self.nodes[0])]
        for upper, lower in itertools.pairwise(self.nodes):
            parts += (link_component(upper, lower), node_component(lower))
        return tuple(parts)

    def up_to(self, hops: int) -> Path:
        """Its first `hops` links; the cost is that of the whole."""
        return Path(self.area, self.nodes[: hops + 1], self.shorts[:hops], self.cost)


class PathKind(enum.Enum):
    """What an alternate has in common with the best way: the fewer, the more it is worth."""

    OTHER_COLLECTOR = "another collector, no relay shared"
    OTHER_RELAYS = "the same collector, no relay shared"
    OTHER_COLLECTOR_SHARED = "another collector, relays shared"
    SHARED = "the same collector, relays shared"


def kind_of(path: Path, best: Path) -> PathKind:
    """What kind of alternate `path` is to `best`."""
    is_shared = shares_any(path.relays, best.relays)
    if path.collector != best.collector:
        return PathKind.OTHER_COLLECTOR_SHARED if is_shared else PathKind.OTHER_COLLECTOR
    return PathKind.SHARED if is_shared else PathKind.OTHER_RELAYS


def shares_any(some: Collection[Eui64], others: Collection[Eui64]) -> bool:
    """Whether two ways have a relay in common."""
    return not set(some).isdisjoint(others)
