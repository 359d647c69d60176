"""Where a packet in fragments goes, as its first fragment says: what routing does for whole ones.

Spec    RFC 8930 section 3 (forwarding of the first fragment); docs/protocol/mesh.md, "Fragments"
In      the head of a packet: its header, all of it, and as much of its payload as came
Gives   `route_first`, for `mesh.fragments`
Raises  MeshError where a packet goes nowhere; `told` is called where a source route broke
Never   changes the size of a header: who comes next counts on it
"""

from __future__ import annotations

from dataclasses import replace

from amistack.errors import MeshError
from amistack.identifiers import Eui64
from mesh.fragments import Onward
from mesh.packet import ROOT, Packet, RplMark
from mesh.routing.messages import INFINITE_RANK
from mesh.routing.neighbours import Neighbour
from mesh.routing.node import MeshNode


class Ways:
    """One node's."""

    def __init__(self, node: MeshNode) -> None:
        self._node = node

    def route_first(self, head: bytes, previous: Eui64, *, now: float) -> Onward | None:
        """Where the packet that begins with `head` goes; None if it is put together here."""
        packet = Packet.decode(head)
        mark = packet.rpl
        if mark is None or packet.flood is not None:
            raise MeshError("no mark", "a packet in fragments has a way up or down")
        if mark.is_down:
            return self._down(packet, now)
        return self._up(packet, mark, previous, now)

    def _down(self, packet: Packet, now: float) -> Onward | None:
        node, route = self._node, packet.route
        if route is None or route.next_relay is None:
            if packet.destination == node.short:
                return None
            raise MeshError("not for us", f"{packet.destination:#06x}")
        if route.next_relay != node.short:
            raise MeshError("not the relay", f"{route.next_relay:#06x}")
        route = route.advanced()
        following = packet.destination if route.next_relay is None else route.next_relay
        row = node.dodag.neighbours.by_short(following)
        packet = replace(packet, route=route)
        if row is None:
            node.carrying.tell_broken(packet, following, is_unknown=True, now=now)
            raise MeshError("no way down", f"{following:#06x} is no neighbour")
        return self._onward(packet, RplMark(node.rank, is_down=True), row)

    def _up(self, packet: Packet, mark: RplMark, previous: Eui64, now: float) -> Onward | None:
        node = self._node
        if not node.dodag.note_passing(previous, mark.sender_rank, now=now):
            raise MeshError("not taken", "no child of ours, or no place to remember it")
        if node.routes is not None or packet.destination == node.short:
            # A root sends it on, if it must, with a route that has no place in this header.
            return None
        has_error = mark.sender_rank <= node.rank != INFINITE_RANK
        if has_error:
            node.dodag.note_loop(previous, now=now)
            if mark.has_rank_error:
                raise MeshError("loop", "twice on a way that does not lead up")
        for row in node.dodag.parents:
            if row.eui != previous:
                mark = RplMark(node.rank, has_rank_error=has_error or mark.has_rank_error)
                return self._onward(packet, mark, row)
        raise MeshError("no way up", f"to {packet.destination:#06x}, {ROOT} is the root")

    @staticmethod
    def _onward(packet: Packet, mark: RplMark, row: Neighbour) -> Onward:
        if packet.hop_limit <= 1:
            raise MeshError("hop limit", "reached")
        packet = replace(packet, hop_limit=packet.hop_limit - 1, rpl=mark)
        return Onward(row.eui, packet.encode())
