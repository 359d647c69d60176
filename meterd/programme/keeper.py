"""The programme as a part of the meter: taken or refused whole, in force at its time, rolled back.

    PUT  /prog   programme   2.04 stamp: kept, durably, with when it comes into force
                             4.22 refusal: every fault; 4.00: no programme at all
    GET  /prog               2.05 state: what runs, by version and digest, and whole; what waits
    POST /prog   roll-back   2.04 stamp of what runs then; 4.09 where there is no such way back

A programme that records otherwise than what runs comes into force at the first midnight, in the
meter's standard time, from its time on; one that changes thresholds or events alone at its time.

Gives   what runs; events as it changes and where one is refused; `on_change` for other parts
Raises  StoreError when the storage fails: then nothing of the request has happened
Limit   one programme waits: a later one takes its place; AHEAD_S_MAX into the future
Never   runs a part of a programme
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import ModelError
from amistack.model.event_catalogue import PROGRAMME_CHANGED, PROGRAMME_REFUSED
from amistack.model.events import DETAIL_SIZE_MAX
from amistack.model.programme import Programme
from amistack.model.programme_check import FAULT_COUNT_MAX, Fault, faults_of
from amistack.model.programme_state import (
    ProgrammeRefusal,
    ProgrammeStamp,
    ProgrammeState,
    RollBack,
)
from amistack.model.resources import PROGRAMME
from meterd.clock import MeterClock
from meterd.parts import Log, Resource, granted, refused, unfit
from meterd.programme.fit import Abilities, misfits
from meterd.programme.following import schedule_faults
from meterd.programme.shelf import Shelved
from meterd.recorder import Recorder
from meterd.recording.plan import plan_of
from meterd.storage import Storage

AHEAD_S_MAX: Final = 366 * 86_400
TOLD: Final = "programme told"
"""The note with the number of the programme that was last said to be in force."""
TIMER_SLACK_S: Final = 0.05
"""A moment later, so that rounding in a timer never meets the time before."""


class ProgrammeKeeper:
    """The programmes of one meter, and what it says of them."""

    def __init__(
        self,
        storage: Storage,
        recorder: Recorder,
        clock: MeterClock,
        *,
        abilities: Abilities,
        log: Log,
        on_change: Callable[[Programme, float], None] | None = None,
    ) -> None:
        """`on_change` gets what runs from now on, once for each change, and the monotonic time.

        What it keeps in the storage is durable together with the change.
        """
        self._storage = storage
        self._recorder = recorder
        self._shelf = recorder.shelf
        self._clock = clock
        self._abilities = abilities
        self._log = log
        self._on_change = on_change
        self._resources: Final = (_ProgrammeResource(self),)

    # What is

    def running(self, *, now: float) -> Programme:
        """What runs."""
        return self._shelf.at(self._utc(now)).programme

    def state(self, *, now: float) -> ProgrammeState:
        """What runs, waits, and would be returned to."""
        utc = self._utc(now)
        running, waiting = self._shelf.at(utc), self._shelf.waiting(utc)
        previous = self._shelf.previous(utc)
        return ProgrammeState(
            _stamp(running),
            None if waiting is None else _stamp(waiting),
            None if previous is None else _stamp(previous),
            running.programme,
        )

    # Commands from above

    def take(self, programme: Programme, *, now: float) -> ProgrammeStamp | ProgrammeRefusal:
        """Take a programme or say why not; the same again is taken as the same."""
        utc = self._utc(now)
        running, waiting = self._shelf.at(utc), self._shelf.waiting(utc)
        for known in (waiting, running):
            if known is not None and known.programme == programme:
                return _stamp(known)
        faults = self._faults(programme, running, utc)
        if faults:
            self.refuse(f"version {programme.version}, {faults[0]}", now=now)
            return ProgrammeRefusal(programme.version, faults)
        return self._add(programme, running, now)

    def roll_back(self, version: int, *, now: float) -> ProgrammeStamp | None:
        """Return to `version`: drop what waits, or run the one before again. None: it is not there.

        The same again is taken as the same.
        """
        utc = self._utc(now)
        running, waiting = self._shelf.at(utc), self._shelf.waiting(utc)
        previous = self._shelf.previous(utc)
        if waiting is not None and waiting.programme.version == version:
            return _stamp(waiting)
        if running.programme.version == version:
            if waiting is not None:
                with self._storage.together():
                    self._shelf.drop_waiting(utc)
                    detail = f"version {waiting.programme.version} withdrawn"
                    self._log(PROGRAMME_CHANGED, detail, now=now)
            return _stamp(running)
        if previous is None or previous.programme.version != version:
            return None
        return self._add(previous.programme, running, now)

    # As a part

    def resources(self) -> Sequence[Resource]:
        """The one path."""
        return self._resources

    def handle_timer(self, *, now: float) -> None:
        """Say what has come into force."""
        running = self._shelf.at(self._utc(now))
        if running.number == self._told:
            return
        with self._storage.together():
            self._storage.keep_note(TOLD, str(running.number))
            self._log(PROGRAMME_CHANGED, f"version {running.programme.version}", now=now)
            # In the same transaction: what other parts make of it is there, or it is told again.
            if self._on_change is not None:
                self._on_change(running.programme, now)

    def next_timer(self) -> float | None:
        """When the next one comes into force."""
        rows = self._shelf.rows()
        late = [row.since for row in rows if row.number > self._told]
        return self._clock.when(min(late)) + TIMER_SLACK_S if late else None

    # Inside

    def refuse(self, reason: str, *, now: float) -> None:
        """Put on record that something was sent that is no programme."""
        self._log(PROGRAMME_REFUSED, _detail(reason), now=now)

    @property
    def _told(self) -> int:
        return int(self._storage.note(TOLD) or 0)

    def _utc(self, now: float) -> float:
        """UTC, and never before what is recorded, should the clock have gone back."""
        return max(self._clock.utc(now), float(self._recorder.recorded_until or 0))

    def _add(self, programme: Programme, running: Shelved, now: float) -> ProgrammeStamp:
        utc = self._utc(now)
        with self._storage.together():
            added = self._shelf.add(programme, since=self._since(programme, running, utc), utc=utc)
            self.handle_timer(now=now)
        return _stamp(added)

    def _since(self, programme: Programme, running: Shelved, utc: float) -> int:
        """When a programme comes into force that is taken at `utc`."""
        wanted = max(programme.applies_at, int(utc))
        if plan_of(programme) == running.plan:
            return wanted
        wanted = max(wanted, math.ceil(utc))
        day = self._recorder.day_of(wanted)
        start = self._recorder.start_of(day)
        return start if start == wanted else self._recorder.start_of(day + 1)

    def _faults(self, programme: Programme, running: Shelved, utc: float) -> tuple[Fault, ...]:
        found = [*faults_of(programme)]
        if not found:
            at = max(float(programme.applies_at), utc)
            found += (*misfits(programme, self._abilities), *schedule_faults(programme, utc=at))
        if programme.applies_at > utc + AHEAD_S_MAX:
            found.append(Fault("applies at", "more than a year ahead; send it later"))
        same = [row for row in self._shelf.rows() if row.programme.version == programme.version]
        if any(row.programme != programme for row in same):
            found.append(
                Fault("version", f"{programme.version} was another programme; take a new number")
            )
        elif programme.version <= running.programme.version:
            found.append(
                Fault(
                    "version",
                    f"{programme.version} is older than {running.programme.version}, which runs; "
                    "roll back, or take a new number",
                )
            )
        return tuple(found[:FAULT_COUNT_MAX])


class _ProgrammeResource:
    """What the head-end may ask of a keeper."""

    path: Final = PROGRAMME
    kind: Final = "amistack.programme"

    def __init__(self, keeper: ProgrammeKeeper) -> None:
        self._keeper = keeper

    def answer(self, message: Message, *, now: float) -> Message:
        """The answer to a request."""
        wrong = unfit(message, Code.GET, Code.PUT, Code.POST)
        if wrong is not None:
            return wrong
        if message.code == Code.GET:
            return granted(Code.CONTENT, self._keeper.state(now=now).encode())
        if message.code == Code.POST:
            version = RollBack.decode(message.payload).version
            stamp = self._keeper.roll_back(version, now=now)
            if stamp is None:
                return refused(Code.CONFLICT, f"no version {version} to return to")
            return granted(Code.CHANGED, stamp.encode())
        try:
            programme = Programme.decode(message.payload)
        except ModelError as error:
            self._keeper.refuse(str(error), now=now)
            raise
        outcome = self._keeper.take(programme, now=now)
        is_taken = isinstance(outcome, ProgrammeStamp)
        code = Code.CHANGED if is_taken else Code.UNPROCESSABLE_ENTITY
        return granted(code, outcome.encode())


def _stamp(row: Shelved) -> ProgrammeStamp:
    return ProgrammeStamp(row.programme.version, row.programme.digest, row.since)


def _detail(text: str) -> str:
    """`text` as a log entry can have it."""
    return text.encode("ascii", "replace")[:DETAIL_SIZE_MAX].decode()
