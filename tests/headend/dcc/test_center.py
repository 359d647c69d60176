"""The center before scripted collectors.

The contract under test: nothing of a stream counts before its hello was accepted, and only a
collector that is known, by its key, in its area and with its own address is; rows and reports make
the topology, the newest path sequence says where a meter is; what a collector says wrongly is
counted by reason and changes nothing; its questions are answered, or ended when it goes.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.framing import Priority
from headend.dcc.center import REPORTS_MISSED_S, Center
from headend.dcc.collectors import HELLO_S
from headend.dcc.events import (
    CollectorJoined,
    CollectorLeft,
    CollectorRefused,
    Connection,
    DatagramReceived,
    HangUp,
    ReportTaken,
    RequestEnded,
    RequestNumber,
)
from headend.dcc.pace import BURST, INTERVAL_S
from headend.dcc.questions import GRACE_S
from headend.domain.mesh import Area, Assignment, MeshPeer
from headend.domain.refusals import NotThere
from mesh.backhaul import (
    Broadcast,
    Command,
    CommandDone,
    Fate,
    Forget,
    Order,
    Outcome,
    Probed,
    RouteGone,
    RouteRow,
    Status,
    TableBegin,
    TableEnd,
    Traced,
    Up,
    Welcome,
    What,
    Why,
    encode,
)
from mesh.packet import NO_ADDRESS, PacketKind
from mesh.reports import TopologyReport
from mesh.topology.facts import AreaId, Backhaul, Role
from mesh.topology.location import BehindCollector
from mesh.topology.status import EndpointState
from tests.headend.dcc.worlds import DODAG_ID, Backhauls, line, row
from tests.mesh.topology.worlds import AREA, eui, made_world

WEST, EAST = 0xC0, 0xC1
STREET = line(WEST, 1, 2, 3, EAST, collectors=(WEST, EAST))


def joined() -> tuple[Backhauls, Connection, Connection]:
    """A street between two collectors: tables of both, and every node's report."""
    street = Backhauls(STREET, joined=())
    west, east = street.join(WEST), street.join(EAST)
    street.say(west, *street.collectors[WEST].table([row(STREET, 1), row(STREET, 2)]))
    street.say(east, *street.collectors[EAST].table([row(STREET, 3)]))
    street.report(west)
    return street, west, east


def test_collector_is_welcomed_and_its_backhaul_is_up() -> None:
    street = Backhauls(STREET, joined=(WEST,))
    graph = street.center.dcc.graph
    assert street.collectors[WEST].told[0] == Welcome(Status.ACCEPTED, epoch=1)
    assert graph.backhauls[graph.index_of(eui(WEST))] is Backhaul.UP
    assert graph.backhauls[graph.index_of(eui(EAST))] is Backhaul.DOWN
    assert street.of(CollectorJoined) == [CollectorJoined(eui(WEST), AREA, 3)]
    assert street.center.all_refused == {}


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"collector": eui(9)}, Status.UNKNOWN_COLLECTOR, "unknown collector"),
        ({"collector": eui(EAST)}, Status.UNKNOWN_COLLECTOR, "hello of another collector"),
        ({"area": AREA + 1}, Status.WRONG_AREA, "collector of another area"),
        ({"dodag_id": bytes(16)}, Status.WRONG_AREA, "collector of another area"),
        ({"short": EAST}, Status.WRONG_AREA, "collector of another area"),
    ],
)
def test_hello_that_is_not_true_is_refused_counted_and_hung_up(
    changes: dict[str, object], status: Status, reason: str
) -> None:
    street = Backhauls(STREET, joined=())
    connection = street.join(WEST, **changes)
    assert street.collectors[WEST].told == [Welcome(status)]
    assert street.center.all_refused == {reason: 1}
    assert street.of(HangUp) == [HangUp(connection)]
    assert [event.reason for event in street.of(CollectorRefused)] == [reason]  # type: ignore[union-attr]
    street.say(connection, row(STREET, 1))
    assert street.center.all_refused["message before the hello"] == 1
    assert street.center.dcc.locations.find(eui(1)) is None


