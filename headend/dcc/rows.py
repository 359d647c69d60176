"""What collectors tell of their DAO tables, taken into the topology: who is asked by which one.

Spec    docs/protocol/backhaul.md, "The table"; RFC 6550 section 7.2 (path sequences)
Gives   whom to tell that a row is not true any more: the newest path sequence wins
Raises  MeshError for a row that is not believed, counted in `graph.refused`; nothing has changed
Never   forgets where a node is because a collector that it has left does
"""

from __future__ import annotations

from amistack.identifiers import Eui64
from headend.dcc.collectors import Joined
from mesh.backhaul import Forget, RouteGone, RouteRow, TableEnd, Why
from mesh.topology.dcc import Dcc
from mesh.topology.location import BehindCollector, Location, is_newer_path


class Rows:
    """The tables of all collectors and the one topology."""

    def __init__(self, dcc: Dcc) -> None:
        self._dcc = dcc

    def take(self, joined: Joined, row: RouteRow, *, now: float) -> list[tuple[Eui64, Forget]]:
        """Take a row; the collectors for which it, or an older one, is over."""
        dcc, collector, area = self._dcc, joined.assignment.node, joined.assignment.area
        node = dcc.graph.find(area, row.target)
        before = None if node is None else dcc.locations.find(node)
        if before is not None and _is_behind(before, collector, row, now):
            joined.table.take(row)
            return []
        is_news = dcc.take_route(
            row.parents,
            area=area,
            short=row.target,
            path_sequence=row.path_sequence,
            collector=collector,
            now=now,
            lifetime_s=float(row.lifetime),
            is_retold=joined.table.is_streaming,
        )
        joined.table.take(row)
        if before is None or not isinstance(before.place, BehindCollector):
            return []
        other = before.place.collector
        if other == collector:
            return []
        if is_news:
            return [(other, Forget(row.target, row.path_sequence))]
        if before.path_sequence is None:
            return []
        return [(collector, Forget(row.target, before.path_sequence))]

    def drop(self, joined: Joined, message: RouteGone) -> None:
        """A row is gone."""
        joined.table.drop(message)
        if message.why is not Why.FORGOTTEN:
            self._forget(joined, message.target, message.path_sequence)

    def end(self, joined: Joined, message: TableEnd) -> bool:
        """A whole table came: what was not in it is gone. False for the end of another one."""
        gone = joined.table.end(message)
        for target in gone or ():
            self._forget(joined, target, None)
        return gone is not None

    def _forget(self, joined: Joined, target: int, path_sequence: int | None) -> None:
        """A node is not behind this collector any more; where it is then, nobody knows."""
        node = self._dcc.graph.find(joined.assignment.area, target)
        location = None if node is None else self._dcc.locations.find(node)
        if node is None or location is None:
            return
        is_there = location.place == BehindCollector(joined.assignment.node)
        if is_there and path_sequence in (None, location.path_sequence):
            self._dcc.locations.forget(node)


def _is_behind(known: Location, collector: Eui64, row: RouteRow, now: float) -> bool:
    """Whether a collector that started anew tells what its disk had, a few sequences ago.

    It keeps a row when it changes, and not each time that the node says the same again.
    """
    return (
        known.place == BehindCollector(collector)
        and known.path_sequence is not None
        and now - known.confirmed_at < known.lifetime_s
        and is_newer_path(known.path_sequence, row.path_sequence)
    )
