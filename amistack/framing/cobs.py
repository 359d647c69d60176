"""Consistent Overhead Byte Stuffing: octets without a zero among them, and back.

Spec    S. Cheshire and M. Baker, Consistent Overhead Byte Stuffing, IEEE/ACM Transactions on
        Networking 7(2), 1999
Raises  FrameError, reason `not cobs`, where a block is cut off or a zero is inside
Limit   none of its own: one octet more for each 254, and at least one; callers bound their input
"""

from __future__ import annotations

from typing import Final

from amistack.errors import FrameError

BLOCK_SIZE_MAX: Final = 254


def encoded_size_max(size: int) -> int:
    """How many octets `size` octets may become (the delimiter not counted)."""
    return size + max(1, -(-size // BLOCK_SIZE_MAX))


def encode(octets: bytes) -> bytes:
    """`octets` as blocks, each behind an octet that says where the next zero would stand.

    A full block at the very end stands alone: no empty one comes behind it.
    """
    blocks: list[bytes] = []
    runs = octets.split(b"\0")
    last_index = len(runs) - 1
    for index, run in enumerate(runs):
        place, size = 0, len(run)
        while size - place >= BLOCK_SIZE_MAX:
            blocks += (b"\xff", run[place : place + BLOCK_SIZE_MAX])
            place += BLOCK_SIZE_MAX
        if place < size or index < last_index or not size:
            blocks += (bytes((size - place + 1,)), run[place:])
    return b"".join(blocks)


def decode(octets: bytes) -> bytes:
    """What `encode` made these of. An empty block behind a full one is taken as well.

    Raises FrameError.
    """
    if not octets or 0 in octets:
        raise FrameError("not cobs", "empty" if not octets else "a zero inside")
    parts = []
    place, end = 0, len(octets)
    while place < end:
        code = octets[place]
        block_end = place + code
        if block_end > end:
            raise FrameError("not cobs", f"block of {code} octets, {end - place} are left")
        parts.append(octets[place + 1 : block_end])
        if code <= BLOCK_SIZE_MAX and block_end < end:
            parts.append(b"\0")
        place = block_end
    return b"".join(parts)