@pytest.mark.parametrize(
    ("pinned", "shown", "is_accepted"),
    [
        (b"k" * 32, b"k" * 32, True),
        (b"k" * 32, b"l" * 32, False),
        (b"k" * 32, None, False),
        (None, b"k" * 32, False),
        (None, None, True),
    ],
)
def test_collector_is_known_by_its_key(
    pinned: bytes | None, shown: bytes | None, *, is_accepted: bool
) -> None:
    street = Backhauls(STREET, joined=())
    street.center.place(Assignment(eui(WEST), AREA, WEST, Role.COLLECTOR, pinned), now=street.now)
    collector = street.collectors[WEST]
    connection = street.connect(collector, key_hash=shown)
    street.say(connection, collector.hello())
    assert bool(street.of(CollectorJoined)) is is_accepted
    assert ("collector with another key" in street.center.all_refused) is not is_accepted


@pytest.mark.parametrize(("after_s", "is_cut"), [(HELLO_S - 0.1, False), (HELLO_S + 0.1, True)])
def test_stream_without_a_hello_is_hung_up_in_the_end(after_s: float, *, is_cut: bool) -> None:
    street = Backhauls(STREET, joined=())
    connection = street.connect(street.collectors[WEST])
    street.run(after_s)
    assert (street.of(HangUp) == [HangUp(connection)]) is is_cut
    assert ("no hello in time" in street.center.all_refused) is is_cut


def test_collector_that_comes_anew_takes_the_place_of_its_old_stream() -> None:
    street = Backhauls(STREET, joined=())
    old = street.join(WEST)
    new = street.join(WEST)
    assert street.of(HangUp) == [HangUp(old)]
    street.say(old, row(STREET, 2))
    assert street.center.dcc.locations.find(eui(2)) is None
    street.leave(old)
    graph = street.center.dcc.graph
    assert graph.backhauls[graph.index_of(eui(WEST))] is Backhaul.UP
    street.say(new, row(STREET, 1))
    assert street.center.dcc.locations.find(eui(1)) is not None
    assert street.center.all_refused == {"message before the hello": 1}


def last_welcome(street: Backhauls) -> Welcome:
    return [told for told in street.collectors[WEST].told if isinstance(told, Welcome)][-1]


def test_one_box_serves_under_an_identity() -> None:
    street = Backhauls(STREET, joined=())
    first = street.join(WEST, epoch=0)
    assert last_welcome(street) == Welcome(Status.ACCEPTED, epoch=1)
    # The same box, before and after it had heard of its lease.
    second = street.join(WEST, epoch=0)
    third = street.join(WEST, epoch=2)
    assert last_welcome(street) == Welcome(Status.ACCEPTED, epoch=3)
    assert street.of(HangUp) == [HangUp(first), HangUp(second)]
    # A copy of its disk from before, and one without a disk.
    for epoch in (1, 0, 4):
        copy = street.join(WEST, epoch=epoch)
        assert last_welcome(street) == Welcome(Status.STANDBY)
        assert street.of(HangUp)[-1] == HangUp(copy)
        street.leave(copy)
    assert street.center.all_refused == {"collector without the lease": 3}
    joined = street.center.collectors.find(eui(WEST))
    assert joined is not None
    assert joined.connection == third
    # When the holder is gone, whoever comes may serve; the holder then not beside it.
    street.leave(third)
    street.join(WEST, epoch=1)
    assert last_welcome(street) == Welcome(Status.ACCEPTED, epoch=4)
    assert street.center.all_counters["collectors that did not know their last lease"] == 1
    street.join(WEST, epoch=3)
    assert last_welcome(street) == Welcome(Status.STANDBY)


def test_hello_said_again_on_the_same_stream_keeps_the_lease() -> None:
    street = Backhauls(STREET, joined=())
    west = street.join(WEST)
    for epoch in (1, 0, 77):
        street.say(west, street.collectors[WEST].hello(epoch=epoch))
        assert last_welcome(street) == Welcome(Status.ACCEPTED, epoch=1)
    assert street.of(HangUp) == []


def test_leases_of_another_run_are_above_those_of_the_last() -> None:
    center = Center(first_epoch=1_800_000_000)
    assert center.collectors._next_epoch == 1_800_000_000
    assert Center(first_epoch=-5).collectors._next_epoch == 1


def test_another_hop_rank_increase_than_the_profiles_is_counted() -> None:
    street = Backhauls(STREET, joined=())
    street.join(WEST, hop_rank_increase=128)
    assert street.center.all_refused == {"MinHopRankIncrease of another profile": 1}
    assert street.of(CollectorJoined)


