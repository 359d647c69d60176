"""Packets that are longer than a frame: cut, passed on by labels, put together, recovered."""

from mesh.fragments.codec import Fragment, FragmentAck, is_control, is_fragment
from mesh.fragments.events import (
    Event,
    FragmentFrame,
    Onward,
    PacketAbandoned,
    PacketDelivered,
    PacketLost,
    PacketPutTogether,
    Router,
)
from mesh.fragments.machine import Fragments
from mesh.fragments.settings import FragmentSettings

__all__ = [
    "Event",
    "Fragment",
    "FragmentAck",
    "FragmentFrame",
    "FragmentSettings",
    "Fragments",
    "Onward",
    "PacketAbandoned",
    "PacketDelivered",
    "PacketLost",
    "PacketPutTogether",
    "Router",
    "is_control",
    "is_fragment",
]
