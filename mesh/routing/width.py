"""How wide the area is in which a node lives, by the ETX of its own path to the root.

An area that is twice as wide has four times as many nodes, and the air around its one root is the
same: what all of them say to the root is said as much more seldom.
"""

from __future__ import annotations

from typing import Final

WIDE_ETX: Final = 4.0
"""From a path of so much ETX on the width of an area makes a difference."""


def width_of(path_etx: float) -> float:
    """How many times as many nodes are around the root as in an area of WIDE_ETX, at least 1."""
    return max(1.0, (path_etx / WIDE_ETX) ** 2)
