"""What is kept of a device's status, and how it is taken up again.

The contract under test: a device that is restored goes on as if nothing had happened, whatever
happened before and comes after; of two words the newer one wins, whichever is told first; a status
that no device can have come to is refused and changes nothing; a device is named for keeping when
its state or its registration changes, when it is heard half a reporting period after it was kept
last, and at no other time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import MeshError
from mesh.reports import Reason
from mesh.topology.status import (
    HEARD_KEPT_S,
    LATE_S,
    REGISTRATIONS,
    Devices,
    DeviceStatus,
    EndpointState,
)
from tests.mesh.topology.worlds import eui

NODE = eui(1)
NEVER, REACHABLE, LATE, SILENT, UNREACHABLE = EndpointState
HOUR = 3600.0


def status(
    state: EndpointState,
    since: float,
    heard_at: float | None = None,
    registered_at: float | None = None,
    registered_for: Reason | None = None,
) -> DeviceStatus:
    return DeviceStatus(state, since, heard_at, registered_at, registered_for, ())


def placed(*, now: float = 0.0) -> Devices:
    devices = Devices()
    devices.add(NODE, now=now)
    return devices


def of(devices: Devices) -> DeviceStatus:
    return devices.status_of(NODE, now=1e9)


Step = tuple[str, float]
steps = st.lists(
    st.tuples(
        st.sampled_from(["heard", "unanswered", "isolated", "timer", *(r.name for r in Reason)]),
        st.sampled_from([0.0, 1.0, HOUR, HEARD_KEPT_S, LATE_S, 3 * LATE_S]),
    ),
    max_size=12,
)


def play(devices: Devices, step: Step, now: float) -> None:
    what = step[0]
    match what:
        case "heard":
            devices.heard(NODE, now=now)
        case "unanswered":
            devices.unanswered(NODE, now=now)
        case "isolated":
            devices.isolated(NODE, now=now)
        case "timer":
            devices.handle_timer(now=now)
        case _:
            devices.registered(NODE, Reason[what], now=now)


def lived(steps: list[Step]) -> tuple[Devices, float]:
    """A device after all of that, and the time."""
    devices, now = placed(), 0.0
    for step in steps:
        now += step[1]
        play(devices, step, now)
    return devices, now


@settings(max_examples=400)
@given(steps, steps)
def test_device_that_is_restored_goes_on_as_if_nothing_had_happened(
    before: list[Step], after: list[Step]
) -> None:
    devices, now = lived(before)
    again = placed(now=now)
    again.restore(NODE, of(devices))
    assert of(again) == of(devices)
    assert again.unkept() == []
    for step in after:
        now += step[1]
        for each in (devices, again):
            play(each, step, now)
        assert of(again) == of(devices)
    for each in (devices, again):
        each.handle_timer(now=now + 2 * LATE_S)
    assert of(again) == of(devices)


@settings(max_examples=400)
@given(steps, steps)
def test_what_is_known_by_now_and_newer_is_not_undone(
    before: list[Step], after: list[Step]
) -> None:
    devices, now = lived(before)
    kept = of(devices)
    # A start that has heard of the device before it reads what was kept.
    fresh = placed(now=now)
    for step in after:
        now += step[1] + 1.0
        play(fresh, step, now)
    known = of(fresh)
    fresh.restore(NODE, kept)
    merged = of(fresh)
    assert {state for state, count in fresh.counts().items() if count == 1} == {merged.state}
    assert sum(fresh.counts().values()) == 1
    if known.heard_at is None and known.state is NEVER:
        assert merged == kept
        return
    assert merged.state is known.state
    assert merged.heard_at == (kept.heard_at if known.heard_at is None else known.heard_at)
    if known.registered_at is None:
        assert merged.registered_at == kept.registered_at
        assert merged.registered_for is kept.registered_for
    else:
        assert (merged.registered_at, merged.registered_for) == (
            known.registered_at,
            known.registered_for,
        )
    # And what it has come to can be kept in its turn.
    placed().restore(NODE, merged)


@pytest.mark.parametrize("report_at", [100.0, 900.0], ids=["older report", "same moment"])
@pytest.mark.parametrize("state", [SILENT, UNREACHABLE])
def test_who_was_silent_after_its_report_is_silent(state: EndpointState, report_at: float) -> None:
    devices = placed(now=1000.0)
    devices.registered(NODE, Reason.POWER_RESTORED, now=report_at)
    devices.restore(NODE, status(state, 900.0, report_at))
    found = of(devices)
    assert (found.state, found.since, found.heard_at) == (state, 900.0, report_at)
    assert (found.registered_at, found.registered_for) == (report_at, Reason.POWER_RESTORED)


@pytest.mark.parametrize("state", [LATE, SILENT, UNREACHABLE])
def test_report_that_is_newer_than_the_silence_wins(state: EndpointState) -> None:
    devices = placed(now=100_000.0)
    devices.registered(NODE, Reason.PERIODIC, now=90_000.0)
    devices.restore(NODE, status(state, 80_000.0, 80_000 - LATE_S, 5.0, Reason.COLD_BOOT))
    found = of(devices)
    assert (found.state, found.since, found.heard_at) == (REACHABLE, 90_000.0, 90_000.0)
    # Why it registered is older than the report, and still the last reason.
    assert (found.registered_at, found.registered_for) == (5.0, Reason.COLD_BOOT)
    assert devices.unkept() == [NODE]


def test_who_was_reachable_all_along_is_so_since_then() -> None:
    devices = placed(now=100_000.0)
    devices.registered(NODE, Reason.PERIODIC, now=90_000.0)
    devices.restore(NODE, status(REACHABLE, 7.0, 85_000.0))
    assert (of(devices).since, of(devices).heard_at) == (7.0, 90_000.0)
    assert devices.unkept() == []
    # Not so who would have been late in between.
    devices = placed(now=100_000.0)
    devices.registered(NODE, Reason.PERIODIC, now=90_000.0)
    devices.restore(NODE, status(REACHABLE, 7.0, 90_000 - LATE_S - 1))
    assert of(devices).since == 90_000.0


@pytest.mark.parametrize(
    ("kept", "is_late"),
    [
        (status(REACHABLE, 7.0, 100.0 + HOUR), False),
        (status(SILENT, 100.0 + HOUR, 50.0), False),
        (status(UNREACHABLE, 100.0, 50.0), False),
        (status(REACHABLE, 7.0, 99.0), True),
        (status(SILENT, 99.0, 50.0), True),
        (status(LATE, 60.0 + LATE_S, 60.0), True),
    ],
    ids=lambda value: "" if isinstance(value, bool) else value.state.value,
)
def test_that_a_device_is_late_by_its_report_is_no_word_of_it(
    kept: DeviceStatus, *, is_late: bool
) -> None:
    """A start that takes its time: who is late meanwhile may have been heard since."""
    devices = placed(now=100.0)
    devices.registered(NODE, Reason.PERIODIC, now=100.0)
    devices.handle_timer(now=100.0 + LATE_S + 9)
    assert of(devices).state is LATE
    devices.restore(NODE, kept)
    expected = (LATE, 100.0 + LATE_S) if is_late else (kept.state, kept.since)
    assert (of(devices).state, of(devices).since) == expected


def test_devices_are_late_in_the_order_of_time_whatever_order_they_were_restored_in() -> None:
    devices = Devices()
    heard = {eui(number): float(at) for number, at in enumerate((500, 100, 900, 300), start=1)}
    for node, at in heard.items():
        devices.add(node, now=1000.0)
        devices.restore(node, status(REACHABLE, 0.0, at))
    assert devices.next_timer() == 100.0 + LATE_S
    devices.heard(eui(2), now=1000.0)
    assert devices.next_timer() == 300.0 + LATE_S
    devices.handle_timer(now=500.0 + LATE_S)
    states = [devices.status_of(node, now=0.0).state for node in heard]
    assert states == [LATE, REACHABLE, REACHABLE, LATE]
    assert devices.status_of(eui(1), now=0.0).since == 500.0 + LATE_S
    assert devices.next_timer() == 900.0 + LATE_S


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (status(NEVER, 5.0, 5.0), "never heard, and heard"),
        (status(REACHABLE, 5.0), "reachable, and never heard"),
        (status(LATE, 5.0), "late, and never heard"),
        (status(SILENT, 5.0), "silent, and never heard"),
        (status(REACHABLE, 6.0, 5.0), "reachable since after it was heard last"),
        (status(LATE, 5.0, 6.0), "heard since it was late"),
        (status(SILENT, 5.0, 6.0), "heard since it was silent"),
        (status(UNREACHABLE, 5.0, 6.0), "heard since it was unreachable"),
        (status(REACHABLE, 5.0, 6.0, 7.0, Reason.COLD_BOOT), "registered after it was heard last"),
        (status(UNREACHABLE, 5.0, None, 3.0, Reason.COLD_BOOT), "registered after it was heard"),
        (status(REACHABLE, 5.0, 6.0, 6.0), "a registration without its time or its reason"),
        (status(REACHABLE, 5.0, 6.0, None, Reason.COLD_BOOT), "a registration without its time"),
        (status(REACHABLE, 5.0, 6.0, 6.0, Reason.PERIODIC), "a registration without its time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_status_that_contradicts_itself_is_refused_and_changes_nothing(
    kept: DeviceStatus, said: str
) -> None:
    devices = placed(now=100.0)
    devices.registered(NODE, Reason.PERIODIC, now=50.0)
    before = of(devices)
    with pytest.raises(MeshError, match=said) as refusal:
        devices.restore(NODE, kept)
    assert refusal.value.reason == "impossible status"
    assert of(devices) == before
    assert devices.unkept() == [NODE]


def test_what_agrees_with_itself_is_taken() -> None:
    """The counterpart of the refusals: times that are equal are no contradiction."""
    for state, reason in itertools.product(set(EndpointState) - {NEVER}, REGISTRATIONS):
        devices = placed()
        devices.restore(NODE, status(state, 5.0, 5.0, 5.0, reason))
        assert of(devices).state is state
    devices = placed(now=9.0)
    devices.restore(NODE, status(NEVER, 5.0))
    assert of(devices).since == 5.0
    devices.restore(NODE, status(UNREACHABLE, 6.0))
    assert of(devices).state is UNREACHABLE


@pytest.mark.parametrize(
    ("change", "is_told"),
    [
        (lambda devices: devices.unanswered(NODE, now=20.0), True),
        (lambda devices: devices.isolated(NODE, now=20.0), True),
        (lambda devices: devices.handle_timer(now=10.0 + LATE_S), True),
        (lambda devices: devices.registered(NODE, Reason.PARENT_CHANGED, now=20.0), True),
        (lambda devices: devices.registered(NODE, Reason.PERIODIC, now=20.0), False),
        (lambda devices: devices.heard(NODE, now=9.0 + HEARD_KEPT_S), False),
        (lambda devices: devices.heard(NODE, now=10.0 + HEARD_KEPT_S), True),
        (lambda devices: devices.handle_timer(now=9.0 + LATE_S), False),
        (lambda devices: devices.add(NODE, now=20.0), False),
    ],
    ids=[
        "silent", "unreachable", "late", "registered", "reported", "heard soon",
        "heard after half a period", "not late yet", "known already",
    ],
)  # fmt: skip
def test_device_is_named_when_something_is_to_be_kept_and_once(
    change: Callable[[Devices], None], *, is_told: bool
) -> None:
    devices = placed()
    assert devices.unkept() == [NODE], "one that is new"
    devices.heard(NODE, now=10.0)
    assert devices.unkept() == [NODE]
    assert devices.unkept() == []
    change(devices)
    assert devices.unkept() == ([NODE] if is_told else [])


def test_who_is_heard_all_the_time_is_named_four_times_a_day() -> None:
    devices = placed()
    named = 0
    for minute in range(1, 24 * 60 + 1):
        devices.heard(NODE, now=60.0 * minute)
        named += len(devices.unkept())
    assert named == 4


def test_who_was_removed_is_not_named() -> None:
    devices = placed()
    devices.heard(NODE, now=1.0)
    devices.remove(NODE)
    assert devices.unkept() == []
