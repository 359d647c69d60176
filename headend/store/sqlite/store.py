"""The embedded store: one SQLite file, one writer that commits in groups, one reader beside it.

Gives   `Store` (headend/store/interface.py); a commit is flushed to disk before its outcome is told
Raises  StoreUnusable from `open`; StoreBusy from `submit`
Limit   QUEUE_MAX writes wait; GROUP_MAX go into one transaction
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from amistack.errors import StoreBusy, StoreError, StoreUnusable
from amistack.identifiers import Eui64
from amistack.keystore import Sealer
from headend.domain.mesh import Area, Assignment, StoredReport, StoredStatus
from headend.domain.meters import (
    ChannelRecord,
    FormerSession,
    Location,
    Meter,
    StoredSession,
    Suspicion,
)
from headend.domain.readings import LogRecord, OnDemandRead
from headend.domain.standing import DeviceDetails, StandingChange
from headend.store.interface import (
    FIRST,
    QUEUE_MAX,
    Commits,
    Counts,
    MeterOverview,
    Outcome,
    StoredBlock,
    Write,
)
from headend.store.sqlite import mesh, reading, sealing, standing
from headend.store.sqlite.beat import Beat
from headend.store.sqlite.schema import connect, connect_readonly
from headend.store.sqlite.writing import apply_all, doubt
from mesh.topology.facts import AreaId

GROUP_MAX: Final = 1_000
"""Writes in one transaction: enough to share its flush, few enough to keep the wait short."""
LINGER_S: Final = 0.003
"""Seconds that the writer waits for company when the last group had some."""
UNTHREADED_S: Final = 0.002
"""Seconds that a group waits without threads, as it would for a flush."""

T = TypeVar("T")
_Submission = tuple[Write, Callable[[Outcome], None]]


class SqliteStore:
    """A `Store` in one file. Make it with `open`, on a running event loop."""

    def __init__(
        self,
        writing: sqlite3.Connection,
        reading_: sqlite3.Connection,
        beat: Beat,
        *,
        is_threaded: bool = True,
        sealer: Sealer | None = None,
    ) -> None:
        self._sealer = sealer
        self._loop = asyncio.get_running_loop()
        self._writing = writing
        self._reading = reading_
        self._beat = beat
        self._queue: queue.SimpleQueue[_Submission | None] = queue.SimpleQueue()
        self._depth = 0
        self._commits = Commits()
        self._is_closed = False
        self._reader: ThreadPoolExecutor | None = None
        self._writer: threading.Thread | None = None
        if is_threaded:
            # One thread each: a connection is used by one at a time, and order stays plain.
            self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-reader")
            self._writer = threading.Thread(target=self._write, name="store-writer", daemon=True)
            self._writer.start()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        is_threaded: bool = True,
        wall: Callable[[], float] = time.time,
        sealer: Sealer | None = None,
    ) -> SqliteStore:
        """The store in the file at `path`, made if it is not there. Raises StoreUnusable.

        Without threads it works on the loop's own, so that it fits a virtual clock; `wall` is UTC
        in seconds. With a `sealer` the secrets in it are sealed, those that are not yet at once.
        """
        writing = connect(path)
        try:
            sealing.prepare(writing, path, sealer)
        except sqlite3.Error as error:
            writing.close()
            raise StoreUnusable(f"{path} cannot be sealed: {error}") from error
        except StoreUnusable:
            writing.close()
            raise
        try:
            beat = Beat(writing, path)
        except (sqlite3.Error, OSError) as error:
            writing.close()
            raise StoreUnusable(f"{path}: its note of writes cannot be used: {error}") from error
        try:
            if beat.is_restored:
                with writing:
                    writing.execute("BEGIN IMMEDIATE")
                    doubt(writing, int(wall()))
                    beat.advance(writing)
                beat.note()
        except sqlite3.Error as error:
            beat.close()
            writing.close()
            raise StoreUnusable(
                f"{path} was put back from a backup, and cannot be marked so: {error}"
            ) from error
        try:
            return cls(
                writing, connect_readonly(path), beat, is_threaded=is_threaded, sealer=sealer
            )
        except StoreError:
            beat.close()
            writing.close()
            raise

    # Writing

    def submit(self, write: Write, done: Callable[[Outcome], None]) -> None:
        """See `Store.submit`."""
        if self._is_closed:
            raise StoreBusy("the store is closing")
        if self._depth >= QUEUE_MAX:
            raise StoreBusy(f"{QUEUE_MAX} writes wait already")
        self._depth += 1
        self._queue.put((write, done))
        if self._writer is None and self._depth == 1:
            self._loop.call_later(UNTHREADED_S, self._write_unthreaded)

    async def commit(self, write: Write) -> Outcome:
        """See `Store.commit`."""
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def done(outcome: Outcome) -> None:
            if not future.cancelled():
                future.set_result(outcome)

        self.submit(write, done)
        outcome = await future
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    @property
    def is_restored(self) -> bool:
        """See `Store.is_restored`."""
        return self._beat.is_restored

    @property
    def depth(self) -> tuple[int, int]:
        """Writes that wait, and their bound."""
        return self._depth, QUEUE_MAX

    @property
    def commits(self) -> Commits:
        """See `Store.commits`."""
        return self._commits

    def _write(self) -> None:
        """The writer's thread: take what waits, commit it together, tell the outcomes."""
        group: list[_Submission] = []
        while (first := self._queue.get()) is not None:
            if len(group) > 1:
                # Under load the next group is larger for a moment's wait; a lone write has none.
                time.sleep(LINGER_S)
            group = [first]
            is_last = False
            while len(group) < GROUP_MAX:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    is_last = True
                    break
                group.append(following)
            outcomes = self._commit_group([write for write, _ in group])
            told = [(done, outcome) for (_, done), outcome in zip(group, outcomes, strict=True)]
            with contextlib.suppress(RuntimeError):  # The loop may be gone: nobody waits then.
                self._loop.call_soon_threadsafe(self._tell, told)
            if is_last:
                return

    def _write_unthreaded(self) -> None:
        """The same on the loop's thread: all that waits now, in one group."""
        if self._is_closed:
            return
        group = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        submissions = [submission for submission in group if submission is not None]
        outcomes = self._commit_group([write for write, _ in submissions])
        self._tell(
            [(done, outcome) for (_, done), outcome in zip(submissions, outcomes, strict=True)]
        )
        if self._depth:
            self._loop.call_later(UNTHREADED_S, self._write_unthreaded)

    def _commit_group(self, writes: Sequence[Write]) -> list[Outcome]:
        try:
            return self._transact(writes)
        except Exception as error:  # noqa: BLE001  whatever it is, the writer must live on
            if len(writes) == 1:
                return [StoreError(f"the store refused a write: {error}")]
        # One bad write must not spoil its neighbours: each for itself then.
        return [outcome for write in writes for outcome in self._commit_group([write])]

    def _transact(self, writes: Sequence[Write]) -> list[Outcome]:
        connection = self._writing
        begun_at = time.perf_counter()
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = apply_all(
                connection, [sealing.sealed(write, self._sealer) for write in writes]
            )
            self._beat.advance(connection)
            connection.execute("COMMIT")
        except BaseException:
            self._commits.failed_count += 1
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._commits.sizes.note(len(writes))
        self._commits.seconds.note(time.perf_counter() - begun_at)
        self._beat.note()
        return outcomes

    def _tell(self, told: list[tuple[Callable[[Outcome], None], Outcome]]) -> None:
        self._depth -= len(told)
        for done, outcome in told:
            try:
                done(outcome)
            except Exception as error:  # noqa: BLE001  the others must be told all the same
                self._loop.call_exception_handler(
                    {"message": "a write's outcome could not be told", "exception": error}
                )

    # Reading

    async def _read(self, ask: Callable[..., T], *arguments: object) -> T:
        if self._is_closed:
            raise StoreError("the store is closing")
        try:
            if self._reader is None:
                return ask(self._reading, *arguments)
            return await self._loop.run_in_executor(self._reader, ask, self._reading, *arguments)
        except sqlite3.Error as error:
            raise StoreError(f"the store cannot be read: {error}") from error

    async def meters(
        self, *, after: Eui64 | None = None, limit: int = 1000
    ) -> Sequence[MeterOverview]:
        """See `Store.meters`."""
        return await self._read(reading.meters, after, limit)

    async def find_meter(self, meter: Eui64) -> Meter | None:
        """See `Store.find_meter`."""
        return await self._read(reading.find_meter, meter)

    async def find_overview(self, meter: Eui64) -> MeterOverview | None:
        """See `Store.find_overview`."""
        return await self._read(reading.find_overview, meter)

    async def history(self, meter: Eui64, *, limit: int = 1000) -> Sequence[StandingChange]:
        """See `Store.history`."""
        return await self._read(standing.history, meter, limit)

    async def trust_counts(self) -> Mapping[bytes, int]:
        """See `Store.trust_counts`."""
        return await self._read(standing.trust_counts)

    async def unconfirmed(self, kid: bytes) -> Iterable[Eui64]:
        """See `Store.unconfirmed`."""
        return await self._read(standing.unconfirmed, kid)

    async def find_details(self, meter: Eui64) -> DeviceDetails | None:
        """See `Store.find_details`."""
        return await self._read(standing.find_details, meter)

    async def sessions(
        self, *, after: Eui64 = FIRST, limit: int | None = None
    ) -> Sequence[StoredSession]:
        """See `Store.sessions`."""
        return await self._read(reading.sessions, after, limit, self._sealer)

    async def find_session(self, meter: Eui64) -> StoredSession | None:
        """See `Store.find_session`."""
        return await self._read(reading.find_session, meter, self._sealer)

    async def heard_at(self, meter: Eui64) -> int | None:
        """See `Store.heard_at`."""
        return await self._read(reading.heard_at, meter)

    async def newest_at(self) -> int:
        """See `Store.newest_at`."""
        return await self._read(reading.newest_at)

    async def find_former(self, recipient_id: bytes) -> FormerSession | None:
        """See `Store.find_former`."""
        return await self._read(reading.find_former, recipient_id, self._sealer)

    async def suspicions(self) -> Sequence[Suspicion]:
        """See `Store.suspicions`."""
        return await self._read(reading.suspicions)

    async def recalls(self) -> Iterable[Eui64]:
        """See `Store.recalls`."""
        return await self._read(reading.recalls)

    async def report_days(self, meter: Eui64, first_day: int, last_day: int) -> Sequence[int]:
        """See `Store.report_days`."""
        return await self._read(reading.report_days, meter, first_day, last_day)

    async def locations(
        self, *, after: Eui64 = FIRST, limit: int | None = None
    ) -> Sequence[Location]:
        """See `Store.locations`."""
        return await self._read(reading.locations, after, limit)

    async def channel_sets(
        self, *, after: Eui64 = FIRST, limit: int | None = None
    ) -> Sequence[tuple[Eui64, int, ChannelRecord]]:
        """See `Store.channel_sets`."""
        return await self._read(reading.channel_sets, after, limit)

    async def channels(self, meter: Eui64, channel_set: int) -> Sequence[ChannelRecord]:
        """See `Store.channels`."""
        return await self._read(reading.channels, meter, channel_set)

    async def offsets(
        self, *, after: Eui64 = FIRST, limit: int | None = None
    ) -> Sequence[tuple[Eui64, int]]:
        """See `Store.offsets`."""
        return await self._read(reading.offsets, after, limit)

    async def blocks(self, meter: Eui64, first_day: int, last_day: int) -> Sequence[StoredBlock]:
        """See `Store.blocks`."""
        return await self._read(reading.blocks, meter, first_day, last_day)

    async def blocks_of_day(self, day: int) -> Sequence[StoredBlock]:
        """See `Store.blocks_of_day`."""
        return await self._read(reading.blocks_of_day, day)

    async def log_entries(self, meter: Eui64, *, limit: int = 1000) -> Sequence[LogRecord]:
        """See `Store.log_entries`."""
        return await self._read(reading.log_entries, meter, limit)

    async def reads(
        self, meter: Eui64 | None = None, *, limit: int = 1000
    ) -> Sequence[OnDemandRead]:
        """See `Store.reads`."""
        return await self._read(reading.reads, meter, limit)

    async def find_read(self, identifier: bytes) -> OnDemandRead | None:
        """See `Store.find_read`."""
        return await self._read(reading.find_read, identifier)

    async def mesh_areas(self) -> Sequence[Area]:
        """See `Store.mesh_areas`."""
        return await self._read(mesh.areas)

    async def mesh_nodes(self, *, after: Eui64 = FIRST, limit: int = 1000) -> Sequence[Assignment]:
        """See `Store.mesh_nodes`."""
        return await self._read(mesh.nodes, after, limit)

    async def mesh_reports(
        self, *, after: tuple[int, Eui64] = (-1, FIRST), limit: int = 1000
    ) -> Sequence[StoredReport]:
        """See `Store.mesh_reports`."""
        return await self._read(mesh.reports, after, limit)

    async def mesh_statuses(
        self, *, after: Eui64 = FIRST, limit: int = 1000
    ) -> Sequence[StoredStatus]:
        """See `Store.mesh_statuses`."""
        return await self._read(mesh.statuses, after, limit)

    async def mesh_denied(self) -> Sequence[tuple[AreaId, Eui64]]:
        """See `Store.mesh_denied`."""
        return await self._read(mesh.denied)

    async def counts(self, days: Sequence[int] = ()) -> Counts:
        """See `Store.counts`."""
        return await self._read(reading.counts, days)

    async def close(self) -> None:
        """Commit what waits, then close. Calling it twice is harmless."""
        if self._is_closed:
            return
        if self._writer is None or self._reader is None:
            self._write_unthreaded()
            self.abandon()
            return
        self._is_closed = True
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._writer.join)
        await asyncio.sleep(0)  # The last outcomes are told before the doors close.
        self._reader.shutdown()
        self._reading.close()
        self._writing.close()
        self._beat.close()

    def abandon(self) -> None:
        """Close a store without threads as a kill would: what waits is never committed."""
        assert self._writer is None, "a thread cannot be killed"
        self._is_closed = True
        self._reading.close()
        self._writing.close()
        self._beat.close()
