"""Link security: what makes a frame of the area true, new, and its sender present."""

from mesh.security.cipher import KEY_SIZE, AesCcm, Cipher
from mesh.security.frame import ACK_SIZE, BROADCAST_OVERHEAD, UNICAST_OVERHEAD
from mesh.security.neighbours import Neighbours
from mesh.security.seal import (
    Acknowledged,
    Challenged,
    CountersWanted,
    Event,
    Heard,
    Received,
    Seal,
    Sealed,
)

__all__ = [
    "ACK_SIZE",
    "BROADCAST_OVERHEAD",
    "KEY_SIZE",
    "UNICAST_OVERHEAD",
    "Acknowledged",
    "AesCcm",
    "Challenged",
    "Cipher",
    "CountersWanted",
    "Event",
    "Heard",
    "Neighbours",
    "Received",
    "Seal",
    "Sealed",
]
