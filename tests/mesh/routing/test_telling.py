"""When the root is told: first by turns, then as often as the road allows.

The contract under test: who has no way yet goes before who has an old one, an answer that is late
or lost makes a node slower and one in time faster, and whatever happens the next DAO has a time.
"""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.routing.dao import STATUS_ACCEPTED, STATUS_REFUSED, RouteTable
from mesh.routing.messages import LIFETIME_INFINITE, Dao, DaoAck
from mesh.routing.profile import Routes
from mesh.routing.telling import (
    ASKED_SHARE,
    FREE,
    LATE_BY_PARENT,
    LATE_FROM,
    LATER_DELAY,
    LATER_DELAY_MAX,
    PACE_MAX,
    PACE_NEAR,
    PATH_ETX_MAX,
    QUIET_SHARE,
    URGENT_DELAY_MAX,
    URGENT_GROWTH,
    URGENT_MEMORY,
    YOUNG_TIME,
    YOUNG_URGENT,
    DaoSender,
)
from mesh.routing.trickle import NEVER
from mesh.routing.width import WIDE_ETX
from tests.mesh.routing.test_dao import CONFIGURATION, PREFIX, ROOT_SHORT, take

ROUTES = Routes(dao_delay=3.0, first_spread=40.0)
FOR_EVER = dataclasses.replace(CONFIGURATION, lifetime=LIFETIME_INFINITE)


def sender_of(routes: Routes = ROUTES, seed: int = 1) -> DaoSender:
    return DaoSender(routes, random.Random(seed), path_sequence=None)


def tell(sender: DaoSender, now: float, *parents: int) -> Dao:
    """The DAO that is due goes out."""
    told = sender.make(PREFIX, 2, parents or (1,), 12)
    sender.sent(now=now)
    return told


def answer(sender: DaoSender, told: Dao, now: float, status: int = STATUS_ACCEPTED) -> bool:
    return sender.hear_ack(DaoAck(0, told.sequence, status), FOR_EVER, now=now)


def known(routes: Routes = ROUTES) -> DaoSender:
    """One that the root has known for some time."""
    sender = sender_of(routes)
    sender.change(now=-10_000.0, is_urgent=True)
    assert answer(sender, tell(sender, -9_000.0), -9_000.0)
    return sender


# A parent that is gone


def waiting(*, tries: int = 5) -> tuple[DaoSender, float]:
    """One whose last DAOs had no answer, and the time: its pace is minutes by now."""
    sender, now = known(), 0.0
    sender.change(now=now, is_urgent=False)
    for _ in range(tries):
        now = sender.deadline
        tell(sender, now)
    assert sender.deadline > now + 4 * ROUTES.dao_retry
    return sender, now


def test_who_lost_the_parent_that_was_told_does_not_wait_for_answers_by_way_of_it() -> None:
    sender, now = waiting()
    sender.change(now=now + 1.0, is_urgent=True)
    assert sender.deadline <= now + 1.0 + URGENT_GROWTH * ROUTES.dao_delay


@pytest.mark.parametrize(
    ("is_urgent", "is_crowded"), [(False, False), (True, True)], ids=["no-loss", "crowd"]
)
def test_a_pace_is_kept_where_the_road_may_be_full(*, is_urgent: bool, is_crowded: bool) -> None:
    sender, now = waiting()
    due = sender.deadline
    sender.change(now=now + 1.0, is_urgent=is_urgent, is_crowded=is_crowded)
    assert sender.deadline >= min(due, now + 3 * ROUTES.dao_retry)


@pytest.mark.parametrize(
    ("late", "is_held"), [(LATE_BY_PARENT - 0.1, False), (LATE_BY_PARENT + 0.1, True)]
)
def test_an_answer_that_was_a_little_late_came_by_way_of_it_too(
    *, late: float, is_held: bool
) -> None:
    sender = known()
    assert answer(sender, tell(sender, 0.0), late * LATE_FROM)
    sender.change(now=4.0, is_urgent=True)
    pace = ROUTES.dao_retry * late**2
    assert (sender.deadline >= 0.75 * pace) is is_held
    assert is_held or sender.deadline <= 4.0 + URGENT_GROWTH * ROUTES.dao_delay


def test_who_loses_parents_again_and_again_tells_so_ever_later() -> None:
    sender, now = waiting()
    gaps = []
    for _ in range(8):
        sender.change(now=now + 1.0, is_urgent=True)
        gaps.append(sender.deadline - now)
        now = sender.deadline
        tell(sender, now)
    assert gaps[-1] > 10 * gaps[0]


