"""A collector between its mesh and its head-end: hello, table, packets up and down.

The contract under test: the head-end's table is the collector's; each message down ends with a
fate; who is not accepted says nothing.
"""

from __future__ import annotations

import pytest

from amistack.framing import Priority
from mesh.backhaul import (
    Broadcast,
    Down,
    Fate,
    Hello,
    RouteRow,
    Status,
    TableBegin,
    TableEnd,
    Up,
    What,
)
from mesh.collector.line import HELLO_AGAIN_S, TABLE_PRIORITY
from mesh.collector.requests import REQUEST_COUNT_MAX
from mesh.packet import PacketKind
from mesh.reports import BOOT_SPREAD_S, TopologyReport
from mesh.routing.dao import Route
from mesh.routing.trickle import NEVER
from tests.mesh.collector.world import (
    AREA,
    CollectorWorld,
    Disk,
    connected,
    fates,
    formed,
)
from tests.mesh.routing.medium import DODAG_ID, eui

# The connection


def test_a_collector_introduces_itself_and_streams_its_table() -> None:
    world, head_end = connected()
    hello, begin = head_end.of(Hello)[0], head_end.of(TableBegin)[0]
    assert hello == Hello(
        AREA, DODAG_ID, eui(1), 1, 240, world.profile.dodag.hop_rank_increase_min, 4
    )
    assert begin.route_count == 4
    assert head_end.of(TableEnd) == [TableEnd(begin.stream)]
    rows = head_end.table()
    assert {target: row.parents[0] for target, row in rows.items()} == {2: 1, 3: 2, 4: 3, 5: 4}
    life = world.profile.dodag.lifetime * world.profile.dodag.lifetime_unit
    assert all(0 < row.lifetime <= life for row in rows.values())


def test_news_of_the_table_follows_at_once() -> None:
    world, head_end = connected()
    world.link(2, 6)
    world.start(6)
    world.run(60.0)
    assert head_end.table()[6].parents[0] == 2


def test_a_long_table_is_sent_a_few_rows_at_a_time() -> None:
    world = CollectorWorld(1)
    world.line(2)
    world.disks.setdefault(1, world_disk(2000))
    world.start()
    world.is_piped = False
    head_end = world.connect()
    collector = world.collector()
    for _ in range(2):
        for data in collector.data_to_send(120):
            head_end.receive(data, world.now)
        for data in head_end.peer.data_to_send():
            collector.receive_data(data, now=world.now)
    # A small piece at a time: what is urgent passes what waits of the table.
    rows_before = 0
    while not head_end.of(TableEnd):
        if not rows_before and len(head_end.of(RouteRow)) >= 100:
            rows_before = len(head_end.of(RouteRow))
            collector.line.send(Fate(1, What.SENT), Priority.ON_DEMAND, now=world.now)
            collector.line.send(Up(2, 0, Priority.ALARM, b"!"), Priority.ALARM, now=world.now)
        assert collector.line.depth(TABLE_PRIORITY) <= 33
        for data in collector.data_to_send(700):
            head_end.receive(data, world.now)
    assert len(head_end.table()) == 2000
    order = [type(message) for _, message in head_end.heard]
    assert order[: order.index(Fate)].count(RouteRow) <= rows_before + 1
    assert order.index(Up) < order.index(Fate)
    assert not collector.line.counters


def world_disk(count: int) -> Disk:
    disk = Disk()
    for target in range(100, 100 + count):
        disk.rows[target] = (RouteRow(target, (2,), 250, 3600), 3600.0)
    return disk


def test_no_more_octets_are_given_than_there_is_room_for() -> None:
    world, _ = connected(2)
    collector = world.collector()
    world.is_piped = False
    routes = collector.station.node.routes
    assert routes is not None
    for target in range(1_000, 1_200):
        routes.rows[target] = Route((1,), 240, NEVER)
    for number in range(20):
        collector._send_up(Up(2, 0, Priority.CONTROL, b"x" * 40), world.now + number)
    collector._stream_table(world.now)
    for room in (0, 100, 700, 1_000):
        given = sum(map(len, collector.data_to_send(room)))
        assert room - 100 < given <= room


