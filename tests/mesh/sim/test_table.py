"""The table of figures: a goal that was missed is said, an old section is renewed, others stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mesh import cli
from mesh.sim import run as run_module
from mesh.sim.isolations import Case, IsolationCases
from mesh.sim.run import Run, simulate
from mesh.sim.scenario import Isolations, Load, Scenario, Settlement
from mesh.sim.table import HEAD, Row, renewed, rows, section
from mesh.topology.paths import Part, node_component
from tests.mesh.sim.worlds import FloodRouter

SMALL = Scenario(
    name="small",
    text="a test",
    hours=0.3,
    forming_s=60.0,
    draining_s=60.0,
    settlement=Settlement("street", 6, 1),
    load=Load(c1_per_day=200, c4_per_day=200, on_demand_per_day=200),
)


@pytest.fixture(scope="module")
def run() -> Run:
    return simulate(SMALL, FloodRouter, seed=1)


def with_figures(run: Run, **figures: object) -> dict[str, Row]:
    changed = dataclasses.replace(run, figures={**run.figures, **figures})
    return {row.name: row for row in rows(changed)}


def test_section_names_its_run_and_has_a_row_for_each_figure(run: Run) -> None:
    text = section(run)
    assert text.startswith("## small\n\na test; profile `rfc8036`, radio `ref-915`")
    assert "seed 1, 0.3 h simulated" in text
    for name in ("C1 within 5 s", "C4 in the end", "reads within 30 s", "what must never be"):
        assert f"| {name} |" in text


@pytest.mark.parametrize(("within", "is_met"), [(97, False), (98, True)])
def test_goal_of_a_class_is_met_or_missed_and_never_rounded(
    run: Run, within: int, is_met: bool
) -> None:
    classes = {"C1": {"sent": 100, "within_limit": within, "limit_s": 5.0}}
    row = with_figures(run, classes=classes)["C1 within 5 s"]
    assert row.is_met is is_met
    assert ("**no**" in str(row)) is not is_met
    assert f"{within} of 100 ({within}.00%)" in str(row)


@pytest.mark.parametrize(("stretch", "is_met"), [(1.2, True), (1.2001, False)])
def test_stretch_is_held_against_its_goal(run: Run, stretch: float, is_met: bool) -> None:
    assert with_figures(run, stretch_p90=stretch)["stretch of paths, p90"].is_met is is_met


@pytest.mark.parametrize(("frames", "is_met"), [(1000.0, True), (1000.1, False)])
def test_control_frames_are_held_against_their_goal_after_a_day(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, frames: float, is_met: bool
) -> None:
    def row() -> Row:
        counted = dataclasses.replace(run, control_frames_node_day=frames)
        return {each.name: each for each in rows(counted)}["control frames a node and day"]

    assert row().is_met is None
    monkeypatch.setattr(run.world.clock, "now", 86_400.0)
    assert row().is_met is is_met


@pytest.mark.parametrize(
    ("isolation", "is_right", "is_safe"),
    [
        ({"cases": 100, "right": 95, "wrong_certain": 0}, True, True),
        ({"cases": 100, "right": 94, "wrong_certain": 1}, False, False),
    ],
)
def test_isolations_are_held_against_both_goals(
    run: Run, isolation: dict[str, int], is_right: bool, is_safe: bool
) -> None:
    found = with_figures(run, isolation=isolation)
    assert found["isolations right"].is_met is is_right
    assert found["wrong though called certain"].is_met is is_safe


def test_reads_that_are_slow_for_their_hops_are_named(run: Run) -> None:
    by_hops = {
        "1": {"asked": 5, "p50_s": 1.3, "p99_s": 2.0},
        "3": {"asked": 5, "p50_s": 1.91, "p99_s": 2.0},
    }
    reads = {"asked": 10, "within_30s": 10, "within_60s": 10, "p50_s": 1.5, "p95_s": 2.0,
             "p99_s": 15.0, "by_hops": by_hops}  # fmt: skip
    found = with_figures(run, on_demand=reads)
    assert found["reads, p50"].is_met is False
    assert "too slow at 3 hops" in found["reads, p50"].value
    assert found["reads, p99"].is_met


def test_repair_and_restart_have_their_rows(run: Run) -> None:
    found = with_figures(
        run,
        repair={"orphans": 20, "within_1s": 17, "routed_within_60s": 19, "noticed_p85_s": 9.0},
        restart={"meters": 6, "reached_within_120s": 6, "without_parent": 0},
    )
    assert found["orphans with a new parent within 1 s"].is_met
    assert found["orphans routed within 60 s"].is_met is False
    assert found["read within 2 min of the collector's return"].is_met


def test_sections_are_renewed_and_others_kept() -> None:
    first = renewed("", {"b": "## b\n\nold\n"})
    assert first == HEAD + "\n## b\n\nold\n"
    both = renewed(first, {"a": "## a\n\nnew\n"})
    again = renewed(both, {"b": "## b\n\nnewer\n"})
    assert again == HEAD + "\n## a\n\nnew\n\n## b\n\nnewer\n"
    assert renewed(again, {}) == again


def test_command_renews_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "tiny.toml"
    scenario.write_text(
        'name = "tiny"\ntext = "x"\nhours = 0.05\ncipher = "fast"\n'
        "[settlement]\nmeters = 3\n[load]\n"
    )
    into = tmp_path / "figures.md"
    into.write_text(HEAD + "\n## other\n\nkept\n")
    assert cli.main(["figures", str(scenario), "--into", str(into)]) == 0
    assert capsys.readouterr().out == ""
    text = into.read_text()
    assert "## other\n\nkept\n" in text
    assert "## tiny\n" in text


def test_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["figures", "street", "--into", str(tmp_path / "no" / "x.md")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is not a folder" in said


def test_file_that_is_no_text_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*rest: object, **named: object) -> None:
        raise AssertionError("it ran")

    monkeypatch.setattr(run_module, "simulate", never)
    into = tmp_path / "figures.md"
    into.write_bytes(b"\xff\xfe")
    assert cli.main(["figures", "street", "--into", str(into)]) == 1
    assert capsys.readouterr().err == f"mesh: {into} cannot be read: it is no text\n"
    assert into.read_bytes() == b"\xff\xfe"


def test_cases_are_counted_by_part(run: Run) -> None:
    isolations = IsolationCases(run.world, Isolations(1))
    meter = node_component(run.world.stations.addresses[2])
    for is_right in (True, False):
        isolations.cases.append(
            Case(Part.METER, 2, meter, 0.0, 1.0, None, is_right, is_wrong_certain=not is_right)
        )
    assert isolations.counts()[Part.METER] == (2, 1, 1)
    assert isolations.counts()[Part.LINK] == (0, 0, 0)
