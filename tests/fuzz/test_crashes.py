"""Crashes: made small, saved, taken up again.

The contract under test: what is minimised shows the same defect with no more octets, within a bound
of runs; what is saved is the input itself, and beside it what a person needs to show it again.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interop.fuzz.crashes import FILE_SIZE_MAX, FuzzError, command, load, minimise, save
from interop.fuzz.engine import Crash, probe
from interop.fuzz.target import Outcome
from tests.fuzz.toys import run_fragile, run_promising, toy


def crash_with(data: bytes) -> Crash:
    crash = probe(toy(run_fragile), data, seed=9)
    assert crash is not None
    return crash


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_what_is_not_needed_goes(before: bytes, after: bytes) -> None:
    crash = minimise(toy(run_fragile), crash_with(before + b"\xde" + after))
    assert crash.data == b"\xde"
    assert crash.seed == 9


def test_octets_that_need_not_be_what_they_are_become_zero() -> None:
    def run(data: bytes) -> Outcome:
        if len(data) >= 5 and data[3] == 7:
            raise KeyError
        return 0

    crash = probe(toy(run), b"abc\x07efghij")
    assert crash is not None
    assert minimise(toy(run), crash).data == b"\x00\x00\x00\x07\x00"


def test_another_defect_on_the_way_is_not_taken_for_it() -> None:
    def run(data: bytes) -> Outcome:
        if data.startswith(b"A"):
            raise KeyError("the one that was found")
        if data:
            raise ValueError("another one")
        return 0

    crash = probe(toy(run), b"xxA"[2:] + b"tail")
    assert crash is not None
    small = minimise(toy(run), crash)
    assert small.kind == "KeyError"
    assert small.data == b"A"


def test_making_small_has_a_bound() -> None:
    calls = []

    def run(data: bytes) -> Outcome:
        calls.append(1)
        return run_promising(data)

    crash = probe(toy(run), b"\xad" * 500)
    assert crash is not None
    del calls[:]
    small = minimise(toy(run), crash, probe_count_max=3)
    assert len(calls) == 3
    assert b"\xad" in small.data


def test_a_hang_is_left_as_it_is() -> None:
    crash = Crash("toy", b"\xee" * 9, "Hang", "somewhere", "", "", 1, 1)
    assert minimise(toy(run_fragile), crash) is crash


def test_a_saved_crash_says_how_to_show_it_again(tmp_path: Path) -> None:
    crash = crash_with(b"\xde\xad")
    file = save(crash, tmp_path / "new" / "folder", found_size=77)
    assert load(file) == crash.data
    report = file.with_suffix(".txt").read_text(encoding="utf-8")
    assert command("toy", file) in report
    for said in ("KeyError", "seed       9", "found with 77", "dead", "run_fragile"):
        assert said in report
    assert save(crash, file.parent, found_size=77) == file, "the same crash, the same file"


def test_places_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(FuzzError, match="cannot be written"):
        save(crash_with(b"\xde"), blocked, found_size=1)
    with pytest.raises(FuzzError, match="cannot be read"):
        load(tmp_path / "absent")
    large = tmp_path / "large"
    large.write_bytes(bytes(FILE_SIZE_MAX + 1))
    with pytest.raises(FuzzError, match="larger than"):
        load(large)
