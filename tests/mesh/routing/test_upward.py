"""Up the tree from one node: whom a packet is tried with, and which parents the root is told.

The contract under test: a control packet is tried with two neighbours and then given up, one of the
meters' own with every parent there is; a parent is told that acknowledges, and at once where the
root has no other way; one alternate for another that is as good is no news; what is sent again,
since nobody answered, begins with the next parent.
"""

from __future__ import annotations

import pytest

from amistack.framing import Priority
from mesh.packet import Packet, PacketKind, RplMark, ShortAddress
from mesh.routing.core import MUCH_WORSE_ETX, Core
from mesh.routing.downward import Downward
from mesh.routing.jobs import Job, Way
from mesh.routing.neighbours import Neighbour
from mesh.routing.node import MeshNode
from mesh.routing.outbox import Outbox
from mesh.routing.telling import LATER_DELAY
from mesh.routing.upward import CONTROL_HOPS_MAX, Upward
from mesh.security import Received
from tests.mesh.routing.medium import World, eui, short_of


class Lowest:
    """The last node of a small mesh in which three hear it that are nearer to the root."""

    def __init__(self) -> None:
        world = self.world = World(1)
        for relay in (2, 3, 4):
            world.link(1, relay)
            world.link(relay, 5)
        world.start()
        world.run(300.0, until=lambda: len(world.nodes[5].dodag.parents) == 3)
        self.now = world.now
        self.node: MeshNode = world.nodes[5]
        self.core = Core(
            self.node.own,
            self.node.short,
            self.node.seal,
            world.profile,
            world.chance,
            dodag=self.node.dodag,
            dao=self.node.dao,
            routes=None,
        )
        self.outbox = Outbox(self.core)
        self.upward = Upward(self.core, self.outbox, Downward(self.core, self.outbox))

    def known(self) -> tuple[Neighbour, Neighbour, Neighbour]:
        """Its parents, all tried, once the root knows of it."""
        self.world.run(600.0, until=lambda: self.node.dao.is_acknowledged)
        first, second, third = self.node.dodag.parents
        for row in (second, third):
            row.metric.note_attempts(1, is_acknowledged=True, now=self.world.now)
        return first, second, third

    def tries(self, job: Job) -> int:
        """With how many neighbours the job is tried, none of whom takes it."""
        count = 0
        while (row := self.upward.next_hop(job, self.now)) is not None:
            assert row.eui not in job.tried
            job.tried.add(row.eui)
            count += 1
        return count


@pytest.fixture
def lowest() -> Lowest:
    return Lowest()


def job(kind: PacketKind) -> Job:
    packet = Packet(
        kind, Priority.CONTROL, ShortAddress(9), ShortAddress(0), b"x", 9, RplMark(2000)
    )
    return Job(Way.UP, packet, 0.0)


@pytest.mark.parametrize("kind", [PacketKind.RPL, PacketKind.ROUTE_ERROR])
@pytest.mark.parametrize("is_passed_on", [False, True])
def test_control_is_tried_with_two_neighbours_and_no_third(
    lowest: Lowest, kind: PacketKind, *, is_passed_on: bool
) -> None:
    told = job(kind)
    if is_passed_on:
        told.came_from = eui(9)
        told.tried.add(eui(9))
    assert lowest.tries(told) == CONTROL_HOPS_MAX
    assert lowest.core.counters["lost: tried enough"] == 1
    assert len(lowest.outbox) == 0


@pytest.mark.parametrize("kind", [PacketKind.COAP, PacketKind.TOPOLOGY])
def test_what_nobody_repeats_is_tried_with_all_and_then_waits(
    lowest: Lowest, kind: PacketKind
) -> None:
    assert lowest.tries(job(kind)) == len(lowest.node.dodag.parents) == 3
    assert lowest.core.counters["lost: tried enough"] == 0
    assert len(lowest.outbox) == 1


