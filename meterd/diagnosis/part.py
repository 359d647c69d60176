"""A meter looks at itself: when it is installed, at a set period, and when it is asked.

Every failure goes on record as the event of its kind, and is told by that kind's rule: those that
are critical at once, the others with the next read. What the last look found can be read.

Spec    docs/protocol/model.md, "Self-diagnosis"; use case I2
In      checks as functions, by kind; a wish and a plan as a resource
Raises  StoreError where a finding cannot be kept: then the whole look is done again
Limit   one look at a time, none sooner than FIRST_AFTER_S after the start
Never   lets a check that raises end the others: it has failed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import AmiError, ModelError, StoreError
from amistack.model import EndDeviceEventType
from amistack.model import event_catalogue as types
from amistack.model.diagnosis import (
    Check,
    Diagnosis,
    DiagnosisPlan,
    DiagnosisWish,
    Finding,
    Occasion,
    Outcome,
)
from amistack.model.events import DETAIL_SIZE_MAX
from amistack.model.resources import DIAGNOSIS
from meterd.clock import MeterClock
from meterd.diagnosis.checks import Examine, failed
from meterd.parts import Log, Resource, granted, unfit
from meterd.storage import Storage

HOUR_S: Final = 3600
DAY_S: Final = 86_400
FIRST_AFTER_S: Final = 120.0
"""Seconds after a start to the first look: by then the time and the network are there."""
STORAGE_RETRY_S: Final = 60.0
RESULT_NOTE: Final = "diagnosis"
PLAN_NOTE: Final = "diagnosis plan"
BEGUN_NOTE: Final = "diagnosis begun"
LOOKED_NOTE: Final = "diagnosis at"
METROLOGY_NOTE: Final = "metrology check at"

EVENTS: Final[Mapping[Check, EndDeviceEventType]] = {
    Check.PROGRAM: types.PROGRAM_DAMAGED,
    Check.CHECKSUM: types.CHECKSUM_WRONG,
    Check.MEMORY: types.RAM_FAILED,
    Check.ROOM: types.STORAGE_FULL,
    Check.CLOCK: types.CLOCK_SYNC_FAILED,
    Check.METROLOGY: types.METROLOGY_FAILED,
    Check.DATA: types.DATA_CONTRADICTED,
    Check.UPGRADE: types.UPGRADE_FAILED,
    Check.SOCKET: types.WRONG_SOCKET,
    Check.BATTERY: types.BATTERY_LOW,
    Check.TEMPERATURE: types.TEMPERATURE_HIGH,
    Check.COMMUNICATION: types.COMMUNICATION_FAILED,
    Check.SENSOR: types.MEASUREMENT_FAILED,
}
"""What a failed check is on record as."""


KeptT = TypeVar("KeptT")


class SelfDiagnosis:
    """A part of the meter."""

    def __init__(
        self,
        storage: Storage,
        clock: MeterClock,
        checks: Mapping[Check, Examine],
        *,
        log: Log,
        now: float,
        delay_s: float = 0.0,
    ) -> None:
        """`delay_s`: so much later the first look, that a street does not look all at once."""
        self._storage = storage
        self._clock = clock
        self._checks = dict(sorted(checks.items()))
        others = [check for check in self._checks if check is not Check.METROLOGY]
        self._kinds = [*others[:1], *(check for check in checks if check is Check.METROLOGY)]
        """One of each period."""
        self._log = log
        self._not_before = now + FIRST_AFTER_S + delay_s
        self._born = now
        self.counters: Counter[str] = Counter()
        self.plan = _kept(storage, PLAN_NOTE, DiagnosisPlan.decode) or DiagnosisPlan()
        self.last = _kept(storage, RESULT_NOTE, Diagnosis.decode)
        """What the last look found; None before the first."""
        self._looked = self._when(LOOKED_NOTE, now)
        self._measured = self._when(METROLOGY_NOTE, now)
        self._resource: Final = _DiagnosisResource(self)

    # Commands from above

    def look(
        self, occasion: Occasion, wish: DiagnosisWish | None = None, *, now: float
    ) -> Diagnosis:
        """Look now; what is found is on record when this returns."""
        asked = wish or DiagnosisWish()
        checks = [check for check in self._checks if asked.includes(check)]
        return self._look(occasion, checks, now)

    def follow(self, plan: DiagnosisPlan, *, now: float) -> None:
        """Look at this period from now on; durable when this returns."""
        with self._storage.together():
            self._storage.keep_note(PLAN_NOTE, plan.encode().hex())
            detail = f"diagnosis every {plan.period_h} h, metrology {plan.metrology_days} d"
            self._log(types.PROGRAMME_CHANGED, detail, now=now)
        self.plan = plan

    # A part

    def resources(self) -> Sequence[Resource]:
        """The last look, another one, and how often."""
        return (self._resource,)

    def handle_timer(self, *, now: float) -> None:
        """Look at what is due."""
        if now < self._not_before:
            return
        due = [check for check in self._checks if self._due_of(check) <= now]
        if not due:
            return
        occasion = Occasion.INSTALLATION if self.last is None else Occasion.SCHEDULE
        try:
            self._look(occasion, due, now)
        except StoreError:
            self._not_before = now + STORAGE_RETRY_S
            raise

    def next_timer(self) -> float | None:
        """When the next look is due."""
        dues = [self._due_of(check) for check in self._kinds]
        return max(min(dues), self._not_before) if dues else None

    def _due_of(self, check: Check) -> float:
        if check is Check.METROLOGY:
            last, period_s = self._measured, self.plan.metrology_days * DAY_S
        else:
            last, period_s = self._looked, self.plan.period_h * HOUR_S
        return self._born if last is None else last + period_s

    # Looking

    def _look(self, occasion: Occasion, checks: Sequence[Check], now: float) -> Diagnosis:
        # After a write that failed this begins a segment anew: only then there is one to look at.
        self._storage.keep_note(BEGUN_NOTE, occasion.name.lower())
        findings = tuple(self._examine(check, now) for check in checks)
        diagnosis = Diagnosis(self._clock.reading(now), occasion, findings)
        is_measured = Check.METROLOGY in checks
        # A look at one thing on demand is none at all the others.
        is_whole = any(check is not Check.METROLOGY for check in checks) and (
            occasion is not Occasion.DEMAND
        )
        with self._storage.together():
            self._record(diagnosis, now)
            self._storage.keep_note(RESULT_NOTE, diagnosis.encode().hex())
            for note, is_due in ((LOOKED_NOTE, is_whole), (METROLOGY_NOTE, is_measured)):
                if is_due and self._clock.is_set:
                    self._storage.keep_note(note, str(int(self._clock.utc(now))))
        self.last = diagnosis
        self._looked = now if is_whole else self._looked
        self._measured = now if is_measured else self._measured
        self.counters["diagnoses"] += 1
        self.counters["diagnoses with failures"] += bool(diagnosis.failed)
        return diagnosis

    def _examine(self, check: Check, now: float) -> Finding:
        try:
            outcome, detail = self._checks[check](now)
        except StoreError:
            raise
        except (AmiError, OSError, ValueError, ArithmeticError, LookupError) as error:
            outcome, detail = failed(f"{type(error).__name__}: {error}")
        octets = detail.encode("utf-8", "replace")[:DETAIL_SIZE_MAX]
        return Finding(check, outcome, octets.decode("utf-8", "ignore"))

    def _record(self, diagnosis: Diagnosis, now: float) -> None:
        """Each failure as its kind's event; the metrology check always; the sum of all."""
        for one in diagnosis.findings:
            if one.outcome is Outcome.FAILED:
                self._log(EVENTS[one.check], one.detail or None, now=now)
            elif one.check is Check.METROLOGY and one.outcome is Outcome.PASSED:
                self._log(types.METROLOGY_CHECKED, one.detail or None, now=now)
        event = types.SELF_TEST_FAILED if diagnosis.failed else types.SELF_TEST_PASSED
        counts = Counter(one.outcome for one in diagnosis.findings)
        detail = f"{diagnosis.occasion.name.lower()}: " + ", ".join(
            f"{counts[outcome]} {outcome.name.lower().replace('_', ' ')}"
            for outcome in Outcome
            if counts[outcome]
        )
        self._log(event, detail, now=now)

    def _when(self, note: str, now: float) -> float | None:
        """The monotonic time of something noted in UTC: not in the future, None if unknown."""
        kept = self._storage.note(note)
        if kept is None or not self._clock.is_set:
            return None if kept is None else now
        return min(self._clock.when(int(kept)), now)


