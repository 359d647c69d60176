"""Datagrams on their way down: by which collector, on which way, and what if that fails.

A datagram that the stack sends again is known without a word from above (`mesh.repeated`), and
takes the next way. A collector that says that a way failed is answered with the next one at once.

Spec    docs/protocol/backhaul.md; docs/protocol/topology.md, "Ways"
Gives   `Down` messages with the collector each is for
Limit   ROWS_MAX datagrams are remembered, for MEMORY_S each; WAYS_MAX ways are tried unasked;
        BROKEN_MAX links that just failed are avoided for BROKEN_S
Never   waits for anything: what has no way now is dropped and counted
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from amistack.errors import LocalProtocolError
from amistack.identifiers import Eui64
from headend.dcc.events import RequestNumber
from headend.dcc.requests import Numbers
from headend.domain.mesh import MeshPeer
from mesh.backhaul import Down, Fate, What
from mesh.packet import PacketKind
from mesh.repeated import ATTEMPT_MAX, MEMORY_S, mark_of
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId, Backhaul
from mesh.topology.location import BehindCollector
from mesh.topology.paths import Path
from mesh.topology.routes import ALTERNATES_MAX

ROWS_MAX: Final = 16_384
WAYS_MAX: Final = 1 + ALTERNATES_MAX
DEADLINE_S: Final = 60
BROKEN_S: Final = 300.0
BROKEN_MAX: Final = 1_024

AGAIN: Final = frozenset({What.NO_ROUTE, What.ROUTE_FAILED, What.LOST})
"""After these another way is tried at once. A full or slow collector is not helped by more."""

LEFT: Final = frozenset({What.SENT, What.DELIVERED})

Way = Path | Eui64
"""A route of the DCC's, or a collector that is to choose by itself."""


@dataclass(slots=True)
class _Datagram:
    """One datagram, however often it goes."""

    peer: MeshPeer
    octets: bytes
    expires_at: float
    attempt: int = 0
    tried: list[Way] = field(default_factory=list)
    request: RequestNumber | None = None
    collector: Eui64 | None = None
    has_left: bool = False
    """Whether the collector said that it went out."""
    is_ours: bool = False
    """Whether the last way was a route of the DCC's."""


Mark = tuple[Eui64, bytes]


