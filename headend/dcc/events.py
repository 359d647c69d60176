"""What the center tells whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from amistack.identifiers import Eui64
from headend.domain.mesh import MeshPeer
from mesh.backhaul import CommandDone, Fate, Probed, Traced
from mesh.topology.facts import AreaId
from mesh.topology.verdicts import Outcome, Probe, Verdict

Connection = NewType("Connection", int)
"""One stream from a collector, from its beginning to its end."""
RequestNumber = NewType("RequestNumber", int)
"""What an answer of a collector refers to."""

Answer = Probed | Traced | CommandDone | Fate


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """A node's CoAP datagram, whoever really made it: nothing proves that yet."""

    peer: MeshPeer
    octets: bytes


@dataclass(frozen=True, slots=True)
class ReportTaken:
    """A node's topology report that was believed, as it came."""

    node: Eui64
    octets: bytes


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request of ours has its answer; None if the collector never gave one, or went away."""

    request: RequestNumber
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class RowTraced:
    """A trace that goes on has learned of one node of its way; `row.hops` says which."""

    request: RequestNumber
    row: Probed


@dataclass(frozen=True, slots=True)
class CollectorJoined:
    """A collector serves its area from now on; its table follows."""

    collector: Eui64
    area: AreaId
    route_count: int


@dataclass(frozen=True, slots=True)
class CollectorRefused:
    """Somebody said to be this collector and was not believed, or not let in."""

    collector: Eui64
    reason: str


@dataclass(frozen=True, slots=True)
class CollectorLeft:
    """The connection of a collector that served has ended."""

    collector: Eui64


@dataclass(frozen=True, slots=True)
class HangUp:
    """That stream is of no use any more: let what was said go out, then end it."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Tried:
    """An isolation has learned what became of a probe."""

    meter: Eui64
    probe: Probe
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Isolated:
    """An isolation has ended; without a verdict where `detail` says why."""

    meter: Eui64
    verdict: Verdict | None
    detail: str = ""


Event = (
    DatagramReceived
    | ReportTaken
    | RequestEnded
    | RowTraced
    | CollectorJoined
    | CollectorRefused
    | CollectorLeft
    | HangUp
    | Tried
    | Isolated
)
