"""A collector without its backhaul, and after a restart.

The contract under test: alarms outlive the backhaul, and nothing else does; the table outlives the
collector; the network hears of a backhaul that is gone for long.
"""

from __future__ import annotations

import pytest

from amistack.framing import Priority
from mesh.backhaul import Outcome, Probe, Probed, TableEnd, Up
from mesh.collector.collector import GROUND_GRACE_S
from mesh.collector.events import BackhaulChanged
from mesh.collector.held import HELD_COUNT_MAX
from mesh.collector.line import STREAM_AHEAD, TABLE_PRIORITY
from mesh.packet import PacketKind
from mesh.reports import LinkReport, Reason, TopologyReport
from mesh.routing.dao import Route
from mesh.routing.events import GroundChanged
from mesh.routing.trickle import NEVER
from tests.mesh.collector.world import (
    CollectorWorld,
    HeadEnd,
    connected,
    formed,
)

# Without a backhaul


def test_alarms_wait_for_the_backhaul_and_nothing_else_does() -> None:
    world, _ = connected(3)
    world.disconnect()
    world.run(1.0)
    for priority in (Priority.ALARM, Priority.SCHEDULED, Priority.ON_DEMAND):
        world.nodes[3].send(b"%d" % priority, priority=priority, now=world.now)
        world.touch(3)
    world.run(100.0)
    second = world.connect()
    world.run(1.0)
    held = [up for up in second.of(Up) if up.kind == PacketKind.COAP]
    assert [(up.source, up.priority, up.payload) for up in held] == [(3, Priority.ALARM, b"1")]
    assert 99 <= held[0].held <= 102
    assert world.collector().held.counters["dropped: no backhaul"] >= 2


def reports_of(head_end: HeadEnd, source: int) -> list[Up]:
    ups = head_end.of(Up)
    return [up for up in ups if up.kind == PacketKind.TOPOLOGY and up.source == source]


def test_the_last_report_of_each_node_waits_for_the_backhaul() -> None:
    world, first = connected(4)
    world.disconnect()
    world.run(1.0)
    for reason in (Reason.ASKED, Reason.ADDRESS_CHANGED):
        world.nodes[3].report(reason, now=world.now)
        world.touch(3)
        world.run(5.0)
    world.run(120.0)
    routes = world.collector().station.node.routes
    assert routes is not None
    for target in range(1_000, 1_000 + 3 * STREAM_AHEAD):
        routes.rows[target] = Route((1,), 240, NEVER)
    second = world.connect()
    world.run(30.0)
    (kept,) = reports_of(second, 3)
    report = TopologyReport.decode(kept.payload)
    before = [TopologyReport.decode(up.payload).sequence for up in reports_of(first, 3)]
    assert report.reason is Reason.ADDRESS_CHANGED
    assert report.sequence > max(before, default=-1)
    assert 120 <= kept.held <= 130
    # Behind the table, for nobody waits for it.
    priorities = {m: p for p, m in second.heard if m is kept}
    assert priorities[kept] is TABLE_PRIORITY
    kinds = [type(m) for _, m in second.heard]
    assert kinds.index(TableEnd) < [m for _, m in second.heard].index(kept)
    assert not len(world.collector().held)


def test_a_report_that_waits_gives_way_to_one_that_is_on_its_way() -> None:
    world, _ = connected(3)
    world.run(30.0)  # Its own nodes have reported by then.
    collector = world.collector()
    world.is_piped = False
    for number in range(300):  # The queue of what goes first is full.
        collector._send_up(Up(2, 0, Priority.CONTROL, b"%d" % number), world.now)
    collector._send_up(report_up(3, 1), world.now)
    assert len(collector.held) == 1
    world.is_piped = True
    world.pump(1)
    world.run(1.0)
    collector.held.put(report_up(3, 2), now=world.now)
    collector._send_up(report_up(3, 3), world.now)
    assert not len(collector.held)
    world.run(20.0)
    told = [TopologyReport.decode(up.payload).sequence for up in reports_of(world.head_ends[1], 3)]
    assert told[-2:] == [1, 3]


def test_reports_that_a_connection_took_with_it_come_by_the_next() -> None:
    world, _ = connected(3)
    world.run(30.0)  # Its own nodes have reported by then.
    world.is_piped = False
    world.collector()._send_up(report_up(2, 7), world.now)
    world.collector()._send_up(report_up(3, 8), world.now)
    world.disconnect()
    # Meanwhile one of them says more.
    world.collector()._send_up(report_up(3, 9), world.now)
    world.is_piped = True
    second = world.connect()
    world.run(15.0)
    for source, sequence in ((2, 7), (3, 9)):
        (up,) = reports_of(second, source)
        assert TopologyReport.decode(up.payload).sequence == sequence


def report_up(source: int, sequence: int) -> Up:
    report = TopologyReport(Reason.PERIODIC, sequence, 512, 1, (LinkReport(1, 128),))
    return Up(source, PacketKind.TOPOLOGY, Priority.CONTROL, report.encode())


