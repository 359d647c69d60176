"""A collector, as a machine without I/O: a root of its area, and the head-end's hand in it.

Spec    docs/protocol/backhaul.md, docs/protocol/mesh.md
In      those of `Station` from the radio; `backhaul_opened`, `receive_data`, `backhaul_lost` from
        the stream; commands `start`, `send`
Out     those of `Station` to the radio; `data_to_send` to the stream; `events` of both: what is to
        be kept is on disk before the next call
Raises  nothing from the inputs, whatever they are given
Limit   those of `Requests`, `Probes`, `Held`, `Denials` and `Line`
Never   gives up its table or its tree because the backhaul, or the program, was gone for a while
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, assert_never

from amistack.errors import LocalProtocolError, MeshError, TableFull
from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.backhaul import (
    Broadcast,
    Command,
    CommandDone,
    Down,
    Fate,
    Forget,
    Hello,
    Message,
    Order,
    Probe,
    RouteRow,
    Trace,
    Up,
    Welcome,
    What,
)
from mesh.backhaul.messages import NO_NODE
from mesh.collector.denials import Denials
from mesh.collector.events import (
    BackhaulChanged,
    DropRow,
    Event,
    KeepDenied,
    KeepEpoch,
    KeepRow,
    KeepVersion,
)
from mesh.collector.held import Held, is_report, is_worth_holding
from mesh.collector.line import STREAM_AHEAD, TABLE_PRIORITY, Line
from mesh.collector.probes import Probes
from mesh.collector.reading import up_of, way_of
from mesh.collector.requests import Requests
from mesh.collector.table import Table
from mesh.packet import PacketKind
from mesh.routing.core import EVENT_COUNT_MAX
from mesh.routing.events import (
    Outgoing,
    PacketLost,
    PacketReceived,
    PacketSent,
    RouteChanged,
    RouteFailed,
)
from mesh.routing.trickle import NEVER
from mesh.station.echo import Echo
from mesh.station.events import EchoAnswered, PacketArrived, ReportMade
from mesh.station.station import Station

GROUND_GRACE_S: Final = 20.0
"""Seconds without a backhaul, after a start too, until the network is told: it moves, or waits."""
PASSED_UP: Final = frozenset({PacketKind.COAP, PacketKind.TOPOLOGY})
"""What of all that reaches the root is for the head-end."""


class Collector:
    """One collector. Born silent, with no backhaul; `start` begins."""

    def __init__(
        self,
        station: Station,
        area: int,
        *,
        epoch: int = 0,
        hop_limit: int,
    ) -> None:
        """`station` is that of a root; `hop_limit` what every packet of the area starts with."""
        routes = station.node.routes
        if routes is None:
            raise LocalProtocolError("a collector on the node of a meter")
        self.station = station
        self.counters: Counter[str] = Counter()
        self._node = station.node
        self._area = area
        self._epoch = epoch
        self._hop_limit = hop_limit
        self.table = Table(routes)
        self.requests = Requests()
        self.probes = Probes()
        self.held = Held()
        self.denials = Denials()
        self.line = Line(station.node.own, self._hello)
        self._was_up = False
        self._ground_lost_at = NEVER
        self._is_table_due = False
        self._version = station.node.dodag.version
        self._events: deque[Event] = deque(maxlen=EVENT_COUNT_MAX)

    # Commands from above

    def start(self, rows: Iterable[RouteRow] = (), *, now: float) -> None:
        """Begin to take part, with the rows that were on disk."""
        self.table.restore(rows, now=now)
        self.station.start(now=now)
        self._ground_lost_at = now + GROUND_GRACE_S
        self._settle(now)

    def send(
        self,
        payload: bytes,
        *,
        destination: int,
        priority: Priority,
        now: float,
        kind: int = PacketKind.COAP,
        attempt: int = 0,
    ) -> bool:
        """Send by the collector's own table, with or without a backhaul. As `MeshNode.send`."""
        is_sent = self.station.send(
            payload, destination=destination, priority=priority, now=now, kind=kind, attempt=attempt
        )
        self._settle(now)
        return is_sent

    def keep_out(self, node: Eui64, short: int = NO_NODE, *, is_denied: bool) -> bool:
        """Deny a node, or allow it again; False at the bound, and for the collector itself.

        From disk: before `start`.
        """
        if is_denied and node == self._node.own:
            return False
        if not self.denials.set(node, short, is_denied=is_denied):
            return False
        self._events.append(KeepDenied(node, short, is_denied=is_denied))
        self._node.denied = self.denials.nodes
        self.table.refuse(self.denials.shorts)
        return True

    def backhaul_opened(self, *, run: int, now: float, expected: Eui64 | None = None) -> None:
        """There is a connection; `run` is another number of 1 to 2^32 - 1 each time."""
        self.line.opened(run=run, expected=expected, now=now)
        self._settle(now)

    # Inputs from below

    def receive_data(self, data: bytes, *, now: float) -> None:
        """Take any piece of the stream from the head-end. Never raises on bad data."""
        self.line.receive_data(data, now=now)
        self._settle(now)

    def backhaul_lost(self, *, now: float) -> None:
        """The connection ended."""
        self.line.lost(now=now)
        self._settle(now)

    def receive_frame(self, octets: bytes, *, now: float, rssi_dbm: float | None = None) -> None:
        """Take a frame that the radio heard. Never raises on bad data."""
        self.station.receive_frame(octets, now=now, rssi_dbm=rssi_dbm)
        self._settle(now)

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        """The frame handed out last has left the antenna, or was given up."""
        self.station.frame_sent(now=now, was_on_air=was_on_air)
        self._settle(now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        self.station.handle_timer(now=now)
        self.line.handle_timer(now=now)
        self.table.handle_timer(now=now)
        self.requests.handle_timer(now=now)
        self.probes.handle_timer(now=now)
        if self._ground_lost_at <= now:
            self._ground_lost_at = NEVER
            self._node.set_ground(has_ground=False, now=now)
        self._settle(now)

    # Outputs, for the driver to collect

    def frame_to_send(self, *, now: float) -> Outgoing | None:
        """What the radio shall send next; None for nothing now."""
        frame = self.station.frame_to_send(now=now)
        self._settle(now)
        return frame

    def ack_to_send(self, *, now: float) -> Outgoing | None:
        """As `MeshNode.ack_to_send`."""
        return self.station.ack_to_send(now=now)

    def data_to_send(self, room: int | None = None) -> list[bytes]:
        """Octets for the head-end, in order, at most `room` of them."""
        return self.line.data_to_send(room)

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        happened = list(self._events)
        self._events.clear()
        return happened

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        deadline = min(
            self.line.deadline,
            self.table.deadline,
            self.requests.deadline,
            self.probes.deadline,
            self._ground_lost_at,
        )
        due = self.station.next_timer()
        if due is not None:
            deadline = min(deadline, due)
        return None if deadline == NEVER else deadline

    # Between the two sides

    def _settle(self, now: float) -> None:
        """Carry everything from where it came up to where it goes, until nothing moves."""
        while True:
            heard, told = self.station.events(), self.line.messages()
            for event in heard:
                self._take_event(event, now)
            for message in told:
                self._take_message(message, now)
            self._ask(now)
            if not heard and not told:
                break
        if self._node.dodag.version != self._version:
            # By our own order, or another collector of the area was told of a newer one.
            self._version = self._node.dodag.version
            self._events.append(KeepVersion(self._version))
        self._note_line(now)
        self._tell(now)

    def _take_event(self, event: Event, now: float) -> None:
        match event:
            case PacketReceived():
                self._take_up(event, now)
            case RouteChanged(target=target):
                self.table.changed(target, now=now)
            case PacketSent(packet):
                self.requests.sent(packet, now=now)
            case PacketArrived(packet):
                self.requests.delivered(packet)
            case PacketLost(destination, kind, payload, reason, attempt):
                self.requests.lost(destination, kind, payload, attempt, reason)
            case RouteFailed():
                self._take_failure(event, now)
            case EchoAnswered(echo):
                if self.denials.is_on(echo.way):
                    self.counters["dropped: denied"] += 1
                else:
                    self.probes.answered(echo, now=now)
            case ReportMade(octets):
                own = Up(self._node.short, PacketKind.TOPOLOGY, Priority.CONTROL, octets, hops=0)
                self._send_up(own, now)
            case _:
                self._events.append(event)

    def _take_up(self, event: PacketReceived, now: float) -> None:
        if event.kind not in PASSED_UP:
            self.counters["dropped: kind of packet"] += 1
            return
        message = up_of(event, self._node, hop_limit=self._hop_limit)
        self._send_up(message, now)

    def _send_up(self, message: Up, now: float) -> None:
        if message.source in self.denials.shorts:
            self.counters["dropped: denied"] += 1
            return
        is_up = self.line.is_up
        is_sent = is_up and self.line.send(message, message.priority, now=now)
        if is_sent and is_report(message):
            self.held.forget_report(message.source)  # What waits of it says less.
        if not is_sent and (is_worth_holding(message) or not is_up):
            self.held.put(message, now=now)

    def _take_failure(self, event: RouteFailed, now: float) -> None:
        packet = event.packet
        if packet is None:
            return
        if packet.kind == PacketKind.PROBE:
            try:
                echo = Echo.decode(packet.payload)
            except MeshError:
                return
            self.probes.failed(
                echo, event.relay, event.neighbour, is_unknown=event.is_unknown, now=now
            )
        else:
            self.requests.failed(packet, event.relay, event.neighbour)

    # What the head-end wants

    def _take_message(self, message: Message, now: float) -> None:
        match message:
            case Welcome():
                self._take_welcome(message)
            case Down():
                self._send_down(message, now)
            case Forget(target, path_sequence):
                self.table.forget(target, path_sequence)
            case Command():
                self._obey(message, now)
            case Broadcast():
                self._broadcast(message, now)
            case Probe():
                if self._is_denied(message):
                    self.probes.refuse(message)
                else:
                    self.probes.probe(message, way_of(message, self._node, now), now=now)
            case Trace():
                way = None if self._is_denied(message) else way_of(message, self._node, now)
                self.probes.trace(message, way, now=now)
            case _:
                self.counters["refused: a collector's message"] += 1

    def _take_welcome(self, welcome: Welcome) -> None:
        if self.line.is_up and welcome.epoch != self._epoch:
            self._epoch = welcome.epoch
            self._events.append(KeepEpoch(welcome.epoch))

    def _send_down(self, message: Down, now: float) -> None:
        if not self.requests.begin(message, now=now):
            return
        if self._is_denied(message):
            self.requests.refused(message.request, What.NO_ROUTE)
            return
        try:
            is_taken = self.station.send(
                message.payload,
                destination=message.destination,
                priority=message.priority,
                now=now,
                kind=message.kind,
                attempt=message.attempt,
                relays=message.relays,
            )
        except TableFull:
            self.requests.refused(message.request, What.REFUSED_FULL)
        else:
            if is_taken:
                self.requests.queued(message.request)
            else:
                self.requests.refused(message.request, What.NO_ROUTE)

    def _is_denied(self, message: Down | Probe | Trace) -> bool:
        """Whether its end, or a relay that the head-end names, is kept out."""
        if not self.denials.is_on((message.destination, *(message.relays or ()))):
            return False
        self.counters["refused: denied"] += 1
        return True

    def _broadcast(self, message: Broadcast, now: float) -> None:
        what = What.SENT
        try:
            is_sent = self._node.broadcast(
                message.payload,
                priority=message.priority,
                now=now,
                kind=message.kind,
                subtree=message.subtree,
            )
            if not is_sent:
                what = What.NO_ROUTE
        except TableFull:
            what = What.REFUSED_FULL
        self._send_fate(Fate(message.request, what), now)

    def _obey(self, command: Command, now: float) -> None:
        value: int | None = 0
        match command.order:
            case Order.BUMP_VERSION:
                value = self._node.bump_version(now=now)
            case Order.ASK_FOR_ROUTES:
                self._node.ask_for_routes(now=now)
                value = len(self.table)
            case Order.SEND_TABLE:
                value = self._stream_table(now)
            case Order.ALLOW | Order.DENY:
                assert command.node is not None
                is_done = self.keep_out(
                    command.node, command.short, is_denied=command.order is Order.DENY
                )
                value = 0 if is_done else None
            case _:
                assert_never(command.order)
        self.line.send(
            CommandDone(command.request, value is not None, value or 0), Priority.CONTROL, now=now
        )

    def _ask(self, now: float) -> None:
        for number, way in self.probes.to_ask():
            try:
                self.station.ask(number, way, now=now)
            except TableFull:
                self.probes.not_sent(number, now=now)

    # What the head-end is told

    def _hello(self) -> Hello:
        dodag = self._node.dodag
        assert dodag.dodag_id is not None
        return Hello(
            self._area,
            dodag.dodag_id,
            self._node.own,
            self._node.short,
            dodag.version,
            dodag.configuration.hop_rank_increase_min,
            len(self.table),
            self._epoch,
        )

    def _note_line(self, now: float) -> None:
        """The backhaul came or went."""
        for message in self.line.unsent():
            if isinstance(message, Up):
                self.held.put_back(message, now=now)
        if self.line.is_up is self._was_up:
            if self._was_up and self.held.alarm_count and not self.line.depth(Priority.ALARM):
                self._send_held(now)
            if self._was_up:
                self._send_reports(now)
            if self._is_table_due and self.line.depth(TABLE_PRIORITY) < STREAM_AHEAD:
                self._stream_table(now)
            return
        self._was_up = self.line.is_up
        self._events.append(BackhaulChanged(self._was_up))
        if self._was_up:
            self._stream_table(now)
            self._send_held(now)
            self._ground_lost_at = NEVER
            self._node.set_ground(has_ground=True, now=now)
        else:
            self._ground_lost_at = now + GROUND_GRACE_S

    def _send_held(self, now: float) -> None:
        for held in self.held.take_all(now=now):
            self._send_up(held, now)

    def _send_reports(self, now: float) -> None:
        """Reports that waited, in the table's queue as it runs empty: nobody waits for them."""
        room = STREAM_AHEAD - self.line.depth(TABLE_PRIORITY)
        for held in self.held.take_reports(room, now=now):
            if held.source in self.denials.shorts:
                self.counters["dropped: denied"] += 1
            elif not self.line.send(held, TABLE_PRIORITY, now=now):
                self.held.put_back(held, now=now)

    def _stream_table(self, now: float) -> int | None:
        self._is_table_due = False
        return self.line.stream_table(self.table.rows(now=now), len(self.table), now=now)

    def _tell(self, now: float) -> None:
        for news in self.table.news():
            if isinstance(news, RouteRow):
                if self.table.is_to_keep(news, now=now):
                    self._events.append(KeepRow(news))
            else:
                self._events.append(DropRow(news.target))
            if self.line.is_up and not self.line.send(news, TABLE_PRIORITY, now=now):
                # The head-end must not believe what is not so any more: all of it again.
                self._is_table_due = True
        for fate in self.requests.fates():
            self._send_fate(fate, now)
        for result in self.probes.results():
            self.line.send(result, Priority.ON_DEMAND, now=now)

    def _send_fate(self, fate: Fate, now: float) -> None:
        self.line.send(fate, Priority.ON_DEMAND, now=now)
