"""The mesh: its decoders, and a node among neighbours that have the key and say what they like."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from amistack.errors import LocalProtocolError, MeshError, TableFull
from amistack.framing import Priority
from amistack.identifiers import Eui64
from interop.fuzz.target import Outcome, Reader, Target, Trail, promise, refusal
from mesh import backhaul
from mesh.backhaul import Command, Hello, Order, RouteRow, Up
from mesh.fragments.codec import Fragment, FragmentAck
from mesh.packet import (
    BROADCAST,
    ROOT,
    Attempt,
    Flood,
    Packet,
    PacketKind,
    RplMark,
    ShortAddress,
    SourceRoute,
)
from mesh.reports import LinkReport, Reason, TopologyReport
from mesh.routing import messages
from mesh.routing.messages import Dao, DaoAck, Dio, Dis, Transit, address_of
from mesh.routing.node import MeshNode, Role
from mesh.routing.profile import Profile, load_profile
from mesh.routing.route_errors import RouteError
from mesh.security import CountersWanted, Seal
from mesh.station.echo import Echo
from mesh.station.station import Station

KEY: Final = bytes(range(16))
DODAG_ID: Final = bytes.fromhex("fd000000000000000000000000000001")
OWN: Final = Eui64(bytes.fromhex("0200000000000001"))
NEIGHBOURS: Final = tuple(Eui64(bytes.fromhex(f"02000000000000{n:02x}")) for n in (2, 3))
OWN_SHORT: Final = 1
SHORTS: Final = (1, 2, 3, 4, 0xEA60, 0xFFFE)
STEP_COUNT_MAX: Final = 10
FRAME_COUNT_MAX: Final = 400
CALM_S: Final = 60.0


class _Encodable(Protocol):
    def encode(self) -> bytes: ...


# Decoders


def _exact(decode: Callable[[bytes], _Encodable], data: bytes) -> Outcome:
    """A decoder whose every message has one encoding."""
    try:
        message = decode(data)
    except MeshError as error:
        return refusal(error)
    promise(message.encode() == data, "a message has one encoding, and this is another")
    return type(message).__name__


def run_packet(data: bytes) -> Outcome:
    """A packet of the network layer."""
    try:
        packet = Packet.decode(data)
    except MeshError as error:
        return refusal(error)
    promise(packet.encode() == data, "a packet has one encoding, and this is another")
    options = (packet.rpl, packet.route, packet.flood, packet.attempt)
    return packet.kind, tuple(option is not None for option in options), len(packet.strange)


def run_rpl(data: bytes) -> Outcome:
    """A control message of RPL: what is skipped in it is not written again."""
    try:
        message = messages.decode(data)
    except MeshError as error:
        return refusal(error)
    if isinstance(message, Dis):
        return type(message).__name__
    try:
        again = messages.decode(message.encode())
    except LocalProtocolError as error:
        return type(message).__name__, refusal(error)
    promise(again == message, "what is written again reads otherwise")
    return type(message).__name__, getattr(message, "configuration", None) is not None


def run_backhaul(data: bytes) -> Outcome:
    """A message between a collector and the head-end."""
    try:
        message = backhaul.decode(data)
    except MeshError as error:
        return refusal(error)
    promise(backhaul.encode(message) == data, "a message has one encoding, and this is another")
    return type(message).__name__


_SMALL: Final[tuple[Callable[[bytes], _Encodable], ...]] = (
    TopologyReport.decode,
    Echo.decode,
    RouteError.decode,
    Fragment.decode,
    FragmentAck.decode,
)


def run_small(data: bytes) -> Outcome:
    """One octet that says which: a topology report, a probe, a route error, fragments."""
    which = data[0] % len(_SMALL) if data else 0
    return which, _exact(_SMALL[which], data[1:])


# A node


@functools.cache
def _profile() -> Profile:
    return load_profile("lab")


class _Play:
    """One station, and two neighbours whose frames are authentic whatever they say."""

    def __init__(self, *, is_root: bool) -> None:
        chance = random.Random(5)
        seal = Seal(OWN, {0: KEY}, active=0)
        self.node = MeshNode(
            OWN,
            OWN_SHORT,
            seal,
            _profile(),
            chance,
            role=Role.COLLECTOR if is_root else Role.METER,
            dodag_id=DODAG_ID if is_root else None,
        )
        self.station = Station(self.node, chance)
        self.others = tuple(Seal(eui, {0: KEY}, active=0) for eui in NEIGHBOURS)
        for other in self.others:
            for event in other.events():
                other.reserved(event.until)
        self.now = 0.0
        self.trail = Trail()
        self.frames = 0
        self.heard: list[bytes] = []
        self._take_events()
        self.station.start(now=0.0)
        self._collect()

    def step(self, reader: Reader) -> None:
        """One operation, as the input has it."""
        operation = reader.below(8)
        try:
            match operation:
                case 0:
                    self.station.receive_frame(reader.piece(), now=self.now)
                case 1:
                    self._say(reader, reader.piece())
                case 2 | 3:
                    self._say(reader, self._packet(reader).encode())
                case 4:
                    if self.heard:
                        frame = bytearray(self.heard[reader.below(len(self.heard))])
                        frame[reader.below(len(frame))] ^= reader.octet()
                        self.station.receive_frame(bytes(frame), now=self.now)
                case 5:
                    self._send(reader)
                case 6:
                    self._answer(reader)
                case _:
                    self._elapse(0.05 * (1 << reader.below(14)))
        except (LocalProtocolError, TableFull) as error:
            promise(operation in (2, 3, 5), "a machine never raises at what comes in")
            self.trail.note(refusal(error))
        self._collect()

    def _say(self, reader: Reader, payload: bytes) -> None:
        """A neighbour's frame, to this node or to all."""
        head = reader.octet()
        other = self.others[head & 1]
        try:
            sealed = other.seal(
                payload,
                destination=None if head & 2 else OWN,
                wants_ack=not head & 2 and bool(head & 4),
            )
        except LocalProtocolError:
            return
        self.heard = [*self.heard, sealed.octets][-8:]
        self.station.receive_frame(sealed.octets, now=self.now)
        if head & 8:
            self.station.receive_frame(sealed.octets, now=self.now)

    def _answer(self, reader: Reader) -> None:
        """A neighbour proves that it is there, if it was asked."""
        other = self.others[reader.below(2)]
        for octets in self.heard:
            try:
                heard = other.open(octets, now=self.now)
            except MeshError:
                continue
            if type(heard).__name__ == "Challenged":
                sealed = other.answer(heard, b"", now=self.now)  # type: ignore[arg-type]
                if sealed is not None:
                    self.station.receive_frame(sealed.octets, now=self.now)

    def _packet(self, reader: Reader) -> Packet:
        head = reader.octet()
        kinds = (PacketKind.RPL, PacketKind.COAP, PacketKind.TOPOLOGY, PacketKind.ROUTE_ERROR)
        kind: int = (*kinds, PacketKind.PROBE, PacketKind.RPL, PacketKind.RPL, 200)[head & 7]
        source, destination = self._short(reader), self._short(reader)
        payload = self._control(reader) if kind == PacketKind.RPL else reader.take(12)
        if kind == PacketKind.PROBE and head & 0x40:
            payload = Echo(reader.octet(), (2, OWN_SHORT)).encode()
        relays = tuple(self._short(reader) for _ in range(reader.below(4)))
        return Packet(
            kind,
            Priority(head >> 3 & 7),
            ShortAddress(source),
            (ROOT, BROADCAST, ShortAddress(destination), ShortAddress(OWN_SHORT))[head >> 6],
            payload,
            reader.below(66),
            RplMark(reader.number(2), is_down=bool(relays)) if reader.below(2) else None,
            SourceRoute(tuple(map(ShortAddress, relays))) if relays else None,
            Flood(reader.octet(), ShortAddress(self._short(reader))) if head == 0xFF else None,
            Attempt(reader.octet(), 1) if reader.below(4) == 0 else None,
        )

    def _control(self, reader: Reader) -> bytes:
        head = reader.octet()
        match head & 7:
            case 0:
                return Dis().encode()
            case 1 | 2 | 3:
                configuration = _profile().configuration if head & 8 else None
                version = (240, 241, reader.octet())[head >> 4 & 3 if head >> 4 & 3 < 3 else 0]
                rank = (128, 256, 700, 0xFFFF, reader.number(2))[reader.below(5)]
                return Dio(0, version, rank, reader.octet(), DODAG_ID, configuration).encode()
            case 4 | 5:
                parents = tuple(
                    Transit(
                        address_of(DODAG_ID, self._short(reader)),
                        (240, 241, reader.octet())[reader.below(3)],
                        (0, 30, 255)[reader.below(3)],
                        reader.octet(),
                    )
                    for _ in range(1 + reader.below(3))
                )
                target = address_of(DODAG_ID, self._short(reader))
                return Dao(0, reader.octet(), target, parents, bool(head & 8)).encode()
            case 6:
                return DaoAck(0, reader.octet(), reader.octet()).encode()
            case _:
                return reader.piece()

    def _short(self, reader: Reader) -> int:
        return SHORTS[reader.below(len(SHORTS))]

    def _send(self, reader: Reader) -> None:
        head = reader.octet()
        self.station.send(
            reader.take(8),
            destination=(ROOT, self._short(reader))[head & 1],
            priority=Priority(head >> 1 & 7),
            now=self.now,
            attempt=head >> 4 & 3,
            relays=(2, 3)[: reader.below(3)] if head & 0x80 else None,
        )

    def _elapse(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.station.next_timer()) is not None and due <= end:
            promise(due > self.now or self.frames < FRAME_COUNT_MAX, "an alarm that is still due")
            self.now = max(self.now, due)
            self.station.handle_timer(now=self.now)
            self._collect()
            self.frames += 1
            if self.frames > FRAME_COUNT_MAX:
                break
        self.now = end

    def _collect(self) -> None:
        count = 0
        while (frame := self.station.frame_to_send(now=self.now)) is not None:
            count += 1
            promise(count < FRAME_COUNT_MAX, "frames without an end")
            self.heard = [*self.heard, frame.octets][-8:]
            self.station.frame_sent(now=self.now, was_on_air=True)
        self._take_events()
        bound = 9 * _profile().links.queue_count_max + 1
        promise(self.node.queue_length <= bound, "a queue beyond its bound")

    def _take_events(self) -> None:
        for event in self.station.events():
            self.trail.note(type(event).__name__)
            if isinstance(event, CountersWanted):
                self.node.counters_reserved(event.until)

    def finish(self) -> Outcome:
        """Let time pass; what was refused and why is the outcome."""
        self.frames = 0
        self._elapse(CALM_S)
        for counter in (self.node.counters, self.node.seal.refused, self.station.counters):
            for reason in counter:
                self.trail.note(reason)
        return self.trail.outcome