# The first of a life


def first_due(path_etx: float, *, is_crowded: bool) -> list[float]:
    """When the first DAO of a life is due, of many nodes that joined at 0."""
    found = []
    for seed in range(200):
        sender = sender_of(seed=seed)
        sender.change(now=0.0, is_urgent=True, path_etx=path_etx, is_crowded=is_crowded)
        found.append(sender.deadline)
    return found


@pytest.mark.parametrize("path_etx", [1.0, 2.0, 6.0])
def test_in_a_crowd_the_first_ones_are_spread_and_more_so_far_away(path_etx: float) -> None:
    due = first_due(path_etx, is_crowded=True)
    assert min(due) <= 8.0
    assert 36.0 * path_etx <= max(due) <= 40.0 * path_etx


def test_a_node_alone_speaks_sooner_and_nobody_waits_for_ever() -> None:
    assert max(first_due(6.0, is_crowded=False)) <= 40.0 * 6.0 * QUIET_SHARE
    assert max(first_due(500.0, is_crowded=True)) <= 40.0 * PATH_ETX_MAX


def test_the_first_dao_keeps_its_time_when_the_crowd_falls_silent() -> None:
    sender = sender_of(seed=4)
    sender.change(now=0.0, is_urgent=True, path_etx=6.0, is_crowded=True)
    due = sender.deadline
    assert due > 50.0
    sender.change(now=1.0, is_urgent=False, path_etx=6.0, is_crowded=False)
    assert sender.deadline >= due
    # Nearer to the root than it thought at first: sooner, but still in its turn.
    sender.change(now=2.0, is_urgent=True, path_etx=4.0, is_crowded=False)
    assert sender.deadline == pytest.approx(due * 4.0 / 6.0)


def test_who_has_something_to_say_does_not_wait_for_its_turn() -> None:
    sender = sender_of(seed=4)
    sender.hurry(now=0.0)
    assert sender.deadline == NEVER
    sender.change(now=1.0, is_urgent=True, path_etx=9.0, is_crowded=True)
    assert sender.deadline > 50.0
    sender.hurry(now=2.0)
    assert sender.deadline <= 2.0 + ROUTES.dao_delay


def test_who_is_not_known_yet_keeps_its_pace_whatever_changes() -> None:
    sender = sender_of()
    sender.change(now=0.0, is_urgent=True, path_etx=8.0, is_crowded=True)
    tell(sender, 100.0)
    due = sender.deadline
    assert 0.75 * 8.0 * ROUTES.dao_retry <= due - 100.0 <= 1.25 * 8.0 * ROUTES.dao_retry
    sender.change(now=110.0, is_urgent=True, path_etx=2.0)
    assert sender.deadline == due
    assert tell(sender, due, 3).transits[0].parent[-1] == 3
    # Without a parent nothing is due; with one there is a time again.
    sender.stop()
    sender.change(now=due + 1.0, is_urgent=True)
    assert due + 1.0 < sender.deadline < NEVER


# Repeating


def test_a_dao_is_repeated_with_the_same_path_sequence_then_seldom() -> None:
    routes = Routes(first_spread=0.0)
    sender = sender_of(routes)
    sender.change(now=0.0, is_urgent=True)
    assert sender.deadline <= routes.dao_delay
    told, now = [], 0.0
    for tries in range(routes.dao_tries):
        now = sender.deadline
        told.append(tell(sender, now))
        wait = routes.dao_retry * 2**tries
        assert 0.75 * wait <= sender.deadline - now <= 1.25 * wait
    assert len({one.transits[0].path_sequence for one in told}) == 1
    assert len({one.sequence for one in told}) == len(told)
    tell(sender, now)
    assert sender.path_sequence != told[0].transits[0].path_sequence


def test_the_answer_to_any_repetition_will_do() -> None:
    sender = sender_of()
    sender.change(now=0.0, is_urgent=True)
    first = tell(sender, 1.0)
    tell(sender, 40.0)
    assert answer(sender, first, 41.0)
    assert sender.is_acknowledged
    assert sender.deadline == NEVER
    assert not answer(sender, first, 42.0)


def test_an_answer_to_an_older_dao_does_not_end_a_newer_change() -> None:
    sender = sender_of()
    sender.change(now=0.0, is_urgent=True)
    told = tell(sender, 1.0)
    assert not sender.is_known
    sender.change(now=1.1, is_urgent=False)
    # But the root has a way to us now, if an old one.
    assert answer(sender, told, 1.2)
    assert sender.is_known
    assert not sender.is_acknowledged
    sender.change(now=1.3, is_urgent=False)
    assert 1.3 < sender.deadline <= 1.3 + LATER_DELAY


