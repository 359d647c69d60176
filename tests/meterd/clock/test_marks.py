"""What the clock was like is on the intervals of then.

The contract under test: an interval has a flag exactly if a marked span touches it; a doubt lasts
from its beginning to its end, through restarts; marks are bounded, and the newest stay.
"""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from amistack.model import IntervalBlock, Quality
from meterd.clock.marks import MARK_COUNT_MAX, ClockMarks
from meterd.storage import CLOCK_MARK, Storage
from tests.support.power import TornFiles

START = 1_790_000_000 - 1_790_000_000 % 86_400
ADJUSTED, DOUBTFUL = Quality.CLOCK_ADJUSTED, Quality.TIME_DOUBTFUL


def marks_on(files: TornFiles | None = None) -> tuple[ClockMarks, TornFiles]:
    files = files or TornFiles(random.Random(1))
    return ClockMarks(Storage.on(files)), files


def block(count: int = 96, missing: int | None = None) -> IntervalBlock:
    values = [None if place == missing else 5 for place in range(count)]
    return IntervalBlock.of(values, channel=1, interval_s=900, opening=0, advance=5 * count)


spans = st.lists(
    st.tuples(
        st.integers(-90_000, 180_000),
        st.integers(0, 100_000),
        st.sampled_from([ADJUSTED, DOUBTFUL]),
    ),
    max_size=6,
)


@given(spans=spans, count=st.integers(1, 96), missing=st.integers(0, 95))
def test_interval_is_flagged_exactly_if_a_span_touches_it(
    spans: list[tuple[int, int, Quality]], count: int, missing: int
) -> None:
    marks, _ = marks_on()
    kept: dict[int, tuple[int, Quality]] = {}
    for begin, length, flag in spans:
        marks.add(START + begin, START + begin + length, flag)
        # Two that begin together are one: whatever either says, as long as either lasts.
        until, flags = kept.get(begin, (begin, Quality(0)))
        kept[begin] = (max(until, begin + length), flags | flag)
    marked = marks.mark(block(count, missing), START)
    for place, flags in enumerate(marked.flags()):
        expected = Quality.MISSING if place == missing else Quality(0)
        for begin, (end, flag) in kept.items():
            if begin < (place + 1) * 900 and end >= place * 900:
                expected |= flag
        assert flags == expected
    assert marked.packed == block(count, missing).packed


def test_doubt_lasts_from_its_beginning_to_its_end_through_a_restart() -> None:
    files = TornFiles(random.Random(1))
    storage = Storage.on(files)
    marks = ClockMarks(storage)
    marks.begin_doubt(START + 10 * 900 + 1)
    marks.begin_doubt(START + 20 * 900)
    assert len(storage.items(CLOCK_MARK)) == 1
    files.crash()
    marks, _ = marks_on(files)
    flags = marks.mark(block(), START).flags()
    assert flags == [Quality(0)] * 10 + [DOUBTFUL] * 86
    marks.end_doubt(START + 30 * 900 + 1)
    marks.end_doubt(START + 40 * 900)
    flags = marks.mark(block(), START).flags()
    assert flags == [Quality(0)] * 10 + [DOUBTFUL] * 21 + [Quality(0)] * 65


def test_day_without_marks_is_the_same_block() -> None:
    marks, _ = marks_on()
    marks.add(START - 1, START - 1, ADJUSTED)
    marks.add(START + 86_400, START + 86_400, ADJUSTED)
    one = block()
    assert marks.mark(one, START) is one


def test_newest_marks_stay_and_old_ones_go() -> None:
    storage = Storage.on(TornFiles(random.Random(1)))
    marks = ClockMarks(storage)
    for number in range(MARK_COUNT_MAX + 5):
        marks.add(START + number, START + number, ADJUSTED)
    begins = sorted(begin for begin, _ in storage.items(CLOCK_MARK))
    assert begins == list(range(START + 5, START + 5 + MARK_COUNT_MAX))
    marks.drop_before(START + 100)
    begins = sorted(begin for begin, _ in storage.items(CLOCK_MARK))
    assert begins[0] == START + 100
