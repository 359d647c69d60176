"""A collector with its disk.

The contract under test: what the collector says it knows is on disk before it says so; after a
power cut it goes on with its table, its version and its lease, and nobody joins anew; a node that
is kept out stays out; what the head-end says reaches the mesh and the other way round.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass, field, replace

import pytest

from amistack.framing import Priority
from mesh.backhaul import Command, CommandDone, Down, Order, RouteRow, Status, Up
from mesh.collector.collector import Collector
from mesh.collector.events import BackhaulChanged, KeepRow
from mesh.lan import Lan
from mesh.packet import PacketKind
from mesh.routing.events import PacketReceived, ParentChanged
from mesh.routing.messages import sequence_after
from mesh.station.events import Event
from mesh.station.station import RESUME_SPREAD_S
from meterd.meshing.keeper import FIRST_VERSION, NodeKeeper
from meterd.meshing.serving import Serving
from meterd.storage import Storage
from tests.mesh.collector.world import AREA, HeadEnd
from tests.meterd.bench import EPOCH
from tests.meterd.meshing.bench import (
    LAN,
    RELAY_EUI,
    ROOT_EUI,
    Simple,
    station_of,
    stranger_beside,
)
from tests.support.power import TornFiles
from tests.support.worlds import World

METER_SHORT = 2


class Recorder(Simple):
    """A meter's node, with what it heard and where it hung."""

    def __init__(self) -> None:
        super().__init__(RELAY_EUI, METER_SHORT, ("collector",))
        self.heard: list[bytes] = []
        self.parents: list[int | None] = []

    def _carry(self) -> None:
        for event in self.station.events():
            if isinstance(event, PacketReceived):
                self.heard.append(event.payload)
            elif isinstance(event, ParentChanged):
                self.parents.append(event.short)
            elif hasattr(event, "until"):
                self.station.node.counters_reserved(event.until)
        self.lan.give_way(now=self.now)


@dataclass
class ServingBench:
    """One collector whose power can be cut, and one meter in its reach."""

    seed: int = 0
    world: World = field(init=False)
    files: TornFiles = field(init=False)
    meter: Recorder = field(init=False)
    serving: Serving = field(init=False)
    keeper: NodeKeeper = field(init=False)
    head_end: HeadEnd | None = None
    events: list[BackhaulChanged] = field(default_factory=list)
    life: int = 0

    def __post_init__(self) -> None:
        self.files = TornFiles(random.Random(self.seed))
        self.world = World(self.seed, LAN)
        self.meter = Recorder()
        self.meter.start(0.0)
        self.world.add("meter", self.meter)

    def power_on(self) -> None:
        self.life += 1
        storage = Storage.on(self.files)
        self.keeper = keeper = NodeKeeper(storage)
        dice = random.Random(f"{self.seed} {self.life}")
        station = station_of(ROOT_EUI, 1, dice, counter=keeper.counter, dtsn=keeper.dtsn)
        collector = Collector(station, AREA, epoch=keeper.epoch, hop_limit=64)
        lan: Lan[Event] = Lan(
            collector,  # type: ignore[arg-type]
            station.node.seal,
            (),
            learned=keeper.addresses(),
        )
        self.serving = Serving(
            collector,
            lan,  # type: ignore[arg-type]
            keeper,
            utc=lambda: EPOCH + self.world.now,
        )
        self.serving.start(now=self.world.now)
        self.world.add("collector", self.serving, self.events.append)

    def power_off(self) -> None:
        self.world.remove("collector")
        self.files.crash()
        self.head_end = None

    def connect(self, **more: object) -> HeadEnd:
        self.head_end = HeadEnd(self.world.now, **more)  # type: ignore[arg-type]
        self.serving.backhaul_opened(now=self.world.now)
        self.pump()
        return self.head_end

    def pump(self) -> None:
        """Carry octets both ways until there are none."""
        head_end, now = self.head_end, self.world.now
        assert head_end is not None
        while True:
            up = self.serving.backhaul_data()
            down = head_end.peer.data_to_send()
            for data in up:
                head_end.receive(data, now)
            for data in down:
                self.serving.backhaul_received(data, now=now)
            self.world._hosts["collector"].settle()
            if not up and not down:
                return

    def route(self) -> tuple[int, ...] | None:
        node = self.serving.collector.station.node
        return node.route_to(METER_SHORT, now=self.world.now)


