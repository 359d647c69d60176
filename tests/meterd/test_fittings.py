"""Switch and display of a whole meter, asked by a head-end over the secured stack.

The contract under test: commands and messages come through OSCORE and through nothing else; what
the display shows and what the head-end reads are the same; all of it survives a power cut.
"""

from __future__ import annotations

import random

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1, EndDeviceEventType, ReadAnswer, ReadParts
from amistack.model.control import (
    Action,
    ControlAnswer,
    ControlCommand,
    Outcome,
    Position,
    Refusal,
    SwitchState,
)
from amistack.model.messages import MessageList, MessageState, TextMessage
from amistack.model.resources import MESSAGES, SWITCH
from meterd.agent import Agent
from meterd.clock import MeterClock
from meterd.display.mailbox import DISPLAYED
from meterd.events.sources import EventSources
from meterd.fittings import Fittings, fit
from meterd.metrology import ConstantSource
from meterd.recorder import Recorder
from meterd.service import Faults, SimulatedService
from meterd.storage import Storage
from meterd.switch import events
from tests.meterd.bench import METER, Bench, meter_key
from tests.support.worlds import Host


class Fitted(Bench):
    """A meter with everything."""

    fittings: Fittings
    service: SimulatedService

    def power_on(self) -> Host:  # type: ignore[type-arg]  # as the base
        self.start_count += 1
        dice = random.Random(f"meter {self.seed} {self.start_count}")
        now = self.world.now
        self.storage = Storage.on(self.files)
        clock = MeterClock(utc=self.utc(now), now=now)
        load = ConstantSource(watts=2_000, received_watts=500)
        self.service = SimulatedService(self.storage, load, utc=clock.utc)
        recorder = Recorder(self.storage, self.service.source, offset_min=0)

        def log(event: EndDeviceEventType, detail: str | None) -> None:
            recorder.log(clock.utc(self.world.now), event, detail)

        self.fittings = fit(
            meter=METER,
            storage=self.storage,
            clock=clock,
            recorder=recorder,
            source=self.service.source,
            service=self.service,
            offset_min=0,
            log=log,
            sources=EventSources(lambda event, detail=None, *, now: log(event, detail)),
        )
        self.agent = Agent(
            meter=METER,
            key=meter_key(),
            head_end=self.head_end.key.credential,
            head_end_peer="head-end",
            storage=self.storage,
            recorder=recorder,
            clock=clock,
            schedule=self.schedule,
            offset_min=0,
            entropy=dice.randbytes,
            dice=dice,
            parts=self.fittings.parts,
        )
        self.agent.start(now=now)
        self.fittings.start(now=now)
        self.host = self.world.add("meter", self.agent)
        return self.host

    def ask(self, code: Code, path: str, payload: bytes = b"") -> Message:
        """The answer to a request of the head-end's."""
        content_format = CONTENT_FORMAT_V1 if payload else None
        request = Message.request(code, path, payload=payload, content_format=content_format)
        known = len(self.head_end.answers)
        self.head_end.ask(METER, request, "meter", now=self.world.now)
        self.settle_head_end()
        self.pass_time(5)
        assert len(self.head_end.answers) == known + 1
        return self.head_end.answers[-1].message

    def command(self, sequence: int, action: Action) -> ControlAnswer:
        expires_s = int(self.utc(self.world.now)) + 600
        answer = self.ask(Code.POST, SWITCH, ControlCommand(sequence, expires_s, action).encode())
        assert answer.code == Code.CHANGED
        return ControlAnswer.decode(answer.payload)

    def state(self) -> SwitchState:
        return SwitchState.decode(self.ask(Code.GET, SWITCH).payload)

    def pass_time(self, seconds: float) -> None:
        self.world.run(until=self.world.now + seconds)


@pytest.fixture
def bench() -> Fitted:
    made = Fitted()
    made.power_on()
    made.pass_time(60)
    return made


