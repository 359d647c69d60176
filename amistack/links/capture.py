"""Write what a link carries to a file: pcapng for Wireshark, or readable lines.

Spec    pcapng (draft-ietf-opsawg-pcapng): section header, interface description, enhanced packets;
        link type LINKTYPE_RAW: IPv4 or IPv6 packets without a link layer
Gives   each datagram in an IP and a UDP header made here, checksums right, so that it reads as on
        the wire; its direction; its UTC in microseconds
Raises  ConfigError from `open_capture`, one line that says what to do; nothing afterwards
Limit   FILE_SIZE_MAX octets in a file; at the bound, or when the disk is full, the capture ends,
        says so once in the log, and counts what comes after
Never   ends the program, overwrites a file that is no capture, or leaves half an entry behind
"""

from __future__ import annotations

import datetime as dt
import fcntl
import ipaddress
import mmap
import os
import stat
import struct
from collections import Counter
from pathlib import Path
from typing import Final, Protocol

import structlog

from amistack.errors import ConfigError
from amistack.links.udp import Direction
from amistack.machine import Peer

LOG: Final = structlog.get_logger("capture")

FILE_SIZE_MAX: Final = 256 * 1024 * 1024
LINES_SUFFIX: Final = ".txt"
"""Of a file's name: makes the capture one of readable lines."""

SECTION_HEADER: Final = 0x0A0D0D0A
INTERFACE_DESCRIPTION: Final = 1
ENHANCED_PACKET: Final = 6
BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
LINKTYPE_RAW: Final = 101
OPT_COMMENT: Final = 1
SHB_USERAPPL: Final = 4
IF_NAME: Final = 2
IF_TSRESOL: Final = 9
EPB_FLAGS: Final = 2
OPTION_SIZE_MAX: Final = 0xFFFF

BLOCK_HEAD: Final = struct.Struct("<II")  # type, size of the whole block
BLOCK_TAIL: Final = struct.Struct("<I")  # the size again
BLOCK_SIZE_MIN: Final = BLOCK_HEAD.size + BLOCK_TAIL.size
SECTION: Final = struct.Struct("<IHHq")  # byte order, major, minor, section size (-1: not said)
INTERFACE: Final = struct.Struct("<HHI")  # link type, reserved, snap length (0: no limit)
PACKET: Final = struct.Struct("<IIIII")  # interface, time high, time low, captured, original size
OPTION: Final = struct.Struct("<HH")  # code, size without padding
FLAGS: Final = struct.Struct("<I")
DIRECTION_FLAGS: Final = {Direction.RECEIVED: FLAGS.pack(1), Direction.SENT: FLAGS.pack(2)}

IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
IPV6: Final = struct.Struct("!IHBB16s16s")
UDP: Final = struct.Struct("!HHHH")
UDP_NUMBER: Final = 17
HOP_LIMIT: Final = 64
DONT_FRAGMENT: Final = 0x4000
SIZE_MAX: Final = 0xFFFF
"""The largest IPv4 packet, and the most behind an IPv6 header."""

UTC_END: Final = 253_402_300_799
"""The last second of the year 9999."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LINES_START: Final = b"# amistack capture: UTC, direction, source, destination, size, octets\n"


class Form(Protocol):
    """How a capture is written down."""

    def start(self) -> bytes:
        """What a file, or a new part of one, begins with."""

    def is_begun_by(self, octets: bytes) -> bool:
        """Whether a file that begins with these octets is in this form."""

    def whole_size(self, octets: mmap.mmap) -> int:
        """How many of a file's octets, from the first, are whole entries."""

    def entry(
        self,
        direction: Direction,
        source: Peer,
        destination: Peer,
        octets: bytes,
        *,
        utc: float,
        comment: str,
    ) -> bytes:
        """One datagram. Raises ValueError if the form has no way to say it."""


