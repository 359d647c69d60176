"""One node's place in the tree, step by step: who may be a parent, and when.

The contract under test: a new parent has said a rank below the lowest of ours, or goes below it
when we ask, unless nobody has us as a parent; a parent is taken when it acknowledged; who detaches
tells each child first.
"""

from __future__ import annotations

import itertools
import random

import pytest

from amistack.identifiers import Eui64
from mesh.routing.dodag import CHILD_TIME, QUIET_INTERVAL, UPKEEP_INTERVAL, Act, Dodag, State
from mesh.routing.messages import INFINITE_RANK, Dio, Dis, Solicited, sequence_after
from mesh.routing.metric import FRAMES_CERTAIN, SAMPLES_MEASURED
from mesh.routing.outbox import ACT_LIFE
from mesh.routing.parents import DEAF_PATIENCE, DENY_FIRST, PARENT_PATIENCE, Parenting
from tests.mesh.routing.medium import DODAG_ID, eui
from tests.mesh.routing.one_node import FAR, NEAR, PROFILE, UNIT, C, P, Place, X, Y, joined


@pytest.fixture
def place() -> Place:
    return joined()


def test_a_parent_is_one_only_when_it_acknowledged() -> None:
    place = Place()
    place.hear(P, NEAR)
    place.wait(2.0)
    place.answer(P, Act.REGISTER, is_acknowledged=False)
    assert place.dodag.preferred is None
    assert place.dodag.state is State.DETACHED


def test_rank_is_the_etx_of_the_path(place: Place) -> None:
    assert NEAR + UNIT <= place.dodag.rank <= NEAR + 2 * UNIT
    assert place.dodag.lowest == place.dodag.rank


def test_a_neighbour_of_higher_rank_is_no_parent_while_we_have_a_child_unless_it_says_so(
    place: Place,
) -> None:
    lowest = place.dodag.lowest
    assert place.dodag.note_child(C, 12, FAR, now=place.now)
    place.hear(X, lowest)
    place.hear(P, INFINITE_RANK)
    asked = place.asked()
    assert place.dodag.preferred is None
    # Those below us need not hear of it while there is somebody to ask, by our lowest.
    assert place.dodag.state is State.JOINED
    assert asked == [(Act.REGISTER, X)]
    row = place.dodag.neighbours.get(X)
    assert row is not None
    assert place.dodag.place.promise(row) == lowest
    place.dodag.note_refusal(X, 1, now=place.now)
    asked = place.asked()
    assert place.dodag.rank == INFINITE_RANK
    assert (Act.POISON, C) in asked
    assert (Act.REGISTER, X) not in asked
    place.wait(2.0)
    assert (Act.REGISTER, X) not in place.asked()
    # The child says that it knows: now anybody may be the parent, but the child.
    place.hear(C, INFINITE_RANK)
    place.answer(C, Act.POISON)
    place.hear(X, FAR)
    place.wait(2.0)
    assert (Act.REGISTER, X) in place.asked()


def test_a_neighbour_of_lower_rank_takes_over_at_once(place: Place) -> None:
    assert place.dodag.note_child(C, 12, FAR, now=place.now)
    place.hear(X, place.dodag.lowest - 1)
    place.asked()
    for _ in range(PROFILE.parents.failures_max):
        place.answer(P, Act.PROBE, is_acknowledged=False)
    asked = place.asked()
    assert (Act.REGISTER, X) in asked
    assert (Act.POISON, C) not in asked


def test_a_child_that_comes_while_we_look_for_a_parent_is_told_first(place: Place) -> None:
    place.hear(P, INFINITE_RANK)
    place.wait(2.0)
    assert place.dodag.state is State.DETACHED
    place.hear(X, FAR)
    place.wait(2.0)
    assert (Act.REGISTER, X) in place.asked()
    place.dodag.note_child(C, 12, FAR, now=place.now)
    assert (Act.POISON, C) in place.asked()
    place.answer(X, Act.REGISTER)
    assert place.dodag.preferred is None
    place.answer(C, Act.POISON)
    place.wait(2.0)
    assert (Act.REGISTER, X) in place.asked()


