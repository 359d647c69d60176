"""The mesh in the store: areas, addresses, reports, who is kept out.

The contract under test: an address is unique in its area and stays with its node until somebody
moves or releases it; a list is assigned whole or not at all; the last report and the last status of
a node stand in place of those before, and none of a node without an address; reports come back the
oldest first, statuses in the order of nodes, a page at a time; a node that is moved keeps its
status, one that is released does not; whatever was told is there again after closing and opening,
and a store of schema 4 opens with all that it had.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import StoreError
from amistack.identifiers import Eui64
from headend.domain.mesh import Area, Assignment, MeshPeer, StoredReport, StoredStatus
from headend.southbound.paths import path_of, peer_of
from headend.store.interface import FIRST
from headend.store.mesh import (
    AssignAddresses,
    Assigned,
    AssignmentRefused,
    KeepArea,
    KeepDenied,
    KeepTopologyReports,
    ReleaseAddresses,
    Released,
)
from headend.store.sqlite import SqliteStore, mesh
from headend.store.sqlite.schema import APPLICATION_ID, migrations
from mesh.backhaul import AREA_MAX
from mesh.topology.facts import AreaId, Role
from tests.support.headend import NOW, meter_id

AREA, OTHER = AreaId(7), AreaId(8)
A, B, C, D = (meter_id(number) for number in range(1, 5))


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "head-end.sqlite")
    for number in (AREA, OTHER):
        await opened.commit(KeepArea(Area(number, "rfc8036", bytes([number]) * 16)))
    yield opened
    await opened.close()


async def assign(
    store: SqliteStore, *nodes: Eui64, area: AreaId = AREA, role: Role = Role.METER,
    is_moving: bool = False,
) -> Assigned | AssignmentRefused:  # fmt: skip
    outcome = await store.commit(AssignAddresses(area, nodes, role, is_moving=is_moving))
    assert isinstance(outcome, Assigned | AssignmentRefused)
    return outcome


async def shorts(store: SqliteStore) -> dict[Eui64, tuple[AreaId, int]]:
    return {one.node: (one.area, one.short) for one in await store.mesh_nodes()}


async def test_addresses_are_given_in_order_and_stay(store: SqliteStore) -> None:
    first = await assign(store, A, B)
    assert first == Assigned((Assignment(A, AREA, 1), Assignment(B, AREA, 2)), 2)
    again = await assign(store, B, C, B)
    assert again == Assigned((Assignment(B, AREA, 2), Assignment(C, AREA, 3)), 1)
    assert await shorts(store) == {A: (AREA, 1), B: (AREA, 2), C: (AREA, 3)}


async def test_the_same_address_is_free_in_another_area(store: SqliteStore) -> None:
    await assign(store, A)
    await assign(store, B, area=OTHER)
    assert await shorts(store) == {A: (AREA, 1), B: (OTHER, 1)}


async def test_list_with_a_node_that_is_elsewhere_is_refused_whole(store: SqliteStore) -> None:
    await assign(store, A)
    refused = await assign(store, B, A, area=OTHER)
    assert isinstance(refused, AssignmentRefused)
    assert refused.nodes == (Assignment(A, AREA, 1),)
    refused = await assign(store, A, role=Role.COLLECTOR)
    assert isinstance(refused, AssignmentRefused)
    assert await shorts(store) == {A: (AREA, 1)}


async def test_node_that_is_moved_loses_its_address_and_report(store: SqliteStore) -> None:
    await assign(store, A, B)
    await store.commit(KeepTopologyReports((StoredReport(A, NOW, b"r"),)))
    moved = await assign(store, A, area=OTHER, role=Role.COLLECTOR, is_moving=True)
    assert moved == Assigned((Assignment(A, OTHER, 1, Role.COLLECTOR),), 1)
    assert list(await store.mesh_reports()) == []


async def test_area_that_is_not_known_has_no_addresses(store: SqliteStore) -> None:
    refused = await assign(store, A, area=AreaId(9))
    assert refused == AssignmentRefused("there is no area 9")


async def test_released_address_is_not_the_next_to_be_given_out(store: SqliteStore) -> None:
    await assign(store, A, B)
    assert await store.commit(ReleaseAddresses((B,))) == Released()
    await assign(store, C)
    assert (await shorts(store))[C] == (AREA, 3)
    assert await store.commit(ReleaseAddresses((A, D, D))) == Released((D,))
    assert A in await shorts(store)


async def test_full_area_refuses_and_goes_round_when_there_is_room(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "NODE_ADDRESS_MAX", 3)
    await assign(store, A, B)
    refused = await assign(store, C, D)
    assert isinstance(refused, AssignmentRefused)
    assert "no 2 addresses left of 3" in refused.reason
    await assign(store, C)
    await store.commit(ReleaseAddresses((B,)))
    await assign(store, D)
    assert await shorts(store) == {A: (AREA, 1), C: (AREA, 3), D: (AREA, 2)}


async def test_collectors_certificate_is_kept_and_replaced(store: SqliteStore) -> None:
    write = AssignAddresses(AREA, (A,), Role.COLLECTOR, b"h" * 32, b"der")
    await store.commit(write)
    (one,) = await store.mesh_nodes()
    assert (one.key_hash, one.certificate) == (b"h" * 32, b"der")
    # Asked for again without one: it stays.
    await store.commit(AssignAddresses(AREA, (A,), Role.COLLECTOR))
    (one,) = await store.mesh_nodes()
    assert one.certificate == b"der"
    await store.commit(dataclasses.replace(write, key_hash=b"i" * 32, certificate=b"new"))
    (one,) = await store.mesh_nodes()
    assert (one.key_hash, one.certificate) == (b"i" * 32, b"new")


async def test_last_report_of_a_node_with_an_address_is_kept(store: SqliteStore) -> None:
    await assign(store, A, B)
    await store.commit(
        KeepTopologyReports((StoredReport(A, NOW, b"old"), StoredReport(C, NOW, b"nobody")))
    )
    await store.commit(
        KeepTopologyReports((StoredReport(A, NOW + 9, b"new"), StoredReport(B, NOW + 1, b"b")))
    )
    assert list(await store.mesh_reports()) == [
        StoredReport(B, NOW + 1, b"b"),
        StoredReport(A, NOW + 9, b"new"),
    ]


async def test_reports_and_nodes_come_in_pages(store: SqliteStore) -> None:
    nodes = [meter_id(number) for number in range(1, 8)]
    await assign(store, *nodes)
    kept = [StoredReport(node, NOW + number % 3, b"r") for number, node in enumerate(nodes)]
    await store.commit(KeepTopologyReports(tuple(kept)))
    found: list[StoredReport] = []
    last = (-1, FIRST)
    while page := await store.mesh_reports(after=last, limit=3):
        found += page
        last = (page[-1].received_at, page[-1].node)
    assert found == sorted(kept, key=lambda report: (report.received_at, report.node))
    listed: list[Eui64] = []
    after = FIRST
    while rows := await store.mesh_nodes(after=after, limit=3):
        listed += [row.node for row in rows]
        after = rows[-1].node
    assert listed == nodes


def status(node: Eui64, state: int = 3, since: int = NOW) -> StoredStatus:
    return StoredStatus(node, state, since, since - 5, since - 9, 2)


async def test_last_status_of_a_node_with_an_address_is_kept(store: SqliteStore) -> None:
    await assign(store, A, B)
    never = StoredStatus(B, 0, NOW, None, None, None)
    await store.commit(KeepTopologyReports((), (status(A, 1), status(C), never)))
    assert list(await store.mesh_statuses()) == [status(A, 1), never]
    await store.commit(KeepTopologyReports((), (status(A, 3, NOW + 9),)))
    assert list(await store.mesh_statuses()) == [status(A, 3, NOW + 9), never]


numbers = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=60)
@given(st.builds(StoredStatus, st.just(A), numbers, numbers, *3 * [st.none() | numbers]))
def test_row_of_a_status_is_read_back_as_it_was_written(row: StoredStatus) -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for _, script in migrations():
            connection.executescript(script)
        mesh.apply(connection, KeepArea(Area(AREA, "lab", b"x" * 16)))
        mesh.apply(connection, AssignAddresses(AREA, (A,)))
        mesh.apply(connection, KeepTopologyReports((), (row,)))
        assert mesh.statuses(connection, FIRST, 9) == [row]


async def test_node_that_is_moved_keeps_its_status_and_one_that_is_released_does_not(
    store: SqliteStore,
) -> None:
    await assign(store, A, B)
    await store.commit(KeepTopologyReports((), (status(A), status(B))))
    await assign(store, A, area=OTHER, role=Role.COLLECTOR, is_moving=True)
    assert list(await store.mesh_statuses()) == [status(A), status(B)]
    await store.commit(ReleaseAddresses((A, B)))
    await assign(store, A, B)
    assert list(await store.mesh_statuses()) == []


async def test_statuses_come_in_pages(store: SqliteStore) -> None:
    nodes = [meter_id(number) for number in range(1, 8)]
    await assign(store, *nodes)
    await store.commit(KeepTopologyReports((), tuple(status(node) for node in reversed(nodes))))
    found: list[StoredStatus] = []
    after = FIRST
    while page := await store.mesh_statuses(after=after, limit=3):
        assert len(page) <= 3
        found += page
        after = page[-1].node
    assert found == [status(node) for node in nodes]


async def test_report_and_status_are_kept_together_or_not_at_all(store: SqliteStore) -> None:
    await assign(store, A)
    wrong = dataclasses.replace(status(A), since="yesterday")  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        await store.commit(KeepTopologyReports((StoredReport(A, NOW, b"r"),), (wrong,)))
    assert list(await store.mesh_reports()) == []
    await store.commit(KeepTopologyReports((StoredReport(A, NOW, b"r"),), (status(A),)))
    assert list(await store.mesh_reports()) == [StoredReport(A, NOW, b"r")]
    assert list(await store.mesh_statuses()) == [status(A)]


def store_of_schema(version: int, path: Path, *rows: tuple[str, tuple[object, ...]]) -> None:
    """A store as a head-end of that time left it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for number, script in migrations():
            if number <= version:
                connection.executescript(script)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")
        for words, values in rows:
            connection.execute(words, values)


