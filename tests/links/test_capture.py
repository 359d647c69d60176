"""Captures: what is written, read back by a reader of this test and by tshark.

The contract under test: every datagram that a link carried is in the file as an IP packet that an
independent program reads, checksums and all; a session's own keys open what OSCORE closed; whatever
happens to the file, there is never half an entry in it and never an exception from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import ipaddress
import json
import os
import re
import resource
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import ConfigError
from amistack.links.capture import FILE_SIZE_MAX, open_capture, udp_packet
from amistack.links.host import observed
from amistack.links.udp import Direction, open_udp
from amistack.machine import Peer
from amistack.model import CONTENT_FORMAT_V1, ReadParts, ReadRequest
from amistack.model.resources import READ
from meterd import cli
from meterd.oscore_keys import wireshark_lines
from meterd.storage import Storage
from tests.links.test_udp import Plain, collector
from tests.support.debian import needs
from tests.support.headend import public_key
from tests.support.street import street

METER = ("127.0.0.1", 40_001)
HEAD_END = ("127.0.0.1", 5683)
NOON = 1_795_176_000.125


# A reader of this test's own, after the pcapng draft


@dataclass(frozen=True)
class Block:
    kind: int
    body: bytes


@dataclass(frozen=True)
class Packet:
    micros: int
    octets: bytes
    options: dict[int, bytes]


def blocks_of(octets: bytes) -> list[Block]:
    """Every block; the file must end where the last one does."""
    blocks = []
    while octets:
        kind, size = struct.unpack("<II", octets[:8])
        assert size % 4 == 0
        assert size >= 12
        assert len(octets) >= size, "half a block"
        assert octets[size - 4 : size] == octets[4:8]
        blocks.append(Block(kind, octets[8 : size - 4]))
        octets = octets[size:]
    return blocks


def options_of(octets: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    while True:
        code, size = struct.unpack("<HH", octets[:4])
        if code == 0:
            assert (size, octets[4:]) == (0, b"")
            return options
        options[code] = octets[4 : 4 + size]
        octets = octets[4 + size + -size % 4 :]


def packets_of(path: Path) -> list[Packet]:
    packets = []
    blocks = blocks_of(path.read_bytes())
    assert blocks[0].kind == 0x0A0D0D0A
    for block in blocks:
        if block.kind == 0x0A0D0D0A:
            assert block.body[:16] == struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        elif block.kind == 1:
            assert struct.unpack("<HHI", block.body[:8]) == (101, 0, 0)
            assert options_of(block.body[8:])[9] == b"\x06"
        else:
            assert block.kind == 6
            interface, high, low, kept, size = struct.unpack("<IIIII", block.body[:20])
            assert (interface, kept) == (0, size)
            options = options_of(block.body[20 + size + -size % 4 :])
            packets.append(Packet(high << 32 | low, block.body[20 : 20 + size], options))
    return packets


def ones_sum(octets: bytes) -> int:
    """Word by word, as RFC 1071 tells it."""
    total = 0
    for place in range(0, len(octets), 2):
        total += int.from_bytes(octets[place : place + 2].ljust(2, b"\0"))
        total = (total & 0xFFFF) + (total >> 16)
    return total


def opened(packet: bytes) -> tuple[str, int, str, int, bytes]:
    """Addresses, ports and payload of an IP packet whose every field is checked."""
    if packet[0] >> 4 == 4:
        assert packet[0] == 0x45
        assert int.from_bytes(packet[2:4]) == len(packet)
        assert packet[9] == 17
        assert ones_sum(packet[:20]) == 0xFFFF
        addresses, datagram = packet[12:20], packet[20:]
    else:
        assert packet[:4] == b"\x60\0\0\0"
        assert int.from_bytes(packet[4:6]) == len(packet) - 40
        assert packet[6] == 17
        addresses, datagram = packet[8:40], packet[40:]
    source, destination, size, checksum = struct.unpack("!HHHH", datagram[:8])
    assert size == len(datagram)
    assert checksum != 0, "no checksum"
    assert ones_sum(addresses + size.to_bytes(4) + b"\0\0\0\x11" + datagram) == 0xFFFF
    half = len(addresses) // 2
    return (
        str(ipaddress.ip_address(addresses[:half])),
        source,
        str(ipaddress.ip_address(addresses[half:])),
        destination,
        datagram[8:],
    )


# What is in a packet

ports = st.integers(0, 65_535)
peers4 = st.tuples(st.ip_addresses(v=4).map(str), ports)
peers6 = st.tuples(
    st.ip_addresses(v=6).filter(lambda a: getattr(a, "ipv4_mapped", None) is None).map(str),
    ports,
    st.just(0),
    st.just(0),
)


@given(st.one_of(st.tuples(peers4, peers4), st.tuples(peers6, peers6)), st.binary(max_size=1200))
def test_a_packet_holds_what_was_sent_and_its_checksums_are_right(
    pair: tuple[tuple[str, int], tuple[str, int]], octets: bytes
) -> None:
    source, destination = pair
    expected = (*source[:2], *destination[:2], octets)
    assert opened(udp_packet(source, destination, octets)) == expected


def test_a_checksum_that_comes_out_as_zero_is_written_as_all_ones() -> None:
    """RFC 768: zero would say that there is none."""
    found = set()
    for filler in range(65_536):
        packet = udp_packet(METER, HEAD_END, filler.to_bytes(2))
        checksum = int.from_bytes(packet[26:28])
        assert checksum
        found.add(checksum)
        if checksum == 0xFFFF:
            opened(packet)
    assert 0xFFFF in found


def test_an_ipv4_header_whose_sum_is_all_ones_has_a_checksum_of_zero() -> None:
    for low in range(65_536):
        host = str(ipaddress.ip_address((10 << 24) + low))
        header = udp_packet((host, 1), HEAD_END, b"")[:20]
        if header[10:12] == b"\0\0":
            assert ones_sum(header) == 0xFFFF
            return
        assert header[10:12] != b"\xff\xff"
    pytest.fail("no such header was found")


def test_mapped_addresses_are_shown_as_the_ipv4_they_are() -> None:
    packet = udp_packet(("::ffff:192.0.2.7", 1, 0, 0), ("::ffff:127.0.0.1", 2, 0, 0), b"x")
    assert opened(packet) == ("192.0.2.7", 1, "127.0.0.1", 2, b"x")


def test_an_ipv4_address_beside_an_ipv6_one_is_shown_as_mapped() -> None:
    packet = udp_packet(("192.0.2.7", 1), ("::", 2), b"x")
    assert opened(packet)[0] == str(ipaddress.ip_address("::ffff:192.0.2.7"))


def test_a_link_local_address_loses_its_zone() -> None:
    assert opened(udp_packet(("fe80::1%eth0", 1, 0, 2), ("::1", 2, 0, 0), b""))[0] == "fe80::1"


@pytest.mark.parametrize(
    "peer", ["meter", ("street", 1), ("127.0.0.1",), ("127.0.0.1", 65_536), (1, 2), None]
)
def test_what_is_no_socket_address_is_counted_and_not_captured(peer: Peer, tmp_path: Path) -> None:
    with contextlib.closing(open_capture(tmp_path / "a.pcapng")) as capture:
        capture.observe(Direction.SENT, peer, METER, b"x", 0.0)
        capture.observe(Direction.SENT, METER, peer, b"x", 0.0)
        capture.observe(Direction.SENT, METER, HEAD_END, b"y", 0.0)
        assert capture.counters == {"datagrams captured": 1, "datagrams not captured": 2}
    assert len(packets_of(tmp_path / "a.pcapng")) == 1


@pytest.mark.parametrize(
    ("ends", "most"),
    [((METER, HEAD_END), 65_507), ((("::1", 1, 0, 0), ("::1", 2, 0, 0)), 65_527)],
)
def test_the_largest_datagram_fits_and_a_larger_one_is_counted(
    ends: tuple[Peer, Peer], most: int, tmp_path: Path
) -> None:
    with contextlib.closing(open_capture(tmp_path / "a.pcapng")) as capture:
        capture.observe(Direction.SENT, *ends, bytes(most), 0.0)
        capture.observe(Direction.SENT, *ends, bytes(most + 1), 0.0)
        assert capture.counters == {"datagrams captured": 1, "datagrams not captured": 1}
    (packet,) = packets_of(tmp_path / "a.pcapng")
    assert opened(packet.octets)[4] == bytes(most)


# What is in a file


def test_a_datagram_keeps_its_time_direction_and_comment(tmp_path: Path) -> None:
    with contextlib.closing(open_capture(tmp_path / "a.pcapng")) as capture:
        capture.observe(Direction.RECEIVED, METER, HEAD_END, b"in", NOON)
        capture.observe(Direction.SENT, HEAD_END, METER, b"out", NOON + 1e-6, comment="frame ü 00")
    first, second = packets_of(tmp_path / "a.pcapng")
    assert opened(first.octets) == (*METER, *HEAD_END, b"in")
    assert opened(second.octets) == (*HEAD_END, *METER, b"out")
    assert first.micros == round(NOON * 1e6) == second.micros - 1
    assert first.options == {2: struct.pack("<I", 1)}
    assert second.options == {2: struct.pack("<I", 2), 1: "frame ü 00".encode()}


def test_a_comment_that_is_too_long_is_cut_between_characters(tmp_path: Path) -> None:
    with contextlib.closing(open_capture(tmp_path / "a.pcapng")) as capture:
        capture.observe(Direction.SENT, METER, HEAD_END, b"", NOON, comment="ü" * 40_000)
        capture.observe(Direction.SENT, METER, HEAD_END, b"", NOON, comment="\ud800")
    first, second = packets_of(tmp_path / "a.pcapng")
    assert first.options[1].decode() == "ü" * 32_767
    assert second.options[1] == b"?"


@given(
    st.lists(st.tuples(st.sampled_from(Direction), st.binary(max_size=90), st.floats(0, 4e9))),
    st.sampled_from([".pcapng", ".txt"]),
)
def test_whatever_is_observed_is_read_back_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    seen: list[tuple[Direction, bytes, float]],
    suffix: str,
) -> None:
    path = tmp_path_factory.mktemp("capture") / f"a{suffix}"
    with contextlib.closing(open_capture(path)) as capture:
        for direction, octets, utc in seen:
            capture.observe(direction, METER, HEAD_END, octets, utc)
    if suffix == ".pcapng":
        found = [(opened(p.octets)[4], p.micros) for p in packets_of(path)]
        assert found == [(octets, round(utc * 1e6)) for _, octets, utc in seen]
    else:
        head, *lines = path.read_text().splitlines()
        assert head.startswith("# ")
        assert [bytes.fromhex(line.partition("octets]")[2]) for line in lines] == [
            octets for _, octets, _ in seen
        ]


@pytest.mark.parametrize("utc", [float("nan"), float("inf"), 1e300, -5.0, 1e12])
def test_an_impossible_time_raises_nothing(utc: float, tmp_path: Path) -> None:
    for name in ("a.pcapng", "a.txt"):
        with contextlib.closing(open_capture(tmp_path / name)) as capture:
            capture.observe(Direction.SENT, METER, HEAD_END, b"x", utc)
            capture.observe(Direction.SENT, METER, HEAD_END, b"y", NOON)
            assert capture.counters == {"datagrams captured": 1, "datagrams not captured": 1}
    assert opened(packets_of(tmp_path / "a.pcapng")[-1].octets)[4] == b"y"


def test_lines_say_when_which_way_between_whom_and_what(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with contextlib.closing(open_capture(path)) as capture:
        capture.observe(Direction.RECEIVED, METER, HEAD_END, b"\x40\x01", NOON)
        capture.observe(
            Direction.SENT, ("::1", 5683, 0, 0), "meter\n7", b"", NOON, comment="two\nlines"
        )
    stamp = dt.datetime.fromtimestamp(NOON, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert path.read_text().splitlines()[1:] == [
        f"{stamp} received 127.0.0.1:40001 > 127.0.0.1:5683 [2 octets] 4001",
        f"{stamp} sent     [::1]:5683 > meter 7 [0 octets]  # two lines",
    ]


def test_every_entry_is_one_write_and_in_the_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pcapng"
    writes = []
    real_write = os.write

    def write(descriptor: int, octets: bytes) -> int:
        writes.append(octets)
        return real_write(descriptor, octets)

    monkeypatch.setattr(os, "write", write)
    capture = open_capture(path)
    for count in range(1, 4):
        capture.observe(Direction.SENT, METER, HEAD_END, b"x", NOON)
        assert len(packets_of(path)) == count
    assert len(writes) == 4
    capture.close()


def test_a_capture_is_its_owners_only(tmp_path: Path) -> None:
    open_capture(tmp_path / "a.pcapng").close()
    assert stat.S_IMODE((tmp_path / "a.pcapng").stat().st_mode) == 0o600


# A file that is there already


@pytest.mark.parametrize("name", ["a.pcapng", "a.txt"])
def test_a_capture_goes_on_behind_what_it_has_and_drops_what_was_cut_off(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    capture = open_capture(path)
    capture.observe(Direction.SENT, METER, HEAD_END, b"first", NOON)
    whole = path.stat().st_size
    capture.observe(Direction.SENT, METER, HEAD_END, b"second", NOON)
    capture.close()
    octets = path.read_bytes()
    for size in range(whole, len(octets)):
        path.write_bytes(octets[:size])
        again = open_capture(path)
        again.observe(Direction.SENT, METER, HEAD_END, b"third", NOON)
        again.close()
        if path.suffix == ".txt":
            lines = [line for line in path.read_text().splitlines() if line[0] != "#"]
            found = [bytes.fromhex(line.partition("octets]")[2]) for line in lines]
        else:
            found = [opened(p.octets)[4] for p in packets_of(path)]
        assert found == [b"first", b"third"]


@pytest.mark.parametrize("name", ["a.pcapng", "a.txt"])
@pytest.mark.parametrize(
    "octets",
    [
        b"SQLite format 3\0",
        b"x",
        b"\x0a\x0d\x0d\x0a\0\0\0\x1c\x1a\x2b\x3c\x4d",
        b"\xd4\xc3\xb2\xa1",
    ],
    ids=["database", "short", "other byte order", "pcap"],
)
def test_a_file_that_is_no_capture_is_left_as_it_is(
    name: str, octets: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(octets)
    with pytest.raises(ConfigError, match="is there and is no such capture: name another file"):
        open_capture(path)
    assert path.read_bytes() == octets


def test_a_capture_in_use_is_refused(tmp_path: Path) -> None:
    first = open_capture(tmp_path / "a.pcapng")
    with pytest.raises(ConfigError, match="in use by another program"):
        open_capture(tmp_path / "a.pcapng")
    first.close()
    open_capture(tmp_path / "a.pcapng").close()


# Files that cannot be had, and disks that fill


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "none" / "a.pcapng", "No such file or directory"),
        (tmp_path / "folder", "Is a directory"),
        (tmp_path / "pipe", "is no file"),
        (Path("/dev/full"), "is no file"),
        (tmp_path / ("a" * 300), "File name too long"),
        (tmp_path / "a\0b", "null"),
    ):
        with pytest.raises(ConfigError, match=words) as raised:
            open_capture(path)
        assert "\n" not in str(raised.value)
        assert str(raised.value).startswith(f"capture {path} ")


def test_a_folder_without_rights_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match="Permission denied; check its folder, this user's right"):
        open_capture(tmp_path / "a.pcapng")


@contextlib.contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """The kernel lets no file of this process grow beyond `size`, as a full disk would not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_at_the_start_is_one_line(tmp_path: Path) -> None:
    with (
        files_at_most(50),
        pytest.raises(ConfigError, match=r"File too large; check .* the space on the disk"),
    ):
        open_capture(tmp_path / "a.pcapng")
    assert (tmp_path / "a.pcapng").read_bytes() == b""


