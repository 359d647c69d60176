"""docs/protocol/framing.md is enough to write either side from.

The contract under test: its examples are what the codecs write and read, its tables name the kinds
and priorities that there are, and the bounds in it are those of the code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from amistack.framing import (
    SERIAL,
    TCP,
    Frame,
    FrameOption,
    Kind,
    Priority,
    destination,
    peer,
    queues,
    serial,
    stream,
)
from amistack.framing import frame as frame_module
from amistack.framing.carriers import Carrier
from amistack.framing.hello import Farewell, Goodbye, Hello
from amistack.links import streams, tcp
from tests.framing.support import HERE, THERE

TEXT: Final = (Path(__file__).parents[2] / "docs" / "protocol" / "framing.md").read_text("utf-8")
EXAMPLES: Final = [bytes.fromhex(line) for line in re.findall(r"(?m)^    ([0-9a-f ]+)$", TEXT)]

HELLO: Final = Frame(Kind.HELLO, Priority.CONTROL, HERE, Hello((1,), 90, 0x0BADCAFE).encode())
COAP: Final = Frame(
    Kind.COAP,
    Priority.SCHEDULED,
    HERE,
    bytes.fromhex("40010001"),
    (destination(THERE), FrameOption(34, b"\x01")),
)
GOODBYE: Final = Frame(Kind.GOODBYE, Priority.CONTROL, HERE, Goodbye(Farewell.DONE).encode())


@pytest.mark.parametrize(
    ("index", "carrier", "frame"),
    [(0, TCP, HELLO), (1, SERIAL, HELLO), (2, TCP, COAP), (3, TCP, GOODBYE)],
)
def test_examples_are_written_and_read_as_they_stand(
    index: int, carrier: Carrier, frame: Frame
) -> None:
    assert len(EXAMPLES) == 4
    assert carrier.wrap(frame) == EXAMPLES[index]
    assert carrier.make_deframer().receive_data(EXAMPLES[index]) == [frame]


def test_tables_name_what_there_is() -> None:
    for kind in Kind:
        assert f"| {int(kind)} | {kind.name} |" in TEXT
    for priority in Priority:
        assert re.search(rf"(?m)^\| {int(priority)} \| \w", TEXT)
    for farewell in Farewell:
        assert re.search(rf"\b{int(farewell)} [a-z]", TEXT)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (frame_module.FRAME_SIZE_MAX, "2,315"),
        (frame_module.PAYLOAD_SIZE_MAX, "2,048"),
        (serial.ENCODED_SIZE_MAX, "2,329"),
        (stream.WIRE_SIZE_MAX - 1, "2,316"),
        (queues.QUEUE_SIZE_MAX, "65,536"),
        (queues.QUEUE_COUNT_MAX, "256 frames"),
        (queues.FLOOR_DIVISOR, "1/32"),
        (streams.UNSENT_SIZE_MAX, "4,096"),
        (tcp.CONNECTION_COUNT_MAX, "256; 32"),
        (peer.SILENCE_MAX, "90 unless"),
    ],
)
def test_bounds_are_those_of_the_code(value: int, said: str) -> None:
    assert said in TEXT
    assert f"{value:,}" in said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (peer.HELLO_TIMEOUT, "none after 10 s"),
        (peer.HELLO_INTERVAL, "every 5 s"),
        (streams.CLOSE_TIMEOUT, "| 2 s |"),
        (tcp.TLS_TIMEOUT, "| 10 s |"),
        (tcp.CONNECT_TIMEOUT, "| 10 s |"),
    ],
)
def test_times_are_those_of_the_code(value: float, said: str) -> None:
    assert said in TEXT
    assert f" {value:g} s" in said
