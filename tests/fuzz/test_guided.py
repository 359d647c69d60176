"""Atheris as the driver.

The contract under test: what it is told, what is understood of what it says, and that what it finds
becomes a crash like any other. Where atheris is installed it is driven; elsewhere a stand-in says
and leaves behind what it would.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from interop.fuzz import guided
from interop.fuzz.crashes import FuzzError
from interop.fuzz.engine import Fuzzer
from interop.fuzz.targets import find
from tests.fuzz.toys import run_fragile, run_sturdy, toy

STAND_IN = """
import pathlib, sys
target, corpus, *flags = sys.argv[1:]
given = dict(flag.lstrip("-").split("=", 1) for flag in flags)
say = lambda line: print(line, file=sys.stderr)
say("INFO: Running with entropic power schedule")
say("#2\\tINITED cov: 3 ft: 3 corp: 1/1b exec/s: 0 rss: 40Mb")
pathlib.Path(corpus, "new").write_bytes(b"\\x05")
say("#777\\tNEW    cov: 4 ft: 5 corp: 2/3b lim: 4 exec/s: 9 rss: 40Mb L: 2/2 MS: 1 ChangeBit-")
"""
CRASHING = """
pathlib.Path(given["artifact_prefix"] + "crash-0123").write_bytes(b"ab\\xdecd")
say("==1== ERROR: libFuzzer: fuzz target exited")
sys.exit(77)
"""


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    (tmp_path / "atheris_stand_in.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(guided, "CHILD", "atheris_stand_in")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def job(target: object = None, *, seconds: float | None = None, runs: int | None = 9) -> guided.Job:
    return guided.Job(
        toy(run_sturdy) if target is None else target,  # type: ignore[arg-type]
        seed=0,
        seconds=seconds,
        runs=runs,
    )


def test_it_is_told_what_was_asked_for(tmp_path: Path) -> None:
    target = toy(run_sturdy, tokens=(b'"\x00', b""), size_max=33)
    words = guided.arguments(guided.Job(target, seed=0, seconds=1.2, runs=None), tmp_path)
    assert words[:5] == [sys.executable, "-m", guided.CHILD, "toy", str(tmp_path / "corpus")]
    assert "-max_total_time=2" in words
    assert "-max_len=33" in words
    assert "-seed=1" in words, "0 would mean any"
    assert not any(word.startswith("-runs") for word in words)
    (dictionary,) = [word for word in words if word.startswith("-dict=")]
    assert Path(dictionary.removeprefix("-dict=")).read_text(encoding="ascii") == '"\\x22\\x00"\n'
    assert "-runs=9" in guided.arguments(job(), tmp_path)


def test_what_it_kept_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, STAND_IN)
    fuzzer = Fuzzer(toy(run_sturdy), seed=1)
    fuzzer.replay()
    shown: list[int] = []
    assert guided.drive(job(), fuzzer, lambda one: shown.append(one.run_count)) is None
    assert shown == [2, 777]
    assert b"\x05" in fuzzer.corpus
    assert 5 in fuzzer.outcomes


def test_what_it_breaks_is_a_crash_like_any_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path, STAND_IN + CRASHING)
    target = toy(run_fragile)
    fuzzer = Fuzzer(target, seed=1)
    fuzzer.replay()
    crash = guided.drive(job(target), fuzzer, lambda _: None)
    assert crash is not None
    assert (crash.kind, crash.data, crash.run) == ("KeyError", b"ab\xdecd", 777)


def test_what_breaks_only_there_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, STAND_IN + CRASHING)
    fuzzer = Fuzzer(toy(run_sturdy), seed=1)
    fuzzer.replay()
    crash = guided.drive(job(), fuzzer, lambda _: None)
    assert crash is not None
    assert crash.kind == "OnlyUnderAtheris"
    assert "libFuzzer" in crash.message


def test_one_that_does_not_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path, "raise SystemExit('no atheris here')")
    fuzzer = Fuzzer(toy(run_sturdy), seed=1)
    fuzzer.replay()
    with pytest.raises(FuzzError, match="no atheris here"):
        guided.drive(job(), fuzzer, lambda _: None)


def test_no_time_is_no_run() -> None:
    fuzzer = Fuzzer(toy(run_sturdy), seed=1)
    assert guided.drive(job(runs=0), fuzzer, lambda _: None) is None
    assert guided.drive(job(seconds=0.0, runs=None), fuzzer, lambda _: None) is None


@pytest.mark.skipif(not guided.is_installed(), reason="needs atheris: pip install atheris==3.0.0")
def test_atheris_itself_drives_a_target() -> None:
    target = find("oscore_option")
    fuzzer = Fuzzer(target, seed=1)
    assert fuzzer.replay() is None
    assert guided.drive(job(target, runs=3_000), fuzzer, lambda _: None) is None
    assert fuzzer.run_count >= 1_000
    assert len(fuzzer.corpus) > len(target.seeds())
