"""The text messages that a meter has for whoever reads its display.

Gives   what is to be shown now, oldest start first, and what became of each message
Raises  StoreError where something cannot be kept; StoreUnusable for rows that no meterd writes
Limit   MESSAGE_COUNT_MAX messages; a new one takes the place of one that is over, or is refused
Never   shows a message while the clock is unset: whether it is its time cannot be told
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from amistack.errors import ModelError, StoreUnusable
from amistack.model import ClockReading, ClockState, EndDeviceEventType
from amistack.model.messages import (
    MESSAGE_COUNT_MAX,
    MessageList,
    MessageStanding,
    MessageState,
    TextMessage,
)
from meterd.storage import MESSAGE, Storage

DISPLAYED: Final = EndDeviceEventType(3, 13, 112, 78)  # VideoDisplay, TextMessage, Displayed
ACKNOWLEDGED: Final = EndDeviceEventType(3, 13, 112, 3)  # VideoDisplay, TextMessage, Acknowledged

NO_ROOM: Final = "no room"
OVER_ALREADY: Final = "over already"


class Clock(Protocol):
    """What a mailbox needs of the meter's clock."""

    def utc(self, now: float) -> float: ...

    def reading(self, now: float) -> ClockReading: ...


@dataclass(frozen=True, slots=True)
class _Kept:
    message: TextMessage
    state: MessageState
    since_s: int


class Mailbox:
    """Messages by identifier."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        *,
        log: Callable[[EndDeviceEventType, str | None], None],
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._log = log
        try:
            self._all()
        except (ModelError, ValueError) as error:
            raise StoreUnusable(f"a text message's row is none of ours ({error})") from error

    def take(self, message: TextMessage, *, now: float) -> str | None:
        """Keep a message; or why it is not taken. Taking it again changes nothing."""
        utc = self._utc(now)
        known = self._find(message.identifier)
        if known is not None and known.message == message:
            return None
        state, is_over = MessageState.WAITING, utc is not None and message.ends_s <= utc
        if is_over and known is None:
            return OVER_ALREADY
        if is_over:
            state = MessageState.OVER
        with self._storage.together():
            if known is None and not self._make_room(now):
                return NO_ROOM
            self._keep(message, state, now)
        return None

    def in_force(self, *, now: float) -> list[TextMessage]:
        """What is to be shown now."""
        utc = self._utc(now)
        if utc is None:
            return []
        found = [
            kept.message
            for kept in self._all()
            if kept.state in (MessageState.WAITING, MessageState.SHOWN)
            and kept.message.starts_s <= utc < kept.message.ends_s
        ]
        return sorted(found, key=lambda one: (one.starts_s, one.identifier))

    def mark_shown(self, identifiers: list[int], *, now: float) -> None:
        """Somebody could read these."""
        for identifier in identifiers:
            kept = self._find(identifier)
            if kept is not None and kept.state is MessageState.WAITING:
                with self._storage.together():
                    self._keep(kept.message, MessageState.SHOWN, now)
                    self._log(DISPLAYED, f"message {identifier}")

    def acknowledge(self, *, now: float) -> int | None:
        """Somebody at the meter has read the first message that asks for a sign; which it was."""
        for message in self.in_force(now=now):
            kept = self._find(message.identifier)
            is_read = kept is not None and kept.state is MessageState.SHOWN
            if is_read and message.is_to_acknowledge:
                with self._storage.together():
                    self._keep(message, MessageState.ACKNOWLEDGED, now)
                    self._log(ACKNOWLEDGED, f"message {message.identifier}")
                return message.identifier
        return None

    def standings(self, *, now: float) -> MessageList:
        """What became of every message that is kept."""
        utc = self._utc(now)
        found = [self._standing(kept, utc) for kept in self._all()]
        return MessageList(
            self._clock.reading(now), tuple(sorted(found, key=lambda one: one.identifier))
        )

    def messages(self) -> list[TextMessage]:
        """All that are kept, by identifier."""
        found = (kept.message for kept in self._all())
        return sorted(found, key=lambda one: one.identifier)

    # What is kept

    def _standing(self, kept: _Kept, utc: float | None) -> MessageStanding:
        message = kept.message
        if kept.state is not MessageState.ACKNOWLEDGED and self._is_over(kept, utc):
            since_s = kept.since_s if kept.state is MessageState.OVER else message.ends_s
            return MessageStanding(message.identifier, MessageState.OVER, since_s)
        return MessageStanding(message.identifier, kept.state, kept.since_s)

    def _is_over(self, kept: _Kept, utc: float | None) -> bool:
        is_past = utc is not None and kept.message.ends_s <= utc
        return kept.state is MessageState.OVER or is_past

    def _make_room(self, now: float) -> bool:
        """Whether there is room for one more, after the oldest that is over has gone."""
        every = self._all()
        if len(every) < MESSAGE_COUNT_MAX:
            return True
        utc = self._utc(now)
        over = [
            kept
            for kept in every
            if kept.state is MessageState.ACKNOWLEDGED or self._is_over(kept, utc)
        ]
        if not over:
            return False
        oldest = min(over, key=lambda kept: kept.message.ends_s)
        self._storage.put((MESSAGE, oldest.message.identifier, None))
        return True

    def _keep(self, message: TextMessage, state: MessageState, now: float) -> None:
        since_s = max(int(self._clock.utc(now)), 0)
        self._storage.put((MESSAGE, message.identifier, [message.encode(), int(state), since_s]))

    def _find(self, identifier: int) -> _Kept | None:
        row = self._storage.get(MESSAGE, identifier)
        return (
            None if row is None else _Kept(TextMessage.decode(row[0]), MessageState(row[1]), row[2])
        )

    def _all(self) -> list[_Kept]:
        return [
            _Kept(TextMessage.decode(row[0]), MessageState(row[1]), row[2])
            for _, row in self._storage.items(MESSAGE)
        ]

    def _utc(self, now: float) -> float | None:
        is_unset = self._clock.reading(now).state is ClockState.UNSET
        return None if is_unset else self._clock.utc(now)
