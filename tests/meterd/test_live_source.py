"""A source whose values arrive by themselves, and what the recorder makes of it.

The contract under test: an interval has a value when the register was seen within the tolerance
before both its ends, in one era; otherwise it is a gap, and its energy is on the register all the
same; any window, in any order and after a restart, gets the same answer; silence is told once.
"""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import SourceError
from amistack.model.quality import Quality
from meterd.metrology import LiveSource
from meterd.metrology.live import BOUNDARY_COUNT_MAX, NOTE_COUNT_MAX, Sensor
from meterd.metrology.registers import NoteKind, Reading, Register, RegisterTracker
from meterd.metrology.source import Flow
from meterd.recorder import Recorder
from meterd.storage import Storage
from tests.support.power import TornFiles

WH = 1_000
DAY = 86_400
MIDNIGHT = 20_700 * DAY
STEP = 900


def reading(wh: float, meter: str = "A", at: int | None = None) -> Reading:
    return Reading((Register("1.8.0", Flow.DELIVERED, int(wh * WH)),), meter, at)


def live(known_from: int = MIDNIGHT, **more: float) -> LiveSource:
    return LiveSource(RegisterTracker((Flow.DELIVERED,)), known_from=known_from, **more)  # type: ignore[arg-type]  # by name


def feed(source: LiveSource, *shown: tuple[float, float]) -> None:
    """Readings at seconds after midnight."""
    for at, wh in shown:
        is_taken, _ = source.take(reading(wh), utc=MIDNIGHT + at)
        assert is_taken


def test_interval_is_the_difference_of_the_last_readings_before_its_ends() -> None:
    source = live()
    feed(source, (-4, 100), (5, 101), (893, 180), (903, 181), (1795, 250))
    assert source.energy(MIDNIGHT, 2) == [(80,), (70,)]
    # What flowed after the last reading before an end belongs to the next interval: none is lost.
    assert source.register(MIDNIGHT) == (100,)
    assert source.register(MIDNIGHT + STEP) == (180,)


@pytest.mark.parametrize(("age", "is_known"), [(0, True), (15, True), (15.1, False)])
def test_reading_before_a_boundary_counts_up_to_the_tolerance_and_not_beyond(
    age: float, is_known: bool
) -> None:
    source = live()
    feed(source, (0, 100), (STEP - age, 180))
    for _ in range(2):
        assert source.energy(MIDNIGHT, 1) == [(80 if is_known else None,)]
        # The same after the next reading has come.
        feed(source, (STEP + 3, 200))


def test_reading_after_a_boundary_never_stands_for_it() -> None:
    source = live()
    feed(source, (0, 100), (STEP + 0.01, 180), (2 * STEP, 260))
    assert source.energy(MIDNIGHT, 2) == [(None,), (None,)]


def test_missed_boundary_makes_two_gaps_and_the_register_keeps_what_flowed() -> None:
    source = live()
    feed(source, (0, 100), (895, 150), (1700, 220), (1900, 240), (2695, 300), (3595, 350))
    assert source.energy(MIDNIGHT, 4) == [(50,), (None,), (None,), (50,)]
    assert source.register(MIDNIGHT + 3 * STEP) == (300,)


def test_interval_with_an_exchange_in_it_is_a_gap_and_its_neighbours_are_not() -> None:
    source = live()
    feed(source, (0, 100), (890, 150), (1000, 160))
    for second in range(1100, 3700, 10):
        source.take(reading(5 + second / 100, "B"), utc=MIDNIGHT + second)
    values = source.energy(MIDNIGHT, 4)
    assert values[:2] == [(50,), (None,)]
    assert values[2:] == [(9,), (9,)]


def test_rounding_never_adds_up() -> None:
    source = live()
    feed(source, *((n * STEP, n * 0.4) for n in range(100)))
    values = [value for (value,) in source.energy(MIDNIGHT, 99)]
    assert sum(value or 0 for value in values) == round(99 * 0.4)
    assert set(values) == {0, 1}


