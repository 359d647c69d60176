"""Which head-end keys a meter trusts, how a new one is vouched for, and how a head-end chooses.

A utility's root key signs statements: this public key is a head-end's, of that epoch. Epochs only
rise, so an older key never comes back, whoever repeats its statement.

Spec    docs/protocol/identity.md, "Changing the head-end's key"; RFC 9052 (COSE_Sign1); RFC 9528
        3.8 (EAD)
In      statements, from an authentic request or from EAD_2; a hint, from EAD_1
Gives   what is trusted from then on, as a new value: nothing changes in place
Raises  TrustError on a statement that is not to be believed; then nothing has changed
Limit   STATEMENT_SIZE_MAX octets; two keys at a time, and KEYS_MAX of a head-end's own
Never   believes a statement by anybody but the root; takes a root in place of another

    statement   COSE_Sign1 (ES256, external_aad STATEMENT_PURPOSE) over [1, epoch, public key]
    EAD_1       EAD_LABEL, the kid of the newest key that the meter trusts
    EAD_2       EAD_LABEL, the statement of the key that answers, if it is not the one asked for
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec

from amistack.cbor import is_array
from amistack.errors import ConfigError, LocalProtocolError, TrustError
from amistack.session.credentials import AuthenticationKey, Credential, IdCred, Kid
from amistack.session.edhoc import EadItem
from amistack.session.fleet import (
    PUBLIC_KEY_SIZE,
    decode_public_key,
    head_end_credential,
    head_end_kid,
)
from amistack.session.signing import Signed, load_item, sign1

STATEMENT_VERSION: Final = 1
STATEMENT_PURPOSE: Final = b"amistack head-end key"
"""What a root's signature on a statement also covers: it is good for nothing else."""
STATEMENT_SIZE_MAX: Final = 256
EPOCH_MAX: Final = 2**32 - 1
KEYS_MAX: Final = 8
"""Keys that a head-end answers with."""
EAD_LABEL: Final = 65_001
"""Of the private range (RFC 9528 10.5); never sent as a critical one."""

FALSE_STATEMENT: Final = "not by the root"
OLD_EPOCH: Final = "an older epoch"


@dataclass(frozen=True, slots=True)
class KeyStatement:
    """What a root says: that public key (33 octets) is the head-end's in `epoch`, 1 or more."""

    epoch: int
    public_key: bytes

    def __post_init__(self) -> None:
        if not 1 <= self.epoch <= EPOCH_MAX:
            raise ConfigError(f"epoch {self.epoch}, expected 1 to {EPOCH_MAX}")
        decode_public_key(self.public_key)

    @property
    def kid(self) -> bytes:
        """The kid of the key."""
        return head_end_kid(self.public_key)


def issue(root: ec.EllipticCurvePrivateKey, statement: KeyStatement) -> bytes:
    """The statement, signed by the root."""
    payload = cbor2.dumps([STATEMENT_VERSION, statement.epoch, statement.public_key])
    return sign1(root, payload, external_aad=STATEMENT_PURPOSE)


def read_statement(octets: bytes, root: bytes) -> KeyStatement:
    """What the owner of the public key `root` says. Raises TrustError, whatever the octets."""
    if len(octets) > STATEMENT_SIZE_MAX:
        raise TrustError("too long", f"{len(octets)} octets, at most {STATEMENT_SIZE_MAX}")
    signed = Signed.decode(octets)
    if not signed.is_by(decode_public_key(root), external_aad=STATEMENT_PURPOSE):
        raise TrustError(FALSE_STATEMENT, "another key signed it, or something else was signed")
    tree = load_item(signed.payload, STATEMENT_SIZE_MAX)
    if not is_array(tree) or len(tree) != 3:
        raise TrustError("no statement", "expected an array of 3")
    version, epoch, public_key = tree
    if type(version) is not int or version != STATEMENT_VERSION:
        raise TrustError("another version", f"expected {STATEMENT_VERSION}")
    if type(epoch) is not int or not isinstance(public_key, bytes):
        raise TrustError("no statement", "expected an epoch and a public key")
    try:
        return KeyStatement(epoch, public_key)
    except ConfigError as error:
        raise TrustError("no statement", str(error)[:80]) from error


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A head-end's public key that a meter trusts; epoch 0 if it was written down for it."""

    epoch: int
    public_key: bytes

    @property
    def credential(self) -> Credential:
        """As EDHOC has it."""
        return head_end_credential(self.public_key)


