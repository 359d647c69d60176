"""Signed octets, with what they say inside: COSE_Sign1.

Spec    RFC 9052 4.2 and 4.4; RFC 9053 2.1 and 2.2, RFC 9864 (ESP256, Ed25519 by their own numbers)
Gives   the tagged form (18), its protected header with the algorithm alone or with a kid; reads any
        well-formed encoding of it, since others write it too
Raises  TrustError on octets that are no such thing, and nothing else, whatever the octets
Limit   SIGNED_SIZE_MAX octets
Never   decides whose signature is wanted: who asks names the key
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import cbor2
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from amistack.cbor import is_array, read_item
from amistack.errors import CborError, TrustError
from amistack.session.cose import KeyKind, is_signature, kind_of, sig_structure, sign

SIGNED_SIZE_MAX: Final = 16 * 1024 * 1024
TAG: Final = 18
TAG_OCTET: Final = 0xC0 | TAG
"""The first octet of every such thing: tag 18 in its shortest form."""
HEADER_ALG: Final = 1
HEADER_CRIT: Final = 2
HEADER_KID: Final = 4

ES256: Final = -7
EDDSA: Final = -8
ESP256: Final = -9
ED25519: Final = -19
_ALGORITHMS: Final[Mapping[KeyKind, tuple[int, ...]]] = {
    KeyKind.P256: (ES256, ESP256),
    KeyKind.ED25519: (EDDSA, ED25519),
}

SigningKey = EllipticCurvePrivateKey | Ed25519PrivateKey
VerifyingKey = EllipticCurvePublicKey | Ed25519PublicKey

NOT_SIGNED: Final = "not signed octets"


@dataclass(frozen=True, slots=True)
class Signed:
    """A COSE_Sign1 as it came; nothing of it is believed before `is_by`."""

    algorithm: int
    kid: bytes
    payload: bytes
    signature: bytes
    protected: bytes

    @classmethod
    def decode(cls, octets: bytes) -> Signed:
        """The COSE_Sign1 that `octets` hold: all of them, and nothing else."""
        item = load_item(octets, SIGNED_SIZE_MAX)
        if not isinstance(item, cbor2.CBORTag) or item.tag != TAG:
            raise TrustError(NOT_SIGNED, f"expected tag {TAG}")
        parts = item.value
        if not is_array(parts) or len(parts) != 4:
            raise TrustError(NOT_SIGNED, "expected an array of 4")
        protected, unprotected, payload, signature = parts
        is_formed = (
            isinstance(protected, bytes)
            and isinstance(unprotected, Mapping)
            and isinstance(payload, bytes)
            and isinstance(signature, bytes)
        )
        if not is_formed:
            raise TrustError(NOT_SIGNED, "expected headers, a payload inside and a signature")
        header = load_item(protected, SIGNED_SIZE_MAX) if protected else {}
        if not isinstance(header, Mapping):
            raise TrustError(NOT_SIGNED, "the protected header is no map")
        if HEADER_CRIT in header:
            raise TrustError("critical header", "none is known here")
        algorithm = header.get(HEADER_ALG)
        if type(algorithm) is not int:
            raise TrustError("no algorithm", "expected one in the protected header")
        kid = header.get(HEADER_KID, unprotected.get(HEADER_KID, b""))
        return cls(algorithm, kid if isinstance(kid, bytes) else b"", payload, signature, protected)

    def is_by(self, key: VerifyingKey, *, external_aad: bytes = b"") -> bool:
        """Whether the owner of `key` signed it, by an algorithm of that key."""
        kind = kind_of(key)
        if kind is None or self.algorithm not in _ALGORITHMS.get(kind, ()):
            return False
        covered = sig_structure(self.protected, external_aad, self.payload)
        return is_signature(key, self.signature, covered)


def sign1(
    key: SigningKey, payload: bytes, *, kid: bytes | None = None, external_aad: bytes = b""
) -> bytes:
    """`payload` signed by `key`, as the tagged form. With a `kid`, it stands protected."""
    header: dict[int, int | bytes] = {
        HEADER_ALG: ES256 if isinstance(key, EllipticCurvePrivateKey) else EDDSA
    }
    if kid is not None:
        header[HEADER_KID] = kid
    protected = cbor2.dumps(header)
    signature = sign(key, sig_structure(protected, external_aad, payload))
    return cbor2.dumps(cbor2.CBORTag(TAG, [protected, {}, payload, signature]))


def load_item(octets: bytes, size_max: int) -> object:
    """The one CBOR item that `octets` are, however it is encoded. Raises TrustError."""
    if len(octets) > size_max:
        raise TrustError("too long", f"{len(octets)} octets, at most {size_max}")
    stream = io.BytesIO(octets)
    try:
        item: object = read_item(stream)
    except CborError as error:
        raise TrustError(error.reason, error.detail) from error
    if stream.tell() != len(octets):
        raise TrustError("trailing octets", f"{len(octets) - stream.tell()} behind the item")
    return item
