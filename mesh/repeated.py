"""By what a CoAP datagram is known when it is sent again, and for how long: up and down alike.

A datagram that the stack sends again is the same octets, so nobody need say that it is one.
"""

from __future__ import annotations

from typing import Final

MARK_SIZE: Final = 24
"""The first octets are enough: CoAP's header with its message ID, token, and OSCORE's number."""
MEMORY_S: Final = 120.0
"""So long after its last sending a datagram may be repeated (RFC 7252, MAX_TRANSMIT_WAIT 93 s)."""
ATTEMPT_MAX: Final = 255
"""Which repetition it is stands in one octet."""


def mark_of(datagram: bytes) -> bytes:
    """What tells it from others between the same two."""
    return datagram[:MARK_SIZE]
