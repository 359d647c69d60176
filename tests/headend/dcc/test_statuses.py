"""How a node is, as a row of the store, and back.

The contract under test: what a device can have come to is the same after a row of it was read, to
the second, with the age that it has, and in the same order; a row becomes the same row again; one
with a number that means nothing is refused; the numbers of the states are those of the migration.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import MeshError
from headend.dcc.statuses import Moment, restored, stored
from headend.domain.mesh import StoredStatus
from headend.store.sqlite.schema import migrations
from mesh.reports import Reason
from mesh.topology.status import REGISTRATIONS, Devices, DeviceStatus, EndpointState
from tests.mesh.topology.test_status_kept import NODE, of, placed, play, steps
from tests.support.headend import NOW

DAY = 86_400.0
moments = st.builds(
    Moment,
    st.floats(0.0, 1e7, allow_nan=False),
    st.floats(NOW - 400 * DAY, NOW + 400 * DAY, allow_nan=False),
)
times = st.none() | st.integers(0, NOW - 401 * 86_400)
rows = st.builds(
    StoredStatus,
    st.just(NODE),
    st.integers(-1, 6),
    st.integers(0, NOW - 401 * 86_400),
    times,
    times,
    st.none() | st.integers(-1, 8),
)


def times_of(status: DeviceStatus) -> list[float | None]:
    return [status.since, status.heard_at, status.registered_at]


@settings(max_examples=300)
@given(steps, moments, moments, st.floats(0.0, 0.999))
def test_what_a_device_has_come_to_is_read_back_in_another_life(
    history: list[tuple[str, float]], saved: Moment, begun: Moment, fraction: float
) -> None:
    devices, now = placed(now=saved.now), saved.now
    for step in history:
        now += step[1] + fraction
        play(devices, step, now)
    status = of(devices)
    saved = Moment(now, saved.wall)
    # The next life has its own time from anything, and is later by as much as the wall says.
    begun = Moment(begun.now, saved.wall + DAY)
    found = restored(stored(NODE, status, saved), begun)
    assert (found.state, found.registered_for) == (status.state, status.registered_for)
    ages = [None if at is None else saved.now - at + DAY for at in times_of(status)]
    for age, at in zip(ages, times_of(found), strict=True):
        if age is None or at is None:
            assert age is at
        else:
            assert abs(begun.now - at - age) < 0.51
    again = Devices()
    again.add(NODE, now=begun.now)
    again.restore(NODE, found)
    assert again.unkept() == []
    assert stored(NODE, of(again), begun) == stored(NODE, status, saved)


@settings(max_examples=300)
@given(rows, moments)
def test_row_is_refused_or_becomes_the_same_row_again(row: StoredStatus, begun: Moment) -> None:
    has_meaning = 0 <= row.state <= 4 and row.reason in (None, *map(int, Reason))
    try:
        found = restored(row, begun)
    except MeshError:
        assert not has_meaning
        return
    assert has_meaning
    assert stored(NODE, found, begun) == row


def test_order_is_kept_however_close_two_times_are() -> None:
    moment = Moment(1000.0, NOW + 0.5)
    instants = [990.0 + number / 512 for number in range(5120)]
    found = [moment.utc(at) for at in instants]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (NOW - 10, NOW)


def test_what_comes_back_from_the_store_loses_no_second_however_often() -> None:
    utc = NOW - 12_345
    for life in range(1_000):
        moment = Moment(0.1 + 1_234.567 * life, NOW + 3_600.3 * life)
        assert moment.utc(moment.at(utc)) == utc


def test_what_a_clock_that_was_ahead_has_noted_is_now() -> None:
    moment = Moment(1000.0, float(NOW))
    assert moment.at(NOW + 500) == 1000.0
    assert moment.at(NOW - 500) == 500.0


def test_numbers_of_states_and_reasons_are_those_that_stores_have() -> None:
    """A number that has been stored never means anything else."""
    script = dict(migrations())[5]
    states = [
        restored(StoredStatus(NODE, n, 1, None, None, None), Moment(0.0, 1.0)).state
        for n in range(5)
    ]
    assert "state: " + ", ".join(f"{n} {state.value}" for n, state in enumerate(states)) in script
    assert set(states) == set(EndpointState)
    reasons = sorted(REGISTRATIONS)
    assert [reason.value for reason in reasons] == [0, 1, 2, 3]
    named = ", ".join(f"{r.value} {r.name.lower().replace('_', ' ')}" for r in reasons)
    assert f"reason: {named}." in script


@pytest.mark.parametrize(
    "row",
    [
        StoredStatus(NODE, 5, NOW, NOW, None, None),
        StoredStatus(NODE, -1, NOW, NOW, None, None),
        StoredStatus(NODE, 1, NOW, NOW, NOW, 7),
    ],
)
def test_number_that_means_nothing_is_refused(row: StoredStatus) -> None:
    with pytest.raises(MeshError, match="unknown status"):
        restored(row, Moment(0.0, float(NOW)))
