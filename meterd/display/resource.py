"""The display as a part of the meter: PUT /msg is a text message, GET /msg what became of them.

Raises  ModelError on a payload that is no message; StoreError when it cannot be kept
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model.messages import TextMessage
from amistack.model.resources import MESSAGES
from meterd.display.mailbox import Mailbox
from meterd.parts import Resource, granted, refused, unfit


class MessageResource:
    """What the head-end may ask of a mailbox."""

    path: Final = MESSAGES
    kind: Final = "amistack.messages"

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def answer(self, message: Message, *, now: float) -> Message:
        """The answer to a request."""
        wrong = unfit(message, Code.GET, Code.PUT)
        if wrong is not None:
            return wrong
        if message.code == Code.GET:
            return granted(Code.CONTENT, self._mailbox.standings(now=now).encode())
        reason = self._mailbox.take(TextMessage.decode(message.payload), now=now)
        return granted(Code.CHANGED) if reason is None else refused(Code.FORBIDDEN, reason)


class DisplayPart:
    """A display in a meter: it does nothing by itself, as whoever looks at it asks."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._resources = (MessageResource(mailbox),)

    def resources(self) -> Sequence[Resource]:
        """The one path."""
        return self._resources

    def handle_timer(self, *, now: float) -> None:
        """Nothing is ever due."""

    def next_timer(self) -> float | None:
        """Nothing is ever due."""
        return None
