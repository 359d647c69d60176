"""The center with the project's own collectors and stations before it, on a virtual clock.

The contract under test: what both sides were written from is one protocol. Tables, reports and
packets of a real mesh make the topology; what the center sends down arrives, by its own routes;
pings and traces are answered along exactly those, traces row by row; an isolation over a real mesh
finds the node that was switched off; a collector that restarts is taken up again.
"""

from __future__ import annotations

import functools
import random

import pytest

from amistack.framing import Closed, Frame, FramedPeer, FrameReceived, Kind, Opened, Priority
from headend.dcc.center import Center
from headend.dcc.events import (
    CollectorRefused,
    Connection,
    DatagramReceived,
    Event,
    Isolated,
    RequestEnded,
    RowTraced,
)
from headend.domain.mesh import Area, Assignment, MeshPeer
from mesh.backhaul import Message, Order, Outcome, Probed, Traced
from mesh.packet import ROOT, PacketKind
from mesh.reports import REPORT_PERIOD_S, Reason
from mesh.topology.facts import AreaId, Role
from mesh.topology.location import BehindCollector
from mesh.topology.status import LATE_S, EndpointState
from mesh.topology.verdicts import Finding
from tests.mesh.collector.world import AREA, CollectorWorld, HeadEnd
from tests.mesh.routing.medium import DODAG_ID, eui


class Door(HeadEnd):
    """One stream's other end, with the center behind it."""

    def __init__(self, street: Street, connection: Connection) -> None:
        super().__init__(street.now)
        self._street = street
        self._connection = connection

    def receive(self, data: bytes, now: float) -> None:
        self.peer.receive_data(data, now=now)
        for event in self.peer.events():
            match event:
                case Opened(peer):
                    self._street.center.connect(self._connection, peer, None, now=now)
                case FrameReceived(frame):
                    self._street.center.receive(self._connection, frame.payload, now=now)
                case Closed():
                    self._street.center.disconnect(self._connection, now=now)
        self._street.settle()


class Street(CollectorWorld):
    """A mesh whose collectors speak with one center."""

    def __init__(self, seed: int, **more: object) -> None:
        super().__init__(seed, **more)
        self.center = Center()
        self.told: list[Event] = []
        self._count = 0
        self._due = 0.0
        self._doors: dict[Connection, tuple[int, Door]] = {}

    def enrol(self) -> None:
        self.center.add_area(Area(AreaId(AREA), "lab", DODAG_ID))
        for short in sorted(self.hearers):
            role = Role.COLLECTOR if short in self.roots else Role.METER
            self.center.place(Assignment(eui(short), AreaId(AREA), short, role), now=self.now)

    def connect(self, short: int = 1, **_: object) -> Door:
        self._count += 1
        connection = Connection(self._count)
        door = Door(self, connection)
        self._doors[connection] = (short, door)
        self.head_ends[short] = door
        self.collector(short).backhaul_opened(run=self._count, now=self.now)
        self.touch(short)
        self._live(short, door)
        return door

    def lose(self, short: int) -> None:
        for connection, (which, _) in list(self._doors.items()):
            if which == short:
                del self._doors[connection]
                self.center.disconnect(connection, now=self.now)
        self.head_ends.pop(short, None)
        self.settle()

    def settle(self) -> None:
        """Say what the center has to say, and wake it when it wants."""
        for connection, priority, octets in self.center.messages_to_send():
            if connection in self._doors:
                short, door = self._doors[connection]
                frame = Frame(Kind.BACKHAUL, priority, eui(0xFFFF), octets)
                assert isinstance(door.peer, FramedPeer)
                door.peer.send(frame, now=self.now)
                self.at(self.now, functools.partial(self._pump_if_there, short))
        self.told += self.center.events()
        due = self.center.next_timer()
        if due is not None and (due < self._due or self._due <= self.now):
            self._due = max(due, self.now + 0.001)
            self.at(self._due, self._tick)

    def _pump_if_there(self, short: int) -> None:
        if short in self.head_ends:
            self.pump(short)

    def _tick(self) -> None:
        self.center.handle_timer(now=self.now)
        self.settle()

    def ended(self, request: int | None) -> Message | None:
        (one,) = [e for e in self.told if isinstance(e, RequestEnded) and e.request == request]
        return one.answer

    def rows(self, request: int | None) -> list[tuple[int, Outcome, int]]:
        """What a trace has told before its end: hops, outcome, milliseconds."""
        rows = [e.row for e in self.told if isinstance(e, RowTraced) and e.request == request]
        return [(row.hops, row.outcome, row.round_trip_ms) for row in rows]


