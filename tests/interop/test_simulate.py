"""`interop simulate` as a user types it.

The contract under test: the table or one JSON object on standard output, how far it is on standard
error; a mistake is one readable line and exit code 1, a wrong command line exit code 2; a judge's
finding is one line and exit code 1; the same command has the same history whatever the process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interop.cli import main
from interop.simulate import options, truth

SMALL = ("--meters", "3", "--hours", "0.4", "--history", "1")
INTEROP = Path(sys.executable).parent / "interop"


def test_table_says_what_a_user_of_the_head_end_sees(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "street", *SMALL, "--kill", "m2@1100+60"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("street, seed 1: ")
    words = {line.split()[0] for line in lines[1:]}
    assert {"registered", "days", "ledger", "topology", "control", "loops"} <= words
    assert "registered 3 of 3" in out
    assert "3 of 3 stored, 3 equal to what was used" in out
    assert "kill: m2 without power" in out


def test_run_too_short_for_a_frame_has_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "street", "--meters", "3", "--hours", "0.00001"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("  0 frames; ")
    assert last.split(" s of CPU")[1].startswith("; history ")


def test_json_has_the_keys_of_mesh_simulate_and_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "PROGRESS_LINE_EVERY_S", 0.0)
    assert main(["simulate", "street", *SMALL, "--json"]) == 0
    out, err = capsys.readouterr()
    found: dict[str, Any] = json.loads(out)
    assert {
        *("offered", "classes", "daily_reports", "on_demand", "control_share_busiest"),
        *("control_share_mean", "stretch_p90", "simulated_s", "wall_s", "cpu_s"),
        *("registered", "days", "ledger", "topology", "frames", "cpu_us_per_frame", "history"),
    } <= set(found)
    assert found["simulated_s"] == 1440.0
    assert {"asked", "within_30s", "within_60s", "p50_s", "p95_s", "p99_s", "by_hops"} <= set(
        found["on_demand"]
    )
    progress = err.splitlines()
    assert len(progress) > 100
    assert "3 of 3 registered" in progress[-1]


def test_two_processes_have_one_history() -> None:
    """Whatever order sets and names have in them."""
    histories = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [INTEROP, "simulate", "street", *SMALL, "--json", "--seed", "5"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        found = json.loads(done.stdout)
        histories.append((found["history"], found["frames"], found["on_demand"]))
    assert histories[0] == histories[1]


def test_capture_has_the_frames_of_the_air(tmp_path: Path) -> None:
    file = tmp_path / "air.pcapng"
    assert main(["simulate", "street", *SMALL, "--pcap", str(file)]) == 0
    octets = file.read_bytes()
    assert octets[:4] == bytes.fromhex("0a0d0d0a")
    assert len(octets) > 10_000


def test_capture_that_the_disk_refuses_does_not_end_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["simulate", "street", *SMALL, "--pcap", "/dev/full"]) == 1
    out, err = capsys.readouterr()
    assert "registered 3 of 3" in out
    assert err == "interop: /dev/full lacks the end of the run: No space left on device\n"


def test_what_a_judge_finds_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth, "household", lambda seed, number: 7_000_000 + seed + number)
    assert main(["simulate", "street", *SMALL]) == 1
    out, err = capsys.readouterr()
    assert "3 of 3 stored, 0 equal to what was used" in out
    lines = err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("interop: must never be: 02005e10") for line in lines)


ISOLATING = """
name = "isolating"
text = "x"
hours = 1.0
[isolations]
each = 1
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere",), "no scenario 'nowhere': expected one of backhaul, city, collector, "),
        (("none.toml",), "none.toml"),
        (("isolation",), "which `mesh simulate` alone does"),
        (("isolating.toml",), "which `mesh simulate` alone does"),
        (("city",), "5000 meters, at most 1000 as programs"),
        (("street", "--kill", "m26@50"), "--kill m26: there are m1 to m25"),
        (("street", "--kill", "c0@50"), "--kill c0: there are c1 to c2"),
        (("street", "--kill", "somebody"), "--kill 'somebody', expected WHO@SECONDS"),
        (("street", "--kill", "m1@10800"), "--kill m1 at 10800 s: the run ends at 10800 s"),
        (("street", "--kill", "m1@1", *("--kill", "m1@1") * 100), "101 times --kill, at most 100"),
        (("street", "--pcap", "no/where.pcapng"), "no is not a folder"),
        (("street", "--pcap", "."), "it is a folder"),
    ],
)
def test_mistake_is_one_line(
    arguments: tuple[str, ...],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("isolating.toml").write_text(ISOLATING, encoding="utf-8")
    assert main(["simulate", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("interop: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("street", "--meters", "0"),
        ("street", "--hours", "0"),
        ("street", "--seed", "-1"),
        ("street", "--history", "46"),
        ("street", "--meters", "many"),
    ],
)
def test_wrong_command_line_is_exit_code_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["simulate", *arguments])
    assert exited.value.code == 2
    assert "usage: interop simulate" in capsys.readouterr().err


def test_without_a_scenario_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == ["backhaul", "collector", "outage", "relay", "street"]
