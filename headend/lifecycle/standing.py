"""Steps that an operator takes with meters, and what they do to sessions at once.

A step and its effect are one: the outcome of its commit is told on the loop's thread, and in that
same call the sessions go or come back. Whatever a meter sends after that is judged anew. A
handshake that is under way meanwhile ends at the store, which keeps no session of a meter that is
not enrolled.

Raises  EnrolmentRefused, StepRefused, BadWish; StoreError when the commit failed: nothing changed
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from amistack.errors import StoreError
from amistack.identifiers import Eui64
from headend.domain.meters import Meter, MeterState, StoredSession
from headend.domain.refusals import BadWish, EnrolmentRefused, StepRefused
from headend.domain.standing import ACTOR_SIZE_MAX, METER_COUNT_MAX, REASON_SIZE_MAX, Step
from headend.lifecycle.enrolment import Device
from headend.lifecycle.shipment import Shipment
from headend.store.interface import (
    ChangeStanding,
    EndSessions,
    Enrolled,
    EnrolmentConflict,
    EnrolMeters,
    Outcome,
    StandingChanged,
    StandingRefused,
    Store,
    Write,
)

NOT_BY_OPERATORS: Final = frozenset({Step.IMPORT})


class Sessions(Protocol):
    """Whoever holds the sessions that are in use."""

    def end_session(self, meter: Eui64) -> None:
        """Refuse a meter's messages from now on, until it opens a new session."""

    def resume_session(self, session: StoredSession) -> None:
        """Take a stored session up again, unless the meter has opened another meanwhile."""


class NoSessions:
    """Nobody holds any session."""

    def end_session(self, meter: Eui64) -> None:
        """See `Sessions.end_session`."""

    def resume_session(self, session: StoredSession) -> None:
        """See `Sessions.resume_session`."""


class Registry:
    """The registry's flows."""

    def __init__(self, *, store: Store, sessions: Sessions, wall: Callable[[], float]) -> None:
        """`wall` is UTC in seconds."""
        self._store = store
        self._sessions = sessions
        self._wall = wall
        # One step after the other: a session must not come back behind a later suspension.
        self._lock = asyncio.Lock()

    async def enrol(self, devices: Sequence[Device], *, actor: str = "") -> Enrolled:
        """Take devices of a list into the registry, to join at once: all of them, or none."""
        meters = self._meters(devices, MeterState.ENROLLED)
        write = EnrolMeters(meters, _checked(actor, ACTOR_SIZE_MAX, "actor"), "enrolment list")
        return _enrolled(await self._store.commit(write))

    async def take_shipment(
        self,
        shipment: Shipment,
        *,
        may_join: bool = False,
        is_rehearsal: bool = False,
        actor: str = "",
    ) -> Enrolled:
        """Take a shipment's devices into the registry, known or enrolled: all of them, or none."""
        state = MeterState.ENROLLED if may_join else MeterState.KNOWN
        write = EnrolMeters(
            self._meters(shipment.devices, state),
            _checked(actor, ACTOR_SIZE_MAX, "actor"),
            f"shipment {shipment.name}",
            shipment.details,
            is_rehearsal,
        )
        return _enrolled(await self._store.commit(write))

    async def change(
        self, meters: Sequence[Eui64], step: Step, *, reason: str, actor: str = ""
    ) -> StandingChanged:
        """Take a step with meters: with all of them, or with none. In force when it returns."""
        if step in NOT_BY_OPERATORS:
            raise BadWish(f"{step.word} is no step that is taken by itself")
        if not reason.strip():
            raise BadWish("no reason is given, expected a few words for the history")
        write = ChangeStanding(
            _unique(meters),
            step,
            int(self._wall() * 1000),
            _checked(actor, ACTOR_SIZE_MAX, "actor"),
            _checked(reason.strip(), REASON_SIZE_MAX, "reason"),
        )

        def apply(changed: StandingChanged) -> None:
            if step is not Step.RESUME:
                for meter in changed.changed:
                    self._sessions.end_session(meter)

        async with self._lock:
            outcome = await self._commit(write, step, apply)
            if step is Step.RESUME:
                for meter in outcome.changed:
                    session = await self._store.find_session(meter)
                    if session is not None:
                        self._sessions.resume_session(session)
        return outcome

    async def rekey(self, meters: Sequence[Eui64]) -> StandingChanged:
        """End the sessions with meters, so that each agrees on new keys when it next speaks."""

        def apply(changed: StandingChanged) -> None:
            for meter in changed.changed:
                self._sessions.end_session(meter)

        write = EndSessions(_unique(meters))
        async with self._lock:
            return await self._commit(write, None, apply)

    async def _commit(
        self, write: Write, step: Step | None, apply: Callable[[StandingChanged], None]
    ) -> StandingChanged:
        """Commit, and apply in the very call that tells the outcome: nothing comes between."""
        told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, StandingChanged):
                apply(outcome)
            if not told.done():  # Whoever asked may be gone; the step is in force all the same.
                told.set_result(outcome)

        self._store.submit(write, done)
        outcome = await told
        if isinstance(outcome, StoreError):
            raise outcome
        if isinstance(outcome, StandingRefused):
            raise StepRefused(step, outcome.meters)
        assert isinstance(outcome, StandingChanged), "what such a write answers"
        return outcome

    def _meters(self, devices: Sequence[Device], state: MeterState) -> tuple[Meter, ...]:
        now = int(self._wall())
        return tuple(Meter(one.meter, one.public_key, state, now) for one in devices)


def _enrolled(outcome: Outcome) -> Enrolled:
    if isinstance(outcome, EnrolmentConflict):
        raise EnrolmentRefused(outcome.meters)
    assert isinstance(outcome, Enrolled), "what such a write answers"
    return outcome


def _unique(meters: Sequence[Eui64]) -> tuple[Eui64, ...]:
    found = tuple(dict.fromkeys(meters))
    if not found:
        raise BadWish("no meter is named")
    if len(found) > METER_COUNT_MAX:
        raise BadWish(f"{len(found)} meters, at most {METER_COUNT_MAX}; split the list")
    return found


def _checked(text: str, size_max: int, what: str) -> str:
    if len(text) > size_max or not text.isprintable():
        raise BadWish(f"the {what} is no text of one line and at most {size_max} characters")
    return text