def test_tables_and_reports_make_the_topology() -> None:
    street, _, _ = joined()
    dcc = street.center.dcc
    for short, collector in ((1, WEST), (2, WEST), (3, EAST)):
        location = dcc.locations.find(eui(short))
        assert location is not None
        assert location.place == BehindCollector(eui(collector))
    assert {dcc.devices.status_of(eui(n), now=street.now).state for n in STREET.nodes} == {
        EndpointState.REACHABLE
    }
    best = dcc.routes.route_of(eui(2))
    assert best is not None
    assert best.hops == 2
    assert len(dcc.routes.alternates_of(eui(2))) == 1
    assert [event.node for event in street.of(ReportTaken)] == [  # type: ignore[union-attr]
        eui(short) for short in STREET.nodes
    ]
    assert street.center.all_refused == {}


def test_newest_path_sequence_wins_and_the_other_collector_is_told() -> None:
    street, west, east = joined()
    street.say(east, RouteRow(2, (3,), 242, 3_600))
    location = street.center.dcc.locations.find(eui(2))
    assert location is not None
    assert location.place == BehindCollector(eui(EAST))
    assert street.collectors[WEST].told[-1] == Forget(2, 242)
    # Late news of the old place changes nothing, and who brings it is told.
    street.say(west, RouteRow(2, (1,), 241, 3_600))
    assert street.center.dcc.locations.find(eui(2)) == location
    assert street.collectors[WEST].told[-1] == Forget(2, 242)
    assert street.center.all_refused == {"old path sequence": 1}


@pytest.mark.requirement("I2-X-01")
@pytest.mark.parametrize(
    ("path_sequence", "lasts_s", "is_heard"),
    [
        (path_sequence, lasts_s, path_sequence == 242)
        for path_sequence in (240, 241, 242)
        for lasts_s in (3_600, 60_000)
    ],
)
def test_row_that_is_told_again_is_no_word_of_its_node(
    path_sequence: int, lasts_s: int, *, is_heard: bool
) -> None:
    street, west, _ = joined()
    street.say(west, RouteRow(2, (1,), 241, lasts_s))
    devices = street.center.dcc.devices
    heard_at = street.now
    street.run(20_000.0)
    devices.isolated(eui(2), now=street.now)
    street.leave(west)
    street.run(600.0)
    west = street.join(WEST)
    told = RouteRow(2, (1,), path_sequence, lasts_s)
    street.say(west, *street.collectors[WEST].table([row(STREET, 1), told]))
    status = devices.status_of(eui(2), now=street.now)
    assert (status.state, status.heard_at) == (
        (EndpointState.REACHABLE, street.now) if is_heard else (EndpointState.UNREACHABLE, heard_at)
    )


@pytest.mark.requirement("I2-X-01")
def test_row_that_nobody_can_date_says_of_a_node_that_it_was_there_once() -> None:
    """As after a start of the head-end, which keeps no rows."""
    street = Backhauls(STREET)
    devices, report = street.center.dcc.devices, dict(STREET.reports())[1].encode()
    assert street.center.restore(report, eui(1), age_s=700.0, now=street.now)
    (west, *_) = street.connections
    street.say(west, *street.collectors[WEST].table([row(STREET, 1), row(STREET, 2)]))
    heard = [devices.status_of(eui(short), now=street.now).heard_at for short in (1, 2, 3)]
    assert heard == [street.now - 700.0, street.now, None]
    # What comes after the table is news.
    street.say(west, row(STREET, 3))
    assert devices.status_of(eui(3), now=street.now).heard_at == street.now
    location = street.center.dcc.locations.find(eui(1))
    assert location is not None
    assert location.path_sequence == 241


def test_collector_that_started_anew_may_be_a_few_sequences_behind() -> None:
    """Its disk has a row as it changed last, not as it was told last."""
    street, west, _ = joined()
    street.say(west, row(STREET, 1, 243))
    center, meter = street.center, eui(1)
    refused = dict(center.all_refused)
    street.say(west, *street.collectors[WEST].table([row(STREET, 1, 240), row(STREET, 2)]))
    location = center.dcc.locations.find(meter)
    assert location is not None
    assert (location.place, location.path_sequence) == (BehindCollector(eui(WEST)), 243)
    assert center.all_refused == refused
    street.say(west, RouteGone(1, 243, Why.NO_PATH))
    assert center.dcc.locations.find(meter) is None


