"""The head-end's own identity: its key files, and the root's statements beside them.

    headend-key.pem             the current key: the settings name it, new meters are told it
    headend-key-KID.pem         the next key, while meters are told of it
    headend-key-KID.cbor        what the root says of a key
    headend-key-KID.retired.pem a key that answers no more

The files alone say which key is what, so that a store put back from a backup changes nothing here.

Raises  ConfigError, one line that says what to do
Never   deletes a key
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from amistack.errors import ConfigError, LocalProtocolError, TrustError
from amistack.keystore import flush_folder, load_key, make_key, save_key
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key, head_end_credential, head_end_kid
from amistack.session.trust import KeyStatement, OwnKeys, read_statement

STATEMENT_FILE_SIZE_MAX: Final = 1_024
_KID: Final = re.compile(r"[0-9a-f]{8}")


def load_identity(path: Path, secret: bytes | None = None) -> AuthenticationKey:
    """The key in the file at `path`, with the credential that meters know it by."""
    if not path.exists():
        raise ConfigError(f"{path} is missing: run `headend init` to make this head-end's key")
    return identity_of(load_key(path, secret))


def identity_of(key: ec.EllipticCurvePrivateKey) -> AuthenticationKey:
    """A key with the credential that meters know it by."""
    return AuthenticationKey(key, head_end_credential(encode_public_key(key.public_key())))


def public_key_of(path: Path, secret: bytes | None = None) -> str:
    """The public half of the key in that file, as meters are told it: 66 hex digits."""
    return encode_public_key(load_key(path, secret).public_key()).hex()


@dataclass(frozen=True, slots=True)
class OwnKey:
    """One of the head-end's keys. `statement` is what its root says of it, checked."""

    public_key: bytes
    is_current: bool
    statement: KeyStatement | None = None
    signed: bytes | None = None

    @property
    def kid(self) -> bytes:
        """The kid of the key."""
        return head_end_kid(self.public_key)


