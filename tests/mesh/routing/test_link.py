"""One hop: repeated until it is acknowledged or given up, and a busy channel is no failure.

The contract under test: a frame goes `attempts_max` times on the air at most; what the radio could
not get out counts for nothing but a longer pause; pauses are doubled.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.routing.link import Hop, Phase
from mesh.routing.profile import Links
from mesh.security import Sealed
from tests.mesh.routing.medium import eui

LINKS = Links()
FRAME = Sealed(b"frame", eui(2), 7, wants_ack=True)
FOR_ALL = Sealed(b"frame", None, 7)


def begun(sealed: Sealed = FRAME, seed: int = 1) -> Hop:
    hop = Hop(LINKS, random.Random(seed))
    hop.begin(sealed)
    return hop


def test_a_frame_is_given_up_after_its_attempts_and_not_before() -> None:
    hop, now = begun(), 0.0
    for attempt in range(1, LINKS.attempts_max + 1):
        assert hop.hand_out() is FRAME
        assert not hop.frame_sent(now=now, was_on_air=True)
        now = hop.deadline
        assert hop.handle_timer(now=now) == (attempt == LINKS.attempts_max)
        if attempt < LINKS.attempts_max:
            now = hop.deadline
            assert not hop.handle_timer(now=now)
    assert hop.attempts == LINKS.attempts_max


def test_a_busy_channel_is_no_attempt() -> None:
    hop, now = begun(), 0.0
    for time in range(1, LINKS.blocked_max + 1):
        assert hop.hand_out() is FRAME
        assert hop.frame_sent(now=now, was_on_air=False) == (time == LINKS.blocked_max)
        if time < LINKS.blocked_max:
            assert hop.phase is Phase.PAUSED
            now = hop.deadline
            hop.handle_timer(now=now)
    assert hop.attempts == 0


def test_once_on_the_air_the_busy_times_before_are_forgotten() -> None:
    hop = begun()
    for _ in range(LINKS.blocked_max - 1):
        hop.hand_out()
        assert not hop.frame_sent(now=0.0, was_on_air=False)
        hop.handle_timer(now=hop.deadline)
    hop.hand_out()
    assert not hop.frame_sent(now=0.0, was_on_air=True)
    assert (hop.attempts, hop.blocked) == (1, 0)


def test_a_frame_for_all_is_done_when_it_is_on_the_air() -> None:
    hop = begun(FOR_ALL)
    hop.hand_out()
    assert hop.frame_sent(now=0.0, was_on_air=True)


@pytest.mark.parametrize("patience", [1.0, 4.0])
def test_pauses_are_doubled_and_longer_with_patience(patience: float) -> None:
    for attempt in range(1, LINKS.attempts_max):
        longest = 0.0
        for seed in range(50):
            hop = Hop(LINKS, random.Random(seed))
            hop.begin(FRAME, patience=patience)
            for _ in range(attempt):
                hop.hand_out()
                hop.frame_sent(now=0.0, was_on_air=True)
                hop.handle_timer(now=LINKS.ack_wait)
                pause = hop.deadline - LINKS.ack_wait
                hop.handle_timer(now=hop.deadline)
            longest = max(longest, pause)
        window = patience * LINKS.retry_delay * 2 ** (attempt - 1)
        assert 0.8 * window <= longest <= window


@given(st.lists(st.booleans(), max_size=100), st.integers(0, 1000))
def test_whatever_the_radio_does_the_bounds_hold(on_air: list[bool], seed: int) -> None:
    hop = begun(seed=seed)
    for was_on_air in on_air:
        if hop.hand_out() is None:
            break
        done = hop.frame_sent(now=0.0, was_on_air=was_on_air)
        if done or hop.handle_timer(now=hop.deadline):
            break
        hop.handle_timer(now=hop.deadline)
    assert hop.attempts <= LINKS.attempts_max
    assert hop.blocked <= LINKS.blocked_max
