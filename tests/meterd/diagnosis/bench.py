"""A meter that looks at itself: its log, its recorder, its storage; time is the test's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1
from amistack.model.diagnosis import Check, Diagnosis, DiagnosisPlan, DiagnosisWish, Occasion
from amistack.model.resources import DIAGNOSIS
from meterd.diagnosis import SelfDiagnosis
from meterd.diagnosis.checks import Examine, checksum_of, data_of, memory_of, metrology_of
from meterd.metrology import ConstantSource
from meterd.recorder import Recorder
from tests.meterd.events.bench import EPOCH, EventBench

DAY = 86_400
TODAY = int(EPOCH) // DAY


@dataclass
class DiagnosisBench(EventBench):
    """One meter; `others` are checks beside those of its own data."""

    others: dict[Check, Examine] = field(default_factory=dict)
    looks: list[tuple[float, Diagnosis]] = field(default_factory=list)

    def power_on(self, *, is_clock_set: bool | None = None) -> None:
        super().power_on(is_clock_set=is_clock_set)
        source = ConstantSource(watts=100, interval_s=3600)
        self.recorder = Recorder(self.storage, source, offset_min=0)
        if self.clock.is_set:
            self.recorder.advance(self.clock.utc(self.now))
        self.part = SelfDiagnosis(
            self.storage,
            self.clock,
            {
                Check.CHECKSUM: checksum_of(self.storage.journal),
                Check.MEMORY: memory_of(self.storage.journal),
                Check.DATA: data_of(self.storage, self.recorder),
                Check.METROLOGY: metrology_of(self.recorder, source, self.clock),
                **self.others,
            },
            log=self.log.log,
            now=self.now,
        )

    def live(self, seconds: float, *, then: Callable[[], None] | None = None) -> None:
        """Let time pass: record every hour, look when it is due, tell what is to be told."""
        end = self.now + seconds
        while True:
            due = self.part.next_timer()
            assert due is not None
            at = min(due, end, (self.now // 3600 + 1) * 3600)
            self.elapse(max(at - self.now, 0))
            if self.clock.is_set:
                self.tell_time()
                self.recorder.advance(self.clock.utc(self.now))
            if due <= self.now:
                before = self.part.last
                self.part.handle_timer(now=self.now)
                if self.part.last is not None and self.part.last is not before:
                    self.looks.append((self.now, self.part.last))
            if then is not None:
                then()
            if self.now >= end:
                return

    def ask(self, code: Code, payload: bytes = b"") -> Message:
        (resource,) = self.part.resources()
        assert resource.path == DIAGNOSIS
        message = Message.request(
            code, DIAGNOSIS, payload=payload, content_format=CONTENT_FORMAT_V1
        )
        return resource.answer(message, now=self.now)

    def look(self, *checks: Check) -> Diagnosis:
        wish = DiagnosisWish(sum(1 << check for check in checks))
        answer = self.ask(Code.POST, wish.encode())
        assert answer.code == Code.CHANGED
        diagnosis = Diagnosis.decode(answer.payload)
        assert diagnosis.occasion is Occasion.DEMAND
        return diagnosis

    def follow(self, plan: DiagnosisPlan) -> None:
        assert self.ask(Code.PUT, plan.encode()).code == Code.CHANGED