class Downlinks:
    """Every datagram for a node of the mesh that was sent lately."""

    def __init__(self, dcc: Dcc, numbers: Numbers) -> None:
        self.counters: Counter[str] = Counter()
        self._dcc = dcc
        self._numbers = numbers
        self._rows: OrderedDict[Mark, _Datagram] = OrderedDict()
        self._marks: dict[RequestNumber, Mark] = {}
        self._broken: OrderedDict[tuple[AreaId, frozenset[int]], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    # Commands from above

    def send(self, peer: MeshPeer, octets: bytes, *, now: float) -> tuple[Eui64, Down] | None:
        """What is to be said to which collector; None where there is no way."""
        mark = (peer.node, mark_of(octets))
        row = self._rows.get(mark)
        if row is None or row.octets != octets:
            self._forget(mark)
            if len(self._rows) >= ROWS_MAX:
                self.counters["datagrams forgotten, at the bound"] += 1
                self._forget(next(iter(self._rows)))
            row = self._rows[mark] = _Datagram(peer, octets, now + MEMORY_S)
        else:
            row.peer = peer
            self.counters["datagrams repeated"] += 1
        row.expires_at = now + MEMORY_S
        self._rows.move_to_end(mark)
        return self._go(mark, row, now, may_turn=True)

    # Inputs from below

    def take_fate(
        self, fate: Fate, collector: Eui64, *, now: float
    ) -> tuple[bool, tuple[Eui64, Down] | None]:
        """Whether that was about a datagram of ours; and what is to be said after it."""
        mark = self._marks.get(RequestNumber(fate.request))
        row = None if mark is None else self._rows.get(mark)
        if mark is None or row is None or row.collector != collector:
            return False, None
        self.counters[f"fate: {fate.what.name.lower().replace('_', ' ')}"] += 1
        if fate.what is What.ROUTE_FAILED:
            self._note_broken(row.peer.area, {fate.relay, fate.neighbour}, now)
        if row.request != fate.request:
            return True, None  # Of an earlier way.
        if fate.what not in AGAIN or (fate.what is What.ROUTE_FAILED and not row.is_ours):
            # Where the collector chose, it goes on to choose by itself.
            row.has_left = row.has_left or fate.what in LEFT
            return True, None
        return True, self._try_next(mark, row, now)

    def lose(self, collector: Eui64, *, now: float) -> list[tuple[Eui64, Down]]:
        """A collector went away: what it was given, and did not say to have sent, goes again."""
        rows = [
            (mark, row)
            for mark, row in self._rows.items()
            if row.collector == collector and not row.has_left
        ]
        found = (self._try_next(mark, row, now) for mark, row in rows)
        return [each for each in found if each is not None]

    def handle_timer(self, *, now: float) -> None:
        """Forget what is over."""
        while self._rows:
            mark, row = next(iter(self._rows.items()))
            if row.expires_at > now:
                break
            self._forget(mark)
        while self._broken:
            link, until = next(iter(self._broken.items()))
            if until > now:
                break
            del self._broken[link]

    def next_timer(self) -> float | None:
        """When there is something to forget."""
        times = [row.expires_at for row in itertools.islice(self._rows.values(), 1)]
        times += itertools.islice(self._broken.values(), 1)
        return min(times, default=None)

    # Rules

    def _try_next(self, mark: Mark, row: _Datagram, now: float) -> tuple[Eui64, Down] | None:
        if len(row.tried) >= WAYS_MAX:
            return None
        return self._go(mark, row, now, may_turn=False)

    def _go(
        self, mark: Mark, row: _Datagram, now: float, *, may_turn: bool
    ) -> tuple[Eui64, Down] | None:
        way = self._choose(row, now, may_turn=may_turn)
        if way is None:
            self.counters[f"datagrams dropped, no {'' if may_turn else 'other '}way"] += 1
            return None
        graph, node = self._dcc.graph, row.peer.node
        attempt = 0 if row.request is None else min(row.attempt + 1, ATTEMPT_MAX)
        collector = way.collector if isinstance(way, Path) else way
        number = self._numbers.take()
        try:
            down = Down(
                number,
                graph.short_of(graph.index_of(node)),
                PacketKind.COAP,
                row.peer.priority,
                row.octets,
                attempt=attempt,
                deadline=DEADLINE_S,
                relays=way.shorts[:-1] if isinstance(way, Path) else None,
            )
        except LocalProtocolError:
            self.counters["datagrams dropped, too long"] += 1
            return None
        if row.request is not None:
            self._marks.pop(row.request, None)
        row.request, row.attempt = number, attempt
        row.collector, row.has_left = collector, False
        row.is_ours = isinstance(way, Path)
        row.tried.append(way)
        self._marks[number] = mark
        by = "a route of ours" if isinstance(way, Path) else "its collector's route"
        self.counters[f"datagrams by {by}"] += 1
        return collector, down

    def _choose(self, row: _Datagram, now: float, *, may_turn: bool) -> Way | None:
        """The first way that was not tried; when all were, from the first on again if it may."""
        if row.peer.node not in self._dcc.graph:
            return None
        first: Way | None = None
        for way in self._ways(row.peer.node, is_first=not row.tried):
            first = way if first is None else first
            if way not in row.tried and not self._is_broken(way, now):
                return way
        if first is None or not may_turn:
            return None
        row.tried.clear()
        return first

    def _ways(self, node: Eui64, *, is_first: bool) -> Iterator[Way]:
        """By the collector where it is located, on the best way if that begins there; the others.

        A collector that has just heard of the node knows its parents better than anybody else.
        """
        dcc = self._dcc
        best = dcc.routes.route_of(node)
        location = dcc.locations.find(node)
        if location is not None and isinstance(location.place, BehindCollector):
            collector = location.place.collector
            if self._is_up(collector) and (best is None or best.collector != collector):
                yield collector
        if best is not None and best.hops:
            yield best
            # Looking for alternates takes milliseconds: not for what goes the first time.
            if not is_first or self._broken:
                yield from dcc.routes.alternates_of(node)

    def _is_up(self, collector: Eui64) -> bool:
        graph = self._dcc.graph
        if collector not in graph:
            return False
        return graph.backhauls.get(graph.index_of(collector)) is Backhaul.UP

    def _is_broken(self, way: Way, now: float) -> bool:
        if not self._broken or not isinstance(way, Path):
            return False
        graph = self._dcc.graph
        shorts = (graph.short_of(graph.index_of(way.collector)), *way.shorts)
        return any(
            self._broken.get((way.area, frozenset(pair)), 0.0) > now
            for pair in itertools.pairwise(shorts)
        )

    def _note_broken(self, area: AreaId, ends: set[int], now: float) -> None:
        link = (area, frozenset(ends))
        self._broken.pop(link, None)
        self._broken[link] = now + BROKEN_S
        if len(self._broken) > BROKEN_MAX:
            self._broken.popitem(last=False)

    def _forget(self, mark: Mark) -> None:
        row = self._rows.pop(mark, None)
        if row is not None and row.request is not None:
            self._marks.pop(row.request, None)
