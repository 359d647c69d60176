"""What a node makes of its neighbours: who is worth knowing, who makes the parent set.

The contract under test: a stranger is asked for a proof only where it may be of use; the parent set
lies below the node, ordered by the cost through each, and holds nobody who may be a child.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.routing.acts import State
from mesh.routing.messages import INFINITE_RANK
from mesh.routing.metric import ETX_HOPED, SAMPLES_MEASURED
from mesh.routing.neighbours import Neighbour
from mesh.routing.place import ETX_WORTH_KNOWING, KNOWN_COUNT_MIN, Place
from mesh.routing.profile import load_profile
from tests.mesh.routing.medium import DODAG_ID, eui

PROFILE = load_profile("rfc8036")
UNIT = PROFILE.dodag.hop_rank_increase_min
GOOD, POOR = ETX_HOPED, ETX_WORTH_KNOWING + 0.1


def place_at(rank: int) -> Place:
    """A place with a parent one hop above."""
    place = Place(PROFILE, dodag_id=DODAG_ID, root_version=None, dtsn=0)
    place.version = 240
    place.preferred = put(place, 1, rank - UNIT)
    place.state = State.JOINED
    place.rank = place.lowest = rank
    place.parents = (place.preferred,)
    return place


def put(place: Place, short: int, rank: int, etx: float = 1.0) -> Neighbour:
    row = place.neighbours.take_in(eui(short), short, rank, tuple, now=0.0)
    assert row is not None
    row.rank, row.version = rank, 240
    row.metric.etx, row.metric.samples = etx, SAMPLES_MEASURED
    return row


def filled(place: Place) -> Place:
    for short in range(20, 20 + KNOWN_COUNT_MIN):
        put(place, short, 20 * UNIT)
    return place


def test_a_node_without_a_way_has_use_for_whoever_is_nearer_than_those_it_knows() -> None:
    place = Place(PROFILE, dodag_id=DODAG_ID, root_version=None, dtsn=0)
    place.version = 240
    assert place.has_use_for(30 * UNIT, GOOD, 0.0)
    known = put(place, 1, 5 * UNIT)
    assert not place.has_use_for(5 * UNIT + 1, GOOD, 0.0)
    assert place.has_use_for(5 * UNIT, GOOD, 0.0)
    # One that cannot be reached is nobody to compare with.
    known.denied_until = 10.0
    assert place.has_use_for(30 * UNIT, GOOD, 0.0)


def test_a_joined_node_gets_to_know_some_whatever_their_rank_then_those_of_use() -> None:
    place = place_at(6 * UNIT)
    assert place.has_use_for(9 * UNIT, GOOD, 0.0)
    filled(place)
    assert not place.has_use_for(9 * UNIT, GOOD, 0.0)
    assert place.has_use_for(6 * UNIT - 1, GOOD, 0.0)  # The set is not full.
    place.parents = (place.parents[0], put(place, 2, 5 * UNIT), put(place, 3, 5 * UNIT))
    assert not place.has_use_for(6 * UNIT - 1, GOOD, 0.0)
    assert place.has_use_for(4 * UNIT, GOOD, 0.0)  # It would be a better parent.


def test_a_joined_node_gets_to_know_over_a_poor_link_only_who_would_be_its_best_parent() -> None:
    place = place_at(6 * UNIT)
    assert place.has_use_for(9 * UNIT, ETX_WORTH_KNOWING, 0.0)  # It knows few.
    assert not place.has_use_for(9 * UNIT, POOR, 0.0)
    assert place.has_use_for(6 * UNIT - 1, ETX_WORTH_KNOWING, 0.0)
    assert not place.has_use_for(6 * UNIT - 1, POOR, 0.0)


@pytest.mark.parametrize(("etx", "worth"), [(2.0, 0.3), (3.7, 0.3), (10.0, 0.8), (30.0, 2.4)])
def test_what_is_worth_another_parent_grows_with_the_way(etx: float, worth: float) -> None:
    place = place_at(int(etx * UNIT))
    filled(place)
    assert place.worth == pytest.approx(worth * UNIT, abs=1)
    limit = int((etx - POOR) * UNIT - place.worth)
    assert place.has_use_for(limit - 1, POOR, 0.0)
    assert not place.has_use_for(limit + 1, POOR, 0.0)


def test_the_lowest_rank_is_what_we_have_while_nobody_is_our_child() -> None:
    place = place_at(6 * UNIT)
    place.rank = 8 * UNIT
    child = put(place, 2, 10 * UNIT)
    child.child_until = 5.0
    place.relax(4.9)
    assert place.lowest == 6 * UNIT
    place.relax(5.0)
    assert place.lowest == 8 * UNIT
    # Who sends up through us by the way is no child; and a rank without end is none to keep to.
    child.below_until = 20.0
    place.rank = 9 * UNIT
    place.relax(6.0)
    assert place.lowest == 9 * UNIT
    place.rank = INFINITE_RANK
    place.relax(6.0)
    assert place.lowest == 9 * UNIT


def test_a_root_has_use_for_nobody() -> None:
    place = Place(PROFILE, dodag_id=DODAG_ID, root_version=240, dtsn=0)
    assert not place.has_use_for(UNIT, GOOD, 0.0)


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.floats(1.0, 8.0), st.booleans(), st.booleans()),
        max_size=30,
    )
)
def test_the_parent_set_lies_below_and_is_in_order(
    others: list[tuple[int, float, bool, bool]],
) -> None:
    place = place_at(6 * UNIT)
    for number, (hops, etx, is_child, is_denied) in enumerate(others):
        row = put(place, 100 + number, hops * UNIT, etx)
        row.below_until = 10.0 if is_child else 0.0
        row.denied_until = 10.0 if is_denied else 0.0
    found = place.parent_set(5.0)
    assert found[0] is place.preferred
    costs = [place.path_rank(row) for row in found[1:]]
    assert costs == sorted(costs)
    assert all(row.rank < place.rank for row in found)
    assert all(row.below_until <= 5.0 and row.denied_until <= 5.0 for row in found[1:])
    fit = sum(
        hops < 6 and not is_child and not is_denied for hops, etx, is_child, is_denied in others
    )
    assert len(found) <= min(1 + fit, PROFILE.parents.count_max)


@pytest.mark.parametrize(("further", "is_parent"), [(-1, True), (0, False), (1, False)])
def test_who_is_as_far_away_is_no_parent(further: int, *, is_parent: bool) -> None:
    place = place_at(6 * UNIT)
    other = put(place, 2, place.rank + further)
    assert (other in place.parent_set(0.0)) is is_parent


def test_who_is_in_the_set_stays_there_unless_another_is_clearly_better() -> None:
    place = place_at(6 * UNIT)
    second, third, other = (put(place, short, 5 * UNIT - 100) for short in (2, 3, 4))
    other.rank += 1
    place.parents = place.parent_set(0.0)
    assert place.parents[1:] == (second, third)
    other.rank = third.rank - UNIT // 2 + 1
    assert other not in place.parent_set(0.0)
    other.rank -= 2
    assert other in place.parent_set(0.0)


@pytest.mark.parametrize("has_ground", [True, False])
def test_whoever_has_ground_has_no_parent_without_it(*, has_ground: bool) -> None:
    place = place_at(6 * UNIT)
    assert place.preferred is not None
    place.preferred.is_grounded = has_ground
    one, other = put(place, 2, 5 * UNIT), put(place, 3, 5 * UNIT)
    one.is_grounded = False
    assert other in place.parent_set(0.0)
    assert (one in place.parent_set(0.0)) is not has_ground


def test_a_parent_with_ground_comes_before_a_nearer_one_without() -> None:
    place = place_at(6 * UNIT)
    assert place.preferred is not None
    near, far = put(place, 2, 2 * UNIT), put(place, 3, 4 * UNIT)
    near.is_grounded = place.preferred.is_grounded = False
    assert place.best(0.0, etx_max=4.0) == (far, 5 * UNIT)
    far.is_grounded = False
    assert place.best(0.0, etx_max=4.0) == (near, 3 * UNIT)


def test_a_node_with_few_ways_tries_those_that_it_knows() -> None:
    place = place_at(6 * UNIT)
    assert place.spare_to_try(0.0) is None
    far, near, gone = put(place, 2, 9 * UNIT), put(place, 3, 8 * UNIT), put(place, 4, 7 * UNIT)
    for row in (far, near, gone):
        row.metric.samples = 0
    gone.denied_until = 5.0
    assert place.spare_to_try(4.9) is near
    assert place.spare_to_try(5.0) is gone
    near.metric.samples = 1
    assert place.spare_to_try(0.0) is far
    far.metric.samples = 1
    assert place.spare_to_try(5.0) is None  # With the parent that makes three.
    place.parents = (place.parents[0], far, near)
    assert place.spare_to_try(5.0) is None
