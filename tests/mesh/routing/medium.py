"""A medium without a radio: who hears whom stands in a table, and chance decides by it.

Real node machines, a virtual clock, one seed. No collisions and no carrier sensing: those are the
simulator's. After every call the oracle walks the preferred parents; it shares no code with
the router.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable

from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.packet import ROOT
from mesh.routing.events import Event, PacketReceived, ParentChanged
from mesh.routing.node import MeshNode, Role
from mesh.routing.profile import Profile, load_profile
from mesh.security import CountersWanted, Seal

DODAG_ID = bytes.fromhex("fd000000000000000000000000000001")
FRAME_TIME = 0.006
TURNAROUND = 0.001
KEY = bytes(16)


class QuickCipher:
    """Of AES-CCM the sizes alone: for worlds without an outsider."""

    def __init__(self, key: bytes) -> None:
        self._seed = zlib.crc32(key)

    def seal(self, nonce: bytes, plaintext: bytes, header: bytes) -> bytes:
        return plaintext + self._sum(nonce, plaintext, header)

    def open(self, nonce: bytes, sealed: bytes, header: bytes) -> bytes | None:
        plaintext = sealed[:-8]
        return plaintext if sealed[-8:] == self._sum(nonce, plaintext, header) else None

    def tag(self, nonce: bytes, header: bytes) -> bytes:
        return self._sum(nonce, b"", header)[4:]

    def fits(self, nonce: bytes, tag: bytes, header: bytes) -> bool:
        return self.tag(nonce, header) == tag

    def _sum(self, nonce: bytes, plaintext: bytes, header: bytes) -> bytes:
        first = zlib.crc32(plaintext, zlib.crc32(header, zlib.crc32(nonce, self._seed)))
        return first.to_bytes(4, "big") + zlib.crc32(first.to_bytes(4, "big")).to_bytes(4, "big")


def eui(short: int) -> Eui64:
    return Eui64(bytes.fromhex("70b3d5fffe00") + short.to_bytes(2, "big"))


def short_of(address: Eui64) -> int:
    return int.from_bytes(address[6:], "big")


class World:
    """Nodes by short address; `links[a, b]` is the share of frames of `a` that `b` hears."""

    def __init__(
        self,
        seed: int,
        *,
        roots: Iterable[int] = (1,),
        profile: Profile | str = "lab",
    ) -> None:
        self.chance = random.Random(seed)
        self.profile = load_profile(profile) if isinstance(profile, str) else profile
        self.roots = set(roots)
        self.now = 0.0
        self.links: dict[tuple[int, int], float] = {}
        self.hearers: dict[int, set[int]] = {}
        self.nodes: dict[int, MeshNode] = {}
        self.dead: set[int] = set()
        self.received: list[tuple[float, int, PacketReceived]] = []
        self.happened: list[tuple[float, int, Event]] = []
        self.loops: list[tuple[float, list[int]]] = []
        self.frames = 0
        self.octets_by_node: Counter[int] = Counter()
        self.watch: Callable[[float, int, bytes], bytes | None] | None = None
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._busy: dict[int, bool] = {}
        self._wake: dict[int, float] = {}
        self._lives: Counter[int] = Counter()
        self._stored: dict[int, int] = {}
        self._dice = random.Random(seed ^ 0x5EED)

    # Building

    def link(self, one: int, other: int, share: float = 1.0, back: float | None = None) -> None:
        self.links[one, other] = share
        self.links[other, one] = share if back is None else back
        self.hearers.setdefault(one, set()).add(other)
        self.hearers.setdefault(other, set()).add(one)

    def cut(self, one: int, other: int) -> None:
        self.links.pop((one, other), None)
        self.links.pop((other, one), None)
        self.hearers[one].discard(other)
        self.hearers[other].discard(one)

    def line(self, count: int, share: float = 1.0) -> World:
        for short in range(1, count):
            self.link(short, short + 1, share)
        return self

    def grid(self, width: int, height: int, share: float = 1.0, diagonal: float = 0.7) -> World:
        for y in range(height):
            for x in range(width):
                at = 1 + y * width + x
                if x + 1 < width:
                    self.link(at, at + 1, share)
                if y + 1 < height:
                    self.link(at, at + width, share)
                    if x + 1 < width:
                        self.link(at, at + width + 1, diagonal)
                    if x > 0:
                        self.link(at, at + width - 1, diagonal)
        return self

    def start(self, *shorts: int, **more: object) -> None:
        for short in shorts or sorted(self.hearers):
            self._lives[short] += 1
            self.dead.discard(short)
            is_root = short in self.roots
            node = MeshNode(
                eui(short),
                short,
                Seal(
                    eui(short),
                    {1: KEY},
                    active=1,
                    stored_counter=self._stored.get(short, 0),
                    make_cipher=QuickCipher,
                ),
                self.profile,
                random.Random(self._dice.random()),
                role=Role.COLLECTOR if is_root else Role.METER,
                **({"dodag_id": DODAG_ID if is_root else None} | more),  # type: ignore[arg-type]
            )
            self.nodes[short] = self.wrap(node)
            self._busy[short] = False
            self._wake.pop(short, None)
            self._collect(short)
            self.nodes[short].start(now=self.now)
            self.touch(short)

    def wrap(self, node: MeshNode) -> MeshNode:
        """What stands in the world for a node: in another world something around it."""
        return node

    def kill(self, *shorts: int) -> None:
        for short in shorts:
            self.dead.add(short)
            self._lives[short] += 1
            self.nodes.pop(short, None)

    # Running

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, act))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            when, _, act = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            act()
            if until is not None and until():
                return self.now
        self.now = end
        return self.now

    def send(self, source: int, payload: bytes, destination: int = ROOT, **more: object) -> bool:
        done = self.nodes[source].send(
            payload,
            destination=destination,
            priority=Priority.SCHEDULED,
            now=self.now,
            **more,  # type: ignore[arg-type]
        )
        self.touch(source)
        return done

    def touch(self, short: int) -> None:
        node = self.nodes.get(short)
        if node is None:
            return
        self._collect(short)
        if not self._busy[short]:
            frame = node.frame_to_send(now=self.now)
            if frame is not None:
                self._busy[short] = True
                self.frames += 1
                self.octets_by_node[short] += len(frame.octets)
                life = self._lives[short]
                ends = self.now + TURNAROUND + FRAME_TIME * (0.5 + self._dice.random())
                self.at(ends, lambda: self._left(short, life, frame.octets))
        due = node.next_timer()
        if due is not None and due < self._wake.get(short, float("inf")):
            self._wake[short] = due
            life = self._lives[short]
            self.at(max(due, self.now), lambda: self._timer(short, life, due))

    def _timer(self, short: int, life: int, due: float) -> None:
        if self._lives[short] != life or self._wake.get(short) != due:
            return
        del self._wake[short]
        self.nodes[short].handle_timer(now=self.now)
        self.touch(short)

    def _left(self, short: int, life: int, octets: bytes) -> None:
        if self._lives[short] != life:
            return
        self._busy[short] = False
        self.nodes[short].frame_sent(now=self.now, was_on_air=True)
        if self.watch is not None:
            changed = self.watch(self.now, short, octets)
            if changed is None:
                self.touch(short)
                return
            octets = changed
        for other in sorted(self.hearers.get(short, ())):
            if other in self.nodes and self._dice.random() < self.links.get((short, other), 0.0):
                self.nodes[other].receive_frame(octets, now=self.now)
                self.touch(other)
        self.touch(short)

    def _collect(self, short: int) -> None:
        for event in self.nodes[short].events():
            self.happened.append((self.now, short, event))
            if isinstance(event, CountersWanted):
                self._stored[short] = event.until
                self.nodes[short].counters_reserved(event.until)
            elif isinstance(event, PacketReceived):
                self.received.append((self.now, short, event))
            elif isinstance(event, ParentChanged):
                self._walk(short)

    # Oracles

    def _walk(self, short: int) -> None:
        path = [short]
        while True:
            node = self.nodes.get(path[-1])
            parent = None if node is None else node.preferred_parent
            if parent is None:
                return
            path.append(short_of(parent))
            if path[-1] in path[:-1]:
                self.loops.append((self.now, path))
                return

    def path_up(self, short: int) -> list[int]:
        path = [short]
        while path[-1] not in self.roots:
            node = self.nodes.get(path[-1])
            parent = None if node is None else node.preferred_parent
            if parent is None or short_of(parent) in path:
                return []
            path.append(short_of(parent))
        return path

    def orphans(self) -> list[int]:
        return [short for short in self.nodes if not self.path_up(short)]

    def reachable(self) -> set[int]:
        """Who has a way to a root over links that are there at all."""
        seen = {root for root in self.roots if root in self.nodes}
        edge = list(seen)
        while edge:
            at = edge.pop()
            for other in self.hearers.get(at, ()):
                if other in self.nodes and other not in seen and self.links.get((at, other)):
                    seen.add(other)
                    edge.append(other)
        return seen

    def unrouted(self) -> list[int]:
        """Who has no route down at any root."""
        return [
            short
            for short in self.nodes
            if short not in self.roots
            and not any(
                self.nodes[root].route_to(short, now=self.now) is not None
                for root in self.roots
                if root in self.nodes
            )
        ]

    def counters(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for node in self.nodes.values():
            total += node.counters + node.dodag.counters + node.seal.refused
            if node.routes is not None:
                total += node.routes.counters
        return total
