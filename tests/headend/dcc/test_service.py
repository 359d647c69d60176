"""The DCC on real streams, with the head-end's store and southbound.

The contract under test: a meter behind collectors joins, reports and is read like one on UDP, and
the path of what it brought names its collector; a read whose way is broken is answered by another
way, also by another collector; the topology is there again after a restart, before any node has
reported anew, and so is how each node was, until it says or shows something else; under TLS only
the key that was assigned to a collector serves as it; what comes on a stream that is none of a
collector's is counted and cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from amistack.coap.codes import Code
from amistack.coap.path import HOP_TIME
from amistack.coap.timing import Timing
from amistack.errors import LinkError
from amistack.framing import Frame, FramedPeer, Kind, Priority
from amistack.identifiers import Eui64, format_eui64
from amistack.links.udp import Direction
from amistack.machine import Peer
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key, head_end_credential
from headend.collection.on_demand import OnDemandReads
from headend.dcc.events import Isolated, Tried
from headend.dcc.operations import MeshOperations
from headend.dcc.service import DccService
from headend.domain.asking import NotAnswered, Unreachable
from headend.domain.mesh import Area, MeshPeer
from headend.domain.meters import Meter, MeterState
from headend.domain.readings import ReadResult
from headend.domain.refusals import NotThere
from headend.southbound.service import Southbound
from headend.store.interface import EnrolMeters, Outcome
from headend.store.mesh import AssignAddresses, Assigned, KeepArea
from headend.store.sqlite import SqliteStore
from mesh.backhaul import Down, Order, Probe, Probed, Traced
from mesh.reports import HOPS_UNKNOWN, Reason
from mesh.topology.facts import AreaId, Backhaul, Role
from mesh.topology.graph import NODES_MAX
from mesh.topology.location import BehindCollector
from mesh.topology.status import DeviceStatus, EndpointState
from mesh.topology.verdicts import Finding
from tests.headend.dcc.wire import Certificate, WireCollector, wire
from tests.headend.dcc.worlds import DODAG_ID
from tests.mesh.topology.worlds import AREA, World, eui
from tests.support import headend as support
from tests.support.headend import NOW, post, private_key, public_key, until
from tests.support.street_meter import StreetMeter

WEST, EAST = 1, 2
METER = 5
WORLD = World(
    (WEST, EAST),
    (3, 4, METER),
    {
        frozenset({WEST, 3}): 140, frozenset({3, METER}): 140, frozenset({EAST, 4}): 200,
        frozenset({4, METER}): 200,
    },
)  # fmt: skip
"""The meter hears one relay of each collector; addresses are as the store gives them."""
OWN = Eui64(bytes.fromhex("70b3d5fffe0000aa"))
KEY = private_key("head-end")
IDENTITY = AuthenticationKey(KEY, head_end_credential(encode_public_key(KEY.public_key())))


class Place:
    """A head-end with a store, a southbound and a DCC, and the world around it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "s.sqlite"
        self.wall = lambda: float(NOW)
        self.broken: set[object] = set()
        self.collectors = {short: wire(WORLD, short, self.broken) for short in WORLD.collectors}
        # A meter's row stands in one collector's table.
        self.collectors[EAST].row_targets = ()
        self.meters: list[StreetMeter] = []
        self.seen: list[tuple[Direction, Peer, Peer, bytes, float]] = []
        self.context: ssl.SSLContext | None = None
        self.store: SqliteStore
        self.southbound: Southbound
        self.dcc: DccService
        self.address: tuple[str, int]

    async def start(self) -> None:
        self.store = SqliteStore.open(self._path)
        self.dcc = DccService(
            own=OWN, store=self.store, wall=self.wall, dice=random.Random(5),
            observer=lambda *seen: self.seen.append(seen),
        )  # fmt: skip
        self.southbound = Southbound(
            key=IDENTITY, store=self.store, entropy=os.urandom, dice=random.Random(7),
            wall=lambda: float(NOW), elsewhere=self.dcc,
        )  # fmt: skip
        self.dcc.deliver = self.southbound.receive_datagram
        await self.southbound.start("127.0.0.1", 0)
        await self.dcc.load()
        self.address = await self.dcc.start("127.0.0.1", 0, context=self.context)

    async def stop(self) -> None:
        await self.dcc.stop()
        await self.southbound.stop()
        await self.store.close()

    async def assign(self, key_hash: bytes | None = None, certificate: bytes | None = None) -> None:
        """The area and everybody in it, before the start that shall know them."""
        await self.store.commit(KeepArea(Area(AREA, "rfc8036", DODAG_ID)))
        for role, shorts in ((Role.COLLECTOR, WORLD.collectors), (Role.METER, WORLD.meters)):
            is_collector = role is Role.COLLECTOR
            outcome: Outcome = await self.store.commit(
                AssignAddresses(
                    AREA, tuple(map(eui, shorts)), role,
                    key_hash if is_collector else None, certificate if is_collector else None,
                )
            )  # fmt: skip
            assert isinstance(outcome, Assigned)
            assert [each.short for each in outcome.assignments] == list(shorts)
        row = Meter(eui(METER), public_key(eui(METER).hex()), MeterState.ENROLLED, NOW)
        await self.store.commit(EnrolMeters((row,)))

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def joined(self, *shorts: int) -> None:
        for short in shorts or WORLD.collectors:
            await self.collectors[short].join(self.address)
            await until(lambda s=short: self.is_up(s))  # type: ignore[misc]

    def is_up(self, short: int) -> bool:
        return self.dcc.center.collectors.find(eui(short)) is not None

    def located(self) -> Eui64 | None:
        location = self.dcc.center.dcc.locations.find(eui(METER))
        if location is None or not isinstance(location.place, BehindCollector):
            return None
        return location.place.collector

    async def meter(self, by: int = WEST) -> StreetMeter:
        made = StreetMeter(eui(METER), await self.collectors[by].tunnel(METER), IDENTITY.credential)
        self.meters.append(made)
        return made

    def reads(self) -> OnDemandReads:
        return OnDemandReads(
            store=self.store, asker=self.southbound, entropy=os.urandom, wall=lambda: float(NOW)
        )

    def close(self) -> None:
        for meter in self.meters:
            meter.close()
        for collector in self.collectors.values():
            collector.close()


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    await made.start()
    await made.assign()
    await made.restart()
    yield made
    made.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(made.stop(), 5)


