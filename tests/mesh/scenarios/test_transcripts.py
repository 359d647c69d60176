"""What happens in small worlds, word for word: a change of behaviour that nobody meant is a diff.

RENEW_TRANSCRIPTS=1 writes the files anew instead of comparing them: read the diff before it is
committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.sim.scenario import scenarios
from tests.mesh.scenarios.transcripts import run

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_transcript_is_as_it_was(file: Path) -> None:
    text = file.read_text()
    told = run(text)
    if os.environ.get("RENEW_TRANSCRIPTS") == "1":
        file.write_text(told)
    else:
        assert told == text


def test_every_scenario_says_what_it_is_about() -> None:
    assert len(FILES) >= 6
    for file in FILES:
        assert file.read_text().startswith("# ")


def test_every_scenario_in_the_box_has_its_transcript() -> None:
    played = {
        line.split()[1]
        for file in FILES
        for line in file.read_text().splitlines()
        if line.startswith("scenario ")
    }
    assert played == set(scenarios())
