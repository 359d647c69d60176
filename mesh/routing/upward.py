"""Up the tree: to a parent, to another one at once, to a sibling for one hop; and our own DAOs.

Spec    RFC 6550 sections 9 (DAO), 11.2 (loop detection by rank)
In      `take` for a packet that came up, `send_dao` when one is due
Out     jobs into the outbox
Never   sends a packet that was marked once as going in a circle a second time
"""

from __future__ import annotations

from typing import Final

from amistack.framing import Priority
from mesh.packet import ROOT, Packet, PacketKind, RplMark
from mesh.routing.acts import State
from mesh.routing.core import Core
from mesh.routing.dao import STATUS_REFUSED
from mesh.routing.downward import Downward
from mesh.routing.events import RouteConfirmed
from mesh.routing.jobs import Job, Way
from mesh.routing.messages import INFINITE_RANK, DaoAck
from mesh.routing.neighbours import Neighbour
from mesh.routing.outbox import Outbox
from mesh.security import Received

CONTROL_HOPS_MAX: Final = 2
"""Neighbours that a control packet is tried with, each with all attempts."""


class Upward:
    """What one node does for packets on their way to the root."""

    __slots__ = ("_core", "_downward", "_outbox")

    def __init__(self, core: Core, outbox: Outbox, downward: Downward) -> None:
        self._core = core
        self._outbox = outbox
        self._downward = downward

    def next_hop(self, job: Job, now: float) -> Neighbour | None:
        """Whom the job goes to next; None if there is nobody, and then it waits."""
        dodag = self._core.dodag
        if (
            job.hops_tried >= CONTROL_HOPS_MAX
            and job.packet is not None
            and job.packet.kind in (PacketKind.RPL, PacketKind.ROUTE_ERROR)
        ):
            # Its source says it again, or it is old by then: no load upon a way that has one.
            self._core.lose(job, "tried enough")
            return None
        doubtful: Neighbour | None = None
        parents = dodag.parents
        if job.turn and parents:
            first = job.turn % len(parents)
            parents = (*parents[first:], *parents[:first])
        for parent in parents:
            if parent.eui in job.tried:
                continue
            if not parent.metric.failures_in_a_row:
                return parent
            doubtful = doubtful or parent
        if doubtful is not None:
            return doubtful
        mark = None if job.packet is None else job.packet.rpl
        # With the mark of one such hop a second one would be the packet's end.
        is_marked = mark is not None and mark.has_rank_error
        if dodag.state is State.JOINED and not job.used_sibling and not is_marked:
            sibling = dodag.sibling(now=now, tried=job.tried)
            if sibling is not None:
                job.used_sibling = True
                self._core.counters["sent to a sibling"] += 1
                return sibling
        self._outbox.wait(job, now)
        return None

    def is_for_us(self, packet: Packet) -> bool:
        """Whether a packet that came up is at its end here."""
        core = self._core
        return packet.destination == core.short or (
            packet.destination == ROOT and core.routes is not None
        )

    def has_place_for(self, heard: Received, rank: int, now: float) -> bool:
        """Whether it can be remembered that this neighbour comes up through us."""
        return self._core.dodag.note_passing(heard.source, rank, now=now)

    def take(self, packet: Packet, mark: RplMark, heard: Received, now: float) -> bool:
        """Whether a packet to be passed on was taken: with False it comes again."""
        core = self._core
        if mark.sender_rank <= core.dodag.rank != INFINITE_RANK:
            # It should come from further away (RFC 6550 section 11.2.2.2): once may be an accident.
            core.dodag.note_loop(heard.source, now=now)
            if mark.has_rank_error:
                core.counters["dropped: loop"] += 1
                return True
            mark = RplMark(mark.sender_rank, has_rank_error=True)
        if packet.hop_limit <= 1:
            core.counters["dropped: hop limit"] += 1
            return True
        packet = packet.passed_on(packet.hop_limit - 1, mark, packet.route)
        if core.routes is not None:
            down = self._downward.job(packet, now)
            if down is None:
                core.counters["no route"] += 1
                return True
            return self._outbox.pass_on(down, packet.kind)
        job = Job(Way.UP, packet, now)
        job.tried.add(heard.source)
        job.came_from = heard.source
        return self._outbox.pass_on(job, packet.kind)

    # Where we are

    def send_dao(self, now: float) -> None:
        """Tell the root of our parents."""
        core = self._core
        dodag, dao = core.dodag, core.dao
        if core.routes is not None or dodag.preferred is None or dodag.dodag_id is None:
            dao.stop()
            return
        message = dao.make(
            dodag.dodag_id, core.short, core.parents_to_tell(), dodag.configuration.lifetime
        )
        dao.sent(now=now)
        packet = Packet(
            PacketKind.RPL,
            Priority.CONTROL,
            core.short,
            ROOT,
            message.encode(),
            core.profile.links.hop_limit,
            RplMark(dodag.rank),
        )
        self._outbox.put_or_count(Job(Way.UP, packet, now))

    def take_dao_ack(self, message: DaoAck, packet: Packet, now: float) -> None:
        """The root's answer, and the packet in which it came."""
        core = self._core
        if core.dao.hear_ack(message, core.dodag.configuration, now=now):
            core.dodag.note_root(packet.source, now=now)
            hops = core.profile.links.hop_limit - packet.hop_limit + 1
            core.events.append(RouteConfirmed(core.dao.path_sequence, hops))
        elif message.status >= STATUS_REFUSED:
            core.counters["dao refused"] += 1
