"""What waits in a node: packets by priority, what the tree wants said, and each in its bound.

The contract under test: an act is said once for a neighbour however often it was asked for, before
packets, and never kept out by them; what is not done in time is told as not acknowledged.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.framing import Priority
from mesh.packet import Packet, PacketKind, RplMark, ShortAddress
from mesh.routing.acts import Act
from mesh.routing.core import Core
from mesh.routing.events import PacketLost
from mesh.routing.jobs import Job, Way
from mesh.routing.outbox import (
    ACT_COUNT_MAX,
    ACT_LIFE,
    JOB_LIFE,
    WAITING_COUNT_MAX,
    WAITING_TIME,
    Outbox,
)
from tests.mesh.routing.medium import World, eui


def outbox() -> tuple[Outbox, Core]:
    world = World(1).line(2)
    world.start(2)
    node = world.nodes[2]
    core = Core(
        node.own,
        node.short,
        node.seal,
        world.profile,
        world.chance,
        dodag=node.dodag,
        dao=node.dao,
        routes=None,
    )
    return Outbox(core), core


def packet(priority: Priority) -> Packet:
    kind = PacketKind.COAP
    return Packet(kind, priority, ShortAddress(2), ShortAddress(0), b"x", 9, RplMark(500))


def test_an_act_is_said_once_for_a_neighbour() -> None:
    box, _ = outbox()
    for _ in range(10):
        box.ask(Act.DIO, None, 0.0)
        box.ask(Act.PROBE, eui(1), 0.0)
    assert len(box) == 2
    acts = [box.take(0.0), box.take(0.0)]
    assert [job.act for job in acts if job is not None] == [Act.DIO, Act.PROBE]
    assert box.take(0.0) is None


def test_packets_of_others_keep_no_act_out() -> None:
    box, core = outbox()
    while box.put_or_count(Job(Way.UP, packet(Priority.CONTROL), 0.0)):
        pass
    assert core.counters["queue full"] == 1
    box.ask(Act.REGISTER, eui(1), 0.0)
    job = box.take(0.0)
    assert job is not None
    assert job.act is Act.REGISTER


def test_acts_have_a_bound() -> None:
    box, core = outbox()
    for short in range(1, ACT_COUNT_MAX + 3):
        box.ask(Act.PROBE, eui(short), 0.0)
    assert len(box) == ACT_COUNT_MAX
    assert core.counters["act given up"] == 2


def test_an_act_that_finds_no_free_channel_ends() -> None:
    box, core = outbox()
    box.ask(Act.PROBE, eui(1), 0.0)
    job = box.take(0.0)
    assert job is not None
    box.requeue(job, ACT_LIFE)
    assert box.take(ACT_LIFE) is job
    box.requeue(job, ACT_LIFE + 0.1)
    assert box.take(ACT_LIFE + 0.1) is None
    assert core.counters["act given up"] == 1


def test_to_ask_again_makes_no_act_younger() -> None:
    box, core = outbox()
    box.ask(Act.PROBE, eui(1), 0.0)
    box.ask(Act.PROBE, eui(1), ACT_LIFE - 1.0)
    job = box.take(ACT_LIFE)
    assert job is not None
    box.requeue(job, ACT_LIFE + 0.1)
    assert box.take(ACT_LIFE + 0.1) is None
    assert core.counters["act given up"] == 1


def test_of_those_that_wait_for_a_way_the_oldest_goes_first_and_each_in_time() -> None:
    box, core = outbox()
    for number in range(WAITING_COUNT_MAX + 3):
        box.wait(Job(Way.UP, packet(Priority.SCHEDULED), float(number)), 50.0)
    assert len(box) == WAITING_COUNT_MAX
    assert core.counters["lost: no way up"] == 3
    # The next three were born at 3, 4 and 5 s.
    box.handle_timer(5.0 + WAITING_TIME)
    assert core.counters["lost: no way up"] == 6
    assert box.deadline == 6.0 + WAITING_TIME
    box.release(60.0)
    taken = box.take(60.0)
    assert taken is not None
    assert taken.born == 6.0


def test_whose_own_packet_finds_no_room_again_hears_of_it() -> None:
    box, core = outbox()
    box.put(Job(Way.UP, packet(Priority.SCHEDULED), 0.0, is_own=True))
    own = box.take(0.0)
    assert own is not None
    while box.put_or_count(Job(Way.UP, packet(Priority.SCHEDULED), 0.0)):
        pass
    box.requeue(own, 1.0)
    (lost,) = (event for event in core.events if isinstance(event, PacketLost))
    assert (lost.payload, lost.reason) == (b"x", "queue full")


def test_an_old_packet_is_lost_and_not_sent() -> None:
    box, core = outbox()
    box.put(Job(Way.UP, packet(Priority.SCHEDULED), 0.0))
    box.put(Job(Way.UP, packet(Priority.SCHEDULED), 1.0))
    job = box.take(JOB_LIFE + 0.5)
    assert job is not None
    assert job.born == 1.0
    assert core.counters["lost: too old"] == 1


@pytest.mark.parametrize(("age", "is_sent"), [(120.0, True), (120.1, False)])
def test_a_packet_waits_two_minutes_for_the_radio_and_no_longer(
    age: float, *, is_sent: bool
) -> None:
    """In seconds: whoever waits for an answer has given up by then, or says it again."""
    box, core = outbox()
    box.put(Job(Way.UP, packet(Priority.SCHEDULED), 50.0))
    assert (box.take(50.0 + age) is not None) is is_sent
    assert core.counters["lost: too old"] == (not is_sent)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.sampled_from(list(Act)), st.integers(1, 200)),
            st.tuples(st.just("put"), st.sampled_from(list(Priority)), st.integers(0, 100)),
            st.tuples(st.just("take"), st.none(), st.integers(0, 100)),
        ),
        max_size=300,
    )
)
def test_no_order_of_calls_breaks_a_bound(calls: list[tuple[str, object, int]]) -> None:
    box, core = outbox()
    count_max = core.profile.links.queue_count_max
    for what, detail, number in calls:
        if what == "ask":
            assert isinstance(detail, Act)
            box.ask(detail, eui(number), float(number))
        elif what == "put":
            assert isinstance(detail, Priority)
            box.put_or_count(Job(Way.UP, packet(detail), float(number)))
        else:
            box.take(float(number))
        assert len(box) <= ACT_COUNT_MAX + len(Priority) * count_max
