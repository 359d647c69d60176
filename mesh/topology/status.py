"""Whether each device can be talked to, why it registered last, and who knows about its silence.

Spec    I2-X-01 (communication status of each), I2-S2 (no trouble report for a known outage)
In      `heard`, `registered`, `unanswered`, `isolated`, `excuse`, `handle_timer`
Out     `status_of`, `counts`, `is_trouble_due`; `changes`, each handed over once
Raises  LocalProtocolError for a move that the table has no place for
Limit   CHANGES_MAX changes kept for whoever collects them: the oldest go first and are counted
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from amistack.errors import LocalProtocolError
from amistack.identifiers import Eui64, format_eui64
from mesh.reports import Reason
from mesh.topology.facts import STAGE_ENDS_S

LATE_S: Final = STAGE_ENDS_S[0]
"""A device says something in every reporting period; an hour more and it is late."""
CHANGES_MAX: Final = 100_000

REGISTRATIONS: Final = frozenset(
    {Reason.COLD_BOOT, Reason.POWER_RESTORED, Reason.PARENT_CHANGED, Reason.ADDRESS_CHANGED}
)
"""The reasons for which a device registers; the others only report."""


class EndpointState(enum.Enum):
    """Where communication with a device stands."""

    NEVER_HEARD = "never heard"
    REACHABLE = "reachable"
    LATE = "late"
    SILENT = "silent"
    UNREACHABLE = "unreachable"


class Trigger(enum.Enum):
    """What moves a device from state to state."""

    HEARD = "heard"
    EXPIRED = "expired"
    UNANSWERED = "unanswered"
    ISOLATED = "isolated"


# SILENT: asked, and no answer; UNREACHABLE: asked over every way there is.
TRANSITIONS: Final[Mapping[EndpointState, Mapping[Trigger, EndpointState]]] = {
    EndpointState.NEVER_HEARD: {
        Trigger.HEARD: EndpointState.REACHABLE,
        Trigger.UNANSWERED: EndpointState.NEVER_HEARD,
        Trigger.ISOLATED: EndpointState.UNREACHABLE,
    },
    EndpointState.REACHABLE: {
        Trigger.HEARD: EndpointState.REACHABLE,
        Trigger.EXPIRED: EndpointState.LATE,
        Trigger.UNANSWERED: EndpointState.SILENT,
        Trigger.ISOLATED: EndpointState.UNREACHABLE,
    },
    EndpointState.LATE: {
        Trigger.HEARD: EndpointState.REACHABLE,
        Trigger.UNANSWERED: EndpointState.SILENT,
        Trigger.ISOLATED: EndpointState.UNREACHABLE,
    },
    EndpointState.SILENT: {
        Trigger.HEARD: EndpointState.REACHABLE,
        Trigger.UNANSWERED: EndpointState.SILENT,
        Trigger.ISOLATED: EndpointState.UNREACHABLE,
    },
    EndpointState.UNREACHABLE: {
        Trigger.HEARD: EndpointState.REACHABLE,
        Trigger.UNANSWERED: EndpointState.UNREACHABLE,
        Trigger.ISOLATED: EndpointState.UNREACHABLE,
    },
}


class Excuse(enum.Enum):
    """Why nobody needs to be told that a device is silent."""

    OUTAGE = "service outage"
    MAINTENANCE = "planned maintenance"
    TROUBLE_ORDER = "trouble order open"


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """One device: its state and since when, when it was last heard, why it last registered.

    Times in seconds of the caller's clock; None for never.
    """

    state: EndpointState
    since: float
    heard_at: float | None
    registered_at: float | None
    registered_for: Reason | None
    excuses: tuple[Excuse, ...]


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A device moved between two states."""

    node: Eui64
    before: EndpointState
    after: EndpointState
    at: float


class _Device:
    """The row of one device."""

    __slots__ = ("excuses", "heard_at", "registered_at", "registered_for", "since", "state")

    def __init__(self, now: float) -> None:
        self.state = EndpointState.NEVER_HEARD
        self.since = now
        self.heard_at: float | None = None
        self.registered_at: float | None = None
        self.registered_for: Reason | None = None
        self.excuses: dict[Excuse, float | None] | None = None


