"""All that a meter held at one moment, as it said it."""

from __future__ import annotations

from dataclasses import dataclass

from amistack.identifiers import Eui64


@dataclass(frozen=True, slots=True)
class Download:
    """A meter's dump: the encodings of its pages, in order, and the path of the last one."""

    meter: Eui64
    pages: tuple[bytes, ...]
    path: str
