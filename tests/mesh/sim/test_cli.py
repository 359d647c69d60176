"""The command `mesh`: a street that forms and delivers, its files, one line for every mistake."""

from __future__ import annotations

import builtins
import importlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from amistack.errors import ConfigError
from mesh import cli
from mesh.sim import plot
from mesh.sim import run as run_module
from mesh.sim.capture import Capture
from mesh.sim.nodes import (
    CIPHERS,
    NETWORK_KEY,
    FastCipher,
    capture_of,
    make_mesh_router,
    packet_in,
)
from mesh.sim.outputs import check_output
from mesh.sim.results import unreachable
from mesh.sim.run import Run, simulate
from mesh.sim.scenario import read_scenario
from mesh.sim.world import World
from tests.support.debian import needs

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """The street, whole, with real nodes and the real cipher."""
    path = tmp_path_factory.mktemp("street") / "street.pcapng"
    scenario = read_scenario("street")
    captures: list[Capture] = []

    def prepare(world: World) -> None:
        captures.append(capture_of(path, world.stations.addresses, scenario))
        world.stations.watchers.append(captures[0].note)

    run = simulate(scenario, make_mesh_router, seed=1, prepare=prepare)
    captures[0].close()
    return run, path


def test_street_forms_and_delivers(street: tuple[Run, Path]) -> None:
    world, figures = street[0].world, street[0].figures
    parents = world.parents()
    assert not unreachable(world)
    assert all(parents[meter] >= 0 for meter in world.meters)
    assert world.faults.lines == []
    classes = figures["classes"]
    reads = figures["on_demand"]
    assert isinstance(classes, dict)
    assert isinstance(reads, dict)
    for row in classes.values():
        assert row["within_limit"] >= 0.98 * row["sent"] > 0
    assert reads["within_60s"] == reads["asked"] > 0
    # Somebody relays: it is a mesh and no star.
    assert world.relays()
    assert "2" in reads["by_hops"]


