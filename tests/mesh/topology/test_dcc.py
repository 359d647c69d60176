"""The DCC's whole view: its parts stay in step, whatever comes in.

The contract under test: after any call graph, routes and status tell of the same network; octets
that are no report are counted and change nothing; one timer serves all parts.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import MeshError
from mesh.reports import LINKS_MAX, REPORT_SIZE_MAX, LinkReport, Reason, TopologyReport
from mesh.topology.facts import STAGE_ENDS_S, Backhaul, Role
from mesh.topology.graph import ASSUMED_ETX, ASSUMED_MAX
from mesh.topology.location import BehindCollector
from mesh.topology.status import LATE_S, EndpointState
from mesh.topology.verdicts import Answered, NoAnswer
from tests.mesh.topology.worlds import AREA, World, eui, made_world


def pair() -> World:
    return World((192,), (1, 9), {frozenset({192, 1}): 128, frozenset({1, 9}): 128})


@given(st.binary(max_size=REPORT_SIZE_MAX + 4), st.integers(0, 3))
def test_arbitrary_octets_never_raise_anything_but_mesh_error(octets: bytes, short: int) -> None:
    dcc = pair().dcc()
    reason = None
    try:
        dcc.take_octets(octets, area=AREA, short=short, now=700.0)
    except MeshError as error:
        reason = error.reason
    if reason is not None:
        assert dcc.graph.refused == {reason: 1}
        assert dcc.routes.cost_of(eui(9)) == 256


@pytest.mark.requirement("I2-X-01")
def test_status_and_routes_follow_what_is_reported() -> None:
    world = pair()
    dcc = world.dcc()
    assert dcc.devices.counts()[EndpointState.REACHABLE] == 3
    reports = dict(world.reports(sequence=2))
    for node in (1, 192):
        dcc.take_octets(reports[node].encode(), area=AREA, short=node, now=LATE_S - 10)
    assert dcc.next_timer() == LATE_S
    dcc.handle_timer(now=LATE_S)
    assert dcc.devices.status_of(eui(9), now=LATE_S).state is EndpointState.LATE
    assert dcc.routes.cost_of(eui(9)) == 256
    # Nobody else speaks of the link any more, and the silent node's own word grows old.
    alone = reports[1].__class__(
        Reason.LINK_CHANGED, 3, reports[1].rank, reports[1].hops, reports[1].parents
    )
    dcc.take_report(alone, area=AREA, short=1, now=LATE_S + 1)
    assert dcc.routes.cost_of(eui(9)) == 128 + 192
    timers = 0
    while (timer := dcc.next_timer()) is not None and timer <= STAGE_ENDS_S[2]:
        dcc.handle_timer(now=timer)
        timers += 1
        assert timers < 20
    assert dcc.routes.route_of(eui(9)) is None


def test_dao_makes_a_way_before_the_report_and_the_report_says_what_it_costs() -> None:
    dcc = pair().dcc()
    dcc.place(eui(5), area=AREA, short=5, now=0.0)

    def take(parents: tuple[int, ...], path_sequence: int, now: float) -> bool:
        return dcc.take_route(
            parents, area=AREA, short=5, path_sequence=path_sequence, collector=eui(192), now=now
        )

    assert take((1, 77), 1, 1.0)
    assert dcc.routes.cost_of(eui(5)) == 128 + ASSUMED_ETX
    assert dcc.graph.refused == {"unknown neighbour": 1}
    location = dcc.locations.find(eui(5))
    assert location is not None
    assert location.place == BehindCollector(eui(192))
    assert not take((9,), 0, 2.0)
    assert len(dcc.graph.costs[dcc.graph.index_of(eui(5))]) == 1
    with pytest.raises(MeshError, match="own neighbour"):
        take((5, 9), 9, 3.0)
    with pytest.raises(MeshError, match="unknown node"):
        dcc.take_route((1,), area=AREA, short=66, path_sequence=2, collector=eui(192), now=3.0)
    with pytest.raises(MeshError, match="no collector"):
        dcc.take_route((1,), area=AREA, short=5, path_sequence=2, collector=eui(1), now=3.0)
    assert dcc.locations.find(eui(5)) == location
    report = TopologyReport(Reason.COLD_BOOT, 1, 768, 2, (LinkReport(1, 500),))
    dcc.take_report(report, area=AREA, short=5, now=4.0)
    assert dcc.routes.cost_of(eui(5)) == 128 + 500
    assert take((1, 9), 2, 5.0)
    assert dcc.routes.cost_of(eui(5)) == min(128 + 500, 256 + ASSUMED_ETX)
    kept = list(dcc.routes.distances)
    dcc.rebuild()
    assert kept == list(dcc.routes.distances)


@pytest.mark.parametrize("sequence", [0, 1, 60_000])
def test_first_report_after_a_dao_is_believed_whatever_its_number(sequence: int) -> None:
    dcc = pair().dcc()
    dcc.place(eui(5), area=AREA, short=5, now=0.0)
    dcc.take_route((1,), area=AREA, short=5, path_sequence=1, collector=eui(192), now=1.0)
    report = TopologyReport(Reason.COLD_BOOT, sequence, 768, 2, (LinkReport(1, 500),))
    dcc.take_report(report, area=AREA, short=5, now=2.0)
    assert dcc.routes.cost_of(eui(5)) == 128 + 500


@pytest.mark.parametrize(
    ("told", "places"),
    [
        ((1,), {1: 0, 9: 1, 192: None}),
        ((9, 1), {9: 0, 1: 1, 192: None}),
        ((192, 1), {192: 0, 1: 1, 9: 2}),
        ((7, 1), {7: 0, 1: 1, 9: 2, 192: None}),
        ((), {1: 0, 9: 1, 192: None}),
    ],
)
def test_dao_says_who_is_preferred_among_the_parents_that_were_reported(
    told: tuple[int, ...], places: dict[int, int | None]
) -> None:
    dcc = pair().dcc()
    for short in (5, 7):
        dcc.place(eui(short), area=AREA, short=short, now=0.0)
    links = (LinkReport(1, 500), LinkReport(9, 300))
    report = TopologyReport(Reason.COLD_BOOT, 1, 768, 2, links, (LinkReport(192, 600),))
    dcc.take_report(report, area=AREA, short=5, now=1.0)
    dcc.take_route(told, area=AREA, short=5, path_sequence=1, collector=eui(192), now=2.0)
    fact = dcc.graph.fact_of(dcc.graph.index_of(eui(5)), now=2.0)
    assert {link.neighbour: link.place for link in fact.links} == {
        eui(short): place for short, place in places.items()
    }
    kept = {eui(1): 500, eui(9): 300, eui(192): 600}
    assert all(kept.get(link.neighbour, ASSUMED_ETX) == link.etx_to for link in fact.links)


def test_parents_that_daos_add_are_bounded() -> None:
    dcc = pair().dcc()
    for short in range(20, 60):
        dcc.place(eui(short), area=AREA, short=short, now=0.0)
    for sequence, short in enumerate(range(20, 60)):
        dcc.take_route(
            (short,), area=AREA, short=9, path_sequence=sequence, collector=eui(192), now=1.0
        )
    links = dcc.graph.fact_of(dcc.graph.index_of(eui(9)), now=1.0).links
    assert len(links) == LINKS_MAX + ASSUMED_MAX
    assert dcc.graph.refused["too many links"] == 40 + 1 - LINKS_MAX - ASSUMED_MAX


def test_dao_of_a_node_long_silent_brings_no_old_words_back() -> None:
    dcc = pair().dcc()
    while (timer := dcc.next_timer()) is not None:
        dcc.handle_timer(now=timer)
    now = STAGE_ENDS_S[2] + 1
    assert dcc.routes.cost_of(eui(1)) is None
    dcc.take_route((192,), area=AREA, short=1, path_sequence=9, collector=eui(192), now=now)
    assert dcc.routes.cost_of(eui(1)) == ASSUMED_ETX
    assert dcc.routes.cost_of(eui(9)) is None


def test_each_deadline_costs_one_wakeup() -> None:
    dcc = made_world(5, meters=10).dcc()
    wakeups = 0
    while (timer := dcc.next_timer()) is not None:
        dcc.handle_timer(now=timer)
        wakeups += 1
    assert wakeups == len(STAGE_ENDS_S)


def test_role_and_place_can_change() -> None:
    dcc = pair().dcc()
    dcc.place(eui(1), area=AREA, short=1, role=Role.COLLECTOR, now=1.0)
    assert dcc.routes.route_of(eui(1)) is None
    dcc.set_backhaul(eui(1), Backhaul.UP, now=1.0)
    route = dcc.routes.route_of(eui(1))
    assert route is not None
    assert (route.hops, route.shorts) == (0, ())
    dcc.place(eui(1), area=AREA, short=1, now=2.0)
    assert dcc.routes.route_of(eui(1)) is None
    dcc.place(eui(1), area=AREA, short=77, now=3.0)
    assert dcc.graph.find(AREA, 77) == eui(1)


def test_no_way_leads_to_who_is_kept_out_nor_over_it_until_it_is_let_in_again() -> None:
    links = {frozenset(ends): 128 for ends in ((192, 1), (1, 9), (192, 2), (2, 9))}
    links[frozenset({2, 9})] = 256
    world = World((192,), (1, 2, 9), links)
    dcc = world.dcc()
    best = dcc.routes.route_of(eui(9))
    assert best is not None
    assert best.shorts == (1, 9)
    assert len(dcc.routes.alternates_of(eui(9))) == 1
    dcc.keep_out(eui(1), is_denied=True)
    for node, report in world.reports(sequence=2):  # What it or others say changes nothing.
        dcc.take_report(report, area=AREA, short=node, now=700.0)
    around = dcc.routes.route_of(eui(9))
    assert around is not None
    assert around.shorts == (2, 9)
    assert dcc.routes.alternates_of(eui(9)) == ()
    assert dcc.routes.route_of(eui(1)) is None
    assert dcc.graph.is_kept_out(eui(1))
    dcc.rebuild()
    assert dcc.routes.route_of(eui(1)) is None
    dcc.keep_out(eui(1), is_denied=False)
    assert dcc.routes.route_of(eui(9)) == best
    # Whoever gets its place in the tables is not kept out with it.
    dcc.keep_out(eui(1), is_denied=True)
    dcc.remove(eui(1))
    dcc.place(eui(8), area=AREA, short=8, now=700.0)
    assert not dcc.graph.is_kept_out(eui(8))


def test_node_that_is_removed_is_gone_everywhere() -> None:
    dcc = pair().dcc()
    dcc.locations.learn(eui(1), BehindCollector(eui(192)), path_sequence=1, now=0.0)
    dcc.remove(eui(1))
    assert dcc.routes.route_of(eui(9)) is None
    assert dcc.locations.find(eui(1)) is None
    assert sum(dcc.devices.counts().values()) == 2
    with pytest.raises(MeshError):
        dcc.remove(eui(1))
    dcc.remove(eui(192))
    assert len(dcc.graph) == 1


@pytest.mark.requirement("I2-S2")
def test_isolation_decides_whether_trouble_is_due() -> None:
    dcc = pair().dcc()
    outcomes = {False: NoAnswer(), True: Answered()}
    for answers in (False, True):
        isolation = dcc.isolate(eui(9), now=10.0)
        dcc.isolation_ended(isolation, now=10.0)
        now = 10.0
        while (probe := isolation.probe_to_send(now=now)) is not None:
            reaches = answers or probe.path.destination != eui(9)
            isolation.take_outcome(probe.number, outcomes[reaches])
            now += 1.0
        dcc.isolation_ended(isolation, now=now)
        assert dcc.devices.is_trouble_due(eui(9), now=now) is not answers


def test_time_and_order_give_the_same_view_as_making_it_anew() -> None:
    for seed in range(10):
        dice = random.Random(seed)
        world = made_world(seed, meters=12)
        dcc = world.dcc()
        reports = list(world.reports(sequence=2))
        dice.shuffle(reports)
        for step, (node, report) in enumerate(reports):
            now = 700.0 + step * 9_000.0
            dcc.handle_timer(now=now)
            dcc.take_report(report, area=AREA, short=node, now=now)
        kept = list(dcc.routes.distances)
        dcc.rebuild()
        assert kept == list(dcc.routes.distances)
