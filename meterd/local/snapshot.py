"""Everything that a meter holds at one moment, as the parts of a dump.

Gives   registration, registers and today's intervals, a report for each day, what every resource
        tells of itself, text messages, the whole log
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
from amistack.model.dump import LOG, LOG_ENTRY_COUNT_MAX, PART_SIZE_MAX, DumpPart, LogBatch
from amistack.model.resources import READ, REGISTRATION, REPORT
from amistack.model.wire import DAY_S
from meterd.agent.registering import MODEL_VERSIONS, SOFTWARE
from meterd.clock import MeterClock
from meterd.display import Mailbox
from meterd.parts import Resource
from meterd.recorder import RETENTION_DAYS, Recorder
from meterd.storage import LOG as LOG_TABLE
from meterd.storage import Storage, entry_of

TEXT: Final = "text"
"""The path of a part with a text message; `msg` has what became of them."""
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

    def parts(self, *, now: float) -> Iterator[DumpPart]:
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
        for message in self._mailbox.messages():
            yield from self._part(TEXT, message.encode())
        for batch in self._log():
            yield from self._part(LOG, batch.encode())

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

    def _log(self) -> Iterator[LogBatch]:
        rows = sorted(self._storage.items(LOG_TABLE))
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
