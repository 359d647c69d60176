"""What the parts of one node share: who it is, where it stands, what it counts and tells.

In      `tell_outcome` of every frame that was for one neighbour
Limit   EVENT_COUNT_MAX events until they are fetched
Never   sends anything
"""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import Final

from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.packet import Packet, PacketKind, RplMark, ShortAddress
from mesh.routing.acts import Act
from mesh.routing.dao import RouteTable
from mesh.routing.dodag import Dodag
from mesh.routing.events import Event, PacketLost, PacketSent
from mesh.routing.jobs import Job
from mesh.routing.long import LongPackets
from mesh.routing.profile import Profile
from mesh.routing.telling import DaoSender
from mesh.routing.trickle import NEVER
from mesh.security import Seal

EVENT_COUNT_MAX: Final = 1024
MUCH_WORSE_ETX: Final = 0.5
"""A further parent whose link is worse by so much is not as good as another."""


class Core:
    """One node's identity and state. `routes` is a root's alone."""

    __slots__ = (
        "chance",
        "counters",
        "dao",
        "dodag",
        "events",
        "long",
        "own",
        "profile",
        "routes",
        "seal",
        "short",
    )

    def __init__(
        self,
        own: Eui64,
        short: ShortAddress,
        seal: Seal,
        profile: Profile,
        chance: random.Random,
        *,
        dodag: Dodag,
        dao: DaoSender,
        routes: RouteTable | None,
    ) -> None:
        self.own = own
        self.short = short
        self.seal = seal
        self.profile = profile
        self.chance = chance
        self.dodag = dodag
        self.dao = dao
        self.routes = routes
        self.counters: Counter[str] = Counter()
        self.events: deque[Event] = deque(maxlen=EVENT_COUNT_MAX)
        self.long: LongPackets | None = None

    def control(
        self, body: bytes, destination: ShortAddress, mark: RplMark | None = None
    ) -> Packet:
        """A control message for a neighbour, or for all of them."""
        return Packet(PacketKind.RPL, Priority.CONTROL, self.short, destination, body, 1, mark)

    def parents_to_tell(self) -> tuple[int, ...]:
        """Those that acknowledge: nobody shall come down a link that was only heard, or to one of
        whom the parent knows nothing.
        """
        dodag = self.dodag
        return tuple(
            row.short
            for row in dodag.parents
            if row is dodag.preferred or (row.metric.samples and not row.metric.failures_in_a_row)
        )

    def tell_outcome(self, job: Job, attempts: int, now: float, *, is_acknowledged: bool) -> None:
        """A frame for one neighbour is done with: the tree learns how, and whoever sent it."""
        if is_acknowledged and job.is_own and job.packet is not None:
            self.events.append(PacketSent(job.packet))
        if job.neighbour is None:
            return
        self.dodag.note_attempts(
            job.neighbour, attempts, job.act, is_acknowledged=is_acknowledged, now=now
        )
        if job.act is Act.PROBE or job.act is Act.LEAVE:
            to_tell, told = self.parents_to_tell(), self.dao.told
            # The one that was told first may be left for a better one, and then not answer.
            if set(to_tell) - set(told) or (to_tell and told and not self._leads_here(told[0])):
                self.tell_root(now)

    def tell_root(self, now: float, *, is_asked: bool = False) -> None:
        """Our parents are others, or the root asks for them: a DAO is due.

        How soon goes by what the root was told: while the first of that acknowledges, be it a
        parent still or not, the way that the root knows leads here, if not as well as another.
        """
        to_tell, told = self.parents_to_tell(), self.dao.told
        if not is_asked and self.dao.deadline < NEVER and self._is_as_good(told, to_tell):
            return
        self.dao.change(
            now=now,
            is_urgent=not told or not self._leads_here(told[0]),
            path_etx=self.dodag.path_etx,
            is_crowded=self.dodag.is_crowded(now),
            is_asked=is_asked,
            is_moved=to_tell[:1] != told[:1],
        )

    def _is_as_good(self, told: tuple[int, ...], to_tell: tuple[int, ...]) -> bool:
        """Whether the root does as well with what it was told until all is told again.

        The preferred parent is the same, and no link of the others is worse by much.
        """
        if to_tell[:1] != told[:1] or len(to_tell) > len(told):
            return False
        rows = self.dodag.neighbours
        etx_max = MUCH_WORSE_ETX + max(
            (row.metric.etx for short in to_tell if (row := rows.by_short(short)) is not None),
            default=0.0,
        )
        return all(
            self._leads_here(short)
            and (row := rows.by_short(short)) is not None
            and row.metric.etx <= etx_max
            for short in told
        )

    def _leads_here(self, short: int) -> bool:
        """Whether a packet that the root sends by way of that neighbour most likely comes here."""
        dodag = self.dodag
        row = dodag.neighbours.by_short(short)
        if row is None or row is dodag.preferred:
            return row is not None
        is_of_use = row.is_grounded or not dodag.is_grounded
        return is_of_use and row.metric.samples > 0 and not row.metric.failures_in_a_row

    def lose(self, job: Job, reason: str) -> None:
        """A packet is given up."""
        self.counters[f"lost: {reason}"] += 1
        packet = job.packet
        if job.is_own and packet is not None:
            attempt = 0 if packet.attempt is None else packet.attempt.number
            self.events.append(
                PacketLost(packet.destination, packet.kind, packet.payload, reason, attempt)
            )
