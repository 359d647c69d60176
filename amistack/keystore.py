"""A program's private key in a file that only its owner can read, and a secret that seals it.

Gives   a P-256 key as PKCS #8 in PEM, plain or encrypted under the secret; `Sealer` for small
        secrets elsewhere
Raises  ConfigError, one line: missing, unreadable, readable by others, no such key, or sealed with
        another secret
Limit   SECRET_SIZE octets of secret, from a file, a systemd credential or the environment
Never   writes a secret into a message, or a key over another

The secret is random and as long as a key, so that PKCS #8's slow key derivation protects nothing
here; it is the form that other tools read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from amistack.errors import ConfigError

SECRET_SIZE: Final = 32
SECRET_FILE_SIZE_MAX: Final = 1_024
NETWORK_KEY_SIZE: Final = 16
CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
"""Where systemd puts a service's credentials (systemd.exec(5), LoadCredential=)."""
ENCRYPTED_MARK: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"

SEAL_VERSION: Final = b"\x01"
NONCE_SIZE: Final = 12
SEAL_OVERHEAD: Final = len(SEAL_VERSION) + NONCE_SIZE + 16
"""Octets that sealing adds: the version, the nonce, the tag."""
SEALER_INFO: Final = b"amistack secrets at rest"


# The secret


def find_secret(
    program: str, file: Path | None, *, environment: Mapping[str, str] = os.environ
) -> bytes | None:
    """The secret that seals what `program` keeps, or None where nobody gives one.

    From the `file` that its settings name, else from the systemd credential `PROGRAM-secret`, else
    from the variable `PROGRAM_SECRET`: 64 hex digits, or in a file also 32 octets.
    """
    if file is not None:
        return load_secret(file)
    credentials = environment.get(CREDENTIALS_DIRECTORY)
    if credentials:
        credential = Path(credentials) / f"{program}-secret"
        if credential.exists():
            # systemd keeps its folder from others; the mode of what is in it is its own affair.
            return load_secret(credential, is_private=False)
    variable = f"{program.upper()}_SECRET"
    text = environment.get(variable)
    return None if text is None else _secret_in(text.encode(errors="replace"), variable)


def load_secret(file: Path, *, is_private: bool = True) -> bytes:
    """The secret in a file: 64 hex digits or 32 octets; with `is_private` its owner's alone."""
    return _secret_in(_read(file, is_private=is_private, size_max=SECRET_FILE_SIZE_MAX), str(file))


