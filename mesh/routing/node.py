"""One node of the mesh: link security, tree, routes and forwarding as one machine without I/O.

Spec    docs/protocol/mesh.md; RFC 6550 in non-storing mode, RFC 8036
In      commands (`start`, `send`, `broadcast`, a root's), `receive_frame`, `frame_sent`,
        `handle_timer`
Out     `frame_to_send` whenever the radio is free, `events`, `next_timer`
Raises  TableFull from `send` at a queue's bound, LocalProtocolError on what is no packet; nothing
        from the inputs, whatever they are given: what is refused is counted by reason
Limit   the parts' own: `mesh.routing.outbox`, `transmit`, `core`
Never   reads a clock, draws chance of its own, or logs; lets an unproven neighbour's control count

A driver may leave out frames to others, as a radio with an address filter does.
"""

from __future__ import annotations

import enum
import random
from collections import Counter

from amistack.errors import LocalProtocolError, MeshError
from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.fragments import is_fragment
from mesh.packet import (
    BROADCAST,
    ROOT,
    UNPROTECTED,
    Attempt,
    Packet,
    PacketKind,
    RplMark,
    ShortAddress,
)
from mesh.routing.acts import Act
from mesh.routing.broadcast import Floods
from mesh.routing.carrying import Carrying
from mesh.routing.control import LinkControl
from mesh.routing.core import Core
from mesh.routing.dao import RouteTable
from mesh.routing.dodag import Dodag
from mesh.routing.downward import ROUTE_TRIES, Downward
from mesh.routing.events import Event, GroundChanged, Outgoing, PacketReceived, ParentChanged
from mesh.routing.flooding import Flooding
from mesh.routing.jobs import Job, Way
from mesh.routing.messages import Dao, DaoAck, decode
from mesh.routing.outbox import WAITING_COUNT_MAX, Outbox
from mesh.routing.profile import Profile
from mesh.routing.telling import DaoSender
from mesh.routing.transmit import Transmitter
from mesh.routing.trickle import NEVER
from mesh.routing.upward import Upward
from mesh.security import Acknowledged, Challenged, Received, Seal

__all__ = ["WAITING_COUNT_MAX", "MeshNode", "Role"]


class Role(enum.Enum):
    """What the node is in the tree."""

    METER = "meter"
    COLLECTOR = "collector"


