"""What a node would tell the DCC about its place now.

In      a `MeshNode`, looked at and not changed
Gives   its `TopologyReport`: parents in order, then the best of its other tried neighbours
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


def _link(row: Neighbour, now: float) -> LinkReport:
    """An attempt fails if either direction does, so the one figure is told as the way there."""
    metric = row.metric
    return LinkReport(
        row.short,
        round(metric.etx * ETX_ONE) if metric.samples else ETX_UNKNOWN,
        samples=min(metric.samples, SAMPLES_MAX),
        age_minutes=min(max(int((now - metric.tried_at) / MINUTE_S), 0), AGE_MINUTES_MAX),
    )
