"""The keys and names that live exchanges use. They protect nothing: anybody can make them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from amistack.session.credentials import AuthenticationKey, ccs_credential

SCALAR_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """A P-256 key as a scalar, and its credential by reference."""

    scalar: bytes
    key: AuthenticationKey


def scalar_of(name: str) -> bytes:
    """32 octets that stand for a name."""
    return hashlib.sha256(name.encode()).digest()


def identity(name: str, kid: bytes) -> Identity:
    """An identity of that name, always the same."""
    scalar = scalar_of(name)
    private = ec.derive_private_key(int.from_bytes(scalar), ec.SECP256R1())
    credential = ccs_credential(kid, name, private.public_key())
    return Identity(scalar, AuthenticationKey(private, credential))


METER: Final = identity("meter", b"\x0a")
HEAD_END: Final = identity("head-end", b"\x0b")
