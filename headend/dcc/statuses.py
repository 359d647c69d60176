"""How communication with a node stands, as rows of the store, and back.

Spec    docs/decisions/0021 (which facts are kept, and what wins at a start)
Gives   `stored` and `restored`, each the inverse of the other to the second; `Moment`, by which the
        topology's time becomes UTC and UTC becomes its time
Raises  MeshError for a row with a number that means nothing
Never   judges whether the facts of a row agree: the topology does
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from amistack.errors import MeshError
from amistack.identifiers import Eui64, format_eui64
from headend.domain.mesh import StoredStatus
from mesh.reports import Reason
from mesh.topology.status import DeviceStatus, EndpointState

NUMBERS: Final[Mapping[EndpointState, int]] = {
    EndpointState.NEVER_HEARD: 0,
    EndpointState.REACHABLE: 1,
    EndpointState.LATE: 2,
    EndpointState.SILENT: 3,
    EndpointState.UNREACHABLE: 4,
}
"""What stands in the store for each state: never another number for the same one."""
STATES: Final[Mapping[int, EndpointState]] = {number: state for state, number in NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment by both clocks: `now` in the topology's seconds, `wall` in UTC seconds."""

    now: float
    wall: float

    def utc(self, at: float) -> int:
        """UTC of a time of the topology, to the nearest second: later never becomes earlier."""
        return max(0, round(self.wall - (self.now - at)))

    def at(self, utc: int) -> float:
        """The topology's time of a time in UTC; now, if a clock that was ahead has noted it."""
        return self.now - max(0.0, self.wall - utc)


def stored(node: Eui64, status: DeviceStatus, moment: Moment) -> StoredStatus:
    """The row of a node."""
    return StoredStatus(
        node,
        NUMBERS[status.state],
        moment.utc(status.since),
        None if status.heard_at is None else moment.utc(status.heard_at),
        None if status.registered_at is None else moment.utc(status.registered_at),
        None if status.registered_for is None else int(status.registered_for),
    )


def restored(row: StoredStatus, moment: Moment) -> DeviceStatus:
    """What a row says, with the age that it has."""
    state = STATES.get(row.state)
    if state is None:
        raise MeshError("unknown status", f"{format_eui64(row.node)}: state {row.state}")
    try:
        reason = None if row.reason is None else Reason(row.reason)
    except ValueError:
        raise MeshError("unknown status", f"{format_eui64(row.node)}: {row.reason}") from None
    return DeviceStatus(
        state,
        moment.at(row.since),
        None if row.heard_at is None else moment.at(row.heard_at),
        None if row.registered_at is None else moment.at(row.registered_at),
        reason,
        (),
    )
