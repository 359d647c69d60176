"""Collectors that lost their connection: the network knows, moves where it can, and comes back.

The contract under test: everybody below a root without ground hears so within a minute; who hears
a grounded neighbour moves there, without a loop; who hears none keeps its way; when the connection
is back all know, and none was detached for it.
"""

from __future__ import annotations

import dataclasses

import pytest

from amistack.framing import Priority
from mesh.packet import PacketKind
from mesh.reports import REPORT_PERIOD_S
from mesh.routing.events import GroundChanged
from mesh.routing.profile import load_profile
from mesh.station.station import RESUME_SPREAD_S
from tests.mesh.routing.medium import eui
from tests.mesh.station.world import StationWorld


def grounds(world: StationWorld) -> dict[int, bool]:
    return {
        short: node.dodag.is_grounded
        for short, node in world.nodes.items()
        if short not in world.roots
    }


def set_ground(world: StationWorld, root: int, has_ground: bool) -> None:
    world.nodes[root].node.set_ground(has_ground=has_ground, now=world.now)
    world.touch(root)


def formed(world: StationWorld) -> StationWorld:
    world.start()
    world.run(600.0, until=lambda: not world.orphans() and not world.unrouted())
    assert not world.orphans()
    world.run(120.0)
    return world


def root_of(world: StationWorld, short: int) -> int:
    return world.path_up(short)[-1]


def test_all_hear_that_the_connection_is_gone_and_back() -> None:
    world = formed(StationWorld(1).line(6))
    parents = {short: world.nodes[short].preferred_parent for short in range(2, 7)}
    assert all(grounds(world).values())
    set_ground(world, 1, has_ground=False)
    world.run(60.0)
    assert not any(grounds(world).values())
    detached = world.counters()["detached"]
    world.run(3600.0)
    assert {short: world.nodes[short].preferred_parent for short in range(2, 7)} == parents
    set_ground(world, 1, has_ground=True)
    back_at = world.now
    world.run(60.0)
    assert all(grounds(world).values())
    assert world.counters()["detached"] == detached
    world.run(RESUME_SPREAD_S)
    told = [
        (at, event.is_grounded, when - back_at)
        for when, at, event in world.happened
        if isinstance(event, GroundChanged) and at != 1
    ]
    assert sorted((at, is_grounded) for at, is_grounded, _ in told) == [
        (at, is_grounded) for at in range(2, 7) for is_grounded in (False, True)
    ]
    # It is told at once that it is gone; that it is back, over a minute.
    resumed = sorted(after for _, is_grounded, after in told if is_grounded)
    assert resumed[-1] - resumed[0] > 10.0


@pytest.mark.parametrize("seed", range(2))
def test_nodes_move_to_the_collector_that_has_one(seed: int) -> None:
    """A grid between two collectors: those of the first one all end at the second."""
    world = StationWorld(seed, roots=(1, 16))
    world.grid(4, 4, share=0.95, diagonal=0.8)
    formed(world)
    before = {short: root_of(world, short) for short in world.nodes if short not in world.roots}
    assert set(before.values()) == {1, 16}
    set_ground(world, 1, has_ground=False)
    world.run(900.0)
    assert all(grounds(world).values())
    assert {root_of(world, short) for short in before} == {16}
    assert not world.loops
    assert not world.orphans()
    set_ground(world, 1, has_ground=True)
    world.run(600.0)
    assert all(grounds(world).values())
    assert not world.loops


def test_with_both_gone_nobody_runs_from_one_to_the_other() -> None:
    world = StationWorld(3, roots=(1, 16))
    world.grid(4, 4, share=0.95, diagonal=0.8)
    formed(world)
    changes = world.counters()["parent changed"]
    for root in (1, 16):
        set_ground(world, root, has_ground=False)
    world.run(900.0)
    assert not any(grounds(world).values())
    assert not world.orphans()
    assert not world.loops
    assert world.counters()["parent changed"] - changes <= 14  # one each, at the most
    set_ground(world, 16, has_ground=True)
    world.run(900.0)
    assert all(grounds(world).values())


def test_who_starts_anew_chooses_ground() -> None:
    world = StationWorld(2, roots=(1, 2))
    for one, other in ((1, 3), (2, 4), (4, 3), (2, 5), (5, 3)):
        world.link(one, other)
    formed(world)
    assert root_of(world, 3) == 1
    set_ground(world, 1, has_ground=False)
    world.kill(3)
    world.run(5.0)
    world.start(3)
    world.run(60.0)
    assert root_of(world, 3) == 2


