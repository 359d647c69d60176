"""The JSON documents of the mesh: what the HTTP door writes, and what its client reads.

Nodes are EUI-64s in hex digits, short addresses numbers, ages seconds until now, ETX transmissions.
A reader ignores keys that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from amistack.identifiers import format_eui64
from headend.dcc.events import Isolated, Tried
from headend.dcc.operations import Carried
from headend.dcc.views import AreaView, CollectorView, DeviceView, WayView
from headend.domain.mesh import Area, Assignment
from headend.store.mesh import Assigned
from mesh.backhaul import Outcome as Word
from mesh.backhaul import Probed, Traced
from mesh.topology.paths import Path
from mesh.topology.verdicts import (
    Answered,
    LostAfter,
    NoAnswer,
    NoConnection,
    NotPassed,
    Outcome,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class CollectorDocument:
    """A collector; `joined_s` since it serves, null while it is not connected."""

    node: str
    short: int
    joined_s: float | None
    dodag_version: int | None
    routes: int
    is_table_whole: bool


@dataclass(frozen=True, slots=True)
class AreaDocument:
    """An area; `states` counts its nodes by state, `registered` by why they registered last."""

    area: int
    profile: str
    dodag_id: str
    nodes: int
    states: Mapping[str, int]
    collectors: tuple[CollectorDocument, ...]
    denied: tuple[str, ...]
    registered: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeshDocument:
    """The mesh as a whole; `listen` is where collectors find the head-end."""

    listen: str
    areas: tuple[AreaDocument, ...]


@dataclass(frozen=True, slots=True)
class AreaMade:
    """An area as it now is."""

    area: int
    profile: str
    dodag_id: str


@dataclass(frozen=True, slots=True)
class AssignmentDocument:
    """Who has which short address in which area."""

    node: str
    area: int
    short: int
    role: str


@dataclass(frozen=True, slots=True)
class AssignedDocument:
    """What an assignment came to; `new` of them got their address just now."""

    assignments: tuple[AssignmentDocument, ...]
    new: int


@dataclass(frozen=True, slots=True)
class AssignmentPage:
    """A page of assignments; `next` is the node after which the next page begins, or null."""

    assignments: tuple[AssignmentDocument, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class ReleasedDocument:
    """How many nodes have no address any more."""

    released: int


@dataclass(frozen=True, slots=True)
class HopDocument:
    """One link of a way, down to `node`; `age_s` null where it was never measured."""

    node: str
    short: int
    etx: float
    age_s: float | None


@dataclass(frozen=True, slots=True)
class WayDocument:
    """A way down; `kind` is what it has in common with the best one, null for that itself."""

    collector: str
    hops: tuple[HopDocument, ...]
    etx: float
    age_s: float | None
    kind: str | None


@dataclass(frozen=True, slots=True)
class DeviceDocument:
    """A node: its state, where it is asked, the ways to it, best first.

    A meter on plain IP has no area, short address or state.
    """

    node: str
    area: int | None
    short: int | None
    role: str
    state: str | None
    state_age_s: float | None
    heard_age_s: float | None
    registered_age_s: float | None
    registered_for: str | None
    located_at: str | None
    path_sequence: int | None
    confirmed_age_s: float | None
    ways: tuple[WayDocument, ...]
    is_kept_out: bool = False


@dataclass(frozen=True, slots=True)
class PingDocument:
    """What became of a ping over `way`, from the collector on; `hops` where it was lost."""

    way: tuple[str, ...]
    outcome: str
    hops: int
    round_trip_ms: int


@dataclass(frozen=True, slots=True)
class TraceRowDocument:
    """One node of a way and how it answered."""

    short: int
    outcome: str
    round_trip_ms: int


@dataclass(frozen=True, slots=True)
class TraceDocument:
    """Every node of a way that was asked, the nearest first."""

    way: tuple[str, ...]
    rows: tuple[TraceRowDocument, ...]


@dataclass(frozen=True, slots=True)
class TraceStepDocument:
    """A row of a trace that goes on: the node after so many hops, and how it answered."""

    hops: int
    node: str
    short: int
    outcome: str
    round_trip_ms: int


@dataclass(frozen=True, slots=True)
class TracingDocument:
    """One line of a trace: a row as it is known, or at the end the trace, or why there is none."""

    step: TraceStepDocument | None = None
    trace: TraceDocument | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class TriedDocument:
    """A step of an isolation: a probe over `way`, and what became of it."""

    number: int
    way: tuple[str, ...]
    outcome: str


@dataclass(frozen=True, slots=True)
class CauseDocument:
    """A component that alone explains what was seen; `nodes` has two for a link."""

    part: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WayTriedDocument:
    """One way to the meter, what it has in common with the first, and how it went."""

    way: tuple[str, ...]
    kind: str | None
    outcome: str


@dataclass(frozen=True, slots=True)
class VerdictDocument:
    """What an isolation came to.

    By kind, `left` counts the alternates that answer, `known` all that were tried, `untried` those
    that there are besides.
    """

    finding: str
    causes: tuple[CauseDocument, ...]
    is_certain: bool
    ways: tuple[WayTriedDocument, ...]
    left: Mapping[str, int]
    known: Mapping[str, int]
    untried: Mapping[str, int]
    probes: int
    text: str


@dataclass(frozen=True, slots=True)
class IsolationDocument:
    """One line of an isolation: a step, or at the end a verdict, or why there is none."""

    tried: TriedDocument | None = None
    verdict: VerdictDocument | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class CarriedDocument:
    """What a collector did about an order; `value` is a version, or a count of rows."""

    collector: str
    is_done: bool
    value: int
    detail: str


@dataclass(frozen=True, slots=True)
class OrderDocument:
    """An order, collector by collector."""

    collectors: tuple[CarriedDocument, ...]


def mesh_document(listen: str, areas: Sequence[AreaView]) -> MeshDocument:
    """The whole mesh."""
    return MeshDocument(listen, tuple(map(_area, areas)))


def _area(view: AreaView) -> AreaDocument:
    return AreaDocument(
        view.area.area,
        view.area.profile,
        view.area.dodag_id.hex(),
        view.node_count,
        view.states,
        tuple(map(_collector, view.collectors)),
        tuple(map(format_eui64, view.denied)),
        view.registered,
    )


def _collector(view: CollectorView) -> CollectorDocument:
    return CollectorDocument(
        format_eui64(view.node),
        view.short,
        _rounded(view.joined_s),
        view.dodag_version,
        view.route_count,
        view.is_table_whole,
    )


def area_made(area: Area) -> AreaMade:
    """An area."""
    return AreaMade(area.area, area.profile, area.dodag_id.hex())


def assigned_document(outcome: Assigned) -> AssignedDocument:
    """What an assignment came to."""
    return AssignedDocument(tuple(map(assignment_document, outcome.assignments)), outcome.new)


def assignment_document(one: Assignment) -> AssignmentDocument:
    """Who has which address."""
    return AssignmentDocument(format_eui64(one.node), one.area, one.short, one.role.value)


def device_document(view: DeviceView) -> DeviceDocument:
    """One node."""
    place = view.place
    return DeviceDocument(
        format_eui64(view.node),
        view.area,
        view.short,
        view.role.value,
        view.state,
        _rounded(view.state_age_s),
        _rounded(view.heard_age_s),
        _rounded(view.registered_age_s),
        view.registered_for,
        None if place is None else place.path,
        None if place is None else place.path_sequence,
        None if place is None else round(place.confirmed_age_s, 1),
        tuple(map(_way, view.ways)),
        view.is_kept_out,
    )


def _way(view: WayView) -> WayDocument:
    return WayDocument(
        format_eui64(view.collector),
        tuple(
            HopDocument(format_eui64(hop.node), hop.short, hop.etx, _rounded(hop.age_s))
            for hop in view.hops
        ),
        view.etx,
        _rounded(view.age_s),
        None if view.kind is None else view.kind.value,
    )


def ping_document(path: Path, probed: Probed) -> PingDocument:
    """What became of a ping."""
    return PingDocument(names_of(path), _word(probed.outcome), probed.hops, probed.round_trip_ms)


def tracing_document(path: Path, answer: Probed | Traced) -> TracingDocument:
    """One line of a trace."""
    if isinstance(answer, Probed):
        hops = answer.hops
        return TracingDocument(
            step=TraceStepDocument(
                hops,
                format_eui64(path.nodes[hops]),
                path.shorts[hops - 1],
                _word(answer.outcome),
                answer.round_trip_ms,
            )
        )
    rows = (
        TraceRowDocument(row.node, _word(row.outcome), row.round_trip_ms) for row in answer.rows
    )
    return TracingDocument(trace=TraceDocument(names_of(path), tuple(rows)))


def isolation_document(event: Tried | Isolated) -> IsolationDocument:
    """One line of an isolation."""
    if isinstance(event, Tried):
        path = event.probe.path
        return IsolationDocument(
            tried=TriedDocument(event.probe.number, names_of(path), outcome_text(event.outcome))
        )
    if event.verdict is None:
        return IsolationDocument(failed=event.detail)
    return IsolationDocument(verdict=_verdict(event.verdict))


def _verdict(verdict: Verdict) -> VerdictDocument:
    return VerdictDocument(
        verdict.finding.value,
        tuple(
            CauseDocument(cause.part.value, tuple(map(format_eui64, cause.component.ends)))
            for cause in verdict.causes
        ),
        verdict.is_certain,
        tuple(
            WayTriedDocument(
                names_of(way.path),
                None if way.kind is None else way.kind.value,
                outcome_text(way.outcome),
            )
            for way in verdict.ways
        ),
        {kind.value: count for kind, count in verdict.left.items()},
        {kind.value: count for kind, count in verdict.known.items()},
        {kind.value: count for kind, count in verdict.untried.items()},
        verdict.probe_count,
        str(verdict),
    )


def order_document(carried: Sequence[Carried]) -> OrderDocument:
    """An order."""
    return OrderDocument(
        tuple(
            CarriedDocument(format_eui64(one.collector), one.is_done, one.value, one.detail)
            for one in carried
        )
    )


def names_of(path: Path) -> tuple[str, ...]:
    """A way from its collector down."""
    return tuple(map(format_eui64, path.nodes))


def outcome_text(outcome: Outcome) -> str:
    """What became of a probe, in words."""
    match outcome:
        case Answered():
            return "answered"
        case NoAnswer():
            return "no answer"
        case LostAfter(hops):
            return f"lost after {hops} hops"
        case NoConnection():
            return "no connection to the collector"
        case NotPassed(hops):
            return f"next node not known after {hops} hops"


def _word(outcome: Word) -> str:
    return outcome.name.lower().replace("_", " ")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
