"""Following the head-end's keys: which is trusted, and when it is to be proven.

Spec    docs/protocol/identity.md, "Changing the head-end's key"
Gives   a resource that takes another key, durable before its answer; when to open a session anew
Limit   a new session RENEW_MIN_S to RENEW_MAX_S after a new key, by chance: not all of a fleet at
        once
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import TrustError
from amistack.model import HeadEndKeyNotice
from amistack.model.resources import HEAD_END_KEY
from meterd.happenings import AgentEvent, KeyChanged
from meterd.parts import granted, refused, unfit
from meterd.trust import TrustKeeper

RENEW_MIN_S: Final = 1.0
RENEW_MAX_S: Final = 60.0
RENEW_RETRY_S: Final = 5.0


class KeyResource:
    """Takes another key, if the root says so."""

    path = HEAD_END_KEY
    kind = "amistack.head-end-key"

    def __init__(
        self,
        trusted: TrustKeeper,
        counters: Counter[str],
        dice: random.Random,
        tell: Callable[[AgentEvent], None],
    ) -> None:
        self._trusted = trusted
        self._counters = counters
        self._dice = dice
        self._tell = tell
        self.renew_at: float | None = None
        """When to open a session under the newest key, or None."""

    def answer(self, message: Message, *, now: float) -> Message:
        """2.04 once the key is trusted, 4.03 with the reason otherwise."""
        if (other := unfit(message, Code.PUT)) is not None:
            return other
        notice = HeadEndKeyNotice.decode(message.payload)
        try:
            is_other = self._trusted.take(notice)
        except TrustError as error:
            self._counters[f"key refused: {error.reason}"] += 1
            return refused(Code.FORBIDDEN, error.reason)
        if is_other:
            self.tell_key()
            self.renew_at = now + self._dice.uniform(RENEW_MIN_S, RENEW_MAX_S)
        return granted(Code.CHANGED)

    def tell_key(self) -> None:
        """Say which key is the newest now."""
        newest = self._trusted.trust.newest
        self._counters["head-end key changed"] += 1
        self._tell(KeyChanged(newest.credential.id_cred, newest.epoch))

    def renew_if(self, is_half_worn: bool, *, now: float) -> None:
        """The session's own keys may be half worn: a new one in good time."""
        if is_half_worn and self.renew_at is None:
            self.renew_at = now

    def is_time(self, *, can_wait: bool, now: float) -> bool:
        """Whether a new session is to be opened now; while something is under way it can wait."""
        if self.renew_at is None or self.renew_at > now:
            return False
        self.renew_at = now + RENEW_RETRY_S if can_wait else None
        return not can_wait
