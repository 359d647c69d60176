"""What a head-end asks and orders: probes, traces, commands.

The contract under test: every question has one answer, over the way that was asked; every command
is done or refused, and said to be.
"""

from __future__ import annotations

from amistack.framing import Priority
from mesh.backhaul import (
    Command,
    CommandDone,
    Down,
    Forget,
    Order,
    Outcome,
    Probe,
    Probed,
    RouteGone,
    TableBegin,
    Trace,
    Traced,
    Up,
    What,
    Why,
)
from mesh.reports import Reason
from tests.mesh.collector.world import (
    CollectorWorld,
    HeadEnd,
    connected,
    fates,
)
from tests.mesh.routing.medium import eui

# Probes and traces


def test_a_probe_is_answered_with_its_time_and_hops() -> None:
    world, head_end = connected()
    for request, relays in ((1, None), (2, (2, 3))):
        world.say(Probe(request, 4, relays))
        world.run(5.0)
    first, second = head_end.of(Probed)
    assert (first.request, first.outcome, first.hops) == (1, Outcome.ANSWERED, 3)
    assert (second.request, second.outcome, second.hops) == (2, Outcome.ANSWERED, 3)
    assert 20 <= first.round_trip_ms <= 1000


def test_a_probe_to_the_collector_itself_needs_no_mesh() -> None:
    world, head_end = connected(2)
    world.say(Probe(1, 1))
    world.run(1.0)
    assert head_end.of(Probed) == [Probed(1, Outcome.ANSWERED, 0)]


def test_a_probe_to_another_collector_goes_through_the_mesh() -> None:
    world = CollectorWorld(4, roots=(1, 5))
    world.line(5)
    world.start()
    world.run(400.0, until=lambda: not world.orphans() and not world.unrouted())
    world.run(60.0)
    head_end = world.connect()  # The other one has no backhaul.
    world.run(1.0)
    world.say(Probe(1, 5, (2, 3, 4)))
    world.run(10.0)
    (probed,) = head_end.of(Probed)
    assert (probed.outcome, probed.hops) == (Outcome.ANSWERED, 4)


def test_a_probe_that_cannot_go_on_says_after_how_many_hops() -> None:
    world, head_end = connected()
    world.cut(3, 4)
    world.say(Probe(1, 5, (2, 3, 4)))
    world.run(20.0)
    assert head_end.of(Probed) == [Probed(1, Outcome.LOST_AFTER, 2)]
    world.cut(1, 2)
    world.say(Probe(2, 2, ()))
    world.run(20.0)
    assert head_end.of(Probed)[1] == Probed(2, Outcome.LOST_AFTER, 0)


def test_a_probe_that_nobody_answers_ends_with_its_deadline() -> None:
    world, head_end = connected()
    for _ in range(16):
        world.station(5)._answers.take()  # It has answered too many already.
    world.say(Probe(1, 5, (2, 3, 4), deadline=3))
    world.run(2.9)
    assert head_end.of(Probed) == []
    world.run(0.3)
    assert [probed.outcome for probed in head_end.of(Probed)] == [Outcome.NO_ANSWER]


def test_without_a_way_a_probe_is_not_sent() -> None:
    world, head_end = connected(3)
    world.say(Probe(1, 99))
    world.say(Probe(2, 3, (1, 2)))  # by way of the collector itself
    world.say(Trace(3, 99))
    world.run(1.0)
    assert [probed.outcome for probed in head_end.of(Probed)] == [Outcome.NOT_SENT] * 2
    assert head_end.of(Traced) == [Traced(3, ())]


def test_a_trace_asks_each_node_of_the_way() -> None:
    world, head_end = connected()
    world.say(Trace(1, 5))
    world.run(20.0)
    (traced,) = head_end.of(Traced)
    assert [row.node for row in traced.rows] == [2, 3, 4, 5]
    assert {row.outcome for row in traced.rows} == {Outcome.ANSWERED}
    times = [row.round_trip_ms for row in traced.rows]
    assert times[0] < times[-1]
    # Each was told before, and the end came last.
    rows = head_end.of(Probed)
    assert [(row.request, row.hops, row.round_trip_ms) for row in rows] == [
        (1, hops, time) for hops, time in enumerate(times, start=1)
    ]
    assert [one for _, one in head_end.heard if isinstance(one, Probed | Traced)][-1] is traced


