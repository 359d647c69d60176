"""The load limit by itself: which window is in force, and for how long a load may be over it.

The contract under test: exactly the minutes of the windows, in the meter's standard time; N seconds
over the limit and not one less; a measurement that is missing never opens.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.model.control import LimitWindow, LoadLimit
from meterd.switch.limiter import GAP_S, Limiter
from tests.meterd.switch.house import MONDAY, always

DAY_S = 86_400
EVENING = LimitWindow(0b001_1111, 17 * 60, 20 * 60, 3_000)
WEEKEND = LimitWindow(0b110_0000, 0, 1_440, 5_000)


def weekly(**changed: int) -> LoadLimit:
    given = {"starts_s": 0, "ends_s": 2**32 - 1, **changed}
    return LoadLimit(30, 300, 2, windows=(EVENING, WEEKEND), **given)  # type: ignore[arg-type]


def limit_at(limiter: Limiter, utc: float) -> int | None:
    in_force = limiter.in_force(utc)
    return None if in_force is None else in_force.limit_w


@pytest.mark.parametrize("offset_min", [0, 60, -300, 840])
def test_window_is_in_force_from_its_first_second_to_its_last(offset_min: int) -> None:
    limiter = Limiter(weekly(), offset_min=offset_min)
    midnight = MONDAY - offset_min * 60
    start, end = midnight + 17 * 3_600, midnight + 20 * 3_600
    assert [limit_at(limiter, at) for at in (start - 1, start, end - 1, end)] == [
        None,
        3_000,
        3_000,
        None,
    ]
    saturday = midnight + 5 * DAY_S
    assert [limit_at(limiter, saturday + at) for at in (-1, 0, 2 * DAY_S - 1, 2 * DAY_S)] == [
        None,
        5_000,
        5_000,
        None,
    ]


def test_limit_is_in_force_from_its_start_until_before_its_end() -> None:
    start, end = MONDAY + 18 * 3_600, MONDAY + 19 * 3_600
    limiter = Limiter(weekly(starts_s=start, ends_s=end), offset_min=0)
    assert [limit_at(limiter, at) for at in (start - 1, start, end - 1, end)] == [
        None,
        3_000,
        3_000,
        None,
    ]


@pytest.mark.parametrize("over_s", [1, 30, 3_600])
def test_load_over_the_limit_counts_after_so_many_seconds_and_not_one_less(over_s: int) -> None:
    limiter = Limiter(always(3_000, over_s=over_s), offset_min=0)
    taken = [
        limiter.take(3_001, limit_w=3_000, now=1_000.0 + second) for second in range(over_s + 1)
    ]
    assert taken == [False] * over_s + [True]


def test_exactly_the_limit_is_not_over_it() -> None:
    limiter = Limiter(always(3_000, over_s=1), offset_min=0)
    assert not any(limiter.take(3_000, limit_w=3_000, now=float(at)) for at in range(100))


@pytest.mark.parametrize("between", [3_000, None])
def test_second_under_the_limit_or_not_known_begins_the_count_anew(between: int | None) -> None:
    limiter = Limiter(always(3_000), offset_min=0)
    loads: list[int | None] = [9_000] * 29 + [between] + [9_000] * 30
    taken = [limiter.take(w, limit_w=3_000, now=float(at)) for at, w in enumerate(loads)]
    assert not any(taken)
    assert limiter.take(9_000, limit_w=3_000, now=60.0)


def test_gap_in_the_measurements_begins_the_count_anew() -> None:
    limiter = Limiter(always(3_000), offset_min=0)
    assert not limiter.take(9_000, limit_w=3_000, now=0.0)
    assert not limiter.take(9_000, limit_w=3_000, now=40.0)
    assert not limiter.take(9_000, limit_w=3_000, now=40.0 + GAP_S)


@st.composite
def windows(draw: st.DrawFn) -> tuple[LimitWindow, ...]:
    edges = sorted(draw(st.sets(st.integers(0, 1_440), min_size=2, max_size=8)))
    return tuple(
        LimitWindow(draw(st.integers(1, 127)), first, last, 1_000 + place)
        for place, (first, last) in enumerate(zip(edges[::2], edges[1::2], strict=False))
    )


@settings(deadline=None, max_examples=60)
@given(
    windows=windows(),
    offset_min=st.integers(-720, 840),
    utc=st.integers(MONDAY, MONDAY + 30 * DAY_S),
    starts=st.integers(0, 20 * DAY_S),
    lasts=st.integers(1, 20 * DAY_S),
)
def test_nothing_changes_before_it_is_said_to(
    windows: tuple[LimitWindow, ...], offset_min: int, utc: int, starts: int, lasts: int
) -> None:
    limit = LoadLimit(30, 300, 2, MONDAY + starts, MONDAY + starts + lasts, windows)
    limiter = Limiter(limit, offset_min=offset_min)
    before = limiter.in_force(utc)
    change = limiter.next_change(utc)
    until = utc + 40 * DAY_S if change is None else int(change)
    assert until > utc
    for at in {utc, until - 1, (utc + until) // 2}:
        assert limiter.in_force(at) == before
