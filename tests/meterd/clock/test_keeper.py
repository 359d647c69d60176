"""A meter's clock is kept right: by what rules, and what is said when it is not.

The contract under test: it is compared at least once a day; an error between 20 and 120 s is
corrected, strictly inside an interval; above 120 s there is one event, and doubt until an operator
sets it; every jump and every failure is on record, and no jump comes without its entry.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import ModelError, StoreError
from amistack.model import ClockState
from amistack.model.clock import ClockSetting
from amistack.model.event_catalogue import (
    CLOCK_IN_STEP,
    CLOCK_LOST,
    CLOCK_OUT_OF_STEP,
    CLOCK_SYNC_FAILED,
)
from amistack.model.events import CLOCK_FAILED, CLOCK_SET
from amistack.model.resources import CLOCK
from meterd.clock import DRIFT_PPM_MAX
from meterd.clock.keeper import DAY_S, SAMPLES_PER_RUN, STORAGE_RETRY_S
from meterd.parts import Urgency
from tests.meterd.clock.bench import EPOCH, ClockBench

HOUR = 3600
NAME = b"command1"


def setting(bench: ClockBench, *, name: bytes = NAME, late_s: float = 0.0) -> Message:
    stamp = bench.true_utc(bench.now) + bench.head_end_ahead_s - late_s
    return bench.put(ClockSetting(name, round(stamp * 1000)).encode())


@pytest.mark.requirement("B1-FR-94")
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("offset", "is_reset"), [(19, False), (20, False), (21, True), (119, True), (120, False)]
)
def test_clock_is_reset_between_twenty_and_120_seconds_only(
    sign: int, offset: int, is_reset: bool
) -> None:
    bench = ClockBench(ahead_s=sign * offset)
    bench.elapse(HOUR)
    assert len(bench.jumps) == is_reset
    assert abs(bench.error_s) == pytest.approx(0 if is_reset else offset, abs=0.01)


@pytest.mark.requirement("B1-FR-121")
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("offset", "is_told"), [(119, False), (120, False), (121, True)])
def test_event_comes_above_120_seconds_only_and_once(sign: int, offset: int, is_told: bool) -> None:
    bench = ClockBench(ahead_s=sign * offset)
    bench.elapse(3 * DAY_S)
    assert bench.events().count(CLOCK_OUT_OF_STEP) == is_told
    if is_told:
        assert bench.jumps == []
        assert bench.clock.state_at(bench.now) is ClockState.DOUBTFUL


def before(place: int, *, of: int) -> float:
    """The start at which a meter 100 s behind is done asking a minute before that second."""
    return (place - 60 - int(EPOCH) + 100 - (SAMPLES_PER_RUN - 1) * 5) % of


@pytest.mark.requirement("B1-FR-90")
@given(
    ahead=st.floats(-119, 119).filter(lambda ahead: abs(ahead) > 21),
    start=st.floats(0, 3600),
    lengths=st.sampled_from([(900,), (300,), (300, 3600), (600, 900), (3600,)]),
    offset_min=st.sampled_from([0, 60, -210, 345]),
)
# A minute before a boundary that only the second length has, and one of a quarter of an hour's
# offset: a jump of 100 s would be over it.
@example(ahead=-100.0, start=before(900, of=1800), lengths=(600, 900), offset_min=0)
@example(ahead=-100.0, start=before(900, of=3600), lengths=(3600,), offset_min=345)
@settings(deadline=None, max_examples=60)
def test_clock_is_compared_within_a_day_and_moved_strictly_inside_an_interval(
    ahead: float, start: float, lengths: tuple[int, ...], offset_min: int
) -> None:
    bench = ClockBench(ahead_s=ahead, lengths=lengths, offset_min=offset_min, epoch=EPOCH + start)
    bench.elapse(DAY_S)
    assert bench.asked
    ((old, new),) = bench.jumps
    assert new - old == pytest.approx(-ahead, abs=0.01)
    for length in lengths:
        places = [divmod(utc + offset_min * 60, length) for utc in (old, new)]
        assert places[0][0] == places[1][0]
        assert all(0 < into < length for _, into in places)
    bench.elapse(5 * DAY_S)
    times = [*bench.asked, bench.now]
    assert all(later - earlier <= 86_400 for earlier, later in itertools.pairwise(times))


@pytest.mark.requirement("B1-FR-90")
@pytest.mark.parametrize("ahead", [-60, 60])
@pytest.mark.parametrize("into", [0.0, 1.0, 30.0, 59.0, 841.0, 870.0, 899.9])
def test_jump_that_is_due_at_a_boundary_waits_until_it_is_over(ahead: int, into: float) -> None:
    begin = EPOCH - EPOCH % 900
    # The run of samples ends exactly there, by the meter's clock.
    bench = ClockBench(ahead_s=ahead, epoch=begin + into - ahead - (SAMPLES_PER_RUN - 1) * 5)
    bench.elapse(HOUR)
    ((old, new),) = bench.jumps
    assert old // 900 == new // 900
    assert 0 < old % 900 < 900
    assert 0 < new % 900 < 900


@pytest.mark.parametrize("late_s", [0.5, 800.0, 890.0, 899.9, 1000.0])
def test_jump_whose_driver_woke_late_is_still_inside_an_interval(late_s: float) -> None:
    bench = ClockBench(ahead_s=-60, epoch=EPOCH - EPOCH % 900 + 60 + 850)
    bench.elapse(16)
    due = bench.keeper.next_timer()
    assert due is not None
    assert bench.jumps == []
    bench.now = due + late_s
    bench.elapse(HOUR)
    ((old, new),) = bench.jumps
    assert old // 900 == new // 900
    assert 0 < old % 900 < new % 900


@pytest.mark.requirement("B1-FR-91")
@pytest.mark.parametrize("sign", [1, -1])
def test_meter_alone_for_days_keeps_time_within_its_drift_and_knows_how_well(sign: int) -> None:
    bench = ClockBench(drift_ppm=sign * DRIFT_PPM_MAX)
    bench.elapse(60)
    assert bench.clock.state_at(bench.now) is ClockState.SET
    bench.is_reachable = False
    began = bench.now
    for _ in range(10):
        bench.elapse(DAY_S)
        gone = bench.now - began
        assert abs(bench.error_s) <= gone * DRIFT_PPM_MAX * 1e-6 + 0.01
        best = bench.clock.best_at(bench.now)
        assert best is not None
        # The true error never leaves what it says of itself.
        assert abs(bench.error_s + best.error_s) <= best.bound_at(bench.now) + 1e-6
        if bench.clock.state_at(bench.now) is ClockState.SET:
            assert abs(bench.error_s) <= 20
    assert bench.clock.state_at(bench.now) is ClockState.DOUBTFUL
    bench.is_reachable = True
    bench.elapse(DAY_S)
    assert abs(bench.error_s) < 5
    assert bench.clock.state_at(bench.now) is ClockState.SET


@pytest.mark.requirement("B1-FR-92")
@pytest.mark.parametrize("ahead", [-60, 60, 5000])
def test_every_jump_is_on_record_with_old_and_new_time(ahead: int) -> None:
    bench = ClockBench(ahead_s=ahead, epoch=1_789_999_200.0 + 100)
    bench.elapse(60)
    if ahead == 5000:
        assert setting(bench).code == Code.CHANGED
    bench.elapse(HOUR)
    ((old, new),) = bench.jumps
    (detail,) = [detail for _, event, detail in bench.log if event == CLOCK_SET]
    assert detail is not None
    stamps = [math.floor(utc) for utc in (old, new)]
    said_old, said_new = detail.split(", ")[0].split(" to ")
    assert [_utc(said_old), _utc(said_new)] == stamps
    assert detail.endswith(f", {-ahead:+.1f} s")


def _utc(stamp: str) -> int:
    return int(dt.datetime.fromisoformat(stamp).timestamp())


def _unreachable(bench: ClockBench) -> None:
    bench.is_reachable = False


def _unsure(bench: ClockBench) -> None:
    bench.round_trip_s = 90.0


def _without_room(bench: ClockBench) -> None:
    bench.lengths = (60,)


@pytest.mark.requirement("B1-FR-93")
@pytest.mark.parametrize(
    ("fail", "event", "words", "counter"),
    [
        (_unreachable, CLOCK_SYNC_FAILED, "no answer", "time synchronisation failed"),
        (_unsure, CLOCK_SYNC_FAILED, "give or take 45.0", "time synchronisation failed"),
        (_without_room, CLOCK_FAILED, "fit into no interval", "clock not corrected"),
    ],
)
def test_every_failed_attempt_is_on_record(
    fail: object, event: object, words: str, counter: str
) -> None:
    bench = ClockBench(ahead_s=-60)
    fail(bench)  # type: ignore[operator]
    bench.elapse(DAY_S / 2)
    assert bench.jumps == []
    (entry,) = [entry for entry in bench.log if entry[1] == event]
    assert words in (entry[2] or "")
    assert bench.keeper.counters == {counter: 1}


def test_head_end_that_is_not_heard_for_days_is_missed_once_a_day() -> None:
    bench = ClockBench()
    bench.elapse(60)
    bench.is_reachable = False
    bench.elapse(5 * DAY_S)
    details = [detail for _, _, detail in bench.log]
    assert details.count("no answer") == 1
    assert 4 <= details.count("not compared for a day") <= 5
    # Tries of one day: 18 to 20 h after the last success, then later each time.
    assert len(bench.asked) < 40


def test_best_of_several_samples_decides() -> None:
    bench = ClockBench(ahead_s=-60, round_trip_s=30.0)
    bench.elapse(3)
    bench.round_trip_s = 0.2
    bench.elapse(HOUR)
    assert len(bench.asked) == SAMPLES_PER_RUN
    assert abs(bench.error_s) < 0.2


def test_samples_that_contradict_one_another_count_for_nothing() -> None:
    bench = ClockBench()
    bench.elapse(60)
    bench.head_end_ahead_s = 60.0
    bench.round_trip_s = 20.0  # Less sure than the old ones, a day later even.
    bench.elapse(19 * HOUR + HOUR)
    # The head-end's word changed: the next one decides, alone.
    assert len(bench.jumps) == 1
    assert bench.error_s == pytest.approx(60, abs=1.1)


@pytest.mark.parametrize("late_s", [0.0, 100.0])
def test_operator_sets_a_clock_that_is_out_of_step_and_reads_it_back(late_s: float) -> None:
    bench = ClockBench(ahead_s=7200.0)
    bench.elapse(60)
    before = bench.read_back()
    assert before.clock.state is ClockState.DOUBTFUL
    assert before.comparison is not None
    assert before.comparison.error_ms == pytest.approx(-7_200_000, abs=10)
    assert setting(bench, late_s=late_s).code == Code.CHANGED
    bench.elapse(30)
    after = bench.read_back()
    # The stamp is not believed more than what was measured.
    assert bench.error_s == pytest.approx(0, abs=0.01)
    assert after.clock.state is ClockState.SET
    assert after.clock.utc_s == int(bench.true_utc(bench.now) + 0.001)
    ((old, new),) = bench.jumps
    assert all(0 < utc % 900 < 900 for utc in (old, new))
    assert bench.asked == [0.0, 60.0]  # How well it is set, another sample says.


def test_setting_that_is_repeated_much_later_gets_the_same_answer_and_changes_nothing() -> None:
    bench = ClockBench(ahead_s=7200.0)
    bench.elapse(60)
    command = ClockSetting(NAME, round(bench.true_utc(bench.now) * 1000)).encode()
    assert bench.put(command).code == Code.CHANGED
    bench.elapse(HOUR)
    assert bench.put(command).code == Code.CHANGED
    bench.elapse(HOUR)
    assert len(bench.jumps) == 1
    assert CLOCK_FAILED not in bench.events()


def test_setting_that_is_old_or_of_a_wrong_clock_is_refused_and_on_record() -> None:
    bench = ClockBench(ahead_s=7200.0)
    bench.elapse(60)
    assert setting(bench, late_s=119.0, name=b"commandA").code == Code.CHANGED
    bench = ClockBench(ahead_s=7200.0)
    bench.elapse(60)
    answer = setting(bench, late_s=121.0)
    assert answer.code == Code.CONFLICT
    assert b"old" in answer.payload
    assert bench.jumps == []
    assert bench.events()[-1] == CLOCK_FAILED


def test_setting_of_a_right_clock_moves_nothing() -> None:
    bench = ClockBench(ahead_s=5.0)
    bench.elapse(60)
    assert setting(bench).code == Code.CHANGED
    bench.elapse(HOUR)
    assert bench.jumps == []


def test_setting_at_a_boundary_waits_until_it_is_over() -> None:
    bench = ClockBench(ahead_s=7200.0, epoch=EPOCH - EPOCH % 900)
    bench.elapse(899.5)
    assert setting(bench).code == Code.CHANGED
    assert bench.jumps == []
    bench.elapse(5)
    ((old, new),) = bench.jumps
    assert old % 900 == pytest.approx(1, abs=0.2)
    assert new % 900 == pytest.approx(1, abs=0.2)


def test_clock_that_came_right_by_itself_is_said_to_be_in_step_again() -> None:
    bench = ClockBench()
    bench.head_end_ahead_s = 500.0
    bench.elapse(60)
    assert bench.events() == [CLOCK_OUT_OF_STEP]
    bench.head_end_ahead_s = 0.0
    bench.elapse(2 * DAY_S)
    assert bench.events()[-1] == CLOCK_IN_STEP
    assert bench.jumps == []
    assert bench.clock.state_at(bench.now) is ClockState.SET


def test_lost_time_is_set_by_the_first_good_sample_and_counts_as_a_setting() -> None:
    bench = ClockBench(ahead_s=-1.7e9, is_set=False, round_trip_s=30.0)
    due = bench.keeper.next_word(now=0.0)
    assert due is not None
    assert due.urgency is Urgency.ALARM
    assert bench.clock.state_at(0.0) is ClockState.UNSET
    bench.elapse(31)
    assert bench.clock.state_at(bench.now) is ClockState.UNSET
    bench.round_trip_s = 1.0
    bench.elapse(60)
    assert bench.clock.state_at(bench.now) is ClockState.SET
    assert abs(bench.error_s) <= 0.51
    assert bench.events() == [CLOCK_LOST, CLOCK_SET]
    assert bench.keeper.counters == {"clock set after it was lost": 1}


def test_operator_sets_a_lost_clock_even_when_nobody_tells_the_time() -> None:
    bench = ClockBench(ahead_s=-1.7e9, is_set=False, is_reachable=False)
    bench.elapse(10)
    assert setting(bench).code == Code.CHANGED
    bench.elapse(10)
    assert abs(bench.error_s) < 0.01
    # One way only: how far off it may be, nobody knows.
    assert bench.clock.state_at(bench.now) is ClockState.DOUBTFUL


def test_clock_does_not_move_without_its_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ClockBench(ahead_s=-60)
    bench.elapse(10)

    def fail(*_: object, **__: object) -> None:
        raise StoreError("full")

    monkeypatch.setattr(bench.keeper, "_log", fail)
    due = bench.keeper.next_timer()
    assert due is not None
    bench.now = due + 5
    with pytest.raises(StoreError):
        bench.elapse(30)
    assert bench.error_s == pytest.approx(-60, abs=0.01)
    # It does not spin while nothing can be kept.
    due = bench.keeper.next_timer()
    assert due is not None
    assert due >= bench.now + STORAGE_RETRY_S - 1
    with pytest.raises(StoreError):
        setting(bench)
    monkeypatch.undo()
    bench.elapse(HOUR)
    assert abs(bench.error_s) < 0.01


def test_resource_takes_what_is_of_the_model_alone() -> None:
    bench = ClockBench()
    assert bench.command(Message.request(Code.POST, CLOCK)).code == Code.METHOD_NOT_ALLOWED
    assert bench.command(Message.request(Code.PUT, CLOCK)).code == Code.UNSUPPORTED_CONTENT_FORMAT
    with pytest.raises(ModelError):
        bench.put(b"\x00")
    assert bench.jumps == []
