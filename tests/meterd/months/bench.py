"""A whole meter on the bench: agent, clock, events, diagnosis, programme and schedules, as one.

Composed as the daemon does it, but for what hangs on devices: no switch, no display, no sensor.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1
from meterd.agent import Agent, AgentEvent
from meterd.clock import MeterClock
from meterd.oversight import Oversight, clock_of
from meterd.programme.declaring import Declaring
from meterd.programme.parts import programme_parts
from meterd.recorder import Recorder
from meterd.storage import Storage
from tests.meterd.bench import DAY, METER, Bench, meter_key
from tests.meterd.programme.bench import FineSource
from tests.meterd.test_oversight import Overseen
from tests.support.worlds import Host

REGISTER_START = (1_000, 2_000)


@dataclass
class WholeBench(Bench):
    """A world with a head-end and a meter that has all of it."""

    host_utc: float | None = None
    """What the host's clock shows at a start, if not the time."""
    source: FineSource = field(default_factory=FineSource)
    interval_s: int = 3600
    oversight: Oversight = field(init=False)

    def open_storage(self) -> Storage:
        return Storage.on(self.files)

    def make_clock(self, utc: float) -> MeterClock:
        return clock_of(self.storage, utc=utc, now=self.world.now)

    def power_on(self) -> Host[AgentEvent]:
        self.start_count += 1
        dice = random.Random(f"meter {self.seed} {self.start_count}")
        now = self.world.now
        self.storage = self.open_storage()
        clock = self.make_clock(self.utc(now) if self.host_utc is None else self.host_utc)
        recorder = Recorder(
            self.storage,
            self.source,
            offset_min=self.offset_min,
            register_start=REGISTER_START,
            interval_s=self.interval_s,
        )
        self.oversight = Oversight(
            meter=METER,
            storage=self.storage,
            clock=clock,
            recorder=recorder,
            source=self.source,
            offset_min=self.offset_min,
            folder=None,
            dice=dice,
            now=now,
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
            offset_min=self.offset_min,
            entropy=dice.randbytes,
            dice=dice,
            parts=(
                *self.oversight.parts,
                *programme_parts(
                    self.storage,
                    recorder,
                    clock,
                    offset_min=self.offset_min,
                    log=self.oversight.events.log,
                    on_change=self.oversight.follow_programme,
                ),
            ),
            voices=(
                *self.oversight.voices,
                Declaring(self.storage, recorder, clock, meter=METER, dice=dice),
            ),
            log=self.oversight.events.log,
        )
        self.agent.start(now=now)
        self.host = self.world.add("meter", Overseen(self.agent, self.oversight, now))
        self.log += self.host.log
        self.host.log = self.log
        return self.host

    def ask(self, code: Code, path: str, payload: bytes = b"") -> Message | None:
        """What the meter answers to the head-end; None if nothing, within a minute."""
        message = Message.request(
            code,
            path,
            payload=payload,
            content_format=None if code == Code.GET else CONTENT_FORMAT_V1,
        )
        before = len(self.head_end.answers)
        self.head_end.ask(METER, message, "meter", now=self.world.now)
        self.settle_head_end()
        end = self.world.now + 60
        while self.world.now < end and len(self.head_end.answers) == before:
            self.world.elapse(1)
        answers = self.head_end.answers[before:]
        return answers[0].message if answers else None

    def run_to(self, day: int, second: float = 0.0) -> None:
        """To a second of a day of the meter's."""
        self.world.run(until=self.midnight(day) + second)


def known_from(bench: WholeBench) -> int:
    """The UTC second from which on its source knows anything."""
    return int(bench.epoch) // DAY * DAY - 2 * DAY
