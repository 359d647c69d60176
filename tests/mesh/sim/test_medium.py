"""The air: who hears whom when several speak.

The contract under test: `mesh.sim.medium` receives by signal over noise and all other frames that
are really on the air, a station that sends hears nothing, and the channel is shared as unslotted
CSMA-CA shares it. Figures are compared with closed forms, not with what the program gave before.
"""

from __future__ import annotations

import dataclasses
import math

import pytest

from amistack.errors import LocalProtocolError
from mesh.sim.medium import BROADCAST
from tests.mesh.sim.worlds import GOOD, RADIO, SILENT, Air, mesh_of

NEAR = SILENT.sensitivity_dbm + 20
LOUD = dataclasses.replace(SILENT, busy_dbm=SILENT.sensitivity_dbm + 4)
BELOW_BUSY = LOUD.busy_dbm - 1
"""Above the sensitivity, but not so loud that a sender waits for it."""


def heard(air: Air) -> list[int]:
    return [node.heard for node in air.nodes]


def test_frame_takes_its_airtime_and_is_heard_at_its_end() -> None:
    air = Air(mesh_of(2))
    times: list[tuple[float, int, int, int]] = []
    air.stations.watchers.append(
        lambda time, source, to, octets: times.append((time, source, to, len(octets)))
    )
    air.send(0, None, 208)
    air.run(1)
    ((time, source, to, size),) = times
    assert (source, to, size) == (0, BROADCAST, 208)
    # 250 octets at 100 kbit/s are 20 ms; before that, up to 7 periods, a look and a turnaround.
    periods = (time - 0.020 - SILENT.cca_s - SILENT.turnaround_s) / SILENT.backoff_s
    assert periods == pytest.approx(round(periods), abs=1e-6)
    assert 0 <= round(periods) <= 7
    assert heard(air) == [0, 1]


@pytest.mark.parametrize("sigmas", [-1.0, 0.0, 1.0, 2.0])
def test_share_of_frames_received_is_the_normal_distribution_of_the_margin(sigmas: float) -> None:
    count = 3000
    air = Air([{1: RADIO.sensitivity_dbm + 4 * sigmas}, {}], radio=RADIO)
    for _ in range(count):
        air.send(0, None, 20)
        air.run(0.1)
    expected = 0.5 * (1 + math.erf(sigmas / math.sqrt(2)))
    deviation = math.sqrt(expected * (1 - expected) / count)
    assert air.nodes[1].heard / count == pytest.approx(expected, abs=4 * deviation)


def test_reception_falls_with_distance_as_the_model_says() -> None:
    """Frames over links at 20 to 80 m without shadowing of the pair, against the closed form."""
    count = 1000
    for distance in (20.0, 35.0, 45.0, 60.0):
        mean = RADIO.mean_dbm(distance)
        air = Air([{1: mean}, {}], radio=RADIO, seed=int(distance))
        for _ in range(count):
            air.send(0, None, 20)
            air.run(0.1)
        expected = RADIO.reception_ratio(mean)
        assert air.nodes[1].heard / count == pytest.approx(expected, abs=0.05)


def test_frame_for_one_is_heard_by_that_one_alone() -> None:
    air = Air(mesh_of(4))
    air.send(0, 2)
    air.run(1)
    assert heard(air) == [0, 0, 1, 0]


def collide(wanted_dbm: float, other_dbm: float) -> Air:
    """0 and 1 do not hear each other; 2 hears both. Both speak at the same time."""
    air = Air([{2: wanted_dbm}, {2: other_dbm}, {}])
    medium = air.stations.medium
    for sender in (0, 1):
        frame = b"%d" % sender * 50
        medium.offer(sender, BROADCAST, frame, at_once=True)
    air.run(1)
    return air


@pytest.mark.parametrize(
    ("difference", "count"), [(0.0, 0), (5.5, 0), (6.5, 1), (20.0, 1), (-6.5, 1), (-5.5, 0)]
)
def test_stronger_of_two_frames_is_captured_from_six_decibels_on(
    difference: float, count: int
) -> None:
    air = collide(NEAR + difference, NEAR)
    assert air.nodes[2].heard == count
    assert air.stations.medium.counters.lost_collided == 2 - count


def test_noise_and_frame_add_up_against_the_wanted_one() -> None:
    """7 dB over the other frame would do, but not with the noise beside it."""
    other = SILENT.noise_dbm
    assert collide(SILENT.sensitivity_dbm + 3, -300.0).nodes[2].heard == 1
    wanted = 10 * math.log10(2 * 10 ** (SILENT.noise_dbm / 10)) + 6
    assert wanted > SILENT.sensitivity_dbm
    assert collide(wanted + 0.1, other).nodes[2].heard == 1
    assert collide(wanted - 0.1, other).nodes[2].heard == 0