async def registered(place: Place) -> StreetMeter:
    meter = await place.meter()
    await meter.join()
    answer = await meter.ask(post("reg", support.registration(eui(METER)).encode()))
    assert answer.code == Code.CHANGED
    return meter


@pytest.mark.both_loops
async def test_meter_behind_a_collector_joins_reports_and_is_read(place: Place) -> None:
    await place.joined()
    place.collectors[WEST].report()
    meter = await registered(place)
    answer = await meter.ask(post("rep", support.report().encode()))
    assert answer.code == Code.CHANGED
    overview = await place.store.find_overview(eui(METER))
    assert overview is not None
    assert overview.location is not None
    path = f"mesh:7:{format_eui64(eui(METER))}/{format_eui64(eui(WEST))}"
    assert overview.location.path == path
    read = await place.reads().read(eui(METER), deadline_s=5)
    assert (read.result, read.path) == (ReadResult.ANSWERED, path)
    downs = [m for m in place.collectors[WEST].told if isinstance(m, Down)]
    assert {down.relays for down in downs} == {(3,)}
    # The read goes before what a report is answered with.
    assert [down.priority for down in downs][-1] is Priority.ON_DEMAND
    assert Priority.SCHEDULED in {down.priority for down in downs}
    assert place.southbound.refused == {}
    assert place.dcc.refused == {}
    # It is asked as patiently as two hops need.
    paths = place.southbound._stack._secured._endpoint._delivery.conversations
    timing = paths[MeshPeer(AREA, eui(METER))].path
    assert timing is not None
    assert timing.timing.ack_timeout == Timing().ack_timeout + 2 * HOP_TIME


async def test_what_collectors_carry_is_shown_as_datagrams_of_the_mesh(place: Place) -> None:
    await place.joined()
    place.collectors[WEST].report()
    await registered(place)
    await place.reads().read(eui(METER), deadline_s=5)
    node = (f"fd00::ff:fe00:{METER:x}", 5683)
    ours = (str(ipaddress.IPv6Address(DODAG_ID)), 5683)
    downs = [m.payload for m in place.collectors[WEST].told if isinstance(m, Down)]
    shown = [seen[3] for seen in place.seen if seen[:3] == (Direction.SENT, ours, node)]
    assert shown == downs
    came = [seen[3] for seen in place.seen if seen[:3] == (Direction.RECEIVED, node, ours)]
    assert len(shown) + len(came) == len(place.seen)
    assert len(came) == place.dcc.center.all_counters["datagrams received"] > 2
    assert {seen[4] for seen in place.seen} == {float(NOW)}
    # A read of whom nobody can reach: nothing is sent, nothing is shown.
    place.seen.clear()
    for short in (WEST, EAST):
        await place.collectors[short].leave()
        await until(lambda s=short: not place.is_up(s))  # type: ignore[misc]
    with contextlib.suppress(NotAnswered, Unreachable):
        await place.reads().read(eui(METER), deadline_s=0.1)
    assert place.seen == []


