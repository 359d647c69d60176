"""docs/protocol/mesh.md is enough to write a node from.

The contract under test: its examples are what the codecs write and read, its tables name what there
is, and the bounds and reasons in it are those of the code.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from amistack.framing import Priority
from mesh import packet as packets
from mesh.fragments import Fragment, FragmentSettings
from mesh.fragments import settings as fragment_settings
from mesh.fragments.codec import FRAGMENT_SIZE_MAX, SEQUENCE_COUNT
from mesh.packet import ROOT, Attempt, Packet, PacketKind, RplMark, ShortAddress, SourceRoute
from mesh.security import Received, Seal, counters, frame, limits, neighbours
from mesh.security import seal as seals
from tests.mesh.support import A, B

ROOT_FOLDER: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT_FOLDER / "docs" / "protocol" / "mesh.md").read_text("utf-8")
EXAMPLES: Final = [
    bytes.fromhex(line)
    for line in re.findall(r"(?m)^    ([0-9a-f ]+)$", TEXT.split("## Examples", maxsplit=1)[1])
]
KEY: Final = bytes(range(16))
UP: Final = Packet(
    PacketKind.COAP,
    Priority.SCHEDULED,
    ShortAddress(0x0102),
    ROOT,
    bytes.fromhex("40010001"),
    64,
    rpl=RplMark(512),
)
DOWN: Final = Packet(
    PacketKind.COAP,
    Priority.ON_DEMAND,
    ROOT,
    ShortAddress(7),
    bytes.fromhex("60450001"),
    63,
    rpl=RplMark(256, is_down=True),
    route=SourceRoute((ShortAddress(3), ShortAddress(5)), 1),
    attempt=Attempt(9, 1),
)
SETTINGS: Final = FragmentSettings.for_radio(127)


def test_examples_of_packets_are_written_and_read_as_they_stand() -> None:
    for octets, packet in ((EXAMPLES[0], UP), (EXAMPLES[3], DOWN)):
        assert packet.encode().hex() == octets.hex()
        assert Packet.decode(octets) == packet


def test_examples_of_frames_are_sealed_and_opened_as_they_stand() -> None:
    a = Seal(A, {1: KEY}, active=1, stored_counter=5)
    a.reserved(6)
    b = Seal(B, {1: KEY}, active=1)
    assert a.seal(UP.encode(), destination=B, wants_ack=True).octets.hex() == EXAMPLES[1].hex()
    received = b.open(EXAMPLES[1], now=0.0)
    assert isinstance(received, Received)
    assert received.payload == UP.encode()
    assert b.acknowledge(received).hex() == EXAMPLES[2].hex()
    assert a.open(EXAMPLES[2], now=0.0) == seals.Acknowledged(B, 5)


def test_example_of_a_fragment_is_written_as_it_stands() -> None:
    piece = b"\xaa\xbb" + bytes(93)
    assert Fragment(7, 1, 95, piece).encode()[:8].hex() == EXAMPLES[4].hex()


def test_tables_name_what_there_is() -> None:
    for kind in PacketKind:
        assert f"| {int(kind)} | {kind.name} |" in TEXT
    for frame_type in frame.FrameType:
        assert f"| {int(frame_type)} | {frame_type.name} |" in TEXT
    for number in packets.OptionNumber:
        assert f"| {int(number)} | {number.name} |" in TEXT


def first_words_of_refusals(module: str) -> set[str]:
    """The literal reasons with which a module refuses what comes from outside."""
    tree = ast.parse((ROOT_FOLDER / module).read_text("utf-8"))
    return {
        str(node.args[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "MeshError"
        and isinstance(node.args[0], ast.Constant)
    }


@pytest.mark.parametrize(
    "module",
    [
        "mesh/packet.py",
        "mesh/security/frame.py",
        "mesh/security/seal.py",
        "mesh/fragments/codec.py",
        "mesh/fragments/inbound.py",
        "mesh/fragments/machine.py",
        "mesh/station/echo.py",
        "mesh/station/ways.py",
    ],
)
def test_every_reason_is_written_down(module: str) -> None:
    reasons = first_words_of_refusals(module)
    assert reasons
    assert not {reason for reason in reasons if f"`{reason}`" not in TEXT}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (frame.PAYLOAD_SIZE_MAX, "payload, encrypted, at most 2,047"),
        (frame.BROADCAST_OVERHEAD, "to all costs 22 octets"),
        (frame.UNICAST_OVERHEAD, "one to one 24."),
        (frame.ACK_FIRST_OCTET - 0x25, "0x25: version 1"),
        (counters.RESERVE_STEP, "blocks of 8,192"),
        (counters.RESERVE_AHEAD, "fewer than 4,096"),
        (neighbours.WINDOW_SIZE, "which of the 64 up to it"),
        (neighbours.WINDOW_SIZE, "| 64 or more below"),
        (neighbours.PROVEN_COUNT_MAX, "| proven neighbours | 512 |"),
        (neighbours.UNPROVEN_COUNT_MAX, "| neighbours not proven | 64 |"),
        (limits.CHALLENGE_LIFETIME, "within 30 s"),
        (limits.CHALLENGE_INTERVAL, "neighbour | 1 s apart, doubled"),
        (limits.CHALLENGE_INTERVAL_MAX, "up to 60 s"),
        (limits.BURST, "16 at once"),
        (limits.RATE, "2 a second"),
        (limits.ANSWER_INTERVAL, "neighbour | 1 s apart |"),
        (limits.PENDING_COUNT_MAX, "| open challenges | 64 |"),
        (seals.AWAITED_COUNT_MAX, "acknowledgement is awaited | 64 |"),
        (packets.PAYLOAD_SIZE_MAX, "at most 1,280"),
        (packets.PACKET_SIZE_MAX, "7 to 1,543 octets"),
        (packets.ROUTE_LENGTH_MAX, "1 to 24 short addresses"),
        (fragment_settings.FRAGMENT_SIZE_MIN, "| 49 to 511;"),
        (FRAGMENT_SIZE_MAX, "49 to 511;"),
        (SEQUENCE_COUNT, "| fragments of a packet | 32 |"),
        (SETTINGS.sending_count_max, "in fragments | 8 |"),
        (SETTINGS.reassembly_count_max, "put together | 8; 3 of"),
        (SETTINGS.reassembly_count_of_one_max, "3 of one neighbour"),
        (SETTINGS.reassembly_timeout, "time for that | 60 s"),
        (SETTINGS.label_count_max, "| 64; 24 of"),
        (SETTINGS.label_count_of_one_max, "24 of one neighbour"),
        (SETTINGS.label_timeout, "sign of its packet | 60 s"),
        (SETTINGS.finished_count_max, "answered for | 64 |"),
        (SETTINGS.linger, "For 60 s it answers"),
        (SETTINGS.gap, "0.05 s apart"),
        (SETTINGS.rto, "after 3 s"),
        (SETTINGS.rto_max, "up to 24, three times"),
    ],
)
def test_bounds_and_times_are_those_of_the_code(value: float, said: str) -> None:
    assert said in TEXT
    assert value == 0 or f"{value:,g}" in said or f"{value:,}" in said


def test_sizes_of_headers_are_those_of_the_code() -> None:
    assert f"upward one has {len(UP.encode()) - 4} before" in TEXT
    for count, size in ((1, 16), (2, 18), (3, 21), (4, 23), (24, 63)):
        route = SourceRoute(tuple(ShortAddress(number) for number in range(1, count + 1)))
        octets = Packet(0, Priority.CONTROL, ROOT, ROOT, rpl=RplMark(1), route=route).encode()
        assert len(octets) == size == 14 + 2 * count + (count >= 3)
