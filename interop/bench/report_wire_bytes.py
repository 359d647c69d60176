"""How many octets of UDP payload a day of readings is, as the meter sends it.

What    the median datagram of the reports of `report_payload_bytes`: a confirmable POST /rep under
        OSCORE, from a stack with one session; the head-end's identifiers have 4 octets, and the
        meter is in its second year (a Partial IV of 2 octets)
Worry   above 190 octets: the layers together may add 40 to the payload, so that a report with IP
        and UDP headers (28 or 48) still fits one frame of a slow radio
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1, DailyReport
from amistack.model.resources import REPORT
from amistack.session.oscore import SecurityContext
from amistack.stack import Stack
from interop.bench.figure import BenchError, Figure, Size
from interop.bench.fleet import identity_of
from interop.bench.households import daily_report, full_report

NAME: Final = "report_wire_bytes"
GOAL: Final = 190.0
DAY_COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 1_000, Size.QUICK: 200, Size.TINY: 5}

HEAD_END: Final = b"the head-end"
FIRST_NUMBER: Final = 400


def measure(size: Size) -> Figure:
    """Let a meter's stack send the reports; nobody answers."""
    seeds = range(1, DAY_COUNTS[size] + 1)
    octets = [len(sent(daily_report(seed), number)) for number, seed in enumerate(seeds)]
    full = [len(sent(full_report(seed), number)) for number, seed in enumerate(seeds)]
    return Figure(
        NAME,
        statistics.median(octets),
        "octets",
        goal=GOAL,
        beside=f"{len(octets)} household days, largest {max(octets)}; "
        f"both channels full: {statistics.median(full):g}",
    )


def sent(report: DailyReport, number: int) -> bytes:
    """The datagram that carries `report`."""
    context = SecurityContext.derive(
        master_secret=bytes(16),
        master_salt=bytes(8),
        sender_id=number.to_bytes(4, "big"),
        recipient_id=b"\x05",
    )
    context.next_sequence_number = FIRST_NUMBER + number
    context.reserve(context.next_sequence_number + 64)
    dice = random.Random(number)
    stack = Stack(key=identity_of("meter"), entropy=dice.randbytes, dice=dice, links=())
    stack.add_session(HEAD_END, context)
    message = Message.request(
        Code.POST, REPORT, payload=report.encode(), content_format=CONTENT_FORMAT_V1
    )
    stack.request(HEAD_END, message, "head-end", now=0.0)
    datagrams = stack.data_to_send()
    if len(datagrams) != 1:
        raise BenchError(f"{len(datagrams)} datagrams for one report, expected 1")
    return datagrams[0][1]
