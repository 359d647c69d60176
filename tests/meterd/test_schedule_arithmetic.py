"""Instants and stretches of schedules, by arithmetic and by walking.

The contract under test: the instants of a schedule are those that a walk along the days finds;
stretches that touch have every interval of every channel once, with registers that join.
"""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from amistack.model import IntervalBlock
from amistack.model.schedule import WEEK_S, ReadSchedule
from meterd.schedules.occurrences import count_between, first_from, last_until
from meterd.schedules.spans import Stretch, cut, joined, span_of

DAY = 86_400
BASE = 20_000 * DAY

offsets = st.sampled_from([0, 3600, -19_800])
periods = st.sampled_from([1800, 3600, 6 * 3600, DAY, WEEK_S])
moments = st.integers(BASE, BASE + 20 * DAY)


@st.composite
def schedules(draw: st.DrawFn) -> ReadSchedule:
    period_s = draw(periods)
    start = draw(st.just(0) | moments)
    end = draw(st.just(0) | st.integers(max(start, BASE) + 1, BASE + 30 * DAY))
    return ReadSchedule(3, period_s, draw(st.integers(0, period_s - 1)), start, end)


def walked(schedule: ReadSchedule, offset_s: int) -> list[int]:
    """Every instant near BASE, midnight by midnight; Mondays alone for a week."""
    found = []
    for day in range(BASE // DAY - 15, BASE // DAY + 45):
        midnight = day * DAY - offset_s
        if schedule.period_s == WEEK_S:
            # 1970-01-01 was a Thursday, and so a Monday is four days on.
            steps = [0] if day % 7 == 4 else []
        else:
            steps = list(range(0, DAY, schedule.period_s))
        found += [midnight + step + schedule.offset_s for step in steps]
    return [
        at for at in found if at >= schedule.start_s and (not schedule.end_s or at < schedule.end_s)
    ]


@given(schedule=schedules(), moment=moments, offset_s=offsets)
def test_first_and_last_instants_are_those_of_a_walk(
    schedule: ReadSchedule, moment: int, offset_s: int
) -> None:
    known = walked(schedule, offset_s)
    later = [at for at in known if at >= moment]
    first = first_from(schedule, moment, offset_s=offset_s)
    assert first == (later[0] if later else None)
    near = BASE - 8 * DAY  # A schedule without a start has instants since 1970.
    earlier = [at for at in known if at <= moment]
    last = last_until(schedule, moment, offset_s=offset_s)
    assert last == (earlier[-1] if earlier else None) or (last is not None and last < near)


@given(schedule=schedules(), two=st.tuples(moments, moments), offset_s=offsets)
def test_count_is_that_of_a_walk(
    schedule: ReadSchedule, two: tuple[int, int], offset_s: int
) -> None:
    after, until = min(two), max(two)
    known = [at for at in walked(schedule, offset_s) if after < at <= until]
    assert count_between(schedule, after, until, offset_s=offset_s) == len(known)


@given(two=st.tuples(moments, moments), offset_s=offsets)
def test_cut_covers_everything_once_a_day_each_newest_first(
    two: tuple[int, int], offset_s: int
) -> None:
    begin, end = min(two), max(two)
    stretches = cut(begin, end, offset_s=offset_s)
    oldest_first = stretches[::-1]
    assert [one.begin for one in oldest_first[:1]] == [begin] * (begin < end)
    assert [one.end for one in oldest_first[-1:]] == [end] * (begin < end)
    for one, following in itertools.pairwise(oldest_first):
        assert one.end == following.begin
        assert (one.end + offset_s) % DAY == 0
    for one in stretches:
        assert (one.begin + offset_s) // DAY == (one.end - 1 + offset_s) // DAY


@given(two=st.tuples(moments, moments), offset_s=offsets, dice=st.randoms(use_true_random=False))
def test_joined_mends_what_was_cut_and_nothing_over_midnight(
    two: tuple[int, int], offset_s: int, dice: object
) -> None:
    begin, end = min(two), max(two)
    whole = cut(begin, end, offset_s=offset_s)
    pieces = []
    for one in whole:
        middle = (one.begin + one.end) // 2
        halves = [Stretch(one.begin, middle), Stretch(middle, one.end)]
        pieces += [half for half in halves if half.begin < half.end]
    assert joined(pieces, offset_s=offset_s) == whole
    assert joined(whole[::2], offset_s=offset_s) == whole[::2]


@given(
    values=st.lists(st.none() | st.integers(0, 500), min_size=0, max_size=24),
    hour_s=st.sampled_from([900, 3600]),
    marks=st.sets(st.integers(0, 24 * 4), max_size=6),
    lost=st.integers(0, 1000),
)
def test_stretches_that_touch_have_every_interval_once(
    values: list[int | None], hour_s: int, marks: set[int], lost: int
) -> None:
    """Cut at quarters of an hour, which intervals of an hour do not end at."""
    has_gap = None in values
    advance = sum(value or 0 for value in values) + (lost if has_gap else 0)
    block = IntervalBlock.of(values, channel=1, interval_s=hour_s, opening=70, advance=advance)
    edges = [0, *sorted(marks - {0}), 24 * 4 + 1]
    spans = [
        span_of(block, Stretch(BASE + 900 * a, min(BASE + 900 * b, BASE + DAY)), midnight=BASE)
        for a, b in itertools.pairwise(edges)
    ]
    assert [value for span in spans for value in span.block.values()] == values
    assert spans[0].first == 0
    for one, following in itertools.pairwise(spans):
        assert following.first == one.end
        assert following.block.opening == one.block.closing
    assert spans[0].block.opening == 70
    assert spans[-1].block.closing == block.closing