async def test_store_of_schema_4_opens_with_all_that_it_had(tmp_path: Path) -> None:
    path = tmp_path / "four.sqlite"
    store_of_schema(
        4,
        path,
        ("INSERT INTO mesh_area VALUES (?, ?, ?, 2)", (AREA, "lab", b"x" * 16)),
        ("INSERT INTO mesh_node VALUES (?, ?, 1, 0, NULL, NULL)", (A, AREA)),
        ("INSERT INTO mesh_report VALUES (?, ?, ?)", (A, NOW, b"r")),
        ("INSERT INTO mesh_denied VALUES (?, ?)", (AREA, B)),
    )
    for _ in range(2):
        store = SqliteStore.open(path)
        assert list(await store.mesh_areas()) == [Area(AREA, "lab", b"x" * 16)]
        assert await shorts(store) == {A: (AREA, 1)}
        assert list(await store.mesh_reports()) == [StoredReport(A, NOW, b"r")]
        assert list(await store.mesh_denied()) == [(AREA, B)]
        assert list(await store.mesh_statuses()) == []
        await store.close()
    store = SqliteStore.open(path)
    await store.commit(KeepTopologyReports((), (status(A),)))
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (migrations()[-1][0],)
        assert connection.execute("SELECT count(*) FROM mesh_status").fetchone() == (1,)