def test_report_that_a_collector_held_is_as_old_as_it_is() -> None:
    street, west, _ = joined()
    report = dict(STREET.reports(sequence=9))[1]
    up = dataclasses.replace(street.up(1, report.encode(), PacketKind.TOPOLOGY), held=25 * 60 + 30)
    street.say(west, up)
    (taken,) = [e for e in street.of(ReportTaken) if e.node == eui(1)][-1:]  # type: ignore[attr-defined]
    kept = TopologyReport.decode(taken.octets)  # type: ignore[attr-defined]
    assert kept.sequence == 9
    assert [link.age_minutes for link in kept.links] == [
        link.age_minutes + 25 for link in report.links
    ]
    fact = street.center.dcc.graph.fact_of(street.center.dcc.graph.index_of(eui(1)), now=street.now)
    assert {link.age_s for link in fact.links} == {(5 + 25) * 60.0}


@pytest.mark.parametrize(("after_s", "is_moved"), [(14_399.0, False), (14_401.0, True)])
def test_old_row_moves_a_meter_only_when_the_newer_one_is_over(
    after_s: float, *, is_moved: bool
) -> None:
    """A table that a collector brings after hours must not win by being the only one to speak."""
    street, west, east = joined()
    street.say(west, RouteRow(2, (1,), 243, 14_400))
    street.run(after_s)
    street.say(east, RouteRow(2, (3,), 242, 14_400))
    location = street.center.dcc.locations.find(eui(2))
    assert location is not None
    assert (location.place == BehindCollector(eui(EAST))) is is_moved


@pytest.mark.parametrize(
    ("gone", "is_forgotten"),
    [
        (RouteGone(2, 241, Why.EXPIRED), True),
        (RouteGone(2, 241, Why.NO_PATH), True),
        (RouteGone(2, 241, Why.FORGOTTEN), False),
        (RouteGone(2, 240, Why.EXPIRED), False),
    ],
)
def test_row_that_is_gone_is_forgotten_unless_there_is_a_newer_one(
    gone: RouteGone, *, is_forgotten: bool
) -> None:
    street, west, _ = joined()
    street.say(west, gone)
    assert (street.center.dcc.locations.find(eui(2)) is None) is is_forgotten


def test_row_of_another_collector_does_not_move_a_meter_by_ending() -> None:
    street, _, east = joined()
    street.say(east, RouteGone(2, 241, Why.EXPIRED))
    assert street.center.dcc.locations.find(eui(2)) is not None


def test_what_a_whole_table_does_not_have_is_gone() -> None:
    street, west, _ = joined()
    locations = street.center.dcc.locations
    # A table that is begun again replaces the one that did not end.
    street.say(west, TableBegin(2, 2), row(STREET, 2), TableBegin(3, 1), row(STREET, 1))
    assert locations.find(eui(2)) is not None
    street.say(west, TableEnd(2))
    assert street.center.all_refused == {"end of another table": 1}
    street.say(west, TableEnd(3))
    assert locations.find(eui(2)) is None
    assert locations.find(eui(1)) is not None


def test_table_that_is_begun_again_forgets_what_only_the_first_one_replaced() -> None:
    street, west, _ = joined()
    street.say(west, TableBegin(2, 1), row(STREET, 1), TableBegin(3, 1), row(STREET, 1))
    street.say(west, TableEnd(3))
    assert street.center.dcc.locations.find(eui(2)) is None
    assert street.center.dcc.locations.find(eui(1)) is not None


def test_row_that_is_dropped_while_a_table_comes_is_not_dropped_again_by_its_end() -> None:
    street, west, _ = joined()
    dropped = RouteGone(2, 241, Why.FORGOTTEN)
    street.say(west, TableBegin(2, 1), dropped, row(STREET, 1), TableEnd(2))
    assert street.center.dcc.locations.find(eui(2)) is not None


def test_datagram_comes_up_as_one_of_its_node() -> None:
    street, west, _ = joined()
    street.say(west, street.up(2, b"coap"))
    (event,) = street.of(DatagramReceived)
    assert event == DatagramReceived(MeshPeer(AREA, eui(2)), b"coap")
    assert isinstance(event, DatagramReceived)
    assert event.peer.collector == eui(WEST)
    assert event.peer.priority is Priority.SCHEDULED


def test_what_is_authentic_confirms_the_place_and_names_the_way() -> None:
    street, west, east = joined()
    street.say(west, street.up(2, b"coap"))
    street.run(60)
    peer = street.center.heard(MeshPeer(AREA, eui(2)), eui(2), now=street.now)
    location = street.center.dcc.locations.find(eui(2))
    assert location is not None
    assert (location.confirmed_at, peer.collector) == (street.now, eui(WEST))
    # Heard by another one than where its row is: the row says where it is asked.
    street.say(east, street.up(2, b"coap"))
    street.run(60)
    assert street.center.heard(peer, eui(2), now=street.now).collector == eui(EAST)
    assert street.center.dcc.locations.find(eui(2)) == location


