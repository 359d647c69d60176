"""A meter by the book on a real socket: the stack and a few canned messages, no daemon."""

from __future__ import annotations

import asyncio
import os
import random

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.identifiers import Eui64
from amistack.links import UdpLink, open_udp
from amistack.model import (
    CONTENT_FORMAT_V1,
    ClockReading,
    ClockState,
    ReadAnswer,
    ReadRequest,
)
from amistack.session.credentials import AuthenticationKey, Credential
from amistack.session.fleet import encode_public_key, meter_credential
from amistack.session.handshakes import SessionProposed
from amistack.stack import (
    Event,
    HandshakeFailed,
    NumbersWanted,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
    Stack,
)
from tests.support.headend import NOW, TODAY, private_key

PATIENCE_S = 10.0


class StreetMeter:
    """One meter: joins, posts what it is told to, and answers on-demand reads."""

    def __init__(self, meter: Eui64, head_end: tuple[str, int], trusted: Credential) -> None:
        self.id = meter
        key = private_key(meter.hex())
        credential = meter_credential(meter, encode_public_key(key.public_key()))
        self._stack = Stack(
            key=AuthenticationKey(key, credential),
            entropy=os.urandom,
            dice=random.Random(meter),
            links=(),
            is_responder=False,
        )
        self._head_end = head_end
        self._trusted = trusted
        self._link: UdpLink[Event] | None = None
        self._joined: asyncio.Future[None] | None = None
        self._waiting: dict[RequestId, asyncio.Future[Message]] = {}
        self.is_silent = False

    async def join(self, *, c_i: bytes = b"\x05") -> None:
        """Open a socket, if there is none, and agree on a session."""
        if self._link is None:
            self._link = await open_udp(self._stack, self._on_event, host="127.0.0.1", port=0)
        self._joined = asyncio.get_running_loop().create_future()
        self._stack.connect(self._head_end, (self._trusted,), c_i=c_i, now=self._link.now())
        self._link.settle()
        await asyncio.wait_for(self._joined, PATIENCE_S)

    async def ask(self, message: Message) -> Message:
        """The head-end's authentic answer. Raises ConnectionError if there is none."""
        assert self._link is not None
        request = self._stack.request(self.id, message, self._head_end, now=self._link.now())
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[request] = future
        self._link.settle()
        return await asyncio.wait_for(future, PATIENCE_S)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    def _on_event(self, event: Event) -> None:
        assert self._link is not None
        now = self._link.now()
        match event:
            case SessionProposed():
                self._stack.accept_session(event, self.id, reserved_until=64, now=now)
                assert self._joined is not None
                self._joined.set_result(None)
            case HandshakeFailed():
                assert self._joined is not None
                self._joined.set_exception(ConnectionError(f"{event.reason}: {event.detail}"))
            case NumbersWanted():
                self._stack.numbers_reserved(event.recipient_id, event.until, now=now)
            case SecureResponse():
                self._waiting.pop(event.request).set_result(event.message)
            case RequestFailed():
                self._waiting.pop(event.request).set_exception(ConnectionError(event.reason))
            case SecureRequest():
                self._answer(event)
            case _:
                raise AssertionError(f"a meter is not asked for {event}")
        self._link.settle()

    def _answer(self, request: SecureRequest) -> None:
        assert self._link is not None
        if self.is_silent:
            return
        wish = ReadRequest.decode(request.message.payload)
        clock = ClockReading(NOW, ClockState.SET)
        answer = ReadAnswer(wish.identifier, 7, TODAY, clock, ((1, 2_075),))
        message = Message.response(
            Code.CONTENT, payload=answer.encode(), content_format=CONTENT_FORMAT_V1
        )
        self._stack.respond(request.exchange, message, is_durable=False, now=self._link.now())
