"""Whose turn it is to speak: the most urgent voice that is due, of equal ones the oldest.

Limit   one word at a time; voices that were due and then had nothing to say wait SILENT_S
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.coap.message import Message
from meterd.parts import Urgency, Voice

SILENT_S: Final = 1.0


class Turns:
    """The voices of one meter."""

    def __init__(self, voices: Sequence[Voice]) -> None:
        self._voices = tuple(voices)
        self.not_before = 0.0
        """Nobody speaks before this, whatever is due."""
        self.urgency = Urgency.DEFAULT
        """How urgent the word was that was taken last."""

    def next_word(self, *, now: float) -> float | None:
        """When the next voice is due; what waits since long is due now."""
        dues = [due.at for voice in self._voices if (due := voice.next_word(now=now)) is not None]
        return max(min(dues), self.not_before, now) if dues else None

    def next_alarm(self, *, now: float) -> float | None:
        """When something is due that must not wait long."""
        dues = [due for voice in self._voices if (due := voice.next_word(now=now)) is not None]
        return min((due.at for due in dues if due.urgency is Urgency.ALARM), default=None)

    def word(self, *, now: float) -> tuple[Message, Voice] | None:
        """The most urgent word that is due."""
        if now < self.not_before:
            return None
        ready = []
        for voice in self._voices:
            due = voice.next_word(now=now)
            if due is not None and due.at <= now:
                ready.append((due, voice))
        for due, voice in sorted(ready, key=lambda one: (one[0].urgency, one[0].at)):
            message = voice.word(now=now)
            if message is not None:
                self.urgency = due.urgency
                return message, voice
        if ready:
            self.not_before = now + SILENT_S
        return None
