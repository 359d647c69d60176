"""Which notification is the newer one, and the option that says so.

Spec    RFC 7641 sections 2, 3.4 and 4.4
Never   orders what OSCORE protects: there the Partial IV tells (RFC 8613 section 4.1.3.5.2), and
        `NotificationOrder` is not asked, for anybody on the way can write the outer option
"""

from __future__ import annotations

from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber, read_uint, uint_value

OBSERVABLE: Final = frozenset({Code.GET, Code.FETCH})
"""The methods with which Observe means anything (section 2; RFC 8132 section 2.4)."""

REGISTER: Final = 0
DEREGISTER: Final = 1

_OBSERVE: Final = int(OptionNumber.OBSERVE)

SEQUENCE_COUNT: Final = 1 << 24
SEQUENCE_HALF: Final = 1 << 23
REORDERING_MAX: Final = 128.0
"""Seconds after which a notification is newer whatever its number (section 3.4)."""

MAX_AGE_DEFAULT: Final = 60
"""Seconds that a response without Max-Age is fresh (RFC 7252 section 5.10.5)."""
JITTER_MIN: Final = 5.0
JITTER_MAX: Final = 15.0
"""Seconds to wait after Max-Age, so that not all clients come back at once (section 3.3.1)."""


def is_newer(value: int, time: float, than_value: int, than_time: float) -> bool:
    """Whether a notification (sequence number, arrival in s) is newer than another one."""
    return (
        than_value < value < than_value + SEQUENCE_HALF
        or value < than_value - SEQUENCE_HALF
        or time > than_time + REORDERING_MAX
    )


class NotificationOrder:
    """Lets through what is newer than all that it let through before."""

    __slots__ = ("_latest", "_time")

    def __init__(self) -> None:
        self._latest: int | None = None
        self._time = 0.0

    def accept(self, value: int, *, now: float) -> bool:
        """Whether the notification of that number is news. If it is, it is the latest from here."""
        if self._latest is not None and not is_newer(value, now, self._latest, self._time):
            return False
        self._latest, self._time = value, now
        return True

    def restart(self) -> None:
        """The next one is the latest: it answers a registration that is newer than all before."""
        self._latest = None


def observe_of(message: Message) -> int | None:
    """The Observe option's number, or None where there is none that can be read."""
    for number, value in message.options:
        if number >= _OBSERVE:
            return read_uint(value) if number == _OBSERVE and len(value) <= 3 else None
    return None


def with_observe(message: Message, value: int | None) -> Message:
    """`message` with that Observe option and no other; with None, without any."""
    options = [option for option in message.options if option.number != OptionNumber.OBSERVE]
    if value is not None:
        options.append(Option(OptionNumber.OBSERVE, uint_value(value)))
    return Message(
        message.code,
        message.type,
        message.message_id,
        message.token,
        in_order(options),
        message.payload,
    )
