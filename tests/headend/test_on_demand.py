"""Reading a meter now.

The contract under test: the wish is durable before the meter is asked and its result before it is
told; however it ends, the read is stored with its result; what a meter answers is only taken for an
answer if it is one, and to this read; as many as may wait do, and the next is refused; a restart
settles what was left open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import ReadAnswer, ReadParts, ReadRequest
from headend.collection import on_demand
from headend.collection.on_demand import OnDemandReads, shorten
from headend.domain.asking import NotAnswered
from headend.domain.meters import Meter, MeterState
from headend.domain.readings import OnDemandRead, ReadResult
from headend.domain.refusals import BadWish, Stopping, TooMany, UnknownMeter
from headend.store.interface import EnrolMeters, KeepRead
from headend.store.sqlite import SqliteStore
from tests.support.headend import NOW, TextbookMeters, content, meter_id, public_key, until

METER = meter_id(1)


class World:
    """A store with one enrolled meter, meters that answer by the book, and the reads of them."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.meters = TextbookMeters()
        self.now = float(NOW)
        self._next = 0
        self.reads = OnDemandReads(
            store=store, asker=self.meters, entropy=self.draw, wall=lambda: self.now
        )

    def draw(self, size: int) -> bytes:
        self._next += 1
        return self._next.to_bytes(size)

    async def enrol(self) -> None:
        meter = Meter(METER, public_key("m"), MeterState.ENROLLED, NOW)
        await self.store.commit(EnrolMeters((meter,)))


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = SqliteStore.open(tmp_path / "s.sqlite")
    made = World(store)
    await made.enrol()
    yield made
    await store.close()


async def test_answer_is_stored_and_told(world: World) -> None:
    read = await world.reads.read(METER)
    assert read.result is ReadResult.ANSWERED
    assert read.path == "udp:192.0.2.7:5683"
    assert read.answered_ms == NOW * 1000
    assert read.answer is not None
    assert ReadAnswer.decode(read.answer).identifier == read.identifier
    assert await world.store.find_read(read.identifier) == read
    ((asked, message, deadline_s),) = world.meters.asked
    assert asked == METER
    assert (message.code, message.path) == (Code.FETCH, "read")
    assert ReadRequest.decode(message.payload).parts == ReadParts(7)
    assert 29 < deadline_s <= 30


async def test_wish_is_durable_before_the_meter_is_asked(world: World) -> None:
    world.meters.gate = asyncio.Event()
    task = asyncio.create_task(world.reads.read(METER, parts=ReadParts.REGISTERS))
    await until(lambda: bool(world.meters.asked))
    (open_,) = await world.store.reads(METER)
    assert open_.result is ReadResult.ASKED
    assert ReadRequest.decode(world.meters.asked[0][1].payload).identifier == open_.identifier
    assert world.reads.depth[0] == 1
    world.meters.gate.set()
    assert (await task).result is ReadResult.ANSWERED
    assert world.reads.depth[0] == 0


def other_identifier(read: ReadAnswer) -> bytes:
    return ReadAnswer(b"not this", read.channel_set, read.day, read.clock).encode()


async def test_meter_never_heard_is_unreachable(world: World) -> None:
    world.meters.away.add(METER)
    read = await world.reads.read(METER)
    assert (read.result, read.path) == (ReadResult.UNREACHABLE, "")
    assert read.detail == "the meter has not been heard yet"
    assert await world.store.find_read(read.identifier) == read


async def test_silent_meter_times_out_with_the_path_that_was_tried(world: World) -> None:
    world.meters.silent.add(METER)
    read = await world.reads.read(METER, deadline_s=5)
    assert (read.result, read.path) == (ReadResult.TIMED_OUT, "udp:192.0.2.7:5683")
    assert read.answered_ms is None
    assert await world.store.find_read(read.identifier) == read


@pytest.mark.parametrize(
    ("odd", "result", "detail"),
    [
        (
            Message.response(Code.SERVICE_UNAVAILABLE, payload=b"later\n\x1b[31m"),
            ReadResult.REFUSED,
            "5.03 SERVICE_UNAVAILABLE: later??[31m",
        ),
        (Message.response(Code.NOT_FOUND), ReadResult.REFUSED, "4.04 NOT_FOUND"),
        (
            NotAnswered("response not protected", is_timeout=False),
            ReadResult.REFUSED,
            "response not protected",
        ),
        (content(b"\xff"), ReadResult.UNREADABLE, "not CBOR"),
        (content(b"", content_format=0), ReadResult.UNREADABLE, "another content format: 0"),
        (content(b"", content_format=None), ReadResult.UNREADABLE, "another content format: None"),
    ],
    ids=[
        "diagnostic", "not found", "unprotected", "not CBOR", "text", "no content format"
    ],
)  # fmt: skip
async def test_odd_answer_is_stored_for_what_it_is(
    world: World, odd: Message | NotAnswered, result: ReadResult, detail: str
) -> None:
    world.meters.odd[METER] = odd
    read = await world.reads.read(METER)
    assert read.result is result
    assert detail in read.detail or (detail == "not CBOR" and read.detail)
    assert await world.store.find_read(read.identifier) == read
    if result is ReadResult.UNREADABLE:
        assert isinstance(odd, Message)
        assert read.answer == odd.payload, "kept as it came"


