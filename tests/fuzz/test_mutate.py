"""The mutator: new inputs from old ones.

The contract under test: one seed, one sequence; no input is longer than the target takes; whatever
the corpus, something comes out and nothing is raised; inputs of a CBOR target are often still CBOR.
"""

from __future__ import annotations

import random

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interop.fuzz import mutate
from interop.fuzz.mutate import INTERESTING, Mutator
from tests.fuzz.toys import run_sturdy, toy


def mutator(seed: int = 1, *, is_cbor: bool = False, tokens: tuple[bytes, ...] = ()) -> Mutator:
    return Mutator(toy(run_sturdy, is_cbor=is_cbor, tokens=tokens), random.Random(seed))


def test_one_seed_gives_one_sequence() -> None:
    corpus = [b"abc", b"", cbor2.dumps([1, {2: b"x"}])]
    first, second = mutator(7, is_cbor=True), mutator(7, is_cbor=True)
    assert [first.mutate(corpus) for _ in range(500)] == [second.mutate(corpus) for _ in range(500)]
    assert mutator(8).mutate(corpus * 9) != mutator(9).mutate(corpus * 9)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=4), st.booleans(), st.integers())
def test_any_corpus_is_mutated_within_the_bound(
    corpus: list[bytes], is_cbor: bool, seed: int
) -> None:
    one = mutator(seed, is_cbor=is_cbor, tokens=(b"token",))
    for _ in range(20):
        data = one.mutate(corpus)
        assert type(data) is bytes
        assert len(data) <= 64


@pytest.mark.parametrize("change", mutate._CHANGES, ids=lambda change: change.__name__)
def test_every_change_changes(change: mutate._Change) -> None:
    dice = random.Random(3)
    changed = 0
    for _ in range(200):
        octets = bytearray(b"0123456789")
        change(octets, dice)
        changed += octets != b"0123456789"
        empty = bytearray()
        change(empty, dice)
    assert changed > 100


def test_inputs_of_every_size_come_from_one() -> None:
    one = mutator()
    sizes = {len(one.mutate([b"0123456789"])) for _ in range(3000)}
    assert sizes > set(range(21))
    assert max(sizes) == 64


def test_tokens_are_strewn_about() -> None:
    one = mutator(tokens=(b"magic",))
    with_token = sum(b"magic" in one.mutate([b"0123456789"]) for _ in range(1000))
    assert with_token > 30


def test_two_inputs_are_spliced() -> None:
    one = mutator()
    corpus = [b"aaaaaaaa", b"bbbbbbbb"]
    assert any(
        data.startswith(b"aaa") and data.endswith(b"bbb")
        for data in (one.mutate(corpus) for _ in range(500))
    )


def test_cbor_stays_cbor_half_of_the_time_and_each_item_is_changed() -> None:
    tree = [1, b"octets", "text", [2, 3], {4: True}]
    one = mutator(is_cbor=True)
    readable, places = 0, set()
    for _ in range(2000):
        try:
            other = cbor2.loads(one.mutate([cbor2.dumps(tree)]))
        except Exception:  # noqa: BLE001  whatever a foreign decoder raises
            continue
        readable += 1
        if isinstance(other, list) and len(other) == len(tree):
            places |= {at for at in range(len(tree)) if other[at] != tree[at]}
    assert readable > 900
    assert places == set(range(len(tree)))


def test_cbor_that_is_none_is_changed_as_octets() -> None:
    one = mutator(is_cbor=True)
    assert len({one.mutate([b"\xff\x1c"]) for _ in range(100)}) > 50


def test_numbers_at_the_edge_are_there() -> None:
    assert {0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 2**32 - 1, 2**63, 2**64 - 1} <= set(
        INTERESTING
    )
