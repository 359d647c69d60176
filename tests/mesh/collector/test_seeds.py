"""Small worlds full of faults, around one collector: nodes, links, the collector, its backhaul.

What must hold in all of them: no loop, no queue beyond its bound, nothing raised; of every request
that the head-end made on a connection that lasted, a fate; no fate after the last one. What must
come about in the end, when all is mended: everybody has a way up and a route down, the head-end's
table is the collector's, and every probe is answered.
"""

from __future__ import annotations

import random

import pytest

from amistack.framing import Priority
from mesh.backhaul import Down, Fate, Outcome, Probe, Probed, RouteRow, Up, What
from mesh.collector.held import HELD_COUNT_MAX
from mesh.collector.requests import AFTERMATH_S
from mesh.collector.table import KEPT_BEHIND_MAX, KEPT_SHARE_MIN
from mesh.routing.messages import sequence_after
from tests.mesh.collector.world import CollectorWorld, HeadEnd

LAST = {
    What.DELIVERED, What.NO_ROUTE, What.TOO_OLD, What.REFUSED_FULL, What.TOO_LONG, What.LOST
}  # fmt: skip
METERS = tuple(range(2, 10))


class Faulty:
    """One world, its dice, and what the head-end asked of it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.world = CollectorWorld(seed)
        self.world.grid(3, 3, share=0.9, diagonal=0.6)
        self.cuts: list[tuple[int, int, float, float]] = []
        self.asked: dict[HeadEnd, list[int]] = {}
        self.number = 0
        self.world.start()
        self.world.run(300.0)
        self.connect()

    def connect(self) -> None:
        head_end = self.world.connect()
        self.asked[head_end] = []
        self.world.run(1.0)

    def step(self) -> None:
        world, dice = self.world, self.dice
        match dice.choice(
            ("kill", "start", "cut", "mend", "away", "back", "read", "read", "alarm", "crash")
        ):
            case "kill":
                world.kill(dice.choice(METERS))
            case "start":
                self.start_all()
            case "cut" if len(self.cuts) < 4:
                one, other = dice.choice(sorted(world.links))
                back = world.links.get((other, one), 0.0)
                self.cuts.append((one, other, world.links[one, other], back))
                world.cut(one, other)
            case "mend":
                self.mend()
            case "away" if 1 in world.head_ends:
                world.disconnect()
            case "back" if 1 in world.nodes and 1 not in world.head_ends:
                self.connect()
            case "read" if 1 in world.head_ends:
                self.read(dice.choice(METERS))
            case "alarm":
                alive = [short for short in METERS if short in world.nodes]
                if alive:
                    source = dice.choice(alive)
                    world.nodes[source].send(b"alarm", priority=Priority.ALARM, now=world.now)
                    world.touch(source)
            case "crash":
                world.kill(1)
                world.run(dice.random() * 20.0)
                world.start(1)
            case _:
                pass
        world.run(dice.random() * 30.0)
        if 1 in world.nodes:
            assert len(world.collector().held) <= HELD_COUNT_MAX
        bound = 10 * world.profile.links.queue_count_max
        assert all(world.nodes[short].queue_length <= bound for short in world.nodes)

    def read(self, meter: int) -> None:
        self.number += 1
        head_end = self.world.head_ends[1]
        self.asked[head_end].append(self.number)
        relays = self.dice.choice([None, (), (5,), (2, 5)])
        if relays is not None and meter in relays:
            relays = None
        payload = b"read %d" % self.number
        self.world.say(Down(self.number, meter, 0, Priority.ON_DEMAND, payload, 0, 20, relays))

    def start_all(self) -> None:
        for short in METERS:
            if short not in self.world.nodes:
                self.world.start(short)

    def mend(self) -> None:
        for one, other, there, back in self.cuts:
            self.world.link(one, other, there, back)
        self.cuts.clear()

    def check_fates(self) -> None:
        """Those of connections that are gone may have been on the wire."""
        for head_end, asked in self.asked.items():
            said: dict[int, list[What]] = {}
            for fate in head_end.of(Fate):
                said.setdefault(fate.request, []).append(fate.what)
            for request, whats in said.items():
                assert request in asked
                assert not any(what in LAST for what in whats[:-1]), whats
            if self.world.head_ends.get(1) is head_end:
                assert set(said) == set(asked)


@pytest.mark.parametrize("seed", range(10))
def test_the_collector_and_its_head_end_agree_in_the_end(seed: int) -> None:
    faulty = Faulty(seed)
    world = faulty.world
    for _ in range(25):
        faulty.step()
    faulty.mend()
    faulty.start_all()
    if 1 not in world.head_ends:
        faulty.connect()
    world.run(900.0)
    assert not world.loops
    assert not world.orphans()
    assert not world.unrouted()
    faulty.check_fates()

    head_end, collector = world.head_ends[1], world.collector()
    ours = {
        row.target: (row.parents, row.path_sequence) for row in collector.table.rows(now=world.now)
    }
    theirs = {t: (row.parents, row.path_sequence) for t, row in head_end.table().items()}
    assert theirs == ours
    assert set(ours) == set(METERS)
    on_disk = world.disks[1].rows
    assert {t: row.parents for t, (row, _) in on_disk.items()} == {
        t: parents for t, (parents, _) in ours.items()
    }
    for row in collector.table.rows(now=world.now):
        kept, ends_at = on_disk[row.target]
        steps = [kept.path_sequence]
        while len(steps) <= KEPT_BEHIND_MAX:
            steps.append(sequence_after(steps[-1]))
        assert row.path_sequence in steps
        # The disk's row ends earlier by a share of a row's whole time at the most.
        dodag = world.profile.dodag
        whole_s = dodag.lifetime * dodag.lifetime_unit
        assert world.now + row.lifetime - ends_at <= (1 - KEPT_SHARE_MIN) * whole_s + 2

    for short in METERS:
        for attempt in range(3):  # The links lose one frame in ten, or four: once is no answer.
            world.say(Probe(10_000 + 10 * short + attempt, short, deadline=5))
            world.run(6.0)
    answered = {
        (probed.request - 10_000) // 10
        for probed in head_end.of(Probed)
        if probed.outcome is Outcome.ANSWERED
    }
    assert answered == set(METERS)
    world.run(AFTERMATH_S)
    assert len(collector.requests) == 0


def test_the_dice_are_neither_kind_nor_cruel() -> None:
    """Guards the test itself: some reads arrive, some fail, connections come and go."""
    faulty = [Faulty(seed) for seed in range(4)]
    for one in faulty:
        for _ in range(25):
            one.step()
    whats = {fate.what for one in faulty for head_end in one.asked for fate in head_end.of(Fate)}
    assert {What.QUEUED, What.SENT, What.ROUTE_FAILED} <= whats
    assert all(len(one.asked) > 1 for one in faulty)
    ups = [up for one in faulty for head_end in one.asked for up in head_end.of(Up)]
    assert any(up.held for up in ups)
    assert any(isinstance(m, RouteRow) for one in faulty for h in one.asked for _, m in h.heard)
