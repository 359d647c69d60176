"""What comes and goes by collectors, shown to an observer as datagrams of UDP over IPv6.

Spec    RFC 6282 section 3.2.2 for a node's address below the area's prefix; the head-end is the
        DODAGID, where every way up ends; both speak on CoAP's port (RFC 7252)
Gives   each datagram once: as it came, or as the stack sent it, whichever way it then took
Never   shows a datagram for which there was no way: nothing was sent
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

from amistack.links.udp import Direction, Observer
from amistack.machine import Peer
from headend.dcc.center import Center
from headend.domain.mesh import MeshPeer
from mesh.routing.messages import address_of

COAP_PORT: Final = 5683


class Showing:
    """Between a center and who looks on."""

    def __init__(self, center: Center, observer: Observer, *, wall: Callable[[], float]) -> None:
        """`wall` is UTC in seconds."""
        self._center = center
        self._observer = observer
        self._wall = wall

    def came(self, peer: MeshPeer, octets: bytes) -> None:
        """A datagram came up."""
        self._show(Direction.RECEIVED, peer, octets)

    def went(self, peer: MeshPeer, octets: bytes) -> None:
        """A datagram was given to a collector."""
        self._show(Direction.SENT, peer, octets)

    def _show(self, direction: Direction, peer: MeshPeer, octets: bytes) -> None:
        graph = self._center.dcc.graph
        area = self._center.collectors.areas.get(peer.area)
        if area is None or peer.node not in graph:
            return
        short = graph.short_of(graph.index_of(peer.node))
        node = _socket(address_of(area.dodag_id, short))
        ours = _socket(area.dodag_id)
        source, destination = (node, ours) if direction is Direction.RECEIVED else (ours, node)
        self._observer(direction, source, destination, octets, self._wall())


def _socket(address: bytes) -> Peer:
    return str(ipaddress.IPv6Address(address)), COAP_PORT
