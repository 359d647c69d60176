"""Repetitions of confirmable messages: at which times, how often, and when they end.

The contract under test: RFC 7252 section 4.2 with the parameters of table 2; a message that was
removed is never sent again; what is kept stays in proportion to what is in flight.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.retransmission import QUEUE_SLACK, Retransmission
from amistack.coap.timing import Timing
from tests.support.worlds import FixedDice

KEY = ("meter", 1)


def times_of(dice: random.Random, timing: Timing) -> tuple[list[float], float]:
    """When one message is sent again, and when it is given up, by a driver that is on time."""
    machine = Retransmission(dice)
    machine.add(KEY, b"data", timing, now=100.0)
    sent: list[float] = []
    while (due := machine.next_timer()) is not None:
        again, given_up = machine.take_due(now=due)
        assert all(item == (KEY, b"data") for item in again)
        if given_up:
            assert (given_up, again, len(machine)) == ([KEY], [], 0)
            return sent, due
        assert len(again) == 1
        sent.append(due)
    raise AssertionError("never given up")


def test_derived_times_are_those_of_the_rfc() -> None:
    """4.8.2, table 3; they hold for the parameters of table 2."""
    timing = Timing()
    assert timing.max_transmit_span == 45
    assert timing.max_transmit_wait == 93
    assert timing.exchange_lifetime == 247
    assert timing.non_lifetime == 145


def test_a_slow_path_stretches_what_is_derived() -> None:
    slow = Timing(ack_timeout=10, max_retransmit=2)
    assert slow.max_transmit_span == 45
    assert slow.max_transmit_wait == 105


def test_shortest_dice_double_from_ack_timeout() -> None:
    sent, given_up = times_of(FixedDice(), Timing())
    assert sent == [102, 106, 114, 130]
    assert given_up == 162


def test_longest_dice_end_at_max_transmit_wait() -> None:
    dice = FixedDice()
    dice.share = 1.0
    sent, given_up = times_of(dice, Timing())
    assert sent[-1] - 100 == Timing().max_transmit_span
    assert given_up - 100 == Timing().max_transmit_wait


def test_no_repetition_is_possible() -> None:
    sent, given_up = times_of(FixedDice(), Timing(max_retransmit=0))
    assert sent == []
    assert given_up == 102


@pytest.mark.parametrize("seed", range(20))
def test_any_dice_stay_between_the_two(seed: int) -> None:
    sent, given_up = times_of(random.Random(seed), Timing())
    first = sent[0] - 100
    assert 2 <= first <= 3
    assert given_up - 100 == pytest.approx(31 * first)
    assert len(sent) == 4


def test_different_messages_are_not_repeated_in_step() -> None:
    """4.2: the random factor keeps senders from synchronising."""
    machine = Retransmission(random.Random(1))
    for message_id in range(50):
        machine.add(("meter", message_id), b"", Timing(), now=0)
    firsts = set()
    while (due := machine.next_timer()) is not None and due <= 3:
        machine.take_due(now=due)
        firsts.add(due)
    assert len(firsts) == 50


def test_a_removed_message_is_never_due() -> None:
    machine = Retransmission(FixedDice())
    machine.add(KEY, b"data", Timing(), now=0)
    assert KEY in machine
    assert machine.remove(KEY)
    assert not machine.remove(KEY)
    assert machine.next_timer() is None
    assert machine.take_due(now=1000) == ([], [])


def test_a_driver_that_slept_gets_no_burst() -> None:
    machine = Retransmission(FixedDice())
    machine.add(KEY, b"data", Timing(), now=0)
    assert machine.take_due(now=50) == ([(KEY, b"data")], [])
    assert machine.take_due(now=50) == ([], [])
    assert machine.next_timer() == 54


def test_early_is_harmless() -> None:
    machine = Retransmission(FixedDice())
    machine.add(KEY, b"data", Timing(), now=0)
    assert machine.take_due(now=1.999) == ([], [])
    assert machine.next_timer() == 2


def test_the_same_key_again_replaces_what_was() -> None:
    machine = Retransmission(FixedDice())
    machine.add(KEY, b"old", Timing(), now=0)
    machine.add(KEY, b"new", Timing(), now=1)
    assert machine.take_due(now=2) == ([], [])
    assert machine.take_due(now=3) == ([(KEY, b"new")], [])


def test_the_queue_does_not_grow_with_messages_long_acknowledged() -> None:
    machine = Retransmission(random.Random(1))
    machine.add(("slow", 0), b"", Timing(), now=0)
    for index in range(10_000):
        machine.add(("fast", index), b"", Timing(ack_timeout=60), now=0.0001 * index)
        machine.remove(("fast", index))
        assert len(machine._queue) <= QUEUE_SLACK + 2 * (len(machine) + 1)
    assert machine.next_timer() is not None
    assert len(machine) == 1


@given(
    st.lists(st.tuples(st.sampled_from(["add", "remove", "time"]), st.integers(0, 3)), max_size=60),
    st.integers(0, 100),
)
def test_every_message_added_is_removed_or_given_up_after_its_repetitions(
    story: list[tuple[str, int]], seed: int
) -> None:
    machine = Retransmission(random.Random(seed))
    now = 0.0
    counts: dict[int, int] = {}
    for verb, number in story:
        if verb == "add":
            machine.add(("p", number), bytes([number]), Timing(), now=now)
            counts[number] = 0
        elif verb == "remove":
            removed = machine.remove(("p", number))
            assert (removed is None) == (counts.pop(number, None) is None)
        else:
            now = max(now, machine.next_timer() or now)
            _collect(machine, now, counts)
            due = machine.next_timer()
            assert due is None or due > now
    while (due := machine.next_timer()) is not None:
        _collect(machine, due, counts)
    assert counts == {}
    assert len(machine) == 0


def _collect(machine: Retransmission, now: float, counts: dict[int, int]) -> None:
    again, given_up = machine.take_due(now=now)
    for (_, number), datagram in again:
        assert datagram == bytes([number])
        counts[number] += 1
    for _, number in given_up:
        assert counts.pop(number) == 4
