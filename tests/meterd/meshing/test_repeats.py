"""Which datagrams of a meter are sent again.

The contract under test: a datagram counts its repetitions for two minutes after the last of them,
whatever else is sent; two datagrams are never taken for one; and no more than so many are kept.
"""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from mesh.repeated import ATTEMPT_MAX, MARK_SIZE, MEMORY_S
from meterd.meshing.repeats import ROWS_MAX, Repeats


def datagram(number: int) -> bytes:
    """Each with a message ID of its own, and as a retransmission the same octets."""
    return b"\x48\x02" + number.to_bytes(2, "big") + bytes(100)


def test_a_repetition_is_counted_and_another_datagram_is_none() -> None:
    repeats = Repeats()
    assert [repeats.note(datagram(1), now=float(now)) for now in range(3)] == [0, 1, 2]
    assert repeats.note(datagram(2), now=3.0) == 0
    assert repeats.note(datagram(1), now=4.0) == 3


def test_one_that_comes_after_two_minutes_is_another_one() -> None:
    repeats = Repeats()
    repeats.note(datagram(1), now=0.0)
    assert repeats.note(datagram(1), now=MEMORY_S - 0.1) == 1
    assert repeats.note(datagram(1), now=2 * MEMORY_S - 0.2) == 2, "since the last, not the first"
    assert repeats.note(datagram(1), now=3 * MEMORY_S - 0.2) == 0


def test_a_number_that_goes_into_one_octet() -> None:
    repeats = Repeats()
    for _ in range(ATTEMPT_MAX + 5):
        last = repeats.note(datagram(1), now=0.0)
    assert last == ATTEMPT_MAX


def test_short_and_empty_datagrams_are_datagrams() -> None:
    repeats = Repeats()
    assert [repeats.note(octets, now=0.0) for octets in (b"", b"x", b"", b"x")] == [0, 0, 1, 1]
    assert repeats.note(datagram(1)[:MARK_SIZE] + b"other end", now=0.0) == 0


@given(st.lists(st.tuples(st.integers(0, 2 * ROWS_MAX), st.sampled_from([0.0, 1.0, 50.0, 130.0]))))
def test_table_is_bounded_and_says_what_was_sent(steps: list[tuple[int, float]]) -> None:
    repeats, now = Repeats(), 0.0
    sent: dict[int, list[float]] = defaultdict(list)
    for number, after in steps:
        now += after
        found = repeats.note(datagram(number), now=now)
        times = sent[number]
        if times and now - times[-1] >= MEMORY_S:
            times.clear()
        # The oldest of more than fit are forgotten; then it is a first time again.
        assert found in (len(times), 0)
        if len(sent) <= ROWS_MAX:
            assert found == len(times)
        if found == 0:
            times.clear()
        times.append(now)
        assert len(repeats) <= ROWS_MAX
