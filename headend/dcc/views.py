"""What people and programs are shown of the mesh: plain values, every decision made.

Gives   `device`, `area_of`, `ways_of`: a center as it is now; ages in seconds, ETX in transmissions
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from amistack.identifiers import Eui64
from headend.dcc.center import Center
from headend.domain.mesh import Area
from mesh.reports import ETX_ONE
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId, Role
from mesh.topology.location import BehindCollector
from mesh.topology.paths import Path, PathKind, kind_of
from mesh.topology.status import DeviceStatus


@dataclass(frozen=True, slots=True)
class Hop:
    """One link of a way, down to `node`; `age_s` since its newest figure was measured."""

    node: Eui64
    short: int
    etx: float
    age_s: float | None


@dataclass(frozen=True, slots=True)
class WayView:
    """One way down from a collector. `kind` is what it has in common with the best; None for it.

    `age_s` is that of its oldest hop: so old the word may be on which the whole rests.
    """

    collector: Eui64
    hops: tuple[Hop, ...]
    etx: float
    age_s: float | None
    kind: PathKind | None


@dataclass(frozen=True, slots=True)
class Place:
    """By whom a node is asked, and since when that was last confirmed."""

    path: str
    path_sequence: int | None
    confirmed_age_s: float


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One node: where it stands in the mesh, and how communication with it is. None: never.

    A meter on plain IP has no area, address or state.
    """

    node: Eui64
    area: AreaId | None
    short: int | None
    role: Role
    state: str | None
    state_age_s: float | None
    heard_age_s: float | None
    registered_age_s: float | None
    registered_for: str | None
    place: Place | None
    ways: tuple[WayView, ...]
    is_kept_out: bool = False


@dataclass(frozen=True, slots=True)
class CollectorView:
    """One collector. `joined_s` since it serves; None while it is not connected."""

    node: Eui64
    short: int
    joined_s: float | None
    dodag_version: int | None
    route_count: int
    is_table_whole: bool


@dataclass(frozen=True, slots=True)
class AreaView:
    """One area, its collectors, how many of its nodes are in each state, and why they registered.

    `registered` counts, by the reason of the last registration, those that have told one.
    """

    area: Area
    node_count: int
    states: dict[str, int]
    registered: dict[str, int]
    collectors: tuple[CollectorView, ...]
    denied: tuple[Eui64, ...]


def device(center: Center, node: Eui64, *, now: float) -> DeviceView:
    """All about one node. Raises MeshError for one that is not known."""
    dcc = center.dcc
    index = dcc.graph.index_of(node)
    status = dcc.devices.status_of(node, now=now)
    return DeviceView(
        node,
        dcc.graph.area_of(index),
        dcc.graph.short_of(index),
        dcc.graph.role_of(index),
        status.state.value,
        now - status.since,
        None if status.heard_at is None else now - status.heard_at,
        None if status.registered_at is None else now - status.registered_at,
        reason_of(status),
        _place(dcc, node, now),
        tuple(_way(dcc, way, kind, now) for way, kind in ways_of(dcc, node)),
        dcc.graph.is_kept_out(node),
    )


def plain(node: Eui64, path: str, confirmed_age_s: float) -> DeviceView:
    """A meter that is asked at its own address."""
    place = Place(path, None, max(confirmed_age_s, 0.0))
    return DeviceView(node, None, None, Role.METER, None, None, None, None, None, place, ())


def ways_of(dcc: Dcc, node: Eui64) -> list[tuple[Path, PathKind | None]]:
    """The best way to a node, then its alternates."""
    best = dcc.routes.route_of(node)
    if best is None:
        return []
    others = ((way, kind_of(way, best)) for way in dcc.routes.alternates_of(node))
    return [(best, None), *others]


def area_of(
    center: Center,
    area: Area,
    states: Mapping[str, int],
    registered: Mapping[str, int],
    *,
    now: float,
) -> AreaView:
    """One area; `states` counts its nodes by state, `registered` by why they registered last."""
    collectors = tuple(
        _collector(center, node, now)
        for node, known in sorted(center.collectors.known.items())
        if known.area == area.area
    )
    denied = tuple(center.collectors.denied(area.area))
    return AreaView(area, sum(states.values()), dict(states), dict(registered), collectors, denied)


def statuses_of(center: Center, area: AreaId, *, now: float) -> Iterator[DeviceStatus]:
    """How every node of an area is; that may change between two of them."""
    dcc = center.dcc
    for index in dcc.graph.nodes(area):
        if dcc.graph.is_used(index):
            yield dcc.devices.status_of(dcc.graph.eui_of(index), now=now)


def reason_of(status: DeviceStatus) -> str | None:
    """Why a node registered last, in words."""
    return None if status.registered_for is None else words(status.registered_for.name)


def _collector(center: Center, node: Eui64, now: float) -> CollectorView:
    short = center.collectors.known[node].short
    joined = center.collectors.find(node)
    if joined is None:
        return CollectorView(node, short, None, None, 0, is_table_whole=False)
    return CollectorView(
        node,
        short,
        now - joined.since,
        joined.dodag_version,
        len(joined.table),
        joined.table.is_whole,
    )


def _place(dcc: Dcc, node: Eui64, now: float) -> Place | None:
    location = dcc.locations.find(node)
    if location is None:
        return None
    place = location.place
    path = place.collector.hex() if isinstance(place, BehindCollector) else f"udp:{place.host}"
    return Place(path, location.path_sequence, now - location.confirmed_at)


def _way(dcc: Dcc, way: Path, kind: PathKind | None, now: float) -> WayView:
    hops = tuple(
        Hop(lower, short, _etx(dcc, upper, lower), _age(dcc, upper, lower, now))
        for (upper, lower), short in zip(itertools.pairwise(way.nodes), way.shorts, strict=True)
    )
    ages = [hop.age_s for hop in hops if hop.age_s is not None]
    return WayView(way.collector, hops, round(way.cost / ETX_ONE, 2), max(ages, default=None), kind)


def _etx(dcc: Dcc, upper: Eui64, lower: Eui64) -> float:
    graph = dcc.graph
    cost = graph.costs[graph.index_of(upper)].get(graph.index_of(lower), 0)
    return round(cost / ETX_ONE, 2)


def _age(dcc: Dcc, upper: Eui64, lower: Eui64, now: float) -> float | None:
    """Since either end measured their link; None where that is only assumed from a DAO."""
    ages = [
        link.age_s
        for end, other in ((upper, lower), (lower, upper))
        for link in dcc.graph.fact_of(dcc.graph.index_of(end), now=now).links
        if link.neighbour == other and link.samples
    ]
    return min(ages, default=None)


def words(name: str) -> str:
    """The name of an enumeration's member, as operators read it."""
    return name.lower().replace("_", " ")
