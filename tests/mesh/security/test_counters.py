"""Frame counters: none twice in any history of power cuts.

The contract under test: whatever is lost with the memory, and whenever the disk is late, no
counter is given out again, and none is given out that is not on disk.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError, SequenceExhausted
from mesh.security.counters import RESERVE_AHEAD, RESERVE_STEP, Counters
from mesh.security.frame import COUNTER_MAX


def test_nothing_is_given_before_the_first_block_is_on_disk() -> None:
    counters = Counters()
    with pytest.raises(SequenceExhausted):
        counters.take()
    assert counters.wanted() == RESERVE_STEP
    with pytest.raises(SequenceExhausted):
        counters.take()
    counters.reserved(RESERVE_STEP)
    assert [counters.take() for _ in range(3)] == [0, 1, 2]
    assert counters.available == RESERVE_STEP - 3


def test_each_block_is_asked_for_once_and_ahead() -> None:
    counters = Counters()
    assert counters.wanted() == RESERVE_STEP
    assert counters.wanted() is None
    counters.reserved(RESERVE_STEP)
    while counters.available > RESERVE_AHEAD:
        assert counters.wanted() is None
        counters.take()
    counters.take()
    assert counters.wanted() == 2 * RESERVE_STEP
    assert counters.wanted() is None


def test_they_are_low_exactly_when_a_block_is_to_be_asked_for() -> None:
    counters = Counters()
    for block in range(1, 4):
        assert counters.is_low
        assert counters.wanted() == block * RESERVE_STEP
        assert not counters.is_low
        counters.reserved(block * RESERVE_STEP)
        while counters.available > RESERVE_AHEAD:
            assert not counters.is_low
            counters.take()
        counters.take()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from((0, COUNTER_MAX + 1 - 3 * RESERVE_STEP)),
    st.lists(st.sampled_from(["send", "burst", "write"]), max_size=80),
)
def test_who_asks_only_when_they_are_low_misses_no_block(stored: int, steps: list[str]) -> None:
    always, when_low = Counters(stored=stored), Counters(stored=stored)
    waiting: list[int] = []
    for step in steps:
        until = always.wanted()
        assert (when_low.wanted() if when_low.is_low else None) == until
        if until is not None:
            waiting.append(until)
        if step == "write" and waiting:
            for each in (always, when_low):
                each.reserved(waiting[0])
            del waiting[0]
        elif step != "write":
            count = min(always.available, 1 if step == "send" else RESERVE_STEP // 3)
            for _ in range(count):
                assert always.take() == when_low.take()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["send", "burst", "ask", "write", "power cut"]), max_size=80))
def test_no_history_of_power_cuts_gives_a_counter_twice(steps: list[str]) -> None:
    disk = 0
    waiting: list[int] = []
    given_out: list[int] = []
    counters = Counters(stored=disk)
    for step in steps:
        if step in {"send", "burst"}:
            for _ in range(1 if step == "send" else RESERVE_STEP // 3):
                try:
                    given_out.append(counters.take())
                except SequenceExhausted:
                    break
        elif step == "ask":
            if (until := counters.wanted()) is not None:
                waiting.append(until)
        elif step == "write" and waiting:
            disk = waiting.pop(0)
            counters.reserved(disk)
        elif step == "power cut":
            waiting.clear()
            counters = Counters(stored=disk)
        assert not given_out or given_out[-1] < disk
    assert all(earlier < later for earlier, later in itertools.pairwise(given_out))


def test_last_counter_is_the_last() -> None:
    counters = Counters(stored=COUNTER_MAX)
    assert counters.wanted() == COUNTER_MAX + 1
    counters.reserved(COUNTER_MAX + 1)
    assert counters.take() == COUNTER_MAX
    with pytest.raises(SequenceExhausted, match="new key"):
        counters.take()
    assert counters.wanted() is None


def test_what_is_out_of_bounds_is_refused_to_the_caller() -> None:
    with pytest.raises(LocalProtocolError):
        Counters(stored=-1)
    with pytest.raises(LocalProtocolError):
        Counters().reserved(COUNTER_MAX + 2)


def test_older_word_of_the_disk_takes_nothing_back() -> None:
    counters = Counters()
    counters.reserved(100)
    counters.reserved(50)
    assert counters.available == 100
