"""How each node is, on its way to the store, and back at a start.

The contract under test: states, and why nodes registered last, are there again after a start, with
the age that they have; what is newer wins, be it the report or the status; what a node has come to
is stored soon, many nodes in one write, together with the report that says so and never before it;
nothing is stored while a start still reads, and by a start that brings nothing new; a kill costs
the last moments and leaves no contradiction; a row that cannot be is counted, and replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from amistack.errors import StoreBusy, StoreError
from amistack.identifiers import Eui64
from headend.dcc import saving as saving_module
from headend.dcc.center import Center
from headend.dcc.saving import Saving
from headend.domain.mesh import Area, StoredReport, StoredStatus
from headend.store.interface import Outcome, Write
from headend.store.mesh import (
    AssignAddresses,
    KeepArea,
    KeepTopologyReports,
    ReleaseAddresses,
)
from headend.store.sqlite import SqliteStore
from mesh.reports import Reason, TopologyReport
from mesh.topology.status import LATE_S, DeviceStatus, EndpointState
from tests.headend.dcc.worlds import DODAG_ID
from tests.headend.test_store_mesh import store_of_schema
from tests.mesh.topology.worlds import AREA, eui, made_world
from tests.support.headend import NOW, until

WORLD = made_world(3, meters=4, collectors=1)
A, B, C = eui(1), eui(2), eui(3)
HOUR = 3600
NEVER, REACHABLE, LATE, SILENT, UNREACHABLE = EndpointState
NUMBER = {NEVER: 0, REACHABLE: 1, LATE: 2, SILENT: 3, UNREACHABLE: 4}


def report(node: int, reason: Reason = Reason.PERIODIC, sequence: int = 1) -> bytes:
    made = dict(WORLD.reports(sequence))[node]
    return TopologyReport(
        reason, made.sequence, made.rank, made.hops, made.parents, made.neighbours
    ).encode()


def row(
    node: Eui64,
    state: EndpointState,
    since: int,
    heard_at: int | None,
    registered_at: int | None = None,
    reason: int | None = None,
) -> StoredStatus:
    return StoredStatus(node, NUMBER[state], since, heard_at, registered_at, reason)


class Life:
    """A head-end's topology and its store, from a start to a stop or a kill; time goes by hand."""

    def __init__(self, path: Path, *, wall: float = NOW, now: float = 1_000.0) -> None:
        self.path = path
        self.now = now
        self._ahead = wall - now
        self.store = SqliteStore.open(path)
        self.center = Center()
        self.saving = Saving(store=self.store, wall=lambda: self.now + self._ahead)
        self.writes: list[KeepTopologyReports] = []
        submit = self.store.submit

        def noting(write: Write, done: Callable[[Outcome], None]) -> None:
            if isinstance(write, KeepTopologyReports):
                self.writes.append(write)
            submit(write, done)

        self.store.submit = noting  # type: ignore[method-assign]

    async def start(self) -> Life:
        await self.saving.load(self.center, now=lambda: self.now)
        self.center.handle_timer(now=self.now)
        self.note()
        return self

    async def stop(self) -> None:
        self.note()
        await self.saving.stop()
        await self.store.close()

    async def kill(self) -> None:
        self.saving.abandon()
        await self.store.close()

    async def after(self, seconds: float, *, now: float = 50.0) -> Life:
        """The next life, which has another time of its own."""
        return await Life(self.path, wall=self.now + self._ahead + seconds, now=now).start()

    def note(self) -> None:
        self.saving.note_statuses(now=self.now)

    def take(self, short: int, reason: Reason = Reason.PERIODIC, sequence: int = 1) -> None:
        """A report comes, as the service passes it on."""
        octets = report(short, reason, sequence)
        self.center.dcc.take_octets(octets, area=AREA, short=short, now=self.now)
        self.saving.note(eui(short), octets)
        self.note()

    def lose(self, *nodes: Eui64) -> None:
        for node in nodes:
            self.center.unanswered(node, now=self.now)
        self.note()

    def status(self, node: Eui64) -> DeviceStatus:
        return self.center.dcc.devices.status_of(node, now=self.now)

    def ages(self, node: Eui64) -> tuple[EndpointState, int, int | None, int | None, Reason | None]:
        """State, and the ages of it, of the last word and of the registration; and its reason."""
        found = self.status(node)
        times = (found.since, found.heard_at, found.registered_at)
        since, heard, registered = (None if at is None else round(self.now - at) for at in times)
        assert since is not None
        return found.state, since, heard, registered, found.registered_for

    async def settled(self) -> None:
        await until(lambda: not self.saving.waiting_count + self.saving.changed_count)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving_module, "SAVE_S", 0.005)
    monkeypatch.setattr(saving_module, "RETRY_S", 0.005)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is stored before the stop."""
    monkeypatch.setattr(saving_module, "SAVE_S", 600.0)


@pytest_asyncio.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """A store with an area of three meters of which nothing is known."""
    file = tmp_path / "s.sqlite"
    store = SqliteStore.open(file)
    await store.commit(KeepArea(Area(AREA, "rfc8036", DODAG_ID)))
    await store.commit(AssignAddresses(AREA, (A, B, C)))
    await store.close()
    yield file


async def kept(path: Path, *writes: Write) -> None:
    store = SqliteStore.open(path)
    for write in writes:
        await store.commit(write)
    await store.close()


@pytest.mark.requirement("I2-X-01")
@pytest.mark.parametrize("ends", [Life.stop, Life.kill], ids=["stop", "kill"])
async def test_states_and_reasons_are_there_again_with_the_age_that_they_have(
    path: Path, ends: Callable[[Life], object]
) -> None:
    life = await Life(path).start()
    for short, reason in ((1, Reason.POWER_RESTORED), (2, Reason.COLD_BOOT)):
        life.take(short, reason)
    life.now += 600
    life.take(1, Reason.LINK_CHANGED, sequence=2)
    life.now += 60
    life.lose(A)
    life.center.dcc.devices.isolated(C, now=life.now)
    life.note()
    await life.settled()
    before = {node: life.ages(node) for node in (A, B, C)}
    assert before == {
        A: (SILENT, 0, 60, 660, Reason.POWER_RESTORED),
        B: (REACHABLE, 660, 660, 660, Reason.COLD_BOOT),
        C: (UNREACHABLE, 0, None, None, None),
    }
    await ends(life)  # type: ignore[misc]
    again = await life.after(2 * HOUR)
    for node, (state, *ages, reason) in before.items():
        older = (None if age is None else age + 2 * HOUR for age in ages)
        assert again.ages(node) == (state, *older, reason)
    assert again.saving.counters == {}
    devices = again.center.dcc.devices
    assert {state: n for state, n in devices.counts().items() if n} == {
        SILENT: 1,
        REACHABLE: 1,
        UNREACHABLE: 1,
    }
    assert not devices.moves, "what was so before is no news"
    assert not devices.registrations
    await again.stop()


async def test_start_that_brings_nothing_new_stores_nothing(path: Path) -> None:
    life = await Life(path).start()
    life.take(1, Reason.POWER_RESTORED)
    life.now += 7.3
    life.take(1, Reason.PERIODIC, sequence=2)
    life.lose(A)
    await life.stop()
    for _ in range(3):
        life = await life.after(1_000.7, now=life.now / 3)
        assert life.saving.changed_count == 0
        await life.stop()
        assert life.writes == []
    assert life.ages(A)[:2] == (SILENT, 3_002)


async def test_age_of_never_heard_is_kept_from_the_first_start_on(path: Path) -> None:
    life = await Life(path).start()
    await life.stop()
    life = await life.after(5 * HOUR)
    assert life.ages(A) == (NEVER, 5 * HOUR, None, None, None)
    await life.stop()


async def test_first_start_on_a_store_of_schema_4_keeps_what_reports_say(tmp_path: Path) -> None:
    path = tmp_path / "four.sqlite"
    store_of_schema(
        4,
        path,
        ("INSERT INTO mesh_area VALUES (?, 'rfc8036', ?, 4)", (AREA, DODAG_ID)),
        *(
            ("INSERT INTO mesh_node VALUES (?, ?, ?, 0, NULL, NULL)", (eui(short), AREA, short))
            for short in (1, 2, 3)
        ),
        ("INSERT INTO mesh_report VALUES (?, ?, ?)", (A, NOW - 99, report(1, Reason.COLD_BOOT))),
        ("INSERT INTO mesh_report VALUES (?, ?, ?)", (B, NOW - 14 * HOUR, report(2))),
    )
    life = await Life(path).start()
    expected = {
        A: (REACHABLE, 99, 99, 99, Reason.COLD_BOOT),
        B: (LATE, HOUR, 14 * HOUR, None, None),
        C: (NEVER, 0, None, None, None),
    }
    assert {node: life.ages(node) for node in (A, B, C)} == expected
    await life.stop()
    assert life.saving.counters == {"statuses stored": 3}
    again = await life.after(0.0)
    assert {node: again.ages(node) for node in (A, B, C)} == expected
    assert again.saving.changed_count == 0
    await again.stop()


async def test_report_that_is_newer_than_the_stored_status_wins(path: Path) -> None:
    await kept(
        path,
        KeepTopologyReports(
            (StoredReport(A, NOW - 50, report(1)), StoredReport(B, NOW - 50, report(2))),
            (
                row(A, SILENT, NOW - 100, NOW - 300, NOW - 400, Reason.COLD_BOOT),
                row(B, UNREACHABLE, NOW - 20, NOW - 300),
            ),
        ),
    )
    life = await Life(path).start()
    assert life.ages(A) == (REACHABLE, 50, 50, 400, Reason.COLD_BOOT)
    assert life.ages(B) == (UNREACHABLE, 20, 50, None, None)
    # What came out of it is kept in its turn: of B the row says so already.
    await life.settled()
    written = [one.node for write in life.writes for one in write.statuses]
    assert (A in written, B in written) == (True, False)
    await life.kill()
    again = await life.after(10.0)
    assert again.ages(A)[:3] == (REACHABLE, 60, 60)
    assert again.ages(B)[:3] == (UNREACHABLE, 30, 60)
    await again.stop()


@pytest.mark.parametrize(
    ("word", "state"),
    [
        (lambda life: life.take(1), REACHABLE),
        (lambda life: life.center.dcc.devices.heard(A, now=life.now), REACHABLE),
        (lambda life: life.center.dcc.devices.isolated(A, now=life.now), UNREACHABLE),
        (lambda life: life.lose(A), SILENT),
    ],
    ids=["a report", "an answer", "an isolation", "no answer again"],
)
async def test_what_comes_after_the_start_wins(
    path: Path, word: Callable[[Life], None], state: EndpointState
) -> None:
    await kept(path, KeepTopologyReports((), (row(A, SILENT, NOW - 100, NOW - 300),)))
    life = await Life(path).start()
    life.now += 5
    word(life)
    assert life.status(A).state is state
    await life.stop()
    life = await life.after(5.0)
    since = 105 + 5 if state is SILENT else 5
    assert life.ages(A)[:2] == (state, since)
    await life.stop()


async def test_who_was_heard_long_ago_is_late_since_it_would_have_been(path: Path) -> None:
    heard = NOW - 20 * HOUR
    await kept(path, KeepTopologyReports((), (row(A, REACHABLE, NOW - 90 * HOUR, heard),)))
    life = await Life(path).start()
    assert life.ages(A)[:3] == (LATE, 20 * HOUR - LATE_S, 20 * HOUR)
    await life.stop()


@pytest.mark.usefixtures("later")
async def test_kill_costs_the_last_moments_and_leaves_no_contradiction(path: Path) -> None:
    life = await Life(path).start()
    life.take(1, Reason.COLD_BOOT)
    life.saving._save()
    await life.settled()
    life.now += 60
    life.lose(A)
    life.saving._save()
    await life.settled()
    life.now += 60
    life.take(1, Reason.POWER_RESTORED, sequence=9)
    assert life.status(A).state is REACHABLE
    await life.kill()
    again = await life.after(0.0)
    # As if the report had not come: neither its state nor its reason is there without it.
    assert again.ages(A) == (SILENT, 60, 120, 120, Reason.COLD_BOOT)
    (stored,) = [one for one in await again.store.mesh_reports() if one.node == A]
    assert stored.octets == report(1, Reason.COLD_BOOT)
    await again.stop()


async def test_status_goes_with_its_report_and_none_before_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving_module, "BATCH_MAX", 2)
    life = await Life(path).start()
    for short in (1, 2):
        life.take(short)
    await life.settled()
    life.writes.clear()
    # Of two nodes a report is due that changes nothing of them; the third one is heard first now.
    for short in (1, 2):
        life.take(short, sequence=2)
    life.take(3, Reason.COLD_BOOT)
    life.lose(B)
    await life.settled()
    said = [
        ({one.node for one in write.reports}, {one.node for one in write.statuses})
        for write in life.writes
    ]
    assert said == [({A, B}, {B}), ({C}, {C})]
    await life.stop()


@pytest.mark.usefixtures("later")
async def test_what_does_not_fit_one_write_follows_it_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving_module, "BATCH_MAX", 2)
    life = await Life(path).start()
    assert life.saving.changed_count == 3
    life.saving._save()
    await life.settled()
    assert [len(write.statuses) for write in life.writes] == [2, 1]
    await life.stop()


async def test_nothing_is_stored_after_a_kill(path: Path) -> None:
    life = await Life(path).start()
    await life.settled()
    life.writes.clear()
    life.take(1)
    life.saving.abandon()
    assert (life.saving.waiting_count, life.saving.changed_count) == (0, 0)
    life.lose(A)
    await asyncio.sleep(0.03)
    assert life.writes == []
    await life.store.close()


async def test_nodes_that_fall_silent_at_once_cost_a_few_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving_module, "BATCH_MAX", 100)
    nodes = tuple(eui(0x1000 + number) for number in range(1_000))
    await kept(path, AssignAddresses(AREA, nodes))
    life = await Life(path).start()
    for node in nodes:
        life.center.dcc.devices.heard(node, now=life.now)
    life.note()
    await life.settled()
    life.writes.clear()
    for _ in range(3):  # Asked again and again, by several: what waits is one a node.
        life.now += 1
        life.lose(*nodes)
        for node in nodes:
            life.center.dcc.devices.heard(node, now=life.now)
        life.lose(*nodes)
    assert life.saving.changed_count == len(nodes)
    await life.settled()
    assert len(life.writes) == 10
    assert max(len(write.statuses) for write in life.writes) == 100
    assert life.saving.counters["statuses stored"] == 2 * len(nodes) + 3
    await life.stop()
    again = await life.after(60.0)
    assert {again.ages(node)[:2] for node in nodes} == {(SILENT, 60)}
    await again.stop()


async def test_what_changes_while_it_is_written_is_stored_after_it(path: Path) -> None:
    life = await Life(path).start()
    await life.settled()
    life.take(1)
    submit = life.store.submit

    def late(write: Write, done: Callable[[Outcome], None]) -> None:
        submit(write, done)
        if life.status(A).state is REACHABLE:
            life.now += 1
            life.lose(A)

    life.store.submit = late  # type: ignore[method-assign]
    await life.settled()
    assert life.status(A).state is SILENT
    (found,) = [one for one in await life.store.mesh_statuses() if one.node == A]
    assert found.state == NUMBER[SILENT]
    await life.stop()


@pytest.mark.parametrize("trouble", [StoreBusy("full"), StoreError("disk full")], ids=str)
async def test_status_that_the_store_does_not_take_is_stored_later(
    path: Path, trouble: StoreError
) -> None:
    life = await Life(path).start()
    await life.settled()
    submit, troubles = life.store.submit, [trouble, trouble]

    def odd(write: Write, done: Callable[[Outcome], None]) -> None:
        if not troubles:
            submit(write, done)
        elif isinstance(error := troubles.pop(), StoreBusy):
            raise error
        else:
            asyncio.get_running_loop().call_soon(done, error)

    life.store.submit = odd  # type: ignore[method-assign]
    life.take(1, Reason.COLD_BOOT)
    await life.settled()
    assert life.saving.counters == {
        "statuses stored": 4, "statuses stored late": 2, "reports stored": 1,
        "reports stored late": 2,
    }  # fmt: skip
    assert [one.state for one in await life.store.mesh_statuses() if one.node == A] == [1]
    await life.stop()


async def test_stop_on_a_full_disk_counts_what_was_not_stored(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = await Life(path).start()
    await life.settled()

    async def full(write: Write) -> Outcome:
        raise StoreError("disk full")

    monkeypatch.setattr(life.store, "commit", full)
    life.lose(B)
    life.center.dcc.devices.heard(A, now=life.now)
    await life.stop()
    assert life.saving.counters == {"statuses stored": 3, "statuses not stored": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        row(A, REACHABLE, NOW - 5, NOW - 9),
        row(A, SILENT, NOW - 9, NOW - 5),
        row(A, LATE, NOW - 9, None),
        row(A, NEVER, NOW - 9, NOW - 9),
        row(A, REACHABLE, NOW - 9, NOW - 9, NOW - 5, Reason.COLD_BOOT),
        row(A, REACHABLE, NOW - 9, NOW - 9, NOW - 9, None),
        row(A, REACHABLE, NOW - 9, NOW - 9, None, Reason.COLD_BOOT),
        row(A, REACHABLE, NOW - 9, NOW - 9, NOW - 9, Reason.PERIODIC),
        row(A, REACHABLE, NOW - 9, NOW - 9, NOW - 9, 99),
        StoredStatus(A, 5, NOW - 9, NOW - 9, None, None),
    ],
    ids=str,
)
async def test_stored_status_that_cannot_be_is_counted_and_replaced(
    path: Path, wrong: StoredStatus
) -> None:
    good = row(B, SILENT, NOW - 30, NOW - 40, NOW - 50, Reason.PARENT_CHANGED)
    await kept(path, KeepTopologyReports((StoredReport(A, NOW - 70, report(1)),), (wrong, good)))
    life = await Life(path).start()
    assert life.saving.counters == {"statuses not taken from the store": 1}
    assert life.ages(A) == (REACHABLE, 70, 70, None, None)
    assert life.ages(B) == (SILENT, 30, 40, 50, Reason.PARENT_CHANGED)
    await life.stop()
    again = await life.after(0.0)
    assert again.saving.counters == {}
    assert again.ages(A) == (REACHABLE, 70, 70, None, None)
    await again.stop()


async def test_status_of_who_has_no_place_keeps_no_head_end_from_starting(path: Path) -> None:
    await kept(path, KeepTopologyReports((), (row(A, SILENT, NOW - 5, NOW - 9),)))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE mesh_status SET node = ?", (eui(77),))
    life = await Life(path).start()
    assert life.saving.counters == {"statuses not taken from the store": 1}
    assert life.status(A).state is NEVER
    await life.stop()


async def test_nothing_is_stored_before_all_is_read(path: Path) -> None:
    await kept(path, KeepTopologyReports((), (row(A, SILENT, NOW - 5, NOW - 9),)))
    life = Life(path)
    seen: list[int] = []
    read = life.store.mesh_statuses

    async def slow(**page: object) -> object:
        # Everybody has been placed by now, and looks as if never heard.
        life.note()
        seen.append(life.saving.changed_count)
        return await read(**page)  # type: ignore[arg-type]

    life.store.mesh_statuses = slow  # type: ignore[assignment, method-assign]
    await life.start()
    assert seen == [0, 0]
    assert life.status(A).state is SILENT
    await life.stop()


async def test_start_that_fails_half_way_writes_nothing_over(path: Path) -> None:
    good = row(A, SILENT, NOW - 5, NOW - 9)
    await kept(path, KeepTopologyReports((), (good,)))
    life = Life(path)

    async def broken(**page: object) -> object:
        raise StoreError("the store cannot be read")

    read, life.store.mesh_statuses = life.store.mesh_statuses, broken  # type: ignore[assignment, method-assign]
    with pytest.raises(StoreError):
        await life.start()
    life.note()
    await life.saving.stop()
    assert list(await read()) == [good]
    await life.store.close()


async def test_who_is_released_while_its_status_waits_has_none(path: Path) -> None:
    life = await Life(path).start()
    life.take(1, Reason.COLD_BOOT)
    await life.store.commit(ReleaseAddresses((A,)))
    life.center.remove(A, now=life.now)
    await life.settled()
    assert {one.node for one in await life.store.mesh_statuses()} == {B, C}
    await life.stop()


async def test_backup_that_is_put_back_brings_what_was_so_with_its_age(path: Path) -> None:
    life = await Life(path).start()
    life.take(1, Reason.POWER_RESTORED)
    life.lose(A)
    await life.stop()
    backup = path.with_name("backup.sqlite")
    shutil.copy(path, backup)
    life = await life.after(HOUR)
    life.take(1, Reason.COLD_BOOT, sequence=3)
    life.take(2)
    await life.stop()
    shutil.copy(backup, path)
    life = await life.after(HOUR)
    assert life.store.is_restored
    assert life.ages(A) == (SILENT, 2 * HOUR, 2 * HOUR, 2 * HOUR, Reason.POWER_RESTORED)
    assert life.ages(B) == (NEVER, 2 * HOUR, None, None, None)
    # The next word of a node puts it right, though it was said in a life that nobody remembers.
    life.take(1, Reason.PERIODIC, sequence=4)
    assert life.status(A).state is REACHABLE
    assert life.saving.counters == {}
    await life.stop()


async def test_what_a_clock_that_was_ahead_has_noted_is_now_and_stays_silent(path: Path) -> None:
    ahead = NOW + 500
    await kept(
        path,
        KeepTopologyReports(
            (StoredReport(A, ahead - 9, report(1)),), (row(A, SILENT, ahead, ahead - 9),)
        ),
    )
    life = await Life(path).start()
    assert life.ages(A)[:3] == (SILENT, 0, 0)
    await life.stop()
