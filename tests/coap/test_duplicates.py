"""The memory of messages that came in: what is known, for how long, and how many.

The contract under test: a message is found from its noting to the end of its life and not beyond;
the memory never holds more than its bound, and forgets the oldest first.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.duplicates import Duplicates


def test_a_message_is_found_until_its_life_ends() -> None:
    memory = Duplicates(count_max=4)
    entry = memory.remember("a", 1, now=0, lifetime=247)
    entry.reply = b"answer"
    assert memory.find("a", 1, now=246.9) is entry
    assert memory.find("a", 1, now=247) is None
    assert len(memory) == 0


def test_a_message_is_one_peers_and_one_id() -> None:
    memory = Duplicates(count_max=4)
    memory.remember("a", 1, now=0, lifetime=10)
    assert memory.find("b", 1, now=0) is None
    assert memory.find("a", 2, now=0) is None


def test_the_oldest_is_forgotten_at_the_bound() -> None:
    memory = Duplicates(count_max=2)
    for message_id in (1, 2, 3):
        memory.remember("a", message_id, now=0, lifetime=10)
    assert len(memory) == 2
    assert memory.evicted_count == 1
    assert memory.find("a", 1, now=0) is None
    assert memory.find("a", 3, now=0) is not None


def test_a_short_life_behind_a_long_one_ends_in_time() -> None:
    memory = Duplicates(count_max=4)
    memory.remember("a", 1, now=0, lifetime=247)
    memory.remember("a", 2, now=0, lifetime=145)
    assert memory.find("a", 2, now=144) is not None
    assert memory.find("a", 2, now=145) is None
    assert memory.find("a", 1, now=200) is not None


def test_noting_an_id_again_gives_it_a_life_of_its_own() -> None:
    memory = Duplicates(count_max=2)
    memory.remember("a", 1, now=0, lifetime=5)
    memory.remember("a", 2, now=0, lifetime=100)
    again = memory.remember("a", 1, now=50, lifetime=100)
    assert memory.evicted_count == 0
    memory.remember("a", 3, now=50, lifetime=100)
    assert memory.find("a", 1, now=50) is again
    assert memory.find("a", 2, now=50) is None


def test_what_was_noted_again_is_not_forgotten_in_place_of_its_forerunner() -> None:
    memory = Duplicates(count_max=3)
    memory.remember("a", 1, now=0, lifetime=100)
    memory.remember("a", 2, now=0, lifetime=5)
    again = memory.remember("a", 2, now=50, lifetime=100)
    memory.forget_expired(now=100)
    assert memory.find("a", 2, now=100) is again
    assert len(memory) == 1
    assert memory.evicted_count == 0


steps = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([3.0, 7.0]), st.floats(0, 4)), max_size=40
)


@given(steps)
def test_memory_agrees_with_a_plain_list_and_keeps_its_bound(
    story: list[tuple[int, float, float]],
) -> None:
    memory = Duplicates(count_max=3)
    noted: list[tuple[int, float]] = []  # Oldest first: id, end of life.
    now = 0.0
    for message_id, lifetime, pause in story:
        now += pause
        known = any(id_ == message_id and until > now for id_, until in noted)
        if memory.evicted_count == 0:  # Up to there the plain list needs no bound.
            assert (memory.find("a", message_id, now=now) is not None) == known
        if memory.find("a", message_id, now=now) is None:
            memory.remember("a", message_id, now=now, lifetime=lifetime)
            noted.append((message_id, now + lifetime))
        assert len(memory) <= len(memory._order) <= 3
    memory.forget_expired(now=now + 7)
    assert len(memory) == 0
    assert not memory._order