def test_what_is_authentic_of_another_says_nothing_about_the_node() -> None:
    street, west, _ = joined()
    street.say(west, street.up(2, b"coap"))
    street.run(60)
    before = street.center.dcc.devices.status_of(eui(2), now=street.now)
    location = street.center.dcc.locations.find(eui(2))
    street.center.heard(MeshPeer(AREA, eui(2)), eui(3), now=street.now)
    assert street.center.dcc.devices.status_of(eui(2), now=street.now) == before
    assert street.center.dcc.locations.find(eui(2)) == location
    assert street.center.all_refused == {"message of another than its address says": 1}


def test_hop_count_is_that_of_the_best_way_or_the_meters_own_word() -> None:
    street = Backhauls(STREET)
    far = MeshPeer(AREA, eui(2))

    def hops() -> int | None:
        return street.center.hop_count(far)

    assert hops() is None
    west, _ = street.connections
    # Its own word alone: nobody knows where its neighbours are.
    alone = dataclasses.replace(dict(STREET.reports())[2], hops=7, rank=256 * 9)
    street.say(west, street.up(2, alone.encode(), PacketKind.TOPOLOGY))
    assert hops() == 7
    street.report(west)
    assert hops() == 2
    assert street.center.hop_count(MeshPeer(AREA, eui(0x77))) is None


def test_meter_that_stays_silent_is_shown_so_until_it_is_heard() -> None:
    street, west, _ = joined()
    street.center.unanswered(eui(2), now=street.now)
    devices = street.center.dcc.devices
    assert devices.status_of(eui(2), now=street.now).state is EndpointState.SILENT
    street.say(west, street.up(2, b"coap"))
    street.center.heard(MeshPeer(AREA, eui(2)), eui(2), now=street.now)
    assert devices.status_of(eui(2), now=street.now).state is EndpointState.REACHABLE


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Up(77, PacketKind.COAP, Priority.ALARM, b"x"), "packet of an unknown address"),
        (Up(NO_ADDRESS, PacketKind.COAP, Priority.JOINING, b"x"), "packet without an address"),
        (Up(1, PacketKind.RPL, Priority.CONTROL, b"x"), "packet of another kind"),
        (Up(1, PacketKind.TOPOLOGY, Priority.CONTROL, b"x"), "truncated"),
        (RouteRow(77, (1,), 1, 60), "unknown node"),
        (Command(1, Order.SEND_TABLE), "message in the wrong direction"),
        (encode(row(STREET, 1))[:-1], "wrong size"),
        (b"\x02" + encode(row(STREET, 1))[1:], "unknown version"),
        (b"\x01\x3f", "unknown message"),
        (b"\x01" * 1_401, "wrong size"),
    ],
)
def test_what_is_wrong_is_counted_and_changes_nothing(
    message: Up | RouteRow | Command | bytes, reason: str
) -> None:
    street, west, _ = joined()
    before = sorted(map(len, street.center.dcc.graph.costs))
    street.say(west, message)
    assert street.center.all_refused == {reason: 1}
    assert sorted(map(len, street.center.dcc.graph.costs)) == before
    assert not street.of(DatagramReceived)


@given(st.binary(max_size=80), st.integers(0, 70))
def test_arbitrary_octets_never_raise(octets: bytes, kind: int) -> None:
    street = Backhauls(STREET)
    connection = next(iter(street.connections))
    street.say(connection, octets, b"\x01" + bytes((kind,)) + octets)


def asked_for_reports(street: Backhauls, short: int) -> int:
    wishes = [m for m in street.collectors[short].told if isinstance(m, Broadcast)]
    assert all((w.kind, w.payload, w.subtree) == (PacketKind.TOPOLOGY, b"", None) for w in wishes)
    return len(wishes)


@pytest.mark.parametrize(
    ("after_s", "count"), [(REPORTS_MISSED_S - 1, 1), (REPORTS_MISSED_S + 1, 2)]
)
def test_area_that_was_not_heard_for_long_is_asked_for_its_reports(
    after_s: float, count: int
) -> None:
    street = Backhauls(STREET, joined=(WEST,))
    # Of a new area there are none.
    assert asked_for_reports(street, WEST) == 1
    west = next(iter(street.connections))
    street.report(west)
    street.run(after_s)
    street.leave(west)
    street.join(WEST)
    assert asked_for_reports(street, WEST) == count


