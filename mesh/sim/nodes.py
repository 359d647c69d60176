"""The real node behind the simulator's door.

Gives   stations with the network key, each with a disk of its own: what a node put there
        outlives its power
Never   touches how a node routes
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from amistack.errors import MeshError, TableFull
from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.fragments import FragmentSettings
from mesh.packet import NO_ADDRESS, ROOT, Packet, PacketKind
from mesh.reports import Reason
from mesh.routing.dao import Route
from mesh.routing.events import PacketReceived, RouteChanged
from mesh.routing.node import MeshNode, Role
from mesh.routing.profile import Profile, load_profile
from mesh.security import AesCcm, Cipher, CountersWanted, Seal
from mesh.security.frame import ACK_TAG_SIZE, TAG_SIZE, FrameHeader, FrameType
from mesh.sim.capture import Capture
from mesh.sim.machine import NodeMachine
from mesh.sim.scenario import Scenario, radio_of
from mesh.station.station import Station

NETWORK_KEY: Final = bytes(range(16))
"""Of simulated networks alone."""
KEY_INDEX: Final = 1
DODAG_ID: Final = bytes.fromhex("fd00 0000 0000 0000 0000 0000 0000 0001")
FIRST_VERSION: Final = 240


class FastCipher:
    """A checksum in place of a cipher, with its sizes: for worlds in which nobody lies."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = zlib.crc32(key)

    def seal(self, nonce: bytes, plaintext: bytes, header: bytes) -> bytes:
        """The plaintext, and a checksum as long as a tag."""
        checksum = zlib.crc32(nonce + header + plaintext, self._key)
        return plaintext + checksum.to_bytes(TAG_SIZE, "big")

    def open(self, nonce: bytes, sealed: bytes, header: bytes) -> bytes | None:
        """The plaintext, or None where the checksum does not fit."""
        plaintext = sealed[:-TAG_SIZE]
        checksum = zlib.crc32(nonce + header + plaintext, self._key)
        return plaintext if sealed[-TAG_SIZE:] == checksum.to_bytes(TAG_SIZE, "big") else None

    def tag(self, nonce: bytes, header: bytes) -> bytes:
        """The checksum of an acknowledgement."""
        return zlib.crc32(nonce + header, self._key).to_bytes(ACK_TAG_SIZE, "big")

    def fits(self, nonce: bytes, tag: bytes, header: bytes) -> bool:
        """Whether it is right."""
        return tag == self.tag(nonce, header)


CIPHERS: Final[dict[str, Callable[[bytes], Cipher]]] = {"aes-ccm": AesCcm, "fast": FastCipher}


@dataclass(slots=True)
class _Disk:
    """What a node keeps without power."""

    counter: int = 0
    path_sequence: int | None = None
    version: int = FIRST_VERSION
    dtsn: int | None = None
    report_sequence: int = 0
    has_lived: bool = False
    routes: dict[int, Route] = field(default_factory=dict)
    """A collector's table, each row as it was when it changed."""
    neighbours: dict[int, Eui64] = field(default_factory=dict)
    """A collector's neighbours by their short address."""


