"""`meterd sources`: every source with an example that works when it is copied.

The contract under test: there is an entry for each source that the settings know, and no other;
its example is accepted, as it stands and with any of its commented lines that fit.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from amistack import settings as toml
from meterd.cli import main
from meterd.config import _SOURCE_KEYS, MetrologySettings
from meterd.sources import SOURCES, SourceHelp, listing


def test_every_source_is_listed_and_no_other() -> None:
    assert {one.name for one in SOURCES} == set(_SOURCE_KEYS)
    assert len(SOURCES) == len(_SOURCE_KEYS)


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: one.name)
def test_example_is_accepted_as_it_stands(source: SourceHelp, tmp_path: Path) -> None:
    table = tomllib.loads(source.text)["metrology"]
    made = toml.build(table, MetrologySettings, file=tmp_path / "meterd.toml")
    assert isinstance(made, MetrologySettings)
    assert made.source == source.name


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: one.name)
def test_commented_lines_of_an_example_are_settings_of_that_source(source: SourceHelp) -> None:
    for line in source.example:
        if line.startswith("# ") and "=" in line:
            (key,) = tomllib.loads(line[2:])
            assert key in _SOURCE_KEYS[source.name], line


def test_command_lists_all_or_one_and_names_a_close_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources"]) == 0
    assert capsys.readouterr().out == listing() + "\n"
    assert main(["sources", "sml"]) == 0
    out = capsys.readouterr().out
    assert out.count("[metrology]") == 1
    assert 'source = "sml"' in out
    assert main(["sources", "smll"]) == 1
    assert capsys.readouterr().err == "meterd: 'smll' is no source; did you mean sml?\n"


def test_what_is_not_installed_is_said() -> None:
    missing = SourceHelp("x", "X.", (), ("no_such_module_here",), "extra")
    assert "# Needs: pip install 'amistack[extra]' (not installed: no_such_module_here)" in (
        missing.text
    )


def test_manual_has_every_source_and_setting_of_real_meters() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "operating" / "metrology.md").read_text()
    for source in SOURCES:
        assert f'source = "{source.name}"' in manual or f"`{source.name}`" in manual
        if source.modules:
            for key in _SOURCE_KEYS[source.name]:
                assert f"`{key}`" in manual, f"{source.name}: {key}"
