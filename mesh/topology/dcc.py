"""The Data Center Concentrator's whole view: graph, routes, locations and status, kept in step.

In      `place`, `remove`, `keep_out`, `set_backhaul`, `take_report`, `take_octets`, `take_route`,
        `handle_timer`
Out     `graph`, `routes`, `locations`, `devices` to ask; `isolate` begins an isolation
Raises  MeshError for what is not believed, counted in `graph.refused`; nothing has changed then
Never   sends anything, or reads a clock: whoever drives it hands in the time, which never goes back
"""

from __future__ import annotations

from collections.abc import Sequence

from amistack.errors import MeshError
from amistack.identifiers import Eui64, format_eui64
from mesh.reports import TopologyReport
from mesh.topology.facts import MINUTE_S, AreaId, Backhaul, Role
from mesh.topology.graph import Graph
from mesh.topology.isolate import Isolation
from mesh.topology.location import (
    LIFETIME_S,
    BehindCollector,
    Location,
    Locations,
    is_newer_path,
)
from mesh.topology.paths import node_component
from mesh.topology.routes import Routes
from mesh.topology.status import Devices
from mesh.topology.verdicts import Answered


class Dcc:
    """All areas of one head-end. After any call, ask `next_timer`."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.routes = Routes(self.graph)
        self.locations = Locations()
        self.devices = Devices()
        self._down_since: dict[Eui64, float] = {}

    # Commands from above

    def place(
        self,
        node: Eui64,
        *,
        area: AreaId,
        short: int,
        role: Role = Role.METER,
        now: float,
    ) -> None:
        """Know a node by the address that it was given. Raises MeshError, TableFull."""
        was_collector = self._is_collector(node)
        before = self.graph.index_of(node) if node in self.graph else None
        changes = self.graph.place(node, area=area, short=short, role=role)
        self.routes.take_changes(changes)
        if was_collector and before is not None:
            self.routes.backhaul_changed(before)
        if role is Role.COLLECTOR:
            self.routes.backhaul_changed(self.graph.index_of(node))
        self.devices.add(node, now=now)

    def remove(self, node: Eui64) -> None:
        """Forget a node. Raises MeshError for one not known."""
        index = self.graph.index_of(node)
        self.routes.take_changes(self.graph.remove(node))
        self.routes.backhaul_changed(index)
        self.locations.forget(node)
        self.devices.remove(node)
        self._down_since.pop(node, None)

    def keep_out(self, node: Eui64, *, is_denied: bool) -> None:
        """Let no way lead to a node or over it, or again. Raises MeshError for one not known."""
        self.routes.take_changes(self.graph.keep_out(node, is_denied=is_denied))

    def set_backhaul(self, collector: Eui64, state: Backhaul, *, now: float) -> None:
        """The connection of a collector came or went. Raises MeshError for what has none."""
        if self.graph.set_backhaul(collector, state):
            self._down_since[collector] = now
            self.routes.backhaul_changed(self.graph.index_of(collector))
        if state is Backhaul.UP:
            self._down_since.pop(collector, None)
            self.devices.heard(collector, now=now)

    # Inputs from below

    def take_octets(
        self, octets: bytes, *, area: AreaId, short: int, now: float, node: Eui64 | None = None
    ) -> TopologyReport:
        """A topology report as it came; the rest as `take_report`."""
        try:
            report = TopologyReport.decode(octets)
        except MeshError as error:
            self.graph.refused[error.reason] += 1
            raise
        self.take_report(report, area=area, short=short, now=now, node=node)
        return report

    def take_report(
        self,
        report: TopologyReport,
        *,
        area: AreaId,
        short: int,
        now: float,
        node: Eui64 | None = None,
    ) -> None:
        """Believe a node about itself and make every route right.

        `node` is who vouched for the report, where that is known. Raises MeshError.
        """
        changes = self.graph.take_report(report, area=area, short=short, now=now, node=node)
        reporter = self.graph.eui_of(self.graph.areas[area][short])
        self.devices.registered(reporter, report.reason, now=now)
        self.routes.take_changes(changes)

    def take_route(
        self,
        parents: Sequence[int],
        *,
        area: AreaId,
        short: int,
        path_sequence: int,
        collector: Eui64,
        now: float,
        lifetime_s: float = LIFETIME_S,
        is_retold: bool = False,
    ) -> bool:
        """Take what a collector learned from a node's DAO; whether the node is asked by it now.

        The parents, by short address, are links until the node's next report says more. A path
        sequence that was not known is a word of the node: it was heard. Not so what is known, and
        with `is_retold`, when a collector tells its whole table, a row that nobody can date: it
        counts for a node that was never heard. Raises MeshError; LocalProtocolError for a path
        sequence that is none.
        """
        graph = self.graph
        if not self._is_collector(collector):
            graph.refused["no collector"] += 1
            raise MeshError("no collector", format_eui64(collector))
        node = graph.find(area, short)
        before = None if node is None else self.locations.find(node)
        if node is not None and short not in parents:
            place = BehindCollector(collector)
            if not self.locations.learn(
                node, place, path_sequence=path_sequence, now=now, lifetime_s=lifetime_s
            ):
                return False
        self.routes.take_changes(graph.take_parents(parents, area=area, short=short, now=now))
        if node is not None and self._is_word(node, before, path_sequence, is_retold, now):
            self.devices.heard(node, now=now)
        return True

    def handle_timer(self, *, now: float) -> None:
        """Let words grow old and devices be late; a part of it where much is due at once."""
        self.routes.take_changes(self.graph.age(now=now))
        self.devices.handle_timer(now=now)

    # Outputs

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        timers = (self.graph.next_timer(), self.devices.next_timer())
        return min((timer for timer in timers if timer is not None), default=None)

    def rebuild(self) -> None:
        """Work out every cost and every route anew from what the nodes said."""
        self.graph.rebuild_costs()
        self.routes.rebuild()

    def isolate(self, meter: Eui64, *, now: float, can_probe_collectors: bool = False) -> Isolation:
        """Begin to find out why a meter is silent; whoever drives it sends the probes.

        The first way is the one by the collector where the meter is located, also if that has lost
        its connection. Tell `isolation_ended` the verdict. Raises MeshError for one not known.
        """
        first = None
        location = self.locations.find(meter)
        if location is not None and isinstance(location.place, BehindCollector):
            collector = location.place.collector
            route = self.routes.route_of(meter)
            if self._is_collector(collector) and (route is None or route.collector != collector):
                first = self.routes.way_by(collector, meter)
        isolation = Isolation(
            meter, self.routes, first=first, can_probe_collectors=can_probe_collectors
        )
        if first is not None and self._heard_since_down(first.collector, now=now):
            isolation.take_evidence([node_component(first.collector)])
        return isolation

    def isolation_ended(self, isolation: Isolation, *, now: float) -> None:
        """Take over what an isolation found: the meter answers, or is out of reach by all ways.

        Where no way could be tried, nothing was found out.
        """
        verdict = isolation.verdict()
        if verdict is None or not verdict.ways:
            return
        if any(isinstance(way.outcome, Answered) for way in verdict.ways):
            self.devices.heard(isolation.meter, now=now)
        else:
            self.devices.isolated(isolation.meter, now=now)

    def _heard_since_down(self, collector: Eui64, *, now: float) -> bool:
        """Whether some node measured its link to a collector after its backhaul went down."""
        down_since = self._down_since.get(collector)
        if down_since is None:
            return False
        graph = self.graph
        return any(
            link.neighbour == collector and now - link.age_s - MINUTE_S > down_since
            for neighbour in graph.costs[graph.index_of(collector)]
            for link in graph.fact_of(neighbour, now=now).links
        )

    def _is_word(
        self, node: Eui64, known: Location | None, sequence: int, is_retold: bool, now: float
    ) -> bool:
        """Whether a row says that its node spoke since it was last heard."""
        held = None if known is None else known.path_sequence
        if held is not None:
            return sequence != held and not is_newer_path(held, sequence)
        return not is_retold or self.devices.status_of(node, now=now).heard_at is None

    def _is_collector(self, node: Eui64) -> bool:
        return node in self.graph and self.graph.role_of(self.graph.index_of(node)) is (
            Role.COLLECTOR
        )
