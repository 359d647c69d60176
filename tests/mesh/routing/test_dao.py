"""DAOs: what a root believes of them, and the routes that it makes.

The contract under test: nothing that is old, foreign or contradicts itself changes a row; every
route is a chain of told parents without a loop, found by an oracle that enumerates them.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import MeshError
from mesh.packet import ROUTE_LENGTH_MAX
from mesh.routing.dao import (
    EDGE_DENY_COUNT_MAX,
    EDGE_DENY_TIME,
    STATUS_ACCEPTED,
    STATUS_OLD,
    STATUS_REFUSED,
    RouteTable,
)
from mesh.routing.messages import (
    Configuration,
    Dao,
    Transit,
    address_of,
)
from mesh.routing.telling import PATH_CONTROLS

PREFIX = bytes.fromhex("fd00000000000000")
CONFIGURATION = Configuration(14, 9, 10, 1024, 256, 12, 100)
ROOT_SHORT = 1


def dao(target: int, *parents: int, sequence: int = 1, lifetime: int = 12) -> Dao:
    return Dao(
        0,
        1,
        address_of(PREFIX, target),
        tuple(
            Transit(address_of(PREFIX, parent), sequence, lifetime, control)
            for parent, control in zip(parents, PATH_CONTROLS, strict=False)
        ),
    )


def take(table: RouteTable, target: int, *parents: int, now: float = 0.0, **more: int) -> int:
    told = dao(target, *parents, **more)
    return table.take(told, CONFIGURATION, source=target, now=now)[1]


def table_of(rows: dict[int, tuple[int, ...]]) -> RouteTable:
    table = RouteTable(ROOT_SHORT)
    for target, parents in rows.items():
        take(table, target, *parents)
    return table


def test_a_route_follows_preferred_parents() -> None:
    table = table_of({2: (1,), 3: (2, 1), 4: (3, 2)})
    assert table.route_to(2, now=0.0) == ()
    assert table.route_to(4, now=0.0) == (2, 3)
    assert table.route_to(9, now=0.0) is None


def test_other_routes_avoid_the_relays_of_the_first() -> None:
    table = table_of({2: (1,), 3: (1,), 4: (2, 3), 5: (4, 3)})
    routes = table.routes_to(5, now=0.0)
    assert routes[0] == (2, 4)
    assert routes[1] == (3,)
    assert len(set(routes)) == len(routes) == 3


def test_a_hop_that_failed_is_not_taken_while_there_is_another() -> None:
    table = table_of({2: (1,), 3: (1,), 4: (2, 3)})
    table.deny(2, 4, now=0.0)
    assert table.route_to(4, now=1.0) == (3,)
    assert table.route_to(4, now=1000.0) == (2,)
    table.deny(3, 4, now=1.0)
    assert table.route_to(4, now=2.0) == (2,)


@pytest.mark.parametrize(
    ("target", "parents", "reason"),
    [
        (5, (5,), "dao: its own parent"),
        (5, (2, 5), "dao: its own parent"),
        (5, (0,), "dao: its own parent"),
        (1, (2,), "dao: bad target"),
        (0, (2,), "dao: bad target"),
    ],
)
def test_a_contradiction_changes_nothing(
    target: int, parents: tuple[int, ...], reason: str
) -> None:
    table = table_of({2: (1,), 4: (2,)})
    before = dict(table.rows)
    assert take(table, target, *parents, sequence=9) == STATUS_REFUSED
    assert table.rows == before
    assert table.counters[reason] == 1


THREE_TO_A_DEAD_ONE = {2: (1,), 3: (1,), 4: (1,), 5: (2, 3, 4), 6: (1,), 7: (6,), 8: (5, 7)}
"""8 goes by 5, which has three ways to the root, or by 7 and 6."""


def test_a_node_that_two_neighbours_did_not_reach_is_avoided_as_a_whole() -> None:
    table = table_of(THREE_TO_A_DEAD_ONE)
    assert table.route_to(8, now=0.0) == (2, 5)
    table.deny(2, 5, now=0.0)
    table.deny(2, 5, now=0.5)
    assert table.route_to(8, now=1.0) == (3, 5), "one that fails twice may be a bad link"
    table.deny(3, 5, now=1.0)
    assert table.route_to(8, now=1.0) == (6, 7)
    assert table.counters["node avoided"] == 1
    # There is no other way to itself, nor to one that has it alone.
    assert table.route_to(5, now=1.0) == (4,)
    take(table, 9, 5)
    assert table.route_to(9, now=1.0) == (2, 5)
    assert table.route_to(8, now=1.0 + EDGE_DENY_TIME) == (2, 5)


def test_two_failures_far_apart_or_of_those_who_do_not_know_it_say_nothing_of_a_node() -> None:
    table = table_of(THREE_TO_A_DEAD_ONE)
    table.deny(2, 5, now=0.0)
    table.deny(3, 5, now=EDGE_DENY_TIME)
    assert table.route_to(8, now=EDGE_DENY_TIME) == (2, 5)
    table = table_of(THREE_TO_A_DEAD_ONE)
    table.deny(2, 5, now=0.0, is_unknown=True)
    table.deny(3, 5, now=0.0)
    assert table.route_to(8, now=0.0) == (4, 5)


def test_a_node_that_tells_of_itself_is_not_avoided_any_more() -> None:
    table = table_of(THREE_TO_A_DEAD_ONE)
    table.deny(2, 5, now=0.0)
    table.deny(3, 5, now=0.0)
    take(table, 5, 4, 2, sequence=2, now=1.0)
    assert table.route_to(8, now=1.0) == (4, 5)
    table.deny(4, 5, now=2.0)
    assert table.counters["node avoided"] == 1, "what was before it spoke counts no more"


def test_around_a_node_that_was_not_reached_there_may_be_no_way() -> None:
    table = table_of(THREE_TO_A_DEAD_ONE)
    assert table.route_around(5, 8, now=0.0) == (6, 7)
    assert table.route_around(8, 8, now=0.0) == (2, 5)
    take(table, 8, 5, sequence=2)
    assert table.route_around(5, 8, now=0.0) == (2, 5)


def test_what_failed_is_remembered_of_so_many_and_no_more() -> None:
    table = table_of(THREE_TO_A_DEAD_ONE)
    for number in range(2 * EDGE_DENY_COUNT_MAX):
        for relay in (2, 3):
            table.deny(relay, 100 + number, now=0.0)
    sizes = [len(one) for one in (table._denied, table._failed_from, table._out)]
    assert max(sizes) == EDGE_DENY_COUNT_MAX


def test_a_dao_about_somebody_else_changes_nothing() -> None:
    table = table_of({2: (1,)})
    assert table.take(dao(2, 1, sequence=5), CONFIGURATION, source=3, now=0.0)[1] == STATUS_REFUSED
    assert table.rows[2].path_sequence == 1


def test_a_foreign_address_is_refused() -> None:
    table = RouteTable(ROOT_SHORT)
    with pytest.raises(MeshError):
        table.take(
            Dao(0, 1, bytes(16), (Transit(bytes(16), 1, 1),)), CONFIGURATION, source=2, now=0.0
        )


def test_a_dao_that_makes_a_loop_is_dropped() -> None:
    table = table_of({2: (1,), 3: (2,), 4: (3,)})
    assert take(table, 2, 4, sequence=2) == STATUS_REFUSED
    assert table.counters["dao: a loop"] == 1
    assert table.route_to(4, now=0.0) == (2, 3)
    # With another way home it is none.
    assert take(table, 4, 1, 3, sequence=2) == STATUS_ACCEPTED
    assert take(table, 2, 4, sequence=2) == STATUS_ACCEPTED
    assert table.route_to(2, now=0.0) == (4,)


def test_a_loop_is_dropped_before_any_way_home_is_known() -> None:
    table = table_of({4: (3,), 3: (2,)})
    assert table.route_to(4, now=0.0) is None
    assert take(table, 2, 4) == STATUS_REFUSED
    assert table.counters["dao: a loop"] == 1


def test_old_path_sequences_change_nothing() -> None:
    table = table_of({2: (1,), 3: (1,)})
    assert take(table, 4, 2, sequence=9) == STATUS_ACCEPTED
    assert take(table, 4, 3, sequence=8) == STATUS_OLD
    assert take(table, 4, 3, sequence=9) == STATUS_REFUSED
    assert table.route_to(4, now=0.0) == (2,)
    assert take(table, 4, 2, sequence=9) == STATUS_ACCEPTED


def test_the_way_that_a_dao_tells_goes_over_its_own_parents_and_nobody_who_is_kept_out() -> None:
    table = table_of({2: (1,), 3: (1,), 4: (2,), 5: (4,), 6: (7,)})
    assert table.route_to(5, now=0.0) == (2, 4)
    assert table.way_told(dao(5, 3), now=0.0) == (3,)
    assert table.way_told(dao(5, 1, 3), now=0.0) == ()
    # No way is known to 6; what leads through the node itself is none.
    assert table.way_told(dao(5, 6, 3), now=0.0) == (3,)
    assert table.way_told(dao(2, 5), now=0.0) is None
    table.refused = {3}
    assert table.way_told(dao(5, 3), now=0.0) is None
    assert table.way_told(dao(3, 1), now=0.0) is None
    long = table_of({short: (short - 1,) for short in range(2, 30)})
    assert len(long.way_told(dao(99, 25), now=0.0) or ()) == ROUTE_LENGTH_MAX
    assert long.way_told(dao(99, 26), now=0.0) is None


def test_a_row_that_is_over_binds_nobody_to_its_path_sequence() -> None:
    table = table_of({2: (1,)})
    assert take(table, 3, 2, sequence=9) == STATUS_ACCEPTED
    assert take(table, 3, 1, sequence=8, now=1199.0) == STATUS_OLD
    assert take(table, 3, 1, sequence=8, now=1200.0) == STATUS_ACCEPTED


@pytest.mark.parametrize("sequence", [128, 200, 239])
def test_a_path_sequence_that_nobody_counts_to_changes_nothing(sequence: int) -> None:
    table = table_of({2: (1,)})
    assert take(table, 2, 3, sequence=sequence) == STATUS_REFUSED
    assert table.route_to(2, now=0.0) == ()


def test_parents_of_two_path_sequences_change_nothing() -> None:
    table = table_of({2: (1,), 3: (1,)})
    told = dao(4, 2, 3)
    first, second = told.transits
    told = replace(told, transits=(first, replace(second, path_sequence=2)))
    assert table.take(told, CONFIGURATION, source=4, now=0.0)[1] == STATUS_REFUSED
    assert table.counters["dao: two path sequences"] == 1


def test_a_full_table_has_room_for_another_node_once_a_row_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mesh.routing.dao.ROUTE_COUNT_MAX", 3)
    table = table_of({2: (1,), 3: (1,)})
    assert take(table, 4, 1, lifetime=24) == STATUS_ACCEPTED
    assert take(table, 5, 1, now=1199.0) == STATUS_REFUSED
    assert table.counters["dao: table full"] == 1
    assert take(table, 4, 2, sequence=2, lifetime=24, now=1199.0) == STATUS_ACCEPTED
    assert take(table, 5, 1, now=1200.0) == STATUS_ACCEPTED
    assert table.rows.keys() == {4, 5}


def test_a_route_is_never_longer_than_a_source_route() -> None:
    table = table_of({short: (short - 1,) for short in range(2, 40)})
    assert len(table.route_to(26, now=0.0) or ()) == 24
    assert table.route_to(27, now=0.0) is None
    # The preferred way is too long, another one is not.
    take(table, 26, 25, 2, sequence=2)
    take(table, 27, 26, sequence=2)
    assert table.route_to(27, now=0.0) == (2, 26)


def test_a_route_ends_with_its_lifetime_or_when_it_is_taken_back() -> None:
    table = table_of({2: (1,)})
    assert table.route_to(2, now=1199.0) == ()
    assert table.route_to(2, now=1200.0) is None
    take(table, 3, 1)
    take(table, 3, 1, sequence=2, lifetime=0)
    assert table.route_to(3, now=0.0) is None


def test_what_another_root_knows_newer_is_forgotten_and_nothing_else() -> None:
    table = table_of({2: (1,)})
    assert not table.forget(2, path_sequence=1)
    assert table.forget(2, path_sequence=2)
    assert table.route_to(2, now=0.0) is None


graphs = st.dictionaries(
    st.integers(2, 9),
    st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True).map(tuple),
    max_size=8,
)


def ways_up(table: RouteTable, target: int, seen: tuple[int, ...] = ()) -> set[tuple[int, ...]]:
    """Every chain from the root, by brute force."""
    if target == ROOT_SHORT:
        return {()}
    found: set[tuple[int, ...]] = set()
    row = table.rows.get(target)
    for parent in () if row is None else row.parents:
        if parent not in seen and parent != target:
            for way in ways_up(table, parent, (*seen, target)):
                found.add(way if parent == ROOT_SHORT else (*way, parent))
    return found


@settings(deadline=None, max_examples=300)
@given(graphs)
def test_a_route_is_a_chain_of_told_parents_and_found_whenever_there_is_one(
    rows: dict[int, tuple[int, ...]],
) -> None:
    table = table_of(rows)
    for target in range(2, 10):
        ways = ways_up(table, target)
        routes = table.routes_to(target, now=0.0)
        assert bool(routes) == bool(ways)
        assert set(routes) <= ways
        assert len(set(routes)) == len(routes)