@dataclass(frozen=True, slots=True)
class Trust:
    """What one meter trusts: a newest key, perhaps the one before it, perhaps a root.

    The key before stays until the head-end has proved to own the newest (`settle`): one that was
    lost before it was ever used must not cost the meter its head-end.
    """

    newest: TrustedKey
    before: TrustedKey | None = None
    root: bytes | None = None

    @classmethod
    def provisioned(cls, public_key: bytes, root: bytes | None) -> Trust:
        """What is written down for a meter. Raises ConfigError for what are no public keys."""
        decode_public_key(public_key)
        if root is not None:
            decode_public_key(root)
        return cls(TrustedKey(0, public_key), None, root)

    @property
    def keys(self) -> tuple[TrustedKey, ...]:
        """Every key that is trusted, the newest first."""
        return (self.newest,) if self.before is None else (self.newest, self.before)

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """The same as EDHOC has them."""
        return tuple(key.credential for key in self.keys)

    def accept(self, statement: bytes, root: bytes | None = None) -> Trust:
        """What is trusted after a statement in an authentic request; the same if it is known.

        Who has no root yet takes `root`, and the statement must be by it.
        """
        ours = self.root if self.root is not None else root
        if ours is None:
            raise TrustError("no root", "expected a root before any statement")
        if root is not None and root != ours:
            raise TrustError("another root", "a root is never replaced by a message")
        try:
            decode_public_key(ours)
        except ConfigError as error:
            raise TrustError("no root", str(error)[:80]) from error
        return replace(self._after(read_statement(statement, ours)), root=ours)

    def find(self, id_cred: IdCred, ead_2: Sequence[EadItem]) -> tuple[Credential, Trust] | None:
        """The credential of a responder that none of our keys names, by its statement in EAD_2.

        And what is trusted once it is authentic. None if there is none to be believed.
        """
        if self.root is None:
            return None
        for item in ead_2:
            if item.label != EAD_LABEL or item.value is None:
                continue
            try:
                statement = read_statement(item.value, self.root)
                after = self._after(statement)
            except TrustError:
                return None
            credential = head_end_credential(statement.public_key)
            return (credential, after) if credential.id_cred == id_cred else None
        return None

    def settle(self, id_cred: IdCred) -> Trust:
        """What is trusted when that responder proved to be the owner of its key."""
        if self.before is None or id_cred != self.newest.credential.id_cred:
            return self
        return replace(self, before=None)

    def hint(self) -> tuple[EadItem, ...]:
        """EAD_1: which of its keys the head-end should answer with."""
        return (EadItem(EAD_LABEL, head_end_kid(self.newest.public_key)),)

    def _after(self, statement: KeyStatement) -> Trust:
        """With that statement believed. Raises TrustError if it would lead back."""
        if statement.public_key == self.newest.public_key:
            if statement.epoch < self.newest.epoch:
                raise TrustError(OLD_EPOCH, f"{statement.epoch}, {self.newest.epoch} is known")
            return replace(self, newest=TrustedKey(statement.epoch, statement.public_key))
        if statement.epoch <= self.newest.epoch:
            raise TrustError(OLD_EPOCH, f"{statement.epoch}, {self.newest.epoch} is known")
        return replace(
            self,
            newest=TrustedKey(statement.epoch, statement.public_key),
            before=self.newest,
        )


