"""A disk that fills or turns read-only under a running head-end, or is full when it starts.

The contract under test: a meter is answered "later" and never success for what is not committed,
each refusal is counted and the log has one line for a row of them, nothing that was acknowledged is
lost, and when the disk takes writes again everything goes on without a restart. A start on a full
disk is one line that says so, and costs nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from amistack.coap.codes import Code
from amistack.coap.options import OptionNumber
from amistack.errors import StoreError, StoreUnusable
from amistack.stack import SEQUENCE_BLOCK
from headend.app import HeadEnd
from headend.domain.meters import Meter, MeterState
from headend.southbound.ledger import Tally
from headend.southbound.service import LATER_S
from headend.store.interface import EnrolMeters
from headend.store.sqlite import schema
from tests.headend.test_app import settings_in
from tests.headend.test_southbound import METER, Street
from tests.support import headend as world
from tests.support.headend import NOW, TODAY, meter_id, post, public_key, until


@pytest_asyncio.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    made = Street(tmp_path / "s.sqlite")
    await made.start()
    yield made
    for meter in made.meters:
        meter.close()
    await made.stop()


def full(connection: sqlite3.Connection) -> Callable[[], None]:
    """No page more for the file: what SQLite says is what it says of a full disk."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (limit,) = connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    assert limit == pages
    return lambda: connection.execute("PRAGMA max_page_count = 1000000000") and None


def read_only(connection: sqlite3.Connection) -> Callable[[], None]:
    """As of a file system that was mounted anew after an error."""
    connection.execute("PRAGMA query_only = ON")
    return lambda: connection.execute("PRAGMA query_only = OFF") and None


ENTRY_COUNT = 40


def report(days_ago: int) -> bytes:
    """A day's report with a long log, so that it needs more room than there is in a page."""
    first = 1 + ENTRY_COUNT * days_ago
    entries = [world.entry(first + i, detail="x" * 64) for i in range(ENTRY_COUNT)]
    return world.report(day=TODAY - days_ago, entries=entries).encode()


@pytest.mark.parametrize(
    ("hinder", "error"),
    [(full, "database or disk is full"), (read_only, "attempt to write a readonly database")],
    ids=["full", "read-only"],
)
async def test_reports_wait_while_the_disk_takes_nothing_and_nothing_is_lost(
    street: Street, hinder: Callable[[sqlite3.Connection], Callable[[], None]], error: str
) -> None:
    meter = await street.registered()
    assert (await meter.ask(post("rep", report(1)))).code == Code.CHANGED
    mend = hinder(street.store._writing)
    with capture_logs() as lines:
        for _ in range(3):
            answer = await meter.ask(post("rep", report(2)))
            assert answer.code == Code.SERVICE_UNAVAILABLE
            assert answer.uint_option(OptionNumber.MAX_AGE) == LATER_S
        tally = street.southbound.tallies["report"]
        assert (tally.stored, tally.refused, tally.pending, tally.difference) == (1, 3, 0, 0)
        assert street.southbound.refused["model: store failed"] == 3
        assert street.store.commits.failed_count >= 3
        assert (await street.store.counts()).reports == 1, "what is there can still be read"
        mend()
        answer = await meter.ask(post("rep", report(2)))
        assert answer.code == Code.CHANGED
    said = [line["event"] for line in lines]
    assert said == ["store failed", "store takes writes again"], "a line for the row, not for each"
    assert error in lines[0]["error"]
    counts = await street.store.counts()
    assert (counts.reports, counts.log_entries, counts.quarantined) == (2, 2 * ENTRY_COUNT, 0)
    await street.stop()
    await street.start()
    assert (await street.store.counts()).reports == 2
    assert (await meter.ask(post("rep", report(3)))).code == Code.CHANGED