async def test_who_is_kept_out_is_noted_once(store: SqliteStore) -> None:
    assert await store.commit(KeepDenied(AREA, A, is_denied=True)) is True
    assert await store.commit(KeepDenied(AREA, A, is_denied=True)) is False
    assert list(await store.mesh_denied()) == [(AREA, A)]
    assert await store.commit(KeepDenied(AREA, A, is_denied=False)) is True
    assert list(await store.mesh_denied()) == []


async def test_area_keeps_its_dodag_id_and_may_change_its_profile(store: SqliteStore) -> None:
    await store.commit(KeepArea(Area(AREA, "lab", b"x" * 16)))
    assert list(await store.mesh_areas()) == [
        Area(AREA, "lab", bytes([AREA]) * 16),
        Area(OTHER, "rfc8036", bytes([OTHER]) * 16),
    ]


async def test_all_of_it_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "again.sqlite"
    store = SqliteStore.open(path)
    await store.commit(KeepArea(Area(AREA, "lab", b"x" * 16)))
    await assign(store, A)
    await store.commit(KeepTopologyReports((StoredReport(A, NOW, b"r"),), (status(A),)))
    await store.commit(KeepDenied(AREA, B, is_denied=True))
    await store.close()
    store = SqliteStore.open(path)
    assert list(await store.mesh_areas()) == [Area(AREA, "lab", b"x" * 16)]
    assert await shorts(store) == {A: (AREA, 1)}
    assert list(await store.mesh_reports()) == [StoredReport(A, NOW, b"r")]
    assert list(await store.mesh_statuses()) == [status(A)]
    assert list(await store.mesh_denied()) == [(AREA, B)]
    await store.close()


eui64s = st.binary(min_size=8, max_size=8).map(Eui64)


@given(st.integers(0, AREA_MAX).map(AreaId), eui64s, st.none() | eui64s)
def test_path_of_a_mesh_peer_is_read_back(
    area: AreaId, node: Eui64, collector: Eui64 | None
) -> None:
    found = peer_of(path_of(MeshPeer(area, node, collector)))
    assert isinstance(found, MeshPeer)
    assert (found.area, found.node, found.collector) == (area, node, collector)


@settings(max_examples=300)
@given(st.text(max_size=60) | st.text("mesh:/07af", max_size=50).map("mesh:".__add__))
def test_text_that_is_no_path_is_none_or_read_back(text: str) -> None:
    found = MeshPeer.parse(text)
    if found is not None:
        assert MeshPeer.parse(str(found)) == found


def test_mesh_peers_are_the_same_whichever_way_they_were_heard() -> None:
    one, other = MeshPeer(AREA, A, B), MeshPeer(AREA, A, C)
    assert one == other
    assert hash(one) == hash(other)
    assert one != MeshPeer(OTHER, A, B)
    assert path_of(one) != path_of(other)


def paths() -> Iterator[str]:
    yield from (
        "mesh:7:00",
        "mesh:x:" + "00" * 8,
        "mesh:7:" + "00" * 8 + "/00",
        "mesh:-1:" + "00" * 8,
    )


@pytest.mark.parametrize("text", list(paths()))
def test_path_that_is_cut_or_wrong_is_none(text: str) -> None:
    assert peer_of(text) is None
