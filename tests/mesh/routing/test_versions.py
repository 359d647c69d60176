"""When a node follows others into a new version of the DODAG: never all in one moment.

The contract under test: who hears of a new version waits for its own parents to be there, half of
`version_settle_time` at least and all of it at most, by chance; once its own parent is there, less.
"""

from __future__ import annotations

import random

import pytest

from mesh.routing.acts import Act
from mesh.routing.dodag import Dodag
from mesh.routing.messages import INFINITE_RANK
from tests.mesh.routing.medium import DODAG_ID
from tests.mesh.routing.one_node import FAR, NEAR, PROFILE, UNIT, C, P, Place, X, joined

OLD, NEW = 240, 241
WHOLE = PROFILE.repair.version_settle_time
STEP = 0.01


def moved_after(place: Place) -> float:
    """Seconds until the node is in the new version."""
    began = place.now
    while place.dodag.version == OLD:
        assert place.now < began + 2 * WHOLE
        place.wait(STEP)
    assert place.dodag.version == NEW
    return place.now - began


@pytest.mark.parametrize("seed", range(10))
def test_who_hears_of_a_new_version_waits_for_its_own_parents(seed: int) -> None:
    place = joined(seed)
    place.hear(X, NEAR, NEW)
    place.wait(WHOLE / 2 - STEP)
    assert place.dodag.version == OLD
    assert place.parent() == P
    place.wait(WHOLE / 2 + STEP)
    assert place.dodag.version == NEW
    assert place.parent() != P


def test_global_repair_is_spread_in_time() -> None:
    """So that what one move makes others say is heard before the next one moves."""
    times = []
    for seed in range(40):
        place = joined(seed)
        place.hear(X, NEAR, NEW)
        times.append(moved_after(place))
    assert min(times) < 0.6 * WHOLE
    assert max(times) > 0.9 * WHOLE
    assert 10 <= sum(time < 0.75 * WHOLE for time in times) <= 30


@pytest.mark.parametrize("seed", range(10))
def test_who_hears_its_own_parent_in_a_new_version_follows_soon(seed: int) -> None:
    place = joined(seed)
    place.hear(P, NEAR, NEW)
    assert place.dodag.version == OLD
    assert moved_after(place) <= PROFILE.repair.settle_time + STEP


def test_nobody_follows_one_without_a_way_into_a_version() -> None:
    place = joined()
    place.hear(X, INFINITE_RANK, NEW)
    place.wait(2 * WHOLE)
    assert place.dodag.version == OLD
    assert place.parent() == P


def test_the_first_version_is_that_of_one_who_has_a_way() -> None:
    place = Place()
    place.hear(P, NEAR, OLD)
    fresh = Place()
    fresh.dodag.place.dodag_id = place.dodag.dodag_id
    fresh.hear(X, INFINITE_RANK, NEW)
    assert fresh.dodag.version == -1
    fresh.join(P, NEAR)
    assert fresh.dodag.version == OLD


def test_in_a_new_version_no_rank_of_the_old_one_binds() -> None:
    place = joined()
    assert place.dodag.note_child(C, 12, FAR, now=place.now)
    place.hear(X, FAR, NEW)
    place.wait(WHOLE + STEP)
    assert place.dodag.version == NEW
    assert place.dodag.lowest == place.dodag.rank == INFINITE_RANK
    assert (Act.REGISTER, X) in place.asked()
    row = place.dodag.neighbours.get(X)
    assert row is not None
    assert place.dodag.place.promise(row) == FAR + 1


@pytest.mark.parametrize(("heard", "has"), [(NEW, NEW), (OLD - 1, OLD)])
def test_a_root_takes_the_version_that_another_collector_began(heard: int, has: int) -> None:
    place = Place()
    place.dodag = Dodag(PROFILE, random.Random(1), dodag_id=DODAG_ID, root_version=OLD)
    place.dodag.start(now=0.0)
    place.wait(600.0)
    place.hear(X, 2 * UNIT, heard)
    assert place.dodag.version == has
    place.asked()
    place.wait(1.0)
    assert (Act.DIO, None) in place.asked()


@pytest.mark.parametrize(("before", "after"), [(127, 0), (255, 0), (240, 250)])
def test_versions_go_round(before: int, after: int) -> None:
    place = Place()
    place.hear(P, NEAR, before)
    place.wait(2.0)
    place.answer(P, Act.REGISTER)
    assert place.parent() == P
    place.hear(P, NEAR, after)
    place.wait(WHOLE)
    assert place.dodag.version == after
    place.hear(X, NEAR, before)
    place.wait(WHOLE + STEP)
    assert place.dodag.version == after
