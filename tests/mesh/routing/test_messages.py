"""RPL's control messages: octets that we did not choose, round trips, and garbage.

The contract under test: `decode` gives a message or raises MeshError, whatever it is given; it
inverts `encode`; and tshark reads every field as we do.
"""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError, MeshError
from mesh.routing.messages import (
    HOP_RANK_INCREASE_MAX,
    INTERVAL_EXPONENT_MAX,
    INTERVAL_EXPONENT_MIN,
    LONGEST_EXPONENT_MIN,
    ROUTE_LIFE_MIN,
    Configuration,
    Dao,
    DaoAck,
    Dio,
    Dis,
    Message,
    Solicited,
    Transit,
    address_of,
    decode,
    is_newer,
    sequence_after,
    short_of,
)
from tests.support.debian import needs

octet = st.integers(0, 255)
word = st.integers(0, 0xFFFF)
address = st.binary(min_size=16, max_size=16)
configurations = st.builds(
    Configuration,
    st.integers(LONGEST_EXPONENT_MIN - INTERVAL_EXPONENT_MIN, INTERVAL_EXPONENT_MAX),
    st.integers(INTERVAL_EXPONENT_MIN, INTERVAL_EXPONENT_MAX),
    octet,
    word,
    st.integers(1, HOP_RANK_INCREASE_MAX),
    st.integers(1, 0xFF),
    st.integers(ROUTE_LIFE_MIN, 0xFFFF),
    word,
    st.integers(0, 7),
    st.booleans(),
)
dios = st.builds(
    Dio,
    octet,
    octet,
    word,
    octet,
    address,
    st.none() | configurations,
    st.none() | word,
    st.booleans(),
    st.integers(0, 7),
    st.integers(0, 7),
)
dises = st.builds(
    Dis, st.none() | st.builds(Solicited, st.none() | octet, st.none() | address, st.none() | octet)
)
daos = st.builds(
    Dao,
    octet,
    octet,
    address,
    st.lists(st.builds(Transit, address, octet, octet, octet), min_size=1, max_size=4).map(tuple),
    st.booleans(),
    st.none() | address,
)
acks = st.builds(DaoAck, octet, octet, octet, st.none() | address)
messages: st.SearchStrategy[Message] = st.one_of(dios, dises, daos, acks)

DODAG_ID = bytes.fromhex("fd0000000000000000000000000000a1")
CONFIGURATION = Configuration(14, 9, 10, 1024, 256, 12, 2400)


@settings(deadline=None)
@given(messages)
def test_what_was_encoded_is_decoded(message: Message) -> None:
    assert decode(message.encode()) == message


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=120))
def test_garbage_is_refused_or_read_but_nothing_else(octets: bytes) -> None:
    try:
        message = decode(octets)
    except MeshError:
        return
    # What was stepped over is gone, and what was read stays the same.
    assert decode(message.encode()) == message


@settings(deadline=None)
@given(messages, st.data())
def test_a_cut_message_is_never_read_as_another_kind(message: Message, data: st.DataObject) -> None:
    octets = message.encode()
    cut = octets[: data.draw(st.integers(0, len(octets) - 1))]
    try:
        found = decode(cut)
    except MeshError:
        return
    assert type(found) is type(message)


def test_a_dio_has_the_octets_of_rfc_6550() -> None:
    # By hand from RFC 6550 sections 6.3.1 and 6.7.6, bit by bit.
    expected = bytes.fromhex(
        "01"  # code
        "00 f0 0100 88 07 00 00"  # instance, version, rank, G MOP Prf, DTSN, flags, reserved
        "fd0000000000000000000000000000a1"
        "04 0e 07 0e 09 0a 0400 0100 0001 00 0c 0960"
    )
    assert Dio(0, 240, 256, 7, DODAG_ID, CONFIGURATION).encode() == expected
    assert decode(expected) == Dio(0, 240, 256, 7, DODAG_ID, CONFIGURATION)


def test_a_dao_has_the_octets_of_rfc_6550() -> None:
    target = address_of(DODAG_ID, 0x0012)
    parent = address_of(DODAG_ID, 0x0034)
    expected = bytes.fromhex(
        "02 00 80 00 f1"  # code, instance, K, reserved, sequence
        "05 12 00 80 fd00000000000000 000000fffe000012"  # target of 128 bits
        "06 14 00 80 f2 0c fd00000000000000 000000fffe000034"  # PC1 first
    )
    dao = Dao(0, 0xF1, target, (Transit(parent, 0xF2, 12, 0x80),))
    assert dao.encode() == expected
    assert decode(expected) == dao
    assert short_of(dao.target) == 0x0012