def run_node(data: bytes) -> Outcome:
    """One octet that says whether it is a root, if it is odd; then operations."""
    reader = Reader(data[1:])
    play = _Play(is_root=bool(data and data[0] & 1))
    for _ in range(STEP_COUNT_MAX):
        if reader.is_spent:
            break
        play.step(reader)
    return play.finish()


# Seeds


def packet_seeds() -> Sequence[bytes]:
    """Packets with every option."""
    one, two = ShortAddress(1), ShortAddress(2)
    plain = Packet(PacketKind.COAP, Priority.ON_DEMAND, one, two, b"payload")
    return [
        plain.encode(),
        Packet(
            PacketKind.COAP,
            Priority.SCHEDULED,
            one,
            ROOT,
            b"x",
            9,
            RplMark(700, has_rank_error=True),
            attempt=Attempt(5, 2),
        ).encode(),
        Packet(
            PacketKind.RPL,
            Priority.CONTROL,
            one,
            two,
            b"y",
            9,
            RplMark(128, is_down=True),
            SourceRoute((ShortAddress(3), ShortAddress(4))),
        ).encode(),
        Packet(PacketKind.COAP, Priority.FIRMWARE, one, BROADCAST, flood=Flood(7, two)).encode(),
    ]


def rpl_seeds() -> Sequence[bytes]:
    """Each message, with its options."""
    parents = tuple(Transit(address_of(DODAG_ID, n), 241, 30, 0x80 >> n) for n in (2, 3))
    return [
        Dis().encode(),
        Dio(0, 240, 128, 1, DODAG_ID, _profile().configuration, 256).encode(),
        Dao(0, 9, address_of(DODAG_ID, 4), parents, dodag_id=DODAG_ID).encode(),
        DaoAck(0, 9, 130, DODAG_ID).encode(),
    ]