def test_hearsay_moves_nobody() -> None:
    """What neighbours said before they knew is no ground to go to."""
    world = formed(StationWorld(5).grid(3, 3, share=0.95, diagonal=0.8))
    before = world.counters()
    set_ground(world, 1, has_ground=False)
    world.run(600.0)
    after = world.counters()
    assert not any(grounds(world).values())
    assert after["left for ground"] == 0
    assert after["detached"] == before["detached"]


def test_a_network_long_settled_moves_as_soon() -> None:
    """By then Trickle is silent for long: who has ground answers who says that it has none."""
    world = StationWorld(2, roots=(1, 4))
    world.line(4)
    formed(world)
    assert [root_of(world, short) for short in (2, 3)] == [1, 4]
    world.run(2 * 3600.0)
    set_ground(world, 1, has_ground=False)
    world.run(90.0)
    assert all(grounds(world).values())


def test_ground_that_cannot_be_had_is_tried_for_ever_longer() -> None:
    """Node 3 hears 4, which has ground, and would be too far from its root by that way."""
    lab = load_profile("lab")
    short = dataclasses.replace(lab, parents=dataclasses.replace(lab.parents, path_etx_max=6.0))
    world = StationWorld(6, roots=(1, 7), profile=short)
    world.link(1, 3)
    for one, other in ((7, 6), (6, 5), (5, 4)):
        world.link(one, other)
    world.link(4, 3, 0.8)
    formed(world)
    set_ground(world, 1, has_ground=False)
    for _ in range(60):
        world.nodes[7].node.ask_for_routes(now=world.now)  # So that node 4 speaks again.
        world.touch(7)
        world.run(60.0)
    assert root_of(world, 3) == 1
    # 13 in this hour; 180 without a longer wait each time.
    assert 3 <= world.nodes[3].node.dodag.counters["left for ground"] <= 20


def test_no_packet_goes_where_there_is_no_ground() -> None:
    """Node 4 has a parent on either side; only one of them leads to a connection."""
    world = StationWorld(4, roots=(1, 2))
    for one, other in ((1, 3), (2, 5), (3, 4), (5, 4)):
        world.link(one, other)
    formed(world)
    assert len(world.nodes[4].parent_set) == 2
    home, other = (1, 2) if root_of(world, 4) == 1 else (2, 1)
    via = {1: 3, 2: 5}
    set_ground(world, other, has_ground=False)
    world.run(6.0)  # Before the node on that side moves.
    assert not world.nodes[via[other]].dodag.is_grounded
    assert world.nodes[4].parent_set == (eui(via[home]),)
    for number in range(5):
        world.send(4, b"%d" % number)
        world.run(0.5)
    assert [event.payload for event in world.delivered(home, 0)] == [b"%d" % n for n in range(5)]
    assert world.delivered(other, 0) == []


def test_without_ground_only_what_is_urgent_is_sent_and_the_rest_comes_back_spread() -> None:
    world = formed(StationWorld(1).line(6))
    set_ground(world, 1, has_ground=False)
    world.run(30.0)
    for priority in Priority:
        world.station(4).send(b"%d" % priority, priority=priority, now=world.now)
        world.touch(4)
        world.run(1.0)
    assert [event.payload for event in world.delivered(1, 0)] == [b"0", b"1", b"2"]
    assert world.station(4).counters["held back: no ground"] == 5
    count = len(world.delivered(1, PacketKind.TOPOLOGY))
    world.run(REPORT_PERIOD_S)
    assert len(world.delivered(1, PacketKind.TOPOLOGY)) == count

    back_at = world.now
    set_ground(world, 1, has_ground=True)
    resumed: dict[int, float] = {}
    while world.now < back_at + RESUME_SPREAD_S + 10.0:
        for short in range(2, 7):
            station = world.station(short)
            if short not in resumed and station.send(
                b"again", priority=Priority.SCHEDULED, now=world.now
            ):
                resumed[short] = world.now - back_at
            world.touch(short)
        world.run(1.0)
    assert set(resumed) == set(range(2, 7))
    assert max(resumed.values()) - min(resumed.values()) > 10.0
    # Reports that were due all the time come with it.
    assert len(world.delivered(1, PacketKind.TOPOLOGY)) >= count + 5


def test_a_packet_between_two_nodes_needs_no_ground() -> None:
    world = formed(StationWorld(1).line(4))
    set_ground(world, 1, has_ground=False)
    world.run(30.0)
    assert world.station(4).send(
        b"neighbour", destination=2, priority=Priority.SCHEDULED, now=world.now
    )
    world.touch(4)
    world.run(5.0)
    assert [event.payload for event in world.delivered(2, 0)] == [b"neighbour"]
