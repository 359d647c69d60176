"""The meter's end of its security session: opened, kept through restarts, renewed in good time.

Raises  StoreError; then the caller answers nobody, and nothing is said that is not durable
Never   reuses a number: those of a session go on at the bound that was reserved for it
"""

from __future__ import annotations

import random
from typing import Final

from amistack.errors import StoreError
from amistack.machine import Peer
from amistack.session.handshakes import SessionProposed
from amistack.session.key_limits import NUMBERS_MAX
from amistack.session.oscore import ReplayWindow, SecurityContext
from amistack.stack import SEQUENCE_BLOCK, NumbersWanted, Stack
from meterd.storage import SavedSession, Storage
from meterd.trust import TrustKeeper

RESERVE_RETRY_S: Final = 60.0
SHORT_IDENTIFIER_COUNT: Final = 24
"""C_I is one of the identifiers that cost one octet (RFC 9528 section 3.3.2)."""


class SessionKeeper:
    """One stack's session with one head-end."""

    def __init__(
        self,
        stack: Stack,
        storage: Storage,
        trusted: TrustKeeper,
        name: bytes,
        dice: random.Random,
    ) -> None:
        """`name` is the head-end's, whichever of its keys it proves to own."""
        self._stack = stack
        self._storage = storage
        self._trusted = trusted
        self._name = name
        self._dice = dice
        self._wanted: NumbersWanted | None = None
        self.reserve_at: float | None = None
        """When to try again to reserve numbers, or None."""

    def restore(self) -> bool:
        """Go on with the session that was kept, if there is one with this head-end."""
        saved = self._storage.session()
        if saved is None or not self._trusted.names(saved.head_end):
            return False
        self._stack.add_session(self._name, _restored(saved))
        return True

    def secure(self, peer: Peer, *, now: float) -> None:
        """Begin a handshake; SessionProposed or HandshakeFailed of the stack ends it."""
        saved = self._storage.session()
        last = saved.recipient_id if saved is not None else b""
        # Another one than last time: a late message of the old session must not fit the new one.
        number = last[0] + 1 if len(last) == 1 else self._dice.randrange(SHORT_IDENTIFIER_COUNT)
        self._stack.connect(
            peer,
            self._trusted.trust.credentials,
            c_i=bytes((number % SHORT_IDENTIFIER_COUNT,)),
            now=now,
            ead_1=self._trusted.trust.hint(),
            believe=self._trusted.believe,
            is_combining=True,
        )

    def keep(self, proposed: SessionProposed, *, now: float) -> bool:
        """Take a new session, durable before its use. Whether its key is another than before."""
        parameters = proposed.parameters
        with self._storage.together():
            has_followed = self._trusted.settle(proposed.id_cred)
            self._storage.keep_session(
                SavedSession(
                    proposed.id_cred.encode_map(),
                    parameters.recipient_id,
                    parameters.sender_id,
                    parameters.master_secret,
                    parameters.master_salt,
                    SEQUENCE_BLOCK,
                    ReplayWindow().state,
                )
            )
        self._stack.accept_session(proposed, self._name, reserved_until=SEQUENCE_BLOCK, now=now)
        return has_followed

    def reserve(self, wanted: NumbersWanted, *, now: float) -> bool:
        """Reserve the numbers that the stack waits for. Whether the keys are half worn."""
        self._storage.reserve_numbers(wanted.recipient_id, wanted.until)
        self._stack.numbers_reserved(wanted.recipient_id, wanted.until, now=now)
        return wanted.until > NUMBERS_MAX

    def postpone(self, wanted: NumbersWanted, *, now: float) -> None:
        """The numbers could not be reserved: try again in RESERVE_RETRY_S seconds."""
        self._wanted, self.reserve_at = wanted, now + RESERVE_RETRY_S

    def reserve_again(self, *, now: float) -> bool:
        """As `reserve`, of what was postponed."""
        wanted, self._wanted, self.reserve_at = self._wanted, None, None
        if wanted is None:
            return False
        try:
            return self.reserve(wanted, now=now)
        except StoreError:
            self.postpone(wanted, now=now)
            raise


def _restored(saved: SavedSession) -> SecurityContext:
    """The saved session's context: numbers go on at the reserved bound."""
    context = SecurityContext.derive(
        master_secret=saved.master_secret,
        master_salt=saved.master_salt,
        sender_id=saved.sender_id,
        recipient_id=saved.recipient_id,
    )
    context.resume(reserved_until=saved.reserved_until, window=saved.window)
    return context
