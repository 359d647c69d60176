"""When a node follows others into a new version of the DODAG: never all in one moment.

The contract under test: who hears of a new version waits for its own parents to be there, half of
`version_settle_time` at least and all of it at most, by chance; once its own parent is there, less.
"""

from __future__ import annotations

import random

import pytest

from mesh.routing.acts import Act
from mesh.routing.dodag import Dodag, State
from mesh.routing.messages import INFINITE_RANK, is_newer
from mesh.routing.versions import ALONE_TIME
from tests.mesh.routing.medium import DODAG_ID, World
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


# RFC 6550 section 7.2: counters of which neither is newer

LONG_AGO, NOW = 5, 60


def test_versions_of_long_ago_cannot_be_compared() -> None:
    assert not is_newer(LONG_AGO, NOW)
    assert not is_newer(NOW, LONG_AGO)


def test_who_has_a_way_stays_where_neither_version_is_newer() -> None:
    place = Place()
    place.hear(P, NEAR, NOW)
    place.wait(2.0)
    place.answer(P, Act.REGISTER)
    place.hear(X, NEAR - 1, LONG_AGO)
    place.wait(10 * WHOLE)
    assert (place.parent(), place.dodag.version) == (P, NOW)


def test_who_has_none_goes_where_there_is_one_but_not_before_its_children_know() -> None:
    place = Place()
    place.hear(P, NEAR, NOW)
    place.wait(2.0)
    place.answer(P, Act.REGISTER)
    place.dodag.note_child(C, 12, FAR, now=place.now)
    place.hear(P, NEAR, LONG_AGO)
    assert place.dodag.state is State.DETACHED
    place.hear(P, NEAR, LONG_AGO)
    assert place.dodag.version == NOW
    place.answer(C, Act.POISON)
    # One without a way itself is no reason.
    place.hear(X, INFINITE_RANK, LONG_AGO)
    assert place.dodag.version == NOW
    place.hear(P, NEAR, LONG_AGO)
    assert place.dodag.version == LONG_AGO
    place.asked()
    place.wait(2.0)
    assert (Act.REGISTER, P) in place.asked()


@pytest.mark.parametrize("version", [LONG_AGO, 100, NOW - 1, NOW + 1, 240])
def test_a_root_that_comes_back_with_another_version_has_its_area_again(version: int) -> None:
    """A disk of long ago, or none."""
    world = World(1).grid(3, 3, 0.95, 0.7)
    world.start(1, version=NOW)
    world.start(*range(2, 10))
    world.run(120.0, until=lambda: not world.orphans() and not world.unrouted())
    world.kill(1)
    world.run(5.0)
    world.start(1, version=version)
    world.run(300.0, until=lambda: not world.orphans() and not world.unrouted())
    world.run(60.0)
    assert not world.orphans()
    assert not world.unrouted()
    assert len({node.dodag.version for node in world.nodes.values()}) == 1
    assert not world.loops


@pytest.mark.parametrize("bumps", [18, 40])
def test_an_island_that_was_away_for_many_versions_comes_back(bumps: int) -> None:
    """After 18 neither is newer; after 40 the island's counts as newer than the area's."""
    world = World(2).line(5)
    world.start()
    world.run(120.0, until=lambda: not world.orphans())
    world.cut(3, 4)
    world.run(60.0)
    for _ in range(bumps):
        world.nodes[1].bump_version(now=world.now)
        world.touch(1)
        world.run(40.0)
    assert world.orphans() == [4, 5]
    assert not is_newer(world.nodes[1].dodag.version, world.nodes[5].dodag.version)
    world.link(3, 4)
    world.run(ALONE_TIME + 120.0, until=lambda: not world.orphans())
    assert not world.orphans()
    assert not world.loops


def test_who_has_no_way_waits_before_it_goes_back_to_an_older_version() -> None:
    place = joined()
    place.hear(P, NEAR, NEW)
    place.wait(WHOLE + STEP)
    assert place.dodag.version == NEW
    place.answer(P, Act.REGISTER, is_acknowledged=False)
    place.hear(P, INFINITE_RANK, NEW)
    place.wait(60.0)
    assert place.dodag.state is State.DETACHED
    place.hear(X, FAR, OLD)
    assert place.dodag.version == NEW
    place.wait(ALONE_TIME)
    place.hear(X, INFINITE_RANK, OLD)
    assert place.dodag.version == NEW
    place.hear(X, FAR, OLD)
    assert place.dodag.version == OLD


def test_a_root_that_nobody_has_as_its_parent_yet_takes_the_version_of_its_area() -> None:
    world = World(3, roots=(1, 5)).line(5)
    world.start(1, version=NOW)
    world.start(2, 3, 4)
    world.run(120.0, until=lambda: not world.orphans())
    world.start(5, version=LONG_AGO)
    world.run(900.0)
    assert {node.dodag.version for node in world.nodes.values()} == {NOW}
    assert world.nodes[4].preferred_parent == world.nodes[5].own, "the way is shorter"


def test_roots_that_have_children_keep_their_versions() -> None:
    world = World(3, roots=(1, 5)).line(5)
    world.cut(3, 4)
    world.start(1, version=NOW)
    world.start(5, version=LONG_AGO)
    world.start(2, 3, 4)
    world.run(120.0, until=lambda: not world.orphans())
    before = {short: node.dodag.version for short, node in world.nodes.items()}
    world.link(1, 4)
    world.link(2, 5)
    world.run(600.0)
    assert not world.orphans()
    assert {short: node.dodag.version for short, node in world.nodes.items()} == before
