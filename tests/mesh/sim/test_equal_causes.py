"""Failures that look the same: the judge of isolations, against every way there is.

The contract under test: two components are told apart if and only if some way that a probe can
take has exactly one of them on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.sim.equal_causes import Component, is_told_apart

Links = frozenset[tuple[int, int]]
ROOTS = (0, 1)
NODES = range(7)


def around(links: Links) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {node: set() for node in NODES}
    for a, b in links:
        found[a].add(b)
        found[b].add(a)
    return found


def ways(links: Links) -> Iterator[list[int]]:
    """Every way a probe can take, walked one by one."""
    neighbours = around(links)
    stack = [[root] for root in ROOTS]
    while stack:
        way = stack.pop()
        yield way
        if len(way) > 1 and way[-1] in ROOTS:
            continue
        stack += [
            [*way, other]
            for other in neighbours[way[-1]]
            if other not in way and not (way[-1] in ROOTS and other in ROOTS)
        ]


def parts(way: list[int]) -> set[Component]:
    found: set[Component] = {("backhaul", (way[0],)), *(("node", (node,)) for node in way)}
    return found | {("link", (min(pair), max(pair))) for pair in itertools.pairwise(way)}


links_of = st.frozensets(
    st.sampled_from([pair for pair in itertools.combinations(NODES, 2) if pair != ROOTS]),
    max_size=9,
)


@given(links_of)
@settings(deadline=None, max_examples=60)
def test_told_apart_is_what_some_way_tells_apart(links: Links) -> None:
    seen = [parts(way) for way in ways(links)]
    components = sorted(set().union(*seen))
    for one, other in itertools.combinations(components, 2):
        expected = any((one in each) is not (other in each) for each in seen)
        assert is_told_apart(one, other, around(links), ROOTS) is expected
        assert is_told_apart(other, one, around(links), ROOTS) is expected


@pytest.mark.parametrize(
    ("one", "other", "is_expected"),
    [
        (("node", (3,)), ("link", (2, 3)), False),  # a leaf and its only link
        (("node", (2,)), ("link", (2, 3)), True),
        (("node", (2,)), ("link", (0, 2)), True),  # 2 is reached by 1 as well
        (("node", (0,)), ("backhaul", (0,)), True),  # a probe from 1 ends at 0
        (("backhaul", (0,)), ("backhaul", (1,)), True),
    ],
)
def test_small_example(one: Component, other: Component, is_expected: bool) -> None:
    links = frozenset({(0, 2), (1, 2), (2, 3)})
    assert is_told_apart(one, other, around(links), ROOTS) is is_expected


def test_collector_without_another_one_is_not_told_from_its_backhaul() -> None:
    links = frozenset({(0, 2), (2, 3)})
    neighbours = around(links)
    assert not is_told_apart(("node", (0,)), ("backhaul", (0,)), neighbours, (0,))
