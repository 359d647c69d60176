"""Check sums of meters' telegrams: CRC-16 as the catalogues name them, by table.

Spec    ARC (DSMR P1), IBM-SDLC also called X.25 and KERMIT (SML transport)
"""

from __future__ import annotations

from typing import Final


def _table(polynomial: int) -> tuple[int, ...]:
    """The remainders of one octet; `polynomial` with its lowest power in the highest bit."""
    table = []
    for octet in range(256):
        rest = octet
        for _ in range(8):
            rest = rest >> 1 ^ (polynomial if rest & 1 else 0)
        table.append(rest)
    return tuple(table)


_ARC: Final = _table(0xA001)
_CCITT: Final = _table(0x8408)


def _run(table: tuple[int, ...], data: bytes, rest: int) -> int:
    for octet in data:
        rest = rest >> 8 ^ table[(rest ^ octet) & 0xFF]
    return rest


def crc16_arc(data: bytes) -> int:
    """CRC-16/ARC, 0xBB3D of `123456789`."""
    return _run(_ARC, data, 0)


def crc16_x25(data: bytes) -> int:
    """CRC-16/IBM-SDLC, 0x906E of `123456789`."""
    return _run(_CCITT, data, 0xFFFF) ^ 0xFFFF


def crc16_kermit(data: bytes) -> int:
    """CRC-16/KERMIT, 0x2189 of `123456789`."""
    return _run(_CCITT, data, 0)
