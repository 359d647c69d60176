"""When a node says where it stands though nobody asked: what moved, how far, and how soon."""

from __future__ import annotations

import random

import pytest

from amistack.identifiers import Eui64
from mesh.routing.acts import Act
from mesh.routing.advertising import (
    JUMP_ETX,
    NEWS_ETX,
    NEWS_WAIT,
    POISON_SPACING,
    REPLY_INTERVAL,
    RESET_INTERVAL,
)
from mesh.routing.dodag import Dodag
from mesh.routing.messages import INFINITE_RANK, Dio
from mesh.routing.profile import load_profile
from tests.mesh.routing.medium import DODAG_ID, eui
from tests.mesh.routing.one_node import NEAR, PROFILE, UNIT, P, Place, X, joined

LONGEST = 2.0**PROFILE.dodag.interval_min / 1000.0 * 2**PROFILE.dodag.interval_doublings


@pytest.fixture
def place() -> Place:
    """A node that the root knows and that has said what it had to say."""
    place = joined()
    for _ in range(30):
        # So the link has ETX 1 and the rank is the parent's and one.
        place.answer(P, Act.PROBE)
    place.dodag.note_root(1, now=place.now)
    place.wait(2.5 * LONGEST)
    place.asked()
    return place


def said(place: Place, seconds: float) -> int:
    """How many DIOs went to all in so many seconds, while ten others say that nothing is new."""
    place.asked()
    found = 0
    end = place.now + seconds
    while place.now < end:
        for _ in range(PROFILE.dodag.redundancy):
            place.dodag._advertiser.hear_consistent()
        place.wait(min(max(place.dodag.deadline - place.now, 0.01), end - place.now))
        found += place.asked().count((Act.DIO, None))
    return found


def said_beside(place: Place, rank: int, seconds: float) -> int:
    """How many DIOs went to all while as many neighbours say a rank as would suppress one."""
    others = [eui(short) for short in range(20, 20 + PROFILE.dodag.redundancy)]
    place.asked()
    found = 0
    end = place.now + seconds
    while place.now < end:
        for other in others:
            place.hear(other, rank)
        place.wait(min(LONGEST / 8, end - place.now))
        found += place.asked().count((Act.DIO, None))
    return found


def move(place: Place, etx: float) -> None:
    """The node's rank is another one."""
    place.dodag.place.rank += int(etx * UNIT)
    place.dodag._advertiser.note_rank(place.now)
    place.dodag._schedule()


@pytest.mark.parametrize(("moved", "count"), [(NEWS_ETX - 0.02, 0), (NEWS_ETX + 0.02, 1)])
def test_a_rank_that_moved_is_said_once_and_soon(place: Place, moved: float, count: int) -> None:
    move(place, moved)
    assert said(place, NEWS_WAIT[0] - 1.0) == 0
    assert said(place, NEWS_WAIT[1] - NEWS_WAIT[0] + 2.0) == count
    assert said(place, 600.0) == 0


def test_a_rank_that_came_back_meanwhile_is_no_news(place: Place) -> None:
    place.hear(P, NEAR + 2 * UNIT)
    place.wait(NEWS_WAIT[0] - 1.0)
    place.hear(P, NEAR)
    assert said(place, NEWS_WAIT[1]) == 0


@pytest.mark.parametrize(("moved", "is_at_once"), [(JUMP_ETX, True), (JUMP_ETX - 0.1, False)])
def test_a_rank_that_jumped_is_said_at_once(
    place: Place, moved: float, *, is_at_once: bool
) -> None:
    move(place, moved)
    place.asked()
    place.wait(2.0)
    assert ((Act.DIO, None) in place.asked()) is is_at_once


def test_a_rank_that_jumped_is_said_whatever_others_say(place: Place) -> None:
    move(place, JUMP_ETX)
    assert said(place, 2.0) == 1
    # Once: what follows is Trickle's, and others say that.
    place.dodag._advertiser.note_rank(place.now)
    assert said(place, 600.0) == 0


def test_what_others_say_is_not_what_a_node_has_to_say_whose_rank_moved(place: Place) -> None:
    assert said(place, 3 * LONGEST) == 0
    move(place, NEWS_ETX / 2 + 0.01)
    assert said(place, 2 * LONGEST) == 1
    assert said(place, 3 * LONGEST) == 0


@pytest.mark.parametrize(("deeper", "count"), [(-1, 0), (0, 4), (UNIT, 4)])
def test_only_who_is_nearer_to_the_root_speaks_for_a_node(
    place: Place, deeper: int, count: int
) -> None:
    """RFC 6550 section 8.3: what senders of a lesser rank say is consistent."""
    assert said_beside(place, place.dodag.rank + deeper, 4 * LONGEST) == count


def test_nobody_speaks_for_a_root() -> None:
    root = Place()
    root.dodag = Dodag(PROFILE, random.Random(1), dodag_id=DODAG_ID, root_version=240)
    root.dodag.start(now=0.0)
    root.wait(2.5 * LONGEST)
    assert said_beside(root, 2 * UNIT, 4 * LONGEST) == 4


