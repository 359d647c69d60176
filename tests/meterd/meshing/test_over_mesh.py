"""A meter's conversation over its node of the mesh.

The contract under test: over relays the meter secures, registers, reports and answers as it does
on plain IP; no frame counter is used for two frames, whenever its power is cut; a disk that is full
silences the node before that, and no longer than it is full.
"""

from __future__ import annotations

import random

import pytest

from amistack.framing import Priority
from amistack.model import ReadParts
from mesh.security.counters import RESERVE_STEP
from mesh.station.station import Station
from meterd.agent import Registered, Reported, Secured, Stage
from meterd.happenings import PlaceChanged
from meterd.meshing import keeper as keeper_module
from meterd.meshing.keeper import NodeKeeper
from meterd.parts import Urgency
from meterd.recorder import RETENTION_DAYS
from meterd.storage import Storage
from tests.meterd.bench import METER
from tests.meterd.meshing.bench import METER_SHORT, MeshBench, stranger_beside
from tests.support.head_end import read_request
from tests.support.worlds import LinkQuality


def settled(seed: int = 0) -> MeshBench:
    bench = MeshBench(seed)
    bench.power_on()
    bench.world.elapse(180)
    assert len(bench.head_end.days) == RETENTION_DAYS
    return bench


def read(bench: MeshBench) -> None:
    wish = read_request(b"12345678", ReadParts.REGISTERS)
    bench.head_end.ask(METER, wish, METER_SHORT, now=bench.world.now)
    bench.root.now = bench.world.now
    bench.world._hosts["root"].settle()
    bench.world.elapse(10)


def test_a_meter_two_hops_away_secures_registers_and_reports() -> None:
    bench = settled()
    assert bench.station.hops == bench.agent.hop_count == 2
    assert NodeKeeper(Storage.on(bench.files)).short == METER_SHORT
    assert len(bench.events(Secured)) == len(bench.events(Registered)) == 1
    assert len(bench.events(Reported)) == RETENTION_DAYS
    assert [event.parent for event in bench.events(PlaceChanged)] == [2]  # type: ignore[attr-defined]
    assert not any(
        one.receiver == "root" for one in bench.world.datagrams() if one.sender == "meter"
    )


def test_it_answers_an_on_demand_read() -> None:
    bench = settled()
    read(bench)
    assert len(bench.head_end.read_answers) == 1


def test_what_the_tree_refuses_stands_among_the_counts() -> None:
    bench = MeshBench()
    bench.power_on()
    bench.world.elapse(60)
    assert "mesh: dio: another dodag" not in bench.meter.counts()
    stranger = stranger_beside("meter")
    stranger.start(bench.world.now)
    bench.world.add("stranger", stranger)
    bench.world.elapse(60)
    counted = bench.station.node.dodag.counters["dio: another dodag"]
    assert bench.meter.counts()["mesh: dio: another dodag"] == counted > 0


@pytest.mark.parametrize("seed", range(8))
def test_no_frame_counter_is_used_twice_through_power_cuts(seed: int) -> None:
    dice = random.Random(seed)
    bench = MeshBench(seed, LinkQuality(loss=0.1, duplication=0.1, delay_min=0.001, delay_max=0.01))
    for _ in range(6):
        bench.power_on()
        bench.world.elapse(dice.choice([0.5, 3.0, 20.0, 200.0]))
        bench.power_off()
    bench.power_on()
    bench.world.elapse(600)
    assert len(set(bench.head_end.days)) == RETENTION_DAYS
    assert all(len(frames) == 1 for frames in bench.frames_of_the_meter().values())


def test_a_full_disk_silences_the_node_at_the_end_of_its_counters_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = settled()
    node = bench.station.node
    bench.fill_disk()
    left = node.seal.counters
    monkeypatch.setattr(left, "_next", left._reserved_until - 5)
    bench.world.elapse(300)
    assert bench.meter.counts()["mesh: storage failed"]
    last = max(bench.frames_of_the_meter())
    assert last < left._reserved_until
    bench.world.elapse(600)
    assert max(bench.frames_of_the_meter()) == last
    bench.mend_disk()
    bench.world.elapse(keeper_module.STORE_RETRY_S + 120)
    assert max(bench.frames_of_the_meter()) > last
    read(bench)
    assert len(bench.head_end.read_answers) == 1
    assert left._reserved_until <= last + 2 * RESERVE_STEP


def test_packets_go_as_urgently_as_what_is_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = MeshBench()
    seen: list[tuple[Stage, Priority]] = []
    send = Station.send

    def watched(station: Station, payload: bytes, *, priority: Priority, **more: object) -> bool:
        if station is bench.station:
            seen.append((bench.agent.stage, priority))
        return send(station, payload, priority=priority, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Station, "send", watched)
    bench.power_on()
    bench.world.elapse(180)
    read(bench)
    by_stage = {stage: {one for at, one in seen if at is stage} for stage in Stage}
    assert by_stage[Stage.SECURING] == {Priority.JOINING}
    today, older = Priority.SCHEDULED, Priority.RECOVERY
    assert by_stage[Stage.REPORTING] == {today, older, Priority.ON_DEMAND}
    assert [Priority(one).name for one in Urgency] == ["ALARM", "FREQUENT", "SCHEDULED", "RECOVERY"]


def test_what_nobody_answers_is_sent_again_as_a_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the node lets it go by the next parent."""
    bench = MeshBench()
    seen: dict[bytes, list[int]] = {}
    send = Station.send

    def watched(station: Station, payload: bytes, *, attempt: int = 0, **more: object) -> bool:
        if station is bench.station:
            seen.setdefault(payload, []).append(attempt)
        return send(station, payload, attempt=attempt, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Station, "send", watched)
    monkeypatch.setattr(type(bench.head_end), "receive_datagram", lambda *_, now: None)
    bench.power_on()
    bench.world.elapse(120)
    first = next(iter(seen.values()))
    assert len(first) == 5, "MAX_RETRANSMIT is 4 (RFC 7252 section 4.8)"
    assert all(attempts == list(range(len(attempts))) for attempts in seen.values())
