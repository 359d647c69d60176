"""Inputs that are kept.

The contract under test: what is written in hex is read again; a folder takes each input once; of
many inputs the few are chosen that have all outcomes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interop.fuzz import corpus
from interop.fuzz.crashes import FuzzError
from tests.fuzz.toys import run_sturdy, toy


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300)))
def test_what_is_written_in_hex_is_read_again(inputs: list[bytes]) -> None:
    text = "# a comment\n\n" + "".join(f"{corpus.format_line(data)}\n" for data in inputs)
    assert list(corpus.parse(text)) == inputs
    assert all(len(line) <= corpus.LINE_SIZE + 1 for line in text.splitlines())


def test_a_line_that_is_no_hex_is_no_input() -> None:
    with pytest.raises(ValueError, match="hex"):
        corpus.parse("xyz\n")


def test_a_target_without_kept_inputs_has_none() -> None:
    assert corpus.kept("no such target") == ()


def test_a_folder_takes_each_input_once(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert corpus.read(folder) == ()
    assert corpus.add(folder, [b"a", b"b", b"a"]) == 2
    assert corpus.add(folder, [b"a", b"c"]) == 1
    assert set(corpus.read(folder)) == {b"a", b"b", b"c"}


def test_folders_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(FuzzError, match="cannot be read"):
        corpus.read(blocked)
    with pytest.raises(FuzzError, match="cannot be written"):
        corpus.add(blocked, [b"x"])


def test_few_inputs_with_every_outcome_are_chosen() -> None:
    inputs = [b"\x01long", b"\x01", b"\x02", b"\xff", b"\x02x"]
    # The seed is refused as 0xff is.
    assert corpus.distilled(toy(run_sturdy), inputs) == [b"\x01", b"\x02"]
    several = toy(frozenset, (b"a",))
    assert corpus.distilled(several, [b"ab", b"abc", b"ca"]) == [b"ab", b"ca"]