def test_the_newest_alarms_are_kept() -> None:
    world = formed(3)
    for number in range(HELD_COUNT_MAX + 10):
        world.nodes[2].send(b"%d" % number, priority=Priority.ALARM, now=world.now)
        world.touch(2)
        world.run(1.0)
    head_end = world.connect()
    world.run(1.0)
    held = [int(up.payload) for up in head_end.of(Up) if up.kind == PacketKind.COAP]
    assert held == list(range(10, HELD_COUNT_MAX + 10))


def test_an_alarm_that_a_connection_took_with_it_comes_by_the_next() -> None:
    world, _ = connected(3)
    world.is_piped = False  # The connection is dead, and nobody knows it yet.
    world.nodes[3].send(b"fire", priority=Priority.ALARM, now=world.now)
    world.touch(3)
    world.run(10.0)
    world.disconnect()
    world.run(5.0)
    world.is_piped = True
    second = world.connect()
    world.run(1.0)
    assert [up.payload for up in second.of(Up) if up.kind == 0] == [b"fire"]


def test_alarms_that_find_a_full_queue_go_when_it_is_empty_again() -> None:
    world, head_end = connected(3)
    world.is_piped = False
    collector = world.collector()
    for number in range(300):
        collector._send_up(Up(2, 0, Priority.ALARM, b"%d" % number), world.now)
    assert len(collector.held) == 300 - 256
    collector._send_up(Up(2, 0, Priority.SCHEDULED, b"fits"), world.now)
    world.is_piped = True
    world.touch(1)
    world.run(15.0)
    alarms = [int(up.payload) for up in head_end.of(Up) if up.priority is Priority.ALARM]
    assert alarms == list(range(300))
    assert not len(collector.held)


def test_without_a_backhaul_the_collector_finds_its_own_ways() -> None:
    world = formed()
    world.collector().send(b"local", destination=5, priority=Priority.ON_DEMAND, now=world.now)
    world.touch(1)
    world.run(5.0)
    assert [event.payload for event in world.delivered(5, 0)] == [b"local"]


def test_its_coming_and_going_is_told_once() -> None:
    world, _ = connected(3)
    world.disconnect()
    world.run(1.0)
    world.connect()
    world.run(1.0)
    changes = [event.is_up for _, _, event in world.happened if isinstance(event, BackhaulChanged)]
    assert changes == [True, False, True]


def test_the_network_hears_of_a_lost_backhaul_but_not_of_a_short_break() -> None:
    world, _ = connected(4)

    def grounds() -> set[bool]:
        return {world.nodes[short].dodag.is_grounded for short in (2, 3, 4)}

    world.disconnect()
    world.run(GROUND_GRACE_S - 1.0)
    world.connect()
    world.run(60.0)
    assert not [event for _, _, event in world.happened if isinstance(event, GroundChanged)]
    world.disconnect()
    world.run(GROUND_GRACE_S - 1.0)
    assert grounds() == {True}
    world.run(30.0)
    assert grounds() == {False}
    world.connect()
    world.run(30.0)
    assert grounds() == {True}


def test_a_collector_that_starts_without_a_backhaul_says_so() -> None:
    world = CollectorWorld(1)
    world.line(3)
    world.start()
    world.run(GROUND_GRACE_S + 60.0)
    assert [world.nodes[short].dodag.is_grounded for short in (2, 3)] == [False, False]


# Restart


@pytest.mark.parametrize("profile", ["lab", "rfc8036"])
def test_after_a_restart_everybody_is_reachable_within_seconds_and_nobody_rejoined(
    profile: str,
) -> None:
    """The bound is 2 minutes. What takes the seconds: the collector learns its neighbours anew."""
    world = formed(5, profile=profile)
    world.connect()
    world.run(100.0)
    parents = {short: world.nodes[short].preferred_parent for short in (2, 3, 4, 5)}
    world.kill(1)
    world.run(30.0)
    detached = world.counters()["detached"]
    world.start(1)
    assert world.unrouted() == []
    head_end = world.connect()
    world.run(10.0)
    assert set(head_end.table()) == {2, 3, 4, 5}
    # Probes, not the table alone, say that it is true.
    for short in (2, 3, 4, 5):
        world.say(Probe(short, short))
    world.run(10.0)
    assert [probed.outcome for probed in head_end.of(Probed)] == [Outcome.ANSWERED] * 4
    assert {short: world.nodes[short].preferred_parent for short in parents} == parents
    assert {world.nodes[short].dodag.version for short in parents} == {240}
    assert world.counters()["detached"] == detached


def test_a_row_that_ended_while_it_was_off_is_none() -> None:
    world, _ = connected(3)
    world.kill(1, 2, 3)
    world.run(world.profile.dodag.lifetime * world.profile.dodag.lifetime_unit + 1.0)
    world.start(1)
    assert len(world.collector().table) == 0


def test_path_sequences_go_on_where_they_were() -> None:
    """A row from disk is newer than what a node said before: an old DAO does not replace it."""
    world, head_end = connected(3)
    before = head_end.table()[3].path_sequence
    world.kill(1)
    world.start(1)
    assert world.collector().station.node.routes is not None
    assert world.collector().station.node.routes.rows[3].path_sequence == before
