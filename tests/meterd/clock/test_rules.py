"""When a clock may be moved, and by what proof.

The contract under test: a judgement is never more than the bound allows, whatever the true error
within it; a moment that is found leaves old and new time strictly inside one interval of every
length, and none is passed over that would have come sooner.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterd.clock.rules import (
    GUARD_S,
    LOST_BEHIND_S,
    MADE_AT,
    WINDOW_MIN_S,
    Judgement,
    fit_moment,
    free_moment,
    is_lost,
    judge,
)

UTC = 1_790_000_000.0
lengths = st.lists(st.sampled_from([300, 600, 900, 1800, 3600]), min_size=1, max_size=3)
offsets = st.integers(-720, 840).map(lambda minutes: minutes * 60)
jumps = st.floats(-119.9, 119.9)


@given(error=st.floats(-300, 300), bound=st.floats(0, 100), where=st.floats(-1, 1))
def test_judgement_holds_for_every_true_error_within_the_bound(
    error: float, bound: float, where: float
) -> None:
    true = abs(error + where * bound)
    match judge(error, bound):
        case Judgement.IN_STEP:
            assert true <= 20
        case Judgement.CORRECTABLE:
            assert 20 < true < 120
        case Judgement.OUT_OF_STEP:
            assert true > 120
        case Judgement.UNSURE:
            assert bound > 0 or abs(error) == 120


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("error", "judgement"),
    [
        (19.99, Judgement.IN_STEP),
        (20, Judgement.IN_STEP),
        (20.01, Judgement.CORRECTABLE),
        (119.99, Judgement.CORRECTABLE),
        (120, Judgement.UNSURE),
        (120.01, Judgement.OUT_OF_STEP),
    ],
)
def test_limits_of_the_judgement_with_an_exact_sample(
    sign: int, error: float, judgement: Judgement
) -> None:
    assert judge(sign * error, 0) is judgement


@pytest.mark.parametrize(
    ("error", "bound", "judgement"),
    [
        (15, 5, Judgement.IN_STEP),
        (15, 5.1, Judgement.UNSURE),
        (25, 4.9, Judgement.CORRECTABLE),
        (25, 5, Judgement.UNSURE),
        (115, 4.9, Judgement.CORRECTABLE),
        (115, 5, Judgement.UNSURE),
        (125, 4.9, Judgement.OUT_OF_STEP),
        (125, 5, Judgement.UNSURE),
    ],
)
def test_bound_counts_against_every_decision(
    error: float, bound: float, judgement: Judgement
) -> None:
    assert judge(error, bound) is judgement


def inside(utc: float, length: int, offset: int) -> tuple[int, float]:
    return divmod(utc + offset, length)  # type: ignore[return-value]


@given(begin=st.floats(0, 86_400), by=jumps, many=lengths, offset=offsets)
def test_moment_leaves_old_and_new_time_strictly_inside_one_interval(
    begin: float, by: float, many: list[int], offset: int
) -> None:
    moment = fit_moment(UTC + begin, by, lengths=many, offset_s=offset)
    assert moment is not None
    assert UTC + begin <= moment <= UTC + begin + max(many) + 240
    for length in many:
        number, into = inside(moment, length, offset)
        new_number, new_into = inside(moment + by, length, offset)
        assert number == new_number
        for place in (into, new_into):
            assert GUARD_S - 1e-5 <= place <= length - GUARD_S + 1e-5


@given(begin=st.floats(0, 7200), by=jumps, length=st.sampled_from([300, 900]))
def test_no_sooner_moment_is_passed_over(begin: float, by: float, length: int) -> None:
    moment = fit_moment(UTC + begin, by, lengths=[length], offset_s=0)
    assert moment is not None
    before = UTC + begin
    while before < moment - 0.5:
        number, into = inside(before, length, 0)
        new_number, new_into = inside(before + by, length, 0)
        fits = number == new_number and all(
            GUARD_S <= place <= length - GUARD_S for place in (into, new_into)
        )
        assert not fits
        before += 0.5


@pytest.mark.parametrize("sign", [1, -1])
def test_jump_as_long_as_an_interval_has_no_moment(sign: int) -> None:
    most = 60 - 2 * GUARD_S - WINDOW_MIN_S
    assert fit_moment(UTC, sign * most, lengths=[60], offset_s=0) is not None
    assert fit_moment(UTC, sign * (most + 0.1), lengths=[60], offset_s=0) is None
    assert fit_moment(UTC, sign * (most + 0.1), lengths=[900, 60], offset_s=0) is None


@given(begin=st.floats(0, 86_400), by=st.floats(-1e7, 1e7), many=lengths, offset=offsets)
def test_ordered_jump_begins_and_ends_off_every_boundary(
    begin: float, by: float, many: list[int], offset: int
) -> None:
    moment = free_moment(UTC + begin, by, lengths=many, offset_s=offset)
    assert UTC + begin <= moment <= UTC + begin + 20
    for length in many:
        for utc in (moment, moment + by):
            _, into = inside(utc, length, offset)
            assert GUARD_S - 1e-5 <= into <= length - GUARD_S + 1e-5


def test_time_that_is_over_is_lost() -> None:
    assert is_lost(MADE_AT - 1, None)
    assert not is_lost(MADE_AT, None)
    known = MADE_AT + 10_000
    assert not is_lost(known - LOST_BEHIND_S, known)
    assert is_lost(known - LOST_BEHIND_S - 1, known)