@pytest.mark.parametrize("room", [0, 1, 40, 87])
def test_a_disk_that_fills_ends_the_capture_at_a_whole_block_and_is_said_once(
    room: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.pcapng"
    capture = open_capture(path)
    capture.observe(Direction.SENT, METER, HEAD_END, b"kept", NOON)
    with capture_logs() as logs:
        with files_at_most(path.stat().st_size + room):
            for _ in range(5):
                capture.observe(Direction.SENT, METER, HEAD_END, b"lost" * 4, NOON)
        capture.observe(Direction.SENT, METER, HEAD_END, b"late", NOON)
        capture.close()
        capture.close()
    assert [opened(p.octets)[4] for p in packets_of(path)] == [b"kept"]
    assert capture.counters == {"datagrams captured": 1, "datagrams not captured": 6}
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("capture ended", "warning"),
        ("capture closed", "info"),
    ]
    assert logs[0]["reason"] == "File too large"
    assert (logs[1]["captured"], logs[1]["missed"]) == (1, 6)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_any_error_of_the_disk_ends_the_capture_only(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = open_capture(tmp_path / "a.pcapng")

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail)
    monkeypatch.setattr(os, "ftruncate", fail)
    with capture_logs() as logs:
        capture.observe(Direction.SENT, METER, HEAD_END, b"x", NOON)
    assert [log["reason"] for log in logs] == [os.strerror(number)]
    assert capture.is_ended
    capture.close()


