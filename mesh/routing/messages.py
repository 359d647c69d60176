"""RPL's control messages and options, octet for octet.

Spec    RFC 6550 section 6 (messages, options), RFC 6551 sections 2.1 and 4.3.2 (metric container,
        ETX); the payload of a control packet is the ICMPv6 code, then the body
Gives   `encode` and `decode`, inverses for what is written here; options that we do not know are
        stepped over, as section 6.7.1 has it, and padding with them
Raises  MeshError, with a reason fit for a counter, on octets; LocalProtocolError on a value that
        the format has no place for
Limit   MESSAGE_SIZE_MAX octets, OPTION_COUNT_MAX options
Never   judges what a message wants: ranks, versions and sequences are for whoever routes
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from amistack.errors import LocalProtocolError, MeshError
from amistack.values import frozen_value

MESSAGE_SIZE_MAX: Final = 1024
OPTION_COUNT_MAX: Final = 64
ADDRESS_SIZE: Final = 16
INFINITE_RANK: Final = 0xFFFF
ETX_UNIT: Final = 128
"""ETX 1.0 in a metric container (RFC 6551 section 4.3.2)."""
ETX_MAX: Final = 0xFFFF
MODE_NON_STORING: Final = 1
OCP_MRHOF: Final = 1
LIFETIME_INFINITE: Final = 0xFF
IID_PREFIX: Final = bytes.fromhex("000000fffe00")
"""What stands before a 16-bit short address in an interface identifier (RFC 6282 section 3.2.2)."""


class Code(enum.IntEnum):
    """ICMPv6 codes of type 155 (RFC 6550 section 6)."""

    DIS = 0x00
    DIO = 0x01
    DAO = 0x02
    DAO_ACK = 0x03


class OptionType(enum.IntEnum):
    """Options that are read here (RFC 6550 section 6.7)."""

    PAD1 = 0x00
    PADN = 0x01
    METRIC_CONTAINER = 0x02
    DODAG_CONFIGURATION = 0x04
    TARGET = 0x05
    TRANSIT_INFORMATION = 0x06
    SOLICITED_INFORMATION = 0x07


DIS_BODY: Final = struct.Struct("!BB")  # flags, reserved
DIO_BODY: Final = struct.Struct("!BBHBBBB16s")  # instance, version, rank, G|MOP|Prf, DTSN, flags
DAO_BODY: Final = struct.Struct("!BBBB")  # instance, K|D|flags, reserved, sequence
DAO_ACK_BODY: Final = struct.Struct("!BBBB")  # instance, D|reserved, sequence, status
CONFIGURATION: Final = struct.Struct("!BBBBHHHBBH")
TRANSIT: Final = struct.Struct("!BBBB")  # E|flags, path control, path sequence, path lifetime
SOLICITED: Final = struct.Struct("!BB16sB")  # instance, V|I|D|flags, DODAGID, version
METRIC_HEAD: Final = struct.Struct("!BHB")  # type, flags with P C O R A and precedence, length
METRIC_TYPE_ETX: Final = 7

GROUNDED_BIT: Final = 0x80
MODE_SHIFT: Final = 3
DAO_ACK_WANTED_BIT: Final = 0x80
DAO_DODAGID_BIT: Final = 0x40
DAO_ACK_DODAGID_BIT: Final = 0x80
EXTERNAL_BIT: Final = 0x80
AUTHENTICATED_BIT: Final = 0x08


def address_of(prefix: bytes, short: int) -> bytes:
    """The IPv6 address of a short address below a 64-bit `prefix` (RFC 6282 section 3.2.2)."""
    return prefix[:8] + IID_PREFIX + short.to_bytes(2, "big")


def short_of(address: bytes) -> int:
    """The short address in an IPv6 address made by `address_of`. Raises MeshError."""
    if len(address) != ADDRESS_SIZE or address[8:14] != IID_PREFIX:
        raise MeshError("foreign address", f"{address.hex()} holds no short address")
    return int.from_bytes(address[14:], "big")


HOP_RANK_INCREASE_MAX: Final = 1024
"""The largest MinHopRankIncrease with which 63 hops of ETX 1.0 have a rank."""
INTERVAL_EXPONENT_MAX: Final = 24
"""The longest Imin, and the most doublings of it, that make sense: 2 to this power, in ms."""
INTERVAL_EXPONENT_MIN: Final = 3
"""The shortest Imin: DEFAULT_DIO_INTERVAL_MIN (RFC 6550 section 17), 8 ms."""
LONGEST_EXPONENT_MIN: Final = 14
"""The shortest Imax, 16 s: with less DIOs alone fill the air, for good."""
ROUTE_LIFE_MIN: Final = 60
"""Seconds that a route lives at the least: with less DAOs alone fill the air around a root."""


def are_intervals(interval_min: int, doublings: int) -> bool:
    """Whether a network can live with that Imin, as a power of 2 in ms, and that Imax."""
    return (
        INTERVAL_EXPONENT_MIN <= interval_min <= INTERVAL_EXPONENT_MAX
        and doublings <= INTERVAL_EXPONENT_MAX
        and interval_min + doublings >= LONGEST_EXPONENT_MIN
    )


@dataclass(frozen=True, slots=True)
class Configuration:
    """The DODAG Configuration option (RFC 6550 section 6.7.6): what a root decides for all."""

    interval_doublings: int
    interval_min: int
    """Trickle's Imin is 2 to this power, in milliseconds."""
    redundancy: int
    rank_increase_max: int
    hop_rank_increase_min: int
    lifetime: int
    """Of a DAO's route, in `lifetime_unit`; 255 is for ever."""
    lifetime_unit: int
    """In seconds."""
    objective: int = OCP_MRHOF
    path_control_size: int = 7
    is_authenticated: bool = False

    def encode(self) -> bytes:
        """The option, with type and length."""
        flags = self.path_control_size | (AUTHENTICATED_BIT if self.is_authenticated else 0)
        return bytes((OptionType.DODAG_CONFIGURATION, CONFIGURATION.size)) + CONFIGURATION.pack(
            flags,
            self.interval_doublings,
            self.interval_min,
            self.redundancy,
            self.rank_increase_max,
            self.hop_rank_increase_min,
            self.objective,
            0,
            self.lifetime,
            self.lifetime_unit,
        )

    @classmethod
    def decode(cls, octets: bytes) -> Configuration:
        """The option's data. Raises MeshError."""
        if len(octets) != CONFIGURATION.size:
            raise MeshError("bad option size", f"configuration of {len(octets)}, expected 14")
        fields = CONFIGURATION.unpack(octets)
        flags, doublings, interval_min, redundancy, rank_max, hop_min, objective, _, life, unit = (
            fields
        )
        if not 1 <= hop_min <= HOP_RANK_INCREASE_MAX:
            raise MeshError("bad configuration", f"MinHopRankIncrease is {hop_min}")
        if not are_intervals(interval_min, doublings):
            raise MeshError("bad configuration", f"Imin 2^{interval_min} ms, {doublings} doublings")
        if life != LIFETIME_INFINITE and life * unit < ROUTE_LIFE_MIN:
            raise MeshError("bad configuration", f"routes that live {life * unit} s")
        return cls(
            doublings,
            interval_min,
            redundancy,
            rank_max,
            hop_min,
            life,
            unit,
            objective,
            flags & 0x07,
            bool(flags & AUTHENTICATED_BIT),
        )


