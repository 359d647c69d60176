"""One node of the mesh: link security, tree, routes and forwarding as one machine without I/O.

Spec    docs/protocol/mesh.md; RFC 6550 in non-storing mode, RFC 8036
In      commands (`start`, `send`, `broadcast`, a root's), `receive_frame`, `frame_sent`,
        `handle_timer`
Out     `frame_to_send` whenever the radio is free, `events`, `next_timer`
Raises  TableFull from `send` at a queue's bound, LocalProtocolError on what is no packet; nothing
        from the inputs, whatever they are given: what is refused is counted by reason
Limit   one frame in flight; `queue_count_max` packets of each priority, WAITING_COUNT_MAX more
        while there is no way up, for WAITING_TIME; EVENT_COUNT_MAX events until they are fetched
Never   reads a clock, draws chance of its own, or logs; lets an unproven neighbour's control count

A driver may leave out frames to others, as a radio with an address filter does.
"""

from __future__ import annotations

import enum
import random
from collections import Counter, deque
from dataclasses import replace
from typing import Final

from amistack.errors import LocalProtocolError, MeshError, SequenceExhausted, TableFull
from amistack.framing import Priority
from amistack.framing.queues import PriorityQueues
from amistack.identifiers import Eui64
from mesh.packet import (
    BROADCAST,
    NO_ADDRESS,
    ROOT,
    Attempt,
    Flood,
    Packet,
    PacketKind,
    RplMark,
    ShortAddress,
    SourceRoute,
)
from mesh.routing.broadcast import Floods
from mesh.routing.dao import STATUS_ACCEPTED, DaoSender, RouteTable
from mesh.routing.dodag import Act, Dodag, State
from mesh.routing.events import (
    Event,
    Outgoing,
    PacketLost,
    PacketReceived,
    ParentChanged,
    RouteChanged,
    RouteConfirmed,
    RouteFailed,
)
from mesh.routing.jobs import Job, Way
from mesh.routing.link import Hop, Phase
from mesh.routing.messages import INFINITE_RANK, Code, Dao, DaoAck, Dio, Dis, decode
from mesh.routing.neighbours import Neighbour
from mesh.routing.profile import Profile
from mesh.routing.route_errors import ERROR_COUNT_MAX, ERROR_INTERVAL, RouteError
from mesh.routing.trickle import NEVER
from mesh.security import Acknowledged, Challenged, Received, Seal

