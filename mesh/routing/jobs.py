"""What waits to be sent, and what was tried for it."""

from __future__ import annotations

import enum
from typing import Final

from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.packet import UNPROTECTED, Packet
from mesh.routing.acts import Act

CONTROL_SIZE: Final = 64
"""About what a control message takes that is made when its turn comes."""


class Way(enum.Enum):
    """Who comes next."""

    UP = "a parent"
    DOWN = "the next of a source route"
    NEIGHBOUR = "one neighbour"
    EVERYBODY = "everybody that hears it"


class Job:
    """One packet on its way through this node.

    `packet` None is a control message of `act`, made when it is sent, so that it is true then.
    """

    __slots__ = (
        "act",
        "born",
        "came_from",
        "is_own",
        "neighbour",
        "packet",
        "proofs",
        "routes_tried",
        "tried",
        "turn",
        "used_sibling",
        "way",
    )

    def __init__(
        self,
        way: Way,
        packet: Packet | None,
        born: float,
        *,
        act: Act | None = None,
        neighbour: Eui64 | None = None,
        is_own: bool = False,
    ) -> None:
        self.way = way
        self.packet = packet
        self.born = born
        self.act = act
        self.neighbour = neighbour
        self.is_own = is_own
        self.came_from: Eui64 | None = None
        self.tried: set[Eui64] = set()
        self.turn = 0
        """How many parents others go before: those that it went to before, and was not answered."""
        self.used_sibling = False
        self.routes_tried = 0
        self.proofs = 0

    def forget_tries(self) -> None:
        """It may go to everybody again, but to whom it came from."""
        self.tried.clear()
        if self.came_from is not None:
            self.tried.add(self.came_from)
        self.used_sibling = False

    @property
    def hops_tried(self) -> int:
        """With how many neighbours it was tried in vain."""
        return len(self.tried) - (self.came_from in self.tried)

    @property
    def is_control(self) -> bool:
        """Whether it counts of a proven neighbour alone, and so is said anew after a proof."""
        return self.act is not None or (self.packet is not None and self.packet.kind in UNPROTECTED)

    @property
    def is_unicast(self) -> bool:
        """Whether somebody must acknowledge it."""
        return self.way is not Way.EVERYBODY

    @property
    def priority(self) -> Priority:
        """Which queue it waits in."""
        return Priority.CONTROL if self.packet is None else self.packet.priority

    @property
    def size(self) -> int:
        """Octets, about."""
        return CONTROL_SIZE if self.packet is None else len(self.packet.payload) + CONTROL_SIZE
