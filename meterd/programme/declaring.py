"""What channels mean, said again when a programme has changed them: before any report of theirs.

Every start declares the running channels. This voice declares those that came into force since, and
those of days that are still owed and were never declared, the running ones last.

Spec    docs/protocol/model.md, "Registration"
Raises  StoreError when the storage fails
"""

from __future__ import annotations

import random
from typing import Final

from amistack.coap.message import Message
from amistack.identifiers import Eui64
from amistack.model import RegistrationAcknowledgement, RegistrationReason
from meterd.agent.registering import registration
from meterd.backoff import Backoff
from meterd.clock import MeterClock
from meterd.parts import Due, Urgency
from meterd.programme.shelf import FIRST_CHANNEL_SET
from meterd.recorder import Recorder
from meterd.schedules.daily import take_time
from meterd.storage import Storage

DECLARED: Final = "declared channel sets"
"""The note with the numbers of the sets that the head-end has."""
AT_ONCE: Final = 0.0


class Declaring:
    """A voice that registers the channels anew."""

    def __init__(
        self,
        storage: Storage,
        recorder: Recorder,
        clock: MeterClock,
        *,
        meter: Eui64,
        dice: random.Random,
    ) -> None:
        self._storage = storage
        self._recorder = recorder
        self._clock = clock
        self._meter = meter
        self._backoff = Backoff(dice)
        self._not_before = AT_ONCE
        self._said: int | None = None
        self._last: int | None = None

    def next_word(self, *, now: float) -> Due | None:  # noqa: ARG002
        """At once, while a set is not declared."""
        if self._last is None:
            # The agent has started, and registers what runs before any voice has its turn.
            self._last = self._recorder.channel_set
        # Before what waits for it, and after alarms.
        return None if self._wanted() is None else Due(self._not_before, Urgency.FREQUENT)

    def word(self, *, now: float) -> Message | None:  # noqa: ARG002
        """The registration."""
        wanted = self._wanted()
        channels = None if wanted is None else self._recorder.shelf.channels_of_set(wanted)
        if wanted is None or channels is None:
            return None
        self._said = wanted
        return registration(
            self._meter,
            wanted,
            channels,
            offset_min=self._recorder.shelf.offset_s // 60,
            reason=RegistrationReason.PROGRAMME_CHANGED,
        )

    def take_answer(self, message: Message, *, sent: float, now: float) -> None:
        """The set is declared."""
        acknowledgement = RegistrationAcknowledgement.decode(message.payload)
        assert self._said is not None, "an answer without a word"
        take_time(self._clock, acknowledgement, sent=sent, now=now)
        self._keep(self._said)
        self._last, self._said = self._said, None
        self._not_before = AT_ONCE
        self._backoff.reset()

    def take_failure(self, reason: str, *, now: float) -> float:  # noqa: ARG002
        """Again later, each time later."""
        self._said = None
        wait = self._backoff.wait()
        self._not_before = now + wait
        return wait

    def take_back(self, *, now: float) -> None:  # noqa: ARG002
        """Again when there is a session."""
        self._said = None

    def _wanted(self) -> int | None:
        """The set to declare next, if any."""
        declared, running = self._declared(), self._recorder.channel_set
        owed = {self._recorder.channel_set_of(day) for day in self._recorder.owed_days()}
        missing = sorted(owed - {*declared, self._last, running})
        if missing:
            return missing[0]
        return None if self._last == running else running

    def _declared(self) -> set[int]:
        note = self._storage.note(DECLARED)
        return {int(number) for number in note.split(",")} if note else {FIRST_CHANNEL_SET}

    def _keep(self, number: int) -> None:
        """The head-end has it. What no programme has any more is left out."""
        known = {row.channel_set for row in self._recorder.shelf.rows()}
        kept = sorted({*self._declared(), self._last or number, number} & known)
        self._storage.keep_note(DECLARED, ",".join(map(str, kept)))
