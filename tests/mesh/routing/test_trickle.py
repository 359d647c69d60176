"""Trickle: the rules of RFC 6206 section 4.2, for every chance and every order of calls."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.routing.trickle import NEVER, Trickle


def run(trickle: Trickle, until: float, heard: int = 0) -> list[float]:
    """When it transmits, if `heard` others are heard in every interval."""
    sent = []
    interval = None
    while trickle.deadline <= until:
        now = trickle.deadline
        if trickle.handle_timer(now=now):
            sent.append(now)
        if trickle.interval != interval:
            interval = trickle.interval
        for _ in range(heard):
            trickle.hear_consistent()
    return sent


@settings(deadline=None)
@given(st.integers(), st.integers(0, 8))
def test_intervals_double_up_to_the_longest_and_each_has_one_transmission(
    seed: int, doublings: int
) -> None:
    trickle = Trickle(1.0, doublings, 0, random.Random(seed))
    trickle.start(now=0.0)
    sent = run(trickle, 600.0)
    begins, length = 0.0, 1.0
    for when in sent:
        assert begins + length / 2 <= when < begins + length
        begins += length
        length = min(2 * length, 2.0**doublings)
    assert trickle.interval <= 2.0**doublings


@settings(deadline=None)
@given(st.integers())
def test_enough_consistent_ones_suppress_it(seed: int) -> None:
    trickle = Trickle(1.0, 4, 3, random.Random(seed))
    trickle.start(now=0.0)
    for _ in range(3):
        trickle.hear_consistent()
    assert run(trickle, 0.999) == []


@settings(deadline=None)
@given(st.integers())
def test_nobody_can_say_what_is_news_of_ours(seed: int) -> None:
    trickle = Trickle(1.0, 4, 3, random.Random(seed))
    trickle.start(now=0.0)
    for _ in range(30):
        trickle.hear_consistent()
    assert trickle.handle_timer(now=trickle.deadline, is_news=True)
    # Once in an interval, as everything.
    assert not trickle.handle_timer(now=trickle.deadline, is_news=True)


def test_an_inconsistency_begins_the_shortest_interval_but_never_restarts_it() -> None:
    trickle = Trickle(1.0, 6, 0, random.Random(1))
    trickle.start(now=0.0)
    run(trickle, 40.0)
    assert trickle.interval > 1.0
    trickle.hear_inconsistent(now=40.0)
    assert trickle.interval == 1.0
    due = trickle.deadline
    trickle.hear_inconsistent(now=40.1)
    assert trickle.deadline == due


def test_early_calls_are_harmless_and_a_stopped_one_is_silent() -> None:
    trickle = Trickle(1.0, 6, 0, random.Random(1))
    assert trickle.deadline == NEVER
    trickle.start(now=0.0)
    due = trickle.deadline
    assert not trickle.handle_timer(now=due - 0.01)
    assert trickle.deadline == due
    trickle.stop()
    assert not trickle.handle_timer(now=100.0)
    assert trickle.deadline == NEVER
