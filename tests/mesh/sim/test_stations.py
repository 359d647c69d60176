"""Machines, their radios, their clocks and their power.

The contract under test: `mesh.sim.stations` calls a machine as its shape says, at its own time,
and counts for what the channel was held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from amistack.identifiers import Eui64
from mesh.security.frame import ACK_FIRST_OCTET
from mesh.sim.stations import WorldError
from tests.mesh.sim.dummy import DummyFrame, DummyNode
from tests.mesh.sim.worlds import SILENT, Air, mesh_of


class Sleeper:
    """Wants to be woken at given times of its own clock, and notes when it was."""

    def __init__(self, *due: float) -> None:
        self.due = list(due)
        self.woken: list[float] = []

    def receive_frame(self, octets: bytes, *, now: float, rssi_dbm: float | None = None) -> None:
        pass

    def handle_timer(self, *, now: float) -> None:
        self.woken.append(now)
        self.due = [time for time in self.due if time > now]

    def frame_to_send(self, *, now: float) -> DummyFrame | None:
        return None

    def frame_sent(self, *, now: float, was_on_air: bool) -> None:
        pass

    def events(self) -> Sequence[object]:
        return ()

    def next_timer(self) -> float | None:
        return min(self.due, default=None)


class Chooser(Sleeper):
    """Finds out only when it is asked for a frame that it cannot send it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[object] = []

    def frame_to_send(self, *, now: float) -> DummyFrame | None:
        self.told.append("nobody to send it to")
        return None

    def events(self) -> Sequence[object]:
        told, self.told = self.told, []
        return told


def test_what_happens_while_a_frame_is_chosen_is_told_at_once() -> None:
    air = Air(mesh_of(2))
    air.stations.start(0, Chooser())
    assert [event for _, _, event in air.events] == ["nobody to send it to"]
    # After a frame that it heard as well.
    air.send(1, None)
    air.run(1)
    assert len(air.events) == 2


def test_machine_is_woken_once_at_each_of_its_times() -> None:
    air = Air(mesh_of(1))
    sleeper = Sleeper(1.0, 2.5, 2.5, 7.0)
    air.stations.start(0, sleeper)
    air.run(10)
    assert sleeper.woken == [1.0, 2.5, 7.0]
    assert air.stations.counters.timers == 3


def test_clock_that_is_fast_wakes_its_machine_early() -> None:
    air = Air(mesh_of(1))
    sleeper = Sleeper(1000.0)
    air.stations.start(0, sleeper)
    air.stations.set_drift(0, 100.0)
    air.run(999.89)
    assert sleeper.woken == []
    air.run(0.02)
    assert sleeper.woken == [pytest.approx(1000.0)]
    assert air.stations.own_time(0) == pytest.approx(999.91 * 1.0001)


def test_clock_neither_jumps_nor_goes_back_when_its_drift_changes() -> None:
    air = Air(mesh_of(1))
    last = 0.0
    for ppm in (500.0, -500.0, 0.0, 20.0):
        before = air.stations.own_time(0)
        air.stations.set_drift(0, ppm)
        assert air.stations.own_time(0) == pytest.approx(before)
        for _ in range(10):
            air.run(0.1)
            assert air.stations.own_time(0) > last
            last = air.stations.own_time(0)


def test_machine_that_drifts_is_woken_at_every_one_of_many_times() -> None:
    air = Air(mesh_of(1))
    due = [0.37 * n for n in range(1, 500)]
    sleeper = Sleeper(*due)
    air.stations.start(0, sleeper)
    air.stations.set_drift(0, 33.3)
    air.run(200)
    assert len(sleeper.woken) == len(due)
    assert sleeper.woken == pytest.approx(due)


def test_timer_that_does_not_move_on_is_found() -> None:
    class Stuck(Sleeper):
        def handle_timer(self, *, now: float) -> None:
            pass

    air = Air(mesh_of(1))
    air.stations.start(0, Stuck(1.0))
    with pytest.raises(WorldError, match="station 0 asks to be woken"):
        air.run(2)


def test_frame_to_nobody_is_found() -> None:
    air = Air(mesh_of(2))
    air.nodes[0].send_to(Eui64(b"\xff" * 8), 20)
    with pytest.raises(WorldError, match="ffffffffffffffff, which is nobody"):
        air.stations.touch(0)


