"""The simulated service: what is coupled in a house is coupled here.

The contract under test: open, nothing flows and the load side is dead; what is measured is what
passes the meter, interval by interval, and adds up; each fault makes one of these untrue, and the
past stays as it was after a restart.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import LinkError, StoreUnusable
from meterd.metrology import ConstantSource, HouseholdProfile, Source
from meterd.service import NOTHING_MEASURED, Faults, SimulatedService
from meterd.service.history import EDGE_COUNT_MAX, History, Path
from meterd.service.source import ServiceSource
from meterd.storage import SERVICE, Storage
from tests.support.power import TornFiles

START = 20_700 * 86_400


def storage() -> Storage:
    return Storage.on(TornFiles(random.Random(0)))


def service_on(kept: Storage | None = None, source: Source | None = None) -> SimulatedService:
    return SimulatedService(
        kept or storage(),
        source or ConstantSource(watts=4_000, received_watts=0),
        utc=lambda now: now,
    )


def test_open_nothing_flows_and_the_load_side_is_dead() -> None:
    service = service_on()
    seen = service.measure(now=START)
    assert (seen.is_line_live, seen.is_load_live, seen.is_current) == (True, True, True)
    assert (seen.power_w, seen.current_ma, seen.is_contact_closed) == (4_000, 17_391, True)
    service.drive(is_closed=False, now=START)
    seen = service.measure(now=START + 1)
    assert (seen.is_line_live, seen.is_load_live, seen.is_current) == (True, False, False)
    assert (seen.power_w, seen.is_contact_closed) == (0, False)


def test_open_interval_is_zero_and_a_part_of_one_counts_for_its_part() -> None:
    service = service_on()
    service.drive(is_closed=False, now=START + 900 + 450)
    service.drive(is_closed=True, now=START + 2_700 + 225)
    assert service.source.energy(START, 5) == [(1_000,), (500,), (0,), (750,), (1_000,)]
    assert service.source.partial(START + 900, START + 1_350) == (500,)
    assert service.source.partial(START + 900, START + 1_700) == (500,)
    assert service.source.partial(START + 2_700, START + 2_925) == (0,)
    assert service.source.partial(START + 2_700, START + 3_600) == (750,)


def test_welded_contact_stays_closed_whatever_it_is_told() -> None:
    service = service_on()
    service.set_faults(Faults(is_welded=True), now=START)
    service.drive(is_closed=False, now=START)
    seen = service.measure(now=START)
    assert (seen.is_current, seen.is_load_live, seen.is_contact_closed) == (True, True, True)
    assert service.source.energy(START, 1) == [(1_000,)]


def test_source_of_the_customers_keeps_the_load_side_live() -> None:
    service = service_on()
    service.drive(is_closed=False, now=START)
    service.set_faults(Faults(back_feed_mv=228_000), now=START)
    seen = service.measure(now=START)
    assert (seen.load_mv, seen.is_current, seen.is_contact_closed) == (228_000, False, False)
    assert service.source.energy(START, 1) == [(0,)]


def test_wire_around_the_meter_is_measured_by_half_and_open_not_at_all() -> None:
    service = service_on()
    service.set_faults(Faults(is_bypassed=True), now=START)
    assert service.measure(now=START).power_w == 2_000
    service.drive(is_closed=False, now=START + 900)
    seen = service.measure(now=START + 900)
    assert (seen.is_load_live, seen.is_current, seen.power_w) == (True, False, 0)
    assert service.source.energy(START, 2) == [(500,), (0,)]
    service.set_faults(Faults(), now=START + 1_800)
    assert service.measure(now=START + 1_800).is_load_live is False


def test_relay_out_of_reach_and_blind_metrology_say_so() -> None:
    service = service_on()
    service.set_faults(Faults(is_unreachable=True, is_blind=True), now=START)
    with pytest.raises(LinkError):
        service.drive(is_closed=False, now=START)
    assert service.is_contact_closed
    assert service.measure(now=START) == NOTHING_MEASURED


def test_dead_line_is_dead_behind_a_closed_contact_too() -> None:
    service = service_on()
    service.line_mv = 0
    seen = service.measure(now=START)
    assert (seen.is_line_live, seen.is_load_live, seen.is_current) == (False, False, False)


def test_past_stays_as_it_was_after_a_restart() -> None:
    kept = storage()
    service = service_on(kept)
    service.drive(is_closed=False, now=START + 450)
    before = service.source.energy(START, 3)
    again = service_on(kept)
    assert again.source.energy(START, 3) == before == [(500,), (0,), (0,)]
    assert not again.is_contact_closed


def test_clock_that_goes_back_never_makes_an_edge_before_the_last() -> None:
    kept = storage()
    history = History(kept)
    history.note(Path.NONE, utc=START + 500)
    history.note(Path.SHARED, utc=START + 100)
    assert list(history.stretches(START + 200, START + 300)) == [
        (START + 200, START + 300, Path.METERED)
    ]
    assert list(history.stretches(START, START + 900)) == [
        (START, START + 500, Path.METERED),
        (START + 500, START + 900, Path.SHARED),
    ]


def test_edges_beyond_the_bound_are_dropped_and_the_rest_stays_true() -> None:
    kept = storage()
    history = History(kept)
    with kept.together():
        for edge in range(EDGE_COUNT_MAX + 3):
            history.note(Path.METERED if edge % 2 else Path.NONE, utc=START + edge)
    for one in (history, History(kept)):
        first, *_, last = one.stretches(START, START + EDGE_COUNT_MAX + 10)
        # Of what was dropped only how it ended is known: the edge at START + 2 opened it.
        assert first == (START, START + 3, Path.NONE)
        assert last[2] is Path.NONE
        assert len(one._times) == EDGE_COUNT_MAX
    assert len(kept.items("service")) == EDGE_COUNT_MAX


def test_row_that_no_meterd_writes_is_refused_in_a_line() -> None:
    kept = storage()
    kept.put((SERVICE, 0, [0, 7, 1]))
    with pytest.raises(StoreUnusable, match="none of ours"):
        History(kept)


edges = st.lists(st.tuples(st.floats(0, 4_000), st.sampled_from(Path)), max_size=8).map(
    lambda found: sorted(found, key=lambda one: one[0])
)


@settings(deadline=None, max_examples=60)
@given(edges=edges, moments=st.lists(st.floats(0, 3_600), min_size=1, max_size=6))
def test_parts_rise_to_their_interval_and_never_pass_what_the_source_has(
    edges: list[tuple[float, Path]], moments: list[float]
) -> None:
    history = History(storage())
    for at, path in edges:
        history.note(path, utc=START + at)
    inner = HouseholdProfile(7, interval_s=1_800, solar=True)
    source = ServiceSource(inner, history)
    for start in (START, START + 1_800):
        (whole,) = source.energy(start, 1)
        (most,) = inner.energy(start, 1)
        shown = [source.partial(start, start + moment) for moment in sorted(moments)]
        for flow, (passed, limit) in enumerate(zip(whole, most, strict=True)):
            assert passed is not None
            assert limit is not None
            column = [one[flow] for one in shown]
            assert column == sorted(column)
            assert 0 <= column[-1] <= passed <= limit
        assert source.partial(start, start + 1_800) == whole
        assert source.energy(START, 2)[(start - START) // 1_800] == whole