def test_a_parent_that_loses_its_way_is_left_at_once(place: Place) -> None:
    place.hear(P, INFINITE_RANK)
    assert place.dodag.preferred is None
    assert place.dodag.state is State.DETACHED


def test_a_parent_that_asks_for_a_way_is_left_at_once(place: Place) -> None:
    place.dodag.hear_dis(P, Dis(), now=place.now, is_for_us=False)
    assert place.dodag.preferred is None


def test_our_own_parent_cannot_come_through_us(place: Place) -> None:
    assert not place.dodag.note_child(P, 10, FAR, now=place.now)


def test_a_parent_whose_rank_rises_is_kept_up_to_the_bound(place: Place) -> None:
    place.hear(P, NEAR + 2 * UNIT)
    assert place.dodag.preferred is not None
    assert place.dodag.rank > NEAR + 2 * UNIT
    place.hear(P, NEAR + 20 * UNIT)
    assert place.dodag.preferred is None


def test_a_slightly_better_parent_needs_time_a_much_better_one_none(place: Place) -> None:
    for who in (P, X):
        for _ in range(30):
            place.answer(who, Act.PROBE)
    place.hear(P, NEAR + 3 * UNIT)
    place.asked()
    place.hear(X, NEAR + 2 * UNIT - 1)
    assert (Act.REGISTER, X) not in place.asked()
    # One that was only heard is tried before anything is left for it.
    place.hear(Y, UNIT)
    assert (Act.REGISTER, Y) not in place.asked()
    for _ in range(SAMPLES_MEASURED):
        place.answer(Y, Act.PROBE)
    assert (Act.REGISTER, Y) in place.asked()


def test_an_older_version_is_nobodys_parent_and_a_newer_one_takes_us_along(place: Place) -> None:
    place.hear(X, UNIT, version=239)
    assert (Act.REGISTER, X) not in place.asked()
    place.hear(P, NEAR, version=241)
    place.wait(5.0)
    assert (Act.REGISTER, P) in place.asked()
    place.answer(P, Act.REGISTER)
    assert place.dodag.version == 241
    assert place.dodag.preferred is not None


def test_the_last_parent_is_given_up_after_some_time_and_never_sooner(place: Place) -> None:
    place.fail(P, PARENT_PATIENCE - 1.0)
    assert place.parent() == P
    place.wait(2.0)
    place.answer(P, Act.PROBE, is_acknowledged=False)
    assert place.parent() is None


def test_a_parent_that_is_heard_is_given_up_later(place: Place) -> None:
    for _ in range(9):
        place.answer(P, Act.PROBE, is_acknowledged=False)
        place.wait((DEAF_PATIENCE - 2.0) / 9)
        place.hear(P, NEAR)
    assert place.parent() == P
    place.wait(3.0)
    place.answer(P, Act.PROBE, is_acknowledged=False)
    assert place.parent() is None


def test_a_busy_channel_kills_no_parent_and_denies_nobody(place: Place) -> None:
    place.hear(X, NEAR)
    place.asked()
    for _ in range(100):
        place.dodag.note_attempts(P, 0, Act.PROBE, is_acknowledged=False, now=place.now)
        place.wait(1.0)
    assert place.parent() == P
    assert place.dodag.counters["neighbour denied"] == 0
    assert all(row.metric.failures_in_a_row == 0 for row in place.dodag.neighbours)


def test_a_parent_that_fails_while_another_acknowledges_is_left_for_it(place: Place) -> None:
    place.hear(X, NEAR)
    place.asked()
    place.answer(P, Act.PROBE, is_acknowledged=False)
    assert (Act.REGISTER, X) not in place.asked()
    place.answer(P, Act.PROBE, is_acknowledged=False)
    assert (Act.REGISTER, X) in place.asked()
    # Nothing is known of the channel yet: P stays until X answers.
    assert place.parent() == P
    place.answer(X, Act.REGISTER)
    assert place.parent() == X


def test_when_nobody_acknowledges_the_parent_stays_and_is_tried_again(place: Place) -> None:
    place.hear(X, NEAR)
    for _ in range(2):
        place.answer(P, Act.PROBE, is_acknowledged=False)
    place.answer(X, Act.REGISTER, is_acknowledged=False)
    place.asked()
    assert place.parent() == P
    place.wait(6.0)
    assert (Act.PROBE, P) in place.asked()
    place.answer(P, Act.PROBE)
    place.wait(30.0)
    assert place.parent() == P
    assert place.dodag.counters["detached"] == 1  # When it started.


