"""The graph: who is believed about what, for how long, and what is refused.

The contract under test: a link costs the mean of both directions by the best word there is, more as
the words grow old, and is gone when they are too old; a refused report changes nothing and is
counted by its reason; whatever happens, the costs kept report by report are those made anew.
"""

from __future__ import annotations

import copy
import random

import pytest

from amistack.errors import LocalProtocolError, MeshError, TableFull
from mesh.reports import (
    HOPS_UNKNOWN,
    INFINITE_RANK,
    LinkReport,
    Reason,
    TopologyReport,
)
from mesh.topology import graph as graph_module
from mesh.topology.facts import GONE, STAGE_ENDS_S, AreaId, Backhaul, Role, Stage
from mesh.topology.graph import HOP_RANK_INCREASE as ROOT_RANK
from mesh.topology.graph import REORDER_S, Graph
from tests.mesh.topology.worlds import AREA, eui, made_world

ROOT = 192


def placed(*shorts: int) -> Graph:
    graph = Graph()
    graph.place(eui(ROOT), area=AREA, short=ROOT, role=Role.COLLECTOR)
    for short in shorts:
        graph.place(eui(short), area=AREA, short=short)
    return graph


def says(
    *parents: LinkReport,
    others: tuple[LinkReport, ...] = (),
    sequence: int = 1,
    reason: Reason = Reason.PERIODIC,
    hops: int = 1,
) -> TopologyReport:
    if not parents:
        return TopologyReport(reason, sequence, INFINITE_RANK, HOPS_UNKNOWN, (), others)
    return TopologyReport(reason, sequence, ROOT_RANK * (hops + 1), hops, parents, others)


def cost(graph: Graph, one: int, other: int) -> int:
    a, b = graph.index_of(eui(one)), graph.index_of(eui(other))
    assert graph.costs[a].get(b) == graph.costs[b].get(a)
    return graph.costs[a].get(b, GONE)


def test_link_costs_the_mean_of_its_directions() -> None:
    graph = placed(1)
    graph.take_report(says(LinkReport(ROOT, 200, 400)), area=AREA, short=1, now=0.0)
    assert cost(graph, 1, ROOT) == 300


def test_sender_knows_its_own_direction_best() -> None:
    graph = placed(1, 2)
    graph.take_report(says(LinkReport(2, 200, 400)), area=AREA, short=1, now=0.0)
    graph.take_report(says(LinkReport(1, 600, 800)), area=AREA, short=2, now=0.0)
    assert cost(graph, 1, 2) == (200 + 600) // 2


def test_direction_that_nobody_knows_counts_as_the_other() -> None:
    graph = placed(1)
    graph.take_report(says(LinkReport(ROOT, 200)), area=AREA, short=1, now=0.0)
    assert cost(graph, 1, ROOT) == 200


@pytest.mark.parametrize(("etx_to", "etx_from"), [(0xFFFF, 128), (128, 0xFFFF), (1025, 128)])
def test_direction_that_carries_nothing_makes_no_link(etx_to: int, etx_from: int) -> None:
    graph = placed(1)
    link = LinkReport(ROOT, etx_to, etx_from)
    assert graph.take_report(says(link), area=AREA, short=1, now=0.0) == []
    assert cost(graph, 1, ROOT) == GONE


def test_later_report_replaces_all_of_the_earlier() -> None:
    graph = placed(1, 2)
    first = says(LinkReport(ROOT, 200), others=(LinkReport(2, 300),))
    graph.take_report(first, area=AREA, short=1, now=0.0)
    assert cost(graph, 1, 2) == 300
    changes = graph.take_report(
        says(LinkReport(ROOT, 220), sequence=2), area=AREA, short=1, now=1.0
    )
    assert cost(graph, 1, 2) == GONE
    a, b, root = (graph.index_of(eui(short)) for short in (1, 2, ROOT))
    assert sorted(changes) == sorted([(a, root, 220), (a, b, GONE)])


