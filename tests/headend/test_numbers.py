"""Sender sequence numbers of a head-end: none is used that an older backup could use once more.

The contract under test: reserved numbers lie below a line that rises with time, and a start begins
at the line, whatever its store knows; the line never falls while the program runs; whatever the
clock says, no number comes again, and a meter is reached in the end: a session that would have to
wait long for the line is given up, and the meter joins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import LocalProtocolError, SequenceExhausted
from amistack.model import CONTENT_FORMAT_V1, ReadParts, ReadRequest
from amistack.session.oscore import SEQUENCE_NUMBER_MAX, SecurityContext
from amistack.stack import SEQUENCE_BLOCK
from headend.domain.asking import NotAnswered, Unreachable
from headend.domain.meters import Meter, MeterState, StoredSession
from headend.southbound import service
from headend.southbound.service import (
    LINE_WAIT_MAX_S,
    NUMBER_EPOCH,
    NUMBER_RATE,
    NUMBERS_FREE,
    Southbound,
    number_fence,
    restored,
)
from headend.store.interface import EnrolMeters, Outcome, ReserveNumbers, Write
from headend.store.sqlite import SqliteStore
from tests.headend.test_southbound import IDENTITY, METER, REPORT
from tests.support import headend as world
from tests.support.headend import NOW, meter_id, post, public_key
from tests.support.street_meter import StreetMeter

YEAR_S = 31_556_952
instants = st.floats(-1e10, 1e11)


def stored(reserved_until: int) -> StoredSession:
    return StoredSession(
        meter_id(1), b"\x01", b"\x02", b"s" * 16, b"t" * 8, 10, reserved_until, (0, 0), NOW
    )


# The line


@given(instants, instants)
def test_line_never_falls_as_time_rises(one: float, other: float) -> None:
    earlier, later = sorted((one, other))
    assert number_fence(earlier) <= number_fence(later)


@given(st.integers(NUMBER_EPOCH + 2_000, NUMBER_EPOCH + 100 * YEAR_S), st.integers(0, 10**6))
def test_line_rises_at_its_rate(utc: int, seconds: int) -> None:
    assert number_fence(utc + seconds) - number_fence(utc) == seconds * NUMBER_RATE


@pytest.mark.parametrize("utc", [-1e10, 0.0, NUMBER_EPOCH - 0.001, NUMBER_EPOCH, NUMBER_EPOCH + 60])
def test_line_leaves_a_new_session_its_numbers_whatever_the_clock_says(utc: float) -> None:
    assert number_fence(utc) == NUMBERS_FREE


def test_line_stays_among_the_numbers_until_2060() -> None:
    assert number_fence(NUMBER_EPOCH + 34 * YEAR_S) < SEQUENCE_NUMBER_MAX
    assert number_fence(NOW) > 16 * NUMBERS_FREE


# A start


@given(st.integers(0, SEQUENCE_NUMBER_MAX + 1), st.integers(0, 1 << 42))
def test_start_begins_at_what_was_stored_or_at_the_line_and_has_nothing_reserved(
    reserved_until: int, fence: int
) -> None:
    context = restored(stored(reserved_until), fence=fence)
    assert context.next_sequence_number == context.reserved_until
    assert reserved_until <= context.next_sequence_number <= SEQUENCE_NUMBER_MAX + 1
    assert context.next_sequence_number >= min(fence, SEQUENCE_NUMBER_MAX + 1)
    assert context.next_sequence_number in (reserved_until, fence, SEQUENCE_NUMBER_MAX + 1)
    with pytest.raises((SequenceExhausted, LocalProtocolError)):
        context.take_sequence_number()


@pytest.mark.parametrize(
    ("reserved_until", "fence"),
    [(SEQUENCE_NUMBER_MAX + 1, 0), (64, SEQUENCE_NUMBER_MAX + 1), (64, 1 << 42)],
)
def test_last_number_is_not_used_once_more_after_a_start(reserved_until: int, fence: int) -> None:
    context = restored(stored(reserved_until), fence=fence)
    context.reserve(SEQUENCE_NUMBER_MAX + 1)
    with pytest.raises(LocalProtocolError, match="new keys are needed"):
        context.take_sequence_number()


# A head-end


class Street:
    """A head-end whose UTC is set by the test, and one meter that answers reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = 0
        self.start_count = 0
        self.utc = float(NOW)
        self.store: SqliteStore
        self.southbound: Southbound
        self.meter: StreetMeter

    async def start(self) -> None:
        self.start_count += 1  # Other message ids than last time: meters remember those.
        self.store = SqliteStore.open(self.path)
        self.southbound = Southbound(
            key=IDENTITY,
            store=self.store,
            entropy=os.urandom,
            dice=random.Random(self.start_count),
            wall=lambda: self.utc,
        )
        _, self.port = await self.southbound.start("127.0.0.1", self.port)

    async def stop(self) -> None:
        await self.southbound.stop()
        await self.store.close()

    async def restart(self, utc: float | None = None) -> None:
        await self.stop()
        self.utc = self.utc if utc is None else utc
        await self.start()

    async def begin(self) -> None:
        await self.start()
        row = Meter(METER, public_key(METER.hex()), MeterState.ENROLLED, NOW)
        await self.store.commit(EnrolMeters((row,)))
        self.meter = StreetMeter(METER, ("127.0.0.1", self.port), IDENTITY.credential)
        await self.join()

    async def join(self) -> None:
        await self.meter.join()
        answer = await self.meter.ask(post("reg", world.registration(METER).encode()))
        assert answer.code == Code.CHANGED

    async def read(self, *, deadline_s: float = 3.0) -> Code | int:
        wish = ReadRequest(os.urandom(8), ReadParts.REGISTERS)
        message = Message.request(
            Code.FETCH, "read", payload=wish.encode(), content_format=CONTENT_FORMAT_V1
        )
        answer, _ = await self.southbound.ask(METER, message, deadline_s=deadline_s)
        return answer.code

    @property
    def context(self) -> SecurityContext:
        context = self.southbound._stack.session_of(METER)
        assert context is not None
        return context

    async def reserved(self) -> int:
        (session,) = await self.store.sessions()
        return session.reserved_until