def test_each_parent_is_tried_when_it_is_time_and_one_that_failed_soon_again() -> None:
    place = joined()
    place.hear(X, NEAR - 1)
    place.wait(2 * UPKEEP_INTERVAL)
    place.answer(X, Act.PROBE)
    assert X in {row.eui for row in place.dodag.parents}
    for _ in range(FRAMES_CERTAIN):
        # Of which enough is known: else it would be tried more often.
        place.answer(P, Act.PROBE)
    tried: dict[Eui64, list[float]] = {P: [place.now], X: [place.now]}
    place.answer(P, Act.PROBE)
    place.asked()
    while place.now < 4 * 3600.0:
        place.now = max(place.now, place.dodag.deadline)
        place.dodag.handle_timer(now=place.now)
        place.hear(P, NEAR)
        place.hear(X, NEAR - 1)
        for act, who in place.asked():
            if act is Act.PROBE and who in tried:
                tried[who].append(place.now)
                place.answer(who, act, is_acknowledged=who is P or len(tried[who]) != 3)
    interval = PROFILE.parents.probe_interval
    gaps = {who: [b - a for a, b in itertools.pairwise(times)] for who, times in tried.items()}
    assert all(interval <= gap <= interval + 2.0 for gap in gaps[P])
    assert gaps[X].pop(2) <= UPKEEP_INTERVAL + 2.0
    assert all(interval <= gap <= interval + 2.0 for gap in gaps[X])


HALF_AN_HOUR = 1800.0


def asked_at(place: Place, who: Eui64, seconds: float) -> list[float]:
    """When a try of that link was asked for, in so many seconds in which the parent answers."""
    found: list[float] = []
    end = place.now + seconds
    while place.now < end:
        place.wait(min(max(place.dodag.deadline - place.now, 0.01), end - place.now))
        for act, other in place.asked():
            if act is Act.PROBE and other == who:
                found.append(place.now)
            elif other == P:
                place.answer(P, act)
    return found


@pytest.fixture
def beside() -> Place:
    """A node whose set is P and X, both tried now, by a look of a node at rest."""
    place = joined()
    place.answer(P, Act.PROBE)
    place.hear(X, NEAR)
    place.answer(X, Act.PROBE)
    place.wait(2 * QUIET_INTERVAL)
    place.asked()
    for who in (P, X):
        for _ in range(4):
            place.answer(who, None)
    assert {row.eui for row in place.dodag.parents} == {P, X}
    return place


@pytest.mark.parametrize("busy", [0.0, 20.0, 50.0])
def test_a_link_that_is_due_while_the_channel_is_busy_is_tried_as_soon_as_it_is_free(
    beside: Place, busy: float
) -> None:
    tried = beside.now
    due = tried + PROFILE.parents.probe_interval
    (asked,) = asked_at(beside, X, due + 1.5 - beside.now)
    while asked + ACT_LIFE < due + busy:
        # It found no free moment, and was given up without an attempt.
        beside.wait(asked + ACT_LIFE - beside.now)
        beside.dodag.note_attempts(X, 0, Act.PROBE, is_acknowledged=False, now=beside.now)
        (asked,) = asked_at(beside, X, 5.0)
    assert max(asked, due + busy) - tried <= HALF_AN_HOUR


def test_a_link_is_tried_when_it_is_due_though_the_node_looks_for_something_else(
    beside: Place,
) -> None:
    beside.wait(17.0)
    beside.answer(X, None)
    due = beside.now + PROFILE.parents.probe_interval
    # One more is tried so that three are known, and never finds a free moment: a look each minute.
    beside.hear(Y, FAR)
    times = asked_at(beside, X, due + UPKEEP_INTERVAL - beside.now)
    assert times
    assert due <= times[0] <= due + 1.0


