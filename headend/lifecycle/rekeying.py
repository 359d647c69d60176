"""Seal a head-end's keys at rest under another secret, while it is stopped.

Key files one after the other, then the store in one transaction. What is done already is passed
over, so that a run that was cut short is taken up by the next one with the same two secrets.

Raises  ConfigError, StoreError: one line
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amistack.errors import ConfigError
from amistack.keystore import is_encrypted, load_key, replace_key


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """How many key files were written anew, and how many had the new secret already."""

    written: int
    done: int


def key_files(key: Path) -> list[Path]:
    """The key file that the settings name, and every other of this head-end's, retired ones too."""
    others = sorted(key.parent.glob(f"{key.stem}-*{key.suffix}"))
    return [key, *(file for file in others if file != key)]


def rekey_files(files: list[Path], *, old: bytes | None, new: bytes) -> Rekeyed:
    """Write each key file anew under the secret `new`; it opens with `new`, `old` or as it is."""
    written = 0
    for file in files:
        if is_encrypted(file):
            if _opens(file, new):
                continue
            if old is None:
                raise ConfigError(f"{file} is not opened by this secret: name the one it has now")
            key = load_key(file, old)
        else:
            key = load_key(file)
        replace_key(file, key, new)
        written += 1
    return Rekeyed(written, len(files) - written)


def _opens(file: Path, secret: bytes) -> bool:
    try:
        load_key(file, secret)
    except ConfigError:
        return False
    return True
