"""What a meter is composed of: parts, each with tables, resources and timers of its own.

A part is a machine without I/O. The agent carries its conversation: it dispatches what the head-end
asks for to the part's resources, wakes it, and, if the part has something to say, sends that when
its turn comes.

Gives   the shape of a part (`Part`), of a path that can be asked for (`Resource`), of a part that
        speaks by itself (`Voice`), and of the log that they write to (`Log`)
Never   lets a part see a socket, a session or another part's tables
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from amistack.coap.codes import Code
from amistack.coap.link_format import Link
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1, EndDeviceEventType

REASON_SIZE_MAX: Final = 64
"""Octets of a refusal's reason in an answer."""


class Log(Protocol):
    """Where events are put on record; durable when it returns. Raises StoreError."""

    def __call__(
        self, event: EndDeviceEventType, detail: str | None = None, *, now: float
    ) -> object:
        """Put an event on record, as it happened at `now`."""


class Resource(Protocol):
    """One path that the head-end may ask for; who asks is authentic already."""

    @property
    def path(self) -> str:
        """Without a slash in front; no two resources of a meter have the same."""

    @property
    def kind(self) -> str:
        """The resource type that `/.well-known/core` says: `amistack.` and a word."""

    def answer(self, message: Message, *, now: float) -> Message:
        """The answer to a request.

        Whatever the answer promises is durable when this returns. Raises ModelError or CoapError
        on a request that is not one: it is answered 4.00 with the reason, and counted. Raises
        StoreError when something cannot be kept: it is answered 5.03.
        """


class Part(Protocol):
    """A function of the meter, with resources and timers."""

    def resources(self) -> Sequence[Resource]:
        """What can be asked for; the same at every call."""

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless. Raises StoreError."""

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""


class Urgency(enum.IntEnum):
    """What goes first when several have something to say: the lowest number (docs/protocol)."""

    ALARM = 1
    FREQUENT = 3
    DEFAULT = 4
    RECOVERY = 5


class Due(NamedTuple):
    """When a voice wants to speak next (monotonic; what has passed is due now), how urgently."""

    at: float
    urgency: Urgency


class Voice(Protocol):
    """A part that speaks to the head-end by itself: one request at a time.

    The agent asks `next_word` after everything that happens, and once that is due, and there is a
    session and nothing else under way, takes the `word` of the most urgent voice. One of the three
    `take_...` ends it. How often it tries again is the voice's own affair; a head-end that says
    "later" and a session that is lost hold all voices alike.
    """

    def next_word(self, *, now: float) -> Due | None:
        """When it wants to speak next, or None for not until something else happens."""

    def word(self, *, now: float) -> Message | None:
        """The request to send. None: there is nothing to say after all, plan anew."""

    def take_answer(self, message: Message, *, sent: float, now: float) -> None:
        """The head-end's authentic 2.04 (to a GET, 2.05) to the word that left at `sent`.

        Raises ModelError if it is no acknowledgement: then `take_failure` follows. Raises
        StoreError if it cannot be kept: then `take_back` follows.
        """

    def take_failure(self, reason: str, *, now: float) -> float:
        """It was not acknowledged: in how many seconds the voice means to speak again."""

    def take_back(self, *, now: float) -> None:
        """It was not heard, through no fault of its own: to be said when speaking is possible."""


def link_of(resource: Resource) -> Link:
    """How `/.well-known/core` names a resource."""
    return Link(f"/{resource.path}", (resource.kind,), content_formats=(CONTENT_FORMAT_V1,))


def unfit(message: Message, *codes: Code) -> Message | None:
    """The answer to a request with none of these methods or no payload of the model; or None."""
    if message.code not in codes:
        return Message.response(Code.METHOD_NOT_ALLOWED)
    if message.code != Code.GET and message.content_format != CONTENT_FORMAT_V1:
        return Message.response(Code.UNSUPPORTED_CONTENT_FORMAT)
    return None


def refused(code: Code, reason: str) -> Message:
    """A refusal with its reason in words."""
    return Message.response(code, payload=reason.encode()[:REASON_SIZE_MAX])


def granted(code: Code, payload: bytes = b"") -> Message:
    """An answer with a payload of the model, or with none."""
    if not payload:
        return Message.response(code)
    return Message.response(code, payload=payload, content_format=CONTENT_FORMAT_V1)