class Devices:
    """Every device of the topology."""

    def __init__(self) -> None:
        self.registrations: Counter[Reason] = Counter()
        """How often devices registered, by reason."""
        self.lost_change_count = 0
        self._devices: dict[Eui64, _Device] = {}
        self._expiries: dict[Eui64, float] = {}
        self._changes: deque[StateChanged] = deque()

    # Commands from above

    def add(self, node: Eui64, *, now: float) -> None:
        """Know a device; one that is known stays as it is."""
        if node not in self._devices:
            self._devices[node] = _Device(now)

    def remove(self, node: Eui64) -> None:
        """Forget a device and its history."""
        self._devices.pop(node, None)
        self._expiries.pop(node, None)

    def excuse(self, node: Eui64, why: Excuse, *, until: float | None = None) -> None:
        """Its silence is explained until then, or until `no_excuse`."""
        device = self._device(node)
        device.excuses = {**(device.excuses or {}), why: until}

    def no_excuse(self, node: Eui64, why: Excuse) -> None:
        """That explanation is over."""
        device = self._device(node)
        device.excuses = {
            each: until for each, until in (device.excuses or {}).items() if each is not why
        } or None

    # Inputs from below

    def heard(self, node: Eui64, *, now: float) -> None:
        """Something authentic came from it."""
        device = self._device(node)
        device.heard_at = now
        self._expiries.pop(node, None)
        self._expiries[node] = now + LATE_S
        self._move(node, device, Trigger.HEARD, now)

    def registered(self, node: Eui64, reason: Reason, *, now: float) -> None:
        """It registered and said why; that counts as heard. Other reasons are only heard."""
        self.heard(node, now=now)
        if reason in REGISTRATIONS:
            device = self._devices[node]
            device.registered_at, device.registered_for = now, reason
            self.registrations[reason] += 1

    def unanswered(self, node: Eui64, *, now: float) -> None:
        """It was asked, with all retries, and did not answer."""
        self._move(node, self._device(node), Trigger.UNANSWERED, now)

    def isolated(self, node: Eui64, *, now: float) -> None:
        """Every way to it was tried."""
        self._move(node, self._device(node), Trigger.ISOLATED, now)

    def handle_timer(self, *, now: float) -> None:
        """Whoever should have reported by now is late."""
        while self._expiries:
            node, due = next(iter(self._expiries.items()))
            if due > now:
                break
            del self._expiries[node]
            device = self._devices[node]
            if device.state is EndpointState.REACHABLE:
                self._move(node, device, Trigger.EXPIRED, due)

    # Outputs

    def next_timer(self) -> float | None:
        """When the next device is late, or None."""
        return next(iter(self._expiries.values()), None)

    def changes(self) -> list[StateChanged]:
        """Moves between states, oldest first. Each is handed over once."""
        changes = list(self._changes)
        self._changes.clear()
        return changes

    def status_of(self, node: Eui64, *, now: float) -> DeviceStatus:
        """All of it. Raises LocalProtocolError for a device that is not known."""
        device = self._device(node)
        return DeviceStatus(
            device.state,
            device.since,
            device.heard_at,
            device.registered_at,
            device.registered_for,
            tuple(_valid(device.excuses, now)),
        )

    def is_trouble_due(self, node: Eui64, *, now: float) -> bool:
        """Whether somebody should be told: out of reach by every way, and no excuse for it."""
        device = self._device(node)
        return device.state is EndpointState.UNREACHABLE and not any(_valid(device.excuses, now))

    def counts(self) -> Mapping[EndpointState, int]:
        """How many devices are in each state."""
        found = Counter(device.state for device in self._devices.values())
        return {state: found[state] for state in EndpointState}

    # Rules

    def _device(self, node: Eui64) -> _Device:
        device = self._devices.get(node)
        if device is None:
            raise LocalProtocolError(f"{format_eui64(node)} is no device of this topology")
        return device

    def _move(self, node: Eui64, device: _Device, trigger: Trigger, now: float) -> None:
        before = device.state
        after = TRANSITIONS[before].get(trigger)
        if after is None:
            raise LocalProtocolError(f"{trigger.value} while {before.value}")
        if after is before:
            return
        device.state, device.since = after, now
        if len(self._changes) >= CHANGES_MAX:
            self._changes.popleft()
            self.lost_change_count += 1
        self._changes.append(StateChanged(node, before, after, now))


def _valid(excuses: Mapping[Excuse, float | None] | None, now: float) -> Iterator[Excuse]:
    for why, until in (excuses or {}).items():
        if until is None or now < until:
            yield why
