"""What a node lets whoever carries its long packets do.

In      `carry`, once; fragments to be sent, jobs that come back, source routes that broke
Out     jobs into the outbox
"""

from __future__ import annotations

from mesh.fragments import FragmentFrame
from mesh.packet import Packet
from mesh.routing.core import Core
from mesh.routing.downward import Downward
from mesh.routing.jobs import Job
from mesh.routing.long import FragmentJob, LongPackets
from mesh.routing.outbox import Outbox


class Carrying:
    """One node's."""

    __slots__ = ("_core", "_downward", "_outbox")

    def __init__(self, core: Core, outbox: Outbox, downward: Downward) -> None:
        self._core = core
        self._outbox = outbox
        self._downward = downward

    def carry(self, long: LongPackets) -> None:
        """`long` takes packets that do not fit into a frame, and fragments that come."""
        self._core.long = long

    def send_fragment(self, frame: FragmentFrame, *, now: float) -> bool:
        """Let a frame of theirs wait for its turn; False if there is no room."""
        return self._outbox.put_or_count(FragmentJob(frame, now))

    def send_again(self, job: Job, *, now: float) -> None:
        """A job that they could not carry to `job.neighbour`, if that is one, goes another way."""
        if job.neighbour is not None:
            job.tried.add(job.neighbour)
        self._outbox.requeue(job, now)

    def lose(self, job: Job, reason: str) -> None:
        """A job of theirs is given up."""
        self._core.lose(job, reason)

    def tell_broken(self, packet: Packet, neighbour: int, *, is_unknown: bool, now: float) -> None:
        """As a relay: a packet in fragments did not get to a neighbour under its source route."""
        self._downward.tell_broken(packet, neighbour, now, is_unknown=is_unknown)