class OwnKeys:
    """A head-end's own keys, and which of them answers whom.

    All that is in it may be asked for by a meter that trusts it; the `current` one answers
    whoever asks for none, or for one that is gone.
    """

    def __init__(self, current: AuthenticationKey) -> None:
        self._keys: dict[bytes, AuthenticationKey] = {}
        self._statements: dict[bytes, bytes] = {}
        self._current = kid_of(current)
        self._keys[self._current] = current

    @property
    def current(self) -> AuthenticationKey:
        """The key that answers whoever asks for none."""
        return self._keys[self._current]

    @property
    def kids(self) -> tuple[bytes, ...]:
        """The kids of all keys."""
        return tuple(self._keys)

    def add(self, key: AuthenticationKey, statement: bytes | None = None) -> None:
        """Answer with `key`, too. Raises LocalProtocolError beyond KEYS_MAX."""
        kid = kid_of(key)
        if kid not in self._keys and len(self._keys) >= KEYS_MAX:
            raise LocalProtocolError(f"{KEYS_MAX} keys are in use already")
        self._keys[kid] = key
        if statement is not None:
            self._statements[kid] = statement

    def set_statement(self, kid: bytes, statement: bytes) -> None:
        """What to send along when that key answers who asked for another."""
        self._statements[kid] = statement

    def use(self, kid: bytes) -> None:
        """Let that key be the current one. Raises LocalProtocolError if it is not there."""
        if kid not in self._keys:
            raise LocalProtocolError(f"key {kid.hex()} is not there")
        self._current = kid

    def remove(self, kid: bytes) -> None:
        """Answer with that key no more. Raises LocalProtocolError if it is the current one."""
        if kid == self._current:
            raise LocalProtocolError(f"key {kid.hex()} is the current one")
        self._keys.pop(kid, None)
        self._statements.pop(kid, None)

    def choose(self, ead_1: Sequence[EadItem]) -> tuple[AuthenticationKey, tuple[EadItem, ...]]:
        """The key to answer a message_1 with, and EAD_2. Nothing in EAD_1 is authentic."""
        wanted = next((item.value for item in ead_1 if item.label == EAD_LABEL), None)
        if wanted is None:
            return self.current, ()
        if wanted in self._keys:
            return self._keys[wanted], ()
        statement = self._statements.get(self._current)
        if statement is None:
            return self.current, ()
        return self.current, (EadItem(EAD_LABEL, statement),)


def kid_of(key: AuthenticationKey) -> bytes:
    """The kid that a head-end's key goes by."""
    name = key.credential.id_cred
    assert isinstance(name, Kid), "a head-end's credential goes by its kid"
    return name.value


def pack(trust: Trust, provisioned: Trust) -> bytes:
    """What a meter stores: its trust, and what was written down for it when it came about."""
    tree = [_tree_of(trust), _tree_of(provisioned)]
    return cbor2.dumps(tree)


def unpack(octets: bytes, provisioned: Trust) -> Trust:
    """The stored trust, or `provisioned` if something else is written down for the meter now.

    Raises TrustError on octets that `pack` does not write.
    """
    tree = load_item(octets, 2 * STATEMENT_SIZE_MAX)
    if not is_array(tree) or len(tree) != 2:
        raise TrustError("no stored trust", "expected an array of 2")
    trust, was_provisioned = map(_trust_from, tree)
    return trust if was_provisioned == provisioned else provisioned


def _tree_of(trust: Trust) -> object:
    return [trust.root, *([key.epoch, key.public_key] for key in trust.keys)]


def _trust_from(tree: object) -> Trust:
    if not is_array(tree) or len(tree) not in (2, 3):
        raise TrustError("no stored trust", "expected a root, a key, and perhaps another")
    root, *keys = tree
    if root is not None and not _is_key(root):
        raise TrustError("no stored trust", "its root is no key")
    found = []
    for key in keys:
        if not is_array(key) or len(key) != 2:
            raise TrustError("no stored trust", "expected an epoch and a key")
        epoch, public_key = key
        if type(epoch) is not int or not 0 <= epoch <= EPOCH_MAX or not _is_key(public_key):
            raise TrustError("no stored trust", "expected an epoch and a key")
        found.append(TrustedKey(epoch, public_key))
    return Trust(found[0], found[1] if len(found) > 1 else None, root)


def _is_key(octets: object) -> bool:
    if not isinstance(octets, bytes) or len(octets) != PUBLIC_KEY_SIZE:
        return False
    try:
        decode_public_key(octets)
    except ConfigError:
        return False
    return True
