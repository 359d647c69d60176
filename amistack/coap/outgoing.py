"""A request of ours, and where it is.

Spec    RFC 7252 sections 4.7 and 5.2; RFC 7641 section 3
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amistack.coap.duplicates import Key
from amistack.coap.events import RequestId
from amistack.coap.observe import NotificationOrder
from amistack.coap.timing import Timing
from amistack.machine import Peer


class Stage(enum.Enum):
    """Where a request of ours is."""

    WAITING = enum.auto()
    """In the backlog of its peer."""
    SENT = enum.auto()
    """Holds a place of its peer's; confirmable, it is repeated."""
    ACKNOWLEDGED = enum.auto()
    """The response is still to come."""
    OPEN = enum.auto()
    """Answered; it observes, and nothing of it is under way."""


@dataclass(slots=True)
class Observing:
    """What a request that observes has besides."""

    is_protected: bool
    order: NotificationOrder
    is_open: bool = False
    is_leaving: bool = False
    has_news: bool = False
    """Whether anything was told since it was asked for the last time."""


@dataclass(slots=True, eq=False)
class Outgoing:
    """A request of ours. `octets` have its token, and no message id yet."""

    id: RequestId
    peer: Peer
    token: bytes
    octets: bytes
    is_confirmable: bool
    timing: Timing | None
    response_wait: float
    stage: Stage = Stage.WAITING
    key: Key | None = None
    observing: Observing | None = None

    @property
    def is_expecting(self) -> bool:
        """Whether the peer has a reason to send responses with its token."""
        return self.stage is not Stage.WAITING or (
            self.observing is not None and self.observing.is_open
        )

    @property
    def is_shielded(self) -> bool:
        """Whether it observes under protection, so that what proves nothing must not end it."""
        observing = self.observing
        return observing is not None and observing.is_open and observing.is_protected
