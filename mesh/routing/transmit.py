"""The frame in flight: which job is next, to whom it goes, and what is done when nobody has it.

In      `frame_sent`, `acknowledged`, `handle_timer`
Out     `frame_to_send`, `ack_to_send`; the deadline of `hop`
Limit   one frame in flight
Never   chooses a way: that is `upward` and `downward`
"""

from __future__ import annotations

from typing import Final

from amistack.errors import LocalProtocolError, SequenceExhausted
from amistack.identifiers import Eui64
from mesh.packet import Packet
from mesh.routing.acts import Act
from mesh.routing.control import LinkControl
from mesh.routing.core import Core
from mesh.routing.downward import Downward
from mesh.routing.events import Outgoing
from mesh.routing.jobs import Job, Way
from mesh.routing.link import Hop, Phase
from mesh.routing.long import FragmentJob
from mesh.routing.neighbours import Neighbour
from mesh.routing.outbox import Outbox
from mesh.routing.upward import Upward
from mesh.security import Acknowledged

PROOF_COUNT_MAX: Final = 3
"""Proofs after which a message is not said anew to the same neighbour."""
PROBE_ATTEMPTS: Final = 3
"""A link that needs more is of no use, and many that are tried are such."""
JOIN_PATIENCE: Final = 4.0
"""By how much longer the pauses are while a node without a way asks for one."""