@dataclass(slots=True)
class MeshRouter:
    """`mesh.sim.router.Router` with the real node."""

    addresses: Sequence[Eui64]
    profile: Profile
    make_cipher: Callable[[bytes], Cipher]
    sensitivity_dbm: float
    fragments: FragmentSettings | None = None
    """For a radio whose frames are too short for some packets."""
    disks: list[_Disk] = field(init=False)
    numbers: dict[Eui64, int] = field(init=False)
    queue_bound: int = field(init=False)

    def __post_init__(self) -> None:
        self.disks = [_Disk() for _ in self.addresses]
        self.numbers = {address: number for number, address in enumerate(self.addresses)}
        # Eight queues, what waits for a way up (as many as one queue), and the one in flight.
        self.queue_bound = (len(Priority) + 1) * self.profile.links.queue_count_max + 1

    def make(self, number: int, *, is_root: bool, chance: random.Random, now: float) -> NodeMachine:
        """A new life of node `number`, with what it kept from an earlier one."""
        disk = self.disks[number]
        seal = Seal(
            self.addresses[number],
            {KEY_INDEX: NETWORK_KEY},
            active=KEY_INDEX,
            stored_counter=disk.counter,
            make_cipher=self.make_cipher,
        )
        node = MeshNode(
            self.addresses[number],
            short_address(number),
            seal,
            self.profile,
            chance,
            role=Role.COLLECTOR if is_root else Role.METER,
            dodag_id=DODAG_ID if is_root else None,
            version=disk.version,
            path_sequence=disk.path_sequence,
            dtsn=disk.dtsn,
            sensitivity_dbm=self.sensitivity_dbm,
        )
        if node.routes is not None:
            node.routes.rows.update(
                (target, row) for target, row in disk.routes.items() if row.expires_at > now
            )
        # Before the first frame there is a block of counters on disk.
        for event in seal.events():
            self._reserve(number, node, event)
        boot = Reason.POWER_RESTORED if disk.has_lived else Reason.COLD_BOOT
        disk.has_lived = True
        station = Station(
            node,
            chance,
            boot=boot,
            report_sequence=disk.report_sequence,
            fragments=self.fragments,
        )
        station.start(now=now)
        for short, address in disk.neighbours.items():
            node.dodag.note_address(address, short, now=now)
        return station

    def send(
        self,
        machine: NodeMachine,
        payload: bytes,
        *,
        destination: int | None,
        priority: int,
        attempt: int,
        now: float,
    ) -> bool:
        """Send to a node, or to the root if None. False if the node takes nothing now."""
        station = _station(machine)
        to = ROOT if destination is None else short_address(destination)
        try:
            return station.send(
                payload, destination=to, priority=Priority(priority), now=now, attempt=attempt
            )
        except TableFull:
            return False

    def take(self, number: int, machine: NodeMachine, event: object) -> tuple[int, bytes] | None:
        """Do what the event asks for; source and payload, if it is a packet that arrived."""
        if isinstance(event, PacketReceived) and event.kind == PacketKind.COAP:
            return event.source - 1, event.payload
        if isinstance(event, RouteChanged):
            self.disks[number].routes[event.target] = Route(
                event.parents, event.path_sequence, event.expires_at
            )
        self._reserve(number, mesh_node(machine), event)
        return None

    def _reserve(self, number: int, node: MeshNode, event: object) -> None:
        if isinstance(event, CountersWanted):
            self.disks[number].counter = event.until
            node.counters_reserved(event.until)

    def stopped(self, number: int, machine: NodeMachine) -> None:
        """The node loses power: what it wrote when it changed is on its disk."""
        node = mesh_node(machine)
        self.disks[number].report_sequence = _station(machine).report_sequence
        self.disks[number].path_sequence = node.dao.path_sequence
        if node.role is Role.COLLECTOR:
            self.disks[number].version = node.dodag.version
            self.disks[number].dtsn = node.dodag.dtsn
            self.disks[number].neighbours = {
                row.short: row.eui for row in node.dodag.neighbours if row.short != NO_ADDRESS
            }

    def parents(self, machine: NodeMachine) -> Sequence[int]:
        """Whom the node sends upward to, the preferred first."""
        numbers = self.numbers
        return [numbers[row.eui] for row in _station(machine).node.dodag.place.parents]

    def route(self, root: NodeMachine, number: int, *, now: float) -> Sequence[int] | None:
        """The nodes that a packet from this root crosses, `number` last; None if unknown."""
        relays = mesh_node(root).route_to(short_address(number), now=now)
        return None if relays is None else [*(relay - 1 for relay in relays), number]

    def set_ground(self, root: NodeMachine, *, has_ground: bool, now: float) -> None:
        """Tell a root whether it has a connection to the head-end, and so everybody below it."""
        mesh_node(root).set_ground(has_ground=has_ground, now=now)

    def queue_share(self, machine: NodeMachine) -> float:
        """How full all queues of the node together are, 1 being their bound."""
        return _station(machine).node.queue_length / self.queue_bound


def make_mesh_router(addresses: Sequence[Eui64], scenario: Scenario) -> MeshRouter:
    """The router that a scenario asks for.

    Raises ConfigError for a profile that there is not, and for a radio with too short frames.
    """
    radio = radio_of(scenario)
    return MeshRouter(
        addresses,
        load_profile(scenario.profile),
        # All nodes have one key: one cipher made ready serves them all.
        cache(CIPHERS[scenario.cipher]),
        radio.sensitivity_dbm,
        FragmentSettings.where_needed(radio.frame_octets_max, overhead=radio.mac_octets),
    )


def short_address(number: int) -> int:
    """The 16-bit address of a simulated node."""
    return number + 1


def mesh_node(machine: NodeMachine) -> MeshNode:
    """The router in a machine that `MeshRouter` made."""
    return _station(machine).node


def _station(machine: NodeMachine) -> Station:
    assert isinstance(machine, Station)
    return machine


def packet_in(octets: bytes, destination: Eui64 | None, cipher: Cipher) -> Packet | None:
    """What a frame carries, for whoever knows the network key; None for an acknowledgement."""
    try:
        header = FrameHeader.decode(octets)
        if header.type is not FrameType.DATA:
            return None
        covered = octets[: header.size] + (destination or b"")
        nonce = header.source + header.counter.to_bytes(4, "big") + bytes((header.key_index,))
        plaintext = cipher.open(nonce, octets[header.size :], covered)
        return None if plaintext is None else Packet.decode(plaintext)
    except MeshError:
        return None


def capture_of(path: Path, addresses: Sequence[Eui64], scenario: Scenario) -> Capture:
    """A capture that can read the frames of a scenario's nodes. Raises ConfigError."""
    cipher = CIPHERS[scenario.cipher](NETWORK_KEY)
    return Capture(
        path, addresses, lambda octets, to: packet_in(octets, to, cipher), prefix=DODAG_ID[:8]
    )