def backhaul_seeds() -> Sequence[bytes]:
    """Some messages each way."""
    return [
        backhaul.encode(message)
        for message in (
            Hello(7, DODAG_ID, OWN, 1, 240, 128, 5, 2),
            Up(5, PacketKind.COAP, Priority.ON_DEMAND, b"payload", 3, 2, 1),
            RouteRow(5, (2, 3), 241, 1800),
            Command(9, Order.DENY, OWN, 5),
        )
    ]


def small_seeds() -> Sequence[bytes]:
    """One of each."""
    report = TopologyReport(
        Reason.PERIODIC, 3, 300, 2, (LinkReport(2, 130, 140, 9, 1),), (LinkReport(3, 200),)
    )
    return [
        b"\x00" + report.encode(),
        b"\x01" + Echo(7, (1, 2, 3)).encode(),
        b"\x04" + FragmentAck(7, 1).encode(),
    ]


def node_seeds() -> Sequence[bytes]:
    """A tree that forms, packets through it, and every operation by itself."""
    dio = b"\x02\x00\x01\x00\x09\x00\x01\x00\x00\x00\x02"
    dao = b"\x02\xc0\x01\x00\x0c\x00\x01\x01\x80\x01\x01\x05\x00\x00\x00\x04"
    prove = b"\x06\x00" + dio + b"\x06\x00"
    later = b"\x07\x06"
    every = [
        dio + prove + dio + later,
        dio + prove + dio + later + b"\x05\x00hello..." + later,
        dao + later + b"\x05\x01hello..." + later,
        *(bytes((operation, 0x11, 3, 2, 1, 0, 7, 9, 4)) for operation in range(8)),
    ]
    return [whose + one for one in every for whose in (b"\x00", b"\x01")]


TARGETS: Final = (
    Target(
        "mesh_packet",
        "a packet is refused by MeshError, or encodes again to the same octets",
        run_packet,
        packet_seeds,
        size_max=256,
    ),
    Target(
        "mesh_rpl",
        "a control message is refused by MeshError, or what is read is written and read again",
        run_rpl,
        rpl_seeds,
        size_max=256,
    ),
    Target(
        "mesh_backhaul",
        "a message of the backhaul is refused by MeshError, or encodes again to the same octets",
        run_backhaul,
        backhaul_seeds,
        size_max=256,
    ),
    Target(
        "mesh_small",
        "reports, probes, route errors, fragments: MeshError, or the same octets again",
        run_small,
        small_seeds,
        size_max=256,
    ),
    Target(
        "mesh_node",
        "a node, neighbours with the key, time: bounded, comes to rest, no exception",
        run_node,
        node_seeds,
        size_max=96,
    ),
)
