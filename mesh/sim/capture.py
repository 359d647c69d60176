"""Writes what was on the air to a file for Wireshark: the frames, and RPL as everybody reads it.

Spec    pcapng (draft-ietf-opsawg-pcapng) with two interfaces. `air`: link type 230, an IEEE
        802.15.4 data frame as a radio puts it around ours, without check sequence, its payload
        sealed. `rpl`: link type 101, what the sealed payload says if that is RPL control: an
        ICMPv6 message of type 155 in IPv6, for Wireshark's own RPL dissector
Raises  ConfigError where the file cannot be opened
Limit   FILE_SIZE_MAX octets; then the capture ends, and `is_full` says so
Never   ends a run: what the disk refuses later ends the capture, and `refusal` says why
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from amistack.errors import ConfigError
from amistack.identifiers import Eui64
from mesh.packet import BROADCAST as EVERYBODY
from mesh.packet import Packet, PacketKind
from mesh.sim.medium import BROADCAST

FILE_SIZE_MAX: Final = 1 << 30
LINKTYPE_802_15_4: Final = 230
LINKTYPE_RAW: Final = 101
PAN: Final = 0xA1A1
RPL_TYPE: Final = 155
ICMPV6: Final = 58
EPOCH_S: Final = 1_767_225_600
"""A run begins on 2026-01-01 UTC: the virtual clock has no date of its own."""

_BLOCK: Final = struct.Struct("<II")
_SECTION: Final = struct.Struct("<IHHq")
_INTERFACE: Final = struct.Struct("<HHI")
_PACKET: Final = struct.Struct("<IIIII")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_ALL_RPL_NODES: Final = bytes.fromhex("ff02000000000000000000000000001a")
_LONG: Final = 0xCC41
"""Frame control: data, PAN compressed, both addresses long, 802.15.4-2003."""
_LONG_TO_ALL: Final = 0xC841
"""The same to the short broadcast address."""

ReadFrame = Callable[[bytes, Eui64 | None], Packet | None]
"""The packet in a frame for that node (None: everybody), if it is whole."""


class Capture:
    """A file that grows with the run. `note` is a watcher of `mesh.sim.stations`."""

    def __init__(
        self, path: Path, addresses: Sequence[Eui64], read: ReadFrame, *, prefix: bytes
    ) -> None:
        self.is_full = False
        self.refusal = ""
        """Why the disk took no more; empty as long as it takes all."""
        self._addresses = addresses
        self._read = read
        self._prefix = prefix
        self._sequences = bytearray(len(addresses))
        self._size = 0
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
        self._path = path
        self._write(_block(0x0A0D0D0A, _SECTION.pack(0x1A2B3C4D, 1, 0, -1)))
        for link_type, name in ((LINKTYPE_802_15_4, b"air"), (LINKTYPE_RAW, b"rpl")):
            options = _option(2, name) + _option(9, b"\x06") + _option(0, b"")
            self._write(_block(1, _INTERFACE.pack(link_type, 0, 0) + options))

    def close(self) -> None:
        """No more frames. The last of them reach the disk now, or `refusal` says why not."""
        try:
            self._file.close()
        except OSError as error:
            self._end(error)

    @property
    def shortfall(self) -> str:
        """What there is to say of a file that lacks the end of the run; else empty."""
        why = self.refusal or ("it is full" if self.is_full else "")
        return f"{self._path} lacks the end of the run: {why}" if why else ""

    def note(self, time: float, source: int, destination: int, octets: bytes) -> None:
        """A frame left an antenna."""
        if self.is_full or self.refusal:
            return
        self._packet(0, time, self._mac_frame(source, destination, octets))
        to = None if destination == BROADCAST else self._addresses[destination]
        packet = self._read(octets, to)
        if packet is not None and packet.kind == PacketKind.RPL and packet.payload:
            self._packet(1, time, self._ipv6(packet))

    def _mac_frame(self, source: int, destination: int, octets: bytes) -> bytes:
        sequence = self._sequences[source]
        self._sequences[source] = (sequence + 1) & 0xFF
        # 802.15.4 sends the lowest octet first, of addresses too.
        if destination == BROADCAST:
            head = struct.pack("<HBHH", _LONG_TO_ALL, sequence, PAN, 0xFFFF)
        else:
            head = struct.pack("<HBH", _LONG, sequence, PAN) + self._addresses[destination][::-1]
        return head + self._addresses[source][::-1] + octets

    def _ipv6(self, packet: Packet) -> bytes:
        source = self._address(packet.source)
        to_all = packet.destination == EVERYBODY
        destination = _ALL_RPL_NODES if to_all else self._address(packet.destination)
        code, body = packet.payload[:1], packet.payload[1:]
        unsummed = bytes((RPL_TYPE,)) + code + b"\0\0" + body
        pseudo = source + destination + struct.pack("!II", len(unsummed), ICMPV6)
        message = unsummed[:2] + _checksum(pseudo + unsummed) + body
        head = _IPV6.pack(6 << 28, len(message), ICMPV6, packet.hop_limit, source, destination)
        return head + message

    def _address(self, short: int) -> bytes:
        """The area's prefix and a short address as RFC 6282 section 3.2.2 makes them one."""
        return self._prefix + b"\0\0\0\xff\xfe\0" + short.to_bytes(2, "big")

    def _packet(self, interface: int, time: float, octets: bytes) -> None:
        micros = round((EPOCH_S + time) * 1e6)
        size = len(octets)
        head = _PACKET.pack(interface, micros >> 32, micros & 0xFFFFFFFF, size, size)
        self._write(_block(6, head + octets + bytes(-size % 4)))

    def _write(self, octets: bytes) -> None:
        if self.refusal:
            return
        if self._size + len(octets) > FILE_SIZE_MAX:
            self.is_full = True
            return
        self._size += len(octets)
        try:
            self._file.write(octets)
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        self.refusal = self.refusal or error.strerror or str(error)


def _block(kind: int, body: bytes) -> bytes:
    size = _BLOCK.size + len(body) + 4
    return _BLOCK.pack(kind, size) + body + size.to_bytes(4, "little")


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _checksum(octets: bytes) -> bytes:
    padded = octets + bytes(len(octets) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
