"""Where the head-end is: an address that is known, or is asked for once until there is one."""

from __future__ import annotations

from amistack.machine import Peer


class Whereabouts:
    """The address in use."""

    def __init__(self, peer: Peer | None) -> None:
        self.peer = peer
        self.is_asked_for = False

    def want(self) -> bool:
        """An address is needed and there is none: whether somebody is to be asked now."""
        is_news = not self.is_asked_for
        self.is_asked_for = True
        return is_news

    def find(self, peer: Peer) -> bool:
        """It is there; whether that was asked for."""
        self.peer = peer
        return self.miss()

    def miss(self) -> bool:
        """Nobody knows; whether it was asked for."""
        was_asked_for, self.is_asked_for = self.is_asked_for, False
        return was_asked_for
