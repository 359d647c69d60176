"""What this meter trusts, kept in its storage.

Raises  ModelError and TrustError on what is not to be taken; StoreError when it cannot be kept:
        nothing has changed then
Never   changes what is trusted before that is durable
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.errors import StoreUnusable, TrustError
from amistack.model import HeadEndKeyNotice
from amistack.session.credentials import Credential, IdCred
from amistack.session.edhoc import EadItem
from amistack.session.trust import Trust, pack, unpack
from meterd.storage import Storage

NOTE_NAME: Final = "trust"


class TrustKeeper:
    """The one place where a meter's trust changes."""

    def __init__(self, storage: Storage, provisioned: Trust) -> None:
        """`provisioned` is what the settings say; other settings than before begin anew.

        Raises StoreUnusable on a note that no meterd wrote.
        """
        self._storage = storage
        self._provisioned = provisioned
        self._candidate: tuple[Credential, Trust] | None = None
        self.trust = stored_trust(storage, provisioned)

    def take(self, notice: HeadEndKeyNotice) -> bool:
        """Believe an authentic notice; whether it brought another key. Durable when it returns."""
        after = self.trust.accept(notice.statement, notice.root)
        is_other = after.newest.public_key != self.trust.newest.public_key
        self._keep(after)
        return is_other

    def believe(self, id_cred: IdCred, ead_2: Sequence[EadItem]) -> Credential | None:
        """The credential of a responder that nobody wrote down, if its statement vouches for it."""
        self._candidate = self.trust.find(id_cred, ead_2)
        return None if self._candidate is None else self._candidate[0]

    def settle(self, id_cred: IdCred) -> bool:
        """That responder is authentic; whether this meter follows it to another key by that."""
        candidate, self._candidate = self._candidate, None
        if candidate is not None and candidate[0].id_cred == id_cred:
            self._keep(candidate[1].settle(id_cred))
            return True
        self._keep(self.trust.settle(id_cred))
        return False

    def names(self, name: bytes) -> bool:
        """Whether one of the trusted keys goes by that ID_CRED."""
        return any(one.id_cred.encode_map() == name for one in self.trust.credentials)

    def _keep(self, trust: Trust) -> None:
        if trust == self.trust:
            return
        self._storage.keep_note(NOTE_NAME, pack(trust, self._provisioned).hex())
        self.trust = trust


def stored_trust(storage: Storage, provisioned: Trust) -> Trust:
    """What the storage says, or `provisioned` where it says nothing that holds. StoreUnusable."""
    note = storage.note(NOTE_NAME)
    if note is None:
        return provisioned
    try:
        return unpack(bytes.fromhex(note), provisioned)
    except (TrustError, ValueError) as error:
        raise StoreUnusable(
            f"the meter's storage holds a trust that no meterd writes ({error}); move it away to "
            "start anew"
        ) from error
