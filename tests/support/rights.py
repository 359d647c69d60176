"""Tests of file rights, for root too: root is nobody in particular for as long as it takes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65_534


@contextlib.contextmanager
def without_privilege() -> Iterator[Path]:
    """A folder of one's own, used as somebody to whom things can be forbidden."""
    is_root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp(prefix="rights-"))
    try:
        if is_root:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(folder)
