"""Where recorded data lies that is too large, or not ours, to keep in the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "AMISTACK_TEST_DATA"
BESIDE = Path(__file__).parents[2].parent / "shared" / "research" / "data"


def recorded_data() -> Path:
    """The folder of recorded data; the test is skipped without it, and fails in CI."""
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else BESIDE
    if folder.is_dir():
        return folder
    reason = f"no recorded data in {folder}: set {VARIABLE} to the folder that has `interval` in it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
