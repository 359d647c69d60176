"""What Prometheus finds when it scrapes a head-end.

The contract under test: the door is there when asked for and only then, /metrics parses by
Prometheus' own rules and says what `headend status` says, nothing else is there, a difference in
the account of uplinks is seen from every side, no number of reasons makes the labels grow without
bound, and an address that cannot be had is one line.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from amistack.errors import ConfigError, LinkError
from amistack.session.fleet import encode_public_key, head_end_credential
from headend.api.metrics import LABELS_MAX, PATH, make_metrics
from headend.app import METRICS_CONNECTIONS_MAX, HeadEnd
from headend.cli import show
from headend.client import AsyncHeadEndClient
from headend.config import MetricsSettings, Settings, read_settings, split_address, with_metrics
from headend.domain.mesh import Endpoints
from headend.domain.spread import Spread
from headend.operations import Operations
from headend.southbound import service
from headend.southbound.ledger import Tally, UplinkKind
from headend.status import About, Measures
from headend.store.interface import Commits
from tests.headend.test_app import settings_in
from tests.headend.test_cli import PATIENCE_S, make_home
from tests.support import headend as world
from tests.support.headend import meter_id, post, private_key, public_key, until
from tests.support.street_meter import StreetMeter

METER = meter_id(1)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_in(text: str) -> Samples:
    """Every sample by its name and labels, as Prometheus' own parser reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def one(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def metered(folder: Path, listen: str = "127.0.0.1:0", **changes: object) -> Settings:
    settings = settings_in(folder, **changes)
    return dataclasses.replace(settings, metrics=MetricsSettings(listen))


async def scrape(head_end: HeadEnd, **headers: str) -> httpx.Response:
    assert head_end.metrics_url is not None
    async with httpx.AsyncClient() as http:
        return await http.get(head_end.metrics_url, headers=headers)


async def joined(head_end: HeadEnd, client: AsyncHeadEndClient) -> StreetMeter:
    await client.enrol([(METER.hex(), public_key(METER.hex()).hex())])
    trusted = head_end_credential(encode_public_key(private_key("head-end").public_key()))
    meter = StreetMeter(METER, split_address(head_end.address, ""), trusted)
    await meter.join()
    return meter