async def test_what_a_meter_says_and_does_not_say_is_its_status(place: Place) -> None:
    await place.joined()
    place.collectors[WEST].report()
    await until(lambda: place.dcc.center.dcc.routes.route_of(eui(METER)) is not None)

    def status() -> DeviceStatus:
        return place.dcc.center.dcc.devices.status_of(eui(METER), now=place.dcc.now())

    before = status().heard_at
    assert before is not None
    meter = await registered(place)
    heard = status().heard_at
    assert heard is not None
    assert heard > before
    meter.is_silent = True
    read = await place.reads().read(eui(METER), deadline_s=0.2)
    assert read.result is ReadResult.TIMED_OUT
    assert status().state is EndpointState.SILENT
    meter.is_silent = False
    assert (await place.reads().read(eui(METER), deadline_s=5)).result is ReadResult.ANSWERED
    assert status().state is EndpointState.REACHABLE


async def test_read_over_a_broken_way_is_answered_by_the_other_collector(place: Place) -> None:
    await place.joined()
    place.collectors[WEST].report()
    await registered(place)
    await place.collectors[EAST].tunnel(METER)
    # The meter is one meter, whichever way its datagrams take.
    place.collectors[EAST].tunnels[METER].serve(("127.0.0.1", meter_port(place)))
    place.broken.add(3)
    read = await place.reads().read(eui(METER), deadline_s=5)
    assert read.result is ReadResult.ANSWERED
    west_down = [m for m in place.collectors[WEST].told if isinstance(m, Down)][-1]
    (east_down,) = [m for m in place.collectors[EAST].told if isinstance(m, Down)]
    assert (west_down.relays, east_down.relays) == ((3,), (4,))
    assert east_down.attempt == west_down.attempt + 1
    assert east_down.payload == west_down.payload


def meter_port(place: Place) -> int:
    link = place.meters[0]._link
    assert link is not None
    return link.address[1]


async def test_topology_survives_a_restart_and_the_session_goes_on(place: Place) -> None:
    await place.joined()
    place.collectors[WEST].report()
    meter = await registered(place)
    before = place.dcc.center.dcc.routes.route_of(eui(METER))
    assert before is not None
    await place.restart()
    dcc = place.dcc.center.dcc
    # Before anybody has come, the ways of a collector without a backhaul are known.
    assert dcc.routes.way_by(eui(WEST), eui(METER)) == before
    assert place.located() == eui(WEST)
    await place.joined()
    assert dcc.routes.route_of(eui(METER)) == before
    assert place.dcc.saving.counters == {}
    answer = await meter.ask(post("rep", support.report().encode()))
    assert answer.code == Code.CHANGED
    assert (await place.reads().read(eui(METER), deadline_s=5)).result is ReadResult.ANSWERED


@pytest.mark.both_loops
@pytest.mark.requirement("I2-X-01")
async def test_how_each_node_was_survives_a_restart_until_it_speaks(place: Place) -> None:
    """At night a meter dies and is asked in vain; its neighbour has had its power restored."""
    await place.joined()
    west = place.collectors[WEST]
    west.report()
    loaded = dict(WORLD.reports(sequence=2))[3]
    west.tell(3, replace(loaded, reason=Reason.POWER_RESTORED))
    meter = await registered(place)
    meter.is_silent = True
    await until(lambda: status_of(place, 3).registered_for is Reason.POWER_RESTORED)
    read = await place.reads().read(eui(METER), deadline_s=0.2)
    assert read.result is ReadResult.TIMED_OUT
    assert status_of(place, METER).state is EndpointState.SILENT
    place.broken.add(4)
    steps = [step async for step in place.dcc.isolate(eui(4))]
    assert isinstance(steps[-1], Isolated)
    assert status_of(place, 4).state is EndpointState.UNREACHABLE

    await place.stop()
    place.wall = lambda: float(NOW + 6 * 3_600)
    await place.start()
    for short, state in (
        (METER, EndpointState.SILENT),
        (4, EndpointState.UNREACHABLE),
        (3, EndpointState.REACHABLE),
    ):
        found = status_of(place, short)
        assert found.state is state
        for at in (found.since, found.heard_at):
            assert at is not None
            assert 6 * 3_600 - 2 < place.dcc.now() - at < 6 * 3_600 + 10
    registration = status_of(place, 3)
    assert registration.registered_for is Reason.POWER_RESTORED
    assert registration.registered_at == registration.heard_at
    # What a collector had noted of them is no word of theirs.
    await place.joined()
    await until(lambda: place.dcc.center.counters["rows taken"] >= len(WORLD.meters))
    assert status_of(place, METER).state is EndpointState.SILENT
    assert place.dcc.saving.counters == {}
    # The meter speaks again: this is newer than all that was kept.
    west.tell(METER, dict(WORLD.reports(sequence=3))[METER])
    await until(lambda: status_of(place, METER).state is EndpointState.REACHABLE)
    assert place.dcc.now() - status_of(place, METER).since < 10
    await place.restart()
    assert status_of(place, METER).state is EndpointState.REACHABLE
    assert status_of(place, 4).state is EndpointState.UNREACHABLE


