"""Programs of Debian that judge what we made: not ours, so not among the Python packages."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(binary: str, package: str) -> str:
    """The path of `binary`. Without it the test is skipped, and fails in CI."""
    found = shutil.which(binary)
    if found is not None:
        return found
    reason = f"{binary} is not installed: apt-get install -y {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