def formed(seed: int = 0) -> ServingBench:
    bench = ServingBench(seed)
    bench.power_on()
    bench.world.elapse(60)
    assert bench.route() == ()
    return bench


@pytest.mark.parametrize("seed", range(6))
def test_after_a_power_cut_the_table_is_there_and_nobody_joins_anew(seed: int) -> None:
    bench = formed(seed)
    (row,) = bench.keeper.rows(EPOCH + bench.world.now)
    assert (row.target, row.parents) == (METER_SHORT, (1,))
    bench.power_off()
    bench.world.elapse(1)
    dtsn = bench.serving.collector.station.node.dodag.dtsn
    bench.power_on()
    assert bench.route() == ()
    dodag = bench.serving.collector.station.node.dodag
    assert dodag.dtsn == dtsn
    assert dodag.neighbours.by_short(METER_SHORT) is not None
    bench.world.elapse(5)
    question = Down(7, METER_SHORT, PacketKind.COAP, Priority.ON_DEMAND, b"still there?")
    bench.connect().say(question, bench.world.now)
    bench.pump()
    bench.world.elapse(10)
    assert bench.meter.heard == [b"still there?"]
    assert bench.meter.parents == [1]


def test_no_frame_names_a_dtsn_that_a_power_cut_would_lose() -> None:
    """A root that comes back under another one has everybody below tell its parents anew."""
    bench = ServingBench()
    bench.power_on()
    dodag = bench.serving.collector.station.node.dodag
    bench.world.elapse(0.0)
    assert bench.keeper.dtsn == dodag.dtsn
    bench.power_off()
    bench.power_on()
    assert bench.serving.collector.station.node.dodag.dtsn == dodag.dtsn
    bench.world.elapse(60)
    head_end = bench.connect()
    before = bench.serving.collector.station.node.dodag.dtsn
    head_end.say(Command(1, Order.ASK_FOR_ROUTES), bench.world.now)
    bench.pump()
    after = bench.serving.collector.station.node.dodag.dtsn
    assert after != before
    assert NodeKeeper(Storage.on(bench.files)).dtsn == after


def test_a_disk_that_does_not_take_the_dtsn_is_counted_and_tried_again() -> None:
    bench = formed()
    bench.files.fails_with = errno.ENOSPC
    node = bench.serving.collector.station.node
    node.ask_for_routes(now=bench.world.now)
    bench.world._hosts["collector"].settle()
    assert bench.serving.counters["storage failed"] >= 1
    bench.files.fails_with = None
    bench.world.elapse(30)
    assert bench.keeper.dtsn == node.dodag.dtsn


def test_a_row_that_the_disk_did_not_take_is_written_with_the_next_news() -> None:
    bench = ServingBench()
    bench.power_on()
    bench.files.fails_with = errno.ENOSPC
    row = RouteRow(METER_SHORT, (1,), 241, 3600)
    table = bench.serving.collector.table
    assert table.is_to_keep(row, now=0.0)
    bench.serving._try(lambda: bench.serving._take(KeepRow(row)))
    assert bench.serving.counters["storage failed"] == 1
    assert table.is_to_keep(row, now=1.0)


def test_what_is_acknowledged_to_a_node_was_on_disk_before() -> None:
    """Whenever the power goes after the meter knows that it is known, the row is there."""
    bench = ServingBench()
    bench.power_on()
    for _ in range(400):
        bench.world.elapse(0.02)
        if bench.meter.station.hops == 1:  # The root has answered its DAO.
            break
    else:
        raise AssertionError("never answered")
    bench.power_off()
    bench.power_on()
    assert bench.route() == ()


def test_a_row_that_ended_while_it_was_away_is_not_taken_up() -> None:
    bench = formed()
    bench.power_off()
    bench.world.remove("meter")
    bench.world.elapse(2 * 3600)
    bench.power_on()
    assert bench.route() is None