def test_partial_rises_from_zero_to_the_interval() -> None:
    source = live()
    feed(source, (0, 100))
    seen = []
    for second in (10, 400, 890):
        feed(source, (second, 100 + second / 10))
        seen.append(source.partial(MIDNIGHT, MIDNIGHT + second))
    assert seen == [(1,), (40,), (89,)]
    assert source.partial(MIDNIGHT, MIDNIGHT) == (0,)
    assert source.partial(MIDNIGHT, MIDNIGHT + STEP) == source.energy(MIDNIGHT, 1)[0] == (89,)
    assert source.partial(MIDNIGHT + 2 * STEP, MIDNIGHT + 2 * STEP + 5) == (None,)


def test_window_that_nobody_can_ask_for_is_refused() -> None:
    source = live()
    for start, count in ((MIDNIGHT + 1, 1), (MIDNIGHT, -1), (-STEP, 1)):
        with pytest.raises(SourceError):
            source.energy(start, count)
    with pytest.raises(SourceError, match="not a number"):
        source.partial(MIDNIGHT, float("nan"))
    assert source.available() == (MIDNIGHT, None)
    assert source.take(reading(1), utc=-1.0)[0] is False


def test_boundaries_are_bounded_and_the_latest_are_kept() -> None:
    source = live()
    count = BOUNDARY_COUNT_MAX + 10
    feed(source, *((n * STEP, n) for n in range(count + 1)))
    assert len(source._marks) == BOUNDARY_COUNT_MAX
    assert source.energy(MIDNIGHT, 1) == [(None,)]
    assert source.energy(MIDNIGHT + (count - 2) * STEP, 2) == [(1,), (1,)]


