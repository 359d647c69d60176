"""Stored blocks as readings.

The contract under test: every interval has its UTC start, its scaled value or None, and its quality
in words, as plain arithmetic on the meter's own values gives them; sums are the register's; nothing
is filled in; and days written by people and days counted by readings are the same.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from fractions import Fraction

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import StoreError
from amistack.model import IntervalBlock, Quality
from amistack.model.quality import runs_to_tree
from amistack.model.wire import DAY_MAX
from headend.domain.meters import ChannelRecord
from headend.domain.readings import BlockFlag, DayBlock, Method
from headend.domain.refusals import BadWish
from headend.mdm.days import day_of, format_day, parse_day, start_of
from headend.mdm.readings import channel_day, scaled
from headend.store.interface import StoredBlock
from tests.support.headend import NOW, YESTERDAY, meter_id

METER = meter_id(1)


def stored(
    made: IntervalBlock,
    *,
    multiplier: int = 0,
    offset_min: int = 60,
    flags: BlockFlag = BlockFlag(0),  # noqa: B008
) -> StoredBlock:
    qualities = cbor2.dumps(runs_to_tree(made.qualities)) if made.qualities else b""
    return StoredBlock(
        DayBlock(
            METER, 1, YESTERDAY, 7, made.interval_s, made.opening, made.advance, made.packed,
            qualities, flags,
        ),
        ChannelRecord(1, "0.0.2.4.1", "0.0.0.1.1", multiplier, "Wh", made.interval_s),
        NOW * 1000, int(Method.SCHEDULE), "udp:192.0.2.7:5683", offset_min,
    )  # fmt: skip


@settings(max_examples=100)
@given(data=st.data())
def test_view_equals_plain_arithmetic(data: st.DataObject) -> None:
    interval_s = data.draw(st.sampled_from([900, 1800, 3600, 86_400]))
    count = 86_400 // interval_s
    values = data.draw(
        st.lists(st.none() | st.integers(-(10**6), 10**6), min_size=count, max_size=count)
    )
    flags = data.draw(
        st.lists(
            st.sampled_from([Quality(0), Quality.POWER_OFF, Quality.TEST | Quality.PARTIAL]),
            min_size=count, max_size=count,
        )
    )  # fmt: skip
    opening = data.draw(st.integers(0, 10**9))
    advance = data.draw(st.integers(0, 10**6))
    multiplier = data.draw(st.integers(-4, 4))
    offset_min = data.draw(st.integers(-12 * 60, 14 * 60))
    made = IntervalBlock.of(
        values, channel=1, interval_s=interval_s, opening=opening, advance=advance, flags=flags
    )
    view = channel_day(stored(made, multiplier=multiplier, offset_min=offset_min))

    zone = dt.timezone(dt.timedelta(minutes=offset_min))
    midnight = dt.datetime.fromisoformat(format_day(YESTERDAY)).replace(tzinfo=zone)
    for index, interval in enumerate(view.intervals()):
        at = midnight + index * dt.timedelta(seconds=interval_s)
        assert interval.start == at.timestamp()
        assert interval.duration_s == interval_s
        value = values[index]
        words = {word for word in interval.quality if word != "missing"}
        assert words == {(flag.name or "").lower().replace("_", " ") for flag in flags[index]}
        assert ("missing" in interval.quality) == (value is None)
        if value is None:
            assert interval.value is None
        else:
            assert interval.value == float(value * Fraction(10) ** multiplier)
    assert len(view.values) == len(view.qualities) == count
    assert view.opening == float(opening * Fraction(10) ** multiplier)
    assert view.closing == float((opening + advance) * Fraction(10) ** multiplier)
    assert view.total == float(advance * Fraction(10) ** multiplier)


def test_whole_numbers_stay_whole() -> None:
    assert scaled(2**53 - 1, 3) == (2**53 - 1) * 1000
    assert isinstance(scaled(5, 0), int)
    assert scaled(12_345, -3) == 12.345


def test_provenance_and_oddities_are_in_words() -> None:
    made = IntervalBlock.of([1] * 96, channel=1, interval_s=900, opening=0)
    view = channel_day(stored(made, flags=BlockFlag.SUM_MISMATCH | BlockFlag.CLOCK_DOUBTFUL))
    assert view.flags == ("sum mismatch", "clock doubtful")
    assert (view.method, view.path, view.received_ms) == (
        "schedule", "udp:192.0.2.7:5683", NOW * 1000,
    )  # fmt: skip


def test_damaged_block_is_named_and_nothing_is_made_up() -> None:
    made = stored(IntervalBlock.of([1, 2] * 48, channel=1, interval_s=900, opening=0))
    damaged = DayBlock(METER, 1, YESTERDAY, 7, 900, 0, 144, b"\x99" * 5, b"", BlockFlag(0))
    bad = StoredBlock(
        damaged, made.channel, made.received_ms, made.method, made.path, made.offset_min
    )
    with pytest.raises(StoreError, match=rf"meter {METER.hex()}, channel 1, day .* is damaged"):
        channel_day(bad)


# Days


@given(st.integers(0, DAY_MAX))
def test_day_as_text_is_the_same_day(day: int) -> None:
    assert parse_day(format_day(day)) == day


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-02-30", "20261120", "2026-W47-5", "1969-12-31", "2999-01-01",
             "2026-11-20T00:00", "٢٠٢٦-11-20"],
)  # fmt: skip
def test_what_is_no_day_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadWish, match="expected") as refusal:
        parse_day(text)
    assert "\n" not in str(refusal.value)


@given(st.integers(0, 2**32 - 1), st.integers(-12 * 60, 14 * 60))
def test_instant_lies_in_its_day(utc_s: int, offset_min: int) -> None:
    day = day_of(utc_s, offset_min)
    assert start_of(day, offset_min) <= utc_s < start_of(day + 1, offset_min)


@given(st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2030, 1, 1)))  # noqa: DTZ001
def test_standard_time_day_is_the_calendars_outside_daylight_saving(moment: dt.datetime) -> None:
    there = moment.replace(tzinfo=zoneinfo.ZoneInfo("Asia/Kolkata"))
    assert format_day(day_of(there.timestamp(), 330)) == there.date().isoformat()