ACK_COUNT_MAX: Final = 16
"""Acknowledgements and proofs that wait for the radio; a frame more is not taken."""
WAITING_COUNT_MAX: Final = 32
WAITING_RETRY: Final = 3.0
"""Seconds after which it is tried again with the same parents."""
WAITING_TIME: Final = 120.0
"""Seconds for which a packet waits for a way up."""
ASK_SHARE: Final = 0.2
"""How many of those who hear a solicitation of a stranger ask it for a proof."""
ASK_INTERVAL: Final = 2.0
ASK_INTERVAL_DETACHED: Final = 0.3
"""Seconds from one proof asked for, of who did not speak to us alone, to the next."""
JOB_LIFE: Final = 120.0
"""Seconds after which a packet that waits in a queue is of no use."""
EVENT_COUNT_MAX: Final = 1024
ERROR_ROWS_MAX: Final = 64
ROUTE_TRIES: Final = 2
"""Routes that a root tries by itself for one packet, the first included."""


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
        sensitivity_dbm: float | None = None,
    ) -> None:
        """A collector needs the area's `dodag_id` (16 octets) and its DODAG `version`.

        `path_sequence` is the last one used before a restart. Raises LocalProtocolError.
        """
        if role is Role.COLLECTOR and (dodag_id is None or len(dodag_id) != 16):
            raise LocalProtocolError("a collector without a DODAGID of 16 octets")
        self.own = own
        self.short = ShortAddress(short)
        self.role = role
        self.seal = seal
        self.counters: Counter[str] = Counter()
        self._profile = profile
        self._chance = chance
        is_root = role is Role.COLLECTOR
        self.dodag = Dodag(
            profile,
            chance,
            dodag_id=dodag_id,
            root_version=version if is_root else None,
            sensitivity_dbm=sensitivity_dbm,
        )
        self.dao = DaoSender(profile.routes, chance, path_sequence=path_sequence)
        self.routes: RouteTable | None = RouteTable(short) if is_root else None
        self.floods = Floods(profile.flood, chance)
        self._queues = PriorityQueues[Job](
            count_max=profile.links.queue_count_max, size_max=profile.links.queue_count_max * 1536
        )
        self._hop = Hop(profile.links, chance)
        self._job: Job | None = None
        self._ready: deque[Outgoing] = deque()
        self._handed_out: Outgoing | None = None
        self._waiting: deque[Job] = deque()
        self._release_at = NEVER
        self._events: deque[Event] = deque(maxlen=EVENT_COUNT_MAX)
        self._flood_sequence = chance.randrange(0x10000)
        self._told_parent: Eui64 | None = None
        self._errors_told: dict[int, tuple[float, int]] = {}
        self._ask_at = 0.0
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
    def queue_length(self) -> int:
        """How many packets wait here, for the radio or for a way up."""
        return len(self._queues) + len(self._waiting) + (self._job is not None)

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

        At a root `attempt` chooses among its routes, and `relays` is a route of somebody who knows
        better. False if no way is known there. Raises TableFull, LocalProtocolError.
        """
        mark = Attempt(self.dao.path_sequence, min(attempt, 0xFF)) if attempt else None
        packet = Packet(
            kind,
            priority,
            self.short,
            ShortAddress(destination),
            payload,
            self._profile.links.hop_limit,
            RplMark(self.rank),
            attempt=mark,
        )
        if self.routes is None:
            self._put(Job(Way.UP, packet, now, is_own=True))
            return True
        job = self._down_job(packet, now, attempt=attempt, relays=relays)
        if job is None:
            self.counters["no route"] += 1
            return False
        job.is_own = True
        self._put(job)
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

        False if no way to that node is known. Raises LocalProtocolError.
        """
        self._flood_sequence = (self._flood_sequence + 1) & 0xFFFF
        top = None if subtree is None else ShortAddress(subtree)
        packet = Packet(
            kind,
            priority,
            self.short,
            BROADCAST,
            payload,
            self._profile.links.hop_limit,
            flood=Flood(self._flood_sequence, top),
        )
        if top is None or top == self.short:
            self.floods.begin(packet, now=now)
            return True
        relays = None if self.routes is None else self.routes.route_to(top, now=now)
        if relays is None:
            return False
        packet = replace(
            packet,
            rpl=RplMark(self.rank, is_down=True),
            route=SourceRoute((*map(ShortAddress, relays), top)),
        )
        self._put(Job(Way.DOWN, packet, now, is_own=True))
        return True

    def bump_version(self, *, now: float) -> int:
        """At a root: global repair. Returns the version, to be put on disk."""
        self._need_root()
        version = self.dodag.bump_version(now=now)
        self._carry_out(now)
        return version

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
            self._note_acknowledged(heard, now)
        elif isinstance(heard, Challenged):
            self._answer_challenge(heard, now)
        else:
            self._receive(heard, rssi_dbm, now)
        self._carry_out(now)

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        """The frame handed out last has left the antenna, or was given up."""
        frame, self._handed_out = self._handed_out, None
        sealed = self._hop.sealed
        if frame is None or sealed is None or frame.octets is not sealed.octets:
            return  # An acknowledgement or a proof: nobody waits for its fate.
        if self._hop.frame_sent(now=now, was_on_air=was_on_air):
            job = self._job
            if job is not None and job.is_unicast:
                self._fail_hop(now)
            else:
                if not was_on_air:
                    self.counters["radio busy"] += 1
                self._end_hop()
        self._carry_out(now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        if not self._is_started:
            return
        if self._hop.deadline <= now and self._hop.handle_timer(now=now):
            self._fail_hop(now)
        if self.dodag.deadline <= now:
            self.dodag.handle_timer(now=now)
        if self.floods.deadline <= now:
            for packet in self.floods.handle_timer(now=now):
                self._put_or_count(Job(Way.EVERYBODY, packet, now), now)
        if self.dao.deadline <= now:
            self._send_dao(now)
        while self._waiting and self._waiting[0].born + WAITING_TIME <= now:
            self._lose(self._waiting.popleft(), "no way up")
        if self._release_at <= now:
            self._release(now)
        self._carry_out(now)

    # Outputs, for the driver to collect

    def frame_to_send(self, *, now: float) -> Outgoing | None:
        """What the radio shall send next; None for nothing now."""
        if self._handed_out is not None or not self._is_started:
            return None
        if self._ready:
            self._handed_out = self._ready.popleft()
            return self._handed_out
        if self._hop.phase is Phase.IDLE:
            self._begin_hop(now)
            if self.dodag.actions:
                self._carry_out(now)
        sealed = self._hop.hand_out()
        if sealed is None or self._job is None:
            return None
        self._handed_out = Outgoing(
            sealed.destination, sealed.octets, self._job.priority, sealed.wants_ack
        )
        return self._handed_out

    def ack_to_send(self, *, now: float) -> Outgoing | None:
        """What cannot wait, asked while another frame is handed out that is not on the air yet.

        That frame stays handed out; nobody says when this one was sent.
        """
        del now
        if self._handed_out is None or self._handed_out.is_ack or not self._ready:
            return None
        return self._ready.popleft()

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        happened = [*self.seal.events(), *self._events]
        self._events.clear()
        return happened

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        deadline = min(
            self._hop.deadline, self.dodag.deadline, self.floods.deadline, self.dao.deadline
        )
        if self._waiting:
            deadline = min(deadline, self._waiting[0].born + WAITING_TIME, self._release_at)
        return None if deadline == NEVER else deadline

    # One hop

    def _begin_hop(self, now: float) -> None:
        """The next job that has somewhere to go is in flight."""
        while (taken := self._queues.take()) is not None:
            job = taken[1]
            if now - job.born > JOB_LIFE and job.act is None:
                self._lose(job, "too old")
                continue
            if self._aim(job, now):
                return

    def _aim(self, job: Job, now: float) -> bool:
        """Put the job in flight; if it has no hop to make, say so and False."""
        packet = self._packet_of(job, now)
        if packet is None:
            return False
        next_hop: Eui64 | None = None
        if job.is_unicast:
            row = self._next_hop(job, now)
            if row is None and job.act is None:
                return False
            next_hop = job.neighbour if row is None else row.eui
        try:
            sealed = self.seal.seal(
                packet.encode(), destination=next_hop, wants_ack=next_hop is not None
            )
        except SequenceExhausted:
            self.counters["no frame counter"] += 1
            self._requeue(job, now)
            return False
        except LocalProtocolError:
            self._lose(job, "too long for a frame")
            self._tell_outcome(job, 0, now, is_acknowledged=False)
            return False
        job.neighbour = next_hop
        self._job = job
        self._hop.begin(sealed)
        return True

    def _packet_of(self, job: Job, now: float) -> Packet | None:
        """What the job says, as of now; None if there is nothing to say any more."""
        packet = job.packet
        if packet is not None:
            if packet.rpl is not None and packet.rpl.sender_rank != self.rank:
                packet = job.packet = replace(
                    packet, rpl=replace(packet.rpl, sender_rank=self.rank)
                )
            return packet
        if job.act is Act.DIS:
            return self._control(Dis().encode(), BROADCAST)
        dio = self.dodag.dio()
        if dio is None:
            if job.act is Act.POISON:
                # A node that just started knows no DODAG: that it asks says as much.
                return self._control(Dis().encode(), NO_ADDRESS)
            self._tell_outcome(job, 0, now, is_acknowledged=False)
            return None
        if job.act is Act.DIO:
            return self._control(dio.encode(), BROADCAST)
        row = None if job.neighbour is None else self.dodag.neighbours.get(job.neighbour)
        if row is None:
            self._tell_outcome(job, 0, now, is_acknowledged=False)
            return None
        if job.act is not Act.DIO_TO:
            dio = replace(dio, configuration=None)
        mark = RplMark(self.rank) if job.act is Act.REGISTER else None
        return self._control(dio.encode(), ShortAddress(row.short), mark)

    def _control(
        self, body: bytes, destination: ShortAddress, mark: RplMark | None = None
    ) -> Packet:
        return Packet(PacketKind.RPL, Priority.CONTROL, self.short, destination, body, 1, mark)

    def _next_hop(self, job: Job, now: float) -> Neighbour | None:
        """Whom the job goes to next; None if there is nobody, and then the job is dealt with."""
        if job.act is not None:
            return None if job.neighbour is None else self.dodag.neighbours.get(job.neighbour)
        if job.way is Way.UP:
            for parent in self.dodag.parents:
                if parent.eui not in job.tried:
                    return parent
            if self.dodag.state is State.JOINED and not job.used_sibling:
                sibling = self.dodag.sibling(now=now, tried=job.tried)
                if sibling is not None:
                    job.used_sibling = True
                    self.counters["sent to a sibling"] += 1
                    return sibling
            self._wait(job, now)
            return None
        packet = job.packet
        assert packet is not None
        short = packet.destination
        if packet.route is not None and packet.route.next_relay is not None:
            short = packet.route.next_relay
        row = self.dodag.neighbours.by_short(short)
        if row is None or row.eui in job.tried:
            self._fail_down(job, short, now)
            return None
        return row

    def _fail_hop(self, now: float) -> None:
        """The frame in flight was not acknowledged: another way, or none."""
        job, attempts, sealed = self._job, self._hop.attempts, self._hop.sealed
        self._end_hop()
        if job is None or sealed is None:
            return
        self.seal.give_up(sealed)
        self.counters["hop failed"] += 1
        if job.neighbour is not None:
            job.tried.add(job.neighbour)
        self._tell_outcome(job, attempts, now, is_acknowledged=False)
        if job.act is None:
            self._requeue(job, now)

    def _note_acknowledged(self, heard: Acknowledged, now: float) -> None:
        sealed = self._hop.sealed
        if sealed is None or sealed.counter != heard.counter or self._job is None:
            return
        job, attempts = self._job, max(self._hop.attempts, 1)
        self._end_hop()
        self._tell_outcome(job, attempts, now, is_acknowledged=True)

    def _end_hop(self) -> None:
        self._hop.end()
        self._job = None

    def _tell_outcome(self, job: Job, attempts: int, now: float, *, is_acknowledged: bool) -> None:
        if job.neighbour is not None:
            self.dodag.note_attempts(
                job.neighbour, attempts, job.act, is_acknowledged=is_acknowledged, now=now
            )
            if job.act is Act.PROBE and set(self._parents_to_tell()) - set(self.dao.told):
                self.dao.change(now=now, is_urgent=False)

    def _put(self, job: Job) -> None:
        """Let a job wait for its turn. Raises TableFull."""
        self._queues.put(job.priority, job.size, job)

    def _put_or_count(self, job: Job, now: float) -> bool:
        try:
            self._put(job)
        except TableFull:
            self.counters["queue full"] += 1
            if job.act is not None:
                self._tell_outcome(job, 0, now, is_acknowledged=False)
            return False
        return True

    def _requeue(self, job: Job, now: float) -> None:
        if not self._put_or_count(job, now) and job.act is None:
            self._lose(job, "queue full")

    def _wait(self, job: Job, now: float) -> None:
        """There is no way up: later, perhaps."""
        if len(self._waiting) >= WAITING_COUNT_MAX:
            self._lose(self._waiting.popleft(), "no way up")
        job.tried.clear()
        if job.came_from is not None:
            job.tried.add(job.came_from)
        job.used_sibling = False
        self._waiting.append(job)
        if self.dodag.state is State.JOINED:
            self._release_at = min(self._release_at, now + WAITING_RETRY)

    def _lose(self, job: Job, reason: str) -> None:
        self.counters[f"lost: {reason}"] += 1
        packet = job.packet
        if job.is_own and packet is not None:
            self._events.append(PacketLost(packet.destination, packet.kind, packet.payload, reason))

    # What came

    def _receive(self, heard: Received, rssi_dbm: float | None, now: float) -> None:
        is_taken = True
        if not heard.is_repeated:
            if heard.wants_ack and len(self._ready) >= ACK_COUNT_MAX:
                is_taken = False
            else:
                try:
                    packet = Packet.decode(heard.payload)
                except MeshError as error:
                    if heard.payload:
                        self.counters[f"packet: {error.reason}"] += 1
                else:
                    is_taken = self._take(packet, heard, rssi_dbm, now)
        if not is_taken:
            self.counters["not taken"] += 1
            self.seal.release(heard)
        elif heard.wants_ack and len(self._ready) < ACK_COUNT_MAX:
            self._ready.append(
                Outgoing(
                    heard.source, self.seal.acknowledge(heard), 0, wants_ack=False, is_ack=True
                )
            )

    def _take(self, packet: Packet, heard: Received, rssi_dbm: float | None, now: float) -> bool:
        """Whether the packet was taken: with False it is not acknowledged, and comes again."""
        if rssi_dbm is not None:
            self.dodag.note_strength(heard.source, rssi_dbm, now=now)
        if packet.flood is not None and packet.route is None:
            self._take_flood(packet, heard, now)
            return True
        if packet.kind == PacketKind.RPL and packet.hop_limit <= 1 and self._is_link_local(packet):
            return self._take_link_local(packet, heard, rssi_dbm, now)
        mark = packet.rpl
        if mark is None:
            self.counters["packet: no mark"] += 1
            return True
        if mark.is_down:
            return self._take_down(packet, heard, now)
        return self._take_up(packet, mark, heard, now)

    def _is_link_local(self, packet: Packet) -> bool:
        # To NO_ADDRESS goes what the sender knows only the EUI-64 of.
        return packet.destination in (BROADCAST, NO_ADDRESS, self.short) and packet.route is None

    def _take_link_local(
        self, packet: Packet, heard: Received, rssi_dbm: float | None, now: float
    ) -> bool:
        """DIO and DIS: from proven neighbours alone."""
        if packet.source == self.short:
            self.counters["address used twice"] += 1
            return True
        if not heard.is_fresh:
            self.counters["unproven neighbour"] += 1
            if heard.wants_ack or self._is_worth_asking(packet, heard, now):
                self._challenge(heard.source, now)
            # A parent that is asked must not say yes to who may be a recording.
            return not heard.wants_ack
        try:
            message = decode(packet.payload)
        except MeshError as error:
            self.counters[f"control: {error.reason}"] += 1
            return True
        is_for_us = not heard.is_broadcast
        if isinstance(message, Dio):
            self.dodag.hear_dio(
                heard.source,
                packet.source,
                message,
                now=now,
                is_for_us=is_for_us,
                rssi_dbm=rssi_dbm,
            )
            if is_for_us and packet.rpl is not None:
                return self.dodag.note_child(heard.source, packet.source, message.rank, now=now)
        elif isinstance(message, Dis):
            self.dodag.hear_dis(heard.source, message, now=now, is_for_us=is_for_us)
        else:
            self.counters["control: not for a link"] += 1
        return True

    def _is_worth_asking(self, packet: Packet, heard: Received, now: float) -> bool:
        """Whether who says that to all shall prove itself: not everybody whom we ever hear.

        In a street that has its power back hundreds know nobody; most of them need nobody of us.
        """
        if now < self._ask_at:
            return False
        dodag = self.dodag
        if packet.payload[:1] == bytes((Code.DIS,)):
            # Some of those that can help are enough.
            is_worth = dodag.is_joined and self._chance.random() < ASK_SHARE
        elif dodag.neighbours.get(heard.source) is not None:
            is_worth = True
        else:
            try:
                message = decode(packet.payload)
            except MeshError:
                return False
            is_worth = (
                isinstance(message, Dio)
                and message.rank < INFINITE_RANK
                and (message.rank < dodag.rank or message.version != dodag.version)
            )
        if is_worth:
            self._ask_at = now + (ASK_INTERVAL if dodag.is_joined else ASK_INTERVAL_DETACHED)
        return is_worth

    def _take_up(self, packet: Packet, mark: RplMark, heard: Received, now: float) -> bool:
        """A packet on its way to the root."""
        if not self.dodag.note_child(heard.source, NO_ADDRESS, mark.sender_rank, now=now):
            return False
        if packet.destination == self.short or (
            packet.destination == ROOT and self.routes is not None
        ):
            self._deliver(packet, heard, now)
            return True
        if mark.sender_rank <= self.rank != INFINITE_RANK:
            # It should come from further away (RFC 6550 section 11.2.2.2): once may be an accident.
            self.dodag.note_loop(heard.source, now=now)
            if mark.has_rank_error:
                self.counters["dropped: loop"] += 1
                return True
            mark = RplMark(mark.sender_rank, has_rank_error=True)
        if packet.hop_limit <= 1:
            self.counters["dropped: hop limit"] += 1
            return True
        packet = replace(packet, hop_limit=packet.hop_limit - 1, rpl=mark)
        if self.routes is not None:
            job = self._down_job(packet, now)
            if job is None:
                self.counters["no route"] += 1
                return True
        else:
            job = Job(Way.UP, packet, now)
            job.tried.add(heard.source)
            job.came_from = heard.source
        return self._put_or_count(job, now)

    def _take_down(self, packet: Packet, heard: Received, now: float) -> bool:
        """A packet under a source route."""
        route = packet.route
        if route is not None and route.next_relay is not None:
            if route.next_relay != self.short:
                self.counters["dropped: not the relay"] += 1
                return True
            if packet.hop_limit <= 1:
                self.counters["dropped: hop limit"] += 1
                return True
            route = route.advanced()
            if route.next_relay is None and packet.destination == BROADCAST:
                return self._begin_subtree(packet, heard, now)
            packet = replace(packet, route=route, hop_limit=packet.hop_limit - 1)
            job = Job(Way.DOWN, packet, now)
            return self._put_or_count(job, now)
        if packet.destination != self.short:
            self.counters["dropped: not for us"] += 1
            return True
        self._deliver(packet, heard, now)
        return True

    def _deliver(self, packet: Packet, heard: Received, now: float) -> None:
        """The packet is for us."""
        if packet.kind == PacketKind.RPL:
            self._take_control(packet, now)
        elif packet.kind == PacketKind.ROUTE_ERROR:
            self._take_route_error(packet, now)
        else:
            self._events.append(
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
        """Control that crossed hops: DAO and DAO-ACK."""
        try:
            message = decode(packet.payload)
            if isinstance(message, Dao) and self.routes is not None:
                self._take_dao(self.routes, message, packet.source, now)
            elif isinstance(message, DaoAck) and self.routes is None:
                if self.dao.hear_ack(message, self.dodag.configuration, now=now):
                    if message.status == STATUS_ACCEPTED:
                        self._events.append(RouteConfirmed(self.dao.path_sequence))
                    else:
                        self.counters["dao refused"] += 1
            else:
                self.counters["control: not for us"] += 1
        except MeshError as error:
            self.counters[f"control: {error.reason}"] += 1

    def _take_dao(self, routes: RouteTable, dao: Dao, source: int, now: float) -> None:
        before = routes.rows.get(source)
        target, status = routes.take(dao, self.dodag.configuration, source=source, now=now)
        row = routes.rows.get(target)
        if status == STATUS_ACCEPTED and row is not None and row is not before:
            self._events.append(
                RouteChanged(target, row.parents, row.path_sequence, row.expires_at)
            )
        if not dao.is_ack_wanted or target != source:
            return
        packet = Packet(
            PacketKind.RPL,
            Priority.CONTROL,
            self.short,
            ShortAddress(target),
            DaoAck(dao.instance, dao.sequence, status).encode(),
            self._profile.links.hop_limit,
        )
        job = self._down_job(packet, now)
        if job is None:
            self.counters["no route for an answer"] += 1
        else:
            self._put_or_count(job, now)

    # Down

    def _down_job(
        self,
        packet: Packet,
        now: float,
        *,
        attempt: int = 0,
        relays: tuple[int, ...] | None = None,
    ) -> Job | None:
        """At a root: the packet with a source route; None if none is known."""
        assert self.routes is not None
        if relays is None:
            if attempt:
                ways = self.routes.routes_to(packet.destination, now=now)
                relays = ways[attempt % len(ways)] if ways else None
            else:
                relays = self.routes.route_to(packet.destination, now=now)
        if relays is None:
            return None
        packet = replace(
            packet,
            rpl=RplMark(self.rank, is_down=True),
            route=SourceRoute(tuple(map(ShortAddress, relays))) if relays else None,
        )
        return Job(Way.DOWN, packet, now)

    def _fail_down(self, job: Job, short: int, now: float) -> None:
        """The hop to `short` under a source route cannot be made: tell the root, or try again."""
        packet = job.packet
        assert packet is not None
        self.counters["source route failed"] += 1
        if self.routes is not None:
            self.routes.deny(self.short, short, now=now)
            self._events.append(RouteFailed(self.short, short, packet.destination))
            job.routes_tried += 1
            if job.routes_tried < ROUTE_TRIES and packet.destination != BROADCAST:
                other = self._down_job(packet, now)
                if other is not None and other.packet is not None:
                    other.is_own, other.routes_tried = job.is_own, job.routes_tried
                    if other.packet.route != packet.route:
                        self._requeue(other, now)
                        return
            self._lose(job, "no way down")
            return
        self.counters["lost: no way down"] += 1
        if packet.kind == PacketKind.ROUTE_ERROR:
            return
        # A few errors for a broken hop tell all: not one for each packet that meets it.
        since, count = self._errors_told.get(short, (now, 0))
        if now - since >= ERROR_INTERVAL:
            since, count = now, 0
        if count >= ERROR_COUNT_MAX:
            self.counters["route error held back"] += 1
            return
        if short not in self._errors_told and len(self._errors_told) >= ERROR_ROWS_MAX:
            self._errors_told.clear()
        self._errors_told[short] = (since, count + 1)
        error = RouteError.of(short, packet)
        up = Packet(
            PacketKind.ROUTE_ERROR,
            Priority.CONTROL,
            self.short,
            ROOT,
            error.encode(),
            self._profile.links.hop_limit,
            RplMark(self.rank),
        )
        self._put_or_count(Job(Way.UP, up, now), now)

    def _take_route_error(self, packet: Packet, now: float) -> None:
        if self.routes is None:
            self.counters["control: not for us"] += 1
            return
        try:
            error = RouteError.decode(packet.payload)
        except MeshError as fault:
            self.counters[f"control: {fault.reason}"] += 1
            return
        self.counters["route error"] += 1
        self.routes.deny(packet.source, error.neighbour, now=now)
        lost = error.packet
        self._events.append(RouteFailed(packet.source, error.neighbour, lost.destination))
        if (
            not error.is_whole
            or lost.source != self.short
            or lost.route is None
            or lost.destination == BROADCAST
        ):
            return
        # The packet came back whole: it has another way, or none, but no third one from here.
        again = self._down_job(
            replace(lost, hop_limit=self._profile.links.hop_limit, route=None), now
        )
        if again is None or again.packet is None or lost.strange or lost.attempt is not None:
            return
        if again.packet.route is None or again.packet.route.relays == lost.route.relays:
            return
        again.packet = replace(again.packet, attempt=Attempt(0, 1))
        again.is_own, again.routes_tried = True, 1
        self._put_or_count(again, now)

    # Floods

    def _take_flood(self, packet: Packet, heard: Received, now: float) -> None:
        flood = packet.flood
        assert flood is not None
        if packet.source == self.short:
            return
        if flood.subtree is not None and heard.source not in self.parent_set:
            # Below that node is who hears it from its parents.
            self.counters["flood: not our subtree"] += 1
            return
        hops_left = max(packet.hop_limit - 1, 0)
        if self.floods.hear(replace(packet, hop_limit=hops_left), now=now):
            self._deliver(packet, heard, now)

    def _begin_subtree(self, packet: Packet, heard: Received, now: float) -> bool:
        if packet.flood is None:
            self.counters["dropped: not for us"] += 1
            return True
        plain = replace(packet, route=None, rpl=None, hop_limit=packet.hop_limit - 1)
        if self.floods.hear(plain, now=now):
            self._deliver(plain, heard, now)
        return True

    # Routes of our own

    def _send_dao(self, now: float) -> None:
        dodag = self.dodag
        if self.routes is not None or dodag.preferred is None or dodag.dodag_id is None:
            self.dao.stop()
            return
        parents = self._parents_to_tell()
        dao = self.dao.make(dodag.dodag_id, self.short, parents, dodag.configuration.lifetime)
        self.dao.sent(now=now)
        packet = Packet(
            PacketKind.RPL,
            Priority.CONTROL,
            self.short,
            ROOT,
            dao.encode(),
            self._profile.links.hop_limit,
            RplMark(self.rank),
        )
        self._put_or_count(Job(Way.UP, packet, now), now)

    def _parents_to_tell(self) -> tuple[int, ...]:
        """Those whose link was tried: nobody shall come down a link that was only heard."""
        dodag = self.dodag
        return tuple(
            row.short for row in dodag.parents if row is dodag.preferred or row.metric.samples > 0
        )

    # Between the parts

    def _carry_out(self, now: float) -> None:
        """What the tree wants said becomes jobs; what waited for a way goes."""
        actions = self.dodag.actions
        while actions:
            act, eui = actions.popleft()
            if act is Act.DAO or act is Act.DAO_LATER:
                self.dao.change(now=now, is_urgent=act is Act.DAO)
            else:
                way = Way.EVERYBODY if eui is None else Way.NEIGHBOUR
                self._put_or_count(Job(way, None, now, act=act, neighbour=eui), now)
        parent = self.preferred_parent
        if parent != self._told_parent:
            self._told_parent = parent
            row = self.dodag.preferred
            self._events.append(
                ParentChanged(parent, None if row is None else row.short, self.rank)
            )
            if parent is not None:
                self._release(now)

    def _release(self, now: float) -> None:
        """What waited for a way up goes on."""
        self._release_at = NEVER
        waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            self._requeue(job, now)

    def _challenge(self, neighbour: Eui64, now: float) -> None:
        try:
            sealed = self.seal.challenge(neighbour, now=now)
        except SequenceExhausted:
            self.counters["no frame counter"] += 1
            return
        if sealed is not None and len(self._ready) < ACK_COUNT_MAX:
            self._ready.append(Outgoing(neighbour, sealed.octets, 0, wants_ack=False))

    def _answer_challenge(self, heard: Challenged, now: float) -> None:
        dio = self.dodag.dio()
        body = b"" if dio is None else self._control(dio.encode(), BROADCAST).encode()
        if len(self._ready) >= ACK_COUNT_MAX:
            return
        try:
            sealed = self.seal.answer(heard, body, now=now)
        except SequenceExhausted:
            self.counters["no frame counter"] += 1
            return
        if sealed is not None:
            self._ready.append(Outgoing(heard.source, sealed.octets, 0, wants_ack=False))

    def _need_root(self) -> RouteTable:
        if self.routes is None:
            raise LocalProtocolError("a meter has no routes down, a collector has")
        return self.routes