async def test_answer_to_another_read_is_not_taken(world: World) -> None:
    asked = ReadRequest(b"12345678", ReadParts(7)).encode()
    answer = world.meters.answer(Message.request(Code.FETCH, "read", payload=asked))
    world.meters.odd[METER] = content(other_identifier(answer))
    read = await world.reads.read(METER)
    assert read.result is ReadResult.UNREADABLE
    assert "answer to another read" in read.detail


async def test_answer_with_values_that_cannot_be_unpacked_is_unreadable(world: World) -> None:
    wish = Message.request(
        Code.FETCH, "read", payload=ReadRequest((1).to_bytes(8), ReadParts(7)).encode()
    )
    octets = world.meters.answer(wish).encode()
    packed = world.meters.answer(wish).blocks[0].packed
    assert octets.count(packed) == 1
    world.meters.odd[METER] = content(octets.replace(packed, b"\xff" * len(packed)))
    read = await world.reads.read(METER)
    assert (read.result, read.answer is not None) == (ReadResult.UNREADABLE, True)


async def test_unknown_meter_is_refused_and_leaves_no_trace(world: World) -> None:
    with pytest.raises(UnknownMeter, match="02004c0000000009 is not enrolled"):
        await world.reads.read(meter_id(9))
    assert await world.store.reads() == []
    assert not world.meters.asked


@pytest.mark.parametrize("deadline_s", [0, -1, 601, float("nan"), float("inf")])
async def test_deadline_out_of_bounds_is_refused(world: World, deadline_s: float) -> None:
    with pytest.raises(BadWish, match="deadline"):
        await world.reads.read(METER, deadline_s=deadline_s)


async def test_bound_is_kept_and_the_next_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_demand, "ASKED_MAX", 2)
    monkeypatch.setattr(on_demand, "WAITING_MAX", 1)
    reads = OnDemandReads(
        store=world.store, asker=world.meters, entropy=world.draw, wall=lambda: world.now
    )
    world.meters.gate = asyncio.Event()
    tasks = [asyncio.create_task(reads.read(METER)) for _ in range(3)]
    await until(lambda: reads.depth[0] == 3 and len(world.meters.asked) == 2)
    assert reads.depth == (3, 3)
    assert len(world.meters.asked) == 2, "two are asked, one waits for its turn"
    with pytest.raises(TooMany, match="3 reads are under way"):
        await reads.read(METER)
    world.meters.gate.set()
    results = await asyncio.gather(*tasks)
    assert {read.result for read in results} == {ReadResult.ANSWERED}
    assert reads.depth == (0, 3)


async def test_turn_that_does_not_come_in_time_is_a_time_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_demand, "ASKED_MAX", 1)
    reads = OnDemandReads(
        store=world.store, asker=world.meters, entropy=world.draw, wall=lambda: world.now
    )
    world.meters.gate = asyncio.Event()
    first = asyncio.create_task(reads.read(METER))
    await until(lambda: bool(world.meters.asked))
    late = await reads.read(METER, deadline_s=0.02)
    assert late.result is ReadResult.TIMED_OUT
    assert len(world.meters.asked) == 1
    world.meters.gate.set()
    assert (await first).result is ReadResult.ANSWERED


async def test_stopping_ends_what_is_under_way_as_interrupted(world: World) -> None:
    world.meters.gate = asyncio.Event()
    task = asyncio.create_task(world.reads.read(METER))
    await until(lambda: bool(world.meters.asked))
    world.reads.stop()
    read = await asyncio.wait_for(task, 5)
    assert read.result is ReadResult.INTERRUPTED
    assert await world.store.find_read(read.identifier) == read
    with pytest.raises(Stopping):
        await world.reads.read(METER)


async def test_caller_who_goes_away_stops_the_asking(world: World) -> None:
    world.meters.gate = asyncio.Event()
    task = asyncio.create_task(world.reads.read(METER))
    await until(lambda: bool(world.meters.asked))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert world.reads.depth[0] == 0


async def test_start_settles_what_an_earlier_run_left_open(world: World) -> None:
    left = OnDemandRead(b"left0000", METER, NOW * 1000, ReadResult.ASKED)
    await world.store.commit(KeepRead(left))
    await world.reads.start()
    found = await world.store.find_read(b"left0000")
    assert found is not None
    assert found.result is ReadResult.INTERRUPTED


def test_detail_is_short_and_printable() -> None:
    assert shorten("a\nb\x1b" + "c" * 500) == "a?b?" + "c" * 156
