"""The one request to the head-end that may be under way, and what its end means.

Gives   `Ended`, once for each request that was sent
Limit   one request; REPLAYS_MAX messages in a row that are taken for replays
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Code, format_code
from amistack.coap.message import Message
from amistack.coap.options import OptionNumber
from amistack.machine import Peer
from amistack.session.oscore import REPLAY
from amistack.stack import RequestFailed, RequestId, SecureResponse, Stack
from meterd.parts import Voice

WAIT_MAX: Final = 86_400.0
"""Seconds that a head-end may ask to be left alone; a slip there must not silence a fleet."""
WAIT_UNSAID_S: Final = 60.0
REPLAYS_MAX: Final = 3
"""Messages in a row that are taken for replays, after which a new session is opened."""


class Ending(enum.Enum):
    """What became of a request."""

    ACKNOWLEDGED = enum.auto()
    LATER = enum.auto()  # the head-end wants to be left alone for `wait_s`
    REFUSED = enum.auto()  # an authentic answer that is no acknowledgement
    FAILED = enum.auto()  # no authentic answer
    SESSION_LOST = enum.auto()  # somebody says that the head-end does not know the session


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a request of `voice`, or of the agent itself, that left at `sent`."""

    voice: Voice | None
    sent: float
    ending: Ending
    message: Message
    reason: str = ""
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _UnderWay:
    request: RequestId
    sent: float
    voice: Voice | None
    success: Code
    """What alone says that it was taken: 2.05 to a GET, 2.04 to all else."""


_NOTHING: Final = Message.response(Code.EMPTY)


class Uplink:
    """What this meter asks of its head-end."""

    def __init__(self, stack: Stack, head_end: bytes) -> None:
        self._stack = stack
        self._head_end = head_end
        self._under_way: _UnderWay | None = None
        self._replay_count = 0

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._under_way is not None

    def send(self, message: Message, voice: Voice | None, peer: Peer, *, now: float) -> None:
        """Send a request. Raises LocalProtocolError, TableFull: then it is not under way."""
        request = self._stack.request(self._head_end, message, peer, now=now)
        success = Code.CONTENT if message.code == Code.GET else Code.CHANGED
        self._under_way = _UnderWay(request, now, voice, success)

    def drop(self, *, now: float) -> None:
        """Wait for no answer any more."""
        if self._under_way is not None and self._under_way.voice is not None:
            self._under_way.voice.take_back(now=now)
        self._under_way = None

    def end(self, event: SecureResponse | RequestFailed) -> Ended | None:
        """What `event` means for the request under way, or None if it is of another."""
        under_way = self._under_way
        if under_way is None or under_way.request != event.request:
            return None
        self._under_way = None
        if isinstance(event, RequestFailed):
            return self._failed(under_way, event)
        self._replay_count = 0
        voice, sent, message = under_way.voice, under_way.sent, event.message
        if message.code == Code.SERVICE_UNAVAILABLE:
            wait = min(message.uint_option(OptionNumber.MAX_AGE) or WAIT_UNSAID_S, WAIT_MAX)
            reason = "the head-end says later"
            return Ended(voice, sent, Ending.LATER, message, reason, wait)
        if message.code != under_way.success:
            detail = message.payload.decode(errors="replace")[:80]
            reason = f"{format_code(message.code)} {detail}".rstrip()
            return Ended(voice, sent, Ending.REFUSED, message, reason)
        return Ended(voice, sent, Ending.ACKNOWLEDGED, message)

    def _failed(self, under_way: _UnderWay, event: RequestFailed) -> Ended:
        is_repeated = event.code == Code.UNAUTHORIZED and event.hint == REPLAY
        self._replay_count = self._replay_count + 1 if is_repeated else 0
        if self._replay_count >= REPLAYS_MAX:
            # No number of ours is new to it: our storage is older than what it has heard from us.
            is_repeated = False
            self._replay_count = 0
        # A replay is what the head-end sees when it was killed between commit and answer and our
        # message came again: the session is whole, and a new number is all that is needed.
        is_lost = event.code in (Code.UNAUTHORIZED, Code.BAD_REQUEST) and not is_repeated
        ending = Ending.SESSION_LOST if is_lost else Ending.FAILED
        return Ended(under_way.voice, under_way.sent, ending, _NOTHING, event.reason)
