"""A head-end tells a meter which key of its is to be trusted from now on.

Spec    docs/protocol/identity.md, "Changing the head-end's key"
Raises  ModelError on octets that are no such message; what the statement is worth is not said here
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amistack.model import wire

STATEMENT_SIZE_MAX: Final = 256
ROOT_SIZE: Final = 33


@dataclass(frozen=True, slots=True)
class HeadEndKeyNotice:
    """A root's signed statement about a key, and the root's public key for who has none yet."""

    statement: bytes
    root: bytes | None = None

    def __post_init__(self) -> None:
        wire.octets(self.statement, 1, STATEMENT_SIZE_MAX, "statement")
        if self.root is not None:
            wire.octets(self.root, ROOT_SIZE, ROOT_SIZE, "root")

    def encode(self) -> bytes:
        """The notice's one encoding."""
        return wire.dump([self.statement, self.root or b""])

    @classmethod
    def decode(cls, data: bytes) -> HeadEndKeyNotice:
        """The notice that `data` is the encoding of."""
        items = wire.array(wire.load(data), 2, 2, "key notice")
        root = wire.octets(items[1], 0, ROOT_SIZE, "root")
        return cls(wire.octets(items[0], 1, STATEMENT_SIZE_MAX, "statement"), root or None)
