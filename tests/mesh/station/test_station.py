"""Stations: probes answered along their way, reports made when they are due.

The contract under test: an answer comes back over the way of its question or not at all; reports
reach the root with the hops of their node; nothing a neighbour sends makes a station raise.
"""

from __future__ import annotations

import dataclasses

import pytest

from amistack.errors import LocalProtocolError
from amistack.framing import Priority
from mesh.packet import PacketKind
from mesh.reports import BOOT_SPREAD_S, HOPS_UNKNOWN, Reason, TopologyReport
from mesh.routing.events import PacketLost, RouteFailed
from mesh.routing.node import WAITING_COUNT_MAX
from mesh.station.echo import Echo
from mesh.station.events import EchoAnswered, ReportMade
from mesh.station.station import WISH_INTERVAL_S, WISH_SPREAD_S
from tests.mesh.routing.medium import eui
from tests.mesh.station.world import StationWorld


def formed_line(count: int = 5, seed: int = 1) -> StationWorld:
    world = StationWorld(seed)
    world.line(count)
    world.start()
    world.run(300.0, until=lambda: not world.orphans() and not world.unrouted())
    assert not world.unrouted()
    return world


def answers(world: StationWorld, at: int = 1) -> list[Echo]:
    return [
        event.echo
        for _, short, event in world.happened
        if short == at and isinstance(event, EchoAnswered)
    ]


def ask(world: StationWorld, number: int, way: tuple[int, ...]) -> None:
    world.station(way[0]).ask(number, way, now=world.now)
    world.touch(way[0])


def test_what_a_node_gives_up_when_it_is_asked_for_a_frame_is_told_at_once() -> None:
    world = StationWorld(1)
    world.line(2)
    world.start(2)
    station = world.station(2)
    station.events()
    for number in range(WAITING_COUNT_MAX + 8):
        priority = Priority.ON_DEMAND if number % 2 else Priority.FREQUENT
        assert station.send(b"reading", priority=priority, now=world.now)
    assert station.events() == []
    station.frame_to_send(now=world.now)
    lost = [event for event in station.events() if isinstance(event, PacketLost)]
    assert [event.reason for event in lost] == ["no way up"] * 8
    assert station.events() == []


def test_a_question_is_answered_over_the_way_it_came() -> None:
    world = formed_line()
    ask(world, 7, (1, 2, 3, 4))
    world.run(5.0)
    assert answers(world) == [Echo(7, (1, 2, 3, 4), is_answer=True)]
    ask(world, 8, (1, 2))
    world.run(5.0)
    assert [echo.number for echo in answers(world)] == [7, 8]


def test_a_way_that_is_none_of_the_tree_is_taken_all_the_same() -> None:
    """Two collectors' worth of ways: node 4 hangs below 3, and is asked by way of 5."""
    world = StationWorld(3)
    for one, other in ((1, 2), (2, 3), (3, 4), (1, 5), (5, 4)):
        world.link(one, other)
    world.start()
    world.run(300.0, until=lambda: not world.orphans() and not world.unrouted())
    world.run(60.0)
    way = (1, 2, 3, 4) if world.path_up(4)[1] == 5 else (1, 5, 4)
    ask(world, 1, way)
    world.run(5.0)
    assert answers(world) == [Echo(1, way, is_answer=True)]


def test_a_broken_way_is_named_by_the_relay_that_could_not_go_on() -> None:
    world = formed_line()
    world.cut(3, 4)
    ask(world, 7, (1, 2, 3, 4))
    world.run(20.0)
    assert answers(world) == []
    failed = [
        event for _, at, event in world.happened if at == 1 and isinstance(event, RouteFailed)
    ]
    assert (3, 4) in [(event.relay, event.neighbour) for event in failed]