@pytest.mark.parametrize("name", ["a.pcapng", "a.txt"])
def test_a_file_never_grows_beyond_its_bound(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with capture_logs() as logs:
        for _ in range(3):
            capture = open_capture(path, size_max=700)
            for _ in range(9):
                capture.observe(Direction.SENT, METER, HEAD_END, b"x", NOON)
            capture.close()
            assert path.stat().st_size <= 700
    ends = [log["reason"] for log in logs if log["event"] == "capture ended"]
    assert ends == ["at its bound of 700 octets"] * 3
    assert FILE_SIZE_MAX >= 1024 * 1024


# On a link


@pytest.mark.both_loops
@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::1", "::"])
async def test_a_link_shows_its_observer_what_it_carries_between_real_addresses(
    bound: str,
) -> None:
    seen: list[tuple[Direction, Peer, Peer, bytes, float]] = []
    loopback = "::1" if ":" in bound else "127.0.0.1"
    here, there = Plain(), Plain()
    _, on_event, complete = collector(1)

    def observer(
        direction: Direction, source: Peer, destination: Peer, octets: bytes, utc: float
    ) -> None:
        seen.append((direction, source, destination, octets, utc))

    open_link = observed(observer, wall=lambda: NOON)
    near = await open_link(here, on_event, host=bound, port=0)
    far = await open_udp(there, lambda _: None, host=loopback, port=0)
    own, other = (loopback, near.address[1]), far.address
    try:
        here.out.append(((loopback, far.address[1]), b"out"))
        near.settle()
        near.pause_writing()
        here.out.append(((loopback, far.address[1]), b"dropped"))
        near.settle()
        near.resume_writing()
        there.out.append(((loopback, near.address[1]), b"in"))
        far.settle()
        await asyncio.wait_for(complete.wait(), 10)
    finally:
        near.close()
        far.close()
        await asyncio.sleep(0)
    summary = [(way, *endpoints(one, to), octets, utc) for way, one, to, octets, utc in seen]
    assert summary == [
        (Direction.SENT, own, other, b"out", NOON),
        (Direction.RECEIVED, other, own, b"in", NOON),
    ]


def endpoints(*peers: Peer) -> list[Peer]:
    return [peer[:2] if isinstance(peer, tuple) else peer for peer in peers]


def test_without_an_observer_links_are_opened_as_ever() -> None:
    assert observed(None) is open_udp


# tshark's judgement


def tshark(path: Path, port: int, *arguments: str) -> str:
    done = subprocess.run(
        [
            *(needs("tshark", "tshark"), "-n", "-r", path, "-d", f"udp.port=={port},coap"),
            *("-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "HOME": str(path.parent), "XDG_CONFIG_HOME": str(path.parent)},
    )
    assert done.returncode == 0, done.stderr
    # What root is told does not matter here; anything else does.
    said = [line for line in done.stderr.splitlines() if not line.startswith("Running as user")]
    assert said == []
    return done.stdout


FIELDS = (
    *("frame.packet_flags_direction", "ip.version", "ip.checksum.status"),
    *("udp.checksum.status", "udp.dstport", "coap.code", "coap.opt.uri_path"),
)
GOOD = "1"
COMBINED = 'coap.opt.name contains "Unknown Option (21)"'
"""What tshark calls the EDHOC option of RFC 9668."""


def rows_of(path: Path, port: int, *arguments: str) -> list[dict[str, str]]:
    fields = [part for field in FIELDS for part in ("-e", field)]
    lines = tshark(path, port, "-T", "fields", *fields, *arguments).splitlines()
    return [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in lines]


@pytest.mark.parametrize(("host", "version"), [("127.0.0.1", 4), ("::1", 6)])
async def test_a_street_is_read_by_tshark_and_opened_with_a_meters_own_keys(
    host: str, version: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("tshark", "tshark")
    path = tmp_path / "street.pcapng"
    capture = open_capture(path)
    metrology = [['source = "constant"', "watts = 400"]] * 2
    async with street(
        tmp_path, metrology, host=host, open_link=observed(capture.observe)
    ) as running:
        port = running.southbound._require_link().address[1]

        async def all_reported() -> bool:
            counts = await running.store.counts()
            owed = sum(meter.agent.owed_count for meter in running.meters)
            return counts.registered == 2 and not owed

        await running.until(all_reported, what="every report acknowledged")
        for identity in running.identities:
            wish = ReadRequest(b"12345678", ReadParts.REGISTERS)
            message = Message.request(
                Code.FETCH, READ, payload=wish.encode(), content_format=CONTENT_FORMAT_V1
            )
            answer, _ = await running.southbound.ask(identity.meter, message, deadline_s=10.0)
            assert answer.code == Code.CONTENT
    capture.close()
    assert capture.counters["datagrams not captured"] == 0

    rows = rows_of(path, port)
    assert len(rows) == capture.counters["datagrams captured"]
    for row in rows:
        assert row["udp.checksum.status"] == GOOD
        assert row["ip.checksum.status"] == (GOOD if version == 4 else "")
        assert row["ip.version"] == str(version)
        is_sent = row["frame.packet_flags_direction"] == "0x00000002"
        assert is_sent == (row["udp.dstport"] == str(port))
        assert row["coap.code"], "not read as CoAP"
    handshakes = [row for row in rows if row["coap.opt.uri_path"] == ".well-known,edhoc"]
    assert len(handshakes) >= 2, "message_1 of each; message_3 goes along with the first request"
    assert not any("rep" in row["coap.opt.uri_path"] for row in rows), "readable without keys"
    assert tshark(path, port, "-Y", "icmp || icmpv6") == ""
    # The first request of each meter takes message_3 along: tshark does not know RFC 9668 yet.
    combined = tshark(path, port, "-Y", COMBINED).splitlines()
    assert len(combined) == 2
    assert tshark(path, port, "-Y", "_ws.malformed").splitlines() == combined

    lines = wireshark_lines(tmp_path / "meter-0" / "meter-data")
    keys = [part for line in lines for part in ("-o", f"uat:oscore_contexts:{line}")]
    asked, answered = opened_by(path, port, keys)
    assert asked.count("/reg") == 0, "it went with message_3"
    assert asked.count("/rep") >= 1
    assert asked.count("/read") == 1, "what the head-end asks is opened by the second line"
    assert answered.count("2.04 Changed") >= 1
    assert answered.count("2.05 Content") == 1
    assert opened_by(path, port, []) == ([], []), "without keys nothing is opened"

    capsys.readouterr()
    # The command prints the same, and its warning elsewhere.
    assert cli.main(["keys", "--config", str(tmp_path / "meter-0" / "meterd.toml")]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == lines
    assert printed.err.startswith("These lines are secret")
    assert printed.err.count("\n") == 1


def opened_by(path: Path, port: int, keys: list[str]) -> tuple[list[str], list[str]]:
    """Paths of requests and codes of responses that tshark could decrypt."""
    text = tshark(path, port, *keys, "-O", "oscore", "-Y", "oscore")
    asked, answered = [], []
    for inner in re.findall(
        r"Decrypted Authentication Tag: \w+\]\n(.*?)(?=\n\n|\Z)", text, re.DOTALL
    ):
        code = re.search(r"Code: (.*) \(", inner)
        assert code is not None
        found = re.findall(r"^        Uri-Path: (.*)$", inner, re.MULTILINE)
        if found:
            asked.append("/" + "/".join(found))
        else:
            answered.append(code[1])
    return asked, answered


def test_every_datagram_is_whole_for_tshark_also_in_a_file_of_two_runs(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    ping = bytes.fromhex("40000001")
    for run in range(2):
        with contextlib.closing(open_capture(path)) as capture:
            capture.observe(
                Direction.SENT, METER, HEAD_END, ping, NOON + run, comment=f"frame {run}"
            )
            capture.observe(
                Direction.RECEIVED,
                ("::1", 5683, 0, 0),
                ("::1", 40_001, 0, 0),
                ping,
                NOON + run + 0.5,
            )
    text = tshark(
        *(path, 5683, "-T", "fields", "-E", "separator=|", "-e", "frame.time_epoch"),
        *("-e", "frame.comment", "-e", "coap.code", "-e", "udp.checksum.status"),
    )
    assert text.splitlines() == [
        "1795176000.125000000|frame 0|0|1",
        "1795176000.625000000||0|1",
        "1795176001.125000000|frame 1|0|1",
        "1795176001.625000000||0|1",
    ]


# The commands


def made(folder: Path) -> Path:
    """The settings of a meter that speaks at once, to nobody."""
    options = ("--headend", "127.0.0.1:9", "--headend-key", public_key("head-end").hex())
    assert cli.main(["init", "--directory", str(folder), *options]) == 0
    config = folder / "meterd.toml"
    config.write_text(config.read_text() + "\n[schedule]\nstart_spread_s = 0\n")
    return config


def test_keys_of_a_meter_without_a_session_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, storage = made(tmp_path), tmp_path / "meter-data"
    capsys.readouterr()
    assert cli.main(["keys", "--config", str(config)]) == 1
    assert capsys.readouterr() == (
        "",
        f"meterd: {storage} is missing: the meter has not run yet and has no session\n",
    )
    assert not storage.exists()
    with contextlib.closing(Storage.open(storage)):
        assert cli.main(["keys", "--config", str(config)]) == 1
        assert "in use by another meterd" in capsys.readouterr().err
    assert cli.main(["keys", "--config", str(config)]) == 1
    assert capsys.readouterr() == (
        "",
        f"meterd: {storage} has no session yet: let the meter join a head-end first\n",
    )


def program(name: str, *arguments: str | Path) -> list[str]:
    return [str(Path(sys.executable).parent / name), *map(str, arguments)]


@pytest.mark.parametrize("is_street", [False, True], ids=["run", "street run"])
def test_the_daemon_captures_and_closes_the_file_when_it_stops(
    is_street: bool, tmp_path: Path
) -> None:
    config = made(tmp_path / "street" / "meter")
    path = tmp_path / "a.pcapng"
    which = ("street", "run", tmp_path / "street") if is_street else ("run", "--config", config)
    process = subprocess.Popen(
        program("meterd", *which, "--capture", path), stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + 20
        while not (path.exists() and path.stat().st_size > 150):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "nothing was captured"
            time.sleep(0.02)
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    (closed,) = [json.loads(line) for line in errors.splitlines() if "capture closed" in line]
    packets = packets_of(path)
    assert closed["captured"] == len(packets) > 0
    source, _, destination, port, octets = opened(packets[0].octets)
    assert (source, destination, port) == ("127.0.0.1", "127.0.0.1", 9)
    assert b".well-known\x05edhoc" in octets


def test_a_capture_that_cannot_be_is_one_line_of_every_program(tmp_path: Path) -> None:
    config = made(tmp_path / "street" / "meter")
    path = tmp_path / "none" / "a.pcapng"
    home = tmp_path / "headend"
    init = program("headend", "init", "--directory", home, "--listen", "127.0.0.1:0")
    subprocess.run(init, check=True, capture_output=True, timeout=30)
    line = (
        f"capture {path} cannot be written: No such file or directory; "
        "check its folder, this user's rights and the space on the disk\n"
    )
    for name, arguments in (
        ("meterd", ("run", "--config", config)),
        ("meterd", ("street", "run", tmp_path / "street")),
        ("headend", ("serve", "--config", home / "headend.toml")),
        ("interop", ("demo", "--once", "--no-mesh", "--meters", "1")),
    ):
        done = subprocess.run(
            program(name, *arguments, "--capture", path),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert done.stderr.endswith(line), done.stderr


@pytest.mark.timeout(120)
def test_the_demo_keeps_what_the_head_end_hears(tmp_path: Path) -> None:
    path = tmp_path / "demo.pcapng"
    done = subprocess.run(
        program("interop", "demo", "--once", "--meters", "2", "--no-mesh", "--capture", path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    packets = packets_of(path)
    ports = {opened(packet.octets)[3] for packet in packets if packet.options[2][0] == 1}
    (port,) = ports
    assert all(row["coap.code"] for row in rows_of(path, port))
    assert len(packets) > 100
