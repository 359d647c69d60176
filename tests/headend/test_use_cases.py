"""What the use cases ask of a head-end, each as its check in the catalogue says.

The contract under test: intervals of every usual length come out as they came in, each with its
time and its reading type; qualities and events are kept whole and by meter; and no operation of the
API goes by a name that is ruled out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio

from amistack.identifiers import Eui64
from amistack.model import (
    FlowDirection,
    IntervalBlock,
    LogEntry,
    Quality,
    ReadingType,
    interval_energy,
)
from amistack.model.events import CLOCK_SET, COLD_STARTED, PRIMARY_POWER_RESTORED
from headend.api.documents import LogDocument, ReadingsDocument
from headend.cli import show
from headend.mdm.days import format_day
from headend.southbound.intake import Intake, Uplink
from headend.southbound.known import KnownMeters
from headend.store.interface import KeepDelivery, Kept
from headend.store.sqlite import SqliteStore
from tests.headend.test_api import Door
from tests.support import headend as world
from tests.support.headend import NOW, OFFSET_MIN, YESTERDAY, meter_id, post

METER, OTHER = meter_id(1), meter_id(2)
DAY_S = 86_400
PATH = "udp:192.0.2.7:5683"


class Street:
    """A head-end's store with its door, and what meters bring to it."""

    def __init__(self, store: SqliteStore) -> None:
        self._intake = Intake(KnownMeters())
        self.door = Door(store)

    async def bring(self, meter: Eui64, path: str, payload: bytes) -> None:
        taken = self._intake.take(Uplink(meter, post(path, payload), NOW * 1000))
        outcome = await self.door.store.commit(
            KeepDelivery(meter, meter, (1, 1), PATH, NOW * 1000, taken.records)
        )
        assert isinstance(outcome, tuple)
        assert set(outcome) == {Kept.NEW}
        taken.answer(outcome, 0)

    async def join(self, meter: Eui64, *, interval_s: int = 900) -> None:
        await self.door.enrol(meter)
        channels = [
            world.channel(1, interval_s=interval_s),
            world.channel(2, flow=FlowDirection.REVERSE, interval_s=interval_s),
        ]
        await self.bring(meter, "reg", world.registration(meter, channels=channels).encode())

    async def report(
        self,
        meter: Eui64,
        *,
        day: int = YESTERDAY,
        blocks: Sequence[IntervalBlock] | None = None,
        entries: Sequence[LogEntry] = (),
    ) -> None:
        made = world.report(day=day, blocks=blocks, entries=entries)
        await self.bring(meter, "rep", made.encode())

    async def readings(self, first: int, last: int) -> ReadingsDocument:
        query = {"from": format_day(first), "to": format_day(last)}
        found: ReadingsDocument = await self.door.get(
            f"/v1/meters/{METER.hex()}/readings", ReadingsDocument, **query
        )
        return found


@pytest_asyncio.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    store = SqliteStore.open(tmp_path / "s.sqlite")
    made = Street(store)
    yield made
    await made.door.http.aclose()
    await store.close()


@pytest.mark.requirement("ENT-DATA-13", "ENT-DATA-14", "ENT-DATA-25", "ENT-DATA-31")
@pytest.mark.parametrize("interval_s", [300, 600, 900, 1800, 3600])
async def test_intervals_of_every_usual_length_come_out_as_they_came_in(
    street: Street, interval_s: int
) -> None:
    await street.join(METER, interval_s=interval_s)
    count = DAY_S // interval_s
    sent: dict[int, list[int]] = {1: [], 2: []}
    for day in (YESTERDAY - 1, YESTERDAY):
        blocks = []
        for number, before in sent.items():
            of_day = [(day + number * 13 + place * 7) % 301 for place in range(count)]
            blocks.append(
                world.block(number, values=of_day, opening=sum(before), interval_s=interval_s)
            )
            before.extend(of_day)
        await street.report(METER, day=day, blocks=blocks)
    found = await street.readings(YESTERDAY - 1, YESTERDAY)
    rows = list(show.rows_of(found.readings))
    begin = (YESTERDAY - 1) * DAY_S - OFFSET_MIN * 60
    for number, flow in ((1, FlowDirection.FORWARD), (2, FlowDirection.REVERSE)):
        mine = [row for row in rows if row.channel == number]
        assert [row.value for row in mine] == sent[number]
        stamps = [int(datetime.fromisoformat(row.start).timestamp()) for row in mine]
        assert stamps == list(range(begin, begin + 2 * DAY_S, interval_s))
        assert {row.duration_s for row in mine} == {interval_s}
        kinds = {ReadingType.parse(row.reading_type) for row in mine}
        assert kinds == {interval_energy(interval_s, flow)}


@pytest.mark.requirement("ENT-DATA-30")
async def test_value_without_a_quality_is_good_and_one_with_two_keeps_both(street: Street) -> None:
    await street.join(METER)
    flags = [Quality(0)] * 96
    flags[40] = Quality.POWER_OFF | Quality.PARTIAL
    await street.report(METER, blocks=[world.block(1, flags=flags)])
    found = await street.readings(YESTERDAY, YESTERDAY)
    (day,) = found.readings
    (run,) = day.qualities
    assert (run.first, run.count, sorted(run.flags)) == (40, 1, ["partial", "power off"])
    for place, row in enumerate(show.rows_of(found.readings)):
        assert sorted(row.quality.split("; ")) == (
            ["partial", "power off"] if place == 40 else [""]
        )


@pytest.mark.requirement("I2-FR-11", "ENT-DATA-11")
async def test_log_of_a_meter_has_all_its_events_with_time_and_kind_and_no_other_meters(
    street: Street,
) -> None:
    at = YESTERDAY * DAY_S
    logs = {
        METER: [
            LogEntry(1, at + 10, COLD_STARTED),
            LogEntry(2, at + 20, PRIMARY_POWER_RESTORED),
            LogEntry(3, at + DAY_S, CLOCK_SET),
        ],
        OTHER: [LogEntry(1, at + 11, PRIMARY_POWER_RESTORED), LogEntry(2, at + 21, CLOCK_SET)],
    }
    for meter, entries in logs.items():
        await street.join(meter)
        await street.report(meter, day=YESTERDAY - 1, entries=entries[:2])
        await street.report(meter, entries=entries[2:])
    for meter, entries in logs.items():
        log = await street.door.get(f"/v1/meters/{meter.hex()}/log", LogDocument)
        assert [
            (entry.sequence, int(datetime.fromisoformat(entry.at).timestamp()), entry.event_type)
            for entry in log.entries
        ] == [(entry.sequence, entry.at, str(entry.event)) for entry in reversed(entries)]


@pytest.mark.requirement("ENT-VERB-17")
async def test_no_operation_is_called_subscribe_or_unsubscribe(street: Street) -> None:
    described = (await street.door.http.get("/openapi.json")).json()
    operations = [
        f"{path} {operation['operationId']} {operation.get('summary', '')}"
        for path, methods in described["paths"].items()
        for operation in methods.values()
    ]
    assert len(operations) >= len(described["paths"]) > 0
    assert not [name for name in operations if "subscribe" in name.lower()]
