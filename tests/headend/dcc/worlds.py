"""A center and scripted collectors before it: they say what the world is, and answer by the truth.

The world is that of the topology's own tests. What is broken in it is broken for probes, traces and
datagrams alike; a collector answers at once, or when its time is over.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from amistack.framing import Priority
from amistack.identifiers import Eui64
from headend.dcc.center import Center
from headend.dcc.events import Connection, Event
from headend.domain.mesh import Area, Assignment, MeshPeer
from mesh.backhaul import (
    Command,
    CommandDone,
    Down,
    Fate,
    HeadEndMessage,
    Hello,
    Message,
    Outcome,
    Probe,
    Probed,
    RouteRow,
    TableBegin,
    TableEnd,
    Trace,
    Traced,
    TraceRow,
    Up,
    What,
    decode,
    encode,
)
from mesh.packet import PacketKind
from mesh.topology.facts import Role
from tests.mesh.topology.worlds import AREA, World, eui

DODAG_ID = bytes.fromhex("fd00 0000 0000 0000 0000 00ff fe00 0000")
HOP_RANK_INCREASE = 256
BACKHAUL_S = 0.05
HOP_S = 0.2
TRACE_ROW_S = 0.5


def row(world: World, target: int, path_sequence: int = 241) -> RouteRow:
    """What the node's DAO says: up to four neighbours that are nearer to a collector."""
    depths = world.depths()
    near = [n for n, _ in sorted(world.neighbours(target)) if depths.get(n, 99) < depths[target]]
    return RouteRow(target, tuple(near[:4]), path_sequence, 3_600)


@dataclass
class ScriptedCollector:
    """One collector: what it was told, and what it answers by the world's truth."""

    short: int
    world: World
    broken: set[object]
    """Shorts of dead nodes, frozensets of two for dead links."""
    told: list[Message] = field(default_factory=list)
    is_full: bool = False
    is_deaf: bool = False
    answers_left: int | None = None
    """After so many it is deaf."""
    tells_rows: bool = True
    """Of a trace each row as it is known; one that does not says all of them at the end."""

    @property
    def node(self) -> Eui64:
        return eui(self.short)

    def hello(self, **changes: object) -> Hello:
        facts: dict[str, object] = {
            "area": AREA, "dodag_id": DODAG_ID, "collector": self.node, "short": self.short,
            "dodag_version": 240, "hop_rank_increase": HOP_RANK_INCREASE,
            "route_count": len(self.world.meters),
        }  # fmt: skip
        return Hello(**{**facts, **changes})  # type: ignore[arg-type]

    def table(self, rows: Sequence[RouteRow], stream: int = 1) -> list[Message]:
        return [TableBegin(stream, len(rows)), *rows, TableEnd(stream)]

    def answer(self, message: HeadEndMessage) -> tuple[float, Message] | None:
        """What it says to that in the end, and after how many seconds."""
        if self.is_deaf or self.answers_left == 0:
            return None
        if self.answers_left is not None:
            self.answers_left -= 1
        match message:
            case Probe(number, destination, relays, deadline):
                if self.is_full:
                    return 0.0, Probed(number, Outcome.NOT_SENT, 0)
                way = self.way(destination, relays)
                lost, is_silent = self.walk(way)
                if lost is None:
                    trip = 2 * HOP_S * (len(way) - 1)
                    return trip, Probed(number, Outcome.ANSWERED, len(way) - 1, int(trip * 1000))
                if is_silent:
                    return deadline, Probed(number, Outcome.NO_ANSWER, len(way) - 1)
                return HOP_S * lost, Probed(number, Outcome.LOST_AFTER, lost)
            case Trace(number, destination, relays, deadline):
                rows = self.rows(destination, relays)
                return TRACE_ROW_S * len(rows), Traced(number, tuple(rows))
            case Down(request=number):
                if self.is_full:
                    return 0.0, Fate(number, What.REFUSED_FULL)
                if message.relays is None:
                    return 0.0, Fate(number, What.SENT)
                way = self.way(message.destination, message.relays)
                lost, is_silent = self.walk(way)
                if lost is None or is_silent:
                    return 0.0, Fate(number, What.SENT)
                return HOP_S * lost, Fate(number, What.ROUTE_FAILED, way[lost], way[lost + 1])
            case Command(number):
                return 0.0, CommandDone(number, is_done=True, value=241)
        return None

    def steps(self, message: HeadEndMessage) -> list[tuple[float, Message]]:
        """What it says to that meanwhile, and when."""
        if not isinstance(message, Trace) or not self.tells_rows:
            return []
        if self.is_deaf or self.answers_left == 0:
            return []
        rows = self.rows(message.destination, message.relays)
        return [
            (TRACE_ROW_S * hops, Probed(message.request, row.outcome, hops, row.round_trip_ms))
            for hops, row in enumerate(rows, start=1)
        ]

    def rows(self, destination: int, relays: tuple[int, ...] | None) -> list[TraceRow]:
        """What a trace of that way comes to."""
        way = self.way(destination, relays)
        lost, _ = self.walk(way)
        return [
            TraceRow(node, Outcome.ANSWERED, int(2 * HOP_S * hops * 1000))
            if lost is None or hops <= lost
            else TraceRow(node, Outcome.NO_ANSWER)
            for hops, node in enumerate(way)
            if hops
        ]

    def way(self, destination: int, relays: tuple[int, ...] | None) -> list[int]:
        if destination == self.short:
            return [self.short]
        return [self.short, *(relays or ()), destination]

    def walk(self, way: list[int]) -> tuple[int | None, bool]:
        """After how many hops it is lost, None where it is not; whether without a word."""
        if way[-1] in self.broken:
            return len(way) - 2, False
        for hops, pair in enumerate(itertools.pairwise(way)):
            if frozenset(pair) not in self.world.links:
                return hops, False
            if frozenset(pair) in self.broken or pair[1] in self.broken:
                return hops, False
        return None, False


