"""Communication status: every pair of state and trigger, registrations, excuses.

The contract under test: each state moves as its table says or blames the caller; whoever is not
heard within a reporting period and an hour is late; no trouble is due where there is an excuse.
"""

from __future__ import annotations

import itertools

import pytest

from amistack.errors import LocalProtocolError
from mesh.reports import Reason
from mesh.topology.status import (
    LATE_S,
    TRANSITIONS,
    Devices,
    EndpointState,
    Excuse,
    Trigger,
)
from tests.mesh.topology.worlds import eui

NODE, OTHER = eui(1), eui(2)


def devices_in(state: EndpointState) -> Devices:
    devices = Devices()
    devices.add(NODE, now=0.0)
    if state is not EndpointState.NEVER_HEARD:
        devices.heard(NODE, now=0.0)
    match state:
        case EndpointState.LATE:
            devices.handle_timer(now=LATE_S)
        case EndpointState.SILENT:
            devices.unanswered(NODE, now=1.0)
        case EndpointState.UNREACHABLE:
            devices.isolated(NODE, now=1.0)
    assert devices.status_of(NODE, now=LATE_S).state is state
    devices.begin_counting()
    return devices


every_pair = list(itertools.product(EndpointState, list(Trigger)))


@pytest.mark.parametrize(("state", "trigger"), every_pair, ids=lambda each: each.name)
def test_every_pair_moves_as_the_table_says(state: EndpointState, trigger: Trigger) -> None:
    devices = devices_in(state)
    now = 2 * LATE_S
    match trigger:
        case Trigger.HEARD:
            devices.heard(NODE, now=now)
        case Trigger.EXPIRED:
            devices.handle_timer(now=now)
        case Trigger.UNANSWERED:
            devices.unanswered(NODE, now=now)
        case Trigger.ISOLATED:
            devices.isolated(NODE, now=now)
    after = TRANSITIONS[state].get(trigger, state)
    assert devices.status_of(NODE, now=now).state is after
    assert devices.moves == ({} if after is state else {after: 1})
    assert {each: count for each, count in devices.counts().items() if count} == {after: 1}


@pytest.mark.parametrize("before", EndpointState, ids=lambda each: each.name)
def test_what_silence_makes_of_a_device_is_never_better_than_what_it_was(
    before: EndpointState,
) -> None:
    devices = devices_in(before)
    devices.unanswered(NODE, now=LATE_S)
    after = devices.status_of(NODE, now=LATE_S).state
    was_heard = before in (EndpointState.REACHABLE, EndpointState.LATE)
    assert after is (EndpointState.SILENT if was_heard else before)
    devices.isolated(NODE, now=LATE_S)
    assert devices.is_trouble_due(NODE, now=LATE_S)
    devices.unanswered(NODE, now=LATE_S)
    assert devices.is_trouble_due(NODE, now=LATE_S)


def test_every_state_leads_back_to_reachable() -> None:
    for moves in TRANSITIONS.values():
        assert moves[Trigger.HEARD] is EndpointState.REACHABLE


@pytest.mark.requirement("I2-X-01")
def test_whoever_misses_a_report_is_late_at_that_moment() -> None:
    devices = Devices()
    for node in (NODE, OTHER):
        devices.add(node, now=0.0)
    assert devices.next_timer() is None
    devices.heard(NODE, now=0.0)
    devices.heard(OTHER, now=10.0)
    devices.heard(NODE, now=20.0)
    assert devices.next_timer() == 10.0 + LATE_S
    devices.handle_timer(now=10.0 + LATE_S - 1)
    assert devices.counts()[EndpointState.LATE] == 0
    devices.handle_timer(now=10.0 + LATE_S)
    assert devices.status_of(OTHER, now=LATE_S).state is EndpointState.LATE
    assert devices.status_of(NODE, now=LATE_S).state is EndpointState.REACHABLE
    devices.handle_timer(now=1e9)
    assert devices.counts()[EndpointState.LATE] == 2
    assert devices.status_of(NODE, now=1e9).since == 20.0 + LATE_S
    assert devices.moves == {EndpointState.REACHABLE: 2, EndpointState.LATE: 2}
    assert devices.next_timer() is None


def test_reason_of_a_registration_is_kept_and_counted() -> None:
    devices = Devices()
    devices.add(NODE, now=0.0)
    devices.registered(NODE, Reason.COLD_BOOT, now=5.0)
    devices.registered(NODE, Reason.PARENT_CHANGED, now=6.0)
    devices.registered(NODE, Reason.PERIODIC, now=7.0)
    status = devices.status_of(NODE, now=8.0)
    assert (status.heard_at, status.registered_at) == (7.0, 6.0)
    assert status.registered_for is Reason.PARENT_CHANGED
    assert devices.registrations == {Reason.COLD_BOOT: 1, Reason.PARENT_CHANGED: 1}


@pytest.mark.requirement("I2-S2")
def test_no_trouble_is_due_in_an_outage_in_maintenance_or_with_an_open_order() -> None:
    devices = devices_in(EndpointState.REACHABLE)
    assert not devices.is_trouble_due(NODE, now=1.0)
    devices.unanswered(NODE, now=1.0)
    assert not devices.is_trouble_due(NODE, now=1.0)
    devices.isolated(NODE, now=2.0)
    assert devices.is_trouble_due(NODE, now=2.0)
    for why in Excuse:
        devices.excuse(NODE, why, until=100.0)
        assert not devices.is_trouble_due(NODE, now=99.0)
        assert devices.status_of(NODE, now=99.0).excuses == (why,)
        assert devices.is_trouble_due(NODE, now=100.0)
        devices.excuse(NODE, why)
        assert not devices.is_trouble_due(NODE, now=1e9)
        devices.no_excuse(NODE, why)
        assert devices.is_trouble_due(NODE, now=99.0)


def test_device_that_is_not_known_is_the_callers_mistake() -> None:
    devices = Devices()
    with pytest.raises(LocalProtocolError, match="no device"):
        devices.heard(NODE, now=0.0)
    devices.add(NODE, now=0.0)
    devices.heard(NODE, now=0.0)
    devices.remove(NODE)
    devices.handle_timer(now=1e9)
    devices.remove(NODE)
    assert devices.moves == {EndpointState.REACHABLE: 1}
    assert not any(devices.counts().values())
