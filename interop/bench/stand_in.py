"""A head-end of one socket that takes whatever meters say, for benchmarks of the meter.

It goes through handshakes with the real stack, takes registrations and reports, and keeps nothing.
It reads the time in each report and answers as if its own clock agreed, so that a meter whose clock
runs fast is never told that it is wrong.

Never   runs by itself: `serve` has to be called, and works until what it is told comes true
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections.abc import Callable
from typing import Final, cast

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import (
    CONTENT_FORMAT_V1,
    DailyReport,
    RegistrationAcknowledgement,
    ReportAcknowledgement,
)
from amistack.model.resources import EVENTS, REPORT
from amistack.session.credentials import Credential
from amistack.session.handshakes import CredentialWanted, SessionProposed
from amistack.stack import SEQUENCE_BLOCK, NumbersWanted, SecureRequest, Stack
from interop.bench.figure import BenchError
from interop.bench.fleet import identity_of

POLL_S: Final = 0.02
DATAGRAM_SIZE_MAX: Final = 4_096


class StandIn:
    """The socket and the stack behind it."""

    def __init__(self, *meters: Credential) -> None:
        """It knows these meters, by their credentials."""
        dice = random.Random(1)
        self._meters = {meter.id_cred: meter for meter in meters}
        self._stack = Stack(
            key=identity_of("head-end"), entropy=dice.randbytes, dice=dice, links=()
        )
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self.report_count = 0

    def know(self, meter: Credential) -> None:
        """One meter more."""
        self._meters[meter.id_cred] = meter

    @property
    def address(self) -> str:
        """Where meters find it, HOST:PORT."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def wait_for_datagram(self, timeout_s: float) -> None:
        """Return as soon as anything has come; it is left unread. Raises BenchError."""
        if not self._poll.poll(int(timeout_s * 1000)):
            raise BenchError(f"the meter sent nothing for {timeout_s:g} s")

    def discard(self) -> None:
        """Throw away what has come and was not read."""
        while self._poll.poll(0):
            self._socket.recvfrom(DATAGRAM_SIZE_MAX)

    def serve(self, is_done: Callable[[], bool], *, timeout_s: float) -> None:
        """Answer until `is_done` says so. Raises BenchError when that takes too long."""
        until = time.monotonic() + timeout_s
        while not is_done():
            now = time.monotonic()
            if now > until:
                raise BenchError(f"the meter is not done after {timeout_s:g} s")
            if self._poll.poll(int(POLL_S * 1000)):
                data, peer = self._socket.recvfrom(DATAGRAM_SIZE_MAX)
                self._stack.receive_datagram(data, peer, now=now)
            self._stack.handle_timer(now=now)
            self._turn(now)

    def _turn(self, now: float) -> None:
        stack = self._stack
        while events := stack.events():
            for event in events:
                match event:
                    case CredentialWanted():
                        known = self._meters.get(event.id_cred)
                        stack.provide_credential(event, known, now=now)
                    case SessionProposed():
                        stack.accept_session(
                            event,
                            event.id_cred.encode_map(),
                            reserved_until=SEQUENCE_BLOCK,
                            now=now,
                        )
                    case NumbersWanted():
                        stack.numbers_reserved(event.recipient_id, event.until, now=now)
                    case SecureRequest():
                        answer = self._answer_to(event.message)
                        stack.respond(event.exchange, answer, is_durable=True, now=now)
                    case _:
                        raise BenchError(f"the meter's head-end met {type(event).__name__}")
        for peer, datagram in stack.data_to_send():
            self._socket.sendto(datagram, cast("tuple[str, int]", peer))

    def _answer_to(self, message: Message) -> Message:
        if message.path == REPORT:
            self.report_count += 1
            clock_ms = DailyReport.decode(message.payload).clock.utc_s * 1000
            payload = ReportAcknowledgement(clock_ms, 0).encode()
        elif message.path == EVENTS:
            payload = ReportAcknowledgement(int(time.time() * 1000), 0).encode()
        else:
            payload = RegistrationAcknowledgement(int(time.time() * 1000), 0, 1).encode()
        return Message.response(Code.CHANGED, payload=payload, content_format=CONTENT_FORMAT_V1)