class Pcapng:
    """A section with one interface, every datagram a packet."""

    def start(self) -> bytes:
        """A section header and an interface description."""
        section = SECTION.pack(BYTE_ORDER_MAGIC, 1, 0, -1) + _options((SHB_USERAPPL, b"amistack"))
        interface = INTERFACE.pack(LINKTYPE_RAW, 0, 0) + _options(
            (IF_NAME, b"udp"), (IF_TSRESOL, b"\x06")
        )
        return _block(SECTION_HEADER, section) + _block(INTERFACE_DESCRIPTION, interface)

    def is_begun_by(self, octets: bytes) -> bool:
        """Whether this is a section header in this byte order."""
        head = BLOCK_HEAD.pack(SECTION_HEADER, 0)[:4]
        magic = SECTION.pack(BYTE_ORDER_MAGIC, 1, 0, -1)[:4]
        return octets[:4] == head and octets[8:12] == magic

    def whole_size(self, octets: mmap.mmap) -> int:
        """Where the last whole block ends."""
        place, end = 0, len(octets)
        while place + BLOCK_SIZE_MIN <= end:
            _, size = BLOCK_HEAD.unpack_from(octets, place)
            if size < BLOCK_SIZE_MIN or size % 4 or place + size > end:
                break
            if BLOCK_TAIL.unpack_from(octets, place + size - BLOCK_TAIL.size) != (size,):
                break
            place += size
        return place

    def entry(
        self,
        direction: Direction,
        source: Peer,
        destination: Peer,
        octets: bytes,
        *,
        utc: float,
        comment: str,
    ) -> bytes:
        """An enhanced packet block. Raises ValueError for what fits in no IP packet."""
        packet = udp_packet(source, destination, octets)
        micros = _micros(utc)
        options = [(EPB_FLAGS, DIRECTION_FLAGS[direction])]
        if comment:
            # The cut may be in the middle of a character: what is left of that goes, too.
            text = comment.encode(errors="replace")[:OPTION_SIZE_MAX]
            options.append((OPT_COMMENT, text.decode(errors="ignore").encode()))
        body = PACKET.pack(0, micros >> 32, micros & 0xFFFFFFFF, len(packet), len(packet))
        return _block(ENHANCED_PACKET, body + _padded(packet) + _options(*options))


class Lines:
    """A line for each datagram: for people, and for programs such as grep."""

    def start(self) -> bytes:
        """What the columns are."""
        return LINES_START

    def is_begun_by(self, octets: bytes) -> bool:
        """Whether this is that line."""
        return octets.startswith(LINES_START)

    def whole_size(self, octets: mmap.mmap) -> int:
        """Where the last whole line ends."""
        return octets.rfind(b"\n") + 1

    def entry(
        self,
        direction: Direction,
        source: Peer,
        destination: Peer,
        octets: bytes,
        *,
        utc: float,
        comment: str,
    ) -> bytes:
        """A line. Never more than one, whatever the comment."""
        micros = _micros(utc)
        stamp = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=micros)  # noqa: DTZ001  a Z is put behind it
        text = (
            f"{stamp.isoformat(timespec='microseconds')}Z {direction.value:8} {_named(source)} > "
            f"{_named(destination)} [{len(octets)} octets] {octets.hex()}"
        )
        if comment:
            text += " # " + _printable(comment[:OPTION_SIZE_MAX])
        return text.encode(errors="replace") + b"\n"


