"""How meters and head-ends name their credentials, so that each can rebuild the other's.

Spec    docs/protocol/identity.md: method 3, suite 2, credentials by reference; a CCS with a P-256
        key (RFC 9528 section 3.5.2), never sent
Raises  ConfigError on text that is no public key

    who        kid                                           subject
    meter      its EUI-64, 8 octets                          the EUI-64 as 16 hex digits
    head-end   first 4 octets of SHA-256 of its public key   `head-end ` and the kid in hex
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from amistack.errors import ConfigError
from amistack.identifiers import EUI64_SIZE, Eui64, format_eui64
from amistack.session.credentials import Credential, IdCred, Kid, ccs_credential

PUBLIC_KEY_SIZE: Final = 33
HEAD_END_KID_SIZE: Final = 4


def encode_public_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """A P-256 public key as a compressed point (SEC 1), 33 octets."""
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def decode_public_key(octets: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 public key that those 33 octets are. Raises ConfigError."""
    if len(octets) != PUBLIC_KEY_SIZE:
        raise ConfigError(f"a public key of {len(octets)} octets, expected {PUBLIC_KEY_SIZE}")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), octets)
    except ValueError:
        raise ConfigError(f"{octets.hex()} is not a point on P-256, so no public key") from None


def parse_public_key(text: str) -> bytes:
    """The octets of a public key written as 66 hex digits. Raises ConfigError."""
    try:
        octets = bytes.fromhex(text.strip())
    except ValueError:
        raise ConfigError(
            f"{text.strip()[:80]!r} is not a public key: expected {2 * PUBLIC_KEY_SIZE} hex digits"
        ) from None
    decode_public_key(octets)
    return octets


def meter_credential(meter: Eui64, public_key: bytes) -> Credential:
    """A meter's credential from its EUI-64 and its compressed public key."""
    return ccs_credential(meter, format_eui64(meter), decode_public_key(public_key))


def head_end_kid(public_key: bytes) -> bytes:
    """The kid of a head-end's credential from its compressed public key."""
    return hashlib.sha256(public_key).digest()[:HEAD_END_KID_SIZE]


def head_end_credential(public_key: bytes) -> Credential:
    """A head-end's credential from its compressed public key."""
    kid = head_end_kid(public_key)
    return ccs_credential(kid, f"head-end {kid.hex()}", decode_public_key(public_key))


def meter_named(id_cred: IdCred) -> Eui64 | None:
    """The meter that calls itself by `id_cred`, or None if that is no meter's name."""
    if isinstance(id_cred, Kid) and len(id_cred.value) == EUI64_SIZE:
        return Eui64(id_cred.value)
    return None
