"""The store's port, as every backend must keep it.

The contract under test: outcomes are told in the order of submission and only after a commit that
another reader sees; one write that fails costs no other; a write that is repeated is harmless and
one that contradicts what is stored changes nothing of it; whatever was told is there again after
closing and opening; a full queue refuses instead of growing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from amistack.errors import StoreBusy, StoreError
from amistack.identifiers import Eui64
from amistack.model import IntervalBlock
from headend.domain.meters import Meter, MeterState, RegistrationRecord, StoredSession
from headend.domain.readings import (
    BlockFlag,
    DayBlock,
    LogRecord,
    Method,
    OnDemandRead,
    QuarantinedRecord,
    ReadResult,
    ReportRecord,
)
from headend.southbound.intake import record_of
from headend.store.interface import (
    QUEUE_MAX,
    Enrolled,
    EnrolmentConflict,
    EnrolMeters,
    InterruptReads,
    KeepDelivery,
    KeepRead,
    KeepSession,
    Kept,
    Outcome,
    Record,
    ReserveNumbers,
)
from headend.store.sqlite import SqliteStore
from headend.store.sqlite.store import GROUP_MAX
from tests.support import headend as world
from tests.support.headend import NOW, YESTERDAY, meter_id

A, B = meter_id(1), meter_id(2)
PATH = "udp:192.0.2.7:5683"


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "head-end.sqlite")
    yield opened
    await opened.close()


def enrol(*meters: Eui64, key: str = "") -> EnrolMeters:
    return EnrolMeters(
        tuple(
            Meter(meter, world.public_key(key or meter.hex()), MeterState.ENROLLED, NOW)
            for meter in meters
        )
    )


def session(meter: Eui64, recipient_id: bytes = b"\x01") -> StoredSession:
    return StoredSession(meter, recipient_id, b"\x02", b"s" * 16, b"t" * 8, 10, 64, (0, 0), NOW)


def day_block(meter: Eui64 = A, *, day: int = YESTERDAY, values: int = 96) -> DayBlock:
    made = IntervalBlock.of(
        list(range(values)), channel=1, interval_s=86_400 // values, opening=1_000
    )
    return DayBlock(
        meter, 1, day, 7, made.interval_s, made.opening, made.advance, made.packed, b"",
        BlockFlag(0),
    )  # fmt: skip


def report_record(meter: Eui64 = A, *, day: int = YESTERDAY) -> ReportRecord:
    return ReportRecord(meter, day, Method.SCHEDULE, NOW, 1, 60)


def registration_record(meter: Eui64 = A) -> RegistrationRecord:
    return record_of(world.registration(meter), NOW)


def log_record(sequence: int = 1, detail: str = "") -> LogRecord:
    return LogRecord(A, sequence, NOW, "3.26.0.216", detail, is_time_doubtful=False)


def deliver(*records: Record, meter: Eui64 = A, window: tuple[int, int] = (5, 1)) -> KeepDelivery:
    return KeepDelivery(meter, b"\x01", window, PATH, NOW * 1000, records)


def bad_write() -> KeepDelivery:
    """One that the database cannot take: an opening beyond 64 bits."""
    return deliver(dataclasses.replace(day_block(), opening=2**70))


async def test_outcomes_are_told_in_the_order_of_submission(store: SqliteStore) -> None:
    told: list[int] = []
    count = GROUP_MAX + 200
    last = asyncio.Event()

    def done(number: int) -> None:
        told.append(number)
        if number == count - 1:
            last.set()

    for number in range(count):
        write = deliver(log_record(number))
        store.submit(write, lambda _, number=number: done(number))  # type: ignore[misc]
    assert store.depth == (count, QUEUE_MAX)
    async with asyncio.timeout(20):
        await last.wait()
    assert told == list(range(count))
    assert store.depth == (0, QUEUE_MAX)


async def test_outcome_is_told_only_when_another_reader_sees_it(
    store: SqliteStore, tmp_path: Path
) -> None:
    seen: list[int] = []
    other = sqlite3.connect(tmp_path / "head-end.sqlite")

    def look(_: Outcome) -> None:
        (count,) = other.execute("SELECT count(*) FROM log_entry").fetchone()
        seen.append(count)

    for number in range(20):
        store.submit(deliver(log_record(number)), look)
    await store.commit(deliver())
    assert len(seen) == 20
    assert all(count > index for index, count in enumerate(seen))
    other.close()


async def test_one_bad_write_does_not_spoil_its_neighbours(store: SqliteStore) -> None:
    outcomes: list[Outcome] = []
    writes = [deliver(log_record(1)), bad_write(), deliver(log_record(2))]
    for write in writes:
        store.submit(write, outcomes.append)
    await store.commit(deliver())
    assert outcomes[0] == outcomes[2] == (Kept.NEW,)
    assert isinstance(outcomes[1], StoreError)
    assert [entry.sequence for entry in await store.log_entries(A)] == [2, 1]


async def test_nothing_of_a_failed_write_is_kept(store: SqliteStore) -> None:
    await store.commit(KeepSession(session(A), PATH))
    write = deliver(log_record(1), dataclasses.replace(day_block(), opening=2**70), window=(9, 3))
    with pytest.raises(StoreError, match="the store refused a write"):
        await store.commit(write)
    assert await store.log_entries(A) == []
    (kept,) = await store.sessions()
    assert kept.window == (0, 0)


async def test_callback_that_fails_costs_no_other_its_outcome(store: SqliteStore) -> None:
    complaints: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    def fail(_: Outcome) -> None:
        raise RuntimeError("mine alone")

    store.submit(deliver(log_record(1)), fail)
    assert await store.commit(deliver(log_record(2))) == (Kept.NEW,)
    assert [str(context["exception"]) for context in complaints] == ["mine alone"]


async def test_full_queue_refuses_and_calls_nobody(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headend.store.sqlite.store.QUEUE_MAX", 3)
    told: list[Outcome] = []
    for number in range(3):
        store.submit(deliver(log_record(number)), told.append)
    with pytest.raises(StoreBusy, match="3 writes wait already"):
        store.submit(deliver(log_record(9)), told.append)
    await world.until(lambda: store.depth[0] == 0)
    assert len(told) == 3
    assert await store.commit(deliver(log_record(9))) == (Kept.NEW,)


async def test_closed_store_refuses_in_its_own_words(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "s.sqlite")
    told: list[Outcome] = []
    store.submit(deliver(log_record()), told.append)
    await store.close()
    assert told == [(Kept.NEW,)], "what waited is committed, and told, before the doors close"
    await store.close()
    with pytest.raises(StoreBusy, match="closing"):
        store.submit(deliver(), told.append)
    with pytest.raises(StoreError, match="closing"):
        await store.find_meter(A)


# Enrolment


async def test_enrolment_takes_all_or_none(store: SqliteStore) -> None:
    assert await store.commit(enrol(A)) == Enrolled(new=1, known=0)
    assert await store.commit(enrol(A, B)) == Enrolled(new=1, known=1)
    other = meter_id(3)
    outcome = await store.commit(enrol(other, A, key="another"))
    assert outcome == EnrolmentConflict((A,))
    assert await store.find_meter(other) is None
    found = await store.find_meter(A)
    assert found is not None
    assert found.public_key == world.public_key(A.hex())


async def test_meters_come_in_order_a_page_at_a_time(store: SqliteStore) -> None:
    every = [meter_id(number) for number in range(7)]
    await store.commit(enrol(*reversed(every)))
    pages: list[Eui64] = []
    after: Eui64 | None = None
    while page := await store.meters(after=after, limit=3):
        assert len(page) <= 3
        pages += [overview.meter.id for overview in page]
        after = pages[-1]
    assert pages == every


# Deliveries


async def test_delivery_carries_its_replay_window_with_it(store: SqliteStore) -> None:
    await store.commit(KeepSession(session(A), "udp:192.0.2.1:1"))
    await store.commit(deliver(log_record(), window=(77, 0xF00D)))
    (kept,) = await store.sessions()
    assert kept == dataclasses.replace(session(A), window=(77, 0xF00D))
    (location,) = await store.locations()
    assert location.path == PATH


async def test_repeated_records_are_told_so_and_stored_once(store: SqliteStore) -> None:
    records = (
        day_block(), report_record(), log_record(), QuarantinedRecord(A, "odd", b"\x00\x01")
    )  # fmt: skip
    assert await store.commit(deliver(registration_record(), *records)) == (Kept.NEW,) * 5
    assert await store.commit(deliver(*records)) == (Kept.REPEATED,) * 4
    counts = await store.counts((YESTERDAY, YESTERDAY - 1))
    assert (counts.blocks, counts.reports, counts.log_entries, counts.quarantined) == (1, 1, 1, 1)
    assert counts.reports_of_day == {YESTERDAY: 1, YESTERDAY - 1: 0}


async def test_contradiction_leaves_what_is_stored_and_is_set_aside(store: SqliteStore) -> None:
    await store.commit(deliver(registration_record(), day_block(), report_record(), log_record()))
    changed = dataclasses.replace(day_block(), opening=5)
    assert await store.commit(deliver(changed)) == (Kept.CONFLICT,)
    assert await store.commit(deliver(log_record(detail="other"))) == (Kept.CONFLICT,)
    (stored,) = await store.blocks(A, YESTERDAY, YESTERDAY)
    assert stored.block == day_block()
    assert (await store.counts()).quarantined == 2


async def test_blocks_come_with_channel_and_provenance_of_their_own_time(
    store: SqliteStore,
) -> None:
    await store.commit(deliver(registration_record(), day_block(), report_record()))
    moved = world.registration(A, channel_set=8, offset_min=330)
    await store.commit(deliver(record_of(moved, NOW)))
    (stored,) = await store.blocks_of_day(YESTERDAY)
    assert stored.channel == registration_record().channels[0]
    assert (stored.path, stored.received_ms, stored.method) == (PATH, NOW * 1000, Method.SCHEDULE)
    assert stored.offset_min == 60, "a later registration must not move a stored day"
    assert await store.blocks(A, YESTERDAY + 1, YESTERDAY + 9) == []
    assert await store.channels(A, 7) == registration_record().channels
    assert await store.channels(A, 99) == ()


async def test_overview_tells_all_that_is_known(store: SqliteStore) -> None:
    await store.commit(enrol(A, B))
    await store.commit(KeepSession(session(A), PATH))
    await store.commit(deliver(registration_record(), day_block(), report_record()))
    known = await store.find_overview(A)
    assert known is not None
    assert known.is_secured
    assert known.registration == registration_record()
    assert (known.newest_day, known.report_count) == (YESTERDAY, 1)
    fresh = await store.find_overview(B)
    assert fresh is not None
    assert not fresh.is_secured
    assert (fresh.location, fresh.registration, fresh.newest_day) == (None, None, None)
    assert await store.find_overview(meter_id(9)) is None
    assert list(await store.offsets()) == [(A, 60)]


# Sessions and numbers


async def test_reserved_numbers_never_go_back(store: SqliteStore) -> None:
    await store.commit(KeepSession(session(A), PATH))
    await store.commit(ReserveNumbers(b"\x01", 192, 64))
    await store.commit(ReserveNumbers(b"\x01", 128, 64))
    (kept,) = await store.sessions()
    assert kept.reserved_until == 192


async def test_new_session_replaces_the_meters_earlier_one(store: SqliteStore) -> None:
    await store.commit(KeepSession(session(A, b"\x01"), PATH))
    await store.commit(KeepSession(session(A, b"\x02"), PATH))
    await store.commit(KeepSession(session(B, b"\x03"), PATH))
    assert sorted(s.recipient_id for s in await store.sessions()) == [b"\x02", b"\x03"]


# On-demand reads


async def test_reads_left_open_end_as_interrupted_and_others_stay(store: SqliteStore) -> None:
    asked = OnDemandRead(b"12345678", A, NOW * 1000, ReadResult.ASKED)
    done = OnDemandRead(
        b"abcdefgh", B, NOW * 1000 + 5, ReadResult.ANSWERED, NOW * 1000 + 9, PATH, b"x", ""
    )
    await store.commit(KeepRead(asked))
    await store.commit(KeepRead(done))
    await store.commit(InterruptReads())
    assert await store.find_read(b"12345678") == dataclasses.replace(
        asked, result=ReadResult.INTERRUPTED
    )
    assert await store.find_read(b"abcdefgh") == done
    assert [read.meter for read in await store.reads()] == [B, A]
    assert [read.meter for read in await store.reads(A)] == [A]
    assert await store.find_read(b"nothing!") is None


async def test_all_that_was_told_is_there_again_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = SqliteStore.open(path)
    await store.commit(enrol(A))
    await store.commit(KeepSession(session(A), PATH))
    await store.commit(deliver(registration_record(), day_block(), report_record(), log_record()))
    before = (
        list(await store.sessions()),
        list(await store.locations()),
        list(await store.channel_sets()),
        await store.blocks_of_day(YESTERDAY),
        await store.log_entries(A),
        await store.counts(),
    )
    await store.close()
    store = SqliteStore.open(path)
    after = (
        list(await store.sessions()),
        list(await store.locations()),
        list(await store.channel_sets()),
        await store.blocks_of_day(YESTERDAY),
        await store.log_entries(A),
        await store.counts(),
    )
    await store.close()
    assert after == before
    assert before[5].blocks == 1