def test_news_that_finds_no_room_brings_the_whole_table_again() -> None:
    world, head_end = connected(4)
    world.is_piped = False
    collector = world.collector()
    for number in range(256):
        collector._send_up(Up(2, 0, Priority.SCHEDULED, b"%d" % number), world.now)
    routes = collector.station.node.routes
    assert routes is not None
    routes.rows[3] = Route((1, 4), 100, world.now + 1000.0)
    collector.table.changed(3, now=world.now)
    collector.handle_timer(now=world.now)
    world.is_piped = True
    world.touch(1)
    world.run(15.0)
    assert len(head_end.of(TableEnd)) == 2
    assert head_end.table()[3].parents == (1, 4)


@pytest.mark.parametrize("status", [Status.UNKNOWN_COLLECTOR, Status.WRONG_AREA, Status.STANDBY])
def test_who_is_not_accepted_says_nothing_but_hello_again(status: Status) -> None:
    world = formed(3)
    head_end = world.connect(status=status)
    world.run(HELLO_AGAIN_S - 1.0)
    assert [type(message) for _, message in head_end.heard] == [Hello]
    world.run(2.0)
    assert [type(message) for _, message in head_end.heard] == [Hello, Hello]
    head_end.status = Status.ACCEPTED
    world.run(HELLO_AGAIN_S)
    assert len(head_end.table()) == 2


@pytest.mark.parametrize("status", [Status.UNKNOWN_COLLECTOR, Status.WRONG_AREA, Status.STANDBY])
def test_before_the_welcome_nothing_counts(status: Status) -> None:
    world = formed(3)
    head_end = world.connect(status=status)
    world.run(1.0)
    world.say(Down(1, 2, 0, Priority.ON_DEMAND, b"?"))
    world.run(5.0)
    assert world.delivered(2, PacketKind.COAP) == []
    assert world.collector().line.counters["refused: before the welcome"] == 1
    assert head_end.of(Fate) == []


def test_a_lease_is_kept() -> None:
    world = formed(2)
    world.connect(epoch=17)
    world.run(1.0)
    assert world.disks[1].epoch == 17
    world.disconnect()
    head_end = world.connect(epoch=17)
    world.run(1.0)
    assert head_end.of(Hello)[0].epoch == 17


# Up


def test_packets_go_up_with_where_they_came_from() -> None:
    world, head_end = connected()
    world.send(4, b"reading")
    world.run(5.0)
    up = [message for message in head_end.of(Up) if message.kind == PacketKind.COAP]
    assert up == [Up(4, PacketKind.COAP, Priority.SCHEDULED, b"reading", 3, 2)]
    assert (Priority.SCHEDULED, up[0]) in head_end.heard


def test_topology_reports_go_up_the_collectors_own_too() -> None:
    world, head_end = connected()
    world.run(4 * BOOT_SPREAD_S + 60.0)
    reports = {
        message.source: TopologyReport.decode(message.payload)
        for message in head_end.of(Up)
        if message.kind == PacketKind.TOPOLOGY
    }
    assert set(reports) == {1, 2, 3, 4, 5}
    assert reports[1].hops == 0
    assert reports[5].parents[0].neighbour == 4


def test_a_packet_of_a_kind_that_nobody_knows_ends_here() -> None:
    world, head_end = connected(3)
    world.send(3, b"?", kind=77)
    world.run(5.0)
    assert not [message for message in head_end.of(Up) if message.kind == 77]
    assert world.collector().counters["dropped: kind of packet"] == 1


# Down


def test_a_message_down_arrives_and_its_fate_is_told() -> None:
    world, head_end = connected()
    world.say(Down(17, 5, PacketKind.COAP, Priority.ON_DEMAND, b"read"))
    world.run(5.0)
    assert [event.payload for event in world.delivered(5, PacketKind.COAP)] == [b"read"]
    assert fates(head_end, 17) == [What.QUEUED, What.SENT]


def test_the_head_ends_route_is_the_one_that_is_taken() -> None:
    world = CollectorWorld(3)
    for one, other in ((1, 2), (2, 4), (1, 3), (3, 4)):
        world.link(one, other)
    world.start()
    world.run(300.0, until=lambda: not world.orphans() and not world.unrouted())
    head_end = world.connect()
    world.run(100.0)
    for relay in (2, 3):
        world.say(Down(relay, 4, 0, Priority.ON_DEMAND, bytes((relay,)), relays=(relay,)))
        world.run(5.0)
    came = [(event.payload, event.from_neighbour) for event in world.delivered(4, 0)]
    assert came == [(b"\x02", eui(2)), (b"\x03", eui(3))]
    assert fates(head_end, 2) == fates(head_end, 3) == [What.QUEUED, What.SENT]


