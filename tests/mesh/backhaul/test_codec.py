"""Messages of the backhaul: round trips, the declared layout, and garbage.

The contract under test: `decode` returns a message or raises `MeshError`, whatever it is given;
it inverts `encode` exactly; both agree with the layout.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError, MeshError
from amistack.framing import Frame, Kind, Priority
from amistack.identifiers import Eui64
from mesh.backhaul import (
    MESSAGE_SIZE_MAX,
    Command,
    Down,
    Fate,
    Hello,
    Message,
    Order,
    Outcome,
    Probe,
    Probed,
    RouteRow,
    Trace,
    Traced,
    TraceRow,
    Up,
    What,
    decode,
    encode,
    layout,
)
from mesh.backhaul.codec import VERSION, Type
from mesh.backhaul.messages import CollectorMessage, HeadEndMessage, Status, Why
from mesh.collector.collector import GROUND_GRACE_S
from mesh.collector.denials import DENIED_COUNT_MAX
from mesh.collector.held import HELD_COUNT_MAX, REPORTS_HELD_MAX
from mesh.collector.line import HELLO_AGAIN_S, STREAM_AHEAD, TABLE_PRIORITY
from mesh.collector.probes import PROBE_COUNT_MAX
from mesh.collector.requests import AFTERMATH_S, REQUEST_COUNT_MAX
from mesh.collector.table import KEPT_BEHIND_MAX, SWEEP_INTERVAL_S
from tests.mesh.backhaul.messages import messages

ME = Eui64(bytes.fromhex("70b3d5fffe000001"))
SPECIFICATION = Path(__file__).parents[3] / "docs" / "protocol" / "backhaul.md"


@given(messages)
def test_decode_inverts_encode_and_both_are_the_layout(message: Message) -> None:
    octets = encode(message)
    assert decode(octets) == message
    assert layout.build(message) == octets
    assert layout.parse(octets) == message


@pytest.mark.parametrize("relays", [None, (), (7,), tuple(range(100, 124))])
def test_straight_to_a_neighbour_is_another_way_than_any(relays: tuple[int, ...] | None) -> None:
    down = Down(1, 5, 0, Priority.ALARM, b"octets", relays=relays)
    for message in (down, Probe(1, 5, relays), Trace(1, 5, relays)):
        octets = encode(message)
        assert decode(octets) == message
        assert layout.build(message) == octets


@given(messages)
def test_every_message_fits_into_one_frame(message: Message) -> None:
    octets = encode(message)
    assert len(octets) <= MESSAGE_SIZE_MAX
    frame = Frame(Kind.BACKHAUL, Priority.CONTROL, ME, octets)
    assert Frame.decode(frame.encode()).payload == octets


@given(st.one_of(st.binary(max_size=120), st.binary(max_size=120).map(lambda o: b"\x01" + o)))
def test_arbitrary_octets_raise_nothing_but_mesh_error_and_the_layout_agrees(octets: bytes) -> None:
    try:
        message = decode(octets)
    except MeshError:
        with pytest.raises(MeshError):
            layout.parse(octets)
    else:
        assert layout.parse(octets) == message
        assert encode(message) == octets


@given(messages, st.data())
def test_a_damaged_message_is_another_one_or_refused_by_both(
    message: Message, data: st.DataObject
) -> None:
    octets = bytearray(encode(message))
    place = data.draw(st.integers(0, min(len(octets), 60) - 1))
    octets[place] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(octets))
    except MeshError:
        with pytest.raises(MeshError):
            layout.parse(bytes(octets))
    else:
        assert found != message
        assert layout.parse(bytes(octets)) == found


@given(messages)
def test_a_message_cut_short_or_run_long_is_refused_unless_it_ends_with_a_payload(
    message: Message,
) -> None:
    if hasattr(message, "payload"):
        return
    octets = encode(message)
    for wrong in (octets[:-1], octets + b"\0"):
        with pytest.raises(MeshError):
            decode(wrong)


def test_each_type_has_its_class_in_one_direction() -> None:
    from_collector = {type(message).__name__ for message in _one_of_each(CollectorMessage)}
    to_collector = {made.__name__ for made in HeadEndMessage.__args__}
    assert not from_collector & to_collector
    assert len(from_collector | to_collector) == len(Type)
    assert all(
        (number >= 64) is (number.name.title().replace("_", "") in to_collector) for number in Type
    )


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "wrong size"),
        (b"\x01", "wrong size"),
        (b"\x02", "unknown version"),
        (b"\x02\x01garbage", "unknown version"),
        (bytes((VERSION, 0)), "unknown message"),
        (bytes((VERSION, 63)), "unknown message"),
        (bytes((VERSION, Type.UP)) + bytes(MESSAGE_SIZE_MAX), "wrong size"),
        (bytes((VERSION, Type.TABLE_END, 0)), "wrong size"),
        (bytes((VERSION, Type.TABLE_END, 0, 1, 2)), "wrong size"),
        (bytes((VERSION, Type.FATE)) + bytes.fromhex("00000001 63 0000 0000"), "message malformed"),
        (bytes((VERSION, Type.FATE)) + bytes.fromhex("00000001 00 0001 0000"), "message malformed"),
        (bytes((VERSION, Type.UP)) + bytes.fromhex("0000 00 00 00 0000 00 0000"),
         "message malformed"),
        (bytes((VERSION, Type.UP)) + bytes.fromhex("0001 00 08 00 0000 00 0000"),
         "message malformed"),
        (bytes((VERSION, Type.PROBE)) + bytes.fromhex("00000001 0005 0010 19") + bytes(50),
         "message malformed"),
        (bytes((VERSION, Type.PROBE)) + bytes.fromhex("00000001 0005 0010 01 0005"),
         "message malformed"),
        (bytes((VERSION, Type.ROUTE_ROW)) + bytes.fromhex("0005 f1 00000e10 00"),
         "message malformed"),
        (bytes((VERSION, Type.ROUTE_ROW)) + bytes.fromhex("0005 f1 00000e10 01 0005"),
         "message malformed"),
        (bytes((VERSION, Type.COMMAND)) + bytes.fromhex("00000001 02"), "wrong size"),
        (bytes((VERSION, Type.COMMAND_DONE)) + bytes.fromhex("00000001 02 00000000"),
         "message malformed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_its_reason(octets: bytes, reason: str) -> None:
    with pytest.raises(MeshError) as refused:
        decode(octets)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "make",
    [
        lambda: Up(0, 0, Priority.ALARM, b""),
        lambda: Up(1, 0, Priority.ALARM, bytes(1281)),
        lambda: Up(1, 256, Priority.ALARM, b""),
        lambda: Down(1, 0xFFFF, 0, Priority.ALARM, b""),
        lambda: Down(1, 5, 0, Priority.ALARM, b"", relays=(5,)),
        lambda: Down(1, 5, 0, Priority.ALARM, b"", relays=tuple(range(100, 125))),
        lambda: Down(1, 5, 0, Priority.ALARM, b"", deadline=65536),
        lambda: Fate(1, What.ROUTE_FAILED),
        lambda: Fate(1, What.SENT, 3, 4),
        lambda: RouteRow(5, (), 240, 1),
        lambda: RouteRow(5, (1, 1), 240, 1),
        lambda: RouteRow(5, (5,), 240, 1),
        lambda: RouteRow(5, (1, 2, 3, 4, 6), 240, 1),
        lambda: Command(1, Order.ALLOW),
        lambda: Command(1, Order.BUMP_VERSION, ME),
        lambda: Command(1, Order.BUMP_VERSION, short=3),
        lambda: Command(1, Order.DENY, ME, 0xEA61),
        lambda: Hello(1, bytes(15), ME, 1, 240, 256, 0),
        lambda: Hello(1, bytes(16), ME, 0, 240, 256, 0),
        lambda: Probe(1, 5, deadline=0),
        lambda: Probed(1, layout.Outcome.ANSWERED, 26),
    ],
)
def test_values_without_a_place_are_refused_at_birth(make: object) -> None:
    assert callable(make)
    with pytest.raises(LocalProtocolError):
        make()


def test_the_examples_of_the_specification_are_ours() -> None:
    text = SPECIFICATION.read_text()
    listed = [bytes.fromhex(found) for found in re.findall(r"^ {4}([0-9a-f ]+)$", text, re.M)]
    assert [encode(decode(octets)) for octets in listed] == listed
    assert listed == [
        encode(Hello(7, bytes.fromhex("fd00") + bytes(13) + b"\x01", ME, 0x0102, 241, 256, 1000)),
        encode(Up(0x0203, 0, Priority.SCHEDULED, bytes.fromhex("40010001"), 3, 0x0109)),
        encode(
            Down(
                17, 0x0203, 0, Priority.ON_DEMAND, bytes.fromhex("40010001"), 1, 60, (0x109, 0x110)
            )
        ),
        encode(Fate(17, What.ROUTE_FAILED, 0x0109, 0x0110)),
        encode(Probed(18, Outcome.ANSWERED, 2, 1200)),
        encode(
            Traced(
                18,
                (
                    TraceRow(0x0109, Outcome.ANSWERED, 600),
                    TraceRow(0x0110, Outcome.ANSWERED, 1200),
                    TraceRow(0x0203, Outcome.NO_ANSWER),
                ),
            )
        ),
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (MESSAGE_SIZE_MAX, "at most 1,400 octets"),
        (REQUEST_COUNT_MAX, "requests open | 512,"),
        (AFTERMATH_S, "and 30 s more"),
        (PROBE_COUNT_MAX, "traces open | 64;"),
        (HELD_COUNT_MAX, "alarms held | 64 |"),
        (REPORTS_HELD_MAX, "reports held | 1,024, one a node |"),
        (KEPT_BEHIND_MAX, "up to 8 path sequences behind"),
        (DENIED_COUNT_MAX, "denied | 1,024 |"),
        (STREAM_AHEAD, "in the queue | 32 |"),
        (SWEEP_INTERVAL_S, "every 60 s"),
        (HELLO_AGAIN_S, "HELLO again 60 s later"),
        (GROUND_GRACE_S, "After 20 s"),
        (int(TABLE_PRIORITY), "the table's messages have priority 4"),
    ],
)
def test_bounds_and_times_of_the_specification_are_those_of_the_code(
    value: float, said: str
) -> None:
    assert said in SPECIFICATION.read_text()
    assert f"{value:,g}" in said


def test_the_tables_name_what_there_is() -> None:
    text = SPECIFICATION.read_text()
    for number in Type:
        assert f"| {int(number)} | {number.name} |" in text
    assert "| 0 its time is over, 1 the node said so, 2 FORGET, 3 denied |".strip("| ") in text
    assert [int(max(kind)) for kind in (Status, What, Why, Order, layout.Outcome)] == [
        3,
        8,
        3,
        4,
        4,
    ]


def _one_of_each(union: object) -> list[object]:
    return [object.__new__(made) for made in union.__args__]  # type: ignore[attr-defined]