class MeshNode:
    """One node. Born silent; `start` begins."""

    def __init__(
        self,
        own: Eui64,
        short: int,
        seal: Seal,
        profile: Profile,
        chance: random.Random,
        *,
        role: Role = Role.METER,
        dodag_id: bytes | None = None,
        version: int = 240,
        path_sequence: int | None = None,
        dtsn: int | None = None,
        sensitivity_dbm: float | None = None,
    ) -> None:
        """A collector needs the area's `dodag_id` (16 octets) and its DODAG `version`.

        `path_sequence` is the last one used before a restart; `dtsn` a collector's, if it has its
        table still: with another one everybody tells its parents anew. Raises LocalProtocolError.
        """
        if role is Role.COLLECTOR and (dodag_id is None or len(dodag_id) != 16):
            raise LocalProtocolError("a collector without a DODAGID of 16 octets")
        self.own = own
        self.short = ShortAddress(short)
        self.role = role
        self.seal = seal
        is_root = role is Role.COLLECTOR
        self.dodag = Dodag(
            profile,
            chance,
            dodag_id=dodag_id,
            root_version=version if is_root else None,
            dtsn=dtsn,
            sensitivity_dbm=sensitivity_dbm,
            has_lived=path_sequence is not None or is_root,
        )
        self._place = self.dodag.place
        self.dao = DaoSender(profile.routes, chance, path_sequence=path_sequence)
        self.routes: RouteTable | None = RouteTable(short) if is_root else None
        core = self._core = Core(
            own,
            self.short,
            seal,
            profile,
            chance,
            dodag=self.dodag,
            dao=self.dao,
            routes=self.routes,
        )
        self.counters: Counter[str] = core.counters
        self.happened = core.events
        """What `events` hands over, but for what the seal wants."""
        self.profile = profile
        """The figures of its network."""
        self._outbox = Outbox(core)
        self._downward = Downward(core, self._outbox)
        self._upward = Upward(core, self._outbox, self._downward)
        self.carrying = Carrying(core, self._outbox, self._downward)
        """For whoever carries packets that are longer than a frame."""
        self._flooding = Flooding(core, self._outbox)
        self.floods: Floods = self._flooding.floods
        """The floods that it takes part in."""
        self._control = LinkControl(core, self._outbox)
        self._transmitter = Transmitter(
            core,
            self._outbox,
            upward=self._upward,
            downward=self._downward,
            control=self._control,
        )
        self._hop = self._transmitter.hop
        self._strangers = self._control.strangers
        self.denied: set[Eui64] = set()
        """Neighbours that do not exist for us, by word of the head-end."""
        self._told_parent: Eui64 | None = None
        self._told_ground = True
        self._is_started = False

    @property
    def rank(self) -> int:
        """Our place in the tree; 65535 for none."""
        return self.dodag.rank

    @property
    def preferred_parent(self) -> Eui64 | None:
        """The preferred parent, None for a root and while detached."""
        row = self.dodag.preferred
        return None if row is None else row.eui

    @property
    def parent_set(self) -> tuple[Eui64, ...]:
        """The parents, the preferred one first."""
        return tuple(row.eui for row in self.dodag.parents)

    @property
    def is_way_acknowledged(self) -> bool:
        """Whether the root acknowledged the parents that we have now (RFC 6550 section 6.5)."""
        return self._core.dao.is_acknowledged

    @property
    def queue_length(self) -> int:
        """How many packets wait here, for the radio or for a way up."""
        return len(self._outbox) + self._transmitter.is_busy

    # Commands from above

    def start(self, *, now: float) -> None:
        """Begin to take part."""
        self._is_started = True
        self.dodag.start(now=now)
        self._carry_out(now)

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
        """Let `payload` go to `destination`; ROOT is whichever collector comes first.

        At a root `attempt` chooses among its routes, elsewhere among the parents: who was not
        answered tries another one (docs/decisions/0022). With `relays` the packet goes over them
        and no other way: a root's by whoever knows better, a meter's answer back to a collector.
        False if no way is known. Raises TableFull, LocalProtocolError.
        """
        mark = None
        if attempt or relays is not None:
            path = self.dao.path_sequence
            if self.routes is not None:
                path = 0 if relays is None else ROUTE_TRIES
            mark = Attempt(path, min(attempt, 0xFF))
        packet = Packet(
            kind,
            priority,
            self.short,
            ShortAddress(destination),
            payload,
            self.profile.links.hop_limit,
            RplMark(self.rank),
            attempt=mark,
        )
        if self.routes is None and relays is None:
            if kind == PacketKind.COAP:
                # Somebody will answer; a report about the mesh itself can wait for our turn.
                self.dao.hurry(now=now)
            job = Job(Way.UP, packet, now, is_own=True)
            job.turn = attempt
            self._outbox.put(job)
            return True
        down = self._downward.job(packet, now, attempt=attempt, relays=relays)
        if down is None:
            self.counters["no route"] += 1
            return False
        down.is_own = True
        if relays is not None:
            down.routes_tried = ROUTE_TRIES
        self._outbox.put(down)
        return True

    def broadcast(
        self,
        payload: bytes,
        *,
        priority: Priority,
        now: float,
        kind: int = PacketKind.COAP,
        subtree: int | None = None,
    ) -> bool:
        """Let `payload` reach everybody, or at a root everybody below the node `subtree`.

        False if no way to that node is known. Raises LocalProtocolError, and TableFull for a
        subtree.
        """
        return self._flooding.begin(payload, priority=priority, kind=kind, subtree=subtree, now=now)

    def bump_version(self, *, now: float) -> int:
        """At a root: global repair. Returns the version, to be put on disk."""
        self._need_root()
        version = self.dodag.bump_version(now=now)
        self._carry_out(now)
        return version

    def set_ground(self, *, has_ground: bool, now: float) -> None:
        """At a root: the connection to the head-end is there, or gone; everybody hears of it."""
        self._need_root()
        self.dodag.set_ground(has_ground=has_ground, now=now)
        self._carry_out(now)

    def ask_for_routes(self, *, now: float) -> None:
        """At a root: everybody shall tell its parents anew, spread over some seconds."""
        self._need_root()
        self.dodag.ask_for_routes(now=now)
        self._carry_out(now)

    def route_to(self, short: int, *, now: float) -> tuple[int, ...] | None:
        """At a root: the relays to that node, () for a neighbour, None for no way."""
        return self._need_root().route_to(short, now=now)

    def routes_to(self, short: int, *, now: float, count_max: int = 3) -> list[tuple[int, ...]]:
        """At a root: up to so many different ways to that node."""
        return self._need_root().routes_to(short, now=now, count_max=count_max)

    def counters_reserved(self, until: int) -> None:
        """What the event CountersWanted asked for is on disk."""
        self.seal.reserved(until)

    # Inputs from below

    def receive_frame(self, octets: bytes, *, now: float, rssi_dbm: float | None = None) -> None:
        """Take a frame that the radio heard. Never raises on bad data."""
        try:
            heard = self.seal.open(octets, now=now)
        except MeshError:
            return  # The seal counted it.
        if heard is None or not self._is_started:
            return
        if isinstance(heard, Acknowledged):
            self._transmitter.acknowledged(heard, now)
        elif heard.source in self.denied:
            self.counters["denied"] += 1
            return
        elif isinstance(heard, Challenged):
            self._control.answer_challenge(heard, now)
            self._transmitter.challenged(heard.source, now)
        else:
            self._receive(heard, rssi_dbm, now)
        self._carry_out(now)

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        """The frame handed out last has left the antenna, or was given up."""
        self._transmitter.frame_sent(now=now, was_on_air=was_on_air)
        self._carry_out(now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        if not self._is_started:
            return
        if self._hop.deadline <= now:
            self._transmitter.handle_timer(now)
        if self.dodag.deadline <= now:
            self.dodag.handle_timer(now=now)
        if self.floods.deadline <= now:
            self._flooding.handle_timer(now)
        if self._strangers.deadline <= now:
            self._control.handle_timer(now)
        if self.dao.deadline <= now:
            self._upward.send_dao(now)
        self._outbox.handle_timer(now)
        self._carry_out(now)

    def take_packet(self, octets: bytes, neighbour: Eui64, *, now: float) -> None:
        """A packet that was put together came from `neighbour`."""
        # Of control the first fragment was taken of a proven neighbour alone.
        is_fresh = self.seal.neighbours.is_proven(neighbour)
        heard = Received(
            neighbour, octets, 0, 0, b"", is_broadcast=False, wants_ack=False, is_fresh=is_fresh
        )
        self._take_payload(heard, None, now)
        self._carry_out(now)

    # Outputs, for the driver to collect

    def frame_to_send(self, *, now: float) -> Outgoing | None:
        """What the radio shall send next; None for nothing now."""
        if not self._is_started:
            return None
        frame = self._transmitter.frame_to_send(now)
        while self._place.actions:
            # What could not be sent changed our place, and there is something to say of that.
            self._carry_out(now)
            frame = frame or self._transmitter.frame_to_send(now)
        return frame

    def ack_to_send(self, *, now: float) -> Outgoing | None:
        """What cannot wait, asked while another frame is handed out that is not on the air yet.

        That frame stays handed out; nobody says when this one was sent.
        """
        del now
        return self._transmitter.ack_to_send()

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        # Asked after every call, and mostly there is nothing.
        happened: list[Event] = []
        if self.seal.counters.is_low:
            happened += self.seal.events()
        if self.happened:
            happened += self.happened
            self.happened.clear()
        return happened

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        # As `min` of the six, at a third of its cost: this is asked after every call.
        deadline = self._hop.deadline
        if self.dodag.deadline < deadline:
            deadline = self.dodag.deadline
        if self.floods.deadline < deadline:
            deadline = self.floods.deadline
        if self.dao.deadline < deadline:
            deadline = self.dao.deadline
        if self._strangers.deadline < deadline:
            deadline = self._strangers.deadline
        if self._outbox.deadline < deadline:
            deadline = self._outbox.deadline
        return None if deadline == NEVER else deadline

    # What came

    def _receive(self, heard: Received, rssi_dbm: float | None, now: float) -> None:
        if heard.is_repeated:
            is_taken = True
        elif heard.wants_ack and not self._outbox.can_answer:
            is_taken = False
        else:
            is_taken = self._take_payload(heard, rssi_dbm, now)
        if not is_taken:
            self.counters["not taken"] += 1
            self.seal.release(heard)
        elif heard.wants_ack and self._outbox.can_answer:
            octets = self.seal.acknowledge(heard)
            self._outbox.answer(Outgoing(heard.source, octets, 0, wants_ack=False, is_ack=True))

    def _take_payload(self, heard: Received, rssi_dbm: float | None, now: float) -> bool:
        """Whether what is in a frame, or was put together from several, was taken."""
        long = self._core.long
        if long is not None and is_fragment(heard.payload):
            self.dodag.note_strength(heard.source, rssi_dbm, now=now)
            if long.receive(heard.payload, heard.source, is_fresh=heard.is_fresh, now=now):
                return True
            return self._control.leave(heard, now)
        try:
            packet = Packet.decode(heard.payload)
        except MeshError as error:
            if heard.payload:
                self.counters[f"packet: {error.reason}"] += 1
            elif heard.is_fresh:
                self._control.take_bare_proof(heard, now)
            return True
        return self._take(packet, heard, rssi_dbm, now)

    def _take(self, packet: Packet, heard: Received, rssi_dbm: float | None, now: float) -> bool:
        """Whether the packet was taken: with False it is not acknowledged, and comes again."""
        self.dodag.note_strength(heard.source, rssi_dbm, now=now)
        is_of_link = packet.kind == PacketKind.RPL and self._control.is_link_local(packet)
        if not heard.is_fresh and packet.kind in UNPROTECTED and not is_of_link:
            return self._control.leave(heard, now)
        if packet.flood is not None and packet.route is None:
            if self._flooding.hear(packet, heard, now):
                self._deliver(packet, heard, now)
            return True
        if is_of_link:
            is_taken = self._control.take(packet, heard, rssi_dbm, now)
            if self._control.is_refusal(packet, heard):
                self._transmitter.refused(heard.source, now)
            return is_taken
        mark = packet.rpl
        if mark is None:
            self.counters["packet: no mark"] += 1
            return True
        if mark.is_down:
            return self._take_down(packet, heard, now)
        if not self._upward.has_place_for(heard, mark.sender_rank, now):
            return False
        if self._upward.is_for_us(packet):
            self._deliver(packet, heard, now)
            return True
        return self._upward.take(packet, mark, heard, now)

    def _take_down(self, packet: Packet, heard: Received, now: float) -> bool:
        """A packet under a source route: for us, for those below us, or to be passed on."""
        route = packet.route
        if heard.is_fresh:
            above = packet.source
            if route is not None and route.index:
                above = route.relays[route.index - 1]
            self.dodag.note_address(heard.source, above, now=now)
        if route is None or route.next_relay is None:
            if packet.destination == self.short:
                self._deliver(packet, heard, now)
            else:
                self.counters["dropped: not for us"] += 1
            return True
        is_last = route.next_relay == self.short and route.advanced().next_relay is None
        if is_last and packet.destination == BROADCAST and packet.hop_limit > 1:
            flood = self._flooding.begin_subtree(packet, now)
            if flood is not None:
                self._deliver(flood, heard, now)
            return True
        return self._downward.take(packet, now)

    def _deliver(self, packet: Packet, heard: Received, now: float) -> None:
        """The packet is for us."""
        if packet.kind == PacketKind.RPL or packet.kind == PacketKind.ROUTE_ERROR:
            try:
                self._take_control(packet, now)
            except MeshError as error:
                self.counters[f"control: {error.reason}"] += 1
            return
        self._core.events.append(
            PacketReceived(
                packet.source,
                packet.destination,
                packet.kind,
                packet.priority,
                packet.payload,
                packet.hop_limit,
                heard.source,
                0 if packet.attempt is None else packet.attempt.number,
            )
        )

    def _take_control(self, packet: Packet, now: float) -> None:
        """Control that crossed hops: DAO, DAO-ACK, errors of source routes. Raises MeshError."""
        routes = self.routes
        if packet.kind == PacketKind.ROUTE_ERROR:
            if routes is not None:
                self._downward.take_error(routes, packet, now)
                return
        else:
            message = decode(packet.payload)
            if isinstance(message, Dao) and routes is not None:
                self._downward.take_dao(routes, message, packet.source, now)
                return
            if isinstance(message, DaoAck) and routes is None:
                self._upward.take_dao_ack(message, packet, now)
                return
        self.counters["control: not for us"] += 1

    # Between the parts

    def _carry_out(self, now: float) -> None:
        """What the tree wants said becomes jobs; what waited for a way goes."""
        place = self._place
        actions = place.actions
        while actions:
            act, eui = actions.popleft()
            if act is Act.DAO or act is Act.DAO_ASKED:
                self._core.tell_root(now, is_asked=act is Act.DAO_ASKED)
            else:
                self._outbox.ask(act, eui, now)
        row = place.preferred
        is_grounded = place.has_ground if row is None else row.is_grounded
        if is_grounded is not self._told_ground and self.dodag.is_joined:
            self._told_ground = is_grounded
            self._core.events.append(GroundChanged(is_grounded))
        parent = None if row is None else row.eui
        if parent != self._told_parent:
            self._told_parent = parent
            self._core.events.append(
                ParentChanged(parent, None if row is None else row.short, self.rank)
            )
            if parent is not None:
                self._outbox.release(now)

    def _need_root(self) -> RouteTable:
        if self.routes is None:
            raise LocalProtocolError("a meter has no routes down, a collector has")
        return self.routes
