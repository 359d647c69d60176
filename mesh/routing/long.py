"""What a node knows of whoever carries packets that are longer than a frame.

Gives   `LongPackets`, the shape of it; `FragmentJob`, one frame of theirs on its way to a neighbour
"""

from __future__ import annotations

from typing import Protocol

from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.fragments import FragmentFrame
from mesh.routing.jobs import Job, Way


class LongPackets(Protocol):
    """Takes what does not fit into a frame, and the frames that it made of it."""

    @property
    def packet_size_max(self) -> int:
        """The octets of a packet that goes whole."""

    def begin(self, job: Job, octets: bytes, next_hop: Eui64, *, now: float) -> None:
        """`octets` are the job's packet, for `next_hop`: from here on the job is not the node's."""

    def receive(self, octets: bytes, neighbour: Eui64, *, is_fresh: bool, now: float) -> bool:
        """Whether a fragment was taken: with False it is not acknowledged, and comes again."""

    def link_failed(self, frame: FragmentFrame, *, now: float) -> None:
        """All repetitions of a frame of theirs were in vain."""


class FragmentJob(Job):
    """A fragment, or the acknowledgement of one, for a neighbour."""

    __slots__ = ("frame",)

    def __init__(self, frame: FragmentFrame, born: float) -> None:
        super().__init__(Way.NEIGHBOUR, None, born, neighbour=frame.neighbour)
        self.frame = frame

    @property
    def is_control(self) -> bool:
        """It may be: and what came twice does no harm."""
        return True

    @property
    def priority(self) -> Priority:
        """That of its packet."""
        return self.frame.priority

    @property
    def size(self) -> int:
        """Its octets."""
        return len(self.frame.octets)
