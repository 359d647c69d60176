"""Everything that can be asked of a head-end: the functions behind every door.

Gives   plain values of the domain; a door only reads what it is told and writes what it gets
Raises  Refusal and its kinds, StoreError
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from amistack.errors import ModelError
from amistack.identifiers import Eui64
from amistack.model import ReadAnswer
from headend.collection.download import Downloads
from headend.collection.on_demand import OnDemandReads
from headend.collection.recovery import Recovery
from headend.dcc.operations import MeshOperations
from headend.domain.downloads import Download
from headend.domain.meters import Suspicion
from headend.domain.readings import LogRecord, OnDemandRead, ReadResult
from headend.domain.refusals import (
    BadWish,
    NoMesh,
    NotHad,
    RotationRefused,
    UnknownMeter,
    UnknownRead,
)
from headend.domain.standing import DeviceDetails, StandingChange, Step
from headend.lifecycle.enrolment import Device
from headend.lifecycle.rotation import Rotation, RotationState
from headend.lifecycle.shipment import parse_manufacturer_key, parse_shipment
from headend.lifecycle.standing import NoSessions, Registry, Sessions
from headend.mdm.days import day_of
from headend.mdm.readings import ChannelDay, ReadNow, channel_day, read_now
from headend.status import About, Counting, Measures, Status
from headend.store.interface import (
    DismissSuspicion,
    Enrolled,
    MeterOverview,
    StandingChanged,
    Store,
)

PAGE_SIZE_MAX: Final = 1_000
DAY_COUNT_MAX: Final = 366
"""Days of readings in one answer."""


class Operations:
    """One head-end, as its doors see it."""

    def __init__(
        self,
        *,
        about: About,
        store: Store,
        counting: Counting,
        reads: OnDemandReads,
        wall: Callable[[], float],
        recovery: Recovery | None = None,
        capture: Mapping[str, int] | None = None,
        sessions: Sessions | None = None,
        rotation: Rotation | None = None,
        mesh: MeshOperations | None = None,
        downloads: Downloads | None = None,
    ) -> None:
        """`wall` is UTC in seconds; `capture` counts what a capture took, if there is one.

        `sessions` is whoever holds those in use, so that steps with meters are in force at once.
        """
        self._rotation = rotation
        self._mesh = mesh
        self._registry = Registry(
            store=store, sessions=NoSessions() if sessions is None else sessions, wall=wall
        )
        self._recovery = recovery
        self._about = about
        self._store = store
        self._counting = counting
        self._reads = reads
        self._downloads = downloads
        self._wall = wall
        self._capture = {} if capture is None else capture

    async def status(self) -> Status:
        """How the head-end is now."""
        now = self._wall()
        today = day_of(now, 0)
        counts = await self._store.counts((today - 1, today))
        return Status(int(now), counts, self.measures())

    def measures(self) -> Measures:
        """What is counted in memory, all of the same moment."""
        counting, recovery = self._counting, self._recovery
        queues = {**counting.depths, "on-demand reads": self._reads.depth}
        if recovery is not None:
            queues["recalls under way"] = recovery.depth
        if self._rotation is not None:
            queues["meters being told of a key"] = self._rotation.depth
        mesh = self._mesh
        if mesh is not None:
            queues.update(mesh.depths)
        return Measures(
            about=self._about,
            uplinks=counting.tallies,
            refused_uplinks=dict(counting.refused_uplinks),
            oldest_pending_s=counting.oldest_pending_s,
            queues=queues,
            counters=dict(counting.counters),
            refused={**counting.refused, **({} if mesh is None else mesh.refused)},
            flagged=dict(counting.flagged),
            quarantined=dict(counting.quarantined),
            session_count=counting.session_count,
            records=dict(counting.stored_records),
            commits=self._store.commits,
            reads=dict(self._reads.results),
            recalls={} if recovery is None else dict(recovery.counters),
            recalls_waiting=0 if recovery is None else recovery.waiting_count,
            link={**counting.link_counters, **({} if mesh is None else mesh.counters)},
            capture=dict(self._capture),
            clock_doubt=counting.clock_doubt,
            endpoints=None if mesh is None else mesh.endpoints,
        )

    # Meters

    async def enrol(self, devices: Sequence[Device], *, actor: str = "") -> Enrolled:
        """Take devices into the registry: all of them, or EnrolmentRefused and none."""
        enrolled = await self._registry.enrol(devices, actor=actor)
        if enrolled.new and self._recovery is not None:
            await self._recovery.refresh()
        return enrolled

    async def import_shipment(
        self,
        octets: bytes,
        *,
        manufacturer_key: str | None = None,
        may_join: bool = False,
        is_rehearsal: bool = False,
        actor: str = "",
    ) -> Enrolled:
        """Take a manufacturer's shipment file into the registry: all of its devices, or none.

        They are known then and may not join yet, unless `may_join`. A rehearsal changes nothing.
        Raises BadShipment, EnrolmentRefused, and ConfigError for a key that is none.
        """
        key = None if manufacturer_key is None else parse_manufacturer_key(manufacturer_key)
        # Every key is a point to be checked: a long list must not hold up the meters.
        shipment = await asyncio.to_thread(parse_shipment, octets, manufacturer_key=key)
        return await self._registry.take_shipment(
            shipment, may_join=may_join, is_rehearsal=is_rehearsal, actor=actor
        )

    async def change_standing(
        self, meters: Sequence[Eui64], step: Step, *, reason: str, actor: str = ""
    ) -> StandingChanged:
        """Take a step with meters, all or none; see `Registry.change`."""
        return await self._registry.change(meters, step, reason=reason, actor=actor)

    async def rekey(self, meters: Sequence[Eui64]) -> StandingChanged:
        """Have meters agree on new keys when they next speak; see `Registry.rekey`."""
        return await self._registry.rekey(meters)

    async def history(
        self, meter: Eui64, *, limit: int = PAGE_SIZE_MAX
    ) -> tuple[Sequence[StandingChange], DeviceDetails | None]:
        """Every step taken with a meter, newest first, and what its maker says of it.

        Raises UnknownMeter.
        """
        await self._require(meter)
        changes = await self._store.history(meter, limit=_page(limit))
        return changes, await self._store.find_details(meter)

    async def meters(
        self, *, after: Eui64 | None = None, limit: int = PAGE_SIZE_MAX
    ) -> Sequence[MeterOverview]:
        """A page of the registry, in the order of identifiers, from the one after `after` on."""
        return await self._store.meters(after=after, limit=_page(limit))

    async def meter(self, meter: Eui64) -> MeterOverview:
        """One meter. Raises UnknownMeter."""
        overview = await self._store.find_overview(meter)
        if overview is None:
            raise UnknownMeter(meter)
        return overview

    async def suspicions(self) -> Sequence[Suspicion]:
        """Meters of which there seem to be two, one a copy of the other, the latest first."""
        return await self._store.suspicions()

    async def dismiss(self, meter: Eui64) -> bool:
        """Suspect a meter no more; whether it was suspected. Raises UnknownMeter."""
        await self._require(meter)
        return bool(await self._store.commit(DismissSuspicion(meter)))

    async def log(self, meter: Eui64, *, limit: int = PAGE_SIZE_MAX) -> Sequence[LogRecord]:
        """A meter's log as far as it was reported, newest first. Raises UnknownMeter."""
        await self._require(meter)
        return await self._store.log_entries(meter, limit=_page(limit))

    # The mesh

    @property
    def mesh(self) -> MeshOperations:
        """What can be asked about the mesh. Raises NoMesh where there is none."""
        if self._mesh is None:
            raise NoMesh("this head-end has no mesh: set mesh.listen in headend.toml")
        return self._mesh

    # The head-end's keys

    async def keys(self) -> RotationState:
        """The head-end's keys, and how many meters confirmed each."""
        return await self._require_rotation().status()

    async def begin_rotation(self, statement: bytes | None = None) -> RotationState:
        """Make the next key, or take the root's statement on it; see `Rotation.begin`."""
        return await self._require_rotation().begin(statement)

    async def finish_rotation(self, *, is_forced: bool = False) -> RotationState:
        """Let the next key take the old one's place; see `Rotation.finish`."""
        return await self._require_rotation().finish(is_forced=is_forced)

    def _require_rotation(self) -> Rotation:
        if self._rotation is None:
            raise RotationRefused("this head-end has no key files")
        return self._rotation

    # Readings

    async def readings(self, meter: Eui64, first_day: int, last_day: int) -> list[ChannelDay]:
        """What is stored of a meter's days, both included, by channel and day.

        Raises UnknownMeter, and BadWish for none or more than DAY_COUNT_MAX days.
        """
        if last_day < first_day:
            raise BadWish("the last day is before the first")
        if last_day - first_day >= DAY_COUNT_MAX:
            raise BadWish(f"{last_day - first_day + 1} days, expected {DAY_COUNT_MAX} at most")
        await self._require(meter)
        blocks = await self._store.blocks(meter, first_day, last_day)
        return await asyncio.to_thread(lambda: [channel_day(block) for block in blocks])

    async def readings_of_day(self, day: int) -> list[ChannelDay]:
        """What is stored of every meter's same day, by meter and channel."""
        blocks = await self._store.blocks_of_day(day)
        return await asyncio.to_thread(lambda: [channel_day(block) for block in blocks])

    # On-demand reads

    async def read(self, meter: Eui64, *, deadline_s: float) -> OnDemandRead:
        """Read a meter now; see `OnDemandReads.read`."""
        return await self._reads.read(meter, deadline_s=deadline_s)

    async def download(self, meter: Eui64, *, deadline_s: float) -> Download:
        """All that a meter holds; see `Downloads.take`."""
        if self._downloads is None:
            raise NotHad("this head-end takes no dumps")
        return await self._downloads.take(meter, deadline_s=deadline_s)

    async def reads(
        self, meter: Eui64 | None = None, *, limit: int = PAGE_SIZE_MAX
    ) -> Sequence[OnDemandRead]:
        """On-demand reads, newest first; of one meter, or of all."""
        return await self._store.reads(meter, limit=_page(limit))

    async def find_read(self, identifier: bytes) -> OnDemandRead:
        """One on-demand read. Raises UnknownRead."""
        read = await self._store.find_read(identifier)
        if read is None:
            raise UnknownRead(f"there is no on-demand read {identifier.hex()}")
        return read

    async def readings_of_read(self, read: OnDemandRead) -> ReadNow | None:
        """What the meter answered, or None where it did not, or not readably."""
        if read.result is not ReadResult.ANSWERED or read.answer is None:
            return None
        try:
            answer = ReadAnswer.decode(read.answer)
            declared = await self._store.channels(read.meter, answer.channel_set)
            overview = await self._store.find_overview(read.meter)
            registration = None if overview is None else overview.registration
            return read_now(
                read.meter,
                answer,
                {channel.number: channel for channel in declared},
                offset_min=0 if registration is None else registration.standard_offset_min,
                path=read.path,
                received_ms=read.answered_ms or read.asked_ms,
            )
        except ModelError:
            return None

    async def _require(self, meter: Eui64) -> None:
        if await self._store.find_meter(meter) is None:
            raise UnknownMeter(meter)


def _page(limit: int) -> int:
    if not 1 <= limit <= PAGE_SIZE_MAX:
        raise BadWish(f"a limit of {limit}, expected 1 to {PAGE_SIZE_MAX}")
    return limit
