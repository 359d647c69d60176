"""When a parent is left for a better one, who is asked at all, and what is done without one.

The contract under test: one that is better has been so all through the time of hysteresis, itself
and without a break, and its link was measured; who was not heard because the air was full is not
blamed; whoever is left is asked again by one that has nobody; and a child that did not hear of a
rank without end hears of it once more, while one that is safe need not wait for it.
"""

from __future__ import annotations

import itertools

import pytest

from amistack.identifiers import Eui64
from mesh.routing.children import POISON_TRIES
from mesh.routing.dodag import UPKEEP_INTERVAL, Act, State
from mesh.routing.messages import INFINITE_RANK, Dio
from mesh.routing.metric import SAMPLES_MEASURED
from mesh.routing.parents import MOVE_WAIT
from tests.mesh.routing.medium import DODAG_ID
from tests.mesh.routing.one_node import FAR, NEAR, PROFILE, UNIT, C, P, Place, X, Y, joined

SWITCH_TIME = PROFILE.parents.switch_time
A_LITTLE = UNIT // 2
"""By how much a path may be better for long before another parent is worth it: more than 0.3, less
than 1.5 in ETX."""


@pytest.fixture
def place() -> Place:
    """A node whose parent is P, with links to X and Y that were measured and are as good."""
    made = joined()
    made.hear(P, NEAR + 2 * UNIT)
    for who in (X, Y):
        made.hear(who, FAR)
    for who in (P, X, Y):
        for _ in range(100):
            made.answer(who, Act.PROBE)
    made.asked()
    return made


def better(place: Place, who: Eui64, by: int) -> None:
    """That neighbour says a rank by which the way over it is so much better."""
    place.hear(who, NEAR + 2 * UNIT - by)


def registers(place: Place, seconds: float) -> list[Eui64]:
    """Whom it asks to be its parent meanwhile; all other frames arrive."""
    asked: list[Eui64] = []
    end = place.now + seconds
    while place.now < end:
        place.wait(10.0)
        for act, who in place.asked():
            if who is not None and act is Act.REGISTER and who != P:
                asked.append(who)
            elif who is not None:
                place.answer(who, act)
    return asked


def test_a_parent_is_left_for_one_that_was_a_little_better_long_enough(place: Place) -> None:
    better(place, X, A_LITTLE)
    assert registers(place, SWITCH_TIME - 10.0) == []
    assert X in registers(place, UPKEEP_INTERVAL + 20.0)


