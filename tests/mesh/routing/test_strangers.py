"""Who is asked for a proof, and again: nobody too often, and those who promise most for certain."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mesh.routing.strangers import (
    ASK_AGAIN,
    ASK_TRIES,
    SILENT_COUNT_MAX,
    SILENT_TIME,
    STRANGER_COUNT_MAX,
    Strangers,
)
from mesh.routing.trickle import NEVER
from tests.mesh.routing.medium import eui


def test_one_that_does_not_answer_is_asked_ever_later_and_then_left() -> None:
    strangers = Strangers()
    strangers.note(eui(1), 500, due=10.0)
    asked = []
    while strangers.deadline < NEVER:
        now = strangers.deadline
        if strangers.take_due(now=now, ask_at=0.0) == eui(1):
            asked.append(now)
    pauses = [later - before for before, later in itertools.pairwise(asked)]
    assert asked[0] == 10.0
    assert len(asked) == ASK_TRIES
    assert pauses == [ASK_AGAIN, 2 * ASK_AGAIN, 4 * ASK_AGAIN]
    assert len(strangers) == 0


def test_one_that_proved_itself_is_asked_no_more() -> None:
    strangers = Strangers()
    strangers.note(eui(1), 500, due=10.0)
    strangers.note(eui(2), 600, due=20.0)
    strangers.drop(eui(1))
    assert strangers.deadline == 20.0
    assert strangers.take_due(now=20.0, ask_at=0.0) == eui(2)


def test_nobody_is_asked_before_it_is_our_turn_again() -> None:
    strangers = Strangers()
    strangers.note(eui(1), 500, due=10.0)
    assert strangers.take_due(now=10.0, ask_at=12.0) is None
    assert strangers.deadline == 12.0
    assert strangers.take_due(now=12.0, ask_at=12.0) == eui(1)


def test_one_that_is_only_good_to_know_is_asked_once() -> None:
    strangers = Strangers()
    strangers.note(eui(1), 500, due=10.0, tries_max=1)
    assert strangers.take_due(now=10.0, ask_at=0.0) == eui(1)
    assert strangers.take_due(now=10.0 + ASK_AGAIN, ask_at=0.0) is None
    assert len(strangers) == 0


def test_what_it_promises_now_counts_and_being_heard_again_is_no_new_question() -> None:
    strangers = Strangers()
    strangers.note(eui(1), 500, due=10.0, tries_max=1)
    strangers.note(eui(1), 900, due=2.0)
    assert strangers.deadline == 10.0
    assert strangers.take_due(now=10.0, ask_at=0.0) == eui(1)
    assert strangers.take_due(now=10.0 + ASK_AGAIN, ask_at=0.0) == eui(1)
    # And the one that promises least goes first.
    for short in range(2, STRANGER_COUNT_MAX + 2):
        strangers.note(eui(short), 800, due=1e6)
    assert len(strangers) == STRANGER_COUNT_MAX
    strangers.drop(eui(1))
    assert len(strangers) == STRANGER_COUNT_MAX


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(256, 5000)), max_size=60))
def test_those_who_promise_most_are_kept(heard: list[tuple[int, int]]) -> None:
    strangers = Strangers()
    known: dict[int, int] = {}
    for short, rank in heard:
        strangers.note(eui(short), rank, due=1.0)
        if short in known or len(known) < STRANGER_COUNT_MAX:
            known[short] = rank
        elif rank < max(known.values()):
            del known[next(one for one in known if known[one] == max(known.values()))]
            known[short] = rank
    asked = set()
    while (one := strangers.take_due(now=1.0, ask_at=0.0)) is not None:
        asked.add(one)
    assert asked == {eui(short) for short in known}


def test_one_that_never_answers_is_left_alone_for_ever_longer_unless_a_way_is_needed() -> None:
    strangers = Strangers()

    def is_asked(now: float, *, is_urgent: bool = False) -> bool:
        strangers.note(eui(1), 500, due=now, tries_max=1, is_urgent=is_urgent)
        is_asked = strangers.take_due(now=now, ask_at=0.0) == eui(1)
        while strangers.deadline < NEVER:
            strangers.take_due(now=strangers.deadline, ask_at=0.0)
        return is_asked

    assert is_asked(0.0)
    silent_from = ASK_AGAIN
    assert not is_asked(silent_from + SILENT_TIME - 1.0)
    assert is_asked(silent_from + SILENT_TIME)
    silent_from += SILENT_TIME + ASK_AGAIN
    assert not is_asked(silent_from + 2 * SILENT_TIME - 1.0)
    assert is_asked(silent_from + 1.0, is_urgent=True)
    strangers.drop(eui(1))
    assert is_asked(silent_from + 20.0)


def test_no_more_of_the_silent_are_remembered_than_the_bound() -> None:
    strangers = Strangers()
    for number in range(SILENT_COUNT_MAX + 1):
        strangers.note(eui(number), 500, due=0.0, tries_max=1)
        while strangers.deadline < SILENT_TIME:
            strangers.take_due(now=strangers.deadline, ask_at=0.0)
    strangers.note(eui(0), 500, due=ASK_AGAIN)
    assert len(strangers) == 1
    strangers.note(eui(1), 500, due=ASK_AGAIN)
    assert len(strangers) == 1