@pytest.mark.both_loops
async def test_scrape_says_what_the_status_says(tmp_path: Path) -> None:
    head_end = HeadEnd(metered(tmp_path), capture=tmp_path / "c.pcapng")
    await head_end.start()
    async with AsyncHeadEndClient(tmp_path / "s.sock") as client:
        meter = await joined(head_end, client)
        await meter.ask(post("reg", world.registration(METER).encode()))
        await meter.ask(post("rep", world.report(entries=[world.entry(1)]).encode()))
        await meter.ask(post("rep", world.report(entries=[world.entry(1)]).encode()))
        await meter.ask(post("rep", b"\x00"))
        await meter.ask(post("nowhere", b""))
        assert (await client.read(METER, deadline_s=5)).result == "answered"
        meter.is_silent = True
        assert (await client.read(METER, deadline_s=0.1)).result == "timed out"
        meter.close()
        response = await scrape(head_end)
        status = await client.status()
    await head_end.stop()

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    found = samples_in(response.text)
    assert one(found, "headend_reconciles") == 1
    assert status.reconciles
    for kind, uplinks in status.uplinks.items():
        for name in ("received", "stored", "answered"):
            value = one(found, f"headend_uplinks_{name}_total", kind=kind)
            assert value == getattr(uplinks, name)
        for name in ("pending", "difference"):
            assert one(found, f"headend_uplinks_{name}", kind=kind) == getattr(uplinks, name)
    assert one(found, "headend_uplinks_received_total", kind="report") == 3
    assert one(found, "headend_uplinks_stored_total", kind="report") == 3
    refused = one(found, "headend_uplinks_refused_total", kind="other", reason="no such resource")
    assert refused == status.refused_uplinks["other"]["no such resource"] == 1
    refused = one(found, "headend_refused_total", layer="model", reason="no such resource")
    assert refused == status.refused["model: no such resource"] == 1
    assert one(found, "headend_uplink_oldest_pending_seconds") == 0
    assert one(found, "headend_quarantined_total", reason="unreadable whole") == 1
    assert {"store queue", "recalls under way", "on-demand reads"} < set(status.queues)
    for name, queue in status.queues.items():
        assert one(found, "headend_queue_bound", queue=name) == queue.bound > 0
        assert one(found, "headend_queue_depth", queue=name) <= queue.bound
    assert one(found, "headend_sessions") == status.sessions == 1
    assert one(found, "headend_sessions_opened_total") == 1
    for kind, outcomes in {
        "registration": {"new": 1}, "block": {"new": 1, "repeated": 1},
        "log entry": {"new": 1, "repeated": 1}, "quarantined": {"new": 1},
    }.items():  # fmt: skip
        assert status.records[kind] == outcomes
        for outcome, count in outcomes.items():
            assert one(found, "headend_records_total", kind=kind, outcome=outcome) == count
    assert status.reads == {"answered": 1, "timed out": 1}
    assert one(found, "headend_reads_total", result="timed out") == 1
    writes = one(found, "headend_store_group_writes_sum")
    assert writes == status.commits.group_sizes.total >= 8
    groups = one(found, "headend_store_commit_seconds_count")
    assert groups == one(found, "headend_store_group_writes_bucket", le="+Inf")
    assert groups == sum(status.commits.seconds.counts) > 0
    assert one(found, "headend_store_commit_seconds_sum") > 0
    assert one(found, "headend_store_groups_failed_total") == status.commits.failed == 0
    assert one(found, "headend_link_total", event="datagrams received") > 6
    captured = one(found, "headend_capture_total", event="datagrams captured")
    assert captured == status.capture["datagrams captured"] > 12
    assert one(found, "process_cpu_seconds_total") > 0
    assert one(found, "process_resident_memory_bytes") > 1e6
    assert one(found, "headend_info", version=status.version) == 1

    said = show.status(status)
    assert "3 received = 3 stored + 0 answered + 0 refused + 0 pending" in said
    assert "DO NOT ADD UP" not in said
    assert re.search(r"reconciles +true", said)


async def test_nothing_else_is_there_and_nothing_can_be_done(tmp_path: Path) -> None:
    head_end = HeadEnd(metered(tmp_path))
    await head_end.start()
    assert head_end.metrics_url is not None
    async with httpx.AsyncClient(base_url=head_end.metrics_url.removesuffix(PATH)) as http:
        for path in ("/", "/v1/status", "/metrics/", "/metricss", "/openapi.json", "//metrics"):
            assert (await http.get(path)).status_code == 404, path
        refused = await http.post(PATH, content=b"x" * 100_000)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        asked = await http.get(PATH, headers={"accept": "application/openmetrics-text"})
        families = list(openmetrics.text_string_to_metric_families(asked.text))
        assert "headend_reconciles" in {family.name for family in families}
        head = await http.head(PATH)
        assert (head.status_code, head.content) == (200, b"")
    await head_end.stop()


async def test_it_is_not_there_unless_asked_for(tmp_path: Path) -> None:
    head_end = HeadEnd(settings_in(tmp_path))
    await head_end.start()
    assert head_end.metrics_url is None
    await head_end.stop()


