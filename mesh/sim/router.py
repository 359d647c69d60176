"""What the simulator asks of a routing protocol: the one door through which it knows it.

A world is the same whatever routes in it: `mesh.sim.nodes` puts the real node behind this door.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from mesh.sim.machine import NodeMachine


class Router(Protocol):
    """Makes nodes, sends by them, and looks at what they believe. Nodes have numbers here."""

    def make(self, number: int, *, is_root: bool, chance: random.Random, now: float) -> NodeMachine:
        """A new life of node `number`, with what it kept from an earlier one."""

    def send(
        self,
        machine: NodeMachine,
        payload: bytes,
        *,
        destination: int | None,
        priority: int,
        attempt: int,
        now: float,
    ) -> bool:
        """Send to a node, or to the root if None. False if the node takes nothing now."""

    def take(self, number: int, machine: NodeMachine, event: object) -> tuple[int, bytes] | None:
        """Do what the event asks for; source and payload, if it is a packet that arrived."""

    def stopped(self, number: int, machine: NodeMachine) -> None:
        """The node loses power: what is on its disk is all that stays."""

    def parents(self, machine: NodeMachine) -> Sequence[int]:
        """Whom the node sends upward to, the preferred first; none if it has no way."""

    def route(self, root: NodeMachine, number: int, *, now: float) -> Sequence[int] | None:
        """The nodes that a packet from this root crosses, `number` last; None if unknown."""

    def set_ground(self, root: NodeMachine, *, has_ground: bool, now: float) -> None:
        """Tell a root whether it has a connection to the head-end, and so everybody below it."""

    def queue_share(self, machine: NodeMachine) -> float:
        """How full the fullest queue of the node is, 1 being its bound."""
