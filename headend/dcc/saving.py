"""What the topology rests on, in the store: read back at a start, kept as it comes.

Spec    docs/decisions/0010 (reports are stored, tables come again from the collectors), 0021 (so
        is how each node is)
Gives   `load` for a start; `note` for each report that was believed; `note_statuses` after whatever
        may have changed how a node is
Limit   one report and one status a node wait to be stored, the newest; BATCH_MAX of each go into
        one write
Never   holds up the loop for more than a page, or a report for its store: the topology has it
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from amistack import telemetry
from amistack.errors import ConfigError, MeshError, StoreBusy, StoreError, TableFull
from amistack.identifiers import Eui64
from headend.dcc.center import Center
from headend.dcc.statuses import Moment, restored, stored
from headend.domain.mesh import PROFILE_DEFAULT, Area, MeshPeer, StoredReport, StoredStatus
from headend.store.interface import FIRST, Outcome, Store
from headend.store.mesh import KeepTopologyReports
from mesh.topology.location import BehindCollector

PAGE_SIZE: Final = 200
"""Rows at a time at a start: some 30 ms in which nothing else is done."""
BATCH_MAX: Final = 1_000
SAVE_S: Final = 1.0
"""Seconds that news gather: a street that boots sends one report each within a minute, and falls
silent at once."""
RETRY_S: Final = 5.0


class Saving:
    """Between the center and the store."""

    def __init__(self, *, store: Store, wall: Callable[[], float]) -> None:
        """`wall` is UTC in seconds."""
        self._store = store
        self._wall = wall
        self._center: Center | None = None
        self._unsaved: dict[Eui64, StoredReport] = {}
        # Which statuses are not stored yet, and when that was noted: each is read when it is
        # written, so that a thousand nodes that fall silent at once cost nothing here.
        self._changed: dict[Eui64, Moment] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_writing = False
        self._is_over = False
        self._log = telemetry.logger()
        self.counters: Counter[str] = Counter()

    @property
    def waiting_count(self) -> int:
        """Reports that are not stored yet."""
        return len(self._unsaved)

    @property
    def changed_count(self) -> int:
        """Nodes whose status is not stored yet."""
        return len(self._changed)

    async def load(self, center: Center, *, now: Callable[[], float]) -> None:
        """Everything of the mesh that is stored, a page at a time. Raises StoreError.

        What cannot be taken is counted: one bad row must not keep a head-end from starting. No
        status is stored before the end of it: what is not read yet must not be written over.
        """
        store = self._store
        begun = Moment(now(), self._wall())
        for area in await store.mesh_areas():
            self._take_area(center, area)
        after = FIRST
        while nodes := await store.mesh_nodes(after=after, limit=PAGE_SIZE):
            for node in nodes:
                try:
                    center.place(node, now=now())
                except (MeshError, TableFull, ConfigError):
                    self.counters["nodes not taken from the store"] += 1
            after = nodes[-1].node
        for number, denied in await store.mesh_denied():
            try:
                center.deny(number, denied, is_denied=True)
            except TableFull:
                self.counters["nodes not taken from the store"] += 1
        last = (-1, FIRST)
        while reports := await store.mesh_reports(after=last, limit=PAGE_SIZE):
            for report in reports:
                age_s = begun.now - begun.at(report.received_at)
                if not center.restore(report.octets, report.node, age_s=age_s, now=begun.now):
                    self.counters["reports not taken from the store"] += 1
            last = (reports[-1].received_at, reports[-1].node)
        await self._load_statuses(center, begun)
        after = FIRST
        while located := await store.locations(after=after, limit=PAGE_SIZE):
            for location in located:
                peer = MeshPeer.parse(location.path)
                if (
                    peer is not None
                    and peer.collector is not None
                    and peer.node in center.dcc.graph
                ):
                    center.dcc.locations.learn(
                        peer.node,
                        BehindCollector(peer.collector),
                        path_sequence=None,
                        now=begun.at(location.confirmed_at),
                    )
            after = located[-1].meter
        center.dcc.devices.begin_counting()
        self._center = center

    async def _load_statuses(self, center: Center, begun: Moment) -> None:
        """How each node was: after all reports, so that whichever is newer wins."""
        after = FIRST
        while rows := await self._store.mesh_statuses(after=after, limit=PAGE_SIZE):
            for row in rows:
                try:
                    is_taken = center.restore_status(row.node, restored(row, begun))
                except MeshError:
                    is_taken = False
                if not is_taken:
                    self.counters["statuses not taken from the store"] += 1
            after = rows[-1].node

    def _take_area(self, center: Center, area: Area) -> None:
        """Its DODAGID and its collectors stand, also where its profile's file has gone."""
        try:
            try:
                center.add_area(area)
            except ConfigError as error:
                self.counters["areas without their profile"] += 1
                self._log.warning("profile of an area not taken", area=area.area, reason=str(error))
                center.add_area(area, ranks_of=PROFILE_DEFAULT)
        except TableFull as error:
            self.counters["areas not taken from the store"] += 1
            self._log.warning("area not taken", area=area.area, reason=str(error))

    def note(self, node: Eui64, octets: bytes) -> None:
        """A report was believed: store it soon."""
        self._unsaved[node] = StoredReport(node, max(0, round(self._wall())), octets)
        self._arm(SAVE_S)

    def note_statuses(self, *, now: float) -> None:
        """Nodes may be otherwise than they were: store that soon."""
        if self._center is None:
            return
        nodes = self._center.dcc.devices.unkept()
        if nodes:
            self._changed.update(dict.fromkeys(nodes, Moment(now, self._wall())))
            self._arm(SAVE_S)

    async def stop(self) -> None:
        """Store what waits."""
        self._end()
        while self._unsaved or self._changed:
            write, noted = self._batch()
            try:
                await self._store.commit(write)
            except StoreError:
                self._count("not stored", len(self._unsaved), len(self._changed))
                return
            self._saved(write, noted)

    def abandon(self) -> None:
        """End as a kill would: what waits is lost."""
        self._end()
        self._unsaved.clear()
        self._changed.clear()

    def _end(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, after_s: float) -> None:
        if self._timer is None and not self._is_writing and not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(after_s, self._save)

    def _save(self) -> None:
        self._timer = None
        write, noted = self._batch()

        def committed(outcome: Outcome) -> None:
            self._is_writing = False
            if isinstance(outcome, StoreError):
                self._put_off(write)
                return
            self._saved(write, noted)
            if self._unsaved or self._changed:
                is_full = BATCH_MAX in (len(write.reports), len(noted))
                self._arm(0.0 if is_full else SAVE_S)

        self._is_writing = True
        try:
            self._store.submit(write, committed)
        except StoreBusy:
            self._is_writing = False
            self._put_off(write)

    def _batch(self) -> tuple[KeepTopologyReports, dict[Eui64, Moment]]:
        """One write, and the nodes whose status is settled by it.

        With a report goes the status that it led to; none goes before its report.
        """
        unsaved, changed = self._unsaved, self._changed
        reports = dict(itertools.islice(unsaved.items(), BATCH_MAX))
        noted = {node: changed[node] for node in reports if node in changed}
        others = ((node, at) for node, at in changed.items() if node not in unsaved)
        noted.update(itertools.islice(others, BATCH_MAX - len(noted)))
        return KeepTopologyReports(tuple(reports.values()), self._statuses(noted)), noted

    def _statuses(self, noted: Mapping[Eui64, Moment]) -> tuple[StoredStatus, ...]:
        if self._center is None:
            return ()
        dcc = self._center.dcc
        return tuple(
            stored(node, dcc.devices.status_of(node, now=moment.now), moment)
            for node, moment in noted.items()
            if node in dcc.graph  # Who was released meanwhile has none.
        )

    def _put_off(self, write: KeepTopologyReports) -> None:
        self._count("stored late", len(write.reports), len(write.statuses))
        self._arm(RETRY_S)

    def _saved(self, write: KeepTopologyReports, noted: Mapping[Eui64, Moment]) -> None:
        # What has come since the write was made waits on.
        for report in write.reports:
            if self._unsaved.get(report.node) is report:
                del self._unsaved[report.node]
        for node, moment in noted.items():
            if self._changed.get(node) is moment:
                del self._changed[node]
        self._count("stored", len(write.reports), len(write.statuses))

    def _count(self, what: str, reports: int, statuses: int) -> None:
        for name, count in (("reports", reports), ("statuses", statuses)):
            if count:
                self.counters[f"{name} {what}"] += count
