"""ETX: near the truth after some frames, within its bounds always."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.routing.metric import (
    EPOCH,
    ETX_CAP,
    ETX_HOPED,
    ETX_UNKNOWN,
    FRAME_FADING_DB,
    FRAMES_CERTAIN,
    HOPE_OF_ONE,
    IDLE_TIME,
    OUT_DOUBLINGS_MAX,
    OUT_TIME,
    REST_DOUBLINGS_MAX,
    REST_TIME,
    SAMPLES_MEASURED,
    STALE_TIME,
    LinkMetric,
    hoped_at,
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=200))
def test_it_stays_between_one_and_the_cap(frames: list[tuple[int, bool]]) -> None:
    metric = LinkMetric(now=0.0)
    for number, (attempts, is_acknowledged) in enumerate(frames):
        metric.note_attempts(attempts, is_acknowledged=is_acknowledged, now=float(number))
        assert 1.0 <= metric.etx <= ETX_CAP


@pytest.mark.parametrize("share", [1.0, 0.8, 0.6, 0.4])
def test_it_finds_the_truth(share: float) -> None:
    chance = random.Random(7)
    metric = LinkMetric(now=0.0)
    seen = []
    for number in range(2000):
        attempts = 1
        while chance.random() > share and attempts < 8:
            attempts += 1
        metric.note_attempts(attempts, is_acknowledged=attempts < 8, now=float(number))
        if number > 100:
            seen.append(metric.etx)
    assert sum(seen) / len(seen) == pytest.approx(1 / share, rel=0.15)


def test_a_few_good_frames_tell_a_good_link_from_an_unknown_one() -> None:
    metric = LinkMetric(now=0.0)
    assert metric.etx == ETX_UNKNOWN
    for number in range(4):
        metric.note_attempts(1, is_acknowledged=True, now=float(number))
    assert metric.is_measured
    assert metric.etx < 1.3


def test_a_figure_is_a_measurement_after_some_transmissions_in_however_few_frames() -> None:
    metric = LinkMetric(now=0.0)
    metric.note_attempts(SAMPLES_MEASURED - 1, is_acknowledged=True, now=1.0)
    assert not metric.is_measured
    metric.note_attempts(1, is_acknowledged=True, now=2.0)
    assert metric.is_measured


def test_one_bad_frame_does_not_condemn_a_link() -> None:
    metric = LinkMetric(now=0.0)
    for number in range(20):
        metric.note_attempts(1, is_acknowledged=True, now=float(number))
    metric.note_attempts(5, is_acknowledged=False, now=21.0)
    assert metric.etx < 2.0
    assert metric.failures_in_a_row == 1


def test_strength_is_where_to_begin_and_no_more() -> None:
    metric = LinkMetric(now=0.0)
    metric.guess(20.0)
    strong = metric.etx
    metric.guess(3.0)
    assert strong < ETX_UNKNOWN < metric.etx
    metric.note_attempts(1, is_acknowledged=True, now=1.0)
    before = metric.etx
    metric.guess(20.0)
    assert metric.etx == before


def test_it_is_due_when_nobody_tried_it_for_long() -> None:
    metric = LinkMetric(now=0.0)
    assert not metric.is_due(1500.0, now=1499.0)
    assert metric.is_due(1500.0, now=1500.0)
    metric.note_attempts(1, is_acknowledged=False, now=1500.0)
    assert not metric.is_due(1500.0, now=1600.0)


def test_a_strength_that_was_heard_weighs_as_several_frames() -> None:
    heard, unheard = LinkMetric(now=0.0), LinkMetric(now=0.0)
    heard.guess(20.0)
    for metric in (heard, unheard):
        metric.note_attempts(5, is_acknowledged=True, now=1.0)
    assert heard.etx < 2.0
    assert unheard.etx > 3.0
    # In the end only what was measured counts.
    for _ in range(200):
        heard.note_attempts(5, is_acknowledged=True, now=2.0)
    assert heard.etx > 4.9


BAD = 3.0


def remembered(margin_db: float) -> LinkMetric:
    """A link whose figure is BAD and rests on many frames, the last at 0 s."""
    metric = LinkMetric(now=0.0)
    metric.guess(margin_db)
    for _ in range(100):
        metric.note_attempts(1, is_acknowledged=True, now=0.0)
    metric.etx = BAD
    return metric


STRONG, WEAK = 20.0, 3.0


@pytest.mark.parametrize(
    ("idle", "attempts", "margin", "is_doubted"),
    [
        (IDLE_TIME, 1, STRONG, True),
        (IDLE_TIME - 1.0, 1, STRONG, False),
        (IDLE_TIME, 2, STRONG, True),
        (IDLE_TIME, 3, STRONG, False),
        (IDLE_TIME, 1, WEAK, False),
    ],
)
def test_a_figure_of_a_worse_hour_is_doubted_when_frame_and_strength_say_so(
    idle: float, attempts: int, margin: float, *, is_doubted: bool
) -> None:
    metric = remembered(margin)
    metric.note_attempts(attempts, is_acknowledged=True, now=idle)
    assert (metric.frames < FRAMES_CERTAIN) is is_doubted
    assert (metric.etx < BAD - 0.5) is is_doubted
    # So it is worth another try, and until then no better than half the way.
    assert (metric.least < metric.etx) is is_doubted
    assert metric.etx > (metric.guessed + 1.0) / 2


def test_a_frame_that_was_lost_makes_no_old_figure_better() -> None:
    metric = remembered(STRONG)
    metric.note_attempts(1, is_acknowledged=False, now=IDLE_TIME)
    assert metric.etx >= BAD
    assert metric.frames > FRAMES_CERTAIN


@pytest.mark.parametrize(("margin", "better"), [(12.0, 11.9), (8.0, 7.9), (5.0, 4.9), (3.0, 2.9)])
def test_a_stronger_neighbour_is_never_guessed_worse(margin: float, better: float) -> None:
    strong, weak = LinkMetric(now=0.0), LinkMetric(now=0.0)
    strong.guess(margin)
    weak.guess(better)
    assert strong.etx < weak.etx


def test_an_old_figure_is_in_doubt_and_hope_never_exceeds_what_is_heard() -> None:
    metric = LinkMetric(now=0.0)
    metric.guess(6.0)
    for _ in range(SAMPLES_MEASURED):
        metric.note_attempts(4, is_acknowledged=True, now=1.0)
    assert not metric.is_doubtful(now=STALE_TIME)
    assert metric.is_doubtful(now=STALE_TIME + 1.0)
    assert ETX_HOPED <= metric.hoped <= metric.guessed < metric.etx


def test_the_more_often_a_link_was_tried_the_less_is_hoped_of_it() -> None:
    metric = LinkMetric(now=0.0)
    metric.guess(6.0)
    hopes = []
    for _ in range(FRAMES_CERTAIN):
        metric.note_attempts(6, is_acknowledged=True, now=1.0)
        hopes.append(metric.etx - metric.least)
    assert hopes[8] == pytest.approx(HOPE_OF_ONE / 3)
    assert hopes[-2] == pytest.approx(HOPE_OF_ONE / math.sqrt(FRAMES_CERTAIN - 1))
    assert hopes[-1] == 0.0
    assert all(later < before for before, later in itertools.pairwise(hopes[3:]))
    good = LinkMetric(now=0.0)
    for _ in range(SAMPLES_MEASURED):
        good.note_attempts(1, is_acknowledged=True, now=1.0)
    assert good.least == ETX_HOPED


def test_failures_in_a_row_remember_when_they_began() -> None:
    metric = LinkMetric(now=0.0)
    for now in (5.0, 6.0, 7.0):
        metric.note_attempts(5, is_acknowledged=False, now=now)
    assert (metric.failures_in_a_row, metric.failing_since) == (3, 5.0)
    metric.note_attempts(1, is_acknowledged=True, now=8.0)
    metric.note_attempts(5, is_acknowledged=False, now=9.0)
    assert (metric.failures_in_a_row, metric.failing_since) == (1, 9.0)


@given(st.floats(-20.0, 40.0))
def test_one_frame_of_a_link_says_the_best_that_it_may_be(margin: float) -> None:
    metric = LinkMetric(now=0.0)
    metric.guess(margin)
    assert ETX_HOPED <= hoped_at(margin) <= max(metric.guessed, ETX_HOPED)
    assert hoped_at(margin - FRAME_FADING_DB) == max(metric.guessed, ETX_HOPED)


@pytest.mark.parametrize(
    ("failures", "seconds", "is_new"), [(3, 60.0, True), (2, 60.0, False), (3, 59.0, False)]
)
def test_one_that_was_away_begins_where_its_strength_says(
    failures: int, seconds: float, *, is_new: bool
) -> None:
    metric = LinkMetric(now=0.0)
    metric.guess(20.0)
    for _ in range(40):
        metric.note_attempts(1, is_acknowledged=True, now=0.0)
    for number in range(failures):
        metric.note_attempts(5, is_acknowledged=False, now=100.0 + number)
        assert metric.is_doubtful(now=100.0 + number)
    lost = metric.etx
    assert lost > 1.7
    metric.note_attempts(1, is_acknowledged=True, now=100.0 + seconds)
    if is_new:
        assert metric.etx < 1.1
        assert metric.samples == 1
        assert not metric.is_measured
    else:
        assert metric.etx > lost - 0.5
        assert metric.samples > 40


def test_one_that_fails_is_tried_ever_later_where_nothing_hangs_on_it() -> None:
    metric = LinkMetric(now=0.0)
    metric.note_attempts(5, is_acknowledged=False, now=10.0)
    assert not metric.is_at_rest(now=10.0)
    for number in range(REST_DOUBLINGS_MAX + 3):
        at = 100.0 * (number + 1)
        metric.note_attempts(5, is_acknowledged=False, now=at)
        rest_time = REST_TIME * 2 ** min(number, REST_DOUBLINGS_MAX)
        assert metric.is_at_rest(now=at + rest_time - 0.01)
        assert not metric.is_at_rest(now=at + rest_time)
    metric.note_attempts(1, is_acknowledged=True, now=5001.0)
    assert not metric.is_at_rest(now=5001.0)


@pytest.mark.parametrize("per_second", [0.02, 1, 50])
def test_how_many_frames_there_are_makes_a_figure_no_quicker_than_its_epoch(
    per_second: float,
) -> None:
    metric = LinkMetric(now=0.0)
    count, now = int(max(20 * EPOCH * per_second, 100)), 0.0
    for number in range(1, count + 1):
        now = number / per_second
        metric.note_attempts(1, is_acknowledged=True, now=now)
    assert metric.etx < 1.05
    # Every frame takes three attempts from now on.
    frames = 0
    while metric.etx < 1 + 2 * (1 - 1 / math.e):
        frames += 1
        metric.note_attempts(3, is_acknowledged=True, now=now + frames / per_second)
    assert frames / per_second >= 0.9 * EPOCH
    assert frames == pytest.approx(max(EPOCH * per_second, 8), rel=0.1, abs=1)


def test_one_that_failed_twice_is_out_for_a_while_longer_each_time() -> None:
    metric = LinkMetric(now=0.0)
    metric.note_attempts(5, is_acknowledged=False, now=10.0)
    assert not metric.is_out(now=10.0)
    for number in range(OUT_DOUBLINGS_MAX + 3):
        at = 100.0 * (number + 1)
        metric.note_attempts(5, is_acknowledged=False, now=at)
        out_time = OUT_TIME * 2 ** min(number, OUT_DOUBLINGS_MAX)
        assert metric.is_out(now=at + out_time - 0.01)
        assert not metric.is_out(now=at + out_time)
    metric.note_attempts(5, is_acknowledged=False, now=5000.0)
    assert metric.is_out(now=5000.0)
    metric.note_attempts(1, is_acknowledged=True, now=5001.0)
    assert not metric.is_out(now=5001.0)
