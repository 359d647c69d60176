"""The commands about the mesh, against a head-end with scripted collectors.

The contract under test: an operator sets an area up, gives addresses, and then sees the mesh in
every form, the ways to a meter, what answers along them, and which component is broken, with the
progress apart from the result, and before it; after a restart every door shows how each node was,
since when, and why it registered last; each command ends in a code that says whether it was done;
what cannot be done is one line on standard error, never a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from headend.app import HeadEnd
from headend.cli.main import main
from headend.client import ApiError
from headend.config import MeshSettings, split_address
from headend.domain.mesh import StoredStatus
from headend.domain.meters import Meter, MeterState, StoredSession
from headend.mesh_client import MeshClient
from headend.store.interface import EnrolMeters, KeepSession, Write
from headend.store.mesh import KeepTopologyReports
from headend.store.sqlite import SqliteStore
from mesh.backhaul import Broadcast, Command, Order
from tests.headend.dcc.test_service import EAST, METER, WEST, WORLD
from tests.headend.dcc.wire import WireCollector, wire
from tests.headend.dcc.worlds import DODAG_ID
from tests.headend.test_app import settings_in
from tests.mesh.topology.worlds import eui
from tests.support.headend import NOW, meter_id, public_key, until

T = TypeVar("T")
AREA = "7"
METER_NAME, RELAY = eui(METER).hex(), eui(3).hex()

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Site:
    """A head-end on a loop of its own thread, with the collectors of a world."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broken: set[object] = set()
        self.collectors: dict[int, WireCollector] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        settings = settings_in(folder)
        self._head_end = HeadEnd(
            settings.__class__(
                settings.server, settings.api, settings.store, settings.identity, settings.log,
                mesh=MeshSettings("127.0.0.1:0"),
            )
        )  # fmt: skip

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def begin(self, work: Coroutine[Any, Any, object]) -> None:
        """The same, and nobody waits for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def store(self, *writes: Write) -> None:
        async def keep() -> None:
            assert self._head_end._store is not None
            for write in writes:
                await self._head_end._store.commit(write)

        self.do(keep())

    def start(self) -> None:
        self.do(self._head_end.start())

    def join(self) -> None:
        """Both collectors come; the west one brings the table and all reports."""

        async def joining() -> None:
            for short in WORLD.collectors:
                collector = self.collectors[short] = wire(WORLD, short, self.broken)
                collector.row_targets = WORLD.meters if short == WEST else ()
                assert self._head_end.mesh_address is not None
                await collector.join(split_address(self._head_end.mesh_address, ""))
            self.collectors[WEST].report()

        self.do(joining())

    def await_reports(self) -> None:
        """Until every node's report is taken."""
        with MeshClient(self.folder / "s.sock") as client:
            for _ in range(500):
                (area,) = client.mesh().areas
                if area.states == {"reachable": len(WORLD.nodes)}:
                    return
        raise AssertionError(f"not all reports were taken: {area}")

    def stop(self) -> None:
        for collector in self.collectors.values():
            with contextlib.suppress(Exception):
                self.do(collector.leave())
        self.do(self._head_end.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def run(self, *words: str) -> int:
        return main([*words, "--socket", str(self.folder / "s.sock")])

    def wishes(self) -> int:
        """How often collectors were asked for the reports of their nodes."""
        return sum(isinstance(m, Broadcast) for c in self.collectors.values() for m in c.told)

    def waiting(self) -> int:
        """How many wait for what collectors say."""
        assert self._head_end._dcc is not None
        return len(self._head_end._dcc._watching)

    def rejoin(self, short: int) -> None:
        """A collector that left comes again."""

        async def joining() -> None:
            assert self._head_end.mesh_address is not None
            await self.collectors[short].join(split_address(self._head_end.mesh_address, ""))
            dcc = self._head_end._dcc
            assert dcc is not None
            await until(lambda: dcc.center.collectors.find(eui(short)) is not None)

        self.do(joining())

    def orders(self) -> list[Command]:
        return [m for c in self.collectors.values() for m in c.told if isinstance(m, Command)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An area that was set up by commands alone, and everybody there."""
    made = Site(tmp_path_factory.mktemp("site"))
    made.start()
    assert made.run("mesh", "area", AREA, "--dodag-id", DODAG_ID.hex()) == 0
    names = [eui(short).hex() for short in WORLD.collectors]
    assert made.run("mesh", "assign", AREA, *names, "--collector") == 0
    file = made.folder / "meters.csv"
    file.write_text("# meters\n" + "".join(f"{eui(m).hex()},key\n" for m in WORLD.meters))
    assert made.run("mesh", "assign", AREA, "--file", str(file)) == 0
    made.join()
    made.await_reports()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def whole(site: Site) -> Iterator[None]:
    yield
    site.broken.clear()


Output = pytest.CaptureFixture[str]


def shown(site: Site, capsys: Output, *words: str, code: int = 0) -> str:
    assert site.run(*words) == code
    return capsys.readouterr().out


def test_status_shows_areas_and_collectors(site: Site, capsys: Output) -> None:
    text = shown(site, capsys, "mesh", "status")
    assert f"area 7: profile rfc8036, DODAGID {DODAG_ID.hex()}, 5 nodes: 5 reachable" in text
    assert f"collector {eui(WEST).hex()} 0x0001: connected" in text
    assert "3 routes" in text
    found = json.loads(shown(site, capsys, "mesh", "status", "--json"))
    assert [one["short"] for one in found["areas"][0]["collectors"]] == [WEST, EAST]


def test_every_door_shows_after_a_restart_how_nodes_were(tmp_path: Path, capsys: Output) -> None:
    """A night ago the meter was silent; one relay had its power back, the other was late."""
    site = Site(tmp_path)
    site.start()
    shown(site, capsys, "mesh", "area", AREA, "--dodag-id", DODAG_ID.hex())
    names = [eui(short).hex() for short in (3, 4, METER)]
    shown(site, capsys, "mesh", "assign", AREA, *names)
    site.stop()
    night = int(time.time()) - 8 * 3_600
    statuses = (
        StoredStatus(eui(METER), 3, night, night - 600, night - 7_200, 0),
        StoredStatus(eui(3), 1, night, night + 3_600, night + 3_600, 1),
        StoredStatus(eui(4), 2, night, night - 46_800, None, None),
    )

    async def keep() -> None:
        store = SqliteStore.open(tmp_path / "s.sqlite")
        await store.commit(KeepTopologyReports((), statuses))
        await store.close()

    asyncio.run(keep())
    again = Site(tmp_path)
    again.start()
    capsys.readouterr()  # What it logged.
    try:
        text = shown(again, capsys, "path", METER_NAME).splitlines()
        assert text[1:4] == [
            "state       silent for 8h",
            "heard       8h ago",
            "registered  10h ago: cold boot",
        ]
        table = shown(again, capsys, "topology").splitlines()
        assert [line.split()[4:6] for line in table[1:-1]] == [
            ["reachable", "8h"], ["late", "8h"], ["silent", "8h"],
        ]  # fmt: skip
        assert [" ".join(line.split()[11:]) for line in table[1:-1]] == [
            "power restored 7h never", "- - never", "cold boot 10h never",
        ]  # fmt: skip
        found = json.loads(shown(again, capsys, "topology", "--format", "json"))["nodes"]
        assert [node["state"] for node in found] == ["reachable", "late", "silent"]
        assert [node["registered_for"] for node in found] == ["power_restored", None, "cold_boot"]
        ages = [
            [node[f"{what}_age_s"] for what in ("state", "heard", "registered")] for node in found
        ]
        for said, expected in zip(
            ages, [[8, 7, 7], [8, 21, None], [8, 8 + 1 / 6, 10]], strict=True
        ):
            assert [age is None for age in said] == [hours is None for hours in expected]
            pairs = [(a, h) for a, h in zip(said, expected, strict=True) if a is not None]
            assert all(h * 3_600 <= age < h * 3_600 + 60 for age, h in pairs)
        assert "silent for 8h" in shown(again, capsys, "topology", "--format", "dot")
        graphml = ET.fromstring(shown(again, capsys, "topology", "--format", "graphml"))
        assert {"state_age_s", "registered_age_s"} <= {each.get("key") for each in graphml.iter()}
        status = shown(again, capsys, "mesh", "status")
        assert "3 nodes: 1 late, 1 reachable, 1 silent\n" in status
        assert "  registered last for: 1 cold boot, 1 power restored\n" in status
        (area,) = json.loads(shown(again, capsys, "mesh", "status", "--json"))["areas"]
        assert area["registered"] == {"cold boot": 1, "power restored": 1}
        device = json.loads(shown(again, capsys, "path", METER_NAME, "--json"))
        assert (device["state"], device["registered_for"]) == ("silent", "cold boot")
        assert 8 * 3_600 <= device["state_age_s"] < 8 * 3_600 + 60
    finally:
        again.stop()


def test_area_keeps_its_profile_until_another_is_named(site: Site, capsys: Output) -> None:
    area = ("mesh", "area", "6")
    said = [
        shown(site, capsys, *area, *more).split(",")[0]
        for more in ((), ("--profile", "lab"), (), ("--profile", "rfc8036"))
    ]
    assert said == [f"area 6: profile {name}" for name in ("rfc8036", "lab", "lab", "rfc8036")]
    with MeshClient(site.folder / "s.sock") as client:
        client.set_area(6, profile="lab")
        assert client.set_area(6).profile == "lab"


def test_profile_in_a_file_is_named_by_its_whole_path(
    site: Site, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = site.folder / "elsewhere"
    folder.mkdir()
    (folder / "own.toml").write_text("[dodag]\nhop_rank_increase_min = 128\n")
    monkeypatch.chdir(folder)
    text = shown(site, capsys, "mesh", "area", "5", "--profile", "own.toml")
    assert text.startswith(f"area 5: profile {folder / 'own.toml'}, DODAGID ")
    with (
        MeshClient(site.folder / "s.sock") as client,
        pytest.raises(ApiError, match=r"own\.toml: expected the whole path"),
    ):
        client.set_area(5, profile="own.toml")


def test_topology_in_every_form(site: Site, capsys: Output) -> None:
    table = shown(site, capsys, "topology").splitlines()
    assert table[-1] == "5 nodes"
    found = json.loads(shown(site, capsys, "topology", "--format", "json", "--area", AREA))
    assert len(found["nodes"]) == 5
    assert len(found["links"]) == 2 * len(WORLD.links)
    assert all(node["age_s"] is not None for node in found["nodes"])
    ET.fromstring(shown(site, capsys, "topology", "--format", "graphml"))
    dot = shown(site, capsys, "topology", "--format", "dot")
    assert dot.startswith("graph topology {")


def test_path_shows_the_best_way_and_its_alternates_with_etx_and_age(
    site: Site, capsys: Output
) -> None:
    text = shown(site, capsys, "path", METER_NAME)
    assert f"meter {METER_NAME}, 0x0005 of area 7" in text
    assert f"asked by    {eui(WEST).hex()}" in text
    assert "best way: ETX 2.19, 2 hops, measured 5m ago" in text
    assert "alternate 1, another collector, no relay shared: ETX 3.12, 2 hops" in text
    found = json.loads(shown(site, capsys, "path", METER_NAME, "--json"))
    assert [way["etx"] for way in found["ways"]] == [2.19, 3.12]
    assert found["state"] == "reachable"


def test_path_of_a_meter_on_plain_ip_is_where_it_was_heard(site: Site, capsys: Output) -> None:
    meter = Meter(meter_id(77), public_key("77"), MeterState.ENROLLED, NOW)
    session = StoredSession(meter.id, b"\x07", b"\x08", b"s" * 16, b"t" * 8, 10, 64, (0, 0), NOW)
    site.store(EnrolMeters((meter,)), KeepSession(session, "udp:192.0.2.7:5683"))
    text = shown(site, capsys, "path", meter.id.hex())
    assert text == f"meter {meter.id.hex()}, on plain IP at udp:192.0.2.7:5683\n"


def test_ping_and_trace_over_the_best_way_and_an_alternate(site: Site, capsys: Output) -> None:
    assert "answered in 0.80 s, 2 hops" in shown(site, capsys, "ping", METER_NAME)
    text = shown(site, capsys, "ping", METER_NAME, "--way", "1", "--count", "2")
    assert text.count(f"{eui(EAST).hex()} > {eui(4).hex()} > {METER_NAME}: answered") == 2
    assert text.endswith("2 of 2 answered\n")
    site.broken.add(3)
    assert "lost after 0 hops" in shown(site, capsys, "ping", METER_NAME, code=3)
    trace = shown(site, capsys, "trace", METER_NAME, code=3).splitlines()
    assert [line.split()[-1] for line in trace[1:]] == ["answer", "answer"]
    site.broken.clear()
    trace = shown(site, capsys, "trace", METER_NAME).splitlines()
    assert [line.split()[1] for line in trace] == [eui(WEST).hex(), RELAY, METER_NAME]


class Screen(io.StringIO):
    """A stream that notes what is written, on which one, and does something after each line."""

    def __init__(self, name: str, seen: list[tuple[str, str]], then: Callable[[], object]) -> None:
        super().__init__()
        self._name, self._seen, self._then = name, seen, then

    def write(self, text: str) -> int:
        if text.strip():
            self._seen.append((self._name, text))
            self._then()
        return len(text)


@contextlib.contextmanager
def held(site: Site, short: int) -> Iterator[WireCollector]:
    """That collector says one message of a trace, and each that follows by `go_on`."""
    collector = site.collectors[short]
    collector.is_held = True
    try:
        yield collector
    finally:
        collector.is_held = False
        collector.unsaid.clear()


async def going_on(collector: WireCollector) -> None:
    """It says the next message, if need be when it has been asked."""
    await until(lambda: bool(collector.unsaid))
    collector.go_on()


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_rows_of_a_trace_are_shown_while_it_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """The collector says the next message when a row was shown: otherwise it never ends."""
    seen: list[tuple[str, str]] = []
    with held(site, WEST) as collector:

        def next_one() -> None:
            site.begin(going_on(collector))

        monkeypatch.setattr("sys.stderr", Screen("err", seen, next_one))
        monkeypatch.setattr("sys.stdout", Screen("out", seen, lambda: None))
        next_one()
        assert site.run("trace", METER_NAME, *more) == 0
    assert seen[:2] == [
        ("err", f"  1 {RELAY} 0x0003 answered in 0.40 s"),
        ("err", f"  2 {METER_NAME} 0x0005 answered in 0.80 s"),
    ]
    ((name, text),) = seen[2:]
    assert name == "out"
    if more:
        assert [row["short"] for row in json.loads(text)["rows"]] == [3, METER]
    else:
        assert text.splitlines()[1:] == [line for _, line in seen[:2]]


def test_trace_by_a_collector_that_tells_no_rows_has_its_result(site: Site, capsys: Output) -> None:
    site.collectors[WEST].tells_rows = False
    try:
        assert site.run("trace", METER_NAME) == 0
    finally:
        site.collectors[WEST].tells_rows = True
    captured = capsys.readouterr()
    assert captured.err == ""
    assert len(captured.out.splitlines()) == 3


def test_trace_that_breaks_off_says_so_after_its_rows(site: Site, capsys: Output) -> None:
    lines = []
    with held(site, EAST) as collector, MeshClient(site.folder / "s.sock") as client:
        site.begin(going_on(collector))
        for line in client.trace(eui(METER), way=1):
            lines.append(line)
            site.do(collector.leave())
    try:
        name = eui(EAST).hex()
        assert [line.step is None for line in lines] == [False, True]
        assert lines[-1].failed == f"collector {name} gave no answer"
        # Before its first line it is a problem.
        with MeshClient(site.folder / "s.sock") as client, pytest.raises(ApiError) as refusal:
            list(client.trace(eui(METER), way=1))
        assert refusal.value.problem is not None
    finally:
        site.rejoin(EAST)


def test_command_says_why_a_trace_broke_off(
    site: Site, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    with held(site, EAST) as collector:

        def cut() -> None:
            if not collector.is_closed.is_set():
                site.do(collector.leave())

        monkeypatch.setattr("sys.stderr", Screen("err", seen, cut))
        site.begin(going_on(collector))
        code = site.run("trace", METER_NAME, "--way", "1")
    try:
        assert code == 1
        assert seen == [
            ("err", f"  1 {eui(4).hex()} 0x0004 answered in 0.40 s"),
            ("err", f"headend: no trace: collector {eui(EAST).hex()} gave no answer"),
        ]
        assert METER_NAME not in capsys.readouterr().out
    finally:
        site.rejoin(EAST)


def test_trace_whose_reader_goes_away_is_waited_for_by_nobody(site: Site) -> None:
    with held(site, WEST) as collector:
        with MeshClient(site.folder / "s.sock") as client:
            lines = client.trace(eui(METER))
            site.begin(going_on(collector))
            assert next(lines).step is not None
            assert site.waiting() == 1
        site.do(until(lambda: site.waiting() == 0))
        # Its rows still come, and its end: nothing of it is strange, and nothing stays.
        while collector.unsaid:
            site.do(going_on(collector))
        with MeshClient(site.folder / "s.sock") as client:
            for _ in range(500):
                status = client.status()
                if not status.queues["requests to collectors"].depth:
                    break
            assert status.queues["requests to collectors"].depth == 0
            assert "dcc: row of a trace out of turn" not in status.refused


def test_isolate_names_what_is_broken_and_what_is_left(site: Site, capsys: Output) -> None:
    site.broken.add(METER)
    assert site.run("isolate", METER_NAME) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[:2] == ["one component failed", f"  meter {METER_NAME}"]
    assert "0 of 1 alternates left: another collector, no relay shared" in captured.out
    assert captured.err.count("probe ") >= 6
    site.broken.clear()
    site.broken.add(3)
    found = json.loads(shown(site, capsys, "isolate", METER_NAME, "--json"))
    assert {"part": "relay", "nodes": [RELAY]} in found["causes"]
    assert found["left"]["another collector, no relay shared"] == 1
    # A meter that answers is reachable again.
    assert "state       reachable" in shown(site, capsys, "path", METER_NAME)


def test_isolate_of_a_meter_that_answers_says_what_was_not_tried(
    site: Site, capsys: Output
) -> None:
    assert shown(site, capsys, "isolate", METER_NAME).splitlines() == [
        "the meter answers over the best way that can be tried",
        "1 alternate not tried: another collector, no relay shared",
        "1 probe",
    ]
    found = json.loads(shown(site, capsys, "isolate", METER_NAME, "--json"))
    assert found["untried"]["another collector, no relay shared"] == 1
    assert not any(found["known"].values())
    assert found["text"].endswith("0 of 0 alternates answer, 1 not tried")
    # A collector has no way but itself.
    text = shown(site, capsys, "isolate", eui(WEST).hex())
    assert "no alternates are known" in text


def test_isolation_whose_reader_goes_away_sends_no_more_probes(site: Site) -> None:
    site.broken.add(METER)
    for collector in site.collectors.values():
        collector.answers_left = 1
    with MeshClient(site.folder / "s.sock") as client:
        steps = client.isolate(eui(METER))
        assert next(steps).tried is not None
        assert client.status().queues["isolations"].depth == 1
    try:
        with MeshClient(site.folder / "s.sock") as client:
            for _ in range(500):
                if not client.status().queues["isolations"].depth:
                    return
        raise AssertionError("the isolation goes on for nobody")
    finally:
        for collector in site.collectors.values():
            collector.answers_left = None


def test_orders_reach_every_collector_of_the_area(site: Site, capsys: Output) -> None:
    text = shown(site, capsys, "mesh", "bump-version", AREA)
    assert text.count("done, version 241") == 2
    assert shown(site, capsys, "mesh", "status").count(", version 241, ") == 2
    before = site.wishes()
    shown(site, capsys, "mesh", "refresh", AREA)
    site.do(until(lambda: site.wishes() == before + len(site.collectors)))
    shown(site, capsys, "mesh", "deny", AREA, "00" * 7 + "99")
    assert f"kept out: {'00' * 7}99" in shown(site, capsys, "mesh", "status")
    shown(site, capsys, "mesh", "allow", AREA, "00" * 7 + "99")
    assert "kept out" not in shown(site, capsys, "mesh", "status")
    assert {order.order for order in site.orders()} == {
        Order.BUMP_VERSION, Order.ASK_FOR_ROUTES, Order.DENY, Order.ALLOW
    }  # fmt: skip


def test_who_is_kept_out_has_no_way_and_is_part_of_none(site: Site, capsys: Output) -> None:
    shown(site, capsys, "mesh", "deny", AREA, RELAY)
    try:
        ways = json.loads(shown(site, capsys, "path", METER_NAME, "--json"))["ways"]
        assert ways
        assert RELAY not in [hop["node"] for way in ways for hop in way["hops"]]
        text = shown(site, capsys, "path", RELAY)
        assert "kept out    of area 7: `headend mesh allow` lets it in again" in text
        assert "best way" not in text
        for command in ("ping", "trace", "isolate"):
            assert site.run(command, RELAY) == 1
            assert f"{RELAY} is kept out of area 7" in capsys.readouterr().err
    finally:
        shown(site, capsys, "mesh", "allow", AREA, RELAY)
    text = shown(site, capsys, "path", RELAY)
    assert "best way" in text
    assert "kept out" not in text


def test_nobody_is_kept_out_of_an_area_without_nodes(site: Site, capsys: Output) -> None:
    shown(site, capsys, "mesh", "area", "98")
    orders = len(site.orders())
    assert site.run("mesh", "deny", "98", "cc" * 8) == 1
    assert capsys.readouterr().err == ("headend: area 98 has no nodes: nobody is kept out of it\n")
    with MeshClient(site.folder / "s.sock") as client, pytest.raises(ApiError) as refusal:
        client.order(98, "deny", eui(METER))
    assert refusal.value.problem is not None
    assert refusal.value.problem.status == 404
    assert site.run("mesh", "deny", AREA, eui(WEST).hex()) == 1
    assert "kept out:" not in shown(site, capsys, "mesh", "status")
    assert len(site.orders()) == orders
    # What stands in a store from before can be taken back.
    shown(site, capsys, "mesh", "allow", "98", "cc" * 8)


def test_addresses_are_given_once_and_taken_back(site: Site, capsys: Output) -> None:
    new = ["aa" * 8, "bb" * 8]
    assert shown(site, capsys, "mesh", "assign", AREA, *new) == (
        f"{new[0]},7,0x0006\n{new[1]},7,0x0007\n"
    )
    assert shown(site, capsys, "mesh", "assign", AREA, new[1]) == f"{new[1]},7,0x0007\n"
    listed = shown(site, capsys, "mesh", "addresses").splitlines()
    assert f"{new[0]},7,0x0006,meter" in listed
    assert f"{eui(WEST).hex()},7,0x0001,collector" in listed
    assert "never heard" in shown(site, capsys, "path", new[0])
    assert shown(site, capsys, "mesh", "release", *new) == "2 released\n"
    # An address that was given back is not the next one to be given out.
    assert shown(site, capsys, "mesh", "assign", AREA, new[0]) == f"{new[0]},7,0x0008\n"
    shown(site, capsys, "mesh", "release", new[0])


def test_enrolment_gives_addresses_too_where_an_area_is_named(site: Site, capsys: Output) -> None:
    file = site.folder / "new.csv"
    meter = meter_id(55).hex()
    file.write_text(f"{meter},{public_key('55').hex()}\n")
    text = shown(site, capsys, "enrol", str(file), "--area", AREA)
    assert text == "1 enrolled, 0 known already\n1 new addresses in area 7\n"
    assert f"\n{meter},7," in "\n" + shown(site, capsys, "mesh", "addresses")
    text = shown(site, capsys, "enrol", str(file), "--area", AREA)
    assert text == "0 enrolled, 1 known already\n0 new addresses in area 7\n"
    # An area that is none costs the addresses alone, and is said.
    assert site.run("enrol", str(file), "--area", "99") == 1
    assert "there is no area 99" in capsys.readouterr().err
    shown(site, capsys, "mesh", "release", meter)


def test_options_of_mesh_commands_stand_anywhere(site: Site, capsys: Output) -> None:
    for words in (
        (AREA, "--json", "dd" * 8),
        ("--json", AREA, "dd" * 8),
        (AREA, "dd" * 8, "--json"),
    ):
        found = json.loads(shown(site, capsys, "mesh", "assign", *words))
        assert [one["node"] for one in found["assignments"]] == ["dd" * 8]
    shown(site, capsys, "mesh", "release", "--json", "dd" * 8)
    with pytest.raises(SystemExit) as stopped:
        site.run("mesh", "assign", "--collector")
    assert stopped.value.code == 2
    assert "AREA" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("path", "cc" * 8), "has no address in the mesh: `headend mesh assign`"),
        (("path", "nonsense"), "is not a meter"),
        (("ping", "cc" * 8), "has no address in the mesh"),
        (("ping", METER_NAME, "--way", "3"), "way 3, expected 0 to 1"),
        (("isolate", "cc" * 8), "has no address in the mesh"),
        (("topology", "--area", "99"), "there is no area 99"),
        (("mesh", "assign", "99", "cc" * 8), "there is no area 99"),
        (("mesh", "assign", AREA), "no nodes are named"),
        (("mesh", "assign", AREA, eui(WEST).hex()), "a collector of area 7"),
        (("mesh", "release", RELAY, "cc" * 8), f"without an address in the mesh: {'cc' * 8}\n"),
        (("mesh", "area", "8", "--profile", "none"), "no profile 'none'"),
        (("mesh", "area", AREA, "--dodag-id", "00" * 16), "has another DODAGID"),
        (("mesh", "area", "8", "--dodag-id", "zz"), "the DODAGID is not in hex"),
        (("mesh", "area", "8", "--dodag-id", "00"), "DODAGID of 1 octets"),
        (("mesh", "area", "4294967296"), "less than or equal to 4294967295"),
        (("mesh", "refresh", "99"), "there is no area 99"),
        (("mesh", "deny", AREA, eui(WEST).hex()), "is a collector of area 7, which cannot be kept"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    site: Site, capsys: Output, words: tuple[str, ...], said: str
) -> None:
    assert site.run(*words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("headend: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


@pytest.mark.parametrize(
    ("ask", "status", "kind"),
    [
        (lambda client: client.device(b"\xcc" * 8), 404, "unknown-node"),
        (lambda client: client.assign(99, [b"\xcc" * 8]), 404, "unknown-node"),
        (lambda client: client.ping(eui(METER), way=3), 422, "bad-request"),
        (lambda client: list(client.topology("json", 99)), 404, "unknown-node"),
        (lambda client: list(client.isolate(b"\xcc" * 8)), 404, "unknown-node"),
        (lambda client: list(client.trace(b"\xcc" * 8)), 404, "unknown-node"),
        (lambda client: list(client.trace(eui(METER), way=3)), 422, "bad-request"),
        (lambda client: client.order(int(AREA), "deny", eui(EAST)), 422, "bad-request"),
    ],
)
def test_what_cannot_be_done_is_a_problem_with_its_kind(
    site: Site, ask: Callable[[MeshClient], object], status: int, kind: str
) -> None:
    with (
        MeshClient(site.folder / "s.sock") as client,
        pytest.raises(ApiError) as refusal,
    ):
        ask(client)
    assert refusal.value.problem is not None
    assert (refusal.value.problem.status, refusal.value.problem.type) == (
        status,
        f"/problems/{kind}",
    )


def test_certificate_that_is_none_is_refused(site: Site, capsys: Output) -> None:
    file = site.folder / "certificate.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    words = ("mesh", "assign", AREA, eui(WEST).hex(), "--collector", "--certificate", str(file))
    assert site.run(*words) == 1
    assert "the certificate cannot be read" in capsys.readouterr().err


def test_head_end_without_a_mesh_says_so(tmp_path: Path, capsys: Output) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    head_end = HeadEnd(settings_in(tmp_path))
    asyncio.run_coroutine_threadsafe(head_end.start(), loop).result(20)
    try:
        assert main(["topology", "--socket", str(tmp_path / "s.sock")]) == 1
        assert "this head-end has no mesh: set mesh.listen" in capsys.readouterr().err
    finally:
        asyncio.run_coroutine_threadsafe(head_end.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
