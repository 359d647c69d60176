"""Qualities as runs.

The contract under test: `expand` inverts `runs_of`; every list of flags has one list of runs,
and `expand` refuses any other.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model.quality import Quality, QualityRun, expand, runs_of

flag_lists = st.lists(st.sampled_from([0, 0, 1, 2, 3]).map(Quality), max_size=30)
runs = st.builds(
    QualityRun, st.integers(0, 12), st.integers(1, 4), st.sampled_from([1, 2]).map(Quality)
)


@given(flag_lists)
@settings(deadline=None)
def test_expand_inverts_runs_of(flags: list[Quality]) -> None:
    assert expand(runs_of(flags), len(flags)) == flags


@given(st.lists(runs, max_size=4), st.integers(0, 16))
@settings(deadline=None, max_examples=300)
def test_any_runs_are_the_one_way_to_say_it_or_refused(some: list[QualityRun], count: int) -> None:
    try:
        flags = expand(some, count)
    except ModelError:
        return
    assert list(runs_of(flags)) == some


def test_flags_keep_their_published_numbers() -> None:
    assert {flag.name: flag.value for flag in Quality} == {
        "MISSING": 1,
        "POWER_OFF": 2,
        "PARTIAL": 4,
        "CLOCK_ADJUSTED": 8,
        "TIME_DOUBTFUL": 16,
        "ESTIMATED": 32,
        "TEST": 64,
    }


def test_clean_day_has_no_runs() -> None:
    assert runs_of([Quality(0)] * 96) == ()


@pytest.mark.parametrize(
    "some",
    [
        [QualityRun(4, 2, Quality.TEST), QualityRun(2, 1, Quality.TEST)],
        [QualityRun(2, 3, Quality.TEST), QualityRun(4, 1, Quality.MISSING)],
        [QualityRun(2, 2, Quality.TEST), QualityRun(4, 1, Quality.TEST)],
        [QualityRun(9, 2, Quality.TEST)],
    ],
    ids=["descending", "overlapping", "not merged", "beyond the end"],
)
def test_runs_out_of_order_are_refused(some: list[QualityRun]) -> None:
    with pytest.raises(ModelError, match="bad quality"):
        expand(some, 10)


def test_run_without_flags_or_intervals_cannot_be_made() -> None:
    with pytest.raises(ModelError):
        QualityRun(0, 1, Quality(0))
    with pytest.raises(ModelError):
        QualityRun(0, 0, Quality.TEST)