def test_disconnect_and_connect_over_the_air_are_confirmed_and_reported(bench: Fitted) -> None:
    assert bench.command(1, Action.DISCONNECT).refusal is Refusal.NONE
    bench.pass_time(15)
    state = bench.state()
    assert (state.position, state.outcome) == (Position.OPEN, Outcome.CONFIRMED)
    assert not bench.service.is_contact_closed
    bench.power_off()
    bench.power_on()
    bench.pass_time(60)
    assert (bench.state().position, bench.state().newest) == (Position.OPEN, 1)
    assert bench.command(1, Action.CONNECT).refusal is Refusal.REUSED
    assert bench.command(2, Action.CONNECT).refusal is Refusal.NONE
    bench.pass_time(15)
    assert bench.state().outcome is Outcome.CONFIRMED
    bench.head_end.read(METER, ReadParts.LOG, "meter", now=bench.world.now)
    bench.settle_head_end()
    bench.pass_time(5)
    answer = ReadAnswer.decode(bench.head_end.answers[-1].message.payload)
    logged = [entry.event for entry in answer.entries]
    assert [one for one in logged if one in (events.OPENED, events.CLOSED, events.REFUSED)] == [
        events.OPENED,
        events.REFUSED,
        events.CLOSED,
    ]


def test_welded_contact_is_told_by_what_is_measured(bench: Fitted) -> None:
    bench.service.set_faults(Faults(is_welded=True), now=bench.world.now)
    assert bench.command(1, Action.DISCONNECT).refusal is Refusal.NONE
    bench.pass_time(15)
    assert bench.state().outcome is Outcome.CONTRADICTED


def test_payload_that_is_no_command_is_refused_with_a_reason(bench: Fitted) -> None:
    answer = bench.ask(Code.POST, SWITCH, b"\x83\x00\x00\x00")
    assert (answer.code, answer.payload) == (Code.BAD_REQUEST, b"out of range")
    assert bench.ask(Code.PUT, SWITCH, b"\x80").code == Code.METHOD_NOT_ALLOWED
    assert bench.state().newest == 0


@pytest.mark.requirement("B1-FR-20")
def test_display_and_head_end_show_the_same_and_a_stranger_gets_nothing(bench: Fitted) -> None:
    utc = int(bench.utc(bench.world.now))
    message = TextMessage(7, utc, utc + 3_600, is_to_acknowledge=True, text="Meter exchange at 9")
    assert bench.ask(Code.PUT, MESSAGES, message.encode()).code == Code.CHANGED
    bench.pass_time(900)
    view = bench.fittings.viewer.look(now=bench.world.now)
    assert [note.text for note in view.messages] == ["Meter exchange at 9"]
    parts = ReadParts.REGISTERS | ReadParts.LOG
    bench.head_end.read(METER, parts, "meter", now=bench.world.now)
    bench.settle_head_end()
    bench.pass_time(1)
    answer = bench.head_end.read_answers[-1]
    registers = dict(answer.registers)
    # Usage and generation, on the display and at the head-end; at most a second lies between.
    assert view.used_wh is not None
    assert view.returned_wh is not None
    assert view.used_wh > view.returned_wh > 0
    assert 0 <= registers[1] - view.used_wh <= 2
    assert 0 <= registers[2] - view.returned_wh <= 2
    assert DISPLAYED in [entry.event for entry in answer.entries]
    bench.fittings.viewer.press("acknowledge", now=bench.world.now)
    told = MessageList.decode(bench.ask(Code.GET, MESSAGES).payload)
    assert [(one.identifier, one.state) for one in told.standings] == [
        (7, MessageState.ACKNOWLEDGED)
    ]

    class Stranger:
        """Speaks CoAP, and has no session."""

        def __init__(self) -> None:
            self.heard: list[bytes] = []
            self.words: list[tuple[str, bytes]] = []

        def receive_datagram(self, data: bytes, peer: str, *, now: float) -> None:
            self.heard.append(data)

        def handle_timer(self, *, now: float) -> None: ...

        def data_to_send(self) -> list[tuple[str, bytes]]:
            words, self.words = self.words, []
            return words

        def events(self) -> list[None]:
            return []

        def next_timer(self) -> float | None:
            return None

    stranger = Stranger()
    host = bench.world.add("stranger", stranger)
    for number, (code, path) in enumerate(
        ((Code.GET, MESSAGES), (Code.GET, SWITCH), (Code.FETCH, "read"))
    ):
        plain = Message.request(code, path)
        octets = Message(plain.code, plain.type, number, b"", plain.options).encode()
        stranger.words.append(("meter", octets))
    host.settle()
    bench.pass_time(10)
    assert len(stranger.heard) == 3
    for octets in stranger.heard:
        answer = Message.decode(octets)
        assert (answer.code, answer.payload) == (Code.UNAUTHORIZED, b"not protected")