def test_a_collector_answers_another_one_through_the_mesh() -> None:
    world = StationWorld(4, roots=(1, 5))
    world.line(5)
    world.start()
    world.run(300.0, until=lambda: not world.orphans() and not world.unrouted())
    world.run(100.0)
    ask(world, 9, (1, 2, 3, 4, 5))
    world.run(10.0)
    assert answers(world) == [Echo(9, (1, 2, 3, 4, 5), is_answer=True)]


def test_who_is_asked_by_everybody_answers_some() -> None:
    world = formed_line(3)
    for number in range(40):
        ask(world, number, (1, 2))
        world.run(0.1)
    world.run(5.0)
    assert 16 <= len(answers(world)) <= 28
    assert world.station(2).counters["probe: held back"] == 40 - len(answers(world))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x02",
        b"garbage",
        Echo(1, (1, 3, 2)).encode(),  # for another
        Echo(1, (3, 2)).encode(),  # from another
        Echo(1, (2, 3), is_answer=True).encode(),  # nobody here asked
    ],
)
def test_a_probe_that_contradicts_its_packet_is_counted_and_not_answered(payload: bytes) -> None:
    world = formed_line(3)
    world.nodes[1].send(
        payload,
        destination=3,
        relays=(2,),
        priority=Priority.ON_DEMAND,
        kind=PacketKind.PROBE,
        now=world.now,
    )
    world.touch(1)
    world.run(1.0)
    assert answers(world, 3) == answers(world, 1) == []
    assert sum(world.station(3).counters.values()) == 1
    assert not world.station(1).counters


def test_a_way_from_somebody_else_is_refused() -> None:
    world = formed_line(3)
    with pytest.raises(LocalProtocolError, match="a way from"):
        world.station(1).ask(1, (2, 3), now=world.now)


def reports_of(world: StationWorld, short: int) -> list[TopologyReport]:
    return [
        TopologyReport.decode(event.payload)
        for _, at, event in world.received
        if at in world.roots and event.kind == PacketKind.TOPOLOGY and event.source == short
    ]


def test_after_a_boot_everybody_reports_once_with_its_hops() -> None:
    world = formed_line()
    world.run(4 * BOOT_SPREAD_S + 60.0)
    for short in (2, 3, 4, 5):
        first, *more = reports_of(world, short)
        assert first.reason is Reason.COLD_BOOT
        assert first.parents[0].neighbour == short - 1
        last = more[-1] if more else first
        assert last.hops in (short - 1, HOPS_UNKNOWN)
    made = [event for _, at, event in world.happened if at == 1 and isinstance(event, ReportMade)]
    assert [TopologyReport.decode(event.octets).hops for event in made] == [0]


@pytest.mark.parametrize("spread", [5.0, 600.0])
def test_how_far_first_reports_are_spread_is_the_profiles(spread: float) -> None:
    world = StationWorld(1)
    routes = dataclasses.replace(world.profile.routes, report_spread=spread)
    world.profile = dataclasses.replace(world.profile, routes=routes)
    for short in range(2, 42):
        world.link(1, short)
    world.start()
    world.run(300.0, until=lambda: not world.orphans() and not world.unrouted())
    begin = world.now
    world.run(spread + 5.0)
    first = {
        event.source: at
        for at, _, event in reversed(world.received)
        if event.kind == PacketKind.TOPOLOGY
    }
    assert set(first) == set(range(2, 42))
    assert max(first.values()) >= begin + spread / 2


def test_hops_are_known_from_the_roots_answer() -> None:
    world = formed_line()
    world.run(60.0)
    assert [world.station(short).hops for short in range(1, 6)] == [0, 1, 2, 3, 4]


def test_with_a_new_parent_the_hops_are_not_known_until_the_root_has_answered() -> None:
    world = StationWorld(3)
    for one, other in ((1, 2), (2, 3), (1, 4), (4, 5), (5, 3)):
        world.link(one, other)
    world.start()
    world.run(400.0)
    assert world.station(3).hops == 2
    world.kill(2)
    world.run(4000.0, until=lambda: world.nodes[3].preferred_parent == eui(5))
    assert world.station(3).hops == HOPS_UNKNOWN
    world.run(60.0)
    assert world.station(3).hops == 3


