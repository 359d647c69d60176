"""DIO and DIS between neighbours, and who must prove to be there before they count.

Spec    RFC 6550 sections 6.2, 6.3, 8; docs/protocol/mesh.md, "Replay and freshness"
In      `take` what came in a frame, `answer_challenge`
Out     `packet_of` a job that says something about us, as of now; proofs into the outbox
Never   lets an unproven neighbour's control count
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from amistack.errors import MeshError, SequenceExhausted
from amistack.identifiers import Eui64
from mesh.packet import BROADCAST, NO_ADDRESS, Packet, RplMark, ShortAddress
from mesh.routing.acts import Act
from mesh.routing.core import Core
from mesh.routing.events import Outgoing
from mesh.routing.jobs import Job
from mesh.routing.messages import INFINITE_RANK, Code, Dio, Dis, decode
from mesh.routing.outbox import Outbox
from mesh.routing.strangers import ASK_TRIES, Strangers
from mesh.security import Challenged, Received

_DIS: Final = bytes((Code.DIS,))
_DIO: Final = bytes((Code.DIO,))
_NO_RANK: Final = INFINITE_RANK.to_bytes(2, "big")
ASK_COUNT: Final = 4
"""Of those who hear a solicitation of a stranger, about so many ask it for a proof."""
ASK_INTERVAL: Final = 5.0
ASK_SPREAD: Final = 2.0
"""Seconds over which those are spread who hear the same message and ask its sender for a proof."""
ASK_SPREAD_DETACHED: Final = 0.2
"""The same where somebody waits for a way."""
ASK_INTERVAL_DETACHED: Final = 0.3
"""Seconds from one proof asked for, of who did not speak to us alone, to the next."""


def _says_need(payload: bytes) -> bool:
    """Whether a message to all is a DIS, or a DIO with a rank without end (bytes 2 and 3 of it)."""
    return payload[:1] == _DIS or (payload[:1] == _DIO and payload[3:5] == _NO_RANK)


class LinkControl:
    """What one node says to its neighbours about the tree, and hears of them."""

    __slots__ = ("_ask_at", "_core", "_outbox", "strangers")

    def __init__(self, core: Core, outbox: Outbox) -> None:
        self._core = core
        self._outbox = outbox
        self._ask_at = 0.0
        self.strangers = Strangers()

    def packet_of(self, job: Job) -> Packet | None:
        """What the job's act says; None if there is nothing to say any more."""
        core = self._core
        if job.act is Act.DIS:
            return core.control(Dis().encode(), BROADCAST)
        dio = core.dodag.dio()
        if dio is None:
            # A node that just started knows no DODAG: that it asks says as much.
            is_poison = job.act is Act.POISON
            return core.control(Dis().encode(), NO_ADDRESS) if is_poison else None
        if job.act is Act.DIO:
            return core.control(dio.encode(), BROADCAST)
        row = None if job.neighbour is None else core.dodag.neighbours.get(job.neighbour)
        if row is None:
            return None
        if job.act is not Act.DIO_TO:
            dio = replace(dio, configuration=None)
        place, mark = core.dodag.place, None
        if job.act is Act.ASK:
            mark = RplMark(place.rank, is_down=True, has_rank_error=True)
        elif job.act is Act.REFUSE:
            mark = RplMark(place.bound, has_rank_error=True)
        if job.act is Act.REGISTER or job.act is Act.LEAVE:
            is_ours = row is place.preferred or row is place.pending
            if is_ours is (job.act is Act.LEAVE) or row.rank == INFINITE_RANK:
                return None  # It was so when its turn was far.
            mark = RplMark(place.promise(row)) if is_ours else RplMark(place.rank, is_down=True)
        return core.control(dio.encode(), ShortAddress(row.short), mark)

    def is_link_local(self, packet: Packet) -> bool:
        """Whether it is between us and the neighbour alone."""
        # To NO_ADDRESS goes what the sender knows only the EUI-64 of.
        return (
            packet.hop_limit <= 1
            and packet.destination in (BROADCAST, NO_ADDRESS, self._core.short)
            and packet.route is None
        )

    def is_refusal(self, packet: Packet, heard: Received) -> bool:
        """Whether a neighbour says with it that it does not take us as its child."""
        mark = packet.rpl
        return (
            mark is not None
            and mark.has_rank_error
            and not mark.is_down
            and heard.wants_ack
            and heard.is_fresh
        )

    def take(self, packet: Packet, heard: Received, rssi_dbm: float | None, now: float) -> bool:
        """DIO and DIS, of proven neighbours alone. With False it is not acknowledged."""
        core = self._core
        if packet.source == core.short:
            core.counters["address used twice"] += 1
            return True
        if heard.is_broadcast and _says_need(packet.payload):
            core.dodag.hear_need(now)
        if not heard.is_fresh:
            if not heard.wants_ack:
                self._consider_asking(packet, heard, rssi_dbm, now)
            # A parent that is asked must not say yes to who may be a recording.
            return self.leave(heard, now)
        self.strangers.drop(heard.source)
        try:
            message = decode(packet.payload)
        except MeshError as error:
            core.counters[f"control: {error.reason}"] += 1
            return True
        # A DIO that comes with a proof was asked for: it wants no answer.
        is_for_us = heard.wants_ack
        mark = packet.rpl if is_for_us else None
        if isinstance(message, Dio):
            core.dodag.hear_dio(
                heard.source,
                packet.source,
                message,
                now=now,
                is_for_us=is_for_us and (mark is None or not (mark.is_down or mark.has_rank_error)),
                rssi_dbm=rssi_dbm,
            )
            if mark is not None:
                return self._take_mark(packet, mark, heard, message.rank, now)
        elif isinstance(message, Dis):
            core.dodag.hear_dis(heard.source, message, now=now, is_for_us=is_for_us)
        else:
            core.counters["control: not for a link"] += 1
        return True

    def leave(self, heard: Received, now: float) -> bool:
        """Control of an unproven neighbour does not count: it is asked for a proof, and repeats it.

        Whether to acknowledge the frame: not one that will be said anew.
        """
        self._core.counters["unproven neighbour"] += 1
        if heard.wants_ack:
            self._challenge(heard.source, now)
        return not heard.wants_ack

    def _take_mark(
        self, packet: Packet, mark: RplMark, heard: Received, rank: int, now: float
    ) -> bool:
        """With a mark a neighbour says that it is our child, or no more; or asks if we are its."""
        dodag = self._core.dodag
        if mark.is_down and mark.has_rank_error:
            dodag.tell_promise(heard.source, now=now)
            return True
        if mark.has_rank_error:
            return True
        if mark.is_down:
            dodag.lose_child(heard.source, now=now)
            return True
        return dodag.take_child(
            heard.source, packet.source, rank, promise=mark.sender_rank, now=now
        )

    def take_bare_proof(self, heard: Received, now: float) -> None:
        """A proof with nothing behind it: its sender knows no DODAG at all."""
        self._core.dodag.hear_dis(heard.source, Dis(), now=now, is_for_us=False)

    def answer_challenge(self, heard: Challenged, now: float) -> None:
        """Somebody asks whether we are there: with the proof goes what it is likely to want."""
        core = self._core
        if not self._outbox.can_answer:
            return
        dio = core.dodag.dio()
        body = b"" if dio is None else core.control(dio.encode(), BROADCAST).encode()
        try:
            sealed = core.seal.answer(heard, body, now=now)
        except SequenceExhausted:
            core.counters["no frame counter"] += 1
            return
        if sealed is not None:
            self._outbox.answer(Outgoing(heard.source, sealed.octets, 0, wants_ack=False))

    def _challenge(self, neighbour: Eui64, now: float) -> None:
        core = self._core
        try:
            sealed = core.seal.challenge(neighbour, now=now)
        except SequenceExhausted:
            core.counters["no frame counter"] += 1
            return
        if sealed is not None:
            core.counters["proof asked for"] += 1
            self._outbox.answer(Outgoing(neighbour, sealed.octets, 0, wants_ack=False))

    def handle_timer(self, now: float) -> None:
        """Ask one of those who may be of use, or ask it again."""
        core = self._core
        is_joined = core.dodag.is_joined
        eui = self.strangers.take_due(now=now, ask_at=self._ask_at, is_joined=is_joined)
        if eui is not None:
            self._ask_at = now + (ASK_INTERVAL if is_joined else ASK_INTERVAL_DETACHED)
            self._challenge(eui, now)

    def _consider_asking(
        self, packet: Packet, heard: Received, rssi_dbm: float | None, now: float
    ) -> None:
        """Whether who says that to all shall prove itself: not everybody whom we ever hear.

        In a street that has its power back hundreds know nobody; most of them need nobody of us.
        """
        core, dodag = self._core, self._core.dodag
        spread = ASK_SPREAD if dodag.is_joined else ASK_SPREAD_DETACHED
        hoped = 0
        if packet.payload[:1] == _DIS:
            # Some of those that can help are enough.
            dice = core.chance.random()
            if not dodag.is_joined or dice * len(dodag.neighbours) >= ASK_COUNT:
                return
            # It waits for us, and will say so again.
            spread = ASK_SPREAD_DETACHED
        elif not dodag.is_parent(heard.source):
            if dodag.is_joined and packet.payload[3:5] == _NO_RANK:
                return
            try:
                message = decode(packet.payload)
            except MeshError:
                return
            if not isinstance(message, Dio) or message.rank == INFINITE_RANK:
                return
            if dodag.has_use_for(message.rank, rssi_dbm, now):
                hoped = dodag.hoped_rank(message.rank, rssi_dbm)
            elif message.version == dodag.version and (
                dodag.is_grounded or not message.is_grounded
            ):
                return
        self.strangers.note(
            heard.source,
            hoped,
            due=now + spread * core.chance.random(),
            # One that is only good to know is not worth a second question.
            tries_max=ASK_TRIES if hoped < dodag.rank else 1,
            is_urgent=not dodag.is_joined,
        )
