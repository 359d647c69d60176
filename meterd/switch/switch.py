"""A meter's switch: commands that count once, moves that are measured, a load limit.

In      `command` and `press` (somebody at the meter), `start`, `handle_timer`; a `Service` to tell
        and to measure
Out     `state`, `next_timer`; events through `log`
Raises  StoreError where something cannot be kept: then nothing was told to the relay
Limit   one move at a time, the newest; its outcome stands CONFIRM_S after it began
Never   closes onto a load side that is live or not known; believes that a relay has obeyed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from amistack.errors import LinkError
from amistack.model import ClockReading, ClockState, EndDeviceEventType
from amistack.model.control import (
    Action,
    ControlAnswer,
    ControlCommand,
    Outcome,
    Position,
    Refusal,
    Sense,
    SwitchState,
)
from meterd.service import NOTHING_MEASURED, Measured, Service
from meterd.storage import Storage
from meterd.switch import events
from meterd.switch.confirmation import CONFIRM_S, LOOK_S, Confirmation, contradiction
from meterd.switch.limiter import InForce, Limiter
from meterd.switch.memory import SwitchRow, keep_row, read_row
from meterd.switch.positions import COMMANDED, Trigger, next_position

WATCH_S: Final = 60.0
"""Seconds between two looks at a switch that is open: who closes it in another way is found out."""
RETRY_S: Final = 10.0
"""Seconds between two attempts to reach a relay that cannot be reached."""
PLAN_S_MAX: Final = 3_600.0
"""Seconds after which a wait for a time of day is looked at again: the clock may be corrected."""

Log = Callable[[EndDeviceEventType, str | None], None]


class Clock(Protocol):
    """What a switch needs of the meter's clock."""

    def utc(self, now: float) -> float: ...

    def when(self, utc: float) -> float: ...

    def reading(self, now: float) -> ClockReading: ...


