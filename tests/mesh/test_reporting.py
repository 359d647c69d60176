"""From real nodes to the DCC: what they report is what the DCC believes.

The contract under test: a formed network's reports are all believed; the DCC then has a way to
every node, over links that there are; a relay that dies is routed around once its children report.
"""

from __future__ import annotations

import itertools

import pytest

from amistack.identifiers import Eui64
from mesh.packet import NO_ADDRESS, PacketKind
from mesh.reporting import is_as_told, report_of
from mesh.reports import (
    HOPS_UNKNOWN,
    INFINITE_RANK,
    NEIGHBOURS_MAX,
    Reason,
    TopologyReport,
    difference,
)
from mesh.routing.events import RouteChanged
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId, Backhaul, Role
from tests.mesh.routing.medium import World, eui, short_of

AREA = AreaId(1)


def formed(seed: int, profile: str = "lab") -> World:
    world = World(seed, roots=(1,), profile=profile).grid(4, 4, share=0.95, diagonal=0.6)
    world.start()
    # After a cold start the first routes are told in turn, over minutes.
    world.run(900.0, until=lambda: not world.orphans() and not world.unrouted())
    assert not world.orphans()
    assert not world.unrouted()
    return world


def dcc_of(world: World) -> Dcc:
    dcc = Dcc()
    increase = world.profile.dodag.hop_rank_increase_min
    dcc.graph.set_hop_rank_increase(AREA, increase)
    for short in sorted(world.nodes):
        role = Role.COLLECTOR if short in world.roots else Role.METER
        dcc.place(eui(short), area=AREA, short=short, role=role, now=0.0)
    for root in world.roots:
        dcc.set_backhaul(eui(root), Backhaul.UP, now=0.0)
    return dcc


def tell(world: World, dcc: Dcc, sequence: int) -> None:
    for short, node in world.nodes.items():
        report = report_of(node, Reason.PERIODIC, sequence=sequence, now=world.now)
        dcc.take_octets(report.encode(), area=AREA, short=short, node=eui(short), now=world.now)


def check_ways(world: World, dcc: Dcc) -> None:
    assert not dcc.graph.refused
    for short in world.nodes:
        route = dcc.routes.route_of(eui(short))
        assert route is not None
        shorts = [short_of(Eui64(node)) for node in route.nodes]
        assert shorts[0] in world.roots
        for pair in itertools.pairwise(shorts):
            assert pair in world.links


@pytest.mark.parametrize("profile", ["lab", "rfc8036"])
def test_what_a_formed_network_reports_is_believed_and_gives_ways_to_all(profile: str) -> None:
    world = formed(1, profile)
    dcc = dcc_of(world)
    tell(world, dcc, 1)
    check_ways(world, dcc)
    for _, root, event in world.happened:
        if isinstance(event, RouteChanged) and event.target in world.nodes:
            dcc.take_route(
                event.parents,
                area=AREA,
                short=event.target,
                path_sequence=event.path_sequence,
                collector=eui(root),
                now=world.now,
            )
    check_ways(world, dcc)
    assert len(dcc.locations) == len(world.nodes) - len(world.roots)


def test_relay_that_died_is_routed_around_once_its_children_report() -> None:
    world = formed(2)
    dcc = dcc_of(world)
    tell(world, dcc, 1)
    relays = {
        short_of(Eui64(relay))
        for short in world.nodes
        for route in [dcc.routes.route_of(eui(short))]
        if route is not None
        for relay in route.relays
    }
    dead = max(relays)
    world.kill(dead)
    for _ in range(4):
        for short in world.nodes:
            if short not in world.roots:
                world.send(short, b"x", kind=PacketKind.TOPOLOGY)
        world.run(120.0)
    assert not world.orphans()
    dcc.remove(eui(dead))
    tell(world, dcc, 2)
    dcc.graph.refused.pop("unknown neighbour", None)
    check_ways(world, dcc)


def test_node_without_a_way_says_so() -> None:
    world = World(3).line(3)
    world.start(3)
    world.run(5.0)
    report = report_of(world.nodes[3], Reason.COLD_BOOT, sequence=70_000, now=world.now)
    assert report == TopologyReport(Reason.COLD_BOOT, 70_000 & 0xFFFF, INFINITE_RANK, HOPS_UNKNOWN)


def test_neighbour_without_an_address_is_left_out() -> None:
    """A child whose frames went up through us, but who never told its short address."""
    world = World(3).line(3)
    world.start()
    world.run(60.0, until=lambda: not world.orphans())
    node = world.nodes[2]
    stranger = node.dodag.neighbours.take_in(eui(99), NO_ADDRESS, 1024, tuple, now=world.now)
    assert stranger is not None
    stranger.metric.note_attempts(1, is_acknowledged=True, now=world.now)
    report = report_of(node, Reason.PERIODIC, sequence=1, now=world.now)
    assert report.links
    assert NO_ADDRESS not in {link.neighbour for link in report.links}


def test_a_link_that_was_only_heard_is_not_told() -> None:
    world = World(3).line(3)
    world.start()
    world.run(60.0, until=lambda: not world.orphans())
    node = world.nodes[3]
    for short in range(20, 20 + 2 * NEIGHBOURS_MAX):
        row = node.dodag.neighbours.take_in(eui(short), short, 1024, tuple, now=world.now)
        assert row is not None
        row.metric.guess(40.0)
    tried = node.dodag.neighbours.get(eui(20))
    assert tried is not None
    tried.metric.note_attempts(3, is_acknowledged=True, now=world.now)
    report = report_of(node, Reason.PERIODIC, sequence=1, now=world.now)
    assert [link.neighbour for link in report.neighbours] == [20]


def test_hops_that_a_node_of_its_rank_cannot_have_are_not_told() -> None:
    world = formed(1)
    node = world.nodes[16]
    increase = world.profile.dodag.hop_rank_increase_min
    possible = node.rank // increase - 1

    def hops_told(hops: int) -> int:
        return report_of(node, Reason.PERIODIC, sequence=0, now=world.now, hops=hops).hops

    assert possible >= 3
    assert hops_told(possible) == possible
    assert hops_told(possible + 1) == HOPS_UNKNOWN


def test_what_is_as_told_needs_no_new_report() -> None:
    """The quick look never says so where the reports differ; and mostly where they do not."""
    world = formed(4)
    told = {
        short: report_of(node, Reason.PERIODIC, sequence=0, now=world.now)
        for short, node in world.nodes.items()
    }
    same = differ = missed = 0
    for step in range(200):
        if step == 100:
            world.kill(2)
        world.run(20.0)
        for short, node in world.nodes.items():
            new = report_of(node, Reason.PERIODIC, sequence=0, now=world.now)
            is_news = difference(told[short], new) is not None
            if is_as_told(node, told[short]):
                assert not is_news
                same += 1
            else:
                differ += is_news
                missed += not is_news
            if is_news and step % 10 == 0:
                told[short] = new
    assert min(same, differ) > 100
    assert missed < same / 2
