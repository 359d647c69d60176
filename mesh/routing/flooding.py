"""Packets for everybody, or for all below one node: begun, heard, passed on.

Spec    docs/protocol/mesh.md, "Routing", floods; `mesh.routing.broadcast` says when
Out     jobs into the outbox
Never   takes a flood for a subtree from anybody but a parent
"""

from __future__ import annotations

from dataclasses import replace

from amistack.framing import Priority
from mesh.packet import BROADCAST, Flood, Packet, RplMark, ShortAddress, SourceRoute
from mesh.routing.broadcast import Floods
from mesh.routing.core import Core
from mesh.routing.jobs import Job, Way
from mesh.routing.outbox import Outbox
from mesh.security import Received


class Flooding:
    """What one node does for floods."""

    __slots__ = ("_core", "_outbox", "_sequence", "floods")

    def __init__(self, core: Core, outbox: Outbox) -> None:
        self._core = core
        self._outbox = outbox
        self._sequence = core.chance.randrange(0x10000)
        self.floods = Floods(core.profile.flood, core.chance)

    def begin(
        self, payload: bytes, *, priority: Priority, kind: int, subtree: int | None, now: float
    ) -> bool:
        """Let it reach everybody below `subtree`, None for all; False if no way leads there."""
        core = self._core
        self._sequence = (self._sequence + 1) & 0xFFFF
        top = None if subtree is None else ShortAddress(subtree)
        packet = Packet(
            kind,
            priority,
            core.short,
            BROADCAST,
            payload,
            core.profile.links.hop_limit,
            flood=Flood(self._sequence, top),
        )
        if top is None or top == core.short:
            self.floods.begin(packet, now=now)
            return True
        relays = None if core.routes is None else core.routes.route_to(top, now=now)
        if relays is None:
            return False
        packet = replace(
            packet,
            rpl=RplMark(core.dodag.rank, is_down=True),
            route=SourceRoute((*map(ShortAddress, relays), top)),
        )
        self._outbox.put(Job(Way.DOWN, packet, now, is_own=True))
        return True

    def hear(self, packet: Packet, heard: Received, now: float) -> bool:
        """Whether a flood that came is for us, and new."""
        flood = packet.flood
        assert flood is not None
        core = self._core
        if packet.source == core.short:
            return False
        if flood.subtree is not None and not core.dodag.is_parent(heard.source):
            # Below that node is who hears it from its parents.
            core.counters["flood: not our subtree"] += 1
            return False
        return self.floods.hear(replace(packet, hop_limit=max(packet.hop_limit - 1, 0)), now=now)

    def begin_subtree(self, packet: Packet, now: float) -> Packet | None:
        """A flood whose source route ends here; the packet if it is new."""
        if packet.flood is None:
            self._core.counters["dropped: not for us"] += 1
            return None
        plain = replace(packet, route=None, rpl=None, hop_limit=packet.hop_limit - 1)
        return plain if self.floods.hear(plain, now=now) else None

    def handle_timer(self, now: float) -> None:
        """Repeat what is to be repeated now."""
        for packet in self.floods.handle_timer(now=now):
            self._outbox.put_or_count(Job(Way.EVERYBODY, packet, now))
