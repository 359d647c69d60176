"""The mesh as the head-end keeps it: areas, who has which address there, and a node as a peer.

Raises  LocalProtocolError for a value that has no place in the mesh
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from amistack.errors import LocalProtocolError
from amistack.framing import Priority
from amistack.identifiers import EUI64_SIZE, Eui64, format_eui64
from mesh.backhaul import AREA_MAX
from mesh.topology.facts import AreaId, Role

DODAG_ID_SIZE: Final = 16
PROFILE_DEFAULT: Final = "rfc8036"
"""Of an area that is made without another."""
KEY_HASH_SIZE: Final = 32
DENIED_MAX: Final = 256
"""Nodes of one area that are kept out of the mesh by word of the head-end."""
KIND: Final = "mesh"
"""How the text of a path through the mesh begins."""


@dataclass(frozen=True, slots=True)
class MeshPeer:
    """A node of the mesh as a peer of the stack: the same one, whichever way its messages take.

    `collector` is the one by which it was last heard, `priority` what is sent to it goes in.
    """

    area: AreaId
    node: Eui64
    collector: Eui64 | None = field(default=None, compare=False)
    priority: Priority = field(default=Priority.SCHEDULED, compare=False)

    def __str__(self) -> str:
        by = "" if self.collector is None else f"/{format_eui64(self.collector)}"
        return f"{KIND}:{self.area}:{format_eui64(self.node)}{by}"

    @classmethod
    def parse(cls, path: str) -> MeshPeer | None:
        """The inverse of `str`, or None for the path of another kind of peer."""
        kind, _, rest = path.partition(":")
        area, _, names = rest.partition(":")
        node, _, collector = names.partition("/")
        if kind != KIND or not (area.isascii() and area.isdigit()):
            return None
        try:
            by = Eui64(bytes.fromhex(collector)) if collector else None
            peer = cls(AreaId(int(area)), Eui64(bytes.fromhex(node)), by)
        except ValueError:
            return None
        is_whole = len(peer.node) == EUI64_SIZE and (by is None or len(by) == EUI64_SIZE)
        return peer if is_whole and peer.area <= AREA_MAX else None


@dataclass(frozen=True, slots=True)
class Area:
    """One DODAG with its collectors. `profile` is a name of `mesh.routing.profile`."""

    area: AreaId
    profile: str
    dodag_id: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.area <= AREA_MAX:
            raise LocalProtocolError(f"area {self.area}, expected 0 to {AREA_MAX}")
        if len(self.dodag_id) != DODAG_ID_SIZE:
            raise LocalProtocolError(f"DODAGID of {len(self.dodag_id)} octets")


@dataclass(frozen=True, slots=True)
class Assignment:
    """The short address that the head-end gave a node, for as long as it is in that area.

    `certificate` (DER) is what a collector shows, and `key_hash` what its key must hash to (SHA-256
    of its SubjectPublicKeyInfo); None for a meter, and where the backhaul is not under TLS.
    """

    node: Eui64
    area: AreaId
    short: int
    role: Role = Role.METER
    key_hash: bytes | None = None
    certificate: bytes | None = None

    @property
    def is_collector(self) -> bool:
        """Whether it is a root of its area."""
        return self.role is Role.COLLECTOR


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A node's last topology report as it came; `received_at` UTC s."""

    node: Eui64
    received_at: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class StoredStatus:
    """How communication with a node stands, and why it registered last, in numbers.

    Times in UTC s, None for never; `headend.dcc.statuses` says what `state` and `reason` mean.
    """

    node: Eui64
    state: int
    since: int
    heard_at: int | None
    registered_at: int | None
    reason: int | None


class MeshOrder(enum.Enum):
    """What an operator may have the collectors of an area do."""

    REFRESH = "refresh"
    """Everybody tells its parents anew, and reports."""
    BUMP_VERSION = "bump-version"
    """Global repair: the area forms anew under the next version."""
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Nodes of the mesh: how many are in each state; since the start, how many came there from
    another one, and how many registrations there were for each reason.
    """

    states: Mapping[str, int]
    moves: Mapping[str, int]
    registrations: Mapping[str, int]