def test_an_answer_to_what_was_told_before_is_none_to_what_is_told_now() -> None:
    sender = sender_of()
    sender.change(now=0.0, is_urgent=True)
    first = tell(sender, 1.0)
    sender.change(now=2.0, is_urgent=True)
    second = tell(sender, 40.0, 3)
    due = sender.deadline
    assert answer(sender, first, 41.0)
    assert not sender.is_acknowledged
    assert sender.deadline == due < NEVER
    assert answer(sender, second, 42.0)
    assert sender.is_acknowledged


def test_what_nobody_asked_for_is_no_answer() -> None:
    sender = sender_of()
    assert not sender.hear_ack(DaoAck(0, 5), CONFIGURATION, now=0.0)
    sender.change(now=0.0, is_urgent=True)
    told = tell(sender, 1.0)
    assert not answer(sender, told, 1.5, status=STATUS_REFUSED)
    assert not sender.is_known
    assert not sender.hear_ack(DaoAck(0, told.sequence + 1 & 0xFF), CONFIGURATION, now=2.0)
    assert sender.deadline < NEVER


def test_an_accepted_dao_is_told_again_well_within_its_lifetime() -> None:
    sender = sender_of()
    for _ in range(3):
        sender.change(now=0.0, is_urgent=True)
        told = tell(sender, 0.0)
        assert sender.hear_ack(DaoAck(0, told.sequence), CONFIGURATION, now=0.0)
        assert 300.0 < sender.deadline < 700.0
    sender.stop()
    assert sender.deadline == NEVER


# The pace


def test_a_late_answer_slows_a_node_down_by_its_square_and_good_ones_free_it() -> None:
    sender = known()
    told = tell(sender, 0.0)
    assert answer(sender, told, 5.0)
    sender.change(now=6.0, is_urgent=True)
    pace = 25.0 * ROUTES.dao_retry
    assert 0.75 * pace <= sender.deadline <= 1.25 * pace
    # One that is a little late is halfway back, one in time is all of it.
    for took, at_least, at_most in ((0.9, 0.75 * pace / 2, 1.25 * pace / 2), (0.4, 0.0, 3.0)):
        now = sender.deadline
        assert answer(sender, tell(sender, now), now + took)
        now += URGENT_MEMORY + 1.0 if took < FREE else 1.0
        sender.stop()
        sender.change(now=now, is_urgent=True, is_crowded=True)
        assert at_least <= sender.deadline - now + (1.0 if took > FREE else 0.0) <= at_most


def pace_after(path_etx: float, took: float) -> float:
    """How long the next DAO waits for its answer where this one was answered after so long."""
    waits = []
    for seed in range(20):
        sender = sender_of(seed=seed)
        sender.change(now=0.0, is_urgent=True, path_etx=path_etx)
        assert answer(sender, tell(sender, 1000.0), 1000.0 + took)
        tell(sender, 2000.0)
        waits.append(sender.deadline - 2000.0)
    return min(waits)


def test_far_away_an_answer_may_take_longer_and_a_late_one_means_more() -> None:
    # Half of what is late: 0.5 s near the root, 1.2 s at an ETX of 16.
    assert pace_after(16.0, 1.1) < ROUTES.dao_retry
    assert pace_after(1.0, 2.0) >= 0.75 * ROUTES.dao_retry * 2.0**2
    # As late as that in an area so wide: sixteen times as many nodes wait with us.
    assert pace_after(16.0, 4.8) >= 0.75 * 16.0 * ROUTES.dao_retry * 2.0**2


@pytest.mark.parametrize("count", [1, 5])
def test_another_preferred_parent_is_told_soon_each_time(count: int) -> None:
    sender = known()
    for number in range(count):
        now = 1000.0 * number
        sender.change(now=now, is_urgent=False, is_moved=True)
        assert LATER_DELAY / 2 <= sender.deadline - now <= LATER_DELAY
        now = sender.deadline
        assert answer(sender, tell(sender, now), now + 0.1)


@pytest.mark.parametrize(
    ("path_etx", "pace_max"),
    [(1.0, PACE_NEAR), (4.0, PACE_NEAR), (8.0, PACE_MAX / 4), (PATH_ETX_MAX, PACE_MAX)],
)
def test_no_answer_at_all_is_as_slow_as_can_be_and_never_the_end(
    path_etx: float, pace_max: float
) -> None:
    sender = known()
    sender.change(now=0.0, is_urgent=True, path_etx=path_etx)
    for _ in range(20):
        now = sender.deadline
        tell(sender, now)
        assert now < sender.deadline <= now + 1.25 * pace_max
    assert sender.deadline - now >= 0.75 * pace_max


