"""What a collector wants kept on its disk, and what its driver may want to tell."""

from __future__ import annotations

from dataclasses import dataclass

from amistack.identifiers import Eui64
from mesh.backhaul import RouteRow
from mesh.station.events import Event as StationEvent


@dataclass(frozen=True, slots=True)
class KeepRow:
    """Put this row of the table on disk, with when it ends; it replaces the target's last one."""

    row: RouteRow


@dataclass(frozen=True, slots=True)
class DropRow:
    """The target's row is gone from the table."""

    target: int


@dataclass(frozen=True, slots=True)
class KeepVersion:
    """Put the DODAG version on disk: after a restart the collector goes on with it."""

    version: int


@dataclass(frozen=True, slots=True)
class KeepEpoch:
    """Put the epoch of the lease on disk."""

    epoch: int


@dataclass(frozen=True, slots=True)
class KeepDenied:
    """Put on disk that this node is kept out, or that it is not any more."""

    node: Eui64
    short: int
    is_denied: bool


@dataclass(frozen=True, slots=True)
class BackhaulChanged:
    """The head-end has accepted us, or is gone."""

    is_up: bool
    detail: str = ""


Event = StationEvent | KeepRow | DropRow | KeepVersion | KeepEpoch | KeepDenied | BackhaulChanged