def test_area_whose_reports_came_back_from_the_store_is_asked_if_they_are_old() -> None:
    report = dict(STREET.reports())[2].encode()
    for age_s, count in ((60.0, 0), (REPORTS_MISSED_S + 60.0, 1)):
        street = Backhauls(STREET, joined=())
        assert street.center.restore(report, eui(2), age_s=age_s, now=street.now)
        street.join(WEST)
        assert asked_for_reports(street, WEST) == count


def test_question_that_another_collector_overheard_is_no_report() -> None:
    street, west, _ = joined()
    street.say(west, street.up(WEST, b"", PacketKind.TOPOLOGY))
    assert street.center.all_refused == {}
    assert street.center.all_counters["questions for reports overheard"] == 1


def test_flood_of_reports_of_one_node_is_cut_and_the_others_are_heard() -> None:
    street, west, _ = joined()
    report = dict(STREET.reports(sequence=2))
    for _ in range(50):
        street.say(west, street.up(2, report[2].encode(), PacketKind.TOPOLOGY))
    # The first was among those of `joined`.
    assert street.center.all_refused["reports too often"] == 50 - (BURST - 1)
    street.say(west, street.up(1, report[1].encode(), PacketKind.TOPOLOGY))
    assert street.of(ReportTaken)[-1] == ReportTaken(eui(1), report[1].encode())
    street.run(INTERVAL_S + 1)
    street.say(west, street.up(2, report[2].encode(), PacketKind.TOPOLOGY))
    assert street.center.all_refused["reports too often"] == 50 - (BURST - 1)
    # A device in its place is another one.
    street.center.remove(eui(2), now=street.now)
    street.center.place(Assignment(eui(99), AREA, 2), now=street.now)
    street.say(west, street.up(2, report[2].encode(), PacketKind.TOPOLOGY))
    assert street.of(ReportTaken)[-1] == ReportTaken(eui(99), report[2].encode())
    street.center.remove(eui(99), now=street.now)
    street.center.place(Assignment(eui(2), AREA, 2), now=street.now)
    for _ in range(2):
        street.say(west, street.up(2, report[2].encode(), PacketKind.TOPOLOGY))
    assert street.of(ReportTaken)[-1] == ReportTaken(eui(2), report[2].encode())
    assert street.center.all_refused["reports too often"] == 50 - (BURST - 1)


def test_probe_and_trace_go_over_exactly_the_way_and_are_answered() -> None:
    street, _, _ = joined()
    way = street.center.dcc.routes.way_by(eui(WEST), eui(3))
    assert way is not None
    number = street.center.questions.probe(way, now=street.now)
    traced = street.center.questions.trace(way, now=street.now)
    street.collect()
    street.run(5)
    probe, trace = street.of(RequestEnded)
    assert isinstance(probe, RequestEnded)
    assert isinstance(trace, RequestEnded)
    assert (probe.request, trace.request) == (traced, number) or (
        probe.request,
        trace.request,
    ) == (number, traced)
    answers = {type(e.answer): e.answer for e in (probe, trace)}
    assert answers[Probed] == Probed(number or 0, Outcome.ANSWERED, 3, 1200)
    tracing = answers[Traced]
    assert isinstance(tracing, Traced)
    assert [each.node for each in tracing.rows] == [1, 2, 3]


def test_order_is_given_and_its_answer_told() -> None:
    street, _, _ = joined()
    number = street.center.questions.order(eui(WEST), Order.BUMP_VERSION, now=street.now)
    street.collect()
    street.run(1)
    assert street.collectors[WEST].told[-1] == Command(number, Order.BUMP_VERSION)
    assert street.of(RequestEnded) == [
        RequestEnded(number, CommandDone(number, is_done=True, value=241))
    ]


def test_order_for_a_collector_that_is_not_there_is_refused() -> None:
    street = Backhauls(STREET, joined=(WEST,))
    with pytest.raises(NotThere):
        street.center.questions.order(eui(EAST), Order.ASK_FOR_ROUTES, now=street.now)