def load_network_key(file: Path) -> bytes:
    """An area's network key: 32 hex digits in a file that is its owner's alone."""
    missing = f"{file} is missing: `meterd network-key` makes one for an area"
    octets = _read(file, is_private=True, missing=missing, size_max=SECRET_FILE_SIZE_MAX)
    try:
        key = bytes.fromhex(octets.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != NETWORK_KEY_SIZE:
        raise ConfigError(
            f"{file} holds no network key, expected {2 * NETWORK_KEY_SIZE} hex digits"
        )
    return key


def make_network_key(file: Path) -> None:
    """Put a new network key into a file that is not there yet."""
    _write_new(file, AESGCM.generate_key(8 * NETWORK_KEY_SIZE).hex().encode() + b"\n", "a key")


def make_secret() -> bytes:
    """A new secret from the operating system's entropy."""
    return AESGCM.generate_key(8 * SECRET_SIZE)


def save_secret(file: Path, secret: bytes) -> None:
    """Write a new file with a secret in hex, mode 0600. Raises ConfigError if there is one."""
    _write_new(file, secret.hex().encode() + b"\n", "a secret")


def _secret_in(octets: bytes, place: str) -> bytes:
    if len(octets) == SECRET_SIZE:
        return octets
    try:
        secret = bytes.fromhex(octets.decode("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != SECRET_SIZE:
        raise ConfigError(f"{place} holds no secret: expected {2 * SECRET_SIZE} hex digits")
    return secret


# Key files


def make_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key from the operating system's entropy."""
    return ec.generate_private_key(ec.SECP256R1())


def save_key(path: Path, key: ec.EllipticCurvePrivateKey, secret: bytes | None = None) -> None:
    """Write a new key file, mode 0600 and flushed to disk. Raises ConfigError if there is one.

    Encrypted under `secret`, if there is one.
    """
    _write_new(path, _pem(key, secret), "a key")


def replace_key(path: Path, key: ec.EllipticCurvePrivateKey, secret: bytes | None) -> None:
    """Write a key file anew, in one step: a crash leaves the old or the new. Raises ConfigError."""
    beside = path.with_name(path.name + ".new")
    try:
        beside.unlink(missing_ok=True)  # What a crash left behind.
        _write_new(beside, _pem(key, secret), "a key")
        beside.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def load_key(path: Path, secret: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """The key in a file that `save_key` wrote, with the same secret. Raises ConfigError.

    With a secret, a file that is not encrypted is refused: whoever gave one relies on it.
    """
    octets = _read(path, is_private=True, missing=f"{path} is missing: `init` makes a key")
    is_encrypted = octets.lstrip().startswith(ENCRYPTED_MARK)
    if is_encrypted and secret is None:
        raise ConfigError(
            f"{path} is encrypted, and there is no secret to open it: name its file in the settings"
        )
    if secret is not None and not is_encrypted and b"PRIVATE KEY" in octets:
        raise ConfigError(f"{path} is not encrypted, though there is a secret: `rekey` encrypts it")
    try:
        password = None if secret is None else secret.hex().encode()
        key = load_pem_private_key(octets, password=password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if is_encrypted:
            raise ConfigError(f"{path} is not opened by this secret, or it is damaged") from None
        raise ConfigError(f"{path} is not a private key in PEM without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"{path} holds a key of another kind, expected P-256")
    return key


def is_encrypted(path: Path) -> bool:
    """Whether a key file is encrypted. Raises ConfigError."""
    return _read(path, is_private=True).lstrip().startswith(ENCRYPTED_MARK)


def flush_folder(folder: Path) -> None:
    """Make it durable that files appeared in a folder or went. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Small secrets elsewhere


class Sealer:
    """Seals small secrets under a key that follows from the program's secret: AES-256-GCM.

    Each gets a random nonce: 2^32 of them may be sealed under one secret (NIST SP 800-38D 8.3).
    """

    __slots__ = ("_aead", "_entropy")

    def __init__(self, secret: bytes, *, entropy: Callable[[int], bytes]) -> None:
        """`entropy` gives so many random octets, the operating system's in a program."""
        self._entropy = entropy
        derived = HKDF(SHA256(), 32, salt=None, info=SEALER_INFO).derive(secret)
        self._aead = AESGCM(derived)

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """`plain` sealed: it opens only where it is `bound_to` the same octets."""
        nonce = self._entropy(NONCE_SIZE)
        return SEAL_VERSION + nonce + self._aead.encrypt(nonce, plain, bound_to)

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """What was sealed. Raises ConfigError for another secret, or changed octets."""
        start = len(SEAL_VERSION)
        if len(sealed) < SEAL_OVERHEAD or sealed[:start] != SEAL_VERSION:
            raise ConfigError("it is not sealed in a form that is known here")
        nonce, rest = sealed[start : start + NONCE_SIZE], sealed[start + NONCE_SIZE :]
        try:
            return self._aead.decrypt(nonce, rest, bound_to)
        except InvalidTag:
            raise ConfigError("it is not opened by this secret, or it was changed") from None


# Files


def _pem(key: ec.EllipticCurvePrivateKey, secret: bytes | None) -> bytes:
    form: KeySerializationEncryption = NoEncryption()
    if secret is not None:
        form = BestAvailableEncryption(secret.hex().encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, form)


def _write_new(path: Path, octets: bytes, what: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"{path} exists: {what} is never overwritten; move it away first"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # Half a key would stand in the way of the next attempt.
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def _read(
    path: Path, *, is_private: bool, missing: str | None = None, size_max: int = 1 << 16
) -> bytes:
    try:
        facts = path.stat()
        if facts.st_size > size_max:
            raise ConfigError(f"{path} is larger than {size_max} octets, so no key")
        octets = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(missing or f"{path} is missing") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    if is_private and facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} is open to other users: chmod 600 {path}")
    return octets
