"""Whether each device can be talked to, why it registered last, and who knows about its silence.

Spec    I2-X-01 (communication status of each), I2-S2 (no trouble report for a known outage)
In      `heard`, `registered`, `unanswered`, `isolated`, `excuse`, `handle_timer`; `restore`
Out     `status_of`, `counts`, `is_trouble_due`; `unkept`, each handed over once
Raises  LocalProtocolError for a move that the table has no place for, MeshError from `restore` for
        a status that contradicts itself
Limit   in `unkept` a device stands once
"""

from __future__ import annotations

import enum
import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from amistack.errors import LocalProtocolError, MeshError
from amistack.identifiers import Eui64, format_eui64
from mesh.reports import REPORT_PERIOD_S, Reason
from mesh.topology.facts import STAGE_ENDS_S

LATE_S: Final = STAGE_ENDS_S[0]
"""A device says something in every reporting period; an hour more and it is late."""
HEARD_KEPT_S: Final = REPORT_PERIOD_S / 2
"""That a device is heard as before is kept again after so long: it is heard far more often than
anything about it changes."""

NEVER: Final = float("-inf")

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


class _Device:
    """The row of one device."""

    __slots__ = (
        "excuses",
        "heard_at",
        "kept_heard_at",
        "registered_at",
        "registered_for",
        "since",
        "state",
    )

    def __init__(self, now: float) -> None:
        self.state = EndpointState.NEVER_HEARD
        self.since = now
        self.heard_at: float | None = None
        self.registered_at: float | None = None
        self.registered_for: Reason | None = None
        self.kept_heard_at = NEVER
        self.excuses: dict[Excuse, float | None] | None = None


