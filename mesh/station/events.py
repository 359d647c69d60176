"""What a station has to say besides what its node does."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.packet import Packet
from mesh.routing import events as routing
from mesh.station.echo import Echo


@dataclass(frozen=True, slots=True)
class EchoAnswered:
    """The end of a way answered our question."""

    echo: Echo


@dataclass(frozen=True, slots=True)
class ReportMade:
    """At a collector: its own topology report. A meter's goes out by itself."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class PacketArrived:
    """A packet of ours that went in fragments is whole at its destination."""

    packet: Packet


Event = routing.Event | EchoAnswered | PacketArrived | ReportMade
