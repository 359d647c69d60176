"""Text messages for whoever reads a meter's display.

Spec    docs/protocol/model.md, "Text messages"
Raises  `ModelError`, and nothing else, from every decoder
Limit   MESSAGE_COUNT_MAX messages in a meter, TEXT_SIZE_MAX octets each
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.clock import ClockReading

IDENTIFIER_MAX: Final = 2**32 - 1
TEXT_SIZE_MAX: Final = 240
MESSAGE_COUNT_MAX: Final = 16


class MessageState(enum.IntEnum):
    """What became of a message."""

    WAITING = 0  # not its time yet, or not shown yet
    SHOWN = 1  # on the display, at least once
    ACKNOWLEDGED = 2  # somebody at the meter said so
    OVER = 3  # its end has passed


@dataclass(frozen=True, slots=True)
class TextMessage:
    """Show `text` from `starts_s` until before `ends_s` (UTC).

    A message with the identifier of one that the meter has takes its place; with an end that is
    past it takes it off the display. `is_to_acknowledge` asks whoever reads it for a sign.
    """

    identifier: int
    starts_s: int
    ends_s: int
    is_to_acknowledge: bool
    text: str

    def __post_init__(self) -> None:
        wire.integer(self.identifier, 0, IDENTIFIER_MAX, "message identifier")
        wire.integer(self.starts_s, 0, wire.UTC_S_MAX - 1, "start")
        wire.integer(self.ends_s, self.starts_s + 1, wire.UTC_S_MAX, "end")
        wire.text(self.text, 1, TEXT_SIZE_MAX, "text")

    def encode(self) -> bytes:
        """The message's one encoding."""
        return wire.dump(
            [self.identifier, self.starts_s, self.ends_s, self.is_to_acknowledge, self.text]
        )

    @classmethod
    def decode(cls, data: bytes) -> TextMessage:
        """The message that `data` is the encoding of."""
        identifier, starts, ends, is_to_acknowledge, text = wire.array(
            wire.load(data), 5, 5, "text message"
        )
        if type(is_to_acknowledge) is not bool:
            raise ModelError("wrong type", "whether to acknowledge is no boolean")
        starts_s = wire.integer(starts, 0, wire.UTC_S_MAX - 1, "start")
        return cls(
            wire.integer(identifier, 0, IDENTIFIER_MAX, "message identifier"),
            starts_s,
            wire.integer(ends, starts_s + 1, wire.UTC_S_MAX, "end"),
            is_to_acknowledge,
            wire.text(text, 1, TEXT_SIZE_MAX, "text"),
        )


@dataclass(frozen=True, slots=True)
class MessageStanding:
    """What became of one message, and since when (UTC)."""

    identifier: int
    state: MessageState
    since_s: int

    def __post_init__(self) -> None:
        wire.integer(self.identifier, 0, IDENTIFIER_MAX, "message identifier")
        wire.integer(self.since_s, 0, wire.UTC_S_MAX, "time of the change")


@dataclass(frozen=True, slots=True)
class MessageList:
    """The messages that a meter has, by identifier."""

    clock: ClockReading
    standings: tuple[MessageStanding, ...] = ()

    def __post_init__(self) -> None:
        wire.array(self.standings, 0, MESSAGE_COUNT_MAX, "messages")
        identifiers = [one.identifier for one in self.standings]
        if identifiers != sorted(set(identifiers)):
            raise ModelError("bad message list", "identifiers do not rise")

    def encode(self) -> bytes:
        """The list's one encoding."""
        return wire.dump(
            [
                self.clock.utc_s,
                int(self.clock.state),
                [[one.identifier, int(one.state), one.since_s] for one in self.standings],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> MessageList:
        """The list that `data` is the encoding of."""
        utc_s, state, standings = wire.array(wire.load(data), 3, 3, "message list")
        return cls(
            ClockReading.from_tree(utc_s, state),
            tuple(
                _standing_from_tree(one)
                for one in wire.array(standings, 0, MESSAGE_COUNT_MAX, "messages")
            ),
        )


def _standing_from_tree(item: object) -> MessageStanding:
    identifier, state, since_s = wire.array(item, 3, 3, "message standing")
    return MessageStanding(
        wire.integer(identifier, 0, IDENTIFIER_MAX, "message identifier"),
        wire.member(state, MessageState, "message state"),
        wire.integer(since_s, 0, wire.UTC_S_MAX, "time of the change"),
    )
