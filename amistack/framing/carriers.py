"""What finds frames again where a medium has no borders: the shape of it, and its account.

Gives   `Deframer`, the shape that both carriers' deframers have; `Skipped`, an account of octets
        that were no frame; `Carrier`, a deframer with the inverse of it
Never   decides what a frame means
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from amistack.errors import FrameError
from amistack.framing.frame import Frame


@dataclass(frozen=True, slots=True)
class Skipped:
    """Octets of a stream, in their order, that were no frame; `reason` is fit for a counter."""

    octets: bytes
    reason: str

    def __str__(self) -> str:
        return f"{len(self.octets)} octets skipped: {self.reason}"


class Deframer(Protocol):
    """Cuts a stream into frames, however it was chopped up on the way.

    Of the octets taken in, each is in a frame, in a `Skipped`, a delimiter, or pending, so
    `octets_received == octets_framed + octets_skipped + octets_idle + octets_pending`.
    """

    octets_received: int
    octets_framed: int
    octets_skipped: int
    octets_idle: int

    @property
    def octets_pending(self) -> int:
        """How many are kept because more are needed to tell; never above the carrier's bound."""

    @property
    def error(self) -> FrameError | None:
        """Why no frame can be found in this stream any more; None while there is hope."""

    def receive_data(self, data: bytes) -> list[Frame | Skipped]:
        """Everything that `data` completes, in order. Raises nothing."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A way to send frames over a medium without borders.

    `is_connection`: each stream has a beginning that both sides know, and ends with the first
    octet that is lost. Otherwise it is a line, on which either side may start again at any time.
    """

    name: str
    wrap: Callable[[Frame], bytes]
    make_deframer: Callable[[], Deframer]
    is_connection: bool
