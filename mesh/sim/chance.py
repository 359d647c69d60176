"""Chance, split by purpose.

Gives   from one seed, a source of its own for every purpose that has a name: to draw once more
        for one purpose changes nothing for any other
Never   depends on the order in which purposes are asked for, or on PYTHONHASHSEED
"""

from __future__ import annotations

import hashlib
import random


class Chance:
    """All the dice of one world."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def of(self, purpose: str) -> random.Random:
        """New dice for `purpose`; the same name gives the same falls again."""
        digest = hashlib.blake2b(f"{self.seed}/{purpose}".encode(), digest_size=16).digest()
        return random.Random(int.from_bytes(digest, "big"))
