"""Keeps the meter's clock right: compares it daily, corrects it, and tells when it cannot.

                     in step            correctable                 out of step
    a sample ----->  nothing    or a jump at a moment that    or an event, and doubt until
                                leaves no interval            an operator sets the clock

Spec    docs/protocol/model.md, "Clock"; use case B1 for 20 s, 120 s, and where a jump may fall
In      the clock's new samples, whoever took them; a setting as a resource; `Voice`: asks the time
        itself when nobody did for VALIDATE_EVERY_S
Raises  StoreError where an entry of the log cannot be kept: then the clock has not moved
Limit   SAMPLES_PER_RUN samples before a run ends without a proof
Never   acts on what a sample leaves open, moves the clock without its log entry, or keeps a setting
        through a restart: the host's clock is then believed as far as the next sample proves it
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import StoreError
from amistack.model import CONTENT_FORMAT_V1, Quality, TimeAnswer
from amistack.model.clock import ClockSetting, ClockStatus, Comparison
from amistack.model.event_catalogue import (
    CLOCK_IN_STEP,
    CLOCK_LOST,
    CLOCK_OUT_OF_STEP,
    CLOCK_SYNC_FAILED,
)
from amistack.model.events import CLOCK_FAILED, CLOCK_SET
from amistack.model.resources import CLOCK, TIME
from meterd.clock.marks import ClockMarks
from meterd.clock.meter_clock import SETTING_BOUND_MAX_S, MeterClock, Sample
from meterd.clock.rules import CORRECT_BELOW_S, Judgement, fit_moment, free_moment, judge
from meterd.clock.words import of_change, of_error
from meterd.parts import Due, Log, Resource, Urgency, granted, refused, unfit

DAY_S: Final = 86_400
VALIDATE_EVERY_S: Final = 20 * 3600.0
"""Seconds after one comparison to the next: with all tries of one before a day is over."""
SAMPLES_PER_RUN: Final = 4
SAMPLE_GAP_S: Final = 5.0
RETRY_MIN_S: Final = 900.0
RETRY_MAX_S: Final = 4 * 3600.0
DOUBLINGS_MAX: Final = 8
LATER_S: Final = 0.05
"""Seconds after a moment to wake: rounding must not wake this before it."""
STORAGE_RETRY_S: Final = 60.0


class ClockKeeper:
    """A part of the meter, and a voice."""

    def __init__(
        self,
        clock: MeterClock,
        *,
        log: Log,
        lengths: Callable[[], Sequence[int]],
        offset_min: int,
        dice: random.Random,
        now: float,
        marks: ClockMarks | None = None,
        on_move: Callable[[float], None] | None = None,
    ) -> None:
        """`lengths` of the intervals that run (s); `on_move` is told UTC after every jump.

        `marks`: where it is kept which time was measured by a clock that moved or was in doubt.
        """
        self._marks = marks
        self._born = now
        self._clock = clock
        self._log = log
        self._lengths = lengths
        self._offset_s = offset_min * 60
        self._dice = dice
        self._on_move = on_move
        self.counters: Counter[str] = Counter()
        self.judgement: Judgement | None = None
        """What the last run proved."""
        self.validated: float | None = None
        """The monotonic time of the last comparison that counted."""
        self._judged = 0
        self._refused = 0
        self._is_first_told = self._is_loss_told = clock.is_set
        self._run_count = 0
        self._ask_at = now
        self._overdue_at = now + DAY_S
        self._failures = 0
        self._jump_at: float | None = None
        self._setting: float | None = None  # seconds that an operator's setting moves the clock
        self._last_setting: bytes | None = None
        self._is_out_of_step = False
        self._held_until = 0.0  # after a storage that failed
        self._resource: Final = _ClockResource(self)

    # A part

    def resources(self) -> Sequence[Resource]:
        """Reading the clock, and setting it."""
        return (self._resource,)

    def handle_timer(self, *, now: float) -> None:
        """Judge what was sampled, jump when the moment is there, notice a day without a sample."""
        if now < self._held_until:
            return
        try:
            self._act(now)
        except StoreError:
            self._held_until = now + STORAGE_RETRY_S
            raise

    def _act(self, now: float) -> None:
        self._tell_first(now)
        if self._clock.refused_count != self._refused:
            self._fail("stamps contradict our own clock", now)
            self._refused = self._clock.refused_count
        if self._is_unjudged:
            self._judge(now)
            self._judged = self._clock.sample_count
        if self._jump_at is not None and self._jump_at <= now:
            self._jump(now)
        if self._overdue_at <= now:
            self._fail("not compared for a day", now)
            self._overdue_at = now + DAY_S

    def next_timer(self) -> float | None:
        """The next jump, or the end of a day without a sample; at once if there is a new sample."""
        times = [self._overdue_at]
        if self._jump_at is not None:
            times.append(self._jump_at)
        is_refused = self._clock.refused_count != self._refused
        if self._is_unjudged or is_refused or not self._is_loss_told:
            times.append(self._clock.sampled)
        return max(min(times), self._held_until)

    @property
    def _is_unjudged(self) -> bool:
        return self._clock.sample_count != self._judged

    # A voice

    def next_word(self, *, now: float) -> Due | None:  # noqa: ARG002
        """When the time is asked next: an alarm while there is none at all."""
        if self._is_unjudged:
            return None  # What that sample proves comes first.
        return Due(self._ask_at, Urgency.DEFAULT if self._clock.is_set else Urgency.ALARM)

    def word(self, *, now: float) -> Message | None:  # noqa: ARG002
        """The question what time it is."""
        return Message.request(Code.GET, TIME, accept=CONTENT_FORMAT_V1)

    def take_answer(self, message: Message, *, sent: float, now: float) -> None:
        """The time, as a sample. Raises ModelError."""
        answer = TimeAnswer.decode(message.payload)
        self._ask_at = now + RETRY_MIN_S  # Until the sample is judged, which plans it anew.
        self._clock.take_sample(
            sent=sent, got=now, received_ms=answer.received_ms, held_ms=answer.held_ms
        )

    def take_failure(self, reason: str, *, now: float) -> float:
        """No time was to be had: decide with what is known, or try again, later each time."""
        if self._run_count and self.judgement is Judgement.CORRECTABLE:
            self._end_run(now)
            self._plan_jump(now)
            return self._ask_at - now
        if not self._failures:
            self._fail(reason, now)
        retry_s = min(RETRY_MIN_S * 2**self._failures, RETRY_MAX_S)
        self._failures = min(self._failures + 1, DOUBLINGS_MAX)
        self._ask_at = now + retry_s * self._dice.uniform(1.0, 1.25)
        return self._ask_at - now

    def take_back(self, *, now: float) -> None:
        """Asked again when speaking is possible."""

    # Judging

    def _tell_first(self, now: float) -> None:
        if not self._is_loss_told:
            self._log(CLOCK_LOST, None, now=now)
            self._is_loss_told = True
        change = self._clock.first_setting
        if self._is_first_told or change is None:
            return
        with self._together():
            self._log(CLOCK_SET, of_change(change.old, change.new), now=now)
            if self._marks is not None:
                # All that it lived through since it began: dated afterwards.
                since = change.new - (change.at - self._born)
                self._marks.add(since, change.new, Quality.TIME_DOUBTFUL)
        self.counters["clock set after it was lost"] += 1
        self._is_first_told = True
        self._tell_move(now)

    def _judge(self, now: float) -> None:
        best = self._clock.best_at(now)
        newest = self._clock.newest
        if best is None or newest is None or not self._clock.is_set:
            self._ask_again(now, "no sample is good enough")
            return
        if abs(best.error_s - newest.error_s) > best.bound_at(now) + newest.bound_at(now):
            # One of the two is of a clock that was wrong: neither counts.
            self._clock.forget_samples()
            self._ask_again(now, "samples contradict one another")
            return
        self.judgement = judge(best.error_s, best.bound_at(now))
        if self.judgement is not Judgement.UNSURE:
            self.validated, self._overdue_at = now, now + DAY_S
        match self.judgement:
            case Judgement.IN_STEP:
                self._settle_in_step(best, now)
            case Judgement.CORRECTABLE:
                # A jump is worth more than one sample: the best of several is the surest.
                if self._run_count + 1 < SAMPLES_PER_RUN:
                    self._run_count += 1
                    self._ask_at = now + SAMPLE_GAP_S
                    self._plan_jump_without_answer(now)
                else:
                    self._end_run(now)
                    self._plan_jump(now)
            case Judgement.OUT_OF_STEP:
                self._settle_out_of_step(best, now)
            case Judgement.UNSURE:
                self._ask_again(now, of_error(best, now))

    def _settle_in_step(self, best: Sample, now: float) -> None:
        if self._is_out_of_step:
            self._log(CLOCK_IN_STEP, of_error(best, now), now=now)
            self._is_out_of_step = False
        if self._marks is not None:
            self._marks.end_doubt(self._clock.utc(now))
        self._jump_at = self._setting = None
        self._end_run(now)

    def _settle_out_of_step(self, best: Sample, now: float) -> None:
        if not self._is_out_of_step:
            with self._together():
                self._log(CLOCK_OUT_OF_STEP, of_error(best, now), now=now)
                if self._marks is not None:
                    self._marks.begin_doubt(self._clock.utc(now))
            self.counters["clock out of step"] += 1
            self._is_out_of_step = True
        if self._setting is None:
            self._jump_at = None
        self._end_run(now)

    def _ask_again(self, now: float, reason: str) -> None:
        """Nothing is proved: take another sample, up to SAMPLES_PER_RUN of them."""
        if self._setting is None:
            self._jump_at = None
        self._run_count += 1
        if self._run_count < SAMPLES_PER_RUN:
            self._ask_at = now + SAMPLE_GAP_S
            return
        self._fail(reason, now)
        self._overdue_at = now + DAY_S
        self._end_run(now)

    def _end_run(self, now: float) -> None:
        self._run_count = self._failures = 0
        # Not all meters at the same minute of the day.
        self._ask_at = now + VALIDATE_EVERY_S * self._dice.uniform(0.9, 1.0)

    def _fail(self, reason: str, now: float) -> None:
        self._log(CLOCK_SYNC_FAILED, reason[:64], now=now)
        self.counters["time synchronisation failed"] += 1

    # Jumping

    def _plan_jump_without_answer(self, now: float) -> None:
        """The further samples of a run may never come: then the jump is due without them."""
        if self._jump_at is None:
            moment = self._find_moment(now + SAMPLES_PER_RUN * SAMPLE_GAP_S)
            self._jump_at = None if moment is None else self._clock.when(moment) + LATER_S

    def _plan_jump(self, now: float) -> None:
        moment = self._find_moment(now)
        if moment is not None:
            self._jump_at = self._clock.when(moment) + LATER_S
            return
        self._jump_at = None
        best = self._clock.best_at(now)
        by_s = 0.0 if best is None else best.error_s
        self._log(CLOCK_FAILED, f"{by_s:+.1f} s fit into no interval", now=now)
        self.counters["clock not corrected"] += 1

    def _find_moment(self, now: float) -> float | None:
        """The first UTC second from `now` on at which the clock may be corrected."""
        best = self._clock.best_at(now)
        if best is None:
            return None
        utc = self._clock.utc(now)
        return fit_moment(utc, best.error_s, lengths=self._lengths(), offset_s=self._offset_s)

    def _jump(self, now: float) -> None:
        if self._setting is not None:
            self._jump_by_command(self._setting, now)
            return
        best = self._clock.best_at(now)
        if best is None or judge(best.error_s, best.bound_at(now)) is not Judgement.CORRECTABLE:
            self._jump_at = None
            return
        if self._find_moment(now) != self._clock.utc(now):
            self._plan_jump(now)
            return
        self._move(best.error_s, now)
        self.counters["clock corrected"] += 1

    def _jump_by_command(self, by_s: float, now: float) -> None:
        utc = self._clock.utc(now)
        moment = free_moment(utc, by_s, lengths=self._lengths(), offset_s=self._offset_s)
        if moment != utc:
            self._jump_at = self._clock.when(moment) + LATER_S
            return
        self._move(by_s, now)
        self._is_out_of_step = False
        self.counters["clock set by command"] += 1
        self._ask_at = now  # How well it is set, the next sample says.

    def _move(self, by_s: float, now: float) -> None:
        old = self._clock.utc(now)
        # First the entry: where it cannot be kept the clock stays as it is.
        with self._together():
            self._log(CLOCK_SET, of_change(old, old + by_s), now=now)
            self._mark_move(old, old + by_s, now)
        self._clock.move(by_s, now=now)
        self._is_first_told = True
        self._jump_at = self._setting = None
        self._run_count = 0
        self.judgement = Judgement.IN_STEP
        self._tell_move(now)

    def _mark_move(self, old: float, new: float, now: float) -> None:
        if self._marks is None:
            return
        if self._clock.is_set:
            self._marks.end_doubt(old)
            self._marks.add(old, old, Quality.CLOCK_ADJUSTED)
        else:
            # What it showed meant nothing: it ends no doubt, and is in no interval.
            self._marks.end_doubt(new)
            self._marks.add(new - (now - self._born), new, Quality.TIME_DOUBTFUL)
        self._marks.add(new, new, Quality.CLOCK_ADJUSTED)

    def _together(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._marks is None else self._marks.together()

    def _tell_move(self, now: float) -> None:
        if self._on_move is not None:
            self._on_move(self._clock.utc(now))

    # The resource

    def status(self, now: float) -> ClockStatus:
        """How the clock is."""
        best = self._clock.best_at(now)
        comparison = None
        if best is not None:
            at = max(int(self._clock.utc(best.taken)), 0)
            comparison = Comparison(
                round(best.error_s * 1000), round(best.bound_at(now) * 1000), at
            )
        return ClockStatus(self._clock.reading(now), comparison)

    def set_by_command(self, setting: ClockSetting, now: float) -> str | None:
        """Set the clock, at once or as soon as no boundary of an interval is near.

        Why not, in words; None if it is set, or about to be.
        """
        if setting.identifier == self._last_setting:
            return None
        best = self._clock.best_at(now)
        by_s = setting.utc_ms / 1000 - self._clock.utc(now)
        if best is not None and self._clock.is_set:
            if abs(best.error_s - by_s) > CORRECT_BELOW_S + best.bound_at(now):
                reason = "the command is old, or its sender's clock is wrong"
                self._log(CLOCK_FAILED, reason, now=now)
                self.counters["setting of the clock refused"] += 1
                self._ask_at = now  # Another sample may say otherwise.
                return reason
            if best.bound_at(now) <= SETTING_BOUND_MAX_S:
                # Measured both ways: surer than a stamp that came one way.
                by_s = best.error_s
        is_right = best is not None and judge(by_s, best.bound_at(now)) is Judgement.IN_STEP
        if not is_right or not self._clock.is_set:
            self._set_soon(by_s, now)
        self._last_setting = setting.identifier
        return None

    def _set_soon(self, by_s: float, now: float) -> None:
        self._setting, self._jump_at = by_s, now
        try:
            self._jump(now)
        except StoreError:
            self._setting = self._jump_at = None
            raise


class _ClockResource:
    """The clock as the head-end sees it."""

    path: Final = CLOCK
    kind: Final = "amistack.clock"

    def __init__(self, keeper: ClockKeeper) -> None:
        self._keeper = keeper

    def answer(self, message: Message, *, now: float) -> Message:
        """Read the clock back, or set it."""
        if (answer := unfit(message, Code.GET, Code.PUT)) is not None:
            return answer
        if message.code == Code.GET:
            return granted(Code.CONTENT, self._keeper.status(now).encode())
        setting = ClockSetting.decode(message.payload)
        reason = self._keeper.set_by_command(setting, now)
        if reason is not None:
            return refused(Code.CONFLICT, reason)
        return granted(Code.CHANGED, self._keeper.status(now).encode())