def test_a_trace_ends_where_a_hop_cannot_be_made() -> None:
    world, head_end = connected()
    world.cut(3, 4)
    world.say(Trace(1, 5, (2, 3, 4), deadline=60))
    world.run(60.0)
    (traced,) = head_end.of(Traced)
    assert [(row.node, row.outcome) for row in traced.rows] == [
        (2, Outcome.ANSWERED),
        (3, Outcome.ANSWERED),
        (4, Outcome.LOST_AFTER),
    ]


# Commands


def test_commands_are_done_and_answered() -> None:
    world, head_end = connected(3)
    world.say(Command(1, Order.BUMP_VERSION))
    world.say(Command(2, Order.ASK_FOR_ROUTES))
    world.say(Command(3, Order.SEND_TABLE))
    world.run(30.0)
    done = {message.request: message for message in head_end.of(CommandDone)}
    assert done == {
        1: CommandDone(1, is_done=True, value=241),
        2: CommandDone(2, is_done=True, value=2),
        3: CommandDone(3, is_done=True, value=2),
    }
    assert world.disks[1].version == 241
    assert {world.nodes[short].dodag.version for short in (1, 2, 3)} == {241}
    assert [begin.stream for begin in head_end.of(TableBegin)] == [1, 2]


def test_asked_for_routes_everybody_tells_its_parents_again() -> None:
    world, head_end = connected()
    before = head_end.table()
    world.run(30.0)
    world.say(Command(1, Order.ASK_FOR_ROUTES))
    world.run(60.0)
    after = head_end.table()
    assert all(after[target].path_sequence != before[target].path_sequence for target in before)


def test_forget_takes_a_row_away_unless_ours_is_newer() -> None:
    world, head_end = connected(3)
    row = head_end.table()[3]
    world.say(Forget(3, row.path_sequence - 1))
    world.run(1.0)
    assert 3 in head_end.table()
    world.say(Forget(3, row.path_sequence + 1))
    world.run(1.0)
    assert head_end.of(RouteGone) == [RouteGone(3, row.path_sequence, Why.FORGOTTEN)]
    assert 3 not in world.disks[1].rows


def test_rows_whose_time_is_over_are_gone_everywhere() -> None:
    world, head_end = connected(3)
    world.kill(3)
    life = world.profile.dodag.lifetime * world.profile.dodag.lifetime_unit
    world.run(life + 70.0)
    assert set(head_end.table()) == {2}
    assert RouteGone in {type(message) for _, message in head_end.heard}
    assert set(world.disks[1].rows) == {2}


def test_who_is_denied_is_out_wherever_it_is_and_after_a_restart_too() -> None:
    """Node 2 is the collector's neighbour, node 4 hangs below it and below 3."""
    world = CollectorWorld(5)
    for one, other in ((1, 2), (1, 3), (2, 4), (3, 4)):
        world.link(one, other)
    world.start()
    world.run(300.0, until=lambda: not world.orphans() and not world.unrouted())
    head_end = world.connect()
    world.run(1.0)
    world.say(Command(1, Order.DENY, eui(2), 2))
    world.say(Command(2, Order.DENY, eui(4), 4))
    world.run(1.0)
    assert [done.is_done for done in head_end.of(CommandDone)] == [True, True]
    world.kill(1)
    world.start(1)
    head_end = world.connect()
    world.run(60.0)
    count = len(head_end.of(Up))
    for short in (2, 3, 4):
        world.send(short, b"let me in")
    world.run(20.0)
    assert {up.source for up in head_end.of(Up)[count:]} == {3}
    assert set(head_end.table()) == {3}
    assert world.collector().counters["dropped: denied"] >= 1  # of 4, by way of 3
    assert world.collector().station.node.counters["denied"] >= 1  # of 2

    for node in (2, 4):
        world.say(Command(node, Order.ALLOW, eui(node), node))
    world.run(900.0)
    world.send(4, b"again")
    world.run(5.0)
    assert head_end.of(Up)[-1].source == 4
    assert set(head_end.table()) == {2, 3, 4}


def denying(*nodes: int) -> tuple[CollectorWorld, HeadEnd]:
    """A line of five; the others believe that nothing has changed, as a head-end may."""
    world, head_end = connected()
    for node in nodes:
        world.say(Command(100 + node, Order.DENY, eui(node), node))
    world.run(1.0)
    return world, head_end