def formed(seed: int = 3) -> Street:
    """Collectors 1 and 2, a ladder of six meters between them, all known and reported.

    ::

        1 - 3 - 5 - 7 - 2
          \\   X   X   /
            4 - 6 - 8
    """
    street = Street(seed, roots=(1, 2))
    for one, other in (
        (1, 3), (3, 5), (5, 7), (7, 2), (1, 4), (4, 6), (6, 8), (8, 2), (3, 6), (4, 5), (5, 8),
        (6, 7),
    ):  # fmt: skip
        street.link(one, other)
    street.enrol()
    street.start()
    street.run(300.0, until=lambda: not street.orphans() and not street.unrouted())
    assert not street.unrouted()
    street.connect(1)
    street.connect(2)
    # Reports of a boot come within a minute, changes after five; further parents are tried one
    # after the other, in the first minutes.
    street.run(600.0)
    return street


@pytest.fixture(scope="module")
def whole() -> Street:
    return formed()


def test_real_collectors_are_believed_and_their_rows_are_places(whole: Street) -> None:
    assert not [event for event in whole.told if isinstance(event, CollectorRefused)]
    strange = {
        reason: count
        for reason, count in whole.center.all_refused.items()
        if reason not in ("old path sequence", "repeated report")
    }
    assert strange == {}
    dcc = whole.center.dcc
    for short in range(3, 9):
        location = dcc.locations.find(eui(short))
        assert location is not None, short
        assert isinstance(location.place, BehindCollector)
        way = dcc.routes.route_of(eui(short))
        assert way is not None
        assert way.hops <= 3
    # In the middle there is always another parent; at the ends it depends on who was tried.
    assert dcc.routes.alternates_of(eui(5))
    assert dcc.routes.alternates_of(eui(6))
    for short in range(3, 9):
        fact = dcc.graph.fact_of(dcc.graph.index_of(eui(short)), now=whole.now)
        assert fact.age_s is not None, short


def test_datagram_goes_down_by_the_centers_route_and_one_comes_up(whole: Street) -> None:
    octets = b"\x44\x02\x12\x34down"
    whole.center.send(
        MeshPeer(AreaId(AREA), eui(5), None, Priority.ON_DEMAND), octets, now=whole.now
    )
    whole.settle()
    whole.run(3.0)
    assert [event.payload for event in whole.delivered(5, PacketKind.COAP)] == [octets]
    whole.station(5).send(
        b"up", destination=ROOT, priority=Priority.ON_DEMAND, now=whole.now, kind=PacketKind.COAP
    )
    whole.touch(5)
    whole.run(3.0)
    (event,) = [e for e in whole.told if isinstance(e, DatagramReceived)]
    assert (event.peer.node, event.octets) == (eui(5), b"up")
    assert whole.center.heard(event.peer, event.peer.node, now=whole.now).collector in (
        eui(1),
        eui(2),
    )


def test_ping_and_trace_are_answered_along_the_centers_route(whole: Street) -> None:
    for short in range(3, 9):
        way = whole.center.dcc.routes.route_of(eui(short))
        assert way is not None
        for path in (way, *whole.center.dcc.routes.alternates_of(eui(short)), way.up_to(0)):
            number = whole.center.questions.probe(path, now=whole.now)
            whole.settle()
            whole.run(15.0)
            answer = whole.ended(number)
            assert isinstance(answer, Probed)
            assert (answer.outcome, answer.hops) == (Outcome.ANSWERED, path.hops), str(path)
        number = whole.center.questions.trace(way, now=whole.now)
        whole.settle()
        whole.run(20.0)
        traced = whole.ended(number)
        assert isinstance(traced, Traced)
        assert [row.node for row in traced.rows] == list(way.shorts)
        assert whole.rows(number) == [
            (hops, row.outcome, row.round_trip_ms) for hops, row in enumerate(traced.rows, start=1)
        ]


def test_order_is_carried_out_by_a_real_collector(whole: Street) -> None:
    number = whole.center.questions.order(eui(1), Order.SEND_TABLE, now=whole.now)
    whole.settle()
    whole.run(2.0)
    done = whole.ended(number)
    assert done is not None
    assert getattr(done, "is_done", False)