def test_a_metric_container_carries_etx_as_rfc_6551_has_it() -> None:
    # RFC 6551 section 4.3.2: 3.569 is 457.
    octets = Dio(0, 240, 256, 0, DODAG_ID, None, 457).encode()
    assert octets.endswith(bytes.fromhex("02 06 07 0000 02 01c9"))


def test_padding_and_unknown_options_are_stepped_over() -> None:
    octets = Dio(0, 240, 256, 0, DODAG_ID).encode()
    options = bytes.fromhex("00 00 01 03 000000 08 02 abcd") + CONFIGURATION.encode()
    assert decode(octets + options) == Dio(0, 240, 256, 0, DODAG_ID, CONFIGURATION)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "truncated"),
        (b"\x07", "unknown code"),
        (bytes.fromhex("01 00 f0 0100"), "truncated"),
        (Dio(0, 0, 256, 0, DODAG_ID).encode() + b"\x04\x0d" + bytes(13), "bad option size"),
        (Dio(0, 0, 256, 0, DODAG_ID).encode() + b"\x04\x0e" + bytes(14), "bad configuration"),
        (Dio(0, 0, 256, 0, DODAG_ID).encode() + b"\x01\xff", "truncated"),
        (Dio(0, 0, 256, 0, DODAG_ID).encode() + b"\x01\x00" * 65, "too many options"),
        (Dio(0, 0, 256, 0, DODAG_ID).encode() + bytes(1024), "too long"),
        (bytes.fromhex("02 00 80 00 f1"), "no target"),
        (bytes.fromhex("02 00 80 00 f1 05 02 00 00"), "bad target"),
        (Dao(0, 1, bytes(16), ()).encode(), "no transit"),
        (bytes.fromhex("02 00 40 00 f1"), "truncated"),
    ],
)
def test_each_fault_has_its_reason(octets: bytes, reason: str) -> None:
    with pytest.raises(MeshError) as caught:
        decode(octets)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("increase", "is_taken"),
    [(0, False), (1, True), (HOP_RANK_INCREASE_MAX, True), (HOP_RANK_INCREASE_MAX + 1, False)],
)
def test_the_least_that_a_hop_adds_is_something_and_leaves_room_for_hops(
    increase: int, *, is_taken: bool
) -> None:
    dio = Dio(0, 240, 256, 0, DODAG_ID, replace(CONFIGURATION, hop_rank_increase_min=increase))
    if is_taken:
        assert decode(dio.encode()) == dio
    else:
        with pytest.raises(MeshError) as caught:
            decode(dio.encode())
        assert caught.value.reason == "bad configuration"


def test_an_address_that_holds_no_short_one_is_refused() -> None:
    with pytest.raises(MeshError):
        short_of(bytes(16))


def test_a_rank_that_has_no_place_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        Dio(0, 0, 0x10000, 0, DODAG_ID).encode()


def test_sequence_numbers_go_round_as_rfc_6550_has_it() -> None:
    value = 240
    for _ in range(500):
        following = sequence_after(value)
        assert is_newer(following, value)
        assert not is_newer(value, following)
        value = following
    assert value < 128


@pytest.mark.parametrize(
    ("candidate", "known", "expected"),
    # The examples of RFC 6550 section 7.2.
    [(240, 5, True), (5, 240, False), (250, 5, False), (5, 250, True), (0, 127, True)],
)
def test_a_restart_is_newer_than_what_was_before(
    candidate: int, known: int, expected: bool
) -> None:
    assert is_newer(candidate, known) is expected


# tshark's judgement


