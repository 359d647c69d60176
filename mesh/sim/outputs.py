"""Files that a command writes when its run is over: what cannot be one is refused before.

Gives   `check_output`
Raises  ConfigError with one line
Never   makes, opens or changes the file: a run that is interrupted leaves it as it was
"""

from __future__ import annotations

import os
from pathlib import Path

from amistack.errors import ConfigError


def check_output(path: Path) -> None:
    """Raises ConfigError where no file of that name could be written, as far as can be known."""
    try:
        obstacle = _obstacle(path)
    except OSError as error:
        obstacle = error.strerror or str(error)
    if obstacle:
        raise ConfigError(f"{path} cannot be written: {obstacle}")


def _obstacle(path: Path) -> str:
    if path.is_dir():
        return "it is a folder"
    if not path.parent.is_dir():
        return f"{path.parent} is not a folder"
    if path.exists():
        return "" if os.access(path, os.W_OK) else "it may not be changed"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"in {path.parent} nothing may be made"
    return ""
