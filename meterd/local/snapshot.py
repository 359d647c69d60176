"""Everything that a meter holds at one moment, as the parts of a dump.

Gives   registration, registers and today's intervals, a report for each day, what every resource
        tells of itself, programmes, text messages, the whole log, what is owed, the bookkeeping
Raises  nothing: what cannot be said is counted, and the rest is said
Never   includes what is secret: keys and the session stay where they are
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import AmiError
from amistack.identifiers import Eui64
from amistack.model import (
    DailyReport,
    IntervalBlock,
    LogEntry,
    ReadAnswer,
    Registration,
    RegistrationReason,
)
from amistack.model.dump import PART_SIZE_MAX, DumpPart
from amistack.model.holdings import (
    KEPT_PROGRAMME,
    LOG,
    LOG_ENTRY_COUNT_MAX,
    OWED,
    ROW_COUNT_MAX,
    TABLE,
    TEXT,
    Cell,
    KeptProgramme,
    LogBatch,
    TableRows,
    cell,
    owed_of,
)
from amistack.model.resources import READ, REGISTRATION, REPORT
from amistack.model.wire import DAY_S
from meterd import storage as tables
from meterd.agent import Agent
from meterd.agent.registering import MODEL_VERSIONS, SOFTWARE
from meterd.clock import MeterClock
from meterd.display import Mailbox
from meterd.fittings import Fittings
from meterd.parts import Resource
from meterd.recorder import RETENTION_DAYS, Recorder
from meterd.storage import Storage, entry_of

BOOKKEEPING: Final = (
    tables.NOTE,
    tables.RUNNING,
    tables.STOOD,
    tables.DEMAND,
    tables.SCHEDULE,
    tables.SWITCH,
    tables.CLOCK_MARK,
    tables.HOME,
    tables.ROUTE,
    tables.DENIED,
)
"""Tables that are in the dump row by row: their paths tell of them in part, or not at all."""
WHOLE: Final = (tables.DAY, tables.LOG, tables.OWED, tables.PROGRAMME, tables.MESSAGE)
"""Tables that other parts of the dump have whole."""
LEFT_OUT: Final = (tables.SESSION, tables.SERVICE)
"""Keys, and the house that is made up around a simulated meter."""
ROWS_SIZE_MAX: Final = PART_SIZE_MAX // 2
NAME: Final = b"the dump"
"""The identifier of the read that is a part of a dump."""


class Snapshot:
    """Takes one, whenever it is asked to."""

    def __init__(
        self,
        *,
        meter: Eui64,
        offset_min: int,
        storage: Storage,
        recorder: Recorder,
        clock: MeterClock,
        mailbox: Mailbox,
        resources: Sequence[Resource],
    ) -> None:
        self._meter = meter
        self._offset_min = offset_min
        self._storage = storage
        self._recorder = recorder
        self._clock = clock
        self._mailbox = mailbox
        self._resources = resources
        self.counters: Counter[str] = Counter()

    def parts(self, now: float) -> Iterator[DumpPart]:
        """All of it."""
        utc = self._clock.utc(now)
        today = self._recorder.day_of(utc)
        yield from self._part(REGISTRATION, self._registration().encode())
        yield from self._part(READ, self._read(today, utc, now).encode())
        for day in range(today - 1, today - RETENTION_DAYS - 2, -1):
            blocks = self._recorder.block(day)
            if blocks:
                yield from self._part(*self._day(day, blocks, now))
        yield from self._told(now)
        for programme in self._programmes():
            yield from self._part(KEPT_PROGRAMME, programme.encode())
        for message in self._mailbox.messages():
            yield from self._part(TEXT, message.encode())
        for batch in self._log():
            yield from self._part(LOG, batch.encode())
        unsettled = (key for key, row in self._storage.items(tables.LOG) if not row[4])
        for owed in owed_of(self._storage.next_sequence, self._storage.owed_days(), unsettled):
            yield from self._part(OWED, owed.encode())
        for name in BOOKKEEPING:
            for rows in self._rows(name):
                yield from self._part(TABLE, rows.encode())

    def _registration(self) -> Registration:
        return Registration(
            self._meter,
            MODEL_VERSIONS,
            SOFTWARE,
            self._recorder.channel_set,
            self._offset_min,
            self._recorder.channels,
            RegistrationReason.ASKED,
        )

    def _read(self, today: int, utc: float, now: float) -> ReadAnswer:
        return ReadAnswer(
            NAME,
            self._recorder.channel_set,
            today,
            self._clock.reading(now),
            self._recorder.registers(utc),
            tuple(self._recorder.block(today)),
        )

    def _day(self, day: int, blocks: Sequence[IntervalBlock], now: float) -> tuple[str, bytes]:
        """A day that is over; one that is not whole as a read."""
        channel_set = self._recorder.channel_set_of(day)
        clock = self._clock.reading(now)
        if all(block.count * block.interval_s == DAY_S for block in blocks):
            return REPORT, DailyReport(channel_set, day, clock, tuple(blocks)).encode()
        return READ, ReadAnswer(NAME, channel_set, day, clock, (), tuple(blocks)).encode()

    def _told(self, now: float) -> Iterator[DumpPart]:
        """What every resource that can be asked with GET says."""
        for resource in self._resources:
            try:
                answer = resource.answer(Message.request(Code.GET, resource.path), now=now)
            except AmiError:
                self.counters[f"not in the dump: {resource.path}"] += 1
                continue
            if answer.code == Code.CONTENT and answer.payload:
                yield from self._part(resource.path, answer.payload)

    def _programmes(self) -> Iterator[KeptProgramme]:
        for row in self._recorder.shelf.rows():
            yield KeptProgramme(max(row.since, 0), row.channel_set, row.programme)

    def _rows(self, name: str) -> Iterator[TableRows]:
        """A table's rows by key, in pieces of about ROWS_SIZE_MAX octets."""
        rows: list[tuple[Cell, Cell]] = []
        size = 0
        for key, value in sorted(self._storage.items(name)):
            row = cell(key), cell(value)
            more = len(TableRows(name, (row,)).encode())
            if rows and (size + more > ROWS_SIZE_MAX or len(rows) == ROW_COUNT_MAX):
                yield TableRows(name, tuple(rows))
                rows, size = [], 0
            rows.append(row)
            size += more
        if rows:
            yield TableRows(name, tuple(rows))

    def _log(self) -> Iterator[LogBatch]:
        rows = sorted(self._storage.items(tables.LOG))
        entries = [entry_of(sequence, row) for sequence, row in rows]
        for some in _chunks(entries):
            yield LogBatch(tuple(some))

    def _part(self, path: str, payload: bytes) -> Iterator[DumpPart]:
        if len(payload) > PART_SIZE_MAX:
            self.counters[f"not in the dump: {path}"] += 1
            return
        yield DumpPart(path, payload)


def _chunks(entries: Sequence[LogEntry]) -> Iterable[Sequence[LogEntry]]:
    # Entries are of 90 octets at most: with LOG_ENTRY_COUNT_MAX of the longest they would not fit.
    size = min(LOG_ENTRY_COUNT_MAX, PART_SIZE_MAX // 96)
    return (entries[place : place + size] for place in range(0, len(entries), size))


def snapshot_of(agent: Agent, fittings: Fittings, storage: Storage, *, offset_min: int) -> Snapshot:
    """That of a whole meter."""
    return Snapshot(
        meter=agent.meter,
        offset_min=offset_min,
        storage=storage,
        recorder=fittings.recorder,
        clock=agent.clock,
        mailbox=fittings.mailbox,
        resources=agent.resources,
    )