def test_clock_that_goes_back_changes_no_boundary_that_was_told() -> None:
    source = live()
    feed(source, (0, 100), (STEP - 5, 150), (STEP + 5, 151))
    before = source.energy(MIDNIGHT, 1)
    feed(source, (STEP - 3, 152), (STEP + 7, 153))
    assert source.energy(MIDNIGHT, 1) == before == [(50,)]


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.floats(0.5, 1_500), min_size=2, max_size=60),
    cut=st.integers(0, 60),
    dice=st.randoms(use_true_random=False),
)
def test_answers_are_a_naive_models_in_any_order_and_after_a_restart(
    gaps: list[float], cut: int, dice: random.Random
) -> None:
    shown: list[tuple[float, int]] = []
    source, at, wh = live(), 0.0, 1_000
    for number, gap in enumerate(gaps):
        at += gap
        wh += dice.randrange(200)
        shown.append((at, wh))
        feed(source, (at, wh))
        if number == cut:
            again = live()
            kept = source.state()
            assert kept is not None
            again.resume(kept)
            # What was not told before the restart is not known after it, but for the last.
            source = again
            shown = [
                one for one in shown if one[0] >= (max(source._marks, default=0) - MIDNIGHT - 15)
            ]
    last = int(at // STEP)

    def register(boundary: int) -> int | None:
        close = [wh for at, wh in shown if 0 <= boundary * STEP - at <= 15]
        return close[-1] if close else None

    expected = []
    for number in range(last):
        first, second = register(number), register(number + 1)
        is_known = first is not None and second is not None
        expected.append(second - first if is_known else None)  # type: ignore[operator]  # not None
    whole = [value for (value,) in source.energy(MIDNIGHT, last)]
    for number, (value, model) in enumerate(zip(whole, expected, strict=True)):
        if value != model:
            # Only what a restart forgot, and never another number.
            assert value is None, number
            assert cut < len(gaps)
    for number in dice.sample(range(last), last):
        assert source.energy(MIDNIGHT + number * STEP, 1) == [(whole[number],)]


def test_without_a_restart_the_answers_are_the_naive_models_exactly() -> None:
    dice = random.Random(5)
    source, at, wh, shown = live(), 0.0, 0, []
    for _ in range(20_000):
        at += dice.choice((1.0, 10.0, 10.3, 14.0)) if dice.random() < 0.98 else 400.0
        wh += dice.randrange(3)
        shown.append((at, wh))
        feed(source, (at, wh))
    last = int(at // STEP)
    assert last < BOUNDARY_COUNT_MAX
    model = []
    for boundary in range(last + 1):
        close = [wh for at, wh in shown if 0 <= boundary * STEP - at <= 15]
        model.append(close[-1] if close else None)
    expected = [(None if a is None or b is None else b - a,) for a, b in itertools.pairwise(model)]
    assert source.energy(MIDNIGHT, last) == expected
    assert sum(value is None for (value,) in expected) > 20
    assert sum(value is not None for (value,) in expected) > 20


@pytest.mark.parametrize("text", ["", "null", "{}", '{"tracker":1,"mark":null}', "[" * 99_999])
def test_kept_state_that_is_none_is_refused(text: str) -> None:
    source = live()
    with pytest.raises(SourceError):
        source.resume(text)
    assert source.state() is None


def test_kept_mark_of_other_flows_is_refused() -> None:
    source = live()
    feed(source, (-5, 1), (5, 2))
    kept = json.loads(source.state() or "")
    kept["mark"][3] = [1, 2]
    with pytest.raises(SourceError, match="other flows"):
        live().resume(json.dumps(kept))


# The recorder


class Meter:
    """A recorder with a live source, on files that survive a kill."""

    def __init__(self, register_start: tuple[int, ...] = ()) -> None:
        self.files = TornFiles(random.Random(0))
        self.register_start = register_start
        self.start()

    def start(self) -> None:
        self.storage = Storage.on(self.files)
        self.source = live()
        kept = self.storage.note("source")
        if kept is not None:
            self.source.resume(kept)
        self.recorder = Recorder(
            self.storage, self.source, offset_min=0, register_start=self.register_start
        )

    def restart(self) -> None:
        self.files.kill()
        self.start()

    def run(self, begin: int, end: int, wh: float, step: int = 10, watts: float = 720) -> float:
        """Readings every `step` s, intervals recorded as they end; the last Wh shown."""
        for second in range(begin, end, step):
            feed(self.source, (second, wh))
            wh += watts * step / 3600
            if (second + step) % STEP < step:
                self.recorder.advance(MIDNIGHT + second + step + 0.05)
        return wh


def test_recorded_day_opens_with_the_dial_and_closes_with_it() -> None:
    meter = Meter(register_start=(5,))
    meter.recorder.advance(MIDNIGHT + 1)
    wh = meter.run(0, DAY, 4_000_000)
    (block,) = meter.recorder.block(MIDNIGHT // DAY)
    assert block.count == 96
    # The first telegram came with the day: 180 Wh each quarter, less what the last 10 s hold.
    assert block.values()[1:] == (180,) * 95
    assert block.closing == round(wh - 2)
    assert block.opening == 4_000_000
    assert block.is_consistent


def test_silent_sensor_leaves_gaps_of_quality_missing_and_its_energy_on_the_register() -> None:
    meter = Meter()
    wh = meter.run(0, 6 * 3600, 10_000)
    for hour in (6, 7):
        for quarter in range(4):
            meter.recorder.advance(MIDNIGHT + hour * 3600 + (quarter + 1) * STEP + 0.05)
    # It comes back after two hours, 1,440 Wh further.
    wh = meter.run(8 * 3600 + 60, DAY, wh + 1_440)
    (block,) = meter.recorder.block(MIDNIGHT // DAY)
    values = block.values()
    gaps = [place for place, value in enumerate(values) if value is None]
    assert gaps == list(range(24, 33))
    assert [(run.first, run.count, run.flags) for run in block.qualities] == [
        (24, 9, Quality.MISSING)
    ]
    assert block.closing == round(wh - 2)
    assert block.advance > sum(value or 0 for value in values)


def test_restart_within_an_interval_costs_nothing_of_a_meter_with_a_dial() -> None:
    meter = Meter()
    wh = meter.run(0, 3 * STEP, 10_000)
    meter.run(3 * STEP, 3 * STEP + 200, wh)
    meter.restart()
    meter.recorder.advance(MIDNIGHT + 3 * STEP + 500)
    meter.run(3 * STEP + 500, 6 * STEP, wh + 100)
    (block,) = meter.recorder.block(MIDNIGHT // DAY)
    assert block.values() == (178, *(180,) * 5)
    assert block.is_consistent


def test_restart_over_a_boundary_leaves_its_two_intervals_missing() -> None:
    meter = Meter()
    wh = meter.run(0, 3 * STEP, 10_000)
    meter.restart()
    meter.recorder.advance(MIDNIGHT + 4 * STEP + 100)
    meter.run(4 * STEP + 100, 6 * STEP, wh + 200)
    (block,) = meter.recorder.block(MIDNIGHT // DAY)
    assert block.values() == (178, 180, 180, None, None, 180)
    assert block.closing == 10_000 + 180 * 6 - 2


def test_register_read_on_demand_is_the_dial_and_the_last_known_one_in_silence() -> None:
    meter = Meter(register_start=(7,))
    meter.recorder.advance(MIDNIGHT)
    assert meter.recorder.registers(MIDNIGHT + 5) == ((1, 7),)
    meter.run(0, STEP + 300, 10_000)
    assert meter.recorder.registers(MIDNIGHT + STEP + 295) == ((1, 10_238),)
    assert meter.recorder.registers(MIDNIGHT + STEP + 600) == ((1, 10_238),)
    before = meter.recorder.registers(MIDNIGHT + STEP + 600)
    # Also after a boundary that nobody saw.
    meter.recorder.advance(MIDNIGHT + 2 * STEP + 1)
    (now,) = meter.recorder.registers(MIDNIGHT + 2 * STEP + 2)
    assert 10_178 <= now[1] <= before[0][1]


def test_gap_over_midnight_opens_the_new_day_with_the_last_known_register() -> None:
    meter = Meter()
    wh = meter.run(0, DAY - 2 * STEP, 10_000)
    meter.recorder.advance(MIDNIGHT + DAY + STEP)
    meter.run(DAY + STEP + 10, DAY + 4 * STEP, wh + 600)
    (old,) = meter.recorder.block(MIDNIGHT // DAY)
    (new,) = meter.recorder.block(MIDNIGHT // DAY + 1)
    assert old.values()[-3:] == (180, None, None)
    assert new.opening == old.closing == round(wh - 2)
    assert new.values()[:4] == (None, None, 180, 180)
    assert new.closing > new.opening + 360


# The sensor


def test_silence_is_told_once_and_so_is_the_return() -> None:
    sensor = Sensor(live(), silence_s=60)
    sensor.check(utc=MIDNIGHT)
    for second in (30, 59.9):
        sensor.check(utc=MIDNIGHT + second)
    assert sensor.notes() == []
    for second in (60, 61, 500):
        sensor.check(utc=MIDNIGHT + second)
    assert [(note.kind, note.detail) for note in sensor.notes()] == [
        (NoteKind.VANISHED, "no reading for 60 s")
    ]
    assert not sensor.is_there
    sensor.take(reading(1), utc=MIDNIGHT + 501)
    sensor.take(reading(2), utc=MIDNIGHT + 502)
    assert [(note.kind, note.detail) for note in sensor.notes()] == [(NoteKind.RETURNED, "A")]
    assert (sensor.is_there, sensor.readings) == (True, 2)


def test_sensor_that_only_sends_what_is_refused_has_vanished_and_says_why() -> None:
    sensor = Sensor(live(), silence_s=60)
    sensor.take(reading(1), utc=MIDNIGHT)
    sensor.refused["check sum wrong"] = 7
    sensor.check(utc=MIDNIGHT + 60)
    (note,) = sensor.notes()
    assert note.detail == "no reading for 60 s; refused: check sum wrong"


def test_gateway_that_repeats_a_telegram_counts_as_silent() -> None:
    sensor = Sensor(live(), silence_s=60)
    assert sensor.take(reading(1, at=5), utc=MIDNIGHT)
    assert not any(sensor.take(reading(1, at=5), utc=MIDNIGHT + n) for n in range(1, 61))
    sensor.check(utc=MIDNIGHT + 60)
    assert [note.kind for note in sensor.notes()] == [NoteKind.VANISHED]
    assert sensor.refused["same time as before"] == 60
    assert sensor.take(reading(2, at=6), utc=MIDNIGHT + 61)


def test_notes_that_nobody_collects_are_bounded() -> None:
    sensor = Sensor(live())
    sensor.take(reading(1), utc=MIDNIGHT)
    for n in range(500):
        sensor.take(reading(1, f"M{n}"), utc=MIDNIGHT + n)
    notes = sensor.notes()
    assert (len(notes), notes[-1].detail) == (NOTE_COUNT_MAX, "M499")