def test_frames_of_unequal_length_collide_if_they_overlap_at_all() -> None:
    air = Air([{2: NEAR}, {2: NEAR}, {}])
    medium = air.stations.medium
    medium.offer(0, BROADCAST, b"a" * 200, at_once=True)
    air.run(0.002 + SILENT.airtime(200) - 0.0025)
    medium.offer(1, BROADCAST, b"a" * 20, at_once=True)
    air.run(1)
    assert air.nodes[2].heard == 0
    medium.offer(0, BROADCAST, b"a" * 200, at_once=True)
    air.run(SILENT.turnaround_s + SILENT.airtime(200))
    medium.offer(1, BROADCAST, b"a" * 20, at_once=True)
    air.run(1)
    assert air.nodes[2].heard == 2


def test_hidden_senders_lose_frames_that_senders_in_hearing_do_not() -> None:
    """The textbook's three in a row, beside three that all hear one another."""
    hidden: list[dict[int, float]] = [{1: GOOD}, {0: GOOD, 2: GOOD}, {1: GOOD}]
    shares = {}
    for name, powers in (("hidden", hidden), ("open", mesh_of(3))):
        air = Air(powers)
        for _ in range(300):
            air.send(0, 1, 300)
            air.send(2, 1, 300)
            air.run(0.5)
        shares[name] = air.nodes[1].heard / 600
    # Each starts within the other's 27 ms nearly always: backing off ends after 8 ms.
    assert shares["hidden"] < 0.05
    assert shares["open"] > 0.85


@pytest.mark.parametrize(("faint_count", "is_heard"), [(0, True), (1, True), (2, False)])
def test_what_disturbs_a_frame_is_added_up(faint_count: int, *, is_heard: bool) -> None:
    """Each of two is 2 dB too faint to drown the frame, and both together are 1 dB too loud."""
    faint = GOOD - SILENT.capture_db - 2
    senders = range(1, 1 + 1 + faint_count)
    powers: list[dict[int, float]] = [{}, {0: GOOD}, {0: faint}, {0: faint}]
    air = Air(powers)
    for sender in senders:
        air.send(sender, 0, 1000)
    air.run(1)
    assert air.stations.medium.counters.overlapped == (len(senders) if faint_count else 0)
    # Of those that are faint themselves none is heard beside the loud one.
    assert air.nodes[0].heard == is_heard
    assert air.stations.medium.counters.received == is_heard


def test_sender_that_is_too_faint_to_stop_another_is_hidden_from_it() -> None:
    faint: list[dict[int, float]] = [
        {1: BELOW_BUSY, 2: GOOD},
        {0: BELOW_BUSY, 2: GOOD},
        {},
    ]
    air = Air(faint, radio=LOUD)
    air.send(0, 2, 1000)
    air.run(0.02)
    assert air.stations.medium.is_sending(0)
    air.send(1, 2, 20)
    air.run(1)
    assert air.stations.medium.counters.looks_busy == 0
    assert air.nodes[2].heard == 0


def test_sender_waits_while_the_channel_is_held_and_gives_up_after_the_last_look() -> None:
    air = Air(mesh_of(3))
    air.send(0, None, 2000)
    air.run(0.02)
    air.send(1, None, 20)
    air.run(1)
    # 2,042 octets hold the channel for 163 ms: longer than five looks take at the most.
    assert air.nodes[1].given_up == 1
    assert air.nodes[1].sent == 0
    assert air.stations.medium.counters.looks_busy == SILENT.backoffs_max + 1
    assert heard(air) == [0, 1, 1]


def test_station_that_sends_hears_nothing() -> None:
    air = Air([{1: GOOD, 2: GOOD}, {2: GOOD}, {}])  # 1 hears 0, but 0 does not hear 1
    medium = air.stations.medium
    medium.offer(1, BROADCAST, b"a" * 300, at_once=True)
    medium.offer(0, 1, b"a" * 20, at_once=True)
    air.run(1)
    assert air.nodes[1].heard == 0
    assert medium.counters.lost_deaf == 1


def test_senders_share_the_channel_fairly() -> None:
    """Jain's index of ten stations that always have something to say."""
    air = Air(mesh_of(10))
    for _ in range(400):
        for number in range(10):
            air.send(number, None, 200)
    air.run(40)
    sent = [node.sent for node in air.nodes]
    assert sum(sent) ** 2 / (10 * sum(count * count for count in sent)) > 0.97
    # More than half of the time the channel carries frames that somebody can use.
    assert sum(sent) * SILENT.airtime(200) / 40 > 0.5


def test_idle_channel_costs_no_look_too_many() -> None:
    air = Air(mesh_of(2))
    for _ in range(50):
        air.send(0, 1)
        air.run(1)
    counters = air.stations.medium.counters
    assert (counters.frames, counters.looks, counters.looks_busy) == (50, 50, 0)