@dataclass(frozen=True, slots=True)
class Dis:
    """A solicitation of DIOs (RFC 6550 section 6.2)."""

    solicited: Solicited | None = None

    def encode(self) -> bytes:
        """Code and body."""
        octets = bytes((Code.DIS,)) + DIS_BODY.pack(0, 0)
        return octets if self.solicited is None else octets + self.solicited.encode()


@dataclass(frozen=True, slots=True)
class Solicited:
    """Which nodes a DIS wants to hear (RFC 6550 section 6.7.9). None: any."""

    instance: int | None = None
    dodag_id: bytes | None = None
    version: int | None = None

    def encode(self) -> bytes:
        """The option, with type and length."""
        flags = (
            (0x80 if self.version is not None else 0)
            | (0x40 if self.instance is not None else 0)
            | (0x20 if self.dodag_id is not None else 0)
        )
        return bytes((OptionType.SOLICITED_INFORMATION, SOLICITED.size)) + SOLICITED.pack(
            self.instance or 0, flags, self.dodag_id or bytes(ADDRESS_SIZE), self.version or 0
        )

    @classmethod
    def decode(cls, octets: bytes) -> Solicited:
        """The option's data. Raises MeshError."""
        if len(octets) != SOLICITED.size:
            raise MeshError("bad option size", f"solicitation of {len(octets)}, expected 19")
        instance, flags, dodag_id, version = SOLICITED.unpack(octets)
        return cls(
            instance if flags & 0x40 else None,
            dodag_id if flags & 0x20 else None,
            version if flags & 0x80 else None,
        )

    def fits(self, instance: int, dodag_id: bytes, version: int) -> bool:
        """Whether a node of that DODAG is meant."""
        return (
            (self.instance is None or self.instance == instance)
            and (self.dodag_id is None or self.dodag_id == dodag_id)
            and (self.version is None or self.version == version)
        )