def test_a_parent_that_failed_last_comes_after_those_that_did_not(lowest: Lowest) -> None:
    first, second, third = lowest.node.dodag.parents
    first.metric.failures_in_a_row = 1
    assert lowest.upward.next_hop(job(PacketKind.COAP), lowest.now) is second
    for row in (second, third):
        row.metric.failures_in_a_row = 1
    assert lowest.upward.next_hop(job(PacketKind.COAP), lowest.now) is first


@pytest.mark.parametrize(
    ("attempt", "order"), [(0, [0, 1, 2]), (1, [1, 2, 0]), (2, [2, 0, 1]), (3, [0, 1, 2])]
)
def test_what_is_sent_again_begins_with_the_next_parent(
    lowest: Lowest, attempt: int, order: list[int]
) -> None:
    parents = lowest.node.dodag.parents
    again = job(PacketKind.COAP)
    again.turn = attempt
    for place in order:
        row = lowest.upward.next_hop(again, lowest.now)
        assert row is parents[place]
        again.tried.add(row.eui)
    assert lowest.upward.next_hop(again, lowest.now) is None
    # One that failed last comes after the others still.
    parents[order[0]].metric.failures_in_a_row = 1
    again = job(PacketKind.COAP)
    again.turn = attempt
    assert lowest.upward.next_hop(again, lowest.now) is parents[order[1]]


def test_who_has_one_parent_sends_it_to_that_again(lowest: Lowest) -> None:
    first = lowest.node.dodag.parents[0]
    lowest.node.dodag.place.parents = (first,)
    again = job(PacketKind.COAP)
    again.turn = 1
    assert lowest.upward.next_hop(again, lowest.now) is first