def test_a_link_that_left_the_set_and_came_back_is_tried_when_it_is_due(beside: Place) -> None:
    due = beside.now + PROFILE.parents.probe_interval
    asked_at(beside, X, QUIET_INTERVAL)
    beside.answer(P, None)
    beside.hear(X, FAR)
    assert [row.eui for row in beside.dodag.parents] == [P]
    while beside.now < due - QUIET_INTERVAL:
        asked_at(beside, X, max(beside.dodag.deadline - beside.now, 1.0))
    assert beside.now < due
    # A look without it was just now, and the next one is far.
    beside.hear(X, NEAR)
    assert {row.eui for row in beside.dodag.parents} == {P, X}
    times = asked_at(beside, X, QUIET_INTERVAL)
    assert times
    assert due <= times[0] <= due + 1.0


def test_a_rank_that_rises_over_a_neighbour_makes_it_one_of_the_set(place: Place) -> None:
    # Each is known by one good frame, so that nobody but the preferred parent has to be tried.
    place.answer(P, Act.PROBE)
    place.hear(X, place.dodag.rank)
    place.answer(X, Act.PROBE)
    assert [row.eui for row in place.dodag.parents] == [P]
    while place.dodag.rank <= NEAR + 2 * UNIT:
        place.dodag.note_attempts(P, 4, None, is_acknowledged=True, now=place.now)
    assert [row.eui for row in place.dodag.parents] == [P, X]
    for _ in range(20):
        place.dodag.note_attempts(P, 1, None, is_acknowledged=True, now=place.now)
    assert [row.eui for row in place.dodag.parents] == [P]


@pytest.mark.parametrize("deeper", [-1, 0])
def test_what_a_neighbour_below_says_is_no_reason_to_look_at_all_others(
    place: Place, monkeypatch: pytest.MonkeyPatch, deeper: int
) -> None:
    looks: list[float] = []
    monkeypatch.setattr(Parenting, "choose", lambda self, now: looks.append(now))
    place.hear(X, place.dodag.rank + deeper)
    assert len(looks) == (deeper < 0)


def test_who_was_denied_is_one_of_the_set_when_that_is_over(place: Place) -> None:
    place.answer(P, Act.PROBE)
    place.hear(X, NEAR)
    place.answer(X, Act.PROBE)
    row = place.dodag.neighbours.get(X)
    assert row is not None
    place.wait(2 * QUIET_INTERVAL)
    # While nothing is to be seen a node looks seldom.
    row.denied_until = place.now + QUIET_INTERVAL / 2
    place.hear(X, NEAR + 1)
    assert row not in place.dodag.parents
    place.wait(QUIET_INTERVAL / 2 + UPKEEP_INTERVAL)
    assert row in place.dodag.parents


def test_who_is_denied_again_and_again_is_denied_longer(place: Place) -> None:
    waits = []
    place.hear(X, NEAR)
    row = place.dodag.neighbours.get(X)
    assert row is not None
    for _ in range(8):
        for _ in range(2):
            place.answer(X, Act.PROBE, is_acknowledged=False)
        waits.append(row.denied_until - place.now)
        place.wait(max(waits[-1], 0.0) + UPKEEP_INTERVAL)
    assert waits[0] == pytest.approx(DENY_FIRST)
    assert max(waits) == PROFILE.parents.deny_time
    place.answer(X, Act.PROBE)
    assert row.denials == 0


def test_a_parent_that_is_heard_is_not_dead_because_others_acknowledge(place: Place) -> None:
    place.dodag.note_child(C, 12, FAR, now=place.now)
    for _ in range(4):
        place.answer(P, Act.PROBE, is_acknowledged=False)
        place.wait(1.0)
        place.hear(P, NEAR)
        place.answer(C, Act.POISON)
    assert place.parent() == P
    assert place.dodag.counters["parent failed"] == 0


def test_a_silent_parent_is_dead_for_a_leaf_when_others_acknowledge(place: Place) -> None:
    place.hear(X, INFINITE_RANK)
    for _ in range(10):
        place.answer(P, Act.PROBE)
    place.wait(1.0)
    place.answer(P, Act.PROBE, is_acknowledged=False)
    place.wait(1.0)
    place.answer(X, Act.PROBE)
    assert place.parent() == P
    place.answer(P, Act.PROBE, is_acknowledged=False)
    assert place.parent() is None
    assert place.dodag.state is State.DETACHED


