"""Published test vectors in our own format, one JSON file each, with its source and licence."""

from __future__ import annotations

import json
from importlib import resources
from typing import Final

LICENCE_FIELDS: Final = ("source", "licence")
"""What every file says about itself first."""


def load(name: str) -> object:
    """The content of `name`.json. Raises FileNotFoundError for a file that is not here."""
    text = resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text)


def names() -> list[str]:
    """Every file of vectors, without its suffix."""
    found = (file.name for file in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(".json") for name in found if name.endswith(".json"))
