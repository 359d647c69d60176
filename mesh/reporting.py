"""What a node would tell the DCC about its place now.

In      a `MeshNode`, looked at and not changed
Gives   its `TopologyReport`: parents in order, then the best of its other tried neighbours; and
        whether one would say anything new
Never   tells a figure that nothing was measured for: an untried link is none to plan with
"""

from __future__ import annotations

from typing import Final

from mesh.reports import (
    AGE_MINUTES_MAX,
    ETX_ONE,
    ETX_UNKNOWN,
    HOPS_UNKNOWN,
    INFINITE_RANK,
    NEIGHBOURS_MAX,
    PARENTS_MAX,
    SAMPLES_MAX,
    SHORT_MAX,
    LinkReport,
    Reason,
    TopologyReport,
    differs,
)
from mesh.routing.neighbours import Neighbour
from mesh.routing.node import MeshNode, Role

MINUTE_S: Final = 60.0


def report_of(
    node: MeshNode, reason: Reason, *, sequence: int, now: float, hops: int = HOPS_UNKNOWN
) -> TopologyReport:
    """`hops` to the collector where somebody told the node; its own rank does not say them."""
    parents = node.dodag.parents[:PARENTS_MAX]
    rank = node.rank
    if node.role is Role.COLLECTOR and rank != INFINITE_RANK:
        parents, hops = (), 0
    elif rank == INFINITE_RANK or not parents:
        parents, rank, hops = (), INFINITE_RANK, HOPS_UNKNOWN
    elif hops != HOPS_UNKNOWN and rank < node.dodag.configuration.hop_rank_increase_min * (
        hops + 1
    ):
        # The collector's answer came by another way than the one that leads up.
        hops = HOPS_UNKNOWN
    tried = sorted(
        (
            row
            for row in node.dodag.neighbours
            # Of some the EUI-64 alone is known, from a frame that went up through us.
            if row.metric.samples and row not in parents and row.short <= SHORT_MAX
        ),
        key=lambda row: (row.metric.etx, row.short),
    )
    return TopologyReport(
        reason,
        sequence & 0xFFFF,
        rank,
        hops,
        tuple(_link(row, now) for row in parents),
        tuple(_link(row, now) for row in tried[:NEIGHBOURS_MAX]),
    )


def is_as_told(node: MeshNode, told: TopologyReport) -> bool:
    """Whether every figure of `told` that the node still has is what it was, within hysteresis.

    Then a new report would say nothing new. This is asked often, and costs a tenth of a report.
    """
    dodag = node.dodag
    parents = dodag.parents
    if len(parents) != len(told.parents):
        return False
    by_short = dodag.neighbours.by_short
    for link in told.links:
        row = by_short(link.neighbour)
        if row is not None and differs(link.etx_to, _etx(row)):
            return False
    shorts = {link.neighbour for link in told.links}
    return not parents or (
        parents[0].short == told.parents[0].neighbour
        and all(parent.short in shorts for parent in parents)
    )


def _etx(row: Neighbour) -> int:
    return round(row.metric.etx * ETX_ONE) if row.metric.samples else ETX_UNKNOWN


def _link(row: Neighbour, now: float) -> LinkReport:
    """An attempt fails if either direction does, so the one figure is told as the way there."""
    metric = row.metric
    return LinkReport(
        row.short,
        _etx(row),
        samples=min(metric.samples, SAMPLES_MAX),
        age_minutes=min(max(int((now - metric.tried_at) / MINUTE_S), 0), AGE_MINUTES_MAX),
    )
