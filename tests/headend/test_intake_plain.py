"""A report of the common form goes a shorter way through the intake: nobody can see it.

The contract under test: records, answers, counters and what the own clock hears are the same by
both ways, for what households send and for what is wrong with it in any one place.
"""

from __future__ import annotations

import dataclasses
from unittest import mock

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.identifiers import Eui64
from amistack.model import ClockReading, ClockState, DailyReport, IntervalBlock
from headend.southbound import intake as intake_module
from headend.southbound.intake import CLOCK_ERROR_MAX, DAY_AGE_MAX, Intake, Uplink
from headend.southbound.known import KnownMeters
from headend.store.interface import Kept
from tests.support import headend as world
from tests.support.headend import NOW, TODAY, YESTERDAY, block, entry, meter_id, post

METER = meter_id(1)

Seen = tuple[object, ...]


def seen(payload: bytes, kept: list[Kept], *, is_time_known: bool, is_plain: bool) -> Seen:
    """All that an intake does with a report, by one of the two ways."""
    heard: list[tuple[Eui64, float]] = []
    intake = Intake(KnownMeters())
    intake.on_clock = lambda meter, ahead_s: heard.append((meter, ahead_s))
    taken = intake.take(Uplink(METER, post("reg", world.registration(METER).encode()), NOW * 1000))
    taken.answer((Kept.NEW,), 0)
    uplink = Uplink(METER, post("rep", payload), NOW * 1000 + 1, is_time_known)
    shorter = mock.patch.object(intake_module, "read_plain", return_value=None)
    if is_plain:
        taken = intake.take(uplink)
    else:
        with shorter:
            taken = intake.take(uplink)
    outcomes = tuple((kept * len(taken.records))[: len(taken.records)])
    answers = [taken.answer(outcomes, held_ms) for held_ms in (0, 300, 70_000)]
    return taken.records, answers, dict(intake.flagged), dict(intake.quarantined), heard


def expect_the_same(
    payload: bytes, kept: list[Kept] | None = None, *, is_time_known: bool = True
) -> None:
    ways = [
        seen(payload, kept or [Kept.NEW], is_time_known=is_time_known, is_plain=is_plain)
        for is_plain in (True, False)
    ]
    assert ways[0] == ways[1]


def value_block(draw: st.DrawFn, channel: int) -> IntervalBlock:
    values = draw(st.lists(st.integers(-1, 40), min_size=96, max_size=96))
    if draw(st.booleans()):
        values = [abs(value) for value in values]
    advance = sum(values) + draw(st.sampled_from([0, 0, 0, 1, -10_000]))
    interval_s = 900
    return IntervalBlock.of(
        values, channel=channel, interval_s=interval_s, opening=5, advance=advance
    )


@st.composite
def made(draw: st.DrawFn) -> bytes:
    """A report as a household sends it, or with something about it that has to be said."""
    channels = draw(st.sampled_from([(1,), (1, 2), (2,), (9,), ()]))
    clock_s = NOW + draw(st.sampled_from([0, 0, 1, CLOCK_ERROR_MAX, CLOCK_ERROR_MAX + 1, -500]))
    report = world.report(
        day=draw(
            st.sampled_from([YESTERDAY] * 3 + [TODAY + 1, TODAY + 2, TODAY - DAY_AGE_MAX - 1])
        ),
        blocks=[value_block(draw, channel) for channel in channels],
        entries=[
            entry(number, detail=draw(st.sampled_from([None, None, "x"])))
            for number in range(draw(st.integers(0, 2)))
        ],
    )
    clock = ClockReading(clock_s, draw(st.sampled_from([ClockState.SET] * 3 + [*ClockState])))
    channel_set = draw(st.sampled_from([report.channel_set] * 3 + [0]))
    return dataclasses.replace(report, clock=clock, channel_set=channel_set).encode()


@settings(deadline=None)
@given(
    made(),
    st.lists(st.sampled_from(list(Kept)), min_size=1, max_size=5),
    st.sampled_from([True, True, True, False]),
)
def test_both_ways_do_the_same(payload: bytes, kept: list[Kept], is_time_known: bool) -> None:
    expect_the_same(payload, kept, is_time_known=is_time_known)


@settings(deadline=None)
@given(st.data())
def test_both_ways_do_the_same_with_damaged_octets(data: st.DataObject) -> None:
    octets = bytearray(world.report(blocks=[block(1)], entries=[entry(1)]).encode())
    for _ in range(data.draw(st.integers(1, 2))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    expect_the_same(bytes(octets))


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(block(1, values=[-1, 1] * 48), id="below zero"),
        pytest.param(block(2, values=[-1, 0] * 48), id="below zero in all"),
        pytest.param(block(1, interval_s=1_800), id="another interval length"),
        pytest.param(block(9), id="a channel that was not declared"),
        pytest.param(block(1, advance=0), id="sum"),
    ],
)
@pytest.mark.parametrize("is_time_known", [True, False])
def test_both_ways_say_the_same_of_one_odd_block(odd: IntervalBlock, is_time_known: bool) -> None:
    expect_the_same(world.report(blocks=[odd]).encode(), is_time_known=is_time_known)
    other = block(3 - odd.channel if odd.channel < 3 else 1)
    expect_the_same(world.report(blocks=[other, odd]).encode(), is_time_known=is_time_known)


def test_each_outcome_of_a_plain_report_is_told_by_both_ways_alike() -> None:
    payload = world.report(blocks=[block(1), block(2)], entries=[entry(1), entry(2)]).encode()
    for place in range(5):
        kept = [Kept.NEW] * 5
        kept[place] = Kept.CONFLICT
        expect_the_same(payload, kept)


def test_the_shorter_way_is_taken() -> None:
    """Guards the tests here: two long ways would prove nothing."""
    payload = world.report(blocks=[block(1), block(2)], entries=[entry(1)]).encode()
    with mock.patch.object(DailyReport, "decode_leniently", None):
        records, answers, *_ = seen(payload, [Kept.NEW], is_time_known=True, is_plain=True)
    assert isinstance(records, tuple)
    assert len(records) == 4
    assert isinstance(answers, list)
    assert cbor2.loads(answers[0].payload) == [NOW * 1000 + 1, 0, []]
