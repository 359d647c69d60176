"""Best routes and alternates, against every way there is.

The contract under test: the best route costs what the cheapest of all ways costs, after every
change; alternates are different, free of loops and of collectors as relays, and each shares the
fewest relays and collectors, then costs the least, of all ways not given yet.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter

import pytest

from amistack.errors import MeshError
from mesh.reports import LinkReport, Reason, TopologyReport
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId, Backhaul, Role
from mesh.topology.graph import HOP_RANK_INCREASE as ROOT_RANK
from mesh.topology.paths import HOPS_MAX, Path, PathKind, kind_of
from mesh.topology.routes import ALTERNATES_MAX
from tests.mesh.topology.worlds import AREA, World, eui, made_world


def short_nodes(path: Path) -> list[int]:
    return [int.from_bytes(node[4:], "big") for node in path.nodes]


def naive_distances(dcc: Dcc) -> list[int | None]:
    """Bellman and Ford, over what the graph says links cost, round by round until nothing moves."""
    graph = dcc.graph
    ends = {each for each, state in graph.backhauls.items() if state is Backhaul.UP}
    found: list[int | None] = [0 if index in ends else None for index in range(graph.capacity)]
    for _ in range(graph.capacity):
        for index, costs in enumerate(graph.costs):
            if index in graph.backhauls:
                continue
            over = [
                found[other] + cost for other, cost in costs.items() if found[other] is not None
            ]
            if over:
                found[index] = min(over)
    return found


def distances(dcc: Dcc) -> list[int | None]:
    return [
        None if distance < 0 or distance >= 1 << 40 else distance
        for distance in dcc.routes.distances
    ]


def check_trees(dcc: Dcc) -> None:
    assert distances(dcc) == naive_distances(dcc)
    for index in dcc.graph.nodes():
        node = dcc.graph.eui_of(index)
        route = dcc.routes.route_of(node)
        distance = distances(dcc)[index]
        if distance is None:
            assert route is None
            assert dcc.routes.parent_of(node) is None
            continue
        assert route is not None
        assert route.cost == distance
        assert len(set(route.nodes)) == len(route.nodes)
        assert dcc.routes.parent_of(node) == (route.nodes[-2] if route.hops else None)


@pytest.mark.parametrize("seed", range(40), ids=lambda seed: f"seed_{seed}")
def test_best_routes_are_right_after_every_change(seed: int) -> None:
    dice = random.Random(seed)
    world = made_world(seed, meters=14, collectors=3, degree=dice.choice((2.2, 3.2)))
    dcc = world.dcc()
    check_trees(dcc)
    now = 0.0
    for sequence in range(2, 40):
        now += dice.choice((1.0, 2_000.0, 15_000.0))
        dcc.handle_timer(now=now)
        match dice.randrange(8):
            case 0:
                state = dice.choice((Backhaul.UP, Backhaul.DOWN))
                dcc.set_backhaul(eui(dice.choice(world.collectors)), state, now=now)
            case 1:
                short = dice.choice(world.meters)
                dcc.remove(eui(short))
                check_trees(dcc)
                dcc.place(eui(short), area=AREA, short=short, now=now)
            case 2 if sequence % 3 == 0:
                short = dice.choice(world.collectors)
                dcc.remove(eui(short))
                check_trees(dcc)
                dcc.place(eui(short), area=AREA, short=short, role=Role.COLLECTOR, now=now)
                dcc.set_backhaul(eui(short), Backhaul.UP, now=now)
            case _:
                short = dice.choice(world.meters)
                others = dice.sample([node for node in world.nodes if node != short], 3)
                links = tuple(LinkReport(other, dice.randrange(128, 900)) for other in others)
                report = TopologyReport(Reason.LINK_CHANGED, sequence, ROOT_RANK * 2, 1, links)
                dcc.take_report(report, area=AREA, short=short, now=now)
        check_trees(dcc)
    kept = distances(dcc)
    dcc.rebuild()
    assert distances(dcc) == kept


@pytest.mark.parametrize("seed", range(60), ids=lambda seed: f"seed_{seed}")
def test_each_alternate_shares_least_and_costs_least_of_all_that_are_left(seed: int) -> None:
    dice = random.Random(seed)
    world = made_world(seed, meters=dice.randrange(4, 9), collectors=1 + seed % 3, degree=2.8)
    dcc = world.dcc()
    for meter in world.meters:
        all_ways = list(world.ways(meter))
        best = dcc.routes.route_of(eui(meter))
        alternates = dcc.routes.alternates_of(eui(meter))
        if best is None:
            assert not all_ways
            assert alternates == ()
            continue
        given = [short_nodes(best)]
        assert world.cost(given[0]) == min(map(world.cost, all_ways))
        assert best.shorts == tuple(given[0][1:])
        for alternate in alternates:
            shared = Counter(node for way in given for node in way[:-1])
            left = [way for way in all_ways if way not in given]

            def rank(way: list[int], shared: Counter[int] = shared) -> tuple[int, int]:
                return sum(shared[node] for node in way[:-1]), world.cost(way)

            way = short_nodes(alternate)
            assert way in left
            assert rank(way) == min(map(rank, left))
            assert alternate.cost == world.cost(way)
            given.append(way)
        assert len(alternates) == min(ALTERNATES_MAX, len(all_ways) - 1)


@pytest.mark.parametrize("seed", range(30), ids=lambda seed: f"seed_{seed}")
def test_way_around_is_the_best_that_touches_none_of_what_is_named(seed: int) -> None:
    dice = random.Random(seed)
    world = made_world(seed, meters=7, degree=3.0)
    dcc = world.dcc()
    for meter in world.meters:
        nodes = set(dice.sample(world.nodes, dice.randrange(3)))
        links = dice.sample(sorted(map(sorted, world.links)), dice.randrange(3))
        path = dcc.routes.way_around(
            eui(meter), nodes=map(eui, nodes), links=[(eui(a), eui(b)) for a, b in links]
        )
        left = [
            world.cost(way)
            for way in world.ways(meter)
            if not nodes & set(way)
            and not any(sorted(pair) in links for pair in itertools.pairwise(way))
        ]
        assert (None if path is None else path.cost) == min(left, default=None)
        for other, _ in world.neighbours(meter):
            over = dcc.routes.way_over(eui(other), eui(meter), nodes=map(eui, nodes - {meter}))
            ways = [
                world.cost(way)
                for way in world.ways(meter)
                if way[-2] == other and not (nodes - {meter}) & set(way)
            ]
            assert (None if over is None else over.cost) == min(ways, default=None)
        for collector in world.collectors:
            # Into a collector goes only what is asked for by that name.
            assert dcc.routes.way_over(eui(meter), eui(collector)) is None
            by = dcc.routes.way_by(eui(collector), eui(meter))
            ways = [world.cost(way) for way in world.ways(meter, (collector,))]
            assert (None if by is None else by.cost) == min(ways, default=None)


def chain(length: int, *, shortcut: int | None = None) -> World:
    nodes = (192, *range(1, length + 1))
    links = {frozenset(pair): 128 for pair in itertools.pairwise(nodes)}
    if shortcut is not None:
        links[frozenset((1, shortcut))] = 1000
    return World((192,), nodes[1:], links)


def test_route_has_no_more_hops_than_a_source_route_has_room_for() -> None:
    dcc = chain(26).dcc()
    route = dcc.routes.route_of(eui(24))
    assert route is not None
    assert (route.hops, len(route.shorts)) == (24, HOPS_MAX)
    assert dcc.routes.route_of(eui(25)) is None
    assert dcc.routes.cost_of(eui(25)) == 25 * 128
    assert dcc.routes.alternates_of(eui(25)) == ()


@pytest.mark.parametrize(("hops", "is_there"), [(HOPS_MAX, True), (HOPS_MAX + 1, False)])
def test_a_way_over_a_link_or_to_a_collector_has_no_more_hops_either(
    hops: int, *, is_there: bool
) -> None:
    world = chain(hops - 1)
    world.collectors += (193,)
    world.links[frozenset((hops - 1, 193))] = 128
    world.links[frozenset((hops - 1, hops))] = 128
    world.meters += (hops,)
    dcc = world.dcc()
    dcc.set_backhaul(eui(193), Backhaul.DOWN, now=1.0)
    for path in (
        dcc.routes.way_over(eui(hops - 1), eui(hops)),
        dcc.routes.way_to_collector(eui(193)),
    ):
        assert (path is not None) is is_there
        assert path is None or path.hops == hops


def test_longer_way_gives_way_to_a_dearer_one_that_fits() -> None:
    dcc = chain(26, shortcut=6).dcc()
    assert dcc.routes.cost_of(eui(26)) == 26 * 128
    route = dcc.routes.route_of(eui(26))
    assert route is not None
    assert route.hops == 22
    assert dcc.routes.alternates_of(eui(26)) == ()
    route, (alternate,) = dcc.routes.route_of(eui(20)), dcc.routes.alternates_of(eui(20))
    assert route is not None
    assert (route.hops, alternate.hops) == (20, 16)


def test_collector_without_its_backhaul_is_neither_end_nor_relay() -> None:
    world = World(
        (192, 193),
        (1, 2),
        {frozenset({192, 1}): 128, frozenset({1, 193}): 128, frozenset({193, 2}): 128},
    )
    dcc = world.dcc()
    dcc.set_backhaul(eui(193), Backhaul.DOWN, now=1.0)
    assert dcc.routes.route_of(eui(2)) is None
    assert dcc.routes.route_of(eui(193)) is None
    route = dcc.routes.route_of(eui(1))
    assert route is not None
    assert route.collector == eui(192)
    assert dcc.routes.alternates_of(eui(1)) == ()
    by = dcc.routes.way_by(eui(193), eui(2))
    assert by is not None
    assert short_nodes(by) == [193, 2]
    dcc.set_backhaul(eui(193), Backhaul.UP, now=2.0)
    assert dcc.routes.route_of(eui(2)) is not None


def test_areas_never_mix() -> None:
    dcc = made_world(3).dcc()
    dcc.place(eui(1, 8), area=AreaId(8), short=1, now=0.0)
    report = TopologyReport(Reason.PERIODIC, 1, ROOT_RANK * 2, 1, (LinkReport(192, 128),))
    dcc.take_report(report, area=AreaId(8), short=1, now=0.0)
    assert dcc.graph.refused == {"unknown neighbour": 1}
    assert dcc.routes.route_of(eui(1, 8)) is None


def test_partition_has_no_routes_and_gets_them_back() -> None:
    world = chain(4)
    dcc = world.dcc()
    reports = dict(world.reports(sequence=2))
    for short in (2, 3):
        lonely = TopologyReport(
            Reason.LINK_CHANGED, 2, 0xFFFF, 0xFF, (), (LinkReport(5 - short, 128),)
        )
        dcc.take_report(lonely, area=AREA, short=short, now=1.0)
    # What node 1 said about its link to node 2 still stands, and one word is enough.
    assert dcc.routes.route_of(eui(4)) is not None
    first = dataclasses.replace(reports[1], neighbours=())
    dcc.take_report(first, area=AREA, short=1, now=2.0)
    assert [dcc.routes.cost_of(eui(short)) for short in (1, 2, 3, 4)] == [128, None, None, None]
    dcc.take_report(dataclasses.replace(reports[2], sequence=3), area=AREA, short=2, now=3.0)
    assert dcc.routes.cost_of(eui(4)) == 4 * 128


def test_kinds_of_alternates_tell_collector_and_relays() -> None:
    def path(*shorts: int) -> Path:
        return Path(AREA, tuple(map(eui, shorts)), shorts[1:], 0)

    best = path(192, 1, 2, 9)
    assert kind_of(path(193, 3, 9), best) is PathKind.OTHER_COLLECTOR
    assert kind_of(path(193, 2, 9), best) is PathKind.OTHER_COLLECTOR_SHARED
    assert kind_of(path(192, 3, 9), best) is PathKind.OTHER_RELAYS
    assert kind_of(path(192, 3, 1, 9), best) is PathKind.SHARED


def test_unknown_node_is_refused() -> None:
    dcc = made_world(1).dcc()
    for ask in (dcc.routes.route_of, dcc.routes.alternates_of, dcc.routes.way_around):
        with pytest.raises(MeshError, match="unknown node"):
            ask(eui(99))