@pytest.mark.parametrize(
    ("order", "is_done", "value", "shown"),
    [
        (Order.BUMP_VERSION, True, 244, 244),
        (Order.BUMP_VERSION, False, 0, 240),
        (Order.BUMP_VERSION, True, 256, 240),
        (Order.ASK_FOR_ROUTES, True, 9, 240),
    ],
)
def test_version_is_the_one_that_a_collector_began_last(
    order: Order, value: int, shown: int, *, is_done: bool
) -> None:
    street, west, _ = joined()
    number = street.center.questions.order(eui(WEST), order, now=street.now)
    street.say(west, CommandDone(number, is_done, value))
    found = street.center.collectors.find(eui(WEST))
    assert found is not None
    assert found.dodag_version == shown


def test_answer_of_another_collector_than_was_asked_is_passed_over() -> None:
    street, _, east = joined()
    number = street.center.questions.order(eui(WEST), Order.ASK_FOR_ROUTES, now=street.now)
    street.say(east, CommandDone(number, is_done=True))
    assert not street.of(RequestEnded)
    assert street.center.all_counters["answers to what is forgotten"] == 1


@pytest.mark.parametrize("asked", ["probe", "trace", "order"])
def test_answer_to_another_question_than_was_asked_ends_nothing(asked: str) -> None:
    street, west, _ = joined()
    street.collectors[WEST].is_deaf = True
    way = street.center.dcc.routes.way_by(eui(WEST), eui(3))
    assert way is not None
    questions, now = street.center.questions, street.now
    number: int | None
    if asked == "probe":
        number = questions.probe(way, now=now)
    elif asked == "trace":
        number = questions.trace(way, now=now)
    else:
        number = questions.order(eui(WEST), Order.ASK_FOR_ROUTES, now=now)
    assert number is not None
    answers = {
        "probe": Probed(number, Outcome.ANSWERED, 3, 900),
        "trace": Traced(number, ()),
        "order": CommandDone(number, is_done=True),
    }
    right = answers.pop(asked)
    if asked == "trace":
        del answers["probe"]  # That is a row of it.
    street.say(west, *answers.values())
    assert not street.of(RequestEnded)
    assert street.center.all_refused == {"answer to another question": len(answers)}
    street.say(west, right)
    assert street.of(RequestEnded) == [RequestEnded(RequestNumber(number), right)]


def test_what_was_asked_of_a_collector_that_leaves_has_no_answer() -> None:
    street, west, _ = joined()
    number = street.center.questions.order(eui(WEST), Order.ASK_FOR_ROUTES, now=street.now)
    street.leave(west)
    assert street.of(RequestEnded) == [RequestEnded(number, None)]
    assert street.of(CollectorLeft) == [CollectorLeft(eui(WEST))]


def test_request_that_a_collector_never_answers_ends_after_its_time() -> None:
    street, _, _ = joined()
    way = street.center.dcc.routes.way_by(eui(WEST), eui(1))
    assert way is not None
    street.center.questions.probe(way, now=street.now)
    street.center.messages_to_send()  # They are lost.
    street.run(6 + GRACE_S - 0.1)
    assert not street.of(RequestEnded)
    street.run(0.2)
    (ended,) = street.of(RequestEnded)
    assert isinstance(ended, RequestEnded)
    assert ended.answer is None


def test_denied_nodes_are_named_to_every_collector_that_joins() -> None:
    street = Backhauls(STREET, joined=())
    street.center.deny(AREA, eui(66), is_denied=True)
    street.center.deny(AREA, eui(2), is_denied=True)
    street.center.deny(AREA, eui(67), is_denied=True)
    street.center.deny(AREA, eui(67), is_denied=False)
    street.join(WEST)
    orders = [m for m in street.collectors[WEST].told if isinstance(m, Command)]
    assert [(order.order, order.node, order.short) for order in orders] == [
        (Order.DENY, eui(66), 0),
        (Order.DENY, eui(2), 2),
    ]


def test_who_is_kept_out_of_an_area_is_so_whenever_it_comes_there() -> None:
    street, _, _ = joined()
    center = street.center
    center.deny(AREA, eui(2), is_denied=True)
    assert center.dcc.routes.route_of(eui(2)) is None
    center.add_area(Area(AreaId(8), "lab", bytes(16)))
    center.place(Assignment(eui(2), AreaId(8), 2), now=street.now)
    assert not center.dcc.graph.is_kept_out(eui(2))
    center.place(Assignment(eui(2), AREA, 2), now=street.now)
    assert center.dcc.graph.is_kept_out(eui(2))
    center.deny(AREA, eui(2), is_denied=False)
    assert not center.dcc.graph.is_kept_out(eui(2))


