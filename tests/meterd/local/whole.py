"""A whole meter, put together by the daemon itself, in a world: with a head-end and a field tool.

Nothing of the meter is a test's own: its agent, its parts and its fittings are those of `meterd
run`. Only sockets, time and chance are the world's.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.identifiers import format_eui64
from amistack.links.host import Host
from amistack.model import CONTENT_FORMAT_V1, Quality
from amistack.model.control import Action, ControlCommand
from amistack.model.dump import DumpPage, DumpPart, DumpRequest
from amistack.model.event_catalogue import COVER_OPENED, Delivery, Importance
from amistack.model.event_notice import EventRule
from amistack.model.messages import TextMessage
from amistack.model.programme import (
    DemandRules,
    Programme,
    ProgrammeChannel,
    Threshold,
    ThresholdKind,
)
from amistack.model.quantity import Measured, Quantity
from amistack.model.registers import DemandReset
from amistack.model.resources import DUMP, HOME, MESSAGES, PROGRAMME, REGISTERS, SWITCH
from amistack.model.schedule import ReadSchedule
from amistack.model.tariff import DayType, Season, Switch, TariffCalendar
from amistack.session.fleet import encode_public_key
from meterd import daemon
from meterd.clock.marks import ClockMarks
from meterd.config import HeadEndSettings, MeterSettings, MetrologySettings, Settings
from meterd.fittings import Fittings
from meterd.home.settings import HomeSettings
from meterd.local import tools
from meterd.local.dumping import DumpResource
from meterd.local.framed import LINE
from meterd.local.gate import Gate, Order
from meterd.local.snapshot import Snapshot, snapshot_of
from meterd.local.station import LocalStation
from meterd.local.tool import Answered, Failed, Ready, ToolEvent, ToolStation
from meterd.storage import DENIED, ROUTE, Storage
from tests.meterd.bench import DAY, METER, meter_key
from tests.meterd.home.devices import subscription
from tests.meterd.local.bench import CHANGER, PROGRAMMER, READER, VIEWER, public_key, tool_key
from tests.meterd.test_oversight import Overseen, OverseenBench
from tests.support.head_end import key_of

TARIFFS: Final = TariffCalendar(
    (DayType((Switch(0, 1), Switch(420, 2), Switch(1320, 1))),),
    (Season(1, 1, (0,) * 7),),
)
EVERYTHING: Final = (
    *(Measured(one) for one in Quantity),
    *(Measured(Quantity.DELIVERED, tier) for tier in (1, 2)),
)
VOLTAGE: Final = Measured(Quantity.VOLTAGE)
THRESHOLDS: Final = (
    Threshold(ThresholdKind.VOLTAGE_LOW, 2289, 5),
    Threshold(ThresholdKind.DEMAND, 3000, 500),
)


def programme(
    version: int, applies_at: int = 0, what: Sequence[Measured] = EVERYTHING
) -> Programme:
    """One that has all it can have: a quarter of an hour is an interval, of voltage 5 min."""
    return Programme(
        version,
        applies_at,
        0,
        tuple(
            ProgrammeChannel.of(number, one, 300 if one == VOLTAGE else 900)
            for number, one in enumerate(what, start=1)
        ),
        TARIFFS,
        DemandRules(900, 900),
        THRESHOLDS,
        (EventRule(COVER_OPENED, Delivery.LOG_ONLY, Importance.INFORMATION),),
        (ReadSchedule(3, 3600),),
    )


def request(code: Code, path: str, payload: bytes = b"") -> Message:
    content_format = CONTENT_FORMAT_V1 if payload else None
    return Message.request(code, path, payload=payload, content_format=content_format)


@dataclass
class Whole(OverseenBench):
    """The bench."""

    fittings: Fittings = field(init=False)
    snapshot: Snapshot = field(init=False)
    metrology: MetrologySettings = field(
        default_factory=lambda: MetrologySettings("constant", watts=2_000, received_watts=300)
    )

    def power_on(self) -> object:  # type: ignore[override]
        self.start_count += 1
        dice = random.Random(f"meter {self.seed} {self.start_count}")
        now = self.world.now
        self.storage = Storage.on(self.files)
        settings = Settings(
            MeterSettings(format_eui64(METER)),
            HeadEndSettings(encode_public_key(key_of(1).public_key()).hex()),
            self.metrology,
            home=HomeSettings(),
        )
        host = Host(
            wall=lambda: self.utc(self.world.now),
            monotonic=lambda: self.world.now,
            entropy=dice.randbytes,
            dice=dice,
        )
        made = daemon._agent(settings, meter_key(), "head-end", self.storage, host)
        self.agent, _, self.fittings, self.oversight, home = made
        assert home is not None
        self.subscriptions = home.subscriptions
        self.agent.start(now=now)
        self.fittings.start(now=now)
        self.host = self.world.add("meter", Overseen(self.agent, self.oversight, now))
        self.snapshot = snapshot_of(self.agent, self.fittings, self.storage, offset_min=0)
        return self.host

    # What the head-end does

    def fill(self) -> None:
        """Have something of each kind: in four days, with a power cut and a programme to come."""
        self.world.elapse(600)
        start = int(self.utc(self.world.now))
        for wanted in (
            request(Code.PUT, PROGRAMME, programme(1).encode()),
            request(Code.PUT, HOME, subscription(7).encode()),
            request(Code.PUT, MESSAGES, TextMessage(
                3, start, start + 30 * DAY, is_to_acknowledge=True, text="Hello").encode()),
        ):  # fmt: skip
            assert self.send(wanted).code == Code.CHANGED, wanted
        self.world.elapse(DAY)
        expires_s = int(self.utc(self.world.now)) + 600
        for number, action in enumerate((Action.DISCONNECT, Action.CONNECT), start=1):
            command = ControlCommand(number, expires_s, action)
            assert self.send(request(Code.POST, SWITCH, command.encode())).code == Code.CHANGED
            self.world.elapse(60)
        reset = request(Code.POST, REGISTERS, DemandReset(1).encode())
        assert self.send(reset).code == Code.CHANGED
        self.oversight.sources.cover(is_open=True, now=self.world.now)
        self.power_off()
        self.world.elapse(900)
        self.power_on()
        self.world.elapse(3600)
        self.fittings.viewer.look(now=self.world.now)
        fewer = [one for one in EVERYTHING if one.quantity is not Quantity.NET]
        for following in (
            programme(2, 0, fewer),
            programme(3, int(self.utc(self.world.now)) + 5 * DAY),
        ):
            asked = self.send(request(Code.PUT, PROGRAMME, following.encode()))
            assert asked.code == Code.CHANGED
            self.world.elapse(DAY)
        # The head-end is away while a day ends: what is owed is in the memory, too.
        later = Message.response(Code.SERVICE_UNAVAILABLE, max_age=7 * DAY)
        self.head_end.answer_to = lambda _: later
        self.world.elapse(DAY)
        # In the middle of an interval, of which a step is over.
        self.world.elapse(900 - self.utc(self.world.now) % 900 + 400)
        ClockMarks(self.storage).add(start, start + 900, Quality.TIME_DOUBTFUL)
        # What a meter of a mesh keeps of its network.
        self.storage.put((ROUTE, 0x1234, [b"\x12\x35", 3, start]), (DENIED, "0012", start))

    def send(self, message: Message) -> Message:
        """What the meter answers to the head-end."""
        known = len(self.head_end.answers)
        self.head_end.ask(METER, message, "meter", now=self.world.now)
        self.settle_head_end()
        for _ in range(50):
            if len(self.head_end.answers) > known:
                return self.head_end.answers[known].message
            self.world.elapse(0.02)
        raise AssertionError(f"no answer to {message}")

    def download(self) -> list[DumpPart]:
        """All parts, over the air."""
        return pages(lambda page: self.send(fetch(page)))

    def cut_off(self) -> None:
        """Nothing goes over the network any more."""
        self.world.passes = lambda *_: False


class Visit:
    """A field tool at the local port, at one moment of the world."""

    def __init__(self, meter: Whole, tool: int) -> None:
        self.meter = meter
        dice = random.Random(tool)
        self.attempts: list[tuple[str, bool]] = []
        dump = DumpResource(meter.snapshot.parts, on_dump=lambda _: None)
        self.station = LocalStation(
            key=meter_key(),
            tools=tools.tools_of(
                {
                    tools.VIEWER: [public_key(VIEWER)],
                    tools.READER: [public_key(READER)],
                    tools.PROGRAMMER: [public_key(PROGRAMMER)],
                    tools.CHANGER: [public_key(CHANGER)],
                }
            ),
            resources=[*(one for one in meter.agent.resources if one.path != DUMP), dump],
            gate=Gate(Order.SHARED),
            on_access=meter.oversight.sources.access,
            on_answer=meter.host.settle,
            on_leave=dump.forget,
            entropy=dice.randbytes,
            dice=dice,
        )
        self.tool = ToolStation(
            key=tool_key(tool), meter=meter_key().credential, entropy=dice.randbytes, dice=dice
        )
        self.told: list[ToolEvent] = []
        self.station.line_opened(now=meter.world.now)
        self.tool.line_opened(now=meter.world.now)
        self._shuttle()
        self.is_let_in = self.told[:1] == [Ready()]

    def ask(self, message: Message) -> Message | str:
        """The answer, or why there is none."""
        if not self.is_let_in:
            return "not let in"
        self.told.clear()
        self.tool.ask(message, now=self.meter.world.now)
        self._shuttle()
        (told,) = self.told
        assert isinstance(told, Answered | Failed)
        return told.message if isinstance(told, Answered) else told.reason

    def get(self, message: Message) -> Message:
        """The answer, which there is."""
        answer = self.ask(message)
        assert isinstance(answer, Message), answer
        return answer

    def dump(self) -> list[DumpPart]:
        """All parts."""
        return pages(lambda page: self.get(fetch(page)))

    def _shuttle(self) -> None:
        now = self.meter.world.now
        while (up := self.tool.data_to_send()) or (down := self.station.data_to_send()):
            for _, datagram in up:
                self.station.receive_datagram(datagram, LINE, now=now)
            for _, datagram in () if up else down:
                self.tool.receive_datagram(datagram, LINE, now=now)
        self.told += self.tool.events()


def fetch(page: int) -> Message:
    return request(Code.FETCH, DUMP, DumpRequest(page).encode())


def pages(ask: Any) -> list[DumpPart]:
    """The parts of all pages."""
    parts: list[DumpPart] = []
    number, count = 0, 1
    while number < count:
        answer = ask(number)
        assert answer.code == Code.CONTENT, answer
        page = DumpPage.decode(answer.payload)
        count = page.count
        parts += page.parts()
        number += 1
    return parts


def by_path(parts: Iterable[DumpPart]) -> dict[str, list[bytes]]:
    """Payloads by path, in order."""
    found: dict[str, list[bytes]] = {}
    for part in parts:
        found.setdefault(part.path, []).append(part.payload)
    return found