@pytest.mark.parametrize("by", [0, UNIT // 8], ids=["not better", "hardly better"])
def test_who_was_not_better_for_a_moment_has_all_that_time_before_it_again(
    place: Place, by: int
) -> None:
    better(place, X, A_LITTLE)
    assert registers(place, SWITCH_TIME - UPKEEP_INTERVAL) == []
    better(place, X, by)
    assert registers(place, 10.0) == []
    better(place, X, A_LITTLE)
    assert registers(place, SWITCH_TIME - 10.0) == []
    assert X in registers(place, UPKEEP_INTERVAL + 20.0)


def test_time_in_which_another_was_better_counts_for_nobody_else(place: Place) -> None:
    better(place, X, A_LITTLE)
    assert registers(place, SWITCH_TIME - UPKEEP_INTERVAL) == []
    better(place, Y, A_LITTLE + UNIT // 4)
    assert registers(place, SWITCH_TIME - 10.0) == []
    assert Y in registers(place, UPKEEP_INTERVAL + 20.0)


def test_a_link_is_measured_before_anything_is_left_for_it() -> None:
    place = joined()
    place.hear(P, NEAR + 4 * UNIT)
    place.hear(X, UNIT)
    for _ in range(SAMPLES_MEASURED - 1):
        place.answer(X, Act.PROBE)
        place.wait(UPKEEP_INTERVAL)
        assert (Act.REGISTER, X) not in place.asked()
    place.answer(X, Act.PROBE)
    assert (Act.REGISTER, X) in place.asked()


def test_who_was_not_reached_because_the_air_was_full_is_asked_again_soon() -> None:
    place = Place()
    place.hear(P, NEAR)
    place.wait(2.0)
    assert (Act.REGISTER, P) in place.asked()
    place.dodag.note_attempts(P, 0, Act.REGISTER, is_acknowledged=False, now=place.now)
    assert place.dodag.counters["neighbour denied"] == 0
    place.wait(2.0)
    assert (Act.REGISTER, P) in place.asked()


def test_who_has_nobody_asks_those_again_that_failed() -> None:
    place = Place()
    place.hear(P, NEAR)
    row = place.dodag.neighbours.get(P)
    assert row is not None
    row.denied_until = 600.0
    place.wait(0.05)
    place.asked()
    place.wait(5.0)
    assert (Act.REGISTER, P) in place.asked()


def test_a_child_that_did_not_acknowledge_hears_of_it_once_more(place: Place) -> None:
    assert place.dodag.note_child(C, 12, FAR, now=place.now)
    for who in (X, Y, P):
        place.hear(who, INFINITE_RANK)
    assert place.dodag.state is State.DETACHED
    lowest = place.dodag.lowest
    for _ in range(POISON_TRIES):
        assert (Act.POISON, C) in place.asked()
        assert place.dodag.lowest == lowest < INFINITE_RANK
        place.answer(C, Act.POISON, is_acknowledged=False)
    assert (Act.POISON, C) not in place.asked()
    assert place.dodag.counters["child given up"] == 1
    assert place.dodag.lowest == INFINITE_RANK


def test_one_that_is_safe_is_asked_before_the_children_know(place: Place) -> None:
    assert place.dodag.note_child(C, 12, FAR, now=place.now)
    lowest = place.dodag.lowest
    for who in (X, Y, P):
        place.hear(who, INFINITE_RANK)
    assert (Act.POISON, C) in place.asked()
    place.hear(X, lowest - 1)
    place.wait(0.01)
    assert (Act.REGISTER, X) in place.asked()


def test_who_hears_nobody_asks_ever_more_seldom_up_to_a_bound() -> None:
    place = Place()
    repair = PROFILE.repair
    asked = []
    while place.now < 7200.0:
        place.wait(max(place.dodag.deadline - place.now, 0.01))
        if (Act.DIS, None) in place.asked():
            asked.append(place.now)
    gaps = [after - before for before, after in itertools.pairwise(asked)]
    for number, gap in enumerate(gaps):
        interval = min(2.0 ** (number + 1) * repair.dis_interval_min, repair.dis_interval_max)
        assert 0.7 * interval <= gap <= 1.3 * interval
    assert len(gaps) > 7200.0 / (1.3 * repair.dis_interval_max)


def test_who_has_a_parent_asks_for_none(place: Place) -> None:
    asked = []
    for _ in range(60):
        place.wait(10.0)
        asked += place.asked()
    assert (Act.DIS, None) not in asked
    for who in (X, Y, P):
        place.hear(who, INFINITE_RANK)
    place.wait(PROFILE.repair.dis_interval_min)
    assert (Act.DIS, None) in place.asked()


@pytest.mark.parametrize("attempts", [1, 6])
def test_a_poor_link_is_better_than_none_and_worse_than_any_other(attempts: int) -> None:
    place = Place()
    for who, tries in ((P, 6), (X, attempts)):
        place.hear(who, FAR)
        for _ in range(100):
            place.dodag.note_attempts(who, tries, None, is_acknowledged=True, now=place.now)
    place.hear(X, FAR + 8 * UNIT)
    row = place.dodag.neighbours.get(P)
    assert row is not None
    assert row.metric.etx > PROFILE.parents.link_etx_max
    place.wait(2.0)
    is_poor = attempts > 1
    assert ((Act.REGISTER, P) in place.asked()) is is_poor


def test_ground_is_no_reason_to_move_at_once(place: Place) -> None:
    # What a neighbour said of its ground may be older than its loss.
    def say(who: Eui64, rank: int, *, is_grounded: bool) -> None:
        dio = Dio(0, 240, rank, 0, DODAG_ID, PROFILE.configuration, is_grounded=is_grounded)
        short = int.from_bytes(who[6:], "big")
        place.dodag.hear_dio(who, short, dio, now=place.now, is_for_us=False, rssi_dbm=None)

    say(P, NEAR + 2 * UNIT, is_grounded=False)
    say(X, UNIT, is_grounded=True)
    place.wait(MOVE_WAIT / 2 - 0.1)
    assert (Act.REGISTER, X) not in place.asked()
    place.wait(MOVE_WAIT)
    assert (Act.REGISTER, X) in place.asked()
