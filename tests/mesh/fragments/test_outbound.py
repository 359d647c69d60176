"""One packet's rounds: what goes when, what is asked when, and when it is enough.

The contract under test: all fragments once before any goes again, oldest first; one question a
round or window, under a timer that doubles; an older answer steers nothing; congestion slows down.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.fragments import Fragment, FragmentAck, FragmentSettings
from mesh.fragments.codec import BITMAP_FULL, BITMAP_NULL, bit_of
from mesh.fragments.outbound import Outbound, Progress

SETTINGS = FragmentSettings(100, 50, gap=0.5, window=32, rto=4.0, rto_max=20.0)


def outbound(count: int = 6, settings: FragmentSettings = SETTINGS) -> Outbound:
    return Outbound(bytes(50 * count), tag=1, settings=settings, now=0.0, rto=settings.rto)


def ack(*sequences: int, has_congestion: bool = False) -> FragmentAck:
    return FragmentAck(1, sum(map(bit_of, sequences)), has_congestion)


def burst(packet: Outbound) -> list[tuple[float, int, bool]]:
    """Everything up to the next question: when, which, and whether it asks."""
    sent = []
    while True:
        due = packet.next_due()
        assert due is not None
        fragment = packet.take_due(now=due)
        assert isinstance(fragment, Fragment)
        sent.append((due, fragment.sequence, fragment.wants_ack))
        if fragment.wants_ack:
            return sent


def sequences(sent: list[tuple[float, int, bool]]) -> list[int]:
    return [sequence for _, sequence, _ in sent]


def test_all_go_once_in_order_with_gaps_and_the_last_asks() -> None:
    packet = outbound(3)
    assert packet.piece_count == 3
    assert burst(packet) == [(0.0, 0, False), (0.5, 1, False), (1.0, 2, True)]
    assert packet.take_due(now=1.1) is None
    assert packet.next_due() == 5.0
    assert packet.sent_count == 3


def test_what_is_missing_goes_again_oldest_first_and_alone() -> None:
    packet = outbound()
    burst(packet)
    assert packet.receive_ack(ack(0, 2, 5), now=3.0) is Progress.GOING
    assert burst(packet) == [(3.0, 1, False), (3.5, 3, False), (4.0, 4, True)]


def test_everything_has_gone_once_before_anything_goes_again() -> None:
    packet = outbound(6, replace(SETTINGS, window=2))
    assert sequences(burst(packet)) == [0, 1]
    assert packet.receive_ack(ack(1), now=1.0) is Progress.GOING
    assert sequences(burst(packet)) == [2, 3]
    assert packet.receive_ack(ack(1, 3), now=3.0) is Progress.GOING
    assert sequences(burst(packet)) == [4, 5]
    assert packet.receive_ack(ack(1, 3, 4, 5), now=5.0) is Progress.GOING
    assert sequences(burst(packet)) == [0, 2]


def test_older_answer_steers_nothing() -> None:
    packet = outbound()
    burst(packet)
    packet.receive_ack(ack(0, 1, 2, 5), now=3.0)
    first = packet.take_due(now=3.0)
    assert isinstance(first, Fragment)
    # Doubled on its way, while the next round goes out...
    assert packet.receive_ack(ack(0, 1, 2, 5), now=3.1) is Progress.GOING
    assert sequences(burst(packet)) == [4]
    # ...and while that waits for its answer.
    due = packet.next_due()
    assert packet.receive_ack(ack(0, 1, 2, 5), now=3.6) is Progress.GOING
    assert packet.next_due() == due
    assert packet.take_due(now=3.6) is None
    assert packet.receive_ack(ack(0, 1, 2, 4, 5), now=4.0) is Progress.GOING
    assert sequences(burst(packet)) == [3]


def test_silence_is_asked_again_with_doubled_patience_and_then_enough() -> None:
    packet = outbound(2)
    burst(packet)
    asked = []
    while True:
        due = packet.next_due()
        assert due is not None
        assert packet.take_due(now=due - 0.01) is None
        found = packet.take_due(now=due)
        asked.append(due)
        if found is Progress.UNANSWERED:
            break
        assert isinstance(found, Fragment)
        assert (found.sequence, found.wants_ack) == (1, True)
    # 4, 8, 16 and then 20 s, the bound, after the question at 0.5.
    assert asked == [4.5, 12.5, 28.5, 48.5]


def test_answer_gives_new_patience() -> None:
    packet = outbound(3)
    burst(packet)
    packet.take_due(now=5.0)
    packet.receive_ack(ack(2), now=6.0)
    burst(packet)
    for _ in range(3):
        due = packet.next_due()
        assert due is not None
        assert isinstance(packet.take_due(now=due), Fragment)


@pytest.mark.parametrize(("round_trip", "patience"), [(0.1, 2.0), (1.0, 3.0), (3.9, 11.7)])
def test_patience_follows_the_round_trip(round_trip: float, patience: float) -> None:
    packet = outbound(3)
    asked_at = burst(packet)[-1][0]
    packet.receive_ack(ack(0, 2), now=asked_at + round_trip)
    again_at = burst(packet)[-1][0]
    assert packet.next_due() == pytest.approx(again_at + patience)


def test_round_trip_of_a_repeated_question_is_no_sample() -> None:
    packet = outbound(3)
    burst(packet)
    packet.take_due(now=5.0)
    packet.receive_ack(ack(0, 2), now=5.01)
    again_at = burst(packet)[-1][0]
    assert packet.next_due() == again_at + 8.0


def test_fragment_that_never_arrives_is_enough_after_four_times() -> None:
    packet = outbound()
    burst(packet)
    there = [0, 5]
    for latest in (4, 3):
        assert packet.receive_ack(ack(*there), now=10.0) is Progress.GOING
        assert sequences(burst(packet)) == list(range(1, latest + 1))
        there.append(latest)
    assert packet.receive_ack(ack(*there), now=20.0) is Progress.GOING
    assert sequences(burst(packet)) == [1, 2]
    assert packet.receive_ack(ack(*there, 2), now=30.0) is Progress.EXHAUSTED


def test_fragment_that_never_arrives_is_enough_whatever_else_is_missing() -> None:
    packet = outbound(10, replace(SETTINGS, window=2))
    there: list[int] = []
    for last in (1, 3, 5, 7, 9, 2, 4, 6):
        assert sequences(burst(packet))[-1] == last
        there.append(last)
        progress = packet.receive_ack(ack(*there), now=100.0 * len(there))
        # With each of the last three went the first one again.
        assert progress is (Progress.EXHAUSTED if last == 6 else Progress.GOING)


def test_congestion_halves_the_window_and_doubles_the_gap() -> None:
    packet = outbound(12, replace(SETTINGS, window=4))
    assert len(burst(packet)) == 4
    packet.receive_ack(ack(0, 1, 2, 3, has_congestion=True), now=10.0)
    assert burst(packet) == [(10.0, 4, False), (11.0, 5, True)]
    packet.receive_ack(ack(0, 1, 2, 3, 4, 5, has_congestion=True), now=20.0)
    assert burst(packet) == [(20.0, 6, True)]
    packet.receive_ack(ack(0, 1, 2, 3, 4, 5, 6, has_congestion=True), now=30.0)
    assert burst(packet) == [(30.0, 7, True)]


def test_last_words_are_believed_at_any_time() -> None:
    for bitmap, progress in ((BITMAP_FULL, Progress.DONE), (BITMAP_NULL, Progress.REFUSED)):
        packet = outbound()
        packet.take_due(now=0.0)
        assert packet.receive_ack(FragmentAck(1, bitmap), now=0.1) is progress


def test_everything_there_and_yet_not_whole_is_asked_until_it_is_enough() -> None:
    packet = outbound(2)
    burst(packet)
    progress = packet.receive_ack(ack(0, 1), now=1.0)
    questions = 0
    while progress is Progress.GOING:
        questions += len(burst(packet))
        progress = packet.receive_ack(ack(0, 1), now=1.0 + questions)
    assert (progress, questions) == (Progress.EXHAUSTED, 3)
