"""Make a node of the mesh from what the settings say and the storage kept.

Raises  ConfigError: the network key, the profile, or a neighbour's name that nobody knows
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amistack.errors import ConfigError
from amistack.identifiers import Eui64
from amistack.keystore import load_network_key
from amistack.machine import Peer
from mesh.fragments import FragmentSettings
from mesh.reports import Reason
from mesh.routing.node import MeshNode, Role
from mesh.security import AesCcm, Cipher, Seal
from mesh.station.station import Station
from meterd.meshing.keeper import NodeKeeper
from meterd.meshing.settings import MeshSettings


@dataclass(frozen=True, slots=True)
class RadioTraits:
    """What a node has to know of its radio; frames over UDP have no strength."""

    sensitivity_dbm: float | None = None
    make_cipher: Callable[[bytes], Cipher] = AesCcm
    fragments: FragmentSettings | None = None
    """How packets are cut; None where frames have room for every packet, as over UDP."""


def make_station(
    own: Eui64,
    settings: MeshSettings,
    keeper: NodeKeeper,
    *,
    dice: random.Random,
    dodag_id: bytes | None = None,
    radio: RadioTraits = RadioTraits(),
) -> Station:
    """The node at work; with a DODAGID, that of a collector."""
    boot = Reason.POWER_RESTORED
    if keeper.path_sequence is None and not keeper.counter:
        boot = Reason.COLD_BOOT
    elif keeper.short not in (None, settings.short):
        boot = Reason.ADDRESS_CHANGED
    seal = Seal(
        own,
        {settings.key_index: load_network_key(settings.network_key)},
        active=settings.key_index,
        stored_counter=keeper.counter,
        make_cipher=radio.make_cipher,
    )
    node = MeshNode(
        own,
        settings.short,
        seal,
        settings.load_profile(),
        dice,
        role=Role.METER if dodag_id is None else Role.COLLECTOR,
        dodag_id=dodag_id,
        version=keeper.version,
        path_sequence=keeper.path_sequence,
        dtsn=keeper.dtsn,
        sensitivity_dbm=radio.sensitivity_dbm,
    )
    return Station(
        node,
        dice,
        boot=boot,
        report_sequence=keeper.begin_reports(),
        fragments=radio.fragments,
    )


async def find_neighbours(settings: MeshSettings) -> Sequence[Peer]:
    """The neighbours' socket addresses, as datagrams will come from them."""
    is_ipv6 = ":" in settings.host_and_port[0]
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    found: list[Peer] = []
    for host, port in settings.neighbour_addresses:
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(
                host, port, family=family, type=socket.SOCK_DGRAM
            )
        except (OSError, ValueError):
            infos = []
        if not infos:
            kind = "IPv6" if is_ipv6 else "IPv4"
            raise ConfigError(f"neighbours: {host!r} has no {kind} address that is known here")
        found.append(infos[0][4])
    return found
