"""The shape of a node's machine, as the simulator drives it.

The shape of `amistack.machine`, with frames pulled so that a radio is never flooded: whenever the
radio is free, `frame_to_send` is asked; when that frame has left the antenna or was given up,
`frame_sent` says so, and then the next is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from amistack.identifiers import Eui64


class OutgoingFrame(Protocol):
    """One frame that a node wants on the air."""

    @property
    def destination(self) -> Eui64 | None:
        """Who it is for; None for everybody that hears it."""

    @property
    def octets(self) -> bytes:
        """The frame, without what the radio adds."""

    @property
    def priority(self) -> int:
        """0 to 7, the smaller the more urgent; 0 is link and routing control."""

    @property
    def wants_ack(self) -> bool:
        """Whether the receiver is asked to acknowledge it."""


class NodeMachine(Protocol):
    """One node. `now` is the node's own clock, in seconds."""

    def receive_frame(self, octets: bytes, *, now: float, rssi_dbm: float | None = None) -> None:
        """Take a frame that the radio heard. Never raises on bad data."""

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""

    def frame_to_send(self, *, now: float) -> OutgoingFrame | None:
        """What the radio shall send next."""

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        """The frame handed out last has left the antenna, or was given up."""

    def events(self) -> Sequence[object]:
        """What happened, oldest first. Each is handed over once."""

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""


@runtime_checkable
class AnswersAtOnce(Protocol):
    """A node that need not wait with an acknowledgement while a frame of its own backs off."""

    def ack_to_send(self, *, now: float) -> OutgoingFrame | None:
        """A link acknowledgement, though another frame is handed out and not on the air yet.

        Nobody says when it was sent: `frame_sent` is for the other frame.
        """