async def test_what_collectors_and_the_southbound_tell_of_nodes_is_noted_at_once(
    place: Place,
) -> None:
    await place.joined()
    saving = place.dcc.saving
    place.collectors[WEST].report()
    # All of them are heard for the first time.
    await until(lambda: saving.changed_count + saving.counters["statuses stored"] >= 5)
    await registered(place)
    peer = MeshPeer(AREA, eui(METER), eui(WEST))
    for learn, state in (
        (lambda: place.dcc.unanswered(eui(METER)), EndpointState.SILENT),
        (lambda: place.dcc.heard(peer, eui(METER)), EndpointState.REACHABLE),
    ):
        saving._changed.clear()
        learn()
        assert status_of(place, METER).state is state
        assert place.dcc.depths["statuses to be stored"] == (1, NODES_MAX)


def status_of(place: Place, short: int) -> DeviceStatus:
    return place.dcc.center.dcc.devices.status_of(eui(short), now=place.dcc.now())


async def test_collector_that_is_cut_off_is_down_and_comes_back(place: Place) -> None:
    await place.joined()
    place.collectors[WEST].report()
    await until(lambda: place.dcc.center.dcc.routes.route_of(eui(METER)) is not None)
    place.collectors[WEST].cut()
    await until(lambda: not place.is_up(WEST))
    way = place.dcc.center.dcc.routes.route_of(eui(METER))
    assert way is not None
    assert way.collector == eui(EAST)
    await place.joined(WEST)
    way = place.dcc.center.dcc.routes.route_of(eui(METER))
    assert way is not None
    assert way.collector == eui(WEST)


async def test_questions_are_answered_and_fail_where_nobody_is(place: Place) -> None:
    await place.joined(WEST)
    place.collectors[WEST].report()
    way = None
    while way is None:
        await asyncio.sleep(0.001)
        way = place.dcc.center.dcc.routes.route_of(eui(METER))
    assert (await place.dcc.probe(way)).hops == 2
    *rows, traced = [each async for each in place.dcc.trace(way)]
    assert isinstance(traced, Traced)
    assert [each.node for each in traced.rows] == [3, METER]
    assert [row.hops for row in rows if isinstance(row, Probed)] == [1, 2]
    assert (await place.dcc.order(eui(WEST), Order.BUMP_VERSION)).value == 241
    with pytest.raises(NotThere):
        await place.dcc.order(eui(EAST), Order.BUMP_VERSION)
    place.collectors[WEST].is_deaf = True
    waiting = asyncio.create_task(place.dcc.probe(way))
    await until(lambda: isinstance(place.collectors[WEST].told[-1], Probe))
    place.collectors[WEST].cut()
    with pytest.raises(NotThere, match="gave no answer"):
        await waiting


async def test_isolation_tells_each_step_and_the_end(place: Place) -> None:
    await place.joined()
    place.collectors[WEST].report()
    await until(lambda: place.dcc.center.dcc.routes.route_of(eui(METER)) is not None)
    place.broken.add(METER)
    steps = await steps_of(place)
    assert all(isinstance(step, Tried) for step in steps[:-1])
    assert len(steps) > 3
    ended = steps[-1]
    assert isinstance(ended, Isolated)
    assert ended.verdict is not None
    assert ended.verdict.finding is Finding.COMPONENT
    # Two links could have failed at once.
    assert not ended.verdict.is_certain
    assert str(ended.verdict.causes[0]) == f"meter {format_eui64(eui(METER))}"


async def steps_of(place: Place) -> list[Tried | Isolated]:
    return [step async for step in place.dcc.isolate(eui(METER))]


