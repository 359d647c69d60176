"""Traces, row by row.

The contract under test: each row of a trace is told when its collector tells it, and ends nothing;
TRACED ends the trace and is whole by itself, also where no row came before; a row that the way has
not, that came before, or that another collector tells, is refused, counted, and changes nothing;
whoever waits is told each row at once, and leaves nothing behind when it goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.dcc.events import RequestEnded, RequestNumber, RowTraced
from headend.dcc.questions import GRACE_S, TRACE_HOP_S
from headend.dcc.watching import WATCHED_MAX
from headend.domain.refusals import NotThere
from mesh.backhaul import Message, Outcome, Probed, Traced, TraceRow
from mesh.topology.isolate import timeout_of
from mesh.topology.paths import HOPS_MAX, Path
from tests.headend.dcc.test_center import EAST, WEST, joined
from tests.headend.dcc.test_service import METER, Place, place
from tests.headend.dcc.test_service import WEST as NEAR
from tests.headend.dcc.worlds import BACKHAUL_S, HOP_S, TRACE_ROW_S, Backhauls
from tests.mesh.topology.worlds import eui
from tests.support.headend import until

__all__ = ["place"]

HOPS = 3


def begun(*, tells_rows: bool = True) -> tuple[Backhauls, RequestNumber, Path]:
    """A trace of three hops under way on the street."""
    street, _, _ = joined()
    street.collectors[WEST].tells_rows = tells_rows
    way = street.center.dcc.routes.way_by(eui(WEST), eui(3))
    assert way is not None
    assert way.hops == HOPS
    number = street.center.questions.trace(way, now=street.now)
    assert number is not None
    street.collect()
    return street, number, way


def rows_of(street: Backhauls) -> list[Probed]:
    return [event.row for event in street.events if isinstance(event, RowTraced)]


def answer_of(street: Backhauls) -> object:
    (ended,) = street.of(RequestEnded)
    assert isinstance(ended, RequestEnded)
    return ended.answer


def trip_ms(hops: int) -> int:
    return int(2000 * HOP_S * hops)


WHOLE = tuple(TraceRow(hops, Outcome.ANSWERED, trip_ms(hops)) for hops in range(1, HOPS + 1))


def test_each_row_is_told_when_it_comes_and_the_end_after_all() -> None:
    street, number, _ = begun()
    street.run(BACKHAUL_S)
    for hops in range(1, HOPS + 1):
        assert len(rows_of(street)) == hops - 1
        assert not street.of(RequestEnded)
        street.run(TRACE_ROW_S)
        assert rows_of(street)[-1] == Probed(number, Outcome.ANSWERED, hops, trip_ms(hops))
    assert answer_of(street) == Traced(number, WHOLE)
    assert street.center.all_refused == {}
    assert street.center.depths["requests to collectors"][0] == 0


def test_trace_of_a_collector_that_tells_no_rows_is_answered() -> None:
    street, number, _ = begun(tells_rows=False)
    street.run(TRACE_ROW_S * HOPS + 1)
    assert rows_of(street) == []
    assert answer_of(street) == Traced(number, WHOLE)


def test_end_is_the_truth_whatever_the_rows_said() -> None:
    street, number, _ = begun(tells_rows=False)
    west = next(iter(street.connections))
    street.say(west, Probed(number, Outcome.NO_ANSWER, 2))
    street.run(TRACE_ROW_S * HOPS + 1)
    assert [row.hops for row in rows_of(street)] == [2]
    assert answer_of(street) == Traced(number, WHOLE)


@pytest.mark.parametrize(
    "hops", [(0,), (HOPS + 1,), (25,), (1, 1), (2, 1), (1, 2, 3, 3), (3, 1, 2)]
)
def test_row_that_the_way_has_not_or_that_came_is_refused_and_ends_nothing(
    hops: tuple[int, ...],
) -> None:
    street, number, _ = begun(tells_rows=False)
    west = next(iter(street.connections))
    for each in hops:
        street.say(west, Probed(number, Outcome.LOST_AFTER, each))
    taken = [row.hops for row in rows_of(street)]
    assert taken == sorted(set(taken))
    refused = street.center.all_refused["row of a trace out of turn"]
    assert refused == len(hops) - len(taken) > 0
    assert not street.of(RequestEnded)
    street.run(TRACE_ROW_S * HOPS + 1)
    assert answer_of(street) == Traced(number, WHOLE)


def test_row_of_another_collector_than_was_asked_is_passed_over() -> None:
    street, number, _ = begun(tells_rows=False)
    assert street.collectors[EAST].short == EAST
    _, east = street.connections
    street.say(east, Probed(number, Outcome.ANSWERED, 1, 10))
    assert rows_of(street) == []
    assert not street.of(RequestEnded)
    assert street.center.all_counters["answers to what is forgotten"] == 1
    street.run(TRACE_ROW_S * HOPS + 1)
    assert answer_of(street) == Traced(number, WHOLE)


def test_row_after_the_end_is_of_what_is_forgotten() -> None:
    street, number, _ = begun()
    street.run(TRACE_ROW_S * HOPS + 1)
    west = next(iter(street.connections))
    street.say(west, Probed(number, Outcome.ANSWERED, HOPS, 10))
    assert len(rows_of(street)) == HOPS
    assert len(street.of(RequestEnded)) == 1
    assert street.center.all_counters["answers to what is forgotten"] == 1


def test_rows_give_a_trace_no_more_time() -> None:
    street, number, way = begun()
    street.collectors[WEST].answers_left = 0
    west = next(iter(street.connections))
    street._later.clear()  # Its end is lost.
    street.run(timeout_of(way) + TRACE_HOP_S * HOPS + GRACE_S - 1)
    street.say(west, Probed(number, Outcome.ANSWERED, 1, 10))
    assert not street.of(RequestEnded)
    street.run(2)
    assert answer_of(street) is None


def test_trace_of_the_collector_itself_has_no_rows() -> None:
    street, _, _ = joined()
    way = street.center.dcc.routes.way_by(eui(WEST), eui(1))
    assert way is not None
    number = street.center.questions.trace(way.up_to(0), now=street.now)
    assert number is not None
    west = next(iter(street.connections))
    street.say(west, Probed(number, Outcome.ANSWERED, 1, 10))
    street.say(west, Probed(number, Outcome.ANSWERED, 0, 10))
    assert rows_of(street) == []
    assert street.center.all_refused["row of a trace out of turn"] == 2
    street.say(west, Traced(number, ()))
    assert answer_of(street) == Traced(number, ())


said = st.lists(
    st.tuples(st.booleans(), st.sampled_from(Outcome), st.integers(0, 25), st.integers(0, 9_999)),
    max_size=40,
)


@given(said)
def test_whatever_is_said_of_a_trace_no_row_is_told_twice(
    told: list[tuple[bool, Outcome, int, int]],
) -> None:
    street, number, _ = begun(tells_rows=False)
    west, east = street.connections
    for is_asked, outcome, hops, trip in told:
        street.say(west if is_asked else east, Probed(number, outcome, hops, trip))
    taken = [row.hops for row in rows_of(street)]
    assert taken == sorted(set(taken))
    assert set(taken) <= set(range(1, HOPS + 1))
    refused = street.center.all_refused["row of a trace out of turn"]
    strange = street.center.all_counters.get("answers to what is forgotten", 0)
    assert len(taken) + refused + strange == len(told)
    assert strange == sum(not is_asked for is_asked, *_ in told)
    street.run(TRACE_ROW_S * HOPS + 1)
    assert answer_of(street) == Traced(number, WHOLE)


def test_reader_who_takes_nothing_before_the_end_still_gets_it() -> None:
    """Its queue drops what it has no room for: every row that there can be, and the end."""
    assert WATCHED_MAX > HOPS_MAX + 1


# On real streams, with a collector that goes on when it is told to


async def held(place: Place) -> AsyncIterator[Probed | Traced]:
    """A trace of two hops by a collector that says each message by `go_on`."""
    await place.joined(NEAR)
    place.collectors[NEAR].report()
    await until(lambda: place.dcc.center.dcc.routes.route_of(eui(METER)) is not None)
    place.collectors[NEAR].is_held = True
    way = place.dcc.center.dcc.routes.route_of(eui(METER))
    assert way is not None
    assert way.hops == 2
    return place.dcc.trace(way)


async def next_of(place: Place, answers: AsyncIterator[Probed | Traced]) -> Message:
    """What is told when the collector has said one message more, and not before."""
    waiting = asyncio.ensure_future(anext(answers))
    collector = place.collectors[NEAR]
    await until(lambda: bool(collector.unsaid))
    assert not waiting.done()
    collector.go_on()
    return await asyncio.wait_for(waiting, 5)


@pytest.mark.both_loops
async def test_who_waits_is_told_each_row_while_the_trace_goes_on(place: Place) -> None:
    answers = await held(place)
    for hops in (1, 2):
        row = await next_of(place, answers)
        assert isinstance(row, Probed)
        assert (row.hops, row.outcome) == (hops, Outcome.ANSWERED)
    traced = await next_of(place, answers)
    assert isinstance(traced, Traced)
    assert [row.node for row in traced.rows] == [3, METER]
    assert [each async for each in answers] == []
    assert len(place.dcc._watching) == 0
    assert place.dcc.refused == {}


async def test_trace_that_nobody_waits_for_leaves_nothing_behind(place: Place) -> None:
    answers = await held(place)
    await next_of(place, answers)
    waiting = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0)
    assert len(place.dcc._watching) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(place.dcc._watching) == 0
    # What the collector says of it still is taken, and is told to nobody.
    collector = place.collectors[NEAR]
    assert place.dcc.depths["requests to collectors"][0] == 1
    while collector.unsaid:
        collector.go_on()
    await until(lambda: place.dcc.depths["requests to collectors"][0] == 0)
    assert place.dcc.refused == {}
    assert "answers to what is forgotten" not in place.dcc.center.all_counters


async def test_collector_that_goes_in_the_middle_of_a_trace_ends_it_after_its_rows(
    place: Place,
) -> None:
    answers = await held(place)
    await next_of(place, answers)
    counters = place.dcc.center.counters
    before = counters["messages received"]
    place.collectors[NEAR].go_on()
    await until(lambda: counters["messages received"] > before)
    await place.collectors[NEAR].leave()
    row = await asyncio.wait_for(anext(answers), 5)
    assert isinstance(row, Probed)
    assert row.hops == 2
    with pytest.raises(NotThere, match="gave no answer"):
        await asyncio.wait_for(anext(answers), 5)
    assert len(place.dcc._watching) == 0


async def test_head_end_that_stops_ends_a_trace(place: Place) -> None:
    answers = await held(place)
    await next_of(place, answers)
    waiting = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0)
    await place.dcc.stop()
    with pytest.raises(NotThere, match="gave no answer"):
        await asyncio.wait_for(waiting, 5)
