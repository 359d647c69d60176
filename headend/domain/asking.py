"""Asking a meter something now: the port that flows use, and how it fails.

Gives   `Asker`, which whoever holds the sessions fulfils
Raises  Unreachable and NotAnswered from `ask`
"""

from __future__ import annotations

from typing import Protocol

from amistack.coap.message import Message
from amistack.errors import AmiError
from amistack.identifiers import Eui64


class Unreachable(AmiError):
    """There is no session with that meter, or no path to it, so nothing was sent."""


class NotAnswered(AmiError):
    """The meter was asked and gave no authentic answer; `is_timeout` tells silence from refusal."""

    def __init__(self, reason: str, *, is_timeout: bool) -> None:
        super().__init__(reason)
        self.is_timeout = is_timeout


class Asker(Protocol):
    """Sends a protected request to a meter and waits for its authentic answer."""

    async def ask(
        self, meter: Eui64, message: Message, *, deadline_s: float
    ) -> tuple[Message, str]:
        """The answer, and the path that it took.

        Raises Unreachable when nothing could be sent, NotAnswered when nothing authentic came.
        """

    def path_of(self, meter: Eui64) -> str | None:
        """The path on which the meter would be asked, or None if it was never heard."""