def test_trace_tells_who_answers_long_before_it_gives_up_who_does_not() -> None:
    street = formed(seed=13)
    way = street.center.dcc.routes.way_by(eui(1), eui(5))
    assert way is not None
    assert way.hops > 1
    street.kill(5)
    began = street.now
    number = street.center.questions.trace(way, now=street.now)
    street.settle()
    street.run(60.0, until=lambda: len(street.rows(number)) == way.hops - 1)
    assert [outcome for _, outcome, _ in street.rows(number)] == [Outcome.ANSWERED] * (way.hops - 1)
    first_s = street.now - began
    assert first_s < 5.0
    street.run(60.0, until=lambda: any(isinstance(e, RequestEnded) for e in street.told))
    assert street.now - began > 2 * first_s
    traced = street.ended(number)
    assert isinstance(traced, Traced)
    assert traced.rows[-1].outcome in (Outcome.LOST_AFTER, Outcome.NO_ANSWER)
    assert street.rows(number)[-1] == (way.hops, traced.rows[-1].outcome, 0)
    assert "row of a trace out of turn" not in street.center.all_refused


def test_meter_that_is_switched_off_is_found() -> None:
    street = formed(seed=5)
    street.kill(5)
    street.center.isolate(eui(5), now=street.now)
    street.settle()
    street.run(900.0, until=lambda: any(isinstance(e, Isolated) for e in street.told))
    (ended,) = [event for event in street.told if isinstance(event, Isolated)]
    assert ended.verdict is not None, ended.detail
    assert ended.verdict.finding in (Finding.COMPONENT, Finding.CLASS), str(ended.verdict)
    assert {eui(5)} <= {end for cause in ended.verdict.causes for end in cause.component.ends}


def test_collector_that_comes_back_brings_its_table_again() -> None:
    street = formed(seed=7)
    street.lose(1)
    way = street.center.dcc.routes.route_of(eui(3))
    assert way is not None
    assert way.collector == eui(2)
    street.collector(1).backhaul_lost(now=street.now)
    street.run(5.0)
    street.connect(1)
    street.run(5.0)
    joined = street.center.collectors.find(eui(1))
    assert joined is not None
    assert joined.table.is_whole
    way = street.center.dcc.routes.route_of(eui(3))
    assert way is not None
    assert way.collector == eui(1)


def test_what_a_node_said_without_a_backhaul_is_told_with_its_age_when_there_is_one() -> None:
    street = formed(seed=11)
    for collector in (1, 2):
        street.lose(collector)
        street.collector(collector).backhaul_lost(now=street.now)
    street.run(1.0)
    street.station(5).report(Reason.ADDRESS_CHANGED, now=street.now)
    street.touch(5)
    street.run(300.0)
    dcc = street.center.dcc
    before = dcc.devices.status_of(eui(5), now=street.now)
    assert before.registered_for is not Reason.ADDRESS_CHANGED
    for collector in (1, 2):
        street.connect(collector)
    street.run(5.0)
    after = dcc.devices.status_of(eui(5), now=street.now)
    assert after.registered_for is Reason.ADDRESS_CHANGED
    fact = dcc.graph.fact_of(dcc.graph.index_of(eui(5)), now=street.now)
    assert {link.age_s >= 300.0 for link in fact.links} == {True}


def test_seeds_differ() -> None:
    """Guards the tests: chance is drawn from the seed."""
    assert random.Random(3).random() != random.Random(5).random()


def parents_of(street: Street, short: int) -> list[bytes]:
    graph = street.center.dcc.graph
    fact = graph.fact_of(graph.index_of(eui(short)), now=street.now)
    return [link.neighbour for link in fact.links if link.place is not None]


@pytest.mark.requirement("I2-X-01")
def test_graph_and_status_follow_the_mesh_within_the_reporting_period() -> None:
    """Parents change and a node falls silent; the DCC shows both, and nothing too early."""
    street = formed(seed=9)
    devices = street.center.dcc.devices

    def state(short: int) -> EndpointState:
        return devices.status_of(eui(short), now=street.now).state

    (first, *_) = parents_of(street, 3)
    assert first == eui(1)
    street.cut(1, 3)
    changed_at = street.now
    street.run(
        REPORT_PERIOD_S,
        until=lambda: bool(parents_of(street, 3)) and eui(1) not in parents_of(street, 3),
    )
    assert eui(1) not in parents_of(street, 3)
    assert street.now - changed_at < REPORT_PERIOD_S

    heard_at = devices.status_of(eui(8), now=street.now).heard_at
    assert heard_at is not None
    street.kill(8)
    street.run(LATE_S - (street.now - heard_at) - 60.0)
    assert state(8) is EndpointState.REACHABLE
    street.run(120.0)
    assert state(8) is EndpointState.LATE
    assert {state(short) for short in (1, 2, 3, 4, 5, 6, 7)} == {EndpointState.REACHABLE}
    # By then both ends of the link that was cut have reported without it.
    way = street.center.dcc.routes.route_of(eui(3))
    assert way is not None
    assert way.nodes[-2] != eui(1)