@pytest.mark.parametrize(
    ("failures", "seconds", "is_dead"), [(4, 4.0, True), (3, 6.0, False), (4, 3.9, False)]
)
def test_a_relay_whose_loss_costs_many_their_way_is_slower_to_believe_it(
    place: Place, failures: int, seconds: float, *, is_dead: bool
) -> None:
    place.dodag.note_child(C, 12, FAR, now=place.now)
    for _ in range(10):
        place.answer(P, Act.PROBE)
    place.answer(P, Act.PROBE, is_acknowledged=False)
    for _ in range(failures - 2):
        place.wait(0.1)
        place.answer(P, Act.PROBE, is_acknowledged=False)
    place.wait(seconds - 0.1 * (failures - 2) - 0.05)
    place.answer(C, Act.DIO_TO)
    assert place.parent() == P
    place.wait(0.05)
    place.answer(P, Act.PROBE, is_acknowledged=False)
    assert (place.parent() is None) is is_dead


def test_a_leaf_whose_rank_rose_may_have_a_parent_above_the_lowest_that_it_had(
    place: Place,
) -> None:
    lowest = place.dodag.lowest
    place.hear(X, lowest)
    place.answer(X, Act.PROBE)
    place.hear(P, NEAR + 3 * UNIT)
    assert place.dodag.lowest == place.dodag.rank > lowest
    place.asked()
    place.fail(P)
    assert (Act.REGISTER, X) in place.asked()
    assert place.dodag.counters["detached"] == 1  # When it started.


def test_a_relay_whose_rank_rose_asks_whether_it_may(place: Place) -> None:
    lowest = place.dodag.lowest
    place.dodag.note_child(C, 12, FAR, now=place.now)
    place.hear(X, lowest)
    place.answer(X, Act.PROBE)
    place.hear(P, NEAR + 3 * UNIT)
    assert place.dodag.lowest == lowest < place.dodag.rank
    place.asked()
    for _ in range(PROFILE.parents.failures_max):
        place.answer(P, Act.PROBE, is_acknowledged=False)
    assert (Act.REGISTER, X) in place.asked()
    place.dodag.note_refusal(X, 1, now=place.now)
    assert place.parent() == P
    # It is not asked again soon.
    place.fail(P, 50.0)
    place.answer(C, Act.DIO_TO)
    place.answer(P, Act.PROBE, is_acknowledged=False)
    asked = place.asked()
    assert (Act.REGISTER, X) not in asked
    assert (Act.POISON, C) in asked


def test_who_goes_below_what_it_said_for_a_relay_is_its_parent(place: Place) -> None:
    lowest = place.dodag.lowest
    place.dodag.take_child(C, 12, FAR, promise=lowest + 1, now=place.now)
    place.hear(X, lowest + UNIT)
    place.hear(P, INFINITE_RANK)
    assert (Act.REGISTER, X) in place.asked()
    row = place.dodag.neighbours.get(X)
    assert row is not None
    promise = place.dodag.place.promise(row)
    place.answer(X, Act.REGISTER)
    assert place.parent() == X
    # Our rank follows from X's; those below us count on the rank that we had, as we do on X's.
    assert place.dodag.rank >= lowest + 2 * UNIT
    assert place.dodag.lowest == lowest == promise
    assert not place.dodag.take_child(Y, 13, FAR, promise=promise, now=place.now)
    assert place.dodag.take_child(Y, 13, FAR, promise=promise + 1, now=place.now)


def test_a_leaf_whose_parent_is_gone_takes_whoever_is_there(place: Place) -> None:
    place.hear(X, FAR)
    place.hear(P, INFINITE_RANK)
    assert place.asked() == [(Act.REGISTER, X)]
    place.answer(X, Act.REGISTER)
    assert place.parent() == X
    assert place.dodag.counters["detached"] == 1  # When it started.


def promised(place: Place) -> int:
    """What the frame that makes P our parent, or keeps it so, says now."""
    row = place.dodag.neighbours.get(P)
    assert row is not None
    return place.dodag.place.promise(row)


