"""Reports on their way to the store, and back at a start.

The contract under test: of a node the newest report is stored, soon, many in one write; a store
that is busy or fails costs nothing but time; what waits at a stop is stored; what cannot be taken
at a start is counted and keeps nothing else from coming back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from amistack.errors import StoreBusy, StoreError
from headend.dcc import saving as saving_module
from headend.dcc.center import Center
from headend.dcc.events import Connection
from headend.dcc.saving import Saving
from headend.domain.mesh import Area, MeshPeer, StoredReport
from headend.domain.meters import Meter, MeterState, StoredSession
from headend.store.interface import EnrolMeters, KeepSession, Outcome, Write
from headend.store.mesh import AssignAddresses, KeepArea, KeepTopologyReports
from headend.store.sqlite import SqliteStore
from mesh.backhaul import Hello, Status, Welcome, decode, encode
from mesh.topology import graph as graph_module
from mesh.topology.facts import AreaId, Role
from mesh.topology.location import BehindCollector
from tests.headend.dcc.worlds import DODAG_ID
from tests.mesh.topology.worlds import AREA, eui, made_world
from tests.support.headend import NOW, public_key, until

WORLD = made_world(3, meters=4, collectors=1)
A, B = eui(1), eui(2)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "s.sqlite")
    await opened.commit(KeepArea(Area(AREA, "rfc8036", DODAG_ID)))
    await opened.commit(AssignAddresses(AREA, (A, B, eui(3))))
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving_module, "SAVE_S", 0.005)
    monkeypatch.setattr(saving_module, "RETRY_S", 0.005)


async def test_newest_report_of_each_node_is_stored(store: SqliteStore) -> None:
    saving = Saving(store=store, wall=lambda: float(NOW))
    for octets in (b"one", b"two", b"three"):
        saving.note(A, octets)
    saving.note(B, b"other")
    assert saving.waiting_count == 2
    await until(lambda: saving.waiting_count == 0)
    assert list(await store.mesh_reports()) == [
        StoredReport(A, NOW, b"three"),
        StoredReport(B, NOW, b"other"),
    ]
    assert saving.counters == {"reports stored": 2}


def instead(
    store: SqliteStore, outcomes: list[Outcome | StoreBusy]
) -> Callable[[Write, Callable[[Outcome], None]], None]:
    """`submit` of a store that does these first, then what it should."""
    submit = store.submit

    def odd(write: Write, done: Callable[[Outcome], None]) -> None:
        if not isinstance(write, KeepTopologyReports) or not outcomes:
            submit(write, done)
            return
        outcome = outcomes.pop(0)
        if isinstance(outcome, StoreBusy):
            raise outcome
        asyncio.get_running_loop().call_soon(done, outcome)

    return odd


@pytest.mark.parametrize("trouble", [StoreBusy("full"), StoreError("disk full")], ids=str)
async def test_trouble_of_the_store_costs_time_alone(
    store: SqliteStore, trouble: StoreError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "submit", instead(store, [trouble, trouble]))
    saving = Saving(store=store, wall=lambda: float(NOW))
    saving.note(A, b"one")
    await until(lambda: saving.waiting_count == 0)
    assert list(await store.mesh_reports()) == [StoredReport(A, NOW, b"one")]
    assert saving.counters == {"reports stored": 1, "reports stored late": 2}


async def test_report_that_comes_while_one_is_written_is_stored_after_it(
    store: SqliteStore,
) -> None:
    saving = Saving(store=store, wall=lambda: float(NOW))
    saving.note(A, b"one")
    submit = store.submit
    seen: list[int] = []

    def noting(write: Write, done: Callable[[Outcome], None]) -> None:
        if not seen:
            saving.note(A, b"two")
        seen.append(1)
        submit(write, done)

    store.submit = noting  # type: ignore[method-assign]
    await until(lambda: saving.waiting_count == 0)
    assert [report.octets for report in await store.mesh_reports()] == [b"two"]


async def test_what_waits_at_a_stop_is_stored(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving_module, "SAVE_S", 60.0)
    monkeypatch.setattr(saving_module, "BATCH_MAX", 1)
    saving = Saving(store=store, wall=lambda: float(NOW))
    saving.note(A, b"one")
    saving.note(B, b"two")
    await saving.stop()
    assert [report.octets for report in await store.mesh_reports()] == [b"one", b"two"]


async def test_what_cannot_be_taken_at_a_start_is_counted_and_the_rest_comes_back(
    store: SqliteStore,
) -> None:
    good = dict(WORLD.reports())
    await store.commit(
        KeepTopologyReports(
            (
                StoredReport(A, NOW - 100, b"no report"),
                StoredReport(B, NOW - 50, good[2].encode()),
                # Made by a clock that was ahead: as if it came now.
                StoredReport(eui(3), NOW + 500, good[3].encode()),
            )
        )
    )
    center = Center()
    saving = Saving(store=store, wall=lambda: float(NOW))
    await saving.load(center, now=lambda: 1_000.0)
    assert saving.counters == {"reports not taken from the store": 1}
    graph = center.dcc.graph
    facts = {n: graph.fact_of(graph.index_of(n), now=1_000.0).age_s for n in (A, B, eui(3))}
    assert facts == {A: None, B: 50.0, eui(3): 0.0}


async def test_place_from_before_a_start_is_as_old_as_it_is(store: SqliteStore) -> None:
    collector = eui(192)
    await store.commit(AssignAddresses(AREA, (collector,), Role.COLLECTOR))
    meter = Meter(A, public_key("A"), MeterState.ENROLLED, NOW)
    session = StoredSession(A, b"\x07", b"\x08", b"s" * 16, b"t" * 8, 10, 64, (0, 0), NOW)
    path = str(MeshPeer(AREA, A, collector))
    await store.commit(EnrolMeters((meter,)))
    await store.commit(KeepSession(session, path))
    center = Center()
    await Saving(store=store, wall=lambda: NOW + 700.0).load(center, now=lambda: 1_000.0)
    location = center.dcc.locations.find(A)
    assert location is not None
    assert (location.place, location.confirmed_at) == (BehindCollector(collector), 300.0)


async def test_area_whose_profile_is_gone_keeps_no_head_end_from_starting(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Area(AreaId(9), "/nowhere/own.toml", DODAG_ID)
    one_too_many = Area(AreaId(10), "rfc8036", DODAG_ID)
    await store.commit(KeepArea(lost))
    await store.commit(KeepArea(one_too_many))
    await store.commit(AssignAddresses(AreaId(9), (eui(4),), Role.COLLECTOR))
    await store.commit(AssignAddresses(AreaId(10), (eui(5),), Role.COLLECTOR))
    monkeypatch.setattr(graph_module, "AREAS_MAX", 2)
    center = Center()
    saving = Saving(store=store, wall=lambda: float(NOW))
    with capture_logs() as logs:
        await saving.load(center, now=lambda: 1_000.0)
    assert [(line["event"], line["area"]) for line in logs] == [
        ("profile of an area not taken", 9),
        ("area not taken", 10),
    ]
    assert "own.toml" in logs[0]["reason"]
    assert "\n" not in logs[0]["reason"]
    assert saving.counters == {
        "areas without their profile": 1,
        "areas not taken from the store": 1,
    }
    assert list(center.collectors.areas) == [AREA, 9]
    assert all(node in center.dcc.graph for node in (A, B, eui(3), eui(4), eui(5)))
    # Its DODAGID stands, and its collectors serve; who has no area is refused.
    for number, status in ((9, Status.ACCEPTED), (10, Status.WRONG_AREA)):
        node = eui(number - 5)
        center.connect(Connection(number), node, None, now=1_000.0)
        center.receive(
            Connection(number), encode(Hello(number, DODAG_ID, node, 1, 240, 256, 0)), now=1_000.0
        )
        assert decode(center.messages_to_send()[0][2]) == Welcome(status, 1 if number == 9 else 0)