class Capture:
    """One open file. What is written is with the operating system at once: no buffer of its own."""

    def __init__(self, path: Path, descriptor: int, size: int, form: Form, size_max: int) -> None:
        """`open_capture` makes one; `size` is that of the whole entries in the file already."""
        self._path = path
        self._descriptor = descriptor
        self._size = size
        self._size_max = size_max
        self._form = form
        self._is_open = True
        self._is_ended = False
        self.counters: Counter[str] = Counter()

    @property
    def is_ended(self) -> bool:
        """Whether it takes nothing more: closed, at its bound, or failed."""
        return self._is_ended

    def observe(
        self,
        direction: Direction,
        source: Peer,
        destination: Peer,
        octets: bytes,
        utc: float,
        *,
        comment: str = "",
    ) -> None:
        """Keep one datagram, seen at `utc` (s). Never raises: what is not kept is counted.

        `comment` is for what the datagram alone does not say, such as the frame that carried it.
        """
        if self._is_ended:
            self.counters["datagrams not captured"] += 1
            return
        try:
            entry = self._form.entry(
                direction, source, destination, octets, utc=utc, comment=comment
            )
        except ValueError:
            self.counters["datagrams not captured"] += 1
            return
        if self._append(entry):
            self.counters["datagrams captured"] += 1
        else:
            self.counters["datagrams not captured"] += 1

    def close(self) -> None:
        """Give the file back. What comes later is only counted."""
        self._is_ended = True
        if self._is_open:
            self._is_open = False
            os.close(self._descriptor)
            LOG.info("capture closed", path=str(self._path), **_fields(self.counters))

    def begin(self) -> None:
        """Write what a file begins with. Raises OSError when it cannot be written."""
        start = self._form.start()
        if self._size + len(start) > self._size_max:
            self._end(f"at its bound of {self._size_max} octets")
            return
        self._write(start)

    def _append(self, entry: bytes) -> bool:
        if self._size + len(entry) > self._size_max:
            self._end(f"at its bound of {self._size_max} octets")
            return False
        try:
            self._write(entry)
        except OSError as error:
            self._end(error.strerror or str(error))
            return False
        return True

    def _write(self, entry: bytes) -> None:
        """All of it in one write, or none of it: then OSError."""
        try:
            written = os.write(self._descriptor, entry)
            if written < len(entry):
                # The disk took a part; asking for the rest says why.
                os.write(self._descriptor, entry[written:])
                raise OSError("only a part could be written")
        except OSError:
            try:
                os.ftruncate(self._descriptor, self._size)
            except OSError:
                pass  # Then a reader finds the last entry cut off, and all before it whole.
            raise
        self._size += len(entry)

    def _end(self, reason: str) -> None:
        self._is_ended = True
        LOG.warning("capture ended", path=str(self._path), reason=reason, size=self._size)


def open_capture(path: Path, *, size_max: int = FILE_SIZE_MAX) -> Capture:
    """A capture in the file at `path`: readable lines if its name ends in `.txt`, else pcapng.

    A capture that is there already goes on behind what it has, so that a restart loses nothing; an
    entry cut off at its end is dropped. The file is its owner's only. Raises ConfigError; whatever
    was whole in the file is still there then.
    """
    form: Form = Lines() if path.suffix == LINES_SUFFIX else Pcapng()
    try:
        # For reading, too: else a named pipe would keep us here until somebody reads from it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except (OSError, ValueError) as error:
        raise ConfigError(_explain(path, error)) from error
    try:
        size = _take_over(path, descriptor, form)
        capture = Capture(path, descriptor, size, form, size_max)
        capture.begin()
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(_explain(path, error)) from error
    except BaseException:
        os.close(descriptor)
        raise
    return capture


