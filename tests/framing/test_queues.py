"""What waits to be sent: order, floors, bounds.

The contract under test: within a priority first in is first out; an urgent frame goes first; a
queue that waits gets its floor whatever the others do; each bound holds and is its queue's own.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import TableFull
from amistack.framing import Priority
from amistack.framing.queues import FLOOR_DIVISOR, PriorityQueues

priorities = st.sampled_from(Priority)


@given(st.lists(st.tuples(priorities, st.integers(1, 3000)), max_size=60))
def test_what_went_in_comes_out_once_and_in_order_within_its_priority(
    entries: list[tuple[Priority, int]],
) -> None:
    queues = PriorityQueues[int]()
    for index, (priority, size) in enumerate(entries):
        queues.put(priority, size, index)
    taken = []
    while (entry := queues.take()) is not None:
        taken.append(entry)
    assert sorted(index for _, index in taken) == list(range(len(entries)))
    for priority in Priority:
        mine = [index for taken_as, index in taken if taken_as is priority]
        assert mine == sorted(mine)
        assert all(entries[index][0] is priority for index in mine)
        assert queues.depth(priority) == (0, 0)
    assert len(queues) == 0


@given(st.lists(st.one_of(st.tuples(priorities, st.integers(1, 900)), st.none()), max_size=90))
def test_length_and_floors_hold_whatever_comes_and_goes(
    steps: list[tuple[Priority, int] | None],
) -> None:
    """Against queues that are written as the contract is: None takes one."""
    queues = PriorityQueues[int]()
    plain: dict[Priority, list[tuple[int, int]]] = {priority: [] for priority in Priority}
    earned = dict.fromkeys(Priority, 0)
    for index, step in enumerate(steps):
        if step is not None:
            queues.put(*step, index)
            plain[step[0]].append((step[1], index))
        else:
            waiting = [priority for priority in Priority if plain[priority]]
            expected = None
            if waiting:
                costs = {each: plain[each][0][0] * FLOOR_DIVISOR for each in waiting}
                first = next((each for each in waiting if earned[each] >= costs[each]), None)
                chosen = waiting[0] if first is None else first
                earned[chosen] -= 0 if first is None else costs[chosen]
                size, entry = plain[chosen].pop(0)
                expected = (chosen, entry)
                for other in waiting:
                    earned[other] += 0 if other is chosen else size
                earned[chosen] = earned[chosen] if plain[chosen] else 0
            assert queues.take() == expected
        assert len(queues) == queues.count == sum(map(len, plain.values()))
        for priority, entries in plain.items():
            assert queues.depth(priority) == (len(entries), sum(size for size, _ in entries))
    assert sorted(queues.drain()) == sorted(entry for some in plain.values() for _, entry in some)
    assert len(queues) == 0
    assert queues.take() is None


def test_the_most_urgent_goes_first() -> None:
    queues = PriorityQueues[str]()
    for priority in reversed(Priority):
        queues.put(priority, 100, priority.name)
    assert [queues.take() for _ in Priority] == [(p, p.name) for p in Priority]


def served(backlogged: list[Priority], dice: random.Random, total: int) -> Counter[Priority]:
    """The octets that each got, while every one of `backlogged` always has some waiting."""
    queues = PriorityQueues[int]()
    for priority in backlogged:
        for _ in range(3):
            size = dice.randrange(14, 2330)
            queues.put(priority, size, size)
    got: Counter[Priority] = Counter()
    while got.total() < total:
        taken = queues.take()
        assert taken is not None
        got[taken[0]] += taken[1]
        size = dice.randrange(14, 2330)
        queues.put(taken[0], size, size)
    return got


@pytest.mark.parametrize("seed", range(8))
def test_no_priority_starves_and_each_gets_its_floor(seed: int) -> None:
    dice = random.Random(seed)
    backlogged = sorted(dice.sample(list(Priority), dice.randrange(2, 9)))
    total = 800_000
    got = served(backlogged, dice, total)
    for priority in backlogged[1:]:
        share = (total - got[priority]) / FLOOR_DIVISOR
        assert got[priority] >= share - 2330, priority
        # A floor is not more than that, either: the most urgent has the rest.
        assert got[priority] <= share * 1.1 + 2330, priority
    assert got[backlogged[0]] > 0.75 * total


def test_urgent_frame_waits_for_at_most_what_the_floors_had_earned() -> None:
    queues = PriorityQueues[int]()
    dice = random.Random(5)
    for _ in range(4000):
        for priority in (Priority.FIRMWARE, Priority.RECOVERY, Priority.SCHEDULED):
            if queues.depth(priority)[0] < 5:
                queues.put(priority, 1000, 0)
        queues.take()
        if dice.random() < 0.05:
            queues.put(Priority.ALARM, 100, 1)
            waits = 0
            while (taken := queues.take()) is not None and taken[0] is not Priority.ALARM:
                waits += 1
            assert waits <= 3


def test_what_was_earned_by_waiting_is_not_kept_once_the_queue_is_empty() -> None:
    queues = PriorityQueues[int]()
    queues.put(Priority.JOINING, 2000, 7)
    for _ in range(31):
        queues.put(Priority.ALARM, 1000, 1)
        queues.take()
    for _ in range(40):
        queues.take()
    queues.put(Priority.JOINING, 10, 7)
    queues.put(Priority.ALARM, 10, 1)
    assert queues.take() == (Priority.ALARM, 1)


@pytest.mark.parametrize(("size", "fitting"), [(1, 4), (40, 2)])
def test_full_queue_refuses_and_leaves_all_as_it_was(size: int, fitting: int) -> None:
    queues = PriorityQueues[int](size_max=100, count_max=4)
    for index in range(fitting):
        queues.put(Priority.ALARM, size, index)
    with pytest.raises(TableFull, match="of priority 1 wait"):
        queues.put(Priority.ALARM, size, 99)
    assert queues.depth(Priority.ALARM) == (fitting, fitting * size)
    queues.put(Priority.JOINING, size, 100)
    assert queues.drain() == [*range(fitting), 100]
    assert queues.take() is None
    queues.put(Priority.ALARM, 100, 1)
