"""A node with all that stands above its routing, as a machine without I/O.

Spec    docs/protocol/mesh.md, "Fragments" and "Probes"; docs/protocol/topology.md
In      those of `MeshNode`, and `ask`, `report`
Out     those of `MeshNode`; `events` are its node's, less what is answered here, and more
Raises  as `MeshNode`; nothing from the inputs, whatever they are given
Limit   Bucket's: 16 answers to probes at once, 2 a second
Never   reads a clock, draws chance of its own, or logs; answers a probe by another way than it came
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

from amistack.errors import LocalProtocolError, MeshError, TableFull
from amistack.framing import Priority
from mesh.fragments import FragmentSettings
from mesh.packet import BROADCAST, ROOT, PacketKind
from mesh.reporting import is_as_told, report_of
from mesh.reports import HOPS_UNKNOWN, Reason, ReportSchedule, TopologyReport
from mesh.routing import events as routing
from mesh.routing.core import EVENT_COUNT_MAX
from mesh.routing.events import (
    GroundChanged,
    Outgoing,
    PacketReceived,
    ParentChanged,
    RouteConfirmed,
)
from mesh.routing.node import MeshNode, Role
from mesh.routing.trickle import NEVER
from mesh.security.limits import Bucket
from mesh.station.echo import Echo
from mesh.station.events import EchoAnswered, Event, PacketArrived, ReportMade
from mesh.station.long import Long

RESUME_SPREAD_S: Final = 60.0
"""A connection that is back is told over so many seconds, to each node by chance."""
WISH_INTERVAL_S: Final = 10.0
"""Seconds from one report that is asked for to the next."""
WISH_SPREAD_S: Final = 600.0
"""Reports that everybody is asked for come over so many seconds: data must have room between."""
LOOK_INTERVAL_S: Final = 900.0
"""How often a node looks whether its report would say something new. That its preferred parent is
another one it is told when that happens."""


class Station:
    """One node. Born silent; `start` begins."""

    __slots__ = (
        "_answers",
        "_boot",
        "_chance",
        "_counters",
        "_due",
        "_events",
        "_happened",
        "_has_ground",
        "_hops",
        "_long",
        "_look_at",
        "_resume_at",
        "_schedule",
        "_wish_at",
        "_wished_at",
        "counters",
        "node",
    )

    def __init__(
        self,
        node: MeshNode,
        chance: random.Random,
        *,
        boot: Reason = Reason.COLD_BOOT,
        report_sequence: int = 0,
        fragments: FragmentSettings | None = None,
    ) -> None:
        """`boot` is why it starts; `report_sequence` the number of its next report.

        `fragments` None is for a radio whose frames have room for every packet.
        """
        self.node = node
        self._happened = node.happened
        self._counters = node.seal.counters
        self._long = None if fragments is None else Long(node, fragments, chance)
        if self._long is not None:
            node.carrying.carry(self._long)
        self.counters: Counter[str] = Counter()
        self._boot: Reason | None = boot
        self._schedule = ReportSchedule(
            chance, sequence=report_sequence, boot_spread=node.profile.routes.report_spread
        )
        self._look_at = NEVER
        self._due = NEVER
        self._hops = HOPS_UNKNOWN
        self._chance = chance
        self._resume_at = self._wish_at = NEVER
        self._wished_at = -NEVER
        self._has_ground = True
        self._answers = Bucket()
        # Before the first frame a block of counters is wanted on disk.
        self._events: deque[Event] = deque(node.events(), maxlen=EVENT_COUNT_MAX)

    @property
    def hops(self) -> int:
        """How far it is from its collector, HOPS_UNKNOWN until the collector has said so."""
        return 0 if self._is_root else self._hops

    @property
    def report_sequence(self) -> int:
        """The number of the next report: to be kept over a restart."""
        return self._schedule.sequence

    @property
    def _is_root(self) -> bool:
        return self.node.role is Role.COLLECTOR

    # Commands from above

    def start(self, *, now: float) -> None:
        """Begin to take part."""
        self.node.start(now=now)
        if self._is_root:
            self._tell_of_boot(now)
        self._look_at = now + LOOK_INTERVAL_S
        self._act((), now)

    def send(
        self,
        payload: bytes,
        *,
        destination: int = ROOT,
        priority: Priority,
        now: float,
        kind: int = PacketKind.COAP,
        attempt: int = 0,
        relays: tuple[int, ...] | None = None,
    ) -> bool:
        """As `MeshNode.send`; False, too, for what nobody could pass on to a head-end now.

        That is what is less urgent than answers and alarms, while the way up leads to no connection
        and until this node's turn to resume has come.
        """
        if not self._has_ground and destination == ROOT and priority > Priority.ON_DEMAND:
            self.counters["held back: no ground"] += 1
            return False
        is_sent = self.node.send(
            payload,
            destination=destination,
            priority=priority,
            now=now,
            kind=kind,
            attempt=attempt,
            relays=relays,
        )
        self._settle(now)
        return is_sent

    def ask(self, number: int, way: Sequence[int], *, now: float) -> None:
        """Ask the node at the end of `way`, which begins with this one, whether it is there.

        `EchoAnswered` follows, or nothing. Raises TableFull, LocalProtocolError.
        """
        echo = Echo(number, tuple(way))
        if echo.asker != self.node.short:
            raise LocalProtocolError(f"a way from {echo.asker:#06x}, expected {self.node.short}")
        self._send_echo(echo, echo.way, now)
        self._settle(now)

    def report(self, reason: Reason, *, now: float) -> None:
        """Let the DCC know of this node anew, because of `reason`."""
        self._schedule.ask(reason, now=now)
        self._act((), now)

    # Inputs from below

    def receive_frame(self, octets: bytes, *, now: float, rssi_dbm: float | None = None) -> None:
        """Take a frame that the radio heard. Never raises on bad data."""
        self.node.receive_frame(octets, now=now, rssi_dbm=rssi_dbm)
        # As in `_settle`: most of what is heard changes nothing here.
        if self._happened or self._due <= now or self._long is not None or self._counters.is_low:
            self._settle(now)

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        """The frame handed out last has left the antenna, or was given up."""
        self.node.frame_sent(now=now, was_on_air=was_on_air)
        self._settle(now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        self.node.handle_timer(now=now)
        if self._long is not None and self._long.deadline <= now:
            self._long.handle_timer(now=now)
        self._settle(now)

    # Outputs, for the driver to collect

    def frame_to_send(self, *, now: float) -> Outgoing | None:
        """What the radio shall send next; None for nothing now."""
        frame = self.node.frame_to_send(now=now)
        if self._happened or self._due <= now or self._long is not None or self._counters.is_low:
            self._settle(now)
        return frame

    def ack_to_send(self, *, now: float) -> Outgoing | None:
        """As `MeshNode.ack_to_send`."""
        return self.node.ack_to_send(now=now)

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        if not self._events:
            return []
        happened = list(self._events)
        self._events.clear()
        return happened

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        due, of_node = self._due, self.node.next_timer()
        if self._long is not None:
            due = min(due, self._long.deadline)
        if of_node is not None and of_node < due:
            return of_node
        return None if due == NEVER else due

    # What the node says

    def _settle(self, now: float) -> None:
        """After every call: act on what is new, or due. Mostly nothing is."""
        happened = self.node.events()
        if happened or self._due <= now:
            self._act(happened, now)
        if self._long is not None and (arrived := self._long.arrived()):
            self._events += map(PacketArrived, arrived)

    def _act(self, happened: Sequence[routing.Event], now: float) -> None:
        while happened:
            self._take_events(happened, now)
            happened = self.node.events()
        if self._resume_at <= now:
            self._resume_at = NEVER
            self._has_ground = True
            self._events.append(GroundChanged(is_grounded=True))
        if self._look_at <= now:
            self._look_at = now + LOOK_INTERVAL_S
            self._look(now)
        if self._wish_at <= now:
            self._wish_at = NEVER
            self._schedule.ask(Reason.ASKED, now=now)
        report_due = NEVER
        # Without a way up, or a head-end at its end, a report would only wait and grow old.
        if self._is_root or (
            self._has_ground and self.node.dao.is_known and self.node.preferred_parent is not None
        ):
            reason = self._schedule.reason_due(now=now)
            if reason is not None:
                self._send_report(reason, now)
            report_due = self._schedule.next_timer() or NEVER
        self._due = min(self._resume_at, self._wish_at, self._look_at, report_due)
        self._events += self.node.events()  # What was sent may have pushed something out.

    def _take_events(self, happened: Sequence[routing.Event], now: float) -> None:
        """What is for this layer ends here, the rest goes up."""
        for event in happened:
            match event:
                case PacketReceived(kind=PacketKind.PROBE):
                    self._take_echo(event, now)
                case PacketReceived(kind=PacketKind.TOPOLOGY) if not self._is_root:
                    self._take_wish(event, now)
                case ParentChanged():
                    self._hops = HOPS_UNKNOWN
                    self._look(now)
                    self._events.append(event)
                case GroundChanged(is_grounded=True) if not self._is_root:
                    # Who waited must not go on at the same instant as all others.
                    self._resume_at = now + RESUME_SPREAD_S * self._chance.random()
                case GroundChanged(is_grounded=is_grounded):
                    self._resume_at = NEVER
                    self._has_ground = is_grounded or self._is_root
                    self._events.append(event)
                case RouteConfirmed(hops=hops):
                    self._hops = hops
                    self._tell_of_boot(now)
                    self._events.append(event)
                case _:
                    self._events.append(event)

    # Probes

    def _take_echo(self, event: PacketReceived, now: float) -> None:
        try:
            echo = Echo.decode(event.payload)
        except MeshError as error:
            self.counters[f"probe: {error.reason}"] += 1
            return
        own = self.node.short
        if echo.is_answer:
            if echo.asker != own or echo.asked != event.source:
                self.counters["probe: answer for another"] += 1
            else:
                self._events.append(EchoAnswered(echo))
        elif echo.asked != own or echo.asker != event.source:
            self.counters["probe: question for another"] += 1
        elif not self._answers.has_one(now=now):
            self.counters["probe: held back"] += 1
        else:
            self._answers.take()
            try:
                self._send_echo(echo.answered(), echo.way[::-1], now)
            except TableFull:
                self.counters["probe: no room"] += 1

    def _send_echo(self, echo: Echo, way: tuple[int, ...], now: float) -> None:
        self.node.send(
            echo.encode(),
            destination=way[-1],
            relays=way[1:-1],
            priority=Priority.ON_DEMAND,
            kind=PacketKind.PROBE,
            now=now,
        )

    # Reports

    def _take_wish(self, event: PacketReceived, now: float) -> None:
        """The DCC wants a report: of us, or of everybody, and then not of all at once."""
        if event.payload:
            self.counters["report: of another"] += 1
        elif now < self._wished_at + WISH_INTERVAL_S:
            self.counters["report: asked for too often"] += 1
        else:
            self._wished_at = now
            spread = WISH_SPREAD_S if event.destination == BROADCAST else 0.0
            self._wish_at = now + spread * self._chance.random()

    def _tell_of_boot(self, now: float) -> None:
        """Once in a life: the first report says why this life began."""
        if self._boot is not None:
            self._schedule.ask(self._boot, now=now, path_etx=self.node.dodag.path_etx)
            self._boot = None

    def _look(self, now: float) -> None:
        """Whether the next report would say something that the last one did not."""
        told = self._schedule.told
        if told is not None and not is_as_told(self.node, told):
            report = self._report_of(Reason.LINK_CHANGED, now)
            self._schedule.compare(report, now=now, path_etx=self.node.dodag.path_etx)

    def _send_report(self, reason: Reason, now: float) -> None:
        report = self._report_of(reason, now)
        if not self._schedule.is_news(report):
            self._schedule.left_out()
            return
        if self._is_root:
            self._events.append(ReportMade(report.encode()))
        else:
            try:
                self.node.send(
                    report.encode(), priority=Priority.CONTROL, kind=PacketKind.TOPOLOGY, now=now
                )
            except TableFull:
                self.counters["report: no room"] += 1
        # One that found no room is not sent again at once: the next says more.
        self._schedule.sent(report, now=now)

    def _report_of(self, reason: Reason, now: float) -> TopologyReport:
        return report_of(
            self.node, reason, sequence=self._schedule.sequence, now=now, hops=self._hops
        )
