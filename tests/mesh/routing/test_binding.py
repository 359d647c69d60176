"""What binds a relay to the lowest rank that it had is asked for, and let go where nobody needs it.

The contract under test: a relay whose rank rose asks the children that hold it, one at a time and
not too often; a child says what it promises, and who is none says that. Who is refused as a child
knows it at once, and neither side takes the link for a bad one.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from amistack.identifiers import Eui64
from mesh.packet import RplMark
from mesh.routing.acts import Act, State
from mesh.routing.binding import ASK_AGAIN, ASK_INTERVAL, ASK_INTERVAL_MAX
from mesh.routing.messages import INFINITE_RANK
from mesh.routing.metric import REST_TIME
from mesh.routing.parents import HOLD_TIME, WAVE_SHARE
from mesh.routing.transmit import PROBE_ATTEMPTS
from mesh.routing.upkeep import EXPLORE_INTERVAL_HOPE
from tests.mesh.routing.medium import World, eui
from tests.mesh.routing.one_node import FAR, NEAR, PROFILE, UNIT, C, P, Place, X, Y, joined


@pytest.fixture
def place() -> Place:
    return joined()


def asked_of(place: Place, seconds: float) -> list[tuple[float, bytes | None]]:
    """When whom it asked for its promise, from now on."""
    asked, end = [], place.now + seconds
    while place.now < end:
        place.wait(min(1.0, end - place.now))
        asked += [(place.now, who) for act, who in place.asked() if act is Act.ASK]
    return asked


def test_the_child_that_holds_a_relay_most_is_asked_first_and_not_too_often(place: Place) -> None:
    lowest = place.dodag.lowest
    place.dodag.take_child(C, 12, FAR, promise=lowest + 2, now=place.now)
    place.dodag.take_child(Y, 13, FAR, promise=lowest + 1, now=place.now)
    assert not asked_of(place, 100.0)
    place.hear(P, NEAR + 3 * UNIT)
    began = place.now
    asked = asked_of(place, ASK_AGAIN)
    assert [who for _, who in asked] == [Y, C]
    assert 0.7 * ASK_INTERVAL <= asked[0][0] - began <= 1.3 * ASK_INTERVAL + 1.0
    later = asked_of(place, 3600.0)
    pauses = [after - before for (before, _), (after, _) in itertools.pairwise(later)]
    assert {who for _, who in later} == {C, Y}
    assert max(pauses) > ASK_INTERVAL_MAX / 2
    for child in (C, Y):
        times = [at for at, who in asked + later if who == child]
        assert all(b - a >= ASK_AGAIN for a, b in itertools.pairwise(times))


def test_a_relay_that_is_free_asks_nobody(place: Place) -> None:
    lowest = place.dodag.lowest
    place.dodag.take_child(C, 12, FAR, promise=lowest + 1, now=place.now)
    place.hear(P, NEAR + 3 * UNIT)
    rank = place.dodag.rank
    place.dodag.take_child(C, 12, FAR, promise=rank + 1, now=place.now)
    assert place.dodag.lowest == rank
    assert not asked_of(place, 600.0)
    # Bound by less than makes a difference it does not ask either.
    place.hear(P, NEAR + 3 * UNIT + 3 * UNIT // 4)
    assert place.dodag.lowest < place.dodag.rank
    assert not asked_of(place, 600.0)


def test_who_is_asked_says_what_it_promises_or_that_it_is_no_child(place: Place) -> None:
    place.hear(X, NEAR)
    place.asked()
    place.dodag.tell_promise(P, now=place.now)
    assert place.asked() == [(Act.REGISTER, P)]
    place.dodag.tell_promise(X, now=place.now)
    assert place.asked() == [(Act.LEAVE, X)]
    place.dodag.tell_promise(Y, now=place.now)  # Of whom nothing is known.
    assert place.asked() == []
    # Who is being asked to be the parent hears of it by that.
    place.hear(P, INFINITE_RANK)
    assert place.asked() == [(Act.REGISTER, X)]
    place.dodag.tell_promise(X, now=place.now)
    assert place.asked() == []


def test_a_child_that_left_without_a_word_lets_go_when_it_is_asked() -> None:
    world = World(2, profile="lab")
    for one, other in ((1, 2), (1, 3), (2, 4), (3, 4)):
        world.link(one, other)
    world.start()
    world.run(120.0, until=lambda: not world.orphans() and not world.unrouted())
    relay = world.path_up(4)[1]
    node, child = world.nodes[relay], world.nodes[relay].dodag.neighbours.get(eui(4))
    assert child is not None
    assert child.child_until > world.now
    # The relay is not heard while 4 looks for another parent.
    world.link(relay, 4, 0.0)
    for number in range(100):
        world.send(4, b"x%d" % number)
        world.run(1.0)
        if world.path_up(4)[1:2] == [5 - relay]:
            break
    world.run(60.0)
    assert world.path_up(4) == [4, 5 - relay, 1]
    assert child.child_until > world.now
    lowest = node.dodag.lowest
    # Its own link grows poor: its rank is bound by what 4 promised once.
    world.link(1, relay, 0.4)
    for number in range(400):
        world.send(relay, b"y%d" % number)
        world.run(1.0)
        if node.dodag.rank >= lowest + UNIT:
            break
    world.link(relay, 4)
    world.run(600.0, until=lambda: node.dodag.lowest > lowest)
    assert child.child_until == 0.0
    assert node.dodag.lowest > lowest


def test_who_is_refused_hears_so_and_takes_the_link_for_no_worse() -> None:
    world = World(3, profile="lab")
    for one, other in ((1, 2), (1, 3), (2, 4), (3, 4), (2, 3)):
        world.link(one, other)
    world.start()
    world.run(300.0, until=lambda: not world.orphans() and not world.unrouted())
    world.run(60.0)
    first = world.path_up(4)[1]
    node, other = world.nodes[4], world.nodes[5 - first]
    row = node.dodag.neighbours.get(eui(5 - first))
    assert row is not None
    before, frames = row.metric.etx, row.metric.frames
    # As if its own parent had a rank that 4 knows nothing of.
    place = other.dodag.place
    place.promised = place.lowest = 5000
    marks: list[RplMark] = []
    take = node._control.is_refusal
    node._control = _Watched(node._control, take, marks)  # type: ignore[assignment]
    node.dodag._parenting._register(row, world.now)
    world.touch(4)
    world.run(1.0)
    assert marks == [RplMark(5000, has_rank_error=True)]
    assert world.path_up(4)[1] == first
    assert other.dodag.counters["child of an old rank"] >= 1
    assert node.dodag.counters["refused"] == 1
    assert node.dodag.place.pending is None
    assert row.metric.frames == frames + 1
    assert row.metric.failures_in_a_row == 0
    assert row.metric.etx <= before + 1.0
    assert row.denied_until <= world.now < row.refused_until


class _Watched:
    """A node's link control that writes down the marks of refusals."""

    def __init__(self, control: object, is_refusal: object, marks: list[RplMark]) -> None:
        self._control = control
        self._is_refusal = is_refusal
        self._marks = marks

    def __getattr__(self, name: str) -> object:
        return getattr(self._control, name)

    def is_refusal(self, packet: object, heard: object) -> bool:
        is_one = bool(self._is_refusal(packet, heard))  # type: ignore[operator]
        if is_one:
            self._marks.append(packet.rpl)  # type: ignore[attr-defined]
        return is_one


