"""Sessions whose replay window may be an old one: their next request must prove that it is new.

Spec    RFC 8613 appendix B.1.2, RFC 9175 section 2.3
Limit   ECHO_RATE_MAX sessions are asked in a second; others are told to come later. One entry for
        each session in doubt
Never   accepts a request of such a session that does not bring the Echo value it was given
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber
from amistack.session.handshakes import Entropy
from amistack.session.oscore import ReplayWindow, RequestBinding, SecurityContext

ECHO_SIZE: Final = 8
ECHO_RATE_MAX: Final = 200
"""Sessions with a doubtful window that are asked for freshness in a second; others come later."""
ECHO_LATER_S: Final = 60


class Freshness:
    """Which sessions are in doubt, and what each was asked for."""

    def __init__(self, *, entropy: Entropy, refused: Counter[str]) -> None:
        self._entropy = entropy
        self._refused = refused
        self._doubtful: dict[bytes, bytes] = {}  # recipient id to the Echo value asked for, if any
        self._since = 0.0
        self._count = 0

    def doubt(self, recipient_id: bytes) -> None:
        """The next request of that session must prove that it is new."""
        self._doubtful[recipient_id] = b""

    def forget(self, recipient_id: bytes) -> None:
        """That session ended."""
        self._doubtful.pop(recipient_id, None)

    def is_doubtful(self, recipient_id: bytes) -> bool:
        """Whether that session's next request must prove that it is new."""
        return recipient_id in self._doubtful

    def challenge(
        self, context: SecurityContext, inner: Message, binding: RequestBinding, *, now: float
    ) -> Message | None:
        """What to answer instead of handing the request up; None once it proves that it is new.

        It is asked to by an Echo value that only its true sender can read, or told to come later
        if too many were asked lately.
        """
        recipient_id = context.recipient_id
        wanted = self._doubtful[recipient_id]
        if wanted and inner.option(OptionNumber.ECHO) == wanted:
            del self._doubtful[recipient_id]
            number = int.from_bytes(binding.request_piv, "big")
            context.replay_window = _closed_below(context.replay_window, number + 1)
            return None
        if now - self._since >= 1.0:
            self._since, self._count = now, 0
        if self._count >= ECHO_RATE_MAX:
            self._refused["freshness asked too often, later"] += 1
            return Message.response(Code.SERVICE_UNAVAILABLE, max_age=ECHO_LATER_S)
        self._count += 1
        self._refused["freshness asked"] += 1
        if not wanted:
            wanted = self._doubtful[recipient_id] = self._entropy(ECHO_SIZE)
        return Message.response(Code.UNAUTHORIZED, options=(Option(OptionNumber.ECHO, wanted),))


def _closed_below(window: ReplayWindow, base: int) -> ReplayWindow:
    """A window that refuses all below `base`, and above it what `window` has taken.

    What is below may have been seen in the time that was lost. What is above was refused without
    its proof, perhaps, but its sender says it again under another number.
    """
    closed = ReplayWindow.restore(base, 0)
    lowest, bitmap = window.state
    for number in range(base, lowest + 1 + bitmap.bit_length()):
        if not window.is_fresh(number):
            closed.accept(number)
    return closed