class Devices:
    """Every device of the topology."""

    def __init__(self) -> None:
        self.registrations: Counter[Reason] = Counter()
        """How often devices registered, by reason."""
        self.moves: Counter[EndpointState] = Counter()
        """How often devices came into each state out of another one."""
        self._devices: dict[Eui64, _Device] = {}
        # Those that are due first stand first; after a restore they are sorted once.
        self._expiries: dict[Eui64, float] = {}
        self._is_sorted = True
        self._last_due = NEVER
        self._counts: Counter[EndpointState] = Counter()
        self._unkept: dict[Eui64, None] = {}

    # Commands from above

    def add(self, node: Eui64, *, now: float) -> None:
        """Know a device; one that is known stays as it is."""
        if node not in self._devices:
            device = self._devices[node] = _Device(now)
            self._counts[device.state] += 1
            self._unkept[node] = None

    def restore(self, node: Eui64, kept: DeviceStatus) -> None:
        """Take up what was kept of a device; what is known of it by now and is newer stays.

        Raises MeshError for what cannot be true; nothing has changed then.
        """
        device = self._device(node)
        contradiction = _contradiction(kept)
        if contradiction is not None:
            raise MeshError("impossible status", f"{format_eui64(node)}: {contradiction}")
        known, before = _last_word(device), _last_word(kept)
        if before >= known:
            self._put(device, kept.state, kept.since)
        elif device.state is kept.state is EndpointState.REACHABLE and known - before <= LATE_S:
            # It was heard anew before it would have been late.
            device.since = kept.since
        device.kept_heard_at = NEVER if kept.heard_at is None else kept.heard_at
        if device.kept_heard_at > (NEVER if device.heard_at is None else device.heard_at):
            device.heard_at = kept.heard_at
            self._expect(node, device.kept_heard_at + LATE_S)
        if kept.registered_at is not None and (
            device.registered_at is None or device.registered_at < kept.registered_at
        ):
            device.registered_at, device.registered_for = kept.registered_at, kept.registered_for
        if _kept_facts(device) == _kept_facts(kept):
            self._unkept.pop(node, None)
        else:
            self._unkept[node] = None

    def remove(self, node: Eui64) -> None:
        """Forget a device and its history."""
        device = self._devices.pop(node, None)
        if device is not None:
            self._counts[device.state] -= 1
        self._expiries.pop(node, None)
        self._unkept.pop(node, None)

    def begin_counting(self) -> None:
        """What was taken up from before is no news: `registrations` and `moves` begin at none."""
        self.registrations.clear()
        self.moves.clear()

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
        self._expect(node, now + LATE_S)
        self._keep_heard(node, device)
        self._move(node, device, Trigger.HEARD, now)

    def registered(self, node: Eui64, reason: Reason, *, now: float) -> None:
        """It registered and said why; that counts as heard. Other reasons are only heard."""
        self.heard(node, now=now)
        if reason in REGISTRATIONS:
            device = self._devices[node]
            device.registered_at, device.registered_for = now, reason
            self.registrations[reason] += 1
            self._unkept[node] = None

    def unanswered(self, node: Eui64, *, now: float) -> None:
        """It was asked, with all retries, and did not answer."""
        self._move(node, self._device(node), Trigger.UNANSWERED, now)

    def isolated(self, node: Eui64, *, now: float) -> None:
        """Every way to it was tried."""
        self._move(node, self._device(node), Trigger.ISOLATED, now)

    def handle_timer(self, *, now: float) -> None:
        """Whoever should have reported by now is late."""
        self._sort()
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
        self._sort()
        return next(iter(self._expiries.values()), None)

    def unkept(self) -> list[Eui64]:
        """Devices whose status is not what was kept of it last. Each is handed over once."""
        nodes = list(self._unkept)
        self._unkept.clear()
        for node in nodes:
            device = self._devices[node]
            device.kept_heard_at = NEVER if device.heard_at is None else device.heard_at
        return nodes

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
        return {state: self._counts[state] for state in EndpointState}

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
        self._put(device, after, now)
        self.moves[after] += 1
        self._unkept[node] = None

    def _put(self, device: _Device, state: EndpointState, since: float) -> None:
        self._counts[device.state] -= 1
        self._counts[state] += 1
        device.state, device.since = state, since

    def _expect(self, node: Eui64, due: float) -> None:
        self._expiries.pop(node, None)
        self._expiries[node] = due
        self._is_sorted = self._is_sorted and due >= self._last_due
        self._last_due = max(self._last_due, due)

    def _sort(self) -> None:
        if not self._is_sorted:
            self._expiries = dict(sorted(self._expiries.items(), key=operator.itemgetter(1)))
            self._is_sorted = True

    def _keep_heard(self, node: Eui64, device: _Device) -> None:
        if device.heard_at is not None and device.heard_at - device.kept_heard_at >= HEARD_KEPT_S:
            self._unkept[node] = None


def _kept_facts(status: DeviceStatus | _Device) -> tuple[object, ...]:
    return status.state, status.since, status.registered_at, status.registered_for


def _last_word(status: DeviceStatus | _Device) -> float:
    """When it became known how a device is; that it is late says nothing new."""
    heard_at = NEVER if status.heard_at is None else status.heard_at
    if status.state in (EndpointState.SILENT, EndpointState.UNREACHABLE):
        return max(heard_at, status.since)
    return heard_at


def _contradiction(status: DeviceStatus) -> str | None:
    """Why no device can have come to a status, or None."""
    state, since, heard_at = status.state, status.since, status.heard_at
    if status.registered_at is None or status.registered_for not in REGISTRATIONS:
        if (status.registered_at, status.registered_for) != (None, None):
            return "a registration without its time or its reason"
    elif heard_at is None or heard_at < status.registered_at:
        return "registered after it was heard last"
    if heard_at is None:
        if state not in (EndpointState.NEVER_HEARD, EndpointState.UNREACHABLE):
            return f"{state.value}, and never heard"
    elif state is EndpointState.NEVER_HEARD:
        return "never heard, and heard"
    elif state is EndpointState.REACHABLE and heard_at < since:
        return "reachable since after it was heard last"
    elif state is not EndpointState.REACHABLE and since < heard_at:
        return f"heard since it was {state.value}"
    return None


def _valid(excuses: Mapping[Excuse, float | None] | None, now: float) -> Iterator[Excuse]:
    for why, until in (excuses or {}).items():
        if until is None or now < until:
            yield why