@pytest_asyncio.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    made = Street(tmp_path / "s.sqlite")
    await made.begin()
    yield made
    made.meter.close()
    await made.stop()


async def test_new_session_begins_at_zero_and_a_start_at_the_line(street: Street) -> None:
    assert await street.read() == Code.CONTENT
    assert street.context.next_sequence_number == 1
    await street.restart()
    begin = street.context.next_sequence_number
    assert number_fence(NOW) <= begin <= street.southbound._line()
    assert await street.read() == Code.CONTENT
    assert street.context.next_sequence_number == begin + 1
    assert await street.reserved() == begin + SEQUENCE_BLOCK


async def test_numbers_after_a_restored_backup_lie_above_all_that_were_used(
    street: Street,
) -> None:
    await street.stop()
    backup = street.path.read_bytes()
    await street.start()
    for _ in range(3):
        assert await street.read() == Code.CONTENT
    used = street.context.next_sequence_number
    await street.stop()
    for name in ("-wal", "-shm"):
        street.path.with_name(street.path.name + name).unlink(missing_ok=True)
    street.path.write_bytes(backup)
    street.utc += 10
    await street.start()
    assert street.context.next_sequence_number > used
    assert await street.read() == Code.CONTENT
    # The meter is heard as before, after one proof that it speaks now.
    assert (await street.meter.ask(post("rep", REPORT))).code == Code.CHANGED
    assert street.southbound.refused == {"session: freshness asked": 1}
    assert [one.is_window_doubtful for one in await street.store.sessions()] == [False]


async def test_nothing_is_reserved_above_the_line(street: Street) -> None:
    await street.restart()
    for _ in range(SEQUENCE_BLOCK + 10):
        assert await street.read() == Code.CONTENT
        assert street.context.reserved_until <= street.southbound._line()
        assert await street.reserved() <= street.southbound._line()


@pytest.mark.parametrize("set_to", [NOW - 86_400.0, 0.0, -5.0])
async def test_clock_set_back_while_it_runs_stops_nobody(street: Street, set_to: float) -> None:
    await street.restart()
    before = street.southbound._line()
    street.utc = set_to
    assert street.southbound._line() >= before
    assert await street.read() == Code.CONTENT


async def test_clock_that_stands_still_stops_nobody(street: Street) -> None:
    await street.restart()
    line = street.southbound._line()
    await asyncio.sleep(0.05)
    assert street.southbound._line() - line >= 0.05 * NUMBER_RATE - 1


async def test_clock_set_ahead_while_it_runs_lifts_the_line(street: Street) -> None:
    assert street.southbound._line() < number_fence(NOW + 3600)
    street.utc += 3600
    assert street.southbound._line() == number_fence(NOW + 3600)


async def test_clock_a_little_behind_at_a_start_waits_for_the_line(street: Street) -> None:
    await street.restart()
    assert await street.read() == Code.CONTENT
    await street.restart(street.utc - 1.2)
    bound = street.context.reserved_until
    with pytest.raises(NotAnswered, match="silent"):
        await street.read(deadline_s=0.1)
    assert street.context.reserved_until == bound, "nothing above the line"
    assert await street.read() == Code.CONTENT
    assert street.context.reserved_until <= street.southbound._line()
    assert street.southbound.session_count == 1


