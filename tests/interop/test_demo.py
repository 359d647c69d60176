"""The demo, as a user starts it: real processes, real sockets, figures from the store.

The contract under test: with `--once --json` it ends by itself, prints one JSON object last, and
exits 0 only when every meter was registered, its report for yesterday stored and its on-demand
read answered; whatever goes wrong is one line and another exit code.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.api.documents import ReadDocument
from interop.demo.figures import BARS, Figures, percentile, sparkline
from interop.demo.run import _table

INTEROP = Path(sys.executable).parent / "interop"


def demo(*arguments: str, timeout_s: float = 100.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INTEROP, "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.timeout(120)
def test_every_meter_is_read_and_the_last_line_says_so() -> None:
    done = demo("--once", "--meters", "6", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    counts = {key: value for key, value in figures.items() if not key.endswith("_s")}
    assert counts == {
        "meters": 6,
        "registered": 6,
        "reports_expected": 6,
        "reports_stored": 6,
        "on_demand_asked": 6,
        "on_demand_answered": 6,
    }
    assert 0 < figures["on_demand_p50_s"] <= figures["on_demand_p99_s"] < figures["wall_s"]


@pytest.mark.timeout(120)
def test_stores_and_keys_are_kept_where_asked_and_used_by_the_commands(tmp_path: Path) -> None:
    capture = tmp_path / "demo.txt"
    done = demo(
        *("--once", "--meters", "2", "--directory", str(tmp_path / "kept")),
        *("--capture", str(capture)),
    )
    assert done.returncode == 0, done.stderr
    # What collectors carried is in the capture: of both meters, both ways.
    ways = {tuple(line.split()[1:5]) for line in capture.read_text().splitlines()[1:]}
    ends = {way[1 if way[0] == "received" else 3] for way in ways}
    assert len(ways) == 4
    assert len(ends) == 2
    assert all(re.fullmatch(r"\[fd[0-9a-f:]+ff:fe00:[0-9a-f]+\]:5683", end) for end in ends)
    assert "on-demand reads answered 2/2" in " ".join(done.stdout.split())
    stores = sorted((tmp_path / "kept").glob("street/*/meter-data"))
    keys = {path.read_bytes() for path in (tmp_path / "kept").glob("street/*/meter-key.pem")}
    assert len(stores) == len(keys) == 2
    again = demo("--once", "--directory", str(tmp_path / "kept"))
    assert again.returncode == 1
    assert again.stderr == (
        f"interop: {tmp_path / 'kept'} holds an earlier demo: name another folder\n"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--meters", "0"], "interop: --meters is 0, expected 1 to 500\n"),
        (["--meters", "501"], "interop: --meters is 501, expected 1 to 500\n"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], line: str) -> None:
    done = demo(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


@pytest.mark.timeout(120)
async def test_it_runs_until_interrupted_and_leaves_no_program_behind(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        INTEROP,
        *("demo", "--meters", "2", "--directory", str(tmp_path / "street")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    seen = b""
    async with asyncio.timeout(60):
        while b"answered 2/2" not in seen.replace(b"\n", b""):
            piece = await process.stdout.read(4096)
            assert piece, seen
            seen += piece
    assert process.returncode is None
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err
    assert b"Traceback" not in out + err
    assert not _programs_that_name(tmp_path)


@pytest.mark.timeout(120)
def test_reader_who_had_enough_gets_no_traceback_and_leaves_no_program(tmp_path: Path) -> None:
    with subprocess.Popen(
        [INTEROP, "demo", "--meters", "2", "--directory", str(tmp_path / "street")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (1, b"")
    assert not _programs_that_name(tmp_path)


def _programs_that_name(folder: Path) -> list[str]:
    """The processes, other than this one, whose command line has that folder in it."""
    return [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(folder).encode() in _read(path) and int(path.parent.name) != os.getpid()
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _answered(meter: str, seconds: float) -> ReadDocument:
    return ReadDocument(
        identifier="00",
        meter=meter,
        asked_at="2026-11-20T10:00:00.000Z",
        result="answered",
        answered_at=f"2026-11-20T10:00:{seconds:06.3f}Z",
        path="udp:127.0.0.1:1",
        detail="",
        answer=None,
    )


def test_a_street_is_complete_only_when_every_count_is_that_of_its_meters() -> None:
    reads = (_answered("a", 0.25), _answered("b", 0.75))
    whole = Figures(meters=2, secured=2, registered=2, reports_stored=2, reads=reads)
    assert whole.is_complete
    assert json.loads(whole.to_json())["on_demand_p50_s"] == 0.25
    assert json.loads(whole.to_json())["on_demand_p99_s"] == 0.75
    for lacking in (
        Figures(2, 2, 1, 2, reads),
        Figures(2, 2, 2, 1, reads),
        Figures(2, 2, 2, 2, reads[:1]),
        Figures(2, 2, 2, 2, (reads[0], reads[0])),
        Figures(
            2, 2, 2, 2, (reads[0], ReadDocument("1", "b", "", "timed out", None, "", "", None))
        ),
    ):
        assert not lacking.is_complete


@given(st.lists(st.floats(0, 1e3), min_size=1), st.sampled_from([0, 50, 99, 100]))
def test_percentile_is_one_of_the_values_with_enough_at_or_below(
    values: list[float], percent: int
) -> None:
    ascending = sorted(values)
    found = percentile(ascending, percent)
    assert found in [round(value, 4) for value in ascending]
    assert sum(round(value, 4) <= found for value in ascending) >= len(values) * percent / 100


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_sparkline_has_a_bar_for_each_value_and_the_largest_is_the_highest(
    values: list[float],
) -> None:
    bars = sparkline(values)
    assert len(bars) == len(values)
    assert set(bars) <= set(BARS)
    if max(values, default=0) > 0:
        assert bars[values.index(max(values))] == BARS[-1]


def test_toml_lines_are_found_among_what_init_prints() -> None:
    printed = '# made\n[headend]\naddress = "h:1"\npublic_key = "ab"\n\nmore words\n'
    assert _table(printed) == '[headend]\naddress = "h:1"\npublic_key = "ab"'