def test_power_that_came_back_is_the_reason_that_is_told() -> None:
    world = StationWorld(1)
    world.boot = Reason.POWER_RESTORED
    world.line(3)
    world.start()
    world.run(400.0)
    assert reports_of(world, 3)[0].reason is Reason.POWER_RESTORED


def test_who_is_asked_reports_at_once() -> None:
    world = formed_line()
    world.run(BOOT_SPREAD_S + 140.0)
    count = len(reports_of(world, 4))
    world.station(4).report(Reason.ASKED, now=world.now)
    world.touch(4)
    world.run(2.0)
    *_, last = reports_of(world, 4)
    assert len(reports_of(world, 4)) == count + 1
    assert (last.reason, last.hops) == (Reason.ASKED, 3)


def ask_for_report(world: StationWorld, short: int, payload: bytes = b"") -> None:
    world.station(1).send(
        payload,
        destination=short,
        priority=Priority.ON_DEMAND,
        kind=PacketKind.TOPOLOGY,
        now=world.now,
    )
    world.touch(1)
    world.run(3.0)


def test_the_dcc_asks_a_node_for_its_report() -> None:
    world = formed_line()
    world.run(BOOT_SPREAD_S + 140.0)
    count = len(reports_of(world, 4))
    ask_for_report(world, 4)
    assert [report.reason for report in reports_of(world, 4)[count:]] == [Reason.ASKED]
    ask_for_report(world, 4)
    assert len(reports_of(world, 4)) == count + 1
    assert world.station(4).counters["report: asked for too often"] == 1
    world.run(WISH_INTERVAL_S)
    ask_for_report(world, 4)
    assert len(reports_of(world, 4)) == count + 2
    world.run(WISH_INTERVAL_S)
    ask_for_report(world, 4, b"what is this")
    assert len(reports_of(world, 4)) == count + 2
    assert world.station(4).counters["report: of another"] == 1


def test_reports_that_all_are_asked_for_come_spread() -> None:
    world = formed_line(8)
    world.run(8 * BOOT_SPREAD_S + 340.0)
    asked_at = world.now
    world.station(1).node.broadcast(
        b"", priority=Priority.ON_DEMAND, kind=PacketKind.TOPOLOGY, now=world.now
    )
    world.touch(1)
    world.run(WISH_SPREAD_S + 10.0)
    came = [
        (event.source, when - asked_at)
        for when, at, event in world.received
        if at == 1 and when > asked_at and event.kind == PacketKind.TOPOLOGY
        and TopologyReport.decode(event.payload).reason is Reason.ASKED
    ]  # fmt: skip
    assert sorted(source for source, _ in came) == list(range(2, 9))
    times = sorted(after for _, after in came)
    assert times[-1] - times[0] > WISH_SPREAD_S / 4


def test_a_new_parent_is_told_and_numbers_go_up() -> None:
    world = StationWorld(3)
    for one, other in ((1, 2), (1, 5), (2, 3), (5, 3)):
        world.link(one, other)
    world.start()
    world.run(400.0)
    parent = world.path_up(3)[1]
    before = reports_of(world, 3)
    world.kill(parent)
    # A node says so no sooner than 300 s after its last report, and probes find a dead parent.
    world.run(3600.0)
    after = reports_of(world, 3)[len(before) :]
    assert Reason.PARENT_CHANGED in [report.reason for report in after]
    assert after[-1].parents[0].neighbour == ({2, 5} - {parent}).pop()
    numbers = [report.sequence for report in before + after]
    assert numbers == sorted(set(numbers))


def test_without_a_way_up_no_report_waits() -> None:
    world = StationWorld(1)
    world.link(2, 3)
    world.link(1, 4)
    world.start()
    world.run(300.0)
    for short in (2, 3):
        assert world.nodes[short].queue_length == 0
        assert not world.station(short).node.counters["lost: no way up"]
