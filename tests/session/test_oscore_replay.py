"""The replay window against a set that remembers everything.

The contract under test: a number is accepted at most once, in any interleaving; one that is
further behind than the window is wide never is; storing and restoring changes nothing.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError
from amistack.session.oscore import SEQUENCE_NUMBER_MAX, ReplayWindow
from amistack.session.oscore.replay import BASE_MAX, WINDOW_SIZE_MAX, WINDOW_SIZE_MIN

near = st.integers(0, 200)
anywhere = st.one_of(
    near, st.integers(0, SEQUENCE_NUMBER_MAX), st.integers(BASE_MAX - 100, BASE_MAX + 3)
)


def model_is_fresh(accepted: set[int], size: int, piv: int) -> bool:
    highest = max(accepted, default=-1)
    return 0 <= piv <= SEQUENCE_NUMBER_MAX and piv not in accepted and piv > highest - size


@settings(deadline=None)
@given(st.lists(st.one_of(near, near, anywhere), max_size=120), st.sampled_from([32, 33, 50, 64]))
def test_window_agrees_with_a_set_that_remembers_everything(pivs: list[int], size: int) -> None:
    window = ReplayWindow(size)
    accepted: set[int] = set()
    for piv in pivs:
        fresh = model_is_fresh(accepted, size, piv)
        assert window.is_fresh(piv) is fresh
        if fresh:
            window.accept(piv)
            accepted.add(piv)
        else:
            before = window.state
            with pytest.raises(LocalProtocolError):
                window.accept(piv)
            assert window.state == before
        window = ReplayWindow.restore(*window.state, size)
        assert not window.is_fresh(piv)
    highest = max(accepted, default=0)
    for piv in range(max(0, highest - 70), highest + 70):
        assert window.is_fresh(piv) is model_is_fresh(accepted, size, piv)


def test_every_order_of_four_numbers_around_the_edge_agrees_with_the_model() -> None:
    for order in itertools.permutations([0, 1, 31, 32, 63, 64], 4):
        window, accepted = ReplayWindow(32), set[int]()
        for piv in (*order, *order):
            fresh = model_is_fresh(accepted, 32, piv)
            assert window.is_fresh(piv) is fresh
            if fresh:
                window.accept(piv)
                accepted.add(piv)


def test_window_is_64_wide_by_default() -> None:
    window = ReplayWindow()
    window.accept(163)
    assert window.is_fresh(100)
    assert not window.is_fresh(99)


def test_messages_in_order_leave_an_empty_bitmap() -> None:
    window = ReplayWindow()
    for piv in range(500):
        window.accept(piv)
    assert window.state == (500, 0)


@given(st.lists(near, max_size=60))
def test_state_fits_two_signed_64_bit_columns(pivs: list[int]) -> None:
    window = ReplayWindow()
    for piv in pivs:
        if window.is_fresh(piv):
            window.accept(piv)
    assert all(0 <= field < 1 << 63 for field in window.state)


def test_last_number_of_all_ends_the_window() -> None:
    window = ReplayWindow()
    window.accept(SEQUENCE_NUMBER_MAX)
    assert not window.is_fresh(SEQUENCE_NUMBER_MAX)
    assert not window.is_fresh(SEQUENCE_NUMBER_MAX + 1)
    window = ReplayWindow.restore(BASE_MAX, 0)
    assert not window.is_fresh(SEQUENCE_NUMBER_MAX)
    assert not window.is_fresh(BASE_MAX)
    with pytest.raises(LocalProtocolError):
        window.accept(BASE_MAX)


@given(st.lists(near, min_size=1, max_size=60))
def test_narrower_window_restored_from_a_wider_one_accepts_nothing_that_it_had_seen(
    pivs: list[int],
) -> None:
    wide = ReplayWindow(WINDOW_SIZE_MAX)
    for piv in pivs:
        if wide.is_fresh(piv):
            wide.accept(piv)
    narrow = ReplayWindow.restore(*wide.state, WINDOW_SIZE_MIN)
    for piv in range(300):
        expected = wide.is_fresh(piv) and piv > max(pivs) - WINDOW_SIZE_MIN
        assert narrow.is_fresh(piv) is expected


@pytest.mark.parametrize(
    ("base", "bitmap"),
    [(-1, 0), (BASE_MAX + 1, 0), (0, -1), (0, 1 << 63), (BASE_MAX, 1), (BASE_MAX - 1, 1)],
)
def test_state_that_no_window_gives_is_refused(base: int, bitmap: int) -> None:
    with pytest.raises(LocalProtocolError):
        ReplayWindow.restore(base, bitmap)


@pytest.mark.parametrize("size", [0, 31, 65])
def test_size_out_of_bounds_is_refused(size: int) -> None:
    with pytest.raises(LocalProtocolError):
        ReplayWindow(size)
