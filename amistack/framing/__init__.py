"""Frames, and finding them again in TCP streams and on serial lines."""

from amistack.framing.carriers import Carrier, Deframer, Skipped
from amistack.framing.frame import Frame, FrameOption, Kind, OptionNumber, Priority, destination
from amistack.framing.peer import (
    Closed,
    Ending,
    Event,
    FramedPeer,
    FramePassed,
    FrameReceived,
    Opened,
)
from amistack.framing.serial import SERIAL, SerialDeframer
from amistack.framing.stream import TCP, StreamDeframer

__all__ = [
    "SERIAL",
    "TCP",
    "Carrier",
    "Closed",
    "Deframer",
    "Ending",
    "Event",
    "Frame",
    "FrameOption",
    "FramePassed",
    "FrameReceived",
    "FramedPeer",
    "Kind",
    "Opened",
    "OptionNumber",
    "Priority",
    "SerialDeframer",
    "Skipped",
    "StreamDeframer",
    "destination",
]
