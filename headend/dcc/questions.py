"""What the head-end asks of collectors: probes and traces along a way, orders.

Spec    docs/protocol/backhaul.md
Gives   the number that the answer will carry; None where the collector is not connected
Raises  NotThere for an order to a collector that is not connected, TableFull at the bound
Limit   what `Requests` keeps; a question has GRACE_S beyond its own deadline for its answer
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from amistack.errors import TableFull
from amistack.framing import Priority
from amistack.identifiers import Eui64, format_eui64
from headend.dcc.collectors import Collectors, Joined
from headend.dcc.events import RequestNumber
from headend.dcc.requests import Requests
from headend.domain.refusals import NotThere
from mesh.backhaul import Broadcast, Command, HeadEndMessage, Order, Probe, Trace
from mesh.backhaul.messages import NO_NODE
from mesh.packet import PacketKind
from mesh.topology.dcc import Dcc
from mesh.topology.isolate import timeout_of
from mesh.topology.paths import Path

GRACE_S: Final = 10.0
"""Beyond a question's own deadline, for the collector's word about it."""
ORDER_DEADLINE_S: Final = 60.0
TRACE_HOP_S: Final = 5.0

Say = Callable[[Joined, Priority, HeadEndMessage], None]


class Questions:
    """Asks; the answers are for who waits for their numbers."""

    def __init__(self, dcc: Dcc, collectors: Collectors, requests: Requests, say: Say) -> None:
        self._dcc = dcc
        self._collectors = collectors
        self._requests = requests
        self._say = say

    def probe(self, path: Path, *, now: float) -> RequestNumber | None:
        """Ask the end of a way whether it is there."""
        joined = self._collectors.find(path.collector)
        if joined is None:
            return None
        deadline_s = math.ceil(timeout_of(path))
        number = self._requests.begin(path.collector, deadline=now + deadline_s + GRACE_S)
        destination, relays = self._route(path)
        self._say(joined, Priority.ON_DEMAND, Probe(number, destination, relays, deadline_s))
        return number

    def trace(self, path: Path, *, now: float) -> RequestNumber | None:
        """Ask every node of a way, the nearest first; rows may come before the answer."""
        joined = self._collectors.find(path.collector)
        if joined is None:
            return None
        deadline_s = math.ceil(timeout_of(path) + TRACE_HOP_S * path.hops)
        number = self._requests.begin(
            path.collector, deadline=now + deadline_s + GRACE_S, row_count_max=path.hops
        )
        destination, relays = self._route(path)
        self._say(joined, Priority.ON_DEMAND, Trace(number, destination, relays, deadline_s))
        return number

    def order(
        self, collector: Eui64, order: Order, node: Eui64 | None = None, *, now: float
    ) -> RequestNumber:
        """Have a collector do something."""
        joined = self._collectors.find(collector)
        if joined is None:
            raise NotThere(f"collector {format_eui64(collector)} is not connected")
        number = self._requests.begin(collector, deadline=now + ORDER_DEADLINE_S, order=order)
        self._say(joined, Priority.CONTROL, self._command(number, order, joined, node))
        return number

    def ask_reports(self, collector: Eui64) -> bool:
        """Have every node that a collector reaches report anew: the reports are the answer."""
        joined = self._collectors.find(collector)
        if joined is None:
            return False
        number = self._requests.number()
        wish = Broadcast(number, PacketKind.TOPOLOGY, Priority.CONTROL, b"")
        self._say(joined, Priority.CONTROL, wish)
        return True

    def name_denied(self, joined: Joined, *, now: float) -> int:
        """Tell a collector that has just joined whom to keep out; how many it was not told of."""
        denied = self._collectors.denied(joined.assignment.area)
        for told, node in enumerate(denied):
            try:
                self.order(joined.assignment.node, Order.DENY, node, now=now)
            except TableFull:
                return len(denied) - told
        return 0

    def _route(self, path: Path) -> tuple[int, tuple[int, ...]]:
        """Destination and relays of a way; of one that ends where it begins, the collector."""
        if path.hops:
            return path.shorts[-1], path.shorts[:-1]
        graph = self._dcc.graph
        return graph.short_of(graph.index_of(path.collector)), ()

    def _command(
        self, number: RequestNumber, order: Order, joined: Joined, node: Eui64 | None
    ) -> Command:
        """An order; one about a node also names its address, by which it is known behind relays."""
        graph = self._dcc.graph
        if node is None or node not in graph:
            return Command(number, order, node)
        index = graph.index_of(node)
        is_here = graph.area_of(index) == joined.assignment.area
        return Command(number, order, node, graph.short_of(index) if is_here else NO_NODE)
