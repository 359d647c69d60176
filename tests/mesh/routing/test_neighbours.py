"""The rows of a node's neighbours: which are forgotten, and what each would cost as a parent.

The contract under test: a row goes once nothing was heard of it for longer than the age it may
have, neither sooner nor later, however often it was looked for in between; and what a parent would
cost is the path rank of each neighbour that is usable, and without end for every other.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.routing.messages import INFINITE_RANK
from mesh.routing.metric import ETX_CAP
from mesh.routing.neighbours import Neighbour, NeighbourTable
from mesh.routing.place import Place
from mesh.routing.profile import load_profile
from tests.mesh.routing.medium import DODAG_ID, eui

AGE_MAX = 100.0
PROFILE = load_profile("rfc8036")
UNIT = PROFILE.dodag.hop_rank_increase_min

heard = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 60)), max_size=60)


def test_a_silent_one_goes_when_it_is_too_old_and_not_before() -> None:
    table = NeighbourTable(8)
    for short, at in ((1, 0.0), (2, 50.0)):
        table.take_in(eui(short), short, 512, tuple, now=at)
    for now in (0.0, 60.0, AGE_MAX):
        assert table.forget_silent(AGE_MAX, (), now=now) == []
    assert [row.short for row in table.forget_silent(AGE_MAX, (), now=AGE_MAX + 0.001)] == [1]
    assert table.forget_silent(AGE_MAX, (), now=150.0) == []
    assert [row.short for row in table.forget_silent(AGE_MAX, (), now=150.001)] == [2]
    # Whoever comes then has an age of its own.
    table.take_in(eui(3), 3, 512, tuple, now=160.0)
    assert table.forget_silent(AGE_MAX, (), now=160.0 + AGE_MAX) == []
    assert [row.short for row in table.forget_silent(AGE_MAX, (), now=260.001)] == [3]


def test_one_that_must_stay_is_looked_for_again() -> None:
    table = NeighbourTable(8)
    kept = table.take_in(eui(1), 1, 512, tuple, now=0.0)
    child = table.take_in(eui(2), 2, 512, tuple, now=0.0)
    assert kept is not None
    assert child is not None
    child.child_until = 200.0
    assert table.forget_silent(AGE_MAX, (kept,), now=150.0) == []
    assert table.forget_silent(AGE_MAX, (), now=199.0) == [kept]
    assert table.forget_silent(AGE_MAX, (), now=200.0) == [child]


@pytest.mark.parametrize(
    ("newcomer", "gone"),
    [(700, "far"), (900, "far"), (901, None)],
    ids=["nearer", "as far", "further"],
)
def test_a_newcomer_takes_the_place_of_one_that_is_further_away(
    newcomer: int, gone: str | None
) -> None:
    table = NeighbourTable(3)
    rows = {}
    for short, (name, rank) in enumerate([("near", 512), ("far", 900), ("pinned", 60_000)], 1):
        row = table.take_in(eui(short), short, rank, tuple, now=0.0)
        assert row is not None
        row.rank = rank
        rows[name] = row

    def pinned() -> list[Neighbour]:
        return [rows["pinned"]]

    found = table.take_in(eui(9), 9, newcomer, pinned, now=1.0)
    assert (found is None) is (gone is None)
    assert {name for name, row in rows.items() if row not in table} == {gone} - {None}


def test_a_child_is_forgotten_for_nobody() -> None:
    table = NeighbourTable(1)
    child = table.take_in(eui(1), 1, 60_000, tuple, now=0.0)
    assert child is not None
    child.rank, child.child_until = 60_000, 200.0
    assert table.take_in(eui(2), 2, 256, tuple, now=199.0) is None
    assert table.take_in(eui(2), 2, 256, tuple, now=200.0) is not None
    assert table.get(eui(1)) is None


def test_an_address_is_its_last_users() -> None:
    table = NeighbourTable(8)
    first, second = (table.take_in(eui(short), 7, 512, tuple, now=0.0) for short in (1, 2))
    # The second row was made with an address that is taken, and then says it.
    assert first is not None
    assert second is not None
    assert table.by_short(7) is second
    table.forget(first)
    assert table.by_short(7) is second
    table.take_in(eui(2), 8, 512, tuple, now=1.0)
    assert table.by_short(8) is second
    assert table.by_short(7) is None


@given(heard)
def test_looking_often_forgets_the_same_as_looking_at_each(steps: list[tuple[int, int]]) -> None:
    table, ages = NeighbourTable(8), dict[int, float]()
    now = 0.0
    for short, pause in steps:
        now += pause
        gone = {row.short for row in table.forget_silent(AGE_MAX, (), now=now)}
        assert gone == {each for each, at in ages.items() if now - at > AGE_MAX}
        for each in gone:
            del ages[each]
        table.take_in(eui(short), short, 512, tuple, now=now)
        ages[short] = now


@pytest.mark.parametrize("over", [0, 1])
def test_a_parent_may_cost_as_much_as_the_bounds_say_and_no_more(over: int) -> None:
    """MaxRankIncrease over the lowest rank that there was, and MAX_PATH_COST."""
    place = Place(PROFILE, dodag_id=DODAG_ID, root_version=None, dtsn=0)
    place.version = 240
    row = place.neighbours.take_in(eui(1), 1, UNIT, tuple, now=0.0)
    assert row is not None
    row.version, row.metric.etx = 240, 1.0
    for lowest, bound in (
        (5 * UNIT, 5 * UNIT + PROFILE.dodag.rank_increase_max),
        (INFINITE_RANK, int(UNIT * PROFILE.parents.path_etx_max)),
    ):
        place.lowest, row.rank = lowest, bound - UNIT + over
        assert place.cost_through(row, 0.0) == (INFINITE_RANK if over else bound)


@settings(max_examples=300)
@given(
    rank=st.one_of(st.integers(UNIT, 20 * UNIT), st.just(INFINITE_RANK)),
    etx=st.floats(1.0, ETX_CAP),
    lowest=st.one_of(st.integers(UNIT, 20 * UNIT), st.just(INFINITE_RANK)),
    is_denied=st.booleans(),
    is_of_version=st.booleans(),
    etx_max=st.sampled_from((2.0, 4.0, ETX_CAP)),
)
def test_what_a_parent_would_cost_is_its_path_rank_or_without_end(
    *, rank: int, etx: float, lowest: int, is_denied: bool, is_of_version: bool, etx_max: float
) -> None:
    place = Place(PROFILE, dodag_id=DODAG_ID, root_version=None, dtsn=0)
    place.version, place.lowest = 240, lowest
    row = place.neighbours.take_in(eui(1), 1, rank, tuple, now=0.0)
    assert row is not None
    row.rank, row.version = rank, 240 if is_of_version else 239
    row.metric.etx, row.denied_until = etx, 10.0 if is_denied else 5.0
    # RFC 6719: the parent's rank and the link's, within MAX_PATH_COST; RFC 6550 8.2.2.4.
    cost = min(rank + max(UNIT, int(UNIT * etx + 0.5)), INFINITE_RANK)
    is_usable = (
        rank < INFINITE_RANK
        and is_of_version
        and not is_denied
        and etx <= etx_max
        and cost <= UNIT * PROFILE.parents.path_etx_max
        and (lowest == INFINITE_RANK or cost <= lowest + PROFILE.dodag.rank_increase_max)
    )
    assert place.is_usable(row, 5.0, etx_max) is is_usable
    assert place.cost_through(row, 5.0, etx_max) == (cost if is_usable else INFINITE_RANK)
    assert place.path_rank(row) == (INFINITE_RANK if rank == INFINITE_RANK else cost)