async def test_isolation_that_is_not_waited_for_ends(place: Place) -> None:
    await place.joined()
    place.collectors[WEST].report()
    await until(lambda: place.dcc.center.dcc.routes.route_of(eui(METER)) is not None)
    place.collectors[WEST].is_deaf = True
    waiting = asyncio.create_task(steps_of(place))
    await until(lambda: isinstance(place.collectors[WEST].told[-1], Probe))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert place.dcc.depths["isolations"][0] == 0


async def test_frames_that_are_no_collectors_are_counted(place: Place) -> None:
    await place.joined(WEST)
    link = place.collectors[WEST].link
    assert link is not None
    assert isinstance(link.machine, FramedPeer)
    for kind, source in ((Kind.COAP, eui(WEST)), (Kind.BACKHAUL, eui(EAST))):
        link.machine.send(Frame(kind, Priority.CONTROL, source, b"x"), now=link.now())
    link.settle()
    counters = place.dcc.counters
    await until(lambda: len(counters) == 2)
    assert counters == {
        "stream: frame of another kind": 1, "stream: frame of another source": 1
    }  # fmt: skip
    assert place.dcc.refused == {}


async def test_last_words_of_a_collector_that_leaves_in_order_count(place: Place) -> None:
    await place.joined(WEST)
    collector = place.collectors[WEST]
    assert collector.link is not None
    # The head-end, which has no turn in between, reads reports and goodbye in one.
    collector.report()
    collector.link.close()
    graph = place.dcc.center.dcc.graph
    west = graph.index_of(eui(WEST))
    await until(lambda: graph.backhauls[west] is not Backhaul.UP)
    assert place.dcc.counters == {}
    assert graph.hops_of(graph.index_of(eui(METER))) != HOPS_UNKNOWN


async def test_stranger_is_told_so_and_cut(place: Place) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            stranger = WireCollector(99, World((99,), (), {}), set())
            await stranger.join(place.address)
            await asyncio.wait_for(stranger.is_closed.wait(), 5)
    assert place.dcc.refused["dcc: unknown collector"] == 3
    # Who comes again and again does not fill the log.
    assert [log["event"] for log in logs].count("collector refused") == 1


async def test_under_tls_only_the_key_that_was_assigned_serves(tmp_path: Path) -> None:
    head_end = Certificate(tmp_path, "head-end")
    west, other = Certificate(tmp_path, "west"), Certificate(tmp_path, "other")
    place = Place(tmp_path)
    await place.start()
    await place.assign(west.key_hash, west.der)
    await place.store.commit(
        AssignAddresses(AREA, (eui(EAST),), Role.COLLECTOR, other.key_hash, other.der)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(head_end.file, head_end.key_file)
    place.context = context
    await place.restart()
    try:
        await place.collectors[WEST].join(place.address, tls=west.client_tls(head_end))
        await until(lambda: place.is_up(WEST))
        # Trusted by the handshake, as it is the other collector's; not as this one.
        liar = wire(WORLD, WEST, set())
        await liar.join(place.address, tls=other.client_tls(head_end))
        await asyncio.wait_for(liar.is_closed.wait(), 5)
        assert place.dcc.refused == {"dcc: collector with another key": 1}
        assert place.is_up(WEST)
        nobody = Certificate(tmp_path, "nobody")
        stranger = wire(WORLD, WEST, set())
        with pytest.raises((TimeoutError, LinkError)):
            await asyncio.wait_for(
                stranger.join(place.address, tls=nobody.client_tls(head_end)), 0.3
            )
        assert place.is_up(WEST)
        # A certificate that is assigned meanwhile counts at once, and the old one no more.
        operations = MeshOperations(
            store=place.store, dcc=place.dcc, entropy=os.urandom, wall=lambda: NOW, listen=""
        )
        await operations.assign(
            AREA, [eui(EAST)], role=Role.COLLECTOR, certificate=nobody.file.read_bytes()
        )
        await place.collectors[EAST].join(place.address, tls=nobody.client_tls(head_end))
        await until(lambda: place.is_up(EAST))
        old = wire(WORLD, EAST, set())
        await old.join(place.address, tls=other.client_tls(head_end))
        await asyncio.wait_for(old.is_closed.wait(), 5)
        assert place.dcc.refused == {"dcc: collector with another key": 2}
    finally:
        place.close()
        await place.stop()


def test_area_of_the_world_is_known_to_the_store() -> None:
    """Guards the tests: the world's addresses are those that the store gives out in order."""
    assert sorted(WORLD.nodes) == [1, 2, 3, 4, 5]
    assert AreaId(7) == AREA
