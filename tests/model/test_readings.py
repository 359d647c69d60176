"""Interval blocks: values between two reads of a register.

The contract under test: a block keeps its packed octets as they came, gives back the values it
was made of with None for the missing ones, and says when they contradict the register.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model import IntervalBlock, Quality, pack

maybe_values = st.lists(st.none() | st.integers(0, 5000), min_size=96, max_size=96)


@given(maybe_values)
@settings(deadline=None)
def test_values_come_back_with_none_for_the_missing(values: list[int | None]) -> None:
    block = IntervalBlock.of(values, channel=1, interval_s=900, opening=5, advance=1)
    assert block.values() == tuple(values)
    assert [bool(flag & Quality.MISSING) for flag in block.flags()] == [
        value is None for value in values
    ]
    assert block.has_missing == (None in values)


@given(maybe_values)
@example([None] * 94 + [64, 1088])
@settings(deadline=None)
def test_missing_values_never_make_a_block_larger_than_any_other_filler(
    values: list[int | None],
) -> None:
    block = IntervalBlock.of(values, channel=1, interval_s=900, opening=5, advance=1)
    latest = 0
    filled = []
    for value in values:
        latest = latest if value is None else value
        filled.append(latest)
    assert len(block.packed) <= len(pack(filled))


def test_advance_is_the_sum_and_closing_the_second_read() -> None:
    block = IntervalBlock.of([10] * 24, channel=1, interval_s=3600, opening=1000)
    assert (block.advance, block.closing) == (240, 1240)
    assert block.is_consistent


def test_values_that_contradict_the_register_are_noticed_unless_one_is_missing() -> None:
    whole = IntervalBlock.of([10] * 24, channel=1, interval_s=3600, opening=0, advance=241)
    assert not whole.is_consistent
    gappy = IntervalBlock.of([10] * 23 + [None], channel=1, interval_s=3600, opening=0, advance=999)
    assert gappy.is_consistent


def test_flags_of_known_values_are_kept_beside_them() -> None:
    flags = [Quality(0)] * 20 + [Quality.POWER_OFF] * 4
    block = IntervalBlock.of([7] * 20 + [0] * 4, channel=1, interval_s=3600, opening=0, flags=flags)
    assert block.flags() == flags
    assert block.values()[-1] == 0
    assert not block.has_missing


def test_bad_packing_is_found_when_the_values_are_asked_for() -> None:
    block = IntervalBlock(1, 900, 96, 0, 0, b"\x00")
    for look in (block.values, lambda: block.is_consistent):
        with pytest.raises(ModelError, match="bad packing"):
            look()


def test_contradictory_makings_are_refused() -> None:
    with pytest.raises(ModelError, match="no advance"):
        IntervalBlock.of([None] * 24, channel=1, interval_s=3600, opening=0)
    with pytest.raises(ModelError, match="known value"):
        IntervalBlock.of([1], channel=1, interval_s=900, opening=0, flags=[Quality.MISSING])
    with pytest.raises(ModelError, match="flags for"):
        IntervalBlock.of([1, 2], channel=1, interval_s=900, opening=0, flags=[Quality.TEST])


@pytest.mark.parametrize("interval_s", [0, -900, 7, 29, 1000, 86_401, 172_800])
def test_lengths_that_do_not_divide_a_day_are_refused(interval_s: int) -> None:
    with pytest.raises(ModelError):
        IntervalBlock(1, interval_s, 1, 0, 0, b"")


def test_register_beyond_the_exact_range_is_refused_also_as_a_sum() -> None:
    with pytest.raises(ModelError, match="closing"):
        IntervalBlock(1, 900, 96, 2**53 - 1, 1, b"")


def test_every_length_that_divides_a_day_is_written_and_read_back() -> None:
    lengths = [length for length in range(30, 86_401) if not 86_400 % length]
    for length in lengths:
        block = IntervalBlock(1, length, 86_400 // length, 0, 0, b"")
        assert IntervalBlock.from_tree(block.to_tree()) == block
    assert IntervalBlock(1, 900, 96, 0, 0, b"").to_tree()[1] == 15
    assert IntervalBlock(1, 30, 2880, 0, 0, b"").to_tree()[1] == -30
    for written in (-60, -900, -29, 0, 7, True):
        with pytest.raises(ModelError):
            IntervalBlock.from_tree([1, written, 0, 0, b""])