@frozen_value(frozen=True, slots=True)
class Dio:
    """A DODAG Information Object (RFC 6550 section 6.3).

    `etx` is the path's ETX in ETX_UNIT out of a metric container, None where there is none.
    """

    instance: int
    version: int
    rank: int
    dtsn: int
    dodag_id: bytes
    configuration: Configuration | None = None
    etx: int | None = None
    is_grounded: bool = True
    mode: int = MODE_NON_STORING
    preference: int = 0

    def encode(self) -> bytes:
        """Code and body. Raises LocalProtocolError for what has no place in it."""
        order = (
            (GROUNDED_BIT if self.is_grounded else 0) | self.mode << MODE_SHIFT | self.preference
        )
        if len(self.dodag_id) != ADDRESS_SIZE:
            raise LocalProtocolError(f"a DODAGID of {len(self.dodag_id)} octets, expected 16")
        try:
            octets = bytes((Code.DIO,)) + DIO_BODY.pack(
                self.instance, self.version, self.rank, order, self.dtsn, 0, 0, self.dodag_id
            )
        except struct.error as error:
            raise LocalProtocolError(f"no DIO: {error}") from None
        if self.etx is not None:
            octets += bytes((OptionType.METRIC_CONTAINER, METRIC_HEAD.size + 2))
            octets += METRIC_HEAD.pack(METRIC_TYPE_ETX, 0, 2) + self.etx.to_bytes(2, "big")
        return octets if self.configuration is None else octets + self.configuration.encode()


@dataclass(frozen=True, slots=True)
class Transit:
    """One way to a target (RFC 6550 section 6.7.8): its parent, as non-storing mode has it."""

    parent: bytes
    path_sequence: int
    path_lifetime: int
    """0 takes the route back; 255 is for ever."""
    path_control: int = 0

    def encode(self) -> bytes:
        """The option, with type and length."""
        head = bytes((OptionType.TRANSIT_INFORMATION, TRANSIT.size + len(self.parent)))
        body = TRANSIT.pack(0, self.path_control, self.path_sequence, self.path_lifetime)
        return head + body + self.parent

    @classmethod
    def decode(cls, octets: bytes) -> Transit:
        """The option's data. Raises MeshError."""
        if len(octets) != TRANSIT.size + ADDRESS_SIZE:
            raise MeshError("bad option size", f"transit of {len(octets)}, expected 20")
        _, control, sequence, lifetime = TRANSIT.unpack_from(octets)
        return cls(octets[TRANSIT.size :], sequence, lifetime, control)