def test_version_epoch_and_who_is_kept_out_outlive_a_restart() -> None:
    bench = formed()
    head_end = bench.connect(epoch=9)
    head_end.say(Command(1, Order.BUMP_VERSION), bench.world.now)
    head_end.say(Command(2, Order.DENY, RELAY_EUI, METER_SHORT), bench.world.now)
    bench.pump()
    assert [done.is_done for done in head_end.of(CommandDone)] == [True, True]
    bench.power_off()
    bench.power_on()
    assert bench.keeper.version == FIRST_VERSION + 1
    assert bench.keeper.epoch == 9
    assert RELAY_EUI in bench.serving.collector.denials.nodes
    again = bench.connect(epoch=9)
    again.say(Command(3, Order.ALLOW, RELAY_EUI, METER_SHORT), bench.world.now)
    bench.pump()
    bench.power_off()
    bench.power_on()
    assert RELAY_EUI not in bench.serving.collector.denials.nodes


def test_packets_cross_both_ways_and_the_table_is_told() -> None:
    bench = formed()
    head_end = bench.connect()
    assert bench.events == [BackhaulChanged(is_up=True)]
    assert bench.keeper.short == 1
    assert [row.target for row in head_end.of(RouteRow)] == [METER_SHORT]
    # It had no backhaul for a minute, of which the meter knows: it resumes when its turn comes.
    bench.world.elapse(RESUME_SPREAD_S + 5)
    bench.meter.station.send(b"hello", priority=Priority.SCHEDULED, now=bench.world.now)
    bench.meter.lan.give_way(now=bench.world.now)
    bench.world._hosts["meter"].settle()
    bench.world.elapse(5)
    bench.pump()
    ups = [up for up in head_end.of(Up) if up.kind == PacketKind.COAP]
    assert [(up.source, up.payload, up.hops) for up in ups] == [(METER_SHORT, b"hello", 1)]
    bench.serving.backhaul_lost(now=bench.world.now)
    bench.world._hosts["collector"].settle()
    assert bench.events[-1].is_up is False


def test_what_routing_and_the_backhauls_parts_refuse_stands_among_the_counts() -> None:
    bench = formed()
    bench.meter.station.send(b"early", priority=Priority.ON_DEMAND, now=bench.world.now)
    bench.meter.lan.give_way(now=bench.world.now)
    bench.world._hosts["meter"].settle()
    stranger = stranger_beside("collector")
    stranger.start(bench.world.now)
    bench.world.add("stranger", stranger)
    bench.world.elapse(60)
    head_end = bench.connect()
    for _ in range(2):
        head_end.say(Down(1, METER_SHORT, 0, Priority.ON_DEMAND, b"x"), bench.world.now)
    routes = bench.serving.collector.station.node.routes
    assert routes is not None
    row = routes.rows[METER_SHORT]
    later = sequence_after(sequence_after(row.path_sequence))
    routes.rows[METER_SHORT] = replace(row, path_sequence=later)
    head_end.say(Command(2, Order.ASK_FOR_ROUTES), bench.world.now)
    bench.pump()
    bench.world.elapse(60)
    counts = bench.serving.counts()
    for reason in (
        "dio: another dodag",  # the tree
        "dao: old path sequence",  # the table of routes
        "dropped: no backhaul",  # what is held
        "request repeated",  # what was asked for
    ):
        assert counts.get(reason, 0) >= 1, (reason, counts)


def test_a_head_end_that_does_not_accept_is_asked_again() -> None:
    bench = formed()
    head_end = bench.connect(status=Status.UNKNOWN_COLLECTOR)
    assert bench.events == []
    assert head_end.of(RouteRow) == []


def test_every_connection_has_a_run_of_its_own() -> None:
    bench = formed()
    runs = [bench.keeper.next_run() for _ in range(3)]
    bench.power_off()
    bench.power_on()
    runs += [bench.keeper.next_run() for _ in range(3)]
    assert len(set(runs)) == 6
    assert min(runs) >= 1