async def test_difference_is_seen_from_every_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CHECK_S", 0.02)
    head_end = HeadEnd(metered(tmp_path))
    with capture_logs() as lines:
        await head_end.start()
        assert head_end._southbound is not None
        head_end._southbound.ledger.receive(UplinkKind.REPORT)
        await until(lambda: any(line["event"] == "uplinks do not add up" for line in lines))
        found = samples_in((await scrape(head_end)).text)
        async with AsyncHeadEndClient(tmp_path / "s.sock") as client:
            status = await client.status()
        await asyncio.sleep(0.1)
        await head_end.stop()
    alarms = [line for line in lines if line["log_level"] == "error"]
    assert alarms == [
        {"event": "uplinks do not add up", "log_level": "error", "difference": {"report": 1}}
    ]
    assert one(found, "headend_reconciles") == 0
    assert one(found, "headend_uplinks_difference", kind="report") == 1
    assert not status.reconciles
    assert status.uplinks["report"].difference == 1
    assert "UPLINKS DO NOT ADD UP" in show.status(status)
    assert re.search(r"reconciles +false", show.status(status))
    assert "1 received = 0 stored + 0 answered + 0 refused + 0 pending; difference 1" in (
        show.status(status)
    )


async def test_more_scrapers_than_fit_are_told_so_and_cost_nobody_else_anything(
    tmp_path: Path,
) -> None:
    head_end = HeadEnd(metered(tmp_path))
    await head_end.start()
    assert head_end.metrics_url is not None
    host, port = split_address(head_end.metrics_url[len("http://") : -len(PATH)], "")
    idle = [(await asyncio.open_connection(host, port))[1] for _ in range(METRICS_CONNECTIONS_MAX)]
    await asyncio.sleep(0.05)
    assert (await scrape(head_end)).status_code == 503
    async with AsyncHeadEndClient(tmp_path / "s.sock") as client:
        assert (await client.status()).reconciles
    for writer in idle:
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert (await scrape(head_end)).status_code == 200
    await head_end.stop()


# What a start says


def test_bound_address_is_said_and_logged(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "headend.cli.main", "serve", "--metrics", "127.0.0.1:0",
         "--config", str(home / "headend.toml")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    guard = threading.Timer(PATIENCE_S, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        match = re.search(r", metrics (http://127\.0\.0\.1:[1-9]\d*/metrics)$", ready.strip())
        assert match is not None, ready
        found = samples_in(httpx.get(match[1]).text)
        assert one(found, "headend_reconciles") == 1
        assert one(found, "process_cpu_seconds_total") > 0
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        guard.cancel()
        process.kill()
        process.communicate()
    assert process.returncode == 0
    (started,) = [
        line for line in map(json.loads, errors.splitlines()) if line["event"] == "started"
    ]
    assert started["metrics"] == match[1]


async def test_port_in_use_is_one_line_and_gives_everything_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(LinkError, match=rf"^metrics: TCP 127\.0\.0\.1:{port} is in use: stop"):
            await HeadEnd(metered(tmp_path, f"127.0.0.1:{port}")).start()
    again = HeadEnd(metered(tmp_path, f"127.0.0.1:{port}"))
    await again.start()
    assert (await scrape(again)).status_code == 200
    await again.stop()


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("192.0.2.1:9464", "is not an address of this machine"),
        ("no.such.host.invalid:9464", "is not to be had"),
    ],
)
async def test_address_that_cannot_be_had_is_one_line(
    tmp_path: Path, listen: str, said: str
) -> None:
    with pytest.raises(LinkError, match=said) as refusal:
        await HeadEnd(metered(tmp_path, listen)).start()
    assert "\n" not in str(refusal.value)


def test_setting_is_read_checked_and_overridden(tmp_path: Path) -> None:
    file = tmp_path / "headend.toml"
    file.write_text('[metrics]\nlisten = "[::1]:9464"\n')
    settings = read_settings(file)
    assert settings.metrics.address == ("::1", 9464)
    assert with_metrics(settings, "127.0.0.1:0").metrics.address == ("127.0.0.1", 0)
    with pytest.raises(ConfigError, match=r"^--metrics is '9464', expected an address"):
        with_metrics(settings, "9464")
    file.write_text('[metrics]\nlisten = "9464"\n')
    with pytest.raises(ConfigError, match=r"metrics\.listen is '9464', .* such as 127.0.0.1:9464"):
        read_settings(file)
    file.write_text("")
    assert read_settings(file).metrics.address is None