def test_a_way_that_breaks_is_told_with_the_hop_and_is_the_end_of_it() -> None:
    world, head_end = connected()
    world.cut(3, 4)
    world.say(Down(17, 5, 0, Priority.ON_DEMAND, b"read", relays=(2, 3, 4)))
    world.run(30.0)
    assert head_end.of(Fate)[-1] == Fate(17, What.ROUTE_FAILED, 3, 4)
    assert fates(head_end, 17) == [What.QUEUED, What.SENT, What.ROUTE_FAILED]
    assert len(world.collector().requests) == 0


def test_a_first_hop_that_fails_is_told_too() -> None:
    world, head_end = connected(3)
    world.cut(1, 2)
    world.say(Down(17, 3, 0, Priority.ON_DEMAND, b"read", relays=(2,)))
    world.run(30.0)
    assert head_end.of(Fate)[-1] == Fate(17, What.ROUTE_FAILED, 1, 2)
    assert fates(head_end, 17) == [What.QUEUED, What.ROUTE_FAILED]


def test_nobody_there_is_no_route() -> None:
    world, head_end = connected(3)
    world.say(Down(17, 99, 0, Priority.ON_DEMAND, b"read"))
    world.run(1.0)
    assert fates(head_end, 17) == [What.NO_ROUTE]


def test_a_request_that_is_open_is_not_begun_again() -> None:
    world, head_end = connected(3)
    for _ in range(2):
        world.say(Down(17, 3, 0, Priority.ON_DEMAND, b"read"))
    world.run(5.0)
    assert len(world.delivered(3, 0)) == 1
    assert fates(head_end, 17) == [What.QUEUED, What.SENT]


def test_what_waits_for_too_long_is_told_at_its_deadline() -> None:
    world, head_end = connected(3)
    world._busy[1] = True  # The radio takes nothing: a channel that is never free.
    world.say(Down(17, 3, 0, Priority.ON_DEMAND, b"read", deadline=10))
    world.run(9.9)
    assert fates(head_end, 17) == [What.QUEUED]
    world.run(0.3)
    assert fates(head_end, 17) == [What.QUEUED, What.TOO_OLD]


def test_the_collectors_queues_are_bounded_and_say_so() -> None:
    world, head_end = connected(3)
    world._busy[1] = True
    bound = world.profile.links.queue_count_max
    for request in range(bound + 3):
        world.say(Down(request, 3, 0, Priority.ON_DEMAND, b"%d" % request))
        world.run(0.1)
    refused = [fate.request for fate in head_end.of(Fate) if fate.what is What.REFUSED_FULL]
    assert refused == [bound, bound + 1, bound + 2]


def test_open_requests_are_bounded() -> None:
    world, _ = connected(3)
    requests = world.collector().requests
    for request in range(REQUEST_COUNT_MAX):
        assert requests.begin(Down(request, 3, 0, Priority.FIRMWARE, b""), now=world.now)
    assert not requests.begin(Down(9999, 3, 0, Priority.FIRMWARE, b""), now=world.now)
    assert requests.fates() == [Fate(9999, What.REFUSED_FULL)]
    requests.handle_timer(now=world.now + 61.0)
    assert len(requests) == 0


def test_a_broadcast_reaches_everybody_or_a_subtree() -> None:
    world, head_end = connected()
    world.say(Broadcast(3, PacketKind.COAP, Priority.ON_DEMAND, b"all"))
    world.run(10.0)
    assert [len(world.delivered(short, 0)) for short in (2, 3, 4, 5)] == [1, 1, 1, 1]
    world.say(Broadcast(4, PacketKind.COAP, Priority.ON_DEMAND, b"some", subtree=4))
    world.run(10.0)
    assert [len(world.delivered(short, 0)) for short in (2, 3, 4, 5)] == [1, 1, 2, 2]
    world.say(Broadcast(5, PacketKind.COAP, Priority.ON_DEMAND, b"none", subtree=99))
    world.run(1.0)
    assert [fates(head_end, request) for request in (3, 4, 5)] == [
        [What.SENT], [What.SENT], [What.NO_ROUTE]
    ]  # fmt: skip
