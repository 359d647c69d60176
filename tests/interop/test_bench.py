"""The benchmarks run, and their file is as promised.

The contract under test: each benchmark, at a size where its number means nothing, gives a figure of
its own name with the promised fields; the file has one object for each that ran; what cannot be run
is one line, and the others run all the same. No speed is asserted anywhere.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message
from amistack.session.oscore import SecurityContext
from interop.bench import coap_exchange_cpu_us
from interop.bench.bare import open_request, seal_answer, table_of
from interop.bench.coap_exchanges import PATH, PAYLOAD, SIDES, Outcome, measured
from interop.bench.figure import BenchError, Figure, Size
from interop.bench.fleet import known
from interop.bench.load import check, prepare
from interop.bench.measuring import contest, cpu_s, first_core, memory_kib
from interop.bench.registry import BENCHMARKS, MODULES
from interop.bench.run import Options, bench, row
from interop.peers.aiocoap_plain import missing

INTEROP = Path(sys.executable).parent / "interop"
FIELDS = {"name", "value", "unit", "limit", "ratio", "goal"}
WITH_LIMIT = {
    "report_udp_cpu_us",
    "oscore_pair_cpu_us",
    "coap_exchange_cpu_us",
    "edhoc_responder_cpu_us",
}
NAMES = [
    "report_payload_bytes",
    "report_wire_bytes",
    "report_udp_cpu_us",
    "oscore_pair_cpu_us",
    "coap_exchange_cpu_us",
    "edhoc_responder_cpu_us",
    "edhoc_flood_cpu_us",
    "headend_idle_meter_bytes",
    "meterd_pss_mib",
    "meterd_start_s",
    "meterd_idle_cpu_share",
    "meterd_street_kib",
    "meterd_dump_s",
    "topology_update_ms",
    "topology_alternates_ms",
    "topology_rebuild_ms",
    "mesh_stretch_p90",
    "simulated_day_cpu_ms",
]


def test_benchmarks_have_the_promised_names() -> None:
    assert list(BENCHMARKS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_runs_and_gives_its_figure(name: str) -> None:
    if name == coap_exchange_cpu_us.NAME and (why := missing()) is not None:
        pytest.skip(why)
    figure = BENCHMARKS[name](Size.TINY)
    assert figure.name == name
    assert figure.value >= 0
    assert (figure.limit is not None) == (name in WITH_LIMIT)
    assert figure.goal is not None
    assert set(figure.to_json()) == FIELDS
    assert name in row(figure)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_says_what_it_measures_and_what_would_worry(name: str) -> None:
    text = MODULES[name].__doc__
    assert "\nWhat    " in text
    assert "\nWorry   " in text
    assert ("\nLimit   " in text) == (name in WITH_LIMIT)


def test_goal_is_about_the_ratio_where_there_is_a_limit() -> None:
    assert Figure("x", 30.0, "us", 10.0, 3.0).is_good
    assert not Figure("x", 31.0, "us", 10.0, 3.0).is_good
    assert Figure("x", 3.0, "us", None, 3.0).is_good
    assert not Figure("x", 3.1, "us", None, 3.0).is_good
    assert Figure("x", 3.1, "us").is_good is None
    assert Figure("x", 30.0, "us", 10.0, 3.0).ratio == 3.0
    assert Figure("x", 30.0, "us").ratio is None


def test_file_has_one_object_for_each_figure(tmp_path: Path) -> None:
    file = tmp_path / "new" / "bench.json"
    done = subprocess.run(
        [INTEROP, "bench", "report_payload_bytes", "--quick", "--json", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "report_payload_bytes" in done.stdout
    (entry,) = json.loads(file.read_text())
    assert set(entry) == FIELDS
    assert entry["name"] == "report_payload_bytes"
    assert entry["limit"] is entry["ratio"] is None
    assert entry["goal"] == 150


def test_benchmark_that_cannot_run_is_one_line_and_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Size) -> Figure:
        raise BenchError("there is no such clock here")

    benchmarks = {"bad": fail, "good": lambda _: Figure("good", 2.0, "us", 1.0, 3.0)}
    monkeypatch.setattr("interop.bench.run.BENCHMARKS", benchmarks)
    file = tmp_path / "bench.json"
    assert bench(Options(file=file)) == 1
    out, err = capsys.readouterr()
    assert err == "interop: bad: there is no such clock here\n"
    assert "good" in out
    assert json.loads(file.read_text()) == [
        {"name": "good", "value": 2.0, "unit": "us", "limit": 1.0, "ratio": 2.0, "goal": 3.0}
    ]


def test_name_that_is_none_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    with pytest.raises(BenchError, match="did you mean meterd_start_s"):
        bench(Options(("report_payload_bytes", "meterd_start"), file))
    assert not file.exists()


def test_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match="cannot be written"):
        bench(Options(("report_payload_bytes",), tmp_path / "file" / "x.json", Size.TINY))


# Beside aiocoap


def test_sides_that_say_different_things_are_not_compared() -> None:
    ours = Outcome(50.0, "4202b172", "6244")
    coap_exchange_cpu_us.check(ours, dataclasses.replace(ours, cpu_us=500.0))
    for other in ("request", "response"):
        with pytest.raises(BenchError, match="different octets"):
            coap_exchange_cpu_us.check(ours, dataclasses.replace(ours, **{other: "4202b173"}))


def test_without_aiocoap_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BenchError, match=r"^aiocoap is not installed: pip install \S+ ?\S*$"):
        coap_exchange_cpu_us.measure(Size.TINY)


@pytest.mark.skipif(missing() is not None, reason="aiocoap is not installed")
async def test_exchange_that_is_measured_is_the_promised_one() -> None:
    for side in SIDES.values():
        outcome = await measured(side(), 2, 3)
        assert outcome.cpu_us > 0
        request, response = (
            Message.decode(octets[:2] + b"id" + octets[2:])
            for octets in map(bytes.fromhex, (outcome.request, outcome.response))
        )
        assert (request.type, request.code, request.path) == (Type.CON, Code.POST, PATH)
        assert request.payload == PAYLOAD
        assert len(request.payload) == 300
        assert (response.type, response.code, response.payload) == (Type.ACK, Code.CHANGED, b"")


# The means of measuring


def test_cpu_time_counts_work_and_not_waiting() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys\nfor _ in sys.stdin: sum(range(10**6)); print(flush=1)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def work() -> float:
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            return cpu_s(process.pid)

        first, second = work(), work()
        time.sleep(0.05)
        assert second > first
        assert cpu_s(process.pid) - second < 0.02
        assert memory_kib(process.pid, "Rss") >= memory_kib(process.pid, "Pss") > 0
        process.stdin.close()
    with pytest.raises(BenchError):
        cpu_s(process.pid)


def test_contest_counts_the_work_and_not_its_preparation() -> None:
    def costly_to_prepare() -> Callable[[], int]:
        sum(range(5 * 10**6))
        return lambda: 10

    def costly() -> Callable[[], int]:
        return lambda: 10 if sum(range(10**6)) else 0

    cheap, dear = contest(costly_to_prepare, costly, repetitions=1)
    assert cheap < dear


def test_process_started_on_the_first_core_has_no_other() -> None:
    own = os.sched_getaffinity(0)
    with first_core():
        inside = os.sched_getaffinity(0)
    after = os.sched_getaffinity(0)
    os.sched_setaffinity(0, own)
    assert inside == {min(own)}
    assert after == (own - inside or own)


def answered(contexts: list[SecurityContext], payload: bytes) -> None:
    reports = prepare([known(number) for number in range(len(contexts))], utc=1_790_000_000)
    table = table_of(contexts)
    answers = [
        seal_answer(report.datagram, open_request(report.datagram, table), payload)
        for report in reports
    ]
    crossed = [
        dataclasses.replace(one, context=other.context, binding=other.binding)
        for one, other in zip(reports, reports[::-1], strict=True)
    ]
    with pytest.raises(BenchError, match="decryption failed"):
        check(crossed, answers)
    check(reports, answers)


ACCEPTED = b"\x83\x1b" + (1_790_000_000_000).to_bytes(8, "big") + b"\x00\x80"


def test_answers_of_the_bare_code_are_taken_for_what_they_say() -> None:
    contexts = [known(number).head_end_context() for number in range(2)]
    answered(contexts, ACCEPTED)
    # [received_ms, 0, [[1, 0, 1, ""]]]: the first block was quarantined.
    with pytest.raises(BenchError, match="a report was answered"):
        answered(contexts, ACCEPTED[:-1] + b"\x81\x84\x01\x00\x01\x60")
    with pytest.raises(BenchError, match="a report was answered"):
        answered(contexts, b"\xf6")


def test_bare_code_refuses_a_replay() -> None:
    table = table_of([known(0).head_end_context()])
    (report,) = prepare([known(0)], utc=1_790_000_000)
    open_request(report.datagram, table)
    with pytest.raises(ValueError, match="replay"):
        open_request(report.datagram, table)
