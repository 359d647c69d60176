"""A clock keeper, a head-end that knows the time, and a crystal that drifts; virtual time only."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1, EndDeviceEventType, TimeAnswer
from amistack.model.clock import ClockStatus
from amistack.model.resources import CLOCK, TIME
from meterd.clock import MeterClock
from meterd.clock.keeper import ClockKeeper

EPOCH = 1_790_000_000.0
"""UTC at the monotonic time 0."""


@dataclass
class ClockBench:
    """One meter's clock, ahead of the true time by `ahead_s` at first."""

    ahead_s: float = 0.0
    drift_ppm: float = 0.0
    round_trip_s: float = 0.0
    lengths: tuple[int, ...] = (900,)
    offset_min: int = 0
    is_set: bool = True
    epoch: float = EPOCH
    now: float = 0.0
    is_reachable: bool = True
    head_end_ahead_s: float = 0.0
    log: list[tuple[float, EndDeviceEventType, str | None]] = field(default_factory=list)
    jumps: list[tuple[float, float]] = field(default_factory=list)
    """Old and new time of each jump, by the meter's clock."""
    asked: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = MeterClock(
            utc=self.epoch + self.now + self.ahead_s, now=self.now, is_set=self.is_set
        )
        self.keeper = ClockKeeper(
            self.clock,
            log=self._log,
            lengths=lambda: self.lengths,
            offset_min=self.offset_min,
            dice=random.Random(7),
            now=self.now,
            on_move=lambda utc: self.jumps.append((self._before, utc)),
        )
        self._before = 0.0

    def true_utc(self, now: float) -> float:
        """The time, of which the meter's crystal counts a little too much or too little."""
        return self.epoch + now * (1 - self.drift_ppm * 1e-6)

    @property
    def error_s(self) -> float:
        """How far the meter's clock is ahead of the true time now."""
        return self.clock.utc(self.now) - self.true_utc(self.now)

    def _log(self, event: EndDeviceEventType, detail: str | None = None, *, now: float) -> None:
        assert detail is None or 0 < len(detail.encode()) <= 64
        self._before = self.clock.utc(now)
        self.log.append((now, event, detail))

    def events(self) -> list[EndDeviceEventType]:
        return [event for _, event, _ in self.log]

    def elapse(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        end = self.now + seconds
        for _ in range(20_000):
            self._turn()
            due = self.keeper.next_word(now=self.now)
            times = [self.keeper.next_timer(), None if due is None else due.at]
            at = max(min((time for time in times if time is not None), default=math.inf), self.now)
            if at > end:
                break
            self.now = at
        else:
            raise AssertionError("it turns and turns")
        self.now = end

    def _turn(self) -> None:
        due = self.keeper.next_timer()
        if due is not None and due <= self.now:
            self.keeper.handle_timer(now=self.now)
        word = self.keeper.next_word(now=self.now)
        if word is not None and word.at <= self.now:
            self._ask()

    def _ask(self) -> None:
        message = self.keeper.word(now=self.now)
        assert message is not None
        assert (message.code, message.path) == (Code.GET, TIME)
        sent = self.now
        self.asked.append(sent)
        if not self.is_reachable:
            self.keeper.take_failure("no answer", now=self.now)
            return
        self.now += self.round_trip_s
        stamp = self.true_utc(sent + self.round_trip_s / 2) + self.head_end_ahead_s
        answer = Message.response(
            Code.CONTENT,
            payload=TimeAnswer(round(stamp * 1000), 0).encode(),
            content_format=CONTENT_FORMAT_V1,
        )
        self.keeper.take_answer(answer, sent=sent, now=self.now)

    # The operator

    def command(self, message: Message) -> Message:
        (resource,) = self.keeper.resources()
        assert resource.path == CLOCK
        return resource.answer(message, now=self.now)

    def put(self, payload: bytes) -> Message:
        return self.command(
            Message.request(Code.PUT, CLOCK, payload=payload, content_format=CONTENT_FORMAT_V1)
        )

    def read_back(self) -> ClockStatus:
        return ClockStatus.decode(self.command(Message.request(Code.GET, CLOCK)).payload)