def test_who_comes_near_does_not_wait_as_one_that_is_far_away() -> None:
    sender = known()
    sender.change(now=0.0, is_urgent=True, path_etx=PATH_ETX_MAX)
    for _ in range(20):
        now = sender.deadline
        tell(sender, now)
    sender.change(now=now + 1.0, is_urgent=False, is_moved=True, path_etx=1.0)
    assert sender.deadline <= now + 1.0 + 1.25 * PACE_NEAR


@pytest.mark.parametrize(
    ("is_urgent", "first", "longest"),
    [(True, ROUTES.dao_delay, URGENT_DELAY_MAX), (False, LATER_DELAY, LATER_DELAY_MAX)],
)
def test_who_changes_parents_all_the_time_tells_so_ever_more_seldom(
    is_urgent: bool, first: float, longest: float
) -> None:
    sender = known()
    now, waits = 0.0, []
    for _ in range(16):
        sender.change(now=now, is_urgent=is_urgent)
        waits.append(sender.deadline - now)
        now = sender.deadline
        assert answer(sender, tell(sender, now), now)
    assert first / 2 <= waits[0] <= first
    assert longest / 2 <= waits[-1] <= longest
    growth = 2 * URGENT_GROWTH
    assert all(after <= growth * before + 1.0 for before, after in itertools.pairwise(waits))
    # After a quiet time the first change is told soon again.
    now += max(URGENT_MEMORY, 2 * LATER_DELAY_MAX) + 1.0
    sender.stop()
    sender.change(now=now, is_urgent=is_urgent)
    assert sender.deadline - now <= first


def test_a_lesser_change_does_not_hasten_what_waits() -> None:
    sender = known()
    sender.change(now=0.0, is_urgent=False, path_etx=10.0, is_asked=True)
    due = sender.deadline
    sender.change(now=0.1, is_urgent=False)
    assert sender.deadline == min(due, sender.deadline)
    sender.change(now=0.2, is_urgent=True)
    assert sender.deadline <= 0.2 + ROUTES.dao_delay


def test_while_an_area_forms_who_has_a_way_lets_others_go_first() -> None:
    young = YOUNG_URGENT * ROUTES.dao_delay

    def wait(now: float, late: float) -> float:
        """How long a change waits of a node whose last answer took so long."""
        assert answer(sender, tell(sender, now - 60.0), now - 60.0 + late)
        sender.change(now=now, is_urgent=True, is_crowded=True)
        return sender.deadline - now

    sender = sender_of()
    sender.change(now=0.0, is_urgent=True, is_crowded=True)
    assert young / 2 <= wait(100.0, 1.1 * FREE) <= young
    # Where answers come soon there is room for all.
    assert wait(200.0, 0.9 * FREE) < young / 2
    # An hour later others that lose their way are no area that forms.
    now = 60.0 + YOUNG_TIME + 60.0
    sender = sender_of()
    sender.change(now=0.0, is_urgent=True, is_crowded=True)
    assert answer(sender, tell(sender, 50.0), 51.0)
    assert wait(now, 1.1 * FREE) <= 2 * ROUTES.dao_delay


@pytest.mark.parametrize(("path_etx", "times"), [(1.0, 1.0), (WIDE_ETX, 1.0), (12.0, 27.0)])
def test_in_a_wide_area_what_is_no_hurry_waits_longer(path_etx: float, times: float) -> None:
    sender = known()
    sender.change(now=0.0, is_urgent=False, path_etx=path_etx)
    assert times * LATER_DELAY / 2 <= sender.deadline <= times * LATER_DELAY
    sender.change(now=1.0, is_urgent=True, path_etx=path_etx)
    assert sender.deadline <= 1.0 + ROUTES.dao_delay


def test_who_speaks_tells_at_once_what_leaves_the_root_without_a_way() -> None:
    sender = known()
    for now in (0.0, 100.0, 200.0, 300.0):
        sender.change(now=now, is_urgent=True)
        assert answer(sender, tell(sender, now), now)
    sender.change(now=400.0, is_urgent=False)
    due = sender.deadline
    sender.hurry(now=401.0)
    assert sender.deadline == due
    sender.change(now=401.0, is_urgent=True)
    assert sender.deadline > 430.0
    sender.hurry(now=402.0)
    assert sender.deadline <= 402.0 + ROUTES.dao_delay
    # Not every packet is a reason: there must be room between.
    tell(sender, 403.0)
    sender.change(now=404.0, is_urgent=True)
    due = sender.deadline
    sender.hurry(now=405.0)
    assert sender.deadline == due