def test_a_root_beside_many_neighbours_begins_anew_and_doubles() -> None:
    """RFC 6206 section 4.2, though more speak in each interval than would suppress it."""
    root = Place()
    root.dodag = Dodag(PROFILE, random.Random(1), dodag_id=DODAG_ID, root_version=240)
    root.dodag.start(now=0.0)
    root.wait(2.5 * LONGEST)
    others = [eui(short) for short in range(20, 20 + PROFILE.parents.neighbour_count_max)]
    for other in others:
        root.hear(other, 2 * UNIT)
    root.asked()
    began = root.now
    said: list[float] = []
    # All lose their way, one after the other: that is one reason.
    for other in others:
        root.hear(other, INFINITE_RANK)
        root.wait(1.0 / len(others))
        said += [root.now] * root.asked().count((Act.DIO, None))
    while root.now < began + 3 * LONGEST:
        root.wait(root.dodag.deadline - root.now)
        said += [root.now] * root.asked().count((Act.DIO, None))
        for other in others:
            root.hear(other, 2 * UNIT)
    begins, length = began, LONGEST / 2**PROFILE.dodag.interval_doublings
    for when in said:
        assert begins + length / 2 <= when < begins + length + 1.0 / len(others)
        begins, length = begins + length, min(2 * length, LONGEST)
    assert len(said) == PROFILE.dodag.interval_doublings + 2


@pytest.mark.parametrize("name", ["wisun-large", "wisun-small", "lab"])
def test_where_the_redundancy_is_0_nobody_speaks_for_a_node(name: str) -> None:
    profile = load_profile(name)
    assert profile.dodag.redundancy == 0
    unit = profile.dodag.hop_rank_increase_min
    longest = 2.0**profile.dodag.interval_min / 1000.0 * 2**profile.dodag.interval_doublings
    place = Place()
    place.dodag = Dodag(profile, random.Random(1))
    place.dodag.start(now=0.0)

    def hear(who: Eui64, rank: int) -> None:
        said = Dio(0, 240, rank, 0, DODAG_ID, profile.configuration)
        short = int.from_bytes(who[6:], "big")
        place.dodag.hear_dio(who, short, said, now=place.now, is_for_us=False, rssi_dbm=None)

    hear(P, unit)
    place.wait(2.0)
    place.answer(P, Act.REGISTER)
    place.dodag.note_root(1, now=place.now)
    place.wait(4 * longest)
    place.asked()
    count = 0
    end = place.now + 8 * longest
    while place.now < end:
        for short in range(20, 40):
            hear(eui(short), place.dodag.rank - 1)
        place.answer(P, None)
        place.wait(longest / 8)
        count += place.asked().count((Act.DIO, None))
    assert 7 <= count <= 9


def test_who_lost_its_way_says_that_and_no_older_news(place: Place) -> None:
    place.hear(P, NEAR + 2 * UNIT)
    place.hear(P, INFINITE_RANK)
    place.wait(5.0)
    place.asked()
    assert said(place, NEWS_WAIT[1] + 1.0) == 0
    # With another parent it is heard as soon as any that begins.
    place.hear(X, NEAR)
    place.wait(1.0)
    place.answer(X, Act.REGISTER)
    place.wait(1.0)
    assert (Act.DIO, None) in place.asked()


def test_who_lost_its_way_says_so_to_all_as_often_as_its_profile_has_it(place: Place) -> None:
    place.hear(P, INFINITE_RANK)
    count = PROFILE.repair.poison_count
    assert said(place, count * POISON_SPACING + 0.1) == count > 1
    # Until it has one there is nothing more to say.
    assert said(place, 2 * LONGEST) == 0


def test_a_rank_without_end_is_not_said_while_a_parent_is_asked(place: Place) -> None:
    place.hear(P, INFINITE_RANK)
    place.hear(X, NEAR)
    place.wait(0.01)
    asked = place.asked()
    assert (Act.REGISTER, X) in asked
    # Who heard it after the question would take that back.
    assert said(place, 1.0) == 0
    place.answer(X, Act.REGISTER, is_acknowledged=False)
    assert said(place, 1.0) > 0


def test_many_who_ask_begin_the_shortest_interval_once_in_a_while(place: Place) -> None:
    began = 0
    for _ in range(40):
        before = place.dodag._advertiser.deadline
        place.dodag._advertiser.hear_request(place.now)
        place.dodag._schedule()
        began += place.dodag._advertiser.deadline != before
        place.wait(1.0)
    # Each time the interval is longer than the shortest by then.
    assert began == 40.0 / RESET_INTERVAL


def test_a_neighbour_is_answered_now_and_then_however_often_it_is_mistaken(place: Place) -> None:
    place.hear(X, NEAR)
    place.asked()
    answers = 0
    for _ in range(10):
        place.dodag.note_loop(X, now=place.now)
        answers += place.asked().count((Act.DIO_TO, X))
        place.wait(REPLY_INTERVAL / 2)
    assert answers == 5