def test_words_grow_dearer_with_age_until_they_are_not_believed() -> None:
    graph = placed(1)
    assert graph.next_timer() is None
    graph.take_report(says(LinkReport(ROOT, 200, 200)), area=AREA, short=1, now=100.0)
    index = graph.index_of(eui(1))
    for end, expected, stage in zip(
        STAGE_ENDS_S, (300, 600, GONE), (Stage.OLD, Stage.STALE, Stage.SILENT), strict=True
    ):
        assert graph.next_timer() == 100.0 + end
        assert graph.age(now=100.0 + end - 1) == []
        assert [change[2] for change in graph.age(now=100.0 + end)] == [expected]
        assert cost(graph, 1, ROOT) == expected
        assert graph.fact_of(index, now=100.0 + end).stage is stage
    assert graph.next_timer() is None
    graph.take_report(says(LinkReport(ROOT, 200), sequence=2), area=AREA, short=1, now=1e6)
    assert cost(graph, 1, ROOT) == 200


def test_fresh_word_of_the_hearer_beats_the_senders_old_one() -> None:
    graph = placed(1, 2)
    graph.take_report(says(LinkReport(2, 200, 200)), area=AREA, short=1, now=0.0)
    graph.age(now=STAGE_ENDS_S[0])
    graph.take_report(says(LinkReport(1, 400, 800)), area=AREA, short=2, now=STAGE_ENDS_S[0])
    assert cost(graph, 1, 2) == (400 + 800) // 2


def test_long_leap_of_time_ages_through_all_stages() -> None:
    graph = placed(1)
    graph.take_report(says(LinkReport(ROOT, 200)), area=AREA, short=1, now=0.0)
    graph.age(now=1e9)
    assert cost(graph, 1, ROOT) == GONE


def test_link_that_its_reporter_has_not_used_for_hours_is_never_fresh() -> None:
    graph = placed(1)
    link = LinkReport(ROOT, 200, 200, 40, 255)
    graph.take_report(says(link), area=AREA, short=1, now=0.0)
    assert cost(graph, 1, ROOT) == 300


def test_every_fact_says_how_old_it_is() -> None:
    graph = placed(1)
    graph.take_report(says(LinkReport(ROOT, 200, 0, 12, 7)), area=AREA, short=1, now=1000.0)
    fact = graph.fact_of(graph.index_of(eui(1)), now=1500.0)
    (link,) = fact.links
    assert (fact.age_s, fact.rank, fact.hops, fact.last_reason) == (500, 512, 1, Reason.PERIODIC)
    assert (link.neighbour, link.age_s, link.samples, link.place) == (eui(ROOT), 920.0, 12, 0)
    silent = graph.fact_of(graph.index_of(eui(ROOT)), now=1500.0)
    assert (silent.age_s, silent.stage, silent.links) == (None, Stage.SILENT, ())


# Refusals

FINE = says(LinkReport(ROOT, 200), sequence=5)