class Backhauls:
    """A center, its collectors, and the time."""

    def __init__(self, world: World, *, joined: Sequence[int] | None = None) -> None:
        self.world = world
        self.now = 1_000.0
        self.center = Center()
        self.broken: set[object] = set()
        self.collectors = {
            short: ScriptedCollector(short, world, self.broken) for short in world.collectors
        }
        self.connections: dict[Connection, ScriptedCollector] = {}
        self.events: list[Event] = []
        self._count = itertools.count(1)
        self._order = itertools.count()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self.center.add_area(Area(AREA, "rfc8036", DODAG_ID))
        for short in world.nodes:
            role = Role.COLLECTOR if short in world.collectors else Role.METER
            self.center.place(Assignment(eui(short), AREA, short, role), now=self.now)
        for short in world.collectors if joined is None else joined:
            self.join(short)

    def join(self, short: int, /, **changes: object) -> Connection:
        """A collector connects and says hello."""
        collector = self.collectors[short]
        connection = self.connect(collector)
        self.say(connection, collector.hello(**changes))
        return connection

    def connect(self, collector: ScriptedCollector, *, key_hash: bytes | None = None) -> Connection:
        connection = Connection(next(self._count))
        self.connections[connection] = collector
        self.center.connect(connection, collector.node, key_hash, now=self.now)
        return connection

    def leave(self, connection: Connection) -> None:
        del self.connections[connection]
        self.center.disconnect(connection, now=self.now)
        self.collect()

    def say(self, connection: Connection, *messages: Message | bytes) -> None:
        for message in messages:
            octets = message if isinstance(message, bytes) else encode(message)
            self.center.receive(connection, octets, now=self.now)
        self.collect()

    def report(self, connection: Connection) -> None:
        """Every node's report comes by that collector."""
        for short, report in self.world.reports():
            self.say(connection, self.up(short, report.encode(), PacketKind.TOPOLOGY))

    def up(self, source: int, payload: bytes, kind: int = PacketKind.COAP) -> Up:
        return Up(source, kind, Priority.SCHEDULED, payload, hops=2)

    def collect(self) -> None:
        """Hand over what the center says, and note what happened."""
        self.events += self.center.events()
        for connection, _, octets in self.center.messages_to_send():
            collector = self.connections.get(connection)
            if collector is None:
                continue
            message = decode(octets)
            collector.told.append(message)
            assert not isinstance(message, Hello | Up)
            steps = collector.steps(message)  # type: ignore[arg-type]
            answer = collector.answer(message)  # type: ignore[arg-type]
            for after_s, said in (*steps, *([] if answer is None else [answer])):
                self.later(BACKHAUL_S + after_s, self._saying(connection, said))

    def later(self, delay: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._later, (self.now + delay, next(self._order), work))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            timer = self.center.next_timer()
            due = [t for t in (timer, self._later[0][0] if self._later else None) if t is not None]
            if not due or min(due) > end:
                break
            self.now = max(self.now, min(due))
            if self._later and self._later[0][0] <= self.now:
                heapq.heappop(self._later)[2]()
            else:
                self.center.handle_timer(now=self.now)
            self.collect()
        self.now = end

    def _saying(self, connection: Connection, message: Message) -> Callable[[], None]:
        def say() -> None:
            if connection in self.connections:
                self.say(connection, message)

        return say

    def send(self, short: int, octets: bytes, priority: Priority = Priority.ON_DEMAND) -> None:
        """The stack sends a datagram to a meter."""
        self.center.send(MeshPeer(AREA, eui(short), None, priority), octets, now=self.now)
        self.collect()

    def downs(self, short: int | None = None) -> list[tuple[int, Down]]:
        """Datagrams that collectors were given, in order for each: the collector, the message."""
        return [
            (collector.short, message)
            for collector in self.collectors.values()
            for message in collector.told
            if isinstance(message, Down) and short in (None, message.destination)
        ]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


def line(*shorts: int, collectors: Sequence[int], etx: int = 160) -> World:
    """Nodes in a row, each hearing the next; the ends may be collectors."""
    meters = tuple(short for short in shorts if short not in collectors)
    links = {frozenset(pair): etx for pair in itertools.pairwise(shorts)}
    return World(tuple(collectors), meters, links)
