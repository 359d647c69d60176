"""How a node stands in the mesh, as a value: a meter's place, and a collector with what it serves.

Never   touches the disk, sends anything, or tells what is secret
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from amistack.identifiers import format_eui64
from mesh.collector.collector import Collector
from mesh.reports import HOPS_UNKNOWN
from mesh.station.station import Station

CHILDREN_MAX: Final = 256
"""Children told by name; a node has a few dozen neighbours at the most."""


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """A meter's place in the tree, as its node sees it.

    `state` is joined, detached or what lies between, in the routing's words. `parent` is the short
    address of the preferred parent and `parent_node` its EUI-64, None while there is none;
    `parents` is how many the parent set has, `hops` how far the collector is, None until it has
    said so. `is_grounded`: the way up ends at a collector that reaches the head-end.
    """

    short: int
    state: str
    parent: int | None
    parent_node: str | None
    parents: int
    rank: int
    hops: int | None
    is_grounded: bool
    dodag: str | None


def mesh_status(station: Station) -> MeshStatus:
    """How that meter's node stands."""
    node, dodag = station.node, station.node.dodag
    parent = dodag.preferred
    return MeshStatus(
        short=node.short,
        state=dodag.state.name.lower(),
        parent=None if parent is None else parent.short,
        parent_node=None if parent is None else format_eui64(parent.eui),
        parents=len(dodag.parents),
        rank=dodag.rank,
        hops=None if station.hops == HOPS_UNKNOWN else station.hops,
        is_grounded=dodag.is_grounded,
        dodag=None if dodag.dodag_id is None else dodag.dodag_id.hex(),
    )


@dataclass(frozen=True, slots=True)
class Child:
    """A node whose preferred parent we are; its EUI-64 as far as it is known."""

    node: str | None
    short: int


@dataclass(frozen=True, slots=True)
class CollectorStatus:
    """One collector. Times are UTC seconds by its host's clock.

    `routes` is how many nodes its table has a way to, `children` those whose preferred parent is
    this collector. `backhaul` is up or down, since `backhaul_since`; `answer` what the head-end
    said last to our hello. `held` alarms and reports wait for a backhaul.
    """

    collector: str
    at: int
    started_at: int
    area: int
    short: int
    dodag: str | None
    version: int
    epoch: int
    routes: int
    neighbours: int
    children: list[Child]
    head_end: str
    backhaul: str
    backhaul_since: int
    answer: str | None
    held: int
    stall: str | None
    counters: dict[str, int]

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def collector_status(
    collector: Collector,
    *,
    area: int,
    epoch: int,
    head_end: str,
    now: float,
    utc: float,
    started: float,
    backhaul_since: float,
    stall: str | None,
    counters: Mapping[str, int],
) -> CollectorStatus:
    """How that collector is at `now`, monotonic seconds, when it is `utc`."""
    node = collector.station.node
    dodag, answer = node.dodag, collector.line.status
    routes = {} if node.routes is None else node.routes.rows
    children = [
        target
        for target, route in sorted(routes.items())
        if route.expires_at > now and route.parents[:1] == (node.short,)
    ]
    known = {row.short: format_eui64(row.eui) for row in dodag.neighbours}
    return CollectorStatus(
        collector=format_eui64(node.own),
        at=int(utc),
        started_at=int(utc - (now - started)),
        area=area,
        short=node.short,
        dodag=None if dodag.dodag_id is None else dodag.dodag_id.hex(),
        version=dodag.version,
        epoch=epoch,
        routes=len(collector.table),
        neighbours=len(dodag.neighbours),
        children=[Child(known.get(one), one) for one in children[:CHILDREN_MAX]],
        head_end=head_end,
        backhaul="up" if collector.line.is_up else "down",
        backhaul_since=int(utc - (now - backhaul_since)),
        answer=None if answer is None else answer.name.lower().replace("_", " "),
        held=len(collector.held),
        stall=stall,
        counters=dict(sorted(counters.items())),
    )
