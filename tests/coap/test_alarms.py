"""Deadlines by name: what is due, when, and that nothing is kept of what is over.

The contract under test: a name is due once, at the time that was set last; what was dropped is
never due; the queue stays in proportion to what is set.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.alarms import QUEUE_SLACK, Alarms


def test_the_time_that_was_set_last_counts() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", 5.0)
    alarms.set("a", 9.0)
    assert alarms.next_timer() == 9
    assert alarms.take_due(now=8.9) == []
    assert alarms.take_due(now=9.0) == ["a"]
    assert (alarms.take_due(now=99), alarms.next_timer(), len(alarms)) == ([], None, 0)


def test_what_was_put_forward_is_due_once() -> None:
    alarms: Alarms[str] = Alarms()
    alarms.set("a", 9.0)
    alarms.set("a", 5.0)
    assert alarms.take_due(now=100) == ["a"]


def test_names_that_cannot_be_compared_may_be_due_together() -> None:
    alarms: Alarms[object] = Alarms()
    names = [object() for _ in range(3)]
    for name in names:
        alarms.set(name, 1.0)
    assert alarms.take_due(now=1) == names


def test_the_queue_does_not_grow_with_what_is_put_off_again_and_again() -> None:
    alarms: Alarms[int] = Alarms()
    for index in range(10_000):
        alarms.set(index % 10, 1000.0 + index)
        assert len(alarms._queue) <= QUEUE_SLACK + 2 * 10
    assert len(alarms) == 10


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "drop", "time"]), st.integers(0, 3), st.integers(0, 9))
    )
)
def test_alarms_agree_with_a_plain_table(story: list[tuple[str, int, int]]) -> None:
    alarms: Alarms[int] = Alarms()
    table: dict[int, float] = {}
    now = 0.0
    for verb, name, number in story:
        if verb == "set":
            alarms.set(name, now + number)
            table[name] = now + number
        elif verb == "drop":
            alarms.drop(name)
            table.pop(name, None)
        else:
            now += number
            due = sorted(key for key, time in table.items() if time <= now)
            assert sorted(alarms.take_due(now=now)) == due
            for key in due:
                del table[key]
        assert len(alarms) == len(table)
        assert (name in alarms) == (name in table)
        assert alarms.next_timer() == min(table.values(), default=None)