class IdentityFiles:
    """The key files around the one that the settings name, and the keys that they hold."""

    def __init__(self, path: Path, *, root: bytes | None, secret: bytes | None) -> None:
        """Load every key that is in use. Raises ConfigError.

        `root` is the public key whose statements count; without one there are none.
        """
        self._path = path
        self._root = root
        self._secret = secret
        self._listed: dict[bytes, OwnKey] = {}
        current = load_identity(path, secret)
        self.keys = OwnKeys(current)
        self._list(encode_public_key(load_key(path, secret).public_key()), is_current=True)
        for file in sorted(path.parent.glob(f"{path.stem}-*{path.suffix}")):
            name = file.name.removeprefix(f"{path.stem}-").removesuffix(path.suffix)
            if not _KID.fullmatch(name):
                continue  # A retired one, or somebody's copy.
            key = load_identity(file, secret)
            public_key = _public_key(key)
            if head_end_kid(public_key).hex() != name:
                raise ConfigError(f"{file} holds another key than its name says; move it away")
            if head_end_kid(public_key) in self._listed:
                continue  # The current one: a crash came between taking it up and tidying.
            listed = self._list(public_key, is_current=False)
            try:
                self.keys.add(key, listed.signed)
            except LocalProtocolError as error:
                raise ConfigError(f"{path.parent}: {error}; move old key files away") from error
        self._tell_statement(self.current)

    @property
    def root(self) -> bytes | None:
        """The root's public key, if there is one."""
        return self._root

    @property
    def current(self) -> OwnKey:
        """The key that answers whoever asks for none."""
        return next(one for one in self._listed.values() if one.is_current)

    @property
    def next(self) -> OwnKey | None:
        """The key that is to follow, if one was made; of several the one vouched for last."""
        return max(
            (one for one in self._listed.values() if not one.is_current),
            key=lambda one: 0 if one.statement is None else one.statement.epoch,
            default=None,
        )

    @property
    def next_epoch(self) -> int:
        """The epoch that a new statement is to have: above all that were used here."""
        return 1 + max((s.epoch for s in self._statements()), default=0)

    def make_next(self) -> OwnKey:
        """The next key: the one that was made already, or a new one in a file of its own."""
        if (there := self.next) is not None:
            return there
        private_key = make_key()
        key = identity_of(private_key)
        public_key = _public_key(key)
        save_key(self._file(head_end_kid(public_key)), private_key, self._secret)
        self.keys.add(key)
        return self._list(public_key, is_current=False)

    def certify(self, signed: bytes) -> OwnKey:
        """Keep the root's statement on one of our keys. The same again is harmless."""
        if self._root is None:
            raise ConfigError("there is no root: name its public key as identity.root_key")
        try:
            statement = read_statement(signed, self._root)
        except TrustError as error:
            raise ConfigError(f"this is no statement of our root: {error}") from None
        key = self._listed.get(statement.kid)
        if key is None or key.public_key != statement.public_key:
            raise ConfigError(
                f"the statement is on key {statement.kid.hex()}, which is none of ours"
            )
        if key.statement == statement:
            return key
        if statement.epoch < self.next_epoch:
            raise ConfigError(
                f"the statement is of epoch {statement.epoch}, expected {self.next_epoch} or more"
            )
        _write_whole(self._statement_file(statement.kid), signed)
        listed = self._list(key.public_key, is_current=key.is_current)
        self._tell_statement(listed)
        return listed

    def take_up_next(self) -> OwnKey:
        """Let the next key be the current one; the one before answers no more, its file stays."""
        following, before = self.next, self.current
        assert following is not None, "there is a key to follow"
        retired = self._path.with_name(f"{self._path.stem}-{before.kid.hex()}.retired.pem")
        try:
            # The current file is there at every moment, first the old one, then the new.
            if not retired.exists():
                os.link(self._path, retired)
            self._file(following.kid).replace(self._path)
            flush_folder(self._path.parent)
        except OSError as error:
            raise ConfigError(
                f"{self._path} cannot be replaced: {error.strerror or error}"
            ) from error
        self.keys.use(following.kid)
        self.keys.remove(before.kid)
        del self._listed[before.kid]
        return self._list(following.public_key, is_current=True)

    def _list(self, public_key: bytes, *, is_current: bool) -> OwnKey:
        signed = self._signed(head_end_kid(public_key))
        statement = None
        if signed is not None and self._root is not None:
            file = self._statement_file(head_end_kid(public_key))
            try:
                statement = read_statement(signed, self._root)
            except TrustError as error:
                raise ConfigError(f"{file} is no statement of our root: {error}") from None
            if statement.public_key != public_key:
                raise ConfigError(f"{file} is on another key than its name says; move it away")
        one = OwnKey(public_key, is_current, statement, signed if statement else None)
        self._listed[one.kid] = one
        return one

    def _tell_statement(self, one: OwnKey) -> None:
        """Have it sent to meters that ask for a key that is gone."""
        if one.signed is not None:
            self.keys.set_statement(one.kid, one.signed)

    def _statements(self) -> list[KeyStatement]:
        """Every statement that lies here, on keys in use and on retired ones."""
        found = []
        if self._root is not None:
            for file in self._path.parent.glob(f"{self._path.stem}-*.cbor"):
                signed = _read_small(file)
                try:
                    found.append(read_statement(signed, self._root))
                except TrustError:
                    continue  # Of an earlier root, say: it counts for nothing here.
        return found

    def _signed(self, kid: bytes) -> bytes | None:
        file = self._statement_file(kid)
        return _read_small(file) if file.exists() else None

    def _file(self, kid: bytes) -> Path:
        return self._path.with_name(f"{self._path.stem}-{kid.hex()}{self._path.suffix}")

    def _statement_file(self, kid: bytes) -> Path:
        return self._path.with_name(f"{self._path.stem}-{kid.hex()}.cbor")


def _public_key(key: AuthenticationKey) -> bytes:
    public = key.credential.public_key
    assert isinstance(public, ec.EllipticCurvePublicKey), "a head-end's key is on P-256"
    return encode_public_key(public)


def _read_small(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(STATEMENT_FILE_SIZE_MAX)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error


def _write_whole(file: Path, octets: bytes) -> None:
    """Write a file in one step: a crash leaves all of it or nothing."""
    beside = file.with_name(file.name + ".new")
    try:
        with beside.open("wb") as opened:
            opened.write(octets)
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(file)
        flush_folder(file.parent)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from error