@dataclass(frozen=True, slots=True)
class Dao:
    """A Destination Advertisement Object (RFC 6550 section 6.4): one target and its parents."""

    instance: int
    sequence: int
    target: bytes
    transits: tuple[Transit, ...]
    is_ack_wanted: bool = True
    dodag_id: bytes | None = None

    def encode(self) -> bytes:
        """Code and body."""
        flags = (DAO_ACK_WANTED_BIT if self.is_ack_wanted else 0) | (
            DAO_DODAGID_BIT if self.dodag_id is not None else 0
        )
        return b"".join(
            (
                bytes((Code.DAO,)),
                DAO_BODY.pack(self.instance, flags, 0, self.sequence),
                self.dodag_id or b"",
                bytes((OptionType.TARGET, 2 + ADDRESS_SIZE, 0, 8 * ADDRESS_SIZE)),
                self.target,
                *(transit.encode() for transit in self.transits),
            )
        )


@dataclass(frozen=True, slots=True)
class DaoAck:
    """The answer to a DAO (RFC 6550 section 6.5). From status 128 on the DAO is refused."""

    instance: int
    sequence: int
    status: int = 0
    dodag_id: bytes | None = None

    def encode(self) -> bytes:
        """Code and body."""
        flags = DAO_ACK_DODAGID_BIT if self.dodag_id is not None else 0
        octets = bytes((Code.DAO_ACK,)) + DAO_ACK_BODY.pack(
            self.instance, flags, self.sequence, self.status
        )
        return octets + (self.dodag_id or b"")


Message = Dis | Dio | Dao | DaoAck


@lru_cache(maxsize=512)
def decode(octets: bytes) -> Message:
    """The message in `octets`, code first. Raises MeshError.

    Pure, and remembers what it read last: a retransmission costs nothing.
    """
    if not octets:
        raise MeshError("truncated", "no code")
    if len(octets) > MESSAGE_SIZE_MAX:
        raise MeshError("too long", f"{len(octets)} octets, at most {MESSAGE_SIZE_MAX}")
    reader = _READERS.get(octets[0])
    if reader is None:
        raise MeshError("unknown code", f"{octets[0]:#04x}")
    return reader(octets)


def _options(octets: bytes, start: int) -> list[tuple[int, bytes]]:
    """Type and data of each option from `start` on, without padding. Raises MeshError."""
    found: list[tuple[int, bytes]] = []
    at = start
    count = 0
    while at < len(octets):
        kind = octets[at]
        if kind == OptionType.PAD1:
            at += 1
            continue
        count += 1
        if count > OPTION_COUNT_MAX:
            raise MeshError("too many options", f"more than {OPTION_COUNT_MAX}")
        if at + 2 > len(octets):
            raise MeshError("truncated", f"option {kind} without a length")
        end = at + 2 + octets[at + 1]
        if end > len(octets):
            raise MeshError("truncated", f"option {kind} ends {end - len(octets)} octets too late")
        if kind != OptionType.PADN:
            found.append((kind, octets[at + 2 : end]))
        at = end
    return found


def _need(octets: bytes, size: int, what: str) -> None:
    if len(octets) < size:
        raise MeshError("truncated", f"{what} of {len(octets)} octets, at least {size}")


def _read_dis(octets: bytes) -> Dis:
    _need(octets, 1 + DIS_BODY.size, "DIS")
    solicited = None
    for kind, data in _options(octets, 1 + DIS_BODY.size):
        if kind == OptionType.SOLICITED_INFORMATION:
            solicited = Solicited.decode(data)
    return Dis(solicited)


def _read_dio(octets: bytes) -> Dio:
    _need(octets, 1 + DIO_BODY.size, "DIO")
    instance, version, rank, order, dtsn, _, _, dodag_id = DIO_BODY.unpack_from(octets, 1)
    configuration = None
    etx = None
    for kind, data in _options(octets, 1 + DIO_BODY.size):
        if kind == OptionType.DODAG_CONFIGURATION:
            configuration = _read_configuration(data)
        elif kind == OptionType.METRIC_CONTAINER:
            etx = _read_etx(data, etx)
    return Dio(
        instance,
        version,
        rank,
        dtsn,
        dodag_id,
        configuration,
        etx,
        bool(order & GROUNDED_BIT),
        order >> MODE_SHIFT & 0x07,
        order & 0x07,
    )


@lru_cache(maxsize=16)
def _read_configuration(octets: bytes) -> Configuration:
    """As `Configuration.decode`: a network has one, and it comes in nearly every DIO."""
    return Configuration.decode(octets)