def test_every_frame_on_the_air_is_in_the_capture_and_every_rpl_message_is_read(
    street: tuple[Run, Path],
) -> None:
    tshark = needs("tshark", "tshark")
    run, path = street
    said = subprocess.run(
        [tshark, "-r", str(path), "-T", "fields", "-e", "frame.interface_name", "-e", "icmpv6.code",
         "-e", "icmpv6.checksum.status", "-e", "_ws.malformed"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rows = [line.split("\t") for line in said.splitlines()]
    assert sum(row[0] == "air" for row in rows) == run.world.stations.medium.counters.frames
    rpl = [row for row in rows if row[0] == "rpl"]
    assert {"0", "1", "2", "3"} >= {row[1] for row in rpl} >= {"1", "2", "3"}
    assert {row[2] for row in rpl} == {"1"}  # checksums that tshark finds good
    assert {row[3] for row in rpl} == {""}


def test_json_has_the_keys_that_were_agreed(capsys: Output) -> None:
    assert cli.main(["simulate", "street", "--hours", "0.6", "--json", "--seed", "4"]) == 0
    figures = json.loads(capsys.readouterr().out)
    agreed = {
        "offered", "classes", "daily_reports", "on_demand", "repair", "stretch_p90",
        "control_share_busiest", "control_share_mean", "isolation", "simulated_s", "wall_s",
        "cpu_s",
    }  # fmt: skip
    assert set(figures) <= agreed
    assert {"offered", "classes", "stretch_p90", "control_share_mean"} <= set(figures)
    assert figures["simulated_s"] == 2160


MANY_FAULTS = """
name = "small"
text = "forty meters, relays that die, and one isolation of each kind"
hours = 30.0
forming_s = 1200.0
draining_s = 300.0
cipher = "fast"

[settlement]
meters = 40
collectors = 2

[load]
c1_per_day = 5.0

[[faults]]
kind = "crash"
whom = "relays"
share = 0.3
at_s = 2400.0

[isolations]
each = 1
settle_s = 300.0
"""


def test_json_has_the_keys_that_were_agreed_down_to_the_last(
    tmp_path: Path, capsys: Output
) -> None:
    path = tmp_path / "small.toml"
    path.write_text(MANY_FAULTS)
    assert cli.main(["simulate", str(path), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    kinds = {"C1", "C2", "C3", "C4"}
    assert set(figures["offered"]) == kinds | {"on_demand", "octets"}
    assert {"C1", "C4"} <= set(figures["classes"]) <= kinds
    for row in figures["classes"].values():
        assert set(row) == {"sent", "within_limit", "limit_s"}
    assert set(figures["daily_reports"]) == {"expected", "in_window", "eventually"}
    assert set(figures["on_demand"]) == {
        "asked", "within_30s", "within_60s", "p50_s", "p95_s", "p99_s", "by_hops",
    }  # fmt: skip
    for row in figures["on_demand"]["by_hops"].values():
        assert set(row) == {"asked", "p50_s", "p99_s"}
    assert set(figures["repair"]) == {
        "orphans", "within_1s", "routed_within_60s", "noticed_p85_s",
    }  # fmt: skip
    assert set(figures["isolation"]) == {"cases", "right", "wrong_certain"}
    assert figures["isolation"]["cases"] == 5
    assert figures["repair"]["orphans"] > 0


def test_table_says_what_a_person_wants_to_know(capsys: Output) -> None:
    assert cli.main(["simulate", "street", "--hours", "0.6"]) == 0
    said = capsys.readouterr().out
    for word in ("25 meters, 2 collectors", "joined", "stretch", "control", "history"):
        assert word in said


def test_profile_changes_the_history(capsys: Output) -> None:
    said = []
    for profile in ("rfc8036", "lab"):
        cli.main(["simulate", "street", "--hours", "0.1", "--profile", profile])
        said.append(capsys.readouterr().out.rsplit("history ", 1)[1])
    assert said[0] != said[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["stret"], "no scenario 'stret': expected one of"),
        (["street", "--profile", "x"], "no profile 'x': expected one of"),
        (["street", "--rate", "1"], "1 bit/s is not a rate of ref-915"),
        (["street", "--pcap", "/nowhere/x.pcapng"], "/nowhere/x.pcapng cannot be written"),
        (["/nowhere/x.toml"], "/nowhere/x.toml cannot be read"),
    ],
)
def test_mistake_is_one_line_and_exit_code_one(
    arguments: list[str], line: str, capsys: Output
) -> None:
    assert cli.main(["simulate", *arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("mesh: ")
    assert line in said.err


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--hours", "0"], ["--hours", "nan"]])
def test_wrong_command_line_is_exit_code_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["simulate", "street", *arguments])
    assert raised.value.code == 2


def test_plot_without_its_extra_says_so_before_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    def missing(name: str, *rest: object) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name="matplotlib")

    monkeypatch.setattr(importlib, "import_module", missing)
    assert cli.main(["simulate", "city", "--plot", str(tmp_path / "x.png")]) == 1
    assert "install amistack with its `plot` extra" in capsys.readouterr().err


def never(*rest: object, **named: object) -> None:
    raise AssertionError("it ran")


@pytest.mark.parametrize("name", ["map.xyz", "map", ".png", "map.", "map.pgf"])
def test_plot_of_an_unknown_kind_is_refused_before_the_run(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(run_module, "simulate", never)
    assert cli.main(["simulate", "street", "--plot", str(tmp_path / name)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    for suffix in (".png", ".svg", ".pdf"):
        assert suffix in said.err.split("must end with one of")[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--plot", "--pcap", "--into"])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("folder.png", "folder.png cannot be written: it is a folder"),
        ("", "cannot be written: it is a folder"),
        ("no/x.png", "no is not a folder"),
        ("file.png/x.png", "file.png is not a folder"),
        ("x" * 300 + ".png", "cannot be written: File name too long"),
    ],
)
def test_output_that_can_be_no_file_is_refused_before_the_run(
    option: str,
    name: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(run_module, "simulate", never)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.png").touch()
    command = "figures" if option == "--into" else "simulate"
    assert cli.main([command, "street", option, str(tmp_path / name)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert line in said.err
    assert {path.name for path in tmp_path.iterdir()} == {"folder.png", "file.png"}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("new.png", "nothing may be made"),
        ("old.png", "old.png cannot be written: it may not be changed"),
    ],
)
def test_output_without_the_right_to_write_is_refused(
    name: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "old.png").touch()
    check_output(tmp_path / name)
    # Not by modes: whoever runs the tests may have every right.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=line):
        check_output(tmp_path / name)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A file that can be opened and takes nothing."""
    path = tmp_path / "full.svg"
    path.symlink_to("/dev/full")
    return path


def test_figures_are_printed_though_the_map_fails(capsys: Output, full: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["simulate", "street", "--hours", "0.05", "--json", "--plot", str(full)]
    assert cli.main(arguments) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["simulated_s"] == 180
    assert said.err == f"mesh: {full} cannot be written: No space left on device\n"


@pytest.mark.parametrize("hours", ["0.002", "0.3"])
def test_capture_that_the_disk_refuses_does_not_end_the_run(
    hours: str, capsys: Output, full: Path
) -> None:
    """Refused when the file is closed, and long before."""
    arguments = ["simulate", "street", "--hours", hours, "--json"]
    assert cli.main(arguments) == 0
    alone = json.loads(capsys.readouterr().out)
    assert cli.main([*arguments, "--pcap", str(full)]) == 1
    said = capsys.readouterr()
    captured = json.loads(said.out)
    for taken in ("wall_s", "cpu_s"):
        del alone[taken], captured[taken]
    assert captured == alone
    assert said.err == f"mesh: {full} lacks the end of the run: No space left on device\n"


def test_section_that_its_file_does_not_take_is_printed(
    capsys: Output, full: Path, tmp_path: Path
) -> None:
    scenario = tmp_path / "tiny.toml"
    scenario.write_text('name = "tiny"\ntext = "x"\nhours = 0.05\n[settlement]\nmeters = 3\n')
    assert cli.main(["figures", str(scenario), "--into", str(full)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("## tiny\n")
    assert said.err == f"mesh: {full} cannot be written: No space left on device\n"


def test_plot_draws_the_map(street: tuple[Run, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw(street[0], tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_scenarios_are_listed_with_what_they_are(capsys: Output) -> None:
    assert cli.main(["scenarios"]) == 0
    assert capsys.readouterr().out.count("\n") == 7


def test_progress_goes_to_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(cli, "PROGRESS_LINE_EVERY_S", 0.0)
    assert cli.main(["simulate", "street", "--hours", "0.05", "--json"]) == 0
    said = capsys.readouterr()
    assert "100%" in said.err
    json.loads(said.out)


def test_interrupted_program_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*rest: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(builtins, "print", broken)
    assert cli.main(["scenarios"]) == 130


@pytest.mark.parametrize("size", [0, 1, 60, 1280])
def test_fast_cipher_has_the_sizes_of_the_real_one(size: int) -> None:
    fast, real = (make(NETWORK_KEY) for make in (FastCipher, CIPHERS["aes-ccm"]))
    nonce, text = bytes(13), bytes(size)
    assert len(fast.seal(nonce, text, b"h")) == len(real.seal(nonce, text, b"h"))
    assert len(fast.tag(nonce, b"h")) == len(real.tag(nonce, b"h"))
    sealed = fast.seal(nonce, text, b"h")
    assert fast.open(nonce, sealed, b"h") == text
    assert fast.open(nonce, sealed, b"g") is None
    assert fast.open(b"n" * 13, sealed, b"h") is None
    assert fast.fits(nonce, fast.tag(nonce, b"h"), b"h")
    assert not fast.fits(nonce, fast.tag(nonce, b"h"), b"g")


@pytest.mark.parametrize("octets", [b"", b"x", bytes(40), b"\x20" * 40])
def test_frame_that_is_none_has_no_packet(octets: bytes) -> None:
    assert packet_in(octets, None, FastCipher(NETWORK_KEY)) is None
