"""Nodes among nodes: forming, carrying, repairing, and what must never happen.

The contract under test: preferred parents never make a loop as long as nobody loses its memory,
and only a short one then; whoever has links that work comes back; every queue keeps its bound;
and nothing that is damaged, replayed or contradicts itself changes a route. The walk over the
parents, the reachability and the deliveries are judged by the medium, which shares no code with
the router.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from amistack.errors import LocalProtocolError, TableFull
from amistack.framing import Priority
from mesh.packet import (
    BROADCAST,
    ROOT,
    Packet,
    PacketKind,
    RplMark,
    ShortAddress,
    SourceRoute,
)
from mesh.routing.dodag import UPKEEP_INTERVAL, Dodag, State
from mesh.routing.downward import ANSWERED_TIME
from mesh.routing.events import RouteConfirmed, RouteFailed
from mesh.routing.messages import (
    INFINITE_RANK,
    INTERVAL_EXPONENT_MAX,
    INTERVAL_EXPONENT_MIN,
    LONGEST_EXPONENT_MIN,
    ROUTE_LIFE_MIN,
    Configuration,
    Dao,
    Dio,
    Transit,
    address_of,
)
from mesh.routing.node import WAITING_COUNT_MAX, MeshNode
from mesh.routing.outbox import ANSWER_COUNT_MAX
from mesh.routing.profile import NAMES, load_profile
from mesh.routing.strangers import ASK_AGAIN, ASK_TRIES, ASK_TRIES_MORE
from mesh.routing.telling import LATER_DELAY
from mesh.security import UNICAST_OVERHEAD, Seal
from mesh.security.frame import TAG_SIZE
from tests.mesh.routing.medium import DODAG_ID, KEY, QuickCipher, World, eui, short_of


def formed(world: World, seconds: float = 90.0) -> World:
    world.start()
    world.run(10.0)
    world.run(seconds, until=lambda: not world.orphans() and not world.unrouted())
    assert not world.orphans()
    assert not world.unrouted()
    assert not world.loops
    return world


def payloads(world: World) -> list[bytes]:
    return [event.payload for _, _, event in world.received]


def scattered(seed: int, count: int = 20) -> tuple[World, random.Random]:
    """Nodes on a square, links that get worse with distance, two collectors."""
    chance = random.Random(seed)
    world = World(seed, roots=(1, 2))
    places = {short: (chance.random() * 3, chance.random() * 3) for short in range(1, count + 1)}
    for one, place in places.items():
        world.hearers.setdefault(one, set())
        for other in range(one + 1, count + 1):
            share = min(1.0, 1.5 - 0.7 * math.dist(place, places[other]))
            if share > 0.5:
                world.link(one, other, share, min(1.0, share * (0.9 + 0.2 * chance.random())))
    return world, chance


# Forming


def test_a_line_forms_hop_by_hop_and_carries_both_ways() -> None:
    world = formed(World(1).line(8))
    assert world.path_up(8) == [8, 7, 6, 5, 4, 3, 2, 1]
    assert world.nodes[1].route_to(8, now=world.now) == (2, 3, 4, 5, 6, 7)
    assert world.send(8, b"up")
    assert world.send(1, b"down", 8)
    world.run(3.0)
    assert {(at, event.source, event.payload) for _, at, event in world.received} == {
        (1, 8, b"up"),
        (8, 1, b"down"),
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_lossy_grid_forms_and_loses_nothing(seed: int) -> None:
    world = formed(World(seed).grid(5, 5, 0.85, 0.6))
    # Of its further parents a node tells the root a minute or two later.
    world.run(4 * LATER_DELAY)
    for short in range(2, 26):
        world.send(short, b"up%d" % short)
        world.send(1, b"down%d" % short, short)
        world.run(0.3)
    world.run(20.0)
    expected_up = {b"up%d" % short for short in range(2, 26)}
    expected_down = {b"down%d" % short for short in range(2, 26)}
    # Up there are all ways to try, down there are two others.
    assert set(payloads(world)) >= expected_up
    lost = expected_down - set(payloads(world))
    assert len(lost) <= 1
    # Whoever asked hears nothing, and asks again.
    for payload in sorted(lost):
        world.send(1, payload, int(payload.removeprefix(b"down")))
        world.run(0.3)
    world.run(20.0)
    assert set(payloads(world)) == expected_up | expected_down
    assert not world.loops


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_forms_and_carries_and_then_says_little(name: str) -> None:
    world = World(3, profile=name).grid(3, 3, 0.95, 0.6)
    # Wi-SUN's large one says its first DIO after minutes, at each hop.
    formed(world, 2 * 3600.0)
    for short in range(2, 10):
        world.send(short, b"up%d" % short)
        assert world.send(1, b"down%d" % short, short)
        world.run(3.0)
    # One that lost its acknowledgement may come twice.
    assert set(payloads(world)) == {
        payload for short in range(2, 10) for payload in (b"up%d" % short, b"down%d" % short)
    }
    world.run(3600.0)
    before = world.frames
    world.run(4 * 3600.0)
    longest = (
        2 ** (world.profile.dodag.interval_min + world.profile.dodag.interval_doublings) / 1000
    )
    # DIOs to all, and for each of three parents a look and its acknowledgement; and some losses.
    hourly = 3600.0 / longest + 2 * 3 * 3600.0 / world.profile.parents.probe_interval
    assert world.frames - before < 9 * 4 * (2 * hourly + 10)
    assert not world.orphans()
    assert not world.unrouted()
    assert not world.loops


def test_the_parent_set_lies_below_and_is_tried() -> None:
    missed = 0
    for seed in range(8):
        world = formed(World(seed, profile="rfc8036").grid(4, 4, 0.95, 0.7), 900.0)
        world.run(4000.0)
        full = 0
        for short, node in world.nodes.items():
            below = [other for other in world.hearers[short] if world.nodes[other].rank < node.rank]
            rows = [node.dodag.neighbours.get(eui(other)) for other in below]
            # Who came up through us in the last two hours is none, whatever its rank; nor one whose
            # last word was of a higher rank; nor one that was denied until a moment ago.
            fit = [
                row
                for row in rows
                if row and row.child_until <= world.now and row.rank < node.rank
                if row.denied_until + UPKEEP_INTERVAL <= world.now
            ]
            full += short > 1 and len(node.dodag.parents) >= min(len(fit), 3)
            missed += None in rows and len(node.dodag.parents) < 3
            for row in node.dodag.parents:
                assert row.rank < node.rank
                assert world.now - row.metric.tried_at <= 1800.0
        assert full == 15
    # A proof that is lost is asked for again with the next DIO, which may be an hour away: that is
    # so of one node in thirty at most.
    assert missed <= 8 * 15 / 30


@pytest.mark.parametrize(("share", "seed"), [(0.95, 2), (0.8, 0), (0.65, 1)])
def test_no_link_of_a_parent_set_stays_untried_for_half_an_hour(share: float, seed: int) -> None:
    world = World(seed, profile="rfc8036").grid(6, 6, share, 0.7 * share)
    world.start()
    world.run(1800.0)
    assert not world.orphans()
    since: dict[tuple[int, bytes], float] = {}
    longest = 0.0
    while world.now < 12 * 3600.0:
        world.run(30.0)
        links = {
            (short, row.eui): row
            for short, node in world.nodes.items()
            for row in node.dodag.parents
        }
        since = {link: since.get(link, world.now) for link in links}
        for link, row in links.items():
            longest = max(longest, world.now - max(since[link], row.metric.tried_at))
    # Looked at every 30 s; half an hour is what is asked for, with room for a channel that is busy.
    bound = world.profile.parents.probe_interval + 32.0
    assert longest <= bound < 1800.0


def test_paths_are_short_once_links_were_tried() -> None:
    world = formed(World(5).grid(6, 6, 1.0, 0.3))
    world.run(900.0)
    hops = [len(world.path_up(short)) - 1 for short in range(2, 37)]
    best = [(short - 1) % 6 + (short - 1) // 6 for short in range(2, 37)]
    assert sum(hops) <= 1.2 * sum(best)


def test_two_collectors_share_one_tree() -> None:
    world = formed(World(2, roots=(1, 10)).line(10, 0.95))
    assert world.path_up(3)[-1] == 1
    assert world.path_up(8)[-1] == 10
    world.kill(10)
    for _ in range(20):
        world.send(9, b"x")
        world.run(10.0)
    assert world.path_up(9)[-1] == 1
    assert not world.loops


def test_a_node_that_is_not_fresh_is_asked_before_its_control_counts() -> None:
    world = World(1).line(2)
    world.start()
    world.run(0.3)
    assert world.nodes[2].counters["unproven neighbour"] >= 1
    world.run(30.0)
    assert not world.orphans()


def test_what_a_proof_was_asked_for_is_said_anew_and_counts_at_once() -> None:
    # The same octets again would be older than the proof, and refused.
    world = World(13).line(3)
    world.start()
    world.run(6.0, until=lambda: not world.orphans())
    assert not world.orphans()
    counters = world.counters()
    assert counters["not taken"] >= 1
    assert counters["replayed"] == counters["hop failed"] == counters["neighbour denied"] == 0


def test_a_root_answers_a_dao_once_it_knows_the_way() -> None:
    world = formed(World(25).line(2))
    root = world.nodes[1]
    own, above, below = (address_of(DODAG_ID, short) for short in (2, 8, 9))
    daos = [
        (9, Dao(0, 1, below, (Transit(above, 20, 12),))),
        (8, Dao(0, 1, above, (Transit(own, 20, 12),))),
    ]
    waiting = []
    for number, (source, dao) in enumerate(daos):
        packet = replace(control(source, ROOT, dao.encode(), 9), rpl=RplMark(900))
        root.receive_frame(frame_of(2, packet, 1, 9_000_000 + 100 * number), now=world.now)
        waiting.append(root.queue_length)
    assert waiting[1] - waiting[0] == 2
    assert root.counters["no route for an answer"] == 1


# Repair


def test_a_packet_goes_to_one_sibling_and_then_waits_for_a_way() -> None:
    # A second hop that leads no nearer to the root would be its end.
    world = formed(World(26).grid(3, 3, 1.0, 1.0))
    node = world.nodes[9]
    parents = [short_of(eui_) for eui_ in node.parent_set]
    for short in parents:
        world.kill(short)
    mark = RplMark(node.rank + 200, has_rank_error=True)
    packet = Packet(PacketKind.COAP, Priority.SCHEDULED, ShortAddress(77), ROOT, b"late", 9, mark)
    child = next(row.short for row in node.dodag.neighbours if row.short not in parents)
    node.receive_frame(frame_of(child, packet, 9, 9_500_000), now=world.now)
    world.touch(9)
    world.run(3.0)
    assert node.counters["sent to a sibling"] == 0
    assert world.counters()["dropped: loop"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_death_of_a_parent_is_repaired_at_once_when_there_is_traffic(seed: int) -> None:
    world = formed(World(seed).grid(4, 4, 0.95, 0.9))
    world.run(60.0)
    child = 16
    victim = world.path_up(child)[1]
    world.kill(victim)
    world.send(child, b"after")
    world.run(5.0, until=lambda: b"after" in payloads(world))
    assert b"after" in payloads(world)
    # Whom else it was a parent of learns so by traffic of its own, or with the next probe.
    for short in set(range(2, 17)) - {victim}:
        world.send(short, b"more")
    world.run(5.0, until=lambda: bool(world.path_up(child)))
    assert world.path_up(child)[-1] == 1
    assert victim not in world.path_up(child)
    assert not world.loops


def test_who_has_no_way_says_so_and_its_children_look_elsewhere() -> None:
    world = World(4)
    for one, other in ((1, 2), (2, 3), (3, 4), (4, 5)):
        world.link(one, other)
    formed(world)
    world.kill(2)
    world.send(3, b"x")
    world.run(20.0)
    assert [world.nodes[short].rank for short in (3, 4, 5)] == [INFINITE_RANK] * 3
    assert [world.nodes[short].dodag.state for short in (3, 4, 5)] == [State.DETACHED] * 3
    world.link(1, 5)
    world.run(120.0, until=lambda: not world.orphans())
    assert world.path_up(3) == [3, 4, 5, 1]
    assert not world.loops


@pytest.mark.parametrize("seed", range(8))
def test_without_lost_memory_there_is_no_loop_at_any_time(seed: int) -> None:
    world, chance = scattered(seed, 18)
    world.start()
    world.run(20.0)
    for step in range(16):
        meters = [short for short in world.nodes if short not in world.roots]
        draw = chance.random()
        if draw < 0.35 and len(meters) > 8:
            world.kill(chance.choice(meters))
        elif draw < 0.7:
            one = chance.choice(meters)
            if world.hearers[one]:
                world.cut(one, chance.choice(sorted(world.hearers[one])))
        elif draw < 0.8:
            world.nodes[1].bump_version(now=world.now)
            world.touch(1)
        for short in chance.sample(sorted(world.nodes), 3):
            if short not in world.roots:
                world.send(short, b"%d" % step)
        world.run(chance.random() * 5.0)
        assert max(node.queue_length for node in world.nodes.values()) <= 8 * 32 + 33
    assert world.loops == []


@pytest.mark.parametrize("seed", range(6))
def test_after_crashes_and_restarts_all_come_back_and_loops_end(seed: int) -> None:
    world, chance = scattered(seed + 100, 16)
    world.start()
    world.run(20.0)
    for step in range(10):
        meters = [short for short in world.nodes if short not in world.roots]
        short = chance.choice(meters)
        world.kill(short)
        if chance.random() < 0.5:
            world.start(short)
        elif world.dead:
            world.start(chance.choice(sorted(world.dead)))
        for other in world.nodes:
            if other not in world.roots and chance.random() < 0.3:
                world.send(other, b"%d" % step)
        world.run(chance.random() * 6.0)
    for short in sorted(world.dead):
        world.start(short)
    for _ in range(40):
        for short in world.nodes:
            if short not in world.roots:
                world.send(short, b"later")
        world.run(5.0)
        home = world.reachable()
        if not [short for short in world.orphans() if short in home]:
            break
    assert not [short for short in world.orphans() if short in world.reachable()]
    # A node that lost its memory may be caught in one; marks in packets end it.
    assert len(world.loops) <= 6
    assert not [loop for loop in world.loops if world.now - loop[0] < 5.0]


def test_a_new_version_moves_everybody_without_a_loop() -> None:
    world = formed(World(7).grid(4, 4, 0.9, 0.7))
    version = world.nodes[1].bump_version(now=world.now)
    world.touch(1)
    world.run(60.0, until=lambda: all(n.dodag.version == version for n in world.nodes.values()))
    world.run(20.0)
    assert {node.dodag.version for node in world.nodes.values()} == {version}
    assert not world.orphans()
    assert not world.loops
    with pytest.raises(LocalProtocolError):
        world.nodes[5].bump_version(now=world.now)


def test_a_radio_that_finds_no_free_moment_blames_no_neighbour() -> None:
    world = formed(World(8).line(3))
    node = world.nodes[3]
    node.send(b"waits", priority=Priority.SCHEDULED, now=world.now)
    blocked = 0
    while blocked < 3 * world.profile.links.blocked_max:
        world.now = node.next_timer() or world.now
        node.handle_timer(now=world.now)
        if node.frame_to_send(now=world.now) is not None:
            node.frame_sent(now=world.now, was_on_air=False)
            blocked += 1
    assert node.counters["radio busy"] >= 3
    assert node.counters["hop failed"] == 0
    assert {row.metric.failures_in_a_row for row in node.dodag.neighbours} == {0}
    world.touch(3)
    world.run(5.0)
    assert b"waits" in payloads(world)


def test_a_null_parent_does_not_flap() -> None:
    # One neighbour whose frames come but who hears nothing of us: it must never be a parent.
    world = World(8)
    world.link(1, 2, 1.0, 0.0)
    world.start()
    world.run(600.0)
    assert world.nodes[2].preferred_parent is None
    assert world.nodes[2].dodag.counters["parent changed"] == 0
    # It asks, but not faster and faster.
    assert world.frames < 2500


def test_a_child_is_never_chosen_as_parent_when_frames_are_lost() -> None:
    for seed in range(5):
        world = World(seed)
        world.link(1, 2, 1.0)
        for child in (3, 4, 5):
            world.link(2, child, 0.7)
        world.link(3, 4, 0.9)
        world.link(4, 5, 0.9)
        formed(world, 200.0)
        world.cut(1, 2)
        for _ in range(10):
            for short in (2, 3, 4, 5):
                world.send(short, b"x")
            world.run(4.0)
        assert world.loops == []


# Routes down


def test_a_restarted_node_is_routed_again_although_its_path_sequence_is_lost() -> None:
    world = formed(World(9).line(5))
    for _ in range(3):
        world.kill(4)
        world.start(4)
        world.run(60.0, until=lambda: not world.orphans())
        world.run(40.0)
        assert world.nodes[1].route_to(5, now=world.now) == (2, 3, 4)
        assert any(
            at == 4 and isinstance(event, RouteConfirmed)
            for when, at, event in world.happened
            if when > world.now - 100.0
        )


def test_routes_stay_when_another_node_joins() -> None:
    world = World(10).line(4)
    world.link(4, 5)
    world.hearers.setdefault(6, set())
    world.start(1, 2, 3, 4, 5)
    world.run(60.0)
    before = world.nodes[1].route_to(5, now=world.now)
    world.link(4, 6)
    world.link(5, 6)
    world.start(6)
    world.run(60.0)
    assert world.nodes[1].route_to(5, now=world.now) == before
    assert world.nodes[1].route_to(6, now=world.now) is not None


def test_a_broken_source_route_takes_another_way_and_makes_no_storm() -> None:
    world = World(11)
    for one, other in ((1, 2), (1, 3), (2, 4), (3, 4)):
        world.link(one, other)
    formed(world)
    world.run(120.0)
    route = world.nodes[1].route_to(4, now=world.now)
    assert route in ((2,), (3,))
    assert route is not None
    world.cut(route[0], 4)
    errors = world.counters()["route error"]
    world.send(1, b"once", 4)
    world.run(5.0)
    assert payloads(world).count(b"once") == 1
    assert any(isinstance(event, RouteFailed) for _, _, event in world.happened)
    for number in range(40):
        world.send(1, b"n%d" % number, 4, relays=route)
        world.run(0.1)
    world.run(10.0)
    assert world.counters()["route error"] - errors <= 9


def test_a_root_does_not_stall_behind_a_node_that_is_gone() -> None:
    world = World(12)
    for short in (2, 3, 4):
        world.link(1, short)
    formed(world)
    world.kill(2)
    for number in range(20):
        world.send(1, b"gone%d" % number, 2)
    world.send(1, b"there", 3)
    world.run(30.0)
    assert b"there" in payloads(world)
    assert world.nodes[1].queue_length == 0


def test_whoever_asks_for_routes_gets_them_from_all() -> None:
    world = formed(World(13).grid(3, 3, 0.9, 0.5))
    root = world.nodes[1]
    assert root.routes is not None
    root.routes.rows.clear()
    root.ask_for_routes(now=world.now)
    world.touch(1)
    world.run(90.0, until=lambda: not world.unrouted())
    assert not world.unrouted()


# Everybody


def test_a_flood_reaches_everybody_once_and_few_repeat_it() -> None:
    world = formed(World(14).grid(6, 6, 0.9, 0.8))
    world.run(120.0)
    copies = 0

    def watch(now: float, short: int, octets: bytes) -> bytes:
        nonlocal copies
        copies += b"all" in octets  # QuickCipher hides nothing.
        return octets

    world.watch = watch
    world.nodes[1].broadcast(b"all", priority=Priority.FIRMWARE, now=world.now)
    world.touch(1)
    world.run(8.0)
    reached = [at for _, at, event in world.received if event.payload == b"all"]
    assert len(reached) == len(set(reached))
    assert len(reached) >= 34
    # The origin and each node at most twice (`repeats`); who hears three copies says none.
    assert 1 < copies <= 36 * world.profile.flood.repeats


def test_a_flood_for_a_subtree_reaches_those_below_alone() -> None:
    world = World(15)
    for one, other in ((1, 2), (1, 3), (2, 4), (4, 5), (3, 6)):
        world.link(one, other)
    formed(world)
    assert world.nodes[1].broadcast(b"sub", priority=Priority.FIRMWARE, now=world.now, subtree=2)
    world.touch(1)
    world.run(8.0)
    assert {at for _, at, event in world.received} == {2, 4, 5}


def test_who_hears_a_subtrees_flood_from_no_parent_is_not_of_it() -> None:
    world = World(15)
    for one, other in ((1, 2), (1, 3), (2, 4), (3, 6), (4, 6)):
        world.link(one, other)
    formed(world)
    world.run(60.0)
    assert world.nodes[6].dodag.neighbours.get(eui(4)) is not None
    assert not world.nodes[6].dodag.is_parent(eui(4))
    assert world.nodes[1].broadcast(b"sub", priority=Priority.FIRMWARE, now=world.now, subtree=2)
    world.touch(1)
    world.run(8.0)
    assert {at for _, at, event in world.received} == {2, 4}
    assert world.nodes[6].counters["flood: not our subtree"] >= 1


# Bounds and bad input


def test_queues_have_bounds_and_say_so() -> None:
    world = World(16).line(2)
    world.start(2)
    node = world.nodes[2]
    for _ in range(world.profile.links.queue_count_max):
        node.send(b"x", priority=Priority.RECOVERY, now=world.now)
    with pytest.raises(TableFull):
        node.send(b"x", priority=Priority.RECOVERY, now=world.now)
    world.run(300.0)
    assert node.queue_length <= WAITING_COUNT_MAX + 8 * 32
    world.run(600.0)
    assert node.queue_length == 0


@pytest.mark.parametrize(
    ("kind", "priority", "is_taken"),
    [
        (PacketKind.RPL, Priority.CONTROL, True),
        (PacketKind.COAP, Priority.SCHEDULED, False),
    ],
)
def test_a_full_relay_looks_dead_to_nobody_for_control(
    kind: PacketKind, priority: Priority, is_taken: bool
) -> None:
    world = formed(World(27).line(4))
    node = world.nodes[3]
    for _ in range(world.profile.links.queue_count_max):
        node.send(b"x", priority=priority, now=world.now)
    packet = Packet(kind, priority, ShortAddress(9), ROOT, b"one more", 9, RplMark(60_000))
    node.receive_frame(frame_of(4, packet, 3, 9_700_000), now=world.now)
    frame = node.frame_to_send(now=world.now)
    assert frame is not None
    assert frame.is_ack is is_taken
    assert node.counters["queue full"] == 1


def test_what_cannot_be_acknowledged_now_is_not_taken_and_new_when_it_comes_again() -> None:
    world = formed(World(27).line(3))
    root = world.nodes[1]
    frames = []
    for number in range(ANSWER_COUNT_MAX + 2):
        packet = Packet(
            PacketKind.COAP,
            Priority.SCHEDULED,
            ShortAddress(3),
            ROOT,
            b"%d" % number,
            9,
            RplMark(60_000),
        )
        frames.append(frame_of(2, packet, 1, 9_000_000 + number))
        root.receive_frame(frames[-1], now=world.now)
    assert root.counters["not taken"] == 2
    world.touch(1)
    world.run(1.0)
    assert len(payloads(world)) == ANSWER_COUNT_MAX
    for octets in frames:
        root.receive_frame(octets, now=world.now)
        world.touch(1)
        world.run(0.1)
    assert len(payloads(world)) == len(set(payloads(world))) == ANSWER_COUNT_MAX + 2


def test_an_alarm_overtakes_what_waits() -> None:
    world = formed(World(17).line(2))
    for number in range(20):
        world.nodes[2].send(b"%d" % number, priority=Priority.RECOVERY, now=world.now)
    world.nodes[2].send(b"alarm", priority=Priority.ALARM, now=world.now)
    world.touch(2)
    world.run(10.0)
    assert payloads(world).index(b"alarm") <= 1
    assert len(payloads(world)) == 21


def frame_of(source: int, packet: Packet, to: int | None, counter: int) -> bytes:
    seal = Seal(eui(source), {1: KEY}, active=1, stored_counter=counter, make_cipher=QuickCipher)
    seal.reserved(counter + 10)
    sealed = seal.seal(
        packet.encode(), destination=None if to is None else eui(to), wants_ack=to is not None
    )
    return sealed.octets


def state_of(node: MeshNode) -> tuple[object, ...]:
    rows = None if node.routes is None else dict(node.routes.rows)
    return node.preferred_parent, node.parent_set, node.rank, node.dodag.version, rows


def control(source: int, destination: int, body: bytes, hop_limit: int = 1) -> Packet:
    return Packet(
        PacketKind.RPL,
        Priority.CONTROL,
        ShortAddress(source),
        ShortAddress(destination),
        body,
        hop_limit,
    )


@pytest.mark.parametrize("seed", range(3))
def test_damaged_frames_change_nothing(seed: int) -> None:
    world = formed(World(seed).line(4))
    chance = random.Random(seed)
    heard: list[bytes] = []

    def watch(now: float, short: int, octets: bytes) -> bytes:
        heard.append(octets)
        return octets

    world.watch = watch
    world.run(30.0)
    node = world.nodes[3]
    before = state_of(node)
    for octets in heard[:50]:
        for _ in range(5):
            damaged = bytearray(octets)
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            node.receive_frame(bytes(damaged), now=world.now)
            node.receive_frame(octets[: chance.randrange(len(octets))], now=world.now)
            node.receive_frame(chance.randbytes(chance.randrange(120)), now=world.now)
    assert state_of(node) == before


def test_replayed_frames_change_nothing() -> None:
    world = World(18).line(3)
    heard: list[bytes] = []

    def watch(now: float, short: int, octets: bytes) -> bytes:
        heard.append(octets)
        return octets

    world.watch = watch
    formed(world)
    world.run(60.0)
    before = {short: state_of(node) for short, node in world.nodes.items()}
    for octets in heard:
        for node in world.nodes.values():
            node.receive_frame(octets, now=world.now)
    assert {short: state_of(node) for short, node in world.nodes.items()} == before
    assert world.counters()["replayed"] > 10


def wrong_configurations(dio: Dio) -> list[Configuration]:
    """What no root of that network says, be it from the parent itself."""
    right = dio.configuration
    assert right is not None
    return [
        replace(right, hop_rank_increase_min=0),
        replace(right, hop_rank_increase_min=right.hop_rank_increase_min // 2),
        replace(right, hop_rank_increase_min=0xFFFF),
        replace(right, interval_min=INTERVAL_EXPONENT_MIN - 1),
        replace(right, interval_min=LONGEST_EXPONENT_MIN - 1, interval_doublings=0),
        replace(right, interval_min=INTERVAL_EXPONENT_MAX + 1),
        replace(right, interval_doublings=INTERVAL_EXPONENT_MAX + 1),
        replace(right, lifetime=0),
        replace(right, lifetime=1, lifetime_unit=ROUTE_LIFE_MIN - 1),
        replace(right, lifetime_unit=0),
        replace(right, objective=0),
    ]


def test_one_that_says_wrong_figures_takes_its_way_from_nobody() -> None:
    world = formed(World(19).grid(4, 4, 0.95, 0.8))
    node = world.nodes[6]
    parent, right = node.preferred_parent, node.dodag.dio()
    assert parent is not None
    assert right is not None
    stranger = next(
        row for row in node.dodag.neighbours if row.eui != parent and row.short != 1
    ).short
    counter = 5_000_000
    for wrong in wrong_configurations(right):
        for rank in (INFINITE_RANK, right.rank + 256):
            dio = replace(right, rank=rank, configuration=wrong)
            octets = frame_of(stranger, control(stranger, BROADCAST, dio.encode()), None, counter)
            counter += 100
            node.receive_frame(octets, now=world.now)
    world.touch(6)
    assert node.preferred_parent == parent
    world.run(120.0)
    assert not world.orphans()
    assert {each.dodag.configuration for each in world.nodes.values()} == {right.configuration}


@pytest.mark.parametrize(
    ("who", "version", "is_taken"),
    [("parent", 0, True), ("parent", -1, False), ("another", 0, False), ("further", 0, False)],
)
def test_the_roots_figures_come_down_from_parent_to_child(
    who: str, version: int, *, is_taken: bool
) -> None:
    world = formed(World(19).grid(4, 4, 0.95, 0.8))
    node = world.nodes[6]
    dio, parent = node.dodag.dio(), node.dodag.preferred
    assert dio is not None
    assert dio.configuration is not None
    assert parent is not None
    source = parent.short
    if who == "another":
        source = next(row for row in node.dodag.neighbours if row is not parent).short
    elif who == "further":
        source = node.dodag.parents[1].short
    new = replace(dio.configuration, redundancy=3)
    told = replace(dio, rank=parent.rank, version=dio.version + version, configuration=new)
    packet = control(source, BROADCAST, told.encode())
    node.receive_frame(frame_of(source, packet, None, 5_000_000), now=world.now)
    assert (node.dodag.configuration == new) is is_taken


def test_a_node_without_a_way_takes_the_figures_of_whom_it_may_join() -> None:
    other = load_profile("wisun-large").configuration
    fresh = Dodag(load_profile("rfc8036"), random.Random(1), dodag_id=DODAG_ID)
    fresh.start(now=0.0)
    unit = other.hop_rank_increase_min
    assert unit != fresh.configuration.hop_rank_increase_min
    dio = Dio(0, 240, unit, 0, DODAG_ID, other)
    for rank, is_taken in ((INFINITE_RANK, False), (unit, True)):
        said = replace(dio, rank=rank)
        fresh.hear_dio(eui(9), 9, said, now=1.0, is_for_us=False, rssi_dbm=None)
        assert (fresh.configuration == other) is is_taken


def test_a_root_takes_its_figures_from_nobody() -> None:
    world = formed(World(19).line(3))
    root, dio = world.nodes[1], world.nodes[2].dodag.dio()
    assert dio is not None
    assert dio.configuration is not None
    told = replace(dio, configuration=replace(dio.configuration, redundancy=3))
    packet = control(2, BROADCAST, told.encode())
    root.receive_frame(frame_of(2, packet, None, 5_000_000), now=world.now)
    assert root.dodag.configuration == dio.configuration


def test_messages_that_contradict_themselves_change_nothing() -> None:
    world = formed(World(19).line(4))
    node = world.nodes[3]
    dio = node.dodag.dio()
    assert dio is not None
    wrong: list[Dio] = [
        replace(dio, rank=0),
        replace(dio, rank=1),
        replace(dio, instance=5),
        replace(dio, mode=2),
        replace(dio, dodag_id=bytes(16)),
        *(replace(dio, configuration=one) for one in wrong_configurations(dio)),
        replace(dio, version=(dio.version - 3) & 0xFF),
    ]
    before = state_of(node)
    for number, message in enumerate(wrong):
        packet = control(2, BROADCAST, message.encode())
        node.receive_frame(frame_of(2, packet, None, 5_000_000 + 100 * number), now=world.now)
        if message.version == dio.version:
            assert state_of(node) == before
    own = address_of(DODAG_ID, 4)
    loops = [Dao(0, 1, own, (Transit(own, 20, 12),)), Dao(0, 1, own, (Transit(bytes(16), 20, 12),))]
    root = world.nodes[1]
    rows = state_of(root)
    for number, dao in enumerate(loops):
        packet = replace(control(4, ROOT, dao.encode(), 9), rpl=RplMark(900))
        root.receive_frame(frame_of(2, packet, 1, 6_000_000 + 100 * number), now=world.now)
    assert state_of(root) == rows


def test_a_dao_that_came_twice_is_answered_once() -> None:
    world = formed(World(20).line(4))
    root = world.nodes[1]
    sequence = world.nodes[4].dao.path_sequence + 1 & 0xFF
    parent = address_of(DODAG_ID, 3)
    counter = 7_000_000

    def hear(number: int) -> int:
        """How many answers to that DAO of node 4 wait, which node 2 brought."""
        nonlocal counter
        counter += 100
        dao = Dao(0, number, address_of(DODAG_ID, 4), (Transit(parent, sequence, 12),))
        packet = replace(control(4, ROOT, dao.encode(), 9), rpl=RplMark(900))
        before = root.queue_length
        root.receive_frame(frame_of(2, packet, 1, counter), now=world.now)
        return root.queue_length - before

    assert [hear(77), hear(77), hear(78), hear(78)] == [1, 0, 1, 0]
    assert root.counters["dao came twice"] == 2
    world.touch(1)
    # Who says the same so much later did not hear the answer.
    world.run(ANSWERED_TIME)
    assert hear(78) == 1


def test_a_packet_that_loops_is_marked_then_dropped() -> None:
    world = formed(World(20).line(4))
    node = world.nodes[3]
    before = node.queue_length
    # From the node above, on its way up: that cannot be.
    for number, mark in enumerate((RplMark(1, has_rank_error=True), RplMark(1))):
        packet = Packet(
            PacketKind.COAP, Priority.SCHEDULED, ShortAddress(9), ROOT, b"%d" % number, 9, mark
        )
        node.receive_frame(frame_of(4, packet, 3, 7_000_000 + 100 * number), now=world.now)
    assert node.counters["dropped: loop"] == 1
    assert node.dodag.counters["loop mark"] == 2
    # The one that was marked, and a DIO for who is mistaken.
    assert node.queue_length == before + 2


@pytest.mark.parametrize(("further", "is_marked"), [(1, False), (0, True)])
def test_what_comes_up_from_no_further_away_goes_on_with_a_mark(
    further: int, *, is_marked: bool
) -> None:
    world = formed(World(20).line(4))
    marks: list[RplMark | None] = []

    def watch(now: float, short: int, octets: bytes) -> bytes:
        if short == 3 and b"up here" in octets:  # QuickCipher hides nothing.
            marks.append(Packet.decode(octets[UNICAST_OVERHEAD - TAG_SIZE : -TAG_SIZE]).rpl)
        return octets

    world.watch = watch
    rank = world.nodes[3].rank
    packet = Packet(
        PacketKind.COAP,
        Priority.SCHEDULED,
        ShortAddress(9),
        ROOT,
        b"up here",
        9,
        RplMark(rank + further),
    )
    world.nodes[3].receive_frame(frame_of(4, packet, 3, 7_000_000), now=world.now)
    world.touch(3)
    world.run(1.0)
    assert marks == [RplMark(rank, has_rank_error=is_marked)]
    assert payloads(world) == [b"up here"]


def test_an_address_of_ours_used_by_another_changes_nothing() -> None:
    world = formed(World(21).line(3))
    node = world.nodes[3]
    dio = node.dodag.dio()
    assert dio is not None
    before = state_of(node)
    packet = control(3, BROADCAST, replace(dio, rank=200).encode())
    node.receive_frame(frame_of(2, packet, None, 8_000_000), now=world.now)
    assert state_of(node) == before
    assert node.counters["address used twice"] == 1


def test_a_collector_needs_an_area() -> None:
    world = World(22).line(2)
    with pytest.raises(LocalProtocolError):
        world.start(1, dodag_id=b"short")


def test_one_seed_is_one_history() -> None:
    def history() -> list[tuple[float, int, bytes]]:
        world, _ = scattered(5)
        world.start()
        world.run(30.0)
        for short in range(3, 21):
            world.send(short, b"%d" % short)
        world.run(10.0)
        return [(when, at, event.payload) for when, at, event in world.received]

    first = history()
    assert first
    assert first == history()


def test_a_quiet_network_says_little() -> None:
    world = formed(World(23, profile="rfc8036").grid(4, 4, 0.95, 0.7), 900.0)
    world.run(7200.0)
    frames = world.frames
    world.run(24 * 3600.0)
    assert (world.frames - frames) / 16 < 1000
    assert not world.loops


def test_nothing_that_may_be_a_recording_refuses_a_child_or_gives_an_address() -> None:
    world = formed(World(7).line(3))
    node, parent = world.nodes[3], world.nodes[2]
    row = node.dodag.neighbours.get(eui(2))
    assert row is not None
    dio = parent.dodag.dio()
    assert dio is not None
    refusal = replace(control(2, 3, dio.encode()), rpl=RplMark(900, has_rank_error=True))
    mark = RplMark(256, is_down=True)
    strange = SourceRoute((ShortAddress(2), ShortAddress(77)), 2)
    source_routed = Packet(
        PacketKind.COAP, Priority.ON_DEMAND, ShortAddress(1), ShortAddress(3), b"", 9, mark, strange
    )

    def hear(counter: int) -> None:
        for packet in (refusal, source_routed):
            node.receive_frame(frame_of(2, packet, 3, counter), now=world.now)
            counter += 1

    before = (row.refused_until, row.short)
    # As after a start: nobody has proved to be there yet.
    node.seal.neighbours.forget(eui(2))
    hear(9_000_000)
    assert (row.refused_until, row.short) == before
    node.seal.neighbours.prove(eui(2), 9_000_002)
    hear(9_000_003)
    assert row.refused_until > world.now
    assert row.short == 77


def test_a_neighbour_whose_proof_was_lost_is_asked_again() -> None:
    world = formed(World(7).line(3))
    node = world.nodes[3]
    before = node.counters["proof asked for"]
    # A node above that nobody knew says once where it stands, and its proofs never come.
    dio = world.nodes[1].dodag.dio()
    assert dio is not None
    packet = control(9, BROADCAST, dio.encode())
    node.receive_frame(frame_of(9, packet, None, 9_000_000), now=world.now)
    assert node.counters["proof asked for"] == before  # Not at once: others heard it too.
    world.run(ASK_AGAIN * 2.0**ASK_TRIES)
    assert node.counters["proof asked for"] - before == ASK_TRIES


def test_who_has_no_way_asks_for_a_proof_six_times_within_a_minute() -> None:
    world = formed(World(7).line(2))
    dio = world.nodes[1].dodag.dio()
    assert dio is not None
    world.start(7)  # In a place where nobody else is heard.
    lone = world.nodes[7]
    packet = control(9, BROADCAST, dio.encode())
    lone.receive_frame(frame_of(9, packet, None, 9_000_000), now=world.now)
    world.touch(7)
    world.run(60.0)
    assert lone.counters["proof asked for"] == ASK_TRIES + ASK_TRIES_MORE
    world.run(240.0)
    assert lone.counters["proof asked for"] == ASK_TRIES + ASK_TRIES_MORE