def _take_over(path: Path, descriptor: int, form: Form) -> int:
    """Make sure of the file, and cut it to what is whole in it; its size then."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"capture {path} is no file: name one that is, or a new one")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(f"capture {path} is in use by another program: name another") from None
    if not status.st_size:
        return 0
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as octets:
        if not form.is_begun_by(octets[:256]):
            raise ConfigError(f"capture {path} is there and is no such capture: name another file")
        size = form.whole_size(octets)
    if size < status.st_size:
        LOG.warning("capture was cut off", path=str(path), octets=status.st_size - size)
        os.ftruncate(descriptor, size)
    return size


def _explain(path: Path, error: OSError | ValueError) -> str:
    what = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return (
        f"capture {path} cannot be written: {what}; "
        "check its folder, this user's rights and the space on the disk"
    )


# Packets


def udp_packet(source: Peer, destination: Peer, octets: bytes) -> bytes:
    """An IP packet with a UDP datagram in it, from one socket address to the other.

    IPv4 when both are, also where IPv6 sockets show them as mapped; IPv6 otherwise, a lone IPv4
    address as mapped. Raises ValueError on what is no socket address, or too large.
    """
    (from_address, from_port), (to_address, to_port) = _address(source), _address(destination)
    udp_size = UDP.size + len(octets)
    is_ipv4 = from_address.version == to_address.version == 4
    if udp_size + (IPV4.size if is_ipv4 else 0) > SIZE_MAX:
        raise ValueError(f"{len(octets)} octets fit in no datagram")
    if not is_ipv4:
        from_address, to_address = _as_ipv6(from_address), _as_ipv6(to_address)
    addresses = from_address.packed + to_address.packed
    pseudo_header = addresses + struct.pack("!II", udp_size, UDP_NUMBER)
    header = UDP.pack(from_port, to_port, udp_size, 0)
    # The sum is never zero here: zero would mean that there is none (RFC 768).
    checksum = 0xFFFF - _sum(pseudo_header + header + octets)
    datagram = UDP.pack(from_port, to_port, udp_size, checksum) + octets
    if not is_ipv4:
        start = 6 << 28
        return (
            IPV6.pack(
                start, udp_size, UDP_NUMBER, HOP_LIMIT, from_address.packed, to_address.packed
            )
            + datagram
        )

    def ipv4(checksum: int) -> bytes:
        size = IPV4.size + udp_size
        return IPV4.pack(
            *(0x45, 0, size, 0, DONT_FRAGMENT, HOP_LIMIT, UDP_NUMBER, checksum),
            *(from_address.packed, to_address.packed),
        )

    return ipv4((0xFFFF - _sum(ipv4(0))) % 0xFFFF) + datagram


def _sum(octets: bytes) -> int:
    """The ones' complement sum of 16-bit words (RFC 1071), 0 standing for 0xFFFF.

    2^16 is 1 modulo 0xFFFF, so the octets as one number leave the same remainder as their words.
    """
    if len(octets) % 2:
        octets += b"\0"
    return int.from_bytes(octets) % 0xFFFF


def _address(peer: Peer) -> tuple[Address, int]:
    if not isinstance(peer, tuple) or len(peer) < 2:
        raise ValueError(f"{peer!r} is no socket address")
    host, port = peer[:2]
    if not isinstance(host, str) or not isinstance(port, int) or not 0 <= port <= SIZE_MAX:
        raise ValueError(f"{peer!r} is no socket address")
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped, port
    return address, port


def _as_ipv6(address: Address) -> ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv6Address(bytes(10) + b"\xff\xff" + address.packed)
    return address


def _named(peer: Peer) -> str:
    """A peer as people write it."""
    try:
        host, port = _address(peer)
    except ValueError:
        return _printable(str(peer))
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


def _micros(utc: float) -> int:
    """Microseconds since 1970. Raises ValueError where there are none that can be written."""
    if not 0 <= utc < UTC_END:
        raise ValueError(f"{utc} s is no time that can be written")
    return round(utc * 1e6)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


# Blocks


def _block(kind: int, body: bytes) -> bytes:
    size = BLOCK_SIZE_MIN + len(body)
    return BLOCK_HEAD.pack(kind, size) + body + BLOCK_TAIL.pack(size)


def _options(*options: tuple[int, bytes]) -> bytes:
    parts = [OPTION.pack(code, len(value)) + _padded(value) for code, value in options]
    return b"".join(parts) + OPTION.pack(0, 0)


def _padded(octets: bytes) -> bytes:
    return octets + bytes(-len(octets) % 4)


def _fields(counters: Counter[str]) -> dict[str, int]:
    return {
        "captured": counters["datagrams captured"],
        "missed": counters["datagrams not captured"],
    }
