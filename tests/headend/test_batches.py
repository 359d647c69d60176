"""Deliveries kept together, against the same deliveries kept one by one.

The contract under test: whatever is delivered, in whatever order and however often, `apply_all`
gives the outcomes of `apply` to each write and leaves the same rows; it does use few statements.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.identifiers import Eui64
from headend.domain.meters import ChannelRecord, RegistrationRecord, StoredSession
from headend.domain.readings import (
    BlockFlag,
    DayBlock,
    LogRecord,
    Method,
    QuarantinedRecord,
    ReportRecord,
)
from headend.store.interface import (
    KeepDelivery,
    KeepSession,
    Kept,
    Outcome,
    RecallDone,
    Record,
    Write,
)
from headend.store.sqlite.schema import migrations
from headend.store.sqlite.writing import apply, apply_all

NOW: Final = 1_780_000_000
METERS: Final = tuple(Eui64(bytes((2, 0, 0, 0, 0, 0, 0, number))) for number in range(90))
TABLES: Final = ("session", "location", "report", "day_block", "log_entry", "quarantine")


def kid(meter: Eui64) -> bytes:
    return b"\x01" + meter[-1:]


OPENED: Final[list[sqlite3.Connection]] = []


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    yield
    template.cache_clear()
    while OPENED:
        OPENED.pop().close()


@functools.cache
def template() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    OPENED.append(connection)
    for _, sql in migrations():
        connection.executescript(sql)
    for meter in METERS:
        stored = StoredSession(
            meter, kid(meter), b"\x02", b"s" * 16, b"t" * 8, 10, 64, (0, 0), NOW,
        )  # fmt: skip
        apply(connection, KeepSession(stored, "udp:192.0.2.1:5683"))
    connection.execute("UPDATE session SET is_window_doubtful = 1")
    return connection


def database() -> sqlite3.Connection:
    """A store of its own with a session of every meter, all of them in doubt."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    OPENED.append(connection)
    template().backup(connection)
    return connection


def block(meter: Eui64, day: int, advance: int, channel: int = 1) -> DayBlock:
    return DayBlock(meter, channel, day, 7, 900, 1_000, advance, b"packed", b"", BlockFlag(0))


def entry(meter: Eui64, sequence: int, detail: str = "") -> LogRecord:
    return LogRecord(meter, sequence, NOW, "3.26.0.216", detail, is_time_doubtful=False)


def report(meter: Eui64, day: int) -> ReportRecord:
    return ReportRecord(meter, day, Method.SCHEDULE, NOW, 1, 60)


def delivery(
    meter: Eui64, *records: Record, number: int = 1, path: str = "udp:a:1"
) -> KeepDelivery:
    return KeepDelivery(
        meter, kid(meter), (number, number), path, (NOW + number) * 1000, records, number % 5 == 0
    )


days = st.integers(20_000, 20_001)
some_meters = st.sampled_from(METERS[:4])


@st.composite
def deliveries(draw: st.DrawFn) -> KeepDelivery:
    meter = draw(some_meters)
    records: list[Record] = draw(
        st.lists(
            st.one_of(
                st.builds(block, st.just(meter), days, st.integers(1, 2), st.integers(1, 2)),
                st.builds(entry, st.just(meter), st.integers(1, 3), st.sampled_from(["", "x"])),
                st.builds(report, st.just(meter), days),
            ),
            max_size=4,
        )
    )
    if draw(st.integers(0, 9)) == 0:
        records.append(QuarantinedRecord(meter, "odd", b"payload"))
    if draw(st.integers(0, 9)) == 0:
        channel = ChannelRecord(1, "a", "b", 0, "Wh", 900)
        records.append(RegistrationRecord(meter, NOW, 1, "x", 1, 7, 60, (channel,)))
    return delivery(
        meter,
        *records,
        number=draw(st.integers(0, 2**40)),
        path=draw(st.sampled_from(["udp:192.0.2.1:5683", "udp:a:1"])),
    )


writes = st.lists(
    st.one_of(
        deliveries(), deliveries(), deliveries(),
        st.builds(RecallDone, some_meters),
    ),
    max_size=14,
)  # fmt: skip


def rows(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    return [
        connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3").fetchall() for name in TABLES
    ]


def in_groups(connection: sqlite3.Connection, groups: Sequence[Sequence[Write]]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for group in groups:
        connection.execute("BEGIN")
        outcomes += apply_all(connection, group)
        connection.execute("COMMIT")
    return outcomes


@settings(deadline=None, max_examples=80)
@given(st.lists(writes, max_size=3))
def test_kept_together_is_as_kept_one_by_one(groups: list[list[Write]]) -> None:
    together, alone = database(), database()
    outcomes = in_groups(together, groups)
    assert outcomes == [apply(alone, write) for group in groups for write in group]
    assert rows(together) == rows(alone)


def test_a_street_is_kept_in_few_statements_and_told_as_new() -> None:
    connection = database()
    statements: list[str] = []
    connection.set_trace_callback(lambda sql: statements.append(sql.split("VALUES")[0]))
    street = [
        delivery(meter, report(meter, 20_000), block(meter, 20_000, 5), entry(meter, 1))
        for meter in METERS
    ]
    assert apply_all(connection, street) == [(Kept.NEW,) * 3] * len(METERS)
    connection.set_trace_callback(None)
    assert len(statements) < 6 * len(METERS) / 5
    counts = [connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES]
    assert counts == [90, 90, 90, 90, 90, 0]
    assert connection.execute(
        "SELECT count(*) FROM location WHERE path = 'udp:a:1'"
    ).fetchone() == (90,)
    assert connection.execute("SELECT sum(is_window_doubtful) FROM session").fetchone() == (0,)


def test_one_repeated_record_among_many_is_told_as_that_and_spoils_no_other() -> None:
    connection = database()
    apply_all(connection, [delivery(METERS[3], block(METERS[3], 20_000, 5))])
    street = [delivery(meter, block(meter, 20_000, 5), number=2) for meter in METERS]
    expected: list[Outcome] = [(Kept.NEW,)] * len(METERS)
    expected[3] = (Kept.REPEATED,)
    assert apply_all(connection, street) == expected
    other = [delivery(meter, block(meter, 20_000, 6), number=3) for meter in METERS[:2]]
    assert apply_all(connection, other) == [(Kept.CONFLICT,)] * 2
    bases = connection.execute("SELECT DISTINCT window_base FROM session ORDER BY 1").fetchall()
    assert bases == [(2,), (3,)]


def test_of_two_deliveries_of_one_session_the_later_window_stays() -> None:
    connection = database()
    first = delivery(METERS[0], entry(METERS[0], 1), number=7)
    second = delivery(METERS[0], entry(METERS[0], 2), number=9)
    other = delivery(METERS[1], entry(METERS[1], 1), number=8)
    apply_all(connection, [first, other, second])
    windows = connection.execute(
        "SELECT window_base FROM session WHERE window_base > 0 ORDER BY 1"
    ).fetchall()
    assert windows == [(8,), (9,)]
