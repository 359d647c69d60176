"""Packets for everybody: heard once, repeated where few others do, and never without an end.

The contract under test: a node says a flood in at most `repeats` intervals, and not in one in which
it heard `redundancy` copies; each hop takes one off the hop limit, and what has none left is not
repeated; a flood that is known is not taken again while it is remembered.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from amistack.framing import Priority
from mesh.packet import BROADCAST, Flood, Packet, PacketKind, ShortAddress
from mesh.routing.broadcast import Floods
from mesh.routing.profile import Flood as Figures
from tests.mesh.routing.medium import World
from tests.mesh.routing.test_downward import sealed

FIGURES = Figures()
PACKET = Packet(
    PacketKind.COAP,
    Priority.FIRMWARE,
    ShortAddress(77),
    BROADCAST,
    b"to all",
    9,
    flood=Flood(1),
)


def said(floods: Floods, until: float) -> list[float]:
    """When the node says something."""
    found = []
    while floods.deadline <= until:
        now = floods.deadline
        found += [now] * len(floods.handle_timer(now=now))
    return found


def heard(hop_limit: int = 9) -> Floods:
    floods = Floods(FIGURES, random.Random(1))
    assert floods.hear(replace(PACKET, hop_limit=hop_limit), now=0.0)
    return floods


def test_a_flood_is_said_once_in_each_of_its_intervals() -> None:
    first, second = said(heard(), 60.0)
    interval = FIGURES.interval
    assert FIGURES.repeats == 2
    assert interval / 2 <= first <= interval <= second - interval / 2 <= 1.5 * interval


def test_copies_of_one_interval_are_none_of_the_next() -> None:
    floods = heard()
    for _ in range(FIGURES.redundancy - 1):
        assert not floods.hear(PACKET, now=0.1)
    assert said(floods, FIGURES.interval) == []
    assert len(said(floods, 60.0)) == 1


def test_one_copy_less_suppresses_nothing() -> None:
    floods = heard()
    for _ in range(FIGURES.redundancy - 2):
        assert not floods.hear(PACKET, now=0.1)
    assert len(said(floods, FIGURES.interval)) == 1


def test_a_flood_is_remembered_for_its_time() -> None:
    floods = heard()
    assert said(floods, FIGURES.seen_time - 1.0)
    assert not floods.hear(PACKET, now=FIGURES.seen_time - 1.0)
    assert len(floods) == 1


@pytest.mark.parametrize("hop_limit", [1, 2, 3, 4])
def test_a_flood_ends_with_its_hops(hop_limit: int) -> None:
    world = World(1).line(6)
    world.start()
    world.run(60.0)
    packet = replace(PACKET, hop_limit=hop_limit)
    world.nodes[2].receive_frame(sealed(1, packet, None, 9_000_000), now=world.now)
    world.touch(2)
    world.run(10.0)
    reached = {at for _, at, event in world.received if event.payload == b"to all"}
    assert hop_limit <= max(reached) <= hop_limit + 1
