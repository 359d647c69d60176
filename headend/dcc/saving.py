"""What the topology rests on, in the store: read back at a start, kept as it comes.

Spec    docs/decisions (reports are stored, tables come again from the collectors)
Gives   `load` for a start; `note` for each report that was believed
Limit   one report a node waits to be stored, the newest; BATCH_MAX go into one write
Never   holds up the loop for more than a page, or a report for its store: the topology has it
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from amistack import telemetry
from amistack.errors import ConfigError, MeshError, StoreBusy, StoreError, TableFull
from amistack.identifiers import Eui64
from headend.dcc.center import Center
from headend.domain.mesh import PROFILE_DEFAULT, Area, MeshPeer, StoredReport
from headend.store.interface import FIRST, Outcome, Store
from headend.store.mesh import KeepTopologyReports
from mesh.topology.location import BehindCollector

PAGE_SIZE: Final = 200
"""Rows at a time at a start: some 30 ms in which nothing else is done."""
BATCH_MAX: Final = 1_000
SAVE_S: Final = 1.0
"""Seconds that reports gather: a street that boots sends one each within a minute."""
RETRY_S: Final = 5.0


class Saving:
    """Between the center and the store."""

    def __init__(self, *, store: Store, wall: Callable[[], float]) -> None:
        """`wall` is UTC in seconds."""
        self._store = store
        self._wall = wall
        self._unsaved: dict[Eui64, StoredReport] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_writing = False
        self._log = telemetry.logger()
        self.counters: Counter[str] = Counter()

    @property
    def waiting_count(self) -> int:
        """Reports that are not stored yet."""
        return len(self._unsaved)

    async def load(self, center: Center, *, now: Callable[[], float]) -> None:
        """Everything of the mesh that is stored, a page at a time. Raises StoreError.

        What cannot be taken is counted: one bad row must not keep a head-end from starting.
        """
        store = self._store
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
                age_s = max(0.0, self._wall() - report.received_at)
                if not center.restore(report.octets, report.node, age_s=age_s, now=now()):
                    self.counters["reports not taken from the store"] += 1
            last = (reports[-1].received_at, reports[-1].node)
        after = FIRST
        while located := await store.locations(after=after, limit=PAGE_SIZE):
            for location in located:
                peer = MeshPeer.parse(location.path)
                if (
                    peer is not None
                    and peer.collector is not None
                    and peer.node in center.dcc.graph
                ):
                    age_s = max(0.0, self._wall() - location.confirmed_at)
                    center.dcc.locations.learn(
                        peer.node,
                        BehindCollector(peer.collector),
                        path_sequence=None,
                        now=now() - age_s,
                    )
            after = located[-1].meter

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
        self._unsaved[node] = StoredReport(node, max(0, int(self._wall())), octets)
        self._arm(SAVE_S)

    async def stop(self) -> None:
        """Store what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._unsaved:
            batch = tuple(list(self._unsaved.values())[:BATCH_MAX])
            try:
                await self._store.commit(KeepTopologyReports(batch))
            except StoreError:
                self.counters["reports not stored"] += len(self._unsaved)
                return
            self._saved(batch)

    def abandon(self) -> None:
        """End as a kill would: what waits is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unsaved.clear()

    def _arm(self, after_s: float) -> None:
        if self._timer is None and not self._is_writing:
            self._timer = asyncio.get_running_loop().call_later(after_s, self._save)

    def _save(self) -> None:
        self._timer = None
        batch = tuple(list(self._unsaved.values())[:BATCH_MAX])
        if not batch:
            return

        def committed(outcome: Outcome) -> None:
            self._is_writing = False
            if isinstance(outcome, StoreError):
                self.counters["reports stored late"] += len(batch)
                self._arm(RETRY_S)
                return
            self._saved(batch)
            if self._unsaved:
                self._arm(0.0 if len(batch) == BATCH_MAX else SAVE_S)

        self._is_writing = True
        try:
            self._store.submit(KeepTopologyReports(batch), committed)
        except StoreBusy:
            self._is_writing = False
            self.counters["reports stored late"] += len(batch)
            self._arm(RETRY_S)

    def _saved(self, batch: tuple[StoredReport, ...]) -> None:
        for report in batch:
            if self._unsaved.get(report.node) is report:
                del self._unsaved[report.node]
        self.counters["reports stored"] += len(batch)