def checksum(source: bytes, destination: bytes, payload: bytes) -> int:
    octets = source + destination + struct.pack("!IxxxB", len(payload), 58) + payload
    octets += b"\0" * (len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def as_packet(message: Message) -> bytes:
    source, destination = (
        address_of(bytes.fromhex("fe80") + bytes(6), 1),
        bytes.fromhex("ff02000000000000000000000000001a"),
    )
    body = message.encode()
    payload = bytes((155, body[0], 0, 0)) + body[1:]
    payload = payload[:2] + checksum(source, destination, payload).to_bytes(2, "big") + payload[4:]
    return struct.pack("!IHBB", 6 << 28, len(payload), 58, 255) + source + destination + payload


def read_by_tshark(path: Path, found: list[Message], *fields: str) -> list[list[str]]:
    linktype_raw = 101
    octets = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, linktype_raw)
    for number, message in enumerate(found):
        packet = as_packet(message)
        octets += struct.pack("<IIII", number, 0, len(packet), len(packet)) + packet
    path.write_bytes(octets)
    command = [
        needs("tshark", "tshark"),
        "-n",
        "-r",
        str(path),
        "-T",
        "fields",
        "-E",
        "separator=;",
    ]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line.split(";") for line in done.stdout.splitlines()]


def test_tshark_reads_a_dio_as_we_do(tmp_path: Path) -> None:
    found: list[Message] = [
        Dio(0, 240, 256, 7, DODAG_ID, CONFIGURATION),
        Dio(3, 5, 0xFFFF, 255, DODAG_ID, CONFIGURATION, 457, is_grounded=False, preference=3),
    ]
    prefix = "icmpv6.rpl"
    rows = read_by_tshark(
        tmp_path / "dio.pcap",
        found,
        f"{prefix}.dio.instance",
        f"{prefix}.dio.version",
        f"{prefix}.dio.rank",
        f"{prefix}.dio.dtsn",
        f"{prefix}.dio.dagid",
        f"{prefix}.dio.flag.g",
        f"{prefix}.dio.flag.mop",
        f"{prefix}.dio.flag.preference",
        f"{prefix}.opt.config.interval_min",
        f"{prefix}.opt.config.interval_double",
        f"{prefix}.opt.config.redundancy",
        f"{prefix}.opt.config.max_rank_inc",
        f"{prefix}.opt.config.min_hop_rank_inc",
        f"{prefix}.opt.config.ocp",
        f"{prefix}.opt.config.def_lifetime",
        f"{prefix}.opt.config.lifetime_unit",
        "icmpv6.checksum.status",
    )
    for dio, row in zip(found, rows, strict=True):
        assert isinstance(dio, Dio)
        numbers = [int(value) for value in row[:4]]
        assert numbers == [dio.instance, dio.version, dio.rank, dio.dtsn]
        assert row[4] == "fd00::a1"
        assert row[5] in (("1", "True") if dio.is_grounded else ("0", "False"))
        assert int(row[6], 0) == 1
        assert int(row[7], 0) == dio.preference
        assert [int(value) for value in row[8:16]] == [9, 14, 10, 1024, 256, 1, 12, 2400]
        assert row[16] in ("1", "Good")


def test_tshark_reads_a_dao_and_its_answer_as_we_do(tmp_path: Path) -> None:
    target = address_of(DODAG_ID, 0x12)
    transits = tuple(
        Transit(address_of(DODAG_ID, parent), 0xF2, 12, control)
        for parent, control in ((0x34, 0x80), (0x56, 0x20), (0x78, 0x08))
    )
    prefix = "icmpv6.rpl"
    rows = read_by_tshark(
        tmp_path / "dao.pcap",
        [Dao(0, 0xF1, target, transits), DaoAck(0, 0xF1, 129), Dis()],
        f"{prefix}.dao.sequence",
        f"{prefix}.dao.flag.k",
        f"{prefix}.opt.target.prefix_length",
        f"{prefix}.opt.transit.pathctl",
        f"{prefix}.opt.transit.pathseq",
        f"{prefix}.opt.transit.pathlifetime",
        f"{prefix}.opt.transit.parent",
        f"{prefix}.daoack.sequence",
        f"{prefix}.daoack.status",
        "icmpv6.code",
    )
    dao, ack, dis = rows
    assert int(dao[0]) == 0xF1
    assert dao[1] in ("1", "True")
    assert dao[2] == "128"
    assert [int(value, 0) for value in dao[3].split(",")] == [0x80, 0x20, 0x08]
    assert [int(value) for value in dao[4].split(",")] == [0xF2] * 3
    assert [int(value) for value in dao[5].split(",")] == [12] * 3
    assert dao[6].split(",") == [
        "fd00::ff:fe00:34",
        "fd00::ff:fe00:56",
        "fd00::ff:fe00:78",
    ]
    assert (int(ack[7]), int(ack[8])) == (0xF1, 129)
    assert [row[9] for row in (dao, ack, dis)] == ["2", "3", "0"]
