"""A program's private key in a file that only its owner can read.

Gives   a P-256 key as PKCS #8 in PEM
Raises  ConfigError, one line: missing, unreadable, readable by others, or no such key
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from amistack.errors import ConfigError


def make_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key from the operating system's entropy."""
    return ec.generate_private_key(ec.SECP256R1())


def save_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a new key file, mode 0600 and flushed to disk. Raises ConfigError if there is one."""
    octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"{path} exists: a key is never overwritten; move it away first"
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


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in a file that `save_key` wrote. Raises ConfigError."""
    try:
        mode = path.stat().st_mode
        octets = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: `init` makes a key") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} is open to other users: chmod 600 {path}")
    try:
        key = load_pem_private_key(octets, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} is not a private key in PEM without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"{path} holds a key of another kind, expected P-256")
    return key
