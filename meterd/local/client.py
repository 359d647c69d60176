"""A field tool at work: a line to a meter, and questions one after the other.

Raises  LinkError where the line cannot be had or ends, the meter does not let the tool in or does
        not answer; ConfigError for a device that needs a library
Limit   READY_S for the handshake, ANSWER_S for an answer without blocks
Never   asks two things at once
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from amistack.coap.codes import Code, format_code
from amistack.coap.message import Message
from amistack.errors import LinkError
from amistack.framing import SERIAL, TCP, Carrier
from amistack.links.serial import open_serial
from amistack.links.streams import MakeMachine, OnEvent, StreamLink
from amistack.links.tcp import open_tcp
from amistack.model import CONTENT_FORMAT_V1
from amistack.model.dump import DumpPage, DumpRequest
from amistack.model.resources import DUMP
from amistack.session.credentials import AuthenticationKey, Credential
from meterd.local.framed import FramedStation
from meterd.local.tool import Answered, Failed, Ready, ToolEvent, ToolStation
from meterd.local.tools import tool_address

READY_S: Final = 30.0
ANSWER_S: Final = 60.0
RUN_MAX: Final = 2**32 - 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Where:
    """The meter's local port: a serial device, or a host and port."""

    device: str | None = None
    baud_rate: int = 115_200
    host_and_port: tuple[str, int] | None = None


class ToolClient:
    """A tool that was let in."""

    def __init__(self, station: ToolStation) -> None:
        self._station = station
        self._link: StreamLink[ToolEvent] | None = None
        self._waiting: asyncio.Future[Message | None] | None = None

    async def ask(self, message: Message) -> Message:
        """The answer. Raises LinkError for one that is not a success, too."""
        answer = await self.ask_anyway(message)
        if answer.code not in (Code.CONTENT, Code.CHANGED):
            raise LinkError(f"the meter says {said_by(answer)}")
        return answer

    async def ask_anyway(self, message: Message) -> Message:
        """The answer, whatever it is."""
        assert self._link is not None, "it was opened"
        self._waiting = asyncio.get_running_loop().create_future()
        self._station.ask(message, now=self._link.now())
        self._link.settle()
        answer = await self._wait(self._waiting, ANSWER_S, "no answer")
        assert answer is not None, "an answer is a message"
        return answer

    async def dump(self) -> AsyncIterator[DumpPage]:
        """All pages of a dump."""
        number, count = 0, 1
        while number < count:
            answer = await self.ask(
                Message.request(
                    Code.FETCH,
                    DUMP,
                    payload=DumpRequest(number).encode(),
                    content_format=CONTENT_FORMAT_V1,
                )
            )
            page = DumpPage.decode(answer.payload)
            count = page.count
            yield page
            number += 1

    async def open(
        self, where: Where, make: MakeMachine[ToolEvent], on: OnEvent[ToolEvent]
    ) -> None:
        """Reach the meter and be let in."""
        self._waiting = asyncio.get_running_loop().create_future()
        if where.device is not None:
            self._link = await open_serial(make, on, path=where.device, baud_rate=where.baud_rate)
        else:
            assert where.host_and_port is not None, "one of them"
            host, port = where.host_and_port
            self._link = await open_tcp(make, on, host=host, port=port)
        await self._wait(self._waiting, READY_S, "no meter answers on this line")

    def take(self, event: ToolEvent) -> None:
        """What the station tells."""
        waiting = self._waiting
        if waiting is None or waiting.done():
            return
        match event:
            case Ready():
                waiting.set_result(None)
            case Answered(message):
                waiting.set_result(message)
            case Failed(reason):
                waiting.set_exception(LinkError(reason))

    async def close(self) -> None:
        """Take leave."""
        if self._link is not None:
            self._link.close()
            await self._link.wait_ended()

    async def _wait(self, future: asyncio.Future[T], seconds: float, trouble: str) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise LinkError(f"{trouble} within {seconds:g} s") from None


def said_by(answer: Message) -> str:
    """A code and its reason, on one line."""
    reason = answer.payload.decode(errors="replace")[:80]
    text = f"{format_code(answer.code)} {reason}".rstrip()
    return "".join(one if one.isprintable() else "?" for one in text)


@asynccontextmanager
async def connected(
    where: Where,
    *,
    key: AuthenticationKey,
    meter: Credential,
    entropy: Callable[[int], bytes],
    dice: random.Random,
) -> AsyncIterator[ToolClient]:
    """A client that was let in, as long as it lasts."""
    station = ToolStation(key=key, meter=meter, entropy=entropy, dice=dice)
    client = ToolClient(station)
    address = tool_address(key.credential.id_cred)
    carrier: Carrier = TCP if where.device is None else SERIAL

    def make(_: StreamLink[ToolEvent], /, *, now: float) -> FramedStation[ToolEvent]:
        return FramedStation(address, carrier, station, now=now, run=dice.randint(1, RUN_MAX))

    def on_event(_: StreamLink[ToolEvent], event: ToolEvent, /) -> None:
        client.take(event)

    try:
        await client.open(where, make, on_event)
        yield client
    finally:
        await client.close()