@pytest.mark.parametrize("path_etx", [1.0, 4.0, 12.0])
def test_a_root_that_asks_everybody_is_answered_over_a_time_that_fits_the_area(
    path_etx: float,
) -> None:
    due = []
    for seed in range(200):
        sender = sender_of(seed=seed)
        sender.change(now=-10.0, is_urgent=True)
        assert answer(sender, tell(sender, -5.0), -5.0)
        sender.change(now=0.0, is_urgent=False, path_etx=path_etx, is_asked=True)
        due.append(sender.deadline)
    spread = max(ASKED_SHARE * ROUTES.first_spread * path_etx**2, ROUTES.dao_delay)
    assert 0.9 * spread <= max(due) <= spread
    assert min(due) <= ROUTES.dao_delay


# Whatever happens


sequences = st.integers(0, 127) | st.integers(240, 255)


@settings(deadline=None)
@given(sequences, sequences)
def test_a_node_that_lost_its_sequence_is_believed_after_two_refusals(there: int, own: int) -> None:
    table = RouteTable(ROOT_SHORT)
    take(table, 2, 1, sequence=there)
    sender = DaoSender(Routes(), random.Random(1), path_sequence=own)
    sender.change(now=0.0, is_urgent=True)
    for _ in range(3):
        now = sender.deadline
        told = tell(sender, now, 3)
        _, status = table.take(told, CONFIGURATION, source=2, now=0.0)
        sender.hear_ack(DaoAck(0, told.sequence, status), CONFIGURATION, now=now)
        if status == STATUS_ACCEPTED:
            break
    assert sender.is_acknowledged
    assert table.rows[2].parents == (3,)


@pytest.mark.parametrize("path_etx", [1.0, PATH_ETX_MAX])
def test_who_is_refused_for_good_asks_ever_more_seldom(path_etx: float) -> None:
    sender = sender_of()
    sender.change(now=0.0, is_urgent=True, path_etx=path_etx)
    asked: list[float] = []
    while len(asked) < 16:
        asked.append(sender.deadline)
        told = tell(sender, sender.deadline)
        answer(sender, told, asked[-1] + 0.5, STATUS_REFUSED)
    waits = [after - before for before, after in itertools.pairwise(asked)]
    assert waits[0] <= 1.25 * ROUTES.dao_retry
    longest = PACE_NEAR if path_etx == 1.0 else PACE_MAX
    assert all(0.75 * longest <= wait <= 1.25 * longest for wait in waits[-4:])
    # Once it is taken the next change is told as soon as ever.
    told = tell(sender, sender.deadline)
    now = sender.deadline
    answer(sender, told, now, STATUS_ACCEPTED)
    assert sender.is_acknowledged


acts = st.lists(
    st.tuples(
        st.sampled_from(["urgent", "later", "asked", "due", "ack", "refuse", "hurry", "stop"]),
        st.floats(0.0, 2000.0),
        st.floats(1.0, 20.0),
        st.booleans(),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(acts, st.integers(0, 1000))
def test_what_is_not_known_yet_always_has_its_time(
    history: list[tuple[str, float, float, bool]], seed: int
) -> None:
    sender = sender_of(seed=seed)
    now, told, is_stopped = 0.0, None, True
    for act, wait, path_etx, is_crowded in history:
        now += wait
        if act == "stop":
            sender.stop()
            is_stopped = True
        elif act in ("urgent", "later", "asked"):
            sender.change(
                now=now,
                is_urgent=act == "urgent",
                is_asked=act == "asked",
                path_etx=path_etx,
                is_crowded=is_crowded,
            )
            is_stopped = False
        elif act == "hurry":
            sender.hurry(now=now)
        elif act == "due" and sender.deadline < NEVER:
            now = max(now, sender.deadline)
            told = tell(sender, now)
        elif told is not None and not is_stopped:
            answer(sender, told, now, STATUS_REFUSED if act == "refuse" else STATUS_ACCEPTED)
        if not is_stopped and not sender.is_acknowledged:
            assert sender.deadline < NEVER
        if sender.deadline < NEVER:
            most = max(1.25 * PACE_MAX, LATER_DELAY_MAX * (PATH_ETX_MAX / WIDE_ETX) ** 3)
            assert sender.deadline <= now + most