class Switch:
    """One switch. After any call look at `next_timer`."""

    def __init__(
        self,
        storage: Storage,
        service: Service,
        clock: Clock,
        *,
        log: Log,
        offset_min: int = 0,
        has_load_sensor: bool = True,
    ) -> None:
        """Without a load sensor a closing is not checked before, and hard to confirm after."""
        self._storage = storage
        self._service = service
        self._clock = clock
        self._log = log
        self._offset_min = offset_min
        self._has_load_sensor = has_load_sensor
        self._row = read_row(storage)
        self._limiter = Limiter(self._row.limit, offset_min=offset_min)
        self._confirmation: Confirmation | None = None
        self._is_told = True
        self._is_relay_lost = False
        self._is_tampered = False
        self._rests_until: float | None = None
        self._due: float | None = None
        self.counters: Counter[str] = Counter()

    # Commands from above

    def start(self, *, now: float) -> None:
        """Take up where the storage left off: the relay is told again where it belongs."""
        row = self._row
        if row.position is Position.LIMITED and row.limit is not None:
            passed = min(max(self._clock.utc(now) - row.since_s, 0.0), row.limit.rest_s)
            self._rests_until = now + row.limit.rest_s - passed
        if row.outcome is Outcome.NONE:
            self._plan(now)
            return
        measured = self._service.measure(now=now)
        hindrance = self._hindrance(measured)
        is_open = row.position is Position.CLOSED and measured.is_contact_closed is False
        if is_open and hindrance is Refusal.LOAD_SIDE_LIVE:
            self._move(Trigger.HINDERED, now, (events.ARMED, _words(hindrance)))
        elif row.outcome is Outcome.PENDING:
            self._confirm(now)
        else:
            self._tell(measured, now)
        self._plan(now)

    def command(self, command: ControlCommand, *, now: float) -> ControlAnswer:
        """What the head-end is told at once; durable when this returns."""
        row = self._row
        octets = command.encode()
        if command.sequence == row.newest and octets == row.command:
            return ControlAnswer.decode(row.answer)
        refusal = self._find_refusal(command, now)
        if refusal is not Refusal.NONE:
            return self._refuse(command, refusal)
        trigger = COMMANDED.get(command.action)
        position = row.position if trigger is None else next_position(row.position, trigger)
        if position is None:
            refusal = Refusal.NOT_OPEN
        elif trigger is Trigger.CONNECT:
            refusal = self._find_hindrance(now)
        if refusal is not Refusal.NONE:
            return self._refuse(command, refusal, is_used_up=True)
        assert position is not None, "it was looked at"
        confirm_s = 0 if trigger is None else int(CONFIRM_S)
        answer = ControlAnswer(command.sequence, Refusal.NONE, command.sequence, confirm_s)
        row = replace(row, newest=command.sequence, command=octets, answer=answer.encode())
        if trigger is None:
            self._set_limit(command, row, now)
        else:
            self._move(trigger, now, row=row)
        self._plan(now)
        return answer

    def press(self, *, now: float) -> bool:
        """Somebody at the meter asks for closing; whether it is armed and may close."""
        if next_position(self._row.position, Trigger.PRESSED) is None:
            if self._row.position is not Position.CLOSED:
                self._log(events.NOT_ARMED, None)
            return False
        refusal = self._find_hindrance(now)
        if refusal is not Refusal.NONE:
            self._log(events.CLOSING_FAILED, _words(refusal))
            return False
        self._move(Trigger.PRESSED, now)
        self._plan(now)
        return True

    # Inputs from below

    def handle_timer(self, *, now: float) -> None:
        """Look at the service, and act on what is seen. Raises StoreError."""
        if self._due is None or now < self._due:
            return
        # If this fails half way it is tried again soon.
        self._due = now + LOOK_S
        measured = self._service.measure(now=now)
        self._look(measured, now)
        self._mind_limit(measured, now)
        self._watch(measured)
        if self._rests_until is not None and now >= self._rests_until:
            self._end_rest(measured, now)
        self._plan(now)

    # Outputs

    def next_timer(self) -> float | None:
        """When to look again."""
        return self._due

    def state(self, *, now: float) -> SwitchState:
        """How it is."""
        row = self._row
        measured = self._service.measure(now=now)
        return SwitchState(
            self._clock.reading(now),
            row.newest,
            row.position,
            row.since_s,
            row.outcome,
            _sense(measured.is_current),
            _sense(measured.is_load_live),
            row.closes,
            row.limit,
        )

    # Whether a command counts

    def _find_refusal(self, command: ControlCommand, now: float) -> Refusal:
        """Why it has no effect, whatever the switch is doing."""
        if command.sequence < self._row.newest:
            return Refusal.OLD
        if command.sequence == self._row.newest:
            return Refusal.REUSED
        if self._clock.reading(now).state is ClockState.UNSET:
            return Refusal.CLOCK_UNSET
        if self._clock.utc(now) >= command.expires_s:
            return Refusal.EXPIRED
        return Refusal.NONE

    def _refuse(
        self, command: ControlCommand, refusal: Refusal, *, is_used_up: bool = False
    ) -> ControlAnswer:
        newest = command.sequence if is_used_up else self._row.newest
        answer = ControlAnswer(command.sequence, refusal, newest, 0)
        reason = f"{command.action.name.lower()} {command.sequence}: {_words(refusal)}"
        with self._storage.together():
            if is_used_up:
                row = replace(
                    self._row, newest=newest, command=command.encode(), answer=answer.encode()
                )
                keep_row(self._storage, row)
            self._log(events.REFUSED, reason)
        if is_used_up:
            self._row = row
        self.counters[f"command refused: {_words(refusal)}"] += 1
        return answer

    def _find_hindrance(self, now: float) -> Refusal:
        return self._hindrance(self._service.measure(now=now)) or Refusal.NONE

    def _hindrance(self, measured: Measured) -> Refusal | None:
        """Why the relay may not be closed now; None if it may."""
        if not self._has_load_sensor or measured.is_current:
            return None  # With current through the meter it is closed already.
        if measured.is_load_live is None:
            return Refusal.LOAD_SIDE_UNKNOWN
        is_where_it_was_told = self._row.position is Position.CLOSED
        if measured.is_load_live and not is_where_it_was_told:
            return Refusal.LOAD_SIDE_LIVE
        if measured.is_load_live and measured.is_contact_closed is False:
            return Refusal.LOAD_SIDE_LIVE
        return None

    # Moving

    def _move(
        self,
        trigger: Trigger,
        now: float,
        *entries: tuple[EndDeviceEventType, str | None],
        row: SwitchRow | None = None,
    ) -> None:
        """Move from where `row` says, with those entries in the log; the relay is told last."""
        row = row or self._row
        position = next_position(row.position, trigger)
        assert position is not None, f"{trigger.value} while {row.position.name}"
        since_s = max(int(self._clock.utc(now)), 0)
        row = replace(row, position=position, since_s=since_s, outcome=Outcome.PENDING)
        if trigger is Trigger.RESTED:
            row = replace(row, closes=row.closes + 1)
        elif position is Position.CLOSED:
            row = replace(row, closes=0)
        with self._storage.together():
            keep_row(self._storage, row)
            for event, detail in entries:
                self._log(event, detail)
        self._row = row
        self._confirm(now)

    def _confirm(self, now: float) -> None:
        """Tell the relay, and begin to look what becomes of it."""
        is_closed = self._row.position is Position.CLOSED
        measured = self._service.measure(now=now)
        has_flowed = bool(measured.is_current)
        self._confirmation = Confirmation(is_closed=is_closed, has_flowed=has_flowed, now=now)
        self._is_tampered = False
        self._limiter.forget()
        if self._row.position is not Position.LIMITED:
            self._rests_until = None
        elif self._rests_until is None and self._row.limit is not None:
            self._rests_until = now + self._row.limit.rest_s
        self._tell(measured, now)

    def _tell(self, measured: Measured, now: float) -> None:
        """Tell the relay where it belongs, unless that would close onto a live load side."""
        is_closed = self._row.position is Position.CLOSED
        is_dead = measured.is_load_live is False
        if is_closed and self._has_load_sensor and not (measured.is_current or is_dead):
            # A live load side: it is closed already, or must stay open. What is measured will say.
            self._is_told = measured.is_load_live is True
            return
        try:
            self._service.drive(is_closed=is_closed, now=now)
        except LinkError as error:
            self._is_told = False
            self.counters["relay not reached"] += 1
            if not self._is_relay_lost:
                self._is_relay_lost = True
                self._log(events.RELAY_LOST, str(error)[:64])
        else:
            self._is_told, self._is_relay_lost = True, False

    def _look(self, measured: Measured, now: float) -> None:
        """Go on with the move under way."""
        if not self._is_told:
            self._tell(measured, now)
        if self._confirmation is None:
            return
        outcome = self._confirmation.look(measured, now=now)
        if outcome is None:
            return
        why = self._confirmation.why
        row = replace(self._row, outcome=outcome)
        with self._storage.together():
            keep_row(self._storage, row)
            if outcome is Outcome.CONFIRMED:
                self._log(_DONE[row.position], None)
            else:
                event = _FAILED[row.position is Position.CLOSED]
                self._log(event, f"{outcome.name.lower()}: {why}")
        self._row = row
        self._confirmation = None
        # An opening that is contradicted has been told of: only that it ends is news.
        self._is_tampered = outcome is Outcome.CONTRADICTED
        self.counters[f"moves {outcome.name.lower()}"] += 1

    def _watch(self, measured: Measured) -> None:
        """Find out who closes an open switch in another way."""
        if self._row.position is Position.CLOSED or self._confirmation is not None:
            return
        why = contradiction(measured, is_closed=False)
        if why is not None and not self._is_tampered:
            self._log(events.TAMPERED, why)
        elif why is None and self._is_tampered and measured != NOTHING_MEASURED:
            self._log(events.TAMPERING_OVER, None)
        elif measured == NOTHING_MEASURED:
            return
        self._is_tampered = why is not None

    # The load limit

    def _set_limit(self, command: ControlCommand, row: SwitchRow, now: float) -> None:
        row = replace(row, limit=command.limit, closes=0, occurrence=0)
        with self._storage.together():
            keep_row(self._storage, row)
            self._log(events.LIMIT_CHANGED, f"command {command.sequence}")
        self._row = row
        self._limiter = Limiter(command.limit, offset_min=self._offset_min)
        if self._rests_until is not None and command.action is Action.UNLIMIT:
            self._rests_until = now

    def _mind_limit(self, measured: Measured, now: float) -> None:
        in_force = self._limit_in_force(now)
        if in_force is None or self._row.position is not Position.CLOSED:
            self._limiter.forget()
            return
        limit = self._limiter.limit
        assert limit is not None, "it is in force"
        if not self._limiter.take(measured.power_w, limit_w=in_force.limit_w, now=now):
            return
        row = self._row
        if row.occurrence != in_force.occurrence:
            row = replace(row, occurrence=in_force.occurrence, closes=0)
        exceeded = events.LIMIT_EXCEEDED, f"{measured.power_w} W, limit {in_force.limit_w} W"
        if row.closes < limit.closes_max:
            self._move(Trigger.EXCEEDED, now, exceeded, row=row)
        else:
            armed = events.ARMED, "load limit"
            self._move(Trigger.EXHAUSTED, now, exceeded, armed, row=row)

    def _limit_in_force(self, now: float) -> InForce | None:
        if self._clock.reading(now).state is ClockState.UNSET:
            return None  # Which window it is cannot be told: supply goes on.
        return self._limiter.in_force(self._clock.utc(now))

    def _end_rest(self, measured: Measured, now: float) -> None:
        hindrance = self._hindrance(measured)
        if hindrance is None:
            self._move(Trigger.RESTED, now)
        else:
            self._move(Trigger.HINDERED, now, (events.ARMED, _words(hindrance)))

    # When to look again

    def _plan(self, now: float) -> None:
        wanted: list[float | None] = []
        if self._confirmation is not None:
            wanted.append(now + LOOK_S)
        elif not self._is_told:
            wanted.append(now + RETRY_S)
        if self._row.position is not Position.CLOSED:
            wanted.append(now + WATCH_S)
        if self._rests_until is not None:
            wanted.append(max(self._rests_until, now))
        if self._row.position is Position.CLOSED and self._limiter.limit is not None:
            wanted.append(self._next_limit_look(now))
        self._due = min((one for one in wanted if one is not None), default=None)

    def _next_limit_look(self, now: float) -> float | None:
        if self._limit_in_force(now) is not None:
            return now + LOOK_S
        change = self._limiter.next_change(self._clock.utc(now))
        if change is None:
            return None
        return min(max(self._clock.when(change), now), now + PLAN_S_MAX)


_DONE: Final = {
    Position.OPEN: events.OPENED,
    Position.LIMITED: events.OPENED,
    Position.ARMED: events.OPENED,
    Position.CLOSED: events.CLOSED,
}
_FAILED: Final = {True: events.CLOSING_FAILED, False: events.OPENING_FAILED}


def _sense(is_there: bool | None) -> Sense:
    if is_there is None:
        return Sense.UNKNOWN
    return Sense.PRESENT if is_there else Sense.ABSENT


def _words(refusal: Refusal) -> str:
    return refusal.name.lower().replace("_", " ")
