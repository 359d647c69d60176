"""A meter with a local port and a field tool, with a line between them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.framing import SERIAL, Carrier
from amistack.model import CONTENT_FORMAT_V1
from amistack.model.dump import DumpPage, DumpPart, DumpRequest
from amistack.model.resources import DUMP
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key
from meterd.display import DisplayPart
from meterd.local import tools
from meterd.local.dumping import DumpResource
from meterd.local.framed import FramedStation
from meterd.local.gate import Gate, Order
from meterd.local.snapshot import Snapshot
from meterd.local.station import LocalStation
from meterd.local.tool import Answered, Failed, Ready, ToolStation
from meterd.local.tools import tool_address, tool_credential, tools_of
from meterd.switch import SwitchPart
from tests.meterd.bench import METER, meter_key
from tests.meterd.display.test_viewing import Meter
from tests.meterd.local.line import Line
from tests.support.head_end import key_of


def tool_key(number: int) -> AuthenticationKey:
    key = key_of(number)
    return AuthenticationKey(key, tool_credential(encode_public_key(key.public_key())))


def public_key(number: int) -> str:
    return encode_public_key(key_of(number).public_key()).hex()


PROGRAMMER, READER, STRANGER, VIEWER, CHANGER = 31, 32, 33, 34, 35


class Port:
    """Both ends."""

    def __init__(
        self,
        meter: Meter,
        *,
        tool: int = PROGRAMMER,
        order: Order = Order.SHARED,
        baud_rate: int = 115_200,
        carrier: Carrier = SERIAL,
        expected: AuthenticationKey | None = None,
        key: AuthenticationKey | None = None,
    ) -> None:
        self.meter = meter
        self.gate = Gate(order)
        self.attempts: list[tuple[str, bool]] = []
        resources = [
            *SwitchPart(meter.switch).resources(),
            *DisplayPart(meter.mailbox).resources(),
        ]
        self.snapshot = Snapshot(
            meter=METER,
            offset_min=0,
            storage=meter.storage,
            recorder=meter.recorder,
            clock=meter.clock,  # type: ignore[arg-type]  # as far as it is needed
            mailbox=meter.mailbox,
            resources=resources,
        )
        self.dump = DumpResource(
            self.snapshot.parts,
            on_dump=lambda _: self.attempts.append(("dump", True)),
        )
        dice = random.Random(1)
        self.station = LocalStation(
            key=meter_key(),
            tools=tools_of(
                {
                    tools.VIEWER: [public_key(VIEWER), public_key(READER)],
                    tools.READER: [public_key(READER)],
                    tools.PROGRAMMER: [public_key(PROGRAMMER)],
                    tools.CHANGER: [public_key(CHANGER)],
                }
            ),
            resources=[*resources, self.dump],
            gate=self.gate,
            on_access=self._note,
            on_leave=self.dump.forget,
            entropy=dice.randbytes,
            dice=dice,
        )
        chance = random.Random(2)
        self.tool = ToolStation(
            key=key or tool_key(tool),
            meter=(expected or meter_key()).credential,
            entropy=chance.randbytes,
            dice=chance,
        )
        address = tool_address(tool_key(tool).credential.id_cred)
        self.near: FramedStation[Any] = FramedStation(METER, carrier, self.station, now=0.0, run=5)
        self.far: FramedStation[Any] = FramedStation(address, carrier, self.tool, now=0.0, run=6)
        self.line = Line(self.near, self.far, baud_rate=baud_rate)

    def _note(self, who: str, *, is_granted: bool, now: float) -> None:
        self.attempts.append((who, is_granted))

    @property
    def told(self) -> list[Any]:
        """What the tool was told."""
        return self.line.events[1]

    def connect(self) -> bool:
        """Whether the tool is let in within a minute."""
        self.line.run(lambda: self.told, limit_s=60)
        return Ready() in self.told

    def ask(self, message: Message, *, limit_s: float = 60.0) -> Message | str:
        """The answer, or why there is none."""
        known = len(self.told)
        self.tool.ask(message, now=self.line.now)
        assert self.line.run(lambda: len(self.told) > known, limit_s=limit_s)
        told = self.told[known]
        assert isinstance(told, Answered | Failed)
        return told.message if isinstance(told, Answered) else told.reason

    def take_dump(self) -> Sequence[DumpPart]:
        """All pages."""
        parts: list[DumpPart] = []
        number, count = 0, 1
        while number < count:
            answer = self.ask(fetch(number))
            assert isinstance(answer, Message)
            assert answer.code == Code.CONTENT, answer.payload
            page = DumpPage.decode(answer.payload)
            assert page.number == number
            count = page.count
            parts += page.parts()
            number += 1
        return parts


def fetch(page: int) -> Message:
    return Message.request(
        Code.FETCH, DUMP, payload=DumpRequest(page).encode(), content_format=CONTENT_FORMAT_V1
    )
