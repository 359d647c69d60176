"""Captures, read by a stranger: Wireshark finds in every RPL field what we put there.

The contract under test: `mesh.sim.capture` writes RPL control so that `tshark` reads every field
as `mesh.routing.messages` does, in frames that nodes sent and in messages with every option.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.packet import BROADCAST, Packet, PacketKind, ShortAddress
from mesh.routing.messages import (
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
)
from mesh.sim.capture import Capture
from mesh.sim.nodes import CIPHERS, DODAG_ID, NETWORK_KEY, packet_in
from mesh.sim.world import station_address
from tests.mesh.sim.laid import chain, laid
from tests.support.debian import needs

Fields = dict[str, Sequence[int | IPv6Address]]
ADDRESSES = [station_address(number) for number in range(4)]
OTHER_ID = bytes(range(0x20, 0x30))

NUMBERS = (
    "dis.flags", "opt.solicited.instance", "opt.solicited.flag.v", "opt.solicited.flag.i",
    "opt.solicited.flag.d", "opt.solicited.version",
    "dio.instance", "dio.version", "dio.rank", "dio.flag.g", "dio.flag.mop",
    "dio.flag.preference", "dio.dtsn",
    "opt.metric.type", "opt.metric.length", "opt.metric.etx.object.etx",
    "opt.config.auth", "opt.config.pcs", "opt.config.interval_double", "opt.config.interval_min",
    "opt.config.redundancy", "opt.config.max_rank_inc", "opt.config.min_hop_rank_inc",
    "opt.config.ocp", "opt.config.def_lifetime", "opt.config.lifetime_unit",
    "dao.instance", "dao.flag.k", "dao.flag.d", "dao.sequence", "opt.target.prefix_length",
    "opt.transit.flag.e", "opt.transit.pathctl", "opt.transit.pathseq",
    "opt.transit.pathlifetime",
    "daoack.instance", "daoack.flag.d", "daoack.sequence", "daoack.status",
)  # fmt: skip
ADDRESS_FIELDS = (
    "opt.solicited.dodagid", "dio.dagid", "dao.dodagid", "opt.target.prefix",
    "opt.transit.parent", "daoack.dodagid",
)  # fmt: skip


def as_we_read(message: Message) -> Fields:
    """Every field of a message by the name that Wireshark has for it."""
    match message:
        case Dis(solicited):
            return {"dis.flags": [0]} | _solicited(solicited)
        case Dio():
            found: Fields = {
                "dio.instance": [message.instance],
                "dio.version": [message.version],
                "dio.rank": [message.rank],
                "dio.flag.g": [message.is_grounded],
                "dio.flag.mop": [message.mode],
                "dio.flag.preference": [message.preference],
                "dio.dtsn": [message.dtsn],
                "dio.dagid": [IPv6Address(message.dodag_id)],
            }
            if message.etx is not None:
                found |= {"opt.metric.type": [7], "opt.metric.length": [2]}
                found["opt.metric.etx.object.etx"] = [message.etx]
            return found | _configuration(message.configuration)
        case Dao():
            transits = message.transits
            return {
                "dao.instance": [message.instance],
                "dao.flag.k": [message.is_ack_wanted],
                "dao.flag.d": [message.dodag_id is not None],
                "dao.sequence": [message.sequence],
                **_dodag_id("dao.dodagid", message.dodag_id),
                "opt.target.prefix_length": [128],
                "opt.target.prefix": [IPv6Address(message.target)],
                "opt.transit.flag.e": [0 for _ in transits],
                "opt.transit.pathctl": [transit.path_control for transit in transits],
                "opt.transit.pathseq": [transit.path_sequence for transit in transits],
                "opt.transit.pathlifetime": [transit.path_lifetime for transit in transits],
                "opt.transit.parent": [IPv6Address(transit.parent) for transit in transits],
            }
        case DaoAck():
            return {
                "daoack.instance": [message.instance],
                "daoack.flag.d": [message.dodag_id is not None],
                "daoack.sequence": [message.sequence],
                "daoack.status": [message.status],
                **_dodag_id("daoack.dodagid", message.dodag_id),
            }


def _dodag_id(name: str, dodag_id: bytes | None) -> Fields:
    return {} if dodag_id is None else {name: [IPv6Address(dodag_id)]}


def _solicited(asked: Solicited | None) -> Fields:
    if asked is None:
        return {}
    return {
        "opt.solicited.instance": [asked.instance or 0],
        "opt.solicited.flag.v": [asked.version is not None],
        "opt.solicited.flag.i": [asked.instance is not None],
        "opt.solicited.flag.d": [asked.dodag_id is not None],
        "opt.solicited.dodagid": [IPv6Address(asked.dodag_id or bytes(16))],
        "opt.solicited.version": [asked.version or 0],
    }


def _configuration(option: Configuration | None) -> Fields:
    if option is None:
        return {}
    return {
        "opt.config.auth": [option.is_authenticated],
        "opt.config.pcs": [option.path_control_size],
        "opt.config.interval_double": [option.interval_doublings],
        "opt.config.interval_min": [option.interval_min],
        "opt.config.redundancy": [option.redundancy],
        "opt.config.max_rank_inc": [option.rank_increase_max],
        "opt.config.min_hop_rank_inc": [option.hop_rank_increase_min],
        "opt.config.ocp": [option.objective],
        "opt.config.def_lifetime": [option.lifetime],
        "opt.config.lifetime_unit": [option.lifetime_unit],
    }


def as_tshark_reads(path: Path) -> list[Fields]:
    """The same of every RPL message of a capture, out of Wireshark's own dissector."""
    names = (*NUMBERS, *ADDRESS_FIELDS)
    wanted = [part for name in names for part in ("-e", f"icmpv6.rpl.{name}")]
    said = subprocess.run(
        [needs("tshark", "tshark"), "-r", str(path), "-Y", "icmpv6.type==155", "-T", "fields",
         "-E", "occurrence=a", *wanted, "-e", "_ws.malformed"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rows = []
    for line in said.splitlines():
        *columns, malformed = line.split("\t")
        assert malformed == ""
        row: Fields = {}
        for name, column in zip(names, columns, strict=True):
            if column:
                read = IPv6Address if name in ADDRESS_FIELDS else _number
                row[name] = [read(value) for value in column.split(",")]
        rows.append(row)
    return rows


def _number(text: str) -> int:
    return {"True": 1, "False": 0}[text] if text in ("True", "False") else int(text, 0)


def every_option() -> Iterator[Message]:
    odd = Configuration(3, 12, 10, 0x0FED, 0x0180, 0xFE, 0x1234, 1, 5, is_authenticated=True)
    yield Dis()
    for version, instance, dodag_id in ((7, 30, OTHER_ID), (None, 30, None), (0, None, OTHER_ID)):
        yield Dis(Solicited(instance, dodag_id, version))
    yield Dio(30, 241, 0x0234, 17, OTHER_ID, odd, 0xABCD, is_grounded=False, preference=5)
    yield Dio(0, 0, 0xFFFF, 255, DODAG_ID, mode=2)
    parents = [address_of(DODAG_ID, short) for short in (2, 3, 60_000)]
    transits = tuple(
        Transit(parent, 127, lifetime, control)
        for parent, lifetime, control in zip(parents, (12, 0, 255), (0x80, 0x40, 0x20), strict=True)
    )
    yield Dao(30, 9, address_of(DODAG_ID, 77), transits, dodag_id=OTHER_ID)
    yield Dao(0, 255, address_of(DODAG_ID, 1), transits[:1], is_ack_wanted=False)
    yield DaoAck(30, 200, 129, OTHER_ID)
    yield DaoAck(0, 0)


def test_tshark_reads_every_option_as_we_do(tmp_path: Path) -> None:
    messages = list(every_option())
    path = tmp_path / "options.pcapng"

    def read(octets: bytes, to: Eui64 | None) -> Packet:
        del to
        return Packet(PacketKind.RPL, Priority.CONTROL, ShortAddress(5), BROADCAST, octets, 1)

    capture = Capture(path, ADDRESSES, read, prefix=DODAG_ID[:8])
    for at, message in enumerate(messages):
        capture.note(at / 10, 0, -1, message.encode())
    capture.close()
    assert as_tshark_reads(path) == [as_we_read(message) for message in messages]
    seen = {name for message in messages for name in as_we_read(message)}
    assert seen == {*NUMBERS, *ADDRESS_FIELDS}


@pytest.mark.parametrize("seed", [1, 2])
def test_tshark_reads_what_nodes_say_as_they_do(seed: int, tmp_path: Path) -> None:
    """Nodes join, one loses its parent, the root begins a new version."""
    world = laid(chain(0, 1, 2, 3) | {(1, 3): 0.7}, seed=seed)
    path = tmp_path / "nodes.pcapng"
    cipher = CIPHERS["fast"](NETWORK_KEY)
    sent: list[Message] = []

    def read(octets: bytes, to: Eui64 | None) -> Packet | None:
        packet = packet_in(octets, to, cipher)
        if packet is not None and packet.kind == PacketKind.RPL and packet.payload:
            sent.append(decode(packet.payload))
        return packet

    capture = Capture(path, world.stations.addresses, read, prefix=DODAG_ID[:8])
    world.stations.watchers.append(capture.note)
    world.run_until(60)
    world.power_off(2)
    world.run_until(90)
    world.power_on(2)
    world.run_until(150)
    capture.close()
    assert as_tshark_reads(path) == [as_we_read(message) for message in sent]
    assert {type(message) for message in sent} == {Dis, Dio, Dao, DaoAck}


def captured(path: Path, count: int) -> Capture:
    """A capture of so many frames of 100 octets, closed."""
    capture = Capture(path, ADDRESSES, lambda octets, to: None, prefix=DODAG_ID[:8])
    for at in range(count):
        capture.note(float(at), 0, -1, bytes(100))
    capture.close()
    return capture


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_disk_that_is_full_ends_the_capture_and_nothing_else(count: int) -> None:
    capture = captured(Path("/dev/full"), count)
    assert capture.refusal == "No space left on device"
    assert capture.shortfall == "/dev/full lacks the end of the run: No space left on device"


def test_capture_says_when_its_file_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "air.pcapng"
    monkeypatch.setattr("mesh.sim.capture.FILE_SIZE_MAX", 10_000)
    assert captured(path, 10).shortfall == ""
    capture = captured(path, 1000)
    assert capture.refusal == ""
    assert capture.shortfall == f"{path} lacks the end of the run: it is full"
    assert 9_800 < path.stat().st_size <= 10_000