def test_one_that_is_much_better_must_be_so_for_a_while_once_others_count_on_us(
    place: Place,
) -> None:
    place.dodag.note_root(1, now=place.now)
    place.hear(P, NEAR + 6 * UNIT)
    place.hear(X, NEAR)
    for _ in range(4):
        place.answer(X, Act.PROBE)
    wait = WAVE_SHARE * PROFILE.parents.switch_time
    assert (Act.REGISTER, X) not in place.asked()
    place.wait(0.7 * wait)
    assert (Act.REGISTER, X) not in place.asked()
    place.wait(0.6 * wait)
    assert (Act.REGISTER, X) in place.asked()


def test_one_that_is_better_for_a_moment_changes_nothing(place: Place) -> None:
    place.dodag.note_root(1, now=place.now)
    for _ in range(4):
        place.hear(X, NEAR + UNIT)
        place.answer(X, Act.PROBE)
    place.asked()
    wait = WAVE_SHARE * PROFILE.parents.switch_time
    for _ in range(10):
        # The ranks of all go up and down together, a little apart.
        place.hear(P, NEAR + 6 * UNIT)
        place.wait(0.4 * wait)
        place.hear(X, NEAR + 7 * UNIT)
        place.wait(0.4 * wait)
        place.hear(P, NEAR)
        place.hear(X, NEAR + UNIT)
        place.wait(0.4 * wait)
    assert (Act.REGISTER, X) not in place.asked()
    assert place.parent() == P


@pytest.mark.parametrize(("has_child", "is_asked"), [(True, False), (False, True)])
def test_a_long_way_round_is_taken_by_a_relay_only_when_its_parent_is_dead(
    place: Place, *, has_child: bool, is_asked: bool
) -> None:
    if has_child:
        place.dodag.take_child(C, 12, FAR, promise=place.dodag.lowest + 1, now=place.now)
    place.hear(P, NEAR)
    row = place.dodag.neighbours.get(X)
    place.hear(X, place.dodag.lowest - 1)
    row = place.dodag.neighbours.get(X)
    assert row is not None
    row.metric.etx = 3.5
    place.asked()
    for _ in range(PROFILE.parents.failures_max):
        place.answer(P, Act.PROBE, is_acknowledged=False)
    assert ((Act.REGISTER, X) in place.asked()) is is_asked
    place.fail(P, 8.0)
    place.answer(X, Act.DIO_TO)
    assert (Act.REGISTER, X) in place.asked() or is_asked


