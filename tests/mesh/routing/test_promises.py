"""The order that forbids loops, looked at from outside while links come and go.

The contract under test: at every moment, whatever was lost, the lowest rank of a node is above
that of its preferred parent; and yet relays are not bound for ever to the best that they had.
"""

from __future__ import annotations

import contextlib
import random

import pytest

from amistack.errors import TableFull
from mesh.packet import Packet, PacketKind, RplMark, ShortAddress
from mesh.routing.dodag import State
from mesh.routing.messages import INFINITE_RANK, Code
from mesh.routing.node import MeshNode
from mesh.security import Received
from tests.mesh.routing.medium import World, eui, short_of

SIZE = 5
STEPS = 1500
CHECKS_PER_HOUR = 12


def out_of_order(world: World) -> list[tuple[int, int, int, int]]:
    """Child, parent, and the lowest rank of each, where the order does not hold."""
    found = []
    for short, node in world.nodes.items():
        parent = node.preferred_parent
        other = None if parent is None else world.nodes.get(short_of(parent))
        if other is None or other.dodag.version != node.dodag.version:
            continue
        if other.dodag.state is State.DETACHED and other.dodag._parenting.children:
            # It is being told, and until then its parent takes none itself.
            assert other.preferred_parent is None
            continue
        if node.dodag.lowest <= other.dodag.lowest:
            found.append((short, other.short, node.dodag.lowest, other.dodag.lowest))
    return found


def forgotten(world: World) -> list[tuple[int, int]]:
    """Child and parent, where the parent does not count it as a child any more."""
    found = []
    for short, node in world.nodes.items():
        parent = node.preferred_parent
        other = None if parent is None else world.nodes.get(short_of(parent))
        if other is None or other.dodag.state is State.ROOT:
            continue
        row = other.dodag.neighbours.get(eui(short))
        if row is None or row.child_until <= world.now:
            found.append((short, other.short))
    return found


def has_children(world: World, node: MeshNode) -> bool:
    return any(row.child_until > world.now for row in node.dodag.neighbours)


@pytest.mark.parametrize("seed", range(6))
def test_the_lowest_rank_falls_from_child_to_parent_at_every_moment(seed: int) -> None:
    dice = random.Random(seed)
    world = World(seed, profile="lab").grid(SIZE, SIZE, 0.9, 0.6)
    world.start()
    world.run(60.0)
    links = [
        (one, other)
        for one in range(1, SIZE * SIZE + 1)
        for other in world.hearers[one]
        if one < other
    ]
    raised = 0
    before = {short: node.dodag.lowest for short, node in world.nodes.items()}
    for step in range(STEPS):
        one, other = dice.choice(links)
        world.link(one, other, dice.uniform(0.35, 1.0))
        # Traffic tells a node what has become of its link.
        with contextlib.suppress(TableFull):  # All may go over one link, and that be poor.
            world.send(dice.randrange(2, SIZE * SIZE + 1), b"x%d" % step)
        world.run(1.0)
        if world.counters()["child given up"]:
            # A child that cannot be told is the one exception.
            assert step > STEPS // 5
            break
        assert not out_of_order(world)
        assert not forgotten(world)
        for short, node in world.nodes.items():
            lowest = node.dodag.lowest
            if before[short] < lowest < INFINITE_RANK and has_children(world, node):
                raised += 1
            before[short] = lowest
    assert not world.loops
    assert raised >= 20


def test_no_parent_forgets_a_child_that_has_nothing_to_say() -> None:
    world = World(3, profile="rfc8036").grid(3, 3)
    world.start()
    world.run(600.0, until=lambda: not world.orphans() and not world.unrouted())
    assert not world.orphans()
    pairs = 0
    for _ in range(4 * CHECKS_PER_HOUR):
        world.run(3600.0 / CHECKS_PER_HOUR)
        # Far more seldom than children are forgotten does a node speak of itself to the root.
        assert not forgotten(world)
        pairs += sum(
            parent is not None and short_of(parent) != 1
            for parent in (node.preferred_parent for node in world.nodes.values())
        )
    assert pairs >= 4 * CHECKS_PER_HOUR * 4


class Frames:
    """What went up from one node to one neighbour with a mark, as it was opened there."""

    def __init__(self, world: World, at: int, source: int) -> None:
        self.marks: list[RplMark] = []
        node = world.nodes[at]
        take = node._control.take

        def heard(packet: Packet, frame: Received, rssi: float | None, now: float) -> bool:
            is_taken = take(packet, frame, rssi, now)
            if frame.source == eui(source) and packet.rpl is not None and is_taken:
                assert packet.kind == PacketKind.RPL
                assert packet.payload[0] == Code.DIO
                assert packet.destination == ShortAddress(at)
                self.marks.append(packet.rpl)
            return is_taken

        node._control = _Heard(node._control, heard)  # type: ignore[assignment]


class _Heard:
    def __init__(self, control: object, take: object) -> None:
        self._control = control
        self.take = take

    def __getattr__(self, name: str) -> object:
        return getattr(self._control, name)


def test_what_a_node_promises_goes_over_the_air_and_that_it_leaves() -> None:
    world = World(3, profile="rfc8036")
    for one, other in ((1, 2), (1, 3), (2, 4), (3, 4)):
        world.link(one, other)
    world.start(1, 2, 3)
    world.run(200.0, until=lambda: not world.orphans() and not world.unrouted())
    heard = {at: Frames(world, at, 4) for at in (2, 3)}
    world.start(4)
    world.run(200.0, until=lambda: bool(world.path_up(4)))
    first = world.path_up(4)[1]
    other = 5 - first
    row = world.nodes[4].dodag.neighbours.get(eui(first))
    assert row is not None
    assert heard[first].marks == [RplMark(row.rank + 1)]
    child = world.nodes[first].dodag.neighbours.get(eui(4))
    assert child is not None
    assert child.floor == row.rank + 1
    # The link grows poor, and the other one takes its place.
    world.link(4, first, 0.65)
    for number in range(2000):
        world.send(4, b"x%d" % number)
        world.run(2.0)
        if world.path_up(4)[1:2] == [other] and heard[first].marks[-1].is_down:
            break
    assert not heard[other].marks[-1].is_down
    assert heard[first].marks[-1].is_down
    assert child.child_until == 0.0
