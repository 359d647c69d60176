"""What a head-end that is told everything in time would know of a world's mesh.

Gives   a `Dcc` filled with the report of every node that has power and the table of every collector
        that is connected, as they are now
Never   tells more than nodes say of themselves: what is true of the air is `mesh.sim.ground`'s
"""

from __future__ import annotations

from typing import Final

from amistack.errors import MeshError
from mesh.reporting import report_of
from mesh.reports import Reason
from mesh.routing.node import MeshNode
from mesh.sim.nodes import mesh_node, short_address
from mesh.sim.world import World
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId, Backhaul, Role

AREA: Final = AreaId(1)


def what_the_head_end_knows(world: World, *, hop_rank_increase: int) -> Dcc:
    """All of it, fresh."""
    dcc = Dcc()
    dcc.graph.set_hop_rank_increase(AREA, hop_rank_increase)
    now = world.clock.now
    for number, address in enumerate(world.stations.addresses):
        role = Role.COLLECTOR if number in world.collectors else Role.METER
        dcc.place(address, area=AREA, short=short_address(number), role=role, now=now)
    for collector in world.collectors:
        if world.is_connected(collector):
            dcc.set_backhaul(world.stations.addresses[collector], Backhaul.UP, now=now)
    # A table has what DAOs said once; the reports are of now, and what they say replaces it.
    for collector in world.collectors:
        root = world.stations.machine(collector)
        if world.is_connected(collector) and root is not None:
            _take_table(dcc, mesh_node(root), now)
    for number, machine in world.machines():
        own = world.stations.own_time(number)
        report = report_of(mesh_node(machine), Reason.PERIODIC, sequence=1, now=own)
        dcc.take_report(report, area=AREA, short=short_address(number), now=now)
    return dcc


def _take_table(dcc: Dcc, collector: MeshNode, now: float) -> None:
    assert collector.routes is not None
    for short, row in collector.routes.rows.items():
        try:
            dcc.take_route(
                row.parents,
                area=AREA,
                short=short,
                path_sequence=row.path_sequence,
                collector=collector.own,
                now=now,
            )
        except MeshError:
            continue  # It counted that.
