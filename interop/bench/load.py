"""A street of meters that report all at once: protected beforehand, sent in a closed loop.

Every report comes from a meter of its own at an address of its own, as on a real network, through
one socket: the source address is set for each datagram (IP_PKTINFO of Linux).
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message
from amistack.errors import AmiError
from amistack.model import CONTENT_FORMAT_V1, ReportAcknowledgement
from amistack.model.resources import REPORT
from amistack.session.oscore import (
    RequestBinding,
    SecurityContext,
    protect_request,
    unprotect_response,
)
from interop.bench.figure import BenchError
from interop.bench.fleet import Known
from interop.bench.households import DAY_S, SOLAR_EVERY, blocks_of, report_of

IP_PKTINFO: Final = 8
"""From <linux/in.h>; Python's socket module has no name for it."""
IN_PKTINFO: Final = struct.Struct("=I4s4s")
WINDOW: Final = 256
"""Reports under way at a time."""
AGAIN_S: Final = 2.0
GIVE_UP_S: Final = 30.0
HOUSEHOLD_COUNT: Final = 250
DATAGRAM_SIZE_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class Prepared:
    """One report, ready to be sent, and what its answer is to be opened with."""

    datagram: bytes
    source: bytes
    """The ancillary data that makes the datagram come from its meter's address."""
    context: SecurityContext
    binding: RequestBinding


def prepare(meters: Sequence[Known], *, utc: float) -> list[Prepared]:
    """The report for yesterday of each of these meters, made at `utc` (s)."""
    day = int(utc) // DAY_S - 1
    prepared = []
    for index, known in enumerate(meters):
        seed = int.from_bytes(known.kid, "big") % HOUSEHOLD_COUNT
        blocks = blocks_of(seed, is_solar=seed % SOLAR_EVERY == 0)
        report = report_of(seed, day=day, clock_s=int(utc), blocks=blocks)
        message = Message.request(
            Code.POST, REPORT, payload=report.encode(), content_format=CONTENT_FORMAT_V1
        )
        context = known.meter_context()
        protected, binding = protect_request(context, message)
        message_id = index & 0xFFFF
        datagram = protected.addressed(
            type=Type.CON, message_id=message_id, token=message_id.to_bytes(2, "big")
        ).encode()
        source = IN_PKTINFO.pack(0, socket.inet_aton(known.address[0]), bytes(4))
        prepared.append(Prepared(datagram, source, context, binding))
    return prepared


class Load:
    """The meters' one socket."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("0.0.0.0", 0))
        self._socket.settimeout(0)
        self.again_count = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def run(self, reports: Sequence[Prepared], *, window: int = WINDOW) -> list[bytes]:
        """Send all of them, at most `window` unanswered; the answers, in the reports' order.

        Raises BenchError when answers fail to come for GIVE_UP_S.
        """
        if len(reports) > 1 << 16:
            raise BenchError(f"{len(reports)} reports in one run, message ids allow 65536")
        answers: dict[int, bytes] = {}
        under_way: dict[int, None] = {}
        following = 0
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        heard = time.monotonic()
        while len(answers) < len(reports):
            while following < len(reports) and len(under_way) < window:
                self._send(reports[following])
                under_way[following] = None
                following += 1
            if not poll.poll(int(AGAIN_S * 1000)):
                if time.monotonic() - heard > GIVE_UP_S:
                    raise BenchError(f"{len(under_way)} reports have no answer")
                for index in under_way:
                    self.again_count += 1
                    self._send(reports[index])
                continue
            heard = time.monotonic()
            while True:
                try:
                    answer = self._socket.recv(DATAGRAM_SIZE_MAX)
                except BlockingIOError:
                    break
                index = int.from_bytes(answer[2:4], "big")
                if index in under_way:
                    del under_way[index]
                    answers[index] = answer
        return [answers[index] for index in range(len(reports))]

    def _send(self, report: Prepared) -> None:
        self._socket.sendmsg(
            [report.datagram],
            [(socket.IPPROTO_IP, IP_PKTINFO, report.source)],
            0,
            self._target,
        )


def check(reports: Sequence[Prepared], answers: Sequence[bytes]) -> None:
    """Every answer must be authentic and say that all of its report is stored as it came."""
    for report, octets in zip(reports, answers, strict=True):
        answer = Message.decode(octets)
        try:
            inner = unprotect_response(report.context, answer, report.binding)
            said = ReportAcknowledgement.decode(inner.payload)
        except AmiError as error:
            raise BenchError(f"a report was answered {answer}: {error}") from error
        if inner.code != Code.CHANGED or said.verdicts:
            raise BenchError(f"a report was answered {inner}: {said}")
