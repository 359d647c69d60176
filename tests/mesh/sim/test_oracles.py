"""The judges: each finds what it is there for, and nothing else."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.sim.oracles import (
    FAULT_COUNT_MAX,
    SEAL,
    Faults,
    Ledger,
    LoopWatch,
    QueueWatch,
    cycles,
    message,
    path_cost,
    read_message,
)
from mesh.sim.results import percentile


@given(
    kind=st.integers(0, 255),
    number=st.integers(0, 2**32 - 1),
    node=st.integers(0, 0xFFFF),
    size=st.integers(11, 1280),
)
@settings(deadline=None)
def test_message_proves_what_it_is(kind: int, number: int, node: int, size: int) -> None:
    payload = message(kind, number, node, size)
    assert len(payload) == size
    assert read_message(payload) == (kind, number, node)


@given(size=st.integers(11, 200), bit=st.integers(0, 10**6))
@settings(deadline=None)
def test_message_with_one_flipped_bit_is_another_or_none(size: int, bit: int) -> None:
    changed = bytearray(message(4, 77, 12, size))
    place = bit % (len(changed) * 8)
    changed[place // 8] ^= 1 << place % 8
    assert read_message(bytes(changed)) != (4, 77, 12)


@pytest.mark.parametrize(("number", "node"), [(78, 12), (77, 13)])
def test_filling_belongs_to_its_number_and_node(number: int, node: int) -> None:
    filling = message(4, 77, 12, 50)[SEAL.size :]
    head = SEAL.pack(4, number, node, zlib.crc32(filling))
    assert read_message(head + filling) is None
    assert read_message(SEAL.pack(4, 77, 12, zlib.crc32(filling)) + filling) == (4, 77, 12)


def ledger() -> tuple[Ledger, Faults]:
    faults = Faults()
    book = Ledger(faults)
    book.give(1, 4, 12, 50, at=10.0)
    return book, faults


def test_ledger_counts_arrivals_and_repetitions() -> None:
    book, faults = ledger()
    payload = message(4, 1, 12, 50)
    assert book.take(payload, node=12, at=11.0) == (4, 1, 1)
    assert book.take(payload, node=12, at=12.0) == (4, 1, 2)
    assert (book.arrivals, book.repeated, faults.count) == (2, 1, 0)
    assert book.sent[4, 1].first_at == 11.0


def test_what_is_sent_again_has_not_gone_anew() -> None:
    book, faults = ledger()
    payload = message(4, 1, 12, 50)
    assert book.take(payload, node=12, at=11.0) == (4, 1, 1)
    book.give(1, 4, 12, 50, at=20.0)
    assert book.take(payload, node=12, at=21.0) == (4, 1, 2)
    assert (book.sent[4, 1].at, book.sent[4, 1].first_at) == (10.0, 11.0)
    assert (book.repeated, faults.count) == (1, 0)


@pytest.mark.parametrize(
    ("payload", "node", "at", "line"),
    [
        (b"garbage", 12, 11.0, "7 octets that nobody sent"),
        (message(4, 2, 12, 50), 12, 11.0, "message 2, which was not sent so"),
        (message(4, 1, 12, 51), 12, 11.0, "message 1, which was not sent so"),
        (message(5, 1, 12, 50), 12, 11.0, "message 1, which was not sent so"),
        (message(4, 1, 12, 50), 13, 11.0, "message 1 of 12 came as one of 13"),
        (message(4, 1, 12, 50), 12, 9.0, "came before it was sent"),
    ],
    ids=["garbage", "number", "size", "kind", "node", "time"],
)
def test_ledger_finds_what_was_never_sent(payload: bytes, node: int, at: float, line: str) -> None:
    book, faults = ledger()
    book.take(payload, node=node, at=at)
    assert faults.count == 1
    assert line in faults.lines[0]


def test_faults_are_bounded() -> None:
    faults = Faults()
    for n in range(FAULT_COUNT_MAX + 50):
        faults.add(str(n))
    assert (faults.count, len(faults.lines)) == (FAULT_COUNT_MAX + 50, FAULT_COUNT_MAX)


@given(st.lists(st.integers(-1, 11), min_size=12, max_size=12))
@settings(deadline=None)
def test_cycles_are_those_found_by_walking_from_everywhere(parents: list[int]) -> None:
    walked = set()
    for start in range(len(parents)):
        node, way = start, []
        while node >= 0 and node not in way:
            way.append(node)
            node = parents[node]
        if node >= 0:
            walked.add(frozenset(way[way.index(node) :]))
    assert {frozenset(loop) for loop in cycles(parents)} == walked
    assert len(cycles(parents)) == len(walked)


def test_loop_that_stands_too_long_is_said_once() -> None:
    faults = Faults()
    watch = LoopWatch(faults, bound_s=100)
    for at in range(0, 300, 10):
        watch.look([-1, 2, 1, 0], at=float(at))
    assert (watch.seen, watch.longest_s) == (1, 290)
    assert faults.count == 1
    assert "loop of (1, 2) stands since t=0.0" in faults.lines[0]


def test_loop_that_opens_and_closes_is_two() -> None:
    faults = Faults()
    watch = LoopWatch(faults, bound_s=100)
    for at, parents in enumerate([[1, 0], [1, -1], [1, 0], [1, 0]]):
        watch.look(parents, at=at * 60.0)
    assert (watch.seen, watch.longest_s, faults.count) == (2, 60, 0)


def test_loop_that_stands_too_long_again_is_said_again() -> None:
    faults = Faults()
    watch = LoopWatch(faults, bound_s=100)
    for at, parents in enumerate([[1, 0]] * 4 + [[1, -1]] + [[1, 0]] * 4):
        watch.look(parents, at=at * 60.0)
    assert (watch.seen, faults.count) == (2, 2)
    assert [line.partition(" ")[0] for line in faults.lines] == ["t=120.0", "t=420.0"]


def test_queue_over_its_bound_is_a_fault() -> None:
    faults = Faults()
    watch = QueueWatch(faults)
    watch.look([(1, 0.5), (2, 1.0)], at=1.0)
    assert (watch.fullest, faults.count) == (1.0, 0)
    watch.look([(3, 1.01)], at=2.0)
    assert faults.count == 1


def test_path_cost_adds_up_to_a_root_and_is_none_elsewhere() -> None:
    parents = [-1, 0, 1, 4, 3, -1]
    costs = {node: path_cost(parents, node, frozenset([0]), lambda a, b: 1.5) for node in range(6)}
    assert costs == {0: 0.0, 1: 1.5, 2: 3.0, 3: None, 4: None, 5: None}


def test_percentile_is_by_nearest_rank() -> None:
    values = list(range(1, 101))
    random.Random(1).shuffle(values)
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([7.0], 0.01) == 7.0
    assert percentile([], 0.5) is None