def test_collector_whose_address_changes_must_say_hello_again() -> None:
    street, west, _ = joined()
    street.center.place(Assignment(eui(WEST), AREA, 0xC7, Role.COLLECTOR), now=street.now)
    street.collect()
    assert street.of(HangUp) == [HangUp(west)]
    graph = street.center.dcc.graph
    assert graph.backhauls[graph.index_of(eui(WEST))] is Backhaul.DOWN


def test_meter_that_moves_to_another_area_is_asked_by_nobody_of_the_old_one() -> None:
    street, west, _ = joined()
    street.say(west, street.up(2, b"coap"))
    street.center.add_area(Area(AreaId(8), "lab", bytes(16)))
    street.center.place(Assignment(eui(2), AreaId(8), 2), now=street.now)
    assert street.center.dcc.locations.find(eui(2)) is None
    street.send(2, b"x" * 20)
    assert street.downs() == []
    street.say(west, street.up(2, b"coap"))
    assert street.center.all_refused == {"packet of an unknown address": 1}


def test_removed_node_is_nobody_any_more() -> None:
    street, west, _ = joined()
    street.center.remove(eui(2), now=street.now)
    street.say(west, street.up(2, b"coap"))
    assert not street.of(DatagramReceived)
    street.send(2, b"x" * 20)
    assert street.center.all_counters["datagrams dropped, no way"] == 1
    street.center.remove(eui(WEST), now=street.now)
    street.collect()
    assert street.of(HangUp) == [HangUp(west)]


def test_restored_reports_give_the_same_routes_as_before() -> None:
    world = made_world(3)
    before = Backhauls(world)
    connection = next(iter(before.connections))
    before.report(connection)
    kept = [event for event in before.of(ReportTaken) if isinstance(event, ReportTaken)]
    after = Backhauls(world, joined=())
    for event in kept:
        assert after.center.restore(event.octets, event.node, age_s=100.0, now=after.now)
    for short in world.collectors:
        after.join(short)
    for short in world.nodes:
        ways = [street.center.dcc.routes.route_of(eui(short)) for street in (before, after)]
        assert ways[0] == ways[1]
        fact = after.center.dcc.graph.fact_of(
            after.center.dcc.graph.index_of(eui(short)), now=after.now
        )
        assert fact.age_s == pytest.approx(100.0)
    assert not after.center.restore(kept[0].octets, eui(999), age_s=1.0, now=after.now)
    assert not after.center.restore(b"", kept[0].node, age_s=1.0, now=after.now)


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_what_collectors_say_keeps_the_books_straight(seed: int) -> None:
    """Safety in all worlds: no exception, every request ends once, locations have a collector."""
    dice = random.Random(seed)
    world = made_world(seed)
    street = Backhauls(world, joined=())
    asked = 0
    for _ in range(120):
        short = dice.choice(world.collectors)
        served = [c for c, each in street.connections.items() if each.short == short]
        step = dice.randrange(8)
        if not served:
            street.join(short)
        elif step == 0:
            street.leave(dice.choice(served))
        elif step == 1:
            rows = [row(world, m, dice.randrange(256)) for m in world.meters if dice.random() < 0.7
                    and row_is_possible(world, m)]  # fmt: skip
            street.say(served[-1], *street.collectors[short].table(rows, dice.randrange(3)))
        elif step == 2:
            street.report(served[-1])
        elif step == 3:
            street.send(dice.choice(world.meters), bytes(dice.randrange(256) for _ in range(30)))
        elif step == 4:
            way = street.center.dcc.routes.route_of(eui(dice.choice(world.meters)))
            if way is not None and street.center.questions.probe(way, now=street.now) is not None:
                asked += 1
        elif step == 5:
            street.say(
                served[-1], Fate(dice.randrange(40), dice.choice([*What][3:4] + [*What][5:]))
            )
        else:
            street.run(dice.random() * 20)
        street.collect()
    street.run(200)
    assert len(street.of(RequestEnded)) == asked
    for short in world.meters:
        location = street.center.dcc.locations.find(eui(short))
        if location is not None:
            assert isinstance(location.place, BehindCollector)
            assert location.place.collector in map(eui, world.collectors)


def row_is_possible(world: object, meter: int) -> bool:
    try:
        row(world, meter)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  a meter of a random world may have no way
        return False
    return True


def test_ids_of_the_world_are_as_the_hello_says() -> None:
    """Guards the tests: what is refused above is refused for its one change alone."""
    assert len(DODAG_ID) == 16
    assert Backhauls(STREET, joined=(WEST,)).of(CollectorJoined)