def test_what_a_child_promised_lets_a_relay_choose_anew(place: Place) -> None:
    lowest = place.dodag.lowest
    assert place.dodag.take_child(C, 12, FAR, promise=lowest + 1, now=place.now)
    place.hear(X, lowest + UNIT)
    place.answer(X, Act.PROBE)
    place.hear(P, NEAR + 3 * UNIT)
    assert place.dodag.lowest == lowest
    # The child follows, and says so: then X may be our parent, for C comes after whatever we take.
    risen = place.dodag.rank + 1
    assert place.dodag.take_child(C, 12, risen + UNIT, promise=risen, now=place.now)
    place.wait(2 * UPKEEP_INTERVAL)
    assert place.dodag.lowest == place.dodag.rank > lowest + UNIT
    place.asked()
    place.fail(P, 80.0)
    asked = place.asked()
    assert (Act.REGISTER, X) in asked
    assert (Act.POISON, C) not in asked


def test_the_least_promise_of_all_children_counts(place: Place) -> None:
    lowest = place.dodag.lowest
    assert place.dodag.take_child(C, 12, FAR, promise=lowest + 1, now=place.now)
    place.hear(P, NEAR + 3 * UNIT)
    rank = place.dodag.rank
    assert place.dodag.take_child(Y, 13, FAR, promise=rank - UNIT, now=place.now)
    assert place.dodag.lowest == lowest
    assert place.dodag.take_child(C, 12, FAR, promise=rank + 1, now=place.now)
    place.wait(2 * UPKEEP_INTERVAL)
    assert lowest < place.dodag.lowest == rank - UNIT - 1
    # One of whom we know no promise holds us where we are.
    assert place.dodag.take_child(X, 11, FAR, promise=INFINITE_RANK, now=place.now)
    place.hear(P, NEAR + 5 * UNIT)
    assert place.dodag.lowest == rank - UNIT - 1


def test_a_child_that_went_to_another_parent_holds_nobody(place: Place) -> None:
    place.dodag.note_child(C, 12, FAR, now=place.now)
    place.hear(P, NEAR + 3 * UNIT)
    assert place.dodag.lowest < place.dodag.rank
    place.dodag.lose_child(C, now=place.now)
    place.dodag.lose_child(Y, now=place.now)  # Of whom nothing is known.
    place.hear(P, NEAR + 3 * UNIT)
    assert place.dodag.lowest == place.dodag.rank
    place.hear(P, INFINITE_RANK)
    assert (Act.POISON, C) not in place.asked()


def test_no_rank_falls_below_what_the_parent_was_promised_until_it_knows(place: Place) -> None:
    high = NEAR + 3 * UNIT
    place.hear(P, high)
    place.wait(2 * UPKEEP_INTERVAL)
    assert (Act.REGISTER, P) in place.asked()
    assert promised(place) == high + 1
    place.answer(P, Act.REGISTER)
    place.hear(P, NEAR)
    assert place.dodag.rank == place.dodag.lowest == high + 1
    place.wait(2 * UPKEEP_INTERVAL)
    assert (Act.REGISTER, P) in place.asked()
    assert promised(place) == NEAR + 1
    # It was sent; as long as nobody has it our word is the higher one.
    place.answer(P, Act.REGISTER, is_acknowledged=False)
    assert place.dodag.rank == high + 1
    place.answer(P, Act.REGISTER)
    assert NEAR + UNIT <= place.dodag.rank < high


def test_a_higher_promise_binds_from_when_it_is_sent(place: Place) -> None:
    place.hear(P, NEAR + 3 * UNIT)
    place.wait(60.0)
    assert promised(place) == NEAR + 3 * UNIT + 1
    place.answer(P, Act.REGISTER, is_acknowledged=False)
    place.hear(P, NEAR)
    assert place.dodag.rank > NEAR + 3 * UNIT


