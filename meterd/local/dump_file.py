"""A dump in a file: its pages as they came, one after the other (RFC 8742).

Raises  ConfigError, one line, for a file that is no dump or not a whole one
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cbor2

from amistack.errors import ConfigError, ModelError
from amistack.model.dump import PACKED_SIZE_MAX, PAGE_COUNT_MAX, DumpPage, DumpPart
from amistack.model.wire import dump

FILE_SIZE_MAX: Final = PAGE_COUNT_MAX * (PACKED_SIZE_MAX + 64)


def write_dump(path: Path, pages: Sequence[DumpPage]) -> None:
    """Keep a dump."""
    try:
        path.write_bytes(b"".join(page.encode() for page in pages))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def read_dump(path: Path) -> list[DumpPart]:
    """The parts of a dump."""
    try:
        octets = path.read_bytes() if path.stat().st_size <= FILE_SIZE_MAX else b""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    stream = io.BytesIO(octets)
    pages: list[DumpPage] = []
    try:
        while stream.tell() < len(octets):
            pages.append(DumpPage.decode(dump(cbor2.load(stream))))
        parts = [part for page in pages for part in page.parts()]
    except Exception as error:  # cbor2 leaks what its tags raise
        reason = error.reason if isinstance(error, ModelError) else "not CBOR"
        raise ConfigError(f"{path} is no dump of a meter: {reason}") from error
    if not pages or [page.number for page in pages] != list(range(pages[0].count)):
        raise ConfigError(f"{path} is no dump of a meter, or a part of one")
    return parts
