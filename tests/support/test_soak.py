"""The mark for tests that take long, and what runs them.

The contract under test: without AMISTACK_SOAK=1 they are left out, whatever is selected, and said
to be so; with it `-m soak` runs them and nothing else. `make soak` gives one line with its figure
for each job, ends each in time together with all that it started, goes on after one that failed,
and says so in its exit code.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.fuzz import targets
from mesh.sim.scenario import scenarios
from tests.support import soak as runner
from tests.support.soak import Job, Part, soak

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import pytest

@pytest.mark.soak
def test_hours(): pass

def test_short(): pass
"""


@pytest.mark.parametrize(
    ("soak", "arguments", "outcomes"),
    [
        (None, (), {"passed": 1, "deselected": 1}),
        ("0", ("-k", "hours"), {"deselected": 2}),
        ("1", ("-m", "soak"), {"passed": 1, "deselected": 1}),
    ],
)
def test_long_ones_run_only_when_asked_for(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    soak: str | None,
    arguments: tuple[str, ...],
    outcomes: dict[str, int],
) -> None:
    if soak is None:
        monkeypatch.delenv("AMISTACK_SOAK", raising=False)
    else:
        monkeypatch.setenv("AMISTACK_SOAK", soak)
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("--strict-markers", "-p", "no:cacheprovider", *arguments)
    result.assert_outcomes(**outcomes)


# What runs them


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "logs"
    monkeypatch.setattr(runner, "LOGS", folder)
    return folder


def figure(text: str) -> str:
    return f"figure {text.split(maxsplit=1)[0]}"


def job(
    code: str, name: str = "toy", *, limit_s: float = 30.0, figure: Callable[[str], str] = figure
) -> Job:
    return Job(name, (sys.executable, "-c", code), limit_s, figure)


def part(*jobs: Job, width: int = 1) -> dict[str, Part]:
    return {"toys": Part("toys", lambda: jobs, lambda: width)}


def test_job_that_passes_is_a_line_with_its_figure_and_a_log(
    capsys: pytest.CaptureFixture[str], logs: Path
) -> None:
    assert soak(part(job("print(17); print('more')"))) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"toy +ok +[\d.]+ s +figure 17", line)
    assert (logs / "toy.log").read_text() == "17\nmore\n"


def test_job_that_fails_says_its_last_word_and_the_others_run_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = job("import sys; print('first'); sys.exit('what was wrong')", "bad one")
    assert soak(part(bad, job("print(2)", "good"))) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert "bad one" in first
    assert "FAILED" in first
    assert "exit code 1: what was wrong; " in first
    assert "bad-one.log has the rest" in first
    assert "figure 2" in second