def test_nothing_is_sent_to_who_is_denied_nor_over_it() -> None:
    world, head_end = denying(4)
    for request, destination, relays in (
        (1, 4, (2, 3)),
        (2, 4, None),
        (3, 5, (2, 3, 4)),
        (4, 5, None),
        (5, 3, (2,)),
    ):
        world.say(Down(request, destination, 0, Priority.ON_DEMAND, b"?", relays=relays))
        world.run(5.0)
    assert [fates(head_end, request) for request in (1, 2, 3, 4)] == [[What.NO_ROUTE]] * 4
    assert fates(head_end, 5) == [What.QUEUED, What.SENT]
    assert not world.delivered(4, 0)
    assert not world.delivered(5, 0)
    assert world.collector().counters["refused: denied"] == 3
    assert len(world.collector().requests) == 1  # The one that was sent.


def test_no_probe_and_no_trace_goes_to_who_is_denied_nor_over_it() -> None:
    world, head_end = denying(4)
    world.say(Probe(1, 4, (2, 3)))
    world.say(Probe(2, 5, (2, 3, 4)))
    world.say(Probe(3, 4))
    world.say(Probe(4, 3, (2,)))
    world.say(Trace(5, 4, (2, 3)))
    world.say(Trace(6, 3, (2,)))
    world.run(20.0)
    assert sorted((one.request, one.outcome, one.hops) for one in head_end.of(Probed)) == [
        (1, Outcome.NOT_PASSED, 0),
        (2, Outcome.NOT_PASSED, 0),
        (3, Outcome.NOT_PASSED, 0),
        (4, Outcome.ANSWERED, 2),
        (6, Outcome.ANSWERED, 1),
        (6, Outcome.ANSWERED, 2),
    ]
    refused, traced = head_end.of(Traced)
    assert refused == Traced(5, ())
    assert [row.node for row in traced.rows] == [2, 3]
    world.say(Command(99, Order.ALLOW, eui(4), 4))
    world.say(Probe(7, 4, (2, 3)))
    world.run(10.0)
    assert head_end.of(Probed)[-1].outcome is Outcome.ANSWERED


def test_an_answer_that_is_under_way_when_a_node_is_denied_is_none() -> None:
    world, head_end = connected()
    world.say(Probe(1, 4, (2, 3), deadline=5))
    world.say(Command(2, Order.DENY, eui(4), 4))
    world.run(10.0)
    assert [one.outcome for one in head_end.of(Probed)] == [Outcome.NO_ANSWER]
    assert world.collector().counters["dropped: denied"] >= 1


def test_what_waits_of_who_is_denied_is_not_passed_up() -> None:
    world, _ = connected()
    world.disconnect()
    world.nodes[4].send(b"alarm", priority=Priority.ALARM, now=world.now)
    world.touch(4)
    world.run(5.0)
    assert world.collector().held.alarm_count == 1
    world.collector().keep_out(eui(4), 4, is_denied=True)
    head_end = world.connect()
    world.run(5.0)
    assert 4 not in {up.source for up in head_end.of(Up)}
    assert not len(world.collector().held)


def test_the_last_report_of_who_is_denied_is_not_passed_up() -> None:
    world, _ = connected()
    world.run(1_200.0)  # All have reported by then.
    world.disconnect()
    for short in (3, 4):
        world.nodes[short].report(Reason.ADDRESS_CHANGED, now=world.now)
        world.touch(short)
    world.run(5.0)
    held = world.collector().held
    assert (len(held), held.alarm_count) == (2, 0)
    world.collector().keep_out(eui(4), 4, is_denied=True)
    head_end = world.connect()
    world.run(5.0)
    assert {up.source for up in head_end.of(Up)} == {3}
    assert not len(held)


def test_a_collector_does_not_deny_itself() -> None:
    world, head_end = connected()
    world.say(Command(1, Order.DENY, eui(1), 1))
    world.say(Probe(2, 3, (2,)))
    world.run(10.0)
    assert head_end.of(CommandDone) == [CommandDone(1, is_done=False)]
    assert [one.outcome for one in head_end.of(Probed)] == [Outcome.ANSWERED]
    assert not len(world.collector().denials)