def test_who_fell_below_its_promise_while_it_asked_does_not_take_the_parent(place: Place) -> None:
    place.hear(P, NEAR + 6 * UNIT)
    place.hear(X, NEAR + 3 * UNIT)
    for _ in range(4):
        place.answer(X, Act.PROBE)
    assert (Act.REGISTER, X) in place.asked()
    row = place.dodag.neighbours.get(X)
    assert row is not None
    promise = place.dodag.place.promise(row)
    # Its own parent is near again, and was promised no more than that.
    place.hear(P, NEAR)
    assert place.dodag.lowest < promise
    place.answer(X, Act.REGISTER)
    assert place.parent() == P
    assert place.dodag.counters["parent withdrew"] == 1


def test_what_is_offered_to_one_that_is_asked_binds_as_if_it_were_the_parent(place: Place) -> None:
    place.hear(P, NEAR + 6 * UNIT)
    place.hear(X, NEAR + 3 * UNIT)
    for _ in range(4):
        place.answer(X, Act.PROBE)
    row = place.dodag.neighbours.get(X)
    assert row is not None
    assert place.dodag.place.pending is row
    promise = place.dodag.place.promise(row)
    assert not place.dodag.take_child(C, 12, FAR, promise=promise, now=place.now)
    assert place.dodag.take_child(C, 12, FAR, promise=promise + 1, now=place.now)
    place.answer(X, Act.REGISTER)
    assert place.parent() == X


@pytest.mark.parametrize(("after", "is_over"), [(HOLD_TIME - 0.1, False), (HOLD_TIME, True)])
def test_those_below_wait_no_longer_than_that_for_somebody_who_takes_us(
    place: Place, after: float, *, is_over: bool
) -> None:
    lowest = place.dodag.lowest
    place.dodag.take_child(C, 12, FAR, promise=lowest + 1, now=place.now)
    place.hear(X, lowest)
    place.hear(Y, lowest + UNIT)
    place.hear(P, INFINITE_RANK)
    assert place.asked() == [(Act.REGISTER, X)]
    place.wait(after)
    place.answer(X, Act.REGISTER, is_acknowledged=False)
    assert (place.dodag.state is State.DETACHED) is is_over
    asked = place.asked()
    assert ((Act.REGISTER, Y) in asked) is not is_over
    assert ((Act.POISON, C) in asked) is is_over


@pytest.mark.parametrize(
    ("hops", "gain", "is_asked"), [(8, 2.0, True), (36, 2.0, False), (36, 6.0, True)]
)
def test_far_from_the_root_it_takes_more_to_make_a_difference(
    hops: int, gain: float, *, is_asked: bool
) -> None:
    place = Place()
    place.join(P, hops * UNIT)
    place.asked()
    row = place.dodag.neighbours.get(P)
    assert row is not None
    rank = place.dodag.path_rank(row) - int(gain * UNIT) - UNIT
    for _ in range(10):
        place.hear(X, rank)
        place.answer(X, Act.PROBE)
    other = place.dodag.neighbours.get(X)
    assert other is not None
    other.metric.etx = 1.0
    place.hear(X, rank + 1)
    assert ((Act.REGISTER, X) in place.asked()) is is_asked


def test_a_link_that_failed_twice_is_not_tried_for_a_while_in_the_hope_of_a_better_parent(
    place: Place,
) -> None:
    place.hear(P, NEAR + 6 * UNIT)
    place.hear(X, NEAR)

    def is_tried(seconds: float) -> bool:
        is_tried, end = False, place.now + seconds
        while place.now < end:
            place.wait(1.0)
            place.hear(X, NEAR)
            is_tried = is_tried or (Act.PROBE, X) in place.asked()
        return is_tried

    assert is_tried(EXPLORE_INTERVAL_HOPE)
    for _ in range(2):
        place.answer(X, Act.PROBE, is_acknowledged=False)
    row = place.dodag.neighbours.get(X)
    assert row is not None
    row.metric.etx = 2.0
    row.below_until = place.now + 1e6  # No parent, so that no other rule tries it.
    place.hear(X, NEAR)
    place.dodag._parenting._gather(place.now)
    place.asked()
    assert not is_tried(REST_TIME - 2.0)
    assert is_tried(2 * EXPLORE_INTERVAL_HOPE)


@pytest.mark.parametrize(("to_parent", "attempts"), [(False, PROBE_ATTEMPTS), (True, 5)])
def test_a_link_that_is_only_tried_gets_fewer_attempts(*, to_parent: bool, attempts: int) -> None:
    world = World(4, profile="lab")
    for one, other in ((1, 2), (1, 3), (2, 3)):
        world.link(one, other)
    world.start()
    world.run(120.0, until=lambda: not world.orphans() and not world.unrouted())
    world.run(30.0)
    node = world.nodes[3]
    other = 1 if to_parent else 2
    assert (node.preferred_parent == eui(other)) is to_parent
    told: list[int] = []
    note = node.dodag.note_attempts

    def note_attempts(who: bytes, count: int, act: Act | None, **more: Any) -> None:
        if act is Act.PROBE and who == eui(other):
            told.append(count)
        note(Eui64(who), count, act, **more)

    node.dodag.note_attempts = note_attempts  # type: ignore[method-assign, assignment]
    world.link(other, 3, 0.0, 1.0)
    node.dodag.place.ask(Act.PROBE, eui(other))
    node.handle_timer(now=world.now)
    world.touch(3)
    world.run(3.0)
    assert told[0] == attempts
