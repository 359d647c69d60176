"""A packet for everybody: each node hears it once, and few repeat it.

Spec    after RFC 7731 (MPL), proactive forwarding of one data message with Trickle's suppression
In      `begin` with an own flood, `hear` with one that came
Out     `handle_timer` returns what to repeat now; `deadline`
Limit   `seen_max` floods are remembered, each for `seen_time`; at the bound the oldest is
        forgotten, and a copy of it that still comes would spread again until its hop limit
Never   repeats a flood more than `repeats` times, or at all where `redundancy` copies were heard
"""

from __future__ import annotations

import random

from mesh.packet import Packet
from mesh.routing.profile import Flood
from mesh.routing.trickle import NEVER


class _Seen:
    __slots__ = ("copies", "due_at", "ends_at", "heard_at", "packet", "repeats_left")

    def __init__(self, packet: Packet | None, now: float) -> None:
        self.packet = packet
        self.heard_at = now
        self.copies = 1
        self.repeats_left = 0
        self.due_at = NEVER
        self.ends_at = NEVER


class Floods:
    """The floods that one node takes part in."""

    __slots__ = ("_chance", "_profile", "_seen", "deadline")

    def __init__(self, profile: Flood, chance: random.Random) -> None:
        self._profile = profile
        self._chance = chance
        self._seen: dict[tuple[int, int], _Seen] = {}
        self.deadline = NEVER

    def __len__(self) -> int:
        return len(self._seen)

    def begin(self, packet: Packet, *, now: float) -> None:
        """One of our own, or one whose subtree begins here: it is said at once, then repeated."""
        seen = self._remember(packet, now)
        seen.copies = 0
        seen.due_at = now
        self._schedule()

    def hear(self, packet: Packet, *, now: float) -> bool:
        """Whether it is new. A copy of a known one only counts."""
        assert packet.flood is not None
        seen = self._seen.get((packet.source, packet.flood.sequence))
        if seen is not None:
            seen.copies += 1
            return False
        seen = self._remember(packet, now)
        if packet.hop_limit > 1:
            self._begin_interval(seen, now)
        self._schedule()
        return True

    def handle_timer(self, *, now: float) -> list[Packet]:
        """What to say now."""
        due: list[Packet] = []
        for key, seen in list(self._seen.items()):
            if seen.due_at <= now:
                seen.due_at = NEVER
                if seen.packet is not None and seen.copies < self._profile.redundancy:
                    due.append(seen.packet)
                if seen.ends_at == NEVER:
                    seen.ends_at = now + self._profile.interval
            if seen.ends_at <= now:
                if seen.repeats_left > 0:
                    self._begin_interval(seen, now, is_first=False)
                else:
                    seen.ends_at = NEVER
                    seen.packet = None
            if seen.packet is None and now - seen.heard_at > self._profile.seen_time:
                del self._seen[key]
        self._schedule()
        return due

    def _remember(self, packet: Packet, now: float) -> _Seen:
        assert packet.flood is not None
        if len(self._seen) >= self._profile.seen_max:
            del self._seen[next(iter(self._seen))]
        seen = self._seen[packet.source, packet.flood.sequence] = _Seen(packet, now)
        seen.repeats_left = max(self._profile.repeats - 1, 0)
        return seen

    def _begin_interval(self, seen: _Seen, now: float, *, is_first: bool = True) -> None:
        interval = self._profile.interval
        if not is_first:
            seen.repeats_left -= 1
            # Only what is heard now says whether it is still worth saying.
            seen.copies = 0
        seen.due_at = now + interval * (0.5 + 0.5 * self._chance.random())
        seen.ends_at = now + interval

    def _schedule(self) -> None:
        deadline = NEVER
        for seen in self._seen.values():
            if seen.packet is not None:
                deadline = min(deadline, seen.due_at, seen.ends_at)
        self.deadline = deadline
