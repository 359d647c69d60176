"""All collectors of a head-end and the mesh behind them, as a machine without I/O.

Spec    docs/protocol/backhaul.md, docs/protocol/topology.md
In      `connect`, `receive`, `disconnect` of each stream; commands; `handle_timer`
Out     `messages_to_send`, `events`, `next_timer`: collect all three after every call in
Raises  MeshError for a node that is not known, TableFull at a bound; nothing on what a collector
        sends: that is counted by reason in `refused`
Limit   what its parts keep
Never   reads a clock, or believes a stream before its hello was accepted
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from amistack.errors import MeshError, TableFull
from amistack.framing import Priority
from amistack.identifiers import Eui64
from headend.dcc.collectors import Collectors, Joined
from headend.dcc.downlinks import ROWS_MAX, Downlinks
from headend.dcc.events import (
    CollectorJoined,
    CollectorLeft,
    CollectorRefused,
    Connection,
    DatagramReceived,
    Event,
    HangUp,
    ReportTaken,
    RequestEnded,
    RequestNumber,
    RowTraced,
)
from headend.dcc.isolating import Isolating
from headend.dcc.pace import Pace
from headend.dcc.questions import Questions
from headend.dcc.requests import WAITING_MAX, Numbers, Requests
from headend.dcc.rows import Rows
from headend.domain.mesh import Area, Assignment, MeshPeer
from mesh.backhaul import (
    Command,
    CommandDone,
    Down,
    Fate,
    HeadEndMessage,
    Hello,
    Message,
    Order,
    Probe,
    Probed,
    RouteGone,
    RouteRow,
    TableBegin,
    TableEnd,
    Trace,
    Traced,
    Up,
    decode,
    encode,
)
from mesh.packet import NO_ADDRESS, PacketKind
from mesh.reports import HOPS_UNKNOWN, TopologyReport
from mesh.routing.profile import load_profile
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId, Backhaul, Role
from mesh.topology.location import BehindCollector
from mesh.topology.status import DeviceStatus

REPORTS_MISSED_S: Final = 1_800.0
"""An area of which nobody reported for so long, when a collector joins, may have reports that are
lost: one that had no power kept none. Its nodes are asked for them, which spreads the answers."""

MINUTE_S: Final = 60.0

Outgoing = tuple[Connection, Priority, bytes]


class Center:
    """Everything between the streams of the collectors and the head-end."""

    def __init__(self, *, first_epoch: int = 1) -> None:
        """`first_epoch`: see `Collectors`."""
        self.dcc = Dcc()
        self.refused: Counter[str] = Counter()
        self.counters: Counter[str] = Counter()
        self.collectors = Collectors(first_epoch=first_epoch)
        numbers = Numbers()
        self._requests = Requests(numbers)
        self._downlinks = Downlinks(self.dcc, numbers)
        self.questions = Questions(self.dcc, self.collectors, self._requests, self._say)
        self._isolating = Isolating(self.dcc, self.questions)
        self._rows = Rows(self.dcc)
        self._pace = Pace()
        self._heard_by: dict[Eui64, Eui64] = {}
        self._reported_at: dict[AreaId, float] = {}
        self._outgoing: list[Outgoing] = []
        self._events: list[Event] = []

    # Commands from above: who is there

    def check_area(self, area: Area) -> None:
        """Raises ConfigError for a profile that is none."""
        load_profile(area.profile)

    def add_area(self, area: Area, *, ranks_of: str | None = None) -> None:
        """Know an area, or its new profile. Raises ConfigError for one that is none, TableFull.

        `ranks_of` names the profile by which its ranks are judged where its own cannot be read.
        """
        profile = load_profile(area.profile if ranks_of is None else ranks_of)
        self.dcc.graph.set_hop_rank_increase(area.area, profile.dodag.hop_rank_increase_min)
        self.collectors.add_area(area, profile.dodag.hop_rank_increase_min)

    def place(self, assignment: Assignment, *, now: float) -> None:
        """Know a node by its address. Raises MeshError for one that another holds, TableFull."""
        if assignment.is_collector:
            self.collectors.add(assignment)
        elif assignment.node in self.collectors.known:
            self._drop_collector(assignment.node, now)
        graph, node = self.dcc.graph, assignment.node
        if node in graph and graph.area_of(graph.index_of(node)) != assignment.area:
            # Whoever asked it there cannot ask it any more.
            self.dcc.locations.forget(node)
            self._heard_by.pop(node, None)
        self.dcc.place(
            assignment.node,
            area=assignment.area,
            short=assignment.short,
            role=assignment.role,
            now=now,
        )
        self._keep_out(node)
        joined = self.collectors.find(assignment.node)
        if joined is not None and joined.assignment != assignment:
            # It said hello as another one: it must say it again.
            self._hang_up(joined, "its address has changed", now)

    def remove(self, node: Eui64, *, now: float) -> None:
        """Forget a node. Raises MeshError for one not known."""
        if node in self.collectors.known:
            self._drop_collector(node, now)
        self.dcc.remove(node)
        self._pace.forget(node)
        self._heard_by.pop(node, None)

    def restore(self, octets: bytes, node: Eui64, *, age_s: float, now: float) -> bool:
        """Take up a report from before the start, the oldest first; whether it is believed."""
        graph = self.dcc.graph
        if node not in graph:
            return False
        index = graph.index_of(node)
        try:
            self.dcc.take_octets(
                octets,
                area=graph.area_of(index),
                short=graph.short_of(index),
                now=now - max(age_s, 0.0),
                node=node,
            )
        except MeshError:
            return False
        self._reported_at[graph.area_of(index)] = now - max(age_s, 0.0)
        return True

    def restore_status(self, node: Eui64, status: DeviceStatus) -> bool:
        """Take up how a node was before the start, after its report; whether that can be true."""
        if node not in self.dcc.graph:
            return False
        try:
            self.dcc.devices.restore(node, status)
        except MeshError:
            return False
        return True

    def deny(self, area: AreaId, node: Eui64, *, is_denied: bool) -> None:
        """Keep a node out of an area, from the next hello of each collector on, or no longer.

        No way leads to it or over it from now on.
        """
        self.collectors.deny(area, node, is_denied=is_denied)
        self._keep_out(node)

    def _keep_out(self, node: Eui64) -> None:
        graph = self.dcc.graph
        if node in graph and node not in self.collectors.known:
            area = graph.area_of(graph.index_of(node))
            self.dcc.keep_out(node, is_denied=self.collectors.is_denied(area, node))

    # Commands from above: datagrams

    def send(self, peer: MeshPeer, octets: bytes, *, now: float) -> bool:
        """Send a datagram down, on the way that is best now; a repetition takes the next way.

        False where there is none, and nothing was sent.
        """
        return self._send_down(self._downlinks.send(peer, octets, now=now))

    def heard(self, peer: MeshPeer, meter: Eui64, *, now: float) -> MeshPeer:
        """Something authentic of `meter` came from the node; the peer by the way that it came.

        If they are not the same, it came by another's hand: that says nothing about the node.
        """
        if meter != peer.node:
            self.refused["message of another than its address says"] += 1
            return peer
        collector = self._heard_by.get(peer.node)
        if peer.node not in self.dcc.graph or collector is None:
            return peer
        place = BehindCollector(collector)
        if self.dcc.locations.find(peer.node) is None:
            self.dcc.locations.learn(peer.node, place, path_sequence=None, now=now)
        else:
            self.dcc.locations.confirm(peer.node, place, now=now)
        self.dcc.devices.heard(peer.node, now=now)
        return MeshPeer(peer.area, peer.node, collector, peer.priority)

    def hop_count(self, peer: MeshPeer) -> int | None:
        """How many hops below a collector a node is: by the best way, or else by its own word."""
        graph, node = self.dcc.graph, peer.node
        if node not in graph:
            return None
        best = self.dcc.routes.route_of(node)
        if best is not None:
            return best.hops
        hops = graph.hops_of(graph.index_of(node))
        return None if hops == HOPS_UNKNOWN else hops

    def unanswered(self, meter: Eui64, *, now: float) -> None:
        """The meter was asked, with all repetitions, and was silent."""
        if meter in self.dcc.graph:
            self.dcc.devices.unanswered(meter, now=now)

    # Commands from above: `questions`, each ended by `RequestEnded`, and isolation

    def isolate(self, meter: Eui64, *, now: float) -> None:
        """Find out why a meter is silent; `Tried` and `Isolated` follow. Raises MeshError."""
        self._isolating.begin(meter, now=now)

    def give_up_isolation(self, meter: Eui64) -> None:
        """Nobody waits for it any more."""
        self._isolating.give_up(meter)

    # Inputs from below

    def connect(
        self, connection: Connection, peer: Eui64, key_hash: bytes | None, *, now: float
    ) -> None:
        """A stream has begun; the other side says that it is `peer`, and its key has that hash."""
        self.collectors.connect(connection, peer, key_hash, now=now)

    def disconnect(self, connection: Connection, *, now: float) -> None:
        """A stream has ended."""
        joined = self.collectors.disconnect(connection)
        if joined is not None:
            self._lose(joined.assignment.node, now)

    def receive(self, connection: Connection, octets: bytes, *, now: float) -> None:
        """Take one message. Never raises on bad data."""
        self.counters["messages received"] += 1
        try:
            message = decode(octets)
        except MeshError as error:
            self.refused[error.reason] += 1
            return
        if isinstance(message, Hello):
            self._take_hello(connection, message, now)
            return
        joined = self.collectors.serving(connection)
        if joined is None:
            self.refused["message before the hello"] += 1
            return
        try:
            self._take(joined, message, now)
        except MeshError:
            pass  # The graph has counted it.
        except TableFull:
            self.refused["topology full"] += 1

    def not_sent(self, connection: Connection, octets: bytes, *, now: float) -> None:
        """The stream has no room for a message: what it asked for is not asked."""
        self.counters["messages not sent, stream full"] += 1
        joined = self.collectors.serving(connection)
        message = decode(octets)
        if joined is not None and isinstance(message, Probe | Trace | Command):
            self._end(message.request, joined.assignment.node, None, now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        self.dcc.handle_timer(now=now)
        self._downlinks.handle_timer(now=now)
        self._isolating.handle_timer(now=now)
        for number in self._requests.expire(now=now):
            if not self._isolating.take_silence(number):
                self._events.append(RequestEnded(number, None))
        for connection in self.collectors.overdue(now=now):
            self.refused["no hello in time"] += 1
            self._events.append(HangUp(connection))

    # Outputs

    def messages_to_send(self) -> list[Outgoing]:
        """Messages, the stream each is for, and its priority. Each is handed over once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        events = self._events + self._isolating.events()
        self._events = []
        return events

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        times = (
            self.dcc.next_timer(),
            self._downlinks.next_timer(),
            self._isolating.next_timer(),
            self._requests.next_timer(),
            self.collectors.next_timer(),
        )
        return min((time for time in times if time is not None), default=None)

    @property
    def depths(self) -> Mapping[str, tuple[int, int]]:
        """Each bounded table's name, its depth and its bound."""
        return {
            "isolations": self._isolating.depth,
            "requests to collectors": (len(self._requests), WAITING_MAX),
            "datagrams on their way down": (len(self._downlinks), ROWS_MAX),
        }

    @property
    def all_refused(self) -> Mapping[str, int]:
        """Everything that was not believed, by reason."""
        return self.refused + self.dcc.graph.refused + self.dcc.locations.refused

    @property
    def all_counters(self) -> Mapping[str, int]:
        """Everything else that is counted."""
        return self.counters + self._downlinks.counters

    # What collectors say

    def _take_hello(self, connection: Connection, hello: Hello, now: float) -> None:
        outcome = self.collectors.greet(connection, hello)
        if outcome is None:
            self.refused["message of an ended stream"] += 1
            return
        self._outgoing.append((connection, Priority.CONTROL, encode(outcome.welcome)))
        if outcome.reason is not None:
            self.refused[outcome.reason] += 1
            self._events.append(CollectorRefused(hello.collector, outcome.reason))
            self._events.append(HangUp(connection))
            return
        joined = outcome.joined
        assert joined is not None, "who is not refused has joined"
        if outcome.replaced is not None:
            self.counters["collectors that came anew before they had left"] += 1
            self._events.append(HangUp(outcome.replaced))
            self._lose(hello.collector, now)
        if not outcome.is_lease_known:
            self.counters["collectors that did not know their last lease"] += 1
        if not outcome.is_rank_right:
            self.refused["MinHopRankIncrease of another profile"] += 1
        self.dcc.set_backhaul(hello.collector, Backhaul.UP, now=now)
        self._events.append(
            CollectorJoined(hello.collector, joined.assignment.area, hello.route_count)
        )
        reported_at = self._reported_at.get(joined.assignment.area)
        if reported_at is None or now - reported_at > REPORTS_MISSED_S:
            self.questions.ask_reports(hello.collector)
        untold = self.questions.name_denied(joined, now=now)
        if untold:
            self.counters["orders not sent, table full"] += untold

    def _take(self, joined: Joined, message: Message, now: float) -> None:
        collector = joined.assignment.node
        match message:
            case Up():
                self._take_up(joined, message, now)
            case RouteRow():
                self.counters["rows taken"] += 1
                for other, forget in self._rows.take(joined, message, now=now):
                    self._tell(other, forget)
            case RouteGone():
                self._rows.drop(joined, message)
            case TableBegin():
                joined.table.begin(message)
            case TableEnd():
                if not self._rows.end(joined, message):
                    self.refused["end of another table"] += 1
            case Fate():
                is_ours, again = self._downlinks.take_fate(message, collector, now=now)
                self._send_down(again)
                if not is_ours:
                    self.counters["fates of what is forgotten"] += 1
            case Probed() if self._requests.is_trace(message.request):
                self._take_row(message, collector)
            case Probed() | Traced() | CommandDone():
                self._end(message.request, collector, message, now)
            case _:
                # What only the head-end says.
                self.refused["message in the wrong direction"] += 1

    def _take_up(self, joined: Joined, up: Up, now: float) -> None:
        area = joined.assignment.area
        if up.source == NO_ADDRESS:
            self.refused["packet without an address"] += 1
            return
        node = self.dcc.graph.find(area, up.source)
        if node is None:
            self.refused["packet of an unknown address"] += 1
            return
        if up.kind == PacketKind.COAP:
            collector = joined.assignment.node
            self._heard_by[node] = collector
            self.counters["datagrams received"] += 1
            peer = MeshPeer(area, node, collector, up.priority)
            self._events.append(DatagramReceived(peer, up.payload))
        elif up.kind == PacketKind.TOPOLOGY and not up.payload:
            # Our own question, that another collector overheard.
            self.counters["questions for reports overheard"] += 1
        elif up.kind == PacketKind.TOPOLOGY:
            if not self._pace.admit(node, now=now):
                self.refused["reports too often"] += 1
                return
            octets = _report_in(up)
            self.dcc.take_octets(octets, area=area, short=up.source, now=now)
            self.counters["reports taken"] += 1
            self._reported_at[area] = now
            self._events.append(ReportTaken(node, octets))
        else:
            self.refused["packet of another kind"] += 1

    def _tell(self, collector: Eui64, message: HeadEndMessage) -> None:
        joined = self.collectors.find(collector)
        if joined is not None:
            self._say(joined, Priority.CONTROL, message)

    def _take_row(self, row: Probed, collector: Eui64) -> None:
        """A row of a trace under way. Only `Traced` ends that, and it is whole by itself."""
        if not self._requests.is_asked(row.request, collector):
            self.counters["answers to what is forgotten"] += 1
        elif not self._requests.take_row(row.request, row.hops):
            self.refused["row of a trace out of turn"] += 1
        else:
            self._events.append(RowTraced(RequestNumber(row.request), row))

    def _end(
        self,
        number: int,
        collector: Eui64,
        answer: Probed | Traced | CommandDone | None,
        now: float,
    ) -> None:
        order = self._requests.order_of(number)
        if not self._requests.is_asked(number, collector):
            self.counters["answers to what is forgotten"] += 1
            return
        if answer is not None and not isinstance(answer, self._requests.kind_of(number)):
            self.refused["answer to another question"] += 1
            return
        self._requests.end(number)
        if order is Order.BUMP_VERSION and isinstance(answer, CommandDone) and answer.is_done:
            self.collectors.take_version(collector, answer.value)
        self._tell_end(RequestNumber(number), answer, now)

    def _tell_end(
        self, number: RequestNumber, answer: Probed | Traced | CommandDone | None, now: float
    ) -> None:
        probed = answer if isinstance(answer, Probed) else None
        if not self._isolating.take_answer(number, probed, now=now):
            self._events.append(RequestEnded(number, answer))

    # Small things

    def _drop_collector(self, node: Eui64, now: float) -> None:
        """It is no collector any more."""
        joined = self.collectors.find(node)
        if joined is not None:
            self._hang_up(joined, "it is no collector any more", now)
        self.collectors.remove(node)

    def _hang_up(self, joined: Joined, reason: str, now: float) -> None:
        self._events.append(CollectorRefused(joined.assignment.node, reason))
        self._events.append(HangUp(joined.connection))
        self.collectors.disconnect(joined.connection)
        self._lose(joined.assignment.node, now)

    def _lose(self, collector: Eui64, now: float) -> None:
        if collector in self.dcc.graph:
            index = self.dcc.graph.index_of(collector)
            if self.dcc.graph.role_of(index) is Role.COLLECTOR:
                self.dcc.set_backhaul(collector, Backhaul.DOWN, now=now)
        self._events.append(CollectorLeft(collector))
        for number in self._requests.lose(collector):
            self._tell_end(number, None, now)
        for each in self._downlinks.lose(collector, now=now):
            self._send_down(each)

    def _send_down(self, found: tuple[Eui64, Down] | None) -> bool:
        if found is None:
            return False
        collector, down = found
        joined = self.collectors.find(collector)
        if joined is not None:
            self._say(joined, down.priority, down)
        return joined is not None

    def _say(self, joined: Joined, priority: Priority, message: HeadEndMessage) -> None:
        self._outgoing.append((joined.connection, priority, encode(message)))


def _report_in(up: Up) -> bytes:
    """A report as it is true now: one that a collector held has grown older meanwhile."""
    if up.held < MINUTE_S:
        return up.payload
    try:
        report = TopologyReport.decode(up.payload)
    except MeshError:
        return up.payload  # Whoever takes it says what is wrong with it.
    return report.aged(int(up.held / MINUTE_S)).encode()