def test_a_repetition_goes_around_a_relay_that_takes_packets_and_passes_none_on(
    lowest: Lowest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It acknowledges every frame: the node itself cannot know."""
    world = lowest.world
    relay = short_of(lowest.node.preferred_parent or eui(0))
    pass_on, swallowed = Outbox.pass_on, []

    def swallow(outbox: Outbox, job: Job, kind: int) -> bool:
        if outbox is not world.nodes[relay]._outbox or kind != PacketKind.COAP:
            return pass_on(outbox, job, kind)
        swallowed.append(job.packet)
        return True

    monkeypatch.setattr(Outbox, "pass_on", swallow)
    for attempt in range(3):
        assert world.send(5, b"alarm", attempt=attempt)
        world.run(2.0)
    assert len(swallowed) == 1
    assert [event.payload for _, short, event in world.received if short == 1] == [b"alarm"] * 2


def test_a_packet_is_tried_with_one_sibling_that_is_not_below_us(lowest: Lowest) -> None:
    node = lowest.node
    first, second, third = node.dodag.parents
    for row in (second, third):
        row.rank = node.rank
    node.dodag.place.parents = (first,)
    below = job(PacketKind.COAP)
    assert lowest.tries(below) == 2
    assert lowest.core.counters["sent to a sibling"] == 1
    second.below_until = third.below_until = lowest.now + 10.0
    assert lowest.tries(job(PacketKind.COAP)) == 1
    assert lowest.core.counters["sent to a sibling"] == 1


def test_a_packet_never_goes_back_where_it_came_from(lowest: Lowest) -> None:
    first, second, third = lowest.node.dodag.parents
    packet = job(PacketKind.COAP).packet
    assert packet is not None
    mark = packet.rpl
    assert mark is not None
    heard = Received(third.eui, b"", 0, 0, b"", is_broadcast=False, wants_ack=True, is_fresh=True)
    assert lowest.upward.take(packet, mark, heard, lowest.now)
    passed_on = lowest.outbox.take(lowest.now)
    assert passed_on is not None
    for _ in range(2):
        assert lowest.tries(passed_on) == 2
        # It waits for a way, and then is tried with all of them again.
        assert passed_on.tried == {third.eui}
    assert {first.eui, second.eui}.isdisjoint(passed_on.tried)


def test_the_root_is_told_of_parents_that_acknowledge(lowest: Lowest) -> None:
    first, second, third = lowest.node.dodag.parents
    for row in (second, third):
        row.metric.note_attempts(1, is_acknowledged=True, now=lowest.now)
    assert lowest.core.parents_to_tell() == (first.short, second.short, third.short)
    second.metric.note_attempts(5, is_acknowledged=False, now=lowest.now)
    assert lowest.core.parents_to_tell() == (first.short, third.short)
    # Nor one that was only heard.
    second.metric.failures_in_a_row = second.metric.samples = 0
    assert lowest.core.parents_to_tell() == (first.short, third.short)
    # The preferred one took us as its child: it is told until it is left.
    first.metric.note_attempts(5, is_acknowledged=False, now=lowest.now)
    assert lowest.core.parents_to_tell() == (first.short, third.short)


@pytest.mark.parametrize(
    ("what", "is_urgent"),
    [
        ("another is preferred", False),
        ("it is no parent any more", False),
        ("it does not acknowledge", True),
        ("it was never tried", True),
        ("it lost its ground", True),
        ("nobody remembers it", True),
        ("nothing was told", True),
    ],
)
def test_the_root_must_know_at_once_only_if_the_way_that_it_knows_leads_nowhere(
    lowest: Lowest, what: str, *, is_urgent: bool
) -> None:
    node, world = lowest.node, lowest.world
    _, second, _ = lowest.known()
    node.dao.stop()
    node.dao.told = (second.short,)
    match what:
        case "it is no parent any more":
            second.rank = node.rank + 100
            node.dodag._parenting._gather(world.now)
            assert second not in node.dodag.parents
        case "it does not acknowledge":
            second.metric.note_attempts(5, is_acknowledged=False, now=world.now)
        case "it was never tried":
            second.metric.samples = 0
        case "it lost its ground":
            second.is_grounded = False
        case "nobody remembers it":
            node.dodag.neighbours.forget(second)
        case "nothing was told":
            node.dao.told = ()
        case _:
            pass
    lowest.core.tell_root(world.now)
    wait = node.dao.deadline - world.now
    # At first that is DAO_DELAY; those when it started made it longer.
    assert (wait <= 8 * world.profile.routes.dao_delay) is is_urgent
    assert is_urgent or LATER_DELAY / 2 <= wait <= LATER_DELAY


@pytest.mark.parametrize(
    ("what", "is_told"),
    [
        ("another alternate", False),
        ("another alternate, and the root asks", True),
        ("another alternate, and nothing is due", True),
        ("one more than was told", True),
        ("another is preferred", True),
        ("one that was told does not acknowledge", True),
        ("one that was told is forgotten", True),
        ("one that was told is much worse", True),
    ],
)
def test_other_alternates_as_good_as_those_told_wait_until_all_is_told_again(
    lowest: Lowest, what: str, *, is_told: bool
) -> None:
    node, world = lowest.node, lowest.world
    first, second, third = lowest.known()
    node.dao.deadline = due = world.now + 3600.0
    # The set is the first and the second now, and was the first and the third.
    node.dodag.place.parents = (first, second)
    node.dao.told = (first.short, third.short)
    match what:
        case "another alternate, and nothing is due":
            # What was due came when it had no parent: nobody would ever tell.
            node.dao.stop()
        case "one more than was told":
            node.dodag.place.parents = (first, second, third)
        case "another is preferred":
            node.dodag.place.parents = (second, first)
        case "one that was told does not acknowledge":
            third.metric.note_attempts(5, is_acknowledged=False, now=world.now)
        case "one that was told is forgotten":
            node.dodag.neighbours.forget(third)
        case "one that was told is much worse":
            third.metric.etx = max(first.metric.etx, second.metric.etx) + MUCH_WORSE_ETX + 0.1
        case _:
            third.metric.etx = max(first.metric.etx, second.metric.etx) + MUCH_WORSE_ETX - 0.1
    lowest.core.tell_root(world.now, is_asked="asks" in what)
    assert (node.dao.deadline < due) is is_told