def test_machine_without_power_is_asked_nothing() -> None:
    air = Air(mesh_of(2))
    sleeper = Sleeper(1.0)
    air.stations.start(0, sleeper)
    air.stations.stop(0)
    air.send(1, None)
    air.run(5)
    assert sleeper.woken == []
    assert air.stations.machine(0) is None


def test_damage_turns_one_bit_and_doubling_hears_twice() -> None:
    air = Air(mesh_of(2))
    air.stations.double_share = 1.0
    air.send(0, 1)
    air.run(1)
    assert air.nodes[1].heard == 2
    octets = bytes(range(50))
    for _ in range(50):
        changed = air.stations._damaged(octets)
        assert len(changed) == 50
        differing = [a ^ b for a, b in zip(octets, changed, strict=True) if a != b]
        assert len(differing) == 1
        assert differing[0].bit_count() == 1


@dataclass(frozen=True, slots=True)
class Ack:
    destination: Eui64 | None
    octets: bytes = bytes((ACK_FIRST_OCTET,)).ljust(9, b"a")
    priority: int = 0
    wants_ack: bool = False


class Acknowledging(DummyNode):
    """Owes an acknowledgement for each frame that it hears, even while it backs off."""

    def __init__(self, address: Eui64, sender: Eui64) -> None:
        super().__init__(address, interval=None, chance=None, now=0.0)  # type: ignore[arg-type]
        self._sender = sender
        self._owed = 0

    def receive_frame(self, octets: bytes, *, now: float, rssi_dbm: float | None = None) -> None:
        self.heard += 1
        self._owed += 1

    def ack_to_send(self, *, now: float) -> Ack | None:
        if not self._owed:
            return None
        self._owed -= 1
        return Ack(self._sender)

    def frame_to_send(self, *, now: float) -> DummyFrame | Ack | None:  # type: ignore[override]
        return self.ack_to_send(now=now) or super().frame_to_send(now=now)


def test_acknowledgement_goes_before_a_frame_that_backs_off_and_that_frame_still_goes() -> None:
    air = Air(mesh_of(3))
    one = Acknowledging(air.stations.addresses[1], air.stations.addresses[0])
    air.nodes[1] = one
    air.stations.start(1, one)
    sizes: list[tuple[int, int]] = []
    air.stations.watchers.append(
        lambda time, source, to, octets: sizes.append((source, len(octets)))
    )
    air.stations.medium.offer(0, 1, b"a" * 40, at_once=True)
    air.run(SILENT.turnaround_s + SILENT.airtime(40) - 1e-4)
    air.send(1, 2, 500)  # backs off: the channel is held
    air.run(1)
    assert sizes == [(1, 9), (1, 500)]
    assert (air.nodes[0].heard, air.nodes[2].heard) == (1, 1)
    assert one.sent == 1


def test_channel_is_accounted_to_what_it_was_held_for() -> None:
    air = Air(mesh_of(2), interval=10.0)  # beacons of 100 octets with priority 0
    air.run(99.9)
    beacons = air.nodes[0].sent
    assert beacons in (9, 10)
    assert air.stations.airtime.control[0] == pytest.approx(beacons * SILENT.airtime(100))
    assert air.stations.airtime.data[0] == 0
    counters = air.stations.counters
    assert counters.control == sum(node.sent for node in air.nodes)
    before = counters.control
    air.send(0, 1, 300)
    air.run(0.2)
    assert before <= counters.control < counters.broadcasts + counters.unicasts
    assert air.stations.airtime.data[0] == pytest.approx(SILENT.airtime(300))


def test_acknowledgement_counts_as_what_it_acknowledges() -> None:
    for priority in (0, 4):
        air = Air(mesh_of(2))
        one = Acknowledging(air.stations.addresses[1], air.stations.addresses[0])
        air.stations.start(1, one)
        octets = b"a" * 60
        air.nodes[0]._queue.append(
            DummyFrame(air.stations.addresses[1], octets, priority, wants_ack=True)
        )
        air.stations.touch(0)
        air.run(1)
        held = air.stations.airtime
        expected = [SILENT.airtime(60), SILENT.airtime(9)]
        assert (held.control if priority == 0 else held.data) == pytest.approx(expected)
        assert (held.data if priority == 0 else held.control) == [0, 0]
