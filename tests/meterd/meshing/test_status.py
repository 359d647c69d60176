"""How a node stands in the mesh: a meter tells its parent and rank, a collector what it serves.

The contract under test: `meterd status` tells of a meter behind a collector its parent, rank and
hops, and when there is no way up; of a collector its children, table and backhaul, with what
the head-end said; at the door of the running daemon, as text and as JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import structlog

from amistack.identifiers import format_eui64
from amistack.keystore import make_network_key
from meterd.cli import main
from meterd.door import DOOR, Door
from meterd.meshing import collector as collector_module
from meterd.meshing.collector import CollectorDaemon, load_settings
from meterd.meshing.status import CollectorStatus, collector_status
from meterd.status_commands import show, show_collector
from tests.meterd.bench import EPOCH
from tests.meterd.meshing.bench import METER_SHORT as FAR_SHORT
from tests.meterd.meshing.bench import RELAY_EUI, ROOT_EUI, MeshBench
from tests.meterd.meshing.test_serving import AREA, METER_SHORT, ServingBench, formed
from tests.meterd.meshing.test_settings import COLLECTOR
from tests.meterd.test_status import _status


def test_a_meter_tells_its_parent_and_rank_and_that_it_has_none() -> None:
    bench = MeshBench()
    bench.power_on()
    alone = bench.meter.place()
    assert (alone.state, alone.parent, alone.parents, alone.hops) == ("detached", None, 0, None)
    assert "no parent (detached)" in show(_status(mesh=dataclasses.asdict(alone)))
    bench.world.elapse(60)
    place = bench.meter.place()
    assert (place.short, place.state, place.hops) == (FAR_SHORT, "joined", 2)
    assert (place.parent, place.parent_node, place.parents) == (2, format_eui64(RELAY_EUI), 1)
    root_rank = bench.root.station.node.rank
    assert place.rank == bench.station.node.rank > root_rank
    assert place.is_grounded
    text = show(_status(mesh=dataclasses.asdict(place)))
    assert f"parent 2 ({format_eui64(RELAY_EUI)}), one of 1; rank {place.rank}, 2 hops" in text
    assert "NO WAY" not in text
    cut_off = dataclasses.replace(place, is_grounded=False, hops=None)
    text = show(_status(mesh=dataclasses.asdict(cut_off)))
    assert "hops not known; NO WAY" in text


def collector_of(bench: ServingBench, **changes: Any) -> CollectorStatus:
    now = bench.world.now
    settings = {
        "area": AREA,
        "epoch": bench.serving.epoch,
        "head_end": "head-end.example:7683",
        "now": now,
        "utc": EPOCH + now,
        "started": 0.0,
        "backhaul_since": now - 30,
        "stall": None,
        "counters": bench.serving.counts(),
    }
    return collector_status(bench.serving.collector, **{**settings, **changes})


def test_a_collector_tells_its_children_its_table_and_its_backhaul() -> None:
    bench = ServingBench()
    bench.power_on()
    nobody = collector_of(bench)
    assert (nobody.children, nobody.routes, nobody.backhaul) == ([], 0, "down")
    assert "children        none" in show_collector(dataclasses.asdict(nobody))

    bench = formed()
    status = collector_of(bench)
    assert status.collector == format_eui64(ROOT_EUI)
    assert (status.area, status.short, status.routes, status.neighbours) == (AREA, 1, 1, 1)
    (child,) = status.children
    assert child.short == METER_SHORT
    assert child.node == format_eui64(bench.meter.station.node.own)
    assert (status.backhaul, status.answer) == ("down", None)
    assert (status.started_at, status.at - status.backhaul_since) == (int(EPOCH), 30)

    bench.connect()
    up = collector_of(bench)
    assert (up.backhaul, up.answer) == ("up", "accepted")
    text = show_collector(json.loads(up.to_json()))
    for part in (f"children        {METER_SHORT} ({child.node})", "backhaul        up since 2026"):
        assert part in text

    # A child of another one is not ours: the row goes by another parent.
    routes = bench.serving.collector.station.node.routes
    assert routes is not None
    routes.rows[METER_SHORT] = dataclasses.replace(routes.rows[METER_SHORT], parents=(9, 1))
    assert collector_of(bench).children == []
    assert collector_of(bench).routes == 1


def test_a_collector_refused_by_the_head_end_says_so() -> None:
    bench = formed()
    told = collector_of(bench)
    refused = dataclasses.replace(told, answer="wrong area", held=3, epoch=7, stall="late")
    text = show_collector(json.loads(refused.to_json()))
    for part in ("said: wrong area", "lease 7", "3 messages wait", "STANDS STILL    late"):
        assert part in text


async def test_a_running_collector_answers_at_its_door(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = structlog.wrap_logger(structlog.PrintLogger(io.StringIO()))
    monkeypatch.setattr(collector_module, "LOG", quiet)
    make_network_key(tmp_path / "network-key")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tmp_path / "collector.toml"
    text = COLLECTOR.replace("head-end.example", f"127.0.0.1:{port}")
    file.write_text(text.replace("short = 4", 'short = 4\nlisten = "127.0.0.1:0"'))
    daemon = await CollectorDaemon.open(load_settings(file))
    door = None
    try:
        await daemon.start()
        door = await collector_module._open_door(daemon)
        assert door is not None
        command = ["status", "--role", "collector", "--config", str(file)]
        assert await asyncio.to_thread(main, [*command, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["collector"] == "02000000000000c1"
        assert (told["area"], told["short"], told["backhaul"]) == (7, 4, "down")
        assert told["head_end"] == f"127.0.0.1:{port}"
        assert daemon.find_stall() is None
        assert await asyncio.to_thread(main, command) == 0
        assert "area            7, DODAG fd9a" in capsys.readouterr().out
    finally:
        if door is not None:
            await door.close()
        await daemon.stop()
    assert await asyncio.to_thread(main, command) == 1
    assert "no meterd is running" in capsys.readouterr().err
    assert not (daemon.settings.collector.storage / DOOR).exists()


async def test_a_folder_of_a_meter_is_no_collectors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "collector.toml"
    file.write_text(COLLECTOR)
    folder = load_settings(file).collector.storage
    folder.mkdir()
    door = Door(folder / DOOR, lambda: ('{"meter": "02000000000000aa", "stall": null}',))
    await door.open()
    try:
        command = ["status", "--role", "collector", "--config", str(file)]
        assert await asyncio.to_thread(main, command) == 1
    finally:
        await door.close()
    said = capsys.readouterr().err
    assert "is not that of a collector: see --role" in said
    assert said.count("\n") == 1