def test_who_takes_another_parent_says_so_to_the_one_it_leaves(place: Place) -> None:
    for _ in range(10):
        place.answer(P, Act.PROBE)
    place.hear(X, NEAR - UNIT // 2)
    for _ in range(20):
        place.answer(X, Act.PROBE)
    place.hear(P, NEAR + UNIT)
    place.wait(PROFILE.parents.switch_time + 2 * UPKEEP_INTERVAL)
    if (Act.REGISTER, X) in place.asked():
        place.answer(X, Act.REGISTER)
    assert place.parent() == X
    assert (Act.LEAVE, P) in place.asked()


def test_who_is_not_known_to_the_root_says_nothing_of_its_place() -> None:
    place = Place()
    place.join(P, NEAR)
    place.asked()
    place.wait(3600.0)
    place.dodag.hear_dis(Y, Dis(), now=place.now, is_for_us=False)
    place.wait(60.0)
    assert (Act.DIO, None) not in place.asked()
    place.dodag.note_root(1, now=place.now)
    place.wait(1.0)
    assert (Act.DIO, None) in place.asked()
    # Once in a life: an orphan of a tree that stands has no time for this.
    place.hear(P, INFINITE_RANK)
    place.wait(1.0)
    place.asked()
    place.hear(X, NEAR)
    place.wait(1.0)
    place.answer(X, Act.REGISTER)
    assert place.parent() == X
    place.wait(1.0)
    assert (Act.DIO, None) in place.asked()


def test_a_child_that_knows_a_rank_that_we_have_no_more_is_told_and_not_taken(
    place: Place,
) -> None:
    lowest, promise = place.dodag.lowest, NEAR + 1
    assert promised(place) == place.dodag.place.bound == promise
    place.asked()
    assert not place.dodag.take_child(C, 12, FAR, promise=promise, now=place.now)
    assert place.asked() == [(Act.REFUSE, C)]
    assert place.dodag.counters["child of an old rank"] == 1
    assert place.dodag.lowest == lowest
    # Down to what it promised itself it goes for a child.
    assert place.dodag.take_child(C, 12, FAR, promise=promise + 1, now=place.now)
    assert place.dodag.lowest == promise
    place.hear(P, INFINITE_RANK)
    assert (Act.POISON, C) in place.asked()


@pytest.mark.parametrize(("after", "is_told"), [(CHILD_TIME - 1, True), (CHILD_TIME, False)])
def test_who_comes_up_through_us_is_a_child_only_while_we_may_have_forgotten_one(
    after: float, *, is_told: bool
) -> None:
    place = Place()
    place.join(P, NEAR)
    place.now = after
    place.hear(P, NEAR)
    assert place.dodag.note_passing(C, FAR, now=place.now)
    row = place.dodag.neighbours.get(C)
    assert row is not None
    assert row.below_until == after + CHILD_TIME
    place.asked()
    place.hear(P, INFINITE_RANK)
    assert ((Act.POISON, C) in place.asked()) is is_told


def test_a_child_says_that_it_is_one_when_all_else_said_to_its_parent_does_not() -> None:
    place = joined()
    row = place.dodag.preferred
    assert row is not None
    interval = PROFILE.parents.probe_interval
    said = []
    end = place.now + 3 * interval
    while place.now < end:
        place.wait(60.0)
        # An answer to what the parent asked tries the link, and does not say whose child we are.
        place.answer(P, Act.DIO_TO)
        if (Act.REGISTER, P) in place.asked():
            said.append(place.now)
            place.dodag.place.promise(row)
            place.answer(P, Act.REGISTER)
    assert 3 <= len(said) <= 5
    assert all(after - before <= interval + 60.0 for before, after in itertools.pairwise(said))
    # What goes up through it says the same.
    place.wait(interval - 120.0)
    place.answer(P, None)
    place.asked()
    place.wait(interval - 60.0)
    assert (Act.REGISTER, P) not in place.asked()
    place.wait(120.0)
    assert (Act.REGISTER, P) in place.asked()


def test_in_its_first_life_a_node_has_the_children_that_asked(place: Place) -> None:
    dodag = Dodag(PROFILE, random.Random(1), has_lived=False)
    place.dodag = dodag
    dodag.start(now=place.now)
    place.join(P, NEAR)
    assert dodag.note_passing(C, FAR, now=place.now)
    assert dodag.note_child(Y, 13, FAR, now=place.now)
    place.hear(P, INFINITE_RANK)
    asked = place.asked()
    assert (Act.POISON, Y) in asked
    assert (Act.POISON, C) not in asked


def test_some_of_those_who_hear_a_need_say_where_they_stand_not_all() -> None:
    resets = 0
    for seed in range(200):
        place = Place()
        place.dodag = Dodag(PROFILE, random.Random(seed), has_lived=False)
        place.dodag.start(now=0.0)
        place.join(P, NEAR)
        place.dodag.note_root(1, now=0.0)
        for number in range(59):
            place.hear(eui(100 + number), FAR)
        place.wait(600.0)
        place.asked()
        place.dodag.hear_dis(Y, Dis(), now=place.now, is_for_us=False)
        place.wait(1.0)
        resets += (Act.DIO, None) in place.asked()
    # Six of sixty, so twenty of two hundred; four deviations are seventeen.
    assert 4 <= resets <= 40


def test_who_comes_to_another_root_asks_those_below_to_tell_it_once(place: Place) -> None:
    dodag = place.dodag
    dtsn = dodag.dtsn
    dodag.note_root(1, now=place.now)
    dodag.note_root(1, now=place.now)
    assert dodag.dtsn == dtsn
    dodag.note_root(2, now=place.now)
    assert dodag.dtsn == sequence_after(dtsn)
    place.asked()
    place.wait(1.0)
    assert (Act.DIO, None) in place.asked()
    # Below it: asked by its parent it asks on, and does not ask again when the other root answers.
    dtsn = dodag.dtsn
    dio = Dio(0, 240, NEAR, 7, DODAG_ID, PROFILE.configuration)
    dodag.hear_dio(P, 10, dio, now=place.now, is_for_us=False, rssi_dbm=None)
    assert dodag.dtsn == sequence_after(dtsn)
    assert (Act.DAO_ASKED, None) in place.asked()
    dodag.note_root(1, now=place.now)
    assert dodag.dtsn == sequence_after(dtsn)


@pytest.mark.parametrize(
    ("solicited", "is_answered"),
    [
        (None, True),
        (Solicited(0, DODAG_ID, 240), True),
        (Solicited(dodag_id=bytes(16)), False),
        (Solicited(version=239), False),
        (Solicited(instance=1), False),
    ],
)
def test_only_who_is_meant_answers_a_solicitation(
    place: Place, solicited: Solicited | None, *, is_answered: bool
) -> None:
    place.dodag.note_root(1, now=place.now)
    place.hear(X, FAR)
    place.asked()
    place.dodag.hear_dis(X, Dis(solicited), now=place.now, is_for_us=True)
    assert ((Act.DIO_TO, X) in place.asked()) is is_answered


@pytest.mark.parametrize("said", [8, 6, 200])
def test_any_other_dtsn_of_the_preferred_parent_asks_for_routes(place: Place, said: int) -> None:
    # A root that started again may have drawn a lower one.
    dodag = place.dodag

    def hear(who: Eui64, rank: int, dtsn: int) -> None:
        dio = Dio(0, 240, rank, dtsn, DODAG_ID, PROFILE.configuration)
        short = int.from_bytes(who[6:], "big")
        dodag.hear_dio(who, short, dio, now=place.now, is_for_us=False, rssi_dbm=None)

    hear(P, NEAR, 7)
    hear(X, NEAR, 7)
    place.answer(X, Act.PROBE)
    dtsn = dodag.dtsn
    place.asked()
    assert X in {row.eui for row in dodag.parents}
    hear(X, NEAR, said)
    hear(P, NEAR, 7)
    assert dodag.dtsn == dtsn
    assert (Act.DAO_ASKED, None) not in place.asked()
    hear(P, NEAR, said)
    assert dodag.dtsn == sequence_after(dtsn)
    assert (Act.DAO_ASKED, None) in place.asked()


def test_the_dodag_is_that_of_one_who_has_a_way() -> None:
    place = Place()
    stranger = Dio(0, 240, INFINITE_RANK, 0, bytes(16), PROFILE.configuration)
    place.dodag.hear_dio(X, 11, stranger, now=0.0, is_for_us=False, rssi_dbm=None)
    assert place.dodag.dodag_id is None
    place.join(P, NEAR)
    assert place.dodag.dodag_id == DODAG_ID