def test_acknowledgement_does_not_look_before_it_is_sent() -> None:
    air = Air(mesh_of(2))
    air.stations.medium.offer(0, 1, b"a" * 9, at_once=True)
    air.run(SILENT.turnaround_s + SILENT.airtime(9) + 1e-9)
    assert air.nodes[1].heard == 1
    assert air.stations.medium.counters.looks == 0


def test_second_frame_and_frame_too_large_are_refused() -> None:
    air = Air(mesh_of(2))
    medium = air.stations.medium
    with pytest.raises(LocalProtocolError, match="2018 octets and 30 of MAC, at most 2047"):
        medium.offer(0, 1, b"a" * 2018, at_once=False)
    medium.offer(0, 1, b"a" * 2017, at_once=False)
    with pytest.raises(LocalProtocolError, match="a second frame"):
        medium.offer(0, 1, b"x", at_once=False)


def test_frame_taken_back_is_never_sent() -> None:
    air = Air(mesh_of(2))
    medium = air.stations.medium
    sizes: list[int] = []
    medium._heard = lambda receiver, frame, dbm: sizes.append(len(frame.octets))
    for _ in range(20):
        medium.offer(0, 1, b"a" * 20, at_once=False)
        medium.take_back(0)
        medium.offer(0, 1, b"a" * 30, at_once=False)
        air.run(1)
    assert sizes == [30] * 20
    assert medium.counters.looks == 20


def test_power_cut_in_the_middle_of_a_frame_ends_it() -> None:
    air = Air(mesh_of(2))
    air.stations.medium.offer(0, 1, b"a" * 1000, at_once=True)
    air.run(0.02)
    air.stations.stop(0)
    assert not air.stations.medium.active
    air.run(1)
    assert air.nodes[1].heard == 0


def test_power_cut_during_backing_off_leaves_nothing_behind() -> None:
    air = Air(mesh_of(2))
    air.send(0, 1)
    air.stations.stop(0)
    air.stations.start(0, air.nodes[0])
    air.run(1)
    assert air.nodes[1].heard == 0
    air.send(0, 1)
    air.run(1)
    assert air.nodes[1].heard == 1


def test_station_that_comes_up_within_a_frame_does_not_hear_it() -> None:
    air = Air(mesh_of(3))
    air.stations.stop(2)
    air.stations.medium.offer(0, BROADCAST, b"a" * 1000, at_once=True)
    air.run(0.02)
    air.stations.start(2, air.nodes[2])
    air.run(1)
    assert heard(air) == [0, 1, 0]


def test_jammed_station_neither_hears_nor_sends_until_it_ends() -> None:
    air = Air(mesh_of(3, NEAR))
    end = air.stations.medium.jam([1], -60.0)
    air.send(0, None)
    air.run(1)
    assert heard(air) == [0, 0, 1]
    air.send(1, None)
    air.run(1)
    assert air.nodes[1].given_up == 1
    end()
    air.send(0, None)
    air.run(1)
    air.send(1, None)
    air.run(1)
    assert heard(air) == [1, 1, 3]


def test_two_jams_end_in_any_order() -> None:
    air = Air(mesh_of(2, NEAR))
    first = air.stations.medium.jam([1], -60.0)
    second = air.stations.medium.jam([1], -50.0)
    first()
    air.send(0, 1)
    air.run(1)
    assert air.nodes[1].heard == 0
    second()
    air.send(0, 1)
    air.run(1)
    assert air.nodes[1].heard == 1


def test_jam_that_ends_takes_its_own_noise_with_it_and_no_more() -> None:
    air = Air(mesh_of(2, NEAR))
    air.stations.medium.jam([1], NEAR - 10)
    strong = air.stations.medium.jam([1], NEAR + 10)
    air.send(0, 1)
    air.run(1)
    assert air.nodes[1].heard == 0
    strong()
    air.send(0, 1)
    air.run(1)
    assert air.nodes[1].heard == 1


def test_fading_of_a_frame_is_one_and_the_same_for_hearing_and_disturbing() -> None:
    """Two equal senders: capture is by the difference of two fadings, sigma * sqrt 2."""
    radio = dataclasses.replace(RADIO, busy_dbm=-20.0)
    count = 2000
    captured = 0
    air = Air([{2: GOOD}, {2: GOOD}, {}], radio=radio)
    for _ in range(count):
        before = air.nodes[2].heard
        for sender in (0, 1):
            air.stations.medium.offer(sender, BROADCAST, b"a" * 20, at_once=True)
        air.run(0.1)
        assert air.nodes[2].heard <= before + 1
        captured += air.nodes[2].heard - before
    one_wins = 0.5 * math.erfc(6 / (4 * math.sqrt(2)) / math.sqrt(2))
    assert captured / count == pytest.approx(2 * one_wins, abs=0.04)
