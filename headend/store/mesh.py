"""What is written about the mesh, and what becomes of it: part of the store's port."""

from __future__ import annotations

from dataclasses import dataclass

from amistack.identifiers import Eui64
from headend.domain.mesh import Area, Assignment, StoredReport, StoredStatus
from mesh.topology.facts import AreaId, Role


@dataclass(frozen=True, slots=True)
class KeepArea:
    """An area as it now is. One that is known keeps its DODAGID; its profile may change."""

    area: Area


@dataclass(frozen=True, slots=True)
class AssignAddresses:
    """Give nodes short addresses in an area: all of them, or none.

    Who has one there keeps it. Who has one elsewhere, or as something else than `role`, is moved
    only if `is_moving`. `key_hash` and `certificate` replace what was kept of a collector, if they
    are not None.
    """

    area: AreaId
    nodes: tuple[Eui64, ...]
    role: Role = Role.METER
    key_hash: bytes | None = None
    certificate: bytes | None = None
    is_moving: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseAddresses:
    """Take nodes out of their areas, all or none."""

    nodes: tuple[Eui64, ...]


@dataclass(frozen=True, slots=True)
class KeepTopologyReports:
    """The last reports and statuses of nodes, in place of those before; none without an address.

    A report and the status that it led to belong into one write: half of it is another truth.
    """

    reports: tuple[StoredReport, ...]
    statuses: tuple[StoredStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class KeepDenied:
    """Keep a node out of an area's mesh, or no longer. The outcome: whether that was news."""

    area: AreaId
    node: Eui64
    is_denied: bool


MeshWrite = KeepArea | AssignAddresses | ReleaseAddresses | KeepTopologyReports | KeepDenied


@dataclass(frozen=True, slots=True)
class Assigned:
    """Where the nodes are now, in the order asked for; `new` of them got an address just now."""

    assignments: tuple[Assignment, ...]
    new: int


@dataclass(frozen=True, slots=True)
class AssignmentRefused:
    """No address was given: the area is not known (`nodes` empty), or these are elsewhere."""

    reason: str
    nodes: tuple[Assignment, ...] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """They have no addresses any more, unless one of them had none: those are `unknown`."""

    unknown: tuple[Eui64, ...] = ()


MeshOutcome = Assigned | AssignmentRefused | Released