async def test_meter_refused_until_no_number_is_left_hears_nothing_and_then_goes_on(
    street: Street,
) -> None:
    meter = await street.registered()
    mend = read_only(street.store._writing)
    for _ in range(SEQUENCE_BLOCK):
        answer = await meter.ask(post("rep", world.report().encode()))
        assert answer.code == Code.SERVICE_UNAVAILABLE
    # Each refusal takes a number of the head-end's own, and no more can be made durable.
    asking = asyncio.create_task(meter.ask(post("rep", world.report().encode())))
    await until(lambda: street.southbound.tallies["report"].refused == SEQUENCE_BLOCK + 1)
    await asyncio.sleep(0.05)
    assert not asking.done()
    mend()
    assert (await asking).code == Code.SERVICE_UNAVAILABLE, "what was held goes out"
    assert (await meter.ask(post("rep", world.report().encode()))).code == Code.CHANGED
    assert all(tally.difference == 0 for tally in street.southbound.tallies.values())


async def test_enrolment_that_does_not_fit_leaves_the_registry_as_it_was(street: Street) -> None:
    await street.enrol(METER)
    mend = full(street.store._writing)
    key = public_key("all of them")
    more = EnrolMeters(
        tuple(Meter(meter_id(n), key, MeterState.ENROLLED, NOW) for n in range(2, 2_000))
    )
    with pytest.raises(StoreError, match="full"):
        await street.store.commit(more)
    assert [row.meter.id for row in await street.store.meters()] == [METER]
    mend()
    await street.store.commit(more)
    assert (await street.store.counts()).meters == 1_999


async def test_meter_that_joins_while_the_disk_is_full_joins_when_it_is_not(
    street: Street,
) -> None:
    await street.enrol(METER)
    mend = read_only(street.store._writing)
    meter = street.meter()
    with pytest.raises(ConnectionError):
        await meter.join()
    assert street.southbound.refused["model: store failed"] == 1
    assert all(tally == Tally() for tally in street.southbound.tallies.values())
    mend()
    await meter.join()
    assert (await meter.ask(post("reg", world.registration(METER).encode()))).code == Code.CHANGED


# At the start


async def starts(folder: Path) -> bool:
    head_end = HeadEnd(settings_in(folder))
    await head_end.start()
    await head_end.stop()
    return True


@pytest.mark.parametrize("is_used", [False, True], ids=["new", "used"])
async def test_full_disk_at_the_start_is_one_line_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_used: bool
) -> None:
    if is_used:
        assert await starts(tmp_path)
    prepare = schema._prepare

    def prepare_on_a_full_disk(connection: sqlite3.Connection, path: Path) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {max(1, pages)}")
        if pages:
            # A used store needs no room to open: let it want some, as a migration would.
            connection.execute("CREATE TABLE more AS SELECT randomblob(9000)")
        prepare(connection, path)

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_prepare", prepare_on_a_full_disk)
        with pytest.raises(StoreUnusable) as refusal:
            await starts(tmp_path)
    line = str(refusal.value)
    assert "\n" not in line
    assert line.startswith(f"{tmp_path / 's.sqlite'} cannot be used: database or disk is full; ")
    assert "make room on that disk" in line
    assert await starts(tmp_path), "with room again it starts"


async def test_disk_too_full_for_the_lock_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def refuse(descriptor: int, octets: bytes, offset: int) -> int:
        if octets == f"{os.getpid()}\n".encode():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, octets, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(StoreUnusable, match="No space left on device; make room") as refusal:
            await starts(tmp_path)
    assert "\n" not in str(refusal.value)
    assert await starts(tmp_path)


@pytest.mark.parametrize(
    ("hinder", "said"),
    [(read_only, "attempt to write a readonly database; let this user write to it")],
    ids=["read-only"],
)
async def test_store_that_cannot_be_written_at_the_start_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hinder: Callable[[sqlite3.Connection], Callable[[], None]],
    said: str,
) -> None:
    prepare = schema._prepare

    def prepare_hindered(connection: sqlite3.Connection, path: Path) -> None:
        hinder(connection)
        prepare(connection, path)

    monkeypatch.setattr(schema, "_prepare", prepare_hindered)
    with pytest.raises(StoreUnusable, match=said):
        await starts(tmp_path)
