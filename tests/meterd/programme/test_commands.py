"""`meterd programme`.

The contract under test: a whole programme is summed up and its octets written; a faulty one is told
fault by fault, with exit code 1 and nothing written; what a meter runs comes back as text.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from amistack.model.programme import Programme
from amistack.programme_text import parse_programme, write_programme
from meterd.cli import main
from meterd.daemon import load_settings
from meterd.programme.shelf import Shelf
from meterd.provision import CONFIG_FILE
from meterd.recording.plan import default_programme
from meterd.storage import PROGRAMME, Storage
from tests.meterd.programme.bench import (
    TARIFF_CHANNELS,
    TWO_TIERS,
    FineSource,
    programme,
)
from tests.meterd.test_provision import PUBLIC_KEY

WHOLE = programme(7, *TARIFF_CHANNELS, calendar=TWO_TIERS)


def written(folder: Path, wanted: Programme) -> Path:
    file = folder / "winter.toml"
    file.write_text(write_programme(wanted), encoding="utf-8")
    return file


def test_whole_programme_is_summed_up_and_its_octets_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    octets = tmp_path / "winter.cbor"
    assert main(["programme", "check", str(written(tmp_path, WHOLE)), "--output", str(octets)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"version 7, SHA-256 {WHOLE.digest.hex()}"
    assert said[-1] == "channel 12: delivered tier 2, every 86400 s"
    assert Programme.decode(octets.read_bytes()) == WHOLE


def test_faulty_programme_is_told_fault_by_fault_and_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, programme(0, *TARIFF_CHANNELS))
    octets = tmp_path / "winter.cbor"
    assert main(["programme", "check", str(file), "--output", str(octets)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split(": ")[1] for line in said.err.splitlines()] == [
        "version",
        "channel 11",
        "channel 12",
    ]
    assert not octets.exists()


def test_file_that_is_no_programme_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["programme", "check", str(tmp_path / "none.toml")]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The settings of a meter that was just made."""
    options = ["--headend", "127.0.0.1:9", "--headend-key", PUBLIC_KEY]
    assert main(["init", "--directory", str(tmp_path), *options]) == 0
    capsys.readouterr()
    return tmp_path / CONFIG_FILE


def storage_of(config: Path) -> Storage:
    return Storage.open(load_settings(config).meter.storage)


def show(config: Path) -> int:
    return main(["programme", "show", "--config", str(config)])


def test_what_a_meter_runs_comes_back_as_text(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = storage_of(config)
    shelf = Shelf(storage, default_programme(FineSource(), interval_s=900, offset_min=0))
    storage.close()
    assert show(config) == 0
    assert capsys.readouterr().out == "# no programme: it does what its settings say\n"

    storage = storage_of(config)
    shelf = Shelf(storage, default_programme(FineSource(), interval_s=900, offset_min=0))
    shelf.add(WHOLE, since=1_700_000_000, utc=1_700_000_000)
    shelf.add(programme(8), since=4_000_000_000, utc=1_700_000_000)
    storage.close()
    assert show(config) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[:2] == [
        "# version 8 waits until 2096-10-02T07:06:40Z",
        f"# in force since 2023-11-14T22:13:20Z, SHA-256 {WHOLE.digest.hex()}",
    ]
    assert parse_programme(said) == WHOLE


def test_programme_that_cannot_be_read_is_one_line(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = storage_of(config)
    storage.put((PROGRAMME, 1, [0, 2, b"\x80"]))
    storage.close()
    assert show(config) == 1
    said = capsys.readouterr().err
    assert "a programme that this meterd cannot read" in said
    assert said.count("\n") == 1