def _kept(storage: Storage, note: str, decode: Callable[[bytes], KeptT]) -> KeptT | None:
    kept = storage.note(note)
    if kept is None:
        return None
    try:
        return decode(bytes.fromhex(kept))
    except (ModelError, ValueError):
        return None  # Of a later version: looked for anew.


class _DiagnosisResource:
    """The diagnosis as the head-end sees it."""

    path: Final = DIAGNOSIS
    kind: Final = "amistack.diagnosis"

    def __init__(self, part: SelfDiagnosis) -> None:
        self._part = part

    def answer(self, message: Message, *, now: float) -> Message:
        """The last look (4.04 before the first), another one now, or another plan."""
        if (answer := unfit(message, Code.GET, Code.POST, Code.PUT)) is not None:
            return answer
        if message.code == Code.GET:
            last = self._part.last
            return Message.response(Code.NOT_FOUND) if last is None else _told(Code.CONTENT, last)
        if message.code == Code.PUT:
            self._part.follow(DiagnosisPlan.decode(message.payload), now=now)
            return granted(Code.CHANGED)
        wish = DiagnosisWish.decode(message.payload)
        return _told(Code.CHANGED, self._part.look(Occasion.DEMAND, wish, now=now))


def _told(code: Code, diagnosis: Diagnosis) -> Message:
    return granted(code, diagnosis.encode())