@pytest.mark.parametrize(
    "utc",
    [NOW - LINE_WAIT_MAX_S - 10, NUMBER_EPOCH + 5.0, 0.0],
    ids=["ten minutes", "2026", "1970"],
)
async def test_clock_far_behind_at_a_start_gives_the_session_up_and_the_meter_joins_anew(
    street: Street, utc: float
) -> None:
    await street.restart()
    assert await street.read() == Code.CONTENT
    bound = street.context.reserved_until
    await street.restart(utc)
    assert street.context.next_sequence_number == bound
    with pytest.raises(NotAnswered, match="session ended"):
        await street.read()
    assert street.southbound.session_count == 0
    key = "model: session given up: its numbers are above the line"
    assert street.southbound.refused[key] == 1
    with pytest.raises(ConnectionError):
        await street.meter.ask(post("rep", REPORT))
    await rejoined(street)
    assert await street.read() == Code.CONTENT


async def rejoined(street: Street) -> None:
    """The meter's program joins again, with another C_I than before."""
    street.meter.close()
    street.meter = StreetMeter(METER, ("127.0.0.1", street.port), IDENTITY.credential)
    await street.join()


async def test_free_numbers_are_not_used_once_more_where_the_clock_knows_no_time(
    street: Street,
) -> None:
    """The store is put back and the clock lost: what a new session used below the line is over."""
    assert await street.read() == Code.CONTENT
    used = street.context.reserved_until
    await street.restart(0.0)
    assert street.context.next_sequence_number == NUMBERS_FREE > used
    with pytest.raises(NotAnswered):
        await street.read(deadline_s=0.3)
    assert street.context.reserved_until == NUMBERS_FREE


async def test_session_without_a_number_left_is_not_taken_up(street: Street) -> None:
    recipient_id = street.context.recipient_id
    await street.store.commit(ReserveNumbers(recipient_id, SEQUENCE_NUMBER_MAX + 1, 64))
    await street.restart()
    assert street.southbound.session_count == 0
    with pytest.raises(ConnectionError):
        await street.meter.ask(post("rep", REPORT))
    await rejoined(street)
    assert await street.read() == Code.CONTENT


async def test_numbers_of_a_session_that_was_replaced_are_not_waited_for(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    await street.restart()
    assert await street.read() == Code.CONTENT
    await street.restart(street.utc - 0.8)
    old = street.context
    with pytest.raises(NotAnswered):
        await street.read(deadline_s=0.05)
    await rejoined(street)
    assert street.context.recipient_id != old.recipient_id
    bound = old.reserved_until
    submitted: list[Write] = []
    submit = street.store.submit

    def watched(write: Write, done: Callable[[Outcome], None]) -> None:
        submitted.append(write)
        submit(write, done)

    monkeypatch.setattr(street.store, "submit", watched)
    await asyncio.sleep(1.0)
    assert submitted == []
    assert old.reserved_until == bound
    (session,) = await street.store.sessions()
    assert (session.recipient_id, session.reserved_until) == (
        street.context.recipient_id,
        SEQUENCE_BLOCK,
    )
    assert await street.read() == Code.CONTENT


# Keys that are worn


async def test_session_is_renewed_after_so_many_numbers_and_not_one_block_before(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jumps to the line are no uses of the key, so it is blocks that are counted."""
    monkeypatch.setattr(service, "NUMBERS_MAX", 4 * SEQUENCE_BLOCK)
    await street.restart()  # The line is far above.
    recipient_id = street.context.recipient_id

    async def use_up_a_block() -> None:
        context = street.southbound._stack.session_of(METER)
        while context is not None and context.reserved_until - context.next_sequence_number > 15:
            context.take_sequence_number()
        with contextlib.suppress(Unreachable, NotAnswered):
            await street.read(deadline_s=0.5)
        await asyncio.sleep(0.3)  # The block may have to wait for the line.

    for _ in range(2):
        await use_up_a_block()
        assert street.context.recipient_id == recipient_id
    await use_up_a_block()
    assert street.southbound._stack.session_of(METER) is None
    assert list(await street.store.sessions()) == []
    assert street.southbound.refused["model: session given up: its keys are worn"] == 1
    with pytest.raises(ConnectionError):
        await street.meter.ask(post("rep", world.report().encode()))
    street.meter.close()
    street.meter = StreetMeter(METER, ("127.0.0.1", street.port), IDENTITY.credential)
    await street.join()
    assert await street.read() == Code.CONTENT
