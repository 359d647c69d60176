"""What a root's node knows, put into words of the backhaul.

Gives   `up_of`, a packet that came up; `way_of`, the way along which a question is asked
"""

from __future__ import annotations

from mesh.backhaul import Probe, Trace, Up
from mesh.backhaul.messages import HOPS_UNKNOWN, NO_NODE
from mesh.packet import NODE_ADDRESS_MAX, ROOT
from mesh.routing.events import PacketReceived
from mesh.routing.node import MeshNode


def up_of(event: PacketReceived, node: MeshNode, *, hop_limit: int) -> Up:
    """With how far it came, and from which neighbour; `hop_limit` is what it started with."""
    row = node.dodag.neighbours.get(event.from_neighbour)
    hops = hop_limit - event.hops_left + 1
    return Up(
        event.source,
        event.kind,
        event.priority,
        event.payload,
        hops if 1 <= hops < HOPS_UNKNOWN else HOPS_UNKNOWN,
        NO_NODE if row is None or row.short > NODE_ADDRESS_MAX else row.short,
        event.attempt,
    )


def way_of(question: Probe | Trace, node: MeshNode, now: float) -> tuple[int, ...] | None:
    """From here to the end of the way, both included; None where none is known, or goes in circles.

    Where the head-end gives no relays it is the one of the node's own table.
    """
    own, destination, relays = node.short, question.destination, question.relays
    if destination in (own, ROOT):
        return (own,)
    if relays is None:
        relays = node.route_to(destination, now=now)
    if relays is None or own in relays:
        return None
    return (own, *relays, destination)