class Transmitter:
    """One node's way onto the air."""

    __slots__ = (
        "_control",
        "_core",
        "_downward",
        "_handed_out",
        "_job",
        "_outbox",
        "_upward",
        "hop",
    )

    def __init__(
        self,
        core: Core,
        outbox: Outbox,
        *,
        upward: Upward,
        downward: Downward,
        control: LinkControl,
    ) -> None:
        self._core = core
        self._outbox = outbox
        self._upward = upward
        self._downward = downward
        self._control = control
        self.hop = Hop(core.profile.links, core.chance)
        """Its `deadline` is when `handle_timer` has something to do."""
        self._job: Job | None = None
        self._handed_out: Outgoing | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a job is in flight."""
        return self._job is not None

    # Inputs from below

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        """The frame handed out last has left the antenna, or was given up."""
        frame, self._handed_out = self._handed_out, None
        sealed = self.hop.sealed
        if frame is None or sealed is None or frame.octets is not sealed.octets:
            return  # An acknowledgement or a proof: nobody waits for its fate.
        if self.hop.frame_sent(now=now, was_on_air=was_on_air):
            job = self._job
            if job is not None and job.is_unicast:
                self._fail_hop(now)
            else:
                if not was_on_air:
                    self._core.counters["radio busy"] += 1
                self._end_hop()

    def acknowledged(self, heard: Acknowledged, now: float) -> None:
        """A neighbour has a frame of ours."""
        sealed = self.hop.sealed
        if sealed is None or sealed.counter != heard.counter or self._job is None:
            return
        job, attempts = self._job, max(self.hop.attempts, 1)
        self._end_hop()
        self._core.tell_outcome(job, attempts, now, is_acknowledged=True)

    def challenged(self, neighbour: Eui64, now: float) -> None:
        """A neighbour wants a proof that we are there.

        Control that we told it did not count, and is older than the proof: it goes anew.
        """
        job, sealed = self._job, self.hop.sealed
        if job is None or sealed is None or not job.is_control or job.neighbour != neighbour:
            return
        if self.hop.attempts and job.proofs < PROOF_COUNT_MAX:
            job.proofs += 1
            self._end_hop()
            self._core.seal.give_up(sealed)
            self._outbox.requeue(job, now)

    def refused(self, neighbour: Eui64, now: float) -> None:
        """A neighbour does not take us as its child: what asks it for that need not go again."""
        job, sealed, attempts = self._job, self.hop.sealed, 0
        is_flying = job is not None and job.act is Act.REGISTER and job.neighbour == neighbour
        if is_flying and sealed is not None:
            attempts = self.hop.attempts
            self._end_hop()
            self._core.seal.give_up(sealed)
        self._core.dodag.note_refusal(neighbour, attempts, now=now)

    def handle_timer(self, now: float) -> None:
        """Repeat the frame, or give it up, if it is time."""
        if self.hop.deadline <= now and self.hop.handle_timer(now=now):
            self._fail_hop(now)

    # Outputs, for the driver to collect

    def frame_to_send(self, now: float) -> Outgoing | None:
        """What the radio shall send next; None for nothing now."""
        if self._handed_out is not None:
            return None
        if self._outbox.answers:
            self._handed_out = self._outbox.take_answer()
            return self._handed_out
        # This is asked after every event, and mostly there is nothing.
        if self.hop.phase is Phase.IDLE:
            if not self._outbox.has_jobs:
                return None
            self._begin_hop(now)
        sealed = self.hop.hand_out()
        if sealed is None or self._job is None:
            return None
        self._handed_out = Outgoing(
            sealed.destination, sealed.octets, self._job.priority, sealed.wants_ack
        )
        return self._handed_out

    def ack_to_send(self) -> Outgoing | None:
        """What cannot wait, while a frame that is none of these is handed out."""
        if self._handed_out is None or self._handed_out.is_ack:
            return None
        return self._outbox.take_answer()

    # One hop

    def _begin_hop(self, now: float) -> None:
        """The next job that has somewhere to go is in flight."""
        if not self._core.seal.counters.available:
            return  # What waits goes on waiting, until the disk has taken the next block.
        while (job := self._outbox.take(now)) is not None:
            if self._aim(job, now):
                return

    def _aim(self, job: Job, now: float) -> bool:
        """Put the job in flight; if it has no hop to make, say so and False."""
        if isinstance(job, FragmentJob):
            return self._seal(job, job.frame.octets, job.frame.neighbour, now)
        packet = self._packet_of(job)
        if packet is None:
            self._core.tell_outcome(job, 0, now, is_acknowledged=False)
            return False
        next_hop: Eui64 | None = None
        if job.is_unicast:
            row = self._next_hop(job, now)
            if row is None and job.act is None:
                return False
            next_hop = job.neighbour if row is None else row.eui
        octets, long = packet.encode(), self._core.long
        if long is not None and len(octets) > long.packet_size_max:
            if next_hop is None:
                self._core.lose(job, "too long for a frame")
            else:
                long.begin(job, octets, next_hop, now=now)
            return False
        return self._seal(job, octets, next_hop, now)

    def _seal(self, job: Job, octets: bytes, next_hop: Eui64 | None, now: float) -> bool:
        """The octets are in flight; if they cannot be, say so and False."""
        try:
            sealed = self._core.seal.seal(
                octets, destination=next_hop, wants_ack=next_hop is not None
            )
        except SequenceExhausted:
            self._core.counters["no frame counter"] += 1
            self._outbox.requeue(job, now)
            return False
        except LocalProtocolError:
            self._core.lose(job, "too long for a frame")
            self._core.tell_outcome(job, 0, now, is_acknowledged=False)
            return False
        job.neighbour = next_hop
        self._job = job
        # A parent that many want may have to ask us to prove ourselves, and cannot ask all at once.
        is_first = job.act is Act.REGISTER and not self._core.dodag.is_joined
        is_probe = job.act is Act.PROBE and not self._is_to_parent(job)
        self.hop.begin(
            sealed,
            patience=JOIN_PATIENCE if is_first else 1.0,
            attempts_max=PROBE_ATTEMPTS if is_probe else None,
        )
        return True

    def _is_to_parent(self, job: Job) -> bool:
        parent = self._core.dodag.preferred
        return parent is not None and parent.eui == job.neighbour

    def _packet_of(self, job: Job) -> Packet | None:
        """What the job says, as of now; None if there is nothing to say any more."""
        packet = job.packet
        if packet is None:
            return self._control.packet_of(job)
        rank = self._core.dodag.rank
        if packet.rpl is not None and packet.rpl.sender_rank != rank:
            packet = job.packet = packet.marked(packet.rpl.from_rank(rank))
        return packet

    def _next_hop(self, job: Job, now: float) -> Neighbour | None:
        """Whom the job goes to next; None if there is nobody, and then the job is dealt with."""
        if job.act is not None:
            return None if job.neighbour is None else self._core.dodag.neighbours.get(job.neighbour)
        if job.way is Way.UP:
            return self._upward.next_hop(job, now)
        return self._downward.next_hop(job, now)

    def _fail_hop(self, now: float) -> None:
        """The frame in flight was not acknowledged: another way, or none."""
        job, attempts, sealed = self._job, self.hop.attempts, self.hop.sealed
        self._end_hop()
        if job is None or sealed is None:
            return
        self._core.seal.give_up(sealed)
        if not attempts:
            # Nothing is known of the neighbour: it goes again, behind what waits.
            self._core.counters["radio busy"] += 1
            self._outbox.requeue(job, now)
            return
        self._core.counters["hop failed"] += 1
        if job.neighbour is not None:
            job.tried.add(job.neighbour)
        self._core.tell_outcome(job, attempts, now, is_acknowledged=False)
        if isinstance(job, FragmentJob):
            if self._core.long is not None:
                self._core.long.link_failed(job.frame, now=now)
        elif job.act is None:
            self._outbox.requeue(job, now)

    def _end_hop(self) -> None:
        self.hop.end()
        self._job = None
