"""The command `interop fuzz`.

The contract under test: 0 where nothing broke, Ctrl-C included; 1 and one line on standard error
where something did, with a command that shows it again; wrong wishes are one line; what is found
stays found.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from interop.cli import main
from interop.fuzz import corpus, guided, targets
from interop.fuzz.target import Target
from tests.fuzz.toys import run_endless, run_fragile, run_sturdy, toy

Captured = pytest.CaptureFixture[str]

TOYS = {
    target.name: target
    for target in (
        toy(run_fragile, name="fragile"),
        toy(run_sturdy, name="sturdy"),
        toy(run_endless, name="endless"),
    )
}


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mapping[str, Target]:
    monkeypatch.setattr(targets, "every", lambda: TOYS)
    monkeypatch.setattr(guided, "is_installed", lambda: False)
    monkeypatch.chdir(tmp_path)
    return TOYS


def test_list_names_every_target(capsys: Captured) -> None:
    assert main(["fuzz", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TOYS)


def test_a_run_that_finds_nothing_ends_with_a_line_and_0(capsys: Captured) -> None:
    assert main(["fuzz", "sturdy", "--runs", "20000", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    (line,) = out.splitlines()
    for said in ("sturdy", "20,000 runs", "/s", "corpus", "outcomes      9"):
        assert said in line


def test_a_crash_is_made_small_saved_and_shown_again(capsys: Captured, tmp_path: Path) -> None:
    assert main(["fuzz", "fragile", "--runs", "100000", "--crashes", "found"]) == 1
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("interop: fragile: KeyError at ")
    assert "1 octets" in line
    assert "seed 1" in line
    words = line.rpartition("again: ")[2].split()
    assert words[:3] == ["interop", "fuzz", "fragile"]
    file = tmp_path / words[-1]
    assert file.read_bytes() == b"\xde"
    assert file.with_suffix(".txt").exists()

    assert main(words[1:]) == 1
    out, err = capsys.readouterr()
    assert "Traceback" in out
    assert err.startswith("interop: fragile: KeyError at ")
    assert len(list(file.parent.iterdir())) == 2, "a replay saves nothing"


def test_a_crash_can_be_left_as_it_was_found(tmp_path: Path) -> None:
    for seed in range(20):
        assert (
            main(["fuzz", "fragile", "--runs", "9999", "--no-minimise", "--seed", str(seed)]) == 1
        )
    files = list((tmp_path / "build" / "fuzz").glob("*.bin"))
    assert max(file.stat().st_size for file in files) > 1


def test_a_replayed_crash_is_made_small_when_asked(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"much before \xde and after")
    assert main(["fuzz", "fragile", "--replay", "large", "--minimise", "--crashes", "small"]) == 1
    (file,) = (tmp_path / "small").glob("*.bin")
    assert file.read_bytes() == b"\xde"
    assert str(Path("small") / file.name) in capsys.readouterr().err


def test_a_replay_that_breaks_nothing_says_so(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "fine").write_bytes(b"fine")
    assert main(["fuzz", "fragile", "sturdy", "--replay", "fine"]) == 0
    assert capsys.readouterr().out.count("nothing broke (4 octets)") == 2


def test_all_goes_on_after_a_crash(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TOYS, "endless")
    assert main(["fuzz", "all", "--runs", "20000"]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["fragile", "sturdy"]
    assert len(err.splitlines()) == 1


def test_a_folder_of_inputs_is_used_and_grows(capsys: Captured, tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "mine").write_bytes(b"\x05mine")
    assert main(["fuzz", "sturdy", "--runs", "0", "--corpus", "inputs"]) == 0
    assert {data[:1] for data in corpus.read(folder)} == {b"\x05", b"s"}
    assert main(["fuzz", "sturdy", "--runs", "5000", "--corpus", "inputs"]) == 0
    assert {data[:1] for data in corpus.read(folder)} >= {bytes((octet,)) for octet in range(8)}
    capsys.readouterr()
    assert main(["fuzz", "sturdy", "--runs", "0", "--corpus", "inputs"]) == 0
    assert "outcomes      9" in capsys.readouterr().out, "what was found is known the next time"


def test_several_targets_have_a_folder_each(tmp_path: Path) -> None:
    assert main(["fuzz", "sturdy", "fragile", "--runs", "0", "--corpus", "inputs"]) == 0
    assert {one.name for one in (tmp_path / "inputs").iterdir()} == {"sturdy", "fragile"}


def test_a_distilled_file_has_every_outcome_once(tmp_path: Path) -> None:
    assert main(["fuzz", "sturdy", "--runs", "5000", "--distil", "few.hex"]) == 0
    few = corpus.parse((tmp_path / "few.hex").read_text(encoding="ascii"))
    # The target's own seed has the ninth.
    assert sorted(data[0] for data in few) == list(range(8))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sturdi"], "did you mean sturdy?"),
        (["zzz"], "`interop fuzz --list` names them"),
        ([], "no target"),
        (["sturdy", "--replay", "absent"], "cannot be read"),
        (["sturdy", "fragile", "--distil", "x"], "name one target"),
        (["sturdy", "--driver", "atheris"], "pip install atheris"),
        (["sturdy", "--runs", "1", "--corpus", "blocked"], "cannot be"),
    ],
)
def test_wrong_wishes_are_one_line(
    capsys: Captured, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "blocked").write_bytes(b"")
    assert main(["fuzz", *words]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert said in err


@pytest.mark.parametrize(
    "words",
    [["--seconds", "-1"], ["--seconds", "x"], ["--runs", "-1"], ["--runs", "1", "--seconds", "1"]],
)
def test_wrong_usage_is_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fuzz", "sturdy", *words])
    assert ended.value.code == 2


def test_seconds_are_kept() -> None:
    assert main(["fuzz", "sturdy", "--seconds", "0.3"]) == 0
    assert main(["fuzz", "sturdy", "--seconds", "0"]) == 0


# Ctrl-C, as soon as it is under way.
INTERRUPTED = """
import os, signal, sys
from interop.cli import main
from interop.fuzz import run
# Whoever started the tests in the background may have had it ignored, which is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
run.Progress.show = lambda *_: os.kill(os.getpid(), signal.SIGINT)
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    words = ["fuzz", "oscore_option", "link_format", "--driver", "seeded", "--corpus", "c"]
    child = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        check=False,
    )
    assert child.stderr == ""
    assert child.returncode == 0
    (line,) = child.stdout.splitlines()
    assert line.startswith("oscore_option")
    assert line.endswith("interrupted")
    assert len(list((tmp_path / "c" / "oscore_option").iterdir())) > 10