@pytest.mark.parametrize(
    ("report", "short", "node", "reason"),
    [
        (FINE, 99, None, "unknown node"),
        (FINE, 1, 2, "address of another"),
        (says(LinkReport(1, 200), sequence=6), 1, None, "own neighbour"),
        (FINE, ROOT, None, "impossible rank"),
        (TopologyReport(Reason.PERIODIC, 6, ROOT_RANK, 0), 1, None, "impossible rank"),
        (FINE, 1, None, "repeated report"),
        (says(LinkReport(2, 200), sequence=4), 1, None, "old report"),
        (says(LinkReport(2, 200), sequence=0, reason=Reason.COLD_BOOT), 1, None, "old report"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_contradiction_is_counted_and_changes_nothing(
    report: TopologyReport, short: int, node: int | None, reason: str
) -> None:
    graph = placed(1, 2)
    graph.take_report(FINE, area=AREA, short=1, now=0.0)
    before = copy.deepcopy(
        [graph.costs, *(graph.fact_of(index, now=1.0) for index in graph.nodes())]
    )
    with pytest.raises(MeshError) as raised:
        graph.take_report(
            report, area=AREA, short=short, now=1.0, node=None if node is None else eui(node)
        )
    assert raised.value.reason == reason
    assert graph.refused == {reason: 1}
    assert before == [graph.costs, *(graph.fact_of(index, now=1.0) for index in graph.nodes())]


def test_rank_is_judged_by_the_profile_of_its_area() -> None:
    graph = placed(1)
    link = LinkReport(ROOT, 200)

    def reported(rank: int, hops: int, sequence: int, *, short: int = 1) -> bool:
        parents = (link,) if hops else ()
        report = TopologyReport(Reason.PERIODIC, sequence, rank, hops, parents)
        try:
            graph.take_report(report, area=AREA, short=short, now=float(sequence))
        except MeshError as error:
            return error.reason != "impossible rank"
        return True

    for increase in (256, 128):
        graph.set_hop_rank_increase(AREA, increase)
        base = increase
        assert reported(increase * 3, 2, base)
        assert not reported(increase * 3 - 1, 2, base + 1)
        assert reported(increase * 2, HOPS_UNKNOWN, base + 2)
        assert not reported(increase * 2 - 1, HOPS_UNKNOWN, base + 3)
        assert reported(increase, 0, base + 4, short=ROOT)
        assert not reported(increase + 1, 0, base + 5, short=ROOT)
    for wrong in (0, INFINITE_RANK):
        with pytest.raises(LocalProtocolError, match="MinHopRankIncrease"):
            graph.set_hop_rank_increase(AREA, wrong)


def test_much_that_is_due_at_once_is_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "AGED_MAX", 2)
    graph = placed(*range(1, 6))
    for short in range(1, 6):
        graph.take_report(says(LinkReport(ROOT, 200)), area=AREA, short=short, now=0.0)
    calls = 0
    while (timer := graph.next_timer()) is not None and timer <= STAGE_ENDS_S[0]:
        assert len(graph.age(now=STAGE_ENDS_S[0])) <= 2
        calls += 1
        assert calls <= 3
    assert [cost(graph, short, ROOT) for short in range(1, 6)] == [300] * 5


def test_restart_is_not_taken_for_an_old_report() -> None:
    graph = placed(1)
    graph.take_report(says(LinkReport(ROOT, 200), sequence=500), area=AREA, short=1, now=0.0)
    boot = says(LinkReport(ROOT, 300), sequence=0, reason=Reason.COLD_BOOT)
    graph.take_report(boot, area=AREA, short=1, now=10.0)
    assert cost(graph, 1, ROOT) == 300
    later = says(LinkReport(ROOT, 400), sequence=65_000)
    graph.take_report(later, area=AREA, short=1, now=10.0 + REORDER_S + 1)
    assert cost(graph, 1, ROOT) == 400


def test_numbers_of_reports_go_round() -> None:
    graph = placed(1)
    for number, etx in ((65_535, 200), (0, 300), (1, 400)):
        report = says(LinkReport(ROOT, etx), sequence=number)
        graph.take_report(report, area=AREA, short=1, now=float(number))
        assert cost(graph, 1, ROOT) == etx


def test_no_word_of_others_makes_a_link_to_who_is_kept_out() -> None:
    graph = placed(1, 2)
    graph.take_report(says(LinkReport(1, 200)), area=AREA, short=2, now=0.0)
    graph.take_report(says(LinkReport(ROOT, 300)), area=AREA, short=1, now=0.0)
    assert (cost(graph, 1, 2), cost(graph, 1, ROOT)) == (200, 300)
    assert len(graph.keep_out(eui(1), is_denied=True)) == 2
    assert (cost(graph, 1, 2), cost(graph, 1, ROOT)) == (GONE, GONE)
    assert len(graph.keep_out(eui(1), is_denied=False)) == 2
    assert (cost(graph, 1, 2), cost(graph, 1, ROOT)) == (200, 300)


def test_unknown_neighbour_is_left_out_and_the_rest_believed() -> None:
    graph = placed(1)
    report = says(LinkReport(77, 150), LinkReport(ROOT, 200))
    graph.take_report(report, area=AREA, short=1, now=0.0)
    assert graph.refused == {"unknown neighbour": 1}
    assert cost(graph, 1, ROOT) == 200


def test_address_has_one_holder_and_a_node_one_address() -> None:
    graph = placed(1, 2)
    with pytest.raises(MeshError, match="address taken"):
        graph.place(eui(2), area=AREA, short=1)
    with pytest.raises(MeshError, match="address taken"):
        graph.place(eui(3), area=AREA, short=1)
    assert graph.refused == {"address taken": 2}
    assert graph.find(AREA, 1) == eui(1)
    graph.take_report(FINE, area=AREA, short=1, now=0.0)
    graph.place(eui(1), area=AREA, short=50)
    assert (graph.find(AREA, 1), graph.find(AREA, 50)) == (None, eui(1))
    assert cost(graph, 1, ROOT) == 200
    for short in (0, 0xFFFE, 0xFFFF):
        with pytest.raises(MeshError, match="impossible address"):
            graph.place(eui(4), area=AREA, short=short)
    assert len(graph) == 3


def test_node_that_moves_to_another_area_leaves_its_links_behind() -> None:
    graph = placed(1)
    graph.take_report(FINE, area=AREA, short=1, now=0.0)
    changes = graph.place(eui(1), area=AreaId(8), short=1)
    assert [change[2] for change in changes] == [GONE]
    assert cost(graph, 1, ROOT) == GONE
    assert graph.area_of(graph.index_of(eui(1))) == 8


def test_node_that_is_gone_is_forgotten_by_its_neighbours_too() -> None:
    graph = placed(1, 2)
    graph.take_report(says(LinkReport(2, 0xFFFF)), area=AREA, short=1, now=0.0)
    graph.take_report(says(LinkReport(1, 200)), area=AREA, short=2, now=0.0)
    graph.remove(eui(2))
    assert eui(2) not in graph
    assert graph.find(AREA, 2) is None
    with pytest.raises(MeshError, match="unknown node"):
        graph.index_of(eui(2))
    graph.place(eui(3), area=AREA, short=2)
    assert graph.fact_of(graph.index_of(eui(1)), now=1.0).links == ()
    assert graph.fact_of(graph.index_of(eui(3)), now=1.0).age_s is None


def test_only_collectors_have_a_backhaul() -> None:
    graph = placed(1)
    assert graph.set_backhaul(eui(ROOT), Backhaul.UP)
    assert not graph.set_backhaul(eui(ROOT), Backhaul.UP)
    with pytest.raises(MeshError, match="no collector"):
        graph.set_backhaul(eui(1), Backhaul.UP)


def test_bounds_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "AREA_NODES_MAX", 3)
    monkeypatch.setattr(graph_module, "NODES_MAX", 4)
    graph = placed(1, 2)
    with pytest.raises(TableFull, match="area 7 has 3 nodes"):
        graph.place(eui(3), area=AREA, short=3)
    graph.place(eui(4), area=AreaId(8), short=1)
    with pytest.raises(TableFull, match="4 nodes"):
        graph.place(eui(5), area=AreaId(8), short=2)
    graph.place(eui(4), area=AreaId(9), short=1)
    assert len(graph) == 4


@pytest.mark.parametrize("seed", range(20), ids=lambda seed: f"seed_{seed}")
def test_costs_kept_are_costs_made_anew(seed: int) -> None:
    dice = random.Random(seed)
    world = made_world(seed, meters=12)
    graph = world.dcc().graph
    now = 0.0
    for number in range(60):
        now += dice.choice((1.0, 700.0, 20_000.0))
        graph.age(now=now)
        short = dice.choice(world.meters)
        match dice.randrange(10):
            case 0:
                graph.remove(eui(short))
                graph.place(eui(short), area=AREA, short=short)
            case _:
                around = [other for other in world.nodes if other != short]
                links = [
                    LinkReport(
                        other,
                        dice.choice((0, 128, 300, 0xFFFF)),
                        dice.choice((0, 200, 900)),
                        9,
                        dice.choice((5, 255)),
                    )
                    for other in dice.sample(around, 4)
                ]
                report = says(*links[:2], others=tuple(links[2:]), sequence=number + 2)
                graph.take_report(report, area=AREA, short=short, now=now)
        kept = [dict(sorted(costs.items())) for costs in graph.costs]
        graph.rebuild_costs()
        assert kept == [dict(sorted(costs.items())) for costs in graph.costs]
