"""Down the tree: source routes, what is done where one breaks, and the table that they come from.

Spec    RFC 6550 section 9 (DAO at a root), after RFC 6554 (source routes)
In      `job` for a packet that is to go down, `take` for one that came; at a root DAOs and errors
Out     jobs into the outbox; RouteChanged and RouteFailed
Limit   ROUTE_TRIES routes that a root tries by itself for one packet; ERROR_COUNT_MAX errors in
        ERROR_INTERVAL about one neighbour, ERROR_ROWS_MAX neighbours of whom that is known;
        UNANSWERED_COUNT_MAX DAOs whose answer waits for a route, the oldest of which is forgotten;
        ANSWERED_COUNT_MAX that were answered lately
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from amistack.framing import Priority
from mesh.packet import (
    BROADCAST,
    ROOT,
    Attempt,
    Packet,
    PacketKind,
    RplMark,
    ShortAddress,
    SourceRoute,
)
from mesh.routing.core import Core
from mesh.routing.dao import STATUS_ACCEPTED, RouteTable
from mesh.routing.events import RouteChanged, RouteFailed
from mesh.routing.jobs import Job, Way
from mesh.routing.messages import Dao, DaoAck
from mesh.routing.neighbours import Neighbour
from mesh.routing.outbox import Outbox
from mesh.routing.route_errors import ERROR_COUNT_MAX, ERROR_INTERVAL, RouteError

ERROR_ROWS_MAX: Final = 64
UNANSWERED_COUNT_MAX: Final = 512
ANSWERED_COUNT_MAX: Final = 512
ANSWERED_TIME: Final = 15.0
"""Seconds in which the same DAO is answered once; who repeats it gives it another number."""
ROUTE_TRIES: Final = 3
"""Routes that a root tries by itself for one packet, the first included."""


class Downward:
    """What one node does for packets on their way down."""

    __slots__ = ("_answered", "_core", "_errors_told", "_outbox", "_unanswered")

    def __init__(self, core: Core, outbox: Outbox) -> None:
        self._core = core
        self._outbox = outbox
        self._errors_told: dict[int, tuple[float, int]] = {}
        self._answered: dict[int, tuple[int, float]] = {}
        self._unanswered: dict[int, DaoAck] = {}

    def job(
        self,
        packet: Packet,
        now: float,
        *,
        attempt: int = 0,
        relays: tuple[int, ...] | None = None,
    ) -> Job | None:
        """The packet with a source route; None if a root knows none."""
        core = self._core
        if relays is None:
            assert core.routes is not None
            if attempt:
                ways = core.routes.routes_to(packet.destination, now=now)
                relays = ways[attempt % len(ways)] if ways else None
            else:
                relays = core.routes.route_to(packet.destination, now=now)
        if relays is None:
            return None
        packet = replace(
            packet,
            rpl=RplMark(core.dodag.rank, is_down=True),
            route=SourceRoute(tuple(map(ShortAddress, relays))) if relays else None,
        )
        return Job(Way.DOWN, packet, now)

    def _job_around(self, node: int, packet: Packet, now: float, *, is_unknown: bool) -> Job | None:
        """As `job`, after a relay failed to reach `node`, or did not even know it."""
        routes = self._core.routes
        assert routes is not None
        if is_unknown:
            return self.job(packet, now)
        relays = routes.route_around(node, packet.destination, now=now)
        return None if relays is None else self.job(packet, now, relays=relays)

    def next_hop(self, job: Job, now: float) -> Neighbour | None:
        """Whom the job goes to next; None if that is nobody, and then the job is dealt with."""
        packet = job.packet
        assert packet is not None
        short = packet.destination
        if packet.route is not None and packet.route.next_relay is not None:
            short = packet.route.next_relay
        row = self._core.dodag.neighbours.by_short(short)
        if row is not None and row.eui not in job.tried and row.metric.is_out(now=now):
            # All else would wait behind it, and come too late: one at a time tries it again.
            self._core.counters["held back"] += 1
            job.tried.add(row.eui)
        if row is None or row.eui in job.tried:
            self._fail(job, short, now)
            return None
        return row

    def take(self, packet: Packet, now: float) -> bool:
        """Whether a packet to be passed on was taken: with False it comes again."""
        route = packet.route
        if route is None or route.next_relay != self._core.short:
            self._core.counters["dropped: not the relay"] += 1
            return True
        if packet.hop_limit <= 1:
            self._core.counters["dropped: hop limit"] += 1
            return True
        packet = packet.passed_on(packet.hop_limit - 1, packet.rpl, route.advanced())
        return self._outbox.pass_on(Job(Way.DOWN, packet, now), packet.kind)

    def _fail(self, job: Job, short: int, now: float) -> None:
        """The hop to `short` under a source route cannot be made: tell the root, or try again."""
        packet = job.packet
        assert packet is not None
        core = self._core
        core.counters["source route failed"] += 1
        is_unknown = not job.tried
        if core.routes is None:
            core.counters["lost: no way down"] += 1
            if packet.kind != PacketKind.ROUTE_ERROR:
                self._tell_error(RouteError.of(short, packet, is_unknown=is_unknown), now)
            return
        core.routes.deny(core.short, short, now=now, is_unknown=is_unknown)
        core.events.append(RouteFailed(core.short, short, packet.destination, packet, is_unknown))
        job.routes_tried += 1
        if job.routes_tried < ROUTE_TRIES and packet.destination != BROADCAST:
            other = self._job_around(short, packet, now, is_unknown=is_unknown)
            if other is not None and other.packet is not None:
                other.packet = _marked(other.packet, job.routes_tried)
                other.is_own, other.routes_tried = job.is_own, job.routes_tried
                if other.packet.route != packet.route:
                    self._outbox.requeue(other, now)
                    return
        core.lose(job, "no way down")

    def tell_broken(self, packet: Packet, short: int, now: float, *, is_unknown: bool) -> None:
        """A packet in fragments, of which we have the header alone, did not get to `short`."""
        cut = replace(packet, payload=b"")
        self._tell_error(RouteError(short, cut, is_whole=False, is_unknown=is_unknown), now)

    def _tell_error(self, error: RouteError, now: float) -> None:
        """A few errors for a broken hop tell all: not one for each packet that meets it."""
        core, short = self._core, error.neighbour
        since, count = self._errors_told.get(short, (now, 0))
        if now - since >= ERROR_INTERVAL:
            since, count = now, 0
        if count >= ERROR_COUNT_MAX:
            core.counters["route error held back"] += 1
            return
        if short not in self._errors_told and len(self._errors_told) >= ERROR_ROWS_MAX:
            self._errors_told.clear()
        self._errors_told[short] = (since, count + 1)
        up = Packet(
            PacketKind.ROUTE_ERROR,
            Priority.CONTROL,
            core.short,
            ROOT,
            error.encode(),
            core.profile.links.hop_limit,
            RplMark(core.dodag.rank),
        )
        self._outbox.put_or_count(Job(Way.UP, up, now))

    # At a root

    def take_error(self, routes: RouteTable, packet: Packet, now: float) -> None:
        """A relay could not go on with a source route. Raises MeshError."""
        core = self._core
        error = RouteError.decode(packet.payload)
        core.counters["route error"] += 1
        routes.deny(packet.source, error.neighbour, now=now, is_unknown=error.is_unknown)
        lost = error.packet
        core.events.append(
            RouteFailed(packet.source, error.neighbour, lost.destination, lost, error.is_unknown)
        )
        if (
            not error.is_whole
            or lost.source != core.short
            or lost.route is None
            or lost.destination == BROADCAST
        ):
            return
        # The packet came back whole: it may have another way.
        ways_tried = 1 if lost.attempt is None else lost.attempt.path_sequence + 1
        if ways_tried >= ROUTE_TRIES or lost.strange:
            return
        again = self._job_around(
            error.neighbour,
            replace(lost, hop_limit=core.profile.links.hop_limit, route=None),
            now,
            is_unknown=error.is_unknown,
        )
        if again is None or again.packet is None:
            return
        if again.packet.route is None or again.packet.route.relays == lost.route.relays:
            return
        again.packet = _marked(again.packet, ways_tried)
        again.is_own, again.routes_tried = True, ways_tried
        self._outbox.put_or_count(again)

    def take_dao(self, routes: RouteTable, dao: Dao, source: int, now: float) -> None:
        """A node tells its parents. Raises MeshError."""
        core = self._core
        before = routes.rows.get(source)
        target, status = routes.take(dao, core.dodag.configuration, source=source, now=now)
        row = routes.rows.get(target)
        if status == STATUS_ACCEPTED and row is not None and row is not before:
            core.events.append(RouteChanged(target, row.parents, row.path_sequence, row.expires_at))
        if dao.is_ack_wanted and target == source and not self._is_answered(dao, target, now):
            self._unanswered.pop(target, None)
            way = None if status == STATUS_ACCEPTED else routes.way_told(dao, now=now)
            self._answer(target, DaoAck(dao.instance, dao.sequence, status), now, relays=way)
        if status == STATUS_ACCEPTED:
            self._answer_those_below(routes, target, now)

    def _is_answered(self, dao: Dao, target: int, now: float) -> bool:
        """Whether that very DAO came before: a hop whose acknowledgement was lost took it twice."""
        sequence, at = self._answered.get(target, (-1, 0.0))
        if sequence == dao.sequence and now - at < ANSWERED_TIME:
            self._core.counters["dao came twice"] += 1
            return True
        self._answered.pop(target, None)
        if len(self._answered) >= ANSWERED_COUNT_MAX:
            del self._answered[next(iter(self._answered))]
        self._answered[target] = (dao.sequence, now)
        return False

    def _answer_those_below(self, routes: RouteTable, node: int, now: float) -> None:
        """Who told us of that node as a parent before we knew the way to it."""
        known = [node]
        while known and self._unanswered:
            parent = known.pop()
            for target in list(self._unanswered):
                row = routes.rows.get(target)
                if row is None or parent not in row.parents:
                    continue
                if self._answer(target, self._unanswered.pop(target), now):
                    known.append(target)

    def _answer(
        self, target: int, ack: DaoAck, now: float, *, relays: tuple[int, ...] | None = None
    ) -> bool:
        """Whether there is a way for the answer, given or known; without one it waits for one."""
        core = self._core
        packet = Packet(
            PacketKind.RPL,
            Priority.CONTROL,
            core.short,
            ShortAddress(target),
            ack.encode(),
            core.profile.links.hop_limit,
        )
        job = self.job(packet, now, relays=relays)
        if job is not None:
            self._outbox.put_or_count(job)
            return True
        core.counters["no route for an answer"] += 1
        if len(self._unanswered) >= UNANSWERED_COUNT_MAX:
            del self._unanswered[next(iter(self._unanswered))]
        self._unanswered[target] = ack
        return False


def _marked(packet: Packet, ways_tried: int) -> Packet:
    """The packet of a root that failed on so many ways: a relay that returns it says so again."""
    number = 0 if packet.attempt is None else packet.attempt.number
    return replace(packet, attempt=Attempt(ways_tried, number))