def test_job_without_an_end_is_ended_with_all_that_it_started(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LAST_WORDS_S", 0.5)
    note = tmp_path / "pid"
    child = (
        "import os, pathlib, signal, time; signal.signal(2, signal.SIG_IGN); "
        f"pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    # It ends by SIGINT and leaves its child behind.
    parent = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    begun = time.monotonic()
    assert soak(part(job(parent, limit_s=5.0))) == 1
    assert time.monotonic() - begun < 30
    assert "not done after 5.0 s" in capsys.readouterr().out
    with pytest.raises(ProcessLookupError):
        gone(int(note.read_text()))


def gone(pid: int) -> None:
    """Raise ProcessLookupError as soon as there is no such process: somebody must reap it yet."""
    for _ in range(100):
        os.kill(pid, 0)
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            raise ProcessLookupError
        time.sleep(0.05)


def test_jobs_of_a_part_run_beside_each_other_and_are_summed_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each waits for the other to have begun; one after the other, neither would end in time."""
    folder = runner.LOGS.parent
    wait = (
        "import pathlib, sys, time; mine, other = map(pathlib.Path, {!r}); mine.touch()\n"
        "while not other.exists(): time.sleep(0.01)\nprint(1)"
    )
    one, two = str(folder / "one"), str(folder / "two")
    jobs = [job(wait.format((one, two)), "one"), job(wait.format((two, one)), "two")]
    parts = {"pair": Part("", lambda: jobs, lambda: 2, lambda lines: f"{len(lines)} of them")}
    assert soak(parts) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"pair +ok +[\d.]+ s +2 of them", last)


def test_ctrl_c_ends_what_runs_and_begins_nothing_more(
    capsys: pytest.CaptureFixture[str], logs: Path
) -> None:
    # Whoever started us in the background may have made us deaf to it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT]).start()
    begun = time.monotonic()
    try:
        status = soak(part(job("import time; time.sleep(60)"), job("print(1)", "next")))
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 130
    assert time.monotonic() - begun < 30
    assert capsys.readouterr().out == ""
    assert not (logs / "next.log").exists()


def test_part_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["kils"]) == 2
    assert capsys.readouterr().err == (
        "soak: kils is not a part; expected conformance, flood, mutations, kills, months, worlds, "
        "mesh, fuzz\n"
    )


def test_length_that_is_none_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOAK_FUZZ_S", "ten")
    assert runner.main(["fuzz"]) == 2
    assert capsys.readouterr().err == "soak: SOAK_FUZZ_S=ten is not a number from 0 on\n"


def test_every_target_is_fuzzed_for_ten_minutes_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SOAK_FUZZ_S", raising=False)
    monkeypatch.setenv("AMISTACK_SEED", "7")
    jobs = runner.fuzz()
    assert [each.name for each in jobs] == [f"fuzz {name}" for name in targets.every()]
    assert {tuple(each.command[3:]) for each in jobs} == {("--seconds", "600", "--seed", "7")}
    assert all(600 < each.limit_s < 1200 for each in jobs)
    monkeypatch.setenv("SOAK_FUZZ_S", "2.5")
    assert runner.fuzz()[0].command[4] == "2.5"


def test_make_knows_the_same_parts() -> None:
    makefile = (runner.ROOT / "Makefile").read_text(encoding="utf-8")
    (names,) = re.findall(r"^SOAK_PARTS := (.*)$", makefile, re.MULTILINE)
    assert names.split() == list(runner.PARTS)


def test_tests_that_are_run_exist_and_are_marked() -> None:
    for jobs in (runner.flood(), runner.kills(), runner.months(), runner.worlds()):
        (each,) = jobs
        assert "@pytest.mark.soak" in (runner.ROOT / each.command[-1]).read_text(encoding="utf-8")


def test_figures_are_found_in_what_is_said() -> None:
    assert runner.tests_figure("x\n3999 passed, 1 skipped in 12.34s (0:00:12)\n") == (
        "3999 passed, 1 skipped"
    )
    assert runner.mutations_figure("x\n70 of 74 mutations noticed, 50 requirements, 9 s\n") == (
        "70 of 74 mutations noticed, 50 requirements"
    )
    assert runner.kills_figure(
        "AMISTACK_SEED=77; logs and stores are in /x\n"
        "{'meter': 260, 'headend': 240}, 53 meters, at work in Counter({1: 8}) lives, ...\n"
        "1 passed in 412.12s (0:06:52)\n"
    ) == ("'meter': 260, 'headend': 240; 53 meters; 1 passed; seed 77")
    assert (
        runner.fuzz_figure(
            "frame    1,000 runs   100/s  corpus 1  outcomes 2  10.0 s\n"
            "frame  123,456 runs   200/s  corpus 3  outcomes 4  60.0 s\n"
        )
        == "123,456 runs 200/s corpus 3 outcomes 4 60.0 s"
    )
    assert runner.fuzz_sum(["fuzz a ok 1,000 runs 5/s", "fuzz b FAILED x", "c 24 runs"]) == (
        "3 targets, 1,024 runs"
    )
    assert (
        runner.conformance_figure(
            "libcoap-client     -       -  not run: none is installed\nall   10   9\n"
        )
        == "9 of 10 cases passed; not run: libcoap-client"
    )
    assert (
        runner.flood_figure(
            "edhoc_flood_cpu_us    9.02 us            30  good\n    100000 datagrams; more\n"
        )
        == "9.02 us each; 100000 datagrams; more"
    )


def test_goals_of_the_mesh_are_counted_and_those_that_were_missed_named() -> None:
    text = """## city

| figure | value | goal | reached |
|---|---|---|---|
| the air | 19 usable neighbours |  |  |
| C1 within 5 s | 149 of 149 (100.00%) | 98.0% | yes |
| stretch of paths, p90 | 1.21 | 1.20 | **no** |
| what must never be | 0 | 0 | yes |
"""
    assert runner.mesh_figure(text) == "2 of 3 goals reached; not: stretch of paths, p90"
    assert runner.mesh_figure(text.replace("**no**", "yes")) == "3 of 3 goals reached"


def test_the_large_scenarios_of_the_mesh_are_in_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMISTACK_SEED", "7")
    jobs = runner.mesh()
    assert {job.command[2] for job in jobs} <= set(scenarios())
    assert all(job.command[3:] == ("--seed", "7") for job in jobs)


def test_figures_that_are_not_there_are_none() -> None:
    for find in (
        runner.tests_figure,
        runner.mutations_figure,
        runner.mesh_figure,
        runner.kills_figure,
        runner.fuzz_figure,
        runner.conformance_figure,
        runner.flood_figure,
    ):
        assert "no figure" in find("nothing of that kind\n")
