"""The dials of a real meter as a register that never falls.

The contract under test: a roll-over, an exchange and a reset are told apart and each costs no more
than what nobody saw; one garbled or strange reading changes nothing; whatever comes, the register
never falls and nothing escapes; what was kept goes on after a restart.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import SourceError
from meterd.metrology.registers import (
    CONFIRM_COUNT,
    CONFIRM_S,
    METER_SIZE_MAX,
    REGISTER_COUNT_MAX,
    REGISTER_MWH_MAX,
    TOTAL_MWH_MAX,
    NoteKind,
    Reading,
    Register,
    RegisterTracker,
    pick,
)
from meterd.metrology.source import Flow

WH = 1_000
KWH = 1_000_000
T0 = 1_790_000_000.0


def one(mwh: int, meter: str | None = "A", width: int | None = None) -> Reading:
    return Reading((Register("1.8.0", Flow.DELIVERED, mwh, width),), meter)


class Dial:
    """A tracker and a clock that moves ten seconds with each reading."""

    def __init__(self, tracker: RegisterTracker | None = None) -> None:
        self.tracker = tracker or RegisterTracker((Flow.DELIVERED,))
        self.utc = T0
        self.kinds: list[NoteKind] = []
        self.details: list[str] = []

    def show(self, *readings: Reading, step: float = 10.0) -> list[bool]:
        taken = []
        for reading in readings:
            self.utc += step
            outcome = self.tracker.take(reading, utc=self.utc)
            taken.append(outcome.is_taken)
            self.kinds += [note.kind for note in outcome.notes]
            self.details += [note.detail for note in outcome.notes]
        return taken

    @property
    def total(self) -> int:
        assert self.tracker.total_mwh is not None
        return self.tracker.total_mwh[0]


def test_register_begins_at_the_dial_and_follows_it() -> None:
    dial = Dial()
    assert dial.show(one(5 * KWH), one(5 * KWH + 7), one(5 * KWH + 7)) == [True] * 3
    assert dial.total == 5 * KWH + 7
    assert (dial.kinds, dial.tracker.era, dial.tracker.meter) == ([], 0, "A")


def test_dial_that_passes_its_width_rolls_over_and_loses_nothing() -> None:
    width = 100_000 * KWH
    dial = Dial()
    dial.show(one(width - 2 * WH, width=width), one(3 * WH, width=width))
    assert dial.total == width + 3 * WH
    assert dial.kinds == [NoteKind.ROLLED_OVER]
    assert dial.details == ["1.8.0: 99999.998 kWh to 0.003 kWh"]
    assert dial.tracker.era == 0  # The interval it happened in has its value.


def test_width_that_the_operator_knows_goes_before_the_telegram() -> None:
    dial = Dial(RegisterTracker((Flow.DELIVERED,), width_mwh=1_000 * KWH))
    dial.show(one(1_000 * KWH - WH, width=100_000 * KWH), one(WH, width=100_000 * KWH))
    assert dial.kinds == [NoteKind.ROLLED_OVER]
    assert dial.total == 1_000 * KWH + WH


def test_fall_that_no_width_explains_is_no_roll_over() -> None:
    width = 100_000 * KWH
    dial = Dial()
    # From the middle of the dial: 50,000 kWh cannot have flowed in ten seconds.
    dial.show(one(width // 2, width=width))
    assert dial.show(one(3 * WH, width=width)) == [False]
    assert dial.kinds == [NoteKind.IMPLAUSIBLE]
    assert dial.total == width // 2


def test_same_meter_that_begins_again_near_zero_was_reset_and_counts_on() -> None:
    dial = Dial()
    dial.show(one(700 * KWH))
    assert dial.show(*(one(n * WH) for n in range(1, 5))) == [False, False, False, True]
    assert dial.kinds == [NoteKind.IMPLAUSIBLE, NoteKind.RESET]
    assert dial.details[-1] == "1.8.0: 700.000 kWh to 0.001 kWh"
    # All that the dial shows has flowed since the reset; what flowed before it is not known.
    assert dial.total == 700 * KWH + 4 * WH
    assert dial.tracker.era == 1


def test_same_meter_that_was_set_to_a_figure_counts_on_from_that() -> None:
    dial = Dial()
    dial.show(one(700 * KWH))
    dial.show(*(one(300 * KWH + n * WH) for n in range(4)))
    assert dial.kinds[-1] is NoteKind.RESET
    assert dial.total == 700 * KWH + 3 * WH


def test_another_serial_number_that_lasts_is_an_exchange() -> None:
    dial = Dial()
    dial.show(one(700 * KWH, "OLD"))
    taken = dial.show(*(one(900 * KWH + n * WH, "NEW") for n in range(4)))
    assert taken == [False, False, False, True]
    assert dial.kinds == [NoteKind.OTHER_METER, NoteKind.EXCHANGED]
    assert dial.details[-1] == "OLD to NEW; 1.8.0: 700.000 kWh to 900.000 kWh"
    # Neither the leap of 200 kWh nor a fall: what the new one moved since it was first seen.
    assert dial.total == 700 * KWH + 3 * WH
    assert (dial.tracker.era, dial.tracker.meter) == (1, "NEW")


def test_new_meter_that_begins_at_zero_is_an_exchange_and_no_reset() -> None:
    dial = Dial()
    dial.show(one(700 * KWH, "OLD"), *(one(n, "NEW") for n in range(4)))
    assert dial.kinds[-1] is NoteKind.EXCHANGED


def test_exchange_at_a_new_dials_width_counts_across_it() -> None:
    width = 1_000 * KWH
    dial = Dial()
    dial.show(one(700 * KWH, "OLD", width))
    figures = (width - 2 * WH, width - WH, 0, WH)
    dial.show(*(one(figure, "NEW", width) for figure in figures))
    assert dial.kinds[-1] is NoteKind.EXCHANGED
    assert dial.total == 700 * KWH + 3 * WH


def test_without_serial_numbers_the_figures_tell_reset_and_exchange_apart() -> None:
    reset, exchange, leap = Dial(), Dial(), Dial()
    for dial, begin in ((reset, 0), (exchange, 300 * KWH), (leap, 900 * KWH)):
        dial.show(one(700 * KWH, None), *(one(begin + n * WH, None) for n in range(4)))
        assert dial.tracker.era == 1
    assert reset.kinds[-1] is NoteKind.RESET
    assert exchange.kinds[-1] is NoteKind.EXCHANGED
    assert leap.kinds[-1] is NoteKind.EXCHANGED
    assert (reset.total, exchange.total, leap.total) == (700 * KWH + 3 * WH,) * 3


def test_first_reading_without_a_check_sum_counts_when_the_next_continues_it() -> None:
    dial = Dial(RegisterTracker((Flow.DELIVERED,), is_guarded=False))
    shown = (one(95_000 * KWH), one(5 * KWH), one(5 * KWH + WH), one(5 * KWH + 2 * WH))
    assert dial.show(*shown) == [False, False, True, True]
    assert (dial.total, dial.tracker.era, dial.kinds) == (5 * KWH + 2 * WH, 0, [])


def test_one_telegram_of_another_meter_changes_nothing() -> None:
    dial = Dial()
    taken = dial.show(one(5 * KWH), one(9 * KWH, "B"), one(5 * KWH + WH), one(9 * KWH, "B"))
    assert taken == [True, False, True, False]
    assert dial.kinds == [NoteKind.OTHER_METER] * 2
    # Two meters on one line, for ever: the first one stays.
    for n in range(2, 40):
        dial.show(one(5 * KWH + n * WH), one(9 * KWH + n, "B"))
    assert dial.total == 5 * KWH + 39 * WH
    assert set(dial.kinds) == {NoteKind.OTHER_METER}


def test_other_meter_that_shows_nearly_the_same_does_not_count_either() -> None:
    dial = Dial()
    assert dial.show(one(5 * KWH), one(5 * KWH + WH, "B"), one(5 * KWH)) == [True, False, True]
    assert dial.total == 5 * KWH
    dial.show(*(one(5 * KWH + n * WH, "B") for n in range(4)))
    assert dial.kinds == [NoteKind.OTHER_METER, NoteKind.OTHER_METER, NoteKind.EXCHANGED]


def test_with_a_serial_number_in_the_settings_no_other_meter_ever_counts() -> None:
    dial = Dial(RegisterTracker((Flow.DELIVERED,), meter="A"))
    assert not any(dial.show(*(one(n * WH, "B") for n in range(30)), one(1, None)))
    assert dial.tracker.total_mwh is None
    assert dial.show(one(5 * KWH, "A")) == [True]
    assert not any(dial.show(*(one(n * WH, "B" * 99) for n in range(30))))
    assert dial.total == 5 * KWH
    assert max(map(len, dial.details)) == METER_SIZE_MAX


def test_garbled_figure_is_dropped_and_the_next_good_one_counts() -> None:
    dial = Dial()
    taken = dial.show(one(5 * KWH), one(95 * KWH), one(5 * KWH + WH), one(1), one(5 * KWH + 2 * WH))
    assert taken == [True, False, True, False, True]
    assert dial.kinds == [NoteKind.IMPLAUSIBLE] * 2
    assert (dial.total, dial.tracker.era) == (5 * KWH + 2 * WH, 0)


def test_rise_is_plausible_up_to_the_most_that_can_have_flowed_and_not_above() -> None:
    # 3,600 W are 1 Wh a second: 10 s, and 60 s of slack.
    for extra, is_taken in ((0, True), (1, False)):
        dial = Dial(RegisterTracker((Flow.DELIVERED,), power_max_w=3_600))
        dial.show(one(0))
        assert dial.show(one(70 * WH + extra)) == [is_taken]


def test_long_silence_makes_a_large_rise_plausible() -> None:
    dial = Dial()
    dial.show(one(0))
    assert dial.show(one(500 * KWH), step=30 * 86_400) == [True]
    assert (dial.total, dial.kinds) == (500 * KWH, [])


@pytest.mark.parametrize(
    ("count", "step", "is_taken"),
    [
        (CONFIRM_COUNT - 1, CONFIRM_S, False),
        (CONFIRM_COUNT, CONFIRM_S / (CONFIRM_COUNT - 1), True),
        (CONFIRM_COUNT, CONFIRM_S / (CONFIRM_COUNT - 1) - 0.1, False),
    ],
)
def test_change_counts_after_so_many_readings_over_so_many_seconds(
    count: int, step: float, is_taken: bool
) -> None:
    dial = Dial()
    dial.show(one(700 * KWH))
    assert any(dial.show(*(one(n, "B") for n in range(count)), step=step)) is is_taken


def test_one_tariff_that_is_reset_leaves_the_other_whole() -> None:
    def both(low: int, high: int) -> Reading:
        return Reading(
            (
                Register("1.8.1", Flow.DELIVERED, low),
                Register("1.8.2", Flow.DELIVERED, high),
            ),
            "A",
        )

    dial = Dial()
    dial.show(both(5 * KWH, 7 * KWH), *(both(n * WH, 7 * KWH + n * WH) for n in range(1, 5)))
    assert dial.kinds[-1] is NoteKind.RESET
    assert dial.total == 12 * KWH + 4 * WH + 4 * WH


def test_reading_that_lacks_a_wanted_register_does_not_count() -> None:
    dial = Dial(RegisterTracker((Flow.DELIVERED, Flow.RECEIVED)))
    assert dial.show(one(KWH)) == [False]
    assert dial.details == ["no register of energy received"]
    many = Reading(tuple(Register(f"1.8.{n}", Flow.DELIVERED, 0) for n in range(99)), "A")
    assert len(many.registers) > REGISTER_COUNT_MAX
    assert Dial().show(many, one(-1), one(10**30)) == [False] * 3


def test_largest_registers_there_are_can_be_kept_and_gone_on_from() -> None:
    most = tuple(
        Register(f"1.8.{n}", Flow.DELIVERED, REGISTER_MWH_MAX, REGISTER_MWH_MAX)
        for n in range(REGISTER_COUNT_MAX)
    )
    dial = Dial()
    assert dial.show(Reading(most, "A")) == [True]
    RegisterTracker((Flow.DELIVERED,)).resume(dial.tracker.state() or "")
    assert dial.total < TOTAL_MWH_MAX
    assert TOTAL_MWH_MAX // WH < 2**53  # A report's register.


def test_registers_of_a_flow_that_is_not_wanted_are_left_out() -> None:
    dial = Dial()
    dial.show(
        Reading((Register("1.8.0", Flow.DELIVERED, 5), Register("2.8.0", Flow.RECEIVED, 7)), "A")
    )
    assert dial.tracker.total_mwh == (5,)


def test_total_is_taken_before_its_tariffs_and_tariffs_where_there_is_none() -> None:
    total, low = (Register(n, Flow.DELIVERED, 1) for n in ("1.8.0", "1.8.1"))
    back = Register("2.8.1", Flow.RECEIVED, 1)
    assert pick((low, total, back)) == (total, back)
    assert pick((low, back)) == (low, back)


def test_kept_state_goes_on_where_it_was() -> None:
    dial = Dial()
    dial.show(one(700 * KWH, "OLD"), *(one(n * WH, "NEW", 10 * KWH) for n in range(4)))
    kept = dial.tracker.state()
    assert kept is not None
    again = Dial(RegisterTracker((Flow.DELIVERED,)))
    assert again.tracker.resume(kept) == dial.utc
    assert again.tracker.state() == kept
    again.utc = dial.utc
    again.show(one(9 * WH, "NEW", 10 * KWH))
    assert again.total == 700 * KWH + 9 * WH


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"at":1,"meter":5,"era":0,"total":[1],"shown":{}}',
        '{"at":1,"meter":null,"era":0,"total":[1,2],"shown":{}}',
        '{"at":1,"meter":null,"era":-1,"total":[1],"shown":{}}',
        '{"at":NaN,"meter":null,"era":0,"total":[1],"shown":{}}',
        '{"at":1,"meter":null,"era":0,"total":[true],"shown":{}}',
        '{"at":1,"meter":null,"era":0,"total":[1],"shown":{"a":[1]}}',
        "[" * 100_000,
    ],
)
def test_state_that_is_none_is_refused_and_changes_nothing(text: str) -> None:
    tracker = RegisterTracker((Flow.DELIVERED,))
    with pytest.raises(SourceError, match="the kept state of the source is none"):
        tracker.resume(text)
    assert (tracker.state(), tracker.total_mwh, tracker.era) == (None, None, 0)


readings = st.builds(
    one,
    st.integers(0, 3 * KWH) | st.integers(-5, 10**19),
    st.sampled_from(["A", "A", "A", "B", None]),
    st.sampled_from([None, KWH, 3 * KWH]),
)


@settings(deadline=None, max_examples=200)
@given(shown=st.lists(st.tuples(readings, st.floats(-50, 4_000)), max_size=40))
def test_register_never_falls_and_no_era_ends_twice(shown: list[tuple[Reading, float]]) -> None:
    dial = Dial()
    total, era = -1, 0
    for reading, step in shown:
        (is_taken,) = dial.show(reading, step=step)
        if dial.tracker.total_mwh is None:
            continue
        assert dial.total >= total
        assert is_taken or dial.total == total
        assert dial.tracker.era - era in (0, 1)
        total, era = dial.total, dial.tracker.era
        kept = dial.tracker.state()
        assert kept is not None
        json.loads(kept)


@settings(deadline=None, max_examples=100)
@given(
    steps=st.lists(st.integers(0, 200 * WH), max_size=60),
    begin=st.integers(0, 99 * KWH),
    width=st.sampled_from([None, 100 * KWH]),
)
def test_good_readings_sum_to_what_flowed_through_any_number_of_roll_overs(
    steps: list[int], begin: int, width: int | None
) -> None:
    dial = Dial()
    shown = begin
    dial.show(one(begin, "A", width))
    for step in steps:
        shown += step
        assert dial.show(one(shown if width is None else shown % width, "A", width)) == [True]
    assert dial.total == begin + sum(steps)
