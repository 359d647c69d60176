"""What is kept in memory of every meter, and how it comes from the store at a start.

The contract under test: rows of octets answer as plain dictionaries would, whatever is said of a
meter and in whatever order; a start takes everything from the store, in pages of any size.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.identifiers import Eui64
from headend.domain.meters import ChannelRecord, Meter, MeterState
from headend.southbound import service
from headend.southbound.intake import record_of
from headend.southbound.known import KnownMeters
from headend.store.interface import FIRST, EnrolMeters, KeepDelivery, KeepSession
from headend.store.sqlite import SqliteStore
from tests.headend.test_store import session
from tests.stack.parties import head_end_key
from tests.support import headend as world
from tests.support.worlds import FixedDice

RowT = TypeVar("RowT")
RowT_co = TypeVar("RowT_co", covariant=True)

NOW: Final = 1_780_000_000
METERS: Final = tuple(Eui64(bytes((2, 0, 0, 0, 0, 0, number, 1))) for number in range(7))
SETS: Final = tuple(
    tuple(ChannelRecord(number, "a", "b", 0, "Wh", interval) for number in range(1, count + 1))
    for count, interval in ((1, 900), (2, 900), (1, 3_600))
)

meters: Final = st.sampled_from(METERS[:3])
steps: Final = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), meters, st.sampled_from(["udp:192.0.2.7:5683", "udp:[::1]:1"])),
        st.tuples(st.just("offset"), meters, st.integers(-720, 840)),
        st.tuples(
            st.just("declare"), meters, st.sampled_from([0, 1, 65_535]), st.sampled_from(SETS)
        ),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(steps)
def test_rows_answer_as_dictionaries_would(said: list[tuple[object, ...]]) -> None:
    known = KnownMeters()
    paths: dict[object, object] = {}
    offsets: dict[object, object] = {}
    sets: dict[tuple[object, object], tuple[ChannelRecord, ...]] = {}
    for kind, meter, *rest in said:
        assert isinstance(meter, bytes)
        name = Eui64(bytes(bytearray(meter)))  # Equal, and never the same object.
        if kind == "hear":
            assert known.hear(name, str(rest[0])) == paths.get(meter)
            paths[meter] = rest[0]
        elif kind == "offset":
            known.set_offset(name, rest[0])  # type: ignore[arg-type]  # As the steps are drawn.
            offsets[meter] = rest[0]
        else:
            known.add(name, rest[0], rest[1])  # type: ignore[arg-type]  # As the steps are drawn.
            sets[(meter, rest[0])] = rest[1]  # type: ignore[assignment]  # The same.
        for one in METERS[:3]:
            assert known.path_of(one) == paths.get(one)
            assert known.offset_of(one) == offsets.get(one, 0)
            for channel_set in (0, 1, 2, 65_535):
                found = known.find(one, channel_set)
                declared = sets.get((one, channel_set))
                assert (None if found is None else tuple(found.values())) == declared
    assert len(known) == len({*paths, *offsets, *(meter for meter, _ in sets)})


def test_what_many_declare_alike_is_kept_once() -> None:
    known = KnownMeters()
    for meter in METERS:
        known.add(meter, 1, [dataclasses.replace(one) for one in SETS[1]])
    assert len({id(known.find(meter, 1)) for meter in METERS}) == 1


async def stock(path: Path) -> SqliteStore:
    """A store with these meters: all registered but the last, all secured but the first."""
    store = SqliteStore.open(path)
    key = world.public_key("any")
    await store.commit(
        EnrolMeters(tuple(Meter(meter, key, MeterState.ENROLLED, NOW) for meter in METERS))
    )
    for number, meter in enumerate(METERS):
        kid = bytes((0, number + 1))
        if number:
            await store.commit(KeepSession(session(meter, kid), f"udp:192.0.2.{number}:5683"))
        if number < len(METERS) - 1:
            for channel_set in range(1, 1 + number % 3):
                registration = dataclasses.replace(
                    world.registration(meter),
                    channel_set=channel_set,
                    standard_offset_min=60 * number,
                )
                record = record_of(registration, NOW)
                await store.commit(KeepDelivery(meter, kid, (0, 0), "udp:x:1", NOW, (record,)))
    return store


class Read(Protocol[RowT_co]):
    """One of the store's four for a start."""

    def __call__(
        self, *, after: Eui64 = ..., limit: int | None = ...
    ) -> Awaitable[Sequence[RowT_co]]: ...


async def expect_pages(read: Read[RowT], name: Callable[[RowT], Eui64], limit: int) -> None:
    whole = list(await read())
    assert len(whole) > 3
    pages: list[RowT] = []
    after = FIRST
    while page := await read(after=after, limit=limit):
        assert len({name(row) for row in page}) <= limit
        pages += page
        after = name(page[-1])
    assert pages == whole


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_of_any_size_are_the_whole(tmp_path: Path, limit: int) -> None:
    store = await stock(tmp_path / "store.sqlite")
    try:
        await expect_pages(store.sessions, lambda row: row.meter, limit)
        await expect_pages(store.locations, lambda row: row.meter, limit)
        await expect_pages(store.channel_sets, lambda row: row[0], limit)
        await expect_pages(store.offsets, lambda row: row[0], limit)
    finally:
        await store.close()


@pytest.mark.parametrize("page_size", [1, 3, 1_000])
async def test_a_start_takes_everything_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page_size: int
) -> None:
    monkeypatch.setattr(service, "PAGE_SIZE", page_size)
    store = await stock(tmp_path / "store.sqlite")
    southbound = service.Southbound(
        key=head_end_key(),
        store=store,
        entropy=random.Random(1).randbytes,
        dice=FixedDice(),
        wall=lambda: float(NOW),
    )
    try:
        await southbound.start("127.0.0.1", 0)
        assert southbound.session_count == len(METERS) - 1
        heard = [southbound.path_of(meter) for meter in METERS]
        assert heard[1] == "udp:x:1"
        assert heard[-1] == f"udp:192.0.2.{len(METERS) - 1}:5683"
        known = southbound._known
        for number, meter in enumerate(METERS):
            sets = [one for one in (1, 2, 3) if known.find(meter, one) is not None]
            registered = number % 3 if number < len(METERS) - 1 else 0
            assert sets == [1, 2, 3][:registered]
            assert known.offset_of(meter) == (60 * number if registered else 0)
            context = southbound._stack.session_of(meter)
            if context is not None:
                # One name for both tables: a copy for each would be a tenth of all that is kept.
                assert any(context.owner is name for name in known._rows) or not heard[number]
    finally:
        await southbound.stop()
        await store.close()
