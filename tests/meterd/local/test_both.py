"""A field tool and the head-end at one meter at the same time.

The contract under test: configured as shared, both are answered, and rightly; where one goes first
the other's session stands still while it lasts, and goes on after.
"""

from __future__ import annotations

import random

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1, ReadAnswer, ReadParts, ReadRequest
from amistack.model.resources import READ
from meterd.local.framed import LINE
from meterd.local.gate import HOLD_S, Gate, Order, Yielding
from meterd.local.station import LocalStation
from meterd.local.tool import Answered, Ready, ToolEvent, ToolStation
from meterd.local.tools import READER as READER_ROLE
from meterd.local.tools import tools_of
from tests.meterd.bench import METER, meter_key
from tests.meterd.local.bench import READER, public_key, tool_key
from tests.meterd.test_fittings import Fitted


class Site(Fitted):
    """A meter in its world, with a tool at its local port."""

    def begin(self, order: Order) -> None:
        self.power_on()
        gate = Gate(order)
        # The same agent, behind a gate.
        self.world.remove("meter")
        self.world.add("meter", Yielding(self.agent, gate))
        dice = random.Random(1)
        self.station = LocalStation(
            key=meter_key(),
            tools=tools_of({READER_ROLE: [public_key(READER)]}),
            resources=self.agent.resources,
            gate=gate,
            on_access=lambda *_, **__: None,
            on_leave=lambda: None,
            entropy=dice.randbytes,
            dice=dice,
        )
        self.tool = ToolStation(
            key=tool_key(READER), meter=meter_key().credential, entropy=dice.randbytes, dice=dice
        )
        self.told: list[ToolEvent] = []
        self.pass_time(60)

    def plug_in(self) -> None:
        self.tool.line_opened(now=self.world.now)
        self.shuttle()
        assert self.told == [Ready()]
        self.told.clear()

    def shuttle(self) -> None:
        """Carry what is on the line, both ways, until nothing is."""
        now = self.world.now
        while (up := self.tool.data_to_send()) or (down := self.station.data_to_send()):
            for _, datagram in up:
                self.station.receive_datagram(datagram, LINE, now=now)
            for _, datagram in () if up else down:
                self.tool.receive_datagram(datagram, LINE, now=now)
        self.told += self.tool.events()

    def read_locally(self) -> Message:
        request = ReadRequest(b"by a tool", ReadParts.REGISTERS)
        message = Message.request(
            Code.FETCH, READ, payload=request.encode(), content_format=CONTENT_FORMAT_V1
        )
        self.tool.ask(message, now=self.world.now)
        self.shuttle()
        answered = self.told.pop()
        assert isinstance(answered, Answered)
        return answered.message

    def read_remotely(self) -> None:
        self.head_end.read(METER, ReadParts.REGISTERS, "meter", now=self.world.now)
        self.settle_head_end()

    @property
    def remote_answers(self) -> list[ReadAnswer]:
        return self.head_end.read_answers


@pytest.mark.requirement("I2-FR-26")
def test_shared_both_reads_finish_and_agree_and_with_pre_emption_one_waits() -> None:
    # Both at once: the head-end's read is on its way while the tool is served.
    site = Site()
    site.begin(Order.SHARED)
    site.plug_in()
    site.read_remotely()
    local = ReadAnswer.decode(site.read_locally().payload)
    site.pass_time(2)
    (remote,) = site.remote_answers
    assert local.registers[0][0] == remote.registers[0][0]
    assert 0 <= remote.registers[0][1] - local.registers[0][1] <= 2

    # The tool goes first: the head-end's read waits until it is done.
    site = Site()
    site.begin(Order.LOCAL)
    site.plug_in()
    assert site.read_locally().code == Code.CONTENT
    site.read_remotely()
    site.pass_time(HOLD_S - 1)
    assert site.remote_answers == []
    assert site.read_locally().code == Code.CONTENT
    site.pass_time(HOLD_S - 1)
    assert site.remote_answers == []
    site.pass_time(60)
    assert len(site.remote_answers) == 1

    # The network goes first: the tool is told to come again, and is served then.
    site = Site()
    site.begin(Order.NETWORK)
    site.pass_time(60)
    site.plug_in()
    site.read_remotely()
    site.pass_time(2)
    assert len(site.remote_answers) == 1
    answer = site.read_locally()
    assert answer.code == Code.SERVICE_UNAVAILABLE
    site.pass_time(HOLD_S)
    assert site.read_locally().code == Code.CONTENT