# What is shown


class Fixed(Operations):
    """A head-end that measured this."""

    def __init__(self, measures: Measures) -> None:
        self._measured = measures

    def measures(self) -> Measures:
        return self._measured


async def shown(measures: Measures) -> Samples:
    transport = httpx.ASGITransport(make_metrics(Fixed(measures)))
    async with httpx.AsyncClient(transport=transport, base_url="http://head-end") as http:
        return samples_in((await http.get(PATH)).text)


def measured(**changes: object) -> Measures:
    nothing = Measures(
        About("0.1.0", 0, ""), {"report": Tally()}, {}, 0.0, {}, {}, {}, {}, {}, 0, {}, Commits(),
        {}, {}, 0, {}, {},
    )  # fmt: skip
    return dataclasses.replace(nothing, **changes)


async def test_labels_are_bounded_and_the_rest_is_summed() -> None:
    reasons = {f"session: reason {number}": 2 for number in range(LABELS_MAX + 100)}
    reasons["coap: reset"] = 5
    found = await shown(measured(refused=reasons))
    refused = [(dict(labels), value) for (name, labels), value in found.items()
               if name == "headend_refused_total"]  # fmt: skip
    counts = {labels["reason"]: value for labels, value in refused if labels["layer"] == "session"}
    assert len(counts) == LABELS_MAX + 1
    assert (counts["reason 0"], counts["other"]) == (2, 200)
    assert one(found, "headend_refused_total", layer="coap", reason="reset") == 5


async def test_recalls_after_a_restored_backup_are_shown() -> None:
    found = await shown(measured(recalls={"recalled": 3}, recalls_waiting=7))
    assert one(found, "headend_recalls_total", result="recalled") == 3
    assert one(found, "headend_recalls_waiting") == 7


async def test_nodes_of_the_mesh_are_shown_by_how_they_are_and_why_they_registered() -> None:
    endpoints = Endpoints({"reachable": 7, "late": 2}, {"late": 3}, {"power restored": 5})
    found = await shown(measured(endpoints=endpoints))
    assert one(found, "headend_mesh_nodes", state="reachable") == 7
    assert one(found, "headend_mesh_nodes", state="late") == 2
    assert one(found, "headend_mesh_moves_total", state="late") == 3
    assert one(found, "headend_mesh_registrations_total", reason="power restored") == 5
    without = await shown(measured())
    assert not [name for name, _ in without if name.startswith("headend_mesh")]


async def test_label_that_would_break_the_format_is_escaped() -> None:
    reason = 'a "quoted"\nline\\'
    found = await shown(measured(flagged={reason: 3}))
    assert one(found, "headend_flagged_total", reason=reason) == 3


async def test_groups_of_writes_are_shown_as_a_histogram() -> None:
    commits = Commits()
    for size in (1, 2, 3, 1_000, 1_001):
        commits.sizes.note(size)
    found = await shown(measured(commits=commits))
    by_bound = {
        dict(labels)["le"]: value
        for (name, labels), value in found.items()
        if name == "headend_store_group_writes_bucket"
    }
    assert by_bound == {
        "1.0": 1, "3.0": 3, "10.0": 3, "30.0": 3, "100.0": 3, "300.0": 3, "1000.0": 4, "+Inf": 5,
    }  # fmt: skip
    assert one(found, "headend_store_group_writes_sum") == 2_007


def test_spread_counts_a_bound_in_the_range_below_it() -> None:
    spread = Spread((1.0, 2.0))
    for figure in (0.5, 1.0, 1.5, 2.0, 2.5):
        spread.note(figure)
    assert (spread.counts, spread.total) == ((2, 2, 1), 7.5)