def _read_etx(octets: bytes, etx: int | None) -> int | None:
    """The aggregated ETX in a metric container, or `etx` if there is none. Raises MeshError."""
    at = 0
    while at < len(octets):
        if at + METRIC_HEAD.size > len(octets):
            raise MeshError("truncated", "metric without a header")
        kind, _, size = METRIC_HEAD.unpack_from(octets, at)
        at += METRIC_HEAD.size
        if at + size > len(octets):
            raise MeshError("truncated", f"metric {kind} of {size} octets")
        if kind == METRIC_TYPE_ETX:
            if size != 2:
                raise MeshError("bad option size", f"ETX of {size} octets, expected 2")
            etx = int.from_bytes(octets[at : at + 2], "big")
        at += size
    return etx


def _read_dao(octets: bytes) -> Dao:
    _need(octets, 1 + DAO_BODY.size, "DAO")
    instance, flags, _, sequence = DAO_BODY.unpack_from(octets, 1)
    start = 1 + DAO_BODY.size
    dodag_id = None
    if flags & DAO_DODAGID_BIT:
        _need(octets, start + ADDRESS_SIZE, "DAO with a DODAGID")
        dodag_id = octets[start : start + ADDRESS_SIZE]
        start += ADDRESS_SIZE
    target: bytes | None = None
    transits: list[Transit] = []
    for kind, data in _options(octets, start):
        if kind == OptionType.TARGET:
            if target is not None:
                raise MeshError("two targets", "a DAO of ours has one")
            if len(data) != 2 + ADDRESS_SIZE or data[1] != 8 * ADDRESS_SIZE:
                raise MeshError("bad target", "expected a whole address")
            target = data[2:]
        elif kind == OptionType.TRANSIT_INFORMATION:
            if target is None:
                raise MeshError("no target", "transit information before its target")
            transits.append(Transit.decode(data))
    if target is None:
        raise MeshError("no target", "a DAO without one")
    if not transits:
        raise MeshError("no transit", "a target without a parent")
    return Dao(
        instance, sequence, target, tuple(transits), bool(flags & DAO_ACK_WANTED_BIT), dodag_id
    )


def _read_dao_ack(octets: bytes) -> DaoAck:
    _need(octets, 1 + DAO_ACK_BODY.size, "DAO-ACK")
    instance, flags, sequence, status = DAO_ACK_BODY.unpack_from(octets, 1)
    start = 1 + DAO_ACK_BODY.size
    dodag_id = None
    if flags & DAO_ACK_DODAGID_BIT:
        _need(octets, start + ADDRESS_SIZE, "DAO-ACK with a DODAGID")
        dodag_id = octets[start : start + ADDRESS_SIZE]
        start += ADDRESS_SIZE
    _options(octets, start)
    return DaoAck(instance, sequence, status, dodag_id)


_READERS: Final[dict[int, Callable[[bytes], Message]]] = {
    int(Code.DIS): _read_dis,
    int(Code.DIO): _read_dio,
    int(Code.DAO): _read_dao,
    int(Code.DAO_ACK): _read_dao_ack,
}


# Sequence counters (RFC 6550 section 7.2): a lollipop, 128..255 straight, then 0..127 in a circle.

LOLLIPOP_INITIAL: Final = 240
SEQUENCE_WINDOW: Final = 16


def sequence_after(value: int) -> int:
    """The sequence number after `value`."""
    if value >= 128:
        return value + 1 if value < 255 else 0
    return (value + 1) & 0x7F


def is_newer(candidate: int, known: int) -> bool:
    """Whether `candidate` is newer than `known`; what cannot be compared is not newer.

    RFC 6550 section 7.2, rules 2 to 4.
    """
    if candidate == known:
        return False
    if (candidate >= 128) == (known >= 128):
        if candidate >= 128:
            return 0 < candidate - known <= SEQUENCE_WINDOW
        return 0 < (candidate - known) & 0x7F <= SEQUENCE_WINDOW
    if known >= 128:
        return 256 + candidate - known <= SEQUENCE_WINDOW
    return not 256 + known - candidate <= SEQUENCE_WINDOW
