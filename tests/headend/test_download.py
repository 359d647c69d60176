"""Taking all that a meter holds, over the network.

The contract under test: a dump is had whole or not at all, as the meter's own pages; whatever a
meter says instead is one line; no more go on at once than the limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.identifiers import Eui64
from amistack.model.dump import DumpPage, DumpPart, DumpRequest, pages_of
from headend.collection import download
from headend.collection.download import Downloads
from headend.domain.asking import NotAnswered, Unreachable
from headend.domain.meters import Meter, MeterState
from headend.domain.refusals import BadWish, NotHad, TooMany, UnknownMeter
from headend.store.interface import EnrolMeters
from headend.store.sqlite import SqliteStore
from tests.support.headend import NOW, content, meter_id, public_key

METER = meter_id(1)
PARTS = [DumpPart("log", bytes([n]) * 30_000) for n in range(5)]
PAGES = pages_of(PARTS)


class Meters:
    """A meter with a dump, or with something else to say."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.instead: dict[int, Message | Exception] = {}
        self.gate: asyncio.Event | None = None

    async def ask(
        self, meter: Eui64, message: Message, *, deadline_s: float
    ) -> tuple[Message, str]:
        assert (message.code, message.path, meter) == (Code.FETCH, "dump", METER)
        number = DumpRequest.decode(message.payload).page
        self.asked.append(number)
        if self.gate is not None:
            await self.gate.wait()
        other = self.instead.get(number)
        if isinstance(other, Exception):
            raise other
        return other or content(PAGES[number].encode()), "udp:192.0.2.7:5683"

    def path_of(self, meter: Eui64) -> str | None:
        return None


class World:
    def __init__(self, store: SqliteStore) -> None:
        self.meters = Meters()
        self.downloads = Downloads(store=store, asker=self.meters)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = SqliteStore.open(tmp_path / "s.sqlite")
    await store.commit(EnrolMeters((Meter(METER, public_key("m"), MeterState.ENROLLED, NOW),)))
    yield World(store)
    await store.close()


async def test_pages_come_as_the_meter_gave_them(world: World) -> None:
    assert len(PAGES) > 2
    done = await world.downloads.take(METER)
    assert [DumpPage.decode(page) for page in done.pages] == PAGES
    assert [part for page in done.pages for part in DumpPage.decode(page).parts()] == PARTS
    assert world.meters.asked == list(range(len(PAGES)))
    assert (done.path, dict(world.downloads.results)) == ("udp:192.0.2.7:5683", {"had": 1})


@pytest.mark.parametrize(
    ("page", "instead", "said"),
    [
        (0, Unreachable("the meter has not been heard yet"), "not been heard"),
        (1, NotAnswered("no answer", is_timeout=True), "page 1: no answer"),
        (0, Message.response(Code.NOT_FOUND), "page 0: 4.04"),
        (1, Message.response(Code.NOT_FOUND, payload=b"no such page"), "4.04 NOT_FOUND no such"),
        (0, content(b"\x80"), "page 0 cannot be read"),
        (1, content(DumpPage(1, len(PAGES), b"nonsense").encode()), "page 1 cannot be read"),
        (1, content(PAGES[0].encode()), "in place of page 1"),
        (1, content(DumpPage(1, 60, PAGES[1].packed).encode()), "page 1 of 60 in place of"),
    ],
)
async def test_dump_that_is_not_whole_is_none(
    world: World, page: int, instead: Message | Exception, said: str
) -> None:
    world.meters.instead[page] = instead
    with pytest.raises(NotHad, match=said):
        await world.downloads.take(METER)
    assert world.downloads.results == {"not had": 1}
    assert world.downloads.depth[0] == 0


async def test_wish_that_cannot_be_granted_asks_nobody(world: World) -> None:
    with pytest.raises(UnknownMeter):
        await world.downloads.take(meter_id(2))
    for deadline_s in (0.0, download.DEADLINE_S_MAX + 1):
        with pytest.raises(BadWish):
            await world.downloads.take(METER, deadline_s=deadline_s)
    assert world.meters.asked == []


async def test_no_more_downloads_go_on_than_the_limit(world: World) -> None:
    world.meters.gate = asyncio.Event()
    tasks = [
        asyncio.create_task(world.downloads.take(METER)) for _ in range(download.UNDER_WAY_MAX)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TooMany):
        await world.downloads.take(METER)
    world.meters.gate.set()
    await asyncio.gather(*tasks)
    await world.downloads.take(METER)
